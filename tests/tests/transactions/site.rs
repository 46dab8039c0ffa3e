//! Where a scenario takes place: a proxy under test, and addresses for its peers.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::thread;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::lease::Lease;
use portcullis_testkit::messages::{Message, Request, Transport};
use portcullis_testkit::oracle::exceptions::Exception;
use portcullis_testkit::peer::{Peer, Seen, method_of};
use portcullis_testkit::{policy, wait};

/// Last parts of the addresses of callers, callees and Kamailio in a lease.
const CALLERS: u8 = 10;
const CALLEES: u8 = 3;
const KAMAILIO: u8 = 2;

/// A proxy under test, and where its peers are. It relays each request to its request URI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Where the proxy listens.
    pub(crate) proxy: SocketAddr,
    callers: IpAddr,
    callees: IpAddr,
    /// The transport of callers.
    pub(crate) up: Transport,
    /// The transport of callees.
    pub(crate) down: Transport,
}

/// What a scenario has shown to its peers: what is compared between proxies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Final status codes at the caller for its first request, without repetitions.
    pub(crate) finals: Vec<u16>,
    /// Final status codes to its CANCEL, without repetitions.
    pub(crate) to_cancel: Vec<u16>,
    /// CANCELs at the callee.
    pub(crate) cancels: usize,
    /// ACKs at the callee.
    pub(crate) acks: usize,
    /// Provisional status codes at the caller, without repetitions.
    pub(crate) provisionals: Vec<u16>,
    /// Copies of the first request at the callee, in a scenario that counts them.
    pub(crate) copies: Option<usize>,
}

/// A scenario of the oracle.
pub(crate) type Scenario = fn(&Site) -> Summary;

/// A scenario that runs through the host and through Kamailio.
pub(crate) struct Compared {
    name: &'static str,
    ours: Scenario,
    theirs: Scenario,
    exception: Option<&'static Exception>,
    change: Option<Change>,
}

/// Makes of what Kamailio does what the host does.
type Change = fn(&mut Summary);

impl Compared {
    /// Both do the same.
    pub(crate) const fn same(name: &'static str, scenario: Scenario) -> Self {
        Self {
            name,
            ours: scenario,
            theirs: scenario,
            exception: None,
            change: None,
        }
    }

    /// With Kamailio, the scenario takes other steps, because of this exception.
    pub(crate) const fn with_kamailio(
        self,
        exception: &'static Exception,
        theirs: Scenario,
    ) -> Self {
        Self {
            theirs,
            exception: Some(exception),
            ..self
        }
    }

    /// With Kamailio, peers see something else, because of this exception.
    pub(crate) const fn except(self, exception: &'static Exception, change: Change) -> Self {
        Self {
            exception: Some(exception),
            change: Some(change),
            ..self
        }
    }
}

impl Site {
    /// Starts a host whose peers use UDP.
    pub(crate) fn host() -> (Host, Self) {
        let host = builder(Builder::new()).start();
        let site = Self::of(&host);
        (host, site)
    }

    /// The site of a host that [`builder`] has configured, with peers over UDP.
    pub(crate) fn of(host: &Host) -> Self {
        Self::new(host.sip(), host.lease())
    }

    /// Starts Kamailio in the network of a lease.
    pub(crate) fn kamailio(lease: &Lease) -> (Kamailio, Self) {
        Self::kamailio_with(lease, &[], &[])
    }

    /// The same with further values and parts of its configuration.
    pub(crate) fn kamailio_with(
        lease: &Lease,
        values: &[(&str, String)],
        defines: &[&str],
    ) -> (Kamailio, Self) {
        let listen = lease.addr(KAMAILIO, 5060);
        let values = [values, &[("LISTEN", listen.to_string())]].concat();
        let kamailio = Kamailio::start(include_str!("kamailio.cfg"), &values, defines);
        (kamailio, Self::new(listen, lease))
    }

    fn new(proxy: SocketAddr, lease: &Lease) -> Self {
        Self {
            proxy,
            callers: lease.ip(CALLERS),
            callees: lease.ip(CALLEES),
            up: Transport::Udp,
            down: Transport::Udp,
        }
    }

    /// The same proxy with peers over these transports.
    pub(crate) fn over(self, up: Transport, down: Transport) -> Self {
        Self { up, down, ..self }
    }

    /// The same host at another of its addresses, with peers on this address.
    pub(crate) fn at(self, proxy: SocketAddr, peers: IpAddr) -> Self {
        Self {
            proxy,
            callers: peers,
            callees: peers,
            ..self
        }
    }

    /// A new caller.
    pub(crate) fn caller(&self) -> Peer {
        Peer::over(self.up, self.callers)
    }

    /// A new callee.
    pub(crate) fn callee(&self) -> Peer {
        Peer::over(self.down, self.callees)
    }

    /// A caller that has sent this request to a callee, and the callee.
    pub(crate) fn start(&self, method: &str) -> (Peer, Peer, Request) {
        let (caller, callee) = (self.caller(), self.callee());
        let request = caller.request(method, &callee.uri());
        self.send(&caller, &request);
        (caller, callee, request)
    }

    /// Sends a request of a caller.
    pub(crate) fn send(&self, caller: &Peer, request: &Request) {
        caller.send(&request.bytes(), self.proxy);
    }

    /// Acknowledges a failure (RFC 3261 §17.1.1.3).
    pub(crate) fn ack_failure(&self, caller: &Peer, invite: &Request, answer: &Seen) {
        self.send(caller, &invite.ack_for(&answer.message));
    }

    /// Acknowledges a 2xx.
    pub(crate) fn ack(&self, caller: &Peer, invite: &Request, answer: &Seen) {
        self.send(caller, &invite.within(&answer.message, "ACK", 0));
    }

    /// Ends a call by a BYE of the caller. Whatever the proxy has sent to the callee before has then arrived.
    pub(crate) fn hang_up(&self, caller: &Peer, callee: &Peer, invite: &Request, answer: &Seen) {
        let bye = invite.within(&answer.message, "BYE", invite.cseq + 1);
        self.send(caller, &bye);
        callee.answer(&callee.first_request("BYE"), 200);
        caller.first_response("BYE", 200);
    }

    /// Has the callee receive a further request. Whatever the proxy has sent to it before has then arrived, if both use one socket.
    pub(crate) fn settle(&self, caller: &Peer, callee: &Peer) {
        let options = caller.request("MESSAGE", &callee.uri());
        self.send(caller, &options);
        let is_it = |m: &Message| m.header("Call-ID") == Some(&options.call_id);
        let seen = callee.nth(0, "the last request", is_it);
        callee.answer(&seen, 200);
        caller.nth(0, "the last answer", |m| is_it(m) && m.code() == 200);
    }
}

impl Summary {
    /// What a caller and a callee have seen.
    pub(crate) fn of(caller: &Peer, callee: &Peer, invite: &Request) -> Self {
        let is_own = |m: &Message| m.header("Call-ID") == Some(&invite.call_id);
        let codes = |method: &str, range: Range<u16>| {
            let seen = caller.seen();
            let own = seen.iter().map(|seen| &seen.message);
            let own = own.filter(|m| is_own(m) && method_of(m) == method);
            let own = own.filter(|m| range.contains(&m.code()));
            let mut codes: Vec<_> = own.map(Message::code).collect();
            codes.dedup();
            codes
        };
        Self {
            finals: codes(&invite.method, 200..700),
            to_cancel: codes("CANCEL", 200..700),
            cancels: callee.times_of("CANCEL").len(),
            acks: callee.times_of("ACK").len(),
            provisionals: codes(&invite.method, 100..200),
            copies: None,
        }
    }
}

/// Has a host relay each request to its request URI in the network of its lease.
pub(crate) fn builder(builder: Builder) -> Builder {
    let network = builder.lease().ip(0);
    builder
        .policy(policy("observe"))
        .set("relay", &format!("domains = [\"{network}/24:*\"]"))
}

/// Waits until a host has no transaction in progress.
pub(crate) fn wait_until_idle(host: &Host) {
    wait::until("no transaction is in progress", || {
        (host.metric("portcullis_transactions_active", &[]) == 0.0).then_some(())
    });
}

/// Runs scenarios at the same time: most of their time they wait.
///
/// # Panics
/// If one fails, with its name.
pub(crate) fn at_once(site: &Site, scenarios: &[(&str, Scenario)]) -> Vec<Summary> {
    thread::scope(|scope| {
        let running: Vec<_> = scenarios
            .iter()
            .map(|(name, scenario)| (name, scope.spawn(move || scenario(site))))
            .collect();
        let mut summaries = Vec::new();
        let mut failed = Vec::new();
        for (name, running) in running {
            match running.join() {
                Ok(summary) => summaries.push(summary),
                Err(_) => failed.push(*name),
            }
        }
        assert!(failed.is_empty(), "these scenarios failed: {failed:?}");
        summaries
    })
}

/// Runs scenarios through the host and through Kamailio, and compares what the peers have seen.
pub(crate) fn compare(scenarios: &[Compared]) {
    let (host, ours) = Site::host();
    let (_kamailio, theirs) = Site::kamailio(host.lease());
    compare_between(&ours, &theirs, scenarios);
    wait_until_idle(&host);
}

/// The same between the sites of a host and of Kamailio.
pub(crate) fn compare_between(ours: &Site, theirs: &Site, scenarios: &[Compared]) {
    let of = |side: fn(&Compared) -> Scenario| -> Vec<_> {
        let each = scenarios.iter();
        each.map(|compared| (compared.name, side(compared)))
            .collect()
    };
    let (our, their) = (of(|c| c.ours), of(|c| c.theirs));
    let (ours, theirs) = thread::scope(|scope| {
        let ours = scope.spawn(|| at_once(ours, &our));
        let theirs = scope.spawn(|| at_once(theirs, &their));
        (ours.join(), theirs.join())
    });
    let (ours, theirs) = (ours.expect("see above"), theirs.expect("see above"));
    for ((compared, ours), mut theirs) in scenarios.iter().zip(ours).zip(theirs) {
        let name = compared.name;
        let exception = compared.exception.map(|exception| exception.name);
        if let Some(change) = compared.change {
            assert_ne!(ours, theirs, "{name}: {exception:?} makes no difference");
            change(&mut theirs);
        }
        assert_eq!(ours, theirs, "the host, and Kamailio: {name} {exception:?}");
    }
}
