//! The stream connections of all workers: who can be reached over which.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use portcullis_sip::ConnectionId;
use tokio::sync::mpsc;

/// Messages that may wait for one connection. A peer that reads more slowly loses what comes on top.
pub(crate) const QUEUE: usize = 256;

/// Connections of the whole host, both ways.
const MAX_TOTAL: usize = 16_384;

/// Connections from one address, so that one peer cannot take them all.
const MAX_PER_ADDRESS: usize = 1_024;

/// A message on its way to a connection.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The bytes.
    pub(crate) bytes: Bytes,
    /// The local socket that the message was made for: where an error about it seems to arrive.
    pub(crate) from: Option<SocketAddr>,
}

/// Why a message does not go out over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No such connection: one must be opened.
    Absent,
    /// The peer reads too slowly.
    Full,
}

/// All connections, found by their number or their peer. Locked for moments, by TCP traffic only.
#[derive(Debug, Default)]
pub struct Connections {
    last: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<ConnectionId, Entry>,
    by_peer: HashMap<SocketAddr, ConnectionId>,
    per_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    queue: mpsc::Sender<Outgoing>,
}

impl Connections {
    /// Takes a connection in. None when there are too many, from that address or at all.
    pub(crate) fn add(&self, peer: SocketAddr) -> Option<(ConnectionId, mpsc::Receiver<Outgoing>)> {
        let mut table = self.table.lock();
        let from_address = table.per_address.get(&peer.ip()).copied().unwrap_or(0);
        if table.by_id.len() >= MAX_TOTAL || from_address >= MAX_PER_ADDRESS {
            return None;
        }
        let id = ConnectionId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (queue, messages) = mpsc::channel(QUEUE);
        table.by_id.insert(id, Entry { peer, queue });
        table.by_peer.insert(peer, id);
        *table.per_address.entry(peer.ip()).or_default() += 1;
        Some((id, messages))
    }

    /// Forgets a connection.
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

    /// Queues a message on the connection of this number, if it lives, else on one to this peer.
    pub(crate) fn send(
        &self,
        id: Option<ConnectionId>,
        peer: SocketAddr,
        message: Outgoing,
    ) -> Result<(), (Refusal, Outgoing)> {
        let table = self.table.lock();
        let by_id = id.and_then(|id| table.by_id.get(&id));
        let entry = by_id.or_else(|| table.by_id.get(table.by_peer.get(&peer)?));
        let Some(entry) = entry else {
            return Err((Refusal::Absent, message));
        };
        entry.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(message) => (Refusal::Full, message),
            // Its task is just ending.
            mpsc::error::TrySendError::Closed(message) => (Refusal::Absent, message),
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn message(text: &'static str) -> Outgoing {
        Outgoing {
            bytes: Bytes::from_static(text.as_bytes()),
            from: None,
        }
    }

    #[test]
    fn a_message_finds_its_connection_or_another_to_the_same_peer() {
        let connections = Connections::default();
        let (first, mut to_first) = connections.add(peer(1)).unwrap();
        let (second, mut to_second) = connections.add(peer(1)).unwrap();
        connections
            .send(Some(first), peer(1), message("a"))
            .unwrap();
        assert_eq!(to_first.try_recv().unwrap().bytes, "a");
        connections.send(None, peer(1), message("b")).unwrap();
        assert_eq!(to_second.try_recv().unwrap().bytes, "b");
        connections.remove(first);
        connections
            .send(Some(first), peer(1), message("c"))
            .unwrap();
        assert_eq!(to_second.try_recv().unwrap().bytes, "c");
        connections.remove(second);
        let (refusal, kept) = connections.send(None, peer(1), message("d")).unwrap_err();
        assert_eq!((refusal, kept.bytes), (Refusal::Absent, "d".into()));
        assert!(connections.is_empty());
    }

    #[test]
    fn a_slow_reader_loses_messages_and_no_memory() {
        let connections = Connections::default();
        let (id, _messages) = connections.add(peer(1)).unwrap();
        for _ in 0..QUEUE {
            connections.send(Some(id), peer(1), message("x")).unwrap();
        }
        let (refusal, _) = connections
            .send(Some(id), peer(1), message("x"))
            .unwrap_err();
        assert_eq!(refusal, Refusal::Full);
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
}
