//! Random trees through a second tar implementation and back, and random
//! damage, which must never panic, leave the root, or leave anything behind.
#![allow(clippy::unwrap_used)]

mod builder;
mod world;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use builder::{Header, Tar};
use duckweed_layer::tar::{header, pax, sparse, TarReader};
use proptest::prelude::*;
use world::{snapshot, World};

#[derive(Debug, Clone)]
enum Node {
    File { content: Vec<u8>, mode: u32 },
    Dir { mode: u32 },
    Symlink { target: String },
}

/// Names of two letters make collisions, and with them directories with content, likely.
fn trees() -> impl Strategy<Value = BTreeMap<String, Node>> {
    let path = proptest::collection::vec("[a-c]{1,2}|[d-f]{90}|ä", 1..5).prop_map(|parts| parts.join("/"));
    let node = prop_oneof![
        (proptest::collection::vec(any::<u8>(), 0..2000), 0..0o10000u32)
            .prop_map(|(content, mode)| Node::File { content, mode }),
        (0..0o10000u32).prop_map(|mode| Node::Dir { mode }),
        "[a-z]{1,60}(/[a-z]{1,60}){0,2}".prop_map(|target| Node::Symlink { target }),
    ];
    proptest::collection::btree_map(path, node, 0..20).prop_map(consistent)
}

/// Drops what lies beneath something that is no directory.
fn consistent(tree: BTreeMap<String, Node>) -> BTreeMap<String, Node> {
    let is_leaf = |path: &str| !matches!(tree.get(path), None | Some(Node::Dir { .. }));
    let ancestors =
        |path: &str| path.match_indices('/').map(|(place, _)| path[..place].to_owned()).collect::<Vec<_>>();
    let kept = tree.iter().filter(|(path, _)| !ancestors(path).iter().any(|ancestor| is_leaf(ancestor)));
    kept.map(|(path, node)| (path.clone(), node.clone())).collect()
}

fn written(tree: &BTreeMap<String, Node>) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, node) in tree {
        let mut header = tar::Header::new_gnu();
        header.set_mtime(12345);
        match node {
            Node::File { content, mode } => {
                header.set_mode(*mode);
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, &content[..]).unwrap();
            }
            Node::Dir { mode } => {
                header.set_mode(*mode);
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, path, std::io::empty()).unwrap();
            }
            Node::Symlink { target } => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn expected(tree: &BTreeMap<String, Node>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (path, node) in tree {
        for (place, _) in path.match_indices('/') {
            found.entry(path[..place].to_owned()).or_insert("dir 755".to_owned());
        }
        let what = match node {
            Node::File { content, mode } => format!("file {mode:o} x1 {}", String::from_utf8_lossy(content)),
            Node::Dir { mode } => format!("dir {mode:o}"),
            Node::Symlink { target } => format!("symlink {target}"),
        };
        found.insert(path.clone(), what);
    }
    found
}

/// A tar with something of everything, to be damaged.
fn seed() -> Vec<u8> {
    let sparse: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9000")];
    let mut map = b"1\n100\n5\n".to_vec();
    map.resize(512, 0);
    let mut old = Header::new(b"old", b'S', 5);
    old.gnu().octal(386, 12, 0).octal(398, 12, 5).octal(483, 12, 4000);
    Tar::new()
        .dir("d")
        .file("d/f", b"content")
        .symlink("s", "../outside")
        .file("s/secret", b"through")
        .hardlink("h", "d/f")
        .pax(&[("path", b"long/name"), ("mtime", b"5.5"), ("SCHILY.xattr.user.a", b"b")])
        .file("x", &[b'y'; 700])
        .extension(b'L', b"gnu/long/name\0")
        .file("x", b"1")
        .pax(&sparse)
        .file("sparse", &[&map[..], b"hello"].concat())
        .add(&mut old, b"world")
        .device("null", b'3', 1, 3)
        .fifo("p")
        .file("d/.wh.gone", b"")
        .file("d/.wh..wh..opq", b"")
        .end()
}

/// Damages bytes; headers that were hit get a new checksum, so that the damage is seen and not the checksum.
fn damaged(mut bytes: Vec<u8>, hits: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    for &(place, value) in hits {
        let place = place % bytes.len();
        bytes[place] = value;
        let start = place / 512 * 512;
        let mut block = Header(bytes[start..start + 512].try_into().unwrap());
        if block.0[257..262] == *b"ustar" {
            bytes[start..start + 512].copy_from_slice(&block.block());
        }
    }
    if let Some(cut) = cut {
        bytes.truncate(cut % bytes.len());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn trees_come_back_as_they_were(tree in trees()) {
        let world = World::new();
        let report = world.extract(&written(&tree)).unwrap();
        prop_assert_eq!(report.entries, tree.len() as u64);
        // Read as the owner may: the snapshot cannot look into what its mode closes.
        let open: BTreeMap<_, _> = tree.iter().map(|(path, node)| (path.clone(), opened(node))).collect();
        let again = World::new();
        again.extract(&written(&open)).unwrap();
        prop_assert_eq!(snapshot(&again.fs()), expected(&open));
    }

    #[test]
    fn damage_never_panics_or_leaves_the_root(
        hits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
        cut in proptest::option::weighted(0.2, any::<usize>()),
    ) {
        let world = World::new();
        let before = snapshot(&world.outside());
        let result = world.extract(&damaged(seed(), &hits, cut));
        prop_assert_eq!(snapshot(&world.outside()), before);
        if let Err(error) = result {
            prop_assert!(!error.to_string().contains('\n'));
            prop_assert!(!world.dest().exists(), "left after {}", error);
        }
        world.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsers_take_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..1500)) {
        let _ = pax::Extension::parse(&bytes);
        let _ = sparse::parse_list(&bytes);
        let _ = header::number(&bytes);
        if let Some(block) = bytes.first_chunk::<512>() {
            let _ = header::Header::parse(&Header(*block).block());
            let _ = sparse::BodyMap::default().take(block);
        }
    }

    #[test]
    fn reader_takes_any_archive(
        hits in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..20),
        cut in proptest::option::weighted(0.2, any::<usize>()),
    ) {
        let bytes = damaged(seed(), &hits, cut);
        let mut tar = TarReader::new(&bytes[..]);
        let mut body = 0u64;
        while let Ok(Some(member)) = tar.next_member() {
            prop_assert!(member.offset <= bytes.len() as u64);
            while let Ok(part) = tar.body() {
                let length = part.len();
                if length == 0 {
                    break;
                }
                tar.consume(length);
                body += length as u64;
            }
        }
        prop_assert!(body <= bytes.len() as u64);
    }

    #[test]
    fn paths_stay_normal_and_survive_encoding(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), Just(b'%'), any::<u8>()], 0..60)) {
        if let Ok(path) = duckweed_layer::path::normalize(&bytes) {
            let os = std::path::Path::new(std::ffi::OsStr::from_bytes(&path));
            prop_assert!(os.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            prop_assert_eq!(duckweed_layer::path::normalize(&path).unwrap(), path.clone());
            prop_assert_eq!(duckweed_layer::path::decode(&duckweed_layer::path::encode(&path)).unwrap(), path);
        }
    }
}

fn opened(node: &Node) -> Node {
    match node.clone() {
        Node::File { content, mode } => Node::File { content, mode: mode | 0o400 },
        Node::Dir { mode } => Node::Dir { mode: mode | 0o500 },
        link => link,
    }
}
