//! A destination of a set.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use portcullis_database::shown;
use portcullis_sip::{Host, RoutesBuilder, Scheme, Transport, Uri, UriError};

use crate::attrs::Attrs;
use crate::latency::{Latencies, Measured};
use crate::pinged::Pinged;
use crate::state::{Admission, Sign, State, Thresholds};

/// The prefix of the names of next hops that are destinations.
const PREFIX: &str = "dispatcher/";

/// A destination: one row of the table.
#[derive(Clone, Debug)]
pub struct Member {
    /// The set.
    pub set: u32,
    /// The URI as it is in the row.
    pub uri: Box<str>,
    /// The flags as they are in the row.
    pub flags: u32,
    /// Higher ones come first.
    pub priority: i32,
    /// The attributes.
    pub attrs: Attrs,
    /// The description; empty if there is none.
    pub description: Box<str>,
    /// The name of the next hop that the destination is: see [`next_hop_name`]. Two rows with the same URI are one next hop.
    pub name: Arc<str>,
    /// `sip:HOST`, with `:PORT` and `;transport=…` if the URI has them.
    pub hop: Box<str>,
    /// What happens to it. Outlives the row, as long as there is one with the same set, URI and socket.
    pub runtime: Arc<Runtime>,
    /// The calls to its next hop: rows with the same URI share them.
    pub(crate) load: Arc<Load>,
}

/// What happens to a destination. Workers change it without a lock.
#[derive(Debug, Default)]
pub struct Runtime {
    state: AtomicU32,
    /// The flags that the row had when they said the state last.
    flags: AtomicU32,
    /// Until when it has asked for no requests, in seconds since 1970; 0 if it has not.
    paused_until: AtomicU64,
    /// The last sign: seconds since 1970, and 16 bits for the status code, 0 if there was no answer.
    last: AtomicU64,
    /// How long answers to pings take.
    latency: Measured,
    /// Why the last ping was no success. Only the control side uses it.
    complaint: Mutex<Option<Box<str>>>,
    /// The state that was logged last.
    told: AtomicU32,
    /// Whether the log says that the host does not have its socket.
    is_socket_told: AtomicBool,
}

/// The calls to a next hop that are counted now. Outlives the rows of the next hop as long as there are any of this host.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Those of this host.
    own: AtomicU32,
    /// Those of other hosts of the fleet: see [`SharedLoads`](crate::shared_loads::SharedLoads).
    others: AtomicU32,
    /// The hosts that share `maxload` because they do not hear each other; 0 and 1: this one has all of it.
    hosts: AtomicU32,
}

/// The last sign of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastSign {
    /// Seconds since 1970.
    pub at: u64,
    /// The status code; `None` if it did not answer or could not be reached.
    pub code: Option<u16>,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turned {
    /// The state before.
    pub from: State,
    /// The state now.
    pub to: State,
}

/// What is wrong with a URI: the fault, and how to correct it.
pub(crate) type Wrong = (String, &'static str);

/// The parts of a destination that differ between rows.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) set: u32,
    pub(crate) uri: Box<str>,
    pub(crate) flags: u32,
    pub(crate) priority: i32,
    pub(crate) attrs: Attrs,
    pub(crate) description: Box<str>,
    pub(crate) hop: Box<str>,
}

/// What identifies a destination across loads.
pub(crate) type Identity = (u32, Box<str>, Box<str>);

impl Member {
    /// The host as Kamailio shows it.
    pub fn host(&self) -> &str {
        self.socket().0
    }

    /// The address, if the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        let host = self.host();
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        bare.unwrap_or(host).parse().ok()
    }

    /// The port; the default one if the URI has none.
    pub fn port(&self) -> u16 {
        self.socket().1
    }

    /// The port that the URI names.
    pub fn named_port(&self) -> Option<u16> {
        Uri::parse(self.hop.as_bytes()).ok()?.port
    }

    /// The transport.
    pub fn transport(&self) -> Transport {
        let uri = Uri::parse(self.hop.as_bytes()).ok();
        uri.and_then(|uri| uri.known_transport())
            .unwrap_or(Transport::Udp)
    }

    /// Under what calls are counted: `duid`, or the URI.
    pub fn duid(&self) -> &str {
        match &*self.attrs.duid {
            "" => &self.uri,
            duid => duid,
        }
    }

    /// The request URI of pings: that of the row, or only its next hop if the URI cannot be one (RFC 3261 §19.1.1: no headers).
    pub fn ping_uri(&self) -> &str {
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b'?');
        match self.uri.bytes().all(is_plain) {
            true => &self.uri,
            false => &self.hop,
        }
    }

    /// The URI of From in pings, if the row has one (`ping_from`).
    pub fn ping_from(&self) -> Option<&str> {
        let from = &*self.attrs.ping_from;
        (!from.is_empty()).then_some(from)
    }

    /// The calls to its next hop that are counted now: those of other rows with the same set and URI, and those of other hosts of the fleet, included.
    pub fn calls(&self) -> u32 {
        self.load.calls()
    }

    /// The same, without those of other hosts.
    pub fn own_calls(&self) -> u32 {
        self.load.own()
    }

    /// Whether one more call is below `maxload`. While the hosts of a fleet do not hear each other, each has its share of that, and at least one call.
    pub(crate) fn has_room(&self) -> bool {
        match self.attrs.maxload {
            0 => true,
            most => self.load.calls() < (most / self.load.hosts()).max(1),
        }
    }

    pub(crate) fn new(parts: Parts, runtime: Arc<Runtime>, load: Arc<Load>) -> Self {
        Self {
            name: next_hop_name(parts.set, &parts.uri).into(),
            set: parts.set,
            uri: parts.uri,
            flags: parts.flags,
            priority: parts.priority,
            attrs: parts.attrs,
            description: parts.description,
            hop: parts.hop,
            runtime,
            load,
        }
    }

    /// The row again.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            set: self.set,
            uri: self.uri.clone(),
            flags: self.flags,
            priority: self.priority,
            attrs: self.attrs.clone(),
            description: self.description.clone(),
            hop: self.hop.clone(),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        identity(self.set, &self.uri, &self.attrs)
    }

    fn socket(&self) -> (&str, u16) {
        let Ok(uri) = Uri::parse(self.hop.as_bytes()) else {
            return ("", 0);
        };
        let place = self.hop.get(uri.host_range.clone()).unwrap_or_default();
        let host = match uri.port {
            Some(_) => place.rsplit_once(':').map_or(place, |(host, _)| host),
            None => place,
        };
        (host, uri.port_or_default())
    }
}

impl Runtime {
    /// A destination that begins with the flags of this row, and with the latency in the row.
    pub(crate) fn of(parts: &Parts) -> Self {
        let runtime = Self {
            state: AtomicU32::new(State::of_flags(parts.flags).to_bits()),
            flags: AtomicU32::new(parts.flags),
            ..Self::default()
        };
        if parts.attrs.latency > 0 {
            runtime.note_latency(Duration::from_millis(parts.attrs.latency.into()));
        }
        runtime
    }

    /// Takes the state that the flags of the row say, if they have changed.
    pub(crate) fn follow(&self, flags: u32) {
        if self.flags.swap(flags, Ordering::Relaxed) != flags {
            self.set_state(State::of_flags(flags));
        }
    }

    /// The flags that the row had when they said the state last.
    pub(crate) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    /// The change since the last call, if requests no longer go there, or go there again. For the log.
    pub(crate) fn to_tell(&self) -> Option<Turned> {
        let to = self.state();
        let from = State::of_bits(self.told.swap(to.to_bits(), Ordering::Relaxed));
        (from.admission.is_open() != to.admission.is_open()).then_some(Turned { from, to })
    }

    /// Notes that the log says that the host does not have its socket. Returns whether that is new.
    pub(crate) fn tell_socket(&self) -> bool {
        !self.is_socket_told.swap(true, Ordering::Relaxed)
    }

    /// Notes that the host has its socket.
    pub(crate) fn has_socket(&self) {
        self.is_socket_told.store(false, Ordering::Relaxed);
    }

    /// The state.
    #[inline]
    pub fn state(&self) -> State {
        State::of_bits(self.state.load(Ordering::Relaxed))
    }

    /// Sets the state, as an operator does. A pause is over.
    pub fn set_state(&self, state: State) {
        self.paused_until.store(0, Ordering::Relaxed);
        self.state.store(state.to_bits(), Ordering::Relaxed);
    }

    /// Makes the destination inactive until this second since 1970, because it has asked for that: no success makes it active before. Without effect
    /// if it is disabled.
    pub(crate) fn pause(&self, until: u64) {
        let paused = |bits| State::of_bits(bits).paused().map(State::to_bits);
        let changed = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, paused);
        if changed.is_ok() {
            self.paused_until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Until when it has asked for no requests, in seconds since 1970; `None` if it has not.
    pub fn paused_until(&self) -> Option<u64> {
        let until = self.paused_until.load(Ordering::Relaxed);
        (until > 0).then_some(until)
    }

    /// Ends a pause. Returns whether there was one that is over at this second.
    pub(crate) fn end_pause(&self, now: u64) -> bool {
        let ended = |until| (1..=now).contains(&until).then_some(0);
        let ended = self
            .paused_until
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, ended);
        ended.is_ok()
    }

    /// Notes a sign, with the status code of an answer and the time in seconds since 1970. `pinged` says which destinations are pinged, if this
    /// one may be. Returns the change if requests no longer go there, or go there again.
    pub fn note(
        &self,
        sign: Sign,
        code: Option<u16>,
        seconds: u64,
        thresholds: Thresholds,
        pinged: Option<Pinged>,
    ) -> Option<Turned> {
        let last = seconds << 16 | u64::from(code.unwrap_or(0));
        self.last.store(last, Ordering::Relaxed);
        if sign == Sign::Success && self.paused_until().is_some() {
            return None;
        }
        let next = |bits| {
            let after = State::of_bits(bits).after(sign, thresholds, pinged);
            let after = after.to_bits();
            (after != bits).then_some(after)
        };
        let changed = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let from = State::of_bits(changed.ok()?);
        let to = from.after(sign, thresholds, pinged);
        (from.admission.is_open() != to.admission.is_open()).then_some(Turned { from, to })
    }

    /// Lets an inactive destination be tried: the next failure makes it inactive again. Returns the change, unless it is open or disabled, or
    /// an operator has made it inactive.
    pub(crate) fn try_again(&self, thresholds: Thresholds) -> Option<Turned> {
        let tried = |bits| {
            let state = State::of_bits(bits);
            let tried = State {
                admission: Admission::Trying,
                is_probing: state.is_probing,
                failures: thresholds.down_after.saturating_sub(1),
                successes: 0,
            };
            (state.admission == Admission::Inactive && state.is_probing).then_some(tried.to_bits())
        };
        let changed = self
            .state
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, tried);
        let from = State::of_bits(changed.ok()?);
        Some(Turned {
            from,
            to: self.state(),
        })
    }

    /// The last sign; `None` before the first.
    pub fn last(&self) -> Option<LastSign> {
        let last = self.last.load(Ordering::Relaxed);
        let code = u16::try_from(last & 0xffff).ok().filter(|&code| code > 0);
        let at = last >> 16;
        (at > 0).then_some(LastSign { at, code })
    }

    /// Notes how long the answer to a ping took.
    pub fn note_latency(&self, took: Duration) {
        self.latency.note(took);
    }

    /// The average latency and the estimate for the next answer, in milliseconds; 0 before the first answer. Without a lock.
    pub fn latency(&self) -> [u32; 2] {
        self.latency.for_choice()
    }

    /// All latencies, for the control side.
    pub fn latencies(&self) -> Latencies {
        self.latency.latencies()
    }

    /// Why the last ping was no success; `None` if it was one, and before the first. For the control side.
    pub fn complaint(&self) -> Option<Box<str>> {
        self.complaint.lock().clone()
    }

    /// Notes what has become of a ping: how long the answer took, and why it was no success.
    pub(crate) fn note_ping(&self, took: Option<Duration>, complaint: Option<Box<str>>) {
        match took {
            Some(took) => self.latency.note(took),
            None => self.latency.note_timeout(),
        }
        *self.complaint.lock() = complaint;
    }

    /// The last sign as a number.
    pub(crate) fn last_bits(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Takes the state and the last sign of the same destination in another process.
    pub(crate) fn restore(&self, state: State, last: u64) {
        self.set_state(state);
        self.last.store(last, Ordering::Relaxed);
    }
}

impl Load {
    /// All calls.
    pub(crate) fn calls(&self) -> u32 {
        self.own()
            .saturating_add(self.others.load(Ordering::Relaxed))
    }

    /// Those of this host.
    pub(crate) fn own(&self) -> u32 {
        self.own.load(Ordering::Relaxed)
    }

    /// The hosts that share `maxload`.
    fn hosts(&self) -> u32 {
        self.hosts.load(Ordering::Relaxed).max(1)
    }

    /// Sets the calls of other hosts, and the number of hosts that share `maxload`.
    pub(crate) fn set_others(&self, calls: u32, hosts: u32) {
        self.others.store(calls, Ordering::Relaxed);
        self.hosts.store(hosts, Ordering::Relaxed);
    }

    pub(crate) fn add_call(&self) {
        self.own.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn remove_call(&self) {
        let less = |calls: u32| calls.checked_sub(1);
        let _was_zero = self
            .own
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// The name of the next hop that a destination is: the set and the URI.
pub fn next_hop_name(set: u32, uri: &str) -> String {
    format!("{PREFIX}{set}/{uri}")
}

/// The URI in the name of a destination; the name itself if it is that of another next hop.
pub fn uri_of_name(name: &str) -> &str {
    let parts = name.strip_prefix(PREFIX);
    let parts = parts.and_then(|rest| rest.split_once('/'));
    parts.map_or(name, |(_, uri)| uri)
}

pub(crate) fn identity(set: u32, uri: &str, attrs: &Attrs) -> Identity {
    let socket = match &*attrs.socket {
        "" => attrs.sockname.clone(),
        _ => attrs.socket.clone(),
    };
    (set, uri.into(), socket)
}

/// The next hop in the URI of a row.
pub(crate) fn hop_of(text: &str) -> Result<Box<str>, Wrong> {
    const MEND: &str = "write \"sip:HOST:PORT\", with \";transport=tcp\" or \";transport=tls\" if need be, for example \"sip:192.0.2.7:5060\"";
    let uri = Uri::parse(text.as_bytes()).map_err(|error| match error {
        UriError::NoScheme => ("has no scheme".to_owned(), MEND),
        error @ (UriError::Scheme
        | UriError::Character
        | UriError::User
        | UriError::Host
        | UriError::Port
        | UriError::Params) => (format!("is not a SIP URI: {error}"), MEND),
    })?;
    if uri.maddr().is_some() {
        let mend = "write the address of `maddr` as the host";
        return Err(("has the parameter `maddr`".to_owned(), mend));
    }
    let scheme = match uri.scheme {
        Scheme::Sip => "sip",
        Scheme::Sips => "sips",
    };
    // Only clients open connections of WebSocket.
    let transport = uri.known_transport();
    if transport.is_none_or(Transport::is_websocket) {
        let transport = shown(&String::from_utf8_lossy(
            uri.transport().unwrap_or_default(),
        ));
        let fault = format!("has the transport {transport}, which is not supported");
        return Err((fault, MEND));
    }
    let place = text.get(uri.host_range.clone()).unwrap_or_default();
    let place = match uri.host {
        Host::Name(_) => place.to_ascii_lowercase(),
        Host::V4(_) | Host::V6(_) => place.to_owned(),
    };
    let hop = match uri.transport() {
        Some(transport) => {
            let transport = String::from_utf8_lossy(transport).to_ascii_lowercase();
            format!("{scheme}:{place};transport={transport}")
        }
        None => format!("{scheme}:{place}"),
    };
    let checked = RoutesBuilder::new().hop("destination", &hop).map(drop);
    checked.map_err(|_| ("has no usable host".to_owned(), MEND))?;
    Ok(hop.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(uri: &str) -> Member {
        let parts = Parts {
            set: 7,
            uri: uri.into(),
            flags: 0,
            priority: 0,
            attrs: Attrs::default(),
            description: "".into(),
            hop: hop_of(uri).unwrap(),
        };
        Member::new(parts, Arc::default(), Arc::default())
    }

    #[test]
    fn a_uri_has_a_next_hop() {
        for (uri, hop, host, port) in [
            ("sip:192.0.2.1", "sip:192.0.2.1", "192.0.2.1", 5060),
            (
                "sip:gw@GW.Example.com:5070;lr",
                "sip:gw.example.com:5070",
                "gw.example.com",
                5070,
            ),
            (
                "sip:[2001:db8::1]:5062;transport=TCP",
                "sip:[2001:db8::1]:5062;transport=tcp",
                "[2001:db8::1]",
                5062,
            ),
            (
                "sips:GW.example.com",
                "sips:gw.example.com",
                "gw.example.com",
                5061,
            ),
            (
                "sip:192.0.2.1;transport=tls",
                "sip:192.0.2.1;transport=tls",
                "192.0.2.1",
                5061,
            ),
        ] {
            let member = member(uri);
            assert_eq!(
                (&*member.hop, member.host(), member.port()),
                (hop, host, port)
            );
            assert_eq!(member.uri.as_ref(), uri);
            assert_eq!(uri_of_name(&member.name), uri);
        }
        assert_eq!(member("sip:[2001:db8::1]").ip(), "2001:db8::1".parse().ok());
        assert_eq!(member("sip:a.example").ip(), None);
        assert_eq!(
            member("sip:a.example;transport=tcp").transport(),
            Transport::Tcp
        );
        assert_eq!(member("sips:a.example").transport(), Transport::Tls);
        let ports = ["sip:a.example", "sip:a.example:5060"].map(|uri| member(uri).named_port());
        assert_eq!(ports, [None, Some(5060)]);
        assert_eq!(uri_of_name("carrier"), "carrier");
    }

    #[test]
    fn a_uri_without_a_next_hop_has_a_reason() {
        for (uri, reason) in [
            ("192.0.2.1", "has no scheme"),
            ("tel:+49", "is not a SIP URI"),
            ("sip:a.example;transport=ws", "has the transport \"ws\""),
            ("sips:a.example;transport=udp", "has the transport \"udp\""),
            ("sip:a.example;maddr=192.0.2.1", "`maddr`"),
            ("sip:a.example;transport=sctp", "has the transport \"sctp\""),
            ("sip:10.0.0.300", "has no usable host"),
            ("sip:", "is not a SIP URI"),
        ] {
            let (fault, _) = hop_of(uri).unwrap_err();
            assert!(fault.contains(reason), "{uri}: {fault}");
        }
    }

    #[test]
    fn only_a_change_that_opens_or_closes_is_told() {
        let rules = Thresholds {
            down_after: 2,
            up_after: 1,
        };
        let runtime = Runtime::default();
        assert_eq!(runtime.last(), None);
        assert_eq!(runtime.note(Sign::Failure, None, 5, rules, None), None);
        let down = runtime
            .note(Sign::Failure, Some(503), 6, rules, None)
            .unwrap();
        assert_eq!(
            (down.from.to_string(), down.to.to_string()),
            ("TX".into(), "IP".into())
        );
        assert_eq!(
            runtime.last(),
            Some(LastSign {
                at: 6,
                code: Some(503)
            })
        );
        assert_eq!(runtime.note(Sign::Failure, None, 7, rules, None), None);
        assert_eq!(runtime.last(), Some(LastSign { at: 7, code: None }));
        assert!(
            runtime
                .note(Sign::Success, Some(200), 8, rules, None)
                .is_some()
        );
        assert_eq!(runtime.state(), State::default());
    }

    #[test]
    fn calls_never_go_below_zero() {
        let load = Load::default();
        load.remove_call();
        load.add_call();
        assert_eq!(load.calls(), 1);
    }
}
