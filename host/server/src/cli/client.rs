//! Talks to the control port of the running host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};

use crate::config::Config;

/// Compiling a policy or loading a large table takes its time; beyond this the host is stuck.
const PATIENCE: Duration = Duration::from_secs(120);

/// The variable that holds the token to send in place of the configuration's.
const TOKEN: &str = "PORTCULLIS_TOKEN";

/// The control port of the host that runs with this configuration.
pub(super) struct Client {
    addr: SocketAddr,
    token: Option<String>,
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
        // Whoever ships policies for a tenant has the tenant's token, and need not have the host's configuration.
        let given = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let own = config.control.token.as_ref();
        let own = own.and_then(|token| token.secret()).map(str::to_owned);
        Ok(Self {
            addr,
            token: given.or(own),
            agent: agent.into(),
        })
    }

    /// Calls a method: its result, or the fault as an error.
    pub(super) fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        let url = format!("http://{}/RPC", self.addr);
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        let mut post = self.agent.post(&url);
        if let Some(token) = &self.token {
            post = post.header("Authorization", format!("Bearer {token}"));
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
                "the host at http://{} wants another token: that of `token` in its [control], or in the variable {TOKEN} where \
                 the file has only its SHA-256",
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

    /// Sends a request to an address below `/v1`: its answer, or what is wrong as an error.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<Value> {
        let mut answer = self.ask(method, path, query, body)?;
        let status = answer.status();
        let text = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_string()?;
        let parsed = serde_json::from_str::<Value>(&text);
        match (status.is_success(), parsed) {
            (true, Ok(value)) => Ok(value),
            (false, Ok(value)) if value["error"].is_string() => {
                bail!("{}", value["error"].as_str().unwrap_or_default())
            }
            (false, _) if !text.is_empty() => bail!("{}", text.trim_end()),
            _ => bail!(
                "what answers at http://{} is not a Portcullis host",
                self.addr
            ),
        }
    }

    /// Fetches a file.
    pub(super) fn fetch(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut answer = self.ask("GET", path, &[], None)?;
        let status = answer.status();
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec()?;
        if status.is_success() {
            return Ok(bytes);
        }
        let told = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
        match told["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => bail!("{}", String::from_utf8_lossy(&bytes).trim_end()),
        }
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut url = ureq::http::Uri::builder()
            .scheme("http")
            .authority(self.addr.to_string());
        let mut target = path.to_owned();
        for (at, (name, value)) in query.iter().enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(&format!("{name}={}", encoded(value)));
        }
        url = url.path_and_query(target);
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(url.build()?);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answer = match body {
            Some(body) => self.agent.run(request.body(body)?),
            None => self.agent.run(request.body(())?),
        };
        answer.map_err(|error| {
            anyhow!(
                "no running host answers at http://{} ({error}): start it with `portcullis serve`, or name the \
                 configuration that it runs with by --config",
                self.addr
            )
        })
    }
}

/// A value as it may stand in a query (RFC 3986 §2.3).
fn encoded(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_a_query_is_encoded() {
        assert_eq!(encoded("5% & mehr/ü"), "5%25%20%26%20mehr%2F%C3%BC");
    }
}
