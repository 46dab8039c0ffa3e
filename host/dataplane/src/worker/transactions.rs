//! Carries transactions: sends their messages, runs their timers, and takes what other workers hand over.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

use bytes::Bytes;
use portcullis_metrics::HandoverResult;
use portcullis_sip::{Arrival, Destination, Framing, Transport};
use portcullis_transaction::What;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use super::Worker;
use super::udp::{SLICE, flush_all};
use crate::active::{CallName, CancelledPage};
use crate::handover::Item;
use crate::notices::{Example, Trouble};
use crate::pipeline::Handled;
use crate::transport::Outgoing;

/// Items taken from other workers in one turn.
const TURN: usize = 64;

/// Runs the timers of transactions during the lifetime of the worker.
pub(super) async fn run_timers(worker: Rc<RefCell<Worker>>) {
    let is_earlier = worker.borrow().timer.is_earlier();
    loop {
        let deadline = worker.borrow_mut().next_deadline();
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = is_earlier.notified() => continue,
        }
        let is_done = worker.borrow_mut().expire();
        flush_all(&worker).await;
        if !is_done {
            yield_now().await;
        }
    }
}

/// Takes what other workers hand over during the lifetime of the worker.
pub(super) async fn take_over(worker: Rc<RefCell<Worker>>) {
    let shared = std::sync::Arc::clone(worker.borrow().pipeline.shared());
    let number = worker.borrow().pipeline.number();
    loop {
        shared.handovers.filled(number).await;
        loop {
            let (count, waits) = {
                let mut worker = worker.borrow_mut();
                let count = worker.take_turn();
                // The sockets' tasks sleep until a datagram comes.
                worker.decide_waiting(SLICE);
                (count, !worker.waiting.is_empty())
            };
            flush_all(&worker).await;
            if count < TURN && !waits {
                break;
            }
            yield_now().await;
        }
    }
}

impl Worker {
    /// The deadline until which the timer task sleeps now.
    fn next_deadline(&mut self) -> Option<Instant> {
        let deadline = self.pipeline.next_deadline().map(Instant::from_std);
        self.timer.arm(deadline);
        deadline
    }

    fn expire(&mut self) -> bool {
        let is_done = self.pipeline.expire();
        self.send_transactions();
        is_done
    }

    /// Sends what transactions have to send, and wakes the timer task up if it sleeps too long.
    pub(super) fn send_transactions(&mut self) {
        if !self.pipeline.is_stateful() {
            return;
        }
        let mut sends = std::mem::take(&mut self.sends);
        while self.pipeline.take_sends(&mut sends) {
            for sent in sends.iter() {
                let is_sent = self.send_bytes(sent.bytes, Outgoing::of(sent.to));
                if !is_sent && matches!(sent.what, What::Request | What::RequestRetransmission) {
                    self.fail_undelivered(sent.bytes, None);
                }
            }
        }
        self.sends = sends;
        if let Some(deadline) = self.pipeline.next_deadline() {
            self.timer.wake_for(Instant::from_std(deadline));
        }
    }

    /// Sends a message. Returns false if that has failed already.
    fn send_bytes(&mut self, bytes: &[u8], empty: Outgoing) -> bool {
        let to = empty.to;
        match to.transport {
            Transport::Udp => self.udp.send(bytes, &to, &self.pipeline),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                self.send_stream(Outgoing {
                    bytes: Bytes::copy_from_slice(bytes),
                    ..empty
                })
            }
        }
    }

    /// Sends a request of the host itself.
    pub(super) fn send_own(&mut self, bytes: &[u8], to: Destination) {
        if !self.send_bytes(bytes, Outgoing::of(to)) {
            self.fail_undelivered(bytes, None);
        }
    }

    /// Sends a ping along the flow of a client, if so much may be sent to its address.
    pub(super) fn send_ping(&mut self, bytes: &[u8], to: Destination) {
        if self.pipeline.may_ping(bytes, &to) {
            self.send_own(bytes, to);
        }
    }

    /// Notes in its transaction that a request was not delivered, or that a ping was not, for this reason if it is known. Returns false if it is
    /// neither.
    pub(super) fn fail_undelivered(&mut self, bytes: &[u8], why: Option<&dyn Display>) -> bool {
        let Some((branch, owner)) = self.pipeline.branch_of_undelivered(bytes) else {
            return self.pipeline.fail_ping(bytes, why);
        };
        if owner == self.pipeline.number() {
            self.pipeline.fail_branch(branch);
        } else {
            self.hand_over(owner, Item::Undelivered(branch));
        }
        true
    }

    /// Hands a received message over to the worker that owns its transaction.
    pub(super) fn hand_over_message(&self, owner: usize, bytes: &[u8], arrival: Arrival) {
        let bytes = bytes.to_vec();
        let message = Item::Message {
            bytes,
            arrival,
            framing: Framing::Datagram,
        };
        self.hand_over(owner, message);
    }

    fn hand_over(&self, owner: usize, item: Item) {
        if self.try_hand_over(owner, item).is_err() {
            self.count_handover(owner, HandoverResult::Full);
        }
    }

    /// Hands something over to another worker. Returns the item if the queue is full.
    pub(super) fn try_hand_over(&self, owner: usize, item: Item) -> Result<(), Item> {
        self.pipeline.shared().handovers.push(owner, item)?;
        self.count_handover(owner, HandoverResult::Taken);
        Ok(())
    }

    /// Counts what was handed over to a worker, or lost because its queue was full.
    pub(super) fn count_handover(&self, owner: usize, result: HandoverResult) {
        self.counters().transactions.handovers.inc(result);
        if result == HandoverResult::Full {
            let example = || Example::new(b"", None, format!("the queue of worker {owner}"));
            self.pipeline
                .reporter()
                .note(Trouble::HandoverFull, 1, example);
        }
    }

    /// Handles what other workers have handed over: for a worker that ends.
    pub(super) fn take_all(&mut self) {
        while self.take_turn() > 0 {}
    }

    /// Handles what other workers have handed over, up to a number. Returns how much that was.
    pub(super) fn take_turn(&mut self) -> usize {
        self.pipeline.refresh();
        let (shared, number) = (
            std::sync::Arc::clone(self.pipeline.shared()),
            self.pipeline.number(),
        );
        let items = std::iter::from_fn(|| shared.handovers.pop(number)).take(TURN);
        let mut count = 0;
        for item in items {
            count += 1;
            match item {
                Item::Message {
                    bytes,
                    arrival,
                    framing,
                } => self.taken_over(bytes, &arrival, framing),
                Item::Passed { bytes, arrival } => self.taken_from_host(bytes, arrival),
                Item::Undelivered(branch) => {
                    self.pipeline.fail_branch(branch);
                    self.send_transactions();
                }
            }
        }
        count
    }

    /// Cancels at most this many transactions of a call in the slots from here on.
    pub(super) fn cancel(&mut self, from: u32, call: &CallName, most: usize) -> CancelledPage {
        self.pipeline.refresh();
        let page = self.pipeline.cancel(from, call, most);
        self.send_transactions();
        page
    }

    /// Handles a datagram that another host has received, as if it had been received here.
    fn taken_from_host(&mut self, bytes: Vec<u8>, arrival: Arrival) {
        self.pipeline.received_datagram(arrival.source, bytes.len());
        let out = &mut self.stream_out;
        let (bytes, handled) = self.pipeline.handle_passed(bytes, &arrival, out);
        match handled {
            Handled::Done(destination) => self.send_stream_out(destination),
            Handled::Relayed => {}
            Handled::Waits(request) => self.postpone(None, request),
            // The other host has named a transaction of another worker.
            Handled::HandOver(owner) => self.hand_over(owner, Item::Passed { bytes, arrival }),
        }
        self.send_transactions();
    }

    /// Handles a message that another worker, or the process that has the sockets now, has received.
    pub(super) fn taken_over(&mut self, bytes: Vec<u8>, arrival: &Arrival, framing: Framing) {
        let out = &mut self.stream_out;
        let (_, handled) = self
            .pipeline
            .handle_handed_over(bytes, framing, arrival, out);
        match handled {
            Handled::Done(destination) => self.send_stream_out(destination),
            Handled::Relayed => {}
            Handled::Waits(request) => self.postpone(None, request),
            // The owner is a function of the message.
            Handled::HandOver(_) => {}
        }
        self.send_transactions();
    }
}
