//! `policy.try`, over HTTP: what a policy would decide on a request, and why. Nothing is sent, kept or counted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody};
use axum::extract::{Extension, State};
use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_address::Snapshot;
use portcullis_cases::{Evaluated, Evaluation, FirstLook, Outcome, PeerSpec, Sight, read_message};
use portcullis_config::{SIP_PORT, TokenRole};
use portcullis_policy::{Digest, Settings};
use portcullis_records::Question;
use portcullis_request::Request;
use portcullis_rollout::policy_files::PolicyFiles;
use portcullis_rollout::{AsideError, ShipError};
use portcullis_rpc::Fault;
use portcullis_sip::{Arrival, Transport};
use portcullis_text::{from_rfc3339, rfc3339};
use schemars::JsonSchema;
use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Dispatch, Procedure, digest, fault, files_of};
use crate::Control;
use crate::caller::{Authority, Caller};
use crate::http_server::whole;
use crate::operation::{Answer, Api, Operation, Routes, Segments, answer, schema_of};
use crate::room::Purpose;

/// The largest body in bytes without its policy.
const MOST_TEXT: usize = 256 << 10;

/// The largest message in bytes, as over UDP.
const MOST_MESSAGE: usize = 65_535;

/// Policies that are tried at the same time: of tenants, and of the operator. This takes CPU time that the workers need, too.
static OF_TENANTS: Semaphore = Semaphore::const_new(1);
static OF_OPERATOR: Semaphore = Semaphore::const_new(1);

/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// The local socket of a host without one.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), SIP_PORT);

/// `policy.try`.
pub(crate) struct TryOut {
    seat: String,
    given: Given,
    /// Memory reserved for a policy in transfer.
    room: OwnedSemaphorePermit,
}

/// A request, the policy to be asked, and the surroundings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Given {
    /// The SIP request as text, with CRLF or LF; at most 65,535 bytes.
    message: String,
    /// Its source: an address, or ADDRESS:PORT.
    source: String,
    /// `udp`, `tcp`, `tls`, `ws` or `wss` (default: `udp`). Over `tls` and `wss`, the peer has shown no certificate.
    transport: Option<String>,
    /// The local socket that receives it, as ADDRESS:PORT (default: that of the host).
    local: Option<String>,
    /// The time that the policy reads, in RFC 3339 (default: now).
    time: Option<String>,
    /// A generation that the host has (default: the active one).
    generation: Option<u64>,
    /// A policy that the host does not have: a WebAssembly module or component in Base64.
    policy: Option<String>,
    /// Ed25519 signature of this policy, in Base64, if the seat has signers.
    signature: Option<String>,
    /// Settings of the policy (default: those of the seat).
    settings: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a policy would decide on a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyTrial {
    /// The seat.
    pub seat: String,
    /// Generation; null for a policy that the host does not have.
    pub generation: Option<u64>,
    /// Digest of the policy.
    pub digest: String,
    /// Method of the request.
    pub method: String,
    /// Request URI.
    pub uri: String,
    /// Source of the request.
    pub source: SocketAddr,
    /// Transport.
    pub transport: String,
    /// Time that the policy reads.
    pub time: String,
    /// Number of the load of the address table that answers.
    pub table_generation: u64,
    /// Why a host would not call a policy; null if it would.
    pub not_called: Option<String>,
    /// The verdict: relay, reject, drop, pass or failure; null if no policy is called.
    pub verdict: Option<String>,
    /// The verdict in words; null if no policy is called.
    pub decided: Option<String>,
    /// Status code of a response.
    pub status: Option<u16>,
    /// Its reason phrase.
    pub reason: Option<String>,
    /// Next hops and URIs that the policy names, in this order. Empty if the request goes where its header fields lead.
    pub targets: Vec<String>,
    /// Header fields that are added to the response, or to the request that is relayed.
    pub headers: Vec<TrialHeader>,
    /// Names of header fields that are removed from the request.
    pub removed: Vec<String>,
    /// Why the call failed; null if it did not.
    pub failure: Option<TrialFailure>,
    /// The queries in their order, with the answers.
    pub asked: Vec<PolicyQuestion>,
    /// Whether there were more queries than are listed.
    pub is_cut: bool,
    /// Lines of the policy for the log, with their level.
    pub log: Vec<String>,
    /// Fuel of the call, about one per instruction; null if no policy is called.
    pub fuel: Option<u64>,
    /// Duration of the call on this host in microseconds, with a new instance; null if no policy is called.
    pub microseconds: Option<u64>,
}

/// A header field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrialHeader {
    /// Name.
    pub name: String,
    /// Value.
    pub value: String,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrialFailure {
    /// Kind of the failure.
    pub kind: String,
    /// Description.
    pub text: String,
}

/// A query of a policy, and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyQuestion {
    /// Function of the contract.
    pub function: String,
    /// Arguments.
    pub arguments: serde_json::Value,
    /// Answer.
    pub answer: serde_json::Value,
    /// The row that gave the answer, or why none did; null if the answer comes from no table, or from one that a tenant does not see.
    pub reason: Option<String>,
}

/// A policy to be asked.
struct Candidate {
    generation: Option<u64>,
    name: String,
    bytes: Arc<[u8]>,
}

impl Procedure for TryOut {
    type Reply = PolicyTrial;

    const NEEDS: TokenRole = TokenRole::Ship;
    const IS_NOTED: bool = false;

    fn seat(&self) -> Option<&str> {
        Some(&self.seat)
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<PolicyTrial, Fault> {
        let Self { seat, given, room } = self;
        let files = files_of(control, &seat)?;
        let (request, at) = given.request(control)?;
        let turns = match caller.is_operator() {
            true => &OF_OPERATOR,
            false => &OF_TENANTS,
        };
        let Ok(Ok(turn)) = timeout(PATIENCE, turns.acquire()).await else {
            let text = "too many policies are tried at the same time: try again later";
            return Err(Fault::new(429, text));
        };
        // With the turn: a generation that waits would be in memory.
        let candidate = candidate(control, &files, &given).await?;
        let scope = files.seat().scope.aside();
        let scope = match given.settings {
            Some(table) => scope.with_settings(Arc::new(Settings::new(table.into()))),
            None => scope,
        };
        let work = Work {
            registry: Arc::clone(&control.registry),
            aliases: control.shared.config.sip.aliases.clone(),
            tables: control.shared.addresses.current(),
            files,
            candidate,
            request,
            at,
            groups: groups(control, caller)?,
            is_tenants: !caller.is_operator(),
        };
        let tried = tokio::task::spawn_blocking(move || {
            // The work goes on when its client is gone.
            let _held = (turn, room);
            work.run(scope)
        });
        tried
            .await
            .map_err(|error| Fault::new(500, error.to_string()))?
    }
}

/// The groups whose rows a tenant sees; `None` for the operator.
///
/// # Errors
/// 403 if the tenant has been removed.
fn groups(control: &Control, caller: &Caller) -> Result<Option<Vec<u32>>, Fault> {
    let Authority::Tenant(name) = caller.authority() else {
        return Ok(None);
    };
    let tenants = control.shared.tenants.load();
    let tenant = tenants.named.iter().find(|tenant| *tenant.name == **name);
    let config = tenant.and_then(|tenant| tenant.config.as_ref());
    let config =
        config.ok_or_else(|| Fault::new(403, "the tenant of this token does not exist"))?;
    Ok(Some(config.groups.clone()))
}

impl Given {
    /// The request, and the time that the policy reads.
    ///
    /// # Errors
    /// 422 if a member cannot be used.
    fn request(&self, control: &Control) -> Result<(Request, SystemTime), Fault> {
        let wrong = |text: String| Fault::new(422, text);
        if self.message.len() > MOST_MESSAGE {
            return Err(wrong(format!(
                "message: {} bytes; at most {MOST_MESSAGE} are accepted",
                self.message.len()
            )));
        }
        let source = socket(&self.source).ok_or_else(|| {
            wrong(format!(
                "source: {:?} is no address: write for example 192.0.2.7:5060",
                self.source
            ))
        })?;
        let transport = match self.transport.as_deref().map(str::parse) {
            None => Transport::Udp,
            Some(Ok(transport)) => transport,
            Some(Err(error)) => return Err(wrong(format!("transport: {error}"))),
        };
        let local = match self.local.as_deref() {
            Some(text) => socket(text).ok_or_else(|| {
                wrong(format!(
                    "local: {text:?} is no address: write for example 198.51.100.1:5060"
                ))
            })?,
            None => {
                let mut own = control.shared.listen.iter();
                let own = own.find(|bound| bound.transport == transport);
                own.map_or(LOCAL, |bound| bound.addr)
            }
        };
        let at = match self.time.as_deref() {
            Some(text) => from_rfc3339(text).ok_or_else(|| {
                wrong(format!(
                    "time: {text:?} is no time: write for example 2026-12-24T18:00:00+01:00"
                ))
            })?,
            None => SystemTime::now(),
        };
        let arrival = Arrival {
            source,
            local,
            transport,
            connection: None,
        };
        let request = read_message(self.message.as_bytes(), arrival);
        let request = request.map_err(|error| wrong(format!("message: {error}")))?;
        Ok((request, at))
    }
}

/// An address with or without a port.
fn socket(text: &str) -> Option<SocketAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, SIP_PORT)),
        Err(_) => text.parse().ok(),
    }
}

/// The policy that the request names.
///
/// # Errors
/// If there is none, or the seat does not accept its signature.
async fn candidate(
    control: &Control,
    files: &PolicyFiles,
    given: &Given,
) -> Result<Candidate, Fault> {
    let seat = files.seat();
    let Some(encoded) = &given.policy else {
        return generation(control, files, given.generation).await;
    };
    if given.generation.is_some() {
        let text = "generation and policy: give one of them";
        return Err(Fault::new(422, text));
    }
    let wrong = |error| Fault::new(422, format!("policy: not Base64: {error}"));
    let bytes = STANDARD.decode(encoded).map_err(wrong)?;
    let most = seat.config.limits.module_bytes;
    if bytes.len() > most {
        let text = format!(
            "the policy has {} bytes; at most {most} are accepted",
            bytes.len()
        );
        return Err(Fault::new(413, text));
    }
    let signature = given.signature.as_deref().unwrap_or_default();
    let signed = seat.config.signers.check(&bytes, signature);
    signed.map_err(|error| Fault::new(422, error.to_string()))?;
    Ok(Candidate {
        generation: None,
        name: "policy.wasm".to_owned(),
        bytes: bytes.into(),
    })
}

/// A generation of the seat, by its number; without one, the active generation.
async fn generation(
    control: &Control,
    files: &PolicyFiles,
    number: Option<u64>,
) -> Result<Candidate, Fault> {
    let active = files.slot().current();
    let Some(number) = number.or_else(|| Some(active.as_ref()?.number)) else {
        let text = format!(
            "the seat {} has no policy: its `default` decides on every request; send a policy to try it",
            files.seat().name
        );
        return Err(Fault::new(404, text));
    };
    let deployments = control.registry.deployments();
    let pulled = deployments.pull(&files.seat().name, Some(number)).await;
    let bytes = match (pulled, active, files.file()) {
        (Err(ShipError::NotPushed(_)), Some(active), Some(file)) if active.number == number => {
            let file = file.to_owned();
            let most = files.seat().config.limits.module_bytes;
            let read = tokio::task::spawn_blocking(move || read_file(&file, most)).await;
            let bytes = read.map_err(|error| Fault::new(500, error.to_string()))??;
            if Digest::of(&bytes) != active.policy.digest() {
                let text = "the file of the policy has changed since it was loaded: reload the policy, or send a policy to try it";
                return Err(Fault::new(409, text));
            }
            bytes.into()
        }
        (pulled, _, _) => pulled.map_err(|error| fault(&error))?,
    };
    Ok(Candidate {
        generation: Some(number),
        name: format!("generation {number}"),
        bytes,
    })
}

fn read_file(file: &std::path::Path, most: usize) -> Result<Vec<u8>, Fault> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file);
    let read = read.and_then(|file| file.take(most as u64 + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        // A tenant does not learn where the file is.
        Err(error) => {
            let text = format!("the file of the policy cannot be read: {}", error.kind());
            Err(Fault::new(503, text))
        }
    }
}

/// A call to be made on a thread that may block.
struct Work {
    registry: Arc<portcullis_rollout::Registry>,
    files: Arc<PolicyFiles>,
    aliases: Vec<String>,
    tables: Arc<Snapshot>,
    candidate: Candidate,
    request: Request,
    at: SystemTime,
    groups: Option<Vec<u32>>,
    is_tenants: bool,
}

impl Work {
    fn run(self, scope: portcullis_policy::Scope) -> Result<PolicyTrial, Fault> {
        let Candidate {
            generation,
            name,
            bytes,
        } = self.candidate;
        let seat = self.files.seat();
        let aside = self.registry.aside();
        let policy = aside.load(seat, &name, &bytes, scope.settings(), self.is_tenants);
        let policy = policy.map_err(|error| match error {
            AsideError::Refused(error) => Fault::new(422, error.to_string()),
            AsideError::Runtime(error) => Fault::new(500, error.to_string()),
        })?;
        let accepted = policy.check_settings(scope.settings());
        accepted.map_err(|error| Fault::new(422, error.to_string()))?;
        let digest = digest(policy.digest());
        // A peer over TLS has shown no certificate.
        let transport = self.request.arrival.transport;
        let host = PeerSpec::state(None, transport).unwrap_or_default();
        let evaluation = Evaluation {
            request: &self.request,
            at: self.at,
            aliases: &self.aliases,
            host: &host,
            tables: &self.tables,
        };
        let evaluated = evaluation.run(policy, scope);
        let sight = match &self.groups {
            Some(groups) => Sight::Groups(groups),
            None => Sight::All,
        };
        let asked = evaluation.reasons(&evaluated, sight).into_iter();
        let asked = asked.map(PolicyQuestion::of).collect();
        let trial = PolicyTrial {
            seat: seat.name.to_string(),
            generation,
            digest,
            method: self.request.method().to_string(),
            uri: self.request.uri().to_string(),
            source: self.request.arrival.source,
            transport: self.request.arrival.transport.parameter().to_owned(),
            time: rfc3339(self.at),
            table_generation: self.tables.generation,
            not_called: None,
            verdict: None,
            decided: None,
            status: None,
            reason: None,
            targets: Vec::new(),
            headers: Vec::new(),
            removed: Vec::new(),
            failure: None,
            asked,
            is_cut: false,
            log: Vec::new(),
            fuel: None,
            microseconds: None,
        };
        Ok(trial.with(&evaluated))
    }
}

impl PolicyTrial {
    fn with(self, evaluated: &Evaluated) -> Self {
        let not_called = (evaluated.look != FirstLook::Judged).then(|| evaluated.look.to_string());
        let Some(answered) = &evaluated.answered else {
            return Self { not_called, ..self };
        };
        let outcome = Outcome::of(answered);
        let headers = outcome.headers.iter().map(|(name, value)| TrialHeader {
            name: name.clone(),
            value: value.clone(),
        });
        let failure = outcome.failure.as_ref().map(|(kind, text)| TrialFailure {
            kind: kind.clone(),
            text: text.clone(),
        });
        Self {
            not_called,
            verdict: Some(outcome.verdict.as_str().to_owned()),
            decided: Some(outcome.to_string()),
            headers: headers.collect(),
            failure,
            status: outcome.status,
            reason: outcome.reason,
            targets: outcome.targets,
            removed: outcome.removed,
            log: outcome.log,
            fuel: outcome.fuel,
            is_cut: answered.is_cut,
            microseconds: u64::try_from(answered.took.as_micros()).ok(),
            ..self
        }
    }
}

impl PolicyQuestion {
    fn of((question, reason): (&Question, Option<String>)) -> Self {
        Self {
            function: question.function.to_string(),
            arguments: question.arguments.clone(),
            answer: question.answer.clone(),
            reason,
        }
    }
}

impl TryOut {
    /// `POST /v1/policies/{seat}/try`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<PolicyTrial>(
            Method::POST,
            "/v1/policies/{seat}/try",
            "tryPolicy",
            "Show what a policy would decide on a request, and why; nothing is sent, kept or counted",
        );
        let post = post.body(
            "application/json",
            schema_of::<Given>(),
            "The request, and the policy to be asked: that of the seat, or another one",
        );
        let post = post.answers(200, "What the policy would decide");
        routes.on(
            post.refuses(&[404, 408, 409, 413, 415, 422, 429, 500, 503]),
            try_out,
        )
    }
}

async fn try_out(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(seat): Segments<String>,
    body: Body,
) -> Answer {
    // Before the body is read.
    caller.may(TryOut::NEEDS)?;
    let files = files_of(&control, &seat)?;
    let most_policy = files.seat().config.limits.module_bytes;
    let most = MOST_TEXT + most_policy.div_ceil(3) * 4;
    let told = body.size_hint().upper();
    let size = told.map_or(most, |told| usize::try_from(told).unwrap_or(usize::MAX));
    if size > most {
        let text = format!("the body has {size} bytes; at most {most} are accepted");
        return Err(Fault::new(413, text).into());
    }
    // A larger body has its policy with it, a smaller one may name a generation.
    let needed = match size {
        0..=MOST_TEXT => size + most_policy,
        _ => size,
    };
    let room = control
        .room
        .acquire(&caller, Purpose::Inspection, needed)
        .await?;
    let bytes = whole(body, most).await;
    let bytes =
        bytes.map_err(|(status, text)| Fault::new(status.as_u16().into(), text.trim_end()))?;
    check_size(&bytes)?;
    let given = serde_json::from_slice(&bytes);
    let given = given.map_err(|error| Fault::new(400, error.to_string()))?;
    drop(bytes);
    let command = TryOut { seat, given, room };
    answer(command.dispatch(&control, &caller).await)
}

/// Checks the size of a body without its policy, before anything of it is kept: settings in memory are many times larger than their text.
///
/// # Errors
/// 413 if it is too large, 400 if it is not JSON.
fn check_size(body: &[u8]) -> Result<(), Fault> {
    if body.len() <= MOST_TEXT {
        return Ok(());
    }
    let sizes: Sizes =
        serde_json::from_slice(body).map_err(|error| Fault::new(400, error.to_string()))?;
    let rest = body.len().saturating_sub(sizes.policy.0);
    if rest > MOST_TEXT {
        let text = format!(
            "the body has {rest} bytes without the policy; at most {MOST_TEXT} are accepted"
        );
        return Err(Fault::new(413, text));
    }
    Ok(())
}

/// What is known of a body without keeping it.
#[derive(Deserialize)]
struct Sizes {
    #[serde(default)]
    policy: Length,
}

/// The length of a text that is not kept; 0 for null.
#[derive(Default)]
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextLength)
    }
}

/// Makes a [`Length`].
struct TextLength;

impl Visitor<'_> for TextLength {
    type Value = Length;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(Length(text.len()))
    }

    fn visit_unit<E>(self) -> Result<Length, E> {
        Ok(Length(0))
    }
}

impl std::fmt::Debug for TryOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TryOut")
            .field("seat", &self.seat)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_policy_of_a_body_may_be_large() {
        let large = "A".repeat(2 * MOST_TEXT);
        let check = |body: serde_json::Value| {
            let checked = check_size(body.to_string().as_bytes());
            checked.map_err(|fault| fault.code)
        };
        for (body, expected) in [
            (json!({"message": "", "policy": large}), Ok(())),
            (json!({"message": "", "settings": {"a": large}}), Err(413)),
            (json!({"policy": null, "settings": {"a": large}}), Err(413)),
            (json!({"policy": {"a": large}}), Err(400)),
            (json!({"settings": {"a": 1}}), Ok(())),
        ] {
            assert_eq!(check(body), expected);
        }
        assert_eq!(check_size(large.as_bytes()).unwrap_err().code, 400);
    }
}
