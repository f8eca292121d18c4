//! A stretch of a file, read with pread so that several readers can share one
//! descriptor: the layers of one image archive are members of one outer tar.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Reads `length` bytes from `offset` of a file without moving its offset.
pub struct FileSection<'fd> {
    fd: BorrowedFd<'fd>,
    offset: u64,
    left: u64,
    seekable: bool,
    bounded: bool,
}

impl<'fd> FileSection<'fd> {
    /// The bytes from `offset`, `length` of them or all that follow. When
    /// `length` is given, an earlier end of the file is an error.
    ///
    /// A pipe has no offsets: it can be read from 0 only, as a stream.
    pub fn new(fd: BorrowedFd<'fd>, offset: u64, length: Option<u64>) -> FileSection<'fd> {
        let left = length.unwrap_or(u64::MAX);
        FileSection { fd, offset, left, seekable: true, bounded: length.is_some() }
    }

    /// The whole file.
    pub fn whole(fd: BorrowedFd<'fd>) -> FileSection<'fd> {
        FileSection::new(fd, 0, None)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.seekable {
            match rustix::io::pread(self.fd, &mut *buffer, self.offset) {
                Err(Errno::SPIPE) if self.offset == 0 => self.seekable = false,
                result => return Ok(result?),
            }
        }
        Ok(rustix::io::read(self.fd, buffer)?)
    }
}

impl Read for FileSection<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = loop {
            match self.read_some(&mut buffer[..want]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if n == 0 && self.bounded {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    fn file(bytes: &[u8]) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn section_reads_its_bytes_and_no_more() {
        let file = file(b"0123456789");
        let mut bytes = Vec::new();
        FileSection::new(file.as_fd(), 3, Some(4)).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"3456");
    }

    #[test]
    fn section_beyond_the_end_of_the_file_is_an_error() {
        let file = file(b"0123");
        let mut bytes = Vec::new();
        let error = FileSection::new(file.as_fd(), 2, Some(4)).read_to_end(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn pipe_is_read_as_a_stream() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"through a pipe").unwrap();
        drop(writer);
        let mut bytes = Vec::new();
        FileSection::whole(reader.as_fd()).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"through a pipe");
    }
}
