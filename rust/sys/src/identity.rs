//! Which boot this is and which process a pid means: what makes a pid on disk believable.
//!
//! A pid alone can come to mean another process. Together with the start time of
//! the process (field 22 of proc_pid_stat(5), in clock ticks since boot) and the
//! boot id it names one process for ever.

use std::fs;
use std::io;

use rustix::process::Pid;

/// The kernel's random id of this boot, 36 characters.
///
/// # Errors
/// When /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// When `pid` started, in clock ticks since boot; `None` when there is no such process.
pub fn process_start(pid: Pid) -> Option<u64> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    start_field(&stat)
}

/// Field 22 of a stat line; the second field may hold spaces and parentheses, so counting starts after the last `)`.
fn start_field(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let mut fields = stat.get(after..)?.split(|byte| *byte == b' ');
    // A zombie is dead, however long it takes somebody to reap it: in many a pod nobody does.
    if matches!(fields.next()?, b"Z" | b"X") {
        return None;
    }
    let field = fields.nth(18)?;
    std::str::from_utf8(field).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = b"12 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_field(line), Some(4242));
    }

    #[test]
    fn a_zombie_counts_as_dead() {
        let line = b"12 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(start_field(line), None);
    }

    #[test]
    fn our_own_start_is_known_and_a_dead_pid_has_none() {
        assert!(process_start(rustix::process::getpid()).is_some());
        assert_eq!(process_start(Pid::from_raw(i32::MAX).unwrap()), None);
    }

    #[test]
    fn boot_id_is_a_uuid() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
