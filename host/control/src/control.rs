//! What the doors work on.

use std::sync::Arc;
use std::time::Duration;

use portcullis_config::Token;
use portcullis_dataplane::shared::Shared;
use portcullis_rollout::Registry;

use crate::connections::Connections;
use crate::descriptors;
use crate::exposition::Exposition;
use crate::listening::Listening;
use crate::pages::Pages;
use crate::parts::Places;
use crate::room::PolicyRoom;

/// How long the workers may take to see what was published. A call of a policy takes as long as `deadline` at most.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the doors work on.
pub struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) exposition: Exposition,
    pub(crate) pages: Pages,
    pub(crate) listening: Listening,
    /// What makes a client of HTTP the operator; none if nobody needs one.
    pub(crate) token: Option<Token>,
    /// Of BINRPC.
    pub(crate) connections: Arc<Connections>,
    /// Of HTTP.
    pub(crate) http: Arc<Connections>,
    pub(crate) dumps: Places,
    /// For policies on their way in and out.
    pub(crate) room: PolicyRoom,
}

impl Control {
    /// The control of this host, where it can be reached and by whose token, with as many connections as `parts` leaves it.
    /// `lost_log_lines` says how many lines the log has dropped.
    pub fn new(
        shared: Arc<Shared>,
        registry: Arc<Registry>,
        listening: Listening,
        token: Option<Token>,
        parts: &descriptors::Parts,
        lost_log_lines: fn() -> u64,
    ) -> Self {
        let exposition =
            Exposition::new(Arc::clone(&shared), Arc::clone(&registry), lost_log_lines);
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
        }
    }

    /// What is missing, a line each; nothing if the host is ready. The sockets are bound before the control port answers.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let addresses = &self.shared.addresses;
        if addresses.current().generation == 0 {
            missing.push(match addresses.status().last_error {
                Some(error) => format!("address table: not loaded: {error}"),
                None => "address table: not loaded yet".into(),
            });
        }
        // What a tenant lacks is between it and the operator: the others' calls go through.
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

    /// What is to be said where pushed policies are kept in memory only.
    pub(crate) fn unstored(&self) -> Option<String> {
        match self.registry.deployments().storing() {
            Ok(()) | Err(None) => None,
            Err(Some(error)) => Some(format!("kept until the host ends: {error}")),
        }
    }
}
