//! BINRPC and JSON-RPC in datagrams, over Unix sockets and UDP.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use portcullis_rpc::binrpc::{self, MOST_REPLY, Packet};
use portcullis_rpc::json::{self, Layout, MOST_DATAGRAM_REPLY};
use portcullis_rpc::{Fault, MOST_REQUEST, TooLarge};
use portcullis_text::one_line;
use socket2::Type;
use tokio::net::{self, UdpSocket};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tracing::{debug, error, warn};

use super::heritage::Lent;
use super::socket_file::{Owner, SocketFile};
use super::{Control, answers};
use crate::caller::{Caller, Door};

/// Requests of one socket that are executed at the same time.
const AT_ONCE: usize = 16;

/// How long to wait while the buffer of a client is full (Kamailio's `dgram_timeout`), and the interval of the attempts.
const SEND: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(20);

/// Largest UDP datagram over IPv4.
const MOST_UDP: usize = 65_507;

/// Pause after an error that no client has caused.
const PAUSE: Duration = Duration::from_millis(100);

/// Protocol on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Binrpc,
    Json,
}

/// A datagram socket.
pub(super) struct Datagrams {
    protocol: Protocol,
    socket: Arc<Socket>,
    /// For a Unix socket, its file and its owner, to recreate it.
    file: Option<(SocketFile, Owner)>,
    lent: Lent,
}

enum Socket {
    Unix {
        receiver: net::UnixDatagram,
        /// The same socket, to send without blocking: the system does not report when a client has room again.
        sender: UnixDatagram,
        /// Notified when clients that do not read have filled the buffer of the socket, which all replies share.
        stuck: Notify,
    },
    Udp(UdpSocket),
}

/// The sender of a request.
enum Peer {
    Unix(UnixAddr),
    Udp(SocketAddr),
}

impl Datagrams {
    /// Must be called within a tokio runtime.
    ///
    /// If the system has no descriptors left.
    /// If the system has no more descriptors.
    pub(super) fn unix(
        protocol: Protocol,
        socket: UnixDatagram,
        file: SocketFile,
        owner: Owner,
        lent: Lent,
    ) -> io::Result<Self> {
        let sender = socket.try_clone()?;
        let receiver = net::UnixDatagram::from_std(socket)?;
        Ok(Self {
            protocol,
            socket: Arc::new(Socket::Unix {
                receiver,
                sender,
                stuck: Notify::new(),
            }),
            file: Some((file, owner)),
            lent,
        })
    }

    pub(super) fn udp(protocol: Protocol, socket: UdpSocket, lent: Lent) -> Self {
        Self {
            protocol,
            socket: Arc::new(Socket::Udp(socket)),
            file: None,
            lent,
        }
    }

    /// Answers requests forever.
    pub(super) async fn serve(mut self, control: Arc<Control>) {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        // One byte more than is accepted reveals requests that are too long.
        let mut buffer = vec![0; MOST_REQUEST + 1];
        loop {
            let received = tokio::select! {
                received = self.socket.receive(&mut buffer) => received,
                () = self.socket.stuck() => {
                    self.renew();
                    continue;
                }
            };
            let (length, peer) = match received {
                Ok(received) => received,
                Err(error) => {
                    debug!(event = "control_receive_failed", %error, "control datagram not received");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let request = buffer.get(..length).unwrap_or_default().to_vec();
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else {
                return;
            };
            let (control, socket) = (Arc::clone(&control), Arc::clone(&self.socket));
            let protocol = self.protocol;
            tokio::spawn(async move {
                let _turn = turn;
                let Some(answer) =
                    answer(&control, protocol, &request, socket.most(protocol)).await
                else {
                    return;
                };
                if let Err(error) = socket.send(protocol, &answer, &peer).await {
                    debug!(event = "control_reply_failed", %error, "reply to a control datagram not sent: its sender is gone or does not read");
                }
            });
        }
    }
}

impl Datagrams {
    /// Recreates the socket at its path. Replies that wait in the old socket, for clients that do not read, stay there.
    fn renew(&mut self) {
        let Some((file, owner)) = self.file.take() else {
            return;
        };
        let path = file.path().to_owned();
        drop(file);
        let lent = self.lent.clone();
        let renewed = SocketFile::bind(&path, Type::DGRAM, owner, lent.tenure().clone()).and_then(
            |(socket, file)| {
                lent.replace(&socket)?;
                Ok(Self::unix(self.protocol, socket.into(), file, owner, lent)?)
            },
        );
        match renewed {
            Ok(renewed) => {
                *self = renewed;
                warn!(event = "control_socket_recreated", path = %path.display(), "control socket recreated: clients that do not read had filled it");
            }
            Err(error) => error!(event = "control_socket_failed", "{}", one_line(&error)),
        }
    }
}

impl Socket {
    /// Returns when the socket can no longer send replies.
    async fn stuck(&self) {
        match self {
            Self::Unix { stuck, .. } => stuck.notified().await,
            Self::Udp(_) => std::future::pending().await,
        }
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peer)> {
        match self {
            Self::Unix { receiver, .. } => {
                let (length, peer) = receiver.recv_from(buffer).await?;
                Ok((length, Peer::Unix(peer.into())))
            }
            Self::Udp(socket) => {
                let (length, peer) = socket.recv_from(buffer).await?;
                Ok((length, Peer::Udp(peer)))
            }
        }
    }

    /// Returns the longest reply in bytes.
    fn most(&self, protocol: Protocol) -> usize {
        match (self, protocol) {
            (Self::Udp(_), _) => MOST_UDP,
            (Self::Unix { .. }, Protocol::Binrpc) => MOST_REPLY,
            (Self::Unix { .. }, Protocol::Json) => MOST_DATAGRAM_REPLY,
        }
    }

    async fn send(&self, protocol: Protocol, answer: &[u8], peer: &Peer) -> io::Result<()> {
        match (self, peer) {
            (Self::Unix { sender, stuck, .. }, Peer::Unix(peer)) => {
                // kamcmd has connected its socket to ours and receives from no other. For other clients, the reply has a socket of its own,
                // so that a client that does not read fills only the buffer of that one.
                let own = match protocol {
                    Protocol::Binrpc => None,
                    Protocol::Json => Some(UnixDatagram::unbound()?),
                };
                if let Some(own) = &own {
                    own.set_nonblocking(true)?;
                }
                let sent = send_unix(own.as_ref().unwrap_or(sender), answer, peer).await;
                if own.is_none() && is_full(&sent) && is_full(&probe(sender)) {
                    stuck.notify_one();
                }
                sent
            }
            (Self::Udp(socket), Peer::Udp(peer)) => socket.send_to(answer, peer).await.map(drop),
            // A socket has peers of its own kind only.
            (Self::Unix { .. }, Peer::Udp(_)) | (Self::Udp(_), Peer::Unix(_)) => Ok(()),
        }
    }
}

/// Tries for a limited time, because the system does not report when a client has room again.
async fn send_unix(socket: &UnixDatagram, answer: &[u8], peer: &UnixAddr) -> io::Result<()> {
    if peer.is_unnamed() {
        return Err(io::Error::other("the sender has no address to answer to"));
    }
    let deadline = Instant::now() + SEND;
    loop {
        match socket.send_to_addr(answer, peer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                sleep(RETRY).await;
            }
            sent => return sent.map(drop),
        }
    }
}

/// Sends an empty datagram to ourselves, to distinguish a full buffer of the socket from a full buffer of one client.
fn probe(socket: &UnixDatagram) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("portcullis-probe-{}-{number}", std::process::id());
    let addr = UnixAddr::from_abstract_name(name)?;
    let _receiver = UnixDatagram::bind_addr(&addr)?;
    socket.send_to_addr(&[], &addr).map(drop)
}

fn is_full(sent: &io::Result<()>) -> bool {
    sent.as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Returns the reply; `None` if the request cannot be answered.
async fn answer(
    control: &Control,
    protocol: Protocol,
    request: &[u8],
    most: usize,
) -> Option<Vec<u8>> {
    let overlong = || {
        let text = format!("bad request: more than {MOST_REQUEST} bytes");
        (request.len() > MOST_REQUEST).then(|| Fault::new(400, text))
    };
    match (protocol, overlong()) {
        (Protocol::Json, Some(fault)) => Some(json::failure(
            &serde_json::Value::Null,
            &fault,
            Layout::Tabs,
        )),
        (Protocol::Binrpc, Some(fault)) => Some(binrpc::fault(0, &fault)),
        (Protocol::Json, None) => {
            let caller = Caller::operator(Door::Datagram);
            let request = json::Request::read(request);
            let answer = answers::json_within(
                control,
                request,
                Layout::Tabs,
                &caller,
                most,
                beyond_datagram,
            );
            Some(answer.await.body)
        }
        (Protocol::Binrpc, None) => match Packet::parse(request) {
            Ok(Some(packet)) => Some(match packet.call() {
                Ok(call) => answers::binrpc_within(control, packet.cookie, &call, most).await,
                Err(malformed) => binrpc::fault(packet.cookie, &malformed.fault()),
            }),
            Ok(None) => Some(binrpc::fault(
                0,
                &Fault::new(
                    400,
                    "bad request: more data needed: the datagram is cut off",
                ),
            )),
            Err(malformed) => Some(binrpc::fault(malformed.cookie, &malformed.fault())),
        },
    }
}

fn beyond_datagram(TooLarge { bytes, most }: TooLarge) -> Fault {
    let text = format!("reply of {bytes} bytes, at most {most} in a datagram");
    Fault::new(500, text)
        .because("use HTTP (/RPC) or the FIFO (kamctl), which carry replies of any size")
}
