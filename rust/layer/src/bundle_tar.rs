//! The outer tar of an image archive: documents and blobs as members, always in
//! the same bytes.
//!
//! Blobs go in as they are, or unpacked where the format wants plain tars. One
//! thread reads and unpacks, the calling one writes; between them are a few
//! chunks and no more.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};

use crate::compression::PlainReader;
use crate::error::WriteError;
use crate::tar::{Kind, Member, TarBuilder, Time};

const CHUNK: usize = 256 * 1024;
const CHUNKS: usize = 16;

/// One member of an image archive.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its name; a directory's ends with a slash.
    pub name: String,
    /// What it holds.
    pub content: Content,
}

/// What a member holds.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file of this many bytes.
    File(PathBuf, u64),
    /// What a gzip or zstd file unpacks to, this many bytes.
    Unpacked(PathBuf, u64),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(_, size) | Content::Unpacked(_, size) => *size,
        }
    }
}

/// Writes the archive. Members have mode 0644 (directories 0755), owner 0:0 and no time.
///
/// # Errors
/// `Tree` for a file that cannot be read or is not of its size, `Output`, `Cancelled`.
pub fn write_parts(out: impl Write, parts: &[Part], cancel: &AtomicBool) -> Result<(), WriteError> {
    let (sender, chunks) = sync_channel(CHUNKS);
    std::thread::scope(|scope| {
        let reading = std::thread::Builder::new()
            .name("archive-reader".into())
            .spawn_scoped(scope, move || parts.iter().try_for_each(|part| read_part(part, &sender)))
            .map_err(WriteError::Output)?;
        let mut tar = TarBuilder::new(out);
        let mut written = Ok(());
        for part in parts {
            written = tar.start(&member(part));
            while written.is_ok() && tar.left() > 0 {
                if cancel.load(Ordering::Relaxed) {
                    drop(chunks);
                    return Err(WriteError::Cancelled);
                }
                // No more chunks: the reader has failed, and says why.
                let Ok(chunk): Result<Vec<u8>, _> = chunks.recv() else {
                    drop(chunks);
                    return reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                };
                written = tar.write(&chunk);
            }
            if written.is_err() {
                break;
            }
        }
        drop(chunks);
        written.and_then(|()| tar.finish().map(drop)).map_err(WriteError::Output)
    })
}

fn member(part: &Part) -> Member {
    let is_directory = part.name.ends_with('/');
    Member {
        path: part.name.clone().into_bytes(),
        link: Vec::new(),
        kind: if is_directory { Kind::Directory } else { Kind::File },
        size: part.content.size(),
        stored: 0,
        offset: 0,
        mode: if is_directory { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        device: (0, 0),
        xattrs: Vec::new(),
        sparse: None,
    }
}

/// Sends exactly as many bytes as the part's size says; an early end of the other side ends this one quietly.
fn read_part(part: &Part, chunks: &SyncSender<Vec<u8>>) -> Result<(), WriteError> {
    let (path, size) = match &part.content {
        Content::Bytes(bytes) => {
            let _ = bytes.is_empty() || chunks.send(bytes.clone()).is_ok();
            return Ok(());
        }
        Content::File(path, size) | Content::Unpacked(path, size) => (path, *size),
    };
    let fail = |source| WriteError::Tree { path: path.clone(), source };
    let file = File::open(path).map_err(fail)?;
    let result = match part.content {
        Content::Unpacked(..) => {
            let source = PlainReader::new(BufReader::with_capacity(CHUNK, file)).map_err(fail)?;
            send_all(source, size, chunks)
        }
        _ => send_all(file, size, chunks),
    };
    result.map_err(fail)
}

fn send_all(mut source: impl Read, size: u64, chunks: &SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut left = size;
    loop {
        // One byte more than wanted, to see the end.
        let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK).saturating_add(1));
        let mut chunk = Vec::with_capacity(want);
        source.by_ref().take(want as u64).read_to_end(&mut chunk)?;
        if chunk.len() as u64 > left || chunk.is_empty() && left > 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is not as long as it was"));
        }
        if chunk.is_empty() {
            return Ok(());
        }
        left -= chunk.len() as u64;
        if chunks.send(chunk).is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::TarReader;

    fn write(parts: &[Part]) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        write_parts(&mut out, parts, &AtomicBool::new(false)).map(|()| out)
    }

    fn part(name: &str, content: Content) -> Part {
        Part { name: name.into(), content }
    }

    #[test]
    fn parts_come_out_as_members_with_their_bytes() {
        let place = tempfile::tempdir().unwrap();
        let (plain, packed) = (place.path().join("plain"), place.path().join("packed"));
        let body = vec![7u8; 3 * CHUNK + 5];
        std::fs::write(&plain, &body).unwrap();
        std::fs::write(&packed, zstd::encode_all(&body[..], 1).unwrap()).unwrap();
        let size = body.len() as u64;
        let parts = [
            part("d/", Content::Bytes(Vec::new())),
            part("d/text", Content::Bytes(b"text".to_vec())),
            part("plain", Content::File(plain.clone(), size)),
            part("packed", Content::Unpacked(packed.clone(), size)),
            part("empty", Content::Bytes(Vec::new())),
        ];
        let tar = write(&parts).unwrap();
        assert_eq!(tar, write(&parts).unwrap());
        let mut reader = TarReader::new(&tar[..]);
        let mut seen = Vec::new();
        while let Some(member) = reader.next_member().unwrap() {
            seen.push((String::from_utf8(member.path).unwrap(), member.size));
        }
        let names = ["d/", "d/text", "plain", "packed", "empty"];
        assert_eq!(seen, names.map(String::from).into_iter().zip([0, 4, size, size, 0]).collect::<Vec<_>>());
        for wrong in [size - 1, size + 1] {
            for content in [Content::File(plain.clone(), wrong), Content::Unpacked(packed.clone(), wrong)] {
                assert!(write(&[part("x", content)]).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn a_receiver_that_refuses_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::fs::write(&path, vec![0; 64 * CHUNK]).unwrap();
        let parts = [part("file", Content::File(path, 64 * CHUNK as u64))];
        assert!(matches!(write_parts(Full, &parts, &AtomicBool::new(false)), Err(WriteError::Output(_))));
        assert!(matches!(
            write_parts(Vec::new(), &parts, &AtomicBool::new(true)),
            Err(WriteError::Cancelled)
        ));
    }
}
