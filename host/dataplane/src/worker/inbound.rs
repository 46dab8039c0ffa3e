//! What comes in over a stream connection, however its transport frames it: messages, and what a connection waits for.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_metrics::{HandoverResult, WireCounters};
use portcullis_request::Request;
use portcullis_sip::{Destination, Framing, Transport};
use tokio::task::yield_now;

use super::Worker;
use super::stream_peer::StreamPeer;
use crate::handover::Item;
use crate::pipeline::{Handled, wire_of};
use crate::transport::Activity;

/// Maximum time for which a connection waits until another worker takes its message.
const HAND_OVER: Duration = Duration::from_secs(1);

/// Why a connection is not read any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it, or it broke.
    Closed,
    /// No message was received or sent for too long.
    Idle,
    /// The start of the next message cannot be located.
    Unframed,
    /// The peer reads nothing.
    Unwritable,
    /// It was removed from the table: the host ends, or another process has the listeners, and nothing was in progress.
    Left,
    /// The connection was evicted.
    Evicted,
}

/// What a connection waits for.
pub(super) enum Next {
    /// More input.
    Bytes,
    /// Its turn, for this deferred request.
    Turn(Box<Request>),
    /// Room in the queue of the worker with this number, which owns the transaction of this message.
    Room(usize, Item),
    /// Nothing: the stream cannot be parsed any more.
    Nothing,
}

/// Decides on a deferred request, after those of other connections that have waited for longer, and after input of any socket that has
/// arrived meanwhile.
pub(super) async fn decide_in_turn(
    worker: &Rc<RefCell<Worker>>,
    // Otherwise each connection, idle or not, would have room for a request.
    request: Box<Request>,
    activity: &Activity,
) {
    let slow = Rc::clone(&worker.borrow().slow);
    let _turn = slow.acquire().await;
    yield_now().await;
    worker.borrow_mut().decide_stream(*request, activity);
    super::udp::flush_all(worker).await;
}

/// Hands a message over to a worker whose queue is full. TCP does not retransmit what is lost here.
pub(super) async fn hand_over_in_time(worker: &Rc<RefCell<Worker>>, owner: usize, item: Item) {
    let shared = Arc::clone(worker.borrow().pipeline.shared());
    let is_taken = shared.handovers.push_within(HAND_OVER, owner, item).await;
    let result = match is_taken {
        true => HandoverResult::Taken,
        false => HandoverResult::Full,
    };
    worker.borrow().count_handover(owner, result);
}

impl Worker {
    /// Decides on one framed message, unless it is to be deferred. Returns what the connection waits for then.
    pub(super) fn message(
        &mut self,
        bytes: &[u8],
        tcp: StreamPeer,
        activity: &Activity,
    ) -> Option<Next> {
        activity.received(bytes);
        let framing = Framing::of(tcp.transport);
        let counters = self.wire(tcp.transport);
        counters.received.inc();
        counters.received_bytes.add(bytes.len() as u64);
        let mut buffer = std::mem::take(&mut self.stream_in);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let out = &mut self.stream_out;
        let (buffer, handled) = self.pipeline.handle(buffer, framing, &tcp.arrival(), out);
        self.stream_in = buffer;
        match handled {
            Handled::Done(destination) => self.send_handled(destination, activity),
            Handled::Relayed => {}
            Handled::HandOver(owner) => {
                let item = Item::Message {
                    bytes: self.stream_in.clone(),
                    arrival: tcp.arrival(),
                    framing,
                };
                if let Err(item) = self.try_hand_over(owner, item) {
                    return Some(Next::Room(owner, item));
                }
            }
            Handled::Waits(request) => return Some(Next::Turn(request)),
        }
        self.send_transactions();
        None
    }

    /// Decides on a deferred request.
    fn decide_stream(&mut self, request: Request, activity: &Activity) {
        let destination = self.pipeline.decide(request, &mut self.stream_out);
        self.send_handled(destination, activity);
        self.send_transactions();
    }

    /// Sends the result of a connection's message. A relayed request makes the connection a known one.
    fn send_handled(&mut self, destination: Option<Destination>, activity: &Activity) {
        if destination.is_some() {
            activity.relayed(&self.stream_out);
        }
        self.send_stream_out(destination);
    }

    /// The counters of a transport.
    pub(super) fn wire(&self, transport: Transport) -> &WireCounters {
        self.counters().wire(wire_of(transport))
    }
}
