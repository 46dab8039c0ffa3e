//! The form of a file of cases.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use portcullis_address::Snapshot;
use portcullis_policy::{FlowState, Settings, Standing, StatedHost};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Transport};
use portcullis_text::from_rfc3339;
use serde::Deserialize;
use thiserror::Error;
use toml::Spanned;

use crate::expect::Expect;
use crate::failures::TargetResult;
use crate::message::{MessageFields, Values, read_message};
use crate::peer::PeerSpec;
use crate::tables::TablesSpec;

/// The time of cases that name none.
const NOON: &str = "2026-01-01T12:00:00Z";

const SOURCE: &str = "192.0.2.1:5060";

const LOCAL: &str = "198.51.100.1:5060";

/// Why a file of cases cannot be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("{path}:{line}: {what}")]
    Line {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and how to correct it.
        what: String,
    },
}

/// A file of cases.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) policy: Option<PathBuf>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) cases: Vec<Case>,
}

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) request: Request,
    pub(crate) host: StatedHost,
    pub(crate) at: SystemTime,
    pub(crate) settings: Arc<Settings>,
    pub(crate) tables: Arc<Snapshot>,
    /// The sets of the dispatcher, which are made for each run of the case.
    pub(crate) sets: TablesSpec,
    /// Whether counters are as the previous case left them.
    pub(crate) continues: bool,
    pub(crate) expect: Expect,
    pub(crate) after: Vec<After>,
}

/// A call of `on-failure`.
#[derive(Debug)]
pub(crate) struct After {
    pub(crate) results: Vec<TargetResult>,
    /// Header fields of the best response.
    pub(crate) headers: BTreeMap<String, Values>,
    pub(crate) expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct FileSpec {
    policy: Option<PathBuf>,
    #[serde(default)]
    tables: TablesSpec,
    #[serde(default)]
    settings: toml::Table,
    #[serde(default)]
    defaults: Defaults,
    #[serde(default)]
    case: Vec<Spanned<CaseSpec>>,
}

/// What cases have unless they say something else.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Defaults {
    #[serde(default)]
    request: MessageFields,
    source: Option<String>,
    local: Option<String>,
    transport: Option<String>,
    peer: Option<PeerSpec>,
    standing: Option<StandingName>,
    flow: Option<FlowName>,
    came_along: Option<bool>,
    is_client: Option<bool>,
    time: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CaseSpec {
    name: Option<String>,
    #[serde(default)]
    request: MessageFields,
    message: Option<PathBuf>,
    source: Option<String>,
    local: Option<String>,
    transport: Option<String>,
    peer: Option<PeerSpec>,
    standing: Option<StandingName>,
    flow: Option<FlowName>,
    came_along: Option<bool>,
    is_client: Option<bool>,
    time: Option<String>,
    settings: Option<toml::Table>,
    tables: Option<TablesSpec>,
    #[serde(default)]
    continues: bool,
    #[serde(default)]
    expect: Expect,
    #[serde(default)]
    after: Vec<AfterSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AfterSpec {
    #[serde(default)]
    results: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    #[serde(default)]
    expect: Expect,
}

/// The standing of the source with the guard.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StandingName {
    Exempt,
    #[default]
    Observed,
    Held,
    Banned,
}

impl From<StandingName> for Standing {
    fn from(name: StandingName) -> Self {
        match name {
            StandingName::Exempt => Self::Exempt,
            StandingName::Observed => Self::Observed,
            StandingName::Held => Self::Held,
            StandingName::Banned => Self::Banned,
        }
    }
}

/// What becomes of the flow that the request goes along.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FlowName {
    #[default]
    None,
    Alive,
    Gone,
    Invalid,
}

impl From<FlowName> for FlowState {
    fn from(name: FlowName) -> Self {
        match name {
            FlowName::None => Self::None,
            FlowName::Alive => Self::Alive,
            FlowName::Gone => Self::Gone,
            FlowName::Invalid => Self::Invalid,
        }
    }
}

impl File {
    /// Reads a file. Paths in it are relative to its folder.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        Self::parse(&text, &path.display().to_string(), folder)
    }

    /// Reads the text of a file; `shown` names it in errors.
    pub(crate) fn parse(text: &str, shown: &str, folder: &Path) -> Result<Self, FileError> {
        let place = Place { text, shown };
        let spec: FileSpec = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            place.error(at, error.message().to_owned())
        })?;
        let tables = spec.tables.build();
        let tables =
            tables.map_err(|error| place.error(place.find("[tables"), error.to_string()))?;
        let sets = spec.tables.sets();
        sets.map_err(|error| place.error(place.find("[tables"), error.to_string()))?;
        let common = Common {
            defaults: &spec.defaults,
            settings: &spec.settings,
            tables: &tables,
            spec: &spec.tables,
            folder,
        };
        let mut cases = Vec::with_capacity(spec.case.len());
        for (at, case) in spec.case.iter().enumerate() {
            let start = case.span().start;
            let line = place.line(start);
            let case = common.case(at + 1, line, case.get_ref());
            cases.push(case.map_err(|what| place.error(start, what))?);
        }
        if cases.is_empty() {
            let what = "the file has no cases: write [[case]] tables".to_owned();
            return Err(place.error(0, what));
        }
        Ok(Self {
            policy: spec.policy.map(|policy| folder.join(policy)),
            settings: settings(&spec.settings, None),
            cases,
        })
    }
}

/// A position in the text.
struct Place<'t> {
    text: &'t str,
    shown: &'t str,
}

impl Place<'_> {
    fn error(&self, at: usize, what: String) -> FileError {
        FileError::Line {
            path: self.shown.to_owned(),
            line: self.line(at),
            what,
        }
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }

    fn find(&self, text: &str) -> usize {
        self.text.find(text).unwrap_or_default()
    }
}

/// What all cases of a file share.
struct Common<'f> {
    defaults: &'f Defaults,
    settings: &'f toml::Table,
    tables: &'f Arc<Snapshot>,
    /// What they are made of.
    spec: &'f TablesSpec,
    folder: &'f Path,
}

impl Common<'_> {
    fn case(&self, number: usize, line: usize, spec: &CaseSpec) -> Result<Case, String> {
        let name = match &spec.name {
            Some(name) => name.clone(),
            None => format!("case {number}"),
        };
        let in_case = |what: String| format!("case \"{name}\": {what}");
        let arrival = self.arrival(spec).map_err(in_case)?;
        // The peer of the file is that of its cases over TLS.
        let common = self.defaults.peer.as_ref();
        let common = common.filter(|_| arrival.transport.is_secure());
        let peer = spec.peer.as_ref().or(common);
        let mut host = PeerSpec::state(peer, arrival.transport).map_err(in_case)?;
        let standing = spec.standing.or(self.defaults.standing);
        host.standing = standing.unwrap_or_default().into();
        let flow = spec.flow.or(self.defaults.flow);
        host.flow = flow.unwrap_or_default().into();
        let is = |own: Option<bool>, other: Option<bool>| own.or(other).unwrap_or_default();
        host.came_along_flow = is(spec.came_along, self.defaults.came_along);
        host.is_client = is(spec.is_client, self.defaults.is_client);
        let time = spec.time.as_ref().or(self.defaults.time.as_ref());
        let time = time.map_or(NOON, String::as_str);
        let at = from_rfc3339(time)
            .ok_or_else(|| in_case(format!("time \"{time}\": write a time like {NOON}")))?;
        let tables = match &spec.tables {
            Some(tables) => tables.build().map_err(|error| in_case(error.to_string()))?,
            None => Arc::clone(self.tables),
        };
        let sets = spec.tables.as_ref().unwrap_or(self.spec);
        sets.sets().map_err(|error| in_case(error.to_string()))?;
        if spec.expect.is_empty() {
            let what =
                "expect is missing, or says nothing: for example expect = { verdict = \"relay\" }";
            return Err(in_case(what.to_owned()));
        }
        let after = spec.after.iter().map(after).collect::<Result<_, _>>();
        Ok(Case {
            request: self.request(number, spec, arrival).map_err(in_case)?,
            host,
            at,
            settings: settings(self.settings, spec.settings.as_ref()),
            tables,
            sets: sets.clone(),
            continues: spec.continues,
            expect: spec.expect.clone(),
            after: after.map_err(in_case)?,
            line,
            name,
        })
    }

    fn request(&self, number: usize, spec: &CaseSpec, arrival: Arrival) -> Result<Request, String> {
        let Some(file) = &spec.message else {
            let fields = spec.request.clone().or(&self.defaults.request);
            let message = fields.write(&arrival, number);
            return read_message(&message, arrival)
                .map_err(|error| format!("the request of these fields is not valid: {error}"));
        };
        if !spec.request.is_empty() {
            return Err("it has both request and message: leave one out".to_owned());
        }
        let path = self.folder.join(file);
        let shown = path.display();
        let bytes =
            std::fs::read(&path).map_err(|error| format!("cannot read {shown}: {error}"))?;
        read_message(&bytes, arrival).map_err(|error| format!("{shown}: {error}"))
    }

    fn arrival(&self, spec: &CaseSpec) -> Result<Arrival, String> {
        let defaults = self.defaults;
        let of = |own: &Option<String>, other: &Option<String>, last: &str| {
            let found = own.as_ref().or(other.as_ref());
            found.map_or(last, String::as_str).to_owned()
        };
        let transport = of(&spec.transport, &defaults.transport, "udp");
        let transport: Transport = transport
            .parse()
            .map_err(|error| format!("transport: {error}"))?;
        Ok(Arrival {
            source: socket("source", &of(&spec.source, &defaults.source, SOURCE))?,
            local: socket("local", &of(&spec.local, &defaults.local, LOCAL))?,
            transport,
            connection: None,
        })
    }
}

fn after(spec: &AfterSpec) -> Result<After, String> {
    if spec.expect.is_empty() {
        return Err("after: expect is missing, or says nothing".to_owned());
    }
    let results = spec.results.iter().map(|text| TargetResult::parse(text));
    let results = results.collect::<Result<_, _>>();
    Ok(After {
        results: results.map_err(|error| format!("after: results: {error}"))?,
        headers: spec.headers.clone(),
        expect: spec.expect.clone(),
    })
}

/// An address with or without a port.
fn socket(key: &str, text: &str) -> Result<SocketAddr, String> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, 5060));
    }
    text.parse().map_err(|_| {
        format!("{key} \"{text}\": write an address with or without a port, for example {SOURCE} or [2001:db8::1]:5060")
    })
}

/// The settings of the file; those of a case take the place of values with the same key.
fn settings(common: &toml::Table, own: Option<&toml::Table>) -> Arc<Settings> {
    let mut all = common.clone();
    for (key, value) in own.into_iter().flatten() {
        all.insert(key.clone(), value.clone());
    }
    let json = serde_json::to_value(all).unwrap_or_default();
    Arc::new(Settings::new(json))
}
