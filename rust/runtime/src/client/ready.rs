//! poll(2) over a handful of descriptors, some of which do not matter right now.

use std::os::fd::BorrowedFd;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::io::{Errno, Result};

/// Waits until one of the wanted descriptors is ready, or a signal came; says which are.
///
/// # Errors
/// ENOMEM of poll(2).
pub fn wait<const N: usize>(wanted: [(bool, BorrowedFd<'_>, PollFlags); N]) -> Result<[bool; N]> {
    let mut fds = Vec::with_capacity(N);
    let mut places = Vec::with_capacity(N);
    for (place, (is_wanted, fd, flags)) in wanted.into_iter().enumerate() {
        if is_wanted {
            fds.push(PollFd::from_borrowed_fd(fd, flags));
            places.push(place);
        }
    }
    let mut ready = [false; N];
    match poll(&mut fds, None) {
        Ok(_) => {
            for (fd, place) in fds.iter().zip(places) {
                ready[place] = !fd.revents().is_empty();
            }
        }
        Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    Ok(ready)
}
