//! exec: further commands in a running container.
//!
//! A command that a client waits for has the client's own descriptors, or a terminal
//! whose master the client holds: its bytes never pass through here. What remains is to
//! reap it and to say how it ended. Closing the only master hangs the terminal up, so a
//! client that vanishes takes its shell along; without a terminal the command lives on.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::child::Child;
use super::connection::Role;
use super::events::{Interest, Source};
use super::stdio::null;
use super::watch::Supervisor;
use crate::isolation;
use crate::isolation::{ExecRequest, Io, Started};
use crate::message::{Answer, Exec, Exit, SupervisorMessage};
use crate::start_error::{Code, Doing as _, StartError};

/// A command that was started by exec.
#[derive(Debug)]
pub struct Session {
    child: Child,
    /// Who waits for it.
    connection: Option<u32>,
    has_terminal: bool,
    /// The master of a detached command's terminal: read, so that the command never waits for a reader.
    terminal: Option<OwnedFd>,
}

impl Supervisor {
    /// Runs a command for a connection, which becomes the one that waits for it.
    pub(super) fn exec(&mut self, number: u32, request: &Exec, fds: Vec<OwnedFd>) {
        match self.start_session(number, request, fds) {
            Ok((pid, console)) => {
                if let Some(connection) = self.connections.get_mut(number) {
                    connection.tell(&SupervisorMessage::Answer(Answer::started(pid)), console);
                }
            }
            Err(error) => self.refuse_with(number, error),
        }
    }

    fn start_session(
        &mut self,
        number: u32,
        request: &Exec,
        fds: Vec<OwnedFd>,
    ) -> Result<(i32, Option<OwnedFd>), StartError> {
        let io = session_io(request, fds)?;
        let loaded;
        let bundle = match &self.bundle {
            Some(bundle) => bundle,
            None => {
                loaded = self.load_bundle()?;
                &loaded
            }
        };
        let request_inside = userns_request(request);
        let Started { pid, pidfd, console, .. } =
            isolation::exec(bundle, self.init.as_fd(), &request_inside, io, self.emulation.as_ref())?;
        let (for_client, terminal) = if request.detach { (None, console) } else { (console, None) };
        let session = Session {
            child: Child::new(pidfd),
            connection: (!request.detach).then_some(number),
            has_terminal: request.tty,
            terminal,
        };
        let session = self.watch_session(session).doing(Code::Internal, || "watch the command")?;
        if !request.detach {
            self.give_role(number, Role::Executing(session));
        }
        Ok((pid.as_raw_nonzero().get(), for_client))
    }

    fn watch_session(&mut self, session: Session) -> rustix::io::Result<u32> {
        let number = self.sessions.insert(session);
        let Some(session) = self.sessions.get_mut(number) else { return Ok(number) };
        self.events.change(&session.child, Source::Session(number), Interest::NONE, Interest::READ)?;
        if let Some(terminal) = &session.terminal {
            rustix::io::ioctl_fionbio(terminal, true)?;
            self.events.change(terminal, Source::Terminal(number), Interest::NONE, Interest::READ)?;
        }
        Ok(number)
    }

    /// Reaps a command that ended and tells who waits.
    pub(super) fn end_session(&mut self, number: u32) {
        let Some(exit_code) = self.sessions.get_mut(number).and_then(|session| session.child.exit_code())
        else {
            return;
        };
        let Some(session) = self.sessions.remove(number) else { return };
        let _ = self.events.change(&session.child, Source::Session(number), Interest::READ, Interest::NONE);
        let Some(connection) = session.connection.and_then(|number| self.connections.get_mut(number)) else {
            return;
        };
        if connection.role == Role::Executing(number) {
            connection.role = Role::Idle;
            connection.tell(&SupervisorMessage::Exit(Exit { exit_code, error: String::new() }), None);
        }
    }

    /// The client of a command is gone.
    pub(super) fn abandon_session(&mut self, number: u32) {
        if let Some(session) = self.sessions.get_mut(number) {
            session.connection = None;
            if session.has_terminal {
                // The kernel says it to the whole foreground group; this reaches a command that left it.
                let _ = session.child.signal(rustix::process::Signal::HUP.as_raw());
            }
        }
    }

    pub(super) fn signal_session(&mut self, number: u32, signal: i32) -> io::Result<()> {
        self.sessions.get_mut(number).map_or(Ok(()), |session| session.child.signal(signal))
    }

    /// The container has ended: whatever shares its namespaces with the host's does not outlive it.
    pub(super) fn kill_sessions(&mut self) {
        for session in self.sessions.iter() {
            session.child.kill();
        }
    }

    /// Throws away what a detached command wrote to its terminal.
    pub(super) fn drain_terminal(&mut self, number: u32, buffer: &mut [u8]) {
        let Some(session) = self.sessions.get_mut(number) else { return };
        let Some(terminal) = &session.terminal else { return };
        match rustix::io::read(terminal, buffer) {
            Ok(count) if count > 0 => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            _ => {
                let _ =
                    self.events.change(terminal, Source::Terminal(number), Interest::READ, Interest::NONE);
                session.terminal = None;
            }
        }
    }
}

fn session_io(request: &Exec, fds: Vec<OwnedFd>) -> Result<Io, StartError> {
    if request.tty {
        return Ok(Io::Terminal { rows: request.rows, cols: request.cols });
    }
    if request.detach {
        let open = || null().doing(Code::Internal, || "open /dev/null");
        return Ok(Io::Fds { stdin: open()?, stdout: open()?, stderr: open()? });
    }
    let wrong = |fds: Vec<OwnedFd>| {
        let message = format!("an exec needs stdin, stdout and stderr; {} descriptors came", fds.len());
        StartError::new(Code::Internal, "exec", message)
    };
    let [stdin, stdout, stderr] = <[OwnedFd; 3]>::try_from(fds).map_err(wrong)?;
    Ok(Io::Fds { stdin, stdout, stderr })
}

fn userns_request(request: &Exec) -> ExecRequest {
    ExecRequest {
        args: request.args.clone(),
        env: request.env.clone(),
        cwd: request.cwd.clone(),
        user: request.user.clone(),
        groups: request.groups.clone(),
        tty: request.tty,
        privileged: request.privileged,
        copy: request.copy.clone(),
    }
}
