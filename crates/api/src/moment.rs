//! Durations and times as clients write them: `250ms`, `+30s`, `2026-11-20T09:00:00Z`.

use model::{Timestamp, limits};
use std::fmt;

/// The longest duration, in milliseconds.
const DURATION_MS_MAX: u64 = limits::TTL_MS_MAX.cast_unsigned();
/// The end of the year 9998, behind which no calendar here can write a time.
const WRITTEN_MS_MAX: i64 = 253_370_764_799_999;

const UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Why a text is no time. The message says what would be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MomentError {
    #[error("a duration is a whole number and a unit: 250ms, 2s, 5m, 1h or 14d")]
    Duration,
    #[error("a duration is at most 3650d")]
    TooLong,
    #[error("a time is written as 2026-11-20T09:00:00Z, or as + and a duration: +30s")]
    Time,
    #[error("this day or hour does not exist")]
    NoSuchTime,
    #[error("times before 1970 mean nothing here")]
    TooEarly,
}

/// A point in time that is counted from the request, or stands in a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So many milliseconds from now.
    After(u64),
    At(Timestamp),
}

impl Moment {
    /// # Errors
    /// [`MomentError`]
    pub fn parse(text: &str) -> Result<Self, MomentError> {
        match text.strip_prefix('+') {
            Some(duration) => parse_duration(duration).map(Self::After),
            None => parse_time(text).map(Self::At),
        }
    }

    /// The point in time, for a request that came at `now`.
    pub fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Self::After(ms) => now.plus_ms(ms),
            Self::At(time) => time,
        }
    }

    /// Milliseconds between `now` and this; 0 when it is over.
    pub fn ms_from(self, now: Timestamp) -> u64 {
        self.from(now).0.saturating_sub(now.0)
    }
}

/// Milliseconds of a text such as `5m`.
///
/// # Errors
/// [`MomentError::Duration`], [`MomentError::TooLong`]
pub fn parse_duration(text: &str) -> Result<u64, MomentError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, unit_ms) = UNITS.iter().find(|it| it.0 == unit).ok_or(MomentError::Duration)?;
    if number.is_empty() {
        return Err(MomentError::Duration);
    }
    // Only digits are left, so it can fail by its size alone.
    let number: u64 = number.parse().map_err(|_| MomentError::TooLong)?;
    number.checked_mul(*unit_ms).filter(|it| *it <= DURATION_MS_MAX).ok_or(MomentError::TooLong)
}

/// A time of RFC 3339, and nothing else of what calendars may be asked to understand.
///
/// # Errors
/// [`MomentError`]
pub fn parse_time(text: &str) -> Result<Timestamp, MomentError> {
    if !has_shape(text.as_bytes()) {
        return Err(MomentError::Time);
    }
    let time: jiff::Timestamp = text.parse().map_err(|_| MomentError::NoSuchTime)?;
    u64::try_from(time.as_millisecond()).map(Timestamp).map_err(|_| MomentError::TooEarly)
}

/// `dddd-dd-ddTdd:dd:dd`, perhaps a fraction, then `Z` or `+dd:dd`. RFC 3339 allows small letters.
fn has_shape(text: &[u8]) -> bool {
    let Some((front, rest)) = text.split_at_checked("2026-11-20T09:00:00".len()) else {
        return false;
    };
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|it| it.is_ascii_digit()).count();
            if digits == 0 || 9 < digits {
                return false;
            }
            &fraction[digits..]
        }
        None => rest,
    };
    matches(front, b"dddd-dd-ddTdd:dd:dd")
        && (matches(rest, b"Z") || matches(rest, b"+dd:dd") || matches(rest, b"-dd:dd"))
}

fn matches(text: &[u8], pattern: &[u8]) -> bool {
    text.len() == pattern.len()
        && text.iter().zip(pattern).all(|(it, wanted)| match wanted {
            b'd' => it.is_ascii_digit(),
            other => it.eq_ignore_ascii_case(other),
        })
}

/// A time as answers show it: in UTC, with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written(pub Timestamp);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0.0).unwrap_or(i64::MAX).min(WRITTEN_MS_MAX);
        let time = jiff::Timestamp::from_millisecond(ms).expect("the year has four digits");
        write!(f, "{time:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, ms) in [
            ("250ms", 250),
            ("2s", 2_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("14d", 1_209_600_000),
            ("0s", 0),
            ("3650d", DURATION_MS_MAX),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for text in ["", "5", "s", "1.5s", "-1s", "+1s", " 1s", "1s ", "1 s", "1S", "1min", "1w"] {
            assert_eq!(parse_duration(text), Err(MomentError::Duration), "{text}");
        }
        for text in ["3651d", "99999999999999999999ms", "18446744073709551615h"] {
            assert_eq!(parse_duration(text), Err(MomentError::TooLong), "{text}");
        }
    }

    #[test]
    fn moments_are_counted_from_now_or_stand_in_a_calendar() {
        let now = Timestamp(1_000_000);
        assert_eq!(Moment::parse("+30s").map(|it| it.from(now)), Ok(Timestamp(1_030_000)));
        let early = Moment::parse("1970-01-01T00:00:10Z").expect("a time");
        assert_eq!((early.from(now), early.ms_from(now)), (Timestamp(10_000), 0));
        assert_eq!(Moment::parse("30s"), Err(MomentError::Time));
        assert_eq!(Moment::parse("+"), Err(MomentError::Duration));
    }

    #[test]
    fn times_are_those_of_rfc_3339() {
        for (text, ms) in [
            ("2026-11-20T09:00:00Z", 1_795_165_200_000),
            ("2026-11-20t09:00:00z", 1_795_165_200_000),
            ("2026-11-20T10:30:00.250+01:30", 1_795_165_200_250),
            ("2026-11-20T09:00:00.123456789-00:00", 1_795_165_200_123),
        ] {
            assert_eq!(parse_time(text), Ok(Timestamp(ms)), "{text}");
        }
        for text in [
            "",
            "2026-11-20",
            "2026-11-20T09:00:00",
            "2026-11-20 09:00:00Z",
            "2026-11-20T09:00Z",
            "20261120T090000Z",
            "2026-11-20T09:00:00+01",
            "2026-11-20T09:00:00.Z",
            "2026-11-20T09:00:00.1234567890Z",
            "2026-11-20T09:00:00Z[Europe/Paris]",
            "+002026-11-20T09:00:00Z",
            "1795165200",
        ] {
            assert_eq!(parse_time(text), Err(MomentError::Time), "{text}");
        }
        assert_eq!(parse_time("2026-02-29T00:00:00Z"), Err(MomentError::NoSuchTime));
        assert_eq!(parse_time("2026-01-01T24:00:00Z"), Err(MomentError::NoSuchTime));
        assert_eq!(parse_time("1969-12-31T23:59:59Z"), Err(MomentError::TooEarly));
    }

    #[test]
    fn any_time_can_be_written() {
        assert_eq!(Written(Timestamp(0)).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Written(Timestamp(u64::MAX)).to_string(), "9998-12-31T23:59:59.999Z");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(ms in 0..WRITTEN_MS_MAX.cast_unsigned()) {
            let time = Timestamp(ms);
            prop_assert_eq!(parse_time(&Written(time).to_string()), Ok(time));
        }

        #[test]
        fn no_text_breaks_the_parser(text: String) {
            let _ = Moment::parse(&text);
        }
    }
}
