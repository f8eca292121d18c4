//! The names of files with a record: what has none of them has no record, and need not be looked at.
//!
//! Most calls about files are about files of which nothing is remembered. A call that does not
//! follow a symbolic link means a file by the last component of its path; when no file with a
//! record has ever had that name, the kernel may answer at once. Names are never taken out: a wrong
//! "perhaps" costs a look, a wrong "no" would be a lie. Where names cannot be known (records of an
//! earlier run, a file that had other links before anything was remembered of it, mounts that
//! show a directory under another name) every name is a "perhaps".

use std::collections::HashSet;

/// See the module.
#[derive(Debug, Default)]
pub struct Names {
    known: HashSet<Vec<u8>>,
    are_unknown: bool,
}

impl Names {
    /// A file with a record has this name, or will have it.
    pub fn add(&mut self, name: &[u8]) {
        if !self.are_unknown && !self.known.contains(name) {
            self.known.insert(name.to_vec());
        }
    }

    /// From now on any name may be a recorded file's.
    pub fn give_up(&mut self) {
        (self.are_unknown, self.known) = (true, HashSet::new());
    }

    /// Whether the file that a path names, itself and not what it links to, may have a record.
    pub fn may_be(&self, path: &[u8]) -> bool {
        self.are_unknown || last_component(path).is_none_or(|name| self.known.contains(name))
    }
}

/// The last component of a path that ends in a name: not in `/`, `.` or `..`.
pub fn last_component(path: &[u8]) -> Option<&[u8]> {
    let name = path.rsplit(|byte| *byte == b'/').next()?;
    (!matches!(name, b"" | b"." | b"..")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_known_name_is_nobodys() {
        let mut names = Names::default();
        assert!(!names.may_be(b"/etc/passwd"));
        names.add(b"shadow");
        assert!(names.may_be(b"shadow") && names.may_be(b"/etc/shadow") && !names.may_be(b"shadow/x"));
        for odd in [&b""[..], b"/", b".", b"..", b"a/", b"a/."] {
            assert!(names.may_be(odd));
        }
        names.give_up();
        names.add(b"y");
        assert!(names.may_be(b"x"));
    }
}
