//! HTTP connections: their number, and time limits for each part of a request and for the response.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis_dataplane::throttle;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;
use tracing::debug;

use super::connections::{Connections, Ends, Place};
use super::tls::Tls;

/// How long a client may take for the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: the type of a handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;

/// The answer to HTTP without TLS.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 69\r\nConnection: close\r\n\r\nthis port speaks TLS: begin the URL with https:// instead of http://\n";

/// How long a client may take for the head of a request, and how long a connection may wait for the next request.
const HEAD: Duration = Duration::from_secs(30);

/// How long a client that has connected may take for its first request when the server stops.
const FIRST: Duration = Duration::from_millis(500);

/// How long a client may take for the body of a request.
const BODY: Duration = Duration::from_secs(60);

/// How long a client may read nothing of a response.
const STALL: Duration = Duration::from_secs(10);

/// Most header fields of a request, and most bytes of its head. The write buffer has the same size.
const HEADERS: usize = 64;
const BUFFER: usize = 32 << 10;

/// Pause if the system cannot accept another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The sender of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves `listener` until `stopping` becomes true. Requests in progress are finished.
pub(super) async fn serve(
    router: Router,
    connections: Arc<Connections>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    mut stopping: watch::Receiver<bool>,
) {
    let local = listener.local_addr().ok();
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_ended) = tasks.join_next() => continue,
            () = stopped(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(place) = connections.admit(ends(peer, local)) else {
                    debug!(event = "http_connection_refused", %peer, "HTTP connection refused: all connections are in use");
                    continue;
                };
                let connection = Connection {
                    router: router.clone(),
                    peer,
                    place,
                    stopping: stopping.clone(),
                };
                tasks.spawn(connection.serve(stream, tls.clone()));
            }
            Err(error) => {
                debug!(event = "http_accept_failed", %error, "HTTP connection not accepted");
                throttle::descriptors_are_short(&error, "HTTP");
                sleep(PAUSE).await;
            }
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Reads a whole body, of at most `most` bytes and within a time limit; otherwise returns a status and the reason.
pub(super) async fn whole(body: Body, most: usize) -> Result<Bytes, (StatusCode, String)> {
    match timeout(BODY, Limited::new(body, most).collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let text = format!("the body has more than {most} bytes\n");
            Err((StatusCode::PAYLOAD_TOO_LARGE, text))
        }
        Ok(Err(error)) => Err((StatusCode::BAD_REQUEST, format!("{error}\n"))),
        Err(_) => {
            let text = format!("the body did not come within {BODY:?}\n");
            Err((StatusCode::REQUEST_TIMEOUT, text))
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stop| *stop).await);
}

/// Waits until the server has been stopping for this time.
async fn stopped_for(stopping: &mut watch::Receiver<bool>, time: Duration) {
    stopped(stopping).await;
    sleep(time).await;
}

fn ends(peer: SocketAddr, local: Option<SocketAddr>) -> Ends {
    let text = |addr: SocketAddr| (addr.ip().to_string(), addr.port().to_string());
    Ends {
        transport: "tcp",
        from: text(peer),
        to: local.map(text).unwrap_or_default(),
    }
}

/// An accepted connection.
struct Connection {
    router: Router,
    peer: SocketAddr,
    place: Place,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    /// Does the handshake, if there is TLS, and serves requests.
    async fn serve(mut self, stream: TcpStream, tls: Option<Arc<Tls>>) {
        let _best_effort = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.requests(with_limit(stream)).await;
        };
        let peer = self.peer;
        let secured = tokio::select! {
            secured = timeout(HANDSHAKE, handshake(&tls, stream)) => secured,
            () = stopped_for(&mut self.stopping, FIRST) => return debug!(event = "http_connection_ended", %peer, "HTTP connection without a TLS handshake closed: the host stops"),
            () = self.place.evicted() => return debug!(event = "http_connection_evicted", %peer, "idle HTTP connection closed to make room"),
        };
        match secured {
            Ok(Ok(Some(stream))) => self.requests(stream).await,
            Ok(Ok(None)) => {
                debug!(event = "http_without_tls", %peer, "HTTP connection without TLS refused");
            }
            Ok(Err(error)) => {
                debug!(event = "http_handshake_failed", %peer, %error, "TLS handshake of an HTTP connection failed");
            }
            Err(_) => {
                let error = "no handshake in time";
                debug!(event = "http_handshake_failed", %peer, error, "TLS handshake of an HTTP connection failed");
            }
        }
    }

    /// Serves one request after another, until the client closes, exceeds a time limit, or is evicted.
    async fn requests(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Self {
            router,
            peer,
            place,
            mut stopping,
        } = self;
        let place = &place;
        let asked = &Notify::new();
        let service = service_fn(|mut request: Request<Incoming>| {
            asked.notify_one();
            request.extensions_mut().insert(Peer(peer));
            let router = router.clone();
            async move {
                // Requests without a token are refused before their body is read. Other clients cannot keep a connection busy for longer than
                // a response takes.
                place.works();
                let answer = router.oneshot(request.map(Body::new)).await;
                // A client that does not read its response counts as idle and may be evicted.
                place.waits();
                answer
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(HEADERS)
            .max_buf_size(BUFFER);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = place.evicted() => return debug!(event = "http_connection_evicted", %peer, "idle HTTP connection closed to make room"),
            () = stopped(&mut stopping) => tokio::select! {
                ended = connection.as_mut() => ended,
                // A client that has just connected still gets an answer.
                _asked = timeout(FIRST, asked.notified()) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            },
        };
        if let Err(error) = ended {
            debug!(event = "http_connection_ended", %peer, %error, "HTTP connection ended");
        }
    }
}

/// A connection whose client must read.
type LimitedStream = Pin<Box<TimeoutStream<TcpStream>>>;

fn with_limit(stream: TcpStream) -> LimitedStream {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    Box::pin(stream)
}

/// Does the TLS handshake. `None` if the client speaks plain HTTP; it gets a response that says so.
async fn handshake(tls: &Tls, stream: TcpStream) -> io::Result<Option<TlsStream<LimitedStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] != TLS_HANDSHAKE {
        let mut stream = with_limit(stream);
        // A connection that is closed with unread data loses the answer.
        let mut head = [0; 4096];
        let _read = stream.read(&mut head).await?;
        stream.write_all(NO_TLS).await?;
        stream.shutdown().await?;
        return Ok(None);
    }
    tls.acceptor().accept(with_limit(stream)).await.map(Some)
}

#[cfg(test)]
mod tests {
    use portcullis_config::TlsFiles;
    use rcgen::generate_simple_self_signed;

    use super::*;

    #[tokio::test]
    async fn a_peer_without_a_handshake_does_not_delay_the_stop() {
        let folder = tempfile::tempdir().unwrap();
        let files = TlsFiles {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let made = generate_simple_self_signed(["localhost".into()]).unwrap();
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let tls = Arc::new(Tls::open(&files).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Connections::new(8));
        let (stop, stopping) = watch::channel(false);
        let served = tokio::spawn(serve(
            Router::new(),
            connections,
            listener,
            Some(tls),
            stopping,
        ));
        let mut silent = TcpStream::connect(address).await.unwrap();
        // The server is in the handshake when it has accepted a later connection and answered it.
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        plain.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, NO_TLS);
        stop.send(true).unwrap();
        timeout(HANDSHAKE / 2, served).await.unwrap().unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    }

    #[test]
    fn the_answer_to_http_without_tls_is_whole() {
        let text = std::str::from_utf8(NO_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }
}
