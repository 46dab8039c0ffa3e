//! Messages to the service manager (`sd_notify(3)`): readiness, the end, and signs of life.

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

/// Attempts to tell a manager that does not read its socket which process to follow: for 3 seconds.
const ATTEMPTS: u32 = 60;

/// Interval of these attempts.
const RETRY: Duration = Duration::from_millis(50);

/// The service manager; nothing is sent without one.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The service manager follows another process.
    is_left: AtomicBool,
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
                tell(&error);
                Self::new(None)
            }
        }
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>) -> Self {
        Self {
            socket,
            is_left: AtomicBool::new(false),
        }
    }

    /// The host serves.
    pub(crate) fn ready(&self) {
        self.send("READY=1");
    }

    /// The host will end.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The service manager is to follow this process instead. Nothing more is sent then. Blocks for some seconds at most; returns whether it was
    /// told, if there is one.
    pub(crate) fn hand_over_to(&self, pid: u32) -> bool {
        let is_told = self.insist(&format!("MAINPID={pid}"), || std::thread::sleep(RETRY));
        if is_told {
            self.is_left.store(true, Ordering::Relaxed);
        }
        is_told
    }

    /// Sends again what the manager does not take, with pauses. Returns whether it has taken it.
    fn insist(&self, state: &str, mut pause: impl FnMut()) -> bool {
        let mut left = ATTEMPTS;
        loop {
            let Err(error) = self.try_send(state) else {
                return true;
            };
            left -= 1;
            if left == 0 {
                tell(&error);
                return false;
            }
            pause();
        }
    }

    fn send(&self, state: &str) {
        if let Err(error) = self.try_send(state) {
            tell(&error);
        }
    }

    fn try_send(&self, state: &str) -> io::Result<()> {
        match &self.socket {
            Some((socket, address)) if !self.is_left.load(Ordering::Relaxed) => {
                socket.send_to_addr(state.as_bytes(), address).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Sends signs of life, if the service manager wants any (`WatchdogSec=`): one after each worker has done its chores, so that the
    /// service manager restarts a host with a worker that hangs. Never completes.
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

/// A manager that does not read its socket does not stop the host.
fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn chores(shared: &Shared) -> Vec<u64> {
    let workers = shared.counters.iter();
    workers.map(|worker| worker.chores.value()).collect()
}

/// Time after which the service manager takes this process for dead without a sign of life.
fn watchdog_limit() -> Option<Duration> {
    let microseconds = env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let is_for_us = match env::var("WATCHDOG_PID") {
        Ok(pid) => pid == std::process::id().to_string(),
        Err(_) => true,
    };
    is_for_us.then(|| Duration::from_micros(microseconds))
}

fn tell(error: &io::Error) {
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
    fn a_manager_that_reads_late_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, reads) = full(&folder);
        let mut pauses = 0;
        let is_told = manager.insist("MAINPID=7", || {
            pauses += 1;
            if pauses == 3 {
                next(&reads).unwrap();
            }
        });
        assert_eq!((is_told, pauses), (true, 3));
        let last = std::iter::from_fn(|| next(&reads)).last();
        assert_eq!(last.as_deref(), Some("MAINPID=7"));
    }

    #[test]
    fn a_manager_that_never_reads_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, _reads) = full(&folder);
        let mut pauses = 0;
        assert!(!manager.insist("MAINPID=7", || pauses += 1));
        assert_eq!(pauses, ATTEMPTS - 1);
    }

    #[test]
    fn nothing_is_said_to_a_manager_that_follows_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let (manager, reads) = full(&folder);
        while next(&reads).is_some() {}
        assert!(manager.hand_over_to(7));
        manager.ready();
        manager.stopping();
        let said: Vec<_> = std::iter::from_fn(|| next(&reads)).collect();
        assert_eq!(said, ["MAINPID=7"]);
        assert!(Manager::new(None).hand_over_to(7), "there is none");
    }
}
