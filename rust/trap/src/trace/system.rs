//! The container's name.

use rustix::io::Errno;

use super::{Outcome, Tracer, DONE};
use crate::call::Call;
use crate::credentials::capability;

/// `struct new_utsname`: six fields of this length.
const FIELD: usize = 65;

pub(super) fn uname(tracer: &mut Tracer, call: &Call) -> Outcome {
    let host = rustix::system::uname();
    let fields: [&[u8]; 6] = [
        host.sysname().to_bytes(),
        &tracer.settings.hostname,
        host.release().to_bytes(),
        host.version().to_bytes(),
        host.machine().to_bytes(),
        if tracer.settings.domainname.is_empty() { b"(none)" } else { &tracer.settings.domainname },
    ];
    let mut bytes = vec![0; 6 * FIELD];
    for (index, field) in fields.iter().enumerate() {
        let length = field.len().min(FIELD - 1);
        bytes[index * FIELD..index * FIELD + length].copy_from_slice(&field[..length]);
    }
    call.write(0, &bytes)?;
    DONE
}

fn new_name(tracer: &Tracer, call: &Call) -> Result<Vec<u8>, Errno> {
    if !tracer.world.caller(call)?.can(capability::SYS_ADMIN) {
        return Err(Errno::PERM);
    }
    match call.int(1) {
        length @ 0..=64 => call.bytes(0, length as usize),
        _ => Err(Errno::INVAL),
    }
}

pub(super) fn sethostname(tracer: &mut Tracer, call: &Call) -> Outcome {
    tracer.settings.hostname = new_name(tracer, call)?;
    DONE
}

pub(super) fn setdomainname(tracer: &mut Tracer, call: &Call) -> Outcome {
    tracer.settings.domainname = new_name(tracer, call)?;
    DONE
}
