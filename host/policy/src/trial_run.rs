//! The trial run of a policy: its first calls, with a request of the host's own, before it can become active.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::Snapshot;
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};

use crate::call::state::{Data, State};
use crate::call::{Basis, Call, Notes};
use crate::contract::Exports;
use crate::failed_attempts::{Attempt, Cause, FailedAttempts};
use crate::failure::{Failure, Stage};
use crate::limits::Limits;
use crate::problem::{LoadProblem, SettingsError};
use crate::sandbox::{CallLimits, Live, Outcome, Sandboxes};
use crate::scope::Scope;
use crate::settings::Settings;
use crate::text;

/// Minimum deadline of a trial run. A correct policy must not exceed it, however busy the machine is.
const LEAST: Duration = Duration::from_millis(250);

/// Maximum length of the message of a policy about its settings, in bytes.
const MOST_WORDS: usize = 1024;

/// Makes calls with a request of the host's own.
pub(crate) struct TrialRun {
    limits: CallLimits,
}

impl TrialRun {
    /// The trial run of a policy with these limits.
    fn new(limits: &Limits) -> Self {
        let deadline = limits.deadline.saturating_mul(10).max(LEAST);
        Self {
            limits: CallLimits::of(limits).with_deadline(deadline).muted(),
        }
    }

    /// Calls `validate-settings`.
    ///
    /// # Errors
    /// If the policy refuses the settings or fails.
    pub(crate) fn check(
        &self,
        sandboxes: &Sandboxes,
        settings: &Arc<Settings>,
    ) -> Result<(), SettingsError> {
        let call = self.call(settings, Notes::default());
        match sandboxes.validate(call, &self.limits) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(cause))) => {
                let cause = text::shown(cause.trim_end_matches('.'), MOST_WORDS);
                Err(SettingsError::Refused(cause.into_owned()))
            }
            Some(Err(failure)) => Err(SettingsError::Failed(failure)),
        }
    }

    /// Instantiates the policy and calls `decide` with [`options`]. Returns the failure of `decide`, if it failed.
    ///
    /// # Errors
    /// If the policy fails before `decide`, because that would happen on every call, or if `decide` exceeds the deadline, because an endless
    /// loop would occupy a worker on every call. Other failures of `decide` are only reported: they may be due to this request.
    fn decide(
        &self,
        sandboxes: &Sandboxes,
        settings: &Arc<Settings>,
    ) -> Result<Option<Failure>, LoadProblem> {
        let call = self.call(settings, Notes::default());
        let outcome = sandboxes.ask(call, &self.limits, Live::decide).1;
        failure_of(outcome, |limit_ms| LoadProblem::Endless { limit_ms })
    }

    /// The same for `on-failure`, after the failure of a target that is the last one: the policy may not try again.
    fn fail(
        &self,
        sandboxes: &Sandboxes,
        settings: &Arc<Settings>,
    ) -> Result<Option<Failure>, LoadProblem> {
        let notes = Notes {
            failed: Some(Box::new(failed())),
            ..Notes::default()
        };
        let call = self.call(settings, notes);
        let outcome = sandboxes.ask(call, &self.limits, Live::on_failure).1;
        failure_of(outcome, |limit_ms| LoadProblem::EndlessAfterFailure {
            limit_ms,
        })
    }

    fn call(&self, settings: &Arc<Settings>, notes: Notes) -> Data {
        let table = Arc::new(Snapshot::default());
        let name: Arc<str> = Arc::from("trial");
        let scope = Arc::new(Scope::operator().with_settings(Arc::clone(settings)));
        begun(&table, &scope, &name, &self.limits, notes)
    }
}

/// The failure of a call; an error if the policy must not be used for that reason.
fn failure_of<T>(
    outcome: Outcome<T>,
    endless: impl FnOnce(u64) -> LoadProblem,
) -> Result<Option<Failure>, LoadProblem> {
    match outcome {
        Ok(_) => Ok(None),
        Err((Stage::Instantiate, failure)) => Err(LoadProblem::Start(failure)),
        Err((Stage::Decide, Failure::Timeout { deadline, .. })) => {
            let limit_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            Err(endless(limit_ms))
        }
        Err((Stage::Decide, failure)) => Ok(Some(failure)),
    }
}

/// Validates the settings and runs each function of a policy once; `on-failure` if the policy exports it. Returns the trial run, to validate other
/// settings later, and the first failure.
///
/// # Errors
/// If the policy cannot be used.
pub(crate) fn run(
    sandboxes: &Sandboxes,
    limits: &Limits,
    settings: &Arc<Settings>,
    exports: Exports,
) -> Result<(TrialRun, Option<Failure>), LoadProblem> {
    let trial = TrialRun::new(limits);
    trial.check(sandboxes, settings)?;
    let failure = trial.decide(sandboxes, settings)?;
    let next = match exports.on_failure {
        true => trial.fail(sandboxes, settings)?,
        false => None,
    };
    Ok((trial, failure.or(next)))
}

/// The state of a call with [`options`] in this scope, which is not made: only a sandbox for it. With the limits for that.
pub(crate) fn first_call(
    scope: &Arc<Scope>,
    name: &Arc<str>,
    limits: &CallLimits,
) -> (Data, CallLimits) {
    let limits = limits.with_deadline(LEAST).muted();
    let table = Arc::new(Snapshot::default());
    (
        begun(&table, scope, name, &limits, Notes::default()),
        limits,
    )
}

fn begun(
    table: &Arc<Snapshot>,
    scope: &Arc<Scope>,
    name: &Arc<str>,
    limits: &CallLimits,
    notes: Notes,
) -> Data {
    let bounds = limits.bounds;
    let mut call = Call::new(
        Arc::clone(table),
        Arc::clone(scope),
        Arc::clone(name),
        bounds,
    );
    let basis = Basis {
        addresses: table,
        scope,
        policy: name,
        host: None,
    };
    call.begin(basis, bounds, options(), notes);
    Box::new(State::new(call))
}

/// The only target of the trial run did not answer.
fn failed() -> FailedAttempts {
    FailedAttempts {
        attempts: vec![Attempt {
            place: "trial".into(),
            status: 408,
            cause: Cause::NoAnswer,
            milliseconds: 4_000,
        }],
        best: Some(0),
        named: 1,
        ..FailedAttempts::default()
    }
}

/// The request of the trial run: an OPTIONS from the loopback address.
fn options() -> Request {
    const TEXT: &str = "OPTIONS sip:trial@127.0.0.1 SIP/2.0\r\n\
        Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKtrial\r\n\
        From: <sip:trial@127.0.0.1>;tag=trial\r\n\
        To: <sip:trial@127.0.0.1>\r\n\
        Call-ID: trial\r\n\
        CSeq: 1 OPTIONS\r\n\
        Max-Forwards: 70\r\n\
        Content-Length: 0\r\n\r\n";

    let here = (Ipv4Addr::LOCALHOST, 5060).into();
    let arrival = Arrival {
        source: here,
        local: here,
        transport: Transport::Udp,
        connection: None,
    };
    Request::read(TEXT.into(), Framing::Datagram, arrival).expect("the text is a request")
}
