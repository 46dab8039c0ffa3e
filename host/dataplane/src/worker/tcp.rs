//! TCP: connections accepted from peers, and connections opened to next hops.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::{self, Cursor};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_metrics::Lost;
use portcullis_proxy_protocol::Header;
use portcullis_sip::{Destination, Transport};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Worker;
use super::forwarded::{self, NoClient};
use super::handshake_slots;
use super::proxy_header::{self, NoHeader};
use super::socket_options::set_options;
use super::stream;
use super::stream_peer::StreamPeer;
use super::tls;
use crate::pipeline::Loss;
use crate::throttle;
use crate::transport::{Connections, Full, Joined, Opener, Outgoing, Remote, Sent, StreamListener};

/// Time limit for opening a connection. Shorter than Timer B and F (32 s), so that the caller gets a response.
const CONNECT: Duration = Duration::from_secs(5);

/// Pause after a failed accept, for example for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener of a stream transport, with the worker's runtime.
#[derive(Clone)]
pub(super) struct Listener {
    socket: Rc<TcpListener>,
    transport: Transport,
    local: SocketAddr,
}

impl Listener {
    /// Registers the socket with the runtime.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn new(listener: StreamListener) -> io::Result<Self> {
        Ok(Self {
            socket: Rc::new(TcpListener::from_std(listener.socket)?),
            transport: listener.transport,
            local: listener.local,
        })
    }

    /// A further descriptor of the socket.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub(super) fn lend(&self) -> io::Result<StreamListener> {
        Ok(StreamListener {
            transport: self.transport,
            local: self.local,
            socket: self.socket.as_fd().try_clone_to_owned()?.into(),
        })
    }
}

/// Accepts connections during the lifetime of the worker.
pub(crate) async fn accept(worker: Rc<RefCell<Worker>>, listener: Listener) {
    loop {
        let mut room = None;
        if listener.transport.is_secure() {
            // Connections beyond the number of handshakes wait with the system.
            let slots = Rc::clone(&worker.borrow().slots);
            room = slots.room().await;
            if room.is_none() {
                // Without room there is no handshake, and without a handshake no connection.
                return;
            }
        }
        match listener.socket.accept().await {
            Ok((stream, peer)) => {
                let is_full = welcome(&worker, stream, peer, &listener, room);
                if is_full {
                    // An evicted connection closes before the next one is accepted.
                    yield_now().await;
                }
            }
            Err(error) => {
                worker.borrow().not_accepted(&error);
                // A connection that ended between connect and accept is skipped; any other error would recur immediately.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Welcomes a connection. True if another one was evicted for it, or none could be.
fn welcome(
    worker: &Rc<RefCell<Worker>>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: &Listener,
    room: Option<OwnedSemaphorePermit>,
) -> bool {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let shared = Arc::clone(worker.borrow().pipeline.shared());
    let config = &shared.config;
    let is_ws = listener.transport == Transport::Ws;
    if config.streams.is_load_balancer(peer.ip()) {
        ask_for_whom(worker, stream, peer, listener, room)
    } else if is_ws && config.websocket.is_load_balancer(peer.ip()) {
        ask_http_for_whom(worker, stream, peer, listener)
    } else {
        admit(worker, stream, peer, listener, room, Vec::new())
    }
}

/// Reads from a connection of a load balancer for whom it is, and admits that client. True if another connection was evicted, or none could be.
fn ask_for_whom(
    worker: &Rc<RefCell<Worker>>,
    mut stream: TcpStream,
    balancer: SocketAddr,
    listener: &Listener,
    room: Option<OwnedSemaphorePermit>,
) -> bool {
    let Some(joined) = worker
        .borrow()
        .take_place(listener, balancer, Opener::LoadBalancer)
    else {
        return true;
    };
    let has_evicted = joined.has_evicted;
    let (worker, listener) = (Rc::clone(worker), listener.clone());
    spawn_local(async move {
        let header = tokio::select! {
            header = proxy_header::read(&mut stream) => header,
            () = joined.place.activity().evicted() => return,
        };
        // The place of the client takes over.
        drop(joined);
        let client = match header {
            Ok(Header::Own) => balancer,
            Ok(Header::Client {
                source,
                destination,
            }) => {
                let client = SocketAddr::new(source.ip().to_canonical(), source.port());
                debug!(event = "proxy_header", source = %client, %destination, load_balancer = %balancer, "connection of a client behind a load balancer");
                client
            }
            Err(why) => return worker.borrow().refuse_header(&why, &listener, balancer),
        };
        admit(&worker, stream, client, &listener, room, Vec::new());
    });
    has_evicted
}

/// The same for a load balancer that speaks HTTP. The request is read once more where the connection is served.
fn ask_http_for_whom(
    worker: &Rc<RefCell<Worker>>,
    mut stream: TcpStream,
    balancer: SocketAddr,
    listener: &Listener,
) -> bool {
    let Some(joined) = worker
        .borrow()
        .take_place(listener, balancer, Opener::LoadBalancer)
    else {
        return true;
    };
    let has_evicted = joined.has_evicted;
    let (worker, listener) = (Rc::clone(worker), listener.clone());
    let shared = Arc::clone(worker.borrow().pipeline.shared());
    spawn_local(async move {
        let asked = tokio::select! {
            asked = forwarded::read(&mut stream, &shared.config.websocket) => asked,
            () = joined.place.activity().evicted() => return,
        };
        drop(joined);
        let (ip, first) = match asked {
            Ok(asked) => asked,
            Err(why) => return worker.borrow().refuse_request(&why, balancer),
        };
        // The field has no port. The port of the load balancer distinguishes the connections of a client.
        let client = SocketAddr::new(ip, balancer.port());
        debug!(event = "forwarded_for", source = %client, load_balancer = %balancer, "WebSocket connection of a client behind a load balancer");
        admit(&worker, stream, client, &listener, None, first);
    });
    has_evicted
}

/// Admits a connection, of which these first bytes have been read; none of a connection with TLS. True if another one was evicted for it, or none could be.
fn admit(
    worker: &Rc<RefCell<Worker>>,
    stream: TcpStream,
    peer: SocketAddr,
    listener: &Listener,
    room: Option<OwnedSemaphorePermit>,
    first: Vec<u8>,
) -> bool {
    if worker.borrow().pipeline.refuses_peer(peer) {
        return false;
    }
    let slot = match room.map(|room| worker.borrow().slot(room, peer.ip())) {
        None => None,
        Some(Ok(slot)) => Some(slot),
        Some(Err(refusal)) => {
            worker.borrow().refuse_handshake(refusal, peer);
            return false;
        }
    };
    let Some(joined) = worker.borrow().take_place(listener, peer, Opener::Peer) else {
        return true;
    };
    worker.borrow().counters().connections.accepted.inc();
    let tcp = StreamPeer {
        id: joined.id,
        transport: listener.transport,
        peer,
        local: listener.local,
    };
    let has_evicted = joined.has_evicted;
    let worker = Rc::clone(worker);
    match slot {
        None if !first.is_empty() => {
            let (read, write) = halves(stream);
            let read = Cursor::new(first).chain(read);
            spawn_local(stream::run(worker, (read, write), tcp, joined))
        }
        None => spawn_local(stream::run(worker, halves(stream), tcp, joined)),
        Some(slot) => spawn_local(tls::accepted(worker, stream, tcp, joined, slot)),
    };
    has_evicted
}

impl Worker {
    /// Sends a message over the connection that it names, over one that this host opened to its address, or over a new one. Returns false if
    /// the message is lost already.
    pub(super) fn send_stream(&self, message: Outgoing) -> bool {
        let connections = Arc::clone(self.connections());
        let to = message.to;
        self.pipeline.reporter().sent(&message.bytes, &to, None);
        let lose = |lost, bytes: &[u8], detail: &dyn Display| {
            self.pipeline.reporter().lose(&Loss {
                lost,
                bytes,
                transport: to.transport,
                peer: to.addr,
                detail,
            });
            false
        };
        let message = match connections.send(message) {
            Sent::Queued => return true,
            Sent::Lost(message) => {
                let detail = "the peer reads too slowly";
                return lose(Lost::QueueFull, &message.bytes, &detail);
            }
            Sent::Unsent(message) => message,
        };
        if to.is_flow || to.transport.is_websocket() {
            let detail = "the client has closed its connection";
            return lose(Lost::FlowGone, &message.bytes, &detail);
        }
        let Some(worker) = self.this() else {
            return lose(Lost::NoConnection, &message.bytes, &"the worker ends");
        };
        let joined = match self.join(Remote::from(&to), Opener::Host) {
            Ok(joined) => joined,
            Err(why) => return lose(Lost::TooManyConnections, &message.bytes, &why),
        };
        // The connection is in the table before it is open, so that later messages wait for it instead of opening another.
        let to = Destination {
            connection: Some(joined.id),
            ..to
        };
        let _queued = connections.send(Outgoing { to, ..message });
        spawn_local(open(worker, to, joined));
        true
    }

    /// Sends a message that has no transaction. The sender of a request along a flow that is gone gets a response.
    pub(super) fn send_stateless(&mut self, message: Outgoing) {
        let to = message.to;
        let request = to.is_flow.then(|| message.bytes.clone());
        if self.send_stream(message) {
            return;
        }
        if let Some(request) = request {
            let out = &mut self.stream_out;
            let destination = self.pipeline.undeliverable(&request, &to, out);
            self.send_stream_out(destination);
        }
    }

    /// A place for a connection that was accepted; `None` if there is none, which is counted.
    fn take_place(&self, listener: &Listener, peer: SocketAddr, opener: Opener) -> Option<Joined> {
        let remote = Remote {
            transport: listener.transport,
            addr: peer,
            name: None,
        };
        let joined = self.join(remote, opener);
        let refused =
            |why: &&str| self.lose_connection(Lost::TooManyConnections, listener, peer, why);
        joined.inspect_err(refused).ok()
    }

    /// Counts a connection of a load balancer that is closed because it does not say for whom it is.
    fn refuse_header(&self, why: &NoHeader, listener: &Listener, balancer: SocketAddr) {
        match why {
            NoHeader::Silent => {}
            NoHeader::Cut | NoHeader::Late | NoHeader::Bad(_) | NoHeader::Broken(_) => {
                self.lose_connection(Lost::BadProxyHeader, listener, balancer, why);
            }
        }
    }

    /// Counts a WebSocket connection of a load balancer that was refused.
    fn refuse_request(&self, why: &NoClient, balancer: SocketAddr) {
        match why {
            NoClient::Closed => return,
            NoClient::Late | NoClient::Refused(_) | NoClient::Broken(_) => {}
        }
        debug!(event = "websocket_refused", source = %balancer, error = %why, "WebSocket connection refused");
        self.counters().websockets_refused.inc();
    }

    fn lose_connection(
        &self,
        lost: Lost,
        listener: &Listener,
        peer: SocketAddr,
        detail: &dyn Display,
    ) {
        self.pipeline.reporter().lose(&Loss {
            lost,
            bytes: b"",
            transport: listener.transport,
            peer,
            detail,
        });
    }

    /// Admits a connection to or from this peer, or returns why not.
    fn join(&self, remote: Remote, opener: Opener) -> Result<Joined, &'static str> {
        let joined = self.connections().add(remote, opener).map_err(|full| match full {
            Full::Ending => "the host ends",
            Full::Address => {
                "the connections of this address are busy or just ending: `tcp-max-connections-per-address` in [sip]"
            }
            Full::Total => {
                "all connections are busy or just ending: `tcp-max-connections` in [sip], or the limit of open files"
            }
        })?;
        if joined.has_evicted {
            self.counters().connections.evicted.inc();
        }
        Ok(joined)
    }

    /// A place for a TLS handshake with this address.
    fn slot(
        &self,
        room: OwnedSemaphorePermit,
        ip: IpAddr,
    ) -> Result<handshake_slots::Slot, handshake_slots::Refusal> {
        let is_known = self.pipeline.knows_address(ip);
        self.slots.take(room, ip, is_known, Instant::now())
    }

    /// Logs a connection that could not be accepted. If the system has no descriptor left, an idle connection is evicted.
    fn not_accepted(&self, error: &io::Error) {
        debug!(event = "tcp_accept_failed", %error, "TCP connection not accepted");
        if !throttle::descriptors_are_short(error, "SIP over TCP") {
            return;
        }
        self.counters().connections.accept_errors.inc();
        if self.connections().make_room() {
            self.counters().connections.evicted.inc();
        }
    }

    /// Answers a request that could not be delivered. A response that could not be delivered is lost. `is_down`: the next hop
    /// refused the connection.
    pub(super) fn undeliverable(&mut self, message: &Outgoing, error: &io::Error, is_down: bool) {
        self.pipeline
            .reporter()
            .lose_undelivered(&message.bytes, &message.to, error, is_down);
        if self.fail_undelivered(&message.bytes, Some(error)) {
            return self.send_transactions();
        }
        let out = &mut self.stream_out;
        let destination = self
            .pipeline
            .undeliverable(&message.bytes, &message.to, out);
        self.send_stream_out(destination);
    }

    /// Notes that a next hop has taken a connection.
    fn opened(&self, to: &Destination) {
        self.counters().connections.opened.inc();
        self.pipeline.shared().notices.hops.works(to.addr);
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.pipeline.shared().connections
    }
}

async fn open(worker: Rc<RefCell<Worker>>, to: Destination, joined: Joined) {
    let id = joined.id;
    let zone = to.from.map_or(0, |from| {
        let worker = worker.borrow();
        worker.pipeline.shared().zone_of(from)
    });
    let error = match timeout(CONNECT, connect(&to, zone)).await {
        Ok(Ok(stream)) => {
            let local = to.from.or_else(|| stream.local_addr().ok());
            let tcp = StreamPeer {
                id,
                transport: to.transport,
                peer: to.addr,
                local: local.unwrap_or(to.addr),
            };
            match to.transport {
                Transport::Udp | Transport::Tcp => {
                    worker.borrow().opened(&to);
                    return stream::run(worker, halves(stream), tcp, joined).await;
                }
                Transport::Tls => match tls::connected(&worker, &to, stream, &joined).await {
                    Ok(halves) => {
                        worker.borrow().opened(&to);
                        return stream::run(worker, halves, tcp, joined).await;
                    }
                    Err(error) => error,
                },
                // Only clients open these.
                Transport::Ws | Transport::Wss => io::ErrorKind::Unsupported.into(),
            }
        }
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    worker.borrow().connections().remove(id);
    worker.borrow().counters().connections.connect_errors.inc();
    joined.queue.close();
    while let Some(message) = joined.queue.next_now() {
        worker.borrow_mut().undeliverable(&message, &error, true);
    }
    super::udp::flush_all(&worker).await;
}

/// The halves of a TCP connection.
fn halves(stream: TcpStream) -> (OwnedReadHalf, OwnedWriteHalf) {
    set_options(&stream);
    stream.into_split()
}

/// Connects from the address that our Via names, with a port chosen by the system. `zone` is the one of that address: a link-local address means nothing
/// without.
async fn connect(to: &Destination, zone: u32) -> io::Result<TcpStream> {
    let zoned = |addr: SocketAddr| match addr {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, zone).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => addr,
    };
    let socket = match to.addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(from) = to.from {
        socket.bind(zoned(SocketAddr::new(from.ip(), 0)))?;
    }
    socket.connect(zoned(to.addr)).await
}
