//! The signals that a host handles.

use nix::sys::signal::SigSet;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::Notify;

/// The request of a signal.
pub(super) enum SignalRequest {
    /// To end when no call is in set-up.
    Drain,
    /// To end at once.
    End,
    Reload,
    /// To hand the sockets to a new process.
    Upgrade,
}

/// The signals that end, reload or replace a host.
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    upgrade: unix::Signal,
    /// Never awaited: registering the signal keeps it from ending the host. A write beyond the file size limit (`LimitFSIZE=`, `ulimit -f`)
    /// then returns EFBIG, like a full disk.
    _file_size: unix::Signal,
}

/// The signal for a file that has reached its size limit.
const SIGXFSZ: i32 = 25;

impl Signals {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
            _file_size: signal(SignalKind::from_raw(SIGXFSZ))?,
        })
    }

    pub(super) async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            _ = self.terminate.recv() => SignalRequest::Drain,
            _ = self.interrupt.recv() => SignalRequest::End,
            _ = self.hangup.recv() => SignalRequest::Reload,
            _ = self.upgrade.recv() => SignalRequest::Upgrade,
        }
    }

    /// The next request, also one of an operator through another host.
    pub(super) async fn next_or(&mut self, drain_wish: &Notify) -> SignalRequest {
        tokio::select! {
            request = self.next() => request,
            () = drain_wish.notified() => SignalRequest::Drain,
        }
    }

    /// Completes when a host that starts is to end.
    pub(super) async fn end(&mut self) {
        loop {
            match self.next().await {
                SignalRequest::Drain | SignalRequest::End => return,
                // It reads everything now.
                SignalRequest::Reload => {}
                SignalRequest::Upgrade => refuse_upgrade("the host is starting"),
            }
        }
    }
}

pub(super) fn refuse_upgrade(reason: &str) {
    tracing::warn!(
        event = "upgrade_refused",
        reason,
        "SIGUSR2 has no effect now"
    );
}

/// Holds SIGUSR2 back until a host can handle it. Otherwise, a signal to a host that starts, or to all processes of a unit, would end the
/// host or a compiler. To be called before there is another thread.
pub fn hold_upgrades() {
    let _supported = upgrades().thread_block();
}

/// The signal that asks for an upgrade.
pub(super) fn upgrades() -> SigSet {
    SigSet::from(nix::sys::signal::Signal::SIGUSR2)
}
