//! Copies a stack of layers by hand: `merge DEST TOP_FS... BOTTOM_FS`; DEST must be an empty directory.
#![allow(clippy::print_stdout)]

use std::path::{Path, PathBuf};

use duckweed_layer::copy_layers;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [dest, lowers @ ..] = &arguments[..] else { return Err("usage: merge DEST FS...".into()) };
    let lowers: Vec<PathBuf> = lowers.iter().map(Into::into).collect();
    let index = copy_layers(&lowers, Path::new(dest))?;
    println!("{} records", index.entries.len());
    Ok(())
}
