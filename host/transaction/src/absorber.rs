//! Ended transactions, which only handle copies: the second, small tier of memory.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use portcullis_sip::{Destination, Message, RequestName, StartLine, Transaction};

use crate::buffers::Buffers;
use crate::outbox::What;
use crate::slab::{Id, Slab};
use crate::time::Time;

/// What is kept of an ended transaction.
#[derive(Debug)]
pub(crate) struct Absorber {
    pub(crate) peer: Peer,
    expires: Time,
    pub(crate) kind: Kind,
    /// Messages that answer copies.
    kept: Option<Id>,
}

/// How copies are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An INVITE that was answered 2xx: its ACK passes.
    Accepted,
    /// An INVITE that failed.
    Failed,
    /// Another request.
    NonInvite,
}

/// What copies are answered with.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) back: Destination,
    /// The final response to a request other than INVITE; empty otherwise.
    pub(crate) reply: Vec<u8>,
    /// Whose response that is.
    pub(crate) reply_is: What,
    pub(crate) acks: Vec<Ack>,
}

/// The ACK to the failure of a target.
#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) branch: u8,
    pub(crate) to: Destination,
    pub(crate) bytes: Vec<u8>,
}

/// The sender of a request, as its copies, its CANCEL and its ACK must have it.
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
    kept: Slab<Kept>,
    long: VecDeque<Id>,
    short: VecDeque<Id>,
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

    /// Whether both requests have the same method, as copies have (RFC 3261 §17.2.3).
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

    pub(crate) fn insert(
        &mut self,
        peer: Peer,
        kind: Kind,
        kept: Option<Kept>,
        duration: Duration,
        expires: Time,
    ) -> Id {
        let kept = kept.map(|kept| self.kept.insert(kept));
        let id = self.records.insert(Absorber {
            peer,
            expires,
            kind,
            kept,
        });
        match duration {
            Duration::Long => self.long.push_back(id),
            Duration::Short => self.short.push_back(id),
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
        let record = self.records.record(self.records.id_at(slot)?)?;
        Some(record.peer.name.transaction)
    }

    pub(crate) fn kept(&self, absorber: &Absorber) -> Option<&Kept> {
        self.kept.record(absorber.kept?)
    }

    /// When the first one expires.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let first = |queue: &VecDeque<Id>| {
            let record = self.records.record(*queue.front()?)?;
            Some(record.expires)
        };
        [first(&self.long), first(&self.short)]
            .into_iter()
            .flatten()
            .min()
    }

    /// The one that has expired first, if its time has come.
    pub(crate) fn expired(&self, now: Time) -> Option<Id> {
        let fronts = [self.long.front(), self.short.front()];
        fronts.into_iter().flatten().copied().find(|&id| {
            let record = self.records.record(id);
            record.is_none_or(|record| record.expires <= now)
        })
    }

    /// The one that has waited longest.
    pub(crate) fn oldest(&self) -> Option<Id> {
        self.long.front().or_else(|| self.short.front()).copied()
    }

    /// Removes the first one of a queue and returns the name and slot of its transaction.
    pub(crate) fn remove(&mut self, id: Id, buffers: &mut Buffers) -> Option<Transaction> {
        for queue in [&mut self.long, &mut self.short] {
            queue.pop_front_if(|front| *front == id);
        }
        let record = self.records.remove(id)?;
        if let Some(mut kept) = record.kept.and_then(|kept| self.kept.remove(kept)) {
            buffers.take_back(&mut kept.reply);
            for ack in &mut kept.acks {
                buffers.take_back(&mut ack.bytes);
            }
        }
        Some(record.peer.name.transaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_small() {
        // A million of them take 64 MB.
        assert!(size_of::<Absorber>() <= 64, "{}", size_of::<Absorber>());
    }
}
