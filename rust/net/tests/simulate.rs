//! Two endpoints and a link between them that loses, reorders, duplicates and delays: every byte must arrive
//! in order, both sides must end, and nothing may take longer than TCP's own timers explain.

#![allow(clippy::unwrap_used)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use duckweed_net::tcp::{Config, Endpoint, Outgoing, Sink, Time};
use duckweed_net::wire::tcp::{flag, write_header, Segment, Seq};
use proptest::prelude::*;

/// xorshift64*: the same run for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit.max(1)
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }
}

#[derive(Debug, Clone, Copy)]
struct Weather {
    lost: u64,
    doubled: u64,
    reordered: u64,
    delay_us: u64,
}

const FAIR: Weather = Weather { lost: 0, doubled: 0, reordered: 0, delay_us: 50 };
const FOUL: Weather = Weather { lost: 50, doubled: 20, reordered: 100, delay_us: 20_000 };

/// Arrival, serial number, side and bytes.
type Flying = Reverse<(Time, u64, usize, Vec<u8>)>;

/// Takes bytes as a socket does: for a while everything, then nothing.
struct Reader {
    got: Vec<u8>,
    open_until: usize,
}

impl Sink for Reader {
    fn accept(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.open_until.saturating_sub(self.got.len()));
        self.got.extend_from_slice(&bytes[..count]);
        count
    }
}

struct Side {
    endpoint: Endpoint,
    reader: Reader,
    to_send: Vec<u8>,
    sent: usize,
    /// The reader stands still for this long when it is full.
    pause: Time,
    wakes_at: Option<Time>,
}

fn pattern(seed: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at as u64 * 31 + seed) % 251) as u8).collect()
}

fn config() -> Config {
    Config {
        segment_size: 1460,
        burst: 64_240,
        window: 1 << 20,
        most_queued: 1 << 20,
        keepalive: Time::from_secs(7200),
    }
}

struct World {
    now: Time,
    random: Random,
    weather: Weather,
    sides: [Option<Side>; 2],
    wire: BinaryHeap<Flying>,
    serial: u64,
    lengths: [usize; 2],
    segments: u64,
}

impl World {
    fn new(seed: u64, weather: Weather, lengths: [usize; 2]) -> Self {
        let mut world = Self {
            now: Time::ZERO,
            random: Random(seed | 1),
            weather,
            sides: [None, None],
            wire: BinaryHeap::new(),
            serial: 0,
            lengths,
            segments: 0,
        };
        let initial = Seq(world.random.next() as u32);
        let endpoint = Endpoint::connect(world.now, initial, config());
        world.sides[0] = Some(world.side(0, endpoint));
        world
    }

    fn side(&mut self, which: usize, endpoint: Endpoint) -> Side {
        Side {
            endpoint,
            reader: Reader { got: Vec::new(), open_until: 1 + self.random.below(300_000) as usize },
            to_send: pattern(which as u64, self.lengths[which]),
            sent: 0,
            pause: Time::from_micros(self.random.below(400_000)),
            wakes_at: None,
        }
    }

    /// Runs until nothing is left to happen; the answer is when that was.
    fn run(&mut self, limit: Time) -> Time {
        loop {
            self.work(0);
            self.work(1);
            let soonest = self.soonest();
            let Some(next) = soonest else { return self.now };
            assert!(
                next < limit,
                "still busy after {limit:?}: {:?}",
                self.sides[0].as_ref().map(|s| &s.endpoint)
            );
            self.now = self.now.max(next);
            while self.wire.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
                let Reverse((_, _, to, bytes)) = self.wire.pop().unwrap();
                self.arrive(to, &bytes);
            }
            for side in self.sides.iter_mut().flatten() {
                side.endpoint.on_timer(self.now);
                if side.wakes_at.is_some_and(|at| at <= self.now) {
                    side.wakes_at = None;
                    side.reader.open_until = side.reader.got.len() + 1 + self.random.below(200_000) as usize;
                    side.endpoint.flush(&mut side.reader);
                    side.endpoint.settle(self.now);
                    if side.endpoint.backlog() > 0 {
                        side.wakes_at = Some(self.now + side.pause + Time::from_micros(1));
                    }
                }
            }
        }
    }

    fn soonest(&self) -> Option<Time> {
        let mut soonest = self.wire.peek().map(|Reverse((at, ..))| *at);
        for side in self.sides.iter().flatten() {
            let is_done = side.endpoint.is_closed();
            for at in [side.endpoint.deadline().filter(|_| !is_done), side.wakes_at].into_iter().flatten() {
                soonest = Some(soonest.map_or(at, |other| other.min(at)));
            }
        }
        soonest
    }

    fn arrive(&mut self, to: usize, bytes: &[u8]) {
        let segment = Segment::parse(bytes).unwrap();
        if self.sides[to].is_none() {
            if segment.flags & (flag::SYN | flag::ACK) != flag::SYN {
                return;
            }
            let initial = Seq(self.random.next() as u32);
            let endpoint = Endpoint::accept(self.now, &segment, initial, config());
            self.sides[to] = Some(self.side(to, endpoint));
        }
        let side = self.sides[to].as_mut().unwrap();
        if side.endpoint.is_closed() {
            return self.refuse(to, &segment);
        }
        side.endpoint.on_segment(self.now, &segment, &mut side.reader, &mut |_| ());
        if side.endpoint.backlog() > 0 && side.wakes_at.is_none() {
            side.wakes_at = Some(self.now + side.pause);
        }
    }

    /// A connection that is no more answers with RST, as RFC 9293 §3.10.7.1 wants it.
    fn refuse(&mut self, from: usize, segment: &Segment<'_>) {
        if segment.has(flag::RST) {
            return;
        }
        let mut bytes = Vec::new();
        let reset = Segment { seq: segment.ack, flags: flag::RST, payload: b"", ..*segment };
        write_header(&mut bytes, &reset);
        self.toss(1 - from, bytes);
    }

    fn work(&mut self, which: usize) {
        let Some(side) = &mut self.sides[which] else { return };
        while side.endpoint.room() > 0 && side.sent < side.to_send.len() {
            let want = (1 + self.random.below(70_000) as usize).min(side.endpoint.room());
            let end = (side.sent + want).min(side.to_send.len());
            side.endpoint.push(side.to_send[side.sent..end].to_vec());
            side.sent = end;
        }
        if side.sent == side.to_send.len() && side.endpoint.is_open() && !side.endpoint.is_finishing() {
            side.endpoint.finish();
        }
        while let Some(outgoing) = self.sides[which].as_mut().and_then(|side| side.endpoint.poll(self.now)) {
            self.launch(which, &outgoing);
        }
    }

    /// Cuts a segment up as the link does, and throws the pieces into the weather.
    fn launch(&mut self, from: usize, outgoing: &Outgoing) {
        let side = self.sides[from].as_ref().unwrap();
        let mut slices = Vec::new();
        side.endpoint.slices(outgoing, &mut slices);
        let data: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        assert_eq!(data.len(), outgoing.length);
        let mut at = 0;
        loop {
            let end = (at + 1460).min(data.len());
            let is_last = end == data.len();
            let flags = if is_last { outgoing.flags } else { outgoing.flags & !(flag::FIN | flag::PSH) };
            let mut bytes = Vec::new();
            write_header(
                &mut bytes,
                &Segment {
                    source: 1,
                    target: 2,
                    seq: outgoing.seq + at,
                    ack: outgoing.ack,
                    flags,
                    window: outgoing.window,
                    options: outgoing.options,
                    payload: b"",
                },
            );
            bytes.extend_from_slice(&data[at..end]);
            self.toss(1 - from, bytes);
            at = end;
            if is_last {
                return;
            }
        }
    }

    fn toss(&mut self, to: usize, bytes: Vec<u8>) {
        self.segments += 1;
        if self.random.chance(self.weather.lost) {
            return;
        }
        let copies = if self.random.chance(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.weather.delay_us;
            if self.random.chance(self.weather.reordered) {
                delay += self.random.below(3 * self.weather.delay_us);
            }
            self.serial += 1;
            let at = self.now + Time::from_micros(delay);
            self.wire.push(Reverse((at, self.serial, to, bytes.clone())));
        }
    }

    fn check(&self) {
        for (which, side) in self.sides.iter().enumerate() {
            let side = side.as_ref().expect("both sides were there");
            let other = pattern(1 - which as u64, self.lengths[1 - which]);
            assert_eq!(
                side.reader.got.len(),
                other.len(),
                "{:#?}",
                self.sides.iter().flatten().map(|s| &s.endpoint).collect::<Vec<_>>()
            );
            assert!(side.reader.got == other, "the bytes are not those that were sent");
        }
    }
}

#[test]
fn in_fair_weather_nothing_is_sent_twice_and_nothing_waits_for_a_timer() {
    let mut world = World::new(7, FAIR, [3_000_000, 0]);
    // The reader never pauses.
    world.sides[0].as_mut().unwrap().reader.open_until = usize::MAX;
    let before = Time::from_secs(30);
    world.run(before);
    world.check();
    let pieces = 3_000_000 / 1460;
    assert!(world.segments < pieces * 2, "{} segments for {pieces} pieces", world.segments);
}

#[test]
fn in_foul_weather_every_byte_arrives_in_order_both_ways() {
    for seed in 1..40 {
        let mut world = World::new(seed * 7919, FOUL, [400_000, 250_000]);
        world.run(Time::from_secs(900));
        world.check();
    }
}

#[test]
fn a_day_of_connections_passes_in_seconds_and_leaves_nothing_behind() {
    let mut total = Time::ZERO;
    let mut seed = 1;
    let mut random = Random(42);
    while total < Time::from_secs(24 * 3600) {
        seed += 1;
        let weather = Weather {
            lost: random.below(80),
            doubled: random.below(30),
            reordered: random.below(150),
            delay_us: random.below(200_000),
        };
        let lengths = [random.below(60_000) as usize, random.below(60_000) as usize];
        let mut world = World::new(seed, weather, lengths);
        total += world.run(Time::from_secs(3600)) + Time::from_secs(random.below(60));
        world.check();
        for side in world.sides.iter().flatten() {
            assert!(side.endpoint.is_closed(), "{:?}", side.endpoint);
            // One that has all may be gone before its last word has arrived; then it answers with RST.
            assert!(side.endpoint.queued() == 0 || side.endpoint.was_reset());
        }
    }
}

#[test]
fn a_peer_that_dies_is_noticed_by_keepalive_and_one_with_data_waiting_by_the_timer() {
    for lengths in [[10, 0], [200_000, 0]] {
        let mut world = World::new(3, FAIR, lengths);
        world.sides[0].as_mut().unwrap().sent = 0;
        // Let it open, then let nothing through any more.
        for _ in 0..4 {
            world.work(0);
            while let Some(Reverse((at, _, to, bytes))) = world.wire.pop() {
                world.now = at;
                world.arrive(to, &bytes);
            }
            let answer = world.sides[1].as_mut().and_then(|side| side.endpoint.poll(world.now));
            if let Some(outgoing) = answer {
                world.launch(1, &outgoing);
            }
        }
        world.weather.lost = 1000;
        world.sides[1] = None;
        world.wire.clear();
        world.run(Time::from_secs(4 * 3600));
        assert!(world.sides[0].as_ref().unwrap().endpoint.was_reset());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_weather_breaks_a_connection(
        seed in 1..u64::MAX,
        lost in 0..200_u64,
        doubled in 0..200_u64,
        reordered in 0..400_u64,
        delay_us in 1..100_000_u64,
        first in 0..150_000_usize,
        second in 0..150_000_usize,
    ) {
        let mut world = World::new(seed, Weather { lost, doubled, reordered, delay_us }, [first, second]);
        world.run(Time::from_secs(6 * 3600));
        world.check();
    }

    #[test]
    fn no_segment_makes_an_endpoint_panic_or_grow(
        segments in proptest::collection::vec(
            (any::<u32>(), any::<u32>(), any::<u8>(), any::<u16>(), 0..2000_usize, any::<bool>()), 1..200),
    ) {
        let initial = Seq(99);
        let syn = Segment { source: 1, target: 2, seq: Seq(1000), ack: Seq(0), flags: flag::SYN, window: 9000,
            options: Default::default(), payload: b"" };
        let mut endpoint = Endpoint::accept(Time::ZERO, &syn, initial, config());
        let bytes = vec![7; 2000];
        let mut blocked = Reader { got: Vec::new(), open_until: 3000 };
        let mut now = Time::ZERO;
        for (seq, ack, flags, window, length, near) in segments {
            now += Time::from_millis(30);
            let (seq, ack) = if near { (1000 + seq % 4000, 99 + ack % 9000) } else { (seq, ack) };
            let options = duckweed_net::wire::tcp::Options {
                sack: [(Seq(ack), Seq(seq)), (Seq(seq), Seq(ack)), (Seq(ack), Seq(ack.wrapping_add(9)))], ..Default::default() };
            let segment = Segment { source: 1, target: 2, seq: Seq(seq), ack: Seq(ack), flags, window, options, payload: &bytes[..length] };
            endpoint.on_segment(now, &segment, &mut blocked, &mut |_| ());
            if endpoint.room() > 0 {
                endpoint.push(bytes[..length.min(endpoint.room())].to_vec());
            }
            endpoint.on_timer(now);
            let mut count = 0;
            while let Some(outgoing) = endpoint.poll(now) {
                let mut slices = Vec::new();
                endpoint.slices(&outgoing, &mut slices);
                prop_assert_eq!(slices.iter().map(|slice| slice.len()).sum::<usize>(), outgoing.length);
                count += 1;
                prop_assert!(count < 5000);
            }
            prop_assert!(endpoint.backlog() <= 1 << 20);
            prop_assert!(endpoint.queued() <= 1 << 20);
        }
    }
}
