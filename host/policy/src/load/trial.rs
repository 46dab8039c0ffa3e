//! The first call of a policy, before any real request depends on it.

use std::borrow::Cow;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::Snapshot;

use crate::call::{Call, Notes};
use crate::failure::{Failure, Stage};
use crate::limits::Limits;
use crate::load::{LoadProblem, SettingsError};
use crate::sandbox::{Code, Machine, Rules, Sandboxes};
use crate::scope::Scope;
use crate::settings::Settings;
use crate::text;
use crate::view::{Contact, PlainUri, RequestView};

/// The least time that a trial run gets. A machine under load must not make an honest policy look endless.
const LEAST: Duration = Duration::from_millis(250);

/// Bytes of what a policy says about its settings.
const MOST_WORDS: usize = 1024;

/// A policy, linked for calls that are about no real request.
pub(crate) struct Trial {
    sandboxes: Sandboxes<Options>,
    rules: Rules,
}

impl Trial {
    /// Links compiled code.
    pub(crate) fn new(
        machine: Machine<'_>,
        code: &Code,
        limits: &Limits,
    ) -> Result<Self, LoadProblem> {
        let deadline = limits.deadline.saturating_mul(10).max(LEAST);
        let sandboxes = Sandboxes::new(machine, code).map_err(|error| LoadProblem::Link {
            cause: error.root_cause().to_string(),
        })?;
        Ok(Self {
            sandboxes,
            rules: Rules::of(limits).with_deadline(deadline).muted(),
        })
    }

    /// What the policy says of these settings.
    pub(crate) fn check(&self, settings: &Arc<Settings>) -> Result<(), SettingsError> {
        let call = self.call(settings);
        match self.sandboxes.validate(call, &self.rules) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(cause))) => {
                let cause = text::shown(cause.trim_end_matches('.'), MOST_WORDS);
                Err(SettingsError::Refused(cause.into_owned()))
            }
            Some(Err(failure)) => Err(SettingsError::Failed(failure)),
        }
    }

    /// Starts the policy and asks it about an OPTIONS from nowhere: how it failed, if it did.
    ///
    /// What happens before `decide` happens on every call, so a failure there is refused. A failure of `decide` is only reported: a
    /// policy may have its reasons to dislike this request. Endless loops are refused all the same, because they would take a
    /// worker's time on every call.
    fn ask(&self, settings: &Arc<Settings>) -> Result<Option<Failure>, LoadProblem> {
        let call = self.call(settings);
        match self.sandboxes.ask(call, &self.rules).1 {
            Ok(_) => Ok(None),
            Err((Stage::Instantiate, failure)) => Err(LoadProblem::Start(failure)),
            Err((Stage::Decide, Failure::Timeout { deadline, .. })) => Err(LoadProblem::Endless {
                limit_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            }),
            Err((Stage::Decide, failure)) => Ok(Some(failure)),
        }
    }

    fn call(&self, settings: &Arc<Settings>) -> Box<Call<Options>> {
        let table = Arc::new(Snapshot::default());
        let name: Arc<str> = Arc::from("trial");
        let scope = Arc::new(Scope::operator().with_settings(Arc::clone(settings)));
        let bounds = self.rules.bounds;
        let mut call = Box::new(Call::new(
            Arc::clone(&table),
            Arc::clone(&scope),
            Arc::clone(&name),
            bounds,
        ));
        call.begin(&table, &scope, &name, bounds, Options, Notes::default());
        call
    }
}

/// Tries a policy with the settings that it will have. If it has something to say about settings, the way to ask it again comes back, and
/// beside it how `decide` failed, if it did.
pub(crate) fn try_out(
    machine: Machine<'_>,
    code: &Code,
    limits: &Limits,
    settings: &Arc<Settings>,
) -> Result<(Trial, Option<Failure>), LoadProblem> {
    let trial = Trial::new(machine, code, limits)?;
    trial.check(settings)?;
    let failure = trial.ask(settings)?;
    Ok((trial, failure))
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
