//! Messages to the service manager (`sd_notify(3)`): readiness, the end, and keep-alives of the watchdog.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_dataplane::shared::Shared;
use tokio::time::{MissedTickBehavior, interval};

/// Attempts to send the number of the next process to a manager that does not read its socket: for 3 seconds.
const ATTEMPTS: u32 = 60;

/// Interval of these attempts.
const RETRY: Duration = Duration::from_millis(50);

/// The service manager; nothing is sent without one.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// Whether the service manager follows another process: nothing is sent then.
    is_handed_over: AtomicBool,
}

impl Manager {
    /// The service manager that the environment names (`NOTIFY_SOCKET`).
    pub(crate) fn of_environment() -> Self {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::new(None);
        };
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
        };
        match address.and_then(|address| Ok((socket()?, address))) {
            Ok(manager) => Self::new(Some(manager)),
            Err(error) => {
                warn_unreachable(&error);
                Self::new(None)
            }
        }
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>) -> Self {
        Self {
            socket,
            is_handed_over: AtomicBool::new(false),
        }
    }

    /// Sends that the host serves.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// Sends that the host is about to end.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Makes the service manager follow another process, after which nothing more is sent. Blocks for at most 3 seconds. Returns false if there is a
    /// manager that has not taken the message.
    pub(crate) fn hand_over_to(&self, pid: u32) -> bool {
        let is_sent =
            self.send_until_taken(&format!("MAINPID={pid}"), || std::thread::sleep(RETRY));
        if is_sent {
            self.is_handed_over.store(true, Ordering::Relaxed);
        }
        is_sent
    }

    /// Sends a state until the manager takes it, at most [`ATTEMPTS`] times, with pauses. Returns whether the manager has taken it.
    fn send_until_taken(&self, state: &str, mut pause: impl FnMut()) -> bool {
        let mut left = ATTEMPTS;
        loop {
            let Err(error) = self.try_send(state) else {
                return true;
            };
            left -= 1;
            if left == 0 {
                warn_unreachable(&error);
                return false;
            }
            pause();
        }
    }

    fn send(&self, state: &str) {
        if let Err(error) = self.try_send(state) {
            warn_unreachable(&error);
        }
    }

    fn try_send(&self, state: &str) -> io::Result<()> {
        match &self.socket {
            Some((socket, address)) if !self.is_handed_over.load(Ordering::Relaxed) => {
                socket.send_to_addr(state.as_bytes(), address).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Sends keep-alives if the service manager expects them (`WatchdogSec=`): one each time that every worker has done its chores, so that
    /// the service manager restarts a host with a worker that hangs. Never completes.
    pub(crate) async fn watchdog(self: Arc<Self>, shared: Arc<Shared>) {
        let Some(limit) = watchdog_limit().filter(|_| self.socket.is_some()) else {
            return std::future::pending().await;
        };
        let mut tick = interval((limit / 4).max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = chores(&shared);
        loop {
            tick.tick().await;
            let now = chores(&shared);
            if now.iter().zip(&seen).all(|(now, seen)| now != seen) {
                self.send("WATCHDOG=1");
                seen = now;
            }
        }
    }
}

/// A socket that does not block: a manager that does not read must not stop the host.
fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn chores(shared: &Shared) -> Vec<u64> {
    let workers = shared.counters.iter();
    workers.map(|worker| worker.chores.value()).collect()
}

/// Time after which the service manager considers this process hung unless it gets a keep-alive.
fn watchdog_limit() -> Option<Duration> {
    let microseconds = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let is_for_us = match env::var("WATCHDOG_PID") {
        Ok(pid) => pid == std::process::id().to_string(),
        Err(_) => true,
    };
    is_for_us.then(|| Duration::from_micros(microseconds))
}

fn warn_unreachable(error: &io::Error) {
    tracing::warn!(
        event = "notify_failed",
        %error,
        "the service manager (NOTIFY_SOCKET) cannot be reached"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager with a full queue, and its end.
    fn full(folder: &tempfile::TempDir) -> (Manager, UnixDatagram) {
        let path = folder.path().join("notify");
        let reads = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_pathname(&path).unwrap();
        let manager = Manager::new(Some((socket().unwrap(), address)));
        while manager.try_send("WATCHDOG=1").is_ok() {}
        reads.set_nonblocking(true).unwrap();
        (manager, reads)
    }

    fn next(reads: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 64];
        let length = reads.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn a_message_is_sent_again_to_a_manager_that_reads_late() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, reads) = full(&folder);
        let mut pauses = 0;
        let is_sent = manager.send_until_taken("MAINPID=7", || {
            pauses += 1;
            if pauses == 3 {
                next(&reads).unwrap();
            }
        });
        assert_eq!((is_sent, pauses), (true, 3));
        let last = std::iter::from_fn(|| next(&reads)).last();
        assert_eq!(last.as_deref(), Some("MAINPID=7"));
    }

    #[test]
    fn sending_to_a_manager_that_never_reads_ends() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, _reads) = full(&folder);
        let mut pauses = 0;
        assert!(!manager.send_until_taken("MAINPID=7", || pauses += 1));
        assert_eq!(pauses, ATTEMPTS - 1);
    }

    #[test]
    fn nothing_is_sent_to_a_manager_that_follows_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, reads) = full(&folder);
        while next(&reads).is_some() {}
        assert!(manager.hand_over_to(7));
        manager.ready();
        manager.stopping();
        let sent: Vec<_> = std::iter::from_fn(|| next(&reads)).collect();
        assert_eq!(sent, ["MAINPID=7"]);
        assert!(Manager::new(None).hand_over_to(7), "there is none");
    }
}
