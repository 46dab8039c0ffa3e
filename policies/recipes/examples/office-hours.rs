//! # Office hours with holidays
//!
//! Outside of office hours, calls go to the voicemail. Holidays are dates of every year (`12-25`) or of one (`2026-04-03`), and replace the
//! hours of their weekday; a holiday without hours is closed.
//!
//! In kamailio.cfg (`tmrec`):
//!
//! ```kamailio left=2
//! if (tmrec_match("20260101T000000||yearly|||||25||12")
//!         || !tmrec_match("20260101T080000|20260101T180000|||weekly|||MO,TU,WE,TH,FR")) {
//!     $du = "sip:voicemail.example.com";
//!     t_relay();
//!     exit;
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! zone = "Europe/Berlin"
//! closed-next-hop = "voicemail"
//! [hours]
//! monday = "08:00-18:00"
//! tuesday = "08:00-18:00"
//! wednesday = "08:00-12:00, 14:00-18:00"
//! thursday = "08:00-18:00"
//! friday = "08:00-14:00"
//! [holidays]
//! 12-24 = "08:00-12:00"
//! 12-25 = ""
//! 2026-04-03 = ""
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

fn decide() -> Verdict {
    if request::method() != "INVITE" || request::has_to_tag() || is_open() {
        return pass();
    }
    relay_to(settings::text("closed-next-hop").unwrap_or_default())
}

fn is_open() -> bool {
    let Some(now) = clock::local(&settings::text("zone").unwrap_or_default()) else {
        return true;
    };
    let date = format!("{:02}-{:02}", now.month, now.day);
    let weekday = DAYS[usize::from(now.weekday.clamp(1, 7)) - 1];
    let hours = settings::text(&format!("holidays.{}-{date}", now.year))
        .or_else(|| settings::text(&format!("holidays.{date}")))
        .or_else(|| settings::text(&format!("hours.{weekday}")))
        .unwrap_or_default();
    let minute = u16::from(now.hour) * 60 + u16::from(now.minute);
    spans(&hours).is_some_and(|spans| {
        spans
            .iter()
            .any(|(from, to)| (*from..*to).contains(&minute))
    })
}

/// The minutes of the day in `08:00-12:00, 14:00-18:00`; none in an empty text.
fn spans(text: &str) -> Option<Vec<(u16, u16)>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(span).collect()
}

fn span(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    (from < to).then_some((from, to))
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    (hour <= 24 && minute < 60).then_some(hour * 60 + minute)
}

fn check() -> Result<(), String> {
    settings::known(&["closed-next-hop", "holidays", "hours", "zone"])?;
    let zone = settings::text("zone").ok_or("`zone` must be a time zone")?;
    if clock::local(&zone).is_none() {
        return Err(format!("`zone`: no time zone {zone}"));
    }
    if settings::text("closed-next-hop").is_none() {
        return Err("`closed-next-hop` must name a next hop".into());
    }
    if let Some(day) = settings::keys("hours")
        .iter()
        .find(|day| !DAYS.contains(&day.as_str()))
    {
        return Err(format!("`hours.{day}`: the days are {}", DAYS.join(", ")));
    }
    let is_date = |key: &String| {
        let is_digit_or_dash = |byte| byte == b'-' || u8::is_ascii_digit(&byte);
        matches!(key.len(), 5 | 10) && key.bytes().all(is_digit_or_dash)
    };
    if let Some(wrong) = settings::keys("holidays").iter().find(|key| !is_date(key)) {
        return Err(format!(
            "`holidays.{wrong}`: a date is like 12-25 or 2026-04-03"
        ));
    }
    for table in ["hours", "holidays"] {
        for key in settings::keys(table) {
            let hours = settings::text(&format!("{table}.{key}"));
            if hours.as_deref().and_then(spans).is_none() {
                return Err(format!(
                    "`{table}.{key}` must be like \"08:00-12:00, 14:00-18:00\""
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn office() -> Host {
        Host::new()
            .zone("Europe/Berlin", 3600)
            .setting("zone", "Europe/Berlin")
            .setting("closed-next-hop", "voicemail")
            .setting("hours.wednesday", "08:00-12:00, 14:00-18:00")
            .setting("hours.thursday", "08:00-24:00")
            .setting("holidays.12-24", "08:00-12:00")
            .setting("holidays.2026-11-26", "")
    }

    #[test]
    fn holidays_replace_the_hours_of_the_weekday() {
        let voicemail = relay_to("voicemail");
        for (month, day, hour, expected) in [
            (11, 25, 7, pass()),
            (11, 25, 12, voicemail.clone()),
            (11, 25, 13, pass()),
            (11, 25, 17, voicemail.clone()),
            (11, 26, 9, voicemail.clone()),
            (11, 27, 9, voicemail.clone()),
            (12, 3, 22, pass()),
            (12, 24, 10, pass()),
            (12, 24, 11, voicemail),
        ] {
            let host = office().at(2026, month, day, hour, 30);
            let verdict = host
                .request(Request::invite("sip:bob@example.com"))
                .decide(decide)
                .verdict;
            assert_eq!(verdict, expected, "{month}-{day} {hour}");
        }
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(office().validate(check), Ok(()));
        for (key, value) in [
            ("zone", "Mars"),
            ("hours.someday", "08:00-18:00"),
            ("hours.monday", "18:00-08:00"),
            ("holidays.easter", ""),
        ] {
            assert!(
                office().setting(key, value).validate(check).is_err(),
                "{key}"
            );
        }
    }
}
