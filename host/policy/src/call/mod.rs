//! The state of a policy call, and the host functions, which read and change it.
//!
//! `interfaces` has one file for each interface of the contract. `abi` reads the arguments of the functions and writes their results; `tape`
//! records the answers, or repeats recorded ones.

pub(crate) mod abi;
pub(crate) mod interfaces;
mod log_budget;
pub(crate) mod state;
mod tape;

use std::cell::RefCell;
use std::sync::Arc;

use portcullis_address::Snapshot;
use portcullis_request::Request;
use portcullis_tls::Session;
use serde_json::Value;
use wasmtime::Trap;

use crate::clock::Moment;
use crate::decision::DecisionId;
use crate::edits::Edits;
use crate::failed_attempts::FailedAttempts;
use crate::forwarding::Forwarding;
use crate::host_state::HostState;
use crate::log_line::LogLine;
use crate::scope::Scope;
use crate::tape::{SideEffect, Tape};
use crate::ticker::End;
use crate::wishes::Wishes;

pub use interfaces::hash_of_request;

use log_budget::LogBudget;

/// The state of a call: request, tables and scope, and what the policy has queried, logged, changed and added so far.
pub(crate) struct Call {
    request: Option<Request>,
    addresses: Arc<Snapshot>,
    scope: Arc<Scope>,
    policy: Arc<str>,
    host: Option<Arc<dyn HostState>>,
    /// The session of the connection, once the policy has asked for it.
    session: Option<Option<Arc<Session>>>,
    wishes: Wishes,
    bounds: Bounds,
    log: LogBudget,
    /// The lines of the call, if its caller keeps them. A cell for the same reason as in [`LogBudget`].
    kept_log: Option<RefCell<Vec<LogLine>>>,
    tag: String,
    has_tag: bool,
    /// Tags of the trusted peers that were found last.
    trusted_tags: Vec<String>,
    /// The time of the call, read from the clock when it is first needed.
    moment: Option<Moment>,
    edits: Edits,
    forwarding: Option<Box<Forwarding>>,
    /// What a call of `on-failure` is about.
    failed: Option<Box<FailedAttempts>>,
    tape: Option<Box<Tape>>,
    decision: Option<DecisionId>,
    /// The deadline. Host functions check it, too.
    pub(crate) end: End,
}

/// The limits that host functions enforce.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) memory_bytes: usize,
    pub(crate) table_elements: usize,
    pub(crate) host_call_bytes: usize,
    pub(crate) log_bytes: usize,
    pub(crate) log_lines: u32,
    /// Whether log lines are discarded, as in a trial run.
    pub(crate) mute: bool,
}

/// What a call is based on. The same as that of the previous call, as a rule.
#[derive(Clone, Copy)]
pub(crate) struct Basis<'c> {
    pub(crate) addresses: &'c Arc<Snapshot>,
    pub(crate) scope: &'c Arc<Scope>,
    /// The name of the policy.
    pub(crate) policy: &'c Arc<str>,
    /// `None`: nothing is known beside the request.
    pub(crate) host: Option<&'c Arc<dyn HostState>>,
}

/// What accompanies the request of a call.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) failed: Option<Box<FailedAttempts>>,
    pub(crate) tape: Option<Box<Tape>>,
    pub(crate) decision: Option<DecisionId>,
    /// Whether log lines are kept for the caller.
    pub(crate) keeps_log: bool,
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
            host: None,
            session: None,
            wishes: Wishes::default(),
            bounds,
            log: LogBudget::default(),
            kept_log: None,
            tag: String::new(),
            has_tag: false,
            trusted_tags: Vec::new(),
            moment: None,
            edits: Edits::default(),
            forwarding: None,
            failed: None,
            tape: None,
            decision: None,
            end: End::default(),
        }
    }

    /// Starts a call. No atomic operation while its basis is the same as in the previous call.
    pub(crate) fn begin(
        &mut self,
        basis: Basis<'_>,
        bounds: Bounds,
        request: Request,
        notes: Notes,
    ) {
        let Basis {
            addresses,
            scope,
            policy,
            host,
        } = basis;
        if !Arc::ptr_eq(&self.scope, scope) {
            self.scope = Arc::clone(scope);
        }
        if !Arc::ptr_eq(&self.addresses, addresses) {
            self.addresses = Arc::clone(addresses);
        }
        if !Arc::ptr_eq(&self.policy, policy) {
            self.policy = Arc::clone(policy);
        }
        let is_same = match (&self.host, host) {
            (Some(own), Some(new)) => Arc::ptr_eq(own, new),
            (own, new) => own.is_none() && new.is_none(),
        };
        if !is_same {
            self.host = host.cloned();
        }
        self.session = None;
        self.wishes = Wishes::default();
        self.bounds = bounds;
        self.log = LogBudget::default();
        self.kept_log = notes.keeps_log.then(RefCell::default);
        self.has_tag = false;
        self.trusted_tags.clear();
        self.edits.clear();
        self.forwarding = None;
        self.failed = notes.failed;
        self.moment = notes.tape.as_ref().map(|tape| tape.moment());
        self.tape = notes.tape;
        self.decision = notes.decision;
        self.request = Some(request);
    }

    /// Ends the call and returns its request.
    pub(crate) fn end(&mut self) -> Request {
        self.failed = None;
        self.session = None;
        self.request
            .take()
            .expect("a call that began has a request")
    }

    /// Takes the tape of the call, if it has one.
    pub(crate) fn take_tape(&mut self) -> Option<Box<Tape>> {
        self.tape.take()
    }

    /// Takes the log lines of the call; none if its caller does not keep them.
    pub(crate) fn take_log(&mut self) -> Vec<LogLine> {
        self.kept_log
            .take()
            .map(RefCell::into_inner)
            .unwrap_or_default()
    }

    /// The changes to header fields so far.
    pub(crate) fn edits(&mut self) -> &mut Edits {
        &mut self.edits
    }

    /// The tape of the call, if it has one.
    #[inline]
    pub(crate) fn tape(&self) -> Option<&Tape> {
        self.tape.as_deref()
    }

    /// Passes the tape to `work`. There must be one.
    pub(crate) fn with_tape<T>(&mut self, work: impl FnOnce(&mut Tape) -> T) -> T {
        work(
            self.tape
                .as_mut()
                .expect("the caller has checked that there is a tape"),
        )
    }

    /// The time of the call: the same for all queries of one call.
    pub(crate) fn moment(&mut self) -> Moment {
        *self.moment.get_or_insert_with(Moment::now)
    }

    /// Restores the side effect of a replayed query.
    pub(crate) fn restore(&mut self, side_effect: SideEffect, left: &Value) {
        match side_effect {
            SideEffect::None => {}
            SideEffect::Tag => {
                self.has_tag = left.is_string();
                self.tag.clear();
                self.tag.push_str(left.as_str().unwrap_or_default());
            }
            SideEffect::Tags => {
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

    /// What is known beside the request.
    pub(crate) fn host(&self) -> Option<&dyn HostState> {
        self.host.as_deref()
    }

    /// What the policy has asked of the host so far.
    pub(crate) fn wishes(&self) -> Wishes {
        self.wishes
    }

    /// The same, to be changed.
    pub(crate) fn wishes_mut(&mut self) -> &mut Wishes {
        &mut self.wishes
    }

    /// What the handshake of TLS has settled on the connection of the request. The connection is looked up once, and only if it has TLS.
    pub(crate) fn session(&mut self) -> Option<&Session> {
        if self.session.is_none() {
            let arrival = &self.request().arrival;
            let host = self.host.as_ref();
            let host = host.filter(|_| arrival.transport.is_secure());
            self.session = Some(host.and_then(|host| host.session(arrival)));
        }
        self.session.as_ref()?.as_deref()
    }

    /// The limits of the call.
    pub(crate) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// The bytes that a policy may pass in one call of a host function.
    pub(crate) fn host_call_bytes(&self) -> usize {
        self.bounds.host_call_bytes
    }

    /// The parts that a query of trusted peers needs: request, tables, deadline, and the list for the tags that are found.
    pub(crate) fn parts(&mut self) -> (&Request, &Snapshot, &End, &mut Vec<String>) {
        let request = self.request.as_ref();
        let request = request.expect("a call that began has a request");
        (request, &self.addresses, &self.end, &mut self.trusted_tags)
    }

    /// Returns an error that ends the call if its deadline has passed.
    #[inline]
    pub(crate) fn in_time(&self) -> wasmtime::Result<()> {
        match self.end.is_ahead() {
            true => Ok(()),
            false => Err(Trap::Interrupt.into()),
        }
    }

    /// What the policy may query and change.
    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The tables and rules.
    pub(crate) fn snapshot(&self) -> &Snapshot {
        &self.addresses
    }

    /// `trusted.tags`
    pub(crate) fn trusted_tags(&self) -> &[String] {
        &self.trusted_tags
    }

    /// `permissions.last-tag`
    pub(crate) fn last_tag(&self) -> Option<&str> {
        self.has_tag.then_some(&self.tag)
    }
}
