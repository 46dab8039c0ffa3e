//! Ended transactions, which only handle retransmissions: the second, small tier of memory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use portcullis_sip::{Message, RequestName, StartLine, Transaction};

use crate::blocks::Blocks;
use crate::slab::{Id, Slab};
use crate::time::Time;

/// What is kept of an ended transaction.
#[derive(Debug)]
pub(crate) struct Absorber {
    pub(crate) peer: Peer,
    expires: Time,
    pub(crate) kind: Kind,
    /// The first block of the messages that answer retransmissions; [`NONE`] without any.
    kept: u32,
    /// The slot of the absorber of the same duration that expires after it; [`NONE`] for the last one.
    next: u32,
}

/// No slot.
const NONE: u32 = u32::MAX;

/// How retransmissions are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An INVITE that was answered 2xx: its ACK passes.
    Accepted,
    /// An INVITE that failed.
    Failed,
    /// Another request.
    NonInvite,
}

/// The sender of a request, as its retransmissions, its CANCEL and its ACK must have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: RequestName,
    source: u64,
    /// A hash of the method.
    method: u32,
}

/// All absorbers of a worker. Those of each duration expire in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Absorbers {
    records: Slab<Absorber>,
    /// What retransmissions are answered with: see [`Kept`](crate::kept::Kept).
    kept: Blocks,
    long: Queue,
    short: Queue,
}

/// Absorbers of one duration, as a list of slots.
#[derive(Clone, Copy, Debug)]
struct Queue {
    first: u32,
    last: u32,
}

/// How long an absorber lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duration {
    /// 64·T1, at least 32 seconds.
    Long,
    /// T4
    Short,
}

impl Peer {
    pub(crate) fn new(name: RequestName, message: Message<'_>, source: SocketAddr) -> Self {
        let method = match message.start_line() {
            StartLine::Request { method, .. } => method,
            StartLine::Response { .. } => b"",
        };
        Self {
            name,
            source: hash_of(&source),
            method: hash_of(method) as u32,
        }
    }

    /// Whether both requests have the same method, as retransmissions have (RFC 3261 §17.2.3).
    pub(crate) fn has_method_of(&self, other: &Self) -> bool {
        self.method == other.method
    }

    /// Whether both are the same sender: by sent-by (RFC 3261 §17.2.3), or by the source address if sent-by has changed.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.name.sent_by == other.name.sent_by || self.source == other.source
    }
}

fn hash_of<H: Hash + ?Sized>(value: &H) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Absorbers {
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of the stored messages.
    pub(crate) fn bytes(&self) -> usize {
        self.kept.bytes()
    }

    /// Adds an absorber that answers retransmissions with what is kept; with nothing if that is empty.
    pub(crate) fn insert(
        &mut self,
        peer: Peer,
        kind: Kind,
        kept: &[u8],
        duration: Duration,
        expires: Time,
    ) -> Id {
        let kept = match kept {
            [] => NONE,
            kept => self.kept.store(kept),
        };
        let id = self.records.insert(Absorber {
            peer,
            expires,
            kind,
            kept,
            next: NONE,
        });
        let queue = match duration {
            Duration::Long => &mut self.long,
            Duration::Short => &mut self.short,
        };
        let last = std::mem::replace(&mut queue.last, id.slot());
        match self.records.at_mut(last) {
            Some(last) => last.next = id.slot(),
            None => queue.first = id.slot(),
        }
        id
    }

    pub(crate) fn record(&self, id: Id) -> Option<&Absorber> {
        self.records.record(id)
    }

    pub(crate) fn id_at(&self, slot: u32) -> Option<Id> {
        self.records.id_at(slot)
    }

    pub(crate) fn transaction_at(&self, slot: u32) -> Option<Transaction> {
        Some(self.records.at(slot)?.peer.name.transaction)
    }

    /// Writes what retransmissions are answered with.
    pub(crate) fn read_kept(&self, absorber: &Absorber, out: &mut Vec<u8>) {
        out.clear();
        self.kept.read(absorber.kept, out);
    }

    /// When [`Absorbers::expired`] finds the next absorber.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let firsts = [self.long.first, self.short.first].map(|first| self.records.at(first));
        firsts
            .into_iter()
            .flatten()
            .map(|record| record.expires)
            .min()
    }

    /// An absorber whose time is over.
    pub(crate) fn expired(&self, now: Time) -> Option<Id> {
        let is_due = |slot: &u32| {
            self.records
                .at(*slot)
                .is_some_and(|record| record.expires <= now)
        };
        let slot = [self.long.first, self.short.first]
            .into_iter()
            .find(is_due)?;
        self.records.id_at(slot)
    }

    /// Number of slots, used and free ones.
    pub(crate) fn slots(&self) -> u32 {
        self.records.slots()
    }

    /// The absorber that is forgotten first when there are too many: of the longer duration, the oldest one.
    pub(crate) fn oldest(&self) -> Option<Id> {
        let first = |queue: Queue| self.records.id_at(queue.first);
        first(self.long).or_else(|| first(self.short))
    }

    /// Removes an absorber that [`Absorbers::expired`] or [`Absorbers::oldest`] has found, and returns the name of its transaction.
    pub(crate) fn remove(&mut self, id: Id) -> Option<Transaction> {
        let record = self.records.remove(id)?;
        for queue in [&mut self.long, &mut self.short] {
            if queue.first == id.slot() {
                queue.first = record.next;
                if record.next == NONE {
                    queue.last = NONE;
                }
            }
        }
        self.kept.remove(record.kept);
        Some(record.peer.name.transaction)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        // A million of them take 64 MB.
        let bytes = Slab::<Absorber>::RECORD_BYTES;
        assert!(bytes <= 64, "{bytes}");
    }
}
