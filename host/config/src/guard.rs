//! `[guard]`: what strangers may do before they are held or banned.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use portcullis_guard::Limits;

use super::problem::Bad;
use super::section::{Section, Value};
use super::value::{count, duration, network};

/// What strangers may do before they are held or banned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    /// Whether strangers are observed at all.
    pub enabled: bool,
    /// Networks that are never held or banned, beside the address table and next hops.
    pub exempt: Vec<IpNet>,
    /// Whether bans are shared with the hosts of the same `[fleet.redis]`.
    pub shares_bans: bool,
    /// The limits.
    pub limits: Limits,
}

impl GuardConfig {
    /// Reads `[guard]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let Self {
            enabled,
            exempt,
            shares_bans,
            limits,
        } = default;
        let second = Duration::from_secs(1);
        let guard = Self {
            enabled: section.value("enabled", enabled, |v| v.boolean()),
            exempt: section.list("exempt", exempt, network),
            shares_bans: section.value("share-bans", shares_bans, |v| v.boolean()),
            limits: Limits {
                within: section.value("within", limits.within, |v| {
                    duration(v, second, 3_600 * second)
                }),
                refusals: section.value("refusals", limits.refusals, evidence),
                users: section.value("users", limits.users, |v| {
                    count(v, 0, Limits::MOST_USERS.into())
                }),
                challenges: section.value("challenges", limits.challenges, evidence),
                malformed: section.value("malformed", limits.malformed, evidence),
                rate: section.value("rate", limits.rate, |v| count(v, 0, 1_000_000)),
                burst: section.value("burst", limits.burst, |v| count(v, 1, 10_000_000)),
                ban: section.value("ban", limits.ban, |v| duration(v, second, 86_400 * second)),
                held_rate: section.value("held-rate", limits.held_rate, |v| count(v, 1, 1_000)),
                sources: section.value("sources", limits.sources, |v| count(v, 1_000, 10_000_000)),
            },
        };
        section.finish();
        guard
    }

    /// Whether this address is in one of the exempt networks.
    #[inline]
    pub fn is_exempt(&self, ip: IpAddr) -> bool {
        self.exempt.iter().any(|net| net.contains(&ip))
    }
}

impl Default for GuardConfig {
    fn default() -> Self {
        let v4 = IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8);
        let v6 = IpNet::new_assert(IpAddr::V6(Ipv6Addr::LOCALHOST), 128);
        Self {
            enabled: true,
            exempt: vec![v4, v6],
            shares_bans: true,
            limits: Limits::default(),
        }
    }
}

fn evidence(value: Value<'_>) -> Result<u16, Bad> {
    count(value, 0, 10_000)
}

#[cfg(test)]
mod tests {
    use crate::Config;

    use super::*;

    #[test]
    fn a_section_is_read() {
        let text =
            "[guard]\nexempt = [\"192.0.2.7/24\", \"2001:db8::1\"]\nrefusals = 5\nban = \"1m\"\n";
        let guard = Config::parse(text).unwrap().guard;
        assert_eq!(guard.limits.refusals, 5);
        assert_eq!(guard.limits.ban, Duration::from_secs(60));
        assert_eq!(guard.limits.users, 10);
        let exempt = |ip: &str| guard.is_exempt(ip.parse().unwrap());
        assert!(exempt("192.0.2.200") && exempt("2001:db8::1"));
        assert!(!exempt("192.0.3.1") && !exempt("2001:db8::2") && !exempt("127.0.0.1"));
    }

    #[test]
    fn this_machine_is_exempt_by_default() {
        let guard = GuardConfig::default();
        for (ip, is_exempt) in [
            ("127.0.0.9", true),
            ("::1", true),
            ("10.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(guard.is_exempt(ip.parse().unwrap()), is_exempt, "{ip}");
        }
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        let text = "[guard]\nexempt = [\"everybody\"]\nusers = 33\nheld-rate = 0\n";
        let problems = Config::parse(text).unwrap_err();
        let said: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let expected = [
            "2:11: guard.exempt[0] = \"everybody\": not a network; write \"192.0.2.0/24\", \"2001:db8::/32\" or an address",
            "3:9: guard.users = 33: too large; write a whole number from 0 to 32",
            "4:13: guard.held-rate = 0: too small; write a whole number from 1 to 1000",
        ];
        assert_eq!(said, expected);
    }
}
