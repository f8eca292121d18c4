//! Whole stacks of layers copied into one tree.
#![allow(clippy::unwrap_used)]

mod builder;
mod world;

use std::fs;
use std::os::unix::fs::MetadataExt;

use builder::{Header, Tar};
use duckweed_layer::{copy_layers, index::Index, ExtractOptions};
use world::{paths, snapshot, World};

/// Extracts layers, bottom first, and copies the stack.
fn copied(layers: &[Tar]) -> (Vec<World>, World, Index) {
    let mut worlds: Vec<World> = Vec::new();
    for layer in layers {
        let world = World::new();
        let parents = worlds.iter().rev().map(World::fs).collect();
        let options = ExtractOptions { parents, ..ExtractOptions::default() };
        world.extract_with(&layer.clone().end(), &options).unwrap();
        worlds.push(world);
    }
    let target = World::new();
    fs::create_dir(target.dest()).unwrap();
    let lowers: Vec<_> = worlds.iter().rev().map(World::fs).collect();
    let index = copy_layers(&lowers, &target.dest()).unwrap();
    (worlds, target, index)
}

#[test]
fn one_layer_is_copied_as_it_is() {
    let layer = Tar::new()
        .add(Header::new(b"d", b'5', 0).mode(0o1777), b"")
        .file("d/f", b"x")
        .hardlink("h", "d/f")
        .symlink("l", "../outside")
        .fifo("p");
    let layer = layer
        .add(Header::new(b"shadow", b'0', 1).mode(0), b"s")
        .add(Header::new(b"s", b'0', 1).mode(0o4755), b"s");
    let (worlds, target, _) = copied(&[layer]);
    assert_eq!(snapshot(&target.dest()), snapshot(&worlds[0].fs()));
    let time = |world: &std::path::Path| world.join("d").metadata().unwrap().mtime();
    assert_eq!(time(&target.dest()), time(&worlds[0].fs()));
}

#[test]
fn whiteouts_hide_what_is_below_and_only_that() {
    let bottom =
        Tar::new().file("a/x", b"1").file("a/y", b"1").file("b/x", b"1").file("c", b"1").file("d/e/f", b"1");
    let top = Tar::new()
        .file("a/.wh.x", b"")
        .file("b/.wh..wh..opq", b"")
        .file("b/z", b"2")
        .file(".wh.c", b"")
        .file("c", b"2")
        .file(".wh.d", b"")
        .file("d/g", b"2");
    let (_worlds, target, _) = copied(&[bottom, top]);
    assert_eq!(paths(&target.dest()), ["a/", "a/y", "b/", "b/z", "c", "d/", "d/g"]);
    assert_eq!(fs::read(target.dest().join("c")).unwrap(), b"2");
}

#[test]
fn upper_types_replace_lower_ones() {
    let bottom =
        Tar::new().file("a", b"1").dir("b").file("b/x", b"1").symlink("c", "../outside").symlink("e", "b");
    let top =
        Tar::new().dir("a").file("a/x", b"2").file("b", b"2").dir("c").file("c/secret", b"2").file("e", b"2");
    let (_worlds, target, _) = copied(&[bottom, top]);
    assert_eq!(paths(&target.dest()), ["a/", "a/x", "b", "c/", "c/secret", "e"]);
    assert_eq!(fs::read(target.outside().join("secret")).unwrap(), b"do not touch");
}

#[test]
fn merged_index_has_the_facts_of_what_is_visible() {
    let owned =
        |name: &str, uid| Tar::new().add(Header::new(name.as_bytes(), b'0', 0).owner(uid, 0), b"").cut();
    let bottom = Tar([owned("a", 1), owned("b", 1), owned("d/c", 1)].concat());
    let top = Tar([owned("a", 2), Tar::new().file("b", b"").file("d/.wh..wh..opq", b"").cut()].concat());
    let (_worlds, _target, index) = copied(&[bottom, top]);
    assert_eq!(index.entries.len(), 1);
    assert_eq!(index.entries[&b"a"[..]].uid, 2);
}

#[test]
fn whiteouts_of_the_index_are_honoured() {
    let world = World::new();
    world.extract(&Tar::new().file("d/a", b"1").file("d/b", b"1").end()).unwrap();
    let top = World::new();
    top.extract(&Tar::new().file("e", b"2").end()).unwrap();
    let json =
        r#"{"version":1,"entries":{"d/a":{"uid":0,"gid":0,"mode":0,"mtime":[0,0],"type":"whiteout"}}}"#;
    fs::write(top.dest().join("index.json"), json).unwrap();
    let target = World::new();
    fs::create_dir(target.dest()).unwrap();
    copy_layers(&[top.fs(), world.fs()], &target.dest()).unwrap();
    assert_eq!(paths(&target.dest()), ["d/", "d/b", "e"]);
}
