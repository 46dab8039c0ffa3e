//! Values other than numbers and strings: times, sizes, shares, codes.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use portcullis_policy::Share;
use portcullis_sip::OverloadAlgorithm;

use super::problem::Bad;
use super::section::Value;
use super::shape::Shape;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// Reads a time such as "5ms", from `least` to `most`, both included.
pub(super) fn duration(value: Value<'_>, least: Duration, most: Duration) -> Result<Duration, Bad> {
    let mend = || {
        format!("write a time from \"{least:?}\" to \"{most:?}\" with its unit: us, ms, s, m or h")
    };
    if value.is_number() {
        return Err(Bad::new("a time without a unit", mend()));
    }
    let text = value.text().map_err(|bad| bad.shaped(Shape::Duration))?;
    let time = parse_duration(text).ok_or_else(|| Bad::new("not a time", mend()))?;
    match time {
        time if time < least => Err(Bad::new("too short", mend())),
        time if time > most => Err(Bad::new("too long", mend())),
        time => Ok(time),
    }
}

/// Reads a size such as "64KiB", or a number of bytes, from `least` to `most`, both included.
pub(super) fn size(value: Value<'_>, least: u64, most: u64) -> Result<u64, Bad> {
    let mend = || {
        format!(
            "write a size from \"{}\" to \"{}\": B, KiB, MiB or GiB",
            show_size(least),
            show_size(most)
        )
    };
    let bytes = if value.is_number() {
        value.number(0, u64::MAX)?
    } else {
        let text = value.text().map_err(|bad| bad.shaped(Shape::Size))?;
        parse_size(text).ok_or_else(|| Bad::new("not a size", mend()))?
    };
    match bytes {
        bytes if bytes < least => Err(Bad::new("too small", mend())),
        bytes if bytes > most => Err(Bad::new("too large", mend())),
        bytes => Ok(bytes),
    }
}

/// Reads a status code other than 1xx and 2xx.
pub(super) fn code(value: Value<'_>) -> Result<u16, Bad> {
    let code = value.number(300, 699)?;
    Ok(u16::try_from(code).unwrap_or(u16::MAX))
}

/// Reads a reason phrase, which must be on one line.
pub(super) fn phrase(value: Value<'_>) -> Result<String, Bad> {
    let text = value.text()?;
    match text.chars().find(|c| c.is_control()) {
        Some(_) => Err(Bad::new(
            "a line break or control character",
            "write it on one line",
        )),
        None => Ok(text.to_owned()),
    }
}

/// Reads one of these words.
pub(super) fn one_of(value: Value<'_>, choices: &'static [&'static str]) -> Result<String, Bad> {
    let text = value
        .text()
        .map_err(|bad| bad.shaped(Shape::OneOf(choices)))?;
    if choices.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Bad::new(
        "not one of the choices",
        format!("write \"{}\"", choices.join("\" or \"")),
    ))
}

/// Reads whether the host takes part in overload control, and with which algorithm; `true` is "loss".
pub(super) fn overload_control(value: Value<'_>) -> Result<Option<OverloadAlgorithm>, Bad> {
    const MEND: &str = "write false, true, \"loss\" or \"rate\"";
    if let Ok(is_on) = value.boolean() {
        return Ok(is_on.then_some(OverloadAlgorithm::Loss));
    }
    let shape = || Shape::Any(vec![Shape::Boolean, Shape::OneOf(&["loss", "rate"])]);
    let text = value
        .text()
        .map_err(|bad| Bad::new(bad.what, MEND).shaped(shape()))?;
    match text {
        "loss" => Ok(Some(OverloadAlgorithm::Loss)),
        "rate" => Ok(Some(OverloadAlgorithm::Rate)),
        _ => Err(Bad::new("not an algorithm of overload control", MEND)),
    }
}

/// Reads a whole number from `least` to `most`, both included.
pub(super) fn count<T: TryFrom<u64>>(value: Value<'_>, least: u64, most: u64) -> Result<T, Bad> {
    fit(value.number(least, most)?)
}

/// Reads a group of the address table.
pub(super) fn group(value: Value<'_>) -> Result<u32, Bad> {
    count(value, 0, u32::MAX.into())
}

/// Reads a size in bytes from `least` to `most`, both included.
pub(super) fn bytes<T: TryFrom<u64>>(value: Value<'_>, least: u64, most: u64) -> Result<T, Bad> {
    fit(size(value, least, most)?)
}

fn fit<T: TryFrom<u64>>(n: u64) -> Result<T, Bad> {
    T::try_from(n).map_err(|_| Bad::new("too large for this machine", "write a smaller number"))
}

/// Reads a share from 0.01 to 100 percent.
pub(super) fn share(value: Value<'_>) -> Result<Share, Bad> {
    let text = value.text().map_err(|bad| bad.shaped(Shape::Share))?;
    let share = Share::parse(text).filter(|share| share.hundredths() > 0);
    share.ok_or_else(|| {
        Bad::new(
            "not a share",
            "write \"1%\" to \"100%\", with at most two decimal places",
        )
    })
}

/// Reads a network, or an address.
pub(super) fn network(value: Value<'_>) -> Result<IpNet, Bad> {
    let text = value.text()?;
    let net = text.parse::<IpNet>().ok();
    let net = net.or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let net = net.ok_or_else(|| {
        let mend = "write \"192.0.2.0/24\", \"2001:db8::/32\" or an address";
        Bad::new("not a network", mend)
    })?;
    Ok(net.trunc())
}

/// Reads the URL of a server over HTTP; "" is none.
pub(super) fn http_url(value: Value<'_>) -> Result<Option<String>, Bad> {
    const MEND: &str =
        "write \"http://HOST:PORT/PATH\"; for https, use a proxy or an agent on this machine";
    let text = value.text()?;
    if text.is_empty() {
        return Ok(None);
    }
    let rest = text.strip_prefix("http://");
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    match host.is_some_and(|host| !host.is_empty()) && is_plain {
        true => Ok(Some(text.to_owned())),
        false => Err(Bad::new("not a URL with http", MEND)),
    }
}

/// Formats a size in the largest unit that divides it.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Parses a time such as "5ms".
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let nanoseconds = match unit {
        "us" | "µs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    number.checked_mul(nanoseconds).map(Duration::from_nanos)
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(parse_duration("5ms"), Some(Duration::from_millis(5)));
        assert_eq!(parse_duration("250 us"), Some(Duration::from_micros(250)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        for bad in [
            "",
            "5",
            "ms",
            "-5ms",
            "5 parsecs",
            "99999999999999999999s",
            "9999999999999h",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_read() {
        for text in ["1B", "1023B", "64KiB", "16MiB", "3GiB"] {
            assert_eq!(show_size(parse_size(text).unwrap()), text);
        }
        assert_eq!(parse_size("64KB"), None);
        assert_eq!(parse_size("99999999999GiB"), None);
    }
}
