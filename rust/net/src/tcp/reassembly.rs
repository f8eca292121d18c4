//! Data that came before what precedes it.

use std::collections::VecDeque;

use crate::wire::tcp::Seq;

/// More pieces than this are not kept: the other side sends them again.
const MOST_PIECES: usize = 64;

/// Disjoint pieces in the order of their numbers, all behind the next number expected.
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    pieces: VecDeque<(Seq, Vec<u8>)>,
    bytes: usize,
    /// The left edge of the piece that grew last: RFC 2018 wants it first.
    latest: Option<Seq>,
}

impl Reassembly {
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Keeps `payload`, if that leaves no more than `limit` bytes in here.
    pub fn insert(&mut self, seq: Seq, payload: &[u8], limit: usize) {
        if payload.is_empty() || self.bytes + payload.len() > limit {
            return;
        }
        let end = seq + payload.len();
        // The pieces that touch the new one become one with it.
        let first = self.pieces.iter().take_while(|(at, piece)| (*at + piece.len()).is_before(seq)).count();
        let touching = self.pieces.iter().skip(first).take_while(|(at, _)| !end.is_before(*at)).count();
        if touching == 0 && self.pieces.len() >= MOST_PIECES {
            return;
        }
        let mut start = seq;
        let mut joined = Vec::new();
        let mut place = |at: Seq, bytes: &[u8]| {
            let have = joined.len();
            if joined.is_empty() {
                start = at;
                joined.extend_from_slice(bytes);
            } else {
                let known = (start + have).distance_from(at).min(bytes.len());
                joined.extend_from_slice(&bytes[known..]);
            }
        };
        let mut is_placed = false;
        for (at, piece) in self.pieces.drain(first..first + touching) {
            self.bytes -= piece.len();
            if !is_placed && seq.is_before(at) {
                place(seq, payload);
                is_placed = true;
            }
            place(at, &piece);
            if !is_placed {
                place(seq, payload);
                is_placed = true;
            }
        }
        if !is_placed {
            place(seq, payload);
        }
        self.bytes += joined.len();
        self.latest = Some(start);
        self.pieces.insert(first, (start, joined));
    }

    /// The data at `next`, if it is here; what lies before `next` is forgotten.
    pub fn take(&mut self, next: Seq) -> Option<Vec<u8>> {
        while let Some((at, piece)) = self.pieces.front() {
            if next.is_before(*at) {
                return None;
            }
            let known = next.distance_from(*at);
            let length = piece.len();
            let (_, mut piece) = self.pieces.pop_front()?;
            self.bytes -= length;
            if known < length {
                piece.drain(..known);
                return Some(piece);
            }
        }
        None
    }

    /// Up to three blocks for a selective acknowledgement, the latest first.
    pub fn blocks(&self) -> [(Seq, Seq); 3] {
        let mut blocks = [(Seq(0), Seq(0)); 3];
        let block = |(at, piece): &(Seq, Vec<u8>)| (*at, *at + piece.len());
        let latest = self.pieces.iter().position(|(at, _)| Some(*at) == self.latest);
        let rest = (0..self.pieces.len()).filter(|index| Some(*index) != latest);
        for (into, index) in blocks.iter_mut().zip(latest.into_iter().chain(rest)) {
            *into = block(&self.pieces[index]);
        }
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_in_any_order_come_out_as_the_stream_they_were_cut_from(
            cuts in proptest::collection::vec((0..200_usize, 1..40_usize), 0..60),
            start in any::<u32>(),
        ) {
            let stream: Vec<u8> = (0..=255).collect();
            let mut pieces = Reassembly::default();
            let mut known = [false; 256];
            for (at, length) in cuts {
                let end = (at + length).min(stream.len());
                pieces.insert(Seq(start) + at, &stream[at..end], usize::MAX);
                known[at..end].fill(true);
            }
            let held: usize = pieces.pieces.iter().map(|(_, piece)| piece.len()).sum();
            prop_assert_eq!(held, known.iter().filter(|known| **known).count());
            prop_assert_eq!(held, pieces.bytes);
            for (at, piece) in &pieces.pieces {
                let at = at.distance_from(Seq(start));
                prop_assert_eq!(&stream[at..at + piece.len()], &piece[..]);
            }
            let from = known.iter().position(|known| *known).unwrap_or(0);
            let run = known[from..].iter().take_while(|known| **known).count();
            let taken = pieces.take(Seq(start) + from).unwrap_or_default();
            prop_assert_eq!(&taken[..], &stream[from..from + run]);
        }
    }

    #[test]
    fn the_limit_holds() {
        let mut pieces = Reassembly::default();
        for at in 0..1000 {
            pieces.insert(Seq(at * 10), &[0; 5], 10_000);
        }
        assert_eq!(pieces.pieces.len(), MOST_PIECES);
        pieces.insert(Seq(5), &[0; 9_999], 10_000);
        assert!(pieces.bytes <= 10_000);
    }
}
