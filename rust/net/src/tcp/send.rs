//! The half of an endpoint that sends: what waits, what is under way, what is lost.
//!
//! There is no congestion window: the only queue between us and the container's kernel is
//! the link's, and the window we were given bounds it. Loss is found by three duplicate
//! acknowledgements or by what SACK reports (RFC 6675 in short), else by the timer; after
//! the timer data goes out again a segment at a time, more with each answer.

use std::collections::VecDeque;
use std::io::IoSlice;

use super::round_trip::{RoundTrip, MOST_BACKOFF};
use super::Time;
use crate::wire::tcp::Seq;

/// Duplicate acknowledgements that mean a loss.
const DUPLICATES: u32 = 3;
/// Small pieces are put together until they are this large.
const GATHER: usize = 16 * 1024;
/// Ranges that SACK is believed about.
const MOST_SACKED: usize = 32;

/// The sending half.
#[derive(Debug)]
pub struct SendHalf {
    /// The oldest number that is not acknowledged.
    oldest: Seq,
    /// The next number that was never sent.
    next: Seq,
    /// The end of what the other side takes.
    edge: Seq,
    /// Segment numbers of the last window update, RFC 9293 §3.10.7.4.
    updated_by: (Seq, Seq),
    scale: u8,
    /// Data from `oldest` on.
    chunks: VecDeque<Vec<u8>>,
    /// Bytes of the first chunk that are acknowledged already.
    skip: usize,
    queued: usize,
    wants_fin: bool,
    fin_acknowledged: bool,
    segment_size: usize,
    sacked: Vec<(Seq, Seq)>,
    duplicates: u32,
    /// Until this is acknowledged we are mending a loss.
    recovery: Option<Seq>,
    /// What is mended: the next number to send again, up to where, and how much may go now.
    again: Seq,
    lost_until: Seq,
    credit: usize,
    round_trip: RoundTrip,
    timed: Option<(Seq, Time)>,
    timer: Option<Time>,
    probe_due: bool,
}

/// Bytes to send: their number and length, and whether a FIN comes with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The first number.
    pub seq: Seq,
    /// The first byte, counted from the oldest one kept.
    pub offset: usize,
    /// How many bytes.
    pub length: usize,
    /// The end of all.
    pub fin: bool,
    /// Nothing more waits behind it.
    pub is_last: bool,
}

impl SendHalf {
    /// Begins at `next` with the peer's window field as it stands in a segment that is not scaled.
    #[must_use]
    pub fn new(next: Seq, window: usize, scale: u8, segment_size: usize, updated_by: (Seq, Seq)) -> Self {
        Self {
            oldest: next,
            next,
            edge: next + window,
            updated_by,
            scale,
            chunks: VecDeque::new(),
            skip: 0,
            queued: 0,
            wants_fin: false,
            fin_acknowledged: false,
            segment_size,
            sacked: Vec::new(),
            duplicates: 0,
            recovery: None,
            again: next,
            lost_until: next,
            credit: 0,
            round_trip: RoundTrip::default(),
            timed: None,
            timer: None,
            probe_due: false,
        }
    }

    /// The handshake took this long.
    pub fn measure(&mut self, sample: Time) {
        self.round_trip.measure(sample);
    }

    /// The next number that was never sent.
    #[must_use]
    pub fn next(&self) -> Seq {
        self.next
    }

    /// The oldest number that is not acknowledged.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.oldest
    }

    /// Bytes that are kept here.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// How many more bytes can be of use now; always some when nothing waits, so that a closed window is probed.
    #[must_use]
    pub fn room(&self, most: usize) -> usize {
        if self.wants_fin {
            return 0;
        }
        let window = self.edge.distance_from(self.oldest).min(most);
        window.saturating_sub(self.queued).max(if self.queued == 0 { 1 } else { 0 })
    }

    /// Takes a chunk as it is.
    pub fn push(&mut self, chunk: Vec<u8>) {
        self.queued += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Takes a copy of a few bytes.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.queued += bytes.len();
        match self.chunks.back_mut() {
            Some(last) if last.len() + bytes.len() <= GATHER => last.extend_from_slice(bytes),
            _ => self.chunks.push_back(bytes.to_vec()),
        }
    }

    /// No more will be pushed.
    pub fn finish(&mut self) {
        self.wants_fin = true;
    }

    /// The FIN was asked for.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.wants_fin
    }

    /// All that was pushed, and the FIN, are acknowledged.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.fin_acknowledged
    }

    /// The FIN has a number of its own, behind the last byte.
    fn fin_is_under_way(&self) -> bool {
        (self.oldest + self.queued).is_before(self.next)
    }

    /// An acknowledgement. Answers false when it acknowledges what was never sent.
    pub fn acknowledged(
        &mut self,
        now: Time,
        (seq, ack): (Seq, Seq),
        window: u16,
        carries: bool,
        sack: &[(Seq, Seq)],
        recycle: &mut dyn FnMut(Vec<u8>),
    ) -> bool {
        if self.next.is_before(ack) {
            return false;
        }
        let fresh = ack.distance_from(self.oldest);
        let edge = ack + (usize::from(window) << self.scale);
        let same_window = edge == self.edge;
        if fresh > 0 {
            self.advance(now, ack, fresh, recycle);
        }
        let newer = self.updated_by.0.is_before(seq)
            || (self.updated_by.0 == seq && !ack.is_before(self.updated_by.1));
        if newer && !ack.is_before(self.oldest) {
            self.updated_by = (seq, ack);
            let was_closed = !self.oldest.is_before(self.edge);
            self.edge = edge;
            if was_closed && self.oldest.is_before(edge) {
                self.reopen();
            }
        }
        let grew = self.note_sacked(sack);
        if fresh == 0 && ack == self.oldest && self.oldest != self.next {
            if !carries && (same_window || grew) {
                self.duplicates += 1;
            }
            self.look_for_loss();
        }
        self.rearm(now, fresh > 0);
        true
    }

    /// The window was closed; a probe that met it then may have been thrown away.
    fn reopen(&mut self) {
        self.probe_due = false;
        self.timer = None;
        self.round_trip.backoff = 0;
        if self.oldest != self.next {
            self.recovery = Some(self.next);
            self.again = self.oldest;
            self.lost_until = self.next;
            self.credit = 1 << 20;
        }
    }

    fn advance(&mut self, now: Time, ack: Seq, fresh: usize, recycle: &mut dyn FnMut(Vec<u8>)) {
        let mut bytes = fresh.min(self.queued);
        let fin_too = fresh > self.queued;
        self.queued -= bytes;
        while bytes > 0 {
            let Some(first) = self.chunks.front() else { break };
            let left = first.len() - self.skip;
            if left > bytes {
                self.skip += bytes;
                break;
            }
            bytes -= left;
            self.skip = 0;
            if let Some(chunk) = self.chunks.pop_front() {
                recycle(chunk);
            }
        }
        self.oldest = ack;
        self.duplicates = 0;
        self.round_trip.backoff = 0;
        if let Some((seq, at)) = self.timed {
            if !ack.is_before(seq) {
                self.round_trip.measure(now.saturating_sub(at));
                self.timed = None;
            }
        }
        self.sacked.retain(|(_, right)| ack.is_before(*right));
        match self.recovery {
            Some(until) if !ack.is_before(until) => {
                self.recovery = None;
                self.credit = 0;
            }
            Some(_) => self.mend_after_partial(ack, fresh),
            None => {}
        }
        self.fin_acknowledged |= fin_too;
    }

    /// Part of what was lost has arrived: what follows it is lost too, unless it is known to be there.
    fn mend_after_partial(&mut self, ack: Seq, fresh: usize) {
        self.again = self.again.later(ack);
        self.credit = self.credit.saturating_add(fresh + self.segment_size).min(1 << 20);
        if !self.again.is_before(self.lost_until) {
            self.again = ack;
            self.lost_until = ack + self.segment_size;
        }
    }

    fn note_sacked(&mut self, blocks: &[(Seq, Seq)]) -> bool {
        let mut grew = false;
        for (left, right) in blocks {
            let sane =
                left.is_before(*right) && self.oldest.is_before(*right) && !self.next.is_before(*right);
            if !sane || self.sacked.iter().any(|(l, r)| !left.is_before(*l) && !r.is_before(*right)) {
                continue;
            }
            grew = true;
            let (mut left, mut right) = (left.later(self.oldest), *right);
            self.sacked.retain(|(l, r)| {
                let apart = right.is_before(*l) || r.is_before(left);
                if !apart {
                    left = if l.is_before(left) { *l } else { left };
                    right = right.later(*r);
                }
                apart
            });
            if self.sacked.len() < MOST_SACKED {
                let at = self.sacked.iter().take_while(|(l, _)| l.is_before(left)).count();
                self.sacked.insert(at, (left, right));
            }
        }
        grew
    }

    fn look_for_loss(&mut self) {
        let reported: usize = self.sacked.iter().map(|(left, right)| right.distance_from(*left)).sum();
        let found = self.duplicates >= DUPLICATES || reported >= 3 * self.segment_size;
        let top = self.sacked.last().map_or(self.oldest + self.segment_size, |(_, right)| *right);
        if self.recovery.is_none() && found {
            self.recovery = Some(self.next);
            self.again = self.oldest;
            self.lost_until = top;
            self.credit = 1 << 20;
            self.timed = None;
        } else if self.recovery.is_some() {
            // Something has left the link: a segment's worth may follow it.
            self.credit = (self.credit + self.segment_size).min(1 << 20);
            self.lost_until = self.lost_until.later(top);
        }
    }

    fn rearm(&mut self, now: Time, progress: bool) {
        if self.oldest == self.next {
            self.timer = None;
            if self.queued > 0 && !self.oldest.is_before(self.edge) {
                // Nothing is under way and nothing may go: ask again some time.
                self.timer = Some(now + self.round_trip.timeout());
            }
        } else if progress || self.timer.is_none() {
            self.timer = Some(now + self.round_trip.timeout());
        }
    }

    /// When something happens by itself.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.timer
    }

    /// The time is up. Answers false when the other side is given up.
    pub fn on_timer(&mut self, now: Time) -> bool {
        if self.timer.is_none_or(|at| now < at) {
            return true;
        }
        self.round_trip.backoff += 1;
        self.timer = Some(now + self.round_trip.timeout());
        if self.oldest == self.next {
            self.probe_due = true;
            return true; // A closed window that is confirmed may stay closed for ever.
        }
        if !self.oldest.is_before(self.edge) {
            self.round_trip.backoff = self.round_trip.backoff.min(8);
        } else if self.round_trip.backoff > MOST_BACKOFF {
            return false;
        }
        self.recovery = Some(self.next);
        self.again = self.oldest;
        self.lost_until = self.next;
        self.credit = self.segment_size;
        self.timed = None;
        self.duplicates = 0;
        // What was reported may have been thrown away, RFC 2018 §8.
        self.sacked.clear();
        true
    }

    /// The next piece to send, at most `most` bytes.
    pub fn poll(&mut self, now: Time, most: usize) -> Option<Piece> {
        let piece = self.lost_piece(most).or_else(|| self.new_piece(now, most))?;
        if self.timer.is_none() {
            self.timer = Some(now + self.round_trip.timeout());
        }
        Some(piece)
    }

    fn lost_piece(&mut self, most: usize) -> Option<Piece> {
        self.recovery?;
        let end = if self.next.is_before(self.lost_until) { self.next } else { self.lost_until };
        while self.credit > 0 && self.again.is_before(end) {
            let mut until = end;
            if let Some((left, right)) = self.sacked.iter().find(|(_, right)| self.again.is_before(*right)) {
                if !self.again.is_before(*left) {
                    self.again = *right;
                    continue;
                }
                until = if left.is_before(until) { *left } else { until };
            }
            let data_end = self.oldest + self.queued;
            let length = until.distance_from(self.again).min(most).min(self.credit.max(self.segment_size));
            let in_data = data_end.distance_from(self.again).min(length);
            let fin = self.fin_is_under_way() && !(self.again + length).is_before(data_end + 1);
            let piece = self.piece(self.again, in_data, fin);
            if in_data == 0 && !fin {
                break;
            }
            self.again = self.again + in_data + usize::from(fin);
            self.credit = self.credit.saturating_sub(in_data.max(1));
            return Some(piece);
        }
        None
    }

    fn new_piece(&mut self, now: Time, most: usize) -> Option<Piece> {
        let sent = self.next.distance_from(self.oldest);
        if sent > self.queued || self.fin_acknowledged {
            return None; // the FIN is out
        }
        let waiting = self.queued - sent;
        let window = self.edge.distance_from(self.next);
        let mut length = waiting.min(window).min(most);
        if length < waiting && length < self.segment_size && sent > 0 {
            length = 0; // a silly window: wait until more of it is open
        } else if length > self.segment_size && length < waiting {
            length -= length % self.segment_size;
        }
        if length == 0 && waiting > 0 {
            if !std::mem::take(&mut self.probe_due) || sent > 0 {
                if sent == 0 && self.timer.is_none() {
                    self.timer = Some(now + self.round_trip.timeout());
                }
                return None;
            }
            length = 1;
        }
        let fin = self.wants_fin && length == waiting;
        if length == 0 && !fin {
            return None;
        }
        let piece = self.piece(self.next, length, fin);
        self.next = self.next + length + usize::from(fin);
        if self.timed.is_none() && self.recovery.is_none() {
            self.timed = Some((self.next, now));
        }
        Some(piece)
    }

    fn piece(&self, seq: Seq, length: usize, fin: bool) -> Piece {
        let offset = seq.distance_from(self.oldest);
        Piece { seq, offset, length, fin, is_last: offset + length == self.queued }
    }

    /// The bytes of a piece, appended to `into`.
    pub fn slices<'a>(&'a self, offset: usize, length: usize, into: &mut Vec<IoSlice<'a>>) {
        let (mut skip, mut left) = (self.skip + offset, length);
        for chunk in &self.chunks {
            if left == 0 {
                return;
            }
            if skip >= chunk.len() {
                skip -= chunk.len();
                continue;
            }
            let take = left.min(chunk.len() - skip);
            into.push(IoSlice::new(&chunk[skip..skip + take]));
            left -= take;
            skip = 0;
        }
    }
}
