//! The sockets, and the thread that receives.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Guard};
use socket2::SockRef;
use tracing::{info, warn};

use crate::counts::{Counts, Refusal};
use crate::envelope::{Carried, Head};
use crate::error::PeersError;
use crate::keys::Keys;
use crate::roster::{Own, Roster, Then};
use crate::socket::{Socket, hash_of};
use crate::table::{Peer, Table};

/// The longest time until the thread does something else than to receive.
const TURN: Duration = Duration::from_millis(50);

/// The receive buffer of the socket: what comes while the thread waits for a processor. The system may grant less.
const BUFFER: usize = 4 << 20;

/// The shortest time between two log lines about refused packets.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// A process that is replaced closes its socket within [`TURN`]: after this time, something else has the address.
const TAKEN: Duration = Duration::from_secs(10);

/// The hosts, and what they have in common.
#[derive(Clone, Debug)]
pub struct Options {
    /// The internal address of this host.
    pub listen: SocketAddr,
    /// The addresses of all hosts. That of this host may be among them.
    pub peers: Vec<SocketAddr>,
    /// Whether requests are passed as well, to the host that their branch selects.
    pub requests: bool,
    /// The seal key.
    pub key: [u8; 16],
    /// Keys that are still accepted.
    pub earlier_keys: Vec<[u8; 16]>,
    /// The names of the sockets by their numbers, `HOST:PORT` as in Via; empty for one that is not shared.
    pub sockets: Vec<String>,
}

/// What the thread needs of the host.
pub trait Facts: Send {
    /// Whether the host takes new requests.
    fn serves(&self) -> bool;

    /// Gives a message to a worker.
    ///
    /// # Errors
    /// When the host has no such socket, or the worker cannot take more.
    fn deliver(&self, message: Carried<'_>) -> Result<(), Refusal>;

    /// Whether the host has ended.
    fn has_ended(&self) -> bool;
}

/// What became of a message that may belong to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passing {
    /// It was sent there.
    Done,
    /// It is too long, or the socket is full.
    Failed,
}

/// The other hosts.
#[derive(Debug)]
pub struct Peers {
    listen: SocketAddr,
    others: Vec<SocketAddr>,
    requests: bool,
    keys: Arc<Keys>,
    session: u64,
    tag: NonZeroU32,
    sockets: Vec<u64>,
    /// Workers send from it: another one than the thread receives from, because that one blocks.
    sender: UdpSocket,
    sent: AtomicU64,
    table: ArcSwap<Table>,
    counts: Counts,
    is_closed: AtomicBool,
}

impl Peers {
    /// Prepares the exchange. Nothing is sent or received before [`Peers::start`].
    ///
    /// # Errors
    /// When nothing can be sent from the address, or two hosts cannot be told apart.
    pub fn open(options: &Options) -> Result<Self, PeersError> {
        let listen = options.listen;
        let keys = Keys::new(&options.key, &options.earlier_keys);
        let others = options.peers.iter().copied();
        let others: Vec<_> = others.filter(|peer| *peer != listen).collect();
        let all: Vec<_> = std::iter::once(listen)
            .chain(others.iter().copied())
            .map(|addr| (addr, keys.tags(addr)))
            .collect();
        for (at, (one, tags)) in all.iter().enumerate() {
            let same = |(_, other): &&(SocketAddr, Box<[NonZeroU32]>)| {
                tags.iter().any(|tag| other.contains(tag))
            };
            if let Some((other, _)) = all[..at].iter().find(same) {
                return Err(PeersError::SameTag {
                    one: *other,
                    other: *one,
                });
            }
        }
        let mut session = [0; 8];
        getrandom::fill(&mut session).map_err(|error| PeersError::Random(error.to_string()))?;
        let bind = |source| PeersError::Bind {
            addr: listen,
            source,
        };
        let sender = UdpSocket::bind(SocketAddr::new(listen.ip(), 0)).map_err(bind)?;
        sender.set_nonblocking(true).map_err(bind)?;
        Ok(Self {
            listen,
            others,
            requests: options.requests,
            tag: keys.current().tag(listen),
            sockets: options.sockets.iter().map(|name| hash_of(name)).collect(),
            keys: Arc::new(keys),
            // 0 stands for an unknown session.
            session: u64::from_be_bytes(session) | 1,
            sender,
            sent: AtomicU64::new(0),
            table: ArcSwap::default(),
            counts: Counts::default(),
            is_closed: AtomicBool::new(false),
        })
    }

    /// The internal address of this host.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The internal addresses of the other hosts.
    pub fn others(&self) -> &[SocketAddr] {
        &self.others
    }

    /// The tag of this host, for the Via of what it relays.
    pub fn tag(&self) -> NonZeroU32 {
        self.tag
    }

    /// Whether requests are passed as well.
    pub fn passes_requests(&self) -> bool {
        self.requests
    }

    /// The socket with this number in `listen`.
    pub fn socket(&self, number: usize) -> Option<Socket> {
        Some(Socket {
            name: *self.sockets.get(number)?,
            number: u16::try_from(number).ok()?,
        })
    }

    /// The hosts that live.
    pub fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// What was received.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Passes a message to another host. `out` is a buffer of the caller.
    pub fn pass(&self, to: &Peer, carried: Carried<'_>, out: &mut Vec<u8>) -> Passing {
        let head = Head {
            sender: self.tag.get(),
            receiver: to.tags[0].get(),
            session: self.session,
            receiver_session: to.session,
        };
        let count = self.sent.fetch_add(1, Ordering::Relaxed) + 1;
        if !carried.write(&head, count, self.keys.current(), out) {
            return Passing::Failed;
        }
        match self.sender.send_to(out, to.addr) {
            Ok(_) => Passing::Done,
            Err(_) => Passing::Failed,
        }
    }

    /// Ends the exchange: another process of this host takes over. That happens within 50 ms.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        self.table.store(Arc::default());
    }

    /// Starts the thread that receives. A process that replaces another one (`waits`) binds the address as soon as the other one has closed its
    /// socket.
    ///
    /// # Errors
    /// When the address cannot be bound or the thread cannot be started.
    pub fn start(
        self: &Arc<Self>,
        waits: bool,
        facts: impl Facts + 'static,
    ) -> Result<JoinHandle<()>, PeersError> {
        let socket = match bind(self.listen) {
            Ok(socket) => Some(socket),
            Err(error) if waits && error.kind() == io::ErrorKind::AddrInUse => None,
            Err(source) => {
                let addr = self.listen;
                return Err(PeersError::Bind { addr, source });
            }
        };
        let peers = Arc::clone(self);
        thread::Builder::new()
            .name("peers".into())
            .spawn(move || peers.run(socket, &facts))
            .map_err(PeersError::Thread)
    }

    fn run(&self, socket: Option<UdpSocket>, facts: &impl Facts) {
        let Some(socket) = socket.or_else(|| self.bind_later(facts)) else {
            return;
        };
        let keys = Arc::clone(&self.keys);
        let mut roster = Roster::new(self.listen, &self.others, keys, self.session);
        let mut buffer = vec![0; 1 << 16];
        let mut out = Vec::new();
        let mut own = Own {
            serves: false,
            sockets: self.sockets.clone(),
        };
        let mut lines = Lines::default();
        let mut looked_at: Option<Instant> = None;
        while !self.has_ended(facts) {
            let now = Instant::now();
            if looked_at.is_none_or(|at| now.saturating_duration_since(at) >= TURN) {
                looked_at = Some(now);
                own.serves = facts.serves();
                for number in roster.due(now) {
                    greet(&socket, &mut roster, number, &own, &mut out);
                }
                self.publish(&roster, now, &own);
                lines.flush(now);
            }
            // The time limit of the socket bounds the wait; all other errors concern an earlier packet.
            let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let packet = buffer.get(..length).unwrap_or_default();
            let now = Instant::now();
            let then = match roster.received(packet, now) {
                Then::Deliver(carried) => match facts.deliver(carried) {
                    Ok(()) => {
                        self.counts.note_received();
                        Then::Nothing
                    }
                    Err(why) => Then::Refuse(why),
                },
                other @ (Then::Nothing | Then::Greet(_) | Then::Refuse(_)) => other,
            };
            match then {
                Then::Nothing | Then::Deliver(_) => {}
                Then::Greet(number) => {
                    greet(&socket, &mut roster, number, &own, &mut out);
                    self.publish(&roster, now, &own);
                }
                Then::Refuse(why) => {
                    self.counts.note_refused(why);
                    lines.note(why, from);
                }
            }
        }
    }

    /// Binds the address when the process before has left it; `None` if this one ends before.
    fn bind_later(&self, facts: &impl Facts) -> Option<UdpSocket> {
        let begun = Instant::now();
        let mut is_told = false;
        while !self.has_ended(facts) {
            match bind(self.listen) {
                Ok(socket) => return Some(socket),
                Err(error) if !is_told && begun.elapsed() > TAKEN => {
                    is_told = true;
                    warn!(
                        event = "peers_not_bound",
                        addr = %self.listen,
                        %error,
                        "the address of [fleet] peers-listen is in use: this host passes nothing to others, and tries again"
                    );
                }
                Err(_) => {}
            }
            thread::sleep(TURN);
        }
        None
    }

    fn has_ended(&self, facts: &impl Facts) -> bool {
        self.is_closed.load(Ordering::Relaxed) || facts.has_ended()
    }

    /// Shows workers the hosts that live, if something has changed.
    fn publish(&self, roster: &Roster, now: Instant, own: &Own) {
        let table = roster.table(now, own);
        let before = self.table.load();
        if **before == table || self.is_closed.load(Ordering::Relaxed) {
            return;
        }
        let processes = |table: &Table| -> Vec<_> {
            table.peers.iter().map(|it| (it.addr, it.session)).collect()
        };
        let known = processes(&before);
        for (peer, _) in processes(&table).iter().filter(|it| !known.contains(it)) {
            info!(event = "peer_up", %peer, "a process of another host lives: messages of its transactions are passed to it");
        }
        let is_alive = |addr| table.addresses().any(|other| other == addr);
        for peer in before.addresses().filter(|addr| !is_alive(*addr)) {
            warn!(
                event = "peer_down",
                %peer,
                "another host is silent: messages of its transactions are handled as `adopt` says"
            );
        }
        self.table.store(Arc::new(table));
    }
}

/// Log lines about refused packets: one a minute.
#[derive(Default)]
struct Lines {
    last: Option<Instant>,
    /// The packets since then, and the last of them.
    count: u64,
    example: Option<(Refusal, SocketAddr)>,
}

impl Lines {
    fn note(&mut self, why: Refusal, from: SocketAddr) {
        self.count += 1;
        self.example = Some((why, from));
    }

    fn flush(&mut self, now: Instant) {
        let is_early = |last| now.saturating_duration_since(last) < BETWEEN_LINES;
        if self.last.is_some_and(is_early) {
            return;
        }
        let Some((why, from)) = self.example.take() else {
            return;
        };
        warn!(
            event = "peer_packets_refused",
            count = self.count,
            reason = why.label(),
            %from,
            "packets at [fleet] peers-listen refused, the last one for this reason"
        );
        self.last = Some(now);
        self.count = 0;
    }
}

fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(addr)?;
    socket.set_read_timeout(Some(TURN))?;
    let _best_effort = SockRef::from(&socket).set_recv_buffer_size(BUFFER);
    Ok(socket)
}

/// Losses are made good by the next packet.
fn greet(socket: &UdpSocket, roster: &mut Roster, number: usize, own: &Own, out: &mut Vec<u8>) {
    if let Some(to) = roster.greet(number, Instant::now(), own, out) {
        let _best_effort = socket.send_to(out, to);
    }
}
