//! TCP: connections that peers open, connections that we open, and the messages on them.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_sip::{Arrival, ConnectionId, Destination, Frame, Framer, Framing, PONG, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::connections::{Connections, Outgoing, Refusal};
use crate::metrics::Lost;
use crate::worker::Worker;

/// A connection without any message for so long is closed. Keep-alives count as messages (RFC 5626 sends them every 2 minutes
/// at most).
const IDLE: Duration = Duration::from_secs(300);

/// How long the opening of a connection may take. Shorter than Timer B and F (32 s), so that the caller hears of it.
const CONNECT: Duration = Duration::from_secs(5);

/// How long a peer may take no bytes at all.
const WRITE: Duration = Duration::from_secs(10);

/// The pause after an accept that failed for want of something, files for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes that one read asks for.
const READ: usize = 16 * 1024;

/// What a connection knows of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    id: ConnectionId,
    peer: SocketAddr,
    local: SocketAddr,
}

/// Accepts connections for as long as the worker lives. `local` is the address of the listener: it names us to our peers.
pub(crate) async fn accept(
    worker: Rc<RefCell<Worker>>,
    listener: std::net::TcpListener,
    local: SocketAddr,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(%error, "A TCP listener cannot be waited for.");
            return;
        }
    };
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
    let connections = connections(worker);
    let Some((id, messages)) = connections.add(peer) else {
        debug!(%peer, "Too many TCP connections: this one is closed.");
        return;
    };
    worker
        .borrow()
        .pipeline
        .counters()
        .connections
        .accepted
        .inc();
    let tcp = Tcp { id, peer, local };
    spawn_local(run(Rc::clone(worker), stream, tcp, messages));
}

/// Sends a message over the destination's connection, or opens one.
pub(crate) fn send(worker: &Rc<RefCell<Worker>>, destination: &Destination, bytes: Bytes) {
    let connections = connections(worker);
    let message = Outgoing {
        bytes,
        from: destination.from,
    };
    let message = match connections.send(destination.connection, destination.addr, message) {
        Ok(()) => return,
        Err((Refusal::Full, _)) => return lose(worker, Lost::QueueFull),
        Err((Refusal::Absent, message)) => message,
    };
    let Some((id, messages)) = connections.add(destination.addr) else {
        return lose(worker, Lost::NoConnection);
    };
    // The connection is in the table before it is open, so that what comes next waits for it and does not open another.
    let _queued = connections.send(Some(id), destination.addr, message);
    spawn_local(open(Rc::clone(worker), id, *destination, messages));
}

async fn open(
    worker: Rc<RefCell<Worker>>,
    id: ConnectionId,
    to: Destination,
    messages: mpsc::Receiver<Outgoing>,
) {
    match timeout(CONNECT, connect(&to)).await {
        Ok(Ok(stream)) => {
            worker.borrow().pipeline.counters().connections.opened.inc();
            let local = to.from.or_else(|| stream.local_addr().ok());
            let tcp = Tcp {
                id,
                peer: to.addr,
                local: local.unwrap_or(to.addr),
            };
            run(worker, stream, tcp, messages).await;
        }
        failed => {
            let error = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => format!("no answer in {} s", CONNECT.as_secs()),
            };
            debug!(to = %to.addr, error, "A TCP connection could not be opened.");
            connections(&worker).remove(id);
            worker
                .borrow()
                .pipeline
                .counters()
                .connections
                .connect_errors
                .inc();
            give_back(&worker, &to, messages).await;
        }
    }
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

/// Answers requests that could not be delivered with 503; responses are lost with their way.
async fn give_back(
    worker: &Rc<RefCell<Worker>>,
    to: &Destination,
    mut messages: mpsc::Receiver<Outgoing>,
) {
    messages.close();
    while let Some(message) = messages.recv().await {
        lose(worker, Lost::NoConnection);
        let to = Destination {
            from: message.from,
            ..*to
        };
        Worker::undeliverable(worker, &message.bytes, &to);
    }
    super::udp::flush_all(worker).await;
}

/// Carries messages both ways until either side ends.
async fn run(
    worker: Rc<RefCell<Worker>>,
    stream: TcpStream,
    tcp: Tcp,
    messages: mpsc::Receiver<Outgoing>,
) {
    // Messages are written whole; waiting for more to fill a segment only delays them.
    let _best_effort = stream.set_nodelay(true);
    let (read, write) = stream.into_split();
    let (writer_lives, writer_ended) = oneshot::channel::<()>();
    let counted = Rc::clone(&worker);
    spawn_local(async move {
        write_all(&counted, write, messages).await;
        drop(writer_lives);
    });
    tokio::select! {
        () = read_all(&worker, read, tcp) => {}
        _ = writer_ended => {}
    }
    // With the table's entry goes the queue's last sender: the writer sends what is left and ends.
    connections(&worker).remove(tcp.id);
    worker.borrow().pipeline.counters().connections.closed.inc();
}

async fn write_all(
    worker: &Rc<RefCell<Worker>>,
    mut write: OwnedWriteHalf,
    mut messages: mpsc::Receiver<Outgoing>,
) {
    while let Some(message) = messages.recv().await {
        let written = timeout(WRITE, write.write_all(&message.bytes)).await;
        let borrowed = worker.borrow();
        let counters = &borrowed.pipeline.counters().tcp;
        match written {
            Ok(Ok(())) => {
                counters.sent.inc();
                counters.sent_bytes.add(message.bytes.len() as u64);
            }
            _ => {
                counters.send_errors.inc();
                return;
            }
        }
    }
}

async fn read_all(worker: &Rc<RefCell<Worker>>, mut read: OwnedReadHalf, tcp: Tcp) {
    let mut framer = {
        let borrowed = worker.borrow();
        Framer::new(&borrowed.pipeline.shared().config.sip.limits)
    };
    loop {
        let space = framer.space();
        space.reserve(READ);
        match timeout(IDLE, read.read_buf(space)).await {
            Ok(Ok(count)) if count > 0 => {}
            _ => return,
        }
        let follows = take_frames(worker, &mut framer, tcp);
        super::udp::flush_all(worker).await;
        if !follows {
            return;
        }
    }
}

/// Handles every whole message. False when the stream cannot be followed any more.
fn take_frames(worker: &Rc<RefCell<Worker>>, framer: &mut Framer, tcp: Tcp) -> bool {
    worker.borrow_mut().pipeline.refresh();
    loop {
        match framer.next() {
            Ok(Frame::Message(range)) => {
                Worker::message(worker, framer.bytes(range), tcp.arrival())
            }
            Ok(Frame::Ping) => {
                worker.borrow().pipeline.counters().tcp.keepalives.inc();
                send(worker, &tcp.back(), Bytes::from_static(PONG));
            }
            Ok(Frame::NeedMore) => return true,
            Err(error) => {
                debug!(peer = %tcp.peer, %error, "A TCP connection is closed.");
                let readable = framer.bytes(error.readable.clone());
                Worker::unframed(worker, readable, &error.error, tcp.arrival());
                return false;
            }
        }
    }
}

fn lose(worker: &Rc<RefCell<Worker>>, why: Lost) {
    worker.borrow().pipeline.counters().lost.inc(why);
}

fn connections(worker: &Rc<RefCell<Worker>>) -> std::sync::Arc<Connections> {
    std::sync::Arc::clone(&worker.borrow().pipeline.shared().connections)
}

impl Tcp {
    fn arrival(self) -> Arrival {
        Arrival {
            source: self.peer,
            local: self.local,
            transport: Transport::Tcp,
            connection: Some(self.id),
        }
    }

    fn back(self) -> Destination {
        Destination {
            transport: Transport::Tcp,
            addr: self.peer,
            from: Some(self.local),
            connection: Some(self.id),
        }
    }
}

impl Worker {
    /// Decides on one framed message.
    fn message(worker: &Rc<RefCell<Self>>, bytes: &[u8], arrival: Arrival) {
        let mut borrowed = worker.borrow_mut();
        let this = &mut *borrowed;
        let counters = &this.pipeline.counters().tcp;
        counters.received.inc();
        counters.received_bytes.add(bytes.len() as u64);
        let mut buffer = std::mem::take(&mut this.stream_in);
        buffer.clear();
        buffer.extend_from_slice(bytes);
        let out = &mut this.stream_out;
        out.clear();
        let (buffer, destination) = this.pipeline.handle(buffer, Framing::Stream, &arrival, out);
        this.stream_in = buffer;
        drop(borrowed);
        Self::send_stream_out(worker, destination);
    }

    /// Answers what cannot be framed, as far as it can be read.
    fn unframed(
        worker: &Rc<RefCell<Self>>,
        readable: &[u8],
        error: &portcullis_sip::ScanError,
        arrival: Arrival,
    ) {
        let mut borrowed = worker.borrow_mut();
        let this = &mut *borrowed;
        this.pipeline.counters().tcp.received.inc();
        let out = &mut this.stream_out;
        out.clear();
        let destination = this.pipeline.unframed(readable, error, &arrival, out);
        drop(borrowed);
        Self::send_stream_out(worker, destination);
    }

    fn undeliverable(worker: &Rc<RefCell<Self>>, bytes: &[u8], to: &Destination) {
        let mut borrowed = worker.borrow_mut();
        let this = &mut *borrowed;
        let out = &mut this.stream_out;
        out.clear();
        let destination = this.pipeline.undeliverable(bytes, to, out);
        drop(borrowed);
        Self::send_stream_out(worker, destination);
    }

    fn send_stream_out(worker: &Rc<RefCell<Self>>, destination: Option<Destination>) {
        let Some(destination) = destination else {
            return;
        };
        if destination.transport == Transport::Tcp {
            let bytes = Bytes::copy_from_slice(&worker.borrow().stream_out);
            return send(worker, &destination, bytes);
        }
        let mut borrowed = worker.borrow_mut();
        let this = &mut *borrowed;
        let Some(number) = this.udp_towards(&destination) else {
            this.pipeline.counters().lost.inc(Lost::SendError);
            return;
        };
        let counters = &this.pipeline.counters().udp;
        counters.sent_bytes.add(this.stream_out.len() as u64);
        this.udp[number]
            .sender
            .push(&this.stream_out, destination.addr);
    }
}
