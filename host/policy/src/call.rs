//! What a sandbox holds of the host while it lives: the request, the address table, and the counters of one call.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::Arc;

use portcullis_address::{Entries, Match, Snapshot, parse_ip};
use portcullis_request::Request;
use serde_json::{Value, json};
use tracing::Level;
use wasmtime::{ResourceLimiter, Trap};

use crate::clock::Moment;
use crate::decision::DecisionId;
use crate::direct::Guest;
use crate::edits::Edits;
use crate::failure::Refused;
use crate::scope::Scope;
use crate::tape::{Leaves, Tape};
use crate::text;
use crate::ticker::End;

/// The longest Call-ID in a log line, in bytes.
const MAX_CALL_ID: usize = 128;

/// The state of one call, as the host's functions see it.
///
/// It moves into the sandbox and comes back when the sandbox ends, in one piece of memory that serves call after call.
pub(crate) struct Call {
    request: Option<Request>,
    addresses: Arc<Snapshot>,
    scope: Arc<Scope>,
    policy: Arc<str>,
    bounds: Bounds,
    log: LogBudget,
    tag: String,
    has_tag: bool,
    /// Those of the trusted peers that were found last.
    trusted_tags: Vec<String>,
    /// The time of the call, once it is asked for.
    moment: Option<Moment>,
    edits: Edits,
    tape: Option<Box<Tape>>,
    decision: Option<DecisionId>,
    /// When it ends. Functions of the host look at it, too.
    pub(crate) end: End,
    /// The module of this call, if it is one. Belongs to one sandbox.
    pub(crate) guest: Option<Guest>,
    /// Bytes of linear memory in use, over all memories of the sandbox.
    pub(crate) memory: usize,
}

/// The limits that the host's functions enforce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) memory_bytes: usize,
    pub(crate) table_elements: usize,
    pub(crate) host_call_bytes: usize,
    pub(crate) log_bytes: usize,
    pub(crate) log_lines: u32,
    /// Whether log lines go nowhere: a trial run is nobody's call.
    pub(crate) mute: bool,
}

/// What is known of a call beside its request.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) tape: Option<Box<Tape>>,
    pub(crate) decision: Option<DecisionId>,
}

/// Lines that a call may still log, and those that were dropped. Cells, because the lines lie in the sandbox's memory, which is
/// borrowed together with this.
#[derive(Default)]
struct LogBudget {
    written: Cell<u32>,
    dropped: Cell<u32>,
}

/// The address that a policy asks about.
enum Address<'a> {
    Ip(IpAddr),
    Name(&'a str),
}

impl Call {
    /// `allow-source-address`
    pub(crate) fn allow_source_address(&mut self, group: u32) -> bool {
        self.answered(
            "permissions.allow-source-address",
            Leaves::Tag,
            || json!([group]),
            |call| call.finds_source(group),
        )
    }

    /// `source-address-group`
    pub(crate) fn source_address_group(&mut self) -> Option<u32> {
        self.answered(
            "permissions.source-address-group",
            Leaves::Tag,
            || json!([]),
            Self::find_source,
        )
    }

    fn finds_source(&mut self, group: u32) -> bool {
        if !self.scope.admits_group(group) {
            return false;
        }
        let source = self.request().source();
        let entries = self.addresses.table.lookup(source.ip());
        let found = entries.find(group, source.port());
        note(&mut self.tag, &mut self.has_tag, found).is_some()
    }

    fn find_source(&mut self) -> Option<u32> {
        let source = self.request().source();
        let entries = self.addresses.table.lookup(source.ip());
        let found = first_within(&self.scope, entries, source.port());
        note(&mut self.tag, &mut self.has_tag, found)
    }

    /// `log`
    pub(crate) fn log(&self, level: Level, message: &str) {
        if self.bounds.mute || !enabled(level) || !self.log.take(self.bounds.log_lines) {
            return;
        }
        if !self.scope.admits_line() {
            return;
        }
        self.write(level, &text::shown(message, self.bounds.log_bytes));
    }

    /// Says how many lines were dropped, if any. Called once, when the call has ended.
    pub(crate) fn finish_log(&self) -> u32 {
        let dropped = self.log.dropped.get();
        if dropped > 0 && self.scope.admits_line() {
            let message = format!("{dropped} more lines of this call (key `log-lines`)");
            self.write(Level::WARN, &message);
        }
        dropped
    }

    fn write(&self, level: Level, message: &str) {
        let call_id = self.request().call_id();
        let call_id = &*text::shown(&call_id, MAX_CALL_ID);
        let policy = &*self.policy;
        let tenant = Some(&*self.scope.tenant).filter(|tenant| !tenant.is_empty());
        let decision = self.decision.map(tracing::field::display);
        // Fields that are none are left out.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "policy",
                    event = "policy_log",
                    tenant,
                    policy,
                    call_id,
                    decision,
                    text = message,
                    "A policy says:"
                )
            };
        }
        match level {
            Level::ERROR => line!(error),
            Level::WARN => line!(warn),
            Level::INFO => line!(info),
            _ => line!(debug),
        }
    }
}

impl Call {
    pub(crate) fn new(
        addresses: Arc<Snapshot>,
        scope: Arc<Scope>,
        policy: Arc<str>,
        bounds: Bounds,
    ) -> Self {
        Self {
            request: None,
            addresses,
            scope,
            policy,
            bounds,
            log: LogBudget::default(),
            tag: String::new(),
            has_tag: false,
            trusted_tags: Vec::new(),
            moment: None,
            edits: Edits::default(),
            tape: None,
            decision: None,
            end: End::default(),
            guest: None,
            memory: 0,
        }
    }

    /// Makes this the state of a call that starts now. Costs no atomic operation while policy and table stay the same.
    pub(crate) fn begin(
        &mut self,
        addresses: &Arc<Snapshot>,
        scope: &Arc<Scope>,
        policy: &Arc<str>,
        bounds: Bounds,
        request: Request,
        notes: Notes,
    ) {
        if !Arc::ptr_eq(&self.scope, scope) {
            self.scope = Arc::clone(scope);
        }
        if !Arc::ptr_eq(&self.addresses, addresses) {
            self.addresses = Arc::clone(addresses);
        }
        if !Arc::ptr_eq(&self.policy, policy) {
            self.policy = Arc::clone(policy);
        }
        self.bounds = bounds;
        self.log = LogBudget::default();
        self.has_tag = false;
        self.trusted_tags.clear();
        self.edits.clear();
        self.moment = notes.tape.as_ref().map(|tape| tape.moment());
        self.tape = notes.tape;
        self.decision = notes.decision;
        self.request = Some(request);
    }

    /// Takes the request back.
    pub(crate) fn end(&mut self) -> Request {
        self.request
            .take()
            .expect("a call that began has a request")
    }

    /// The tape of the call, if it had one.
    pub(crate) fn take_tape(&mut self) -> Option<Box<Tape>> {
        self.tape.take()
    }

    /// The changes that the policy made to the header.
    pub(crate) fn edits(&mut self) -> &mut Edits {
        &mut self.edits
    }

    /// The tape of the call, while it runs.
    #[inline]
    pub(crate) fn tape(&self) -> Option<&Tape> {
        self.tape.as_deref()
    }

    /// Does something with the tape, which must be there.
    pub(crate) fn with_tape<T>(&mut self, what: impl FnOnce(&mut Tape) -> T) -> T {
        what(self.tape.as_mut().expect("only asked where there is one"))
    }

    /// When the call is: the same for all questions of one call.
    pub(crate) fn moment(&mut self) -> Moment {
        *self.moment.get_or_insert_with(Moment::now)
    }

    /// Puts a tag, or tags, where a question that found them would have.
    pub(crate) fn leave(&mut self, leaves: Leaves, left: &Value) {
        match leaves {
            Leaves::Nothing => {}
            Leaves::Tag => {
                self.has_tag = left.is_string();
                self.tag.clear();
                self.tag.push_str(left.as_str().unwrap_or_default());
            }
            Leaves::Tags => {
                let tags = left.as_array().map(Vec::as_slice).unwrap_or_default();
                let tags = tags.iter().filter_map(Value::as_str);
                self.trusted_tags = tags.map(str::to_owned).collect();
            }
        }
    }

    /// The request of the call.
    pub(crate) fn request(&self) -> &Request {
        self.request
            .as_ref()
            .expect("a call that began has a request")
    }

    /// The bytes that a policy may pass in one call.
    pub(crate) fn host_call_bytes(&self) -> usize {
        self.bounds.host_call_bytes
    }

    /// `allow-address`
    pub(crate) fn allow_address(&mut self, group: u32, address: &str, port: u16) -> bool {
        self.answered(
            "permissions.allow-address",
            Leaves::Tag,
            || json!([group, address, port]),
            |call| call.finds(group, Address::parse(address), port),
        )
    }

    /// `address-group`
    pub(crate) fn address_group(&mut self, address: &str, port: u16) -> Option<u32> {
        self.answered(
            "permissions.address-group",
            Leaves::Tag,
            || json!([address, port]),
            |call| call.find(Address::parse(address), port),
        )
    }

    fn finds(&mut self, group: u32, address: Address<'_>, port: u16) -> bool {
        if !self.scope.admits_group(group) {
            return false;
        }
        let table = &self.addresses.table;
        let entries = match address {
            Address::Ip(ip) => table.lookup(ip),
            Address::Name(name) => table.lookup_name(name),
        };
        note(&mut self.tag, &mut self.has_tag, entries.find(group, port)).is_some()
    }

    fn find(&mut self, address: Address<'_>, port: u16) -> Option<u32> {
        let table = &self.addresses.table;
        let entries = match address {
            Address::Ip(ip) => table.lookup(ip),
            Address::Name(name) => table.lookup_name(name),
        };
        let found = first_within(&self.scope, entries, port);
        note(&mut self.tag, &mut self.has_tag, found)
    }

    /// What the questions about trusted peers need: the request, what is known, when it has to end, and where tags go.
    pub(crate) fn parts(&mut self) -> (&Request, &Snapshot, &End, &mut Vec<String>) {
        let request = self.request.as_ref();
        let request = request.expect("a call that began has a request");
        (request, &self.addresses, &self.end, &mut self.trusted_tags)
    }

    /// Ends the call if its time is over.
    #[inline]
    pub(crate) fn in_time(&self) -> wasmtime::Result<()> {
        match self.end.is_ahead() {
            true => Ok(()),
            false => Err(Trap::Interrupt.into()),
        }
    }

    /// What the policy may ask about.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What is known of addresses, peers and rules.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.addresses
    }

    /// `tags`
    pub(crate) fn trusted_tags(&self) -> &[String] {
        &self.trusted_tags
    }

    /// `last-tag`
    pub(crate) fn last_tag(&self) -> Option<&str> {
        self.has_tag.then_some(&self.tag)
    }
}

impl ResourceLimiter for Call {
    fn memory_growing(
        &mut self,
        current: usize,
        wanted: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.bounds.memory_bytes;
        // A composition has several memories.
        let wanted = self.memory.saturating_add(wanted.saturating_sub(current));
        if wanted > limit {
            return Err(Refused::Memory { wanted, limit }.into());
        }
        self.memory = wanted;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        wanted: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let limit = self.bounds.table_elements;
        match wanted > limit {
            true => Err(Refused::Table { wanted, limit }.into()),
            false => Ok(true),
        }
    }
}

impl LogBudget {
    /// Whether one more line may be written.
    fn take(&self, lines: u32) -> bool {
        let room = self.written.get() < lines;
        let counter = if room { &self.written } else { &self.dropped };
        counter.set(counter.get().saturating_add(1));
        room
    }
}

impl<'a> Address<'a> {
    /// Reads an address as the table does; what is no address is a name.
    fn parse(text: &'a str) -> Self {
        parse_ip(text).map_or(Self::Name(text), Self::Ip)
    }
}

/// The first row of a group that the policy may ask about.
#[inline]
fn first_within<'t>(scope: &Scope, entries: Entries<'t>, port: u16) -> Option<Match<'t>> {
    match scope.is_limited() {
        false => entries.first(port),
        true => entries.first_of(port, scope.groups()),
    }
}

/// Remembers the tag of a match for `last-tag`. What found nothing leaves the tag of the match before.
fn note(tag: &mut String, has_tag: &mut bool, found: Option<Match<'_>>) -> Option<u32> {
    let found = found?;
    *has_tag = found.tag.is_some();
    tag.clear();
    tag.push_str(found.tag.unwrap_or_default());
    Some(found.group)
}

/// Whether anybody reads lines of this level. Dropped ones do not count against the limit.
fn enabled(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "policy", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "policy", Level::WARN),
        Level::INFO => tracing::enabled!(target: "policy", Level::INFO),
        _ => tracing::enabled!(target: "policy", Level::DEBUG),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_budget_counts_what_it_refuses() {
        let budget = LogBudget::default();

        let written = (0..20).filter(|_| budget.take(16)).count();

        assert_eq!(written, 16);
        assert_eq!(budget.dropped.get(), 4);
    }
}
