//! The report's shape, and that nothing stays behind.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn every_fact_says_yes_or_why_not_and_nothing_stays_behind() {
    let store = tempfile::tempdir().unwrap();
    let request = Request { store: store.path().to_owned(), ..Request::default() };
    let report = probe(&request).unwrap();
    let facts = report["facts"].as_object().unwrap();
    for name in [
        "userns",
        "mntns",
        "pidns",
        "netns",
        "ipcns",
        "utsns",
        "cgroupns",
        "uid_map",
        "mount",
        "proc",
        "newuidmap",
        "newgidmap",
        "overlay",
        "overlay_lowerdir_add",
        "tun",
        "fuse",
        "ptrace",
        "ptrace_seccomp",
        "seccomp_notify",
        "seccomp_addfd",
        "landlock",
        "cgroup",
        "ping",
        "store_exec",
        "store_xattr",
        "store_hardlink",
        "store_symlink",
        "store_whiteout",
        "store_flock",
        "store_reflink",
        "store_write",
        "not_chroot",
    ] {
        let fact = &facts[name];
        let refused_for_a_reason = !fact["errno"].is_null() || fact["detail"] != "";
        assert!(fact["ok"] == true || refused_for_a_reason, "{name}: {fact}");
        assert_eq!(fact["errno"].is_null(), fact["errno_name"].is_null(), "{name}: {fact}");
    }
    assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
}

#[test]
fn a_store_that_is_not_there_yet_is_probed_from_above() {
    let above = tempfile::tempdir().unwrap();
    let request = Request { store: above.path().join("not/yet"), ..Request::default() };
    assert_eq!(probe(&request).unwrap()["facts"]["store_write"]["ok"], true);
    assert_eq!(std::fs::read_dir(above.path()).unwrap().count(), 0);
}

#[test]
fn an_unwritable_store_is_a_fact_and_not_an_error() {
    let request = Request { store: "/proc".into(), ..Request::default() };
    let report = probe(&request).unwrap();
    assert_eq!(report["facts"]["store_write"]["ok"], false);
    assert_eq!(report["filesystem"], Value::Null);
}

#[test]
fn options_are_read_or_named() {
    let request = Request::parse(&words(&["--store", "/s", "--subuid", "100000:65536"])).unwrap();
    assert_eq!(request.uids, Some(IdRange { start: 100_000, count: 65_536 }));
    assert_eq!(request.gids, None);
    for bad in [&["--store"][..], &[], &["--store", "/s", "--subgid", "x"], &["--what", "1"]] {
        assert!(Request::parse(&words(bad)).is_err(), "{bad:?}");
    }
}
