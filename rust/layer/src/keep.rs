//! The blob being kept while its layer is extracted: as it comes, or a plain
//! tar packed with zstd.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::compression::Compression;
use crate::digest::{Digest, HashingFile};
use crate::error::ExtractError;

/// The level a plain tar is kept at: the fastest that still halves a root file system.
const ZSTD_LEVEL: i32 = 1;

/// See the module.
pub struct Keep {
    path: PathBuf,
    out: Out,
}

/// What a kept blob is.
pub struct Kept {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// How it is packed.
    pub compression: Compression,
}

enum Out {
    AsIs(File),
    Packed(Box<zstd::stream::write::Encoder<'static, HashingFile>>),
}

impl Keep {
    /// A new file at `path`, for a stream packed like this; nothing without a path.
    pub fn create(path: Option<&Path>, compression: Compression) -> Result<Option<Keep>, ExtractError> {
        let Some(path) = path else { return Ok(None) };
        let fail = |source| ExtractError::Destination { path: path.to_owned(), source };
        let file = File::options().write(true).create_new(true).open(path).map_err(fail)?;
        let out = if compression == Compression::None {
            let mut encoder =
                zstd::stream::write::Encoder::new(HashingFile::new(file), ZSTD_LEVEL).map_err(fail)?;
            encoder.include_checksum(true).map_err(fail)?;
            Out::Packed(Box::new(encoder))
        } else {
            Out::AsIs(file)
        };
        Ok(Some(Keep { path: path.to_owned(), out }))
    }

    /// Takes the next bytes of the source.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ExtractError> {
        let result = match &mut self.out {
            Out::AsIs(file) => file.write_all(bytes),
            Out::Packed(encoder) => encoder.write_all(bytes),
        };
        result.map_err(|source| ExtractError::Destination { path: self.path.clone(), source })
    }

    /// Syncs the blob (blobs are what images are made of; trees can be made again). What it is, if it is not the source's bytes.
    pub fn finish(self) -> Result<Option<Kept>, ExtractError> {
        let path = self.path;
        let result = match self.out {
            Out::AsIs(file) => file.sync_all().map(|()| None),
            Out::Packed(encoder) => encoder
                .finish()
                .and_then(HashingFile::finish)
                .map(|(digest, size)| Some(Kept { digest, size, compression: Compression::Zstd })),
        };
        result.map_err(|source| ExtractError::Destination { path, source })
    }
}
