//! `duckweed-runtime`: see the library.
fn main() {}
