//! The command itself: found in the container's PATH, executed, or refused in the words
//! Docker uses.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use duckweed_sys::exec::Program;
use duckweed_sys::spawn::c_string;
use rustix::fs::{Access, FileType};
use rustix::io::Errno;

use crate::start_error::{Code, StartError};

/// Docker's, for an image that sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The strings for execve(2).
pub(crate) fn program(args: &[String], env: &[String]) -> Result<Program, StartError> {
    let strings = |texts: &[String]| texts.iter().map(c_string).collect::<io::Result<Vec<CString>>>();
    match (strings(args), strings(env)) {
        (Ok(args), Ok(env)) => Ok(Program::new(args, env)),
        _ => Err(StartError::new(
            Code::Spec,
            "read the command",
            "the command or its environment holds a NUL byte",
        )),
    }
}

/// Becomes the program `name`; comes back only with the reason why not.
pub(crate) fn exec(name: &str, env: &[String], search: bool, program: &Program) -> StartError {
    if name.is_empty() {
        return not_found(name, "executable file not found in $PATH");
    }
    if name.contains('/') || !search {
        return refusal(name, Path::new(name), exec_one(program, OsStr::new(name)));
    }
    let mut denied = false;
    for directory in path_of(env).split(':') {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match exec_one(program, candidate.as_os_str()) {
            Errno::NOENT if !exists(&candidate) => {}
            Errno::NOTDIR | Errno::LOOP => {}
            // execvp(3): a candidate that may not be executed does not end the search.
            Errno::ACCESS => denied |= is_file(&candidate),
            errno => return refusal(name, &candidate, errno),
        }
    }
    if denied {
        return not_executable(name, "permission denied", Errno::ACCESS);
    }
    not_found(name, "executable file not found in $PATH")
}

fn path_of(env: &[String]) -> &str {
    env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH)
}

fn exec_one(program: &Program, path: &OsStr) -> Errno {
    let Ok(path) = CString::new(path.as_bytes()) else { return Errno::INVAL };
    match program.exec(&path) {
        Ok(never) => match never {},
        Err(error) => Errno::from_io_error(&error).unwrap_or(Errno::IO),
    }
}

fn exists(path: &Path) -> bool {
    rustix::fs::access(path, Access::EXISTS).is_ok()
}

fn is_file(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file())
}

fn refusal(name: &str, path: &Path, errno: Errno) -> StartError {
    match errno {
        Errno::NOENT if !exists(path) => not_found(name, &format!("stat {name}: no such file or directory")),
        // The file is there: its interpreter or loader is what is missing.
        Errno::NOENT => {
            let message =
                format!("exec {}: no such file or directory: its interpreter is missing", path.display());
            StartError { message, ..not_found(name, "") }
        }
        Errno::ACCESS
            if rustix::fs::stat(path).is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_dir()) =>
        {
            not_executable(name, "is a directory", errno)
        }
        Errno::ACCESS => not_executable(name, "permission denied", errno),
        Errno::NOEXEC => {
            let message = format!("exec {}: exec format error", path.display());
            StartError { message, ..not_executable(name, "", errno) }
        }
        other => not_executable(name, &duckweed_sys::errno::describe(other.raw_os_error()), other),
    }
}

fn not_found(name: &str, why: &str) -> StartError {
    let message = format!("exec: \"{name}\": {why}");
    StartError {
        errno: 2,
        errno_name: "ENOENT".into(),
        ..StartError::new(Code::CommandNotFound, "start the command", message)
    }
}

fn not_executable(name: &str, why: &str, errno: Errno) -> StartError {
    let message = format!("exec: \"{name}\": {why}");
    let error = StartError::new(Code::CommandNotExecutable, "start the command", message);
    let raw = errno.raw_os_error();
    StartError { errno: raw, errno_name: duckweed_sys::errno::name(raw).into(), ..error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(name: &str, path: &str) -> StartError {
        let env = vec![format!("PATH={path}")];
        let program = program(&[name.to_owned()], &env).unwrap();
        exec(name, &env, true, &program)
    }

    #[test]
    fn a_name_that_is_nowhere_in_path_is_not_found() {
        let error = attempt("foo", "/nowhere:/etc/passwd");
        assert_eq!(error.message, "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(error.exit_code, 127);
    }

    #[test]
    fn a_path_says_what_is_wrong_with_it() {
        let error = attempt("/nope", "");
        assert_eq!(
            (error.message.as_str(), error.exit_code),
            ("exec: \"/nope\": stat /nope: no such file or directory", 127)
        );
        let error = attempt("/etc", "");
        assert_eq!((error.message.as_str(), error.exit_code), ("exec: \"/etc\": is a directory", 126));
        let error = attempt("/etc/passwd", "");
        assert_eq!(
            (error.message.as_str(), error.exit_code),
            ("exec: \"/etc/passwd\": permission denied", 126)
        );
    }

    #[test]
    fn a_file_in_path_that_cannot_be_executed_is_permission_denied() {
        assert_eq!(attempt("passwd", "/nowhere:/etc").message, "exec: \"passwd\": permission denied");
    }

    #[test]
    fn a_file_of_no_known_format_is_an_exec_format_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("odd");
        std::fs::write(&path, "\0odd").unwrap();
        rustix::fs::chmod(&path, 0o755.into()).unwrap();
        let error = attempt("odd", dir.path().to_str().unwrap());
        assert!(error.message.ends_with("exec format error"), "{}", error.message);
        assert_eq!(error.exit_code, 126);
    }
}
