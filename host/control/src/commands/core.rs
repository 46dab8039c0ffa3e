//! `core.…`: Kamailio's commands about the server itself (`src/core/core_cmd.c`), and `jsonrpc.echo`.

mod info;
mod memory;
mod tcp_info;

use std::path::Path;
use std::time::SystemTime;

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Param};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FromCall, Procedure, Timestamp};
use crate::Control;
use crate::caller::Caller;
pub(crate) use info::Info;
pub use info::InfoReply;
pub(crate) use memory::SharedMemory;
pub use memory::SharedMemoryReply;
pub(crate) use tcp_info::TcpInfo;
pub use tcp_info::TcpInfoReply;

/// `core.echo`: returns strings and whole numbers as strings.
#[derive(Debug)]
pub(crate) struct Echo {
    texts: Vec<String>,
}

/// `jsonrpc.echo`: a string, and optionally a whole number.
#[derive(Debug)]
pub(crate) struct SampleEcho {
    text: Option<String>,
    number: Option<i64>,
}

/// `core.ps`.
#[derive(Debug)]
pub(crate) struct Ps;

/// `core.psx`.
#[derive(Debug)]
pub(crate) struct Psx;

/// `core.uptime`.
#[derive(Debug)]
pub(crate) struct Uptime;

/// `core.version`.
#[derive(Debug)]
pub(crate) struct Version;

/// A number or a string, in a reply that is a sequence of records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Record {
    /// A whole number.
    Number(i64),
    /// A string.
    Text(String),
}

/// The reply of `core.uptime`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UptimeReply {
    /// Time of the reply.
    pub now: Timestamp,
    /// Time of the start.
    pub up_since: Timestamp,
    /// Seconds since the start.
    pub uptime: u64,
}

/// A thread of the host in the reply of `core.psx`. Kamailio lists processes; thread numbers are of the same kind (`ps -L`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Thread {
    /// Index in the list, from 0.
    #[serde(rename = "IDX")]
    pub index: u64,
    /// Thread number of the system.
    #[serde(rename = "PID")]
    pub id: u32,
    /// Its name.
    #[serde(rename = "DSC")]
    pub name: String,
}

impl FromCall for Echo {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let texts = call.params.iter().enumerate();
        let texts = texts.map(|(at, param)| echoed(at, param));
        Ok(Self {
            texts: texts.collect::<Result<_, _>>()?,
        })
    }
}

impl Procedure for Echo {
    type Reply = Vec<String>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<Vec<String>, Fault> {
        Ok(self.texts)
    }
}

impl FromCall for SampleEcho {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let wrong = |at, expected: &str, got: &Param| {
            Fault::new(
                400,
                format!("error at parameter {at}: expected {expected} type but got {got}"),
            )
        };
        let (text, number) = match &call.params[..] {
            [] => (None, None),
            [text] => (Some(echoed(0, text)?), None),
            [text, Param::Int(number)] => (Some(echoed(0, text)?), Some(*number)),
            [_, other] => return Err(wrong(2, "integer", other)),
            more => {
                return Err(Fault::new(
                    400,
                    format!(
                        "jsonrpc.echo takes two parameters at most, but got {}",
                        more.len()
                    ),
                ));
            }
        };
        Ok(Self { text, number })
    }
}

impl Procedure for SampleEcho {
    type Reply = Vec<Record>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<Vec<Record>, Fault> {
        let text = self.text.map(Record::Text);
        let number = self.number.map(Record::Number);
        Ok(text.into_iter().chain(number).collect())
    }
}

impl FromCall for Ps {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Ps {
    /// Number and name of each thread, one after another.
    type Reply = Vec<Record>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<Vec<Record>, Fault> {
        let threads = threads().await?.into_iter();
        let records = threads
            .flat_map(|thread| [Record::Number(thread.id.into()), Record::Text(thread.name)]);
        Ok(records.collect())
    }
}

impl FromCall for Psx {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Psx {
    type Reply = Vec<Thread>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<Vec<Thread>, Fault> {
        threads().await
    }
}

impl FromCall for Uptime {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Uptime {
    type Reply = UptimeReply;

    const NEEDS: TokenRole = TokenRole::Read;

    /// The format is Kamailio's, with times in RFC 3339.
    async fn execute(self, control: &Control, _: &Caller) -> Result<UptimeReply, Fault> {
        let now = SystemTime::now();
        let up_since = control.shared.started;
        Ok(UptimeReply {
            now: now.into(),
            up_since: up_since.into(),
            uptime: now.duration_since(up_since).unwrap_or_default().as_secs(),
        })
    }
}

impl FromCall for Version {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Version {
    type Reply = String;

    const NEEDS: TokenRole = TokenRole::Read;

    /// In Kamailio's format: name, version, machine.
    async fn execute(self, _: &Control, _: &Caller) -> Result<String, Fault> {
        let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
        let version = env!("CARGO_PKG_VERSION");
        Ok(format!("portcullis {version} ({arch}/{os})"))
    }
}

fn echoed(at: usize, param: &Param) -> Result<String, Fault> {
    match param {
        Param::Text(text) => Ok(text.clone()),
        Param::Int(number) => Ok(number.to_string()),
        other @ (Param::Double(_) | Param::Other(_)) => Err(Fault::new(
            400,
            format!(
                "error at parameter {}: expected string type but got {other}",
                at + 1
            ),
        )),
    }
}

async fn threads() -> Result<Vec<Thread>, Fault> {
    let failed = |error: &dyn std::fmt::Display| Fault::new(500, "Server failure").because(error);
    let listed = tokio::task::spawn_blocking(|| list_threads(Path::new("/proc/self/task"))).await;
    listed
        .map_err(|error| failed(&error))?
        .map_err(|error| failed(&error))
}

fn list_threads(folder: &Path) -> std::io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
        // A thread may end while the list is read.
        let name = std::fs::read_to_string(entry.path().join("comm")).ok();
        if let (Some(id), Some(name)) = (id, name) {
            let name = match id == std::process::id() {
                true => "main process".into(),
                false => name.trim_end().to_owned(),
            };
            threads.push(Thread { index: 0, id, name });
        }
    }
    threads.sort_by_key(|thread| thread.id);
    for (thread, index) in threads.iter_mut().zip(0..) {
        thread.index = index;
    }
    Ok(threads)
}
