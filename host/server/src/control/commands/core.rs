//! `core.…`: what Kamailio tells about itself (`src/core/core_cmd.c`), and `jsonrpc.echo`.

use std::path::Path;
use std::time::SystemTime;

use portcullis_rpc::{Call, Fault, Param, Reply, Value};

use super::super::Control;
use crate::time::rfc3339;

/// A thread of the host. Kamailio has processes; the numbers are of the same kind (`ps -L`).
struct Thread {
    id: u32,
    name: String,
}

impl Control {
    /// As Kamailio tells it, with times in RFC 3339.
    pub(super) fn uptime(&self, call: &Call) -> Result<Reply, Fault> {
        call.no_params()?;
        let now = SystemTime::now();
        let up = now.duration_since(self.shared.started).unwrap_or_default();
        let uptime = [
            ("now", rfc3339(now).into()),
            ("up_since", rfc3339(self.shared.started).into()),
            ("uptime", up.as_secs().into()),
        ];
        Ok(Reply::One(uptime.into()))
    }
}

/// In the form of Kamailio's: name, version, machine.
pub(super) fn version(call: &Call) -> Result<Reply, Fault> {
    call.no_params()?;
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let version = format!("portcullis {} ({arch}/{os})", env!("CARGO_PKG_VERSION"));
    Ok(Reply::One(version.into()))
}

/// Texts and whole numbers come back as texts.
pub(super) fn echo(call: &Call) -> Result<Reply, Fault> {
    let echoed = call
        .params
        .iter()
        .enumerate()
        .map(|(at, param)| echoed(at, param));
    Ok(Reply::Each(echoed.collect::<Result<_, _>>()?))
}

/// A text, and a whole number if there is one.
pub(super) fn sample_echo(call: &Call) -> Result<Reply, Fault> {
    let wrong = |at, expected: &str, got: &Param| {
        Fault::new(
            400,
            format!("error at parameter {at}: expected {expected} type but got {got}"),
        )
    };
    match &call.params[..] {
        [] => Ok(Reply::Each(Vec::new())),
        [text] => Ok(Reply::Each(vec![echoed(0, text)?])),
        [text, Param::Int(number)] => Ok(Reply::Each(vec![echoed(0, text)?, (*number).into()])),
        [_, other] => Err(wrong(2, "integer", other)),
        more => Err(Fault::new(
            400,
            format!(
                "jsonrpc.echo takes two parameters at most, but got {}",
                more.len()
            ),
        )),
    }
}

/// Number and name of each thread, one after another.
pub(super) async fn ps(call: &Call) -> Result<Reply, Fault> {
    call.no_params()?;
    let threads = threads().await?;
    let records = threads
        .into_iter()
        .flat_map(|thread| [thread.id.into(), thread.name.into()]);
    Ok(Reply::Each(records.collect()))
}

/// A structure for each thread.
pub(super) async fn psx(call: &Call) -> Result<Reply, Fault> {
    call.no_params()?;
    let threads = threads().await?;
    let records = threads.into_iter().enumerate().map(|(index, thread)| {
        let thread = [
            ("IDX", Value::from(index)),
            ("PID", thread.id.into()),
            ("DSC", thread.name.into()),
        ];
        thread.into()
    });
    Ok(Reply::Each(records.collect()))
}

fn echoed(at: usize, param: &Param) -> Result<Value<'static>, Fault> {
    match param {
        Param::Text(text) => Ok(text.clone().into()),
        Param::Int(number) => Ok(number.to_string().into()),
        other => Err(Fault::new(
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
        // A thread may end while we look.
        let name = std::fs::read_to_string(entry.path().join("comm")).ok();
        if let (Some(id), Some(name)) = (id, name) {
            let name = match id == std::process::id() {
                true => "main process".into(),
                false => name.trim_end().to_owned(),
            };
            threads.push(Thread { id, name });
        }
    }
    threads.sort_by_key(|thread| thread.id);
    Ok(threads)
}
