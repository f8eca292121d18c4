//! The words of config.json: the part of the OCI runtime specification 1.2 that is
//! honoured, and the annotation block `io.duckweed.container` (contracts.md §4).
//!
//! Unknown keys are ignored, as the specification asks. Plain data: [`crate::bundle`]
//! reads it and [`crate::userns`] acts on it.

use std::path::PathBuf;

use serde::Deserialize;

use crate::seccomp::oci::Seccomp;

/// config.json.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // The names are the specification's (config.md); repeating its text would add nothing.
pub struct Spec {
    pub process: Process,
    pub root: Root,
    pub hostname: String,
    pub domainname: String,
    pub mounts: Vec<Mount>,
    pub linux: Linux,
    pub annotations: Annotations,
}

/// The one annotation we read; it holds a [`Block`] as a string.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    /// JSON of [`Block`].
    #[serde(rename = "io.duckweed.container")]
    pub block: Option<String>,
}

/// `process` of config.md.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Process {
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
}

/// `process.consoleSize`, in characters.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[allow(missing_docs)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

/// `process.user`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
}

/// `process.capabilities`: names such as `CAP_CHOWN`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// `root`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Root {
    pub path: PathBuf,
    pub readonly: bool,
}

/// One of `mounts`; bind mounts may carry `create=dir|file` among their options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: PathBuf,
    pub options: Vec<String>,
    /// What a `duckweed-file` holds.
    pub text: String,
    /// The trees that a `duckweed-overlay` shows merged, topmost first.
    pub lower: Vec<PathBuf>,
    /// Where its changes go; read-only without.
    pub upper: Option<PathBuf>,
    /// Overlay's own directory beside `upper`.
    pub work: Option<PathBuf>,
}

/// `linux` of config-linux.md.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Linux {
    pub namespaces: Vec<Namespace>,
    pub uid_mappings: Vec<IdMap>,
    pub gid_mappings: Vec<IdMap>,
    pub seccomp: Option<Seccomp>,
    pub masked_paths: Vec<PathBuf>,
    pub readonly_paths: Vec<PathBuf>,
    pub sysctl: std::collections::BTreeMap<String, String>,
}

/// One of `linux.namespaces`.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: NamespaceKind,
    #[serde(default)]
    pub path: Option<PathBuf>,
}

/// The kinds of namespaces(7) that clone(2) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NamespaceKind {
    User,
    Mount,
    Pid,
    Ipc,
    Uts,
    Network,
    Cgroup,
    /// Asked for and not made: a time namespace cannot be entered by clone(2) itself.
    Time,
}

/// One line of a map: `size` ids from `container_id` on are `host_id` and following.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[allow(missing_docs)]
pub struct IdMap {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

/// What the specification lacks: the annotation `io.duckweed.container`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Block {
    /// 64 hex digits.
    pub id: String,
    /// Docker's name of the container.
    pub name: String,
    /// How `/` is made; absent: a ready tree at `root.path`.
    pub rootfs: Option<Rootfs>,
    /// `name|uid[:group|gid]`, resolved inside; overrides `process.user`.
    pub user: Option<String>,
    /// More groups, names or numbers.
    pub groups: Vec<String>,
    /// Look `args[0]` up in `PATH`.
    pub path_search: Option<bool>,
    /// Make `cwd` when it is missing.
    pub make_cwd: bool,
    /// The profile when `linux.seccomp` is absent.
    pub seccomp: Option<SeccompProfile>,
    /// How it is held apart.
    pub isolation: Isolation,
    /// What the supervisor answers for the kernel.
    pub root_emulation: RootEmulation,
    /// `--security-opt no-new-privileges` was asked for: setuid programs are not emulated either.
    pub refuses_setuid: bool,
    /// Pid 1 is ours.
    pub init: bool,
    /// Managed mode: what the command reads.
    pub stdin: Option<Stdin>,
    /// Managed mode: where output goes.
    pub log: Option<Log>,
    /// Signal number that asks the container to stop.
    pub stop_signal: Option<i32>,
    /// Seconds between asking and killing.
    pub stop_timeout_s: Option<i64>,
    /// What vanishes with the container.
    pub auto_remove: Option<AutoRemove>,
    /// The way out and the networks; absent: what the network namespace has by itself.
    pub network: Option<crate::network::Network>,
}

/// Where `/` comes from.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Rootfs {
    /// Overlay; `lower` is topmost first. Without `upper` it is read-only.
    Overlay {
        /// Layer trees, topmost first.
        lower: Vec<PathBuf>,
        /// Where changes go.
        #[serde(default)]
        upper: Option<PathBuf>,
        /// Overlay's own work directory, on the file system of `upper`.
        #[serde(default)]
        work: Option<PathBuf>,
    },
    /// A whole copy, made at the first start.
    Copy {
        /// Layer trees, topmost first.
        lower: Vec<PathBuf>,
        /// The copy.
        path: PathBuf,
    },
    /// The machine's own tree, with changes kept apart.
    Host {
        /// Holds one upperdir per top-level directory.
        upper: PathBuf,
        /// Holds one workdir per top-level directory.
        work: PathBuf,
    },
    /// A ready tree.
    Dir {
        /// Its top.
        path: PathBuf,
    },
}

/// `stdin` of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stdin {
    /// /dev/null.
    Null,
    /// A pipe that stays open.
    Open,
    /// A pipe that closes with the first attached client.
    Once,
}

/// `log` of the block.
#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    /// `json-file` or `none`.
    pub driver: String,
    /// The file; absolute.
    #[serde(default)]
    pub path: PathBuf,
    /// Bytes after which the file is rotated.
    #[serde(default)]
    pub max_size: Option<u64>,
    /// How many files are kept.
    #[serde(default)]
    pub max_file: Option<u32>,
}

/// `auto_remove` of the block.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AutoRemove {
    /// Trees.
    pub paths: Vec<PathBuf>,
    /// Links in `names/`; they go first.
    pub names: Vec<PathBuf>,
}

/// `isolation` of the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// By namespaces.
    #[default]
    Userns,
    /// By a tracer.
    Trap,
}

impl Isolation {
    /// The name that state.json and `inspect` have.
    pub fn name(self) -> &'static str {
        match self {
            Self::Userns => "userns",
            Self::Trap => "trap",
        }
    }
}

/// `root_emulation` of the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootEmulation {
    /// Nothing.
    #[default]
    Off,
    /// Owners, devices and attributes of files.
    Owners,
    /// Ids of processes too.
    Full,
}

impl Block {
    /// Whether the container's sockets are the host's.
    #[must_use]
    pub fn has_gate(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.gate)
    }
}

impl RootEmulation {
    /// The crate's mode; `None` when off.
    pub fn mode(self) -> Option<duckweed_trap::Mode> {
        match self {
            Self::Off => None,
            Self::Owners => Some(duckweed_trap::Mode::Owners),
            Self::Full => Some(duckweed_trap::Mode::Full),
        }
    }
}

/// `seccomp` of the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompProfile {
    /// Docker's default profile.
    Default,
    /// No filter.
    Unconfined,
}
