//! The time of day as Docker writes it: RFC 3339, UTC, nanoseconds without trailing zeros.

use std::io::Write;

use rustix::time::{clock_gettime, ClockId};

/// The time now, such as `2026-01-02T03:04:05.123456789Z`.
#[must_use]
pub fn now() -> String {
    let time = clock_gettime(ClockId::Realtime);
    format(time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Seconds and nanoseconds since 1970 as text (Go's time.RFC3339Nano, which Docker's files hold).
#[must_use]
pub fn format(seconds: i64, nanoseconds: u32) -> String {
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    let (year, month, day) = civil(days);
    let mut text = Vec::with_capacity(30);
    // Writing into a Vec cannot fail.
    let _ = write!(
        text,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        second / 3600,
        second / 60 % 60,
        second % 60
    );
    if nanoseconds > 0 {
        let _ = write!(text, ".{nanoseconds:09}");
        while text.last() == Some(&b'0') {
            text.pop();
        }
    }
    text.push(b'Z');
    String::from_utf8(text).unwrap_or_default()
}

/// Year, month and day of a day number, in the proleptic Gregorian calendar.
///
/// Counted from 1 March of year 0, so that the leap day is the last of its year
/// and months have a regular pattern of 153 days in five.
fn civil(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_date_1() {
        // `date -u -d @N +%FT%TZ`
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(format(seconds, 0), text);
        }
    }

    #[test]
    fn trailing_zeros_of_the_fraction_are_dropped() {
        assert_eq!(format(0, 120_000_000), "1970-01-01T00:00:00.12Z");
        assert_eq!(format(0, 1), "1970-01-01T00:00:00.000000001Z");
    }
}
