//! Messages of transactions that other hosts have, which share the addresses of this one.

use std::time::Instant;

use portcullis_metrics::WorkerCounters;
use portcullis_peers::{Carried, Passing, Peer, Peers, Socket};
use portcullis_sip::{Arrival, Message, StartLine, Transport};
use portcullis_transaction::Receipt;

use crate::shared::Shared;
use crate::transport::Bound;

/// What passing a message to another host needs.
#[derive(Clone, Copy)]
pub(super) struct AmongHosts<'p> {
    pub(super) peers: &'p Peers,
    pub(super) shared: &'p Shared,
    pub(super) counters: &'p WorkerCounters,
}

impl AmongHosts<'_> {
    /// Passes a response without a transaction here to the host that has written its top Via. Returns whether that host has it now.
    pub(super) fn pass_answer(
        &self,
        receipt: Receipt,
        message: Message<'_>,
        arrival: &Arrival,
        draft: &mut Vec<u8>,
    ) -> bool {
        let is_answer = matches!(message.start_line(), StartLine::Response { .. });
        if !is_answer || receipt != Receipt::Stray {
            return false;
        }
        let Some(socket) = self.socket_of(arrival) else {
            return false;
        };
        let proxy = &self.shared.proxy;
        let (Some(tag), Ok(branch)) = (proxy.tag_of(message), proxy.branch_of(message)) else {
            return false;
        };
        let table = self.peers.table();
        let Some(peer) = table.with_tag(tag, socket) else {
            return false;
        };
        let transaction = branch.transaction.number();
        let carried = carried(transaction, socket, message, arrival);
        let counter = &self.counters.transactions.answers_to_hosts;
        self.pass(peer, carried, draft, || counter.inc())
    }

    /// Passes a request without a transaction here to the host that its branch selects. Its copies, its CANCEL and the ACK to its failure have the
    /// same branch. Returns whether that host has it now.
    pub(super) fn pass_request(
        &self,
        receipt: Receipt,
        message: Message<'_>,
        arrival: &Arrival,
        draft: &mut Vec<u8>,
    ) -> bool {
        let is_request = matches!(message.start_line(), StartLine::Request { .. });
        if !is_request || !self.peers.passes_requests() {
            return false;
        }
        let name = match receipt {
            Receipt::New(name) => Some(name),
            Receipt::Stateless => self.shared.proxy.name_of(message, arrival),
            Receipt::Handled
            | Receipt::Again
            | Receipt::Stray
            | Receipt::Conflict
            | Receipt::Changed
            | Receipt::Unreadable => None,
        };
        let (Some(name), Some(socket)) = (name, self.socket_of(arrival)) else {
            return false;
        };
        let transaction = name.transaction.number();
        let table = self.peers.table();
        let Some(peer) = table.chosen_for(transaction, socket) else {
            return false;
        };
        let carried = carried(transaction, socket, message, arrival);
        let counter = &self.counters.transactions.requests_to_hosts;
        self.pass(peer, carried, draft, || counter.inc())
    }

    fn pass(
        &self,
        peer: &Peer,
        carried: Carried<'_>,
        draft: &mut Vec<u8>,
        count: impl FnOnce(),
    ) -> bool {
        match self.peers.pass(peer, carried, draft) {
            Passing::Done => {
                count();
                self.owes_nothing(carried);
                true
            }
            Passing::Failed => {
                self.counters.transactions.not_to_hosts.inc();
                false
            }
        }
    }

    /// Notes that this host sends nothing back for a datagram. The other host does, and has it in its account of what may go to the source: whoever
    /// forges the source must not get two answers for it.
    fn owes_nothing(&self, carried: Carried<'_>) {
        let source = carried.source.ip();
        if !self.shared.config.guard.is_exempt(source) {
            let unproved = &self.shared.unproved;
            unproved.passed_on(source, carried.bytes.len(), Instant::now());
        }
    }

    /// The UDP socket of a datagram. The connections of TCP, TLS and WebSocket lead to the host that has them.
    fn socket_of(&self, arrival: &Arrival) -> Option<Socket> {
        if arrival.transport != Transport::Udp {
            return None;
        }
        let is_it =
            |bound: &Bound| bound.transport == Transport::Udp && bound.addr == arrival.local;
        self.peers
            .socket(self.shared.listen.iter().position(is_it)?)
    }
}

fn carried<'m>(
    transaction: u64,
    socket: Socket,
    message: Message<'m>,
    arrival: &Arrival,
) -> Carried<'m> {
    Carried {
        transaction,
        source: arrival.source,
        socket: socket.number(),
        bytes: message.bytes(),
    }
}
