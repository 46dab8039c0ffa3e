//! The calls that `policy bench` and `policy profile` make: a policy, requests, and what these meet.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use portcullis_address::Snapshot;
use portcullis_cases::{FirstLook, MessageFields, Suite, first_look, read_message};
use portcullis_policy::{Limits, Policy, Runtime, Scope, StatedHost};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Transport};

use super::offline::{Surroundings, name_of, read};
use super::run::parse_socket;

/// The policy and the requests.
#[derive(Debug, clap::Args)]
pub(super) struct Load {
    /// The policy: a WebAssembly module or component
    #[arg(value_name = "FILE.wasm")]
    pub(super) policy: PathBuf,
    /// Use the requests, tables and settings of a file of cases
    #[arg(long, value_name = "CASES.toml", conflicts_with_all = ["message", "from"])]
    cases: Option<PathBuf>,
    /// Use this request, a text file with LF or CRLF; can be given several times [default: an INVITE]
    #[arg(long, value_name = "FILE")]
    message: Vec<PathBuf>,
    /// The source of the request
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value = "192.0.2.1:5060", value_parser = parse_socket)]
    from: SocketAddr,
    /// The seat whose limits, settings and tables apply
    #[arg(long, default_value = "default")]
    pub(super) seat: String,
    /// Settings: a TOML or JSON file, or KEY=VALUE; can be given several times
    #[arg(long, value_name = "FILE|KEY=VALUE")]
    settings: Vec<String>,
}

/// A request and what it meets.
pub(super) struct PreparedCall {
    pub(super) request: Request,
    pub(super) host: Arc<StatedHost>,
    pub(super) tables: Arc<Snapshot>,
    pub(super) scope: Arc<Scope>,
}

impl Load {
    /// The policy, and the requests for which a host would call it.
    pub(super) fn prepared(
        &self,
        around: &Surroundings,
        runtime: &Runtime,
    ) -> anyhow::Result<(Policy, Vec<PreparedCall>)> {
        let Some(cases) = &self.cases else {
            return self.prepared_for_messages(around, runtime);
        };
        let suite = Suite::read(cases)?;
        let bytes = read(&self.policy)?;
        let policy = suite.load(runtime, &name_of(&self.policy), &bytes)?;
        let requests = suite.requests().filter(|case| {
            let is_judged = first_look(case.request, &[]) == FirstLook::Judged;
            is_judged && policy.check_settings(case.settings).is_ok()
        });
        let work = requests.map(|case| PreparedCall {
            request: case.request.clone(),
            host: Arc::new(case.host.clone()),
            tables: Arc::clone(case.tables),
            scope: Arc::new(Scope::operator().with_settings(Arc::clone(case.settings))),
        });
        let work: Vec<_> = work.collect();
        if work.is_empty() {
            bail!(
                "{}: there is no case for which the policy would be called",
                cases.display()
            );
        }
        Ok((policy, work))
    }

    fn prepared_for_messages(
        &self,
        around: &Surroundings,
        runtime: &Runtime,
    ) -> anyhow::Result<(Policy, Vec<PreparedCall>)> {
        let settings = around.settings(&self.seat, &self.settings)?;
        let policy = around.load(runtime, &self.policy, &self.seat, &settings)?;
        let scope = Arc::new(around.scope(&self.seat)?.with_settings(settings));
        let tables = around.tables(None, false)?.snapshot;
        let work = self.requests()?.into_iter().map(|request| PreparedCall {
            request,
            host: Arc::default(),
            tables: Arc::clone(&tables),
            scope: Arc::clone(&scope),
        });
        Ok((policy, work.collect()))
    }

    /// The policy in a runtime that meters fuel, from other bytes than those of its file.
    pub(super) fn metered(
        &self,
        around: &Surroundings,
        runtime: &Runtime,
        bytes: &[u8],
        work: &[PreparedCall],
    ) -> anyhow::Result<Policy> {
        let limits = Limits {
            deadline: runtime.limits().deadline,
            module_bytes: runtime.limits().module_bytes,
            ..around.seat(&self.seat)?.limits.clone()
        };
        let settings = match work.first() {
            Some(work) => Arc::clone(work.scope.settings()),
            None => Arc::default(),
        };
        Ok(runtime.load_within(&name_of(&self.policy), bytes, &limits, &settings)?)
    }

    fn requests(&self) -> anyhow::Result<Vec<Request>> {
        if self.message.is_empty() {
            let arrival = self.arrival();
            let bytes = MessageFields::default().write(&arrival, 1);
            return Ok(vec![parsed(&bytes, arrival, Path::new("INVITE"))?]);
        }
        let requests = self.message.iter().map(|file| {
            let bytes = read(file)?;
            parsed(&bytes, self.arrival(), file)
        });
        requests.collect()
    }

    fn arrival(&self) -> Arrival {
        Arrival {
            source: self.from,
            local: ([198, 51, 100, 1], 5060).into(),
            transport: Transport::Udp,
            connection: None,
        }
    }
}

fn parsed(bytes: &[u8], arrival: Arrival, file: &Path) -> anyhow::Result<Request> {
    read_message(bytes, arrival).with_context(|| file.display().to_string())
}
