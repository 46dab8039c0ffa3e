//! The stream connections of all workers: who can be reached over which.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use portcullis_config::ConnectionLimits;
use portcullis_sip::{ConnectionId, Destination};
use tokio::sync::{mpsc, watch};

use super::places::{Activity, Order, Origin, Standing, Stays};

/// Bytes that may wait for one connection. A peer that reads more slowly loses what comes on top.
pub(crate) const QUEUE_BYTES: usize = 1 << 20;

/// Bytes that may wait for all connections together.
const QUEUES_BYTES: usize = 256 << 20;

/// What a message costs beside its bytes, so that tiny ones can't add up unseen.
const MESSAGE_BYTES: usize = 256;

/// Connections that may be closing, beside those that are open: whoever made room for another has its descriptor for a moment yet.
pub const CLOSING: usize = 64;

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

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// The peer: the connection carries its requests, and what goes back to it.
    Peer,
    /// This host, to reach the peer.
    Host,
}

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It waits for its turn.
    Queued,
    /// It does not go out: the peer reads too slowly.
    Lost(Outgoing),
    /// There is no such connection, and here it is again.
    Unsent(Outgoing),
}

/// Why a connection has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Every connection of its address has a request under way.
    Address,
    /// Every connection has.
    Total,
    /// The host ends.
    Ending,
}

/// A connection that was taken in.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) id: ConnectionId,
    pub(crate) queue: Queue,
    pub(crate) place: Place,
    /// Another connection had to make room.
    pub(crate) has_evicted: bool,
}

/// The place of one connection: it counts until this is dropped, which is when its descriptor is closed.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: ConnectionId,
    origin: Origin,
    activity: Arc<Activity>,
}

/// All connections, found by their number, or by their peer if this host opened them. Locked for moments, by TCP traffic only.
#[derive(Debug)]
pub struct Connections {
    bounds: ConnectionLimits,
    /// The number of the newest one. Numbers begin anywhere: a response or a dialog from before a restart, or from another host with
    /// the same key, must not lead to a connection that happens to have the number now.
    last: AtomicU64,
    uses: Arc<AtomicU64>,
    /// Bytes that wait for all of them.
    waiting: Arc<AtomicUsize>,
    table: Mutex<Table>,
    /// Workers that may still send answers.
    deciding: AtomicUsize,
    /// True when the table is closed.
    closed: watch::Sender<bool>,
}

/// What waits for one connection: the end that its writer holds.
#[derive(Debug)]
pub(crate) struct Queue {
    messages: mpsc::UnboundedReceiver<Waiting>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<ConnectionId, Entry>,
    /// Those that this host opened, by the address that they were opened to. A connection that a peer opened is never found by
    /// its address: who has that address and port at the moment need not be who is meant (RFC 5923 §3, §9).
    opened: HashMap<SocketAddr, ConnectionId>,
    /// Which of them makes room.
    order: Order,
    /// Those that are forgotten and not closed yet: their last messages are on the way to a peer that takes its time.
    closing: BTreeMap<ConnectionId, (Origin, Arc<Activity>)>,
    /// Places that are taken: those of `by_id`, of `closing`, and of connections that were told to end at once.
    held: usize,
    origins: HashMap<Origin, Held>,
    is_closed: bool,
}

/// What one address has.
#[derive(Debug, Default)]
struct Held {
    places: usize,
    /// Those of `by_id`.
    live: Vec<ConnectionId>,
    /// Those of `closing`.
    closing: Vec<ConnectionId>,
}

#[derive(Debug)]
struct Entry {
    peer: SocketAddr,
    messages: mpsc::UnboundedSender<Waiting>,
    waiting: Arc<AtomicUsize>,
    activity: Arc<Activity>,
    /// Where it is in the table's order.
    standing: Standing,
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
    /// No connections, of which there may be so many.
    pub fn new(bounds: ConnectionLimits) -> Self {
        Self {
            bounds,
            last: AtomicU64::new(RandomState::new().hash_one(())),
            uses: Arc::default(),
            waiting: Arc::default(),
            table: Mutex::default(),
            deciding: AtomicUsize::new(0),
            closed: watch::Sender::new(false),
        }
    }

    /// A worker begins to decide on messages. Each must report its end to [`Connections::decided`].
    pub(crate) fn decides(&self) {
        self.deciding.fetch_add(1, Ordering::Relaxed);
    }

    /// A worker decides on nothing any more. The last of them closes the table: until then, any connection may have to carry an
    /// answer of another worker.
    pub(crate) fn decided(&self) {
        if self.deciding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close();
        }
    }

    /// Returns when the table is closed.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as `self`.
        let mut closed = self.closed.subscribe();
        let _closed = closed.wait_for(|closed| *closed).await;
    }

    /// Takes a connection in. Where there is no place, another one ends: of the same address, if that has its share.
    pub(crate) fn add(self: &Arc<Self>, peer: SocketAddr, opener: Opener) -> Result<Joined, Full> {
        let origin = Origin::of(peer.ip());
        let now = Instant::now();
        let mut table = self.table.lock();
        if table.is_closed {
            return Err(Full::Ending);
        }
        let mut has_evicted = false;
        let of_address = table.origins.get(&origin).map_or(0, |held| held.places);
        if of_address >= self.bounds.per_address {
            has_evicted = table.make_room_of(origin, now);
            // Those that were told to end may be some more for a moment.
            let most = self.bounds.per_address + self.bounds.per_address.min(CLOSING);
            if !has_evicted || of_address >= most {
                return Err(Full::Address);
            }
        }
        if table.held >= self.bounds.total {
            has_evicted = has_evicted || table.make_room(now);
            if !has_evicted || table.held >= self.bounds.total + CLOSING {
                return Err(Full::Total);
            }
        }
        let id = ConnectionId(self.last.fetch_add(1, Ordering::Relaxed));
        let (queue, messages) = mpsc::unbounded_channel();
        let activity = Arc::new(Activity::new(&self.uses));
        table.insert(id, peer, queue, &activity);
        if opener == Opener::Host {
            table.opened.insert(peer, id);
        }
        Ok(Joined {
            id,
            queue: Queue { messages },
            place: Place {
                connections: Arc::clone(self),
                id,
                origin,
                activity,
            },
            has_evicted,
        })
    }

    /// Forgets a connection. Its queue ends when what waits in it is taken; its place is free when it is closed.
    pub(crate) fn remove(&self, id: ConnectionId) {
        self.table.lock().begin_closing(id);
    }

    /// Forgets all connections and takes no more: the host ends. Writers send what waits.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
        let mut table = self.table.lock();
        table.is_closed = true;
        table.by_id.clear();
        table.opened.clear();
        table.order = Order::default();
        table
            .origins
            .values_mut()
            .for_each(|held| held.live.clear());
    }

    /// Ends the connection that was idle for longest: the system has no descriptor left. False if none is idle.
    pub(crate) fn make_room(&self) -> bool {
        self.table.lock().make_room(Instant::now())
    }

    /// Queues a message on the connection that it names, if that lives, else on one that this host opened to its address.
    pub(crate) fn send(&self, message: Outgoing) -> Sent {
        let table = self.table.lock();
        let Some(entry) = table.entry(&message.to) else {
            return Sent::Unsent(message);
        };
        let bytes = message.bytes.len() + MESSAGE_BYTES;
        let here = Charge::within(QUEUE_BYTES, &entry.waiting, bytes);
        let everywhere = Charge::within(QUEUES_BYTES, &self.waiting, bytes);
        let (Some(here), Some(everywhere)) = (here, everywhere) else {
            return Sent::Lost(message);
        };
        let waiting = Waiting {
            message,
            _here: here,
            _everywhere: everywhere,
        };
        entry.activity.sent(&waiting.message.bytes);
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

impl Place {
    /// What the connection was used for.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock();
        // A connection that never ran is still there.
        let _entry = table.remove(self.id);
        table.end_closing(self.id);
        table.held -= 1;
        let Some(held) = table.origins.get_mut(&self.origin) else {
            return;
        };
        held.places -= 1;
        if held.places == 0 {
            table.origins.remove(&self.origin);
        }
    }
}

impl Table {
    fn entry(&self, to: &Destination) -> Option<&Entry> {
        let named = to.connection.and_then(|id| self.by_id.get(&id));
        named.or_else(|| self.by_id.get(self.opened.get(&to.addr)?))
    }

    fn insert(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        messages: mpsc::UnboundedSender<Waiting>,
        activity: &Arc<Activity>,
    ) {
        let standing = activity.standing();
        let entry = Entry {
            peer,
            messages,
            waiting: Arc::default(),
            activity: Arc::clone(activity),
            standing,
        };
        self.by_id.insert(id, entry);
        self.order.put(id, standing);
        self.held += 1;
        let held = self.origins.entry(Origin::of(peer.ip())).or_default();
        held.places += 1;
        held.live.push(id);
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        // A newer connection to the same peer keeps its place.
        if self.opened.get(&entry.peer) == Some(&id) {
            self.opened.remove(&entry.peer);
        }
        self.order.take(entry.standing);
        if let Some(held) = self.origins.get_mut(&Origin::of(entry.peer.ip())) {
            held.live.retain(|live| *live != id);
        }
        Some(entry)
    }

    /// The connection that makes room for another; none if all have a request under way.
    fn longest_idle(&mut self, now: Instant) -> Option<ConnectionId> {
        let Self { by_id, order, .. } = self;
        order.first(|id| {
            let entry = by_id.get_mut(&id)?;
            let stays = match entry.activity.is_busy(now) {
                true => Stays::Yes,
                false => Stays::No,
            };
            if stays == Stays::Yes {
                entry.activity.used();
            }
            entry.standing = entry.activity.standing();
            Some((entry.standing, stays))
        })
    }

    /// The same among those of one address.
    fn longest_idle_of(&self, origin: Origin, now: Instant) -> Option<ConnectionId> {
        let live = self.origins.get(&origin)?.live.iter();
        let idle = live.filter_map(|id| {
            let activity = &self.by_id.get(id)?.activity;
            (!activity.is_busy(now)).then(|| (activity.standing().rank(), *id))
        });
        idle.min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// Ends one connection, so that another has room; false if all have a request under way.
    fn make_room(&mut self, now: Instant) -> bool {
        if let Some((&id, _)) = self.closing.first_key_value() {
            return self.end_closing(id);
        }
        let longest = self.longest_idle(now);
        self.evict(longest)
    }

    /// The same among those of one address.
    fn make_room_of(&mut self, origin: Origin, now: Instant) -> bool {
        let held = self.origins.get(&origin);
        if let Some(&id) = held.and_then(|held| held.closing.first()) {
            return self.end_closing(id);
        }
        let longest = self.longest_idle_of(origin, now);
        self.evict(longest)
    }

    fn evict(&mut self, id: Option<ConnectionId>) -> bool {
        let evicted = id.and_then(|id| self.remove(id));
        evicted.inspect(|entry| entry.activity.evict()).is_some()
    }

    fn begin_closing(&mut self, id: ConnectionId) {
        let Some(entry) = self.remove(id) else {
            return;
        };
        let origin = Origin::of(entry.peer.ip());
        self.closing.insert(id, (origin, entry.activity));
        if let Some(held) = self.origins.get_mut(&origin) {
            held.closing.push(id);
        }
    }

    /// Tells a connection that is closing to do so at once; false if it does already.
    fn end_closing(&mut self, id: ConnectionId) -> bool {
        let Some((origin, activity)) = self.closing.remove(&id) else {
            return false;
        };
        if let Some(held) = self.origins.get_mut(&origin) {
            held.closing.retain(|closing| *closing != id);
        }
        activity.evict();
        true
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
mod tests;
