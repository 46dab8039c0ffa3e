//! Classification of a text in the column `ip_addr` or in a question.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The kind of a text. This follows the documentation of `portcullis_address::Row`, not its code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// An IPv4 address, perhaps with leading zeros.
    V4(Ipv4Addr),
    /// An IPv6 address, perhaps in brackets.
    V6 {
        /// The address.
        addr: Ipv6Addr,
        /// A notation that Kamailio does not accept.
        odd: bool,
    },
    /// Digits and dots, but not an IPv4 address.
    Misread4,
    /// Text with a colon or bracket, but not an IPv6 address.
    Misread6,
    /// A host name.
    Name,
    /// Nothing that the column is made for.
    Neither,
}

impl Text {
    /// Tells what a text is.
    pub(super) fn of(text: &str) -> Self {
        let is_blank = |c: char| c.is_whitespace() || c.is_control();
        if text.is_empty() || text.contains(is_blank) || text.contains('/') {
            return Self::Neither;
        }
        if text.starts_with('[') || text.contains(':') {
            return v6(text);
        }
        if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return v4(text).map_or(Self::Misread4, Self::V4);
        }
        let in_names = |c: char| c.is_alphanumeric() || "-_.".contains(c);
        match text.chars().all(in_names) {
            true => Self::Name,
            false => Self::Neither,
        }
    }
}

fn v6(text: &str) -> Text {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    match bare.parse() {
        Ok(addr) => Text::V6 {
            addr,
            // Kamailio knows no dotted quad, and at most seven colons.
            odd: bare.contains('.') || bare.matches(':').count() > 7,
        },
        Err(_) => Text::Misread6,
    }
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let octets: Vec<u8> = text
        .split('.')
        .map(|octet| {
            let fits = (1..=3).contains(&octet.len());
            octet.parse().ok().filter(|_| fits)
        })
        .collect::<Option<_>>()?;
    <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_apart() {
        for text in ["10.0.0.1", "010.000.0.1"] {
            assert_eq!(
                Text::of(text),
                Text::V4(Ipv4Addr::new(10, 0, 0, 1)),
                "{text}"
            );
        }
        for text in ["300.1.1.1", "1..2.3", "1.2.3", "1.2.3.4.5", "0001.2.3.4"] {
            assert_eq!(Text::of(text), Text::Misread4, "{text}");
        }
        for text in [
            "[::1",
            "::1]",
            "1.2.3.4:5",
            "fe80::1%eth0",
            "12345::",
            "[1.2.3.4]",
        ] {
            assert_eq!(Text::of(text), Text::Misread6, "{text}");
        }
        for text in [
            "",
            " ",
            "10.0.0.1 ",
            "10.0.0.0/24",
            "::1/128",
            "*",
            "sip@gw",
        ] {
            assert_eq!(Text::of(text), Text::Neither, "{text}");
        }
        for text in ["sip.example.com.", "a_b", "0x7f.1", "10.0.0.a"] {
            assert_eq!(Text::of(text), Text::Name, "{text}");
        }
    }

    #[test]
    fn odd_spellings_of_ipv6_are_told() {
        let odd = |text: &str| matches!(Text::of(text), Text::V6 { odd: true, .. });
        assert!(odd("::ffff:192.0.2.1") && odd("1:2:3:4:5:6:7::") && odd("[::2:3:4:5:6:7:8]"));
        assert!(!odd("::1") && !odd("[2001:DB8::1]") && !odd("1:2:3:4:5:6:7:8"));
    }
}
