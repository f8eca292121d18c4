//! A bundle: the directory of config.json, read once at the start of everything.

use std::path::{Path, PathBuf};

use crate::spec::{Block, Rootfs, Spec};
use crate::start_error::{Code, Doing as _, StartError};

/// A container as it shall be.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The standard part.
    pub spec: Spec,
    /// Our part; all defaults in a plain OCI bundle.
    pub block: Block,
    /// This process is in the container's user namespace already: none is made, no ids are mapped.
    pub joined: bool,
    /// What the container's first process needs to make its network interfaces.
    pub link: Option<crate::network::Link>,
    /// The network namespace of another container, to be entered.
    pub shared_network: Option<std::sync::Arc<std::os::fd::OwnedFd>>,
    /// Where its sockets may go, when they are the host's.
    pub gate: Option<duckweed_net::gate::rules::Terms>,
    dir: PathBuf,
}

impl Bundle {
    /// Reads `dir`/config.json. Relative paths in it are the bundle's.
    ///
    /// # Errors
    /// `spec` when it is missing, is not JSON, or has a value of the wrong type.
    pub fn load(dir: &Path) -> Result<Bundle, StartError> {
        let path = dir.join("config.json");
        let text = std::fs::read(&path).doing(Code::Spec, || format!("read {}", path.display()))?;
        Self::parse(&text, dir)
    }

    /// As [`Bundle::load`], from the bytes of config.json.
    ///
    /// # Errors
    /// As [`Bundle::load`].
    pub fn parse(text: &[u8], dir: &Path) -> Result<Bundle, StartError> {
        let wrong = |error: serde_json::Error| {
            StartError::new(Code::Spec, "read config.json", format!("{}/config.json: {error}", dir.display()))
        };
        let spec: Spec = serde_json::from_slice(text).map_err(wrong)?;
        let block = match &spec.annotations.block {
            Some(json) => serde_json::from_str(json).map_err(wrong)?,
            None => Block::default(),
        };
        Ok(Bundle {
            spec,
            block,
            joined: false,
            link: None,
            shared_network: None,
            gate: None,
            dir: dir.to_owned(),
        })
    }

    /// The bundle's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where `/` comes from: the block's word, or the plain `root.path`.
    pub fn rootfs(&self) -> Rootfs {
        match &self.block.rootfs {
            Some(rootfs) => rootfs.clone(),
            None => Rootfs::Dir { path: self.dir.join(&self.spec.root.path) },
        }
    }
}
