//! # Maintenance window
//!
//! Answers new requests with 503 during announced windows. Retry-After says how many seconds are left. Calls in progress continue, because
//! requests within a dialog do not come to a policy. Sources in `test-group` may call, to try the system before the window ends.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=1
//! if ($shv(maintenance) == 1 && !allow_source_address("900")) {
//!     append_to_reply("Retry-After: 3600\r\n");
//!     sl_send_reply("503", "Maintenance");
//!     exit;
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! windows = ["2026-03-01 22:00 / 2026-03-02 04:00"]
//! zone = "Europe/Berlin"
//! test-group = 900
//! ```

use portcullis_sdk::clock::LocalTime;
use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    let Some(seconds) = remaining() else {
        return pass();
    };
    let test_group = settings::integer("test-group").and_then(|group| group.try_into().ok());
    if test_group.is_some_and(allow_source_address) {
        return pass();
    }
    reject(503, "Maintenance").header("Retry-After", seconds.to_string())
}

/// The seconds until the end of the present window; `None` outside of all windows.
fn remaining() -> Option<u64> {
    let now = seconds_of(&clock::local(&zone())?);
    let windows = settings::texts("windows").unwrap_or_default();
    let windows = windows.iter().filter_map(|text| window(text));
    let present = windows.filter(|(from, to)| (*from..*to).contains(&now));
    present.map(|(_, to)| to - now).max()
}

fn zone() -> String {
    settings::text("zone").unwrap_or_else(|| "UTC".into())
}

/// Parses `2026-03-01 22:00 / 2026-03-02 04:00`.
fn window(text: &str) -> Option<(u64, u64)> {
    let (from, to) = text.split_once('/')?;
    let (from, to) = (instant(from.trim())?, instant(to.trim())?);
    (from < to).then_some((from, to))
}

fn instant(text: &str) -> Option<u64> {
    let mut numbers = text.split(['-', ' ', ':']).map(|part| part.parse().ok());
    let mut next = || numbers.next().flatten();
    let [year, month, day, hour, minute]: [u64; 5] = [next()?, next()?, next()?, next()?, next()?];
    let is_valid = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && numbers.next().is_none();
    is_valid.then(|| seconds(year, month, day) + hour * 3600 + minute * 60)
}

fn seconds_of(time: &LocalTime) -> u64 {
    let of_day = u64::from(time.hour) * 3600 + u64::from(time.minute) * 60 + u64::from(time.second);
    seconds(time.year.into(), time.month.into(), time.day.into()) + of_day
}

/// The seconds from the year 0 to this day of the Gregorian calendar.
fn seconds(year: u64, month: u64, day: u64) -> u64 {
    // Years begin in March here, so that the leap day is at the end.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    days * 86_400
}

fn check() -> Result<(), String> {
    settings::known(&["test-group", "windows", "zone"])?;
    if clock::local(&zone()).is_none() {
        return Err(format!("`zone`: no time zone {}", zone()));
    }
    let windows = settings::texts("windows").ok_or("`windows` must be a list")?;
    match windows.iter().find(|text| window(text).is_none()) {
        Some(wrong) => Err(format!(
            "`windows`: \"{wrong}\" is not like \"2026-03-01 22:00 / 2026-03-02 04:00\""
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .zone("Europe/Berlin", 3600)
            .setting("zone", "Europe/Berlin")
            .setting("windows", ["2026-11-30 22:00 / 2026-12-01 04:00"])
            .setting("test-group", 900)
            .address(900, "192.0.2.9", 0)
    }

    fn verdict(host: Host, source: &str) -> Verdict {
        let request = Request::invite("sip:bob@example.com").from_source(source);
        host.request(request).decide(decide).verdict
    }

    #[test]
    fn requests_within_the_window_are_refused() {
        let closed = |seconds: &str| reject(503, "Maintenance").header("Retry-After", seconds);
        for (month, day, hour, minute, expected) in [
            (11, 30, 20, 59, pass()),
            (11, 30, 21, 0, closed("21600")),
            (12, 1, 2, 59, closed("60")),
            (12, 1, 3, 0, pass()),
        ] {
            let host = host().at(2026, month, day, hour, minute);
            assert_eq!(verdict(host.clone(), "192.0.2.1"), expected);
            assert_eq!(verdict(host, "192.0.2.9"), pass(), "a tester");
        }
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        for wrong in ["tomorrow", "2026-12-02 00:00 / 2026-12-01 00:00"] {
            assert!(host().setting("windows", [wrong]).validate(check).is_err());
        }
        assert!(host().setting("zone", "Mars").validate(check).is_err());
    }
}
