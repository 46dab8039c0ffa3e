//! Where names lead (RFC 3263): one zone behind both servers, the same requests to both, and what arrives at the servers of the names.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use portcullis_testkit::callee::{Callee, ok_to};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::messages::Message;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::zone::{ZONE, Zone};
use portcullis_testkit::{policy, wait};

/// Last parts of addresses in the lease of a test.
const KAMAILIO: u8 = 2;
const CALLER: u8 = 10;
const NAME_SERVER: u8 = 53;

/// The servers of the names: `s0` and so on in the zone. Each takes UDP and TCP on all of its ports.
const SERVERS: [(u8, &[u16]); 4] = [
    (20, &[5060, 5070]),
    (21, &[5071]),
    (22, &[5072]),
    (23, &[5073]),
];

/// A server that answers 503: `busy-server` in the zone.
const BUSY: (u8, u16) = (24, 5074);

/// The names below the zone, each with one question.
const RECORDS: &str = "\
    _sip._udp.weights SRV 10 60 5070 s0\n\
    _sip._udp.weights SRV 10 30 5071 s1\n\
    _sip._udp.weights SRV 10 10 5072 s2\n\
    _sip._udp.weights SRV 20 90 5073 s3\n\
    _sip._udp.zero SRV 10 0 5070 s0\n\
    _sip._udp.zero SRV 10 50 5071 s1\n\
    _sip._udp.zeros SRV 10 0 5070 s0\n\
    _sip._udp.zeros SRV 10 0 5071 s1\n\
    order NAPTR 10 50 \"s\" \"SIP+D2T\" \"\" _sip._tcp.order\n\
    order NAPTR 20 40 \"s\" \"SIP+D2U\" \"\" _sip._udp.order\n\
    _sip._udp.order SRV 10 10 5070 s0\n\
    _sip._tcp.order SRV 10 10 5071 s1\n\
    preference NAPTR 10 60 \"s\" \"SIP+D2U\" \"\" _sip._udp.preference\n\
    preference NAPTR 10 50 \"s\" \"SIP+D2T\" \"\" _sip._tcp.preference\n\
    _sip._udp.preference SRV 10 10 5070 s0\n\
    _sip._tcp.preference SRV 10 10 5071 s1\n\
    _sip._tcp.stream SRV 10 10 5071 s1\n\
    _sip._udp.busy SRV 10 10 5074 busy-server\n\
    _sip._udp.busy SRV 20 10 5070 s0\n";

/// Names that are addresses of `s0`, too.
const PLAIN: [&str; 2] = ["stream", "plain"];

const NAMES: [&str; 9] = [
    "weights",
    "zero",
    "zeros",
    "order",
    "preference",
    "stream",
    "plain",
    "busy",
    "none",
];

const CONFIG: &str = r#"#!KAMAILIO
debug=1
log_stderror=yes
children=2
auto_aliases=no
listen=udp:@ADDR@
listen=tcp:@ADDR@
#!ifdef RFC3263
use_dns_cache=on
use_dns_failover=on
dns_srv_lb=on
dns_try_naptr=yes
dns_naptr_ignore_rfc=no
dns_try_ipv6=no
#!endif
loadmodule "ctl.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
modparam("ctl", "binrpc", "unix:@FOLDER@/ctl")
request_route {
    t_relay();
}
"#;

/// What arrived: the number of the server, and the transport in the Via of the request.
type Arrived = BTreeMap<(usize, String), u64>;

/// Both servers, and what is behind them.
struct Both {
    host: Host,
    kamailio: SocketAddr,
    callees: Vec<(usize, Callee)>,
    // Dropped after those that ask.
    _process: Kamailio,
    _zone: Zone,
}

impl Both {
    fn start(defines: &[&str]) -> Self {
        let builder = Builder::new();
        let lease = builder.lease();
        let (server, kamailio) = (lease.addr(NAME_SERVER, 53), lease.addr(KAMAILIO, 5060));
        let mut records = RECORDS.to_owned();
        let mut callees = Vec::new();
        for (nth, (ip, ports)) in SERVERS.into_iter().enumerate() {
            records += &format!("s{nth} A {}\n", lease.ip(ip));
            for port in ports {
                callees.push((nth, Callee::start(lease.addr(ip, *port))));
            }
        }
        for name in PLAIN {
            records += &format!("{name} A {}\n", lease.ip(SERVERS[0].0));
        }
        records += &format!("busy-server A {}\n", lease.ip(BUSY.0));
        let busy = lease.addr(BUSY.0, BUSY.1);
        std::thread::spawn(move || refuse(busy));
        let zone = Zone::start(server, &records);
        let values = [("ADDR", kamailio.to_string())];
        let process = Kamailio::start_asking(server.ip(), CONFIG, &values, defines);
        let domains = NAMES.map(|name| format!("{name}.{ZONE}:*"));
        let host = builder
            .policy(policy("observe"))
            .set("relay", &format!("domains = {domains:?}"))
            .set("resolver", &format!("servers = [\"{server}\"]"))
            .set("resolver", "hosts-file = false")
            .set("resolver", "loopback = true")
            .start();
        Self {
            host,
            kamailio,
            callees,
            _process: process,
            _zone: zone,
        }
    }

    /// What arrives of this number of requests to a URI, through the host and through Kamailio. Each request is answered 200.
    fn ask(&self, uri: &str, count: u64) -> [Arrived; 2] {
        [self.host.sip(), self.kamailio].map(|server| {
            let mut caller = Caller::udp(self.host.lease().ip(CALLER), server);
            for _ in 0..count {
                let request = caller.request("MESSAGE", uri);
                assert_eq!(caller.ask(&request).code(), 200, "{uri} through {server}");
            }
            let mut arrived = Arrived::new();
            wait::until("the servers have noted the requests", || {
                for (nth, callee) in &self.callees {
                    while let Some(request) = callee.taken() {
                        *arrived.entry((*nth, transport_of(&request))).or_default() += 1;
                    }
                }
                (arrived.values().sum::<u64>() >= count).then_some(())
            });
            arrived
        })
    }

    /// The codes of the answers to one request to a URI, from the host and from Kamailio.
    fn codes(&self, uri: &str) -> [u16; 2] {
        [self.host.sip(), self.kamailio].map(|server| {
            let mut caller = Caller::udp(self.host.lease().ip(CALLER), server);
            let request = caller.request("MESSAGE", uri);
            caller.ask(&request).code()
        })
    }
}

/// Answers each request over UDP with 503.
fn refuse(addr: SocketAddr) {
    let socket = UdpSocket::bind(addr).expect("the address of the busy server is free");
    let mut buffer = [0; 4_096];
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        let answer = ok_to(&Message::new(buffer[..n].to_vec()), addr);
        let answer = String::from_utf8_lossy(&answer).replacen("200 OK", "503 Busy", 1);
        let _sent = socket.send_to(answer.as_bytes(), from);
    }
}

fn transport_of(request: &Message) -> String {
    let via = request.header("Via").unwrap_or_default();
    let protocol = via.split_whitespace().next().unwrap_or_default();
    protocol.rsplit('/').next().unwrap_or_default().to_owned()
}

fn uri(name: &str) -> String {
    format!("sip:bob@{name}.{ZONE}")
}

/// All requests at one server.
fn all_at(server: usize, transport: &str, count: u64) -> Arrived {
    [((server, transport.to_owned()), count)].into()
}

/// How far the counts of the first servers are from these shares: chi-square.
fn distance(arrived: &Arrived, shares: &[f64]) -> f64 {
    let total = arrived.values().sum::<u64>() as f64;
    let each = shares.iter().enumerate().map(|(nth, share)| {
        let counted = arrived.get(&(nth, "UDP".to_owned()));
        let counted = counted.copied().unwrap_or_default() as f64;
        (counted - total * share).powi(2) / (total * share)
    });
    each.sum()
}

#[test]
fn peers_names_lead_where_kamailio_sends_requests() {
    let both = Both::start(&["RFC3263"]);
    for (uri, expected) in [
        (uri("zero"), all_at(1, "UDP", 20)),
        (uri("order"), all_at(1, "TCP", 20)),
        (uri("order") + ";transport=udp", all_at(0, "UDP", 20)),
        (uri("preference"), all_at(1, "TCP", 20)),
        (uri("stream"), all_at(1, "TCP", 20)),
        (uri("stream") + ";transport=tcp", all_at(1, "TCP", 20)),
        (uri("plain"), all_at(0, "UDP", 20)),
        (uri("plain") + ":5070", all_at(0, "UDP", 20)),
        (uri("plain") + ":5070;transport=tcp", all_at(0, "TCP", 20)),
    ] {
        let [ours, theirs] = both.ask(&uri, 20);
        assert_eq!(ours, expected, "{uri}");
        assert_eq!(theirs, expected, "{uri}");
    }
    // The server with the other priority gets nothing. Chi-square with two degrees of freedom exceeds 28 once in a million runs.
    for arrived in both.ask(&uri("weights"), 600) {
        let servers: Vec<_> = arrived.keys().map(|(server, _)| *server).collect();
        assert_eq!(servers, [0, 1, 2], "{arrived:?}");
        let far = distance(&arrived, &[0.6, 0.3, 0.1]);
        assert!(far < 28.0, "{arrived:?} are {far:.1} from the weights");
    }
    let [ours, theirs] = both.ask(&uri("busy"), 1);
    assert_eq!(ours, all_at(0, "UDP", 1));
    assert_eq!(theirs, all_at(0, "UDP", 1));
}

/// The differences that docs/from-kamailio.md names.
#[test]
fn peers_names_lead_elsewhere_only_where_the_documentation_says_so() {
    let both = Both::start(&["RFC3263"]);
    // Servers without weights share requests; Kamailio takes one of them.
    let [ours, theirs] = both.ask(&uri("zeros"), 60);
    assert_eq!(ours.len(), 2, "{ours:?}");
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    assert_eq!(both.codes(&uri("none")), [503, 478]);

    // Kamailio without its parameters for names: no NAPTR, one server for all requests, no other server after a 503.
    let both = Both::start(&[]);
    let [ours, theirs] = both.ask(&uri("weights"), 60);
    assert!(ours.len() >= 2, "{ours:?}");
    assert_eq!(theirs.len(), 1, "{theirs:?}");
    let [ours, theirs] = both.ask(&uri("order"), 20);
    assert_eq!(ours, all_at(1, "TCP", 20));
    assert_eq!(theirs, all_at(0, "UDP", 20));
    let [ours, theirs] = both.ask(&uri("stream"), 20);
    assert_eq!(ours, all_at(1, "TCP", 20));
    assert_eq!(theirs, all_at(0, "UDP", 20));
    assert_eq!(both.codes(&uri("busy")), [200, 500]);
}
