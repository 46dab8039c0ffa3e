//! `[transactions]`: limits of the transactions of a stateful proxy.

use std::time::Duration;

use portcullis_policy::Share;

use super::problem::Bad;
use super::section::{Section, Value};
use super::shape::Shape;
use super::value::{GIB, MIB, count, duration, share, size};

/// Limits of the transactions of a stateful proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionsConfig {
    /// Most transactions in progress, for each worker.
    pub active: usize,
    /// Most ended transactions that absorb retransmissions, for each worker.
    pub lingering: usize,
    /// Most bytes of stored messages, for the host.
    pub memory: u64,
    /// How full the table of a worker may be before each tenant is held to an equal part of it.
    pub unshared: Share,
    /// When the host relays responses of transactions that it does not know.
    pub adopt: Adopt,
    /// Most time for calls in set-up to end after SIGTERM, including `drain_notice`.
    pub drain: Duration,
    /// How long after SIGTERM the host still accepts new requests.
    pub drain_notice: Duration,
}

/// When a host relays responses that bring its seal back and belong to no transaction of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopt {
    /// For this time after its start: they belong to transactions of the process before it.
    For(Duration),
    /// Always: they belong to transactions of another host with the same addresses.
    Always,
}

/// The word for [`Adopt::Always`].
const ALWAYS: &str = "always";

/// 50 %.
const HALF: Share = match Share::of_hundredths(5_000) {
    Some(half) => half,
    None => Share::ALL,
};

impl Default for TransactionsConfig {
    fn default() -> Self {
        Self {
            active: 200_000,
            lingering: 1_000_000,
            memory: GIB,
            unshared: HALF,
            adopt: Adopt::For(Duration::from_secs(200)),
            drain: Duration::from_secs(30),
            drain_notice: Duration::from_secs(5),
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: TransactionsConfig) -> TransactionsConfig {
    let read = TransactionsConfig {
        active: section.value("active", default.active, |v| count(v, 1, 10_000_000)),
        lingering: section.value("lingering", default.lingering, |v| count(v, 1, 10_000_000)),
        memory: section.value("memory", default.memory, |v| size(v, MIB, 1024 * GIB)),
        unshared: section.value("unshared", default.unshared, share),
        adopt: section.value("adopt", default.adopt, adopt),
        drain: section.value("drain", default.drain, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(3_600))
        }),
        drain_notice: section.value("drain-notice", default.drain_notice, |v| {
            duration(v, Duration::ZERO, Duration::from_secs(3_600))
        }),
    };
    section.finish();
    read
}

fn adopt(value: Value<'_>) -> Result<Adopt, Bad> {
    if value.text().is_ok_and(|text| text == ALWAYS) {
        return Ok(Adopt::Always);
    }
    let time = duration(value, Duration::ZERO, Duration::from_secs(86_400));
    time.map(Adopt::For).map_err(|bad| {
        let shape = bad
            .shape
            .map(|time| Shape::Any(vec![time, Shape::OneOf(&[ALWAYS])]));
        Bad {
            mend: format!("{}, or \"{ALWAYS}\"", bad.mend),
            shape,
            ..bad
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn adopted(text: &str) -> Result<Adopt, String> {
        let text = format!("[transactions]\nadopt = {text}\n");
        match Config::parse(&text) {
            Ok(config) => Ok(config.transactions.adopt),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn answers_are_adopted_for_a_time_or_always() {
        assert_eq!(adopted("\"always\""), Ok(Adopt::Always));
        let time = |seconds| Ok(Adopt::For(Duration::from_secs(seconds)));
        assert_eq!(adopted("\"0s\""), time(0));
        assert_eq!(adopted("\"24h\""), time(86_400));
        for text in ["\"25h\"", "\"for ever\"", "200", "true"] {
            let told = adopted(text).unwrap_err();
            assert!(told.contains("or \"always\""), "{text}: {told}");
        }
    }

    #[test]
    fn the_examples_for_several_hosts_can_be_read() {
        for text in [
            include_str!("../../../contrib/keepalived/portcullis.toml"),
            include_str!("../../../contrib/dns-srv/portcullis.toml"),
        ] {
            let config = Config::parse(text).unwrap();
            assert_eq!(config.transactions.adopt, Adopt::Always);
            assert!(config.sip.key_file.is_some());
            let ports = config.listen.iter().map(|listen| listen.to_string());
            let ports: Vec<_> = ports.collect();
            assert_eq!(
                ports[0], "udp:192.0.2.11:5080",
                "the own address is the first"
            );
        }
    }
}
