//! The time of day, for policies.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;

/// Time zones as they were known when the host was built: to ask for one opens no file.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time of day.
    pub wall: SystemTime,
    /// What durations are counted by.
    pub steady: Instant,
}

/// What a calendar and a clock on the wall show.
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
    /// This one.
    pub fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            steady: Instant::now(),
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn milliseconds(self) -> u64 {
        let since = self.wall.duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or(Duration::ZERO).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// The time in a zone, if there is such a zone and the calendar reaches so far.
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
    fn zones_know_summer_and_winter() {
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
    fn other_names_are_no_zones() {
        assert!(local(0, "UTC").is_some());
        for name in ["", "Mars/Olympus", "../../etc/passwd", "Europe/Berlin\0"] {
            assert_eq!(local(0, name), None, "{name:?}");
        }
        assert_eq!(local(u64::MAX / 4000, "UTC"), None, "no such year");
    }
}
