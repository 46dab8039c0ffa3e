//! Times in readable and machine-readable form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use jiff::civil::DateTime;

/// The Unix epoch, in UTC.
const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// RFC 3339 in UTC, whole seconds: `2024-02-29T12:00:00Z`. Times before 1970 are shown as 1970, times after the year 9999 as its end.
pub fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    let utc = EPOCH.checked_add(SignedDuration::from_secs(seconds));
    let utc = utc.unwrap_or(DateTime::MAX);
    format!("{utc:.0}Z")
}

/// The time that a text in the form of RFC 3339 names: `2024-02-29T12:00:00Z`, with fractions of a second and an offset if need be
/// (`2024-02-29T13:00:00.5+01:00`). `None` for any other text and for times before 1970.
pub fn from_rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let offset_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, offset) = time.split_at(offset_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2])?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let ahead = match offset.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i64::from(hours) * 3_600 + i64::from(minutes) * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    let small = |number: i16| i8::try_from(number).ok();
    let (month, day) = (small(month)?, small(day)?);
    let (hour, minute, second) = (small(hour)?, small(minute)?, small(second)?);
    let local = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let seconds = local.duration_since(EPOCH).as_secs() - ahead;
    let since = Duration::from_secs(u64::try_from(seconds).ok()?);
    UNIX_EPOCH.checked_add(since + Duration::from_nanos(nanoseconds))
}

/// Numbers with these numbers of digits, four at most.
fn numbers<const N: usize>(text: &str, between: char, digits: [usize; N]) -> Option<[i16; N]> {
    let mut parts = text.split(between);
    let mut numbers = [0; N];
    for (number, digits) in numbers.iter_mut().zip(digits) {
        let part = parts.next()?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Whole seconds since 1970 (UTC); 0 before.
pub fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_208_000, "2024-02-29T12:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            // The end of a certificate that does not expire (RFC 5280 §4.1.2.5).
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
            assert_eq!(
                from_rfc3339(text),
                Some(UNIX_EPOCH + Duration::from_secs(seconds))
            );
        }
    }

    #[test]
    fn times_beyond_the_calendar_are_shown_as_its_ends() {
        let second = Duration::from_secs(1);
        assert_eq!(rfc3339(UNIX_EPOCH - second), "1970-01-01T00:00:00Z");
        let late = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(rfc3339(late), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn offsets_and_fractions_are_read() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_709_208_000);
        for text in [
            "2024-02-29T13:00:00+01:00",
            "2024-02-29t07:30:00-04:30",
            "2024-02-29 12:00:00.000z",
        ] {
            assert_eq!(from_rfc3339(text), Some(noon), "{text}");
        }
        assert_eq!(
            from_rfc3339("2024-02-29T12:00:00.25Z"),
            Some(noon + Duration::from_millis(250))
        );
        for wrong in [
            "",
            "2024-02-29",
            "2024-02-29T12:00:00",
            "2023-02-29T12:00:00Z",
            "2024-13-01T12:00:00Z",
            "2024-02-29T24:00:00Z",
            "2024-02-29T12:00:00+24:00",
            "2024-02-29T12:00:00.Z",
            "1969-12-31T23:59:59Z",
            "0000-01-01T00:00:00Z",
            "2024-2-29T12:00:00Z",
        ] {
            assert_eq!(from_rfc3339(wrong), None, "{wrong}");
        }
    }
}
