//! A client for the control port of the running host.

mod base;
mod reach;
mod untrusted;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{anyhow, bail};
use portcullis_config::Config;
use portcullis_control::{Problem, token_file};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::StatusCode;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, TcpConnector};

use super::https::Https;
use super::media::media_of;
use super::print::clean;
use base::{Base, TOKEN};
use untrusted::untrusted;

pub(super) use reach::{Elsewhere, Reach, Reaching, Remote};

/// Compiling a policy or loading a large table takes time; beyond this limit the host is considered hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// The variable with the URL of the control port.
const URL: &str = "PORTCULLIS_URL";

/// The variable with the file of the certificates to trust.
const CA: &str = "PORTCULLIS_CA";

/// A JSON-RPC response.
#[derive(Deserialize)]
struct Answer<T> {
    result: Option<T>,
    error: Option<Fault>,
}

/// The fault.
#[derive(Deserialize)]
struct Fault {
    message: String,
    data: Option<String>,
}

/// No host answers: it does not run, or is about to restart.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.shown())]
pub(super) struct NoAnswer {
    base: String,
    cause: String,
    /// Whether the base is a URL that was given.
    is_given: bool,
}

impl NoAnswer {
    fn shown(&self) -> String {
        let Self { base, cause, .. } = self;
        match self.is_given {
            true => format!(
                "no host answers at {base} ({cause}): check --url (or {URL}), `listen` in [control] of that host, and the firewall"
            ),
            false => format!(
                "no running host answers at {base} ({cause}): start it with `portcullis serve`, or name the configuration that it runs with by \
                 --config"
            ),
        }
    }
}

/// The control port of the running host.
pub(super) struct Client {
    base: Base,
    /// Whether the base is a URL that was given.
    is_given: bool,
    /// Whether the base is that of the configuration, whose secrets and certificate apply.
    is_own: bool,
    token: Option<String>,
    /// The file of a token that could not be read.
    missing: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// # Errors
    /// If the host does not answer over HTTP, or the URL or the certificates cannot be used.
    pub(super) fn new(config: &Config, reach: &Reach) -> anyhow::Result<Self> {
        let set = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        Self::with(config, reach, set)
    }

    /// A client of the host with this configuration. The variables of the environment are for another host.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub(super) fn of_own_host(config: &Config) -> anyhow::Result<Self> {
        Self::with(config, &Reach::default(), |_| None)
    }

    fn with(
        config: &Config,
        reach: &Reach,
        set: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let given = reach.url.clone().or_else(|| set(URL));
        let is_given = given.is_some();
        let (base, is_own) = Base::find(given.as_deref(), config)?;
        let settings = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build();
        let agent = match base.is_tls {
            true => {
                let ca = reach.ca.clone().or_else(|| set(CA).map(PathBuf::from));
                let own = config.control.tls.as_ref().filter(|_| is_own);
                let own = own.map(|tls| tls.certificate.clone());
                let https = Https::new(ca.or(own))?;
                let connector = ().chain(TcpConnector::default()).chain(https);
                ureq::Agent::with_parts(settings, connector, DefaultResolver::default())
            }
            false => settings.into(),
        };
        // A tenant's user has the tenant's token, and need not have the host's configuration.
        let given = set(TOKEN);
        // Another host must not see the token of this one.
        let own = config.control.token.as_ref().filter(|_| is_own);
        let own = own.and_then(|token| token.secret()).map(str::to_owned);
        let (made, missing) = match config.control.made_token() {
            Some(path) if given.is_none() && is_own => made(path),
            _ => (None, None),
        };
        Ok(Self {
            base,
            is_given,
            is_own,
            token: given.or(own).or(made),
            missing,
            agent,
        })
    }

    /// Calls a method: returns its result, or the fault as an error.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        params: Value,
    ) -> anyhow::Result<T> {
        let url = format!("{}/RPC", self.base);
        let request = json!({"jsonrpc": "2.0", "method": method, "params": params, "id": 1});
        let mut post = self.agent.post(&url);
        if let Some(token) = &self.token {
            post = post.header("Authorization", format!("Bearer {token}"));
        }
        let answer = post.send_json(request);
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        if answer.status() == 401 {
            return Err(self.unknown());
        }
        let status = answer.status();
        let text = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_string()?;
        let answer: Answer<T> = match serde_json::from_str(&text) {
            Ok(answer) => answer,
            // The host refuses the request before it reads the call.
            Err(_) if serde_json::from_str::<Problem>(&text).is_ok() => {
                return Err(refused(&text).unwrap_or_else(|| self.no_host()));
            }
            Err(error) => return Err(self.unreadable(status, &text, &error)),
        };
        match answer {
            Answer {
                error: Some(Fault { message, data }),
                ..
            } => match data {
                Some(cause) => bail!("{message} {cause}"),
                None => bail!("{message}"),
            },
            Answer {
                result,
                error: None,
            } => result.ok_or_else(|| self.no_host()),
        }
    }

    /// Sends a request below `/v1`: returns its response, or an error.
    pub(super) fn send<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<T> {
        let answer = self.ask(method, path, query, body)?;
        self.parsed(answer)
    }

    /// The same for a change, which the host makes once, however often a proxy on the way repeats the request.
    pub(super) fn send_once<T: DeserializeOwned>(
        &self,
        key: &str,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<T> {
        let answer = self.ask_within(Some(PATIENCE), Some(key), method, path, query, body)?;
        self.parsed(answer)
    }

    /// Reads what is at a path; `None` if there is nothing.
    pub(super) fn find<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Option<T>> {
        let answer = self.ask("GET", path, &[], None)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(None),
            _ => self.parsed(answer).map(Some),
        }
    }

    /// The content of a response below `/v1`, or the error that it says.
    fn parsed<T: DeserializeOwned>(
        &self,
        mut answer: ureq::http::Response<ureq::Body>,
    ) -> anyhow::Result<T> {
        let status = answer.status();
        if status == 401 {
            return Err(self.unknown());
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_string()?;
        if status.is_success() {
            let answer = serde_json::from_str(&text);
            return answer.map_err(|error| self.unreadable(status, &text, &error));
        }
        Err(refused(&text).unwrap_or_else(|| self.no_host()))
    }

    /// Downloads a file.
    pub(super) fn fetch(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut answer = self.ask("GET", path, &[], None)?;
        let status = answer.status();
        if status == 401 {
            return Err(self.unknown());
        }
        let bytes = answer
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_to_vec()?;
        if status.is_success() {
            return Ok(bytes);
        }
        let text = String::from_utf8_lossy(&bytes);
        Err(refused(&text).unwrap_or_else(|| self.no_host()))
    }

    /// Why the host cannot authenticate the caller.
    fn unknown(&self) -> anyhow::Error {
        let base = &self.base;
        match &self.missing {
            _ if !self.is_own => anyhow!(
                "the host at {base} requires its token, in the environment variable {TOKEN}: that of the configuration here is only sent to its \
                 own control port"
            ),
            Some(missing) => anyhow!(
                "the host at {base} requires its token, and {missing}; run this command in the directory of the host, as a user who \
                 may read the file, or set the environment variable {TOKEN}"
            ),
            None => anyhow!(
                "the host at {base} requires another token: that of `token` or `token-file` in its [control], or in the environment variable \
                 {TOKEN} if the file has only its SHA-256"
            ),
        }
    }

    /// Reads a stream until it ends.
    pub(super) fn follow(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> anyhow::Result<impl BufRead + Send + use<>> {
        let answer = self.ask_within(None, None, "GET", path, query, None)?;
        if answer.status().is_success() {
            return Ok(BufReader::new(answer.into_body().into_reader()));
        }
        if answer.status() == 401 {
            return Err(self.unknown());
        }
        let text = answer.into_body().read_to_string()?;
        Err(refused(&text).unwrap_or_else(|| self.no_host()))
    }

    /// Why a response cannot be parsed.
    fn unreadable(
        &self,
        status: StatusCode,
        text: &str,
        error: &serde_json::Error,
    ) -> anyhow::Error {
        let base = &self.base;
        match (status.is_success(), error.is_data()) {
            // A refusal before the call is evaluated is plain text.
            (false, _) => anyhow!("{base}: {status}: {}", clean(text.trim())),
            (true, false) => self.no_host(),
            (true, true) => anyhow!(
                "the host at {base} sent a response that this version of portcullis does not expect; the versions may differ: {error}"
            ),
        }
    }

    fn no_host(&self) -> anyhow::Error {
        anyhow!("what answers at {} is not a Portcullis host", self.base)
    }

    fn ask(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        self.ask_within(Some(PATIENCE), None, method, path, query, body)
    }

    /// The same, with a time limit for the response including its body, and a key that names the request (`Idempotency-Key`).
    fn ask_within(
        &self,
        patience: Option<Duration>,
        key: Option<&str>,
        method: &str,
        path: &str,
        query: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> anyhow::Result<ureq::http::Response<ureq::Body>> {
        let mut url = ureq::http::Uri::builder()
            .scheme(if self.base.is_tls { "https" } else { "http" })
            .authority(self.base.authority.as_str());
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
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        let answer = match body {
            Some(body) => {
                // The host may refuse before the body is sent; without this, the closed connection would hide the reason.
                let request = request
                    .header("Content-Type", media_of(path))
                    .header("Expect", "100-continue");
                self.agent.run(request.body(body)?)
            }
            None => {
                let request = self.agent.configure_request(request.body(())?);
                let request = request.timeout_global(patience);
                // A stream may last, but must begin.
                let request = request.timeout_recv_response(Some(PATIENCE)).build();
                self.agent.run(request)
            }
        };
        answer.map_err(|error| self.unreachable(&error))
    }

    /// Why there is no response.
    fn unreachable(&self, error: &ureq::Error) -> anyhow::Error {
        let base = &self.base;
        match untrusted(error) {
            Some(reason) => anyhow!(
                "the certificate of {base} is not trusted ({reason}): name the file of this certificate, or of the authority that issued it, by \
                 --ca FILE"
            ),
            None => NoAnswer {
                base: base.to_string(),
                cause: error.to_string(),
                is_given: self.is_given,
            }
            .into(),
        }
    }
}

/// The reason for which the host refuses a request, in JSON or plain text.
fn refused(text: &str) -> Option<anyhow::Error> {
    match serde_json::from_str::<Problem>(text) {
        Ok(Problem { detail, .. }) => Some(anyhow!("{detail}")),
        Err(_) if text.is_empty() => None,
        Err(_) => Some(anyhow!("{}", clean(text.trim_end()))),
    }
}

/// The token that the host has generated, or why there is none.
fn made(path: &Path) -> (Option<String>, Option<String>) {
    let shown = path.display();
    match token_file::read(path) {
        Ok(Some(token)) => (Some(token), None),
        Ok(None) => (
            None,
            Some(format!(
                "the file {shown} (`token-file`) does not exist here"
            )),
        ),
        Err(error) => (None, Some(format!("{shown} cannot be read: {error}"))),
    }
}

/// A value encoded for a query or a segment of a path (RFC 3986 §2.3).
pub(super) fn encoded(value: &str) -> String {
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
    fn no_answer_names_what_to_check() {
        let shown = |is_given| {
            let base = "https://edge.example.com:8060".into();
            let cause = "timeout".into();
            NoAnswer {
                base,
                cause,
                is_given,
            }
            .to_string()
        };
        assert_eq!(
            shown(true),
            "no host answers at https://edge.example.com:8060 (timeout): check --url (or PORTCULLIS_URL), `listen` in [control] of that host, \
             and the firewall"
        );
        assert!(shown(false).contains("portcullis serve"));
    }

    #[test]
    fn what_stands_in_a_query_is_encoded() {
        assert_eq!(encoded("5% & mehr/ü"), "5%25%20%26%20mehr%2F%C3%BC");
    }
}
