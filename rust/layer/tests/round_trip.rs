//! Any tree, written as a layer and extracted, is the same tree; and written
//! again the same bytes. A seeded generator makes the trees, so a failure names
//! a seed that makes it again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{symlink, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use duckweed_layer::{extract_layer, path::encode, ExtractOptions, NoFacts, Request};
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags, CWD};

/// Numerical Recipes' generator: good enough to shake a tree.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn name(&mut self, number: usize) -> Vec<u8> {
        let start: &[u8] = match self.roll(8) {
            0 => "größe".as_bytes(),
            1 => b"\xff\xfe",
            2 => b"a b\tc",
            3 => b"%41",
            4 => &[b'n'; 120],
            5 => &[b'd'; 240],
            6 => b".hidden",
            _ => b"plain",
        };
        [start, format!("{number}").as_bytes()].concat()
    }
}

/// A random tree below `top`.
fn grow(top: &Path, dice: &mut Dice) {
    let mut directories = vec![top.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for number in 0..10 + dice.roll(40) as usize {
        let parent = directories[dice.roll(directories.len() as u64) as usize].clone();
        let path = parent.join(std::ffi::OsStr::from_bytes(&dice.name(number)));
        if path.as_os_str().len() > 3000 {
            continue;
        }
        match dice.roll(8) {
            0 | 1 => {
                fs::create_dir(&path).unwrap();
                directories.push(path);
                continue;
            }
            2 => symlink(std::ffi::OsStr::from_bytes(&dice.name(number)), &path).unwrap(),
            3 => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap(),
            4 if !files.is_empty() => {
                let first = &files[dice.roll(files.len() as u64) as usize];
                fs::hard_link(first, &path).unwrap();
                continue;
            }
            5 => {
                // Mostly a hole.
                let file = fs::File::create(&path).unwrap();
                rustix::io::pwrite(&file, b"in the middle", 20_000 + dice.roll(9999)).unwrap();
                file.set_len(50_000).unwrap();
                files.push(path.clone());
            }
            _ => {
                let size = [0, 1, 511, 512, 513, 40_000][dice.roll(6) as usize];
                fs::write(&path, vec![dice.roll(256) as u8; size]).unwrap();
                files.push(path.clone());
            }
        }
        dress(&path, dice);
    }
    for directory in directories.iter().skip(1).rev() {
        dress(directory, dice);
    }
}

/// Mode, xattrs and a time.
fn dress(path: &Path, dice: &mut Dice) {
    if !path.is_symlink() {
        let mode = [0o644, 0o755, 0o4755, 0o2750, 0o1777, 0o600][dice.roll(6) as usize];
        // An ordinary user reads a directory of its own only with these bits; containers are read with more power.
        let mode = if path.is_dir() { mode | 0o700 } else { mode };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if path.is_file() || path.is_dir() {
            for name in ["user.comment", "user.größe", "user.a=b"].iter().take(dice.roll(4) as usize) {
                let _ = rustix::fs::setxattr(path, *name, &[dice.roll(256) as u8; 5], XattrFlags::empty());
            }
        }
    }
    let seconds = [0, -1, 1_700_000_000, 1 << 33][dice.roll(4) as usize];
    let time = Timespec { tv_sec: seconds, tv_nsec: [0, 1, 999_999_999, 500][dice.roll(4) as usize] };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// What a tree says of itself: everything but owners and inode numbers.
fn facts(top: &Path) -> BTreeMap<PathBuf, String> {
    fn walk(
        top: &Path,
        at: &Path,
        inodes: &mut BTreeMap<u64, PathBuf>,
        facts: &mut BTreeMap<PathBuf, String>,
    ) {
        let mut entries: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let stat = fs::symlink_metadata(&path).unwrap();
            let relative = path.strip_prefix(top).unwrap().to_owned();
            let body = match path.is_symlink() {
                true => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                false if path.is_file() => fs::read(&path).unwrap(),
                false => Vec::new(),
            };
            let first = inodes.entry(stat.ino()).or_insert_with(|| relative.clone()).clone();
            let mut xattrs = BTreeMap::new();
            let mut names = vec![0; 4096];
            let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap_or(0);
            for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
                let mut value = [0; 64];
                let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
                xattrs.insert(name.to_vec(), value[..length].to_vec());
            }
            let line = format!(
                "{:o} {} {}.{:09} links {} first {first:?} {xattrs:?} {:?}",
                stat.mode(),
                stat.len() * u64::from(!stat.is_dir()),
                stat.mtime(),
                stat.mtime_nsec(),
                stat.nlink() * u64::from(!stat.is_dir()),
                duckweed_layer::Digest::of(&body)
            );
            facts.insert(relative, line);
            if stat.is_dir() {
                walk(top, &path, inodes, facts);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(top, top, &mut BTreeMap::new(), &mut found);
    found
}

fn archive(request: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = Request::parse(request).unwrap().write(&mut bytes, &NoFacts, None).unwrap();
    assert_eq!(written.size, bytes.len() as u64);
    bytes
}

fn text(path: &Path) -> String {
    encode(path.as_os_str().as_bytes())
}

#[test]
fn any_tree_to_a_layer_and_back_is_the_same_tree() {
    for seed in 0..30 {
        let place = tempfile::tempdir().unwrap();
        let (tree, layer) = (place.path().join("tree"), place.path().join("layer"));
        fs::create_dir(&tree).unwrap();
        grow(&tree, &mut Dice(seed));
        let items = r#"[{"from":"","to":"","walk":true,"uid":7,"gid":3000000}]"#;
        let request = format!(r#"{{"kind":"items","tree":"{}","items":{items}}}"#, text(&tree));
        let tar = archive(&request);
        extract_layer(&tar[..], &layer, &ExtractOptions::default()).unwrap();
        let (before, after) = (facts(&tree), facts(&layer.join("fs")));
        for (path, line) in &before {
            assert_eq!(Some(line), after.get(path), "seed {seed}: {path:?}");
        }
        assert_eq!(before.len(), after.len(), "seed {seed}");
        // Owners are in the index now, and come out of it again.
        let again = archive(&format!(r#"{{"kind":"merged","trees":["{}"]}}"#, text(&layer.join("fs"))));
        assert!(tar == again, "seed {seed}: the second archive differs");
    }
}

#[test]
fn changes_of_a_copy_make_the_copy_again() {
    for seed in 100..120 {
        let place = tempfile::tempdir().unwrap();
        let (tree, base) = (place.path().join("tree"), place.path().join("base"));
        let (top, merged) = (place.path().join("top"), place.path().join("merged"));
        fs::create_dir(&tree).unwrap();
        let mut dice = Dice(seed);
        grow(&tree, &mut dice);
        let whole = format!(
            r#"{{"kind":"items","tree":"{}","items":[{{"from":"","to":"","walk":true}}]}}"#,
            text(&tree)
        );
        extract_layer(&archive(&whole)[..], &base, &ExtractOptions::default()).unwrap();
        let lower = base.join("fs");
        fs::create_dir(&merged).unwrap();
        duckweed_layer::copy_layers(std::slice::from_ref(&lower), &merged).unwrap();
        let changes = format!(r#"{{"kind":"copy","tree":"{}","lower":["{}"]}}"#, text(&merged), text(&lower));
        assert_eq!(Request::parse(&changes).unwrap().changes(&NoFacts).unwrap(), [], "seed {seed}");
        shake(&merged, &mut dice);
        let options = ExtractOptions { parents: vec![lower.clone()], ..ExtractOptions::default() };
        extract_layer(&archive(&changes)[..], &top, &options).unwrap();
        let again = place.path().join("again");
        fs::create_dir(&again).unwrap();
        duckweed_layer::copy_layers(&[top.join("fs"), lower], &again).unwrap();
        let strip = |line: &str| line.split(" links ").next().unwrap().to_owned();
        let (before, after) = (facts(&merged), facts(&again));
        for (path, line) in &before {
            assert_eq!(Some(strip(line)), after.get(path).map(|line| strip(line)), "seed {seed}: {path:?}");
        }
        assert_eq!(before.len(), after.len(), "seed {seed}");
    }
}

/// Removes, rewrites and adds.
fn shake(top: &Path, dice: &mut Dice) {
    let paths: Vec<PathBuf> = facts(top).into_keys().collect();
    for path in paths {
        let path = top.join(path);
        match dice.roll(6) {
            _ if path.symlink_metadata().is_err() => {}
            0 if path.is_dir() && !path.is_symlink() => fs::remove_dir_all(&path).unwrap(),
            0 => fs::remove_file(&path).unwrap(),
            1 if path.is_file() => fs::write(&path, b"rewritten").unwrap(),
            2 if path.is_dir() && !path.is_symlink() => fs::write(path.join("added"), b"added").unwrap(),
            3 if path.is_file() => {
                fs::remove_file(&path).unwrap();
                fs::create_dir(&path).unwrap();
            }
            _ => {}
        }
    }
}
