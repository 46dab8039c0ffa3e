//! TCP: connections that peers open to us, and connections that we open.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use portcullis_sip::{Arrival, ConnectionId, Destination, Transport};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::connections::{Connections, Outgoing, Queue, Sent};
use super::stream;
use crate::metrics::Lost;
use crate::worker::Worker;

/// How long the opening of a connection may take. Shorter than Timer B and F (32 s), so that the caller hears of it.
const CONNECT: Duration = Duration::from_secs(5);

/// The pause after an accept that failed for want of something, files for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection knows of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub(super) id: ConnectionId,
    pub(super) peer: SocketAddr,
    /// The address of the listener: it names us to our peers.
    local: SocketAddr,
}

/// Accepts connections for as long as the worker lives.
pub(crate) async fn accept(worker: Rc<RefCell<Worker>>, listener: TcpListener, local: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => welcome(&worker, stream, peer, local),
            Err(error) => {
                debug!(%error, "A TCP connection was not accepted.");
                // What ended between connect and accept is over; anything else will fail again at once.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn welcome(worker: &Rc<RefCell<Worker>>, stream: TcpStream, peer: SocketAddr, local: SocketAddr) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let borrowed = worker.borrow();
    let Some((id, queue)) = borrowed.connections().add(peer) else {
        debug!(%peer, "Too many TCP connections: this one is closed.");
        borrowed.counters().lost.inc(Lost::TooManyConnections);
        return;
    };
    borrowed.counters().connections.accepted.inc();
    let tcp = Tcp { id, peer, local };
    spawn_local(stream::run(Rc::clone(worker), stream, tcp, queue));
}

impl Worker {
    /// Sends a message over the connection that it names, over one to its peer, or over a new one.
    pub(super) fn send_stream(&self, message: Outgoing) {
        let connections = Arc::clone(self.connections());
        let message = match connections.send(message) {
            Sent::Queued => return,
            Sent::Lost => return self.counters().lost.inc(Lost::QueueFull),
            Sent::Unsent(message) => message,
        };
        let to = message.to;
        let (Some(worker), Some((id, queue))) = (self.this(), connections.add(to.addr)) else {
            return self.counters().lost.inc(Lost::TooManyConnections);
        };
        // The connection is in the table before it is open, so that what comes next waits for it and does not open another.
        let to = Destination {
            connection: Some(id),
            ..to
        };
        let _queued = connections.send(Outgoing { to, ..message });
        spawn_local(open(worker, id, to, queue));
    }

    /// Tells the sender of a request that it could not be delivered. A response is lost with its way.
    pub(super) fn undeliverable(&mut self, message: &Outgoing) {
        self.counters().lost.inc(Lost::NoConnection);
        let out = &mut self.stream_out;
        let destination = self
            .pipeline
            .undeliverable(&message.bytes, &message.to, out);
        self.send_stream_out(destination);
    }

    pub(crate) fn connections(&self) -> &Arc<Connections> {
        &self.pipeline.shared().connections
    }
}

impl Tcp {
    pub(super) fn arrival(self) -> Arrival {
        Arrival {
            source: self.peer,
            local: self.local,
            transport: Transport::Tcp,
            connection: Some(self.id),
        }
    }

    /// The way back over this connection.
    pub(super) fn back(self) -> Destination {
        Destination {
            transport: Transport::Tcp,
            addr: self.peer,
            from: Some(self.local),
            connection: Some(self.id),
        }
    }
}

async fn open(worker: Rc<RefCell<Worker>>, id: ConnectionId, to: Destination, mut queue: Queue) {
    let error = match timeout(CONNECT, connect(&to)).await {
        Ok(Ok(stream)) => {
            worker.borrow().counters().connections.opened.inc();
            let local = to.from.or_else(|| stream.local_addr().ok());
            let tcp = Tcp {
                id,
                peer: to.addr,
                local: local.unwrap_or(to.addr),
            };
            return stream::run(worker, stream, tcp, queue).await;
        }
        Ok(Err(error)) => error,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    debug!(to = %to.addr, %error, "A TCP connection could not be opened.");
    worker.borrow().connections().remove(id);
    worker.borrow().counters().connections.connect_errors.inc();
    queue.close();
    while let Some(message) = queue.next_now() {
        worker.borrow_mut().undeliverable(&message);
    }
    super::flush_all(&worker).await;
}

/// Connects from the address that our Via names, with a port of the system's choice.
async fn connect(to: &Destination) -> io::Result<TcpStream> {
    let socket = match to.addr {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(from) = to.from {
        socket.bind(SocketAddr::new(from.ip(), 0))?;
    }
    socket.connect(to.addr).await
}
