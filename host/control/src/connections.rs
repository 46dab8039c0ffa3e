//! The open stream connections of the control interfaces. Their number is limited, and idle connections make room for new ones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// All open stream connections of one protocol.
#[derive(Debug)]
pub(super) struct Connections {
    /// Most connections.
    most: usize,
    table: Mutex<Table>,
}

/// Both ends of a connection, in the format of `ctl.who`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) transport: &'static str,
    pub(super) from: (String, String),
    pub(super) to: (String, String),
}

/// The place of one connection in the table, freed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    connections: Arc<Connections>,
    evicted: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By number, in the order in which they were opened.
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    ends: Ends,
    /// Since when the connection has waited for its client; `None` while a command is executed.
    idle: Option<Instant>,
    evicted: Arc<Notify>,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            table: Mutex::default(),
        }
    }

    /// Returns a place for a new connection. If all places are taken, an idle connection is evicted: of the address with most idle
    /// connections, the one that has been idle for longest. `None` if no connection is idle.
    pub(super) fn admit(self: &Arc<Self>, ends: Ends) -> Option<Place> {
        let mut table = self.table.lock();
        if table.entries.len() >= self.most {
            let longest = table.longest_idle()?;
            if let Some(entry) = table.entries.remove(&longest) {
                entry.evicted.notify_one();
            }
        }
        let number = table.next;
        table.next += 1;
        let evicted = Arc::new(Notify::new());
        let entry = Entry {
            ends,
            idle: Some(Instant::now()),
            evicted: Arc::clone(&evicted),
        };
        table.entries.insert(number, entry);
        Some(Place {
            number,
            connections: Arc::clone(self),
            evicted,
        })
    }

    /// Returns all connections, oldest first.
    pub(super) fn all(&self) -> Vec<Ends> {
        let table = self.table.lock();
        table
            .entries
            .values()
            .map(|entry| entry.ends.clone())
            .collect()
    }
}

impl Table {
    fn longest_idle(&self) -> Option<u64> {
        let mut of_address = HashMap::<&str, usize>::new();
        for entry in self.entries.values() {
            *of_address.entry(entry.ends.from.0.as_str()).or_default() += 1;
        }
        let waiting = self.entries.iter().filter_map(|(number, entry)| {
            let has = of_address.get(entry.ends.from.0.as_str())?;
            Some((Reverse(*has), entry.idle?, *number))
        });
        waiting.min().map(|(_, _, number)| number)
    }
}

impl Place {
    /// Marks the connection as busy with a command.
    pub(super) fn works(&self) {
        self.set(None);
    }

    /// Marks the connection as idle.
    pub(super) fn waits(&self) {
        self.set(Some(Instant::now()));
    }

    /// Returns when the connection is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn set(&self, idle: Option<Instant>) {
        let mut table = self.connections.table.lock();
        if let Some(entry) = table.entries.get_mut(&self.number) {
            entry.idle = idle;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.table.lock().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(number: usize) -> Ends {
        Ends {
            transport: "tcp",
            from: ("127.0.0.1".into(), number.to_string()),
            to: ("127.0.0.1".into(), "2049".into()),
        }
    }

    #[tokio::test]
    async fn the_longest_idle_connection_is_evicted() {
        const MOST: usize = 128;
        let connections = Arc::new(Connections::new(MOST));
        let mut places: Vec<_> = (0..MOST)
            .map(|number| connections.admit(ends(number)).unwrap())
            .collect();
        places[0].works();
        let newcomer = connections.admit(ends(MOST)).unwrap();
        places[1].evicted().await;
        let numbers = || {
            connections
                .all()
                .into_iter()
                .map(|ends| ends.from.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(numbers().len(), MOST);
        assert!(numbers().contains(&"0".into()) && !numbers().contains(&"1".into()));

        places.iter().for_each(Place::works);
        newcomer.works();
        assert!(connections.admit(ends(MOST + 1)).is_none());
        places.truncate(5);
        assert!(connections.admit(ends(MOST + 2)).is_some());
        drop((places, newcomer));
        assert_eq!(connections.all(), []);
    }

    #[tokio::test]
    async fn an_address_with_many_connections_evicts_its_own() {
        let connections = Arc::new(Connections::new(4));
        let from = |address: &str| Ends {
            from: (address.into(), "1".into()),
            ..ends(0)
        };
        let _other = connections.admit(from("192.0.2.1")).unwrap();
        let many: Vec<_> = (0..10)
            .map(|_| connections.admit(from("192.0.2.2")).unwrap())
            .collect();
        for place in &many[..7] {
            place.evicted().await;
        }
        let left = connections.all().into_iter().map(|ends| ends.from.0);
        assert_eq!(
            left.collect::<Vec<_>>(),
            ["192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.2"]
        );
    }
}
