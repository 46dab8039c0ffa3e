//! The control port of a running host.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

/// Time limit of a request, far above the usual duration.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of a host's HTTP interface.
pub(super) struct Control {
    agent: ureq::Agent,
    base: String,
}

impl Control {
    /// For the host with this control port.
    pub(super) fn new(control: SocketAddr) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            // The reply says what is wrong.
            .http_status_as_error(false);
        Self {
            agent: config.build().into(),
            base: format!("http://{control}"),
        }
    }

    /// Reloads the table, and returns the host's report when the new table is active.
    pub(super) fn reload(&self) -> Result<Value> {
        let mut answer = self.call("address.reload")?;
        ensure!(answer.get("error").is_none(), "reload: {answer}");
        Ok(answer["result"].take())
    }

    /// Reads the certificates again. Returns whether the host accepts all of them.
    pub(super) fn reload_tls(&self) -> Result<bool> {
        let answer = self.call("tls.reload")?;
        let is_accepted = answer.get("error").is_none();
        ensure!(
            is_accepted || answer["error"]["code"] == 500,
            "tls.reload: {answer}"
        );
        Ok(is_accepted)
    }

    fn call(&self, method: &str) -> Result<Value> {
        let call = json!({"jsonrpc": "2.0", "method": method, "id": 1});
        let mut answer = self
            .agent
            .post(format!("{}/RPC", self.base))
            .send_json(call)?;
        Ok(answer.body_mut().read_json()?)
    }

    /// Returns the sum of a metric over its labels.
    pub(super) fn metric(&self, name: &str) -> Result<u64> {
        let mut answer = self.agent.get(format!("{}/metrics", self.base)).call()?;
        let page = answer.body_mut().read_to_string()?;
        let values: Vec<f64> = page
            .lines()
            .filter_map(|line| line.strip_prefix(name))
            .filter(|rest| rest.starts_with([' ', '{']))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
            .collect();
        ensure!(!values.is_empty(), "the host has no metric {name}");
        Ok(values.iter().sum::<f64>() as u64)
    }
}
