//! Gates between layers that are extracted at the same time: a layer needs the
//! trees below it only when a hard link or an implied directory asks for them,
//! and waits for them only then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How often somebody who waits looks whether to give up.
const LOOK: Duration = Duration::from_millis(50);

/// Closed at first; once open it stays open.
#[derive(Debug, Default)]
pub struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Lets everybody through who waits, and who comes later.
    pub fn open(&self) {
        *self.is_open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.opened.notify_all();
    }

    /// Waits until the gate is open; `false` if `cancel` was raised before.
    pub fn wait(&self, cancel: Option<&AtomicBool>) -> bool {
        let mut is_open = self.is_open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while !*is_open {
            if cancel.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return false;
            }
            let waited = self.opened.wait_timeout(is_open, LOOK);
            is_open = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}
