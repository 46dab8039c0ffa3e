//! keepalived on both hosts, as the example in `contrib/keepalived` configures it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use portcullis_testkit::network::Segment;
use portcullis_testkit::pair::Pair;
use tempfile::TempDir;

const EXAMPLE: &str = include_str!("../../../../contrib/keepalived/keepalived.conf");
const READY: &str = include_str!("../../../../contrib/keepalived/portcullis-ready");
const NOTIFY: &str = include_str!("../../../../contrib/keepalived/portcullis-notify");

/// Running keepalived, one for each host.
pub(super) struct Keepalived {
    programs: Vec<Child>,
    folders: Vec<TempDir>,
}

/// The file that systemd writes.
const ENDED: &str = "portcullis-ended";

impl Keepalived {
    /// Starts both. The first host has the address at the end.
    pub(super) fn start(pair: &mut Pair) -> Result<Self> {
        pair.take_address();
        let mut started = Self {
            programs: Vec::new(),
            folders: Vec::new(),
        };
        // The second one finds the address taken.
        for number in [0, 1] {
            let folder = tempfile::tempdir()?;
            let config = write(pair, number, folder.path())?;
            let program = pair.segment().machine(number).within(|| run(&config));
            started.programs.push(program?);
            started.folders.push(folder);
            pair.wait_for_address(0);
        }
        Ok(started)
    }

    /// Does what systemd does when a host has ended or started, as `contrib/keepalived/portcullis-vrrp.conf` says.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn tell(&self, number: usize, has_ended: bool) -> Result<()> {
        let text = if has_ended { "1\n" } else { "0\n" };
        fs::write(self.folders[number].path().join(ENDED), text).context(ENDED)
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _gone = program.kill();
            let _reaped = program.wait();
        }
    }
}

/// Writes the example for this host, with its scripts.
fn write(pair: &Pair, number: usize, folder: &Path) -> Result<PathBuf> {
    for (name, text) in [("portcullis-ready", READY), ("portcullis-notify", NOTIFY)] {
        let file = folder.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let mut config = EXAMPLE.to_owned();
    let control = pair.host(number).lease().addr(1, 8060);
    for (example, here) in [
        ("router_id edge-1", format!("router_id edge-{number}")),
        ("script_user keepalived_script", "script_user root".into()),
        ("/etc/keepalived", folder.display().to_string()),
        (
            "/run/portcullis-ended",
            folder.join(ENDED).display().to_string(),
        ),
        ("127.0.0.1:8060", control.to_string()),
        (
            "interface eth0",
            format!("interface {}", Segment::INTERFACE),
        ),
        ("192.0.2.10/32", format!("{}/32", Segment::SHARED)),
    ] {
        if !config.contains(example) {
            bail!("contrib/keepalived/keepalived.conf has no {example:?}");
        }
        config = config.replace(example, &here);
    }
    let file = folder.join("keepalived.conf");
    fs::write(&file, config)?;
    Ok(file)
}

fn run(config: &Path) -> Result<Child> {
    let folder = config.parent().unwrap_or(config);
    let log = fs::File::create(folder.join("log"))?;
    let mut keepalived = Command::new("keepalived");
    keepalived.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]);
    keepalived.arg(config);
    for (option, file) in [("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
        keepalived.arg(option).arg(folder.join(file));
    }
    let started = keepalived
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn();
    started.context("keepalived cannot be started: apt-get install keepalived")
}
