//! What workers notice of clients over UDP whose flows are kept open with pings: registrations, answers, and pings that were not delivered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Most events that wait for the control side, which takes them several times a second.
const MOST_WAITING: usize = 8_192;

/// The way of flows and pings between workers and the control side, and what has become of pings.
#[derive(Debug)]
pub struct FlowPings {
    events: ArrayQueue<FlowEvent>,
    /// Events that were lost because too many waited.
    pub lost: AtomicU64,
    /// Flows that are pinged now: a level.
    pub flows: AtomicU64,
    /// Registrations whose flow is not pinged, because as many are as may be.
    pub refused: AtomicU64,
    /// What has become of pings.
    pub results: FlowPingResults,
    /// The registrations of the process that had the sockets before, until they are taken.
    inherited: Mutex<Vec<Registration>>,
    /// Who asks for all registrations.
    asked: Mutex<Option<oneshot::Sender<Vec<Registration>>>>,
    is_asked: Notify,
}

/// A flow that is pinged, in the form in which a process passes it to its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The flow.
    pub flow: ClientFlow,
    /// For how many seconds its registration still lasts.
    pub seconds: u32,
    /// Number of pings in a row without an answer.
    pub silent: u8,
}

/// The path of a client over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientFlow {
    /// The socket of the host.
    pub local: SocketAddr,
    /// The address of the client, as it is seen here.
    pub client: SocketAddr,
}

/// What a worker has noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowEvent {
    /// A registrar has accepted a registration that came along this flow.
    Registered {
        /// The flow.
        flow: ClientFlow,
        /// How long it lasts.
        seconds: u32,
    },
    /// A client has answered the ping with this number, whatever its answer is.
    Answered {
        /// The flow.
        flow: ClientFlow,
        /// The number.
        number: u64,
    },
    /// The network says that this client cannot be reached. The report does not name the socket.
    Undelivered {
        /// The address of the client.
        client: SocketAddr,
        /// The number of the ping.
        number: u64,
    },
    /// The ping with this number was not sent: the address of its client has not proved itself, and has been sent as much as it may be.
    KeptBack {
        /// The flow.
        flow: ClientFlow,
        /// The number.
        number: u64,
    },
}

/// Numbers of pings by what has become of them.
#[derive(Debug, Default)]
pub struct FlowPingResults {
    /// Answered.
    pub answered: AtomicU64,
    /// Not answered before the next ping.
    pub silent: AtomicU64,
    /// Not delivered.
    pub unreachable: AtomicU64,
    /// Not sent to an address that has not proved itself.
    pub kept_back: AtomicU64,
}

impl Default for FlowPings {
    fn default() -> Self {
        Self {
            events: ArrayQueue::new(MOST_WAITING),
            lost: AtomicU64::new(0),
            flows: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            results: FlowPingResults::default(),
            inherited: Mutex::default(),
            asked: Mutex::default(),
            is_asked: Notify::new(),
        }
    }
}

impl FlowPings {
    /// The next event, if there is one.
    pub fn next_now(&self) -> Option<FlowEvent> {
        self.events.pop()
    }

    /// All flows that are pinged, for the process that takes the sockets over. None if nobody pings.
    pub async fn all(&self) -> Vec<Registration> {
        let (answer, told) = oneshot::channel();
        *self.asked.lock() = Some(answer);
        self.is_asked.notify_one();
        told.await.unwrap_or_default()
    }

    /// Waits for somebody who asks for all flows that are pinged.
    pub async fn question(&self) -> oneshot::Sender<Vec<Registration>> {
        loop {
            if let Some(asked) = self.asked.lock().take() {
                return asked;
            }
            self.is_asked.notified().await;
        }
    }

    /// Keeps what another process has pinged.
    pub fn inherit(&self, registrations: Vec<Registration>) {
        self.inherited.lock().extend(registrations);
    }

    /// What another process has pinged.
    pub fn take_inherited(&self) -> Vec<Registration> {
        std::mem::take(&mut self.inherited.lock())
    }

    /// Notes an event, without a lock. If the control side is too slow, the event is lost and counted.
    pub(crate) fn note(&self, event: FlowEvent) {
        if self.events.push(event).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_flows_are_told_to_whoever_asks() {
        let pings = FlowPings::default();
        let flow = ClientFlow {
            local: "192.0.2.9:5060".parse().unwrap(),
            client: "198.51.100.7:40000".parse().unwrap(),
        };
        let registration = Registration {
            flow,
            seconds: 60,
            silent: 1,
        };
        let answer = async {
            let asked = pings.question().await;
            asked.send(vec![registration]).unwrap();
        };
        let (all, ()) = tokio::join!(pings.all(), answer);
        assert_eq!(all, [registration]);
        pings.inherit(all);
        assert_eq!(pings.take_inherited(), [registration]);
        assert!(pings.take_inherited().is_empty());
    }

    #[test]
    fn events_come_in_their_order_and_lost_ones_are_counted() {
        let pings = FlowPings::default();
        let client = "198.51.100.7:40000".parse().unwrap();
        for number in 0..MOST_WAITING as u64 + 3 {
            pings.note(FlowEvent::Undelivered { client, number });
        }
        assert_eq!(pings.lost.load(Ordering::Relaxed), 3);
        for number in 0..MOST_WAITING as u64 {
            let event = FlowEvent::Undelivered { client, number };
            assert_eq!(pings.next_now(), Some(event));
        }
        assert_eq!(pings.next_now(), None);
    }
}
