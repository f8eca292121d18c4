//! Mount options: from mount(8)'s words to attributes of a mount and parameters of a
//! file system.

use duckweed_sys::mount::{ATIME, NOATIME, NODEV, NODIRATIME, NOEXEC, NOSUID, RDONLY, STRICTATIME};

/// What a list of options asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `MOUNT_ATTR_*` to switch on.
    pub set: u64,
    /// `MOUNT_ATTR_*` to switch off; for the access time the whole field.
    pub clear: u64,
    /// `bind` (false) or `rbind` (true).
    pub bind: Option<bool>,
    /// What the file system itself reads: `size=64m`, `newinstance`.
    pub parameters: Vec<(String, Option<String>)>,
}

impl Options {
    pub fn parse(words: &[String]) -> Self {
        let mut options = Self::default();
        for word in words {
            options.take(word);
        }
        options
    }

    /// The value of a parameter.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == key).and_then(|(_, value)| value.as_deref())
    }

    /// Whether a parameter is there, with a value or without.
    pub fn has(&self, key: &str) -> bool {
        self.parameters.iter().any(|(name, _)| name == key)
    }

    fn take(&mut self, word: &str) {
        match word.strip_prefix('r').filter(|rest| *rest != "o" && *rest != "w").unwrap_or(word) {
            "ro" => self.on(RDONLY),
            "rw" => self.off(RDONLY),
            "nosuid" => self.on(NOSUID),
            "suid" => self.off(NOSUID),
            "nodev" => self.on(NODEV),
            "dev" => self.off(NODEV),
            "noexec" => self.on(NOEXEC),
            "exec" => self.off(NOEXEC),
            "nodiratime" => self.on(NODIRATIME),
            "diratime" => self.off(NODIRATIME),
            "noatime" => self.access_time(NOATIME),
            "strictatime" => self.access_time(STRICTATIME),
            "elatime" | "atime" => self.access_time(0),
            "bind" => self.bind = Some(self.bind == Some(true) || word == "rbind"),
            // Propagation: the root is private, and nothing of the host's shall arrive later.
            "private" | "slave" | "shared" | "unbindable" | "defaults" | "sync" | "async" => {}
            _ if word.starts_with("create=") || word == "norelatime" || word == "nostrictatime" => {}
            _ => {
                let (key, value) = match word.split_once('=') {
                    Some((key, value)) => (key, Some(value.to_owned())),
                    None => (word, None),
                };
                self.parameters.push((key.to_owned(), value));
            }
        }
    }

    fn on(&mut self, bit: u64) {
        self.set |= bit;
        self.clear &= !bit;
    }

    fn off(&mut self, bit: u64) {
        self.clear |= bit;
        self.set &= !bit;
    }

    fn access_time(&mut self, mode: u64) {
        self.set = (self.set & !ATIME) | mode;
        self.clear |= ATIME;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        Options::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn flags_become_attributes_and_the_rest_goes_to_the_file_system() {
        let options = parse(&["nosuid", "strictatime", "mode=755", "size=65536k", "newinstance"]);
        assert_eq!(options.set, NOSUID | STRICTATIME);
        assert_eq!(options.clear, ATIME);
        let names: Vec<_> = options.parameters.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(names, ["mode", "size", "newinstance"]);
        assert_eq!(options.parameters[1].1.as_deref(), Some("65536k"));
    }

    #[test]
    fn the_last_word_wins() {
        assert_eq!(parse(&["ro", "rw"]).set, 0);
        assert_eq!(parse(&["rw", "ro"]).set, RDONLY);
        assert_eq!(parse(&["rw", "ro"]).clear, 0);
    }

    #[test]
    fn recursive_words_are_the_plain_ones_and_rbind_outlives_bind() {
        assert_eq!(parse(&["rbind", "bind", "rprivate", "rro"]).bind, Some(true));
        assert_eq!(parse(&["bind"]).bind, Some(false));
        assert_eq!(parse(&["rro", "rnosuid"]).set, RDONLY | NOSUID);
        assert_eq!(parse(&["relatime", "rslave", "create=dir"]).parameters, []);
        assert_eq!(parse(&["relatime"]).clear, ATIME);
    }
}
