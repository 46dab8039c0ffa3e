//! `portcullis policy dev`: a host on loopback with a callee behind it, which follows the policy while one writes it.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use portcullis_author::file_of;
use portcullis_cases::Suite;
use portcullis_config::{Config, DATABASE_VARIABLE};
use portcullis_control::commands::policy::PolicyReload;
use portcullis_policy::Scope;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::client::Client;
use super::super::database::block_on;
use super::super::print::{clean, stdout};
use super::offline::{Surroundings, name_of, read};
use super::test::write_report;

/// Interval between two looks at the files.
const LOOK: Duration = Duration::from_millis(300);

/// Limit of the time until the host answers. It compiles the policy first, which takes minutes for an interpreter on a busy machine.
const START: Duration = Duration::from_secs(300);

/// The cases of a policy in its directory.
const CASES: &str = "cases.toml";

/// Folders that builds write.
const WRITTEN: [&str; 5] = ["target", "node_modules", "build", "dist", "__pycache__"];

/// Most files of the sources whose time is read.
const MOST_FILES: usize = 5_000;

/// Limits of `[policy]` that a host for development takes from the configuration, because a policy may need other ones than the defaults.
const LIMITS: [&str; 12] = [
    "deadline",
    "memory",
    "table-elements",
    "stack",
    "host-call",
    "log-lines",
    "log-line",
    "instances",
    "reuse",
    "compile-time",
    "compile-memory",
    "module",
];

/// The policy, and what is around it.
#[derive(Clone, Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The compiled policy [default: that of the policy in this directory, which is built as by `policy build`, with its cases.toml]
    #[arg(value_name = "FILE.wasm")]
    policy: Option<PathBuf>,
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

/// What is built, served and tested.
struct DevSession<'a> {
    args: &'a Args,
    policy: PathBuf,
    build: Option<Build<'a>>,
    cases: Option<PathBuf>,
}

/// How the policy is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build<'a> {
    /// With a command of the shell.
    Shell(&'a str),
    /// As `portcullis policy build` does.
    Own,
}

pub(super) fn run(args: &Args, found: (Config, Option<PathBuf>)) -> anyhow::Result<ExitCode> {
    let around = Surroundings::new(found);
    let work = &DevSession::of(args)?;
    if !args.listen.ip().is_loopback() || !args.callee.ip().is_loopback() {
        bail!(
            "only on loopback: a host for development relays for everyone; --listen and --callee name addresses of 127.0.0.0/8, or ::1"
        );
    }
    work.build_saved();
    if !work.policy.exists() {
        bail!(
            "{} does not exist: build it, or give the command that does with --build",
            work.policy.display()
        );
    }
    let folder = tempfile::tempdir().context("no temporary folder can be made")?;
    let settings = around.settings_table("default", &args.settings)?;
    let limits = limits(around.file.as_deref())?;
    let text = config_text(work, folder.path(), &settings, limits)?;
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, &text)?;
    let config = Config::load(&file)?;
    // What is saved while the host starts is a change.
    let seen = Seen::now(work);
    block_on(serve(work, &around, (&config, file), seen))??;
    Ok(ExitCode::SUCCESS)
}

/// Serves the policy until a signal ends it.
async fn serve(
    work: &DevSession<'_>,
    around: &Surroundings,
    (config, file): (&Config, PathBuf),
    mut seen: Seen,
) -> anyhow::Result<()> {
    let Args { listen, callee, .. } = work.args;
    let mut ends = Ends::new()?;
    let mut peer = Running::start("callee", &["answer".into(), callee.to_string().into()])?;
    let words = ["serve".into(), "--config".into(), file.into_os_string()];
    let mut host = Running::start("host", &words)?;
    let shown = work.policy.strip_prefix(".").unwrap_or(&work.policy);
    let shown = shown.display();
    eprintln!("starting a host, which compiles {shown}");
    let Some(client) = host.client(config, &mut ends).await? else {
        return Ok(());
    };
    peer.check()?;
    let decisions = Client::of_own_host(config)?;
    std::thread::Builder::new()
        .name("decisions".to_owned())
        .spawn(move || show_decisions(&decisions))?;
    eprintln!("serving {shown} on {listen}, callee on {callee}; Ctrl-C ends both");
    eprintln!("try: portcullis probe sip:bob@example.com --target udp:{listen} --method INVITE");
    work.run_cases(around);
    loop {
        tokio::select! {
            () = ends.next() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
        host.check()?;
        peer.check()?;
        seen = work.follow(seen, around, &client);
    }
}

impl<'a> DevSession<'a> {
    fn of(args: &'a Args) -> anyhow::Result<Self> {
        let given = args.build.as_deref().map(Build::Shell);
        let (policy, build) = match &args.policy {
            Some(policy) => (policy.clone(), given),
            None => (file_of(&args.sources)?, given.or(Some(Build::Own))),
        };
        let own = args.policy.is_none().then(|| args.sources.join(CASES));
        let own = own.filter(|cases| cases.is_file());
        let cases = args.cases.clone().or(own);
        Ok(Self {
            args,
            policy,
            build,
            cases,
        })
    }

    /// Builds, and once more if a source has changed meanwhile: it may have been saved after the compiler had read it. A build that writes among
    /// its sources runs twice.
    fn build_saved(&self) {
        let before = Seen::now(self).sources;
        self.build();
        if Seen::now(self).sources != before {
            self.build();
        }
    }

    fn build(&self) {
        let mut command = match self.build {
            None => return,
            Some(Build::Shell(command)) => {
                eprintln!("building: {}", clean(command));
                let mut shell = Command::new("sh");
                shell.args(["-c", command]);
                shell
            }
            Some(Build::Own) => {
                let program = std::env::current_exe();
                let mut own = Command::new(program.unwrap_or_else(|_| "portcullis".into()));
                own.args(["policy", "build"]);
                own
            }
        };
        let begun = Instant::now();
        match command.current_dir(&self.args.sources).status() {
            Ok(status) if status.success() => eprintln!("built in {:.1?}", begun.elapsed()),
            Ok(status) => eprintln!("the build has failed ({status}); the last policy stays"),
            Err(error) => eprintln!("the build cannot be started: {error}"),
        }
    }

    fn run_cases(&self, around: &Surroundings) {
        let Some(cases) = &self.cases else {
            return;
        };
        let run = || {
            let suite = Suite::read(cases)?;
            let runtime = around.runtime()?;
            let policy = suite.load(&runtime, &name_of(&self.policy), &read(&self.policy)?)?;
            let report = suite.run(policy, Scope::operator);
            write_report(&mut stdout(), &report, &cases.display().to_string(), false)?;
            anyhow::Ok(())
        };
        if let Err(error) = run() {
            eprintln!("{}", clean(&format!("{error:#}")));
        }
    }

    /// Does what the changes of files since the last look ask for.
    fn follow(&self, seen: Seen, around: &Surroundings, client: &Client) -> Seen {
        if Seen::now(self).sources != seen.sources {
            self.build_saved();
        }
        let now = Seen::now(self);
        let is_new = now.policy != seen.policy;
        if is_new && now.policy.is_some() {
            reload(client);
        }
        if is_new || now.cases != seen.cases {
            self.run_cases(around);
        }
        now
    }
}

/// The signals that end the command: Ctrl-C, the end of its terminal, and `kill`. Ended by the default action of the last two, it would leave
/// the host and the callee behind, on their ports.
struct Ends {
    interrupt: Signal,
    hangup: Signal,
    terminate: Signal,
}

impl Ends {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Completes when there is such a signal.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.terminate.recv() => {}
        }
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
    fn now(work: &DevSession<'_>) -> Self {
        let sources = work.build.and_then(|_| newest(&work.args.sources));
        Self {
            policy: state(&work.policy),
            cases: work.cases.as_deref().and_then(state),
            sources,
        }
    }
}

fn state(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The newest source below a folder, and the number of sources. What builds and editors write is left out: WebAssembly files, the folders of
/// [`WRITTEN`], and what is hidden or a backup.
fn newest(folder: &Path) -> Option<(SystemTime, usize)> {
    let mut folders = vec![folder.to_owned()];
    let (mut last, mut count) = (None, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') || name.ends_with('~') {
                continue;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() && !WRITTEN.contains(&&*name) {
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

/// The limits of `[policy]` in a configuration file.
fn limits(file: Option<&Path>) -> anyhow::Result<toml::Table> {
    let Some(file) = file else {
        return Ok(toml::Table::new());
    };
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut all: toml::Table = toml::from_str(&text)?;
    let Some(toml::Value::Table(mut limits)) = all.remove("policy") else {
        return Ok(toml::Table::new());
    };
    limits.retain(|key, _| LIMITS.contains(&key));
    Ok(limits)
}

/// The configuration of the host.
fn config_text(
    work: &DevSession<'_>,
    folder: &Path,
    settings: &Value,
    limits: toml::Table,
) -> anyhow::Result<String> {
    let args = work.args;
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
        "policy": { "file": std::path::absolute(&work.policy)?, "settings": settings },
        "relay": { "next-hop": format!("sip:{}", args.callee) },
        "control": { "listen": control, "token-file": folder.join("token") },
        "log": { "level": "warn,policy=debug" },
    });
    let mut config = toml::Table::try_from(&config)?;
    if let Some(toml::Value::Table(policy)) = config.get_mut("policy") {
        policy.extend(limits);
    }
    Ok(toml::to_string(&config)?)
}

/// A process that ends with this one.
struct Running {
    name: &'static str,
    child: Child,
}

impl Running {
    fn start(name: &'static str, words: &[OsString]) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the program has no file")?;
        let mut command = Command::new(program);
        // The variable is for another host, and would replace the tables of this one.
        command.args(words).env_remove(DATABASE_VARIABLE);
        let child = command.spawn();
        let child = child.with_context(|| format!("the {name} cannot be started"))?;
        Ok(Self { name, child })
    }

    /// # Errors
    /// If the process has ended.
    fn check(&mut self) -> anyhow::Result<()> {
        let name = self.name;
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "the {name} has ended ({status}), and says why above; if another program has its address, --listen and --callee name others"
            ),
        }
    }

    /// Waits until the host answers; `None` if a signal ends the command before. The host generates its token at the start, so that each attempt
    /// reads the token again.
    async fn client(&mut self, config: &Config, ends: &mut Ends) -> anyhow::Result<Option<Client>> {
        let end = Instant::now() + START;
        loop {
            let client = Client::of_own_host(config)?;
            let Err(refused) = client.call::<Value>("portcullis.status", json!([])) else {
                return Ok(Some(client));
            };
            self.check()?;
            if Instant::now() >= end {
                return Err(refused.context(format!("the host does not answer within {START:?}")));
            }
            tokio::select! {
                () = ends.next() => return Ok(None),
                () = tokio::time::sleep(LOOK / 3) => {}
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
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
    fn a_directory_says_what_is_built_and_tested() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let parse = |words: &[&str]| {
            let words = ["dev"].iter().chain(words);
            <Line as clap::Parser>::try_parse_from(words).unwrap().args
        };
        let folder = tempfile::tempdir().unwrap();
        let sources = folder.path().to_str().unwrap();
        let of_folder = |args: &Args| Args {
            sources: sources.into(),
            ..args.clone()
        };
        let none = of_folder(&parse(&[]));
        let error = DevSession::of(&none).err().unwrap().to_string();
        assert!(
            error.contains("`portcullis policy new` makes one"),
            "{error}"
        );
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("policy.toml", "language = \"zig\"\nname = \"acl\"\n");
        let work = DevSession::of(&none).unwrap();
        assert_eq!(work.policy, folder.path().join("acl.wasm"));
        assert_eq!((work.build, &work.cases), (Some(Build::Own), &None));
        write("cases.toml", "");
        let work = DevSession::of(&none).unwrap();
        assert_eq!(work.cases, Some(folder.path().join("cases.toml")));
        let other = of_folder(&parse(&["--build", "make", "--cases", "more.toml"]));
        let work = DevSession::of(&other).unwrap();
        assert_eq!(work.build, Some(Build::Shell("make")));
        assert_eq!(work.cases, Some("more.toml".into()));
        // A file is served as it is.
        let file = of_folder(&parse(&["x.wasm"]));
        let work = DevSession::of(&file).unwrap();
        assert_eq!(
            (work.policy, work.build, work.cases),
            ("x.wasm".into(), None, None)
        );
    }

    #[test]
    fn limits_of_the_configuration_apply() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portcullis.toml");
        std::fs::write(
            &file,
            "[policy]\nmodule = \"32MiB\"\nfile = \"other.wasm\"\nmode = \"monitor\"\n",
        )
        .unwrap();
        let found = limits(Some(&file)).unwrap();
        let args = Args {
            policy: Some("x.wasm".into()),
            build: None,
            sources: ".".into(),
            cases: None,
            address_file: None,
            settings: Vec::new(),
            listen: "127.0.0.1:5060".parse().unwrap(),
            callee: "127.0.0.1:5080".parse().unwrap(),
        };
        let work = DevSession::of(&args).unwrap();
        let text = config_text(&work, folder.path(), &json!(null), found).unwrap();
        let config: toml::Table = toml::from_str(&text).unwrap();
        let policy = &config["policy"];
        assert_eq!(policy["module"].as_str(), Some("32MiB"));
        assert!(policy["file"].as_str().unwrap().ends_with("/x.wasm"));
        assert_eq!(policy.get("mode"), None);
        std::fs::write(&file, &text).unwrap();
        assert!(Config::load(&file).is_ok());
        assert!(limits(None).unwrap().is_empty());
    }

    #[test]
    fn what_builds_and_editors_write_is_no_source() {
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
            "src/.lib.rs.swp",
            "src/lib.rs~",
            "__pycache__/x.pyc",
        ] {
            write(name);
        }
        assert_eq!(newest(folder.path()).map(|(_, count)| count), Some(2));
    }
}
