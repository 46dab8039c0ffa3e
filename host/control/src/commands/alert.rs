//! `alert.list` and `alert.acknowledge`, over HTTP: what an operator has to look at.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State};
use axum::http::Method;
use portcullis_config::TokenRole;
use portcullis_rollout::staged::RolloutState;
use portcullis_rollout::tls_files::NOTICE;
use portcullis_rpc::Fault;
use portcullis_store::StoreError;
use portcullis_text::rfc3339;
use portcullis_tls::Tls;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Dispatch, Procedure, Timestamp};
use crate::Control;
use crate::caller::{Authority, Caller};
use crate::operation::{Answer, Api, Given, Operation, Routes, Segments, answer};

/// `alert.list`.
#[derive(Debug)]
pub(crate) struct ListAlerts;

/// `alert.acknowledge`.
#[derive(Debug)]
pub(crate) struct Acknowledge {
    id: String,
}

/// The author of an acknowledgement.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct AuthorQuery {
    /// Who acknowledges it
    author: Option<String>,
}

/// A condition that needs attention, as long as it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlertStatus {
    /// Identifies it as long as it lasts.
    pub id: String,
    /// What kind of condition it is.
    pub kind: AlertKind,
    /// The seat or the tenant; null if it concerns the host.
    pub seat: Option<String>,
    /// Since when; null if that is unknown.
    pub since: Option<Timestamp>,
    /// Description.
    pub text: String,
    /// Who acknowledged it; null if nobody did.
    pub acknowledged_by: Option<String>,
    /// When.
    pub acknowledged_at: Option<Timestamp>,
}

/// The kind of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlertKind {
    /// A policy was taken out of service.
    PolicyOutOfService,
    /// A tenant of the database cannot be used.
    TenantUnusable,
    /// The database of pushed policies is unreachable.
    StoreUnreachable,
    /// The database has an older state than the one in use, or is another one: nothing is read from it until an operator accepts it.
    DatabaseOlder,
    /// No destination of a set of the dispatcher gets requests.
    SetDown,
    /// New files of a certificate, its key, its authorities or a revocation list were refused, and the previous ones stay in use.
    CertificateRefused,
    /// A certificate expires within 14 days, or has expired.
    CertificateExpires,
    /// A revocation list should have been replaced, and stays in use.
    RevocationListOutdated,
    /// Another process announces itself under the name of this host.
    HostNameTwice,
    /// The clocks of this host and of the database differ by more than five seconds.
    ClockDiffers,
    /// The other hosts are not heard through Redis, or do not hear all that this host counts.
    ExchangeLost,
    /// A gate of a roll-out has failed, and the generation before decides on all hosts.
    RolloutRolledBack,
}

/// An alert that has not been looked up in the acknowledgements.
pub(super) struct Alert {
    kind: AlertKind,
    seat: Option<String>,
    since: Option<SystemTime>,
    /// The set of the dispatcher, if it concerns one.
    set: Option<u32>,
    /// The section of the configuration, if it concerns its certificate.
    section: Option<String>,
    text: String,
}

impl Alert {
    /// Returns all alerts.
    pub(super) fn all(control: &Control) -> Vec<Self> {
        let files = control.registry.all_files();
        let alerts = files.iter().filter_map(|files| {
            let alert = files.seat().alert()?;
            Some(Self {
                kind: AlertKind::PolicyOutOfService,
                seat: Some(files.seat().name.to_string()),
                since: Some(alert.at),
                set: None,
                section: None,
                text: alert.text,
            })
        });
        let wrong = control.registry.wrong_tenants().into_iter();
        let wrong = wrong.map(|(name, error)| Self {
            kind: AlertKind::TenantUnusable,
            text: format!("stored tenant {name} cannot be used: {error}"),
            seat: Some(name),
            since: None,
            set: None,
            section: None,
        });
        let away = control.registry.deployments().storing().err().flatten();
        let away = away.filter(StoreError::is_away);
        let away = away.map(|error| Self {
            kind: AlertKind::StoreUnreachable,
            seat: None,
            since: None,
            set: None,
            section: None,
            text: format!("pushed policies: {error}"),
        });
        let older = control.shared.addresses.database().connections().servers();
        let older = older.older.map(|text| Self {
            kind: AlertKind::DatabaseOlder,
            seat: None,
            since: None,
            set: None,
            section: None,
            text: format!(
                "the database was restored or is another one; `portcullis address reload` accepts it: {text}"
            ),
        });
        let down = control.shared.dispatcher.status().down.into_iter();
        let down = down.map(|(set, since)| Self {
            kind: AlertKind::SetDown,
            seat: None,
            since: Some(since),
            set: Some(set),
            section: None,
            text: format!(
                "dispatcher: no destination of set {set} has got requests since {}",
                rfc3339(since)
            ),
        });
        let exchange = Self::of_exchange(control);
        let certificates = control.shared.handshakes.as_ref();
        let certificates =
            certificates.map_or_else(Vec::new, |all| Self::of_certificates(all.tls()));
        let fleet = Self::of_fleet(control);
        let others = wrong
            .chain(away)
            .chain(older)
            .chain(down)
            .chain(certificates)
            .chain(fleet)
            .chain(exchange)
            .chain(Self::of_rollouts(control));
        alerts.chain(others).collect()
    }

    /// Those about this host among the others on its database.
    fn of_fleet(control: &Control) -> Vec<Self> {
        let fleet = &control.fleet;
        let seen = fleet.seen();
        let of = |kind, since, text| Self {
            kind,
            seat: None,
            since,
            set: None,
            section: None,
            text,
        };
        let twin = seen.twin().map(|twin| {
            let since = UNIX_EPOCH + Duration::from_millis(twin.since.unsigned_abs());
            let text = format!(
                "another process announces itself under the name {} of this host, at {}, since {}: set `name` in [fleet] of one of them",
                fleet.name(),
                twin.address,
                rfc3339(since)
            );
            of(AlertKind::HostNameTwice, Some(since), text)
        });
        let clock = seen.has_wrong_clock().then(|| {
            let seconds = seen.clock_ahead_ms.unsigned_abs() / 1_000;
            let side = match seen.clock_ahead_ms {
                ..0 => "behind",
                0.. => "ahead of",
            };
            let text = format!(
                "the clock of this host is {seconds} s {side} the database's: check the time service of both"
            );
            of(AlertKind::ClockDiffers, None, text)
        });
        twin.into_iter().chain(clock).collect()
    }

    /// That about the exchange with the other hosts, if they are not heard.
    fn of_exchange(control: &Control) -> Option<Self> {
        let health = control.exchange.as_ref()?.health();
        let text = match (health.hosts, health.trouble) {
            (Some(_), None) => return None,
            (Some(_), Some((_, trouble))) => format!("shared counters: {trouble}"),
            (None, trouble) => {
                let trouble = trouble.map_or_else(String::new, |(_, text)| format!(": {text}"));
                let share = match health.last_hosts {
                    0 | 1 => "this host counts alone".to_owned(),
                    hosts => format!("this host limits a share of 1/{hosts}"),
                };
                format!("shared counters: the other hosts are not heard, and {share}{trouble}")
            }
        };
        Some(Self {
            kind: AlertKind::ExchangeLost,
            seat: None,
            since: None,
            set: None,
            section: None,
            text,
        })
    }

    /// Those about roll-outs of seats of this host: until another one begins, or `abort` ends the alert.
    fn of_rollouts(control: &Control) -> Vec<Self> {
        let seen = control.registry.deployments().seen_rollouts().into_iter();
        let back = seen.filter(|rollout| {
            rollout.state == RolloutState::RolledBack.as_str()
                && control.registry.files(&rollout.seat).is_some()
        });
        let alerts = back.map(|rollout| {
            let since = Duration::from_millis(rollout.changed_at.unsigned_abs());
            Self {
                kind: AlertKind::RolloutRolledBack,
                since: UNIX_EPOCH.checked_add(since),
                set: None,
                section: None,
                text: format!(
                    "generation {} was rolled back on all hosts, generation {} serves: {}; `portcullis fleet rollout abort {}` ends this alert",
                    rollout.generation, rollout.base, rollout.why, rollout.seat
                ),
                seat: Some(rollout.seat),
            }
        });
        alerts.collect()
    }

    /// Those about the certificates of SIP.
    fn of_certificates(tls: &Tls) -> Vec<Self> {
        let refused = tls.faults().into_iter().map(|(section, fault)| Self {
            kind: AlertKind::CertificateRefused,
            seat: None,
            since: None,
            set: None,
            text: format!(
                "[{section}]: new TLS files refused, the previous ones stay in use: {fault}"
            ),
            section: Some(section),
        });
        let now = SystemTime::now();
        let expiring = tls.list().into_iter().filter_map(|listed| {
            let until = listed.certificate.not_after;
            let since = until.checked_sub(NOTICE).filter(|since| *since < now)?;
            let expires = if until < now {
                "has expired"
            } else {
                "expires"
            };
            let section = listed.section;
            Some(Self {
                kind: AlertKind::CertificateExpires,
                seat: None,
                since: Some(since),
                set: None,
                text: format!(
                    "[{section}]: the certificate {expires} at {}",
                    rfc3339(until)
                ),
                section: Some(section),
            })
        });
        let outdated = tls.outdated_lists(now).into_iter();
        let outdated = outdated.map(|(section, until)| Self {
            kind: AlertKind::RevocationListOutdated,
            seat: None,
            since: Some(until),
            set: None,
            text: format!(
                "[{section}]: a revocation list should have been replaced at {}: what has been revoked since then is accepted",
                rfc3339(until)
            ),
            section: Some(section),
        });
        refused.chain(expiring).chain(outdated).collect()
    }

    /// The alert as a line of the status.
    pub(super) fn line(&self) -> String {
        match (&self.seat, self.since) {
            (Some(seat), Some(since)) => format!("{seat}: {}: {}", rfc3339(since), self.text),
            _ => self.text.clone(),
        }
    }

    /// The same number for the same condition. A database that is away is one condition, whatever the error.
    fn id(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (self.kind, &self.seat, self.since, self.set).hash(&mut hasher);
        self.section.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    fn status(self, control: &Control) -> AlertStatus {
        let id = self.id();
        let acknowledged = control.acknowledged.of(&id);
        let (by, at) = acknowledged.map(|done| (done.by, done.at)).unzip();
        AlertStatus {
            id,
            kind: self.kind,
            seat: self.seat,
            since: self.since.map(Timestamp::from),
            text: self.text,
            acknowledged_by: by,
            acknowledged_at: at.map(Timestamp::from),
        }
    }
}

impl AlertKind {
    /// Its name, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PolicyOutOfService => "policy-out-of-service",
            Self::TenantUnusable => "tenant-unusable",
            Self::StoreUnreachable => "store-unreachable",
            Self::DatabaseOlder => "database-older",
            Self::SetDown => "set-down",
            Self::CertificateRefused => "certificate-refused",
            Self::CertificateExpires => "certificate-expires",
            Self::RevocationListOutdated => "revocation-list-outdated",
            Self::ExchangeLost => "exchange-lost",
            Self::HostNameTwice => "host-name-twice",
            Self::ClockDiffers => "clock-differs",
            Self::RolloutRolledBack => "rollout-rolled-back",
        }
    }
}

/// The number of alerts of each kind.
pub(crate) fn counts(control: &Control) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for alert in Alert::all(control) {
        let kind = alert.kind.as_str().to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

fn current(control: &Control, caller: &Caller) -> Vec<AlertStatus> {
    let all: Vec<_> = Alert::all(control)
        .into_iter()
        .map(|alert| alert.status(control))
        .collect();
    let acknowledged = &control.acknowledged;
    acknowledged.keep_only(|id| all.iter().any(|alert| alert.id == id));
    let is_own = |alert: &AlertStatus| match caller.authority() {
        Authority::Operator => true,
        Authority::Tenant(tenant) => alert.seat.as_ref() == Some(tenant),
    };
    // The reason names hosts, of which a tenant does not learn.
    let shown = |mut alert: AlertStatus| {
        if !caller.is_operator() && alert.kind == AlertKind::RolloutRolledBack {
            alert.text =
                "a gate of the roll-out has failed: the generation before serves on all hosts"
                    .to_owned();
        }
        alert
    };
    all.into_iter().filter(is_own).map(shown).collect()
}

impl Procedure for ListAlerts {
    type Reply = Vec<AlertStatus>;

    const NEEDS: TokenRole = TokenRole::Read;
    const IS_OPEN: bool = true;

    async fn execute(self, control: &Control, caller: &Caller) -> Result<Vec<AlertStatus>, Fault> {
        Ok(current(control, caller))
    }
}

impl Procedure for Acknowledge {
    type Reply = AlertStatus;

    const NEEDS: TokenRole = TokenRole::Ship;
    const IS_OPEN: bool = true;

    fn subject(&self) -> Option<String> {
        Some(format!("alert {}", self.id))
    }

    async fn execute(self, control: &Control, caller: &Caller) -> Result<AlertStatus, Fault> {
        let find = || {
            current(control, caller)
                .into_iter()
                .find(|alert| alert.id == self.id)
        };
        let unknown = || {
            let text = format!(
                "there is no alert {}: it may be over",
                self.id.escape_debug()
            );
            Fault::new(404, text)
        };
        let alert = find().ok_or_else(unknown)?;
        control.acknowledged.note(&alert.id, caller.to_string());
        find().ok_or_else(unknown)
    }
}

impl ListAlerts {
    /// `GET /v1/alerts`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let get = Operation::new::<Vec<AlertStatus>>(
            Method::GET,
            "/v1/alerts",
            "listAlerts",
            "List the conditions that need attention; for a tenant, those of its seat",
        );
        routes.on(get.answers(200, "The alerts").open(), list)
    }
}

impl Acknowledge {
    /// `POST /v1/alerts/{id}/acknowledge`.
    pub(crate) fn operation(routes: Routes) -> Routes {
        let post = Operation::new::<AlertStatus>(
            Method::POST,
            "/v1/alerts/{id}/acknowledge",
            "acknowledgeAlert",
            "Acknowledge an alert: it stays, with the name of who has seen it",
        );
        let post = post.query::<AuthorQuery>(&[]).answers(200, "The alert");
        routes.on(post.refuses(&[404, 415]), acknowledge)
    }
}

async fn list(State(control): Api, Extension(caller): Extension<Caller>) -> Answer {
    answer(ListAlerts.dispatch(&control, &caller).await)
}

async fn acknowledge(
    State(control): Api,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<String>,
    Given(query): Given<AuthorQuery>,
) -> Answer {
    let caller = caller.called(query.author);
    answer(Acknowledge { id }.dispatch(&control, &caller).await)
}
