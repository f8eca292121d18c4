//! The user's terminal while a container has it: raw, and given back on every way out.
//!
//! Signals arrive as data (see `signals`), so each way out passes through
//! [`Raw`]'s end; a panic, which aborts, restores it in its hook.

use std::sync::Mutex;

use rustix::termios::{tcgetattr, tcgetwinsize, tcsetattr, OptionalActions, Termios};

/// The terminal as it was, for the panic hook and for [`Raw`]'s end.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// A terminal in raw mode; restored when this goes.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// Makes the terminal at descriptor 0 raw; `None` when it is no terminal.
    #[must_use]
    pub fn enter() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let before = tcgetattr(stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        if let Ok(mut place) = BEFORE.lock() {
            *place = Some(before);
        }
        let guard = Self(());
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            hook(panic);
        }));
        tcsetattr(stdin, OptionalActions::Drain, &raw).ok()?;
        Some(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    let before = BEFORE.try_lock().ok().and_then(|mut place| place.take());
    if let Some(before) = before {
        // A terminal that went away needs nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &before);
    }
}

/// The terminal's size, rows and columns; zeros when there is none.
#[must_use]
pub fn size() -> (u16, u16) {
    let size = tcgetwinsize(rustix::stdio::stdout()).or_else(|_| tcgetwinsize(rustix::stdio::stdin()));
    size.map_or((0, 0), |size| (size.ws_row, size.ws_col))
}
