//! Plans against zones.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_sip::{Candidate, Lookup, Transport};
use proptest::prelude::*;

use crate::query::{TTL_FAILED, TTL_NONE};
use crate::{Answer, Families, Found, Kind, Naptr, Plan, Query, Records, Settings, Srv};

const BOTH: [Transport; 2] = [Transport::Udp, Transport::Tcp];

/// The answers of a zone; what is not there does not exist.
#[derive(Default)]
struct Zone(BTreeMap<Query, Answer>);

impl Zone {
    fn with(mut self, kind: Kind, name: &str, records: Records) -> Self {
        let ttl = Duration::from_secs(300);
        let query = Query {
            name: name.to_owned(),
            kind,
        };
        self.0.insert(
            query,
            Answer::Found {
                records,
                ttl,
                stale: None,
            },
        );
        self
    }

    fn a(self, name: &str, ips: &[&str]) -> Self {
        self.with(Kind::A, name, addresses(ips))
    }

    fn aaaa(self, name: &str, ips: &[&str]) -> Self {
        self.with(Kind::Aaaa, name, addresses(ips))
    }

    /// Priority, weight, port, target.
    fn srv(self, name: &str, records: &[(u16, u16, u16, &str)]) -> Self {
        let records = records.iter().map(|&(priority, weight, port, target)| Srv {
            priority,
            weight,
            port,
            target: target.to_owned(),
        });
        self.with(Kind::Srv, name, Records::Srv(records.collect()))
    }

    /// Order, preference, service, replacement.
    fn naptr(self, name: &str, records: &[(u16, u16, &str, &str)]) -> Self {
        let records = records
            .iter()
            .map(|&(order, preference, service, replacement)| Naptr {
                order,
                preference,
                flags: "s".to_owned(),
                service: service.to_owned(),
                regexp: String::new(),
                replacement: replacement.to_owned(),
            });
        self.with(Kind::Naptr, name, Records::Naptr(records.collect()))
    }

    fn failing(mut self, kind: Kind, name: &str) -> Self {
        let query = Query {
            name: name.to_owned(),
            kind,
        };
        let failed = Answer::Failed {
            error: "SERVFAIL".to_owned(),
            ttl: TTL_FAILED,
        };
        self.0.insert(query, failed);
        self
    }

    fn resolve_with(&self, lookup: &Lookup, settings: Settings) -> Found {
        let mut plan = Plan::new(lookup, settings, &BOTH);
        for _ in 0..4 {
            let queries = plan.queries();
            if queries.is_empty() {
                return plan.found().expect("the plan is complete");
            }
            for query in queries {
                let none = Answer::None { ttl: TTL_NONE };
                let answer = self.0.get(&query).cloned().unwrap_or(none);
                plan.answer(&query, answer);
            }
        }
        panic!("more than three rounds");
    }

    fn resolve(&self, port: Option<u16>, transport: Option<Transport>) -> Found {
        let lookup = Lookup::of("example.com", port, transport);
        self.resolve_with(&lookup, Settings::default())
    }
}

fn addresses(ips: &[&str]) -> Records {
    Records::Addresses(ips.iter().map(|ip| ip.parse().unwrap()).collect())
}

fn shown(found: &Found) -> Vec<String> {
    let candidates = found.candidates.iter();
    candidates
        .map(|one| format!("{} {}", one.transport.parameter(), one.addr))
        .collect()
}

fn asked(found: &Found) -> Vec<String> {
    let steps = found.steps.iter();
    steps.map(|step| step.query.to_string()).collect()
}

#[test]
fn naptr_records_choose_the_transports_in_their_order() {
    let zone = Zone::default()
        .naptr(
            "example.com.",
            &[
                (90, 50, "SIP+D2U", "_sip._udp.example.com"),
                (50, 50, "SIP+D2T", "_sip._tcp.example.com"),
                (10, 50, "SIPS+D2T", "_sips._tcp.example.com"),
                (5, 1, "E2U+sip", "elsewhere.example"),
            ],
        )
        .srv("_sip._tcp.example.com.", &[(1, 1, 5070, "one.example.com")])
        .srv("_sip._udp.example.com.", &[(1, 1, 5080, "two.example.com")])
        .a("one.example.com.", &["192.0.2.1"])
        .a("two.example.com.", &["192.0.2.2"]);
    let found = zone.resolve(None, None);
    assert_eq!(shown(&found), ["tcp 192.0.2.1:5070", "udp 192.0.2.2:5080"]);
    let orders: Vec<_> = found.candidates.iter().map(|one| one.order).collect();
    assert_eq!(orders, [0, 1]);
    assert_eq!(found.ttl, TTL_NONE, "there are no AAAA records");
}

#[test]
fn without_naptr_records_the_transports_of_the_host_are_tried() {
    let zone = Zone::default()
        .srv(
            "_sip._tcp.example.com.",
            &[
                (20, 5, 5062, "b.example.com"),
                (10, 5, 5061, "a.example.com"),
            ],
        )
        .a("a.example.com.", &["192.0.2.1"])
        .a("b.example.com.", &["192.0.2.2"]);
    let found = zone.resolve(None, None);
    assert_eq!(shown(&found), ["tcp 192.0.2.1:5061", "tcp 192.0.2.2:5062"]);
    assert_eq!(
        asked(&found)[..3],
        [
            "NAPTR example.com.",
            "SRV _sip._tcp.example.com.",
            "SRV _sip._udp.example.com."
        ]
    );
}

#[test]
fn a_transport_in_the_uri_needs_no_naptr_and_a_port_no_srv() {
    let zone = Zone::default()
        .srv("_sip._udp.example.com.", &[(1, 1, 5070, "one.example.com")])
        .a("one.example.com.", &["192.0.2.1"])
        .a("example.com", &["192.0.2.9"]);
    let udp = zone.resolve(None, Some(Transport::Udp));
    assert_eq!(shown(&udp), ["udp 192.0.2.1:5070"]);
    assert_eq!(asked(&udp)[0], "SRV _sip._udp.example.com.");
    let tcp = zone.resolve(None, Some(Transport::Tcp));
    assert_eq!(shown(&tcp), ["tcp 192.0.2.9:5060"]);
    let port = zone.resolve(Some(5080), None);
    assert_eq!(asked(&port), ["A example.com", "AAAA example.com"]);
    assert_eq!(
        shown(&port),
        ["udp 192.0.2.9:0"],
        "the port is that of the URI"
    );
}

#[test]
fn a_uri_with_tls_follows_the_naptr_records_of_tls_only() {
    let hosted = Zone::default()
        .naptr(
            "example.com.",
            &[
                (10, 50, "SIP+D2U", "_sip._udp.example.com"),
                (20, 50, "SIPS+D2T", "_sips._tcp.provider.example"),
            ],
        )
        .srv(
            "_sips._tcp.provider.example.",
            &[(1, 1, 5071, "edge.provider.example")],
        )
        .srv("_sip._udp.example.com.", &[(1, 1, 5070, "one.example.com")])
        .a("edge.provider.example.", &["192.0.2.1"])
        .a("one.example.com.", &["192.0.2.2"]);
    let found = hosted.resolve(None, Some(Transport::Tls));
    assert_eq!(shown(&found), ["tls 192.0.2.1:5071"]);
    assert_eq!(
        asked(&found)[..2],
        ["NAPTR example.com.", "SRV _sips._tcp.provider.example."]
    );

    // Without such a record: `_sips._tcp`, then the name itself at port 5061.
    let plain = Zone::default()
        .naptr(
            "example.com.",
            &[(10, 50, "SIP+D2T", "_sip._tcp.example.com")],
        )
        .srv("_sip._tcp.example.com.", &[(1, 1, 5070, "one.example.com")])
        .a("one.example.com.", &["192.0.2.2"])
        .a("example.com", &["192.0.2.9"]);
    let found = plain.resolve(None, Some(Transport::Tls));
    assert_eq!(shown(&found), ["tls 192.0.2.9:5061"]);
    assert_eq!(asked(&found)[1], "SRV _sips._tcp.example.com.");
    let served = plain
        .srv(
            "_sips._tcp.example.com.",
            &[(1, 1, 5081, "one.example.com")],
        )
        .resolve(None, Some(Transport::Tls));
    assert_eq!(shown(&served), ["tls 192.0.2.2:5081"]);

    let without = Settings {
        naptr: false,
        ..Settings::default()
    };
    let lookup = Lookup::of("example.com", None, Some(Transport::Tls));
    let found = hosted.resolve_with(&lookup, without);
    assert_eq!(asked(&found)[0], "SRV _sips._tcp.example.com.");
}

#[test]
fn without_srv_records_the_name_itself_is_the_server() {
    let zone = Zone::default()
        .a("example.com", &["192.0.2.9", "192.0.2.8"])
        .aaaa(
            "example.com",
            &["2001:db8::2", "2001:db8::1", "2001:db8::3"],
        );
    assert_eq!(
        shown(&zone.resolve(None, None)),
        [
            "udp 192.0.2.8:5060",
            "udp [2001:db8::1]:5060",
            "udp 192.0.2.9:5060",
            "udp [2001:db8::2]:5060",
            "udp [2001:db8::3]:5060"
        ]
    );
    let found = zone.resolve_with(
        &Lookup::of("example.com", None, None),
        Settings {
            naptr: false,
            srv: false,
            families: Families::Ipv6,
            loopback: false,
        },
    );
    assert_eq!(asked(&found), ["AAAA example.com"]);
    assert_eq!(found.candidates.len(), 3);
}

#[test]
fn a_service_that_is_not_offered_leads_nowhere() {
    let zone = Zone::default()
        .srv("_sip._udp.example.com.", &[(0, 0, 0, ".")])
        .a("example.com", &["192.0.2.9"]);
    let found = zone.resolve(None, Some(Transport::Udp));
    assert_eq!(shown(&found), [""; 0]);
    assert_eq!(
        found.error().as_deref(),
        Some("it does not exist, or has no address")
    );
}

#[test]
fn an_error_names_the_query_that_failed() {
    let zone = Zone::default().failing(Kind::A, "example.com");
    let found = zone.resolve(Some(5060), None);
    assert_eq!(found.error().as_deref(), Some("A example.com: SERVFAIL"));
    assert_eq!(found.ttl, TTL_FAILED);
    // Some routers answer NAPTR and SRV queries with errors: the addresses still serve.
    let zone = Zone::default()
        .failing(Kind::Naptr, "example.com.")
        .failing(Kind::Srv, "_sip._udp.example.com.")
        .a("example.com", &["192.0.2.9"]);
    let found = zone.resolve(None, None);
    assert_eq!(shown(&found), ["udp 192.0.2.9:5060"]);
    assert_eq!((found.error(), found.ttl), (None, TTL_FAILED));
}

#[test]
fn the_zone_of_a_stranger_does_not_reach_this_machine() {
    let zone = Zone::default()
        .srv(
            "_sip._udp.example.com.",
            &[(1, 1, 6379, "inside.example.com"), (2, 1, 22, "localhost")],
        )
        .a("inside.example.com.", &["127.0.0.1", "169.254.169.254"])
        .a("localhost.", &["127.0.0.1"]);
    let found = zone.resolve(None, Some(Transport::Udp));
    // The name of a server does not make its address good.
    assert_eq!(shown(&found), [""; 0]);
}

#[test]
fn sixty_servers_are_used_and_a_thousand_are_cut() {
    let targets: Vec<String> = (0..1_000).map(|n| format!("s{n}.example.com")).collect();
    for (count, expected) in [(60, 60), (1_000, 64)] {
        let records: Vec<_> = (0_u16..)
            .zip(&targets[..count])
            .map(|(n, target)| (n, 1, 5060, target.as_str()))
            .collect();
        let mut zone = Zone::default().srv("_sip._udp.example.com.", &records);
        for (n, target) in targets[..count].iter().enumerate() {
            let ip = format!("10.0.{}.{}", n / 250, n % 250 + 1);
            zone = zone.a(&format!("{target}."), &[&ip]);
        }
        let found = zone.resolve(None, Some(Transport::Udp));
        assert_eq!(found.candidates.len(), expected);
        let last = found.candidates.last().unwrap();
        assert_eq!(usize::from(last.priority), expected - 1, "the lowest stay");
    }
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "example.com.",
        "_sip._udp.example.com.",
        "_sip._tcp.example.com.",
        "a.example.com.",
        "b.example.com.",
        "localhost.",
        "example.com",
        ".",
        "",
    ])
    .prop_map(str::to_owned)
}

fn records() -> impl Strategy<Value = Records> {
    let naptr = (any::<u16>(), any::<u16>(), "[sSaAuU]?", name(), 0_u8..3).prop_map(
        |(order, preference, flags, replacement, service)| Naptr {
            order,
            preference,
            flags,
            service: ["SIP+D2U", "sip+d2t", "SIPS+D2T"][usize::from(service)].to_owned(),
            regexp: String::new(),
            replacement,
        },
    );
    let srv = (any::<u16>(), any::<u16>(), any::<u16>(), name()).prop_map(
        |(priority, weight, port, target)| Srv {
            priority,
            weight,
            port,
            target,
        },
    );
    prop_oneof![
        prop::collection::vec(naptr, 0..80).prop_map(Records::Naptr),
        prop::collection::vec(srv, 0..80).prop_map(Records::Srv),
        prop::collection::vec(any::<[u8; 4]>(), 0..80)
            .prop_map(|ips| Records::Addresses(ips.into_iter().map(Into::into).collect())),
    ]
}

proptest! {
    /// A zone with any records, even of a type that was not asked for.
    #[test]
    fn every_zone_leads_to_a_bounded_result(
        zone in prop::collection::btree_map(
            (name(), prop::sample::select(Kind::ALL.to_vec())).prop_map(|(name, kind)| Query { name, kind }),
            (records(), 0_u64..10_000).prop_map(|(records, ttl)| Answer::Found {
                records,
                ttl: Duration::from_secs(ttl),
                stale: None,
            }),
            0..20,
        ),
        port in prop::option::of(any::<u16>()),
        transport in prop::option::of(prop::sample::select(BOTH.to_vec())),
    ) {
        let found = Zone(zone).resolve(port, transport);
        prop_assert!(found.candidates.len() <= 128);
        let is_usable = |one: &Candidate| {
            !one.ip().is_loopback() && !one.ip().is_multicast() && !one.ip().is_unspecified()
        };
        prop_assert!(found.candidates.iter().all(is_usable));
        prop_assert!(found.candidates.is_empty() == found.error().is_some());
        let orders: Vec<_> = found.candidates.iter().map(|one| one.order).collect();
        prop_assert!(orders.is_sorted());
    }
}
