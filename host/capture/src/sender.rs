//! The thread that sends packets to the server.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::CaptureError;
use crate::stats::CaptureStats;

/// Most packets in the queue.
const WAITING: usize = 8192;

/// How long packets are gathered after some have been sent, so that workers seldom have to wake the thread up.
const PAUSE: Duration = Duration::from_millis(2);

/// Least time between two log lines about a server that cannot be reached.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

/// The sending end of the queue. The thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Sender {
    packets: SyncSender<Vec<u8>>,
    /// Most bytes that wait.
    most: usize,
    stats: Arc<CaptureStats>,
}

impl Sender {
    /// Starts the thread, which counts in `stats`.
    pub(crate) fn start(
        server: SocketAddr,
        most: usize,
        stats: Arc<CaptureStats>,
    ) -> Result<Self, CaptureError> {
        let any: SocketAddr = match server {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let connected = UdpSocket::bind(any).and_then(|socket| {
            socket.connect(server)?;
            Ok(socket)
        });
        let socket = connected.map_err(|source| CaptureError::Socket { server, source })?;
        let (packets, next) = sync_channel(WAITING);
        let counted = Arc::clone(&stats);
        thread::Builder::new()
            .name("capture".to_owned())
            .spawn(move || work(&next, &socket, server, &counted))
            .map_err(CaptureError::Thread)?;
        Ok(Self {
            packets,
            most,
            stats,
        })
    }

    /// Passes a packet to the thread. A packet that has no room is counted as lost.
    pub(crate) fn send(&self, packet: Vec<u8>) {
        let bytes = packet.len();
        let waiting = self.stats.waiting.fetch_add(bytes, Ordering::Relaxed);
        let has_room = waiting.saturating_add(bytes) <= self.most;
        if !has_room || self.packets.try_send(packet).is_err() {
            self.stats.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.stats.too_fast.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Sends packets until the sender is gone.
fn work(next: &Receiver<Vec<u8>>, socket: &UdpSocket, server: SocketAddr, stats: &CaptureStats) {
    let mut reported_at: Option<Instant> = None;
    while let Ok(first) = next.recv() {
        for packet in std::iter::once(first).chain(next.try_iter()) {
            stats.waiting.fetch_sub(packet.len(), Ordering::Relaxed);
            // Over UDP, an error may be that of an earlier packet: nobody listens. This one has not been sent then.
            match socket.send(&packet) {
                Ok(_) => {
                    stats.sent.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    stats.failed.fetch_add(1, Ordering::Relaxed);
                    if reported_at.is_none_or(|at| at.elapsed() >= BETWEEN_LINES) {
                        reported_at = Some(Instant::now());
                        tracing::warn!(
                            event = "capture_failed",
                            %server,
                            %error,
                            lost = stats.failed.load(Ordering::Relaxed),
                            "captured messages do not reach the server"
                        );
                    }
                }
            }
        }
        thread::sleep(PAUSE);
    }
}
