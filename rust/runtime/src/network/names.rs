//! Who is who in a network: read from the store when a name is asked for.
//!
//! `networks/<name>/addresses/<address>` is a link to a container's id; its container.json says
//! what it is called, and its state.json whether it lives. Nothing is kept that could be
//! out of date.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::Membership;
use crate::supervise::lives;

/// More members than this are not looked through for a name.
const MOST: usize = 4096;

/// The members of some networks; copies share what they know.
#[derive(Debug, Clone)]
pub(crate) struct Members {
    store: PathBuf,
    /// Name and directory.
    networks: Arc<Mutex<Vec<(String, PathBuf)>>>,
}

/// What container.json says of a member's names.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "networks")]
    networks: std::collections::BTreeMap<String, Endpoint>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    aliases: Vec<String>,
}

impl Members {
    pub fn new(store: &Path, networks: &[Membership]) -> Self {
        let networks = networks.iter().map(|one| (one.name.clone(), one.directory.clone())).collect();
        Self { store: store.to_owned(), networks: Arc::new(Mutex::new(networks)) }
    }

    /// One network more.
    pub fn add(&self, one: &Membership) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.push((one.name.clone(), one.directory.clone()));
    }

    /// One network less.
    pub fn remove(&self, name: &str) {
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.retain(|(known, _)| known != name);
    }

    fn networks(&self) -> Vec<(String, PathBuf)> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The addresses of those called `name`, or `name.NETWORK`; `None` when nobody is.
    pub fn addresses(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut found = Vec::new();
        for (network, directory) in &self.networks() {
            let suffix = format!(".{network}");
            let wanted = name.strip_suffix(&suffix).unwrap_or(name);
            for (address, id) in entries(directory) {
                if self.is_called(&id, network, wanted) && lives(&self.store.join("containers").join(&id)) {
                    found.push(address);
                }
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// Name, alias or short id.
    fn is_called(&self, id: &str, network: &str, wanted: &str) -> bool {
        if wanted.len() >= 12 && id.starts_with(wanted) {
            return true;
        }
        let Some(document) = self.document(id) else { return false };
        let is = |name: &str| name.trim_start_matches('/').eq_ignore_ascii_case(wanted);
        let aliases = document.networks.get(network).map(|endpoint| &endpoint.aliases);
        is(&document.name) || aliases.is_some_and(|aliases| aliases.iter().any(|alias| is(alias)))
    }

    fn document(&self, id: &str) -> Option<Document> {
        let path = self.store.join("containers").join(id).join("container.json");
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// The name of the member that has `address`.
    pub fn name(&self, address: IpAddr) -> Option<String> {
        for (network, directory) in &self.networks() {
            let link = directory.join("addresses").join(address.to_string());
            let Ok(id) = std::fs::read_link(link) else { continue };
            let document = self.document(&id.to_string_lossy())?;
            return Some(format!("{}.{network}", document.name.trim_start_matches('/')));
        }
        None
    }
}

/// The addresses that are taken, and by whom.
fn entries(directory: &Path) -> Vec<(IpAddr, String)> {
    let Ok(entries) = std::fs::read_dir(directory.join("addresses")) else { return Vec::new() };
    entries
        .flatten()
        .take(MOST)
        .filter_map(|entry| {
            let address = entry.file_name().to_str()?.parse().ok()?;
            Some((address, std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_by_name_alias_and_short_id_while_it_lives() {
        let store = tempfile::tempdir().unwrap();
        let id = "a".repeat(64);
        let container = store.path().join("containers").join(&id);
        let addresses = store.path().join("networks/lan/addresses");
        std::fs::create_dir_all(&container).unwrap();
        std::fs::create_dir_all(&addresses).unwrap();
        std::os::unix::fs::symlink(&id, addresses.join("10.89.0.2")).unwrap();
        let document =
            r#"{"Name": "/Web", "networks": {"lan": {"aliases": ["www"]}, "other": {"aliases": ["x"]}}}"#;
        std::fs::write(container.join("container.json"), document).unwrap();
        let members = Members {
            store: store.path().to_owned(),
            networks: Arc::new(Mutex::new(vec![("lan".into(), store.path().join("networks/lan"))])),
        };
        assert_eq!(members.addresses("web"), None, "it does not live yet");
        crate::supervise::pretend_to_live(store.path(), &container);
        for name in ["web", "www", "web.lan", "aaaaaaaaaaaa"] {
            assert_eq!(members.addresses(name), Some(vec!["10.89.0.2".parse().unwrap()]), "{name}");
        }
        for name in ["x", "aaaa", "we", "web.other"] {
            assert_eq!(members.addresses(name), None, "{name}");
        }
        assert_eq!(members.name("10.89.0.2".parse().unwrap()), Some("Web.lan".into()));
    }
}
