//! Huffman codes as lookup tables: from code lengths to one or two loads a symbol.
//!
//! A table is indexed with the next bits of the stream, first bit lowest. Codes
//! longer than the index lead to a subtable behind it. An entry says all that
//! its symbol needs, so that decoding is a load, a shift and a test of one bit:
//!
//! ```text
//! 31 ... 16   a literal; the base of a length or of a distance; the start of a subtable
//! 15          LITERAL     14  END      13  SUBTABLE
//! 12 ... 8    bits of the code alone: where the extra bits begin
//!  7 ... 0    bits of the code and of its extra bits; of a subtable, its index bits
//! ```
//!
//! An entry of zero is a code that does not exist (RFC 1951 §3.2.2, §3.2.5-6).

/// The entry is a literal byte.
pub const LITERAL: u32 = 1 << 15;
/// The entry ends the block.
pub const END: u32 = 1 << 14;
/// The entry leads to a subtable.
pub const SUBTABLE: u32 = 1 << 13;

/// Longest code of RFC 1951.
const CODE_LIMIT: usize = 15;
/// Literals and lengths, the two that never occur included.
pub const LITERALS: usize = 288;
/// Distances, the two that never occur included.
pub const DISTANCES: usize = 32;

/// Index bits of the table of literals and lengths.
pub const LITERAL_BITS: u32 = 11;
/// Index bits of the table of distances.
pub const DISTANCE_BITS: u32 = 9;
/// Index bits of the table of code lengths, whose codes are no longer.
pub const LENGTH_BITS: u32 = 7;

/// Size of every table: beyond what 286 codes of 15 bits need (2342 for 11 index
/// bits), and a power of two, so that a masked index needs no check.
pub const TABLE_SIZE: usize = 4096;

/// A table of [`TABLE_SIZE`] entries.
pub type Table = [u32; TABLE_SIZE];

/// What RFC 1951 forbids in a set of code lengths.
pub struct BadCode;

const LENGTH_BASE: [u16; 29] = [
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
    227, 258,
];
const LENGTH_EXTRA: [u8; 29] =
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
    4097, 6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];

/// What an entry says beside the length of its code; `None` for a symbol that may not occur.
type Meaning = fn(usize) -> Option<(u32, u8)>;

fn literal_or_length(symbol: usize) -> Option<(u32, u8)> {
    match symbol {
        0..=255 => Some(((symbol as u32) << 16 | LITERAL, 0)),
        256 => Some((END, 0)),
        _ => {
            let base = LENGTH_BASE.get(symbol - 257)?;
            Some((u32::from(*base) << 16, LENGTH_EXTRA[symbol - 257]))
        }
    }
}

fn distance(symbol: usize) -> Option<(u32, u8)> {
    DISTANCE_BASE.get(symbol).map(|base| (u32::from(*base) << 16, DISTANCE_EXTRA[symbol]))
}

fn code_length(symbol: usize) -> Option<(u32, u8)> {
    Some(((symbol as u32) << 16, 0))
}

/// Fills the table of literals and lengths.
pub fn build_literals(lengths: &[u8], table: &mut Table) -> Result<(), BadCode> {
    if lengths[256] == 0 {
        return Err(BadCode);
    }
    build(lengths, LITERAL_BITS, literal_or_length, true, table)
}

/// Fills the table of distances.
pub fn build_distances(lengths: &[u8], table: &mut Table) -> Result<(), BadCode> {
    build(lengths, DISTANCE_BITS, distance, true, table)
}

/// Fills the table of code lengths.
pub fn build_lengths(lengths: &[u8], table: &mut Table) -> Result<(), BadCode> {
    build(lengths, LENGTH_BITS, code_length, false, table)
}

/// Canonical codes: by length, then by symbol. Every code must be taken, save
/// that a set of one code of one bit (or, of distances, none) is allowed where `may_be_single`.
fn build(
    lengths: &[u8],
    index_bits: u32,
    meaning: Meaning,
    may_be_single: bool,
    table: &mut Table,
) -> Result<(), BadCode> {
    let mut counts = [0u32; CODE_LIMIT + 1];
    for &length in lengths {
        counts[usize::from(length)] += 1;
    }
    let used = lengths.len() as u32 - counts[0];
    counts[0] = 0;
    let mut left: i64 = 1;
    for count in &counts[1..] {
        left = (left << 1) - i64::from(*count);
        if left < 0 {
            return Err(BadCode);
        }
    }
    let is_single = used == 0 || used == 1 && counts[1] == 1;
    if left > 0 && !(may_be_single && is_single) {
        return Err(BadCode);
    }
    if left > 0 {
        table[..1 << index_bits].fill(0);
    }
    let sorted = sort_symbols(lengths, &counts);
    fill(&sorted[..used as usize], lengths, &counts, index_bits, meaning, table)
}

/// The symbols with a code, in the order of their codes.
fn sort_symbols(lengths: &[u8], counts: &[u32; CODE_LIMIT + 1]) -> [u16; LITERALS] {
    let mut next = [0u32; CODE_LIMIT + 1];
    for length in 1..CODE_LIMIT {
        next[length + 1] = next[length] + counts[length];
    }
    let mut sorted = [0; LITERALS];
    for (symbol, &length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        let place = &mut next[usize::from(length)];
        sorted[*place as usize] = symbol as u16;
        *place += 1;
    }
    sorted
}

fn fill(
    sorted: &[u16],
    lengths: &[u8],
    counts: &[u32; CODE_LIMIT + 1],
    index_bits: u32,
    meaning: Meaning,
    table: &mut Table,
) -> Result<(), BadCode> {
    let (mut code, mut previous_length) = (0u32, 0);
    let (mut subtable, mut prefix) = (0, u32::MAX);
    let mut end = 1usize << index_bits;
    let mut left = *counts;
    for &symbol in sorted {
        let length = u32::from(lengths[usize::from(symbol)]);
        code <<= length - previous_length;
        previous_length = length;
        let reversed = code.reverse_bits() >> (32 - length);
        if length <= index_bits {
            let word = entry(meaning, symbol, length);
            let step = 1 << length;
            table[..1 << index_bits][reversed as usize..].iter_mut().step_by(step).for_each(|it| *it = word);
        } else {
            let here = reversed & ((1 << index_bits) - 1);
            if here != prefix {
                prefix = here;
                let subtable_bits = subtable_size(&left, length, index_bits);
                subtable = end;
                end += 1 << subtable_bits;
                if end > TABLE_SIZE {
                    return Err(BadCode);
                }
                table[here as usize] = (subtable as u32) << 16 | SUBTABLE | index_bits << 8 | subtable_bits;
            }
            let word = entry(meaning, symbol, length - index_bits);
            let step = 1 << (length - index_bits);
            let at = (reversed >> index_bits) as usize;
            table[subtable..end][at..].iter_mut().step_by(step).for_each(|it| *it = word);
        }
        left[length as usize] -= 1;
        code += 1;
    }
    Ok(())
}

/// The entry of a symbol whose code has `length` bits left; zero if it may not occur.
fn entry(meaning: Meaning, symbol: u16, length: u32) -> u32 {
    match meaning(usize::from(symbol)) {
        Some((word, extra)) => word | length << 8 | (length + u32::from(extra)),
        None => 0,
    }
}

/// Index bits of a subtable whose first code has `length` bits: as many as its codes need.
fn subtable_size(left: &[u32; CODE_LIMIT + 1], length: u32, index_bits: u32) -> u32 {
    let mut bits = length - index_bits;
    let mut room = 1i64 << bits;
    loop {
        room -= i64::from(left[(index_bits + bits) as usize]);
        if room <= 0 || index_bits + bits == CODE_LIMIT as u32 {
            return bits;
        }
        bits += 1;
        room <<= 1;
    }
}
