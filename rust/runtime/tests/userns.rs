//! Real bundles under the real runtime, from a root file system that is one static busybox.
//!
//! Skips, and says why, where there is no static busybox or user namespaces are refused.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{json, Value};

/// A bundle in a directory that goes with it.
struct Bundle {
    dir: tempfile::TempDir,
    spec: Value,
}

fn bundle(args: &[&str]) -> Option<Bundle> {
    let busybox = ["/usr/bin/busybox", "/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let Some(busybox) = busybox else {
        println!("skipped: no busybox on this machine");
        return None;
    };
    let allowed =
        Command::new("unshare").args(["-Ur", "true"]).output().is_ok_and(|out| out.status.success());
    if !allowed {
        println!("skipped: user namespaces are refused here");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("rootfs");
    for name in ["bin", "etc", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for name in
        ["sh", "cat", "id", "ls", "touch", "true", "hostname", "grep", "readlink", "kill", "sleep", "pwd"]
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nother:x:5:5::/:/bin/sh\n").unwrap();
    let namespaces: Vec<Value> = ["user", "mount", "pid", "ipc", "uts", "network", "cgroup"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    let capabilities = json!(["CAP_CHOWN", "CAP_KILL"]);
    let spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "args": args, "cwd": "/", "env": ["PATH=/bin"], "noNewPrivileges": true,
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            {"destination": "/proc", "type": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "duckweed-dev"},
        ],
        "linux": {"namespaces": namespaces, "readonlyPaths": ["/proc/sys"], "maskedPaths": ["/proc/keys", "/proc/acpi"]},
    });
    Some(Bundle { dir, spec })
}

impl Bundle {
    fn block(&mut self, block: &Value) {
        self.spec["annotations"] = json!({"io.duckweed.container": block.to_string()});
    }

    fn mount(&mut self, mount: Value) {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
    }

    fn run(&self) -> (i32, String, String) {
        fs::write(self.dir.path().join("config.json"), self.spec.to_string()).unwrap();
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_duckweed-runtime"))
            .args(["run", "--bundle"])
            .args([self.dir.path().as_os_str(), "test".as_ref()])
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
    }
}

#[test]
fn the_command_is_root_with_the_listed_capabilities_and_pid_1() {
    let script = "id -u; hostname; grep CapEff /proc/self/status; echo $$; exit 42";
    let Some(bundle) = bundle(&["sh", "-c", script]) else { return };
    let (code, out, err) = bundle.run();
    assert_eq!(out, "0\nbox\nCapEff:\t0000000000000021\n1\n", "{err}");
    assert_eq!(code, 42);
}

#[test]
fn the_small_dev_is_there_and_protected_paths_are_not_writable() {
    let script =
        "echo x > /dev/null && ls /dev; echo y > /proc/sys/kernel/hostname || echo refused; cat /proc/keys";
    let Some(bundle) = bundle(&["sh", "-c", script]) else { return };
    let (_, out, err) = bundle.run();
    for name in ["fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "urandom", "zero", "refused"]
    {
        assert!(out.lines().any(|line| line == name), "{name} is missing: {out}{err}");
    }
}

#[test]
fn a_missing_command_is_127_and_a_directory_126() {
    for (command, code, words) in [
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("/etc/passwd", 126, "exec: \"/etc/passwd\": permission denied"),
    ] {
        let Some(bundle) = bundle(&[command]) else { return };
        let (got, _, err) = bundle.run();
        assert_eq!(got, code, "{err}");
        assert!(err.contains(words), "{err}");
    }
}

#[test]
fn a_user_without_an_id_is_refused_in_one_line() {
    let Some(mut bundle) = bundle(&["true"]) else { return };
    bundle.block(&json!({"user": "other"}));
    let (code, _, err) = bundle.run();
    assert_eq!(code, 125);
    assert!(err.contains("user `other` (uid 5) has no id here: only one uid is mapped"), "{err}");
}

#[test]
fn hostile_links_at_mount_points_stay_inside() {
    let Some(mut bundle) = bundle(&["cat", "/etc/resolv.conf"]) else { return };
    let outside = tempfile::tempdir().unwrap();
    let root = bundle.dir.path().join("rootfs");
    let target = format!("../../../../../../../..{}/made", outside.path().display());
    std::os::unix::fs::symlink(target, root.join("etc/resolv.conf")).unwrap();
    fs::create_dir(root.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", root.join("proc")).unwrap();
    fs::write(bundle.dir.path().join("resolv"), "nameserver 1.2.3.4\n").unwrap();
    bundle.mount(json!({"destination": "/etc/resolv.conf", "type": "bind", "source": "resolv", "options": ["rbind", "ro"]}));
    let (code, out, err) = bundle.run();
    assert_eq!((code, out.as_str()), (0, "nameserver 1.2.3.4\n"), "{err}");
    assert!(!outside.path().join("made").exists());
    assert!(root.join(outside.path().strip_prefix("/").unwrap()).join("made").exists());
}

#[test]
fn a_mount_point_through_a_magic_link_is_refused() {
    let Some(mut bundle) = bundle(&["true"]) else { return };
    let root = bundle.dir.path().join("rootfs");
    std::os::unix::fs::symlink("/proc/self/root/tmp/x", root.join("etc/hosts")).unwrap();
    fs::write(bundle.dir.path().join("hosts"), "").unwrap();
    bundle
        .mount(json!({"destination": "/etc/hosts", "type": "bind", "source": "hosts", "options": ["rbind"]}));
    let (code, _, err) = bundle.run();
    assert_eq!(code, 125);
    assert!(err.contains("/etc/hosts"), "{err}");
}

#[test]
fn read_only_means_the_bind_and_the_root() {
    let Some(mut bundle) =
        bundle(&["sh", "-c", "touch /x || echo root; touch /data/x || echo data; touch /tmp/x && echo tmp"])
    else {
        return;
    };
    fs::create_dir(bundle.dir.path().join("data")).unwrap();
    bundle.spec["root"]["readonly"] = json!(true);
    fs::create_dir(bundle.dir.path().join("rootfs/data")).unwrap();
    bundle
        .mount(json!({"destination": "/data", "type": "bind", "source": "data", "options": ["rbind", "ro"]}));
    bundle.mount(json!({"destination": "/tmp", "type": "tmpfs", "options": ["mode=1777"]}));
    assert_eq!(bundle.run().1, "root\ndata\ntmp\n");
}

#[test]
fn a_hundred_and_twenty_eight_layers_are_one_root() {
    let Some(mut bundle) = bundle(&["sh", "-c", "ls /etc | grep -c layer; touch /etc/new"]) else { return };
    let dir = bundle.dir.path().to_owned();
    let mut lower: Vec<_> = (0..127).map(|number| dir.join(format!("layers/{number}"))).collect();
    for (number, layer) in lower.iter().enumerate() {
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::write(layer.join(format!("etc/layer{number}")), "").unwrap();
    }
    lower.push(dir.join("rootfs"));
    for name in ["upper", "work"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    bundle.block(&json!({"rootfs": {"kind": "overlay", "lower": lower, "upper": dir.join("upper"), "work": dir.join("work")}}));
    let (code, out, err) = bundle.run();
    if err.contains("mount an overlay") {
        println!("skipped: no overlay for users here: {err}");
        return;
    }
    assert_eq!((code, out.as_str()), (0, "127\n"), "{err}");
    assert!(dir.join("upper/etc/new").exists());
}

#[test]
fn a_copied_root_is_filled_once_and_kept() {
    let Some(mut bundle) = bundle(&["sh", "-c", "ls /mark; touch /mark"]) else { return };
    let dir = bundle.dir.path().to_owned();
    bundle
        .block(&json!({"rootfs": {"kind": "copy", "lower": [dir.join("rootfs")], "path": dir.join("copy")}}));
    let (code, out, err) = bundle.run();
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert_eq!(bundle.run().1, "/mark\n");
    assert!(!dir.join("rootfs/mark").exists());
}

#[test]
fn init_passes_on_the_exit_code_and_the_command_is_not_pid_1() {
    let Some(mut bundle) = bundle(&["sh", "-c", "test $$ != 1 || echo one; kill -9 $$"]) else { return };
    bundle.block(&json!({"init": true}));
    let (code, out, err) = bundle.run();
    assert_eq!((code, out.as_str()), (137, ""), "{err}");
}

fn kinds(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

/// What `crun spec --rootless` writes (1.8), less its command.
fn as_crun_writes_it(bundle: &mut Bundle) {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    bundle.spec["process"]["capabilities"] = json!({
        "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": capabilities,
        "inheritable": [],
    });
    bundle.spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}]);
    bundle.spec["root"]["readonly"] = json!(true);
    bundle.spec["mounts"] = json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
    ]);
    bundle.spec["linux"] = json!({
        "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        "namespaces": kinds(&["pid", "network", "ipc", "uts", "user", "mount"]),
        "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"],
    });
}

/// Where `runc spec --rootless` differs: the host's /sys and network, and the ids in words.
fn as_runc_writes_it(bundle: &mut Bundle, uid: u32, gid: u32) {
    as_crun_writes_it(bundle);
    bundle.spec["mounts"][5] = json!({"destination": "/sys", "type": "none", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
    bundle.spec["linux"]["namespaces"] = kinds(&["pid", "ipc", "uts", "mount", "cgroup", "user"]);
    bundle.spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": uid, "size": 1}]);
    bundle.spec["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": gid, "size": 1}]);
}

fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

#[test]
fn rootless_bundles_of_other_runtimes_run_as_they_are() {
    let script = "id -u; grep -E 'CapPrm|CapAmb' /proc/self/status; ls /sys | grep kernel; ls /dev | grep -E '^(null|mqueue|pts|shm)$'; \
                  touch /x || touch /sys/x || echo read-only";
    for change in [as_crun_writes_it, |bundle: &mut Bundle| {
        let (uid, gid) = own_ids();
        as_runc_writes_it(bundle, uid, gid);
    }] {
        let Some(mut bundle) = bundle(&["sh", "-c", script]) else { return };
        for name in ["proc", "dev", "sys"] {
            fs::create_dir(bundle.dir.path().join("rootfs").join(name)).unwrap();
        }
        change(&mut bundle);
        let (code, out, err) = bundle.run();
        let expected = "0\nCapPrm:\t0000000020000420\nCapAmb:\t0000000000000000\nkernel\nmqueue\nnull\npts\nshm\nread-only\n";
        assert_eq!((code, out.as_str()), (0, expected), "{err}");
    }
}

#[test]
fn a_bundle_made_for_somebody_else_is_refused_with_both_ids() {
    let Some(mut bundle) = bundle(&["true"]) else { return };
    let (uid, gid) = own_ids();
    as_runc_writes_it(&mut bundle, uid + 5, gid);
    let (code, _, err) = bundle.run();
    assert_eq!(code, 125);
    assert!(err.contains(&format!("uid {} of the host, and this process has uid {uid}", uid + 5)), "{err}");
}

#[test]
fn a_bundle_without_a_user_namespace_is_for_root_and_says_so() {
    let Some(mut bundle) = bundle(&["true"]) else { return };
    bundle.spec["linux"]["namespaces"] = kinds(&["mount", "pid"]);
    let (code, _, err) = bundle.run();
    if own_ids().0 == 0 {
        return;
    }
    assert_eq!(code, 125);
    assert!(err.contains("`linux.namespaces` has no user namespace"), "{err}");
}
