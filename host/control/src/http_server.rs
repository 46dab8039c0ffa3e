//! HTTP connections: their number, and time limits for each part of a request and for the response.

use std::net::SocketAddr;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tracing::debug;

use super::connections::{Connections, Ends, Place};

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
                let router = router.clone();
                tasks.spawn(serve_connection(
                    router,
                    stream,
                    peer,
                    place,
                    stopping.clone(),
                ));
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

fn ends(peer: SocketAddr, local: Option<SocketAddr>) -> Ends {
    let text = |addr: SocketAddr| (addr.ip().to_string(), addr.port().to_string());
    Ends {
        transport: "tcp",
        from: text(peer),
        to: local.map(text).unwrap_or_default(),
    }
}

/// Serves one request after another, until the client closes, exceeds a time limit, or is evicted.
async fn serve_connection(
    router: Router,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    mut stopping: watch::Receiver<bool>,
) {
    let _best_effort = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALL));
    let place = &place;
    let asked = &Notify::new();
    let service = service_fn(move |mut request: Request<Incoming>| {
        asked.notify_one();
        request.extensions_mut().insert(Peer(peer));
        let router = router.clone();
        async move {
            // Requests without a token are refused before their body is read. Other clients cannot keep a connection busy for longer than a
            // response takes.
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
    let connection = http.serve_connection(TokioIo::new(Box::pin(stream)), service);
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
