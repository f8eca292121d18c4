//! The supervisor and its clients as they are: the built binary, a busybox in its own namespaces.
#![allow(clippy::unwrap_used)]

mod fixture;

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use duckweed_runtime::message::{Attach, ClientMessage, Exec, Request};
use fixture::{eventually, host_is_fit, lives, pair, reap, run, Container, Said, RUNTIME};
use rustix::process::{kill_process, Signal};
use serde_json::json;

fn attach(stdin: bool) -> ClientMessage<'static> {
    ClientMessage::Request(Request::Attach(Attach { stdin, stdout: true, stderr: true, rows: 0, cols: 0 }))
}

fn exec(script: &str) -> Exec {
    Exec { args: ["sh", "-c", script].map(str::to_owned).to_vec(), ..Exec::default() }
}

fn pipe() -> (std::fs::File, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write)
}

fn text(mut file: std::fs::File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

macro_rules! on_a_fit_host {
    () => {
        if !host_is_fit() {
            return;
        }
    };
}

#[test]
fn a_client_attached_from_the_start_misses_nothing_and_the_log_has_it_too() {
    on_a_fit_host!();
    let container = Container::shell("echo out; echo err >&2; exit 7");
    let running = container.start(&[], &[attach(false)]);
    assert!(running.started() > 0);
    assert_eq!(running.channel.rest(), ("out\n".to_owned(), "err\n".to_owned(), 7));
    let state = running.state();
    assert_eq!((&state["status"], &state["exit_code"]), (&json!("exited"), &json!(7)));
    let mut log = container.log();
    log.sort();
    assert_eq!(log, [("stderr", "err\n"), ("stdout", "out\n")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(reap(running.pid), 7);
}

#[test]
fn a_daemon_is_running_when_it_says_so_and_can_be_found_killed_and_waited_for() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&["--daemonize"], &[]);
    let init = running.started();
    assert_eq!(reap(running.pid), 0);
    let state = running.state();
    assert_eq!((&state["status"], &state["pid"]), (&json!("running"), &json!(init)));
    assert!(lives(state["supervisor_pid"].as_i64().unwrap().try_into().unwrap()));

    let waiter = running.connect();
    waiter.say(&ClientMessage::Request(Request::Wait), &[]);
    let killer = running.connect();
    killer.say(&ClientMessage::Request(Request::Status), &[]);
    assert_eq!(killer.receive().answer().facts["status"], "running");
    killer.say(&ClientMessage::Request(Request::Kill { signal: 9 }), &[]);
    assert!(killer.receive().answer().ok);
    assert_eq!(waiter.receive().exit_code(), 137);
    assert_eq!(running.state()["exit_code"], 137);
    assert!(!std::path::Path::new(state["socket"].as_str().unwrap()).exists());
}

#[test]
fn stdin_once_ends_with_the_first_client_and_open_does_not() {
    on_a_fit_host!();
    let container = Container::new(&["cat"]).unwrap().with("stdin", json!("once"));
    let running = container.start(&[], &[attach(true)]);
    running.started();
    let big = "0123456789".repeat(3000);
    for _ in 0..20 {
        running.channel.say(&ClientMessage::Stdin(big.as_bytes()), &[]);
    }
    running.channel.say(&ClientMessage::StdinEnd, &[]);
    let (out, _, code) = running.channel.rest();
    assert_eq!((out.len(), code), (600_000, 0));
    reap(running.pid);

    let container = Container::shell("read a; echo $a; read b; echo $b").with("stdin", json!("open"));
    let running = container.start(&[], &[]);
    running.started();
    for line in ["one\n", "two\n"] {
        let client = running.connect();
        client.say(&attach(true), &[]);
        client.say(&ClientMessage::Stdin(line.as_bytes()), &[]);
        if line == "one\n" {
            // The second line ends the container, which may be gone before an end of stdin could be said.
            client.say(&ClientMessage::StdinEnd, &[]);
        }
        assert!(client.receive().answer().ok);
        while !matches!(client.receive(), Said::Out(bytes) if bytes == line.as_bytes()) {}
    }
    reap(running.pid);
}

#[test]
fn a_client_that_does_not_read_holds_the_container_up_and_loses_nothing() {
    on_a_fit_host!();
    let container = Container::shell("seq 1 300000; echo done >&2").with("log", json!({"driver": "none"}));
    let running = container.start(&[], &[attach(false)]);
    running.started();
    let witness = running.connect();
    witness.say(&ClientMessage::Request(Request::Status), &[]);
    assert_eq!(witness.receive().answer().facts["status"], "running");
    let (out, err, code) = running.channel.rest();
    let wanted: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert_eq!((out.len(), err.as_str(), code), (wanted.len(), "done\n", 0));
    assert_eq!(out, wanted);
    reap(running.pid);
}

#[test]
fn a_terminal_has_the_clients_size_and_takes_new_ones() {
    on_a_fit_host!();
    let container =
        Container::shell("stty size; read x; stty size; tty").with("stdin", json!("open")).with_terminal();
    let size = Attach { stdin: true, stdout: true, stderr: true, rows: 33, cols: 99 };
    let running = container.start(&[], &[ClientMessage::Request(Request::Attach(size))]);
    running.started();
    let mut seen = String::new();
    while !seen.contains("33 99\r\n") {
        if let Said::Out(bytes) = running.receive() {
            seen.push_str(&String::from_utf8(bytes).unwrap());
        }
    }
    running.channel.say(&ClientMessage::Resize { rows: 12, cols: 34 }, &[]);
    running.channel.say(&ClientMessage::Stdin(b"go\n"), &[]);
    let (out, _, code) = running.channel.rest();
    assert!(out.contains("12 34\r\n") && out.contains("/dev/"), "{out:?}");
    assert_eq!(code, 0);
    reap(running.pid);
}

#[test]
fn kill_dash_nine_of_the_supervisor_takes_init_down() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    let init = running.started();
    kill_process(running.pid, Signal::KILL).unwrap();
    reap(running.pid);
    eventually("init is gone", || !lives(init));
}

#[test]
fn sigterm_to_the_supervisor_ends_and_records_the_container() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    running.started();
    kill_process(running.pid, Signal::HUP).unwrap(); // means nothing
    kill_process(running.pid, Signal::TERM).unwrap();
    assert_eq!(reap(running.pid), 137);
    let state = running.state();
    assert_eq!((&state["status"], &state["exit_code"]), (&json!("exited"), &json!(137)));
}

#[test]
fn an_end_is_recorded_though_a_client_does_not_read_and_sigterm_ends_the_wait_for_it() {
    on_a_fit_host!();
    let container = Container::shell("seq 1 200000 & read x").with("stdin", json!("open"));
    let running = container.start(&[], &[attach(false)]);
    running.started();
    let other = running.connect();
    other.say(&ClientMessage::Request(Request::Wait), &[]);
    kill_process(running.pid, Signal::TERM).unwrap();
    assert_eq!(other.receive().exit_code(), 137);
    assert_eq!(running.state()["status"], "exited");
    kill_process(running.pid, Signal::TERM).unwrap();
    assert_eq!(reap(running.pid), 137);
}

#[test]
fn auto_remove_leaves_nothing() {
    on_a_fit_host!();
    for script in ["exit 3", "/no/such/command"] {
        let container = Container::shell(script);
        let name = container.store.path().join("names/web");
        std::fs::create_dir(name.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("c".repeat(64), &name).unwrap();
        let what = json!({"paths": [&container.dir], "names": [&name]});
        let container = container.with("auto_remove", what);
        let running = container.start(&[], &[attach(false)]);
        running.started();
        assert_ne!(running.channel.rest().2, 0);
        // Whoever hears of the end finds nothing.
        assert!(!container.dir.exists() && name.symlink_metadata().is_err());
        reap(running.pid);
        assert_eq!(std::fs::read_dir(container.store.path().join("tmp")).unwrap().count(), 0);
    }
}

#[test]
fn a_failed_start_is_explained_recorded_and_removed_when_asked() {
    on_a_fit_host!();
    let container = Container::new(&["no-such-command"]).unwrap();
    let running = container.start(&[], &[attach(false)]);
    let error = running.receive().answer().error.unwrap();
    assert_eq!(error.exit_code, 127);
    assert_eq!(reap(running.pid), 127);
    let state = running.state();
    assert_eq!((&state["status"], &state["exit_code"]), (&json!("exited"), &json!(127)));
    assert_eq!(state["error"], error.message);

    let what = json!({"paths": [&container.dir]});
    let container = container.with("auto_remove", what);
    let running = container.start(&[], &[]);
    assert_eq!(running.receive().answer().error.unwrap().exit_code, 127);
    assert_eq!(reap(running.pid), 127);
    assert!(!container.dir.exists());
}

#[test]
fn a_second_supervisor_of_the_same_container_is_refused_and_writes_nothing() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let first = container.start(&[], &[]);
    let init = first.started();
    let second = container.start(&[], &[]);
    assert!(second.receive().answer().error.unwrap().message.contains("running already"));
    reap(second.pid);
    assert_eq!((&first.state()["status"], &first.state()["pid"]), (&json!("running"), &json!(init)));
    kill_process(first.pid, Signal::TERM).unwrap();
    reap(first.pid);
}

#[test]
fn inherit_gives_the_callers_stdio_and_the_exit_code() {
    on_a_fit_host!();
    let container = Container::shell("cat; echo err >&2; exit 5");
    let (input, mut feed) = rustix::pipe::pipe().map(|(r, w)| (r, std::fs::File::from(w))).unwrap();
    feed.write_all(b"given").unwrap();
    drop(feed);
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    let running = container.start_with(&["--inherit"], &[], [input.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    drop((stdout, stderr));
    assert_eq!(running.receive().exit_code(), 5);
    assert_eq!((text(out).as_str(), text(err).as_str()), ("given", "err\n"));
    assert_eq!(reap(running.pid), 5);
    assert_eq!(running.state()["exit_code"], 5);
    assert!(!container.dir.join("container.log").exists());
}

#[test]
fn the_end_of_an_inherit_channel_is_the_end_of_the_container() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&["--inherit"], &[]);
    let mut init = 0;
    eventually("the container runs", || {
        init = std::fs::read(container.dir.join("state.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok()?["pid"].as_i64())
            .unwrap_or(0);
        init > 0
    });
    let fixture::Running { channel, pid, .. } = running;
    drop(channel);
    assert_eq!(reap(pid), 137);
    assert!(!lives(init.try_into().unwrap()));
}

#[test]
fn an_exec_has_the_clients_own_descriptors_and_its_exit_code() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    running.started();
    let client = running.connect();
    let ((out, stdout), (err, stderr)) = (pipe(), pipe());
    let null = std::fs::File::open("/dev/null").unwrap();
    let request = ClientMessage::Request(Request::Exec(exec("echo out; echo err >&2; exit 9")));
    client.say(&request, &[null.as_fd(), stdout.as_fd(), stderr.as_fd()]);
    drop((stdout, stderr));
    assert!(client.receive().answer().ok);
    assert_eq!(client.receive().exit_code(), 9);
    assert_eq!((text(out).as_str(), text(err).as_str()), ("out\n", "err\n"));

    client.say(&ClientMessage::Request(Request::Exec(exec("true"))), &[]);
    assert!(client.receive().answer().error.unwrap().message.contains("0 descriptors came"));
    kill_process(running.pid, Signal::TERM).unwrap();
    reap(running.pid);
}

#[test]
fn an_exec_with_a_terminal_hands_the_master_over_and_hangs_up_with_its_client() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    running.started();
    let client = running.connect();
    let request = Exec { tty: true, rows: 5, cols: 6, ..exec("stty size; sleep 1000") };
    client.say(&ClientMessage::Request(Request::Exec(request)), &[]);
    let Said::Answer(answer, fds) = client.receive() else { panic!("no answer") };
    let command: i32 = answer.facts["pid"].as_i64().unwrap().try_into().unwrap();
    let mut master = std::fs::File::from(fds.into_iter().next().unwrap());
    let mut seen = [0; 64];
    let count = master.read(&mut seen).unwrap();
    assert_eq!(&seen[..count], b"5 6\r\n");
    drop((client, master));
    eventually("the command is gone", || !lives(command));
    kill_process(running.pid, Signal::TERM).unwrap();
    reap(running.pid);
}

#[test]
fn a_detached_exec_outlives_its_client_and_ends_with_the_container() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    running.started();
    let client = running.connect();
    let request = Exec { detach: true, ..exec("sleep 1000") };
    client.say(&ClientMessage::Request(Request::Exec(request)), &[]);
    let command: i32 = client.receive().answer().facts["pid"].as_i64().unwrap().try_into().unwrap();
    drop(client);
    let other = running.connect();
    other.say(&ClientMessage::Request(Request::Status), &[]);
    other.receive();
    assert!(lives(command));
    kill_process(running.pid, Signal::TERM).unwrap();
    assert_eq!(reap(running.pid), 137);
    assert!(!lives(command));
}

#[test]
fn the_attach_client_moves_stdio_passes_signals_on_and_ends_with_the_exit_code() {
    on_a_fit_host!();
    let script = "trap 'echo caught; exit 4' USR1; read line; echo got $line; while :; do sleep 0.01; done";
    let container = Container::shell(script).with("stdin", json!("once"));
    let running = container.start(&[], &[]);
    running.started();
    let socket = running.state()["socket"].as_str().unwrap().to_owned();
    let (input, feed) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let ((mut out, stdout), (_err, stderr)) = (pipe(), pipe());
    let words = [RUNTIME, "attach", "--socket", &socket, "--stdin"];
    let client = run(&words, &[(input.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)]);
    drop((stdout, stderr));
    rustix::io::write(&feed, b"hello\n").unwrap();
    let mut seen = [0; 64];
    let count = out.read(&mut seen).unwrap();
    assert_eq!(&seen[..count], b"got hello\n");
    kill_process(client, Signal::USR1).unwrap();
    assert_eq!(reap(client), 4);
    assert_eq!(text(out), "caught\n");
    reap(running.pid);
}

#[test]
fn the_exec_client_ends_with_the_commands_code_and_explains_a_refusal() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    running.started();
    let socket = running.state()["socket"].as_str().unwrap().to_owned();
    let exec_client = |request: Exec| {
        let request = serde_json::to_string(&request).unwrap();
        let ((out, stdout), (err, stderr)) = (pipe(), pipe());
        let words = [RUNTIME, "exec", "--socket", &socket, "--request", &request];
        let client = run(&words, &[(stdout.as_fd(), 1), (stderr.as_fd(), 2)]);
        drop((stdout, stderr));
        (reap(client), text(out), text(err))
    };
    assert_eq!(exec_client(exec("echo hi; exit 3")), (3, "hi\n".to_owned(), String::new()));
    let missing = Exec { args: vec!["no-such-command".to_owned()], ..Exec::default() };
    let (code, _, err) = exec_client(missing);
    assert_eq!(code, 127);
    assert!(err.starts_with("duckweed: ") && err.lines().count() == 1, "{err:?}");
    kill_process(running.pid, Signal::TERM).unwrap();
    reap(running.pid);
}

#[test]
fn a_client_whose_supervisor_dies_says_so() {
    on_a_fit_host!();
    let container = Container::shell("sleep 1000");
    let running = container.start(&[], &[]);
    running.started();
    let (theirs, ours) = pair();
    let (err, stderr) = pipe();
    let client = run(&[RUNTIME, "attach", "--channel", "3"], &[(theirs.as_fd(), 3), (stderr.as_fd(), 2)]);
    drop((theirs, stderr, ours));
    assert_eq!(reap(client), 125);
    assert!(text(err).starts_with("duckweed: the container's supervisor is gone"));
    kill_process(running.pid, Signal::TERM).unwrap();
    reap(running.pid);
}
