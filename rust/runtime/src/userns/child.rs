//! The child's way from the fork to the command; [`super`] has the map.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use duckweed_sys::clone::{self, NEWNET, NEWPID, NEWUTS};
use duckweed_sys::mount::{set_attributes, Change, RDONLY};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{mount_change, MountPropagationFlags};
use rustix::net::{RecvFlags, SendFlags};

use super::ahead::Warm;
use super::credentials::{self, check_mapped, die_with_parent, hide_from_container, take_on};
use super::idmap::Maps;
use super::mounts::{self, Place, Prepared};
use super::plan::Plan;
use super::user::{self, Identity};
use super::{command, init, kernel, resolve, root, terminal};
use crate::emulation::Arrival;
use crate::isolation::Io;
use crate::spec::Mount;
use crate::start_error::{Code, Doing as _, StartError};

/// The largest /etc/passwd or /etc/group that is read.
const LARGEST_TABLE: u64 = 4 << 20;

/// Everything after the fork; the socket closes by itself when the command runs.
pub(super) fn become_command(plan: Plan<'_>, warm: Option<Warm>, socket: OwnedFd) -> ! {
    // While the host's /proc is there.
    let arrival = Arrival::first(&plan);
    let (error, socket) = match prepare(&plan, warm, &socket) {
        Ok((identity, env)) if plan.bundle.block.init => match init::stay_behind(socket) {
            Ok(socket) => (execute(&plan, &identity, &env, arrival, &socket), socket),
            Err((socket, error)) => (error, socket),
        },
        Ok((identity, env)) => (execute(&plan, &identity, &env, arrival, &socket), socket),
        Err(error) => (error, socket),
    };
    report(&socket, &error);
    clone::exit(error.exit_code)
}

/// Sends the error to the parent. Nobody can be told when that fails.
pub(crate) fn report(socket: &OwnedFd, error: &StartError) {
    if let Ok(json) = serde_json::to_vec(&kernel::explain(error.clone())) {
        let _ = rustix::net::send(socket, &json, SendFlags::NOSIGNAL);
    }
}

/// The last part of the way, the same for a container's command and an exec's.
pub(super) fn execute(
    plan: &Plan<'_>,
    identity: &Identity,
    env: &[String],
    arrival: Result<Arrival, StartError>,
    socket: &OwnedFd,
) -> StartError {
    match arrival.and_then(|arrival| become_user(plan, identity, env, &arrival, socket)) {
        Ok(program) => {
            let search = plan.bundle.block.path_search.unwrap_or(true);
            command::exec(&plan.bundle.spec.process.args[0], env, search, &program)
        }
        Err(error) => error,
    }
}

/// The container's world, up to the point where only the command's own nature is left.
fn prepare(
    plan: &Plan<'_>,
    mut warm: Option<Warm>,
    socket: &OwnedFd,
) -> Result<(Identity, Vec<String>), StartError> {
    let bundle = plan.bundle;
    die_with_parent()?;
    rustix::process::umask(Mode::empty());
    if let Some(adjustment) = bundle.spec.process.oom_score_adj {
        // Lowering it needs privilege on the host: not worth a container.
        let _ = std::fs::write("/proc/self/oom_score_adj", adjustment.to_string());
    }
    let mut ids = Ids { maps: plan.maps.as_ref(), socket, are_written: false, joined: bundle.joined };
    if bundle.joined || plan.maps.as_ref().is_some_and(Maps::is_single) {
        ids.settle()?;
    }
    let place = Place {
        bundle_dir: bundle.dir(),
        own_pid: plan.namespaces.has(NEWPID),
        own_network: plan.namespaces.has(NEWNET),
        maps: plan.maps.as_ref(),
    };
    let list = &bundle.spec.mounts;
    if let Some(root) = warm.as_mut().and_then(|warm| warm.root.take()) {
        name_and_network(plan, true, socket)?;
        for mount in list.iter().filter(|mount| mount.kind == "duckweed-file") {
            mounts::place(mount, mounts::prepare(mount, place)?, root.as_fd(), place, list)?;
        }
        return identified(plan, root.as_fd());
    }
    if warm.is_none() {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .doing(Code::Mount, || "make the mounts private")?;
    }
    let prepared: Vec<Prepared> = list
        .iter()
        .map(|mount| {
            let made = warm.as_mut().and_then(|warm| warm.take(mount));
            made.map_or_else(|| mounts::prepare(mount, place), Ok)
        })
        .collect::<Result<_, _>>()?;
    name_and_network(plan, warm.is_some(), socket)?;
    // Overlay tries its work directory as root would: without ids that is EACCES (seen on 6.18).
    ids.settle()?;
    let made = root::mount(&bundle.rootfs(), bundle.block.auto_remove.is_none())?;
    root::pivot(&made)?;
    let root_mount = made.top;
    furnish(plan, root_mount.as_fd(), list, prepared, place)?;
    let terminal = if let Io::Terminal { rows, cols } = plan.io { Some((rows, cols)) } else { None };
    if let Some((rows, cols)) = terminal {
        terminal::take(rows, cols, socket, true)?;
    }
    identified(plan, root_mount.as_fd())
}

/// Who the command runs as; the root is what it shall be after that.
fn identified(plan: &Plan<'_>, root: BorrowedFd<'_>) -> Result<(Identity, Vec<String>), StartError> {
    let result = identify(plan, root)?;
    if plan.bundle.spec.root.readonly {
        set_attributes(root, false, Change { set: RDONLY, ..Change::default() })
            .doing(Code::Rootfs, || "make the root read-only")?;
    }
    Ok(result)
}

/// The moment at which our ids are mapped, and we are root inside.
struct Ids<'a> {
    maps: Option<&'a Maps>,
    socket: &'a OwnedFd,
    are_written: bool,
    /// They were mapped before we were forked.
    joined: bool,
}

impl Ids<'_> {
    fn settle(&mut self) -> Result<(), StartError> {
        let Some(maps) = self.maps.filter(|_| !self.are_written) else { return Ok(()) };
        self.are_written = true;
        if self.joined {
            // Nothing to write.
        } else if maps.is_single() {
            maps.write_own()?;
        } else {
            let mut byte = [0];
            let (heard, _) = loop {
                match rustix::net::recv(self.socket, &mut byte, RecvFlags::empty()) {
                    Err(Errno::INTR) => {}
                    other => break other.doing(Code::Internal, || "hear from the parent")?,
                }
            };
            if heard == 0 {
                clone::exit(125);
            }
        }
        become_root(Some(maps))?;
        die_with_parent()?;
        hide_from_container()
    }
}

/// Takes on uid and gid 0 where they are mapped to someone else than who started us.
pub(super) fn become_root(maps: Option<&Maps>) -> Result<(), StartError> {
    if !maps.is_some_and(|maps| maps.has_uid(0) && maps.has_gid(0)) {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    if rustix::process::getgid() != gid {
        rustix::thread::set_thread_res_gid(gid, gid, gid).doing(Code::Idmap, || "become root inside")?;
    }
    if rustix::process::getuid() != uid {
        rustix::thread::set_thread_res_uid(uid, uid, uid).doing(Code::Idmap, || "become root inside")?;
    }
    Ok(())
}

/// What needs no ids at all.
fn name_and_network(plan: &Plan<'_>, is_up: bool, socket: &OwnedFd) -> Result<(), StartError> {
    let spec = &plan.bundle.spec;
    if plan.namespaces.has(NEWNET) && !is_up {
        duckweed_sys::interface::loopback_up()
            .doing(Code::Namespace, || "bring up the loopback interface")?;
    }
    if let Some(namespace) = &plan.bundle.shared_network {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)
            .doing(Code::Network, || "enter the other container's network")?;
    }
    if let (Some(network), Some(link)) = (&plan.bundle.block.network, &plan.bundle.link) {
        if !network.gate {
            crate::network::inside::make(network, link, socket)?;
        } else if plan.namespaces.has(NEWNET) {
            crate::network::inside::pretend(link);
        }
    }
    if plan.namespaces.has(NEWUTS) {
        if !spec.hostname.is_empty() {
            rustix::system::sethostname(spec.hostname.as_bytes())
                .doing(Code::Namespace, || "set the host name")?;
        }
        if !spec.domainname.is_empty() {
            rustix::system::setdomainname(spec.domainname.as_bytes())
                .doing(Code::Namespace, || "set the domain name")?;
        }
    }
    Ok(())
}

/// All that is mounted or set inside the root.
fn furnish(
    plan: &Plan<'_>,
    root: BorrowedFd<'_>,
    list: &[Mount],
    prepared: Vec<Prepared>,
    place: Place<'_>,
) -> Result<(), StartError> {
    let spec = &plan.bundle.spec;
    for (mount, prepared) in list.iter().zip(prepared) {
        mounts::place(mount, prepared, root, place, list)?;
    }
    for (key, value) in &spec.linux.sysctl {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        let file = resolve::open(root, &path, OFlags::WRONLY)
            .doing(Code::Namespace, || format!("set sysctl {key}"))?;
        rustix::io::write(&file, value.as_bytes())
            .doing(Code::Namespace, || format!("set sysctl {key}={value}"))?;
    }
    mounts::mask(&spec.linux.masked_paths, root)?;
    mounts::protect(&spec.linux.readonly_paths, root)
}

/// Who the command runs as, and its environment with a HOME; makes the working directory.
pub(super) fn identify(plan: &Plan<'_>, root: BorrowedFd<'_>) -> Result<(Identity, Vec<String>), StartError> {
    let process = &plan.bundle.spec.process;
    let wanted = plan.bundle.block.user.as_deref().unwrap_or_default();
    let mut env = process.env.clone();
    let fallback = as_written(process);
    let identity = look_up(root, wanted, &plan.bundle.block.groups, fallback, &mut env)?;
    if !plan.emulates_users() {
        check_mapped(&identity, wanted, plan.maps.as_ref())?;
    }
    if make_cwd(plan.bundle, root, &identity, plan.emulates_users())? {
        return Ok((Identity { made_home: Some(process.cwd.clone()), ..identity }, env));
    }
    Ok((identity, env))
}

/// As [`identify`], where ids are emulated and we are root.
pub(crate) fn identify_in(
    bundle: &crate::bundle::Bundle,
    root: BorrowedFd<'_>,
) -> Result<(Identity, Vec<String>), StartError> {
    let process = &bundle.spec.process;
    let wanted = bundle.block.user.as_deref().unwrap_or_default();
    let mut env = process.env.clone();
    let fallback = as_written(process);
    let identity = look_up(root, wanted, &bundle.block.groups, fallback, &mut env)?;
    make_cwd(bundle, root, &identity, false)?;
    Ok((identity, env))
}

/// The ids that config.json names, for a user that the image does not know.
fn as_written(process: &crate::spec::Process) -> Identity {
    Identity {
        uid: process.user.uid,
        gid: process.user.gid,
        groups: process.user.additional_gids.clone(),
        home: None,
        made_home: None,
    }
}

/// Makes the working directory if it is missing and wanted. It becomes the user's, or, where owners are told to the emulator
/// later, the answer is that this is still to be done.
fn make_cwd(
    bundle: &crate::bundle::Bundle,
    root: BorrowedFd<'_>,
    identity: &Identity,
    told_later: bool,
) -> Result<bool, StartError> {
    let cwd = Path::new(&bundle.spec.process.cwd);
    if !bundle.block.make_cwd || cwd.as_os_str().is_empty() {
        return Ok(false);
    }
    let Err(Errno::NOENT) = resolve::open(root, cwd, OFlags::PATH) else { return Ok(false) };
    let context = || format!("make the working directory {}", cwd.display());
    resolve::mount_point(root, cwd, resolve::Kind::Dir).doing(Code::BadCwd, context)?;
    let made = resolve::open(root, cwd, OFlags::RDONLY | OFlags::DIRECTORY).doing(Code::BadCwd, context)?;
    if !told_later {
        let (uid, gid) =
            (rustix::process::Uid::from_raw(identity.uid), rustix::process::Gid::from_raw(identity.gid));
        rustix::fs::fchown(made, Some(uid), Some(gid)).doing(Code::BadCwd, context)?;
    }
    Ok(told_later)
}

/// Finds a user, its groups and its home; reads passwd and group only when it must.
fn look_up(
    root: BorrowedFd<'_>,
    wanted: &str,
    groups: &[String],
    fallback: Identity,
    env: &mut Vec<String>,
) -> Result<Identity, StartError> {
    let has_home = env.iter().any(|variable| variable.starts_with("HOME="));
    let needs_names = !wanted.is_empty() && wanted != "0:0";
    let passwd = if needs_names || !has_home { table(root, "/etc/passwd")? } else { Vec::new() };
    let group = if needs_names || !groups.is_empty() { table(root, "/etc/group")? } else { Vec::new() };
    let mut identity = if wanted.is_empty() {
        Identity { home: user::home_of(fallback.uid, &passwd), ..fallback }
    } else {
        user::resolve(wanted, &passwd, &group)?
    };
    for name in groups {
        identity.groups.push(user::group_id(name, &group)?);
    }
    if !has_home {
        env.push(format!("HOME={}", identity.home.as_deref().filter(|home| !home.is_empty()).unwrap_or("/")));
    }
    Ok(identity)
}

/// The bytes of a file of the image; a missing one is empty, a pipe or device is refused.
fn table(root: BorrowedFd<'_>, path: &'static str) -> Result<Vec<u8>, StartError> {
    let context = || format!("read {path}");
    let file = match resolve::open(root, Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
    {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        other => other.doing(Code::BadUser, context)?,
    };
    let file = std::fs::File::from(file);
    if !file.metadata().doing(Code::BadUser, context)?.is_file() {
        return Err(StartError::new(
            Code::BadUser,
            context(),
            format!("{path} of the container is no regular file"),
        ));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST_TABLE).read_to_end(&mut bytes).doing(Code::BadUser, context)?;
    Ok(bytes)
}

/// From root inside to the command's user; nothing of ours is left after this.
fn become_user(
    plan: &Plan<'_>,
    identity: &Identity,
    env: &[String],
    arrival: &Arrival,
    socket: &OwnedFd,
) -> Result<duckweed_sys::exec::Program, StartError> {
    let process = &plan.bundle.spec.process;
    let program = command::program(&process.args, env)?;
    if let Io::Fds { stdin, stdout, stderr } = &plan.io {
        terminal::stdio(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
            .doing(Code::Internal, || "hand over stdio")?;
    }
    duckweed_sys::exec::close_on_exec_from(3).doing(Code::Internal, || "close what is inherited")?;
    credentials::limit(&process.rlimits)?;
    rustix::process::umask(Mode::from_raw_mode(process.user.umask.unwrap_or(0o022)));
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    let entered = rustix::process::chdir(cwd);
    // Setuid programs are emulated, so the kernel need not honour them.
    let no_new_privileges = process.no_new_privileges || plan.emulation.is_some();
    if no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing(Code::Internal, || "set no_new_privs")?;
    } else {
        filter(plan, identity, arrival, socket)?;
    }
    let root = Identity { groups: identity.groups.clone(), ..Identity::default() };
    take_on(if plan.emulates_users() { &root } else { identity }, plan.capabilities, plan.maps.as_ref())?;
    if entered.is_err() {
        // Root inside may be nobody on a network file system where the user is somebody.
        rustix::process::chdir(cwd).doing(Code::BadCwd, || format!("enter the working directory {cwd}"))?;
    }
    duckweed_sys::exec::reset_signals();
    parent_is_there(socket)?;
    if no_new_privileges {
        filter(plan, identity, arrival, socket)?;
    }
    Ok(program)
}

fn filter(
    plan: &Plan<'_>,
    identity: &Identity,
    arrival: &Arrival,
    socket: &OwnedFd,
) -> Result<(), StartError> {
    match &plan.filter {
        Some(filter) if plan.asks() => arrival.announce(filter, identity, socket),
        Some(filter) => duckweed_sys::seccomp::install(&filter.program, filter.flags)
            .doing(Code::Seccomp, || "install the system call filter"),
        None => Ok(()),
    }
}

/// The death signal was armed by now; a parent that died before it was leaves its end closed.
fn parent_is_there(socket: &OwnedFd) -> Result<(), StartError> {
    let mut byte = [0];
    match rustix::net::recv(socket, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => clone::exit(125),
        _ => Ok(()),
    }
}
