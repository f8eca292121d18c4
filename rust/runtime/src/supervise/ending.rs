//! The end of a container: what it left in its pipes, the record, the news, the removal.
//!
//! Init's end ends its pid namespace, so nothing inside holds the pipes any more and
//! their ends follow. What shares a pid namespace with the host, or got a descriptor passed
//! out to it, may hold them for ever: that is waited for only a [`MOMENT`]. Then the
//! record is written, names vanish, and those who wait are told, in this order: whoever
//! hears of the end finds it recorded.

use std::time::{Duration, Instant};

use super::connection::{Connection, Role};
use super::log::Stream;
use super::removal;
use super::watch::Supervisor;
use crate::bundle::Bundle;
use crate::message::{Exit, SupervisorMessage};

/// How long output may still come after init's end.
const MOMENT: Duration = Duration::from_millis(200);

/// A container that has ended.
#[derive(Debug)]
pub struct Ending {
    exit_code: i32,
    /// Up to when its pipes and sessions are waited for.
    until: Instant,
    recorded: bool,
}

impl Ending {
    /// How long the loop may sleep.
    pub(super) fn patience(&self, now: Instant) -> Option<Duration> {
        (!self.recorded).then(|| self.until.saturating_duration_since(now))
    }
}

impl Supervisor {
    /// Init is dead and reaped.
    pub(super) fn begin_ending(&mut self, exit_code: i32, buffer: &mut [u8]) {
        if self.ending.is_some() {
            return;
        }
        let init = (&self.init, super::events::Source::Init);
        let read = super::events::Interest::READ;
        let _ = self.events.change(init.0, init.1, read, super::events::Interest::NONE);
        self.ending = Some(Ending { exit_code, until: Instant::now() + MOMENT, recorded: false });
        self.kill_sessions();
        self.stdio.let_go();
        self.read_output(Stream::Stdout, buffer);
        self.read_output(Stream::Stderr, buffer);
    }

    /// The exit code once everything is done; does what is due on the way.
    pub(super) fn finished(&mut self) -> Option<i32> {
        let ending = self.ending.as_ref()?;
        let exit_code = ending.exit_code;
        if !ending.recorded {
            let quiet =
                !self.stdio.stdout.is_open() && !self.stdio.stderr.is_open() && self.sessions.is_empty();
            if !quiet && Instant::now() < ending.until {
                return None;
            }
            self.record(exit_code);
        }
        self.connections.iter().all(Connection::is_settled).then_some(exit_code)
    }

    /// How it ended, once that is recorded: who hears it may go and look.
    pub(super) fn ended(&self) -> Option<Exit> {
        let exit_code = self.ending.as_ref().filter(|ending| ending.recorded)?.exit_code;
        Some(Exit { exit_code, error: self.state.error.clone() })
    }

    fn record(&mut self, exit_code: i32) {
        // Whoever hears of the end finds the owners on disk too.
        if let Some(emulation) = self.emulation.take() {
            let (read, none) = (super::events::Interest::READ, super::events::Interest::NONE);
            let _ = self.events.change(&emulation, super::events::Source::Emulation, read, none);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(log) = &mut self.log {
                log.finish(stream);
            }
        }
        // Its ports are free from here on.
        if let Some(network) = self.network.take() {
            network.close(&self.place.id, &self.place.container);
        }
        self.stop_listening();
        self.state.end(exit_code, "");
        let trees = self.record_or_remove();
        self.lock = None;
        self.tell_the_end(exit_code);
        if let Some(ending) = &mut self.ending {
            ending.recorded = true;
        }
        if let Some((bundle, trees)) = trees {
            // What cannot be deleted lies in tmp/, for whoever cleans up there next.
            let _ = crate::userns::remove_trees(&bundle, &trees);
        }
    }

    /// state.json says `exited`, or there is no container any more and these trees to delete.
    fn record_or_remove(&mut self) -> Option<(Bundle, Vec<std::path::PathBuf>)> {
        if let Some(what) = &self.terms.auto_remove {
            // Deleting needs the id map, and config.json is about to move.
            let bundle = self.bundle.take().map_or_else(|| self.load_bundle(), Ok);
            if let Ok(bundle) = bundle {
                let trees = removal::take_away(what, &self.state, &self.place.store, &self.place.id);
                return Some((bundle, trees));
            }
        }
        // A full disk keeps the old record: `running`, with a supervisor that is dead in a moment.
        let _ = self.state.write(&self.place.store, &self.place.container);
        None
    }

    /// The bundle as it was at the start.
    pub(super) fn load_bundle(&self) -> Result<Bundle, crate::start_error::StartError> {
        let mut bundle = Bundle::load(&self.place.container)?;
        bundle.joined = self.joined;
        Ok(bundle)
    }

    fn tell_the_end(&mut self, exit_code: i32) {
        let exit = SupervisorMessage::Exit(Exit { exit_code, error: String::new() });
        let owner = self.owner;
        for (number, connection) in self.connections.iter_mut() {
            if connection.role != Role::Idle || owner == Some(number) {
                connection.role = Role::Idle;
                connection.tell(&exit, None);
            }
        }
    }
}
