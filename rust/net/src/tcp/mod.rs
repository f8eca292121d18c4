//! TCP towards the container: one end of one connection as a state machine without I/O.
//!
//! The container's kernel speaks TCP to us; behind us is a socket of the host, whose own
//! TCP does congestion control for the real way. So an [`Endpoint`] is a whole TCP with
//! little to do: the link loses nothing unless a queue overflows, and both directions
//! are governed by what the host's socket takes and gives.
//!
//! ```text
//!   segments from the container --on_segment--> [ReceiveHalf] --Sink--> host's socket
//!   segments to the container   <----poll------ [SendHalf]   <--push--- host's socket
//! ```
//!
//! *To the host*: data goes straight from the frame into the [`Sink`]. What the sink does not
//! take waits in a backlog that is never larger than the window that was advertised, and
//! the window is not moved on until it is gone. *To the container*: chunks wait until they
//! are acknowledged; [`Endpoint::room`] says how much more is wanted, which is what the
//! container's window allows.
//!
//! Time is passed in, random numbers are passed in, and every call is bounded.

mod endpoint;
mod reassembly;
mod receive;
mod round_trip;
mod send;

pub use endpoint::{Config, Endpoint, Outgoing};
pub use receive::ReceiveHalf;
pub use send::SendHalf;

/// Time since some beginning that only grows.
pub type Time = std::time::Duration;

/// Where the container's data goes.
pub trait Sink {
    /// Takes what it can and says how much that was.
    fn accept(&mut self, bytes: &[u8]) -> usize;
}

impl Sink for Vec<u8> {
    fn accept(&mut self, bytes: &[u8]) -> usize {
        self.extend_from_slice(bytes);
        bytes.len()
    }
}
