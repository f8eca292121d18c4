//! The same for open files.

use super::attributes::{change_mode, get, give, list, open_file, remove, set};
use super::{Outcome, Tracer};
use crate::call::Call;

pub(super) fn fchmod(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = open_file(tracer, call, call.int(0).max(-1))?;
    change_mode(tracer, call, spot, call.word(1))
}

pub(super) fn fchown(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = open_file(tracer, call, call.int(0).max(-1))?;
    give(tracer, call, spot, call.word(1), call.word(2))
}

pub(super) fn fsetxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = open_file(tracer, call, call.int(0).max(-1))?;
    set(tracer, call, spot)
}

pub(super) fn fgetxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = open_file(tracer, call, call.int(0).max(-1))?;
    get(tracer, call, &spot)
}

pub(super) fn flistxattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = open_file(tracer, call, call.int(0).max(-1))?;
    list(tracer, call, &spot)
}

pub(super) fn fremovexattr(tracer: &mut Tracer, call: &Call) -> Outcome {
    let spot = open_file(tracer, call, call.int(0).max(-1))?;
    remove(tracer, call, spot)
}
