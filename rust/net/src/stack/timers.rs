//! What shall happen later. A timer that is no longer wanted goes off all the same, and its flow finds nothing to do.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::slots::Number;
use crate::tcp::Time;

/// Whose time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A TCP flow's.
    Stream(Number),
    /// A UDP flow's.
    Datagram(Number),
    /// A question's that was passed on.
    Query(Number),
    /// A ping's.
    Echo(Number),
    /// Listeners that were left alone for want of descriptors.
    Listeners,
    /// The stack's, when its last connection has gone.
    Rest,
}

/// All timers.
#[derive(Debug, Default)]
pub struct Timers(BinaryHeap<Reverse<(Time, Timer)>>);

impl Timers {
    pub fn set(&mut self, at: Time, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    /// When the next one goes off.
    pub fn next(&self) -> Option<Time> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// One that is due.
    pub fn take(&mut self, now: Time) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, timer)) = self.0.pop()?;
        if self.0.is_empty() {
            self.0 = BinaryHeap::new();
        }
        Some(timer)
    }
}
