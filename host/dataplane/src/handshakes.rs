//! TLS handshakes. A handshake takes up to a millisecond of processor time, so it runs on threads of its own, which yield to the workers:
//! a storm of handshakes delays other handshakes, and no datagram. A worker gives a connected socket away, and gets it back with the keys.

use std::io;
use std::net::{SocketAddr, TcpStream as Socket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use portcullis_metrics::HandshakeResult;
use portcullis_sip::Transport;
use portcullis_tls::{Inside, Session, Tls, explained};
use rustls::pki_types::ServerName;
use rustls::server::Acceptor;
use rustls::{Connection, HandshakeKind, ProtocolVersion};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector};
use tracing::debug;

use crate::transport::Secured;

/// How much less important than a worker a thread is for the system (`nice`).
const YIELD: i32 = 10;

/// The threads of handshakes, and what a handshake needs.
#[derive(Debug)]
pub struct Handshakes {
    tls: Arc<Tls>,
    /// Present until this is dropped.
    runtime: Option<Runtime>,
    limit: Duration,
}

/// A handshake in progress, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Handshake(JoinHandle<Result<Established, HandshakeError>>);

/// A connection after its handshake. It belongs to no runtime.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) socket: Socket,
    /// The keys.
    pub(crate) keys: Connection,
    /// What the handshake has settled and proved.
    session: Arc<Session>,
}

/// Why a handshake failed.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    /// It took too long.
    #[error("the TLS handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The peer closed the connection, or it broke.
    #[error("the connection ended within the TLS handshake: {0}")]
    Closed(io::Error),
    /// A client asked for a name that no profile has, and there is no default one.
    #[error(
        "the client asks for a name that no [tls.NAME] has: add the name to `names`, or set default = true in one section"
    )]
    UnknownName,
    /// The rules of TLS were violated, or a certificate is not accepted.
    #[error("TLS handshake failed: {}", explained(.0))]
    Tls(rustls::Error),
    /// The threads have ended.
    #[error("the host ends")]
    Ending,
}

impl Handshakes {
    /// Starts this number of threads. A handshake may take as long as `limit`.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(tls: Arc<Tls>, threads: usize, limit: Duration) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("handshakes")
            .on_thread_start(|| {
                // For the system, this is a property of the thread that asks.
                if let Err(error) = rustix::process::setpriority_process(None, YIELD) {
                    debug!(event = "handshakes_urgent", %error, "threads of handshakes do not yield to workers");
                }
            })
            .enable_all()
            .build()?;
        Ok(Self {
            tls,
            runtime: Some(runtime),
            limit,
        })
    }

    /// The certificates, keys and authorities.
    pub fn tls(&self) -> &Arc<Tls> {
        &self.tls
    }

    /// Begins the handshake of a connection that a peer has opened to a listener of this transport.
    ///
    /// # Errors
    /// When the worker's runtime does not let go of the socket.
    pub(crate) fn accept(&self, stream: TcpStream, transport: Transport) -> io::Result<Handshake> {
        let inside = match transport.is_websocket() {
            true => Inside::WebSocket,
            false => Inside::Sip,
        };
        let socket = stream.into_std()?;
        let tls = Arc::clone(&self.tls);
        Ok(self.spawn(async move { accept(&tls, inside, TcpStream::from_std(socket)?).await }))
    }

    /// Begins the handshake of a connection that this host has opened to a peer with this name or address.
    ///
    /// # Errors
    /// When the worker's runtime does not let go of the socket.
    pub(crate) fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
    ) -> io::Result<Handshake> {
        let socket = stream.into_std()?;
        let tls = Arc::clone(&self.tls);
        Ok(self.spawn(async move { connect(&tls, TcpStream::from_std(socket)?, name).await }))
    }

    fn spawn(
        &self,
        handshake: impl Future<Output = Result<Established, HandshakeError>> + Send + 'static,
    ) -> Handshake {
        let limit = self.limit;
        let limited = async move {
            match timeout(limit, handshake).await {
                Ok(result) => result,
                Err(_) => Err(HandshakeError::Timeout(limit)),
            }
        };
        match &self.runtime {
            Some(runtime) => Handshake(runtime.spawn(limited)),
            None => Handshake(tokio::spawn(async { Err(HandshakeError::Ending) })),
        }
    }
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        // Within a runtime, the end of another one must not be waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Future for Handshake {
    type Output = Result<Established, HandshakeError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ended = Pin::new(&mut self.0).poll(context);
        ended.map(|result| result.unwrap_or(Err(HandshakeError::Ending)))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Established {
    /// How the handshake is counted.
    pub(crate) fn result(&self) -> HandshakeResult {
        match (self.keys.handshake_kind(), self.keys.protocol_version()) {
            (Some(HandshakeKind::Resumed), _) => HandshakeResult::Resumed,
            (_, Some(ProtocolVersion::TLSv1_2)) => HandshakeResult::Tls12,
            (_, _) => HandshakeResult::Tls13,
        }
    }

    /// What the table of connections keeps of it. `local`: the end at this host.
    pub(crate) fn secured(&self, local: SocketAddr) -> Secured {
        Secured {
            local,
            session: Arc::clone(&self.session),
        }
    }
}

impl HandshakeError {
    /// How the handshake is counted.
    pub(crate) fn result(&self) -> HandshakeResult {
        match self {
            Self::Timeout(_) => HandshakeResult::Timeout,
            Self::Closed(_) | Self::Ending => HandshakeResult::Closed,
            Self::UnknownName => HandshakeResult::UnknownName,
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "the library has many errors of the protocol"
            )]
            Self::Tls(error) => match error {
                rustls::Error::NoCertificatesPresented => HandshakeResult::NoCertificate,
                rustls::Error::InvalidCertificate(_)
                | rustls::Error::InvalidCertRevocationList(_) => HandshakeResult::BadCertificate,
                rustls::Error::AlertReceived(_) => HandshakeResult::Refused,
                _ => HandshakeResult::Protocol,
            },
        }
    }
}

/// For the sender of a request that could not be delivered.
impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        let kind = match &error {
            HandshakeError::Timeout(_) => io::ErrorKind::TimedOut,
            HandshakeError::Closed(error) => error.kind(),
            HandshakeError::UnknownName | HandshakeError::Tls(_) => io::ErrorKind::InvalidData,
            HandshakeError::Ending => io::ErrorKind::ConnectionAborted,
        };
        Self::new(kind, error)
    }
}

/// The library reports its own errors as errors of the socket.
impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(tls) => Self::Tls(rustls::Error::clone(tls)),
            None => Self::Closed(error),
        }
    }
}

async fn accept(
    tls: &Tls,
    inside: Inside,
    stream: TcpStream,
) -> Result<Established, HandshakeError> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    let protocols = hello.alpn().into_iter().flatten();
    let config = tls
        .server(inside, hello.server_name(), protocols)
        .ok_or(HandshakeError::UnknownName)?;
    let (stream, keys) = start.into_stream(config).await?.into_inner();
    Ok(Established {
        socket: stream.into_std()?,
        session: Arc::new(Session::accepted(&keys)),
        keys: keys.into(),
    })
}

async fn connect(
    tls: &Tls,
    stream: TcpStream,
    name: ServerName<'static>,
) -> Result<Established, HandshakeError> {
    let client = tls.client(&name);
    let connector = TlsConnector::from(client.config());
    let name = client.name_of(name);
    let connecting = connector.connect(name.clone(), stream);
    let (stream, keys) = connecting.await?.into_inner();
    let session = Session::opened(&keys, &name, client.verifies());
    Ok(Established {
        socket: stream.into_std()?,
        session: Arc::new(session),
        keys: keys.into(),
    })
}
