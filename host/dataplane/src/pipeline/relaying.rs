//! Writes relayed requests: the target, the routes and the header changes of a decision.

use std::sync::Arc;
use std::time::Instant;

use portcullis_dispatcher::Dispatcher;
use portcullis_metrics::WorkerCounters;
use portcullis_policy::{Edit, ForwardTarget, Forwarding, Place, Verdict};
use portcullis_records::Recorder;
use portcullis_records::calls::Calls;
use portcullis_sip::{
    Arrival, Branch, Choice, Destination, Forward, Forwarded, HeaderChange, HeaderName, Message,
    Proxy, RelayError, RequestName, Routes, Target,
};

use portcullis_transaction::max_breadth;

use super::among_hosts::AmongHosts;
use super::judge::{Judged, Judgement, Outcome};
use super::targets::in_order;
use crate::failed_addresses::FailedAddresses;
use crate::notices::{Example, Trouble};
use crate::shared::Shared;

/// What writing a relayed request needs.
pub(super) struct Relaying<'p> {
    shared: &'p Shared,
    number: usize,
    /// The operator's routes.
    routes: &'p Arc<Routes>,
}

impl<'p> Relaying<'p> {
    pub(super) fn new(shared: &'p Shared, number: usize, routes: &'p Arc<Routes>) -> Self {
        Self {
            shared,
            number,
            routes,
        }
    }

    /// Targets in the order in which they are tried.
    pub(super) fn in_order(
        &self,
        forwarding: Forwarding,
        message: Message<'_>,
    ) -> Vec<ForwardTarget> {
        let call_id = message.header(HeaderName::CallId);
        let call_id = call_id.map_or(&b""[..], |field| field.value);
        in_order(forwarding, call_id, &self.shared.share_key)
    }

    pub(super) fn proxy(&self) -> &'p Proxy {
        &self.shared.proxy
    }

    /// The host, for what is passed to others that share its addresses; `None` if nothing is.
    pub(super) fn among_hosts(&self) -> Option<AmongHosts<'p>> {
        let peers = self.shared.peers.as_deref()?;
        Some(AmongHosts {
            peers,
            shared: self.shared,
            counters: self.counters(),
        })
    }

    /// The addresses that have failed lately.
    pub(super) fn failed_addresses(&self) -> &'p FailedAddresses {
        &self.shared.failed_addresses
    }

    /// Most addresses of a target that are tried.
    pub(super) fn most_addresses(&self) -> usize {
        usize::from(self.shared.config.resolver.addresses)
    }

    /// The sets of the dispatcher.
    pub(super) fn dispatcher(&self) -> &'p Dispatcher {
        &self.shared.dispatcher
    }

    pub(super) fn counters(&self) -> &'p WorkerCounters {
        &self.shared.counters[self.number]
    }

    /// Writes a request as a decision says, to this target of its policy if there is one, with this branch and Max-Breadth, or with the branch that a
    /// stateless proxy writes. Addresses that were `tried` are left out.
    pub(super) fn write(
        &self,
        judged: Judged<'_>,
        target: Option<&ForwardTarget>,
        branch: Option<(Branch, u8)>,
        tried: &[Destination],
        out: &mut Vec<u8>,
    ) -> Result<Forwarded, RelayError> {
        let Judged {
            judgement,
            message,
            arrival,
        } = judged;
        let proxy = &self.shared.proxy;
        let request_uri = target.and_then(|target| target.request_uri.as_deref());
        let own = target.map_or(&[][..], |target| &target.headers);
        let own = own
            .iter()
            .map(|(name, value)| HeaderChange::Add { name, value });
        let target = match target {
            Some(target) => place_of(target),
            None => target_of(judgement),
        };
        // The operator's policies name the operator's next hops, whoever sent the request.
        let is_named = matches!(target, Target::NextHop(_) | Target::Uri(_));
        let is_operators = is_named && judgement.is_operators;
        let id = self.shown_id(judgement);
        let id = id
            .as_ref()
            .map(|(name, id)| HeaderChange::Add { name, value: id });
        let edits = judgement.edits.iter().map(change_of);
        let trace = self.trace_changes(judgement);
        let changes: Vec<_> = edits.chain(own).chain(id).chain(trace).collect();
        let forward = Forward {
            target,
            request_uri: request_uri.map(str::as_bytes),
            changes: &changes,
            branch,
            is_of_client: self.is_made_client(judgement, arrival),
            choice: Choice {
                tried,
                has_failed: &|transport, addr| self.shared.failed_addresses.has(transport, addr),
            },
            asks_for_load: self.shared.config.relay.overload_control.is_some(),
        };
        let mut write = |routes: &Routes| proxy.forward(message, arrival, routes, &forward, out);
        let written = match is_operators {
            true => write(self.routes),
            false => self.with_routes(judgement, write),
        };
        let forwarded = written?;
        let load = &self.shared.next_hop_load;
        if let Some(limit) = load.keeps_back(message, &forwarded.to, Instant::now) {
            let addr = forwarded.to.addr;
            return Err(RelayError::Overloaded { addr, limit });
        }
        if forwarded.to.is_flow {
            self.counters().flow_requests.inc();
        }
        Ok(forwarded)
    }

    /// Whether the sender of a request is reached by its flow.
    pub(super) fn is_of_client(&self, judgement: &Judgement, arrival: &Arrival) -> bool {
        let proxy = &self.shared.proxy;
        self.is_made_client(judgement, arrival)
            || self.with_routes(judgement, |routes| proxy.is_client(arrival, routes))
    }

    /// The same because of its policy or its group, whatever socket received the request.
    fn is_made_client(&self, judgement: &Judgement, arrival: &Arrival) -> bool {
        judgement.wishes.keeps_flow || self.shared.is_in_client_group(arrival.source.ip())
    }

    /// Whether flows of clients are kept open with pings.
    pub(super) fn pings_flows(&self) -> bool {
        self.shared.flow_pings.is_some()
    }

    /// Counts a target to which a request cannot be relayed.
    #[cold]
    pub(super) fn count_refused(&self, error: &RelayError, judged: Judged<'_>) {
        let Judged {
            judgement,
            message,
            arrival,
        } = judged;
        if let Some(tenant) = &judgement.tenant {
            tenant.counters[self.number].refused_relays.inc();
        }
        self.counters().relay_errors.inc(error.kind());
        let Some(trouble) = Trouble::of_relay(error.kind()) else {
            return;
        };
        let example = || {
            let call_id = message.header(HeaderName::CallId);
            let call_id = call_id.map_or(&b""[..], |field| field.value);
            let tenant = judgement.tenant.as_ref();
            Example {
                tenant: tenant.map(|tenant| tenant.name.clone()),
                decision: judgement.id,
                ..Example::new(call_id, Some(arrival.source), error.to_string())
            }
        };
        self.shared.notices.note(self.number, trouble, 1, example);
    }

    /// Where responses to the request go.
    pub(super) fn way_up(&self, judged: Judged<'_>) -> Option<Destination> {
        let Judged {
            judgement,
            message,
            arrival,
        } = judged;
        let proxy = &self.shared.proxy;
        self.with_routes(judgement, |routes| proxy.way_up(message, arrival, routes))
    }

    /// The branch and Max-Breadth of a request that is relayed without a transaction: the one that it would have with one, so that an ACK or a CANCEL
    /// from before a restart still has the branch of its INVITE. `None` in a stateless host.
    pub(super) fn stateless_branch(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        is_stateful: bool,
    ) -> Option<(Branch, u8)> {
        if !is_stateful {
            return None;
        }
        let RequestName { transaction, .. } = self.shared.proxy.name_of(message, arrival)?;
        Some((transaction.into(), max_breadth(message)))
    }

    /// The call records; `None` without.
    pub(super) fn calls(&self) -> Option<&'p Calls> {
        self.shared.records.as_ref()?.calls()
    }

    /// The header field with the decision's id, if configured.
    pub(super) fn shown_id(&self, judgement: &Judgement) -> Option<(&'p str, String)> {
        let name = self.shared.records.as_ref()?.id_header()?;
        Some((name, judgement.id?.to_string()))
    }

    /// The header changes for the context of a trace, if it is known: the field of the sender is replaced.
    fn trace_changes<'j>(
        &'j self,
        judgement: &'j Judgement,
    ) -> impl Iterator<Item = HeaderChange<'j>> + use<'j, 'p> {
        let records = self.shared.records.as_ref();
        let name = records.and_then(Recorder::trace_header);
        let known = name.zip(judgement.trace.as_deref());
        let changes = known.map(|(name, value)| {
            [
                HeaderChange::Remove(name),
                HeaderChange::Add { name, value },
            ]
        });
        changes.into_iter().flatten()
    }

    /// Calls this with the routes of the request's tenant, or with the operator's.
    fn with_routes<R>(&self, judgement: &Judgement, then: impl FnOnce(&Routes) -> R) -> R {
        let tenant = judgement.tenant.as_deref();
        match tenant.and_then(|tenant| tenant.routes.as_ref()) {
            Some(routes) => then(&routes.load()),
            None => then(self.routes),
        }
    }
}

/// The target that a decision names.
fn target_of(judgement: &Judgement) -> Target<'_> {
    match &judgement.outcome {
        Outcome::Within(dialog) => Target::Within(*dialog),
        Outcome::Verdict(Verdict::Relay(Some(name))) => Target::NextHop(name),
        Outcome::Verdict(_) | Outcome::Default | Outcome::Failed(_) => Target::AsRouted,
    }
}

fn place_of(target: &ForwardTarget) -> Target<'_> {
    match &target.place {
        Place::NextHop(name) | Place::Member(name) => Target::NextHop(name),
        Place::Uri(uri) => Target::Uri(uri),
    }
}

/// A header change in the form of the proxy.
fn change_of(edit: &Edit) -> HeaderChange<'_> {
    match edit {
        Edit::Add { name, value } => HeaderChange::Add { name, value },
        Edit::Remove { name } => HeaderChange::Remove(name),
    }
}
