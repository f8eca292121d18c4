//! The half of an endpoint that receives: order, window, acknowledgements.

use std::collections::VecDeque;

use super::reassembly::Reassembly;
use super::{Sink, Time};
use crate::wire::tcp::Seq;

/// How long an acknowledgement may wait for an answer to travel with.
const DELAY: Time = Time::from_millis(5);
/// The window of a connection whose host side does not keep up, and the most that is held out of order.
pub(super) const SMALL_WINDOW: usize = 64 * 1024;

/// When the other side is to be told how far we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Debt {
    None,
    At(Time),
    Now,
}

/// The receiving half.
#[derive(Debug)]
pub struct ReceiveHalf {
    /// The next number expected.
    next: Seq,
    /// The end of the window as it was advertised; it never moves back.
    edge: Seq,
    /// How large a window we want to give.
    window: usize,
    /// Shift of the window field.
    scale: u8,
    /// Accepted, and not taken by the host's socket yet.
    backlog: VecDeque<u8>,
    early: Reassembly,
    /// The number of the other side's FIN, when it is known.
    fin: Option<Seq>,
    has_fin: bool,
    debt: Debt,
    /// Data since the last acknowledgement.
    unacknowledged: usize,
    /// Data that went straight through since the window last changed.
    smooth: usize,
    segment_size: usize,
}

impl ReceiveHalf {
    /// Expects `next`; the first window is `window`, and cannot exceed 64 KiB before the scale is known.
    #[must_use]
    pub fn new(next: Seq, window: usize, scale: u8, segment_size: usize) -> Self {
        Self {
            next,
            edge: next + window.min(usize::from(u16::MAX)),
            window,
            scale,
            backlog: VecDeque::new(),
            early: Reassembly::default(),
            fin: None,
            has_fin: false,
            debt: Debt::None,
            unacknowledged: 0,
            smooth: 0,
            segment_size,
        }
    }

    /// The next number expected.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The end of the window.
    #[must_use]
    pub fn edge(&self) -> Seq {
        self.edge
    }

    /// The other side has sent all it had, and the host's socket has taken it.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.has_fin && self.backlog.is_empty()
    }

    /// The other side's FIN is in, with all before it.
    #[must_use]
    pub fn has_fin(&self) -> bool {
        self.has_fin
    }

    /// Bytes that wait for the host's socket.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Whether a segment of `length` numbers from `seq` on touches the window, RFC 9293 §3.10.7.4.
    #[must_use]
    pub fn is_acceptable(&self, seq: Seq, length: usize) -> bool {
        let inside = |at: Seq| !at.is_before(self.next) && at.is_before(self.edge);
        match (length, self.edge == self.next) {
            (0, true) => seq == self.next,
            (0, false) => inside(seq) || seq == self.edge,
            (_, true) => false,
            _ => inside(seq) || inside(seq + (length - 1)),
        }
    }

    /// Takes an acceptable segment's data.
    pub fn take(
        &mut self,
        now: Time,
        seq: Seq,
        payload: &[u8],
        fin: bool,
        most: usize,
        sink: &mut impl Sink,
    ) {
        if fin {
            self.fin = Some(seq + payload.len());
        }
        let known = self.next.distance_from(seq).min(payload.len());
        let (seq, mut payload) = (seq + known, &payload[known..]);
        payload = &payload[..payload.len().min(self.edge.distance_from(seq))];
        if known > 0 {
            self.debt = Debt::Now;
        }
        if seq != self.next {
            if self.next.is_before(seq) {
                self.early.insert(seq, payload, SMALL_WINDOW);
            }
            self.debt = Debt::Now;
            return;
        }
        if !payload.is_empty() {
            self.deliver(now, payload, most, sink);
        }
        while !self.early.is_empty() {
            let Some(piece) = self.early.take(self.next) else { break };
            self.deliver(now, &piece, most, sink);
            self.debt = Debt::Now;
        }
        if self.fin == Some(self.next) && !self.has_fin {
            self.has_fin = true;
            self.next = self.next + 1;
            self.edge = self.edge.later(self.next);
            self.debt = Debt::Now;
        }
    }

    fn deliver(&mut self, now: Time, payload: &[u8], most: usize, sink: &mut impl Sink) {
        let taken = if self.backlog.is_empty() { sink.accept(payload) } else { 0 };
        if taken < payload.len() {
            self.backlog.extend(&payload[taken..]);
            self.window = SMALL_WINDOW.min(most);
            self.smooth = 0;
        } else {
            self.smooth += taken;
            if self.smooth >= self.window && self.window < most {
                self.window = (self.window * 2).min(most);
                self.smooth = 0;
            }
        }
        self.window = self.window.min(most);
        self.next = self.next + payload.len();
        self.unacknowledged += payload.len();
        // RFC 9293 §3.8.6.3: at least every second full segment.
        if self.unacknowledged >= 2 * self.segment_size {
            self.debt = Debt::Now;
        } else if self.debt == Debt::None {
            self.debt = Debt::At(now + DELAY);
        }
    }

    /// The host's socket takes more again.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        while !self.backlog.is_empty() {
            let (front, _) = self.backlog.as_slices();
            let taken = sink.accept(front);
            if taken == 0 {
                return;
            }
            self.backlog.drain(..taken);
        }
        self.backlog = VecDeque::new(); // its memory goes too
        if self.edge.distance_from(self.next) < self.window / 2 {
            self.debt = Debt::Now;
        }
    }

    /// Somebody has to be told where we are, whatever there is to tell.
    pub fn owe(&mut self) {
        self.debt = Debt::Now;
    }

    /// Whether an acknowledgement is due.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        match self.debt {
            Debt::None => false,
            Debt::At(at) => at <= now,
            Debt::Now => true,
        }
    }

    /// When it will be.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.debt {
            Debt::None => None,
            Debt::At(at) => Some(at),
            Debt::Now => Some(Time::ZERO),
        }
    }

    /// An acknowledgement goes out: the window field that it shall carry, and the blocks.
    pub fn acknowledge(&mut self, with_blocks: bool) -> (u16, [(Seq, Seq); 3]) {
        self.debt = Debt::None;
        self.unacknowledged = 0;
        if !self.has_fin {
            let room = self.window.saturating_sub(self.backlog.len());
            let wanted = self.next + room;
            // A silly window is not opened, RFC 9293 §3.8.6.2.2.
            if wanted.distance_from(self.edge) >= self.segment_size.min(self.window / 2) {
                self.edge = wanted;
            }
        }
        let open = self.edge.distance_from(self.next) >> self.scale;
        let blocks =
            if with_blocks && !self.early.is_empty() { self.early.blocks() } else { Default::default() };
        (u16::try_from(open).unwrap_or(u16::MAX), blocks)
    }
}
