//! Two hosts with one address between them, as two edges with VRRP: either may get any message of any call.

use std::fs::Permissions;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use tempfile::TempDir;

use crate::host::{Builder, Host};
use crate::messages::Request;
use crate::network::Segment;
use crate::peer::{Peer, Seen};
use crate::steady::T1;
use crate::{policy, wait};

/// A key of the fleet.
pub const KEY: &str = "000102030405060708090a0b0c0d0e0f";

/// Two running hosts on one segment. The first one has the shared address at the start.
#[derive(Debug)]
pub struct Pair {
    hosts: [Host; 2],
    segment: Segment,
    holder: usize,
    _keys: TempDir,
}

/// A call that rings.
#[derive(Debug)]
pub struct Ringing {
    caller: Peer,
    callee: Peer,
    invite: Request,
    /// The INVITE, as it came to the callee.
    arrived: Seen,
}

/// A call that is established.
#[derive(Debug)]
pub struct Call {
    rang: Ringing,
    /// The 200, as it came to the caller.
    answer: Seen,
}

impl Pair {
    /// Starts both with the same key and a configuration that differs in nothing but their own address. They relay each request to its request URI,
    /// if that is at [`Pair::outside`].
    pub fn start(configure: impl Fn(Builder) -> Builder + Sync) -> Self {
        Self::start_with([KEY, KEY], |_, builder| configure(builder))
    }

    /// Starts each with the lines of its key file, and its own configuration.
    ///
    /// # Panics
    /// Without the right to make networks.
    pub fn start_with(
        keys: [&str; 2],
        configure: impl Fn(usize, Builder) -> Builder + Sync,
    ) -> Self {
        let segment = Segment::new(2);
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let (network, callees) = (Segment::address(0), Segment::OUTSIDE);
        let hosts = [0, 1].map(|nth| {
            let file = folder.path().join(format!("seal{nth}.key"));
            std::fs::write(&file, keys[nth]).expect("a key file can be written");
            let only_owner = Permissions::from_mode(0o600);
            std::fs::set_permissions(&file, only_owner).expect("its mode can be set");
            segment.machine(nth).within(|| {
                let builder = Builder::new()
                    .workers(2)
                    .policy(policy("observe"))
                    // The own address first: what the host sends by itself needs no shared address.
                    .listen(&format!("udp:{}:5060", Segment::own(nth)))
                    .listen(&format!("udp:{}:5060", Segment::SHARED))
                    .set("sip", &format!("key-file = {file:?}"))
                    .set("guard", &format!("exempt = [\"{network}/24\"]"))
                    .set("relay", &format!("domains = [\"{callees}/32:*\"]"))
                    .set("log", "level = \"warn,policy=off\"");
                configure(nth, builder).start()
            })
        });
        segment.give_to(0);
        Self {
            hosts,
            segment,
            holder: 0,
            _keys: folder,
        }
    }

    /// Where both listen.
    pub fn shared() -> SocketAddr {
        SocketAddr::from((Segment::SHARED, 5060))
    }

    /// Where callees live, and callers may.
    pub fn outside() -> IpAddr {
        IpAddr::V4(Segment::OUTSIDE)
    }

    /// Where callers live that the hosts relay nothing to, except along the way that they came.
    pub fn phones() -> IpAddr {
        IpAddr::V4(Segment::PHONES)
    }

    /// A host.
    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// The number of the host that has the shared address.
    pub fn holder(&self) -> usize {
        self.holder
    }

    /// Gives the shared address to the other host. Both go on.
    pub fn move_address(&mut self) {
        self.holder = 1 - self.holder;
        self.segment.give_to(self.holder);
    }

    /// Takes the shared address away from both, for a program that gives it to one of them.
    pub fn take_address(&self) {
        self.segment.take();
    }

    /// Waits until this host, and no other one, has the shared address.
    ///
    /// # Panics
    /// If it does not get it.
    pub fn wait_for_address(&mut self, number: usize) {
        wait::until("the address has moved", || {
            let has = [0, 1].map(|nth| self.segment.has(nth));
            (has[number] && !has[1 - number]).then_some(())
        });
        self.holder = number;
    }

    /// Kills a host.
    pub fn kill(&mut self, number: usize) {
        self.hosts[number].signal("KILL");
        self.wait_until_ended(number);
    }

    /// Waits until a host has ended.
    pub fn wait_until_ended(&mut self, number: usize) {
        self.hosts[number].wait_until_ended();
    }

    /// Kills the host that has the shared address, and then gives the address to the other one.
    pub fn kill_holder(&mut self) {
        self.kill(self.holder);
        self.move_address();
    }

    /// The networks of the hosts.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// Starts a host again that has been killed, or has ended.
    pub fn start_again(&mut self, number: usize) {
        let Self { hosts, segment, .. } = self;
        let host = &mut hosts[number];
        segment.machine(number).within(|| host.kill_and_start());
    }

    /// Asks a host for something at its control port, which is in its own network.
    pub fn ask<T: Send>(&self, number: usize, ask: impl FnOnce(&Host) -> T + Send) -> T {
        let host = &self.hosts[number];
        self.segment.machine(number).within(|| ask(host))
    }

    /// The value of a metric of a host: see [`Host::metric`].
    pub fn metric(&self, number: usize, name: &str, labels: &[&str]) -> f64 {
        self.ask(number, |host| host.metric(name, labels))
    }

    /// Messages of this kind without a transaction that a host has received.
    pub fn unmatched(&self, number: usize, kind: &str) -> f64 {
        let label = format!("kind=\"{kind}\"");
        self.metric(number, "portcullis_unmatched_messages_total", &[&label])
    }
}

impl Ringing {
    /// Calls through the shared address, until the caller hears that it rings.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn start() -> Self {
        let [caller, callee] = [Pair::phones(), Pair::outside()].map(Peer::udp);
        let invite = caller.request("INVITE", &callee.uri());
        until_it_comes(
            "an INVITE",
            || caller.send(&invite.bytes(), Pair::shared()),
            || !callee.times_of("INVITE").is_empty(),
        );
        let arrived = callee.first_request("INVITE");
        until_it_comes(
            "a 180",
            || callee.answer(&arrived, 180),
            || !caller.times_of_responses("INVITE", 180).is_empty(),
        );
        Self {
            caller,
            callee,
            invite,
            arrived,
        }
    }

    /// The callee answers, and the caller acknowledges that.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn answered(self) -> Call {
        let Self {
            caller,
            callee,
            invite,
            arrived,
        } = &self;
        until_it_comes(
            "a 200",
            || callee.answer(arrived, 200),
            || !caller.times_of_responses("INVITE", 200).is_empty(),
        );
        let answer = caller.first_response("INVITE", 200);
        let ack = invite.within(&answer.message, "ACK", 0);
        until_it_comes(
            "an ACK",
            || caller.send(&ack.bytes(), Pair::shared()),
            || !callee.times_of("ACK").is_empty(),
        );
        Call { rang: self, answer }
    }
}

impl Call {
    /// Sets a call up through the shared address.
    ///
    /// # Panics
    /// If it does not come to that.
    pub fn establish() -> Self {
        Ringing::start().answered()
    }

    /// A request of the caller comes to the callee, and the 200 to it comes back.
    ///
    /// # Panics
    /// If either does not come.
    pub fn caller_asks(&self, method: &str, cseq: u32) {
        let Ringing {
            caller,
            callee,
            invite,
            ..
        } = &self.rang;
        let request = invite.within(&self.answer.message, method, cseq);
        asks(caller, callee, &request);
        if method == "INVITE" {
            let before = callee.times_of("ACK").len();
            let mut ack = request;
            ack.method = "ACK".into();
            ack.branch.push_str("-ack");
            until_it_comes(
                "an ACK",
                || caller.send(&ack.bytes(), Pair::shared()),
                || callee.times_of("ACK").len() > before,
            );
        }
    }

    /// A request of the callee comes to the caller, and the 200 to it comes back.
    ///
    /// # Panics
    /// If either does not come.
    pub fn callee_asks(&self, method: &str) {
        let Ringing {
            caller,
            callee,
            invite,
            arrived,
        } = &self.rang;
        let arrived = &arrived.message;
        let uri = format!("sip:caller@{}", caller.local());
        let mut request = callee.request(method, &uri);
        request.from = arrived.header("To").unwrap_or_default().into();
        request.from_tag = Some(format!("callee-{}", callee.local().port()));
        request.to = arrived.header("From").unwrap_or_default().into();
        request.call_id.clone_from(&invite.call_id);
        let routes = arrived.headers("Record-Route");
        let routes = routes.iter().map(|route| format!("Route: {route}"));
        request.extra = routes.collect();
        asks(callee, caller, &request);
    }
}

/// A request comes to the other end, and the 200 to it comes back.
fn asks(from: &Peer, to: &Peer, request: &Request) {
    let method = &request.method;
    let copies = to.times_of(method).len();
    let answers = from.times_of_responses(method, 200).len();
    until_it_comes(
        method,
        || from.send(&request.bytes(), Pair::shared()),
        || to.times_of(method).len() > copies,
    );
    let seen = to.nth_request(copies, method);
    until_it_comes(
        "its 200",
        || to.answer(&seen, 200),
        || from.times_of_responses(method, 200).len() > answers,
    );
}

/// Sends a message, and again after each [`T1`] until it has come: one may be lost while an address moves.
fn until_it_comes(what: &str, send: impl Fn(), has_come: impl Fn() -> bool) {
    let mut next = Instant::now();
    wait::until(&format!("{what} comes"), || {
        if has_come() {
            return Some(());
        }
        if Instant::now() >= next {
            send();
            next = Instant::now() + T1;
        }
        None
    });
}
