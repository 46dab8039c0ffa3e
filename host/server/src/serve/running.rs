//! A running host, and what signals ask of it.

use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use portcullis_control::{Lent, Listening};
use portcullis_dataplane::drain::Stage;
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport::Bound;
use portcullis_rollout::address_task;
use portcullis_rollout::tls_files;
use portcullis_rollout::{ReconfigureError, Registry};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::signals::refuse_upgrade;
use crate::drain::Draining;
use crate::notify::Manager;
use crate::upgrade::{Upgrade, Upgraded};

/// A running host.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) registry: Arc<Registry>,
    pub(super) control: Listening,
    pub(super) doors: JoinHandle<()>,
    /// Closes the control interfaces.
    pub(super) close: watch::Sender<bool>,
    pub(super) lent: Vec<Lent>,
    /// Notified when an operator asks this host to drain, through another host.
    pub(super) drain_wish: Arc<Notify>,
    pub(super) upgrade: Upgrade,
    /// The process that has taken over.
    pub(super) successor: Option<Upgraded>,
}

impl Running {
    /// Starts an upgrade after SIGUSR2, if that is possible now.
    pub(super) fn upgrade(&mut self, draining: &Draining, manager: &Arc<Manager>) {
        let refusal = if draining.is_leaving() {
            Some("another process has taken over already")
        } else if self.shared.drain.stage() != Stage::Serving {
            Some("the host is ending")
        } else if !self.upgrade.begin(&self.shared, &self.lent, manager) {
            Some("an upgrade is in progress")
        } else {
            None
        };
        if let Some(reason) = refusal {
            refuse_upgrade(reason);
        }
    }

    /// Leaves the control interfaces to the process that has taken over.
    pub(super) fn leave(&mut self, upgraded: Upgraded) {
        let is_taken = |lent: &&Lent| upgraded.taken.iter().any(|name| name == lent.name());
        for lent in self.lent.iter().filter(is_taken) {
            lent.give_up();
        }
        self.shared.pings.set_serving(false);
        if let Some(peers) = &self.shared.peers {
            peers.close();
        }
        self.close.send_replace(true);
        tracing::info!(
            event = "upgraded",
            pid = upgraded.pid(),
            pause = ?upgraded.pause,
            "a new process serves; this one ends when its transactions and connections have"
        );
        self.successor = Some(upgraded);
    }

    /// The result of this process when nothing is left.
    pub(super) fn left(&self) -> anyhow::Result<()> {
        match &self.successor {
            Some(successor) if !successor.is_followed => bail!(
                "the service manager did not learn that process {} has taken over: this one ends with an error, so that the host is restarted",
                successor.pid()
            ),
            _ => Ok(()),
        }
    }

    /// Logs where and with what the host serves.
    pub(super) fn announce(&self, path: Option<&Path>) {
        let Shared {
            listen, addresses, ..
        } = &*self.shared;
        let listen: Vec<_> = listen.iter().map(Bound::to_string).collect();
        let policy = match self.registry.default_files().slot().current() {
            Some(generation) => format!(
                "{} generation {} sha256:{:#}",
                generation.policy.name(),
                generation.number,
                generation.policy.digest()
            ),
            None => "none".into(),
        };
        tracing::info!(
            event = "serving",
            version = env!("CARGO_PKG_VERSION"),
            listen = listen.join(" "),
            workers = self.shared.counters.len(),
            tenants = self.shared.tenants.load().named.len(),
            addresses = address_task::summary(addresses),
            policy,
            control = %self.control,
            configuration = path.map_or_else(|| "defaults".into(), |path| path.display().to_string()),
            "Portcullis is serving"
        );
    }

    /// Reloads tenants, policies, tables and rules after SIGHUP. The results are logged.
    pub(super) fn reload(&self) {
        tracing::info!(
            event = "reload_requested",
            "SIGHUP: reloading tenants, policies, tables, rules and certificates"
        );
        let registry = Arc::clone(&self.registry);
        tokio::spawn(async move {
            match registry.reconfigure().await {
                Ok(_) | Err(ReconfigureError::NoFile) => {}
                Err(error) => {
                    tracing::error!(event = "tenants_not_reloaded", %error, "tenants not reloaded, the previous ones stay");
                }
            }
            registry.reload_all().await;
        });
        if let Some(handshakes) = &self.shared.handshakes {
            let tls = Arc::clone(handshakes.tls());
            tokio::spawn(async move { tls_files::reload(&tls).await });
        }
        let addresses = Arc::clone(&self.shared.addresses);
        tokio::spawn(async move {
            // The results are logged.
            let _told = tokio::join!(
                addresses.reload(),
                addresses.reload_trusted(),
                addresses.reload_rules()
            );
        });
        let dispatcher = Arc::clone(&self.shared.dispatcher);
        tokio::spawn(async move { dispatcher.reload().await });
    }
}
