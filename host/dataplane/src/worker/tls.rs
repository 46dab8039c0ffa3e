//! Connections over TLS before they carry messages: what becomes of a handshake.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use portcullis_metrics::{HandshakeResult, Lost};
use portcullis_sip::{Destination, Transport};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tracing::debug;

use super::Worker;
use super::handshake_slots::{Refusal, Slot};
use super::stream;
use super::stream_peer::StreamPeer;
use super::tls_stream::{TlsRead, TlsWrite, halves};
use crate::handshakes::{Handshake, HandshakeError};
use crate::pipeline::Loss;
use crate::transport::Joined;

/// Carries messages over a connection that a peer has opened, after its handshake.
pub(super) async fn accepted(
    worker: Rc<RefCell<Worker>>,
    stream: TcpStream,
    peer: StreamPeer,
    joined: Joined,
    slot: Slot,
) {
    let handshake = worker.borrow().accept_handshake(stream, peer.transport);
    let result = match handshake {
        Ok(handshake) => tokio::select! {
            result = handshake => result,
            () = joined.place.activity().evicted() => Err(HandshakeError::Ending),
        },
        Err(error) => Err(error.into()),
    };
    drop(slot);
    let opened = {
        let worker = worker.borrow();
        let counts = &worker.counters().handshakes.accepted;
        match result {
            Ok(established) => {
                counts.inc(established.result());
                let secured = established.secured(peer.local);
                worker.connections().secure(peer.id, secured);
                halves(established)
            }
            Err(error) => {
                counts.inc(error.result());
                debug!(event = "tls_handshake_failed", source = %peer.peer, %error, "TLS handshake of a peer failed");
                Err(error.into())
            }
        }
    };
    match opened {
        Ok(halves) => stream::run(worker, halves, peer, joined).await,
        Err(_) => {
            worker.borrow().connections().remove(peer.id);
            worker.borrow().counters().connections.closed.inc();
        }
    }
}

/// The halves of a connection that this host has opened, after its handshake.
///
/// # Errors
/// Why there is none.
pub(super) async fn connected(
    worker: &Rc<RefCell<Worker>>,
    to: &Destination,
    stream: TcpStream,
    joined: &Joined,
) -> io::Result<(TlsRead, TlsWrite)> {
    let local = stream.local_addr()?;
    let handshake = worker.borrow().connect_handshake(to, stream)?;
    let result = handshake.await;
    let worker = worker.borrow();
    let counts = &worker.counters().handshakes.opened;
    match result {
        Ok(established) => {
            counts.inc(established.result());
            let secured = established.secured(local);
            worker.connections().secure(joined.id, secured);
            halves(established)
        }
        Err(error) => {
            counts.inc(error.result());
            Err(error.into())
        }
    }
}

impl Worker {
    /// Counts a connection that is closed before its handshake.
    pub(super) fn refuse_handshake(&self, refusal: Refusal, peer: std::net::SocketAddr) {
        self.counters()
            .handshakes
            .accepted
            .inc(HandshakeResult::Limited);
        self.pipeline.reporter().lose(&Loss {
            lost: Lost::TooManyConnections,
            bytes: b"",
            transport: Transport::Tls,
            peer,
            detail: &refusal.detail(),
        });
    }

    fn accept_handshake(&self, stream: TcpStream, transport: Transport) -> io::Result<Handshake> {
        let handshakes = &self.pipeline.shared().handshakes;
        let handshakes = handshakes.as_ref().ok_or_else(no_tls)?;
        handshakes.accept(stream, transport)
    }

    fn connect_handshake(&self, to: &Destination, stream: TcpStream) -> io::Result<Handshake> {
        let shared = self.pipeline.shared();
        let handshakes = shared.handshakes.as_ref().ok_or_else(no_tls)?;
        let name = match to.name {
            None => ServerName::from(to.addr.ip()),
            Some(mark) => shared
                .name_of_mark(mark)
                .and_then(|name| ServerName::try_from(name).ok())
                .ok_or_else(|| {
                    let text = "the name of the next hop is not in the configuration any more";
                    io::Error::new(io::ErrorKind::NotFound, text)
                })?,
        };
        handshakes.connect(stream, name)
    }
}

fn no_tls() -> io::Error {
    let text = "this host has no TLS: add a tls: address to `listen`";
    io::Error::new(io::ErrorKind::Unsupported, text)
}
