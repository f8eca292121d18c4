//! Detach keys: how a user leaves a container's terminal without ending anything.
//!
//! Docker's spelling: keys with commas between, each a character or `ctrl-` and one of
//! `a`-`z @ [ \ ] ^ _`. What may become the sequence is held back until it cannot.

/// What ctrl and a key send is the key's code without its upper bits.
const CONTROL: u8 = 0x1f;

/// A sequence to look for, and how much of it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    seen: usize,
}

impl Default for DetachKeys {
    /// ctrl-p, ctrl-q.
    fn default() -> Self {
        Self { keys: vec![0x10, 0x11], seen: 0 }
    }
}

impl DetachKeys {
    /// Reads Docker's spelling; empty is the default sequence.
    ///
    /// # Errors
    /// The line to show when a key is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let key = |name: &str| {
            let code = match name.strip_prefix("ctrl-").map(str::as_bytes) {
                Some(&[key @ (b'a'..=b'z' | b'@' | b'['..=b'_')]) => Some(key & CONTROL),
                Some(_) => None,
                None => name.as_bytes().first().copied().filter(|_| name.len() == 1),
            };
            code.ok_or_else(|| format!("invalid detach keys `{text}`: unknown key `{name}`"))
        };
        Ok(Self { keys: text.split(',').map(key).collect::<Result<_, _>>()?, seen: 0 })
    }

    /// Looks through what the user typed; true when the sequence is complete. `pass` gets the bytes to send on.
    pub fn feed(&mut self, typed: &[u8], pass: &mut Vec<u8>) -> bool {
        for byte in typed {
            // After a mismatch a part of what was held back may begin the sequence anew.
            while self.seen > 0 && self.keys[self.seen] != *byte {
                let shorter = self.longest_border();
                pass.extend_from_slice(&self.keys[..self.seen - shorter]);
                self.seen = shorter;
            }
            if self.keys[self.seen] == *byte {
                self.seen += 1;
            } else {
                pass.push(*byte);
            }
            if self.seen == self.keys.len() {
                self.seen = 0;
                return true;
            }
        }
        false
    }

    /// The longest proper prefix of what was seen that also ends it.
    fn longest_border(&self) -> usize {
        let seen = &self.keys[..self.seen];
        (0..self.seen).rev().find(|length| seen.ends_with(&self.keys[..*length])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut passed = Vec::new();
        let detached = pieces.iter().any(|piece| keys.feed(piece, &mut passed));
        (detached, passed)
    }

    #[test]
    fn dockers_spellings_are_understood() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q").unwrap(), DetachKeys::default());
        assert_eq!(DetachKeys::parse("").unwrap(), DetachKeys::default());
        let keys = DetachKeys::parse("ctrl-@,a,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_,ctrl-z").unwrap().keys;
        assert_eq!(keys, [0, b'a', 27, 28, 29, 30, 31, 26]);
        for wrong in ["ctrl-", "ctrl-P", "ctrl-1", "ab", "a,", "ctrl-pp"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_sequence_is_found_across_reads_and_not_sent_on() {
        assert_eq!(typed("", &[b"ls\x10", b"\x11"]), (true, b"ls".to_vec()));
        assert_eq!(typed("ctrl-x", &[b"a\x18b"]), (true, b"a".to_vec()));
    }

    #[test]
    fn what_was_held_back_is_sent_on_when_it_is_something_else() {
        assert_eq!(typed("", &[b"\x10", b"x"]), (false, b"\x10x".to_vec()));
        assert_eq!(typed("", &[b"\x10\x10\x11"]), (true, b"\x10".to_vec()));
        assert_eq!(typed("a,a,b", &[b"aaab"]), (true, b"a".to_vec()));
        assert_eq!(typed("a,b,a,c", &[b"ababac"]), (true, b"ab".to_vec()));
    }
}
