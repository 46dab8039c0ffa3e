//! Talks to the control port of the running host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use crate::config::{Config, Token};

/// Compiling a policy or loading a large table takes its time; beyond this the host is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// The control port of the host that runs with this configuration.
pub(super) struct Client {
    addr: SocketAddr,
    token: Option<Token>,
    agent: ureq::Agent,
}

impl Client {
    /// # Errors
    /// If that host does not answer HTTP.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let Some(mut addr) = config.control.listen else {
            bail!(
                "the host answers no HTTP: `listen` in [control] is \"\"; give it an address, or use kamcmd, kamctl or kamcli"
            );
        };
        // Every address of the machine: the nearest one does.
        match addr.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => addr.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => addr.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build();
        Ok(Self {
            addr,
            token: config.control.token.clone(),
            agent: agent.into(),
        })
    }

    /// Calls a method: its result, or the fault as an error.
    pub(super) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let url = format!("http://{}/RPC", self.addr);
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        let mut post = self.agent.post(&url);
        if let Some(token) = &self.token {
            post = post.header("Authorization", format!("Bearer {}", token.secret()));
        }
        let mut answer = post.send_json(request).map_err(|error| {
            anyhow!(
                "no running host answers at http://{} ({error}): start it with `portcullis serve`, or name the \
                 configuration that it runs with by --config",
                self.addr
            )
        })?;
        if answer.status() == 401 {
            bail!(
                "the host at http://{} has another token: `token` in [control]",
                self.addr
            );
        }
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
