//! The first call of a policy, before any real request depends on it.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::Snapshot;
use wasmtime::Engine;

use crate::call::Call;
use crate::failure::{Failure, Stage};
use crate::limits::Limits;
use crate::load::LoadProblem;
use crate::sandbox::{Code, Rules, Sandboxes};
use crate::scope::Scope;
use crate::view::{Contact, PlainUri, RequestView};

/// The least time that a trial run gets. A machine under load must not make an honest policy look endless.
const LEAST: Duration = Duration::from_millis(250);

/// How the trial run went.
pub(crate) struct Trial {
    /// The failure of `decide`, if it failed on the trial's request.
    pub(crate) failure: Option<Failure>,
}

/// Starts the policy and asks it about an OPTIONS from nowhere.
///
/// What happens before `decide` happens on every call, so a failure there is refused. A failure of `decide` is only reported: a
/// policy may have its reasons to dislike this request. Endless loops are refused all the same, because they would take a
/// worker's time on every call.
pub(crate) fn try_out(engine: &Engine, code: &Code, limits: &Limits) -> Result<Trial, LoadProblem> {
    let deadline = limits.deadline.saturating_mul(10).max(LEAST);
    let rules = Rules::of(limits).with_deadline(deadline).muted();
    let sandboxes = Sandboxes::<Options>::new(engine, code).map_err(|error| LoadProblem::Link {
        cause: error.root_cause().to_string(),
    })?;
    let table = Arc::new(Snapshot::default());
    let name: Arc<str> = Arc::from("trial");
    let scope = Arc::new(Scope::operator());
    let mut call = Box::new(Call::new(
        Arc::clone(&table),
        Arc::clone(&scope),
        Arc::clone(&name),
        rules.bounds,
    ));
    call.begin(&table, &scope, &name, rules.bounds, Options);

    match sandboxes.ask(call, &rules).1 {
        Ok(_) => Ok(Trial { failure: None }),
        Err((Stage::Instantiate, failure)) => Err(LoadProblem::Start(failure)),
        Err((Stage::Decide, Failure::Timeout { .. })) => Err(LoadProblem::Endless {
            limit_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
        }),
        Err((Stage::Decide, failure)) => Ok(Trial {
            failure: Some(failure),
        }),
    }
}

/// The request of the trial run.
struct Options;

impl RequestView for Options {
    fn method(&self) -> Cow<'_, str> {
        "OPTIONS".into()
    }

    fn uri(&self) -> Cow<'_, str> {
        "sip:trial@127.0.0.1".into()
    }

    fn from_uri(&self) -> Cow<'_, str> {
        "sip:trial@127.0.0.1".into()
    }

    fn to_uri(&self) -> Cow<'_, str> {
        "sip:trial@127.0.0.1".into()
    }

    fn call_id(&self) -> Cow<'_, str> {
        "trial".into()
    }

    fn cseq_number(&self) -> u32 {
        1
    }

    fn source(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 5060).into()
    }

    fn local(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 5060).into()
    }

    fn transport(&self) -> &'static str {
        "UDP"
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let value = match () {
            () if name.eq_ignore_ascii_case("Via") => "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKtrial",
            () if name.eq_ignore_ascii_case("From") => "<sip:trial@127.0.0.1>;tag=trial",
            () if name.eq_ignore_ascii_case("To") => "<sip:trial@127.0.0.1>",
            () if name.eq_ignore_ascii_case("Call-ID") => "trial",
            () if name.eq_ignore_ascii_case("CSeq") => "1 OPTIONS",
            () if name.eq_ignore_ascii_case("Max-Forwards") => "70",
            () if name.eq_ignore_ascii_case("Content-Length") => "0",
            () => return None,
        };
        Some(value.into())
    }

    fn headers(&self, name: &str, each: &mut dyn FnMut(Cow<'_, str>)) {
        if let Some(value) = self.header(name) {
            each(value);
        }
    }

    fn plain_uri(&self) -> Option<PlainUri<'_>> {
        Some(PlainUri {
            user: "trial".into(),
            host: "127.0.0.1".into(),
            port: None,
        })
    }

    fn contacts(&self, _each: &mut dyn FnMut(Contact<'_>)) {}

    fn body_length(&self) -> u32 {
        0
    }
}
