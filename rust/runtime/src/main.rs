//! `duckweed-runtime`: the static helper. What it can do is in the library; this file finds
//! out which of it is wanted (docs/contracts.md §7).
//!
//! Programs call it, not people, so the parser is small and strict: `--name value`,
//! `--name=value`, switches, words. A mistake is one line on stderr and exit code 125.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use duckweed_runtime::client::{self, DetachKeys, Manners, Reach};
use duckweed_runtime::message::{packet, Exec};
use duckweed_runtime::sealed;
use duckweed_runtime::supervise;
use duckweed_runtime::userns;

/// A line for stderr, and the exit code with it.
struct Mistake(String, i32);

impl<T: std::fmt::Display> From<T> for Mistake {
    fn from(message: T) -> Self {
        Self(message.to_string(), 125)
    }
}

fn main() {
    let mut words = std::env::args_os().skip(1);
    let verb = words.next().unwrap_or_default();
    if verb == "supervise" || verb == "run" {
        sealed::run_sealed();
    }
    let code = match run(&verb.to_string_lossy(), words.collect()) {
        Ok(code) => code,
        Err(Mistake(message, code)) => {
            eprintln!("duckweed: {message}");
            code
        }
    };
    std::process::exit(code);
}

fn run(verb: &str, words: Vec<OsString>) -> Result<i32, Mistake> {
    match verb {
        "supervise" => supervise(words),
        "run" => run_bundle(words),
        "attach" => attach(words),
        "exec" => exec(words),
        "probe" => probe(words),
        "userns" => share_userns(words),
        "within" => within(words),
        "freeze" => freeze(words),
        "copy" => copy(words),
        "features" => features(),
        "--version" => version(),
        _ => Err(format!("unknown verb `{verb}`").into()),
    }
}

fn supervise(words: Vec<OsString>) -> Result<i32, Mistake> {
    let mut given = Given::read(words, &["container", "channel", "userns"], &["daemonize", "inherit"])?;
    let options = supervise::Options {
        container: given.value("container").map(PathBuf::from),
        channel: given.channel()?,
        daemonize: given.switch("daemonize"),
        inherit: given.switch("inherit"),
        userns: given.descriptor("userns")?,
    };
    if options.container.is_none() && !options.inherit {
        return Err("--container is missing".into());
    }
    // What went wrong was said on the channel; stderr may be the container's caller's.
    Ok(supervise::main(options).unwrap_or_else(|error| error.exit_code))
}

/// Makes a user namespace and sends the descriptor that keeps it over the channel.
fn share_userns(words: Vec<OsString>) -> Result<i32, Mistake> {
    let mut given = Given::read(words, &["uid-map", "gid-map", "channel"], &[])?;
    let channel = given.channel()?;
    let mut map = |name| given.value(name).ok_or_else(|| format!("--{name} is missing"));
    let (uids, gids) = (map("uid-map")?, map("gid-map")?);
    let namespace = userns::make(&uids.to_string_lossy(), &gids.to_string_lossy())
        .map_err(|error| Mistake(error.message, error.exit_code))?;
    packet::send(channel.as_fd(), b'J', b"{\"ok\":true}", &[namespace.as_fd()])
        .map_err(|error| format!("answer on the channel: {error}"))?;
    Ok(0)
}

/// Its options are read where its facts are found.
fn probe(words: Vec<OsString>) -> Result<i32, Mistake> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    duckweed_runtime::probe::main(&words)?;
    Ok(0)
}

fn run_bundle(words: Vec<OsString>) -> Result<i32, Mistake> {
    let mut given = Given::read(words, &["bundle"], &[])?;
    let bundle = given.path("bundle")?;
    let id = given.words.pop().ok_or("a container id is missing")?;
    userns::run_bundle(&bundle, &id.to_string_lossy())
        .map_err(|error| Mistake(error.message, error.exit_code))
}

fn attach(words: Vec<OsString>) -> Result<i32, Mistake> {
    let switches = ["stdin", "tty", "no-stdout", "no-sig-proxy"];
    let mut given = Given::read(words, &["socket", "channel", "detach-keys"], &switches)?;
    let reach = match given.value("socket") {
        Some(path) => Reach::Socket(path.into()),
        None => Reach::Channel(given.channel()?),
    };
    Ok(client::attach(reach, given.manners()?))
}

fn exec(words: Vec<OsString>) -> Result<i32, Mistake> {
    let switches = ["stdin", "tty", "no-sig-proxy"];
    let mut given = Given::read(words, &["socket", "request", "detach-keys"], &switches)?;
    let socket = given.path("socket")?;
    let request = given.value("request").ok_or("--request is missing")?;
    let mut request: Exec =
        serde_json::from_slice(request.as_bytes()).map_err(|error| format!("--request: {error}"))?;
    request.tty |= given.switch("tty");
    let mut manners = given.manners()?;
    manners.tty = request.tty;
    Ok(client::exec(&socket, request, manners))
}

fn within(words: Vec<OsString>) -> Result<i32, Mistake> {
    let mut given = Given::read(words, &["uid-map", "gid-map"], &[])?;
    let mut map = |name| given.value(name).ok_or_else(|| format!("--{name} is missing"));
    let (uids, gids) = (map("uid-map")?, map("gid-map")?);
    duckweed_runtime::within::run(&uids.to_string_lossy(), &gids.to_string_lossy(), &given.words)
        .map_err(|error| Mistake(error.message, error.exit_code))
}

fn freeze(words: Vec<OsString>) -> Result<i32, Mistake> {
    let mut given = Given::read(words, &["pid"], &[])?;
    let pid = given.value("pid").ok_or("--pid is missing")?;
    let pid = pid.to_string_lossy().parse().map_err(|_| "--pid: not a number")?;
    duckweed_runtime::freeze::run(pid)?;
    Ok(0)
}

fn copy(words: Vec<OsString>) -> Result<i32, Mistake> {
    let mut given = Given::read(words, &["container", "pid"], &[])?;
    let container = given.path("container")?;
    let pid = match given.value("pid") {
        Some(pid) => Some(pid.to_string_lossy().parse().map_err(|_| "--pid: not a number")?),
        None => None,
    };
    let request = given.words.pop().ok_or("the request is missing")?;
    duckweed_runtime::copying::run(&container, pid, &request.to_string_lossy())
        .map_err(|error| Mistake(error.message, error.exit_code))
}

/// What the OCI's features.md asks for, as far as there is an answer.
#[allow(clippy::print_stdout)] // the answer
fn features() -> Result<i32, Mistake> {
    let namespaces = ["user", "mount", "pid", "ipc", "uts", "network", "cgroup"];
    let features = serde_json::json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "hooks": [],
        "mountOptions": ["bind", "rbind", "ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime"],
        "linux": {
            "namespaces": namespaces,
            "cgroup": {"v1": false, "v2": false, "systemd": false, "systemdUser": false},
            "seccomp": {"enabled": true},
            "apparmor": {"enabled": false},
            "selinux": {"enabled": false},
        },
    });
    println!("{features}");
    Ok(0)
}

#[allow(clippy::print_stdout)]
fn version() -> Result<i32, Mistake> {
    println!("duckweed-runtime {}\nspec: 1.2.0", env!("CARGO_PKG_VERSION"));
    Ok(0)
}

/// What a verb was given.
#[derive(Default)]
struct Given {
    values: Vec<(String, OsString)>,
    switches: Vec<String>,
    words: Vec<OsString>,
}

impl Given {
    /// Sorts a verb's words; `values` and `switches` are the options it has. The first word ends the options.
    fn read(words: Vec<OsString>, values: &[&str], switches: &[&str]) -> Result<Self, String> {
        let mut given = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(option) = word.as_bytes().strip_prefix(b"--") else {
                given.words = std::iter::once(word).chain(words).collect();
                break;
            };
            let mut parts = option.splitn(2, |byte| *byte == b'=');
            let name = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
            let inline = parts.next().map(|value| OsString::from_vec(value.to_vec()));
            if values.contains(&name.as_str()) {
                let value =
                    inline.or_else(|| words.next()).ok_or_else(|| format!("--{name} needs a value"))?;
                given.values.push((name, value));
            } else if switches.contains(&name.as_str()) && inline.is_none() {
                given.switches.push(name);
            } else {
                return Err(format!("unknown option `{}`", word.to_string_lossy()));
            }
        }
        Ok(given)
    }

    fn value(&mut self, name: &str) -> Option<OsString> {
        let found = self.values.iter().rposition(|(given, _)| given == name)?;
        Some(self.values.swap_remove(found).1)
    }

    fn path(&mut self, name: &str) -> Result<PathBuf, String> {
        self.value(name).map(PathBuf::from).ok_or_else(|| format!("--{name} is missing"))
    }

    fn switch(&self, name: &str) -> bool {
        self.switches.iter().any(|given| given == name)
    }

    fn channel(&mut self) -> Result<std::os::fd::OwnedFd, String> {
        self.descriptor("channel")?.ok_or_else(|| "--channel is missing".into())
    }

    /// An inherited descriptor, given by number.
    fn descriptor(&mut self, name: &str) -> Result<Option<std::os::fd::OwnedFd>, String> {
        let Some(number) = self.value(name) else { return Ok(None) };
        let number = number.to_str().and_then(|text| text.parse().ok());
        let number = number.ok_or_else(|| format!("--{name} needs a number"))?;
        duckweed_sys::fd::adopt(number).map(Some).map_err(|error| format!("--{name} {number}: {error}"))
    }

    fn manners(&mut self) -> Result<Manners, String> {
        let keys = self.value("detach-keys").unwrap_or_default();
        let keys = <OsStr>::to_str(&keys).ok_or("--detach-keys needs text")?.to_owned();
        Ok(Manners {
            stdin: self.switch("stdin"),
            tty: self.switch("tty"),
            stdout: !self.switch("no-stdout"),
            sig_proxy: !self.switch("no-sig-proxy"),
            detach_keys: DetachKeys::parse(&keys)?,
        })
    }
}
