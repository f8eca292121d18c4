//! The index: what a layer's tree cannot say of itself.
//!
//! The tree is made without privilege, so every file belongs to the user, there
//! are no device nodes, and only `user.*` xattrs stick. The rest is kept in
//! `index.json` beside `fs/`, for the entries that need it and no others:
//!
//! ```json
//! {"version":1,"entries":{"usr/bin/crontab":{"uid":0,"gid":101,"mode":1517,"mtime":[1681234567,0],"type":"file"}}}
//! ```
//!
//! `mtime` is seconds and nanoseconds. `dev`, `xattrs` and `opaque` are there
//! only when they say something. `type` is `file`, `dir`, `symlink`, `fifo`,
//! `char`, `block` or `whiteout`. The root's path is `.`. Keys are sorted by bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{base64, path};

/// Name of the file beside `fs/`.
pub const FILE_NAME: &str = "index.json";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Type {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device; the tree has an empty file in its place.
    Char,
    /// A block device; the tree has an empty file in its place.
    Block,
    /// A whiteout that could not be made as a device; the tree has nothing in its place.
    Whiteout,
}

/// The facts of one entry, all of them, also those that the tree holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Record {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits with setuid, setgid and sticky: chown clears them, so they are set after it.
    pub mode: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Type,
    /// Major and minor number of a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<(u32, u32)>,
    /// Extended attributes that are not on disk.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", with = "xattrs")]
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A directory that hides its lower entries, where the xattr could not be set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub opaque: bool,
}

/// All records of a layer, by path beneath `fs/` (raw bytes; the root is empty).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// The records.
    pub entries: BTreeMap<Vec<u8>, Record>,
}

#[derive(Serialize, Deserialize)]
struct Document<E> {
    version: u32,
    entries: E,
}

impl Index {
    /// Reads `index.json` of a layer's directory; an absent one is empty.
    pub fn read(layer: &Path) -> io::Result<Index> {
        match std::fs::read(layer.join(FILE_NAME)) {
            Ok(bytes) => Index::parse(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Index::default()),
            Err(error) => Err(error),
        }
    }

    /// Reads a document.
    pub fn parse(bytes: &[u8]) -> io::Result<Index> {
        let document: Document<BTreeMap<String, Record>> = serde_json::from_slice(bytes)?;
        if document.version != 1 {
            return Err(invalid("index.json is of a version that is not known"));
        }
        let mut entries = BTreeMap::new();
        for (text, record) in document.entries {
            let key = if text == "." { Some(Vec::new()) } else { path::decode(&text) };
            let key = key.filter(|key| path::normalize(key).as_deref() == Ok(key));
            entries.insert(key.ok_or_else(|| invalid("index.json has a bad path"))?, record);
        }
        Ok(Index { entries })
    }

    /// Writes `index.json` into a layer's directory: by rename, and synced.
    pub fn write(&self, layer: &Path) -> io::Result<()> {
        let half_made = layer.join(".index.json.new");
        let mut out = BufWriter::with_capacity(64 * 1024, File::create(&half_made)?);
        serde_json::to_writer(&mut out, &Document { version: 1, entries: self })?;
        out.write_all(b"\n")?;
        out.into_inner()?.sync_all()?;
        std::fs::rename(half_made, layer.join(FILE_NAME))
    }

    /// Forgets a path and, if it was a directory, all beneath it.
    pub fn forget(&mut self, gone: &[u8]) {
        self.entries.remove(gone);
        let start = [gone, b"/"].concat();
        let beneath = self.entries.range(start.clone()..).map(|(key, _)| key);
        let beneath: Vec<Vec<u8>> = beneath.take_while(|key| key.starts_with(&start)).cloned().collect();
        for key in beneath {
            self.entries.remove(&key);
        }
    }
}

/// Entries as a map of text, without a second copy in memory.
impl Serialize for Index {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries.iter().map(|(key, record)| {
            let text = if key.is_empty() { ".".to_owned() } else { path::encode(key) };
            (text, record)
        }))
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Names percent-encoded as paths are, values in base64.
mod xattrs {
    use super::{base64, path, BTreeMap};
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    type Map = BTreeMap<Vec<u8>, Vec<u8>>;

    pub fn serialize<S: Serializer>(map: &Map, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(map.iter().map(|(name, value)| (path::encode(name), base64::encode(value))))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map, D::Error> {
        let text = BTreeMap::<String, String>::deserialize(deserializer)?;
        let pairs =
            text.iter().map(|(name, value)| Some((path::decode(name)?, base64::decode(value.as_bytes())?)));
        pairs.collect::<Option<Map>>().ok_or_else(|| D::Error::custom("a bad xattr in index.json"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Index {
        let device = Record { kind: Type::Char, dev: Some((1, 3)), mode: 0o666, ..Record::default() };
        let capable = Record {
            gid: 7,
            mode: 0o4755,
            mtime: (-1, 5),
            xattrs: BTreeMap::from([(b"security.capability".to_vec(), vec![1, 0, 0xff])]),
            ..Record::default()
        };
        let entries = [(&b"dev/null"[..], device), (b"bin/\xffping", capable), (b"", Record::default())];
        Index { entries: entries.into_iter().map(|(key, record)| (key.to_vec(), record)).collect() }
    }

    #[test]
    fn index_survives_a_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        sample().write(directory.path()).unwrap();
        assert_eq!(Index::read(directory.path()).unwrap(), sample());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn text_of_an_index_is_stable() {
        let directory = tempfile::tempdir().unwrap();
        sample().write(directory.path()).unwrap();
        let text = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
        assert_eq!(
            text,
            concat!(
                r#"{"version":1,"entries":{".":{"uid":0,"gid":0,"mode":0,"mtime":[0,0],"type":"file"},"#,
                r#""bin/%FFping":{"uid":0,"gid":7,"mode":2541,"mtime":[-1,5],"type":"file","#,
                r#""xattrs":{"security.capability":"AQD/"}},"#,
                r#""dev/null":{"uid":0,"gid":0,"mode":438,"mtime":[0,0],"type":"char","dev":[1,3]}}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn forgetting_a_directory_forgets_what_is_beneath_it_only() {
        let keys = [&b"a"[..], b"a/b", b"a/b/c", b"a.txt", b"ab", b"b"];
        let mut index = Index { entries: keys.iter().map(|key| (key.to_vec(), Record::default())).collect() };
        index.forget(b"a");
        let left: Vec<_> = index.entries.keys().map(Vec::as_slice).collect();
        assert_eq!(left, [&b"a.txt"[..], b"ab", b"b"]);
    }

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for key in ["../a", "/a", "a/../b", "a//b", "%", "a%00"] {
            let text = format!(
                r#"{{"version":1,"entries":{{"{key}":{{"uid":0,"gid":0,"mode":0,"mtime":[0,0],"type":"file"}}}}}}"#
            );
            assert!(Index::parse(text.as_bytes()).is_err(), "{key}");
        }
    }
}
