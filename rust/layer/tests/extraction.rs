//! What an extraction makes of each kind of member.
#![allow(clippy::unwrap_used)]

mod builder;
mod world;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use builder::{Header, Tar};
use duckweed_layer::index::{Index, Type};
use duckweed_layer::{digest_file, extract_layer, tree, Digest, ExtractError, ExtractOptions, Gate, Limits};
use world::{paths, World};

fn index(world: &World) -> Index {
    Index::read(&world.dest()).unwrap()
}

/// A lower layer and an extraction on top of it.
fn on_top_of(lower: &[u8], upper: &[u8]) -> (World, World) {
    let (below, above) = (World::new(), World::new());
    below.extract(lower).unwrap();
    let options = ExtractOptions { parents: vec![below.fs()], ..ExtractOptions::default() };
    above.extract_with(upper, &options).unwrap();
    (below, above)
}

#[test]
fn modes_are_exact_whatever_the_umask() {
    for mode in [0o0, 0o1, 0o400, 0o644, 0o666, 0o777, 0o4755, 0o2711, 0o7777] {
        let world = World::new();
        let file = Tar::new().add(Header::new(b"f", b'0', 0).mode(mode), b"");
        let both = file
            .add(Header::new(b"d", b'5', 0).mode(mode), b"")
            .add(Header::new(b"p", b'6', 0).mode(mode), b"");
        world.extract(&both.end()).unwrap();
        for name in ["f", "d", "p"] {
            let found = world.fs().join(name).symlink_metadata().unwrap().mode() & 0o7777;
            assert_eq!(found, mode as u32, "{name} {mode:o}");
        }
    }
}

#[test]
fn times_are_kept_to_the_nanosecond_on_everything() {
    let world = World::new();
    let tar = Tar::new().pax(&[("mtime", b"1234567890.123456789")]).dir("d");
    let tar = tar.pax(&[("mtime", b"-5.25")]).file("d/f", b"x");
    let tar = tar.pax(&[("mtime", b"77.000000001")]).symlink("d/l", "nowhere");
    world.extract(&tar.pax(&[("mtime", b"78")]).fifo("d/p").end()).unwrap();
    for (name, seconds, nanoseconds) in
        [("d", 1234567890, 123456789), ("d/f", -6, 750_000_000), ("d/l", 77, 1), ("d/p", 78, 0)]
    {
        let meta = world.fs().join(name).symlink_metadata().unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, nanoseconds), "{name}");
    }
}

#[test]
fn owners_go_to_the_index_and_nothing_is_chowned() {
    let world = World::new();
    let tar = Tar::new().add(Header::new(b"d", b'5', 0).owner(0, 5).mode(0o2775), b"");
    let tar = tar.add(Header::new(b"d/f", b'0', 1).owner(1000, 1000).mode(0o4711), b"x");
    let tar = tar
        .add(Header::new(b"d/l", b'2', 0).owner(7, 0).link(b"f"), b"")
        .hardlink("d/h", "d/f")
        .file("root", b"");
    world.extract(&tar.end()).unwrap();
    let index = index(&world);
    let keys: Vec<_> = index.entries.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
    assert_eq!(keys, ["d", "d/f", "d/h", "d/l"]);
    let facts = |key: &[u8]| {
        (index.entries[key].uid, index.entries[key].gid, index.entries[key].mode, index.entries[key].kind)
    };
    assert_eq!(facts(b"d"), (0, 5, 0o2775, Type::Dir));
    assert_eq!(facts(b"d/f"), (1000, 1000, 0o4711, Type::File));
    assert_eq!(facts(b"d/h"), facts(b"d/f"));
    assert_eq!(facts(b"d/l"), (7, 0, 0o777, Type::Symlink));
    let me = fs::metadata(world.directory.path()).unwrap().uid();
    assert_eq!(world.fs().join("d/f").metadata().unwrap().uid(), me);
}

#[test]
fn devices_are_placeholders_with_a_record() {
    let world = World::new();
    world.extract(&Tar::new().device("null", b'3', 1, 3).device("sda", b'4', 8, 16).end()).unwrap();
    let index = index(&world);
    assert_eq!(
        (index.entries[&b"null"[..]].kind, index.entries[&b"null"[..]].dev),
        (Type::Char, Some((1, 3)))
    );
    assert_eq!(
        (index.entries[&b"sda"[..]].kind, index.entries[&b"sda"[..]].dev),
        (Type::Block, Some((8, 16)))
    );
    assert!(world.fs().join("null").metadata().unwrap().is_file());
}

#[test]
fn whiteouts_are_what_overlayfs_reads() {
    let world = World::new();
    let tar = Tar::new().file("a/.wh.gone", b"").file("b/.wh..wh..opq", b"").file("b/new", b"");
    world.extract(&tar.end()).unwrap();
    let gone = world.fs().join("a/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(tree::is_opaque(fs::File::open(world.fs().join("b")).unwrap()));
    assert!(!tree::is_opaque(fs::File::open(world.fs().join("a")).unwrap()));
}

#[test]
fn directory_of_the_same_layer_as_its_whiteout_is_opaque() {
    let orders = [
        Tar::new().file(".wh.d", b"").dir("d").file("d/f", b""),
        Tar::new().dir("d").file("d/f", b"").file(".wh.d", b""),
        Tar::new().file(".wh.d", b"").file("d/f", b""),
    ];
    for tar in orders {
        let world = World::new();
        world.extract(&tar.end()).unwrap();
        assert_eq!(paths(&world.fs()), ["d/", "d/f"]);
        assert!(tree::is_opaque(fs::File::open(world.fs().join("d")).unwrap()));
    }
}

#[test]
fn last_entry_of_a_name_wins() {
    let world = World::new();
    let tar = Tar::new()
        .add(Header::new(b"a", b'0', 5).owner(5, 5), b"first")
        .file("a", b"second")
        .symlink("b", "a");
    world.extract(&tar.file("b", b"file").end()).unwrap();
    assert_eq!(fs::read(world.fs().join("a")).unwrap(), b"second");
    assert_eq!(fs::read(world.fs().join("b")).unwrap(), b"file");
    assert!(world.fs().join("b").symlink_metadata().unwrap().is_file());
    assert!(index(&world).entries.is_empty());
}

#[test]
fn hard_links_share_an_inode() {
    let world = World::new();
    world.extract(&Tar::new().file("a", b"x").hardlink("d/b", "./a").hardlink("c", "/d/b").end()).unwrap();
    let inode = |name: &str| world.fs().join(name).metadata().unwrap().ino();
    assert_eq!((inode("a"), inode("a")), (inode("d/b"), inode("c")));
    assert_eq!(world.fs().join("a").metadata().unwrap().nlink(), 3);
}

#[test]
fn hard_link_into_a_lower_layer_copies_its_target_up() {
    let lower = Tar::new()
        .add(Header::new(b"usr/bin/x", b'0', 4).owner(3, 4).mode(0o755), b"tool")
        .symlink("bin", "usr/bin");
    let (below, above) = on_top_of(&lower.end(), &Tar::new().hardlink("y", "bin/x").end());
    let copy = above.fs().join("y").metadata().unwrap();
    assert_eq!(fs::read(above.fs().join("y")).unwrap(), b"tool");
    assert_eq!((copy.mode() & 0o7777, copy.nlink(), copy.mtime()), (0o755, 2, 1_000_000_000));
    assert_eq!(index(&above).entries[&b"y"[..]].uid, 3);
    assert_eq!(below.fs().join("usr/bin/x").metadata().unwrap().nlink(), 1);
}

#[test]
fn hard_link_to_what_a_middle_layer_deleted_fails() {
    let (bottom, middle, top) = (World::new(), World::new(), World::new());
    bottom.extract(&Tar::new().file("d/a", b"x").file("e/b", b"x").end()).unwrap();
    middle.extract(&Tar::new().file("d/.wh.a", b"").file("e/.wh..wh..opq", b"").end()).unwrap();
    let options = ExtractOptions { parents: vec![middle.fs(), bottom.fs()], ..ExtractOptions::default() };
    for target in ["d/a", "e/b"] {
        let error = top.extract_with(&Tar::new().hardlink("l", target).end(), &options).unwrap_err();
        assert!(error.to_string().contains("missing"), "{target}: {error}");
    }
}

#[test]
fn implied_directory_looks_as_it_does_below() {
    let lower = Tar::new()
        .add(Header::new(b"tmp", b'5', 0).mode(0o1777).owner(0, 9), b"")
        .add(Header::new(b".", b'5', 0).mode(0o711), b"");
    let (_below, above) = on_top_of(&lower.end(), &Tar::new().file("tmp/f", b"").file("new/f", b"").end());
    let mode = |name: &str| above.fs().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("tmp"), mode("new"), mode(".")), (0o1777, 0o755, 0o711));
    assert_eq!(above.fs().join("tmp").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(index(&above).entries[&b"tmp"[..]].gid, 9);
}

#[test]
fn xattrs_go_where_they_can() {
    let world = World::new();
    let xattrs: [(&str, &[u8]); 5] = [
        ("SCHILY.xattr.user.note", b"hello\n"),
        ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
        ("SCHILY.xattr.security.selinux", b"label"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.trusted.thing", b""),
    ];
    let tar = Tar::new().pax(&xattrs).add(Header::new(b"f", b'0', 0).mode(0o400), b"").pax(&xattrs).dir("d");
    let report = world.extract(&tar.pax(&xattrs[..1]).symlink("l", "f").end()).unwrap();
    assert_eq!(report.skipped.len(), 2, "{:?}", report.skipped);
    assert!(!tree::is_opaque(fs::File::open(world.fs().join("d")).unwrap()));
    for name in ["f", "d"] {
        let mut value = [0; 16];
        let length = rustix::fs::lgetxattr(world.fs().join(name), "user.note", &mut value).unwrap();
        assert_eq!(&value[..length], b"hello\n");
        let left: Vec<_> = index(&world).entries[name.as_bytes()].xattrs.keys().cloned().collect();
        assert_eq!(left, [b"security.capability".to_vec(), b"trusted.thing".to_vec()]);
    }
    assert!(index(&world).entries[&b"l"[..]].xattrs.contains_key(&b"user.note"[..]));
}

#[test]
fn sparse_files_have_their_holes_and_their_bytes() {
    let world = World::new();
    let map: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"10000000"), ("GNU.sparse.map", b"0,5,9000000,5")];
    world.extract(&Tar::new().pax(&map).file("s", b"helloworld").end()).unwrap();
    let bytes = fs::read(world.fs().join("s")).unwrap();
    assert_eq!(
        (bytes.len(), &bytes[..5], &bytes[9_000_000..9_000_005]),
        (10_000_000, &b"hello"[..], &b"world"[..])
    );
    assert!(bytes[5..9_000_000].iter().all(|&byte| byte == 0));
    assert!(world.fs().join("s").metadata().unwrap().blocks() < 100);
}

#[test]
fn digests_are_of_all_bytes_also_after_the_end() {
    let bytes = [Tar::new().file("a", b"x").end(), b"trailing".to_vec()].concat();
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    let (plain, zstd) = (World::new(), World::new());
    let (one, two) = (plain.extract(&bytes).unwrap(), zstd.extract(&packed).unwrap());
    assert_eq!((one.diff_id, two.diff_id), (Digest::of(&bytes), Digest::of(&bytes)));
    assert_eq!((one.blob_digest, two.blob_digest), (Digest::of(&bytes), Digest::of(&packed)));
    assert_eq!((one.size, two.blob_size), (bytes.len() as u64, packed.len() as u64));
}

#[test]
fn blob_is_kept_as_it_came_or_packed() {
    let bytes = Tar::new().file("a", &[7; 100_000]).end();
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    for (input, is_packed) in [(&bytes, false), (&packed, true)] {
        let world = World::new();
        let blob_out = world.directory.path().join("blob");
        let options = ExtractOptions { blob_out: Some(blob_out.clone()), ..ExtractOptions::default() };
        let report = world.extract_with(input, &options).unwrap();
        let kept = digest_file(fs::File::open(&blob_out).unwrap()).unwrap();
        assert_eq!(kept, (report.blob_digest, report.blob_size));
        assert_eq!(report.blob_media_type, "application/vnd.oci.image.layer.v1.tar+zstd");
        assert_eq!(zstd::decode_all(fs::File::open(&blob_out).unwrap()).unwrap(), bytes);
        assert_eq!(fs::read(&blob_out).unwrap() == *input, is_packed);
    }
}

#[test]
fn wrong_digests_leave_nothing() {
    let bytes = Tar::new().file("a", b"x").end();
    let wrong = Some(Digest::of(b"something else"));
    let both = [
        ExtractOptions { expected_diff_id: wrong, ..ExtractOptions::default() },
        ExtractOptions { expected_blob: wrong, ..ExtractOptions::default() },
    ];
    for mut options in both {
        let world = World::new();
        options.blob_out = Some(world.directory.path().join("blob"));
        let error = world.extract_with(&bytes, &options).unwrap_err();
        assert!(matches!(error, ExtractError::Mismatch { .. }), "{error}");
        assert_eq!(fs::read_dir(world.directory.path()).unwrap().count(), 1);
    }
}

#[test]
fn right_digests_are_accepted() {
    let bytes = Tar::new().file("a", b"x").end();
    let packed = zstd::encode_all(&bytes[..], 1).unwrap();
    let options = ExtractOptions {
        expected_diff_id: Some(Digest::of(&bytes)),
        expected_blob: Some(Digest::of(&packed)),
        ..ExtractOptions::default()
    };
    World::new().extract_with(&packed, &options).unwrap();
}

#[test]
fn raised_flag_ends_an_extraction() {
    let world = World::new();
    let options =
        ExtractOptions { cancel: Some(Arc::new(AtomicBool::new(true))), ..ExtractOptions::default() };
    let error = world.extract_with(&Tar::new().file("a", b"x").end(), &options).unwrap_err();
    assert!(matches!(error, ExtractError::Cancelled), "{error}");
    assert!(!world.dest().exists());
}

#[test]
fn limits_hold() {
    let bytes = Tar::new().file("a", b"x").file("b", &[0; 4000]).end();
    for limits in [Limits { entries: 1, ..Limits::default() }, Limits { bytes: 3000, ..Limits::default() }] {
        let error = World::new()
            .extract_with(&bytes, &ExtractOptions { limits, ..ExtractOptions::default() })
            .unwrap_err();
        assert!(matches!(error, ExtractError::Limit { .. }), "{error}");
    }
}

#[test]
fn unreadable_source_is_told_from_a_damaged_one() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::from_raw_os_error(5))
        }
    }
    let start = zstd::encode_all(&Tar::new().file("a", &[1; 5000]).end()[..], 1).unwrap();
    for first in [&start[..0], &start[..start.len() / 2]] {
        let world = World::new();
        let source = std::io::Read::chain(first, Broken);
        let error = extract_layer(source, &world.dest(), &ExtractOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the layer: input/output error (EIO)");
    }
}

#[test]
fn destination_that_is_in_use_is_left_alone() {
    let world = World::new();
    let bytes = Tar::new().file("a", b"x").end();
    world.extract(&bytes).unwrap();
    assert!(matches!(world.extract(&bytes).unwrap_err(), ExtractError::Destination { .. }));
    assert_eq!(paths(&world.fs()), ["a"]);
}

#[test]
fn long_names_of_every_dialect_are_whole() {
    let long = "directory/".repeat(30) + "file";
    let world = World::new();
    let tar = Tar::new()
        .extension(b'L', format!("{long}\0").as_bytes())
        .add(Header::new(b"cut", b'0', 1).gnu(), b"1");
    let tar = tar
        .extension(b'K', format!("{long}\0").as_bytes())
        .add(Header::new(b"l1", b'2', 0).gnu().link(b"cut"), b"");
    let tar = tar.pax(&[("linkpath", long.as_bytes())]).symlink("l2", "cut");
    let tar = tar.add(Header::new(b"name", b'0', 1).raw(345, b"some/prefix"), b"2");
    world.extract(&tar.add(Header::new(b"old/", b'0', 0).v7(), b"").end()).unwrap();
    assert_eq!(fs::read(world.fs().join(&long)).unwrap(), b"1");
    assert_eq!(fs::read_link(world.fs().join("l1")).unwrap().to_str(), Some(&*long));
    assert_eq!(fs::read_link(world.fs().join("l2")).unwrap().to_str(), Some(&*long));
    assert_eq!(fs::read(world.fs().join("some/prefix/name")).unwrap(), b"2");
    assert!(world.fs().join("old").is_dir());
}

#[test]
fn layer_waits_for_the_ones_below_only_where_it_leans_on_them() {
    let (below, above) = (World::new(), World::new());
    let gate = Arc::new(Gate::default());
    let options = ExtractOptions {
        parents: vec![below.fs()],
        parents_ready: Some(Arc::clone(&gate)),
        ..ExtractOptions::default()
    };
    // Nothing of it leans on the layer below, so a closed gate holds nothing up.
    World::new().extract_with(&Tar::new().dir(".").dir("d").file("d/f", b"x").end(), &options).unwrap();
    let upper = Tar::new().dir(".").file("own", b"").hardlink("linked", "lower").end();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| above.extract_with(&upper, &options));
        below.extract(&Tar::new().file("lower", b"from below").end()).unwrap();
        gate.open();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(fs::read(above.fs().join("linked")).unwrap(), b"from below");
}

#[test]
fn wait_for_the_layers_below_ends_when_the_flag_is_raised() {
    let world = World::new();
    let flag = Arc::new(AtomicBool::new(false));
    let options = ExtractOptions {
        parents: vec![world.fs()],
        parents_ready: Some(Arc::default()),
        cancel: Some(Arc::clone(&flag)),
        ..ExtractOptions::default()
    };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.extract_with(&Tar::new().file("a/b", b"").end(), &options));
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(waiting.join().unwrap(), Err(ExtractError::Cancelled)));
    });
    assert!(!world.dest().exists());
}
