//! The host's side of a call: the results of the contract's functions while a policy runs.

use std::cell::RefCell;
use std::net::SocketAddr;

use super::effects::{Edit, Line};
use super::failed::Failed;
use super::message::Request;
use super::peers::{Question, plain};
use super::rules;
use super::settings::Setting;
use super::table::{Query, Row};
use super::world::World;
use crate::algorithm::Algorithm;
use crate::attempt::Attempt;
use crate::clock::LocalTime;
use crate::log::Level;
use crate::standing::Offence;
use crate::target::{Place, Refusal, Target};

/// The result of a call.
#[derive(Default)]
pub(super) struct Ended<T> {
    pub(super) answer: T,
    pub(super) log: Vec<Line>,
    pub(super) edits: Vec<Edit>,
    /// The targets that the host has accepted.
    pub(super) targets: Vec<Target>,
    /// The sets that were added, with the number of their destinations.
    pub(super) sets: Vec<(u32, Algorithm, u8)>,
    pub(super) reported: Option<Offence>,
    pub(super) keeps_flow: bool,
}

impl Ended<()> {
    fn with<T>(self, answer: T) -> Ended<T> {
        Ended {
            answer,
            log: self.log,
            edits: self.edits,
            targets: self.targets,
            sets: self.sets,
            reported: self.reported,
            keeps_flow: self.keeps_flow,
        }
    }
}

/// Calls `policy` with `world` and `request` as the data for the functions of this module.
pub(super) fn with<T>(world: World, request: Request, policy: impl FnOnce() -> T) -> Ended<T> {
    with_failed(world, request, None, policy)
}

/// The same for `on_failure`.
pub(super) fn with_failed<T>(
    world: World,
    request: Request,
    failed: Option<Failed>,
    policy: impl FnOnce() -> T,
) -> Ended<T> {
    let call = Current {
        failed,
        targets: Vec::new(),
        world,
        request,
        last_tag: None,
        peer_tags: Vec::new(),
        log: Vec::new(),
        edits: Vec::new(),
        sets: Vec::new(),
        reported: None,
        keeps_flow: false,
    };
    let outer = Restore(CURRENT.replace(Some(call)));
    let answer = policy();
    let ended = CURRENT.take().map(|call| Ended {
        answer: (),
        log: call.log,
        edits: call.edits,
        targets: call.targets,
        sets: call.sets,
        reported: call.reported,
        keeps_flow: call.keeps_flow,
    });
    drop(outer);
    ended.unwrap_or_default().with(answer)
}

pub(crate) fn allow_source_address(group: u32) -> bool {
    current(|call| {
        let source = call.request.source();
        call.find(Some(group), &Query::Ip(source.ip()), source.port())
            .is_some()
    })
}

pub(crate) fn allow_address(group: u32, address: &str, port: u16) -> bool {
    current(|call| {
        call.find(Some(group), &Query::parse(address), port)
            .is_some()
    })
}

pub(crate) fn source_address_group() -> Option<u32> {
    current(|call| {
        let source = call.request.source();
        call.find(None, &Query::Ip(source.ip()), source.port())
    })
}

pub(crate) fn address_group(address: &str, port: u16) -> Option<u32> {
    current(|call| call.find(None, &Query::parse(address), port))
}

pub(crate) fn last_tag() -> Option<String> {
    current(|call| call.last_tag.clone())
}

pub(crate) fn allow_trusted() -> bool {
    allow_trusted_address(&source_address(), &transport(), None)
}

pub(crate) fn allow_trusted_address(
    address: &str,
    transport: &str,
    from_uri: Option<&str>,
) -> bool {
    current(|call| call.match_peers(address, transport, from_uri, 1)) > 0
}

pub(crate) fn count_trusted() -> u32 {
    count_trusted_address(&source_address(), &transport(), None)
}

pub(crate) fn count_trusted_address(address: &str, transport: &str, from_uri: Option<&str>) -> u32 {
    current(|call| call.match_peers(address, transport, from_uri, usize::MAX))
}

pub(crate) fn tags() -> Vec<String> {
    current(|call| call.peer_tags.clone())
}

pub(crate) fn allow_routing(basename: Option<&str>) -> bool {
    allow_uri(basename, &plain(&uri(), true, false))
}

pub(crate) fn allow_register(basename: Option<&str>) -> bool {
    may_register(basename, false)
}

pub(crate) fn allow_register_include_port(basename: Option<&str>) -> bool {
    may_register(basename, true)
}

pub(crate) fn allow_uri(basename: Option<&str>, uri: &str) -> bool {
    current(|call| {
        let from = call.request.address_of("From");
        call.world.rules.allows(basename, &from, uri)
    })
}

fn may_register(basename: Option<&str>, with_port: bool) -> bool {
    current(|call| {
        let to = call.request.address_of("To");
        let contacts = call.request.contacts();
        let mut contacts = contacts.iter().map(|uri| plain(uri, false, with_port));
        contacts.all(|contact| call.world.rules.allows(basename, &to, &contact))
    })
}

pub(crate) fn add(name: &str, amount: u64, seconds: u32) -> u64 {
    current(|call| call.world.counters().add(name, amount, seconds))
}

pub(crate) fn value(name: &str) -> u64 {
    current(|call| call.world.counters().value(name))
}

pub(crate) fn rate_limit(key: &str, per_second: f64, burst: u32) -> bool {
    current(|call| call.world.counters().rate_limit(key, per_second, burst))
}

pub(crate) fn boolean(key: &str) -> Option<bool> {
    setting(key, |value| match value {
        Setting::Boolean(value) => Some(*value),
        Setting::Integer(_) | Setting::Number(_) | Setting::Text(_) | Setting::Texts(_) => None,
    })
}

pub(crate) fn integer(key: &str) -> Option<i64> {
    setting(key, |value| match value {
        Setting::Integer(value) => Some(*value),
        Setting::Boolean(_) | Setting::Number(_) | Setting::Text(_) | Setting::Texts(_) => None,
    })
}

pub(crate) fn number(key: &str) -> Option<f64> {
    setting(key, |value| match value {
        Setting::Integer(value) => Some(*value as f64),
        Setting::Number(value) => Some(*value),
        Setting::Boolean(_) | Setting::Text(_) | Setting::Texts(_) => None,
    })
}

pub(crate) fn text(key: &str) -> Option<String> {
    setting(key, |value| match value {
        Setting::Text(value) => Some(value.clone()),
        Setting::Boolean(_) | Setting::Integer(_) | Setting::Number(_) | Setting::Texts(_) => None,
    })
}

pub(crate) fn texts(key: &str) -> Option<Vec<String>> {
    setting(key, |value| match value {
        Setting::Texts(values) => Some(values.clone()),
        Setting::Boolean(_) | Setting::Integer(_) | Setting::Number(_) | Setting::Text(_) => None,
    })
}

pub(crate) fn keys(key: &str) -> Vec<String> {
    current(|call| call.world.settings.keys(key))
}

pub(crate) fn json() -> String {
    current(|call| call.world.settings.json())
}

fn setting<T>(key: &str, read: impl FnOnce(&Setting) -> Option<T>) -> Option<T> {
    current(|call| call.world.settings.value(key).and_then(read))
}

pub(crate) fn now() -> u64 {
    current(|call| {
        let since = call.world.counters().now();
        call.world.clock.now(since)
    })
}

pub(crate) fn local(zone: &str) -> Option<LocalTime> {
    current(|call| {
        let since = call.world.counters().now();
        call.world.clock.local(since, zone)
    })
}

pub(crate) fn add_header(name: &str, value: &str) -> bool {
    edit(Edit::add(name, value))
}

pub(crate) fn remove_header(name: &str) -> bool {
    edit(Edit::remove(name))
}

fn edit(edit: Edit) -> bool {
    if let Err(error) = rules::check_edit(&edit) {
        panic!("the host refuses this change: {error}: {edit:?}");
    }
    current(|call| {
        if call.world.keeps_headers {
            return false;
        }
        assert!(
            call.edits.len() < rules::MAX_HEADERS,
            "the host refuses more than {} changes to header fields",
            rules::MAX_HEADERS
        );
        call.edits.push(edit);
        true
    })
}

pub(crate) fn add_target(target: &Target) -> Result<(), Refusal> {
    if let Err(error) = rules::check_target(target) {
        panic!("the host refuses this target: {error}: {target:?}");
    }
    current(|call| {
        let before = call.failed.as_ref().map_or(0, |failed| failed.named);
        if before + call.targets.len() >= rules::MAX_TARGETS {
            return Err(Refusal::TooMany);
        }
        let bytes = call.failed.as_ref().map_or(0, |failed| failed.named_bytes);
        let added = call.targets.iter().map(rules::text_bytes);
        if !rules::has_room(bytes + added.sum::<usize>(), target) {
            return Err(Refusal::TooMany);
        }
        if call.has_named(target) {
            return Err(Refusal::BadValue);
        }
        if call.world.keeps_headers && !target.headers.is_empty() {
            return Err(Refusal::NotPermitted);
        }
        let mut refused = call.world.refused.iter();
        if let Some((_, refusal)) = refused.find(|(name, _)| name == target.place.as_str()) {
            return Err(*refusal);
        }
        call.targets.push(target.clone());
        Ok(())
    })
}

/// Chooses the destinations of a set in their order, whatever the algorithm.
pub(crate) fn add_set(set: u32, algorithm: &Algorithm, limit: u8, rank: u8) -> Result<u8, Refusal> {
    let is_in_range = (1..=16).contains(&limit);
    if !is_in_range || u16::from(rank) + u16::from(limit) > 256 {
        return Err(Refusal::BadValue);
    }
    let destinations = current(|call| call.world.sets.get(&set).cloned());
    let destinations = destinations.ok_or(Refusal::Unknown)?;
    let mut added = 0;
    for uri in destinations {
        let mut target = Target::uri(uri);
        target.rank = match *algorithm == Algorithm::Parallel {
            true => rank,
            false => rank + added,
        };
        if added < limit && add_target(&target).is_ok() {
            added += 1;
        }
    }
    current(|call| call.sets.push((set, algorithm.clone(), added)));
    Ok(added)
}

pub(crate) fn share(_on: bool) {}

pub(crate) fn retry_on(codes: &[u16]) -> Result<(), Refusal> {
    rules::check_codes(codes)
}

pub(crate) fn set_memo(bytes: &[u8]) -> Result<(), Refusal> {
    match bytes.len() <= rules::MAX_MEMO {
        true => Ok(()),
        false => Err(Refusal::BadValue),
    }
}

pub(crate) fn attempts() -> Vec<Attempt> {
    failed(|failed| failed.attempts.clone())
}

pub(crate) fn best() -> Option<Attempt> {
    failed(|failed| failed.best.clone())
}

pub(crate) fn response_header(name: &str) -> Option<String> {
    failed(|failed| failed.values_of(name).next().map(str::to_owned))
}

pub(crate) fn contacts() -> Vec<String> {
    failed(Failed::contacts)
}

pub(crate) fn tries_left() -> u8 {
    failed(|failed| failed.tries_left)
}

pub(crate) fn memo() -> Vec<u8> {
    failed(|failed| failed.memo.clone())
}

fn failed<T: Default>(read: impl FnOnce(&Failed) -> T) -> T {
    current(|call| call.failed.as_ref().map(read).unwrap_or_default())
}

pub(crate) fn method() -> String {
    current(|call| call.request.method().to_owned())
}

pub(crate) fn uri() -> String {
    current(|call| call.request.uri().to_owned())
}

pub(crate) fn from_uri() -> String {
    current(|call| call.request.address_of("From"))
}

pub(crate) fn to_uri() -> String {
    current(|call| call.request.address_of("To"))
}

pub(crate) fn call_id() -> String {
    header("Call-ID").unwrap_or_default()
}

pub(crate) fn cseq_number() -> u32 {
    current(|call| call.request.cseq_number())
}

pub(crate) fn source_address() -> String {
    source().ip().to_string()
}

pub(crate) fn source_port() -> u16 {
    source().port()
}

pub(crate) fn transport() -> String {
    current(|call| call.request.transport_name().to_owned())
}

pub(crate) fn local_address() -> String {
    local_socket().ip().to_string()
}

pub(crate) fn local_port() -> u16 {
    local_socket().port()
}

pub(crate) fn header(name: &str) -> Option<String> {
    current(|call| call.request.values_of(name).next().map(str::to_owned))
}

pub(crate) fn headers(name: &str) -> Vec<String> {
    current(|call| call.request.values_of(name).map(str::to_owned).collect())
}

pub(crate) fn body_length() -> u32 {
    current(|call| call.request.body_len())
}

pub(crate) fn log(level: Level, message: &str) {
    let message = message.to_owned();
    current(|call| call.log.push(Line { level, message }));
}

fn source() -> SocketAddr {
    current(|call| call.request.source())
}

pub(super) fn local_socket() -> SocketAddr {
    current(|call| call.request.local_socket())
}

pub(super) fn current<T>(ask: impl FnOnce(&mut Current) -> T) -> T {
    CURRENT.with_borrow_mut(|current| match current {
        Some(call) => ask(call),
        None => panic!(
            "no request: a policy runs inside portcullis_sdk::testing::Call::decide, not on its own"
        ),
    })
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// The call in progress on this thread.
pub(super) struct Current {
    pub(super) world: World,
    pub(super) request: Request,
    last_tag: Option<String>,
    peer_tags: Vec<String>,
    log: Vec<Line>,
    edits: Vec<Edit>,
    sets: Vec<(u32, Algorithm, u8)>,
    pub(super) reported: Option<Offence>,
    pub(super) keeps_flow: bool,
    targets: Vec<Target>,
    /// Set in `on_failure`.
    failed: Option<Failed>,
}

impl Current {
    /// The group of the row that matches the query; its tag is kept.
    fn find(&mut self, group: Option<u32>, query: &Query<'_>, port: u16) -> Option<u32> {
        let Row { group, tag, .. } = self.world.table.find(group, query, port)?;
        self.last_tag.clone_from(tag);
        Some(*group)
    }

    /// Whether the same place with the same request URI was added or tried (RFC 3261 §16.5).
    fn has_named(&self, target: &Target) -> bool {
        let uri =
            |own: &Option<String>| own.clone().unwrap_or_else(|| self.request.uri().to_owned());
        let is_same = |place: &Place, own: &Option<String>| {
            *place == target.place && uri(own) == uri(&target.request_uri)
        };
        let tried = self.failed.as_ref().map_or(&[][..], |failed| &failed.tried);
        tried.iter().any(|(place, own)| is_same(place, own))
            || self
                .targets
                .iter()
                .any(|one| is_same(&one.place, &one.request_uri))
    }

    /// How many of the first `most` rows match; their tags are kept.
    fn match_peers(
        &mut self,
        source: &str,
        transport: &str,
        from: Option<&str>,
        most: usize,
    ) -> u32 {
        let own = self.request.address_of("From");
        let question = Question {
            source,
            transport,
            from: from.unwrap_or(&own),
            ruri: self.request.uri(),
        };
        let found: Vec<_> = self.world.peers.matches(&question).take(most).collect();
        if !found.is_empty() {
            self.peer_tags = found.iter().flatten().map(|&tag| tag.to_owned()).collect();
        }
        u32::try_from(found.len()).unwrap_or(u32::MAX)
    }
}

/// Restores the outer call, also when the policy panics: a test may continue after a caught panic.
struct Restore(Option<Current>);

impl Drop for Restore {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use crate::prelude::*;
    use crate::testing::{Host, Request};

    #[test]
    fn the_request_has_the_values_of_the_test() {
        let asked = Request::new("SUBSCRIBE", "sip:bob@example.com")
            .from_source("[2001:db8::9]:5080")
            .local("192.0.2.1:5061")
            .transport("TCP")
            .from_uri("sip:alice@example.org")
            .to_uri("sip:bob@example.com")
            .call_id("abc@192.0.2.9")
            .cseq(7)
            .header("X-Trunk", "a")
            .header("x-trunk", "b")
            .body("v=0\r\n");

        Host::new().request(asked).decide(|| {
            assert_eq!(request::method(), "SUBSCRIBE");
            assert_eq!(request::uri(), "sip:bob@example.com");
            assert_eq!(request::source_address(), "2001:db8::9");
            assert_eq!(request::source_port(), 5080);
            assert_eq!(request::local_address(), "192.0.2.1");
            assert_eq!(request::local_port(), 5061);
            assert_eq!(request::transport(), "TCP");
            assert_eq!(request::from_uri(), "sip:alice@example.org");
            assert_eq!(request::to_uri(), "sip:bob@example.com");
            assert_eq!(request::call_id(), "abc@192.0.2.9");
            assert_eq!(request::cseq_number(), 7);
            assert_eq!(request::header("X-TRUNK").as_deref(), Some("a"));
            assert_eq!(request::headers("X-Trunk"), ["a", "b"]);
            assert_eq!(request::header("X-Other"), None);
            assert_eq!(request::body_length(), 5);
            pass()
        });
    }

    #[test]
    fn the_last_tag_is_that_of_the_last_successful_query() {
        let host = Host::new()
            .address(1, "192.0.2.1", 0)
            .tag("one")
            .address(2, "192.0.2.1", 0)
            .address(3, "192.0.2.1", 0)
            .tag("");

        host.request(Request::invite("sip:bob@example.com").from_source("192.0.2.1:5060"))
            .decide(|| {
                assert_eq!(last_tag(), None, "no query yet");
                assert!(allow_source_address(1));
                assert_eq!(last_tag().as_deref(), Some("one"));
                assert!(!allow_source_address(9));
                assert_eq!(
                    last_tag().as_deref(),
                    Some("one"),
                    "a query without a match keeps it"
                );
                assert!(allow_source_address(2));
                assert_eq!(last_tag(), None, "a row without a tag clears it");
                assert!(allow_source_address(3));
                assert_eq!(last_tag().as_deref(), Some(""), "an empty tag is a tag");
                pass()
            });
    }

    #[test]
    fn given_addresses_are_looked_up() {
        let host = Host::new()
            .address(4, "2001:db8::/32", 0)
            .address(5, "sip.example.com", 5060)
            .address(6, "192.0.2.1", 0);

        host.request(Request::invite("sip:bob@example.com"))
            .decide(|| {
                assert!(allow_address(4, "2001:db8::1", 1));
                assert!(allow_address(4, "[2001:db8::1]", 1));
                assert!(
                    allow_address(6, "::ffff:192.0.2.1", 1),
                    "mapped addresses are IPv4"
                );
                assert!(!allow_address(6, "[192.0.2.1]", 1), "brackets are for IPv6");
                assert!(allow_address(5, "sip.example.com", 5060));
                assert!(
                    !allow_address(5, "SIP.example.com", 5060),
                    "compared literally"
                );
                assert!(!allow_address(5, "sip.example.com", 5061));
                assert_eq!(allow_address_group("sip.example.com", 5060), Some(5));
                assert_eq!(allow_address_group("192.0.2.1", 0), Some(6));
                assert_eq!(allow_address_group("192.0.2.2", 0), None);
                pass()
            });
    }

    #[test]
    #[should_panic(expected = "no request")]
    fn outside_of_a_call_there_is_no_host() {
        allow_source_address(1);
    }

    #[test]
    fn a_panic_ends_the_call() {
        let call = Host::new().request(Request::invite("sip:bob@example.com"));

        assert!(
            catch_unwind(AssertUnwindSafe(|| call.decide(|| panic!("broken policy")))).is_err()
        );
        assert!(catch_unwind(request::method).is_err(), "the call has ended");
    }
}
