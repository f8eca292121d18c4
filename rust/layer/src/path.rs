//! Paths: from a member's name to a place beneath the root, and to text.
//!
//! Names are bytes: tar promises no encoding, and a lossy conversion would make
//! two different files collide. A leading `/` means the layer's root, `.` and
//! empty components mean nothing, and a `..` that would leave the root is an
//! error, not clamped: no builder writes one, so it is an attack or damage.

/// The longest path that the kernel takes at once (PATH_MAX less its NUL). A
/// deeper file could not be named inside the container either.
pub const PATH_LIMIT: usize = 4095;

/// Brings a member's name into its one form: components joined by single
/// slashes; the empty path is the root itself.
pub fn normalize(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut path: Vec<u8> = Vec::with_capacity(name.len());
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if path.is_empty() => return Err("its name climbs out of the layer"),
            b".." => path.truncate(path.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
            _ if component.contains(&0) => return Err("its name has a NUL in it"),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    if path.len() > PATH_LIMIT {
        return Err("its name is too long");
    }
    Ok(path)
}

/// Splits a normal path into its directory and its last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Joins a normal directory path and a component.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

/// Text for JSON: UTF-8 as it is, other bytes as `%XX`, and `%` itself as `%25`.
pub fn encode(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for part in chunk.valid().split_inclusive('%') {
            text.push_str(part);
            if part.ends_with('%') {
                text.push_str("25");
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The bytes that [`encode`] made this text of; `None` if it did not.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut parts = text.as_bytes().split(|&byte| byte == b'%');
    path.extend_from_slice(parts.next()?);
    for part in parts {
        let hex = std::str::from_utf8(part.get(..2)?).ok()?;
        path.push(u8::from_str_radix(hex, 16).ok()?);
        path.extend_from_slice(&part[2..]);
    }
    Some(path)
}

/// A name for an error message: readable, and safe on a terminal.
pub fn display(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    if text.chars().count() > 300 {
        text = text.chars().take(300).chain("...".chars()).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_normal_form() {
        let table: &[(&[u8], Option<&[u8]>)] = &[
            (b"a/b", Some(b"a/b")),
            (b"./a//b/", Some(b"a/b")),
            (b"/etc/passwd", Some(b"etc/passwd")),
            (b"a/../b", Some(b"b")),
            (b"a/b/../c", Some(b"a/c")),
            (b"", Some(b"")),
            (b"./", Some(b"")),
            (b"a/..", Some(b"")),
            (b"...", Some(b"...")),
            (b"..", None),
            (b"../a", None),
            (b"/..", None),
            (b"a/../../b", None),
            (b"a\0b", None),
        ];
        for (name, expected) in table {
            assert_eq!(normalize(name).ok().as_deref(), *expected, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn every_byte_string_survives_encoding() {
        let table: &[(&[u8], &str)] = &[
            (b"a b", "a b"),
            (b"100%", "100%25"),
            (b"%41", "%2541"),
            (b"\xff\xe4/\xc3\xa4", "%FF%E4/ä"),
            (b"%%", "%25%25"),
        ];
        for (path, text) in table {
            assert_eq!(encode(path), *text);
            assert_eq!(decode(text).as_deref(), Some(*path));
        }
        for text in ["%", "%4", "%zz", "a%"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    #[test]
    fn displayed_names_hold_no_control_characters() {
        assert_eq!(display(b"a\x1b[31m\n\xffb"), "a\\u{1b}[31m\\n\\xffb");
    }
}
