//! Archives of random members over few names, so that every entry meets others:
//! links where directories were, whiteouts of what comes later, hard links into
//! the layer below. The sequence is the same in every run; `DUCKWEED_FUZZ=N`
//! makes it N archives long, `DUCKWEED_FUZZ_SEED=N` another one.
#![allow(clippy::unwrap_used)]

mod builder;
mod world;

use std::io::Write;

use builder::{Header, Tar};
use duckweed_layer::ExtractOptions;
use world::{snapshot, World};

/// A 64-bit linear congruential generator (Knuth's constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

const NAMES: &[&str] = &[
    ".",
    "./",
    "a",
    "b",
    "s",
    "low",
    "a/b",
    "a/b/c",
    "a/../b",
    "b/s",
    "s/secret",
    "s/deep/x",
    "s/../b",
    "low/f",
    "low/d/g",
    "/a",
    "../a",
    "a//b/.",
    ".wh.a",
    ".wh.low",
    "a/.wh.b",
    "a/.wh..wh..opq",
    "low/.wh..wh..opq",
    "low/.wh.f",
    ".wh..wh.plnk",
    "a/.wh.",
    "s/.wh.secret",
];

const TARGETS: &[&str] = &[
    "a",
    "b",
    "a/b",
    "s",
    "low",
    "low/f",
    "low/d",
    "..",
    "../..",
    "../outside",
    "../../outside/secret",
    "/",
    "/a",
    ".",
    "s/secret",
    "a/../..",
    "OUTSIDE",
    "OUTSIDE/secret",
];

fn archive(dice: &mut Dice, outside: &str) -> Vec<u8> {
    let mut tar = Tar::new();
    for _ in 0..=dice.roll(14) {
        let name = dice.pick(NAMES);
        let target = dice.pick(TARGETS).replace("OUTSIDE", outside);
        tar = match dice.roll(9) {
            0 | 1 => tar.file(name, &b"0123456789"[..dice.roll(11)]),
            2 | 3 => tar.dir(name),
            4 | 5 => tar.pax(&[("linkpath", target.as_bytes())]).symlink(name, ""),
            6 => tar.pax(&[("linkpath", target.as_bytes())]).hardlink(name, ""),
            7 => tar.fifo(name),
            _ => tar.add(
                Header::new(name.as_bytes(), b'0' + dice.roll(8) as u8, 0).mode(dice.roll(0o10000) as u64),
                b"",
            ),
        };
    }
    tar.end()
}

/// Now and then packed, now and then damaged.
fn dressed(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    if dice.roll(4) == 0 {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&bytes).unwrap();
        bytes = encoder.finish().unwrap();
    }
    if dice.roll(5) == 0 {
        let place = dice.roll(bytes.len());
        bytes[place] ^= 1 << dice.roll(8);
    }
    if dice.roll(20) == 0 {
        bytes.truncate(dice.roll(bytes.len()));
    }
    bytes
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn members_in_any_order_stay_inside_and_end_the_same_way_twice() {
    let below = World::new();
    below
        .extract(
            &Tar::new().dir("low").file("low/f", b"low").dir("low/d").symlink("s", "../../outside").end(),
        )
        .unwrap();
    let options = ExtractOptions { parents: vec![below.fs()], ..ExtractOptions::default() };
    let (world, lower) = (World::new(), snapshot(&below.fs()));
    let outside = world.outside();
    let before = snapshot(&outside);
    let mut dice = Dice(number("DUCKWEED_FUZZ_SEED", 7));
    for round in 0..number("DUCKWEED_FUZZ", 120) {
        let bytes = archive(&mut dice, outside.to_str().unwrap());
        let bytes = dressed(&mut dice, bytes);
        let mut results = Vec::new();
        for _ in 0..2 {
            let outcome = world.extract_with(&bytes, &options);
            assert_eq!(snapshot(&outside), before, "round {round}");
            match outcome {
                Ok(report) => {
                    duckweed_layer::index::Index::read(&world.dest()).unwrap();
                    results.push(Ok((report.diff_id, report.skipped)));
                }
                Err(error) => {
                    assert!(!world.dest().exists(), "round {round}: left after {error}");
                    assert!(!error.to_string().contains('\n'), "round {round}");
                    results.push(Err(error.to_string()));
                }
            }
            world.clear();
        }
        assert_eq!(results[0], results[1], "round {round}");
    }
    assert_eq!(snapshot(&below.fs()), lower);
}
