//! Whiteouts: how a layer says "this name is gone".
//!
//! A tar can only add, so OCI spells a deletion as an empty file: `.wh.NAME`
//! hides NAME in every lower layer, and `.wh..wh..opq` hides all of a
//! directory's lower entries (image-spec `layer.md`, "Whiteouts"). Whiteouts
//! speak of lower layers only: where they stand among the layer's own entries
//! means nothing. overlayfs spells the same two facts as a 0:0 character device
//! and as an xattr; that spelling lives in `tree`.

/// What the last component of a member's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<'a> {
    /// An ordinary entry.
    Plain(&'a [u8]),
    /// `.wh.NAME`.
    Whiteout(&'a [u8]),
    /// `.wh..wh..opq`.
    Opaque,
    /// `.wh..wh.*`: aufs's own bookkeeping, which old Docker versions exported.
    Metadata,
}

const PREFIX: &[u8] = b".wh.";

/// Reads the last component of a name.
pub fn classify(name: &[u8]) -> Result<Name<'_>, &'static str> {
    let Some(hidden) = name.strip_prefix(PREFIX) else { return Ok(Name::Plain(name)) };
    match hidden {
        b".wh..opq" => Ok(Name::Opaque),
        _ if hidden.starts_with(PREFIX) => Ok(Name::Metadata),
        b"" | b"." | b".." => Err("a whiteout of no name"),
        _ => Ok(Name::Whiteout(hidden)),
    }
}

/// What the directories of a path say: aufs's are skipped, and nothing may lie
/// beneath a whiteout.
pub fn check_parents(directory: &[u8]) -> Result<bool, &'static str> {
    let mut is_metadata = false;
    for component in directory.split(|&byte| byte == b'/') {
        match classify(component)? {
            Name::Plain(_) => {}
            Name::Metadata => is_metadata = true,
            Name::Whiteout(_) | Name::Opaque => return Err("it lies beneath a whiteout"),
        }
    }
    Ok(is_metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        assert_eq!(classify(b"a"), Ok(Name::Plain(b"a")));
        assert_eq!(classify(b".wh"), Ok(Name::Plain(b".wh")));
        assert_eq!(classify(b".wh.a"), Ok(Name::Whiteout(b"a")));
        assert_eq!(classify(b".wh..a"), Ok(Name::Whiteout(b".a")));
        assert_eq!(classify(b".wh...."), Ok(Name::Whiteout(b"...")));
        assert_eq!(classify(b".wh..wh..opq"), Ok(Name::Opaque));
        assert_eq!(classify(b".wh..wh.plnk"), Ok(Name::Metadata));
    }

    #[test]
    fn whiteout_cannot_climb_out_of_its_directory() {
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(classify(name).is_err(), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn nothing_lies_beneath_a_whiteout() {
        assert!(check_parents(b"a/.wh.b/c").is_err());
        assert!(check_parents(b"a/.wh..wh..opq").is_err());
        assert_eq!(check_parents(b"a/.wh..wh.plnk"), Ok(true));
        assert_eq!(check_parents(b"a/b"), Ok(false));
    }
}
