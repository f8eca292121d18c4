//! What a call means by a descriptor and a path; and which handler takes which call.

use std::collections::HashMap;

use rustix::fs::{AtFlags, Statx, CWD};
use rustix::io::Errno;

use super::tracee::Process;
use super::{
    attributes, descriptors, directories, ids, names, open, processes, program, sockets, stat, system,
};
use super::{Outcome, Tracer};
use crate::call::Call;
use crate::credentials::Credentials;
use crate::owners::ACCESS_LIST;
use crate::permission::{allows, Facts, EXECUTE};
use crate::union::{lstat, Asker, Follow, Spot, WANTED};
use crate::view::HERE;
use crate::world::World;

/// Answers a call.
pub(super) type Handler = fn(&mut Tracer, &Call) -> Outcome;

/// Who takes a call.
pub(super) fn handler(number: usize) -> Option<Handler> {
    let handler: Handler = match number as i64 {
        libc::SYS_open => open::open,
        libc::SYS_openat => open::openat,
        libc::SYS_openat2 => open::openat2,
        libc::SYS_creat => open::creat,
        libc::SYS_stat => stat::stat,
        libc::SYS_lstat => stat::lstat,
        libc::SYS_fstat => stat::fstat,
        libc::SYS_newfstatat => stat::newfstatat,
        libc::SYS_statx => stat::statx,
        libc::SYS_access => stat::access,
        libc::SYS_faccessat => stat::faccessat,
        libc::SYS_faccessat2 => stat::faccessat2,
        libc::SYS_statfs => stat::statfs,
        libc::SYS_fstatfs => stat::fstatfs,
        libc::SYS_readlink => names::readlink,
        libc::SYS_readlinkat => names::readlinkat,
        libc::SYS_mkdir => names::mkdir,
        libc::SYS_mkdirat => names::mkdirat,
        libc::SYS_rmdir => names::rmdir,
        libc::SYS_unlink => names::unlink,
        libc::SYS_unlinkat => names::unlinkat,
        libc::SYS_rename => names::rename,
        libc::SYS_renameat => names::renameat,
        libc::SYS_renameat2 => names::renameat2,
        libc::SYS_link => names::link,
        libc::SYS_linkat => names::linkat,
        libc::SYS_symlink => names::symlink,
        libc::SYS_symlinkat => names::symlinkat,
        libc::SYS_mknod => names::mknod,
        libc::SYS_mknodat => names::mknodat,
        libc::SYS_getdents64 => directories::getdents64,
        libc::SYS_getdents => directories::getdents,
        libc::SYS_getcwd => directories::getcwd,
        libc::SYS_chdir => directories::chdir,
        libc::SYS_chroot => directories::chroot,
        libc::SYS_inotify_add_watch => directories::inotify_add_watch,
        libc::SYS_chmod => attributes::chmod,
        libc::SYS_fchmodat => attributes::fchmodat,
        452 => attributes::fchmodat2,
        libc::SYS_chown => attributes::chown,
        libc::SYS_lchown => attributes::lchown,
        libc::SYS_fchownat => attributes::fchownat,
        libc::SYS_truncate => attributes::truncate,
        libc::SYS_utime => attributes::utime,
        libc::SYS_utimes => attributes::utimes,
        libc::SYS_futimesat => attributes::futimesat,
        libc::SYS_utimensat => attributes::utimensat,
        libc::SYS_setxattr => attributes::setxattr,
        libc::SYS_lsetxattr => attributes::lsetxattr,
        libc::SYS_getxattr => attributes::getxattr,
        libc::SYS_lgetxattr => attributes::lgetxattr,
        libc::SYS_listxattr => attributes::listxattr,
        libc::SYS_llistxattr => attributes::llistxattr,
        libc::SYS_removexattr => attributes::removexattr,
        libc::SYS_lremovexattr => attributes::lremovexattr,
        libc::SYS_fchmod => descriptors::fchmod,
        libc::SYS_fchown => descriptors::fchown,
        libc::SYS_fsetxattr => descriptors::fsetxattr,
        libc::SYS_fgetxattr => descriptors::fgetxattr,
        libc::SYS_flistxattr => descriptors::flistxattr,
        libc::SYS_fremovexattr => descriptors::fremovexattr,
        libc::SYS_execve => program::execve,
        libc::SYS_execveat => program::execveat,
        libc::SYS_bind => sockets::bind,
        libc::SYS_connect => sockets::connect,
        libc::SYS_sendto => sockets::sendto,
        libc::SYS_sendmsg => sockets::sendmsg,
        libc::SYS_sendmmsg => sockets::sendmmsg,
        libc::SYS_getsockname => |tracer, call| sockets::name(tracer, libc::SYS_getsockname, call),
        libc::SYS_getpeername => |tracer, call| sockets::name(tracer, libc::SYS_getpeername, call),
        libc::SYS_accept => |tracer, call| sockets::name(tracer, libc::SYS_accept, call),
        libc::SYS_accept4 => |tracer, call| sockets::name(tracer, libc::SYS_accept4, call),
        libc::SYS_socket => sockets::socket,
        libc::SYS_listen => sockets::listen,
        libc::SYS_recvfrom => sockets::recvfrom,
        libc::SYS_recvmsg => sockets::recvmsg,
        libc::SYS_recvmmsg => sockets::recvmmsg,
        libc::SYS_setsockopt => sockets::setsockopt,
        libc::SYS_getsockopt => sockets::getsockopt,
        libc::SYS_uname => system::uname,
        libc::SYS_sethostname => system::sethostname,
        libc::SYS_setdomainname => system::setdomainname,
        libc::SYS_capget => ids::capget,
        libc::SYS_prctl => ids::prctl,
        libc::SYS_seccomp => ids::seccomp,
        libc::SYS_kill => processes::kill,
        libc::SYS_tkill => processes::tkill,
        libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => processes::tgkill,
        libc::SYS_rt_sigqueueinfo
        | libc::SYS_pidfd_open
        | libc::SYS_process_vm_readv
        | libc::SYS_process_vm_writev
        | libc::SYS_sched_setparam
        | libc::SYS_sched_setscheduler
        | libc::SYS_sched_setattr
        | libc::SYS_setpgid
        | libc::SYS_migrate_pages
        | libc::SYS_move_pages => processes::by_number,
        libc::SYS_sched_setaffinity | libc::SYS_sched_getaffinity => processes::affinity,
        libc::SYS_setpriority | libc::SYS_ioprio_set => processes::priority,
        libc::SYS_prlimit64 => processes::prlimit64,
        libc::SYS_getrlimit | libc::SYS_setrlimit => ids::from_emulation,
        number => return ids::of(number),
    };
    Some(handler)
}

/// The caller, as the union asks for it.
pub(super) struct Who<'a> {
    thread: i32,
    process: i32,
    first: i32,
    processes: &'a HashMap<i32, Process>,
    tracees: &'a HashMap<i32, super::Tracee>,
    /// Who it is, when directories may be closed to it.
    user: Option<(&'a Credentials, &'a World)>,
    host_ids: (u32, u32),
}

impl Asker for Who<'_> {
    fn process(&self) -> i32 {
        self.process
    }

    fn thread(&self) -> i32 {
        self.thread
    }

    fn first(&self) -> i32 {
        self.first
    }

    fn knows(&self, process: i32) -> bool {
        self.processes.contains_key(&process) || self.tracees.contains_key(&process)
    }

    fn may_search(&self, spot: &Spot, is_root_mount: bool) -> Result<(), Errno> {
        let Some((who, world)) = self.user else { return Ok(()) };
        let Ok(stat) = lstat(&spot.host) else { return Ok(()) };
        let facts = facts(world, file_system(is_root_mount, &stat), &stat, self.host_ids);
        if allows(who, facts, EXECUTE) {
            return Ok(());
        }
        Err(Errno::ACCESS)
    }

    fn program(&self, process: i32) -> Option<Vec<u8>> {
        let process = self.tracees.get(&process).map_or(process, |tracee| tracee.process);
        self.processes.get(&process)?.program.clone()
    }
}

/// Ourselves.
pub(super) struct Nobody;

impl Asker for Nobody {
    fn process(&self) -> i32 {
        0
    }

    fn thread(&self) -> i32 {
        0
    }

    fn first(&self) -> i32 {
        0
    }

    fn knows(&self, _: i32) -> bool {
        false
    }

    fn may_search(&self, _: &Spot, _: bool) -> Result<(), Errno> {
        Ok(())
    }

    fn program(&self, _: i32) -> Option<Vec<u8>> {
        None
    }
}

/// The name of a file's file system in keys: 0 is the root's.
pub(super) fn file_system(is_root_mount: bool, stat: &Statx) -> u64 {
    match is_root_mount {
        true => 0,
        false => u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor) | 1 << 63,
    }
}

/// An id of the host's as everybody inside shall see it: ours is root, all others are nobody's.
pub(super) fn inner_id(host: u32, ours: u32) -> u32 {
    match host {
        id if id == ours => 0,
        _ => 65534,
    }
}

/// What decides about access to a file.
pub(super) fn facts<'a>(world: &'a World, file_system: u64, stat: &Statx, host_ids: (u32, u32)) -> Facts<'a> {
    let record = if world.owners.is_empty() { None } else { world.owners.find(file_system, stat) };
    let (uid, gid) = record
        .map_or((inner_id(stat.stx_uid, host_ids.0), inner_id(stat.stx_gid, host_ids.1)), |record| {
            (record.uid, record.gid)
        });
    let access_list = record.and_then(|record| record.xattrs.get(ACCESS_LIST)).map(Vec::as_slice);
    Facts { uid, gid, mode: u32::from(stat.stx_mode), access_list }
}

impl Tracer {
    /// The place that a call means.
    pub(super) fn place(
        &mut self,
        call: &Call,
        directory: i32,
        path: &[u8],
        follow: Follow,
    ) -> Result<Spot, Errno> {
        let base = match path.first() {
            None => return Err(Errno::NOENT),
            Some(b'/') => Vec::new(),
            Some(_) => self.directory(call, directory)?,
        };
        let root = self.root_of(call);
        self.walk(call, None, (&root, &base), path, follow)
    }

    /// As [`Tracer::place`], walked with other credentials than the caller's.
    pub(super) fn place_as(
        &mut self,
        who: &Credentials,
        call: &Call,
        directory: i32,
        path: &[u8],
        follow: Follow,
    ) -> Result<Spot, Errno> {
        let base = if path.first() == Some(&b'/') { Vec::new() } else { self.directory(call, directory)? };
        let root = self.root_of(call);
        self.walk(call, Some(who), (&root, &base), path, follow)
    }

    fn root_of(&self, call: &Call) -> Vec<u8> {
        let process = self.process_of(call);
        self.processes.get(&process).map_or_else(|| b"/".to_vec(), |one| one.root.clone())
    }

    /// As [`Tracer::place`], with a directory that stands for the root.
    pub(super) fn place_beneath(
        &mut self,
        call: &Call,
        root: &[u8],
        path: &[u8],
        follow: Follow,
    ) -> Result<Spot, Errno> {
        self.walk(call, None, (root, root), path, follow)
    }

    /// Whether a path that led to a spot had no links in it.
    pub(super) fn is_without_links(
        &self,
        call: &Call,
        directory: i32,
        path: &[u8],
        spot: &Spot,
    ) -> Result<bool, Errno> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let base = if path.first() == Some(&b'/') { Vec::new() } else { self.directory(call, directory)? };
        for name in base.split(|byte| *byte == b'/').chain(path.split(|byte| *byte == b'/')) {
            match name {
                b"" | b"." => {}
                b".." => drop(names.pop()),
                _ => names.push(name.to_vec()),
            }
        }
        let plain: Vec<u8> = names.iter().flat_map(|name| [b"/", &name[..]].concat()).collect();
        Ok(spot.kind != crate::union::Kind::Link
            && (plain == spot.path || plain.is_empty() && spot.path == b"/"))
    }

    fn walk(
        &mut self,
        call: &Call,
        who: Option<&Credentials>,
        (root, base): (&[u8], &[u8]),
        path: &[u8],
        follow: Follow,
    ) -> Result<Spot, Errno> {
        let process = self.process_of(call);
        let user = match who {
            Some(who) => Some((who, &self.world)),
            None if self.world.is_plain_root(call)? => None,
            None => Some((self.world.caller(call)?, &self.world)),
        };
        let who = Who {
            thread: call.pid,
            process,
            first: self.init,
            processes: &self.processes,
            tracees: &self.tracees,
            user,
            host_ids: self.settings.host_ids,
        };
        let mut spot = self.union.walk(&who, root, base, path, follow)?;
        if let Some(name) = spot.path.strip_prefix(b"/dev/pts/") {
            let number = std::str::from_utf8(name).ok().and_then(|name| name.parse().ok());
            if !number.is_none_or(|number: u32| self.terminals.contains(&number)) {
                spot.kind = crate::union::Kind::Missing;
            }
        }
        Ok(spot)
    }

    /// A terminal that the container has opened the master of.
    pub(super) fn learn_terminal(&mut self, call: &Call, descriptor: i32) {
        let text =
            self.world.view.read_proc(&format!("{}/fdinfo/{descriptor}", call.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("tty-index:"));
        self.terminals.extend(line.and_then(|number| number.trim().parse::<u32>().ok()));
    }

    /// Terminals that a process was given.
    pub(super) fn learn_given_terminals(&mut self, pid: i32) {
        for descriptor in 0..3 {
            let link = self.read_link(&format!("/proc/{pid}/fd/{descriptor}")).unwrap_or_default();
            let number = link
                .strip_prefix(b"/dev/pts/")
                .and_then(|name| std::str::from_utf8(name).ok()?.parse::<u32>().ok());
            self.terminals.extend(number);
        }
    }

    /// As [`Tracer::place`], a path of the tracee's memory.
    pub(super) fn place_at(
        &mut self,
        call: &Call,
        directory: i32,
        index: usize,
        follow: Follow,
    ) -> Result<Spot, Errno> {
        let path = call.text(index)?;
        self.place(call, directory, &path, follow)
    }

    /// Where a link leads.
    pub(super) fn target(&mut self, call: &Call, spot: &Spot) -> Result<Option<Vec<u8>>, Errno> {
        let process = self.process_of(call);
        let who = Who {
            thread: call.pid,
            process,
            first: self.init,
            processes: &self.processes,
            tracees: &self.tracees,
            user: None,
            host_ids: self.settings.host_ids,
        };
        self.union.link_target(&who, spot)
    }

    /// The caller's thread group.
    pub(super) fn process_of(&self, call: &Call) -> i32 {
        self.tracees.get(&call.pid).map_or(call.pid, |tracee| tracee.process)
    }

    /// Whether a number is one of the container's processes or threads.
    pub(super) fn is_ours(&self, pid: i32) -> bool {
        self.processes.contains_key(&pid) || self.tracees.contains_key(&pid)
    }

    /// The path inside of a descriptor's directory, or of the working directory.
    pub(super) fn directory(&self, call: &Call, descriptor: i32) -> Result<Vec<u8>, Errno> {
        let host = match descriptor {
            HERE => self.read_link(&format!("/proc/{}/cwd", call.pid))?,
            _ => self.descriptor(call, descriptor)?,
        };
        if host.first() != Some(&b'/') {
            return Err(Errno::NOTDIR);
        }
        self.reverse(&host).ok_or(Errno::NOENT)
    }

    /// What /proc says a descriptor is open on.
    pub(super) fn descriptor(&self, call: &Call, descriptor: i32) -> Result<Vec<u8>, Errno> {
        if descriptor < 0 {
            return Err(Errno::BADF);
        }
        self.read_link(&format!("/proc/{}/fd/{descriptor}", call.pid)).map_err(|errno| match errno {
            Errno::NOENT => Errno::BADF,
            other => other,
        })
    }

    fn read_link(&self, path: &str) -> Result<Vec<u8>, Errno> {
        Ok(rustix::fs::readlinkat(CWD, path, Vec::with_capacity(256))?.into_bytes())
    }

    /// The path inside of a host path, those of sockets' short directories included.
    pub(super) fn reverse(&self, host: &[u8]) -> Option<Vec<u8>> {
        self.union.reverse(host)
    }

    /// What statx(2) says of an open file of the caller's.
    pub(super) fn stat_descriptor(&self, call: &Call, descriptor: i32) -> Result<Statx, Errno> {
        let path = match descriptor {
            HERE => format!("/proc/{}/cwd", call.pid),
            _ if descriptor < 0 => return Err(Errno::BADF),
            _ => format!("/proc/{}/fd/{descriptor}", call.pid),
        };
        rustix::fs::statx(CWD, path, AtFlags::empty(), WANTED).map_err(|errno| match errno {
            Errno::NOENT => Errno::BADF,
            other => other,
        })
    }

    /// The file that an open descriptor shows inside, when it has a name there; copies of a layer's file count as it.
    pub(super) fn spot_of_descriptor(&mut self, call: &Call, descriptor: i32) -> Result<Option<Spot>, Errno> {
        let host = match descriptor {
            HERE => self.read_link(&format!("/proc/{}/cwd", call.pid))?,
            _ => self.descriptor(call, descriptor)?,
        };
        if host.first() != Some(&b'/') {
            return Ok(None);
        }
        let Some(path) = self.reverse(&host) else { return Ok(None) };
        let index = self.union.mount_of(&path);
        let Ok(spot) = self.union.at_mount(index, &path) else { return Ok(None) };
        if !spot.exists() {
            return Ok(None);
        }
        let (Ok(is), Ok(shown)) = (self.stat_descriptor(call, descriptor), lstat(&spot.host)) else {
            return Ok(None);
        };
        let same = stat::identity(&is) == stat::identity(&shown)
            || stat::origin(&self.origins, &is) == stat::origin(&self.origins, &shown)
            || spot.is_directory() && spot.trees > 1;
        Ok(same.then_some(spot))
    }

    /// See [`file_system`].
    pub(super) fn file_system(&self, path: &[u8], stat: &Statx) -> u64 {
        file_system(self.union.mount_of(path) == 0, stat)
    }

    /// What decides about access to what a spot shows.
    pub(super) fn facts(&self, spot: &Spot, stat: &Statx) -> Facts<'_> {
        let facts = facts(&self.world, file_system(spot.mount == 0, stat), stat, self.settings.host_ids);
        match self.proc_owner(spot) {
            Some((uid, gid)) => Facts { uid, gid, ..facts },
            None => facts,
        }
    }

    /// Whose an entry of /proc is: the process's that it is about.
    pub(super) fn proc_owner(&self, spot: &Spot) -> Option<(u32, u32)> {
        let mount = &self.union.mounts[spot.mount];
        if !matches!(mount.source, crate::union::Source::Proc) {
            return None;
        }
        let number = spot.path.get(mount.at.len() + 1..)?.split(|byte| *byte == b'/').next()?;
        let who = self.world.credentials(std::str::from_utf8(number).ok()?.parse().ok()?).ok()?;
        Some((who.uid.effective, who.gid.effective))
    }

    /// Whether the caller may do what is wanted with a file; the way there was looked at when it was walked.
    pub(super) fn require(&self, call: &Call, spot: &Spot, stat: &Statx, wanted: u32) -> Result<(), Errno> {
        if self.world.is_plain_root(call)? || allows(self.world.caller(call)?, self.facts(spot, stat), wanted)
        {
            return Ok(());
        }
        Err(Errno::ACCESS)
    }
}
