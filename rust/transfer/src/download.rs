//! A blob from a registry into its part.
//!
//! What is there already is asked for no more (`Range`, RFC 9110 §14.2); a server
//! that sends everything all the same has its beginning passed over. A broken
//! connection is taken up again at once while it brings something, and with
//! growing pauses when it does not.

use std::io::Read;

use crate::client::{Answer, ERROR_BODY};
use crate::{Body, Client, Part, Request, TransferError};

const BUFFER: usize = 256 * 1024;

/// Where a blob is to come from.
pub struct Download<'a> {
    /// Its address.
    pub url: &'a str,
    /// Headers for the registry; `Range` is added.
    pub headers: &'a [(String, String)],
}

impl Download<'_> {
    /// Brings the part to its end and checks its digest. The part stays as it is after an error, so that
    /// it can be tried again, with other credentials or from elsewhere.
    pub fn run(&self, client: &Client, part: &Part) -> Result<(), TransferError> {
        part.catch_up()?;
        let mut failed = 0;
        while part.received() < part.size() {
            let before = part.received();
            let error = match self.attempt(client, part) {
                Ok(()) => break,
                Err(error @ TransferError::Unreachable { .. }) => error,
                Err(error) if error.is_transient() => error,
                Err(error) => return Err(error),
            };
            if part.received() > before {
                failed = 0;
                continue;
            }
            failed += 1;
            let asked = match &error {
                TransferError::Status(reply) => reply.retry_after(),
                _ => None,
            };
            match client.patience().pause_after(failed, asked) {
                Some(pause) => client.pause(pause)?,
                None => return Err(error),
            }
        }
        part.finish()
    }

    fn attempt(&self, client: &Client, part: &Part) -> Result<(), TransferError> {
        let from = part.received();
        let mut headers = self.headers.to_vec();
        if from > 0 {
            headers.push(("Range".to_owned(), format!("bytes={from}-")));
        }
        let request =
            Request { method: "GET", url: self.url, headers: &headers, body: Body::Empty, follow: true };
        let answer = client.send(&request)?;
        let pass_over = match answer.reply.status {
            200 => from,
            206 if starts_at(&answer) == Some(from) => 0,
            416 if from > 0 => return self.whole(client, part),
            _ => return Err(TransferError::Status(Box::new(client.read(answer, ERROR_BODY)?))),
        };
        take(client, answer, part, pass_over)
    }

    /// Once more without a range, for a server that does not like it.
    fn whole(&self, client: &Client, part: &Part) -> Result<(), TransferError> {
        let request =
            Request { method: "GET", url: self.url, headers: self.headers, body: Body::Empty, follow: true };
        let answer = client.send(&request)?;
        match answer.reply.status {
            200 => take(client, answer, part, part.received()),
            _ => Err(TransferError::Status(Box::new(client.read(answer, ERROR_BODY)?))),
        }
    }
}

/// Where a partial answer begins: `Content-Range: bytes 10-99/100`.
fn starts_at(answer: &Answer) -> Option<u64> {
    let range = answer.reply.header("content-range")?.trim().strip_prefix("bytes")?;
    range.trim().split('-').next()?.parse().ok()
}

fn take(client: &Client, answer: Answer, part: &Part, mut pass_over: u64) -> Result<(), TransferError> {
    let Answer { reply, mut body } = answer;
    let mut reader = body.with_config().limit(u64::MAX).reader();
    let mut buffer = vec![0; BUFFER];
    loop {
        if client.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        let n = match reader.read(&mut buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(client.broken(error, &reply.url)),
        };
        if n == 0 {
            return match part.received() == part.size() {
                true => Ok(()),
                false => Err(client.broken(std::io::ErrorKind::UnexpectedEof.into(), &reply.url)),
            };
        }
        let skipped = usize::try_from(pass_over).unwrap_or(usize::MAX).min(n);
        pass_over -= skipped as u64;
        let bytes = &buffer[skipped..n];
        let found = part.received() + bytes.len() as u64;
        if found > part.size() {
            return Err(TransferError::Size { expected: part.size(), found });
        }
        if !bytes.is_empty() {
            part.append(bytes)?;
        }
    }
}
