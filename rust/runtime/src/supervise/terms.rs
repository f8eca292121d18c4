//! What a supervisor keeps of a bundle: the few words that matter until the end.
//!
//! A parsed config.json is a hundred times larger, mostly the seccomp profile and the
//! mounts; a container that idles for a month should not pay for them.

use std::path::PathBuf;

use super::log::Log;
use crate::bundle::Bundle;
use crate::spec::{AutoRemove, Stdin};
use crate::start_error::{Code, Doing as _, StartError};

/// The terms on which a container is supervised.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Whether it has a terminal, and the size it begins with.
    pub terminal: Option<(u16, u16)>,
    /// What it reads.
    pub stdin: Stdin,
    /// What goes with it.
    pub auto_remove: Option<AutoRemove>,
    log: Option<(PathBuf, u64, u32)>,
}

impl Terms {
    /// Reads them out of a bundle.
    #[must_use]
    pub fn of(bundle: &Bundle) -> Self {
        let process = &bundle.spec.process;
        let size = process.console_size.map_or((0, 0), |size| (size.height, size.width));
        let log = bundle.block.log.as_ref().filter(|log| log.driver == "json-file");
        Self {
            terminal: process.terminal.then_some(size),
            stdin: bundle.block.stdin.unwrap_or(Stdin::Null),
            auto_remove: bundle.block.auto_remove.clone(),
            log: log.map(|log| (log.path.clone(), log.max_size.unwrap_or(0), log.max_file.unwrap_or(1))),
        }
    }

    /// Opens the log, if there shall be one.
    ///
    /// # Errors
    /// `internal` when the file cannot be opened.
    pub fn open_log(&self) -> Result<Option<Log>, StartError> {
        let Some((path, max_size, max_file)) = &self.log else { return Ok(None) };
        Log::open(path, *max_size, *max_file)
            .map(Some)
            .doing(Code::Internal, || format!("open the log `{}`", path.display()))
    }
}
