//! Talks to the control port of the running host.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use crate::config::Config;

/// Compiling a policy or loading a large table takes its time; beyond this the host is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// The control port of the host that runs with this configuration.
pub(super) struct Client {
    addr: SocketAddr,
    agent: ureq::Agent,
}

impl Client {
    pub(super) fn new(config: &Config) -> Self {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build();
        Self {
            addr: config.control.listen,
            agent: agent.into(),
        }
    }

    /// Calls a method: its result, or the fault as an error.
    pub(super) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let url = format!("http://{}/RPC", self.addr);
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        let mut answer = self.agent.post(&url).send_json(request).map_err(|error| {
            anyhow!(
                "no running host answers at http://{} ({error}): start it with `portcullis serve`, or name the \
                 configuration that it runs with by --config",
                self.addr
            )
        })?;
        let answer: Value = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_json()
            .with_context(|| {
                format!(
                    "what answers at http://{} is not a Portcullis host",
                    self.addr
                )
            })?;
        let error = &answer["error"];
        match (error["message"].as_str(), error["data"].as_str()) {
            (Some(message), Some(cause)) => bail!("{message} {cause}"),
            (Some(message), None) => bail!("{message}"),
            _ => {}
        }
        answer.get("result").cloned().with_context(|| {
            format!(
                "what answers at http://{} is not a Portcullis host",
                self.addr
            )
        })
    }
}
