//! The state that all control interfaces share.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::Token;
use portcullis_dataplane::drain::Stage;
use portcullis_dataplane::shared::Shared;
use portcullis_export::{Exports, LiveEvents};
use portcullis_fleet::{exchange, host_name};
use portcullis_rollout::Registry;
use tokio::sync::{Notify, watch};

use crate::acknowledged::Acknowledged;
use crate::audit::{Audit, Stored};
use crate::connections::Connections;
use crate::descriptors;
use crate::exposition::Exposition;
use crate::fleet::Fleet;
use crate::guesses::Guesses;
use crate::history::History;
use crate::listening::Listening;
use crate::pages::Pages;
use crate::parts::Places;
use crate::recent::Recent;
use crate::repeats::Repeats;
use crate::room::PolicyRoom;

/// How long to wait until all workers use what was published. A policy call takes at most `deadline`.
const PATIENCE: Duration = Duration::from_secs(15);

/// The state that all control interfaces share.
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) exposition: Exposition,
    pub(crate) pages: Pages,
    pub(crate) listening: Listening,
    /// Token of the operator over HTTP; `None` if none is needed.
    pub(crate) token: Option<Token>,
    /// Connections over BINRPC.
    pub(crate) connections: Arc<Connections>,
    /// Connections over HTTP.
    pub(crate) http: Arc<Connections>,
    pub(crate) dumps: Places,
    /// Memory for policies in transfer.
    pub(crate) room: PolicyRoom,
    /// The last minutes of the traffic.
    pub(crate) history: History,
    /// The alerts that have been acknowledged.
    pub(crate) acknowledged: Acknowledged,
    /// The sources of wrong tokens.
    pub(crate) guesses: Guesses,
    /// The actions of callers.
    pub(crate) audit: Arc<Audit>,
    /// This host among the others on its database.
    pub(crate) fleet: Arc<Fleet>,
    /// The last decisions of seats that somebody asks about.
    pub(crate) recent: Recent,
    /// The responses to requests with an `Idempotency-Key`.
    pub(crate) repeats: Repeats,
    /// The last events of the log.
    pub(crate) live: Arc<LiveEvents>,
    /// How the exchange with the other hosts is doing; `None`: there is none.
    pub(crate) exchange: Option<Arc<exchange::Status>>,
    /// Whether the control interfaces end.
    pub(crate) ending: watch::Sender<bool>,
}

impl Control {
    /// Creates the control state of a host. `parts` limits the number of connections; `lost_log_lines` returns how many lines the log has
    /// dropped; `exports` has the statistics of what the host exports.
    pub fn new(
        shared: Arc<Shared>,
        registry: Arc<Registry>,
        listening: Listening,
        token: Option<Token>,
        parts: &descriptors::Parts,
        lost_log_lines: fn() -> u64,
        exports: Exports,
    ) -> Self {
        let audit = Arc::new(audit_of(&shared, &registry));
        let fleet = Arc::new(Fleet::new(&shared));
        let exposition = Exposition::new(
            Arc::clone(&shared),
            Arc::clone(&registry),
            Arc::clone(&audit),
            Arc::clone(&fleet),
            lost_log_lines,
            exports,
        );
        Self {
            shared,
            registry,
            exposition,
            pages: Pages::default(),
            listening,
            token,
            connections: Arc::new(Connections::new(parts.binrpc)),
            http: Arc::new(Connections::new(parts.http)),
            dumps: Places::default(),
            room: PolicyRoom::default(),
            guesses: Guesses::default(),
            history: History::default(),
            acknowledged: Acknowledged::default(),
            audit,
            fleet,
            recent: Recent::default(),
            repeats: Repeats::default(),
            live: LiveEvents::new(),
            exchange: None,
            ending: watch::channel(false).0,
        }
    }

    /// Shows these events of the log.
    #[must_use]
    pub fn with_events(self, live: Arc<LiveEvents>) -> Self {
        Self { live, ..self }
    }

    /// Returns what is notified when an operator asks this host to drain, through another host.
    pub fn drain_wish(&self) -> Arc<Notify> {
        Arc::clone(self.fleet.drain())
    }

    /// Shows how this exchange with the other hosts is doing.
    #[must_use]
    pub fn with_exchange(mut self, exchange: Option<Arc<exchange::Status>>) -> Self {
        if let Some(exchange) = &exchange {
            self.exposition.add_exchange(Arc::clone(exchange));
        }
        Self { exchange, ..self }
    }

    /// Returns what is missing, one item per line; empty if the host is ready. The SIP sockets are bound before the control port answers.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.shared.drain.stage() != Stage::Serving {
            missing.push("the host is about to end: it was sent SIGTERM".into());
        }
        let addresses = &self.shared.addresses;
        if addresses.current().generation == 0 {
            missing.push(match addresses.status().last_error {
                Some(error) => format!("address table: not loaded: {error}"),
                None => "address table: not loaded yet".into(),
            });
        }
        // A missing policy of a tenant does not affect the readiness of the host.
        let policy = self.registry.default_files();
        if policy.file().is_some() && policy.slot().current().is_none() {
            missing.push(match policy.failed() {
                Some(failed) => format!("policy: {}", failed.error),
                None => "policy: not loaded yet".into(),
            });
        }
        if let Some(progress) = self.registry.progress() {
            missing.push(progress.to_string());
        }
        missing
    }

    pub(crate) async fn is_live(&self) -> bool {
        self.shared.live_on_all_workers(PATIENCE).await
    }

    /// Returns a warning if pushed policies are kept in memory only.
    pub(crate) fn unstored(&self) -> Option<String> {
        match self.registry.deployments().storing() {
            Ok(()) | Err(None) => None,
            Err(Some(error)) => Some(format!("kept until the host ends: {error}")),
        }
    }
}

/// The audit, which is in the database if the host has one and the configuration keeps actions there.
fn audit_of(shared: &Shared, registry: &Registry) -> Audit {
    let config = shared.config.control.audit;
    let host = host_name(shared.config.fleet.name.as_deref());
    let store = registry.database().filter(|_| config.rows > 0);
    let stored = store.map(|store| Stored::new(store.clone(), config, &host));
    Audit::new(host, stored)
}
