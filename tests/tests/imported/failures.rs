//! Failure routes: policies made of them try the targets that Kamailio tries, and answer as Kamailio does.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis_testkit::host::Builder;
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::messages::Request;
use portcullis_testkit::peer::branch_of;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::wait;
use tempfile::NamedTempFile;

use super::{compiled, configuration};

/// A call: the user of the request URI, and what the target on each port answers: "5062=180,486". A target that is not named is silent.
pub(super) type Call<'c> = (&'c str, &'c str);

const FAILOVER: &[Call<'static>] = &[
    // The first target answers; each code has its own branch in the failure route.
    ("bob", "5062=200"),
    ("bob", "5062=503 5064=200"),
    ("bob", "5062=500 5064=486"),
    ("bob", "5062=486 5066=200"),
    ("bob", "5062=180,486 5066=180,200"),
    ("bob", "5062=401"),
    ("bob", "5062=403"),
    ("bob", "5062=404"),
    ("bob", "5062=302"),
    ("bob", "5062=480"),
    // The first target is silent, or rings too long.
    ("bob", "5064=200"),
    ("bob", "5062=180 5064=200"),
    ("patient", "5064=200"),
    // The second failure route.
    ("bob", "5062=503 5064=500 5066=200"),
    ("bob", "5062=503 5064=404 5066=486"),
    ("bob", "5062=503 5064=503"),
    ("bob", "5062=486 5066=404"),
    ("bob", "5064=486"),
    ("bob", "5062=503"),
    // A relay without a failure route.
    ("once", "5062=503 5064=200"),
    // No target is named: the request goes where its URI leads.
    ("as-routed", "5060=200"),
    ("as-routed", "5060=486"),
    ("as-routed", "5060=302"),
    ("as-routed", "5060=404"),
];

const FORK: &[Call<'static>] = &[
    ("three", "5060=180 5062=180 5064=200"),
    ("three", "5060=486 5062=503 5064=486"),
    ("three", "5060=503 5062=503 5064=503 5066=200"),
    ("kept", "5062=486 5064=200"),
    ("kept", "5062=503 5064=503 5066=200"),
    ("at", "5060=200 5062=180"),
    ("at", "5060=503 5062=503 5066=486"),
    ("other", "5060=503 5066=200"),
    ("other", "5060=486 5066=200"),
];

/// How long targets may take to note a request that was sent to them. Reached only by a test that fails.
const SETTLING: Duration = Duration::from_secs(5);

const PORTS: [u16; 5] = [5060, 5062, 5064, 5066, 5068];

/// A request that came to a target: its port, the request URI and the values of `X-Way`.
pub(super) type Try = (u16, String, Vec<String>);

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) code: u16,
    /// Of a response that the script, or a target, has written.
    reason: Option<String>,
    retry_after: Option<String>,
    /// A request that a server repeats counts once; targets of the same time have no order.
    pub(super) tries: BTreeSet<Try>,
}

/// Targets on one address, each on a port of its own, which answer what the header field `X-Answers` of a request says.
struct Targets {
    seen: Arc<Mutex<Vec<(String, Try)>>>,
}

impl Targets {
    fn start(ip: IpAddr) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        for port in PORTS {
            let socket = UdpSocket::bind((ip, port)).expect("the address of a target is free");
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || serve(&socket, port, &seen));
        }
        Self { seen }
    }

    /// What came to the targets of this request, which [`request`] has made.
    fn tries(&self, request: &Request) -> BTreeSet<Try> {
        let seen = self.seen.lock().expect("no thread has panicked");
        let is_of_request = |call: &str| request.extra.contains(&format!("X-Call: {call}"));
        let seen = seen.iter().filter(|(call, _)| is_of_request(call));
        seen.map(|(_, seen)| seen.clone()).collect()
    }
}

fn serve(socket: &UdpSocket, port: u16, seen: &Mutex<Vec<(String, Try)>>) {
    let mut buffer = vec![0; 65_536];
    let mut invites = HashMap::new();
    while let Ok((n, peer)) = socket.recv_from(&mut buffer) {
        let request = Message::new(buffer[..n].to_vec());
        let branch = branch_of(&request).to_owned();
        if request.first_word() == "CANCEL" {
            let cancelled = invites.get(&branch).map(|invite| response(invite, 487));
            for answer in [Some(response(&request, 200)), cancelled]
                .into_iter()
                .flatten()
            {
                let _sent = socket.send_to(&answer, peer);
            }
        }
        if request.first_word() != "INVITE" {
            continue;
        }
        let uri = request.start_line().split(' ').nth(1);
        let ways = request.headers("X-Way").into_iter().map(str::to_owned);
        let arrived = (port, uri.unwrap_or_default().to_owned(), ways.collect());
        let call = request.header("X-Call").unwrap_or_default().to_owned();
        if let Ok(mut seen) = seen.lock() {
            seen.push((call, arrived));
        }
        for code in answers(&request, port) {
            let _sent = socket.send_to(&response(&request, code), peer);
        }
        invites.insert(branch, request);
    }
}

/// What the target on this port answers.
fn answers(request: &Message, port: u16) -> Vec<u16> {
    let answers = request.header("X-Answers").unwrap_or_default();
    let own = answers.split(' ').find_map(|part| {
        let (of, codes) = part.split_once('=')?;
        (of == port.to_string()).then_some(codes)
    });
    let codes = own.into_iter().flat_map(|codes| codes.split(','));
    codes.filter_map(|code| code.parse().ok()).collect()
}

fn response(request: &Message, code: u16) -> Vec<u8> {
    let mut text = format!("SIP/2.0 {code} From the target\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in request.headers(name) {
            let tag = if name == "To" { ";tag=target" } else { "" };
            text.push_str(&format!("{name}: {value}{tag}\r\n"));
        }
    }
    text.push_str("Contact: <sip:target@127.0.0.1>\r\nContent-Length: 0\r\n\r\n");
    text.into_bytes()
}

/// The request of a call. `X-Call` tells its requests at the targets from those of other calls.
pub(super) fn request(caller: &Caller, ip: IpAddr, (user, answers): Call<'_>) -> Request {
    let request = caller.request("INVITE", &format!("sip:{user}@{ip}:5060"));
    let call = format!("X-Call: {}", request.call_id);
    request
        .header(&format!("X-Answers: {answers}"))
        .header(&call)
}

/// Makes the call, and acknowledges its final response. Returns its outcome, without the tries.
fn outcome(caller: &mut Caller, request: &Request) -> Outcome {
    caller.send(&request.bytes());
    let last = wait::until("a final response comes", || {
        let response = caller.receive();
        (response.code() >= 200).then_some(response)
    });
    if last.code() >= 300 {
        caller.send(&request.ack_for(&last).bytes());
    }
    let reason = last.start_line().splitn(3, ' ').nth(2).map(str::to_owned);
    // Each server has its own words for what it says itself, and a 503 of a target becomes a 500.
    let is_written = !matches!(last.code(), 408 | 500);
    Outcome {
        code: last.code(),
        reason: reason.filter(|_| is_written),
        retry_after: last.header("Retry-After").map(str::to_owned),
        tries: BTreeSet::new(),
    }
}

/// A host and Kamailio with the same routing logic, in front of the same targets.
pub(super) struct Servers {
    host: portcullis_testkit::host::Host,
    listen: SocketAddr,
    pub(super) ip: IpAddr,
    targets: Targets,
    _kamailio: Kamailio,
    _list: NamedTempFile,
}

impl Servers {
    fn start(name: &str) -> Self {
        Self::start_with_sets(name, "")
    }

    /// The same, with these rows of the dispatcher, in which `@IP@` is the address of the targets. Failures of requests have no effect on the
    /// states of gateways: Kamailio does not count them.
    pub(super) fn start_with_sets(name: &str, rows: &str) -> Self {
        let builder = Builder::new();
        let lease = builder.lease();
        let (listen, ip) = (lease.addr(4, 5060), lease.ip(5));
        let list = NamedTempFile::new().expect("a temporary file can be made");
        let rows = rows.replace("@IP@", &ip.to_string());
        std::fs::write(list.path(), rows).expect("the list can be written");
        let host = builder
            .policy(compiled(name))
            .set("relay", &format!("domains = [\"{ip}:*\"]"))
            .set("relay", "ring = \"2s\"")
            .set("dispatcher", &format!("file = {:?}", list.path()))
            .set("dispatcher", "ping = \"0s\"")
            .set("dispatcher", "passive = false")
            .start();
        let kamailio = Kamailio::start(
            &std::fs::read_to_string(configuration(name)).expect("the configuration"),
            &[
                ("LISTEN", listen.to_string()),
                ("LIST", list.path().display().to_string()),
            ],
            &[],
        );
        Self {
            host,
            listen,
            ip,
            targets: Targets::start(ip),
            _kamailio: kamailio,
            _list: list,
        }
    }

    /// The outcomes of a call through the host and through Kamailio.
    fn both(&self, call: Call<'_>) -> [Outcome; 2] {
        self.both_of(|caller| request(caller, self.ip, call))
    }

    /// The same for the requests that `build` makes of [`request`].
    pub(super) fn both_of(&self, build: impl Fn(&Caller) -> Request) -> [Outcome; 2] {
        let mut callers = [self.host.udp(10), self.host.udp(10)];
        callers[1].turn_to(self.listen);
        let requests = callers.each_ref().map(build);
        let [our_caller, their_caller] = &mut callers;
        let mut ours = outcome(our_caller, &requests[0]);
        let mut theirs = outcome(their_caller, &requests[1]);
        // A call can end before all of its targets have got the request.
        let tries = || {
            requests
                .each_ref()
                .map(|request| self.targets.tries(request))
        };
        let same = wait::within(SETTLING, || {
            let [ours, theirs] = tries();
            (ours == theirs).then_some([ours, theirs])
        });
        [ours.tries, theirs.tries] = same.unwrap_or_else(tries);
        [ours, theirs]
    }
}

/// Makes all calls through both servers.
fn compare(name: &str, calls: &[Call<'_>]) {
    let servers = Servers::start(name);
    for call in calls {
        let [ours, theirs] = servers.both(*call);
        assert_eq!(
            ours, theirs,
            "{name}: {call:?}, with Kamailio's on the right"
        );
    }
    assert_eq!(servers.host.complaints(), Vec::<String>::new());
}

#[test]
fn peers_imported_failure_routes_try_what_kamailio_tries() {
    compare("failover", FAILOVER);
}

#[test]
fn peers_imported_forks_try_what_kamailio_tries() {
    compare("fork", FORK);
}

/// A code from 600 on ends the search (RFC 3261 §16.7), and a failure route of Kamailio may go on.
#[test]
fn peers_imported_failure_routes_are_not_called_after_a_code_from_600_on() {
    let servers = Servers::start("failover");
    let [ours, theirs] = servers.both(("bob", "5064=603"));
    assert_eq!((ours.code, theirs.code), (603, 504));
    assert_eq!(ours.tries, theirs.tries);
}

/// The sender of a call that is cancelled gets 487, and no failure route changes that.
#[test]
fn peers_imported_failure_routes_end_with_a_cancel() {
    let servers = Servers::start("failover");
    for listen in [servers.host.sip(), servers.listen] {
        let mut caller = servers.host.udp(10);
        caller.turn_to(listen);
        let request = request(&caller, servers.ip, ("bob", "5062=180"));
        caller.send(&request.bytes());
        assert_eq!(caller.receive().code(), 180);
        caller.send(&request.cancel().bytes());
        let mut codes = Vec::new();
        wait::until("the call ends", || {
            let response = caller.receive();
            codes.push((response.code(), response.header("CSeq").map(str::to_owned)));
            codes.iter().any(|(code, _)| *code == 487).then_some(())
        });
        let tries = servers.targets.tries(&request);
        assert_eq!(tries.len(), 1, "{listen}: {tries:?}");
    }
}
