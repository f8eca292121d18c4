//! Archives that attack, or are damaged. Each either fails with one clear line
//! and leaves nothing, or lands harmlessly beneath the layer's root. A hole that
//! is found gets a row here. A row aims at the test's own `outside` and nowhere
//! else, or at a name that nobody has: when the code is broken it will hit it, perhaps as root.
#![allow(clippy::unwrap_used)]

mod builder;
mod world;

use std::io::Write;

use builder::{record, Header, Tar};
use world::{paths, snapshot, World};

/// What must happen.
enum Outcome {
    /// An error whose one line contains this.
    Fails(&'static str),
    /// Success, with exactly these paths beneath `fs/`.
    Lands(&'static [&'static str]),
}

use Outcome::{Fails, Lands};

type Case = (&'static str, Vec<u8>, Outcome);

fn escapes() -> Vec<Case> {
    let climbs = "climbs out";
    vec![
        ("dotdot file", Tar::new().file("../evil", b"x").end(), Fails(climbs)),
        ("dotdot in the middle", Tar::new().file("a/../../evil", b"x").end(), Fails(climbs)),
        ("dotdot that stays inside", Tar::new().file("a/../ok", b"x").end(), Lands(&["ok"])),
        ("absolute dotdot", Tar::new().file("/../evil", b"x").end(), Fails(climbs)),
        ("only dotdot", Tar::new().dir("..").end(), Fails(climbs)),
        ("dotdot directory", Tar::new().dir("../outside").end(), Fails(climbs)),
        ("dotdot symlink", Tar::new().symlink("../evil", "x").end(), Fails(climbs)),
        ("dotdot hard link", Tar::new().file("a", b"x").hardlink("../evil", "a").end(), Fails(climbs)),
        ("dotdot fifo", Tar::new().fifo("../evil").end(), Fails(climbs)),
        ("dotdot device", Tar::new().device("../evil", b'3', 1, 3).end(), Fails(climbs)),
        ("dotdot whiteout", Tar::new().file("../outside/.wh.secret", b"").end(), Fails(climbs)),
        ("dotdot opaque", Tar::new().file("../outside/.wh..wh..opq", b"").end(), Fails(climbs)),
        ("dotdot by prefix", prefixed("..", "evil"), Fails(climbs)),
        ("dotdot by PAX path", Tar::new().pax(&[("path", b"../evil")]).file("ok", b"x").end(), Fails(climbs)),
        (
            "dotdot by GNU long name",
            Tar::new().extension(b'L', b"../evil\0").file("ok", b"x").end(),
            Fails(climbs),
        ),
        ("dotdot by sparse name", sparse_named("../evil"), Fails(climbs)),
        (
            "absolute file",
            Tar::new().file("/dw-test/passwd", b"x").end(),
            Lands(&["dw-test/", "dw-test/passwd"]),
        ),
        (
            "many slashes",
            Tar::new().file("////dw-test//./passwd", b"x").end(),
            Lands(&["dw-test/", "dw-test/passwd"]),
        ),
        ("backslashes are letters", Tar::new().file("..\\evil", b"x").end(), Lands(&["..\\evil"])),
        ("file that is the root", Tar::new().file("./", b"").file(".", b"x").end(), Fails("root")),
        ("symlink that is the root", Tar::new().symlink(".", "/").end(), Fails("root")),
        ("hard link that is the root", Tar::new().hardlink("/", "a").end(), Fails("root")),
        ("fifo that is the root", Tar::new().fifo("a/..").end(), Fails("root")),
        ("name of nothing", Tar::new().file("", b"x").end(), Fails("name")),
    ]
}

/// Links first, then something through them. OUTSIDE is the world's real outside, as an absolute path.
fn through_links(outside: &str) -> Vec<Case> {
    let inside: &'static str = Box::leak(outside.trim_start_matches('/').to_owned().into_boxed_str());
    let mut absolute: Vec<&'static str> = Vec::new();
    for (place, _) in inside.match_indices('/') {
        absolute.push(Box::leak(format!("{}/", &inside[..place]).into_boxed_str()));
    }
    absolute.push(Box::leak(format!("{inside}/").into_boxed_str()));
    let mut with_file = absolute.clone();
    with_file.push(Box::leak(format!("{inside}/secret").into_boxed_str()));
    with_file.push("a");
    with_file.sort_unstable();
    let with_file: &'static [&'static str] = Box::leak(with_file.into_boxed_slice());
    vec![
        (
            "file through an absolute link",
            Tar::new().symlink("a", outside).file("a/secret", b"evil").end(),
            Lands(with_file),
        ),
        (
            "file through a climbing link",
            Tar::new().symlink("a", "../../outside").file("a/secret", b"evil").end(),
            Lands(&["a", "outside/", "outside/secret"]),
        ),
        (
            "directory through a climbing link",
            Tar::new().symlink("a", "../outside").dir("a/deep").end(),
            Lands(&["a", "outside/", "outside/deep/"]),
        ),
        ("mode change through a link", Tar::new().symlink("a", "../outside").dir("a").end(), Lands(&["a/"])),
        (
            "link through a link",
            Tar::new().symlink("a", "..").symlink("a/b", "..").file("a/b/outside/secret", b"evil").end(),
            Lands(&["a", "b", "outside/", "outside/secret"]),
        ),
        (
            "whiteout through a link",
            Tar::new().symlink("a", "../outside").file("a/.wh.secret", b"").end(),
            Lands(&["a", "outside/", "outside/secret"]),
        ),
        (
            "opaque through a link",
            Tar::new().symlink("a", "../outside").file("a/.wh..wh..opq", b"").end(),
            Lands(&["a", "outside/"]),
        ),
        (
            "file over a link does not follow it",
            Tar::new().symlink("a", "../../outside/secret").file("a", b"evil").end(),
            Lands(&["a"]),
        ),
        (
            "device over a link does not follow it",
            Tar::new().symlink("a", "../../outside/secret").device("a", b'4', 8, 0).end(),
            Lands(&["a"]),
        ),
        (
            "fifo over a link does not follow it",
            Tar::new().symlink("a", "../../outside/secret").fifo("a").end(),
            Lands(&["a"]),
        ),
        (
            "hard link to a link does not follow it",
            Tar::new().symlink("a", "../../outside/secret").hardlink("b", "a").file("b", b"evil").end(),
            Lands(&["a", "b"]),
        ),
        (
            "hard link to the outside",
            Tar::new().hardlink("a", "../outside/secret").end(),
            Fails("climbs out"),
        ),
        ("hard link to an absolute path", Tar::new().hardlink("a", outside).end(), Fails("missing")),
        (
            "hard link through a link",
            Tar::new().symlink("d", "../outside").hardlink("a", "d/secret").end(),
            Fails("missing"),
        ),
        (
            "hard link through an absolute link",
            Tar::new().symlink("d", outside).hardlink("a", "d/secret").end(),
            Fails("missing"),
        ),
        (
            "replaced directory is not remembered",
            Tar::new().dir("a").file("a/x", b"1").symlink("a", "../outside").file("a/secret", b"evil").end(),
            Lands(&["a", "outside/", "outside/secret"]),
        ),
        (
            "links in a circle",
            Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").end(),
            Fails("too many symbolic links"),
        ),
        ("link that walks to and fro", to_and_fro(), Fails("too many symbolic links")),
        (
            "link to itself",
            Tar::new().symlink("a", "a").file("a/x", b"").end(),
            Fails("too many symbolic links"),
        ),
        (
            "link to its own child",
            Tar::new().symlink("a", "a/b").file("a/x", b"").end(),
            Fails("too many symbolic links"),
        ),
        ("file as a directory", Tar::new().file("a", b"x").file("a/b", b"y").end(), Fails("not a directory")),
        ("fifo as a directory", Tar::new().fifo("a").file("a/b", b"y").end(), Fails("not a directory")),
        (
            "link to a file as a directory",
            Tar::new().file("f", b"").symlink("a", "f").file("a/b", b"").end(),
            Fails("not a directory"),
        ),
        ("symlink to nothing", Tar::new().symlink("a", "").end(), Fails("nothing")),
        ("dangling links are harmless", Tar::new().symlink("a", "/nowhere").end(), Lands(&["a"])),
        (
            "magic link of /proc is a name",
            Tar::new().symlink("p", &format!("/proc/self/root{outside}")).hardlink("a", "p/secret").end(),
            Fails("missing"),
        ),
    ]
}

fn links_and_names() -> Vec<Case> {
    vec![
        ("hard link to nothing", Tar::new().hardlink("a", "").end(), Fails("not a file")),
        ("hard link to what is missing", Tar::new().hardlink("a", "b").end(), Fails("missing")),
        ("hard link to a directory", Tar::new().dir("d").hardlink("a", "d").end(), Fails("directory")),
        ("hard link to the root", Tar::new().hardlink("a", "/").end(), Fails("not a file")),
        ("hard link to a whiteout", Tar::new().file(".wh.x", b"").hardlink("a", "x").end(), Fails("deleted")),
        (
            "hard link to a whiteout's name",
            Tar::new().file(".wh.x", b"").hardlink("a", ".wh.x").end(),
            Fails("not a file"),
        ),
        ("hard link to itself", Tar::new().file("a", b"x").hardlink("a", "a").end(), Lands(&["a"])),
        (
            "hard link to itself by another spelling",
            Tar::new().file("a", b"x").hardlink("./a", "/x/../a").end(),
            Lands(&["a"]),
        ),
        (
            "hard link to itself through a link",
            Tar::new().symlink("l", ".").file("a", b"x").hardlink("l/a", "a").end(),
            Lands(&["a", "l"]),
        ),
        (
            "hard link that removes its target",
            Tar::new().file("d/f", b"x").hardlink("d", "d/f").end(),
            Fails("missing"),
        ),
        ("file over a directory", Tar::new().file("d/e/f", b"x").file("d", b"y").end(), Lands(&["d"])),
        (
            "directory over a file",
            Tar::new().file("d", b"x").dir("d").file("d/e", b"").end(),
            Lands(&["d/", "d/e"]),
        ),
        ("directory twice", Tar::new().dir("d").file("d/e", b"").dir("d").end(), Lands(&["d/", "d/e"])),
        (
            "unwritable directory",
            Tar::new().add(Header::new(b"d", b'5', 0).mode(0o500), b"").file("d/e", b"").end(),
            Lands(&["d/", "d/e"]),
        ),
        (
            "component of 255 bytes",
            Tar::new().pax(&[("path", &[b'x'; 255])]).file("x", b"").end(),
            Lands(&[LONGEST]),
        ),
        (
            "component of 256 bytes",
            Tar::new().pax(&[("path", &[b'x'; 256])]).file("x", b"").end(),
            Fails("ENAMETOOLONG"),
        ),
        (
            "path of 4200 bytes",
            Tar::new().pax(&[("path", &b"ab/".repeat(1400))]).file("x", b"").end(),
            Fails("too long"),
        ),
        ("path longer by links", long_by_links(), Fails("ENAMETOOLONG")),
        (
            "link target of 4096 bytes",
            Tar::new().pax(&[("linkpath", &[b'x'; 4096])]).symlink("a", "b").end(),
            Fails("ENAMETOOLONG"),
        ),
        ("NUL in a PAX path", Tar::new().pax(&[("path", b"a\0b")]).file("x", b"").end(), Fails("NUL")),
        ("NUL in a PAX link", Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("x", "y").end(), Fails("NUL")),
        ("name of control characters", Tar::new().file("\x1b[2J\n", b"").end(), Lands(&["\x1b[2J\n"])),
        (
            "failing name of control characters",
            Tar::new().file("..\x1b[2J\n/../../x", b"").end(),
            Fails("climbs out"),
        ),
        (
            "socket-like type",
            Tar::new().add(&mut Header::new(b"s", b's', 0), b"").file("ok", b"").end(),
            Lands(&["ok"]),
        ),
        (
            "unknown type with a body",
            Tar::new().add(&mut Header::new(b"s", b'Q', 600), &[b'z'; 600]).file("ok", b"").end(),
            Lands(&["ok"]),
        ),
        (
            "volume label",
            Tar::new().add(&mut Header::new(b"label", b'V', 0), b"").file("ok", b"").end(),
            Lands(&["ok"]),
        ),
        (
            "devices are never made",
            Tar::new().device("sda", b'4', 8, 0).device("null", b'3', 1, 3).end(),
            Lands(&["null", "sda"]),
        ),
        ("device 0:0 is no whiteout", Tar::new().device("w", b'3', 0, 0).end(), Lands(&["w"])),
        ("device number out of range", device_out_of_range(), Fails("device number")),
        ("setuid file", Tar::new().add(Header::new(b"s", b'0', 0).mode(0o6755), b"").end(), Lands(&["s"])),
    ]
}

const LONGEST: &str = concat!(
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
);

fn whiteouts() -> Vec<Case> {
    vec![
        ("whiteout of nothing", Tar::new().file(".wh.", b"").end(), Fails("whiteout")),
        ("whiteout of dot", Tar::new().file(".wh..", b"").end(), Fails("whiteout")),
        ("whiteout of dotdot", Tar::new().file("a/.wh...", b"").end(), Fails("whiteout")),
        ("beneath a whiteout", Tar::new().file(".wh.a/b", b"").end(), Fails("beneath a whiteout")),
        ("beneath an opaque", Tar::new().file("a/.wh..wh..opq/b", b"").end(), Fails("beneath a whiteout")),
        ("directory as a whiteout", Tar::new().dir("a/.wh.b").end(), Lands(&["a/", "a/b"])),
        (
            "whiteout with a body",
            Tar::new().file("a/.wh.b", b"some bytes").file("c", b"").end(),
            Lands(&["a/", "a/b", "c"]),
        ),
        (
            "aufs bookkeeping",
            Tar::new().file(".wh..wh.aufs", b"").file(".wh..wh.plnk/1.2", b"x").file("a", b"").end(),
            Lands(&["a"]),
        ),
        ("file, then its whiteout", Tar::new().file("a", b"kept").file(".wh.a", b"").end(), Lands(&["a"])),
        ("whiteout, then its file", Tar::new().file(".wh.a", b"").file("a", b"kept").end(), Lands(&["a"])),
        ("whiteout twice", Tar::new().file(".wh.a", b"").file(".wh.a", b"").end(), Lands(&["a"])),
        (
            "whiteout, then beneath it",
            Tar::new().file(".wh.a", b"").file("a/b", b"").end(),
            Lands(&["a/", "a/b"]),
        ),
        ("link over a whiteout", Tar::new().file(".wh.a", b"").symlink("a", "/b").end(), Lands(&["a"])),
        (
            "xattrs of overlayfs",
            Tar::new()
                .pax(&[
                    ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
                    ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ])
                .dir("d")
                .end(),
            Lands(&["d/"]),
        ),
    ]
}

fn numbers() -> Vec<Case> {
    let with = |edit: fn(&mut Header) -> &mut Header| {
        let mut header = Header::new(b"a", b'0', 0);
        edit(&mut header);
        Tar::new().add(&mut header, b"").end()
    };
    let pax = |key: &str, value: &[u8]| Tar::new().pax(&[(key, value)]).file("a", b"").end();
    vec![
        ("negative size", with(|h| h.raw(124, &[0xff; 12])), Fails("size")),
        ("size of letters", with(|h| h.raw(124, b"zzzzzzzzzzz\0")), Fails("size")),
        ("size with a sign", with(|h| h.raw(124, b"-0000000001\0")), Fails("size")),
        (
            "size beyond 63 bits",
            with(|h| h.raw(124, b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff")),
            Fails("size"),
        ),
        (
            "size of 63 bits",
            with(|h| h.raw(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            Fails("cut short"),
        ),
        (
            "size of 8 GiB and no body",
            with(|h| h.raw(124, b"\x80\0\0\0\0\0\0\x02\0\0\0\0")),
            Fails("cut short"),
        ),
        ("mode of letters", with(|h| h.raw(100, b"rwxr-xr\0")), Fails("mode")),
        ("uid of letters", with(|h| h.raw(108, b"root\0\0\0\0")), Fails("uid")),
        ("negative uid", with(|h| h.raw(108, &[0xff; 8])), Fails("uid")),
        ("uid that chown takes for none", with(|h| h.raw(108, b"\x80\0\0\0\xff\xff\xff\xff")), Fails("uid")),
        ("gid beyond 32 bits", with(|h| h.raw(116, b"\x80\0\0\x01\0\0\0\0")), Fails("gid")),
        ("largest uid", with(|h| h.raw(108, b"\x80\0\0\0\xff\xff\xff\xfe")), Lands(&["a"])),
        ("mtime of letters", with(|h| h.raw(136, b"yesterday\0\0\0")), Fails("mtime")),
        ("mtime before 1970", with(|h| h.raw(136, &[0xff; 12])), Lands(&["a"])),
        (
            "mtime at the end of time",
            with(|h| h.raw(136, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
            Lands(&["a"]),
        ),
        ("blank fields", with(|h| h.raw(100, &[b' '; 48])), Lands(&["a"])),
        ("checksum of letters", bad_checksum(b"abcdef\0 "), Fails("checksum")),
        ("checksum of zero", bad_checksum(b"000000\0 "), Fails("checksum")),
        ("PAX size of letters", pax("size", b"many"), Fails("PAX")),
        ("PAX size, negative", pax("size", b"-1"), Fails("PAX")),
        ("PAX size beyond 64 bits", pax("size", b"99999999999999999999999"), Fails("PAX")),
        ("PAX size of 63 bits", pax("size", b"9223372036854775807"), Fails("cut short")),
        ("PAX size larger than the archive", pax("size", b"1000000"), Fails("cut short")),
        ("PAX uid beyond 32 bits", pax("uid", b"4294967296"), Fails("uid")),
        ("PAX uid of minus one", pax("uid", b"4294967295"), Fails("uid")),
        ("PAX mtime of letters", pax("mtime", b"1.2.3"), Fails("PAX")),
        ("PAX mtime far away", pax("mtime", b"-9223372036854775807.999"), Lands(&["a"])),
    ]
}

/// Archives that two readers could take apart at different places.
fn desync() -> Vec<Case> {
    let hidden = Tar::new().file("hidden", b"").cut();
    let sized = |flag: u8| Tar::new().add(Header::new(b"l", flag, 512).link(b"t"), b"");
    vec![
        (
            "PAX size hides a member",
            Tar::new().pax(&[("size", b"512")]).file("a", b"").body(&hidden).end(),
            Lands(&["a"]),
        ),
        ("PAX size uncovers a member", uncovering(&hidden), Lands(&["a", "hidden"])),
        ("symlink with a size has no body", Tar(sized(b'2').0).body(&hidden).end(), Lands(&["hidden", "l"])),
        (
            "directory with a size has no body",
            Tar(sized(b'5').0).body(&hidden).end(),
            Lands(&["hidden", "l/"]),
        ),
        ("fifo with a size has no body", Tar(sized(b'6').0).body(&hidden).end(), Lands(&["hidden", "l"])),
        ("hard link with a size has no body", hard_link_with_size(), Lands(&["l", "t"])),
        (
            "long name and PAX path",
            Tar::new().pax(&[("path", b"pax")]).extension(b'L', b"long\0").file("x", b"").end(),
            Lands(&["long"]),
        ),
        (
            "second PAX header replaces the first",
            Tar::new().pax(&[("path", b"one")]).pax(&[("mtime", b"1")]).file("two", b"").end(),
            Lands(&["two"]),
        ),
        (
            "long name ends at its NUL",
            Tar::new().extension(b'L', b"name\0/../../x").file("x", b"").end(),
            Lands(&["name"]),
        ),
        (
            "global header names nothing",
            Tar::new().extension(b'g', &record("path", b"../evil")).file("a", b"").end(),
            Lands(&["a"]),
        ),
        (
            "global header that is malformed",
            Tar::new().extension(b'g', b"rubbish").file("a", b"").end(),
            Fails("PAX"),
        ),
        (
            "one zero block, then a member",
            [Tar::new().file("a", b"").cut(), vec![0; 512], hidden.clone(), vec![0; 1024]].concat(),
            Fails("zero block"),
        ),
        (
            "members after the end are none",
            [Tar::new().file("a", b"").end(), hidden.clone()].concat(),
            Lands(&["a"]),
        ),
        ("rubbish after the end", [Tar::new().file("a", b"").end(), vec![b'r'; 700]].concat(), Lands(&["a"])),
        ("no end blocks", Tar::new().file("a", b"x").cut(), Lands(&["a"])),
        ("one end block", [Tar::new().file("a", b"x").cut(), vec![0; 512]].concat(), Lands(&["a"])),
        ("nothing at all", Vec::new(), Lands(&[])),
        ("only end blocks", Tar::new().end(), Lands(&[])),
    ]
}

fn damaged() -> Vec<Case> {
    let whole = Tar::new().file("a", &[b'x'; 3000]).end();
    let large = vec![b'x'; 2 << 20];
    vec![
        ("cut in a header", whole[..300].to_vec(), Fails("cut short")),
        ("cut in a body", whole[..2000].to_vec(), Fails("cut short")),
        ("cut in the padding", whole[..512 + 3010].to_vec(), Fails("cut short")),
        (
            "cut in an extension",
            Tar::new().extension(b'L', &[b'x'; 600]).cut()[..1000].to_vec(),
            Fails("cut short"),
        ),
        ("not a tar", b"hello, world\n".repeat(100), Fails("checksum")),
        ("one byte", vec![b'x'], Fails("cut short")),
        ("extension of 2 MiB", Tar::new().extension(b'x', &large).file("a", b"").end(), Fails("1 MiB")),
        ("long name of 2 MiB", Tar::new().extension(b'L', &large).file("a", b"").end(), Fails("1 MiB")),
        ("long link of 2 MiB", Tar::new().extension(b'K', &large).symlink("a", "b").end(), Fails("1 MiB")),
        (
            "extension that says 8 EiB",
            Tar::new()
                .add(Header::new(b"x", b'x', 0).raw(124, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"), b"")
                .end(),
            Fails("1 MiB"),
        ),
        ("extension at the end", Tar::new().pax(&[("path", b"a")]).end(), Fails("no member after it")),
        ("long name at the end", Tar::new().extension(b'L', b"a\0").cut(), Fails("no member after it")),
        ("empty long name", Tar::new().extension(b'L', b"\0").file("a", b"").end(), Fails("name")),
        (
            "PAX length too long",
            Tar::new().extension(b'x', b"99 path=a\n").file("a", b"").end(),
            Fails("PAX"),
        ),
        (
            "PAX length too short",
            Tar::new().extension(b'x', b"8 path=abc\n").file("a", b"").end(),
            Fails("PAX"),
        ),
        ("PAX length of zero", Tar::new().extension(b'x', b"0 path=a\n").file("a", b"").end(), Fails("PAX")),
        (
            "PAX length that overflows",
            Tar::new().extension(b'x', b"99999999999999999999 a=b\n").file("a", b"").end(),
            Fails("PAX"),
        ),
        (
            "PAX without an equals sign",
            Tar::new().extension(b'x', b"7 path\n").file("a", b"").end(),
            Fails("PAX"),
        ),
        ("PAX without a newline", Tar::new().extension(b'x', b"8 path=a").file("a", b"").end(), Fails("PAX")),
        (
            "PAX xattr without a name",
            Tar::new().pax(&[("SCHILY.xattr.", b"x")]).file("a", b"").end(),
            Fails("xattr"),
        ),
        (
            "PAX xattr with a long name",
            Tar::new().pax(&[(LONG_XATTR, b"x")]).file("a", b"").end(),
            Fails("xattr"),
        ),
        (
            "PAX xattr that is not base64",
            Tar::new().pax(&[("LIBARCHIVE.xattr.user.a", b"*")]).file("a", b"").end(),
            Fails("base64"),
        ),
        ("five thousand xattrs", many_xattrs(5000), Fails("xattrs")),
        ("multi-volume", Tar::new().add(&mut Header::new(b"a", b'M', 0), b"").end(), Fails("multi-volume")),
        ("damaged gzip", damaged_gzip(), Fails("gzip")),
        ("gzip cut short", gzip(&whole)[..60].to_vec(), Fails("gzip")),
        ("gzip with rubbish after it", [gzip(&whole), b"rubbish".to_vec()].concat(), Fails("gzip")),
        ("gzip with zeros after it", [gzip(&whole), vec![0; 900]].concat(), Lands(&["a"])),
        ("gzip of two members", [gzip(&whole[..700]), gzip(&whole[700..])].concat(), Lands(&["a"])),
        ("gzip magic alone", vec![0x1f, 0x8b], Fails("gzip")),
        ("gzip of nothing", gzip(b""), Lands(&[])),
        ("gzip in gzip", gzip(&gzip(&whole)), Fails("tar")),
        ("zstd cut short", zstd::encode_all(&whole[..], 3).unwrap()[..20].to_vec(), Fails("zstd")),
        (
            "zstd with rubbish after it",
            [zstd::encode_all(&whole[..], 3).unwrap(), b"rubbish".to_vec()].concat(),
            Fails("zstd"),
        ),
        (
            "zstd of two frames",
            [zstd::encode_all(&whole[..700], 3).unwrap(), zstd::encode_all(&whole[700..], 3).unwrap()]
                .concat(),
            Lands(&["a"]),
        ),
        (
            "zstd after a skippable frame",
            [b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec(), zstd::encode_all(&whole[..], 3).unwrap()].concat(),
            Lands(&["a"]),
        ),
        ("zstd magic alone", vec![0x28, 0xb5, 0x2f, 0xfd], Fails("zstd")),
        ("bzip2", b"BZh91AY&SY\x01\x02".to_vec(), Fails("bzip2")),
        ("xz", b"\xfd7zXZ\0\0\0\0\0\0".to_vec(), Fails("xz")),
        ("lz4", b"\x04\x22\x4d\x18aaaaaaaa".to_vec(), Fails("lz4")),
    ]
}

fn sparse() -> Vec<Case> {
    let old = |pairs: &[(u64, u64)], size: u64, body: &[u8]| {
        let mut header = Header::new(b"s", b'S', body.len() as u64);
        header.gnu();
        for (place, (offset, length)) in pairs.iter().enumerate() {
            header.octal(386 + 24 * place, 12, *offset).octal(398 + 24 * place, 12, *length);
        }
        Tar::new().add(header.octal(483, 12, size), body).end()
    };
    let map_01 = |map: &[u8], size: &[u8], body: &[u8]| {
        Tar::new().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", map)]).file("s", body).end()
    };
    let map_10 = |map: &[u8], size: &[u8], body: &[u8]| {
        let version: [(&str, &[u8]); 3] =
            [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", size)];
        let mut map = map.to_vec();
        map.resize(map.len().next_multiple_of(512), 0);
        Tar::new().pax(&version).file("s", &[&map[..], body].concat()).end()
    };
    vec![
        ("old sparse", old(&[(0, 5), (1000, 5)], 2000, b"helloworld"), Lands(&["s"])),
        ("old sparse, overlapping", old(&[(0, 5), (3, 5)], 2000, b"helloworld"), Fails("sparse")),
        ("old sparse, beyond its size", old(&[(0, 5), (1000, 5)], 1004, b"helloworld"), Fails("sparse")),
        ("old sparse, too little data", old(&[(0, 5), (1000, 50)], 2000, b"helloworld"), Fails("sparse")),
        ("old sparse, too much data", old(&[(0, 5)], 2000, b"helloworld"), Fails("sparse")),
        ("old sparse, extended for ever", endless_sparse(), Fails("1 MiB")),
        ("old sparse, extension cut", endless_sparse()[..1024].to_vec(), Fails("cut short")),
        ("sparse 0.1", map_01(b"0,5,1000,5", b"2000", b"helloworld"), Lands(&["s"])),
        ("sparse 0.1, odd map", map_01(b"0,5,1000", b"2000", b"helloworld"), Fails("sparse")),
        ("sparse 0.1, map of letters", map_01(b"0,x", b"2000", b"helloworld"), Fails("sparse")),
        (
            "sparse 0.1, offset that overflows",
            map_01(b"9223372036854775807,9223372036854775807", b"9223372036854775807", b""),
            Fails("sparse"),
        ),
        ("sparse 0.1, file of 8 EiB", map_01(b"", b"9223372036854775807", b""), Fails("EFBIG|EINVAL")),
        (
            "sparse 0.1 without a size",
            Tar::new().pax(&[("GNU.sparse.map", b"0,1")]).file("s", b"x").end(),
            Fails("sparse"),
        ),
        ("sparse 1.0", map_10(b"2\n0\n5\n1000\n5\n", b"2000", b"helloworld"), Lands(&["s"])),
        (
            "sparse 1.0, count too large",
            map_10(b"9223372036854775807\n0\n", b"2000", b"helloworld"),
            Fails("sparse"),
        ),
        ("sparse 1.0, map longer than the body", map_10(b"50\n0\n5\n", b"2000", b""), Fails("sparse")),
        ("sparse 1.0, count of letters", map_10(b"two\n", b"2000", b"helloworld"), Fails("sparse")),
        ("sparse 1.0, no body", map_10(b"", b"2000", b""), Fails("sparse")),
        (
            "sparse 2.0",
            Tar::new().pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.realsize", b"1")]).file("s", b"").end(),
            Fails("sparse"),
        ),
    ]
}

fn prefixed(prefix: &str, name: &str) -> Vec<u8> {
    Tar::new().add(Header::new(name.as_bytes(), b'0', 1).raw(345, prefix.as_bytes()), b"x").end()
}

fn sparse_named(name: &str) -> Vec<u8> {
    let records: [(&str, &[u8]); 3] =
        [("GNU.sparse.name", name.as_bytes()), ("GNU.sparse.size", b"1"), ("GNU.sparse.map", b"0,1")];
    Tar::new().pax(&records).file("ok", b"x").end()
}

/// Each `l` leads to a directory that is deeper, until no path can name what is there.
fn long_by_links() -> Vec<u8> {
    let deep = "0123456789/".repeat(150);
    let mut tar = Tar::new();
    for level in 0..4 {
        let links: String = (0..level).map(|n| format!("l{n}/")).collect();
        tar = tar.pax(&[("path", format!("{links}{deep}").as_bytes())]).dir("x");
        tar = tar
            .pax(&[("path", format!("{links}l{level}").as_bytes()), ("linkpath", deep.as_bytes())])
            .symlink("x", "y");
    }
    tar.end()
}

/// A link of five hundred `x/..`, in a directory five hundred deep.
fn to_and_fro() -> Vec<u8> {
    let deep = "d/".repeat(500);
    let target = "x/../".repeat(500);
    let tar = Tar::new().pax(&[("path", format!("{deep}x").as_bytes())]).dir("x");
    let tar = tar
        .pax(&[("path", format!("{deep}l").as_bytes()), ("linkpath", target.as_bytes())])
        .symlink("x", "y");
    tar.pax(&[("path", format!("{deep}l/evil").as_bytes())]).file("x", b"").end()
}

fn device_out_of_range() -> Vec<u8> {
    Tar::new().add(Header::new(b"d", b'3', 0).raw(329, b"\x80\0\0\x01\0\0\0\0"), b"").end()
}

fn bad_checksum(field: &[u8]) -> Vec<u8> {
    let mut bytes = Tar::new().file("a", b"").end();
    bytes[148..156].copy_from_slice(field);
    bytes
}

/// The header claims a body that the PAX size takes back.
fn uncovering(hidden: &[u8]) -> Vec<u8> {
    Tar::new().pax(&[("size", b"0")]).add(&mut Header::new(b"a", b'0', 512), b"").body(hidden).end()
}

fn hard_link_with_size() -> Vec<u8> {
    Tar::new().file("t", b"x").add(Header::new(b"l", b'1', 4096).link(b"t"), b"").end()
}

fn endless_sparse() -> Vec<u8> {
    let mut header = Header::new(b"s", b'S', 0);
    header.gnu().raw(482, &[1]).octal(483, 12, 10);
    let mut more = [0; 512];
    more[504] = 1;
    Tar::new().add(&mut header, b"").body(&more.repeat(2100)).end()
}

const LONG_XATTR: &str = concat!(
    "SCHILY.xattr.user.",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
);

fn many_xattrs(count: usize) -> Vec<u8> {
    let records: Vec<u8> = (0..count).flat_map(|n| record(&format!("SCHILY.xattr.user.{n}"), b"x")).collect();
    Tar::new().extension(b'x', &records).file("a", b"").end()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn damaged_gzip() -> Vec<u8> {
    let mut bytes = gzip(&Tar::new().file("a", &[b'x'; 3000]).end());
    // The CRC at the end.
    let place = bytes.len() - 6;
    bytes[place] ^= 1;
    bytes
}

fn cases(world: &World) -> Vec<Case> {
    let outside = world.outside().canonicalize().unwrap();
    let outside = outside.to_str().unwrap();
    [
        escapes(),
        through_links(outside),
        links_and_names(),
        whiteouts(),
        numbers(),
        desync(),
        damaged(),
        sparse(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What went against the rules, if anything did.
fn verdict(world: &World, bytes: &[u8], outcome: &Outcome) -> Result<(), String> {
    let before = snapshot(&world.outside());
    let result = world.extract(bytes);
    if snapshot(&world.outside()) != before {
        return Err("the outside was touched".into());
    }
    let around: Vec<_> =
        std::fs::read_dir(world.directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    match (result, outcome) {
        (Err(error), Fails(words)) => {
            let line = error.to_string();
            if around.len() != 1 {
                return Err(format!("something was left: {around:?}"));
            }
            if line.contains('\n')
                || line.contains('\x1b')
                || !words.split('|').any(|word| line.contains(word))
            {
                return Err(format!("its message is {line:?}"));
            }
            Ok(())
        }
        (Ok(_), Lands(expected)) => {
            let found = paths(&world.fs());
            if found == *expected {
                Ok(())
            } else {
                Err(format!("it made {found:?}"))
            }
        }
        (Ok(_), Fails(_)) => Err(format!("it was accepted and made {:?}", paths(&world.fs()))),
        (Err(error), Lands(_)) => Err(format!("it was refused: {error}")),
    }
}

#[test]
fn hostile_archives_fail_clearly_or_land_inside() {
    let mut broken = Vec::new();
    let world = World::new();
    let cases = cases(&world);
    let count = cases.len();
    for (name, bytes, outcome) in cases {
        world.clear();
        if let Err(complaint) = verdict(&world, &bytes, &outcome) {
            broken.push(format!("{name}: {complaint}"));
        }
    }
    assert!(broken.is_empty(), "{} of {count}:\n{}", broken.len(), broken.join("\n"));
    assert!(count >= 180, "rows went missing: {count}");
}
