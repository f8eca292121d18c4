//! Bytes between registries and files.
//!
//! Python decides what to fetch and what to say to a registry; this crate moves
//! the bytes. A [`Client`] is a set of open connections with one idea of whom to
//! trust; it sends small requests whole ([`Client::request`]), streams a file up
//! ([`Body::File`]), and brings a blob down into a [`Part`]: a file that grows,
//! is hashed as it grows, survives broken connections and killed processes, and
//! can be read by a [`Follower`] long before its end has come.
//!
//! | module | knows |
//! |---|---|
//! | `client` | requests, redirects, which connection takes which proxy and CAs |
//! | `trust` | certificates: the system's, the user's, a client's own |
//! | `proxy`, `location`, `retry` | `NO_PROXY`, relative references, `Retry-After`; pure |
//! | `part` | the growing file and who reads behind its writer |
//! | `download` | ranges, resumption, the digest |
//! | `error` | what can go wrong, one line each |
//!
//! Everything blocks and nothing calls back. [`Client::cancel`] ends whatever is
//! under way from any thread.
#![forbid(unsafe_code)]

mod client;
mod download;
mod error;
mod location;
mod part;
mod proxy;
mod retry;
mod trust;

pub use client::{Body, Client, Options, Reply, Request};
pub use download::Download;
pub use error::TransferError;
pub use part::{Follower, Part};
pub use retry::Patience;
