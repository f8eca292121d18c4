//! state.json: what anybody may believe about a container (docs/contracts.md §5), and names in `tmp/`.
//!
//! Written by rename, so a reader sees the whole old document or the whole new one.
//! The pid in it is believed only together with the boot id and the start ticks, so a
//! supervisor that is killed leaves nothing that could be mistaken for a running container.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use duckweed_sys::identity;
use serde::{Deserialize, Serialize};

/// `running` or `exited`; a container without state.json was created and never started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Init lives, as far as its supervisor knows.
    Running,
    /// It ended, or never came to life.
    Exited,
}

/// The document. Field by field as in the contract.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct State {
    pub version: u32,
    pub status: Status,
    pub pid: i32,
    pub supervisor_pid: i32,
    pub supervisor_start: u64,
    pub boot_id: String,
    pub host: String,
    pub started_at: String,
    pub finished_at: Option<String>,
    pub exit_code: Option<i32>,
    pub error: String,
    pub socket: String,
    pub isolation: String,
    pub auto_remove: bool,
    /// Ports of the host that lead into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<crate::network::Published>,
}

/// Whether the container in this directory runs: its record says so, and the supervisor that wrote it lives.
#[must_use]
pub fn lives(container: &Path) -> bool {
    init_of(container).is_some()
}

/// The socket of the supervisor of the container in this directory.
#[must_use]
pub fn socket_of(container: &Path) -> Option<PathBuf> {
    State::read(container).map(|state| PathBuf::from(state.socket))
}

/// The first process of the container in this directory, as long as [`lives`] is true of it.
#[must_use]
pub fn init_of(container: &Path) -> Option<i32> {
    let state = State::read(container)?;
    let supervisor = rustix::process::Pid::from_raw(state.supervisor_pid)?;
    let is_running = state.status == Status::Running
        && identity::boot_id().is_ok_and(|boot_id| boot_id == state.boot_id)
        && identity::process_start(supervisor) == Some(state.supervisor_start);
    is_running.then_some(state.pid)
}

impl State {
    /// What is written of the container in this directory.
    fn read(container: &Path) -> Option<Self> {
        let bytes = std::fs::read(container.join("state.json")).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// A container that starts now, supervised by this process; pid and socket are not known yet.
    ///
    /// # Errors
    /// When /proc cannot say who we are.
    pub fn starting(auto_remove: bool) -> io::Result<Self> {
        let me = rustix::process::getpid();
        Ok(Self {
            version: 1,
            status: Status::Running,
            pid: 0,
            supervisor_pid: me.as_raw_nonzero().get(),
            supervisor_start: identity::process_start(me)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no /proc/self/stat"))?,
            boot_id: identity::boot_id()?,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            started_at: super::clock::now(),
            finished_at: None,
            exit_code: None,
            error: String::new(),
            socket: String::new(),
            isolation: "userns".to_owned(),
            auto_remove,
            ports: Vec::new(),
        })
    }

    /// A container whose first process runs; socket is not known yet.
    ///
    /// # Errors
    /// As [`State::starting`].
    pub fn of(pid: rustix::process::Pid, auto_remove: bool) -> io::Result<Self> {
        Ok(Self { pid: pid.as_raw_nonzero().get(), ..Self::starting(auto_remove)? })
    }

    /// The same container, ended now.
    pub fn end(&mut self, exit_code: i32, error: &str) {
        self.status = Status::Exited;
        self.finished_at = Some(super::clock::now());
        self.exit_code = Some(exit_code);
        error.clone_into(&mut self.error);
        self.socket.clear();
    }

    /// Puts the document at `<container>/state.json`, by way of the store's `tmp/`.
    ///
    /// # Errors
    /// What writing and rename(2) say; the old document is then still there.
    pub fn write(&self, store: &Path, container: &Path) -> io::Result<()> {
        let half_made = temporary(store, &self.boot_id, self.supervisor_start, "state")?;
        std::fs::write(&half_made, serde_json::to_vec(self)?)?;
        let moved = std::fs::rename(&half_made, container.join("state.json"));
        if moved.is_err() {
            let _ = std::fs::remove_file(&half_made);
        }
        moved
    }

    /// A new name in the store's `tmp/`, where anybody may clean up once we are dead.
    ///
    /// # Errors
    /// When `tmp/` cannot be made.
    pub fn temporary(&self, store: &Path, what: &str) -> io::Result<PathBuf> {
        temporary(store, &self.boot_id, self.supervisor_start, what)
    }
}

/// `<store>/tmp/<boot id, 8 hex>.<pid>.<start ticks>-<what>-<number>`: the owner makes the name ours, the number makes it new.
fn temporary(store: &Path, boot_id: &str, start: u64, what: &str) -> io::Result<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let directory = store.join("tmp");
    match std::fs::create_dir(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let boot: String = boot_id.chars().filter(|c| *c != '-').take(8).collect();
    let pid = rustix::process::getpid().as_raw_nonzero();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(directory.join(format!("{boot}.{pid}.{start}-{what}-{number}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_contracts_fields_and_nothing_half_made_stays() {
        let store = tempfile::tempdir().unwrap();
        let container = store.path().join("containers/c");
        std::fs::create_dir_all(&container).unwrap();
        let mut state = State::starting(true).unwrap();
        state.write(store.path(), &container).unwrap();
        state.end(137, "why");
        state.write(store.path(), &container).unwrap();
        let text = std::fs::read(container.join("state.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(json["status"], "exited");
        assert_eq!(json["exit_code"], 137);
        assert_eq!(json["error"], "why");
        assert_eq!(json["isolation"], "userns");
        assert_eq!(json["supervisor_pid"], std::process::id());
        assert!(json["finished_at"].as_str().unwrap() >= json["started_at"].as_str().unwrap());
        assert_eq!(std::fs::read_dir(store.path().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn temporary_names_say_who_made_them_and_are_never_the_same() {
        let store = tempfile::tempdir().unwrap();
        let state = State::starting(false).unwrap();
        let (a, b) =
            (state.temporary(store.path(), "rm").unwrap(), state.temporary(store.path(), "rm").unwrap());
        let owner = format!("{}.{}.{}-rm-", &state.boot_id[..8], std::process::id(), state.supervisor_start);
        assert!(a.file_name().unwrap().to_str().unwrap().starts_with(&owner));
        assert_ne!(a, b);
    }
}
