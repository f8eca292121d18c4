//! DEFLATE (RFC 1951), from a buffered source into a buffer with its history before it.
//!
//! Output is the only place where decoding pauses: a caller hands over a buffer
//! again and again, and what a match may reach back to (32 KiB) stands before
//! the place where writing goes on. Input is pulled from the source. Most
//! symbols go through [`decode_fast`], which works on what the source has at
//! hand and on local variables; only the last bytes of a buffer go through
//! [`Inflater::symbol`], a bit at a time in comparison.

use std::io::{self, BufRead};

use super::huffman::{
    self, Table, DISTANCE_BITS, END, LENGTH_BITS, LITERAL, LITERAL_BITS, SUBTABLE, TABLE_SIZE,
};

/// How far a match may reach back.
pub const HISTORY: usize = 32 * 1024;

/// Room that must be left in a buffer for decoding to go on: the longest match and
/// what copying by whole words writes too much.
pub const SLACK: usize = 258 + 38;

/// Input that the fast loop wants at hand: a refill of eight bytes each for a length, a distance and what follows.
const FAST_INPUT: usize = 32;

/// Order of the code lengths' code lengths (RFC 1951 §3.2.7).
const LENGTH_ORDER: [u8; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// What the stream is in the middle of.
enum Block {
    /// Before a block's header.
    Header,
    /// So many bytes of a stored block are left.
    Stored(usize),
    /// Symbols, by the tables.
    Codes,
    /// After the last block.
    Over,
}

/// One DEFLATE stream being decoded.
pub struct Inflater<R> {
    source: R,
    /// Bits taken from the source and not used yet, the next one lowest.
    bits: u64,
    count: u32,
    block: Block,
    is_last: bool,
    literals: Box<Table>,
    distances: Box<Table>,
}

fn damaged(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

impl<R: BufRead> Inflater<R> {
    /// Stands before the first byte of `source`; bytes may be taken before the stream is [`begin`](Self::begin)ned.
    pub fn new(source: R) -> Inflater<R> {
        let table = || Box::new([0; TABLE_SIZE]);
        Inflater {
            source,
            bits: 0,
            count: 0,
            block: Block::Over,
            is_last: false,
            literals: table(),
            distances: table(),
        }
    }

    /// A new stream begins with the next byte.
    pub fn begin(&mut self) {
        self.block = Block::Header;
        self.is_last = false;
    }

    /// Whether the last block has ended. What follows is at the next whole byte.
    pub fn is_over(&self) -> bool {
        matches!(self.block, Block::Over)
    }

    /// The next whole byte after a stream or before one; `None` at the end of the source.
    pub fn byte(&mut self) -> io::Result<Option<u8>> {
        self.align();
        if self.count == 0 && !self.refill()? {
            return Ok(None);
        }
        Ok(Some(self.take(8) as u8))
    }

    fn align(&mut self) {
        let odd = self.count % 8;
        self.drop_bits(odd);
    }

    fn drop_bits(&mut self, n: u32) {
        self.bits >>= n;
        self.count -= n;
    }

    /// Takes bits that are known to be there.
    fn take(&mut self, n: u32) -> u64 {
        let value = self.bits & mask(n);
        self.drop_bits(n);
        value
    }

    /// One more byte from the source, if it has one and there is room for it.
    fn refill(&mut self) -> io::Result<bool> {
        if self.count > 55 {
            return Ok(false);
        }
        let Some(&byte) = self.source.fill_buf()?.first() else { return Ok(false) };
        self.source.consume(1);
        self.bits |= u64::from(byte) << self.count;
        self.count += 8;
        Ok(true)
    }

    /// The next `n` bits, at most 32.
    fn need(&mut self, n: u32) -> io::Result<u64> {
        while self.count < n {
            if !self.refill()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(n))
    }

    /// Decodes into `out` from `at`, until the stream is over or less than [`SLACK`]
    /// is left, and returns where writing ended. `floor` is where the history begins:
    /// nothing before it may be referred to.
    ///
    /// Errors: `InvalidData` for a damaged stream, `UnexpectedEof` for one cut short, and the source's own.
    pub fn inflate(&mut self, out: &mut [u8], mut at: usize, floor: usize) -> io::Result<usize> {
        while out.len() - at >= SLACK {
            match self.block {
                Block::Over => break,
                Block::Header => self.header()?,
                Block::Stored(left) => at = self.stored(left, out, at)?,
                Block::Codes => at = self.codes(out, at, floor)?,
            }
        }
        Ok(at)
    }

    fn end_block(&mut self) {
        self.block = if self.is_last { Block::Over } else { Block::Header };
    }

    fn header(&mut self) -> io::Result<()> {
        self.is_last = self.need(1)? == 1;
        match self.need(2)? {
            0 => {
                self.align();
                let length = self.need(16)?;
                if self.need(16)? != length ^ 0xffff {
                    return Err(damaged("the lengths of a stored block disagree"));
                }
                self.block = Block::Stored(length as usize);
            }
            1 => self.fixed()?,
            2 => self.dynamic()?,
            _ => return Err(damaged("an unknown type of block")),
        }
        Ok(())
    }

    fn stored(&mut self, mut left: usize, out: &mut [u8], mut at: usize) -> io::Result<usize> {
        while left > 0 && self.count >= 8 && at < out.len() {
            out[at] = self.take(8) as u8;
            (left, at) = (left - 1, at + 1);
        }
        if left > 0 && self.count < 8 {
            let bytes = self.source.fill_buf()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let n = left.min(bytes.len()).min(out.len() - at);
            out[at..at + n].copy_from_slice(&bytes[..n]);
            self.source.consume(n);
            (left, at) = (left - n, at + n);
        }
        match left {
            0 => self.end_block(),
            _ => self.block = Block::Stored(left),
        }
        Ok(at)
    }

    fn fixed(&mut self) -> io::Result<()> {
        let mut lengths = [8u8; huffman::LITERALS];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        self.set_codes(&lengths, &[5; huffman::DISTANCES])
    }

    fn set_codes(&mut self, literals: &[u8], distances: &[u8]) -> io::Result<()> {
        huffman::build_literals(literals, &mut self.literals)
            .map_err(|_| damaged("a set of literal and length codes that cannot be"))?;
        huffman::build_distances(distances, &mut self.distances)
            .map_err(|_| damaged("a set of distance codes that cannot be"))?;
        self.block = Block::Codes;
        Ok(())
    }

    fn dynamic(&mut self) -> io::Result<()> {
        let literals = self.need(5)? as usize + 257;
        let distances = self.need(5)? as usize + 1;
        let count = self.need(4)? as usize + 4;
        if literals > 286 || distances > 30 {
            return Err(damaged("too many codes in a block's header"));
        }
        let mut of_lengths = [0u8; 19];
        for &symbol in &LENGTH_ORDER[..count] {
            of_lengths[usize::from(symbol)] = self.need(3)? as u8;
        }
        huffman::build_lengths(&of_lengths, &mut self.distances)
            .map_err(|_| damaged("a set of code length codes that cannot be"))?;
        let mut lengths = [0u8; huffman::LITERALS + huffman::DISTANCES];
        let mut filled = 0;
        while filled < literals + distances {
            let (value, repeat) = self.code_length(filled.checked_sub(1).map(|last| lengths[last]))?;
            let run = lengths[..literals + distances].get_mut(filled..filled + repeat);
            run.ok_or_else(|| damaged("a run of code lengths beyond their end"))?.fill(value);
            filled += repeat;
        }
        self.set_codes(&lengths[..literals], &lengths[literals..literals + distances])
    }

    /// A code length and how often it stands.
    fn code_length(&mut self, previous: Option<u8>) -> io::Result<(u8, usize)> {
        while self.count < LENGTH_BITS && self.refill()? {}
        let entry = self.distances[(self.bits & mask(LENGTH_BITS)) as usize];
        let used = entry & 0xff;
        if used > self.count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.drop_bits(used);
        Ok(match entry >> 16 {
            16 => {
                let value = previous.ok_or_else(|| damaged("a repeated code length with none before it"))?;
                (value, self.need(2)? as usize + 3)
            }
            17 => (0, self.need(3)? as usize + 3),
            18 => (0, self.need(7)? as usize + 11),
            value => (value as u8, 1),
        })
    }

    fn codes(&mut self, out: &mut [u8], at: usize, floor: usize) -> io::Result<usize> {
        let input = self.source.fill_buf()?;
        if input.len() < FAST_INPUT {
            return self.symbol(out, at, floor);
        }
        let start = Run { bits: self.bits, count: self.count, read: 0, at, is_ended: false };
        let run = decode_fast(start, input, out, floor, &self.literals, &self.distances)?;
        (self.bits, self.count) = (run.bits & mask(run.count), run.count);
        self.source.consume(run.read);
        if run.is_ended {
            self.end_block();
        }
        Ok(run.at)
    }

    /// One symbol, with no more input than it needs and seven bytes.
    fn symbol(&mut self, out: &mut [u8], mut at: usize, floor: usize) -> io::Result<usize> {
        while self.count < 48 && self.refill()? {}
        let (mut bits, mut used) = (self.bits, 0);
        let length = look_up(&self.literals, LITERAL_BITS, &mut bits, &mut used)?;
        if length.entry & LITERAL != 0 {
            out[at] = (length.entry >> 16) as u8;
            at += 1;
        } else if length.entry & END == 0 {
            let distance = look_up(&self.distances, DISTANCE_BITS, &mut bits, &mut used)?;
            if used <= self.count {
                at = copy_match(out, at, floor, length.value, distance.value)?;
            }
        }
        if used > self.count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.drop_bits(used);
        if length.entry & END != 0 {
            self.end_block();
        }
        Ok(at)
    }
}

struct Symbol {
    entry: u32,
    value: usize,
}

/// Decodes one symbol with its extra bits out of `bits`.
fn look_up(table: &Table, index_bits: u32, bits: &mut u64, used: &mut u32) -> io::Result<Symbol> {
    let mut entry = table[(*bits & mask(index_bits)) as usize];
    if entry & SUBTABLE != 0 {
        *bits >>= index_bits;
        *used += index_bits;
        entry = sub_entry(table, entry, *bits);
    }
    if entry == 0 {
        return Err(damaged("a code that is not in use"));
    }
    let value = value_of(entry, *bits);
    *bits >>= entry & 0xff;
    *used += entry & 0xff;
    Ok(Symbol { entry, value })
}

#[inline(always)]
fn sub_entry(table: &Table, entry: u32, bits: u64) -> u32 {
    table[((entry >> 16) as usize + (bits & mask(entry & 0xf)) as usize) & (TABLE_SIZE - 1)]
}

/// Base and extra bits.
#[inline(always)]
fn value_of(entry: u32, bits: u64) -> usize {
    (entry >> 16) as usize + ((bits & mask(entry & 0x1f)) >> (entry >> 8 & 0xf)) as usize
}

/// The fast loop's variables, to be kept in registers.
#[derive(Clone, Copy)]
struct Run {
    bits: u64,
    count: u32,
    read: usize,
    at: usize,
    is_ended: bool,
}

impl Run {
    /// Tops the bits up to 56 or more. The bits above `count` are those that the
    /// next load brings again, so they may be or-ed in twice.
    #[inline(always)]
    fn refill(&mut self, input: &[u8]) {
        let word = input.get(self.read..).and_then(|rest| rest.first_chunk::<8>());
        self.bits |= word.map_or(0, |word| u64::from_le_bytes(*word)) << self.count;
        self.read += (63 - self.count as usize) >> 3;
        self.count |= 56;
    }

    #[inline(always)]
    fn consume(&mut self, entry: u32) {
        self.bits >>= entry & 0x3f;
        self.count -= entry & 0x3f;
    }

    #[inline(always)]
    fn put(&mut self, out: &mut [u8], entry: u32) {
        self.consume(entry);
        out[self.at] = (entry >> 16) as u8;
        self.at += 1;
    }
}

#[inline(always)]
fn peek(table: &Table, index_bits: u32, bits: u64) -> u32 {
    table[(bits & mask(index_bits)) as usize]
}

/// Decodes symbols until the block ends, the input runs low or the output does.
/// `input` has [`FAST_INPUT`] bytes or more, `out` [`SLACK`] after `at`.
fn decode_fast(
    start: Run,
    input: &[u8],
    out: &mut [u8],
    floor: usize,
    literals: &Table,
    distances: &Table,
) -> io::Result<Run> {
    let mut run = start;
    let (last_read, last_at) = (input.len() - FAST_INPUT, out.len() - SLACK);
    run.refill(input);
    // Loaded ahead: by the time a match is copied, the next symbol is there.
    let mut entry = peek(literals, LITERAL_BITS, run.bits);
    while run.read <= last_read && run.at <= last_at {
        // 56 bits: three literals of the main table use 33 of them, two and a length 42.
        if entry & LITERAL != 0 {
            run.put(out, entry);
            entry = peek(literals, LITERAL_BITS, run.bits);
            if entry & LITERAL != 0 {
                run.put(out, entry);
                entry = peek(literals, LITERAL_BITS, run.bits);
                if entry & LITERAL != 0 {
                    run.put(out, entry);
                    run.refill(input);
                    entry = peek(literals, LITERAL_BITS, run.bits);
                    continue;
                }
            }
        }
        if entry & (SUBTABLE | END) != 0 {
            if entry & SUBTABLE != 0 {
                run.bits >>= LITERAL_BITS;
                run.count -= LITERAL_BITS;
                entry = sub_entry(literals, entry, run.bits);
            }
            if entry & LITERAL != 0 {
                run.put(out, entry);
                run.refill(input);
                entry = peek(literals, LITERAL_BITS, run.bits);
                continue;
            }
            if entry & END != 0 {
                run.consume(entry);
                run.is_ended = true;
                return Ok(run);
            }
        }
        let length = value_of(entry, run.bits);
        run.consume(entry);
        run.refill(input);
        let mut far = peek(distances, DISTANCE_BITS, run.bits);
        if far & SUBTABLE != 0 {
            run.bits >>= DISTANCE_BITS;
            run.count -= DISTANCE_BITS;
            far = sub_entry(distances, far, run.bits);
        }
        if entry == 0 || far == 0 {
            return Err(damaged("a code that is not in use"));
        }
        let distance = value_of(far, run.bits);
        run.consume(far);
        run.refill(input);
        entry = peek(literals, LITERAL_BITS, run.bits);
        run.at = copy_match(out, run.at, floor, length, distance)?;
    }
    Ok(run)
}

/// Copies a match. By whole words where they do not overlap with what they make;
/// up to 38 bytes too many are written, which the next symbols write over.
#[inline(always)]
fn copy_match(out: &mut [u8], at: usize, floor: usize, length: usize, distance: usize) -> io::Result<usize> {
    if distance > at - floor {
        return Err(damaged("a match that begins before the data"));
    }
    let end = at + length;
    let (mut from, mut to) = (at - distance, at);
    if distance >= 16 {
        // Two without asking: a test would be mispredicted more often than it would save one.
        copy_word::<16>(out, from, to);
        copy_word::<16>(out, from + 16, to + 16);
        while to + 32 < end {
            (from, to) = (from + 32, to + 32);
            copy_word::<16>(out, from, to);
            copy_word::<16>(out, from + 16, to + 16);
        }
        return Ok(end);
    }
    if distance == 1 {
        let byte = out[from];
        out[at..end].fill(byte);
        return Ok(end);
    }
    // Each step makes one more period, which the next one reads.
    let step = distance.min(8);
    while to < end {
        copy_word::<8>(out, from, to);
        (from, to) = (from + step, to + step);
    }
    Ok(end)
}

#[inline(always)]
fn copy_word<const N: usize>(out: &mut [u8], from: usize, to: usize) {
    // Both are within, thanks to SLACK; as arrays, so that no build makes a call of it.
    let Some(word) = out.get(from..).and_then(|rest| rest.first_chunk::<N>()).copied() else { return };
    let Some(place) = out.get_mut(to..).and_then(|rest| rest.first_chunk_mut::<N>()) else { return };
    *place = word;
}
