//! A server under load: started on its core, awaited, and ended with all processes that it started.

use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{capture, show};

/// Time limit of a start, which takes longest with a large table in a slow database.
const START: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_millis(50);

/// A running server.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program on one core, or on all; its output goes to `log`.
    pub(crate) fn start(
        name: &str,
        core: impl Into<Option<usize>>,
        command: &Command,
        log: &Path,
    ) -> Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut pinned = match core.into() {
            Some(core) => pin(core, command),
            None => with_arguments_of(command, Command::new(command.get_program())),
        };
        pinned
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = pinned
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", show(command)))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Binds all its threads to one core from now on.
    pub(crate) fn pin_to(&self, core: usize) -> Result<()> {
        let (core, pid) = (core.to_string(), self.pid().to_string());
        let mut taskset = Command::new("taskset");
        taskset.args(["--all-tasks", "--pid", "--cpu-list", &core, &pid]);
        capture(&mut taskset).map(drop)
    }

    /// Returns when `ready` returns true.
    ///
    /// # Errors
    /// If the process ends before, or takes too long. The error contains the end of its log.
    pub(crate) fn wait_until(&mut self, ready: impl FnMut() -> bool) -> Result<()> {
        self.wait_until_within(START, ready)
    }

    /// The same with another time limit.
    pub(crate) fn wait_until_within(
        &mut self,
        time: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let give_up = Instant::now() + time;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended at its start ({status}):\n{}",
                    self.name,
                    self.last_words()
                );
            }
            if Instant::now() > give_up {
                bail!("{} does not answer:\n{}", self.name, self.last_words());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Returns when the server answers OPTIONS at this address (the echo server answers anything).
    pub(crate) fn wait_for_sip(&mut self, address: SocketAddr) -> Result<()> {
        let socket = UdpSocket::bind("127.1.0.1:0")?;
        socket.set_read_timeout(Some(PROBE))?;
        let local = socket.local_addr()?;
        let options = format!(
            "OPTIONS sip:{address} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKready;rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:bench@127.1.0.1>;tag=1\r\nTo: <sip:{address}>\r\n\
             Call-ID: ready@127.1.0.1\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        );
        self.wait_until(|| {
            let sent = socket.send_to(options.as_bytes(), address);
            sent.is_ok() && socket.recv(&mut [0; 2048]).is_ok()
        })
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Process {
    /// Asks the process to end, so that it ends its own children (Kamailio has several), and waits for it.
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-INT", &pid]).status();
        let give_up = Instant::now() + Duration::from_secs(10);
        while asked.is_ok() && Instant::now() < give_up {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        // The process ignores the signal, and an error cannot be reported here.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Returns the command, bound to one core from its first instruction on.
pub(crate) fn pin(core: usize, command: &Command) -> Command {
    let mut pinned = Command::new("taskset");
    pinned
        .args(["--cpu-list", &core.to_string()])
        .arg(command.get_program());
    with_arguments_of(command, pinned)
}

fn with_arguments_of(command: &Command, mut other: Command) -> Command {
    other.args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        other.current_dir(folder);
    }
    other
}

/// Returns a port of 127.0.0.1 that is currently free for UDP and TCP.
pub(crate) fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 is free for UDP and TCP");
}
