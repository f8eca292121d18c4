//! Why a container, or a command in one, did not start: the one error that crosses from
//! the runtime to Python (contracts.md §6).
//!
//! It is made where the facts are, often in a process that is about to vanish, and
//! travels as JSON: first over the start socket to the parent, then on the channel.

use std::borrow::Cow;
use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What kind of thing went wrong; the spelling on the wire is kebab-case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The command does not exist (exit code 127).
    CommandNotFound,
    /// The command exists and cannot be executed (126).
    CommandNotExecutable,
    /// The user or group is unknown, or has no id here.
    BadUser,
    /// The working directory cannot be entered.
    BadCwd,
    /// A mount was refused.
    Mount,
    /// A namespace was refused, or something inside it.
    Namespace,
    /// The id maps could not be written.
    Idmap,
    /// The root file system could not be put together.
    Rootfs,
    /// The system call filter was refused.
    Seccomp,
    /// A resource limit was refused.
    Rlimit,
    /// A port, an interface or a network could not be had.
    Network,
    /// config.json is unreadable or contradicts itself.
    Spec,
    /// Anything else.
    Internal,
}

/// A start that did not happen, in the words of contracts.md §6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// The kind.
    pub code: Code,
    /// What was being done, for example `mount proc on /proc`.
    pub context: Cow<'static, str>,
    /// The kernel's answer; 0 when it was not asked.
    pub errno: i32,
    /// Its name, for example `EPERM`; empty with 0.
    pub errno_name: Cow<'static, str>,
    /// One line for people.
    pub message: String,
    /// 125, 126 or 127.
    pub exit_code: i32,
}

impl StartError {
    /// An error without an errno; `message` is the whole line.
    pub fn new(code: Code, context: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let exit_code = match code {
            Code::CommandNotFound => 127,
            Code::CommandNotExecutable => 126,
            _ => 125,
        };
        Self {
            code,
            context: context.into(),
            errno: 0,
            errno_name: "".into(),
            message: message.into(),
            exit_code,
        }
    }

    /// An error the kernel gave while doing `context`; the line is made of both.
    pub fn errno(code: Code, context: impl Into<Cow<'static, str>>, errno: Errno) -> Self {
        let context = context.into();
        let raw = errno.raw_os_error();
        let name = duckweed_sys::errno::name(raw);
        let reason = duckweed_sys::errno::describe(raw);
        let message = format!("{context}: {reason} ({name})");
        Self { errno: raw, errno_name: name.into(), ..Self::new(code, context, message) }
    }

    /// As [`StartError::errno`] for an error of std.
    pub fn io(code: Code, context: impl Into<Cow<'static, str>>, error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(errno) => Self::errno(code, context, errno),
            None => {
                let context = context.into();
                let message = format!("{context}: {error}");
                Self::new(code, context, message)
            }
        }
    }
}

/// Gives a failed system call its place: `fsopen(..).doing(Code::Mount, || "mount proc".into())?`.
pub trait Doing<T> {
    /// Wraps the error; `context` is made only when there is one.
    ///
    /// # Errors
    /// The error itself, as a [`StartError`].
    fn doing<C: Into<Cow<'static, str>>>(
        self,
        code: Code,
        context: impl FnOnce() -> C,
    ) -> Result<T, StartError>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing<C: Into<Cow<'static, str>>>(
        self,
        code: Code,
        context: impl FnOnce() -> C,
    ) -> Result<T, StartError> {
        self.map_err(|errno| StartError::errno(code, context(), errno))
    }
}

impl<T> Doing<T> for io::Result<T> {
    fn doing<C: Into<Cow<'static, str>>>(
        self,
        code: Code,
        context: impl FnOnce() -> C,
    ) -> Result<T, StartError> {
        self.map_err(|error| StartError::io(code, context(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_the_contracts() {
        let error = StartError::errno(Code::Mount, "mount proc on /proc", Errno::PERM);
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(json["code"], "mount");
        assert_eq!(json["errno_name"], "EPERM");
        assert_eq!(json["errno"], 1);
        assert_eq!(json["exit_code"], 125);
        assert_eq!(json["message"], "mount proc on /proc: operation not permitted (EPERM)");
    }

    #[test]
    fn commands_have_dockers_exit_codes() {
        assert_eq!(StartError::new(Code::CommandNotFound, "exec", "x").exit_code, 127);
        assert_eq!(StartError::new(Code::CommandNotExecutable, "exec", "x").exit_code, 126);
    }
}
