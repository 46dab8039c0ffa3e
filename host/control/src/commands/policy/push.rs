//! `policy.push`, over HTTP: bring a policy to a seat.

use portcullis_policy::{Share, Trial};
use portcullis_rollout::{Arrival, Reserved};
use portcullis_rpc::Fault;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::super::reply::milliseconds;
use super::{Procedure, digest, fault, share};
use crate::Control;
use crate::caller::Caller;

/// A policy that was received, with the room that it takes until it is loaded.
pub(crate) struct Push {
    pub(crate) seat: String,
    pub(crate) place: Reserved,
    pub(crate) bytes: Vec<u8>,
    pub(crate) room: OwnedSemaphorePermit,
    /// What it is called in logs and lists.
    pub(crate) name: String,
    pub(crate) note: String,
    /// Ed25519 over the file, in Base64; empty if there is none.
    pub(crate) signature: String,
    pub(crate) arrival: Arrival,
}

/// The reply to a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pushed {
    /// The seat that it was brought to.
    pub seat: String,
    /// Its number.
    pub generation: u64,
    /// The digest of its file.
    pub digest: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// Milliseconds that it took to load; null for a tenant.
    pub load_ms: Option<u64>,
    /// What it does now.
    pub arrival: PushedAs,
    /// Whether all workers have seen it.
    pub live_on_all_workers: bool,
    /// What is to be known; null if there is nothing.
    pub warning: Option<String>,
}

/// What a pushed policy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PushedAs {
    /// It waits.
    Kept,
    /// It serves.
    Active,
    /// It is asked beside the one that serves.
    Shadow,
    /// It decides on a share of the dialogs.
    Canary,
}

impl Procedure for Push {
    type Reply = Pushed;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Pushed, Fault> {
        let arrival = self.arrival;
        let push = portcullis_rollout::Push {
            name: self.name,
            bytes: self.bytes,
            author: caller.to_string(),
            note: self.note,
            signature: self.signature,
            is_tenants: !caller.is_operator(),
        };
        let pushed = control
            .registry
            .deployments()
            .push_to(self.place, push, arrival)
            .await;
        drop(self.room);
        let generation = pushed.map_err(|error| fault(&error))?;
        let policy = &generation.policy;
        let live_on_all_workers = control.is_live().await;
        let failure = policy.trial_failure();
        let warning = failure.map(|failure| format!("it fails on a plain OPTIONS: {failure}"));
        // How long it took would tell a tenant whether another one has the same file.
        let load_ms = caller
            .is_operator()
            .then(|| milliseconds(policy.load_time()));
        Ok(Pushed {
            seat: self.seat,
            generation: generation.number,
            digest: digest(policy.digest()),
            bytes: policy.inspection().size as u64,
            load_ms,
            arrival: arrival.into(),
            live_on_all_workers,
            warning: warning.or_else(|| control.unstored()),
        })
    }
}

impl std::fmt::Debug for Push {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Push")
            .field("seat", &self.seat)
            .field("name", &self.name)
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl From<Arrival> for PushedAs {
    fn from(arrival: Arrival) -> Self {
        match arrival {
            Arrival::Keep => Self::Kept,
            Arrival::Activate => Self::Active,
            Arrival::Try(Trial::Shadow) => Self::Shadow,
            Arrival::Try(Trial::Canary(_)) => Self::Canary,
        }
    }
}

impl std::fmt::Display for PushedAs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Active => "active",
            Self::Shadow => "shadow",
            Self::Canary => "canary",
        })
    }
}

/// Reads what is to become of a pushed policy.
///
/// # Errors
/// 400 if the word is none, or the share does not go with it.
pub(crate) fn arrival(word: Option<&str>, of: Option<&str>) -> Result<Arrival, Fault> {
    let of: Option<Share> = of.map(share).transpose()?;
    match (word, of) {
        (None | Some("keep"), None) => Ok(Arrival::Keep),
        (Some("activate"), None) => Ok(Arrival::Activate),
        (Some("shadow"), None) => Ok(Arrival::Try(Trial::Shadow)),
        (Some("canary"), Some(share)) => Ok(Arrival::Try(Trial::Canary(share))),
        (Some("canary"), None) => Err(Fault::new(
            400,
            "a canary needs a share, for example share=5%",
        )),
        (None | Some("keep" | "activate" | "shadow"), Some(_)) => {
            Err(Fault::new(400, "a share goes with arrival=canary only"))
        }
        (Some(other), _) => {
            let text = format!("`{other}` is no arrival: write keep, activate, shadow or canary");
            Err(Fault::new(400, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_read() {
        let canary = Arrival::Try(Trial::Canary(Share::parse("5%").unwrap()));
        for (word, share, expected) in [
            (None, None, Arrival::Keep),
            (Some("activate"), None, Arrival::Activate),
            (Some("shadow"), None, Arrival::Try(Trial::Shadow)),
            (Some("canary"), Some("5%"), canary),
        ] {
            assert_eq!(arrival(word, share).unwrap(), expected);
        }
        for (word, share) in [
            (Some("canary"), None),
            (Some("canary"), Some("5")),
            (Some("activate"), Some("5%")),
            (Some("now"), None),
        ] {
            assert!(arrival(word, share).is_err(), "{word:?} {share:?}");
        }
    }
}
