//! The clock of a fake host. It does not advance by itself, and has the time zones that the test defines.

use std::collections::BTreeMap;

use crate::clock::LocalTime;

const DAY: i64 = 86_400;

/// Offsets of zones, and the start time of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// Seconds since 1970.
    begun: i64,
    /// Seconds ahead of UTC.
    zones: BTreeMap<String, i32>,
}

impl Clock {
    pub(super) fn set(&mut self, [year, month, day, hour, minute]: [u16; 5]) {
        let days = days_since_1970(i64::from(year), i64::from(month), i64::from(day));
        self.begun = days * DAY + i64::from(hour) * 3600 + i64::from(minute) * 60;
    }

    pub(super) fn add_zone(&mut self, name: &str, offset: i32) {
        self.zones.insert(name.to_owned(), offset);
    }

    /// Milliseconds since 1970, this many seconds after the start of the host.
    pub(super) fn now(&self, since: f64) -> u64 {
        (self.begun as f64 * 1000.0 + since * 1000.0) as u64
    }

    pub(super) fn local(&self, since: f64, zone: &str) -> Option<LocalTime> {
        let offset = match zone {
            "UTC" => 0,
            zone => *self.zones.get(zone)?,
        };
        let seconds = (self.now(since) / 1000) as i64 + i64::from(offset);
        let (days, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let (year, month, day) = date(days);
        Some(LocalTime {
            year: year as u16,
            month: month as u8,
            day: day as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
            // 1970 began on a Thursday.
            weekday: ((days + 3).rem_euclid(7) + 1) as u8,
            offset,
        })
    }
}

/// Days from 1970-01-01 to a Gregorian date.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is at the end.
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year
        - 719_468
}

/// The date on this day: year, month, day.
fn date(days: i64) -> (i64, i64, i64) {
    let mut year = 1970 + days.div_euclid(366);
    while days_since_1970(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_since_1970(year, month + 1, 1) <= days {
        month += 1;
    }
    (year, month, days - days_since_1970(year, month, 1) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_survive_a_round_trip() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2026, 11, 25), 20_782);
        for days in [0, 58, 59, 10_956, 11_016, 11_017, 20_782, 47_540] {
            let (year, month, day) = date(days);
            assert_eq!(days_since_1970(year, month, day), days, "{days}");
        }
        assert_eq!(date(11_016), (2000, 2, 29));
    }

    #[test]
    fn time_zones_are_those_of_the_test() {
        let mut clock = Clock::default();
        clock.set([2026, 11, 25, 23, 30]);
        clock.add_zone("Europe/Berlin", 3600);
        let utc = clock.local(0.0, "UTC").unwrap();
        assert_eq!((utc.day, utc.hour, utc.weekday), (25, 23, 3));
        let berlin = clock.local(61.0, "Europe/Berlin").unwrap();
        assert_eq!((berlin.day, berlin.hour, berlin.minute), (26, 0, 31));
        assert_eq!((berlin.second, berlin.weekday), (1, 4));
        assert_eq!(clock.local(0.0, "Mars/Olympus"), None);
    }
}
