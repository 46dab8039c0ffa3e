//! `[nat]`: clients that are reached by the flow that they opened, such as phones behind NAT.

use std::time::Duration;

use super::listen::Listen;
use super::problem::Bad;
use super::section::Section;
use super::socket::Socket;
use super::value::{count, duration, group};

/// Clients that are reached by the flow that they opened (RFC 5626).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// Listen addresses whose peers are clients, except for the hosts of next hops and domains.
    pub clients: Vec<Listen>,
    /// Groups of the address table whose addresses are those of clients, on all listen addresses.
    pub client_groups: Vec<u32>,
    /// How long the host accepts a flow token.
    pub flow_lifetime: Duration,
    /// Whether the host answers STUN on its UDP listen addresses.
    pub stun: bool,
    /// Within which time clients over TCP and TLS that use outbound are to send keep-alives; zero: no interval is announced.
    pub flow_timer: Duration,
    /// How often registered clients over UDP are pinged; zero: they are not.
    pub ping: Duration,
    /// Most flows that are pinged.
    pub pinged_flows: usize,
}

/// A week: longer than any registration lasts.
const FLOW_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The longest time after which clients send keep-alives over streams without an announced interval (RFC 5626 §4.4.1).
const FLOW_TIMER: Duration = Duration::from_secs(120);
const SHORTEST_FLOW_TIMER: Duration = Duration::from_secs(10);
const LONGEST_FLOW_TIMER: Duration = Duration::from_secs(3_600);

const LONGEST_PING: Duration = Duration::from_secs(3_600);
const SHORTEST_PING: Duration = Duration::from_secs(1);

impl NatConfig {
    /// Whether the peers of this listen address are clients.
    pub fn has_clients(&self, socket: &Socket) -> bool {
        self.clients.iter().any(|one| socket.is_of(one))
    }
}

impl Default for NatConfig {
    fn default() -> Self {
        Self {
            clients: Vec::new(),
            client_groups: Vec::new(),
            flow_lifetime: FLOW_LIFETIME,
            stun: true,
            flow_timer: FLOW_TIMER,
            ping: Duration::ZERO,
            pinged_flows: 100_000,
        }
    }
}

pub(super) fn read(mut section: Section<'_>, default: NatConfig, listen: &[Listen]) -> NatConfig {
    let read = NatConfig {
        clients: section.list("clients", default.clients, |value| {
            let one = Listen::parse(value.text()?)?;
            if !listen.iter().any(|listen| listen.may_cover(&one)) {
                return Err(Bad::new("not one of `listen`", "write it as in `listen`"));
            }
            Ok(one)
        }),
        client_groups: section.list("client-groups", default.client_groups, group),
        flow_lifetime: section.value("flow-lifetime", default.flow_lifetime, |v| {
            duration(
                v,
                Duration::from_secs(60),
                Duration::from_secs(365 * 24 * 3_600),
            )
        }),
        stun: section.value("stun", default.stun, |v| v.boolean()),
        flow_timer: section.value("flow-timer", default.flow_timer, |v| {
            none_or_from(
                SHORTEST_FLOW_TIMER,
                duration(v, Duration::ZERO, LONGEST_FLOW_TIMER)?,
            )
        }),
        ping: section.value("ping", default.ping, |v| {
            none_or_from(SHORTEST_PING, duration(v, Duration::ZERO, LONGEST_PING)?)
        }),
        pinged_flows: section.value("pinged-flows", default.pinged_flows, |v| {
            count(v, 1, 1_000_000)
        }),
    };
    let has_datagrams = listen.iter().any(|one| !one.transport.is_reliable());
    if !read.ping.is_zero() && !has_datagrams {
        let mend = "add one, or remove the key: only clients over UDP are pinged";
        section.reject("ping", Bad::new("no udp address in `listen`", mend));
    }
    section.finish();
    read
}

fn none_or_from(shortest: Duration, time: Duration) -> Result<Duration, Bad> {
    match time.is_zero() || time >= shortest {
        true => Ok(time),
        false => Err(Bad::new(
            "too short",
            format!("write a time from {shortest:?}, or \"0s\" for none"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::Config;

    #[test]
    fn clients_are_peers_of_listen_addresses() {
        let config = Config::parse(
            "listen = [\"udp:0.0.0.0:5060\", \"tcp:127.0.0.1:5060\"]\n[nat]\nclients = [\"udp:192.0.2.1:5060\"]\n\
             client-groups = [300]\nflow-lifetime = \"2h\"\nstun = false\nflow-timer = \"90s\"\n",
        )
        .unwrap();
        let nat = config.nat;
        assert_eq!((&nat.client_groups[..], nat.stun), (&[300][..], false));
        assert_eq!(nat.flow_lifetime.as_secs(), 7_200);
        assert_eq!(nat.flow_timer.as_secs(), 90);
        let has_clients = |text| {
            let listen = crate::Listen::parse(text).unwrap();
            nat.has_clients(&crate::Socket::of(&listen).unwrap()[0])
        };
        assert!(has_clients("udp:192.0.2.1:5060"));
        assert!(!has_clients("udp:192.0.2.2:5060"));
        assert!(!has_clients("tcp:127.0.0.1:5060"));
    }

    #[test]
    fn a_flow_timer_is_off_or_long_enough_for_a_keep_alive() {
        let off = Config::parse("[nat]\nflow-timer = \"0s\"\n").unwrap();
        assert!(off.nat.flow_timer.is_zero());
        let problems = Config::parse("[nat]\nflow-timer = \"5s\"\n").unwrap_err();
        assert_eq!(
            problems[0].to_string(),
            "2:14: nat.flow-timer = \"5s\": too short; write a time from 10s, or \"0s\" for none"
        );
    }

    #[test]
    fn clients_are_pinged_only_if_the_file_says_so_and_where_pings_can_be_sent() {
        assert!(Config::default().nat.ping.is_zero());
        let nat = Config::parse("[nat]\nping = \"25s\"\npinged-flows = 500\n")
            .unwrap()
            .nat;
        assert_eq!((nat.ping.as_secs(), nat.pinged_flows), (25, 500));
        let first = |text: &str| Config::parse(text).unwrap_err()[0].to_string();
        assert_eq!(
            first("[nat]\nping = \"10ms\"\n"),
            "2:8: nat.ping = \"10ms\": too short; write a time from 1s, or \"0s\" for none"
        );
        assert_eq!(
            first("listen = [\"tcp:127.0.0.1:5060\"]\n[nat]\nping = \"25s\"\n"),
            "3:8: nat.ping = \"25s\": no udp address in `listen`; add one, or remove the key: only clients over UDP are pinged"
        );
        let stateless = first("[relay]\nmode = \"stateless\"\n[nat]\nping = \"25s\"\n");
        let mend = "`ping` is not possible with `mode = \"stateless\"` in [relay]; remove one of both: only a \
                    transaction knows whether a registration was accepted";
        assert!(
            stateless.starts_with("3:") && stateless.ends_with(mend),
            "{stateless}"
        );
    }

    #[test]
    fn clients_of_another_address_are_refused() {
        let problems = Config::parse("[nat]\nclients = [\"udp:192.0.2.1:5060\"]\n").unwrap_err();
        assert_eq!(
            problems[0].to_string(),
            "2:12: nat.clients[0] = \"udp:192.0.2.1:5060\": not one of `listen`; write it as in `listen`"
        );
    }
}
