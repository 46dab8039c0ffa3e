//! BINRPC over streams: Unix sockets and TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_dataplane::linger::discard_input;
use portcullis_dataplane::throttle;
use portcullis_rpc::binrpc::{self, Framer, MOST_REPLY};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::connections::{Ends, Place};
use super::socket_file::SocketFile;
use super::{Control, answers};

/// A connection without a request for this long is closed (`IO_STREAM_CONN_TIMEOUT`).
const IDLE: Duration = Duration::from_secs(120);

/// How long a client may take to read a reply.
const WRITE: Duration = Duration::from_secs(10);

/// Size of one read in bytes.
const CHUNK: usize = 4096;

/// Pause if the system cannot accept another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
pub(super) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener, SocketAddr),
}

impl Listener {
    /// Accepts connections forever. When `stopping` becomes true, connections end after the request in progress.
    pub(super) async fn serve(self, control: Arc<Control>, stopping: watch::Receiver<bool>) {
        let mut was_full = false;
        loop {
            let accepted = match &self {
                Self::Unix(listener, file) => listener.accept().await.map(|(stream, _)| {
                    let ends = Ends {
                        transport: "unix_stream",
                        from: ("<anonymous unix socket>".into(), String::new()),
                        to: (file.path().display().to_string(), String::new()),
                    };
                    self::admit(&control, stream, ends, stopping.clone())
                }),
                Self::Tcp(listener, addr) => listener.accept().await.map(|(stream, peer)| {
                    let text = |addr: SocketAddr| (addr.ip().to_string(), addr.port().to_string());
                    // A reply is written in one piece.
                    let _best_effort = stream.set_nodelay(true);
                    let ends = Ends {
                        transport: "tcp",
                        from: text(peer),
                        to: text(*addr),
                    };
                    self::admit(&control, stream, ends, stopping.clone())
                }),
            };
            match accepted {
                Ok(true) => was_full = false,
                Ok(false) if was_full => {}
                Ok(false) => {
                    was_full = true;
                    warn!(
                        event = "binrpc_connection_refused",
                        "BINRPC connection refused: all connections are in use"
                    );
                }
                Err(error) => {
                    debug!(event = "binrpc_accept_failed", %error, "BINRPC connection not accepted");
                    throttle::descriptors_are_short(&error, "BINRPC");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Serves a connection if there is a place for it.
fn admit<S>(control: &Arc<Control>, stream: S, ends: Ends, stopping: watch::Receiver<bool>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(place) = control.connections.admit(ends) else {
        return false;
    };
    let control = Arc::clone(control);
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = serve(&control, stream, &place, stopping) => ended,
            () = place.evicted() => Err(io::Error::other("its place was needed")),
        };
        if let Err(error) = ended {
            debug!(event = "binrpc_connection_ended", %error, "BINRPC connection ended");
        }
    });
    true
}

/// Answers one request after another, in their order.
async fn serve<S>(
    control: &Control,
    mut stream: S,
    place: &Place,
    mut stopping: watch::Receiver<bool>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut framer = Framer::default();
    loop {
        while let Some(answer) = answer(control, &mut framer, place).await {
            let (bytes, follows) = match &answer {
                Ok(reply) => (reply, true),
                Err(fault) => (fault, false),
            };
            // A client that does not read its reply counts as idle and may be evicted.
            place.waits();
            timeout(WRITE, stream.write_all(bytes)).await??;
            if !follows {
                return close(stream).await;
            }
        }
        place.waits();
        let space = framer.space();
        let is_between_requests = space.is_empty();
        space.reserve(CHUNK);
        tokio::select! {
            biased;
            read = timeout(IDLE, stream.read_buf(space)) => if read?? == 0 {
                return Ok(());
            },
            _ = stopping.wait_for(|stop| *stop), if is_between_requests => return Ok(()),
        }
    }
}

/// Returns the reply to the next complete request; as an error, the fault after which the stream cannot be parsed any further.
async fn answer(
    control: &Control,
    framer: &mut Framer,
    place: &Place,
) -> Option<Result<Vec<u8>, Vec<u8>>> {
    let (cookie, call) = match framer.next() {
        Ok(packet) => {
            let packet = packet?;
            (packet.cookie, packet.call())
        }
        Err(malformed) => (malformed.cookie, Err(malformed)),
    };
    match call {
        Ok(call) => {
            place.works();
            Some(Ok(answers::binrpc_within(
                control, cookie, &call, MOST_REPLY,
            )
            .await))
        }
        Err(malformed) => Some(Err(binrpc::fault(cookie, &malformed.fault()))),
    }
}

/// Closes a stream after a fault, so that the client can read the fault.
async fn close<S>(mut stream: S) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.shutdown().await?;
    discard_input(&mut stream).await;
    Ok(())
}
