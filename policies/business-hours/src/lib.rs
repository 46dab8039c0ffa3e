//! Passes calls during business hours. Outside of them, calls are relayed to another next hop or rejected with 480.
//!
//! ```toml
//! [tenants.acme.settings]
//! zone = "Europe/Berlin"
//! closed-days = ["2026-12-25", "2026-12-26"]
//! closed-next-hop = "voicemail"     # without it: closed-code (480) and closed-reason
//! [tenants.acme.settings.hours]
//! monday = ["08:00-12:00", "13:00-18:00"]
//! friday = ["08:00-14:00"]
//! ```
//!
//! A weekday without an entry is closed. Only requests that begin a call are restricted; all others pass, so that calls in progress can
//! end.

#![forbid(unsafe_code)]

use portcullis_sdk::clock::LocalTime;
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
const DAY_END: u16 = 24 * 60;

fn decide() -> Verdict {
    let is_new_call =
        request::method() == "INVITE" && !has_tag(&request::header("To").unwrap_or_default());
    if !is_new_call || is_open() {
        return pass();
    }
    if let Some(next_hop) = settings::text("closed-next-hop") {
        return relay_to(next_hop);
    }
    let code = settings::integer("closed-code").and_then(|code| u16::try_from(code).ok());
    let reason = settings::text("closed-reason").unwrap_or_else(|| "Closed".to_owned());
    reject(code.unwrap_or(480), reason)
}

/// Whether the value of To has a tag: the request belongs to a dialog.
fn has_tag(to: &str) -> bool {
    let behind_uri = to.rsplit('>').next().unwrap_or_default();
    let params = behind_uri.split(';').skip(1);
    params
        .map(|param| param.split('=').next().unwrap_or_default().trim())
        .any(|name| name.eq_ignore_ascii_case("tag"))
}

fn is_open() -> bool {
    let zone = zone();
    let Some(now) = clock::local(&zone) else {
        log::error!("unknown time zone {zone}: treated as closed");
        return false;
    };
    if settings::texts("closed-days")
        .unwrap_or_default()
        .contains(&date(now))
    {
        return false;
    }
    let minute = u16::from(now.hour) * 60 + u16::from(now.minute);
    let day = DAYS[usize::from(now.weekday.clamp(1, 7)) - 1];
    let hours = settings::texts(&format!("hours.{day}")).unwrap_or_default();
    hours
        .iter()
        .filter_map(|hours| span(hours))
        .any(|(from, to)| (from..to).contains(&minute))
}

fn zone() -> String {
    settings::text("zone").unwrap_or_else(|| "UTC".to_owned())
}

fn date(
    LocalTime {
        year, month, day, ..
    }: LocalTime,
) -> String {
    format!("{year:04}-{month:02}-{day:02}")
}

/// Minutes of the day in `08:00-12:30`.
fn span(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from.trim())?, minute(to.trim())?);
    (from < to).then_some((from, to))
}

fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let is_number = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(hour) || !is_number(minute) {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let of_day = hour * 60 + minute;
    (minute < 60 && of_day <= DAY_END).then_some(of_day)
}

/// Validates the settings.
fn check() -> Result<(), String> {
    settings::known(&[
        "closed-code",
        "closed-days",
        "closed-next-hop",
        "closed-reason",
        "hours",
        "zone",
    ])?;
    let zone = zone();
    if clock::local(&zone).is_none() {
        return Err(format!("`zone`: unknown time zone {zone}"));
    }
    let days = settings::keys("hours");
    if days.is_empty() {
        return Err("`hours` has no day: the policy would always be closed".to_owned());
    }
    for day in days {
        if !DAYS.contains(&&*day) {
            return Err(format!("`hours.{day}`: the days are {}", DAYS.join(", ")));
        }
        let hours = settings::texts(&format!("hours.{day}"));
        let hours =
            hours.ok_or_else(|| format!("`hours.{day}` must be a list like [\"08:00-18:00\"]"))?;
        if let Some(wrong) = hours.iter().find(|hours| span(hours).is_none()) {
            return Err(format!(
                "`hours.{day}`: \"{wrong}\" is not a range of times, like \"08:00-18:00\""
            ));
        }
    }
    let code = settings::integer("closed-code");
    if settings::has("closed-code") && code.is_none_or(|code| !(300..=699).contains(&code)) {
        return Err("`closed-code` must be a status code from 300 to 699".to_owned());
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
            .setting("closed-days", ["2026-12-25"])
            .setting("hours.wednesday", ["08:00-12:00", "13:00-18:00"])
            .setting("hours.friday", ["00:00-24:00"])
    }

    fn verdict(host: Host, [month, day, hour, minute]: [u16; 4]) -> Verdict {
        let host = host.at(2026, month, day, hour, minute);
        host.request(Request::invite("sip:bob@example.com"))
            .decide(decide)
            .verdict
    }

    #[test]
    fn hours_are_in_the_time_zone() {
        let closed = reject(480, "Closed");
        // A Wednesday; the office is an hour ahead of UTC.
        for (time, expected) in [
            ([11, 25, 6, 59], closed.clone()),
            ([11, 25, 7, 0], pass()),
            ([11, 25, 10, 59], pass()),
            ([11, 25, 11, 0], closed.clone()),
            ([11, 25, 16, 59], pass()),
            ([11, 25, 17, 0], closed.clone()),
            ([11, 26, 9, 0], closed.clone()),
            ([11, 26, 23, 0], pass()),
            ([11, 27, 22, 59], pass()),
            ([11, 27, 23, 0], closed.clone()),
            ([12, 25, 9, 0], closed),
        ] {
            assert_eq!(verdict(office(), time), expected, "{time:?}");
        }
    }

    #[test]
    fn closed_can_lead_to_another_next_hop() {
        let host = office().setting("closed-next-hop", "voicemail");
        assert_eq!(verdict(host, [11, 25, 3, 0]), relay_to("voicemail"));
        let host = office()
            .setting("closed-code", 603)
            .setting("closed-reason", "Morgen wieder");
        assert_eq!(verdict(host, [11, 25, 3, 0]), reject(603, "Morgen wieder"));
    }

    #[test]
    fn requests_within_a_call_pass() {
        let host = office().at(2026, 11, 25, 3, 0);
        let within =
            Request::invite("sip:bob@example.com").header("To", "<sip:bob@example.com;x=>;tag=7");
        let bye = Request::new("BYE", "sip:bob@example.com");
        for request in [within, bye] {
            assert_eq!(host.request(request).decide(decide).verdict, pass());
        }
        assert!(!has_tag("<sip:bob@example.com;tag=no>"));
        assert!(has_tag("sip:bob@example.com ; Tag=7"));
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(office().validate(check), Ok(()));
        let wrong = |host: Host| host.validate(check).unwrap_err();
        assert!(wrong(Host::new()).contains("always be closed"));
        assert_eq!(
            wrong(office().setting("zone", "Mars/Olympus")),
            "`zone`: unknown time zone Mars/Olympus"
        );
        assert!(
            wrong(office().setting("hours.montag", ["08:00-18:00"]))
                .starts_with("`hours.montag`: the days are monday")
        );
        for hours in [
            "8-18",
            "08:00",
            "18:00-08:00",
            "08:60-09:00",
            "08:00-24:01",
            "+8:00-09:00",
        ] {
            let said = wrong(office().setting("hours.monday", [hours]));
            assert!(
                said.starts_with(&format!("`hours.monday`: \"{hours}\" is not a range")),
                "{said}"
            );
        }
        assert!(wrong(office().setting("hours.monday", "08:00-18:00")).contains("must be a list"));
        assert!(wrong(office().setting("closed-code", 200)).contains("300 to 699"));
        assert!(wrong(office().setting("open", true)).starts_with("`open` is unknown"));
    }
}
