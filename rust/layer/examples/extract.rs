//! Extracts a layer by hand: `extract LAYER DEST [PARENT_FS...]`, and prints the report.
#![allow(clippy::print_stdout)]

use std::os::fd::AsFd;
use std::path::Path;

use duckweed_layer::{extract_layer, ExtractOptions, FileSection};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [layer, dest, parents @ ..] = &arguments[..] else {
        return Err("usage: extract LAYER DEST [PARENT_FS...]".into());
    };
    let file = std::fs::File::open(layer)?;
    let options = ExtractOptions {
        parents: parents.iter().map(Into::into).collect(),
        blob_out: std::env::var_os("BLOB_OUT").map(Into::into),
        ..ExtractOptions::default()
    };
    println!("{:#?}", extract_layer(FileSection::whole(file.as_fd()), Path::new(dest), &options)?);
    Ok(())
}
