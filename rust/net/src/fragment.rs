//! Datagrams that come in pieces, RFC 791 §3.2 and RFC 8200 §4.5, in bounded memory.

use std::net::IpAddr;

use crate::tcp::Time;
use crate::wire::ip::{Fragment, Packet};

/// How many datagrams may be incomplete at once; the oldest makes room.
const MOST: usize = 16;
/// How long one may stay so.
const PATIENCE: Time = Time::from_secs(15);
/// The largest datagram.
const LARGEST: usize = 65_535;

type Key = (IpAddr, IpAddr, u8, u32);

#[derive(Debug)]
struct Incomplete {
    key: Key,
    since: Time,
    /// Offset and bytes, disjoint and in order.
    pieces: Vec<(usize, Vec<u8>)>,
    total: Option<usize>,
}

/// The datagrams that are incomplete.
#[derive(Debug, Default)]
pub struct Fragments(Vec<Incomplete>);

impl Fragments {
    /// Takes a piece of `packet`; answers with the whole payload when it is the last that was missing.
    ///
    /// Pieces that overlap throw the whole datagram away, RFC 5722.
    pub fn add(&mut self, now: Time, packet: &Packet<'_>, fragment: Fragment) -> Option<Vec<u8>> {
        self.0.retain(|incomplete| now < incomplete.since + PATIENCE);
        let key = (packet.source, packet.target, packet.protocol, fragment.id);
        let end = fragment.offset + packet.payload.len();
        if end > LARGEST
            || packet.payload.is_empty()
            || (fragment.more && !packet.payload.len().is_multiple_of(8))
        {
            return None;
        }
        let at = match self.0.iter().position(|incomplete| incomplete.key == key) {
            Some(at) => at,
            None => {
                if self.0.len() >= MOST {
                    self.0.remove(0);
                }
                self.0.push(Incomplete { key, since: now, pieces: Vec::new(), total: None });
                self.0.len() - 1
            }
        };
        if !self.0[at].insert(fragment, packet.payload) {
            self.0.remove(at);
            return None;
        }
        if self.0[at].is_complete() {
            let whole = self.0.remove(at);
            return Some(whole.pieces.into_iter().flat_map(|(_, bytes)| bytes).collect());
        }
        None
    }
}

impl Incomplete {
    fn insert(&mut self, fragment: Fragment, payload: &[u8]) -> bool {
        let (start, end) = (fragment.offset, fragment.offset + payload.len());
        if !fragment.more && *self.total.get_or_insert(end) != end {
            return false;
        }
        let place = self.pieces.iter().take_while(|(at, _)| *at < start).count();
        let after = place.checked_sub(1).map(|before| &self.pieces[before]);
        let overlaps = after.is_some_and(|(at, bytes)| at + bytes.len() > start)
            || self.pieces.get(place).is_some_and(|(at, _)| *at < end);
        if overlaps || self.total.is_some_and(|total| end > total) {
            return false;
        }
        self.pieces.insert(place, (start, payload.to_vec()));
        true
    }

    fn is_complete(&self) -> bool {
        let mut next = 0;
        for (at, bytes) in &self.pieces {
            if *at != next {
                return false;
            }
            next = at + bytes.len();
        }
        self.total == Some(next)
    }
}

/// Cuts a payload that is too long for one packet of `mtu` bytes behind a header of `header`.
pub fn cut(payload: &[u8], mtu: usize, header: usize) -> impl Iterator<Item = (usize, bool, &[u8])> {
    // A fragment of IPv6 has eight bytes more of header.
    let size = ((mtu - header - 8) / 8 * 8).max(8);
    let count = payload.len().div_ceil(size).max(1);
    (0..count).map(move |index| {
        let (start, end) = (index * size, ((index + 1) * size).min(payload.len()));
        (start, index + 1 < count, &payload[start..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::protocol;
    use proptest::prelude::*;

    fn packet(payload: &[u8]) -> Packet<'_> {
        Packet {
            source: "10.0.2.100".parse().unwrap(),
            target: "192.0.2.1".parse().unwrap(),
            protocol: protocol::UDP,
            hops: 64,
            fragment: None,
            payload,
            whole: payload,
        }
    }

    proptest! {
        #[test]
        fn what_was_cut_is_whole_again_in_any_order(length in 1..20_000_usize, mtu in 600..1500_usize, turn in any::<usize>()) {
            let payload: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let mut pieces: Vec<_> = cut(&payload, mtu, 20).collect();
            let count = pieces.len();
            pieces.rotate_left(turn % count);
            let mut fragments = Fragments::default();
            for (index, (offset, more, bytes)) in pieces.into_iter().enumerate() {
                let whole = fragments.add(Time::ZERO, &packet(bytes), Fragment { id: 5, offset, more });
                prop_assert_eq!(whole.is_some(), index + 1 == count);
                if let Some(whole) = whole {
                    prop_assert_eq!(&whole, &payload);
                }
            }
            prop_assert!(fragments.0.is_empty());
        }

        #[test]
        fn pieces_of_nonsense_stay_bounded(pieces in proptest::collection::vec((any::<u32>(), 0..70_000_usize, any::<bool>(), 0..3000_usize), 0..300)) {
            let mut fragments = Fragments::default();
            let bytes = vec![0; 3000];
            for (id, offset, more, length) in pieces {
                fragments.add(Time::ZERO, &packet(&bytes[..length]), Fragment { id: id % 40, offset, more });
                prop_assert!(fragments.0.len() <= MOST);
                for one in &fragments.0 {
                    prop_assert!(one.pieces.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= LARGEST);
                }
            }
        }
    }

    #[test]
    fn an_overlap_throws_the_datagram_away() {
        let mut fragments = Fragments::default();
        let bytes = [0; 64];
        fragments.add(Time::ZERO, &packet(&bytes), Fragment { id: 1, offset: 0, more: true });
        fragments.add(Time::ZERO, &packet(&bytes), Fragment { id: 1, offset: 32, more: false });
        assert!(fragments.0.is_empty());
    }
}
