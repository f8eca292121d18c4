//! Downloads and requests against a server that misbehaves on demand.

#![allow(clippy::unwrap_used)]

mod server;

use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use duckweed_transfer::{Body, Client, Download, Options, Part, Patience, Request, TransferError};
use server::{Answer, Server};
use sha2::{Digest, Sha256};

fn client(server: &Server) -> Client {
    let mut options = Options::new(&server.authority, "test");
    options.allow_plain_http = true;
    options.patience = Patience { attempts: 3, pause: Duration::from_millis(1) };
    Client::new(options)
}

fn blob(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn part(directory: &Path, bytes: &[u8]) -> Part {
    Part::open(&directory.join("part"), &digest(bytes), bytes.len() as u64).unwrap()
}

fn download(client: &Client, server: &Server, part: &Part) -> Result<(), TransferError> {
    let headers = [("Authorization".to_owned(), "Bearer secret".to_owned())];
    Download { url: &server.url("/blob"), headers: &headers }.run(client, part)
}

fn get<'a>(url: &'a str, headers: &'a [(String, String)]) -> Request<'a> {
    Request { method: "GET", url, headers, body: Body::Empty, follow: true }
}

#[test]
fn connection_that_breaks_again_and_again_is_taken_up_where_it_broke() {
    let bytes = blob(1_000_000);
    let sent = bytes.clone();
    let server = Server::start(move |seen, number| {
        let answer = Answer::range(seen, &sent);
        if number < 9 {
            answer.cut(number * 7_919)
        } else {
            answer
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let part = part(directory.path(), &bytes);
    download(&client(&server), &server, &part).unwrap();
    assert!(part.is_whole());
    assert_eq!(std::fs::read(directory.path().join("part")).unwrap(), bytes);
    let ranges: Vec<usize> = server.seen().iter().map(server::Seen::from).collect();
    assert_eq!(ranges.len(), 9);
    assert!(ranges.windows(2).all(|pair| pair[0] < pair[1]), "{ranges:?}");
}

#[test]
fn part_of_an_earlier_process_is_asked_for_no_more() {
    let bytes = blob(300_000);
    let sent = bytes.clone();
    let server = Server::start(move |seen, _| Answer::range(seen, &sent));
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("part"), &bytes[..123_456]).unwrap();
    let part = part(directory.path(), &bytes);
    assert_eq!((part.resumed(), part.received()), (123_456, 123_456));
    download(&client(&server), &server, &part).unwrap();
    assert_eq!(server.seen()[0].from(), 123_456);
    assert_eq!(std::fs::read(directory.path().join("part")).unwrap(), bytes);
}

#[test]
fn server_without_ranges_has_its_beginning_passed_over() {
    let bytes = blob(300_000);
    let sent = bytes.clone();
    let server = Server::start(move |_, number| {
        let answer = Answer::new("200 OK", "", &sent);
        if number == 1 {
            answer.cut(100_000)
        } else {
            answer
        }
    });
    let directory = tempfile::tempdir().unwrap();
    download(&client(&server), &server, &part(directory.path(), &bytes)).unwrap();
    assert_eq!(std::fs::read(directory.path().join("part")).unwrap(), bytes);
}

#[test]
fn damaged_bytes_are_told_with_where_they_may_come_from() {
    let bytes = blob(10_000);
    let mut sent = bytes.clone();
    sent[9_000] ^= 1;
    let server = Server::start(move |seen, _| Answer::range(seen, &sent));
    let directory = tempfile::tempdir().unwrap();
    let error = download(&client(&server), &server, &part(directory.path(), &bytes)).unwrap_err();
    assert!(matches!(error, TransferError::Digest { resumed: false, .. }), "{error}");
    // What is there is whole in size, so it is not fetched again, and blamed on what was there.
    let error = download(&client(&server), &server, &part(directory.path(), &bytes)).unwrap_err();
    assert!(matches!(error, TransferError::Digest { resumed: true, .. }), "{error}");
}

#[test]
fn blob_longer_than_promised_is_not_written_on() {
    let bytes = blob(10_000);
    let server = Server::start(move |_, _| Answer::new("200 OK", "", &blob(20_000)));
    let directory = tempfile::tempdir().unwrap();
    let error = download(&client(&server), &server, &part(directory.path(), &bytes)).unwrap_err();
    assert!(matches!(error, TransferError::Size { expected: 10_000, .. }), "{error}");
    assert!(std::fs::metadata(directory.path().join("part")).unwrap().len() <= 10_000);
}

#[test]
fn busy_registry_is_asked_again_and_a_refusal_is_not() {
    let bytes = blob(1_000);
    let sent = bytes.clone();
    let server = Server::start(move |seen, number| match number {
        1 => Answer::new("429 Too Many Requests", "Retry-After: 0\r\n", b""),
        2 => Answer::new("503 Service Unavailable", "", b""),
        _ => Answer::range(seen, &sent),
    });
    let directory = tempfile::tempdir().unwrap();
    download(&client(&server), &server, &part(directory.path(), &bytes)).unwrap();
    assert_eq!(server.seen().len(), 3);

    let server = Server::start(|_, _| Answer::new("403 Forbidden", "X-Why: no\r\n", b"denied"));
    let directory = tempfile::tempdir().unwrap();
    match download(&client(&server), &server, &part(directory.path(), &bytes)).unwrap_err() {
        TransferError::Status(reply) => {
            assert_eq!(
                (reply.status, reply.body.as_slice(), reply.header("x-why")),
                (403, &b"denied"[..], Some("no"))
            );
        }
        other => panic!("{other}"),
    }
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn registry_that_stays_broken_is_given_up() {
    let server = Server::start(|_, _| Answer::new("200 OK", "", &blob(100)).cut(0));
    let directory = tempfile::tempdir().unwrap();
    let error = download(&client(&server), &server, &part(directory.path(), &blob(100))).unwrap_err();
    assert!(matches!(error, TransferError::Network { .. }), "{error}");
    assert_eq!(server.seen().len(), 3);
}

#[test]
fn credentials_stay_with_the_host_they_are_for() {
    let storage = Server::start(|_, _| Answer::new("200 OK", "", b"bytes"));
    let elsewhere = storage.url("/storage");
    let server = Server::start(move |seen, _| match seen.path.as_str() {
        "/same" => Answer::new("302 Found", "Location: /other\r\n", b""),
        "/other" => Answer::new("307 Temporary Redirect", &format!("Location: {elsewhere}\r\n"), b""),
        _ => Answer::new("404 Not Found", "", b""),
    });
    let headers = [("Authorization".to_owned(), "Bearer secret".to_owned())];
    let url = server.url("/same");
    let reply = client(&server).request(&get(&url, &headers), 1000).unwrap();
    assert_eq!((reply.status, reply.body, reply.url), (200, b"bytes".to_vec(), storage.url("/storage")));
    assert!(server.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer secret")));
    assert_eq!(storage.seen()[0].header("authorization"), None);
}

#[test]
fn endless_redirects_and_endless_answers_end() {
    let server = Server::start(|seen, _| match seen.path.as_str() {
        "/loop" => Answer::new("302 Found", "Location: /loop\r\n", b""),
        _ => Answer::new("200 OK", "", &blob(5_000)),
    });
    let client = client(&server);
    let error = client.request(&get(&server.url("/loop"), &[]), 1000).unwrap_err();
    assert!(matches!(error, TransferError::TooManyRedirects(_)), "{error}");
    let error = client.request(&get(&server.url("/big"), &[]), 1000).unwrap_err();
    assert!(matches!(error, TransferError::TooLarge(1000)), "{error}");
}

#[test]
fn plain_http_is_refused_unless_allowed() {
    let server = Server::start(|_, _| Answer::new("200 OK", "", b""));
    let error = Client::new(Options::new("", "test")).request(&get(&server.url("/"), &[]), 10).err().unwrap();
    assert!(matches!(error, TransferError::PlainHttp(_)), "{error}");
    assert!(server.seen().is_empty());
}

#[test]
fn https_to_a_plain_server_is_a_matter_of_tls() {
    let server = Server::start(|_, _| Answer::new("200 OK", "", b""));
    let url = format!("https://{}/v2/", server.authority);
    let error = client(&server).request(&get(&url, &[]), 10).err().unwrap();
    assert!(matches!(error, TransferError::Tls { .. }), "{error:?}");
}

#[test]
fn nobody_listening_is_said_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut options = Options::new("", "test");
    options.allow_plain_http = true;
    let error = Client::new(options).request(&get(&format!("http://{free}/"), &[]), 10).err().unwrap();
    assert!(matches!(error, TransferError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().ends_with("connection refused"), "{error}");
}

#[test]
fn stretch_of_a_file_goes_up_and_is_counted() {
    let server = Server::start(|_, _| Answer::new("202 Accepted", "Location: /next\r\n", b""));
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, &blob(200_000)).unwrap();
    let sent = AtomicU64::new(0);
    let body = Body::File { file: file.as_fd(), offset: 1_000, length: 150_000, sent: &sent };
    let request = Request { method: "PATCH", url: &server.url("/up"), headers: &[], body, follow: false };
    let reply = client(&server).request(&request, 100).unwrap();
    assert_eq!((reply.status, reply.header("location")), (202, Some("/next")));
    assert_eq!(sent.load(Ordering::Relaxed), 150_000);
    assert_eq!(server.seen()[0].method, "PATCH");
    assert_eq!(server.seen()[0].body, blob(200_000)[1_000..151_000]);
    assert_eq!(server.seen()[0].header("content-length"), Some("150000"));
}

#[test]
fn follower_reads_what_comes_while_it_comes() {
    let bytes = blob(2_000_000);
    let sent = bytes.clone();
    let server = Server::start(move |seen, number| {
        let answer = Answer::range(seen, &sent);
        if number < 20 {
            answer.cut(50_000)
        } else {
            answer
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let part = Arc::new(part(directory.path(), &bytes));
    let mut follower = part.follow(None);
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        follower.read_to_end(&mut all).map(|_| all)
    });
    download(&client(&server), &server, &part).unwrap();
    assert_eq!(reader.join().unwrap().unwrap(), bytes);
}

#[test]
fn follower_of_a_failed_part_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let part = Arc::new(part(directory.path(), &blob(10)));
    let mut follower = part.follow(None);
    let reader = std::thread::spawn(move || follower.read_to_end(&mut Vec::new()));
    part.fail("the registry is gone");
    assert_eq!(reader.join().unwrap().unwrap_err().to_string(), "the registry is gone");
}

#[test]
fn cancelling_ends_what_waits_for_a_silent_server() {
    let (tell, told) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let server = Server::start(move |_, _| {
        tell.lock().unwrap().send(()).unwrap();
        std::thread::park();
        Answer::new("200 OK", "", b"")
    });
    let client = Arc::new(client(&server));
    let (url, waiting) = (server.url("/"), Arc::clone(&client));
    let asking = std::thread::spawn(move || waiting.request(&get(&url, &[]), 10).err());
    told.recv().unwrap();
    client.cancel();
    let error = asking.join().unwrap().unwrap();
    assert!(matches!(error, TransferError::Cancelled), "{error}");
    let error = client.request(&get(&server.url("/"), &[]), 10).err().unwrap();
    assert!(matches!(error, TransferError::Cancelled), "{error}");
}
