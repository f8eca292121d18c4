//! The json-file log: what the container wrote, a line of JSON for a line of text.
//!
//! Bytes come as they are read from a pipe. [`entry`] cuts them into lines and spells
//! each as Docker does, so that every reader of Docker's logs reads ours; this file
//! appends them and rotates. Writing never fails a container: on a full disk whole
//! entries are dropped, and a torn one is cut off again.

mod entry;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use entry::Lines;

/// Which of the container's streams a byte came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1, and everything a terminal shows.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// Rotate before the entry after this size; 0 = never.
    max_size: u64,
    /// How many files there may be, this one included.
    max_file: u32,
    stdout: Lines,
    stderr: Lines,
    /// Entries not yet written: one write(2) for everything that one read(2) brought.
    pending: Vec<u8>,
}

impl Log {
    /// Opens the log at `path` for appending.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(path: &Path, max_size: u64, max_file: u32) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o640).open(path)?;
        let mut log = Self {
            path: path.to_owned(),
            size: file.metadata()?.len(),
            file,
            max_size,
            max_file,
            stdout: Lines::default(),
            stderr: Lines::default(),
            pending: Vec::new(),
        };
        log.end_torn_entry();
        Ok(log)
    }

    /// Adds what was just read from `stream`.
    pub fn append(&mut self, stream: Stream, mut bytes: &[u8]) {
        let time = super::clock::now();
        while let Some(rest) = self.lines(stream).take_line(bytes, &time) {
            bytes = rest;
            self.write_entry(stream);
        }
        self.flush();
    }

    /// Adds what is left of a last line without a newline: the stream has ended.
    pub fn finish(&mut self, stream: Stream) {
        if self.lines(stream).take_rest() {
            self.write_entry(stream);
        }
        self.flush();
    }

    fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn write_entry(&mut self, stream: Stream) {
        if self.max_size > 0 && self.size + self.pending.len() as u64 >= self.max_size {
            self.flush();
            // A log that cannot be rotated grows on: losing lines would be worse.
            let _ = self.rotate();
        }
        let lines = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        lines.spell(stream, &mut self.pending);
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.file.write_all(&self.pending) {
            Ok(()) => self.size += self.pending.len() as u64,
            Err(_) => {
                let _ = self.file.set_len(self.size);
            }
        }
        self.pending.clear();
        self.pending.shrink_to(64 * 1024);
    }

    /// `log.1` becomes `log.2` and so on, the oldest goes, and a new file begins.
    fn rotate(&mut self) -> io::Result<()> {
        if self.max_file < 2 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        for number in (1..self.max_file - 1).rev() {
            // Not all of them exist yet.
            let _ = std::fs::rename(self.numbered(number), self.numbered(number + 1));
        }
        std::fs::rename(&self.path, self.numbered(1))?;
        self.file = OpenOptions::new().create(true).append(true).read(true).mode(0o640).open(&self.path)?;
        self.size = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }

    /// A crash in the middle of a write leaves a half entry; the next must not be glued to it.
    fn end_torn_entry(&mut self) {
        let mut last = [b'\n'];
        let read = self.size.checked_sub(1).map(|at| self.file.read_at(&mut last, at));
        if read.is_some() && last != *b"\n" && self.file.write_all(b"\n").is_ok() {
            self.size += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(path: &Path) -> Vec<(String, String)> {
        let content = std::fs::read_to_string(path).unwrap();
        content
            .lines()
            .map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).unwrap();
                (entry["stream"].as_str().unwrap().to_owned(), entry["log"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    #[test]
    fn lines_of_both_streams_stay_whole_however_they_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = Log::open(&path, 0, 1).unwrap();
        log.append(Stream::Stdout, b"he");
        log.append(Stream::Stderr, b"oops\n");
        log.append(Stream::Stdout, b"llo\nwor");
        log.append(Stream::Stdout, b"ld");
        log.finish(Stream::Stdout);
        log.finish(Stream::Stderr);
        let wanted = [("stderr", "oops\n"), ("stdout", "hello\n"), ("stdout", "world")];
        assert_eq!(texts(&path), wanted.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_full_file_is_renamed_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = Log::open(&path, 1, 3).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            log.append(Stream::Stdout, line.as_bytes());
        }
        let name = |n: &str| dir.path().join(format!("container.log{n}"));
        assert_eq!(texts(&name(""))[0].1, "four\n");
        assert_eq!(texts(&name(".1"))[0].1, "three\n");
        assert_eq!(texts(&name(".2"))[0].1, "two\n");
        assert!(!name(".3").exists());
    }

    #[test]
    fn one_read_with_many_lines_is_cut_at_the_size_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = Log::open(&path, 200, 2).unwrap();
        log.append(Stream::Stdout, &b"0123456789\n".repeat(20));
        assert!(std::fs::metadata(&path).unwrap().len() < 300);
        assert!(std::fs::metadata(dir.path().join("container.log.1")).unwrap().len() < 300);
    }

    #[test]
    fn a_single_file_starts_again_when_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        let mut log = Log::open(&path, 1, 1).unwrap();
        log.append(Stream::Stdout, b"one\ntwo\n");
        assert_eq!(texts(&path).len(), 1);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_torn_last_entry_is_not_glued_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("container.log");
        std::fs::write(&path, b"{\"log\":\"ha").unwrap();
        Log::open(&path, 0, 1).unwrap().append(Stream::Stdout, b"next\n");
        let content = std::fs::read_to_string(&path).unwrap();
        assert!(content.lines().nth(1).unwrap().starts_with("{\"log\":\"next\\n\""));
    }
}
