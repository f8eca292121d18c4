//! One end of one connection: opening, closing, and which half has something to say.

use std::io::IoSlice;

use super::receive::{ReceiveHalf, SMALL_WINDOW};
use super::round_trip::RoundTrip;
use super::send::SendHalf;
use super::{Sink, Time};
use crate::wire::tcp::{flag, Options, Segment, Seq};

/// Shift of our windows: up to 4 MiB.
const SCALE: u8 = 6;
/// How long a closed connection answers what still comes.
const LINGER: Time = Time::from_secs(1);
/// Tries of SYN before the other side is given up; Linux: tcp_synack_retries.
const SYN_TRIES: u32 = 5;
/// Unanswered probes after which an idle connection is dead, and their distance; Linux: tcp_keepalive_*.
const KEEPALIVE_PROBES: u32 = 9;
const KEEPALIVE_INTERVAL: Time = Time::from_secs(75);

/// What is the same for all connections of a link.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The largest segment that fits the link's MTU.
    pub segment_size: u16,
    /// The most that may be handed to the link at once, for it to cut up.
    pub burst: usize,
    /// The largest window we give.
    pub window: usize,
    /// The most that is kept for the other side.
    pub most_queued: usize,
    /// Silence after which the other side is probed.
    pub keepalive: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Our SYN is out, or due.
    SynSent,
    /// Their SYN is in, our answer is out, or due.
    SynReceived,
    /// Both are in.
    Open,
    /// All is said; what comes late is answered.
    Lingering(Time),
    /// Nothing will ever come of it again.
    Closed,
}

/// A segment that shall go out: all but the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outgoing {
    /// The first number.
    pub seq: Seq,
    /// The acknowledgement.
    pub ack: Seq,
    /// `flag::*`.
    pub flags: u8,
    /// The window field.
    pub window: u16,
    /// The options.
    pub options: Options,
    /// Where its data begins, for [`Endpoint::slices`].
    pub offset: usize,
    /// How much data it has.
    pub length: usize,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    phase: Phase,
    initial: Seq,
    send: SendHalf,
    receive: ReceiveHalf,
    peer_scales: bool,
    has_sack: bool,
    segment_size: usize,
    syn_due: bool,
    syn_timer: Option<Time>,
    syn_sent: Time,
    syn_trip: RoundTrip,
    reset_due: bool,
    heard_at: Time,
    probes: u32,
    probe_due: bool,
    was_reset: bool,
}

impl Endpoint {
    /// Answers `syn`, with our numbers from `initial` on.
    #[must_use]
    pub fn accept(now: Time, syn: &Segment<'_>, initial: Seq, config: Config) -> Self {
        let mut endpoint = Self::new(now, initial, config, Phase::SynReceived);
        endpoint.meet(syn);
        endpoint
    }

    /// Opens a connection.
    #[must_use]
    pub fn connect(now: Time, initial: Seq, config: Config) -> Self {
        Self::new(now, initial, config, Phase::SynSent)
    }

    fn new(now: Time, initial: Seq, config: Config, phase: Phase) -> Self {
        let segment_size = usize::from(config.segment_size);
        Self {
            config,
            phase,
            initial,
            send: SendHalf::new(initial + 1, 0, 0, segment_size, (Seq(0), Seq(0))),
            receive: ReceiveHalf::new(Seq(0), config.window.min(4 * SMALL_WINDOW), SCALE, segment_size),
            peer_scales: false,
            has_sack: false,
            segment_size,
            syn_due: true,
            syn_timer: None,
            syn_sent: now,
            syn_trip: RoundTrip::default(),
            reset_due: false,
            heard_at: now,
            probes: 0,
            probe_due: false,
            was_reset: false,
        }
    }

    /// Takes on what the peer's SYN says of it.
    fn meet(&mut self, syn: &Segment<'_>) {
        let theirs = usize::from(syn.options.mss.unwrap_or(536)).max(64);
        self.segment_size = theirs.min(usize::from(self.config.segment_size));
        self.peer_scales = syn.options.window_scale.is_some();
        self.has_sack = syn.options.sack_permitted;
        let (ours, theirs) =
            if self.peer_scales { (SCALE, syn.options.window_scale.unwrap_or(0)) } else { (0, 0) };
        let window = usize::from(syn.window);
        self.send = SendHalf::new(self.initial + 1, window, theirs, self.segment_size, (syn.seq, syn.ack));
        let most = if self.peer_scales { 4 * SMALL_WINDOW } else { usize::from(u16::MAX) };
        self.receive = ReceiveHalf::new(syn.seq + 1, self.config.window.min(most), ours, self.segment_size);
    }

    /// Both sides have agreed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Nothing will ever come of it again.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed && !self.reset_due
    }

    /// Both directions have ended well; only late segments are answered.
    #[must_use]
    pub fn is_lingering(&self) -> bool {
        matches!(self.phase, Phase::Lingering(_))
    }

    /// The other side broke it off, or is dead.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.was_reset
    }

    /// The other side has sent all it had, and the sink has taken it.
    #[must_use]
    pub fn has_received_all(&self) -> bool {
        self.receive.is_finished()
    }

    /// Bytes that the sink has not taken.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.receive.backlog()
    }

    /// Bytes that the other side has not acknowledged.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.send.queued()
    }

    /// Changes the largest window from now on: many connections share a link.
    pub fn limit_window(&mut self, window: usize) {
        self.config.window = window;
    }

    /// How many bytes [`Endpoint::push`] is waiting for; 0 before the connection is open.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.is_open() {
            self.send.room(self.config.most_queued)
        } else {
            0
        }
    }

    /// The most that goes out in one segment with its cutting left to the link.
    #[must_use]
    pub fn burst(&self) -> usize {
        (self.config.burst / self.segment_size).max(1) * self.segment_size
    }

    /// Queues data for the other side.
    pub fn push(&mut self, chunk: Vec<u8>) {
        self.send.push(chunk);
    }

    /// Queues a copy of `bytes`: better for a few, which are put together.
    pub fn push_copy(&mut self, bytes: &[u8]) {
        self.send.push_copy(bytes);
    }

    /// The largest segment that both sides take.
    #[must_use]
    pub fn segment_size(&self) -> usize {
        self.segment_size
    }

    /// No more data will be pushed.
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Whether [`Endpoint::finish`] was called.
    #[must_use]
    pub fn is_finishing(&self) -> bool {
        self.send.is_finishing()
    }

    /// Hands the backlog to a sink that takes more.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        if self.receive.backlog() > 0 {
            self.receive.flush(sink);
        }
    }

    /// Breaks it off.
    pub fn abort(&mut self) {
        if !matches!(self.phase, Phase::Closed | Phase::Lingering(_)) {
            self.reset_due = true;
        }
        self.phase = Phase::Closed;
    }

    /// A segment of this connection arrived.
    pub fn on_segment(
        &mut self,
        now: Time,
        segment: &Segment<'_>,
        sink: &mut impl Sink,
        recycle: &mut dyn FnMut(Vec<u8>),
    ) {
        self.heard_at = now;
        self.probes = 0;
        match self.phase {
            Phase::Closed => {}
            Phase::SynSent => self.on_answer(now, segment),
            _ => self.on_synchronized(now, segment, sink, recycle),
        }
    }

    /// RFC 9293 §3.10.7.3.
    fn on_answer(&mut self, now: Time, segment: &Segment<'_>) {
        let acceptable = segment.has(flag::ACK) && segment.ack == self.initial + 1;
        if segment.has(flag::RST) {
            if acceptable {
                self.give_up();
            }
        } else if segment.has(flag::SYN) && acceptable {
            self.meet(segment);
            self.open(now);
            self.receive.owe();
        } else if segment.has(flag::ACK) && !acceptable {
            self.abort();
        }
    }

    /// RFC 9293 §3.10.7.4, with the caution of RFC 5961 about RST and SYN.
    fn on_synchronized(
        &mut self,
        now: Time,
        segment: &Segment<'_>,
        sink: &mut impl Sink,
        recycle: &mut dyn FnMut(Vec<u8>),
    ) {
        if segment.has(flag::RST) {
            if segment.seq == self.receive.next() {
                self.give_up();
            } else if self.receive.is_acceptable(segment.seq, 0) {
                self.receive.owe();
            }
            return;
        }
        if segment.has(flag::SYN) {
            match self.phase {
                Phase::SynReceived => self.syn_due = true,
                _ => self.receive.owe(),
            }
            return;
        }
        if !segment.has(flag::ACK) {
            return;
        }
        if self.phase == Phase::SynReceived {
            if segment.ack != self.initial + 1 {
                // Data that was sent with their first acknowledgement may come before it.
                if !(self.initial + 1).is_before(segment.ack) {
                    return;
                }
                return self.abort();
            }
            self.open(now);
        }
        let acceptable = self.receive.is_acceptable(segment.seq, segment.length());
        if !acceptable {
            self.receive.owe();
            // Into a closed window only news of their window and of our data can come.
            if segment.seq != self.receive.next() {
                return;
            }
        }
        let carries = segment.length() > 0;
        let numbers = (segment.seq, segment.ack);
        let sack = if self.has_sack { &segment.options.sack[..] } else { &[] };
        if !self.send.acknowledged(now, numbers, segment.window, carries, sack, recycle) {
            self.receive.owe();
            return;
        }
        if acceptable && carries {
            let fin = segment.has(flag::FIN);
            self.receive.take(now, segment.seq, segment.payload, fin, self.config.window, sink);
        }
        self.see_the_end(now);
    }

    fn open(&mut self, now: Time) {
        self.phase = Phase::Open;
        self.syn_due = false;
        self.syn_timer = None;
        if self.syn_trip.backoff == 0 {
            self.send.measure(now.saturating_sub(self.syn_sent));
        }
    }

    fn see_the_end(&mut self, now: Time) {
        if self.phase == Phase::Open && self.send.is_finished() && self.receive.is_finished() {
            self.phase = Phase::Lingering(now + LINGER);
        }
    }

    fn give_up(&mut self) {
        self.was_reset = true;
        self.phase = Phase::Closed;
    }

    /// When [`Endpoint::on_timer`] is to be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        match self.phase {
            Phase::Closed => None,
            Phase::Lingering(until) => Some(until),
            Phase::SynSent | Phase::SynReceived => self.syn_timer,
            Phase::Open => {
                let silence = if self.probes > 0 { KEEPALIVE_INTERVAL } else { self.config.keepalive };
                let mut soonest = self.heard_at + silence * self.probes.max(1);
                for other in [self.send.deadline(), self.receive.deadline()].into_iter().flatten() {
                    soonest = soonest.min(other);
                }
                Some(soonest)
            }
        }
    }

    /// Time has passed; [`Endpoint::poll`] has what follows from it.
    pub fn on_timer(&mut self, now: Time) {
        match self.phase {
            Phase::Closed => {}
            Phase::Lingering(until) => {
                if until <= now {
                    self.phase = Phase::Closed;
                }
            }
            Phase::SynSent | Phase::SynReceived => {
                if self.syn_timer.is_some_and(|at| at <= now) {
                    self.syn_trip.backoff += 1;
                    self.syn_due = true;
                    self.syn_timer = None;
                    if self.syn_trip.backoff > SYN_TRIES {
                        self.give_up();
                    }
                }
            }
            Phase::Open => {
                if !self.send.on_timer(now) {
                    self.abort();
                    self.was_reset = true;
                }
                self.keep_alive(now);
            }
        }
    }

    fn keep_alive(&mut self, now: Time) {
        let silence = if self.probes > 0 { KEEPALIVE_INTERVAL } else { self.config.keepalive };
        if now < self.heard_at + silence * self.probes.max(1) {
            return;
        }
        self.probes += 1;
        self.probe_due = true;
        if self.probes > KEEPALIVE_PROBES {
            self.abort();
            self.was_reset = true;
        }
    }

    /// The next segment to send, until there is none.
    pub fn poll(&mut self, now: Time) -> Option<Outgoing> {
        if std::mem::take(&mut self.reset_due) {
            let seq = if self.syn_due { self.initial } else { self.send.next() };
            return Some(self.bare(seq, flag::RST | flag::ACK));
        }
        match self.phase {
            Phase::Closed => None,
            Phase::SynSent | Phase::SynReceived => self.poll_syn(now),
            Phase::Open | Phase::Lingering(_) => self.poll_open(now),
        }
    }

    fn poll_syn(&mut self, now: Time) -> Option<Outgoing> {
        if !std::mem::take(&mut self.syn_due) {
            return None;
        }
        self.syn_timer = Some(now + self.syn_trip.timeout());
        self.syn_sent = now;
        let answers = self.phase == Phase::SynReceived;
        let mut outgoing = self.bare(self.initial, flag::SYN | if answers { flag::ACK } else { 0 });
        if !answers {
            outgoing.ack = Seq(0);
        }
        // The window of a SYN is never scaled, RFC 7323 §2.2.
        let window = self.receive.edge().distance_from(self.receive.next());
        outgoing.window = u16::try_from(window).unwrap_or(u16::MAX);
        outgoing.options.mss = Some(self.config.segment_size);
        outgoing.options.window_scale = (!answers || self.peer_scales).then_some(SCALE);
        outgoing.options.sack_permitted = !answers || self.has_sack;
        Some(outgoing)
    }

    fn poll_open(&mut self, now: Time) -> Option<Outgoing> {
        if let Some(piece) = self.send.poll(now, self.burst()) {
            let mut flags = flag::ACK;
            flags |= if piece.is_last { flag::PSH } else { 0 };
            flags |= if piece.fin { flag::FIN } else { 0 };
            let outgoing = self.bare(piece.seq, flags);
            return Some(Outgoing { offset: piece.offset, length: piece.length, ..outgoing });
        }
        if std::mem::take(&mut self.probe_due) {
            // A number that was acknowledged long ago: nobody can but answer.
            return Some(self.bare(Seq(self.send.oldest().0.wrapping_sub(1)), flag::ACK));
        }
        self.receive.is_due(now).then(|| self.bare(self.send.next(), flag::ACK))
    }

    fn bare(&mut self, seq: Seq, flags: u8) -> Outgoing {
        let ack = self.receive.next();
        let (window, sack) = self.receive.acknowledge(self.has_sack);
        let options = Options { sack, ..Options::default() };
        Outgoing { seq, ack, flags, window, options, offset: 0, length: 0 }
    }

    /// The data of a segment that [`Endpoint::poll`] gave a moment ago.
    pub fn slices<'a>(&'a self, outgoing: &Outgoing, into: &mut Vec<IoSlice<'a>>) {
        self.send.slices(outgoing.offset, outgoing.length, into);
    }

    /// The sink has taken what it could: whether that was the end.
    pub fn settle(&mut self, now: Time) {
        self.see_the_end(now);
    }
}
