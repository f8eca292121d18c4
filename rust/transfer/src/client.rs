//! Requests: one registry's connections, and how an answer is found.
//!
//! Redirects are followed here and not by the HTTP library, because registries
//! redirect blobs to storage that must not see the registry's credentials: past
//! another origin the request goes on without `Authorization` and without the
//! client's certificate. An address may only lose its `https` where plain http
//! was allowed.

use std::collections::HashMap;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::http;

use crate::error::from_io;
use crate::location::{resolve, Address};
use crate::proxy::Proxies;
use crate::retry::{retry_after, Patience};
use crate::trust::Trust;
use crate::TransferError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 10;
/// The most that is read of what somebody says with a refusal.
pub(crate) const ERROR_BODY: u64 = 64 * 1024;
/// How often a pause looks whether it is to end.
const TICK: Duration = Duration::from_millis(20);

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// `User-Agent`.
    pub user_agent: String,
    /// Host, or host and port, that the client certificate is for.
    pub home: String,
    /// Certificates.
    pub trust: Trust,
    /// Whether http addresses may be asked.
    pub allow_plain_http: bool,
    /// The longest silence of the other side.
    pub idle_timeout: Duration,
    /// How often to try again.
    pub patience: Patience,
    /// Proxies of the environment.
    pub proxies: Proxies,
}

impl Options {
    /// Defaults for one registry, with the environment's proxies.
    pub fn new(home: &str, user_agent: &str) -> Options {
        Options {
            user_agent: user_agent.to_owned(),
            home: home.to_owned(),
            trust: Trust::default(),
            allow_plain_http: false,
            idle_timeout: Duration::from_secs(120),
            patience: Patience::default(),
            proxies: Proxies::read(|name| std::env::var(name).ok()),
        }
    }
}

/// A request.
pub struct Request<'a> {
    /// `GET`, `HEAD`, `POST`, `PATCH`, `PUT` or `DELETE`.
    pub method: &'a str,
    /// An http or https address.
    pub url: &'a str,
    /// Headers, in order.
    pub headers: &'a [(String, String)],
    /// What is sent.
    pub body: Body<'a>,
    /// Whether a redirect is followed, for requests without a body.
    pub follow: bool,
}

/// The body of a request.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// None at all.
    Empty,
    /// These bytes.
    Bytes(&'a [u8]),
    /// `length` bytes of a file from `offset`; `sent` counts them as they go.
    File {
        /// The file.
        file: std::os::fd::BorrowedFd<'a>,
        /// Where to begin.
        offset: u64,
        /// How many.
        length: u64,
        /// The counter; it is added to.
        sent: &'a std::sync::atomic::AtomicU64,
    },
}

/// An answer, whole.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Header names (lower case) and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The address that answered, after redirects.
    pub url: String,
}

impl Reply {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    /// What `Retry-After` asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.header("retry-after").and_then(|value| retry_after(value, now))
    }
}

/// An answer whose body is still to come.
pub(crate) struct Answer {
    pub reply: Reply,
    pub body: ureq::Body,
}

/// What decides which connections a request may use.
#[derive(PartialEq, Eq, Hash)]
struct Route {
    is_https: bool,
    is_home: bool,
    proxy: Option<String>,
}

/// Connections to one registry and to where it sends us. Shared by threads.
pub struct Client {
    options: Options,
    agents: Mutex<HashMap<Route, ureq::Agent>>,
    cancelled: AtomicBool,
}

impl Client {
    /// A client; nothing is connected or read yet.
    pub fn new(options: Options) -> Client {
        Client { options, agents: Mutex::new(HashMap::new()), cancelled: AtomicBool::new(false) }
    }

    /// Ends every request under way and every later one with [`TransferError::Cancelled`]. A connection
    /// being set up ends by its timeout.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
        for (_, agent) in self.agents().drain() {
            agent.shutdown();
        }
    }

    /// Whether [`Client::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn patience(&self) -> Patience {
        self.options.patience
    }

    fn agents(&self) -> MutexGuard<'_, HashMap<Route, ureq::Agent>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request and takes an answer of at most `limit` bytes, whatever its status. It is sent again,
    /// patiently, when the connection breaks or the registry is busy, unless a file is its body: registries
    /// mean every request without one to be repeatable.
    pub fn request(&self, request: &Request<'_>, limit: u64) -> Result<Reply, TransferError> {
        let may_repeat = !matches!(request.body, Body::File { .. });
        let mut failed = 0;
        loop {
            let result = self.send(request).and_then(|answer| self.read(answer, limit));
            let asked = match &result {
                Ok(reply) if matches!(reply.status, 429 | 502 | 503 | 504) => reply.retry_after(),
                Err(error) if error.is_transient() => None,
                _ => return result,
            };
            failed += 1;
            match self.options.patience.pause_after(failed, asked) {
                Some(pause) if may_repeat => self.pause(pause)?,
                _ => return result,
            }
        }
    }

    /// Brings what an address has into a file, from the file's offset on, however much it is: the answer, its
    /// body empty when that is in the file. Sent once, as what came cannot be told from what did not.
    pub fn fetch(&self, request: &Request<'_>, file: &std::fs::File) -> Result<Reply, TransferError> {
        let answer = self.send(request)?;
        if answer.reply.status != 200 {
            return self.read(answer, ERROR_BODY);
        }
        let Answer { reply, mut body } = answer;
        let mut reader = body.with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(reply),
                Ok(n) => std::io::Write::write_all(&mut &*file, &buffer[..n]).map_err(TransferError::Disk)?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error, &reply.url)),
            }
        }
    }

    /// Waits, unless it is cancelled.
    pub(crate) fn pause(&self, pause: Duration) -> Result<(), TransferError> {
        let end = std::time::Instant::now() + pause;
        loop {
            if self.is_cancelled() {
                return Err(TransferError::Cancelled);
            }
            let left = end.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    pub(crate) fn read(&self, answer: Answer, limit: u64) -> Result<Reply, TransferError> {
        let Answer { mut reply, mut body } = answer;
        let mut reader = body.with_config().limit(u64::MAX).reader().take(limit + 1);
        reader.read_to_end(&mut reply.body).map_err(|error| self.broken(error, &reply.url))?;
        if reply.body.len() as u64 > limit {
            return Err(TransferError::TooLarge(limit));
        }
        Ok(reply)
    }

    /// A connection that broke, or our own cancelling of it.
    pub(crate) fn broken(&self, error: std::io::Error, url: &str) -> TransferError {
        if self.is_cancelled() {
            return TransferError::Cancelled;
        }
        from_io(error, authority(url))
    }

    /// Sends a request, follows redirects, and returns once the headers of the answer are there.
    pub(crate) fn send(&self, request: &Request<'_>) -> Result<Answer, TransferError> {
        let mut url = request.url.to_owned();
        let mut headers = request.headers.to_vec();
        for _ in 0..=REDIRECTS {
            let answer = self.send_once(request, &url, &headers)?;
            let location = answer.reply.header("location");
            let is_redirect = matches!(answer.reply.status, 301 | 302 | 303 | 307 | 308);
            let Some(location) = location.filter(|_| is_redirect && request.follow) else {
                return Ok(answer);
            };
            let next = resolve(&url, location)?;
            if !Address::parse(&url)?.same_origin(&Address::parse(&next)?) {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
            }
            url = next;
        }
        Err(TransferError::TooManyRedirects(authority(request.url)))
    }

    fn send_once(
        &self,
        request: &Request<'_>,
        url: &str,
        headers: &[(String, String)],
    ) -> Result<Answer, TransferError> {
        let agent = self.agent(url)?;
        let mut builder = http::Request::builder().method(request.method).uri(url);
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        let bad = |error: http::Error| TransferError::BadUrl(format!("{url}: {error}"));
        let result = match request.body {
            Body::Empty if request.method == "GET" || request.method == "HEAD" => {
                agent.run(builder.body(()).map_err(bad)?)
            }
            Body::Empty => agent.run(builder.body(&[] as &[u8]).map_err(bad)?),
            Body::Bytes(bytes) => agent.run(builder.body(bytes).map_err(bad)?),
            Body::File { file, offset, length, sent } => {
                let mut reader = Section { file, offset, left: length, sent };
                builder = builder.header("content-length", length);
                let body = ureq::SendBody::from_reader(&mut reader);
                agent.run(builder.body(body).map_err(bad)?)
            }
        };
        match result {
            Ok(response) => Ok(answer(response, url)),
            Err(_) if self.is_cancelled() => Err(TransferError::Cancelled),
            Err(error) => Err(TransferError::from_http(error, &authority(url))),
        }
    }

    /// The connections for an address, made at the first request that needs them.
    fn agent(&self, url: &str) -> Result<ureq::Agent, TransferError> {
        let address = Address::parse(url)?;
        let is_https = address.scheme == "https";
        if !is_https && !self.options.allow_plain_http {
            return Err(TransferError::PlainHttp(address.authority.to_owned()));
        }
        let route = Route {
            is_https,
            is_home: address.authority.eq_ignore_ascii_case(&self.options.home),
            proxy: self.options.proxies.choose(&address).map(str::to_owned),
        };
        let mut agents = self.agents();
        if self.is_cancelled() {
            return Err(TransferError::Cancelled);
        }
        if let Some(agent) = agents.get(&route) {
            return Ok(agent.clone());
        }
        let agent = self.connect_by(&route)?;
        agents.insert(route, agent.clone());
        Ok(agent)
    }

    fn connect_by(&self, route: &Route) -> Result<ureq::Agent, TransferError> {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(self.options.user_agent.as_str())
            .accept_encoding("identity")
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(self.options.idle_timeout))
            .timeout_per_write(Some(self.options.idle_timeout))
            .max_idle_connections_per_host(8)
            .proxy(None);
        if route.is_https {
            config = config.tls_config(self.options.trust.tls(route.is_home)?);
        }
        if let Some(url) = &route.proxy {
            let proxy = ureq::Proxy::new(url).map_err(|error| TransferError::Network {
                host: url.clone(),
                reason: format!("cannot use this proxy: {error}"),
            })?;
            config = config.proxy(Some(proxy));
        }
        Ok(ureq::Agent::new_with_config(config.build()))
    }
}

fn answer(response: http::Response<ureq::Body>, url: &str) -> Answer {
    let (parts, body) = response.into_parts();
    let headers = parts
        .headers
        .iter()
        .map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let reply = Reply { status: parts.status.as_u16(), headers, body: Vec::new(), url: url.to_owned() };
    Answer { reply, body }
}

pub(crate) fn authority(url: &str) -> String {
    Address::parse(url).map_or_else(|_| url.to_owned(), |address| address.authority.to_owned())
}

/// A stretch of a file on its way up.
struct Section<'a> {
    file: std::os::fd::BorrowedFd<'a>,
    offset: u64,
    left: u64,
    sent: &'a std::sync::atomic::AtomicU64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n = rustix::io::pread(self.file.as_fd(), &mut buffer[..want], self.offset)?;
        if n == 0 && want > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += n as u64;
        self.left -= n as u64;
        self.sent.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}
