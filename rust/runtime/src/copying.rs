//! `duckweed-runtime copy`: files out of a container and into it, as a tar on stdout or from stdin.
//!
//! `copy --container DIR [--pid INIT] REQUEST`, the request being JSON:
//!
//! ```json
//! {"send":"/etc/passwd","follow":false,"name":"."}
//! {"receive":"/tmp/","name":"file","contents":false,"owner":[0,0]}
//! {"unpack":"/tmp","owner":null}
//! ```
//!
//! `send` and `receive` are the two ends of `duckweed_layer::copying`; `unpack` takes any tar,
//! also gzip or zstd, into a directory. `owner` `null` keeps the archive's ids. Exit codes
//! beside 0 and 125 tell a caller what to say: 3 no such file, 4 no such directory, 5 a directory
//! onto a file, 1 everything else; stderr has one line in any case.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;

use duckweed_layer::copying::{self, Arrival, CopyFault};
use duckweed_layer::unpack::{Links, NewOwner, Unpacked};
use rustix::process::Pid;
use serde::Deserialize;

use crate::bundle::Bundle;
use crate::spec::Isolation;
use crate::start_error::{Code, Doing as _, StartError};
use crate::userns;

/// What is to be done.
#[derive(Debug, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Request {
    /// Files out.
    Send {
        /// The path, as it was typed.
        send: String,
        /// A link at its end is followed.
        #[serde(default)]
        follow: bool,
        /// What it is called in the tar.
        name: String,
    },
    /// Files in.
    Receive {
        /// The path, as it was typed.
        receive: String,
        /// The source's own name.
        name: String,
        /// It was written `SRC/.`.
        #[serde(default)]
        contents: bool,
        /// Who shall own it; the archive's ids when absent.
        #[serde(default)]
        owner: Option<(u32, u32)>,
    },
    /// A tar of any kind.
    Unpack {
        /// The directory, as it was typed.
        unpack: String,
        /// As above.
        #[serde(default)]
        owner: Option<(u32, u32)>,
    },
}

/// Runs a request; answers with the exit code.
///
/// # Errors
/// What kept us from the container's files.
pub fn run(container: &Path, init: Option<i32>, text: &str) -> Result<i32, StartError> {
    let bundle = Bundle::load(container)?;
    let request: Request = serde_json::from_str(text).map_err(|error| {
        StartError::new(crate::start_error::Code::Spec, "read the request", error.to_string())
    })?;
    let work = || carry_out(&request);
    match bundle.block.isolation {
        Isolation::Userns => userns::reach(&bundle, init.and_then(Pid::from_raw), work),
        Isolation::Trap if init.is_some() => ask_supervisor(container, text),
        Isolation::Trap => crate::trap::reach(&bundle, &work),
    }
}

/// A request, carried out by a process that is in the container already.
pub(crate) fn run_here(request: &str) -> i32 {
    serde_json::from_str(request).map_or(125, |request| carry_out(&request))
}

/// A container without namespaces is entered by its supervisor alone.
fn ask_supervisor(container: &Path, request: &str) -> Result<i32, StartError> {
    use crate::message::{packet, ClientMessage, Exec, Request, SupervisorMessage};
    let state = crate::supervise::socket_of(container)
        .ok_or_else(|| StartError::new(Code::Internal, "reach the container", "the container has ended"))?;
    let context = || "reach the container's supervisor";
    let socket = packet::connect(&state).doing(Code::Internal, context)?;
    let exec = Exec { copy: Some(request.to_owned()), args: vec!["copy".into()], ..Exec::default() };
    let (kind, payload) = ClientMessage::Request(Request::Exec(exec)).encode();
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    packet::send(socket.as_fd(), kind, &payload, &[stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
        .doing(Code::Internal, context)?;
    let mut buffer = vec![0; 64 * 1024];
    while let Some((bytes, _)) =
        packet::receive(socket.as_fd(), &mut buffer).doing(Code::Internal, context)?
    {
        match SupervisorMessage::decode(bytes) {
            Ok(SupervisorMessage::Exit(exit)) => return Ok(exit.exit_code),
            Ok(SupervisorMessage::Answer(answer)) => {
                if let Some(error) = answer.error {
                    return Err(error);
                }
            }
            _ => {}
        }
    }
    Err(StartError::new(Code::Internal, context(), "the container has ended"))
}

fn carry_out(request: &Request) -> i32 {
    match perform(request) {
        Ok(skipped) => {
            for line in skipped {
                let _ = writeln!(io::stderr(), "note: {line}");
            }
            0
        }
        Err(fault) => {
            let _ = writeln!(io::stderr(), "duckweed: {fault}");
            code(&fault)
        }
    }
}

fn code(fault: &CopyFault) -> i32 {
    match fault {
        CopyFault::NotThere => 3,
        CopyFault::NoDirectory => 4,
        CopyFault::OntoFile => 5,
        _ => 1,
    }
}

fn perform(request: &Request) -> Result<Vec<String>, CopyFault> {
    let root = copying::own_root().map_err(CopyFault::Path)?;
    let stdin =
        || io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from).map_err(CopyFault::Stream);
    let arrival = |name: &str, is_contents, owner: Option<(u32, u32)>| Arrival {
        name: name.as_bytes().to_vec(),
        is_contents,
        owner: owner.map_or(NewOwner::Archived, |(uid, gid)| NewOwner::These(uid, gid)),
        links: Links::Inside,
    };
    let done: Unpacked = match request {
        Request::Send { send, follow, name } => {
            let out = io::stdout().as_fd().try_clone_to_owned().map_err(CopyFault::Stream)?;
            let out = io::BufWriter::with_capacity(256 * 1024, std::fs::File::from(out));
            copying::send(&root, relative(send), *follow, name, out)?;
            return Ok(Vec::new());
        }
        Request::Receive { receive, name, contents, owner } => {
            copying::receive(root, relative(receive), &arrival(name, *contents, *owner), stdin()?)?
        }
        Request::Unpack { unpack, owner } => {
            copying::receive_archive(root, relative(unpack), &arrival("", true, *owner), stdin()?)?
        }
    };
    Ok(done.skipped)
}

/// A container's paths begin at its root, with a slash or without.
fn relative(path: &str) -> &[u8] {
    path.trim_start_matches('/').as_bytes()
}
