//! What clients and supervisors say to each other: one type byte, one payload (docs/contracts.md §6).
//!
//! Both sides are this program, but the Python engine speaks the same words, so the
//! spelling is fixed by the contract. Messages borrow their bytes: output passes from
//! a pipe to a socket without a copy between. How packets and descriptors cross a socket
//! is in [`packet`]; what is said is here.

pub use duckweed_sys::packet;

use serde::{Deserialize, Serialize};

use crate::network::Membership;
use crate::start_error::StartError;

/// The largest payload: with its type byte a message fits 64 KiB.
pub const LARGEST_PAYLOAD: usize = packet::LARGEST - 1;

/// A packet that is no message of ours: `.0` says why.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct BadMessage(pub String);

/// From a client to the supervisor.
#[derive(Debug, PartialEq)]
pub enum ClientMessage<'a> {
    /// `J`
    Request(Request),
    /// `I`: bytes for the container's stdin.
    Stdin(&'a [u8]),
    /// `E`: there will be no more of them.
    StdinEnd,
    /// `W`: the client's terminal has this size now.
    Resize {
        /// Lines of text.
        rows: u16,
        /// Characters a line.
        cols: u16,
    },
    /// `S`: a signal for the process this connection is attached to.
    Signal(u8),
}

/// The operations of a `J` message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// Become an attached client.
    Attach(Attach),
    /// Run a command in the container; three descriptors come along unless `tty` or `detach`.
    Exec(Exec),
    /// Send a signal to init.
    Kill {
        /// 1 to 64.
        signal: i32,
    },
    /// Be told the end.
    Wait,
    /// Be told the state.
    Status,
    /// Be given the namespaces of the networks that the container is a member of.
    Namespaces,
    /// Join one more network.
    Connect {
        /// As in config.json.
        network: Membership,
    },
    /// Leave a network.
    Disconnect {
        /// The network's id.
        network: String,
        /// Its name.
        name: String,
        /// The interface in the container.
        interface: String,
    },
    /// Stop all processes (a later release).
    Pause,
    /// Let them go on.
    Resume,
}

/// The payload of a `B` message: a container for a supervisor on standby, files and all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order<'a> {
    /// Where its directory shall be, absolute.
    pub container: &'a std::path::Path,
    /// The bytes of container.json.
    pub record: &'a [u8],
    /// The bytes of config.json.
    pub config: &'a [u8],
}

impl<'a> Order<'a> {
    /// Reads `u32le length, container, u32le length, record, config`.
    #[must_use]
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        fn piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
            let (length, rest) = bytes.split_first_chunk::<4>()?;
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        }
        let (container, rest) = piece(payload)?;
        let (record, config) = piece(rest)?;
        let container =
            std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(container));
        container.is_absolute().then_some(Self { container, record, config })
    }
}

/// Which streams an attached client wants, and its terminal's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attach {
    /// It may send `I` and `E`.
    pub stdin: bool,
    /// It wants `O`.
    pub stdout: bool,
    /// It wants `R`.
    pub stderr: bool,
    /// Lines of its terminal; 0 = it has none.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// A command to run inside a running container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// The command and its arguments; the first is looked up in PATH inside the root.
    pub args: Vec<String>,
    /// `NAME=value`, on top of the container's own environment.
    pub env: Vec<String>,
    /// Working directory; empty = the container's.
    pub cwd: String,
    /// `name|uid[:group|gid]`; empty = the container's.
    pub user: String,
    /// Additional groups, by name or number.
    pub groups: Vec<String>,
    /// Give it a terminal, whose master end the client gets.
    pub tty: bool,
    /// All capabilities of the container's user namespace.
    pub privileged: bool,
    /// No command, but this request of `duckweed-runtime copy` (trap isolation only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<String>,
    /// Lines of the terminal.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
    /// Nobody waits: it has no stdio and outlives the connection.
    pub detach: bool,
}

/// From the supervisor to a client.
#[derive(Debug, PartialEq)]
pub enum SupervisorMessage<'a> {
    /// `J`: the answer to one request.
    Answer(Answer),
    /// `O`: from the container's stdout, or its terminal.
    Stdout(&'a [u8]),
    /// `R`: from its stderr.
    Stderr(&'a [u8]),
    /// `A`: so many bytes of this client's stdin have reached the container.
    StdinTaken(u32),
    /// `X`: the end.
    Exit(Exit),
}

/// An answer: `{"ok":true, ...}` or `{"ok":false,"error":{...}}`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<StartError>,
    /// Facts that come with a yes: `pid`, or the fields of state.json.
    #[serde(flatten)]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

impl Answer {
    /// A plain yes.
    #[must_use]
    pub fn yes() -> Self {
        Self { ok: true, ..Self::default() }
    }

    /// A yes with the pid of what was started.
    #[must_use]
    pub fn started(pid: i32) -> Self {
        let mut answer = Self::yes();
        answer.facts.insert("pid".to_owned(), pid.into());
        answer
    }

    /// A no and its reason.
    #[must_use]
    pub fn no(error: StartError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

/// How a container or an exec ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 to 255; 128+n for signal n.
    pub exit_code: i32,
    /// What went wrong on our side; mostly empty.
    #[serde(default)]
    pub error: String,
}

impl<'a> ClientMessage<'a> {
    /// Reads one packet.
    ///
    /// # Errors
    /// When it has no type byte, an unknown one, or a payload that does not fit it.
    pub fn decode(packet: &'a [u8]) -> Result<Self, BadMessage> {
        let (kind, payload) = split(packet)?;
        Ok(match (kind, payload) {
            (b'J', json) => Self::Request(parse(json)?),
            (b'I', bytes) => Self::Stdin(bytes),
            (b'E', []) => Self::StdinEnd,
            (b'W', &[a, b, c, d]) => {
                Self::Resize { rows: u16::from_le_bytes([a, b]), cols: u16::from_le_bytes([c, d]) }
            }
            (b'S', &[signal]) => Self::Signal(signal),
            _ => return Err(unknown(kind, payload)),
        })
    }

    /// The type byte, and the payload.
    #[must_use]
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Request(request) => (b'J', json(request)),
            Self::Stdin(bytes) => (b'I', bytes.to_vec()),
            Self::StdinEnd => (b'E', Vec::new()),
            Self::Resize { rows, cols } => (b'W', [rows.to_le_bytes(), cols.to_le_bytes()].concat()),
            Self::Signal(signal) => (b'S', vec![*signal]),
        }
    }
}

impl<'a> SupervisorMessage<'a> {
    /// Reads one packet.
    ///
    /// # Errors
    /// As for [`ClientMessage::decode`].
    pub fn decode(packet: &'a [u8]) -> Result<Self, BadMessage> {
        let (kind, payload) = split(packet)?;
        Ok(match (kind, payload) {
            (b'J', json) => Self::Answer(parse(json)?),
            (b'O', bytes) => Self::Stdout(bytes),
            (b'R', bytes) => Self::Stderr(bytes),
            (b'A', &[a, b, c, d]) => Self::StdinTaken(u32::from_le_bytes([a, b, c, d])),
            (b'X', json) => Self::Exit(parse(json)?),
            _ => return Err(unknown(kind, payload)),
        })
    }

    /// The type byte, and the payload.
    #[must_use]
    pub fn encode(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Answer(answer) => (b'J', json(answer)),
            Self::Stdout(bytes) => (b'O', bytes.to_vec()),
            Self::Stderr(bytes) => (b'R', bytes.to_vec()),
            Self::StdinTaken(count) => (b'A', count.to_le_bytes().to_vec()),
            Self::Exit(exit) => (b'X', json(exit)),
        }
    }
}

fn split(packet: &[u8]) -> Result<(u8, &[u8]), BadMessage> {
    packet
        .split_first()
        .map(|(kind, rest)| (*kind, rest))
        .ok_or_else(|| BadMessage("empty message".to_owned()))
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, BadMessage> {
    serde_json::from_slice(json).map_err(|error| BadMessage(format!("bad request: {error}")))
}

/// Our own types always have a JSON form, so the empty payload is never sent.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn unknown(kind: u8, payload: &[u8]) -> BadMessage {
    BadMessage(format!("unknown message {:?} with {} bytes", char::from(kind), payload.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet((kind, payload): (u8, Vec<u8>)) -> Vec<u8> {
        let mut packet = vec![kind];
        packet.extend(payload);
        packet
    }

    #[test]
    fn what_a_client_says_is_what_the_supervisor_hears() {
        let exec = Exec { args: vec!["sh".into(), "-c".into()], tty: true, rows: 24, ..Exec::default() };
        for message in [
            ClientMessage::Request(Request::Attach(Attach { stdin: true, rows: 2, ..Attach::default() })),
            ClientMessage::Request(Request::Exec(exec)),
            ClientMessage::Request(Request::Kill { signal: 64 }),
            ClientMessage::Request(Request::Wait),
            ClientMessage::Request(Request::Status),
            ClientMessage::Stdin(b"\0\xff bytes"),
            ClientMessage::StdinEnd,
            ClientMessage::Resize { rows: 258, cols: 65535 },
            ClientMessage::Signal(15),
        ] {
            assert_eq!(ClientMessage::decode(&packet(message.encode())).unwrap(), message);
        }
    }

    #[test]
    fn what_the_supervisor_says_is_what_a_client_hears() {
        for message in [
            SupervisorMessage::Answer(Answer::yes()),
            SupervisorMessage::Answer(Answer::started(42)),
            SupervisorMessage::Stdout(b"out"),
            SupervisorMessage::Stderr(b""),
            SupervisorMessage::StdinTaken(70000),
            SupervisorMessage::Exit(Exit { exit_code: 137, error: String::new() }),
        ] {
            assert_eq!(SupervisorMessage::decode(&packet(message.encode())).unwrap(), message);
        }
    }

    #[test]
    fn the_spelling_is_the_contracts() {
        let attach = br#"J{"op":"attach","stdin":true,"stdout":true,"stderr":false,"rows":24,"cols":80}"#;
        let wanted = Attach { stdin: true, stdout: true, stderr: false, rows: 24, cols: 80 };
        assert_eq!(ClientMessage::decode(attach).unwrap(), ClientMessage::Request(Request::Attach(wanted)));
        assert_eq!(Request::Wait, serde_json::from_str(r#"{"op":"wait"}"#).unwrap());
        let (_, yes) = SupervisorMessage::Answer(Answer::started(7)).encode();
        assert_eq!(yes, br#"{"ok":true,"pid":7}"#);
        assert_eq!(packet(ClientMessage::Resize { rows: 1, cols: 256 }.encode()), b"W\x01\x00\x00\x01");
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bad in [&b""[..], b"?", b"W123", b"S", b"S12", b"Ex", b"J{", b"J{\"op\":\"dance\"}"] {
            assert!(!ClientMessage::decode(bad).unwrap_err().0.is_empty(), "{bad:?}");
        }
    }
}
