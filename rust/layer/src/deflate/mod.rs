//! gzip (RFC 1952) and DEFLATE (RFC 1951), decoded as a stream.
//!
//! On a tmpfs inflating is the longest part of an extraction, so it has code of
//! its own, in safe Rust: a wide bit buffer, tables that say all of a symbol in
//! one load, matches copied by words. On the layer of a Debian with Python it
//! takes 0.6 of the time of zlib-rs, which is about zlib-ng's, and no more than
//! libdeflate, which wants the whole output in memory; ISA-L needs an assembler
//! to build (measured 2026-11, x86-64). zlib-rs is its oracle in the tests.

mod gzip;
mod huffman;
mod inflate;

pub use gzip::GzipMembers;
pub use inflate::{HISTORY, SLACK};
