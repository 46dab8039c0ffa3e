//! Time of day and time zones for policies.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

/// The time zones of the tz database that is built into the host. A lookup opens no file.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A moment on the system clock and on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The system clock.
    pub wall: SystemTime,
    /// The monotonic clock, for durations.
    pub steady: Instant,
}

/// Date and time of day in a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LocalTime {
    pub(crate) year: u16,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    /// 1 for Monday.
    pub(crate) weekday: u8,
    /// Seconds ahead of UTC.
    pub(crate) offset: i32,
}

impl Moment {
    /// The current moment.
    pub fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn milliseconds(self) -> u64 {
        let since = self.wall.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or(Duration::ZERO).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// The local time in a time zone; `None` if there is no such zone or the year is out of range.
    pub(crate) fn local(self, zone: &str) -> Option<LocalTime> {
        let zone = ZONES.get(zone).ok()?;
        let milliseconds = i64::try_from(self.milliseconds()).ok()?;
        let local = Timestamp::from_millisecond(milliseconds).ok()?;
        let local = local.to_zoned(zone);
        Some(LocalTime {
            year: u16::try_from(local.year()).ok()?,
            month: local.month() as u8,
            day: local.day() as u8,
            hour: local.hour() as u8,
            minute: local.minute() as u8,
            second: local.second() as u8,
            weekday: local.weekday().to_monday_one_offset() as u8,
            offset: local.offset().seconds(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(seconds: u64, zone: &str) -> Option<LocalTime> {
        let moment = Moment {
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            steady: Instant::now(),
        };
        moment.local(zone)
    }

    #[test]
    fn zones_have_daylight_saving_time() {
        // 2026-11-25T21:30:15Z, a Wednesday; 2026-07-01T22:30:00Z.
        let winter = local(1_795_642_215, "Europe/Berlin").unwrap();
        let expected = LocalTime {
            year: 2026,
            month: 11,
            day: 25,
            hour: 22,
            minute: 30,
            second: 15,
            weekday: 3,
            offset: 3600,
        };
        assert_eq!(winter, expected);
        let summer = local(1_782_945_000, "Europe/Berlin").unwrap();
        assert_eq!((summer.day, summer.hour, summer.offset), (2, 0, 7200));
        let west = local(1_795_642_215, "America/St_Johns").unwrap();
        assert_eq!((west.hour, west.minute, west.offset), (18, 0, -12_600));
    }

    #[test]
    fn names_that_are_not_in_the_database_are_no_zones() {
        assert!(local(0, "UTC").is_some());
        for name in ["", "Mars/Olympus", "../../etc/passwd", "Europe/Berlin\0"] {
            assert_eq!(local(0, name), None, "{name:?}");
        }
        assert_eq!(local(u64::MAX / 4000, "UTC"), None, "no such year");
    }
}
