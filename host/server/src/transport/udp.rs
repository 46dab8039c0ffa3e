//! UDP: datagrams come and go in batches.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use portcullis_sip::{Arrival, Framing, Transport};
use portcullis_udp::Sender;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tracing::warn;

use crate::metrics::Lost;
use crate::worker::Worker;

/// Datagrams that one system call receives or sends. More than 8 brings little, 32 is where nothing more comes.
pub(crate) const BATCH: usize = 32;

/// Batches in a row before other sockets and connections of the worker have their turn.
const TURN: usize = 4;

/// One UDP socket of a worker, with what waits to be sent from it.
pub(crate) struct Udp {
    socket: Rc<UdpSocket>,
    local: SocketAddr,
    pub(crate) sender: Sender,
}

impl Udp {
    /// Takes a bound socket over. To be called on the worker's runtime.
    pub(crate) fn new(socket: std::net::UdpSocket, local: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: Rc::new(UdpSocket::from_std(socket)?),
            local,
            sender: Sender::new(BATCH),
        })
    }

    /// The address that it is bound to.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }
}

/// Serves the worker's UDP socket of this number for as long as the worker lives.
pub(crate) async fn serve(worker: Rc<RefCell<Worker>>, number: usize) {
    let socket = Rc::clone(&worker.borrow().udp[number].socket);
    loop {
        if let Err(error) = socket.readable().await {
            warn!(%error, "A UDP socket cannot be waited for.");
            return;
        }
        let mut more = true;
        for _ in 0..TURN {
            more = worker.borrow_mut().receive(&socket, number);
            if !more {
                break;
            }
        }
        flush_all(&worker).await;
        if more {
            tokio::task::yield_now().await;
        }
    }
}

/// Sends what waits on any socket of the worker. While a socket's buffer is full nothing new is read: what cannot be sent need
/// not be received.
pub(crate) async fn flush_all(worker: &Rc<RefCell<Worker>>) {
    loop {
        let blocked = worker.borrow_mut().flush();
        let Some(number) = blocked else {
            return;
        };
        let socket = Rc::clone(&worker.borrow().udp[number].socket);
        if socket.writable().await.is_err() {
            let lost = worker.borrow_mut().udp[number].sender.clear();
            warn!(lost, "A UDP socket cannot be written to.");
        }
    }
}

impl Worker {
    /// Receives one batch, decides on each datagram and queues what is to be sent. False when nothing more is there.
    fn receive(&mut self, socket: &UdpSocket, number: usize) -> bool {
        let receiver = &mut self.receiver;
        let count = match socket.try_io(Interest::READABLE, || receiver.recv(socket)) {
            Ok(count) => count,
            Err(error) => {
                // Errors that ICMP reports are about datagrams that were sent long ago, and more datagrams may be waiting.
                return error.kind() != io::ErrorKind::WouldBlock;
            }
        };
        self.pipeline.refresh();
        for nth in 0..count {
            self.datagram(number, nth);
        }
        let _blocked = self.flush();
        true
    }

    fn datagram(&mut self, number: usize, nth: usize) {
        let (bytes, source, truncated) = self.receiver.datagram(nth);
        let counters = &self.pipeline.counters().udp;
        counters.received.inc();
        counters.received_bytes.add(bytes.len() as u64);
        if bytes.len() <= 4 && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            counters.keepalives.inc();
            return;
        }
        if truncated {
            self.pipeline.counters().lost.inc(Lost::Truncated);
            return;
        }
        let arrival = Arrival {
            source: SocketAddr::new(source.ip().to_canonical(), source.port()),
            local: self.udp[number].local,
            transport: Transport::Udp,
            connection: None,
        };
        let bytes = self.receiver.take(nth);
        let out = self.udp[number].sender.buffer();
        let (bytes, destination) = self
            .pipeline
            .handle(bytes, Framing::Datagram, &arrival, out);
        self.receiver.restore(nth, bytes);
        if let Some(destination) = destination {
            self.dispatch(number, &destination);
        }
    }

    /// Hands what waits to the system. The number of a socket whose buffer is full, if there is one.
    pub(crate) fn flush(&mut self) -> Option<usize> {
        let counters = &self.pipeline.counters().udp;
        let mut blocked = None;
        for (number, udp) in self.udp.iter_mut().enumerate() {
            if udp.sender.waiting() == 0 {
                continue;
            }
            let (socket, sender) = (&udp.socket, &mut udp.sender);
            let before = sender.waiting();
            let flushed = socket.try_io(Interest::WRITABLE, || sender.flush(&**socket));
            let (failed, error) = sender.failures();
            let gone = before - sender.waiting();
            counters.sent.add((gone as u64).saturating_sub(failed));
            counters.send_errors.add(failed);
            if let Some(error) = error {
                tracing::debug!(%error, failed, "Datagrams were refused by the system.");
            }
            if flushed.is_err() && sender.waiting() > 0 {
                blocked = Some(number);
            }
        }
        blocked
    }
}
