//! The results of policy commands, in a readable form.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use portcullis_control::commands::fleet::FleetStatus;
use portcullis_control::commands::policy::{
    CallStats, Changed, Comparison, FleetReach, GenerationStatus, Pushed, SeatStatus,
};
use portcullis_registry::{Pulled, Reference};
use portcullis_signature as signature;

use super::super::client::Client;
use super::super::print::{Format, Table, clean, count, write_json};
use super::registry::{self, Connection, Verification};

/// The state of a pushed policy.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(in crate::cli) struct Beginning {
    /// Activate it immediately
    #[arg(long)]
    activate: bool,
    /// Start a shadow trial: evaluate it on every request after the active generation, without effect
    #[arg(long)]
    shadow: bool,
    /// Start a canary trial: let it decide on this share of the dialogs
    #[arg(long, value_name = "SHARE")]
    canary: Option<String>,
}

#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Push {
    /// A tenant, or default, before or after for the operator's policies
    seat: String,
    #[command(flatten)]
    pushed: PushedFile,
}

/// The same for all hosts of a fleet, which are shown.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct FleetPush {
    #[command(flatten)]
    pushed: PushedFile,
    /// A tenant, or default, before or after for the operator's policies
    #[arg(long, default_value = "default")]
    seat: String,
}

/// A policy that is pushed, and what becomes of it.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct PushedFile {
    /// The policy: a WebAssembly module or component, or an artifact in a registry (oci://HOST/REPOSITORY:TAG or @sha256:DIGEST)
    #[arg(value_name = "FILE.wasm|oci://…")]
    file: PathBuf,
    #[command(flatten)]
    beginning: Beginning,
    /// The author [default: $USER]
    #[arg(long)]
    author: Option<String>,
    /// A note on the changes; that of an artifact from a registry also has its digest
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
    /// Its signature [default: FILE.wasm.sig if it exists; that which was published with an artifact]
    #[arg(long, value_name = "FILE.sig")]
    signature: Option<PathBuf>,
    #[command(flatten)]
    verification: Verification,
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    waiting: Waiting,
}

/// How long a change waits for the other hosts.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Waiting {
    /// How long to wait until all hosts on the same database use it; the exit code is 1 if one does not [default: 5s; at most 60s]
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
}

impl Waiting {
    /// The parameter of the query.
    pub(super) fn parameter(&self) -> Option<(&'static str, &str)> {
        self.wait.as_deref().map(|wait| ("wait", wait))
    }
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Pull {
    /// A tenant, or default, before or after; or an artifact in a registry (oci://HOST/REPOSITORY:TAG or @sha256:DIGEST)
    #[arg(value_name = "SEAT|oci://…")]
    from: String,
    /// The number of the seat's generation [default: the active one]
    #[arg(long)]
    generation: Option<u64>,
    /// The file to write [default: the name under which an artifact was published, unless this file exists]
    #[arg(short, long, value_name = "FILE.wasm")]
    output: Option<PathBuf>,
    #[command(flatten)]
    verification: Verification,
    #[command(flatten)]
    connection: Connection,
}

impl Pull {
    /// Whether it downloads an artifact from a registry.
    pub(super) fn is_of_registry(&self) -> bool {
        registry::is_reference(Path::new(&self.from))
    }
}

/// A policy to be pushed, wherever it comes from.
pub(in crate::cli) struct Content {
    pub(in crate::cli) name: String,
    pub(in crate::cli) bytes: Vec<u8>,
    /// In Base64; empty if it has none.
    pub(in crate::cli) signature: String,
    pub(in crate::cli) note: String,
}

/// Where a policy to be pushed comes from.
pub(in crate::cli) struct Origin<'o> {
    /// A file, or an artifact in a registry.
    pub(in crate::cli) file: &'o Path,
    /// The file of its signature, if it is not beside it.
    pub(in crate::cli) signature: Option<&'o Path>,
    pub(in crate::cli) note: &'o str,
    pub(in crate::cli) verification: &'o Verification,
    pub(in crate::cli) connection: &'o Connection,
}

pub(super) fn push(client: &Client, push: &Push, out: &mut impl Write) -> anyhow::Result<()> {
    let hosts = push_file(client, &push.seat, &push.pushed, out)?;
    all_there(hosts.as_ref())
}

/// Pushes a policy, and shows what each host has of the seat.
pub(in crate::cli) fn push_to_fleet(
    client: &Client,
    push: &FleetPush,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let hosts = push_file(client, &push.seat, &push.pushed, out)?;
    let fleet: FleetStatus = client.send("GET", "/v1/fleet", &[], None)?;
    let mut table = Table::new(["host", "stage", "active", "candidate", "revision", "error"]);
    for host in fleet.hosts {
        let seat = host.seats.get(&push.seat);
        let number = |number: Option<u64>| number.map_or_else(String::new, |n| n.to_string());
        table.push([
            host.host,
            host.stage.as_str().to_owned(),
            number(seat.and_then(|seat| seat.active)),
            number(seat.and_then(|seat| seat.candidate)),
            number(seat.map(|seat| seat.revision)),
            seat.and_then(|seat| seat.refused.clone())
                .unwrap_or_default(),
        ]);
    }
    match table.is_empty() {
        true => writeln!(out, "no host announces itself: see [fleet]")?,
        false => table.write(out)?,
    }
    all_there(hosts.as_ref())
}

/// # Errors
/// If a host does not use a change.
fn all_there(hosts: Option<&FleetReach>) -> anyhow::Result<()> {
    match not_everywhere(hosts) {
        None => Ok(()),
        Some(text) => bail!(text),
    }
}

/// Which hosts do not use a change that is stored; `None` if all do.
pub(in crate::cli) fn not_everywhere(hosts: Option<&FleetReach>) -> Option<String> {
    let hosts = hosts?;
    let behind = hosts.behind_text()?;
    Some(format!(
        "it is stored, and in effect on {} of {}; not yet on {behind}",
        hosts.live,
        count(hosts.total, "host")
    ))
}

fn push_file(
    client: &Client,
    seat: &str,
    push: &PushedFile,
    out: &mut impl Write,
) -> anyhow::Result<Option<FleetReach>> {
    let Content {
        name,
        bytes,
        signature,
        note,
    } = content(&push.origin(), out)?;
    let Beginning {
        activate,
        shadow,
        canary,
    } = &push.beginning;
    let arrival = match (activate, shadow, canary) {
        (true, ..) => "activate",
        (_, true, _) => "shadow",
        (_, _, Some(_)) => "canary",
        _ => "keep",
    };
    let user = std::env::var("USER").ok();
    let author = push.author.clone().or(user);
    let mut query = vec![
        ("name", name.as_str()),
        ("arrival", arrival),
        ("note", &note),
    ];
    query.extend(author.as_deref().map(|author| ("author", author)));
    if !signature.is_empty() {
        query.push(("signature", &signature));
    }
    query.extend(canary.as_deref().map(|share| ("share", share)));
    query.extend(push.waiting.parameter());
    let path = format!("/v1/policies/{}", segment(seat)?);
    let pushed: Pushed = client.send("POST", &path, &query, Some(&bytes))?;
    let took = match pushed.load_ms {
        Some(took) => format!(", loaded in {took} ms"),
        None => String::new(),
    };
    writeln!(
        out,
        "{}: generation {}, {}, {}{took}",
        clean(seat),
        pushed.generation,
        pushed.arrival,
        clean(&pushed.digest),
    )?;
    write_liveness(pushed.live_on_all_workers, pushed.hosts.as_ref(), out)?;
    if let Some(warning) = &pushed.warning {
        writeln!(out, "warning: {}", clean(warning))?;
    }
    if arrival == "keep" {
        let seat = clean(seat);
        writeln!(
            out,
            "not active: `portcullis policy activate {seat} {}` activates it",
            pushed.generation
        )?;
    }
    Ok(pushed.hosts)
}

impl PushedFile {
    fn origin(&self) -> Origin<'_> {
        Origin {
            file: &self.file,
            signature: self.signature.as_deref(),
            note: &self.note,
            verification: &self.verification,
            connection: &self.connection,
        }
    }
}

/// Reads a policy from its file, or from a registry.
pub(in crate::cli) fn content(push: &Origin<'_>, out: &mut impl Write) -> anyhow::Result<Content> {
    let signature = match push.signature {
        Some(file) if !file.exists() => bail!("there is no {}", file.display()),
        Some(file) => Some(signature::read(file)?),
        None => None,
    };
    let file = push.file;
    let Some(reference) = registry::reference(file)? else {
        push.verification.refuse_for(file)?;
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let beside = || signature::read(&signature::file_of(file));
        return Ok(Content {
            name: file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            bytes,
            signature: signature.map_or_else(beside, Ok)?,
            note: push.note.to_owned(),
        });
    };
    let pulled = registry::pull(&reference, push.connection, push.verification, out)?;
    let exact = reference.at(pulled.digest);
    Ok(Content {
        name: pulled.name,
        bytes: pulled.bytes,
        signature: signature.unwrap_or(pulled.file_signature),
        note: match push.note {
            "" => exact.to_string(),
            note => format!("{note} ({exact})"),
        },
    })
}

/// The state of a seat.
pub(super) fn status(client: &Client, seat: &str) -> anyhow::Result<SeatStatus> {
    client.send(
        "GET",
        &format!("/v1/policies/{}", segment(seat)?),
        &[],
        None,
    )
}

pub(super) fn list(
    client: &Client,
    seat: &str,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/generations", segment(seat)?);
    let generations: Vec<GenerationStatus> = client.send("GET", &path, &[], None)?;
    if format.json {
        return write_json(out, &generations);
    }
    let mut table = Table::new([
        "generation",
        "role",
        "name",
        "author",
        "calls",
        "relay",
        "reject",
        "drop",
        "pass",
        "failures",
    ]);
    for generation in generations {
        let counts = generation.stats.map(|stats| {
            let CallStats {
                calls,
                relay,
                reject,
                drop,
                pass,
                failures,
                ..
            } = stats;
            let [calls, relay, reject, drop, pass] =
                [calls, relay, reject, drop, pass].map(|count| count.to_string());
            [calls, relay, reject, drop, pass, failures.join(", ")]
        });
        let [calls, relay, reject, drop, pass, failures] = counts.unwrap_or_default();
        table.push([
            generation.generation.to_string(),
            // A candidate is shown with its trial.
            generation
                .trial
                .unwrap_or_else(|| generation.role.to_string()),
            generation.name,
            generation.author.unwrap_or_default(),
            calls,
            relay,
            reject,
            drop,
            pass,
            failures,
        ]);
    }
    if table.is_empty() {
        writeln!(out, "{}: no policy", clean(seat))?;
        return Ok(());
    }
    Ok(table.write(out)?)
}

/// Changes the role of a generation.
pub(super) fn change(
    client: &Client,
    seat: &str,
    what: &str,
    query: &[(&str, &str)],
    waiting: &Waiting,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let query: Vec<_> = query.iter().copied().chain(waiting.parameter()).collect();
    let path = format!("/v1/policies/{}/{what}", segment(seat)?);
    let method = match what {
        "candidate" => "DELETE",
        _ => "POST",
    };
    let changed: Changed = client.send(method, &path, &query, None)?;
    writeln!(
        out,
        "{}: {}: generation {}, {}, {}",
        changed.status,
        clean(seat),
        changed.generation,
        clean(&changed.name),
        clean(&changed.digest)
    )?;
    write_liveness(changed.live_on_all_workers, changed.hosts.as_ref(), out)?;
    all_there(changed.hosts.as_ref())
}

/// Sets whether the verdicts of a seat are carried out.
pub(super) fn set_mode(
    client: &Client,
    seat: &str,
    mode: &str,
    waiting: &Waiting,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/mode", segment(seat)?);
    let query: Vec<_> = [("mode", mode)]
        .into_iter()
        .chain(waiting.parameter())
        .collect();
    let set: String = client.send("PUT", &path, &query, None)?;
    Ok(writeln!(out, "{}", clean(&set))?)
}

pub(super) fn diff(
    client: &Client,
    seat: &str,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let path = format!("/v1/policies/{}/candidate", segment(seat)?);
    let compared: Comparison = client.send("GET", &path, &[], None)?;
    if format.json {
        return write_json(out, &compared);
    }
    writeln!(
        out,
        "{}: generation {} against {}: {} the same, {} different, {} not compared",
        clean(seat),
        compared.candidate,
        compared.active,
        count(compared.same, "call"),
        compared.different,
        compared.not_compared
    )?;
    for sample in &compared.samples {
        writeln!(
            out,
            "\n{} from {}\n  serves:    {}\n  candidate: {}",
            sample.at,
            clean(&sample.source),
            clean(&sample.active),
            clean(&sample.candidate)
        )?;
        let lines = sample.request.lines();
        for line in lines.take_while(|line| !line.is_empty()) {
            writeln!(out, "    {}", clean(line))?;
        }
    }
    Ok(())
}

pub(super) fn pull(
    client: impl Fn() -> anyhow::Result<Client>,
    pull: &Pull,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if let Some(reference) = registry::reference(Path::new(&pull.from))? {
        if pull.generation.is_some() {
            bail!(
                "--generation is the number of a seat's generation; a tag or a digest names a version in a registry"
            );
        }
        return pull_artifact(&reference, pull, out);
    }
    let seat = segment(&pull.from)?;
    pull.verification.refuse_for(Path::new(seat))?;
    let Some(file) = &pull.output else {
        bail!("name the file to write: --output FILE.wasm");
    };
    let number = pull
        .generation
        .map_or_else(|| "active".to_owned(), |number| number.to_string());
    let path = format!("/v1/policies/{seat}/generations/{number}");
    let bytes = client()?.fetch(&path)?;
    write_file(file, &bytes, out)
}

/// Downloads a policy from a registry, with the signature of its file.
fn pull_artifact(reference: &Reference, pull: &Pull, out: &mut impl Write) -> anyhow::Result<()> {
    let pulled = registry::pull(reference, &pull.connection, &pull.verification, out)?;
    let file = match &pull.output {
        Some(file) => file.clone(),
        None => return write_new(&pulled, Path::new(""), out),
    };
    write_file(&file, &pulled.bytes, out)?;
    let beside = signature::file_of(&file);
    if !pulled.file_signature.is_empty() {
        write_file(&beside, signature_of(&pulled).as_bytes(), out)?;
    } else if beside.exists() {
        eprintln!("{}", stale(&beside));
    }
    Ok(())
}

/// Writes a policy and its signature to new files in a directory: their name comes from the registry, and must not replace what is here.
fn write_new(pulled: &Pulled, folder: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let file = folder.join(&pulled.name);
    let beside = signature::file_of(&file);
    let create = |path: &Path| {
        File::create_new(path).map_err(|error| {
            let shown = path.display();
            match error.kind() == io::ErrorKind::AlreadyExists {
                true => anyhow!("{shown} exists: name the file to write: --output FILE.wasm"),
                false => anyhow!("cannot write {shown}: {error}"),
            }
        })
    };
    let write = |mut made: File, path: &Path, bytes: &[u8], out: &mut _| {
        let written = made.write_all(bytes);
        written.with_context(|| format!("cannot write {}", path.display()))?;
        write_length(path, bytes.len(), out)
    };
    let policy = create(&file)?;
    if pulled.file_signature.is_empty() {
        if beside.exists() {
            eprintln!("{}", stale(&beside));
        }
        return write(policy, &file, &pulled.bytes, out);
    }
    let signature = create(&beside).inspect_err(|_| {
        // There is nothing in it yet.
        let _removed = fs::remove_file(&file);
    })?;
    write(policy, &file, &pulled.bytes, out)?;
    write(signature, &beside, signature_of(pulled).as_bytes(), out)
}

/// The content of the file of a signature.
fn signature_of(pulled: &Pulled) -> String {
    format!("{}\n", pulled.file_signature)
}

/// A warning about a signature that a push would take for that of the new file.
fn stale(beside: &Path) -> String {
    format!(
        "warning: the artifact has no signature of its file, and {} is that of another: remove it",
        clean(&beside.display().to_string())
    )
}

fn write_file(file: &Path, bytes: &[u8], out: &mut impl Write) -> anyhow::Result<()> {
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    write_length(file, bytes.len(), out)
}

fn write_length(file: &Path, length: usize, out: &mut impl Write) -> anyhow::Result<()> {
    let length = count(length as u64, "byte");
    writeln!(out, "{}: {length}", clean(&file.display().to_string()))?;
    Ok(())
}

fn write_liveness(
    live_on_all_workers: bool,
    hosts: Option<&FleetReach>,
    out: &mut impl Write,
) -> io::Result<()> {
    if !live_on_all_workers {
        writeln!(out, "warning: not all workers use it yet")?;
    }
    match hosts {
        Some(hosts) if hosts.behind.is_empty() => {
            writeln!(out, "in effect on {}", count(hosts.live, "host"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A name as a path segment; any other text would be another path.
pub(in crate::cli) fn segment(seat: &str) -> anyhow::Result<&str> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if seat.is_empty() || !seat.bytes().all(fits) {
        bail!("{seat:?} is not a seat: name a tenant, or default, before or after");
    }
    Ok(seat)
}

#[cfg(test)]
mod tests {
    use portcullis_registry::Digest;

    use super::*;

    #[test]
    fn a_pulled_policy_replaces_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let pulled = |file_signature: &str| Pulled {
            bytes: b"policy".to_vec(),
            digest: Digest::of(b"x"),
            name: "acl.wasm".into(),
            file_signature: file_signature.into(),
        };
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let write = |pulled: &Pulled| write_new(pulled, folder, &mut Vec::new());

        fs::write(folder.join("acl.wasm.sig"), "mine").unwrap();
        let error = write(&pulled("c2ln")).unwrap_err().to_string();
        assert!(error.contains("acl.wasm.sig exists"), "{error}");
        assert_eq!(read("acl.wasm"), None);
        assert_eq!(read("acl.wasm.sig").as_deref(), Some("mine"));

        fs::remove_file(folder.join("acl.wasm.sig")).unwrap();
        write(&pulled("c2ln")).unwrap();
        assert_eq!(read("acl.wasm").as_deref(), Some("policy"));
        assert_eq!(read("acl.wasm.sig").as_deref(), Some("c2ln\n"));

        let error = write(&pulled("")).unwrap_err().to_string();
        assert!(error.contains("acl.wasm exists"), "{error}");
    }
}
