//! Id maps: which of the host's ids the container's ids are, user_namespaces(7).
//!
//! A process may map its own id by itself, without any privilege, when it gives up
//! setgroups(2) first. More ids come from /etc/subuid through newuidmap(1) and
//! newgidmap(1), which are setuid programs and take milliseconds: both are started at
//! once, while the child mounts what needs no ids.

use std::ffi::CString;
use std::path::Path;

use duckweed_sys::spawn::{c_string, spawn, Command};
use rustix::process::Pid;

use crate::spec::IdMap;
use crate::start_error::{Code, Doing as _, StartError};

/// Both maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Maps {
    uid: Vec<IdMap>,
    gid: Vec<IdMap>,
}

impl Maps {
    pub fn new(uid: &[IdMap], gid: &[IdMap]) -> Result<Self, StartError> {
        let own = |id: u32| vec![IdMap { container_id: 0, host_id: id, size: 1 }];
        match (uid.is_empty(), gid.is_empty()) {
            (false, false) => Ok(Self { uid: uid.to_vec(), gid: gid.to_vec() }),
            // As `crun spec --rootless` leaves them: root inside is who runs this.
            (true, true) => {
                let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
                Ok(Self { uid: own(uid), gid: own(gid) })
            }
            _ => {
                let message = "`linux.uidMappings` and `linux.gidMappings` come together";
                Err(StartError::new(Code::Spec, "read the id maps", message))
            }
        }
    }

    /// One uid and one gid, which a process may map by itself.
    pub fn is_single(&self) -> bool {
        self.uid.len() == 1 && self.gid.len() == 1 && self.uid[0].size == 1 && self.gid[0].size == 1
    }

    /// Whether a process with these ids may write a single map by itself: it maps them and no others.
    ///
    /// # Errors
    /// `idmap`, naming both ids, when the bundle was made for somebody else.
    pub fn check_caller(&self, uid: u32, gid: u32) -> Result<(), StartError> {
        if !self.is_single() {
            return Ok(());
        }
        for (name, line, own) in [("uid", &self.uid[0], uid), ("gid", &self.gid[0], gid)] {
            if line.host_id != own {
                let message = format!(
                    "`linux.{name}Mappings` maps {name} {} of the host, and this process has {name} {own}: \
                     without a subordinate range only one's own can be mapped",
                    line.host_id
                );
                return Err(StartError::new(Code::Idmap, "check the id maps", message));
            }
        }
        Ok(())
    }

    pub fn has_uid(&self, id: u32) -> bool {
        covers(&self.uid, id)
    }

    pub fn has_gid(&self, id: u32) -> bool {
        covers(&self.gid, id)
    }

    /// Writes the maps of the calling process, a single one.
    pub fn write_own(&self) -> Result<(), StartError> {
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/gid_map", &line(&self.gid[0]))?;
        write("/proc/self/uid_map", &line(&self.uid[0]))
    }

    /// Has newuidmap and newgidmap write the maps of `pid`.
    pub fn write_by_helpers(&self, pid: Pid) -> Result<(), StartError> {
        let uid = Helper::start("newuidmap", pid, &self.uid)?;
        let gid = Helper::start("newgidmap", pid, &self.gid);
        let uid = uid.finish();
        gid?.finish()?;
        uid
    }
}

fn covers(map: &[IdMap], id: u32) -> bool {
    map.iter().any(|line| id >= line.container_id && id - line.container_id < line.size)
}

fn line(map: &IdMap) -> String {
    format!("{} {} {}\n", map.container_id, map.host_id, map.size)
}

fn write(path: &'static str, text: &str) -> Result<(), StartError> {
    let file = rustix::fs::open(path, rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC, 0.into())
        .doing(Code::Idmap, || format!("open {path}"))?;
    rustix::io::write(&file, text.as_bytes()).doing(Code::Idmap, || format!("write {path}")).map(drop)
}

/// A started newuidmap or newgidmap.
struct Helper {
    name: &'static str,
    pid: Pid,
}

impl Helper {
    fn start(name: &'static str, target: Pid, map: &[IdMap]) -> Result<Self, StartError> {
        let mut argv = vec![program(name)?, number(target.as_raw_nonzero().get() as u32)?];
        for line in map {
            argv.extend([number(line.container_id)?, number(line.host_id)?, number(line.size)?]);
        }
        let stderr = rustix::stdio::stderr();
        let pid = spawn(&Command { argv: &argv, program: None, env: &[], fds: &[(stderr, 2)] })
            .doing(Code::Idmap, || format!("start {name}"))?;
        Ok(Self { name, pid })
    }

    fn finish(self) -> Result<(), StartError> {
        match super::reap(self.pid)? {
            0 => Ok(()),
            _ => {
                let message = format!(
                    "{} refused the id map: the ranges in /etc/subuid and /etc/subgid do not allow it",
                    self.name
                );
                Err(StartError::new(Code::Idmap, self.name, message))
            }
        }
    }
}

fn number(value: u32) -> Result<CString, StartError> {
    c_string(value.to_string()).doing(Code::Idmap, || "write a number")
}

/// Where the helper is; the usual place costs one look.
fn program(name: &str) -> Result<CString, StartError> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = std::iter::once("/usr/bin").chain(path.split(':')).map(|dir| Path::new(dir).join(name));
    for candidate in found {
        if candidate.is_absolute() && rustix::fs::access(&candidate, rustix::fs::Access::EXEC_OK).is_ok() {
            return c_string(&candidate).doing(Code::Idmap, || "name the helper");
        }
    }
    let message = format!("{name} is not installed, so only one uid can be mapped");
    Err(StartError::new(Code::Idmap, "find the id map helpers", message))
}

/// Reads `CONTAINER:HOST:SIZE[,..]`, the form of `within --uid-map`.
pub(crate) fn parse(text: &str) -> Result<Vec<IdMap>, String> {
    text.split(',')
        .map(|part| {
            let numbers: Vec<u32> = part.split(':').map_while(|n| n.parse().ok()).collect();
            match (numbers.as_slice(), part.split(':').count()) {
                (&[container_id, host_id, size], 3) if size > 0 => Ok(IdMap { container_id, host_id, size }),
                _ => Err(format!("`{part}` is no id map: it is CONTAINER:HOST:SIZE")),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_line_by_line() {
        let maps = parse("0:1000:1,1:100000:65536").unwrap();
        assert_eq!(maps[1], IdMap { container_id: 1, host_id: 100_000, size: 65536 });
        for wrong in ["", "0:1", "0:1:0", "0:1:2:3", "a:1:2", "0:1:2,", "0:-1:2"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_single_map_of_somebody_elses_id_is_refused_with_both_ids() {
        let (mine, theirs) = (parse("0:1000:1").unwrap(), parse("0:1001:1").unwrap());
        let refusal = |uid, gid| Maps::new(uid, gid).unwrap().check_caller(1000, 1000).unwrap_err().message;
        assert!(refusal(&theirs, &mine).contains("maps uid 1001 of the host, and this process has uid 1000"));
        assert!(refusal(&mine, &theirs).contains("maps gid 1001 of the host, and this process has gid 1000"));
        assert_eq!(Maps::new(&mine, &mine).unwrap().check_caller(1000, 1000), Ok(()));
        // What newuidmap may map is for it to say.
        let range = parse("0:1001:1,1:100000:10").unwrap();
        assert_eq!(Maps::new(&range, &range).unwrap().check_caller(1000, 1000), Ok(()));
    }

    #[test]
    fn only_one_line_of_one_id_is_single_and_a_map_covers_its_range_only() {
        let one = parse("0:1000:1").unwrap();
        let many = parse("0:1000:1,1:100000:10").unwrap();
        assert!(Maps::new(&one, &one).unwrap().is_single());
        assert!(!Maps::new(&many, &one).unwrap().is_single());
        let maps = Maps::new(&many, &one).unwrap();
        assert!(maps.has_uid(10) && !maps.has_uid(11) && !maps.has_gid(1));
    }
}
