//! The stream connections of all workers, and the peers that each one reaches.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use portcullis_config::ConnectionLimits;
use portcullis_sip::{ConnectionId, Destination, Transport};
use portcullis_tls::Session;
use tokio::sync::watch;

use super::mailbox::{Receiver, Sender, mailbox};
use super::places::{Activity, Order, Origin, Standing, Stays};
use super::secure_connection::{SecureConnection, Secured};

/// Bytes that may wait for one connection. If the peer reads too slowly, further messages are dropped.
pub const QUEUE_BYTES: usize = 1 << 20;

/// Bytes that may wait for all connections together.
pub const QUEUES_BYTES: usize = 256 << 20;

/// Overhead counted per message, so that many tiny messages cannot exceed the limits unnoticed.
const MESSAGE_BYTES: usize = 256;

/// Connections that may be closing, in addition to the open ones: an evicted connection holds its descriptor for a moment.
pub const CLOSING: usize = 64;

/// Most connections closed by one call of [`Connections::close_unused`]: peers do not all connect again at once.
const CLOSED_AT_ONCE: usize = 2_000;

/// Connections looked at while the table is locked.
const LOOKED_AT: usize = 256;

/// A message on its way to a connection.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Its destination.
    pub(crate) to: Destination,
    /// The message.
    pub(crate) bytes: Bytes,
    /// Whether another connection may be tried if this one breaks.
    pub(crate) may_try_again: bool,
    /// Whether these are bytes of the connection itself, and no SIP message: a frame of WebSocket.
    pub(crate) is_control: bool,
}

impl Outgoing {
    /// A message to this destination, without its bytes. If the connection breaks, another one is tried.
    pub(crate) fn of(to: Destination) -> Self {
        Self {
            to,
            bytes: Bytes::new(),
            may_try_again: true,
            is_control: false,
        }
    }
}

/// Where a connection leads: one that this host opened carries messages only for the same transport, address and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Remote {
    pub(crate) transport: Transport,
    pub(crate) addr: SocketAddr,
    /// See [`Destination::name`].
    pub(crate) name: Option<u64>,
}

impl From<&Destination> for Remote {
    fn from(to: &Destination) -> Self {
        Self {
            transport: to.transport,
            addr: to.addr,
            // Other transports check no name.
            name: to.name.filter(|_| to.transport.is_secure()),
        }
    }
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opener {
    /// The peer: the connection carries its requests, and the responses to them.
    Peer,
    /// A load balancer, until it has said for whom: without a limit for its address, because its connections are those of all its clients.
    LoadBalancer,
    /// This host, to reach the peer.
    Host,
}

/// The result of queueing a message.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Queued.
    Queued,
    /// Not queued: the peer reads too slowly.
    Lost(Outgoing),
    /// There is no such connection; the message is returned.
    Unsent(Outgoing),
}

/// Why a connection was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Every connection of its address has a request in progress.
    Address,
    /// Every connection has a request in progress.
    Total,
    /// The host is ending.
    Ending,
}

/// A connection that was admitted.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) id: ConnectionId,
    pub(crate) queue: Queue,
    pub(crate) place: Place,
    /// Another connection was evicted for it.
    pub(crate) has_evicted: bool,
}

/// The place of one connection: it is occupied until this is dropped, after the descriptor is closed.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    id: ConnectionId,
    origin: Origin,
    activity: Arc<Activity>,
}

/// All connections, indexed by number, and by peer if this host opened them. Locked briefly, by stream traffic only.
#[derive(Debug)]
pub struct Connections {
    bounds: ConnectionLimits,
    /// The number of the newest connection. Numbers start at a random value: a response or a dialog from before a restart, or from another
    /// host with the same key, must not match a connection that happens to have its number now.
    last: AtomicU64,
    uses: Arc<AtomicU64>,
    /// Bytes waiting for all connections.
    waiting: Arc<AtomicUsize>,
    table: Mutex<Table>,
    /// Workers that may still send responses.
    deciding: AtomicUsize,
    /// True when the table is closed.
    closed: watch::Sender<bool>,
}

/// Connections without a request in progress at the last look, and their last use then.
#[derive(Debug, Default)]
pub struct Unused(HashMap<ConnectionId, Standing>);

/// The messages waiting for one connection: the receiving end, held by its writer.
#[derive(Debug)]
pub(crate) struct Queue {
    messages: Receiver<Waiting>,
}

#[derive(Debug, Default)]
struct Table {
    by_id: HashMap<ConnectionId, Entry>,
    /// The connections opened by this host, by where they lead. A connection opened by a peer is never found by its address: the present user
    /// of that address and port need not be the intended peer (RFC 5923 §3, §9).
    opened: HashMap<Remote, ConnectionId>,
    /// The order of eviction.
    order: Order,
    /// Connections that are removed but not closed yet: their last messages are on the way to a slow peer.
    closing: BTreeMap<ConnectionId, (Origin, Arc<Activity>)>,
    /// Occupied places: those of `by_id`, of `closing`, and of connections that were ordered to end at once.
    held: usize,
    origins: HashMap<Origin, Held>,
    is_closed: bool,
}

/// The connections of one address.
#[derive(Debug, Default)]
struct Held {
    places: usize,
    /// Number in `by_id`.
    live: Vec<ConnectionId>,
    /// Number in `closing`.
    closing: Vec<ConnectionId>,
}

#[derive(Debug)]
struct Entry {
    remote: Remote,
    messages: Sender<Waiting>,
    waiting: Arc<AtomicUsize>,
    activity: Arc<Activity>,
    /// What came of its TLS handshake; `None` before its end, and without TLS.
    secured: Option<Secured>,
    /// Its position in the order of eviction.
    standing: Standing,
}

/// A queued message. It stops counting when it leaves the queue, whether sent or dropped.
#[derive(Debug)]
struct Waiting {
    message: Outgoing,
    _here: Charge,
    _everywhere: Charge,
}

/// Bytes that count against a limit during the lifetime of this value.
#[derive(Debug)]
struct Charge {
    counter: Arc<AtomicUsize>,
    bytes: usize,
}

impl Connections {
    /// An empty table with these limits.
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

    /// Registers a worker that decides on messages. Each worker must report its end to [`Connections::decided`].
    pub(crate) fn decides(&self) {
        self.deciding.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that a worker has stopped deciding. The last worker closes the table: until then, any connection may have to carry a response
    /// of another worker.
    pub(crate) fn decided(&self) {
        if self.deciding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close();
        }
    }

    /// Completes when the table is closed.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as `self`.
        let mut closed = self.closed.subscribe();
        let _closed = closed.wait_for(|closed| *closed).await;
    }

    /// Admits a connection. If no place is free, another connection is evicted: one of the same address, if that is at its limit.
    pub(crate) fn add(self: &Arc<Self>, remote: Remote, opener: Opener) -> Result<Joined, Full> {
        let origin = Origin::of(remote.addr.ip());
        let now = Instant::now();
        let mut table = self.table.lock();
        if table.is_closed {
            return Err(Full::Ending);
        }
        let mut has_evicted = false;
        let of_address = table.origins.get(&origin).map_or(0, |held| held.places);
        if of_address >= self.bounds.per_address && opener != Opener::LoadBalancer {
            has_evicted = table.make_room_of(origin, now);
            // Connections that were ordered to end may exceed the limit for a moment.
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
        let (queue, messages) = mailbox();
        let activity = Arc::new(Activity::new(&self.uses));
        table.insert(id, remote, queue, &activity);
        if opener == Opener::Host {
            table.opened.insert(remote, id);
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

    /// Removes a connection. Its queue ends when the waiting messages are taken; its place is free when it is closed.
    pub(crate) fn remove(&self, id: ConnectionId) {
        self.table.lock().begin_closing(id);
    }

    /// Closes connections without a request in progress and without input that have not been used since the last call with the same `unused`, so that their peers
    /// open others to the process that has the listeners now. What waits for them is sent. Between two calls, the peer must have time for what
    /// follows a final response: the ACK, or the request with credentials.
    pub fn close_unused(&self, unused: &mut Unused) {
        let ids: Vec<_> = self.table.lock().by_id.keys().copied().collect();
        let before = std::mem::take(&mut unused.0);
        let mut closed = 0;
        for ids in ids.chunks(LOOKED_AT) {
            let now = Instant::now();
            let mut table = self.table.lock();
            for &id in ids {
                let Some(entry) = table.by_id.get(&id) else {
                    continue;
                };
                if entry.activity.is_busy(now) || entry.activity.has_input() {
                    continue;
                }
                let standing = entry.activity.standing();
                if before.get(&id) == Some(&standing) && closed < CLOSED_AT_ONCE {
                    table.begin_closing(id);
                    closed += 1;
                } else {
                    unused.0.insert(id, standing);
                }
            }
        }
    }

    /// Removes all connections and admits no more: the host is ending. Writers send what waits.
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

    /// Ends the connection that has been idle for longest: the system has no descriptor left. False if none is idle.
    pub(crate) fn make_room(&self) -> bool {
        self.table.lock().make_room(Instant::now())
    }

    /// Notes what came of the TLS handshake of a connection.
    pub(crate) fn secure(&self, id: ConnectionId, secured: Secured) {
        if let Some(entry) = self.table.lock().by_id.get_mut(&id) {
            entry.secured = Some(secured);
        }
    }

    /// The connections over TLS, the oldest first.
    pub fn secure_connections(&self) -> Vec<SecureConnection> {
        let mut listed = Vec::new();
        let ids = self.secure_ids();
        for ids in ids.chunks(LOOKED_AT) {
            let table = self.table.lock();
            for &id in ids {
                let Some(entry) = table.by_id.get(&id) else {
                    continue;
                };
                listed.push(SecureConnection {
                    id,
                    transport: entry.remote.transport,
                    peer: entry.remote.addr,
                    is_opened_by_host: table.opened.get(&entry.remote) == Some(&id),
                    secured: entry.secured.clone(),
                    waiting: entry.waiting.load(Ordering::Relaxed),
                    idle: entry.activity.idle(),
                });
            }
        }
        listed
    }

    /// Ends the connection over TLS with this [number](SecureConnection::number) at once; false if there is none.
    pub fn end_secure(&self, number: u32) -> bool {
        let mut ids = self.secure_ids().into_iter();
        let id = ids.find(|id| SecureConnection::number_of(*id) == number);
        self.table.lock().evict(id)
    }

    fn secure_ids(&self) -> Vec<ConnectionId> {
        let table = self.table.lock();
        let secure = table
            .by_id
            .iter()
            .filter(|(_, entry)| entry.remote.transport.is_secure());
        let mut ids: Vec<_> = secure.map(|(id, _)| *id).collect();
        drop(table);
        ids.sort_unstable();
        ids
    }

    /// What the handshake of a connection has settled and proved; `None` without TLS, and for a connection that is closed.
    pub(crate) fn session(&self, id: ConnectionId) -> Option<Arc<Session>> {
        let table = self.table.lock();
        let secured = table.by_id.get(&id)?.secured.as_ref()?;
        Some(Arc::clone(&secured.session))
    }

    /// Whether a connection is open.
    pub(crate) fn is_open(&self, id: ConnectionId) -> bool {
        self.table.lock().by_id.contains_key(&id)
    }

    /// Notes that a request from this connection begins a transaction, whichever worker has it.
    pub(crate) fn begins(&self, id: ConnectionId, request: &[u8]) {
        if let Some(entry) = self.table.lock().by_id.get(&id) {
            entry.activity.let_in(request);
        }
    }

    /// Queues a message on the connection that it names, if that is open, otherwise on one that this host opened to its address, unless only the
    /// flow of a client may be used.
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
        if !waiting.message.is_control {
            entry.activity.sent(&waiting.message.bytes);
        }
        match entry.messages.send(waiting) {
            Ok(()) => Sent::Queued,
            // A connection whose task is ending cannot be used.
            Err(waiting) => Sent::Unsent(waiting.message),
        }
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.table.lock().by_id.len()
    }

    /// The number of connections over TLS.
    pub fn secure_len(&self) -> usize {
        let table = self.table.lock();
        let all = table.by_id.values();
        all.filter(|entry| entry.remote.transport.is_secure())
            .count()
    }

    /// The most connections at the same time.
    pub fn limit(&self) -> usize {
        self.bounds.total
    }

    /// Bytes that wait to be written to all connections.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether there are no connections.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Queue {
    /// The next message; `None` when the connection is removed and no message waits.
    pub(crate) async fn next(&self) -> Option<Outgoing> {
        self.messages.next().await.map(|waiting| waiting.message)
    }

    /// The next message, if one is waiting.
    pub(crate) fn next_now(&self) -> Option<Outgoing> {
        let waiting = self.messages.next_now()?;
        Some(waiting.message)
    }

    /// Accepts no more messages.
    pub(crate) fn close(&self) {
        self.messages.close();
    }
}

impl Place {
    /// The use of the connection.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table.lock();
        // A connection that was never started is still in the table.
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
        if to.is_flow {
            return named;
        }
        named.or_else(|| self.by_id.get(self.opened.get(&Remote::from(to))?))
    }

    fn insert(
        &mut self,
        id: ConnectionId,
        remote: Remote,
        messages: Sender<Waiting>,
        activity: &Arc<Activity>,
    ) {
        let standing = activity.standing();
        let entry = Entry {
            remote,
            messages,
            waiting: Arc::default(),
            activity: Arc::clone(activity),
            secured: None,
            standing,
        };
        self.by_id.insert(id, entry);
        self.order.put(id, standing);
        self.held += 1;
        let held = self
            .origins
            .entry(Origin::of(remote.addr.ip()))
            .or_default();
        held.places += 1;
        held.live.push(id);
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        // A newer connection to the same peer keeps its entry.
        if self.opened.get(&entry.remote) == Some(&id) {
            self.opened.remove(&entry.remote);
        }
        self.order.take(entry.standing);
        if let Some(held) = self.origins.get_mut(&Origin::of(entry.remote.addr.ip())) {
            held.live.retain(|live| *live != id);
        }
        Some(entry)
    }

    /// The connection to evict; `None` if all have a request in progress.
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

    /// The same for the connections of one address.
    fn longest_idle_of(&self, origin: Origin, now: Instant) -> Option<ConnectionId> {
        let live = self.origins.get(&origin)?.live.iter();
        let idle = live.filter_map(|id| {
            let activity = &self.by_id.get(id)?.activity;
            (!activity.is_busy(now)).then(|| (activity.standing().rank(), *id))
        });
        idle.min_by_key(|(rank, _)| *rank).map(|(_, id)| id)
    }

    /// Evicts one connection; false if all have a request in progress.
    fn make_room(&mut self, now: Instant) -> bool {
        if let Some((&id, _)) = self.closing.first_key_value() {
            return self.end_closing(id);
        }
        let longest = self.longest_idle(now);
        self.evict(longest)
    }

    /// The same for the connections of one address.
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
        let origin = Origin::of(entry.remote.addr.ip());
        self.closing.insert(id, (origin, entry.activity));
        if let Some(held) = self.origins.get_mut(&origin) {
            held.closing.push(id);
        }
    }

    /// Orders a closing connection to end at once; false if it has the order already.
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
