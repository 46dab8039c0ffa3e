//! The stream connections of all workers: who can be reached over which.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use portcullis_sip::{ConnectionId, Destination};
use tokio::sync::mpsc;

/// Bytes that may wait for one connection. A peer that reads more slowly loses what comes on top.
pub(crate) const QUEUE_BYTES: usize = 1 << 20;

/// Bytes that may wait for all connections together.
const QUEUES_BYTES: usize = 256 << 20;

/// What a message costs beside its bytes, so that tiny ones can't add up unseen.
const MESSAGE_BYTES: usize = 256;

/// Connections of the whole host, both ways.
const MAX_TOTAL: usize = 16_384;

/// Connections from one address, so that one peer can't take them all.
const MAX_PER_ADDRESS: usize = 1_024;

/// A message on its way to a connection.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Where it goes.
    pub(crate) to: Destination,
    /// The message.
    pub(crate) bytes: Bytes,
    /// Whether another connection may be tried if this one breaks.
    pub(crate) may_try_again: bool,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It waits for its turn.
    Queued,
    /// It is gone: the peer reads too slowly.
    Lost,
    /// There is no such connection, and here it is again.
    Unsent(Outgoing),
}

/// All connections, found by their number or their peer. Locked for moments, by TCP traffic only.
#[derive(Debug, Default)]
pub struct Connections {
    last: AtomicU64,
    /// Bytes that wait for all of them.
    waiting: Arc<AtomicUsize>,
    table: Mutex<Table>,
}

/// What waits for one connection: the end that its writer holds.
#[derive(Debug)]
pub(crate) struct Queue {
    messages: mpsc::UnboundedReceiver<Waiting>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<ConnectionId, Entry>,
    by_peer: HashMap<SocketAddr, ConnectionId>,
    per_address: HashMap<IpAddr, usize>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    messages: mpsc::UnboundedSender<Waiting>,
    waiting: Arc<AtomicUsize>,
}

/// A queued message. Dropped or not, it stops counting when it leaves the queue.
#[derive(Debug)]
struct Waiting {
    message: Outgoing,
    _here: Charge,
    _everywhere: Charge,
}

/// Bytes that count against a limit for as long as this lives.
#[derive(Debug)]
struct Charge {
    counter: Arc<AtomicUsize>,
    bytes: usize,
}

impl Connections {
    /// Takes a connection in. None when there are too many, from that address or at all, and when the host ends.
    pub(crate) fn add(&self, peer: SocketAddr) -> Option<(ConnectionId, Queue)> {
        let mut table = self.table.lock();
        let from_address = table.per_address.get(&peer.ip()).copied().unwrap_or(0);
        let is_full = table.by_id.len() >= MAX_TOTAL || from_address >= MAX_PER_ADDRESS;
        if is_full || table.is_closed {
            return None;
        }
        let id = ConnectionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (queue, messages) = mpsc::unbounded_channel();
        let entry = Entry {
            peer,
            messages: queue,
            waiting: Arc::default(),
        };
        table.by_id.insert(id, entry);
        table.by_peer.insert(peer, id);
        *table.per_address.entry(peer.ip()).or_default() += 1;
        Some((id, Queue { messages }))
    }

    /// Forgets a connection. Its queue ends when what waits in it is taken.
    pub(crate) fn remove(&self, id: ConnectionId) {
        let mut table = self.table.lock();
        let Some(entry) = table.by_id.remove(&id) else {
            return;
        };
        // A newer connection to the same peer keeps its place.
        if table.by_peer.get(&entry.peer) == Some(&id) {
            table.by_peer.remove(&entry.peer);
        }
        let ip = entry.peer.ip();
        if let Some(count) = table.per_address.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                table.per_address.remove(&ip);
            }
        }
    }

    /// Forgets all connections and takes no more: the host ends. Writers send what waits.
    pub(crate) fn close(&self) {
        *self.table.lock() = Table {
            is_closed: true,
            ..Table::default()
        };
    }

    /// Queues a message on the connection that it names, if that lives, else on one to its peer.
    pub(crate) fn send(&self, message: Outgoing) -> Sent {
        let table = self.table.lock();
        let Some(entry) = table.entry(&message.to) else {
            return Sent::Unsent(message);
        };
        let bytes = message.bytes.len() + MESSAGE_BYTES;
        let here = Charge::within(QUEUE_BYTES, &entry.waiting, bytes);
        let everywhere = Charge::within(QUEUES_BYTES, &self.waiting, bytes);
        let (Some(here), Some(everywhere)) = (here, everywhere) else {
            return Sent::Lost;
        };
        let waiting = Waiting {
            message,
            _here: here,
            _everywhere: everywhere,
        };
        match entry.messages.send(waiting) {
            Ok(()) => Sent::Queued,
            // A connection whose task is just ending is none any more.
            Err(mpsc::error::SendError(waiting)) => Sent::Unsent(waiting.message),
        }
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.table.lock().by_id.len()
    }

    /// True without any connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Queue {
    /// The next message; none when the connection is forgotten and nothing waits any more.
    pub(crate) async fn next(&mut self) -> Option<Outgoing> {
        self.messages.recv().await.map(|waiting| waiting.message)
    }

    /// The next message if there is one already.
    pub(crate) fn next_now(&mut self) -> Option<Outgoing> {
        let waiting = self.messages.try_recv().ok()?;
        Some(waiting.message)
    }

    /// Takes no more messages.
    pub(crate) fn close(&mut self) {
        self.messages.close();
    }
}

impl Table {
    fn entry(&self, to: &Destination) -> Option<&Entry> {
        let named = to.connection.and_then(|id| self.by_id.get(&id));
        named.or_else(|| self.by_id.get(self.by_peer.get(&to.addr)?))
    }
}

impl Charge {
    fn within(limit: usize, counter: &Arc<AtomicUsize>, bytes: usize) -> Option<Self> {
        let before = counter.fetch_add(bytes, Ordering::Relaxed);
        let charge = Self {
            counter: Arc::clone(counter),
            bytes,
        };
        (before + bytes <= limit).then_some(charge)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sip::Transport;

    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn message(id: Option<ConnectionId>, text: &'static str) -> Outgoing {
        Outgoing {
            to: Destination {
                transport: Transport::Tcp,
                addr: peer(1),
                from: None,
                connection: id,
            },
            bytes: Bytes::from_static(text.as_bytes()),
            may_try_again: true,
        }
    }

    fn send(connections: &Connections, id: Option<ConnectionId>, text: &'static str) {
        let sent = connections.send(message(id, text));
        assert!(matches!(sent, Sent::Queued), "{sent:?}");
    }

    fn taken(queue: &mut Queue) -> Option<Bytes> {
        queue.next_now().map(|message| message.bytes)
    }

    #[test]
    fn a_message_finds_its_connection_or_another_to_the_same_peer() {
        let connections = Connections::default();
        let (first, mut to_first) = connections.add(peer(1)).unwrap();
        let (second, mut to_second) = connections.add(peer(1)).unwrap();
        send(&connections, Some(first), "a");
        assert_eq!(taken(&mut to_first).unwrap(), "a");
        send(&connections, None, "b");
        assert_eq!(taken(&mut to_second).unwrap(), "b");
        connections.remove(first);
        send(&connections, Some(first), "c");
        assert_eq!(taken(&mut to_second).unwrap(), "c");
        connections.remove(second);
        let unsent = connections.send(message(None, "d"));
        assert!(
            matches!(&unsent, Sent::Unsent(message) if message.bytes == "d"),
            "{unsent:?}"
        );
        assert!(connections.is_empty());
    }

    #[test]
    fn an_older_connection_does_not_take_the_place_of_a_newer_one_with_it() {
        let connections = Connections::default();
        let (old, _queue) = connections.add(peer(1)).unwrap();
        let (_new, mut to_new) = connections.add(peer(1)).unwrap();
        connections.remove(old);
        send(&connections, None, "a");
        assert_eq!(taken(&mut to_new).unwrap(), "a");
    }

    #[test]
    fn a_connection_that_takes_nothing_any_more_is_absent() {
        let connections = Connections::default();
        let (id, mut queue) = connections.add(peer(1)).unwrap();
        queue.close();
        let sent = connections.send(message(Some(id), "a"));
        assert!(matches!(sent, Sent::Unsent(_)), "{sent:?}");
    }

    #[test]
    fn a_slow_reader_loses_messages_and_no_memory() {
        let connections = Connections::default();
        let (id, mut queue) = connections.add(peer(1)).unwrap();
        let most = QUEUE_BYTES / (MESSAGE_BYTES + 1);
        for _ in 0..most {
            send(&connections, Some(id), "x");
        }
        let sent = connections.send(message(Some(id), "x"));
        assert!(matches!(sent, Sent::Lost), "{sent:?}");
        assert!(taken(&mut queue).is_some());
        send(&connections, Some(id), "x");
        drop(queue);
        assert_eq!(connections.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_address_cannot_take_all_connections() {
        let connections = Connections::default();
        let held: Vec<_> = (0..MAX_PER_ADDRESS as u16)
            .map(|n| connections.add(peer(n + 1)).unwrap())
            .collect();
        assert!(connections.add(peer(9)).is_none());
        assert!(connections.add("127.0.0.2:9".parse().unwrap()).is_some());
        connections.remove(held[0].0);
        assert!(connections.add(peer(9)).is_some());
    }

    #[test]
    fn after_the_end_what_waits_is_still_there_and_nothing_is_added() {
        let connections = Connections::default();
        let (id, mut queue) = connections.add(peer(1)).unwrap();
        send(&connections, Some(id), "last");
        connections.close();
        assert!(connections.add(peer(2)).is_none());
        assert_eq!(taken(&mut queue).unwrap(), "last");
        assert!(taken(&mut queue).is_none());
    }
}
