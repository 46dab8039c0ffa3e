//! A Kamailio server of one test, in a temporary directory and controlled by its own tools.

use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::wait;

/// A configuration of a registrar for `example.com` at `@ADDR@`, which keeps Path and records its route.
pub const REGISTRAR: &str = r#"#!KAMAILIO
debug=2
log_stderror=yes
children=2
auto_aliases=no
listen=udp:@ADDR@
alias="example.com"
loadmodule "ctl.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("ctl", "binrpc", "unix:@FOLDER@/ctl")
modparam("usrloc", "db_mode", 0)
modparam("registrar", "use_path", 1)
modparam("registrar", "path_mode", 0)
request_route {
    if (is_method("REGISTER")) {
        save("location");
        exit;
    }
    if (is_method("CANCEL") || is_method("ACK") && !has_totag()) {
        t_relay();
        exit;
    }
    if (has_totag()) {
        loose_route();
        t_relay();
        exit;
    }
    record_route();
    if (!lookup("location")) {
        sl_send_reply("404", "Not Found");
        exit;
    }
    t_relay();
}
"#;

/// The same registrar with outbound (RFC 5626).
pub fn registrar_with_outbound() -> String {
    let registrar = "loadmodule \"registrar.so\"";
    let modules = format!("loadmodule \"stun.so\"\nloadmodule \"outbound.so\"\n{registrar}");
    let path = "modparam(\"registrar\", \"use_path\", 1)";
    let outbound = format!("{path}\nmodparam(\"registrar\", \"outbound_mode\", 1)");
    REGISTRAR
        .replace(registrar, &modules)
        .replace(path, &outbound)
}

/// A running Kamailio.
#[derive(Debug)]
pub struct Kamailio {
    server: Child,
    folder: TempDir,
}

impl Kamailio {
    /// Starts Kamailio with this configuration, in which each `@NAME@` is replaced. `@FOLDER@` is its working directory, where the
    /// configuration must create the sockets `ctl` (BINRPC), `rpc.sock` and `rpc.fifo` (JSON-RPC). Returns when Kamailio answers there.
    ///
    /// # Panics
    /// If Kamailio is not installed, or ends at once: a test that needs it must not pass without it.
    pub fn start(config: &str, values: &[(&str, String)], defines: &[&str]) -> Self {
        Self::launch(Command::new("kamailio"), config, values, defines)
    }

    /// The same with this name server, at port 53, in place of those of `/etc/resolv.conf`. Only root may do that.
    ///
    /// # Panics
    /// As [`Kamailio::start`].
    pub fn start_asking(
        name_server: IpAddr,
        config: &str,
        values: &[(&str, String)],
        defines: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let file = folder.path().join("resolv.conf");
        std::fs::write(&file, format!("nameserver {name_server}\n"))
            .expect("a file can be written");
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/resolv.conf && exec kamailio \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(&file);
        // The file stays mounted for Kamailio when it is removed here.
        Self::launch(command, config, values, defines)
    }

    fn launch(
        mut command: Command,
        config: &str,
        values: &[(&str, String)],
        defines: &[&str],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let place = folder.path().display().to_string();
        let mut config = config.replace("@FOLDER@", &place);
        for (name, value) in values {
            config = config.replace(&format!("@{name}@"), value);
        }
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, config).expect("the configuration can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log can be written");
        let server = command
            .arg("-f")
            .arg(&file)
            // In the foreground, with runtime files in its own directory; MB of shared memory, and of each process' own.
            .args(["-DD", "-E", "-m", "256", "-M", "64", "-Y", &place])
            .args(defines.iter().flat_map(|define| ["-A", define]))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            // Its processes form a group, so that none outlives the test.
            .process_group(0)
            .spawn()
            .expect("kamailio is installed: apt-get install kamailio kamailio-mysql-modules");
        let mut kamailio = Self { server, folder };
        kamailio.wait_until_ready();
        kamailio
    }

    /// The unix socket that speaks BINRPC, for `kamcmd`.
    pub fn ctl(&self) -> PathBuf {
        self.folder.path().join("ctl")
    }

    /// The unix socket that speaks JSON-RPC, for `kamcli`.
    pub fn datagram(&self) -> PathBuf {
        self.folder.path().join("rpc.sock")
    }

    /// The FIFO that speaks JSON-RPC, for `kamctl`.
    pub fn fifo(&self) -> PathBuf {
        self.folder.path().join("rpc.fifo")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("the log can be read")
    }

    /// Loads the address table.
    ///
    /// # Errors
    /// What kamcmd says, when Kamailio refuses the table.
    pub fn reload(&self) -> Result<(), String> {
        self.load("permissions.addressReload")
    }

    /// Loads the table of trusted peers.
    ///
    /// # Errors
    /// What kamcmd says, when Kamailio refuses the table.
    pub fn reload_trusted(&self) -> Result<(), String> {
        self.load("permissions.trustedReload")
    }

    fn load(&self, command: &str) -> Result<(), String> {
        let said = kamcmd(&self.ctl(), &[command]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        match said.trim() {
            "Reload OK" => Ok(()),
            _ => Err(said),
        }
    }

    fn wait_until_ready(&mut self) {
        wait::until("Kamailio answers", || {
            if let Some(status) = self.server.try_wait().expect("the child can be asked") {
                panic!("Kamailio ended with {status}:\n{}", self.log());
            }
            let output = kamcmd(&self.ctl(), &["core.version"]);
            output.stdout.starts_with(b"kamailio").then_some(())
        });
    }
}

impl Drop for Kamailio {
    /// Asks Kamailio to end its processes, then kills the rest of the group.
    fn drop(&mut self) {
        let pid = self.server.id();
        kill("-TERM", &pid.to_string());
        for _ in 0..200 {
            if !matches!(self.server.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        kill("-KILL", &format!("-{pid}"));
        let _reaped = self.server.wait();
        if std::thread::panicking() {
            eprintln!("Kamailio's log:\n{}", self.log());
        }
    }
}

/// Runs Kamailio's BINRPC client against this unix socket.
///
/// # Panics
/// When it is not installed.
pub fn kamcmd(socket: &Path, words: &[&str]) -> Output {
    Command::new("kamcmd")
        .arg("-s")
        .arg(format!("unixs:{}", socket.display()))
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("kamcmd is installed: apt-get install kamailio")
}

fn kill(signal: &str, whom: &str) {
    // The group may have ended already.
    let _gone = Command::new("kill")
        .args([signal, "--", whom])
        .stderr(Stdio::null())
        .status();
}
