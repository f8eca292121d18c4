//! One entry of the log: where a line ends, and how Docker spells it in JSON.
//!
//! Docker reads into a buffer of 16 KiB and logs a longer line in pieces: all but the
//! last have no newline, and all carry the time of the first. Its JSON is Go's with HTML
//! escapes: `<` is `\u003c`, a tab `\u0009`, a byte that is not UTF-8 `\ufffd`
//! (observed in docker 24's files; moby's daemon/logger/jsonfilelog writes them).

use super::Stream;

/// Docker's buffer: the longest piece of a line.
const LONGEST_PIECE: usize = 16 * 1024;

/// A stream being cut into lines.
#[derive(Debug, Default)]
pub struct Lines {
    line: Vec<u8>,
    time: String,
    /// A piece of this line was logged already.
    partial: bool,
    ended: bool,
}

impl Lines {
    /// Collects bytes up to the end of a line or piece; `Some(rest)` when there is an entry to [`Self::spell`].
    pub fn take_line<'a>(&mut self, bytes: &'a [u8], now: &str) -> Option<&'a [u8]> {
        if self.ended {
            self.line.clear();
            self.ended = false;
        }
        let room = LONGEST_PIECE - self.line.len();
        let within = &bytes[..bytes.len().min(room + 1)];
        let newline = within.iter().position(|byte| *byte == b'\n');
        // Docker stamps a line when its end arrives, and a long line when its first piece is full.
        if !self.partial && !bytes.is_empty() {
            now.clone_into(&mut self.time);
        }
        if let Some(end) = newline.filter(|end| *end < room) {
            self.line.extend_from_slice(&bytes[..=end]);
            (self.partial, self.ended) = (false, true);
            return Some(&bytes[end + 1..]);
        }
        if bytes.len() < room {
            self.line.extend_from_slice(bytes);
            return None;
        }
        self.line.extend_from_slice(&bytes[..room]);
        (self.partial, self.ended) = (true, true);
        Some(&bytes[room..])
    }

    /// What is left when the stream ends: true when there is an entry to spell.
    pub fn take_rest(&mut self) -> bool {
        if self.ended {
            self.line.clear();
        }
        self.ended = true;
        !self.line.is_empty()
    }

    /// Appends the entry that was just completed.
    pub fn spell(&mut self, stream: Stream, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"log\":\"");
        escape(&self.line, out);
        out.extend_from_slice(match stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\",\"time\":\"",
            Stream::Stderr => b"\",\"stream\":\"stderr\",\"time\":\"",
        });
        out.extend_from_slice(self.time.as_bytes());
        out.extend_from_slice(b"\"}\n");
    }
}

fn escape(line: &[u8], out: &mut Vec<u8>) {
    for chunk in line.utf8_chunks() {
        escape_text(chunk.valid(), out);
        // Go replaces byte by byte, not sequence by sequence.
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (length, escaped): (usize, &[u8]) = match bytes[at] {
            b'"' => (1, b"\\\""),
            b'\\' => (1, b"\\\\"),
            b'\n' => (1, b"\\n"),
            b'\r' => (1, b"\\r"),
            byte @ (0..0x20 | b'<' | b'>' | b'&') => (1, &control(byte)),
            // U+2028 and U+2029, which JavaScript takes for line ends.
            0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => (3, b"\\u2028"),
            0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => (3, b"\\u2029"),
            _ => {
                at += 1;
                continue;
            }
        };
        out.extend_from_slice(&bytes[plain..at]);
        out.extend_from_slice(escaped);
        at += length;
        plain = at;
    }
    out.extend_from_slice(&bytes[plain..]);
}

fn control(byte: u8) -> [u8; 6] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    [b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(reads: &[&[u8]]) -> Vec<(String, String)> {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        let mut spelled = |lines: &mut Lines| {
            let mut out = Vec::new();
            lines.spell(Stream::Stdout, &mut out);
            let entry: serde_json::Value = serde_json::from_slice(&out).unwrap();
            all.push((entry["log"].as_str().unwrap().to_owned(), entry["time"].as_str().unwrap().to_owned()));
        };
        for (number, read) in reads.iter().enumerate() {
            let mut bytes = *read;
            while let Some(rest) = lines.take_line(bytes, &format!("t{number}")) {
                bytes = rest;
                spelled(&mut lines);
            }
        }
        if lines.take_rest() {
            spelled(&mut lines);
        }
        all
    }

    fn spelling(line: &[u8]) -> String {
        let mut out = Vec::new();
        escape(line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_entry_is_spelled_as_docker_spells_it() {
        let mut lines = Lines::default();
        assert_eq!(lines.take_line(b"a<b\t\"q\"\n", "2026-01-02T03:04:05.1Z"), Some(&b""[..]));
        let mut out = Vec::new();
        lines.spell(Stream::Stderr, &mut out);
        let wanted = r#"{"log":"a\u003cb\u0009\"q\"\n","stream":"stderr","time":"2026-01-02T03:04:05.1Z"}"#;
        assert_eq!(String::from_utf8(out).unwrap(), format!("{wanted}\n"));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_one_by_one() {
        assert_eq!(spelling(b"\xff\xe2\x82x\r"), "\\ufffd\\ufffd\\ufffdx\\r");
        assert_eq!(spelling("é\u{2028}\u{2029}\\\0".as_bytes()), "é\\u2028\\u2029\\\\\\u0000");
    }

    #[test]
    fn a_long_line_is_logged_in_pieces_of_16_kib_with_the_time_of_the_first() {
        let long = vec![b'x'; LONGEST_PIECE + 5];
        let got = entries(&[&long, b"end\nnext\n"]);
        let sizes: Vec<usize> = got.iter().map(|(text, _)| text.len()).collect();
        assert_eq!(sizes, [LONGEST_PIECE, 9, 5]);
        assert_eq!(got[1], ("xxxxxend\n".to_owned(), "t0".to_owned()));
        assert_eq!(got[2].1, "t1");
    }

    #[test]
    fn a_line_of_exactly_one_piece_has_its_newline_alone() {
        let mut line = vec![b'x'; LONGEST_PIECE];
        line.push(b'\n');
        let texts: Vec<String> = entries(&[&line]).into_iter().map(|(text, _)| text).collect();
        assert_eq!(texts[0].len(), LONGEST_PIECE);
        assert_eq!(texts[1], "\n");
        let mut shorter = vec![b'x'; LONGEST_PIECE - 1];
        shorter.push(b'\n');
        assert_eq!(entries(&[&shorter]).len(), 1);
    }

    #[test]
    fn a_last_line_without_newline_stays_without() {
        assert_eq!(entries(&[b"one\ntw", b"o"]).last().unwrap().0, "two");
        assert_eq!(entries(&[b"one\n"]).len(), 1);
        assert_eq!(entries(&[b""]).len(), 0);
    }
}
