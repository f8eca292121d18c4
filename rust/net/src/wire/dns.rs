//! DNS messages (RFC 1035) as far as a forwarder needs them: the question, and answers of its own.
//!
//! Everything that is not a plain question about a name of ours is passed on byte for
//! byte, so what we do not understand costs nothing.

use std::net::IpAddr;

use super::be16;

/// The length of the header.
const HEADER: usize = 12;

/// Record types.
#[allow(missing_docs)]
pub mod kind {
    pub const A: u16 = 1;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const ANY: u16 = 255;
}

/// Response codes.
#[allow(missing_docs)]
pub mod code {
    pub const NO_ERROR: u8 = 0;
    pub const SERVER_FAILURE: u8 = 2;
    pub const NO_NAME: u8 = 3;
    pub const REFUSED: u8 = 5;
}

/// A query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without the last dot; "" is the root.
    pub name: String,
    /// `kind::*`.
    pub kind: u16,
    /// Where the question ends in the message.
    end: usize,
}

/// What we say ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Addresses; those of the family asked for are given.
    Addresses(Vec<IpAddr>),
    /// The name of an address.
    Name(String),
    /// Nothing but a code.
    Code(u8),
}

impl Question {
    /// Reads a standard query for class IN; `None` for all others, compressed names among them.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let flags = be16(message, 2)?;
        // QR, Opcode; exactly one question and no answer.
        if flags & 0xf800 != 0 || be16(message, 4)? != 1 || be16(message, 6)? != 0 {
            return None;
        }
        let mut name = String::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            if length > 63 || name.len() + length > 254 {
                return None;
            }
            let label = std::str::from_utf8(message.get(at..at + length)?).ok()?;
            if !name.is_empty() {
                name.push('.');
            }
            name.push_str(label);
            at += length;
        }
        name.make_ascii_lowercase();
        let (kind, class) = (be16(message, at)?, be16(message, at + 2)?);
        (class == 1).then_some(Self { name, kind, end: at + 4 })
    }

    /// The address that a reverse question is about.
    #[must_use]
    pub fn reversed(&self) -> Option<IpAddr> {
        if self.kind != kind::PTR {
            return None;
        }
        if let Some(digits) = self.name.strip_suffix(".in-addr.arpa") {
            let mut octets = [0_u8; 4];
            let mut labels = digits.split('.');
            for octet in octets.iter_mut().rev() {
                *octet = labels.next()?.parse().ok()?;
            }
            return labels.next().is_none().then(|| octets.into());
        }
        let digits = self.name.strip_suffix(".ip6.arpa")?;
        let mut nibbles = digits.split('.');
        let mut octets = [0_u8; 16];
        for octet in octets.iter_mut().rev() {
            let mut next = || u8::from_str_radix(nibbles.next().filter(|text| text.len() == 1)?, 16).ok();
            *octet = next()? | next()? << 4;
        }
        nibbles.next().is_none().then(|| octets.into())
    }

    /// The message that answers the query `message`, from which this question was read.
    #[must_use]
    pub fn answer(&self, message: &[u8], answer: &Answer) -> Vec<u8> {
        let mut bytes = message.get(..self.end).unwrap_or(message).to_vec();
        let mut count = 0;
        let response = match answer {
            Answer::Code(code) => *code,
            _ => code::NO_ERROR,
        };
        match answer {
            Answer::Addresses(addresses) => {
                for address in addresses {
                    let octets = match (self.kind, address) {
                        (kind::A | kind::ANY, IpAddr::V4(address)) => address.octets().to_vec(),
                        (kind::AAAA | kind::ANY, IpAddr::V6(address)) => address.octets().to_vec(),
                        _ => continue,
                    };
                    record(&mut bytes, if address.is_ipv4() { kind::A } else { kind::AAAA }, &octets);
                    count += 1;
                }
            }
            Answer::Name(name) => {
                record(&mut bytes, kind::PTR, &encode(name));
                count = 1;
            }
            Answer::Code(_) => {}
        }
        // QR, and recursion both wanted and available.
        bytes[2] = 0x80 | message[2] & 0x01;
        bytes[3] = 0x80 | response;
        bytes[4..HEADER].copy_from_slice(&[0, 1, 0, count, 0, 0, 0, 0]);
        bytes
    }
}

/// One record about the name of the question. It lives no time: containers come and go.
fn record(into: &mut Vec<u8>, kind: u16, data: &[u8]) {
    into.extend_from_slice(&[0xc0, 12]);
    into.extend_from_slice(&kind.to_be_bytes());
    into.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    into.extend_from_slice(&u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    into.extend_from_slice(data);
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

/// A query as a resolver sends it; what tests and probes need.
#[must_use]
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&encode(name));
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_read_in_lower_case_and_answered_in_the_family_asked_for() {
        let message = query(77, "Web.Example", kind::A);
        let question = Question::parse(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("web.example", kind::A));
        let addresses = vec!["10.89.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        let answer = question.answer(&message, &Answer::Addresses(addresses));
        assert_eq!(answer[..8], [0, 77, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[answer.len() - 6..], [0, 4, 10, 89, 0, 2]);
        let none = question.answer(&message, &Answer::Code(code::NO_NAME));
        assert_eq!(none[3] & 15, 3);
        assert_eq!(none.len(), message.len());
    }

    #[test]
    fn a_reverse_question_names_its_address() {
        for (name, address) in [
            ("2.0.89.10.in-addr.arpa", Some("10.89.0.2")),
            ("2.0.89.10.7.in-addr.arpa", None),
            ("300.0.89.10.in-addr.arpa", None),
            ("1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", Some("2001:db8::1")),
        ] {
            let message = query(1, name, kind::PTR);
            let address: Option<IpAddr> = address.map(|address| address.parse().unwrap());
            assert_eq!(Question::parse(&message).unwrap().reversed(), address, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_message_makes_it_panic(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(question) = Question::parse(&message) {
                let _ = question.answer(&message, &Answer::Name("a.b".into()));
                let _ = question.reversed();
            }
        }

        #[test]
        fn no_damage_to_a_query_makes_it_panic(at in 0..60_usize, value in any::<u8>()) {
            let mut message = query(1, "2.0.89.10.in-addr.arpa", kind::PTR);
            let length = message.len();
            message[at % length] = value;
            if let Some(question) = Question::parse(&message) {
                let _ = question.answer(&message, &Answer::Code(code::REFUSED));
                let _ = question.reversed();
            }
        }
    }
}
