//! A fact: whether something works here, and if not what the kernel said.

use std::io;

use duckweed_sys::trial::{attempt, Ending};
use serde::Serialize;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// It works.
    pub ok: bool,
    /// The number of the error that said no.
    pub errno: Option<i32>,
    /// That error's name.
    pub errno_name: Option<&'static str>,
    /// A value when it works, the step that failed when it does not; may be empty.
    pub detail: String,
}

impl Fact {
    /// It works; `detail` may hold a value.
    pub fn works(detail: impl Into<String>) -> Self {
        Self { ok: true, errno: None, errno_name: None, detail: detail.into() }
    }

    /// It does not, without an errno.
    pub fn missing(detail: impl Into<String>) -> Self {
        Self { ok: false, errno: None, errno_name: None, detail: detail.into() }
    }

    /// It does not; `step` is what was being done.
    pub fn failed(error: &io::Error, step: impl Into<String>) -> Self {
        let errno = error.raw_os_error();
        let errno_name = errno.map(duckweed_sys::errno::name);
        Self { ok: false, errno, errno_name, detail: step.into() }
    }

    /// A step that may be tried in this process.
    pub fn here(step: &str, tried: io::Result<impl Into<String>>) -> Self {
        match tried {
            Ok(detail) => Self::works(detail),
            Err(error) => Self::failed(&error, step),
        }
    }
}

/// Why a trial failed: which step, which error.
#[derive(Debug)]
pub struct Refusal {
    step: String,
    error: io::Error,
}

/// Names the step of a result, for `?` in a trial's body.
pub trait Step<T> {
    /// Says what was being done.
    fn step(self, step: &str) -> Result<T, Refusal>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, Refusal> {
        self.map_err(|error| Refusal { step: step.to_owned(), error: error.into() })
    }
}

/// A refusal without a system error: the kernel said yes and did something else.
pub fn wrong(step: &str) -> Refusal {
    Refusal { step: step.to_owned(), error: io::Error::other("wrong result") }
}

/// Tries in a forked child. The answer crosses as four bytes of errno (0: it works,
/// -1: no errno) and the detail.
pub fn in_child(body: impl FnOnce() -> Result<String, Refusal>) -> Fact {
    let ending = attempt(|| {
        let (errno, detail) = match body() {
            Ok(detail) => (0, detail),
            Err(refusal) => (refusal.error.raw_os_error().unwrap_or(-1), refusal.step),
        };
        let mut answer = i32::to_le_bytes(errno).to_vec();
        answer.extend_from_slice(detail.as_bytes());
        answer
    });
    match ending {
        Ok(Ending::Answered(answer)) => read_answer(&answer),
        Ok(Ending::Killed(signal)) => Fact::missing(format!("the trial was killed by signal {signal}")),
        Err(error) => Fact::failed(&error, "starting the trial"),
    }
}

fn read_answer(answer: &[u8]) -> Fact {
    let Some((errno, detail)) = answer.split_first_chunk::<4>() else {
        return Fact::missing("the trial ended without an answer");
    };
    let detail = String::from_utf8_lossy(detail).into_owned();
    match i32::from_le_bytes(*errno) {
        0 => Fact::works(detail),
        -1 => Fact::missing(detail),
        errno => Fact::failed(&io::Error::from_raw_os_error(errno), detail),
    }
}
