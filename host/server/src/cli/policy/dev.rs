//! `portcullis policy dev`: a host on loopback with a callee behind it, which follows the policy while one writes it.

use std::ffi::OsString;
use std::io::BufRead;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use portcullis_cases::Suite;
use portcullis_config::Config;
use portcullis_control::commands::policy::PolicyReload;
use portcullis_policy::Scope;
use serde_json::{Value, json};

use super::super::client::{Client, Reach};
use super::super::database::block_on;
use super::super::print::{clean, stdout};
use super::offline::{Surroundings, name_of, read};
use super::test::write_report;

/// Interval between two looks at the files.
const LOOK: Duration = Duration::from_millis(300);

/// Limit of the time until the host answers.
const START: Duration = Duration::from_secs(30);

/// Most files of the sources whose time is read.
const MOST_FILES: usize = 5_000;

/// The policy, and what is around it.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The compiled policy
    #[arg(value_name = "FILE.wasm")]
    policy: PathBuf,
    /// A command of the shell that builds the policy: run at the start, and when a file in --sources changes
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
    /// The folder of the sources, in which the command runs
    #[arg(long, value_name = "DIR", default_value = ".", requires = "build")]
    sources: PathBuf,
    /// Run these cases at the start and after each change
    #[arg(long, value_name = "CASES.toml")]
    cases: Option<PathBuf>,
    /// The address table, in the format of Kamailio's `address_file` [default: group 200 is 127.0.0.0/8]
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
    /// Settings: a TOML or JSON file, or KEY=VALUE; can be given several times
    #[arg(long, value_name = "FILE|KEY=VALUE")]
    settings: Vec<String>,
    /// The address of the host, over UDP and TCP
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5060")]
    listen: SocketAddr,
    /// The address of the callee, to which the host relays
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5080")]
    callee: SocketAddr,
}

pub(super) fn run(args: &Args, found: (Config, Option<PathBuf>)) -> anyhow::Result<ExitCode> {
    let around = Surroundings::new(found);
    if !args.listen.ip().is_loopback() || !args.callee.ip().is_loopback() {
        bail!("only on loopback: a host for development has no token, and relays for everyone");
    }
    build(args);
    if !args.policy.exists() {
        bail!(
            "{} does not exist: build it, or give the command that does with --build",
            args.policy.display()
        );
    }
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let settings = around.settings_table("default", &args.settings)?;
    let text = config_text(args, folder.path(), &settings)?;
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, &text)?;
    let config = Config::load(&file)?;
    let answer = ["answer".into(), args.callee.to_string().into()];
    let _callee = Running::start(&answer)?;
    let serve = ["serve".into(), "--config".into(), file.into_os_string()];
    let mut host = Running::start(&serve)?;
    let client = host.client(&config)?;
    let decisions = Client::new(&config, &Reach::default())?;
    std::thread::Builder::new()
        .name("decisions".to_owned())
        .spawn(move || show_decisions(&decisions))?;
    let Args { listen, callee, .. } = args;
    eprintln!(
        "serving {} on {listen}, callee on {callee}; Ctrl-C ends both",
        args.policy.display()
    );
    eprintln!("try: portcullis probe sip:bob@example.com --target udp:{listen} --method INVITE");
    run_cases(args, &around);
    block_on(follow(args, &around, &client, &mut host))??;
    Ok(ExitCode::SUCCESS)
}

/// Looks for changes until Ctrl-C, or until the host ends.
async fn follow(
    args: &Args,
    around: &Surroundings,
    client: &Client,
    host: &mut Running,
) -> anyhow::Result<()> {
    let mut seen = Seen::now(args);
    loop {
        tokio::select! {
            ended = tokio::signal::ctrl_c() => return Ok(ended?),
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Some(status) = host.0.try_wait()? {
            bail!("the host has ended: {status}");
        }
        let now = Seen::now(args);
        if now.sources != seen.sources {
            build(args);
        }
        let now = Seen::now(args);
        let is_new = now.policy != seen.policy;
        if is_new && now.policy.is_some() {
            reload(client);
        }
        if is_new || now.cases != seen.cases {
            run_cases(args, around);
        }
        seen = now;
    }
}

/// The state of the files.
#[derive(PartialEq, Eq)]
struct Seen {
    policy: Option<(SystemTime, u64)>,
    cases: Option<(SystemTime, u64)>,
    /// The newest file, and the number of files.
    sources: Option<(SystemTime, usize)>,
}

impl Seen {
    fn now(args: &Args) -> Self {
        let sources = args.build.as_ref().and_then(|_| newest(&args.sources));
        Self {
            policy: state(&args.policy),
            cases: args.cases.as_deref().and_then(state),
            sources,
        }
    }
}

fn state(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The newest source below a folder, and the number of sources. What builds write is left out: `target`, `node_modules`, hidden folders, and
/// WebAssembly files.
fn newest(folder: &Path) -> Option<(SystemTime, usize)> {
    let mut folders = vec![folder.to_owned()];
    let (mut last, mut count) = (None, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_written = ["target", "node_modules", "build", "dist"].contains(&&*name);
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() && !is_written && !name.starts_with('.') {
                folders.push(entry.path());
            }
            if !metadata.is_file() || name.ends_with(".wasm") || name == "Cargo.lock" {
                continue;
            }
            last = last.max(metadata.modified().ok());
            count += 1;
            if count >= MOST_FILES {
                return last.map(|last| (last, count));
            }
        }
    }
    last.map(|last| (last, count))
}

fn build(args: &Args) {
    let Some(command) = &args.build else {
        return;
    };
    eprintln!("building: {}", clean(command));
    let begun = Instant::now();
    let shell = Command::new("sh")
        .args(["-c", command])
        .current_dir(&args.sources)
        .status();
    match shell {
        Ok(status) if status.success() => eprintln!("built in {:.1?}", begun.elapsed()),
        Ok(status) => eprintln!("the build has failed ({status}); the last policy stays"),
        Err(error) => eprintln!("the build cannot be started: {error}"),
    }
}

fn reload(client: &Client) {
    let reloaded: anyhow::Result<PolicyReload> = client.call("policy.reload", json!(["default"]));
    match reloaded {
        Ok(reloaded) => eprintln!("{}: generation {}", reloaded.status, reloaded.generation),
        Err(error) => eprintln!(
            "not reloaded, the last policy stays: {}",
            clean(&format!("{error:#}"))
        ),
    }
}

fn run_cases(args: &Args, around: &Surroundings) {
    let Some(cases) = &args.cases else {
        return;
    };
    let run = || {
        let suite = Suite::read(cases)?;
        let runtime = around.runtime()?;
        let policy = suite.load(&runtime, &name_of(&args.policy), &read(&args.policy)?)?;
        let report = suite.run(policy, Scope::operator);
        write_report(&mut stdout(), &report, &cases.display().to_string(), false)?;
        anyhow::Ok(())
    };
    if let Err(error) = run() {
        eprintln!("{}", clean(&format!("{error:#}")));
    }
}

/// Prints a line for each message that the host handles.
fn show_decisions(client: &Client) {
    let Ok(lines) = client.follow("/v1/trace", &[]) else {
        return;
    };
    for line in lines.lines().map_while(Result::ok) {
        if let Ok(entry) = serde_json::from_str::<Value>(&line)
            && let Some(text) = decision(&entry)
        {
            eprintln!("{}", clean(&text));
        }
    }
}

/// `INVITE sip:bob@example.com from 127.0.0.1:40000: rejected 401 Address not authorised, policy.wasm generation 2, 35 µs`
fn decision(entry: &Value) -> Option<String> {
    let line = entry["first_line"].as_str()?;
    let line = line.strip_suffix(" SIP/2.0").unwrap_or(line);
    let mut text = line.to_owned();
    if let Some(source) = entry["source"].as_str() {
        text += &format!(" from {source}");
    }
    text += &format!(": {}", entry["outcome"].as_str()?);
    for key in ["code", "reason", "next"] {
        match &entry[key] {
            Value::Null => {}
            Value::String(value) if value.is_empty() => {}
            Value::String(value) if key == "next" => text += &format!(" to {value}"),
            Value::String(value) => text += &format!(" {value}"),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                text += &format!(" {}", entry[key]);
            }
        }
    }
    for asked in entry["asked"].as_array().into_iter().flatten() {
        let policy = asked["policy"].as_str().unwrap_or_default();
        let verdict = asked["verdict"].as_str().unwrap_or_default();
        text += &format!(
            "; {policy} generation {}: {verdict}, {} µs",
            asked["generation"], asked["microseconds"]
        );
    }
    Some(text)
}

/// The configuration of the host.
fn config_text(args: &Args, folder: &Path, settings: &Value) -> anyhow::Result<String> {
    let addresses = match &args.address_file {
        Some(file) => std::path::absolute(file)?,
        None => {
            let file = folder.join("addresses");
            std::fs::write(&file, "200 127.0.0.0 8 0 Loopback\n")?;
            file
        }
    };
    // The port is free now, and a host that cannot have it says so.
    let control = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let settings = match settings.is_object() {
        true => settings.clone(),
        false => json!({}),
    };
    let listen = [
        format!("udp:{}", args.listen),
        format!("tcp:{}", args.listen),
    ];
    let config = json!({
        "listen": listen,
        "workers": 1,
        "database": { "url": format!("sqlite:{}", folder.join("dev.db").display()), "address-file": addresses },
        "policy": { "file": std::path::absolute(&args.policy)?, "settings": settings },
        "relay": { "next-hop": format!("sip:{}", args.callee) },
        "control": { "listen": control, "token-file": folder.join("token") },
        "log": { "level": "warn,policy=debug" },
    });
    Ok(toml::to_string(&toml::Value::try_from(&config)?)?)
}

/// A process that ends with this one.
struct Running(Child);

impl Running {
    fn start(words: &[OsString]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the program has no file")?;
        let child = Command::new(program).args(words).spawn();
        Ok(Self(child.context("a process cannot be started")?))
    }

    /// Waits until the host answers. It generates its token at the start, so that each attempt reads the token again.
    fn client(&mut self, config: &Config) -> anyhow::Result<Client> {
        let end = Instant::now() + START;
        loop {
            let client = Client::new(config, &Reach::default())?;
            if client.call::<Value>("portcullis.status", json!([])).is_ok() {
                return Ok(client);
            }
            if let Some(status) = self.0.try_wait()? {
                bail!("the host does not start: {status}");
            }
            if Instant::now() >= end {
                bail!("the host does not answer within {START:?}");
            }
            std::thread::sleep(LOOK / 3);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_one_line() {
        let entry = json!({
            "first_line": "INVITE sip:b@c SIP/2.0", "source": "127.0.0.1:5070", "outcome": "rejected", "code": 401, "reason": "No",
            "next": null, "asked": [{"policy": "acl.wasm", "generation": 2, "verdict": "reject 401 No", "microseconds": 12}],
        });
        assert_eq!(
            decision(&entry).as_deref(),
            Some(
                "INVITE sip:b@c from 127.0.0.1:5070: rejected 401 No; acl.wasm generation 2: reject 401 No, 12 µs"
            )
        );
        assert_eq!(decision(&json!({"left_out": 3})), None);
    }

    #[test]
    fn what_a_build_writes_is_no_source() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        };
        assert_eq!(newest(folder.path()), None);
        for name in [
            "src/lib.rs",
            "Cargo.toml",
            "target/x.rs",
            "p.wasm",
            ".git/HEAD",
            "Cargo.lock",
        ] {
            write(name);
        }
        assert_eq!(newest(folder.path()).map(|(_, count)| count), Some(2));
    }
}
