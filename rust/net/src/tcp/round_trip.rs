//! How long to wait for an acknowledgement, RFC 6298.

use super::Time;

const INITIAL: Time = Time::from_secs(1);
/// Linux's lower bound too: a container's kernel delays acknowledgements by up to 40 ms.
const LEAST: Time = Time::from_millis(200);
const MOST: Time = Time::from_secs(60);
/// Doublings without an answer after which the other side is given up: some 15 minutes, as tcp_retries2.
pub(super) const MOST_BACKOFF: u32 = 15;

/// The estimator of one direction.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Time>,
    variation: Time,
    /// How often the timer went off since the last answer.
    pub backoff: u32,
}

impl RoundTrip {
    /// An acknowledgement came after `sample` for something that was sent once.
    pub fn measure(&mut self, sample: Time) {
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// How long to wait this time.
    pub fn timeout(&self) -> Time {
        let base = self.smoothed.map_or(INITIAL, |smoothed| smoothed + self.variation * 4);
        (base.max(LEAST) * 2_u32.pow(self.backoff.min(10))).min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_samples_and_doubles_without_an_answer() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(), INITIAL);
        for _ in 0..50 {
            trip.measure(Time::from_millis(300));
        }
        assert!(trip.timeout() < Time::from_millis(320));
        trip.backoff = 1;
        assert!(trip.timeout() >= Time::from_millis(600));
        trip.backoff = 40;
        assert_eq!(trip.timeout(), MOST);
    }
}
