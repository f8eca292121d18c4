//! What clients ask, and the answers.

use std::os::fd::OwnedFd;

use super::connection::Role;
use super::watch::Supervisor;
use crate::message::{Answer, Attach, ClientMessage, Exit, Request, SupervisorMessage};
use crate::start_error::{Code, StartError};

impl Supervisor {
    /// Does what one message of connection `number` says.
    pub(super) fn obey(&mut self, number: u32, message: ClientMessage<'_>, fds: Vec<OwnedFd>) {
        match message {
            ClientMessage::Request(request) => self.answer(number, request, fds),
            ClientMessage::Stdin(bytes) => self.take_input(number, bytes),
            ClientMessage::StdinEnd => self.hear_input_end(number),
            ClientMessage::Resize { rows, cols } => {
                if matches!(self.role(number), Role::Attached(_)) {
                    self.stdio.resize(rows, cols);
                }
            }
            ClientMessage::Signal(signal) => self.pass_signal(number, i32::from(signal)),
        }
    }

    fn answer(&mut self, number: u32, request: Request, fds: Vec<OwnedFd>) {
        if let Some(exit) = self.ended() {
            return self.answer_after_the_end(number, &request, exit);
        }
        match request {
            Request::Attach(attach) => self.attach(number, attach),
            Request::Exec(exec) => self.exec(number, &exec, fds),
            Request::Kill { signal } => match self.init.signal(signal) {
                Ok(()) => self.tell(number, &SupervisorMessage::Answer(Answer::yes())),
                Err(error) => {
                    self.refuse_with(
                        number,
                        StartError::io(Code::Internal, format!("send signal {signal}"), &error),
                    );
                }
            },
            Request::Wait => self.give_role(number, Role::Waiting),
            Request::Status => self.tell_state(number),
            Request::Namespaces => self.hand_out_namespaces(number),
            Request::Connect { .. } | Request::Disconnect { .. } => self.change_networks(number, &request),
            Request::Pause | Request::Resume => self.refuse(number, "pausing is not supported yet"),
        }
    }

    /// A client that came in the last moment learns that it was the last.
    fn answer_after_the_end(&mut self, number: u32, request: &Request, exit: Exit) {
        match request {
            Request::Wait => self.tell(number, &SupervisorMessage::Exit(exit)),
            Request::Status => self.tell_state(number),
            _ => self.refuse(number, "the container is not running"),
        }
    }

    /// Makes a connection an attached client.
    pub(super) fn attach(&mut self, number: u32, attach: Attach) {
        self.give_role(number, Role::Attached(attach));
        self.stdio.resize(attach.rows, attach.cols);
        self.tell(number, &SupervisorMessage::Answer(Answer::yes()));
    }

    fn tell_state(&mut self, number: u32) {
        let mut answer = Answer::yes();
        if let Ok(serde_json::Value::Object(facts)) = serde_json::to_value(&self.state) {
            answer.facts = facts.into_iter().filter(|(name, _)| name != "error").collect();
        }
        if let Some(network) = &self.network {
            answer.facts.insert("network".to_owned(), network.traffic());
        }
        self.tell(number, &SupervisorMessage::Answer(answer));
    }

    fn hear_input_end(&mut self, number: u32) {
        if let Role::Attached(mut attach) = self.role(number) {
            if std::mem::take(&mut attach.stdin) {
                self.give_role(number, Role::Attached(attach));
                self.end_input();
            }
        }
    }

    fn pass_signal(&mut self, number: u32, signal: i32) {
        // A process that ended in the meantime needs no signal.
        let _ = match self.role(number) {
            Role::Executing(session) => self.signal_session(session, signal),
            Role::Attached(_) => self.init.signal(signal),
            Role::Idle | Role::Waiting => Ok(()),
        };
    }

    fn role(&mut self, number: u32) -> Role {
        self.connections.get_mut(number).map_or(Role::Idle, |connection| connection.role)
    }

    pub(super) fn give_role(&mut self, number: u32, role: Role) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.role = role;
        }
    }

    pub(super) fn tell(&mut self, number: u32, message: &SupervisorMessage<'_>) {
        if let Some(connection) = self.connections.get_mut(number) {
            connection.tell(message, None);
        }
    }

    /// Says no, in a line.
    pub(super) fn refuse(&mut self, number: u32, why: &str) {
        self.refuse_with(number, StartError::new(Code::Internal, "answer a client", why));
    }

    pub(super) fn refuse_with(&mut self, number: u32, error: StartError) {
        self.tell(number, &SupervisorMessage::Answer(Answer::no(error)));
    }
}
