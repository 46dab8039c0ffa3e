//! A running `portcullis serve`, started with a configuration file of its own in a temporary directory.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lease::Lease;
use crate::sip::Caller;
use crate::{binary, policy, wait};

/// Configuration of a host to be started.
#[derive(Debug)]
pub struct Builder {
    lease: Lease,
    listen: Vec<String>,
    policy: PathBuf,
    database: Option<String>,
    rows: Vec<String>,
    sections: Vec<(String, Vec<String>)>,
    workers: usize,
    open_files: Option<(usize, usize)>,
    environment: Vec<(String, String)>,
    has_own_binary: bool,
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    child: Child,
    /// The processes that have taken over one after another.
    successors: Vec<u32>,
    folder: TempDir,
    lease: Lease,
    policy: PathBuf,
}

impl Builder {
    /// A host on 127.a.b.1:5060, UDP and TCP, with the policy of the reference page and an empty SQLite table.
    pub fn new() -> Self {
        let lease = Lease::new();
        let sip = lease.addr(1, 5060);
        Self {
            listen: vec![format!("udp:{sip}"), format!("tcp:{sip}")],
            lease,
            policy: policy("address-acl"),
            database: None,
            rows: Vec::new(),
            sections: Vec::new(),
            workers: 1,
            open_files: None,
            environment: Vec::new(),
            has_own_binary: false,
        }
    }

    /// Returns the network of the host and its callers.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Sets the number of workers.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets another compiled policy. The host gets a copy of the file, so that a test can replace it.
    #[must_use]
    pub fn policy(mut self, file: impl Into<PathBuf>) -> Self {
        self.policy = file.into();
        self
    }

    /// Sets the database, instead of an SQLite file of its own.
    #[must_use]
    pub fn database(mut self, url: &str) -> Self {
        self.database = Some(url.into());
        self
    }

    /// Adds a listener, in the form of the configuration file.
    #[must_use]
    pub fn listen(mut self, listen: &str) -> Self {
        self.listen.push(listen.into());
        self
    }

    /// Sets the address that peers see of the first UDP socket, as behind a load balancer.
    #[must_use]
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.listen[0].push_str(&format!(" advertise {addr}"));
        self
    }

    /// Adds a row to the table before the start, with the arguments of `portcullis address add`.
    #[must_use]
    pub fn row(mut self, words: &str) -> Self {
        self.rows.push(words.into());
        self
    }

    /// Adds a line to a section of the configuration file. It replaces a default of the same key.
    #[must_use]
    pub fn set(mut self, section: &str, line: &str) -> Self {
        match self.sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, lines)) => lines.push(line.into()),
            None => self.sections.push((section.into(), vec![line.into()])),
        }
        self
    }

    /// Sets the soft and the hard limit of open files.
    #[must_use]
    pub fn open_files(mut self, soft: usize, hard: usize) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Starts the program by a link `portcullis` in the host's directory, which a test can replace.
    #[must_use]
    pub fn own_binary(mut self) -> Self {
        self.has_own_binary = true;
        self
    }

    /// Writes the files and starts the host; returns when it is ready.
    pub fn start(self) -> Host {
        let mut host = self.launch();
        host.wait_until_ready();
        host
    }

    /// Writes the files and starts the host, without waiting for it.
    pub fn launch(self) -> Host {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let policy = folder.path().join("policy.wasm");
        std::fs::copy(&self.policy, &policy).expect("the policy can be copied");
        std::fs::write(folder.path().join("portcullis.toml"), self.config(&policy))
            .expect("the configuration can be written");
        for row in &self.rows {
            let output = command(folder.path())
                .args(["address", "add"])
                .args(row.split_whitespace())
                .output()
                .expect("portcullis runs");
            assert!(
                output.status.success(),
                "address add {row}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        let log = std::fs::File::create(folder.path().join("log")).expect("a log can be written");
        let mut serve = match self.open_files {
            None if self.has_own_binary => {
                let link = folder.path().join("portcullis");
                std::os::unix::fs::symlink(binary(), &link).expect("a link can be made");
                in_folder(Command::new(link), folder.path())
            }
            None => command(folder.path()),
            Some((soft, hard)) => {
                let mut prlimit = Command::new("prlimit");
                prlimit.arg(format!("--nofile={soft}:{hard}")).arg(binary());
                in_folder(prlimit, folder.path())
            }
        };
        let child = serve
            .arg("serve")
            .envs(self.environment)
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("portcullis starts");
        Host {
            child,
            successors: Vec::new(),
            folder,
            lease: self.lease,
            policy,
        }
    }

    fn config(&self, policy: &Path) -> String {
        let mut sections = vec![
            (
                "database".to_owned(),
                vec![format!(
                    "url = {:?}",
                    self.database.as_deref().unwrap_or("sqlite:table.db")
                )],
            ),
            (
                "policy".to_owned(),
                vec![
                    format!("file = {policy:?}"),
                    // Wall time, and the machines of tests are shared.
                    "deadline = \"100ms\"".to_owned(),
                ],
            ),
            (
                "sip".to_owned(),
                // Tests send as many requests from one address as thousands of sources usually do.
                vec!["answers-per-second = 0".to_owned()],
            ),
            (
                "transactions".to_owned(),
                // Tests that end a host do not wait for load balancers.
                vec![
                    "drain-notice = \"0s\"".to_owned(),
                    "drain = \"2s\"".to_owned(),
                ],
            ),
            (
                "control".to_owned(),
                vec![format!("listen = \"{}\"", self.lease.addr(1, 8060))],
            ),
            (
                "fleet".to_owned(),
                // Hosts of a test may use one database, and all have the host name of this machine.
                vec![format!("name = \"{}\"", self.lease.ip(1))],
            ),
        ];
        for (name, lines) in &self.sections {
            match sections.iter_mut().find(|(n, _)| n == name) {
                Some((_, all)) => {
                    // The lines of a test take precedence over the defaults of all tests.
                    let key = |line: &str| line.split('=').next().map(str::trim).map(str::to_owned);
                    all.retain(|own| !lines.iter().any(|line| key(line) == key(own)));
                    all.extend(lines.iter().cloned());
                }
                None => sections.push((name.clone(), lines.clone())),
            }
        }
        let mut text = format!("workers = {}\nlisten = {:?}\n", self.workers, self.listen);
        for (name, lines) in sections {
            text.push_str(&format!("\n[{name}]\n{}\n", lines.join("\n")));
        }
        text
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Where the host listens for SIP.
    pub fn sip(&self) -> SocketAddr {
        self.lease.addr(1, 5060)
    }

    /// The network that the host and its callers live in.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Adds a destination to the table of the dispatcher, replaces it, and removes it: the user of the database may do all of that.
    ///
    /// # Panics
    /// If the host refuses one of these.
    pub fn changes_a_destination(&self) {
        self.run("dispatcher add 1 sip:192.0.2.1");
        let (_, rows) = self.get("/v1/dispatcher/rows").expect("the host answers");
        let rows: serde_json::Value = serde_json::from_str(&rows).expect("JSON");
        let path = format!("/v1/dispatcher/rows/{}", rows[0]["id"]);
        let row = &b"{\"set\": 1, \"uri\": \"sip:192.0.2.2\"}"[..];
        let replaced = self.ask(None, "PUT", &path, (Some("application/json"), row));
        let said = String::from_utf8_lossy(&replaced.2);
        assert_eq!(replaced.0, 200, "{said}");
        self.run("dispatcher rm 1 sip:192.0.2.2");
    }

    /// The directory that it runs in: `portcullis.toml`, `policy.wasm`, `table.db`, `log`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The policy file that it watches.
    pub fn policy_file(&self) -> &Path {
        &self.policy
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the log can be read")
    }

    /// Returns the warnings and errors in the log, except the one about the user that runs the tests.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.log();
        let is_one = |line: &&str| {
            (line.contains(" WARN ") || line.contains(" ERROR ")) && !line.contains("runs_as_root")
        };
        log.lines().filter(is_one).map(str::to_owned).collect()
    }

    /// Waits until the log contains a text. The log is written by a thread of its own.
    ///
    /// # Panics
    /// When it does not come.
    pub fn wait_for_log(&self, text: &str) {
        let what = format!("the log has {text:?}");
        wait::until(&what, || self.log().contains(text).then_some(()));
    }

    /// Returns its process id: after an upgrade, that of the new process.
    pub fn pid(&self) -> u32 {
        let last = self.successors.last().copied();
        last.unwrap_or_else(|| self.child.id())
    }

    /// Upgrades the host (SIGUSR2); returns when a new process has taken over.
    ///
    /// # Panics
    /// If none does.
    pub fn upgrade(&mut self) {
        let upgraded = |log: &str| -> Vec<u32> {
            let lines = log.lines().filter(|l| l.contains("event=\"upgraded\""));
            let words = lines.filter_map(|line| line.split("pid=").nth(1)?.split(' ').next());
            words.filter_map(|pid| pid.parse().ok()).collect()
        };
        self.signal("USR2");
        let pid = wait::until("a new process serves", || {
            let log = self.log();
            assert!(!log.contains("upgrade_failed"), "{log}");
            upgraded(&log).get(self.successors.len()).copied()
        });
        self.successors.push(pid);
    }

    /// The memory that its process has in use, in MiB.
    pub fn memory_mib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the host runs");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next())
            .expect("a process has memory");
        kib.parse::<u64>().expect("VmRSS is a number") / 1024
    }

    /// A caller on 127.a.b.`source` over UDP.
    pub fn udp(&self, source: u8) -> Caller {
        Caller::udp(self.lease.ip(source), self.sip())
    }

    /// A caller on 127.a.b.`source` over TCP.
    pub fn tcp(&self, source: u8) -> Caller {
        Caller::tcp(self.lease.ip(source), self.sip())
    }

    /// Runs `portcullis` with these arguments in the host's directory.
    pub fn command(&self, words: &str) -> Output {
        command(self.folder.path())
            .args(words.split_whitespace())
            .output()
            .expect("portcullis runs")
    }

    /// The same with this token.
    pub fn command_as(&self, token: &str, words: &str) -> Output {
        command(self.folder.path())
            .args(words.split_whitespace())
            .env("PORTCULLIS_TOKEN", token)
            .output()
            .expect("portcullis runs")
    }

    /// The same; returns standard output, and panics if the command fails.
    pub fn run(&self, words: &str) -> String {
        let output = self.command(words);
        assert!(
            output.status.success(),
            "portcullis {words}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("portcullis prints UTF-8")
    }

    /// Returns the token that the host has generated; `None` if the configuration has one, or none is needed.
    pub fn token(&self) -> Option<String> {
        let token = std::fs::read_to_string(self.folder.path().join("portcullis.token"));
        token.ok().map(|token| token.trim().to_owned())
    }

    /// The value of Authorization with that token.
    fn bearer(&self) -> Option<String> {
        self.token().map(|token| format!("Bearer {token}"))
    }

    /// A JSON-RPC call at `/RPC`: the whole answer.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        let url = format!("http://{}/RPC", self.lease.addr(1, 8060));
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut post = agent().post(&url);
        if let Some(bearer) = self.bearer() {
            post = post.header("Authorization", bearer);
        }
        let mut answer = post.send_json(call).expect("the control port answers");
        answer.body_mut().read_json().expect("the answer is JSON")
    }

    /// Reads a page of the control port: status and text.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let url = format!("http://{}{path}", self.lease.addr(1, 8060));
        let mut get = agent().get(&url);
        if let Some(bearer) = self.bearer() {
            get = get.header("Authorization", bearer);
        }
        let mut answer = get.call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        Some((answer.status().as_u16(), text))
    }

    /// Reads a page of the control port in a media type that this `Accept` allows: status, media type and text.
    pub fn read(&self, path: &str, accept: &str) -> (u16, String, String) {
        let url = format!("http://{}{path}", self.lease.addr(1, 8060));
        let mut get = agent().get(&url).header("Accept", accept);
        if let Some(bearer) = self.bearer() {
            get = get.header("Authorization", bearer);
        }
        let mut answer = get.call().expect("the control port answers");
        let media = answer.headers().get("content-type");
        let media = media.and_then(|media| media.to_str().ok());
        let media = media.unwrap_or_default().to_owned();
        let text = answer.body_mut().read_to_string();
        let text = text.expect("the answer is whole");
        (answer.status().as_u16(), media, text)
    }

    /// Sends a request to the control port, with this token or that of the host: status, media type and body.
    pub fn ask(
        &self,
        token: Option<&str>,
        method: &str,
        path: &str,
        (media, body): (Option<&str>, &[u8]),
    ) -> (u16, Option<String>, Vec<u8>) {
        let url = format!("http://{}{path}", self.lease.addr(1, 8060));
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        let bearer = token.map(|token| format!("Bearer {token}"));
        if let Some(bearer) = bearer.or_else(|| self.bearer()) {
            request = request.header("Authorization", bearer);
        }
        if let Some(media) = media {
            request = request.header("Content-Type", media);
        }
        let request = request.body(body).expect("the request is whole");
        let mut answer = agent().run(request).expect("the control port answers");
        let media = answer.headers().get("content-type");
        let media = media.map(|media| media.to_str().expect("it is ASCII").to_owned());
        let body = answer.body_mut().read_to_vec();
        let body = body.expect("the answer is whole");
        (answer.status().as_u16(), media, body)
    }

    /// Sends a request with these header fields to the control port, with the token of the host. `Content-Type` is one of the fields.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> ureq::http::Response<Vec<u8>> {
        let url = format!("http://{}{path}", self.lease.addr(1, 8060));
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        if let Some(bearer) = self.bearer() {
            request = request.header("Authorization", bearer);
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(body).expect("the request is whole");
        let answer = agent().run(request).expect("the control port answers");
        answer.map(|mut body| body.read_to_vec().expect("the answer is whole"))
    }

    /// Follows what a path of the control port streams, with this token or that of the host.
    pub fn follow(&self, token: Option<&str>, path: &str) -> impl BufRead + use<> {
        let url = format!("http://{}{path}", self.lease.addr(1, 8060));
        let mut get = agent().get(&url);
        let bearer = token.map(|token| format!("Bearer {token}"));
        if let Some(bearer) = bearer.or_else(|| self.bearer()) {
            get = get.header("Authorization", bearer);
        }
        let answer = get.call().expect("the control port answers");
        assert_eq!(answer.status(), 200);
        BufReader::new(answer.into_body().into_reader())
    }

    /// The same after the event with this id, for a stream of events.
    pub fn follow_after(&self, id: &str, path: &str) -> impl BufRead + use<> {
        let url = format!("http://{}{path}", self.lease.addr(1, 8060));
        let mut get = agent().get(&url).header("Last-Event-ID", id);
        if let Some(bearer) = self.bearer() {
            get = get.header("Authorization", bearer);
        }
        let answer = get.call().expect("the control port answers");
        assert_eq!(answer.status(), 200);
        BufReader::new(answer.into_body().into_reader())
    }

    /// Pushes a policy to a seat over HTTP: status and answer.
    pub fn push(&self, seat: &str, query: &str, policy: &[u8]) -> (u16, Value) {
        let control = self.lease.addr(1, 8060);
        let url = format!("http://{control}/v1/policies/{seat}?{query}");
        let mut post = agent()
            .post(&url)
            .header("Content-Type", "application/wasm")
            // The body of a push that is refused because of its size is not sent.
            .header("Expect", "100-continue");
        if let Some(bearer) = self.bearer() {
            post = post.header("Authorization", bearer);
        }
        let mut answer = post.send(policy).expect("the control port answers");
        let told = answer.body_mut().read_json().expect("the answer is JSON");
        (answer.status().as_u16(), told)
    }

    /// Mappings of memory and open files that its process has.
    pub fn maps_and_files(&self) -> (usize, usize) {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let maps = std::fs::read_to_string(proc.join("maps")).expect("the host runs");
        let files = std::fs::read_dir(proc.join("fd")).expect("the host runs");
        (maps.lines().count(), files.count())
    }

    /// The value of a metric: the sum over all series of this name whose labels contain every given text.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics").expect("the control port answers");
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Writes a file into the directory of the host.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder().join(name), content).expect("a file can be written");
    }

    /// Runs a command that must fail; returns its standard error.
    pub fn refused(&self, words: &str) -> String {
        let output = self.command(words);
        assert!(!output.status.success(), "{words}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Returns when `/readyz` answers 200.
    pub fn wait_until_ready(&mut self) {
        wait::until("the host is ready", || {
            if self.successors.is_empty()
                && let Some(status) = self.child.try_wait().expect("the child can be asked")
            {
                panic!("the host ended with {status}:\n{}", self.log());
            }
            self.get("/readyz").filter(|(status, _)| *status == 200)
        });
    }

    /// Waits for the process that was started first to end by itself.
    pub fn wait_until_ended(&mut self) -> ExitStatus {
        wait::until("the host ends", || {
            self.child.try_wait().expect("the child can be asked")
        })
    }

    /// True as long as the process that was started first lives.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process, as `kill -9` does, and starts another one in the same directory; returns when that one is ready. The log goes on.
    ///
    /// # Panics
    /// If the new process ends.
    pub fn kill_and_start(&mut self) {
        self.kill();
        self.launch_again();
        self.wait_until_ready();
    }

    /// Kills the process that was started last, as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().expect("the process can be killed");
        self.child.wait().expect("a killed process ends");
    }

    /// Starts another process in the directory of one that has ended, without waiting for it. The log goes on.
    pub fn launch_again(&mut self) {
        let log = std::fs::OpenOptions::new()
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("the log can be opened");
        self.child = command(self.folder.path())
            .arg("serve")
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("portcullis starts");
    }

    /// Sends a signal by its name, as `kill` knows it.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Replaces the policy file atomically: writes a new file and renames it.
    pub fn replace_policy(&self, bytes: &[u8]) {
        let next = self.folder.path().join("policy.next");
        std::fs::write(&next, bytes).expect("the new policy can be written");
        std::fs::rename(&next, &self.policy).expect("the new policy can be renamed");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        for pid in &self.successors {
            let kill = Command::new("kill")
                .args(["-s", "KILL", &pid.to_string()])
                .output();
            let _gone_already = kill;
        }
        if std::thread::panicking() {
            eprintln!("the host's log:\n{}", self.log());
        }
    }
}

/// Sends a signal by its name, as `kill` knows it, to a process.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(status.expect("kill runs").success(), "kill -s {name} {pid}");
}

fn command(folder: &Path) -> Command {
    in_folder(Command::new(binary()), folder)
}

fn in_folder(mut command: Command, folder: &Path) -> Command {
    command.current_dir(folder).env("NO_COLOR", "1");
    command
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(wait::PATIENCE))
        .build()
        .into()
}
