//! The probe: what this place allows, each fact found by trying.
//!
//! Not on the path of a start: `duckweed-runtime probe --store DIR` runs once per boot,
//! its JSON is cached by `host/probe.py`, and `host/choose.py` and `host/doctor.py` read
//! it. Documentation and version numbers lie about what a kernel, a sysctl, a seccomp
//! profile and a security module allow together; a forked child that tries does not. So
//! [`fact`] holds one way to try, and each file here one theme: [`namespaces`],
//! [`overlay`], [`tracing`] (ptrace, seccomp, Landlock), [`store`] (the file system),
//! [`place`] (cgroups, devices, limits, sysctls: what we are and where).
//!
//! ```text
//! {"version":1, "facts":{"userns":{"ok":true,"errno":null,"errno_name":null,"detail":""},..},
//!  "settings":{"user.max_user_namespaces":"15000",..}, "process":{"uid":1000,..}, "limits":{..}, "filesystem":{..}}
//! ```

mod fact;
mod namespaces;
mod overlay;
mod place;
mod scratch;
mod store;
mod tracing;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

pub use fact::Fact;
use serde_json::{json, Value};

/// A run of subordinate ids to try newuidmap or newgidmap with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id.
    pub start: u32,
    /// How many.
    pub count: u32,
}

impl std::str::FromStr for IdRange {
    type Err = String;

    /// Reads `START:COUNT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text
            .split_once(':')
            .and_then(|(start, count)| Some(Self { start: start.parse().ok()?, count: count.parse().ok()? }));
        parsed.ok_or_else(|| format!("`{text}` is not START:COUNT"))
    }
}

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The store, or where it will be.
    pub store: PathBuf,
    /// Subordinate ranges, found by the caller (a static program cannot ask NSS).
    pub uids: Option<IdRange>,
    /// The same for groups.
    pub gids: Option<IdRange>,
}

impl Request {
    /// Reads `--store DIR [--subuid START:COUNT] [--subgid START:COUNT]`.
    ///
    /// # Errors
    /// One line about the word that was not understood.
    pub fn parse(args: &[String]) -> Result<Self, String> {
        let mut request = Self::default();
        let mut words = args.iter();
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("`{word}` needs a value"))?;
            match word.as_str() {
                "--store" => request.store = PathBuf::from(value),
                "--subuid" => request.uids = Some(value.parse()?),
                "--subgid" => request.gids = Some(value.parse()?),
                _ => return Err(format!("unknown option `{word}`")),
            }
        }
        if request.store.as_os_str().is_empty() {
            return Err("`probe` needs `--store DIR`".to_owned());
        }
        Ok(request)
    }
}

/// Facts by name, in the order of names.
pub(crate) type Facts = BTreeMap<&'static str, Fact>;

/// Tries everything. The calling process must have one thread.
///
/// # Errors
/// Only when not even a scratch directory can be made beside the store.
pub fn probe(request: &Request) -> io::Result<Value> {
    let mut facts = Facts::new();
    namespaces::probe(&mut facts, request);
    tracing::probe(&mut facts);
    place::probe(&mut facts);
    let filesystem = match scratch::Scratch::beside(&request.store) {
        Ok(scratch) => {
            store::probe(&mut facts, scratch.path());
            overlay::probe(&mut facts, scratch.path());
            store::filesystem(scratch.path())
        }
        Err(error) => {
            facts.insert("store_write", Fact::failed(&error, "making a directory in the store"));
            Value::Null
        }
    };
    Ok(json!({
        "version": 1,
        "facts": facts,
        "settings": place::settings(),
        "process": place::process(),
        "limits": place::limits(),
        "filesystem": filesystem,
    }))
}

/// The command line's `probe`: prints the object, returns the exit status.
///
/// # Errors
/// One line for `duckweed: ...`.
pub fn main(args: &[String]) -> Result<(), String> {
    let request = Request::parse(args)?;
    let report = probe(&request).map_err(|error| format!("probe: {error}"))?;
    let mut line = report.to_string();
    line.push('\n');
    io::Write::write_all(&mut io::stdout(), line.as_bytes()).map_err(|error| format!("probe: {error}"))
}

#[cfg(test)]
mod tests;
