//! A Redis server of one test, in a temporary directory.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{certificates, wait};

/// The password of a server with one.
pub const PASSWORD: &str = "correct horse";

/// A Redis server.
#[derive(Debug)]
pub struct Redis {
    addr: SocketAddr,
    server: Option<Child>,
    folder: TempDir,
    arguments: Vec<String>,
    is_secure: bool,
}

impl Redis {
    /// Starts a server without a password on this address. Returns when it answers.
    ///
    /// # Panics
    /// If redis-server is not installed.
    pub fn start(addr: SocketAddr) -> Self {
        Self::start_with(addr, &[])
    }

    /// The same with more arguments.
    ///
    /// # Panics
    /// If redis-server is not installed.
    pub fn start_with(addr: SocketAddr, arguments: &[&str]) -> Self {
        let port = addr.port().to_string();
        Self::begin(addr, &["--port", &port], arguments, false)
    }

    /// Starts a server that has only TLS, and a password. Its certificate is for `name`, written as in `subjectAltName`; `ca.pem` in its directory is the
    /// authority.
    ///
    /// # Panics
    /// If redis-server is not installed.
    pub fn start_secure(addr: SocketAddr, name: &str) -> Self {
        let port = addr.port().to_string();
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        certificates::authority(folder.path(), "ca");
        certificates::certificate(folder.path(), "server", name);
        let own = [
            "--port",
            "0",
            "--tls-port",
            &port,
            "--tls-cert-file",
            "server.pem",
            "--tls-key-file",
            "server.key",
            "--tls-ca-cert-file",
            "ca.pem",
            "--tls-auth-clients",
            "no",
            "--requirepass",
            PASSWORD,
        ];
        Self::begin_in(folder, addr, &own, &[], true)
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The directory of the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the server. What it had is lost.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("the server can be killed");
            server.wait().expect("the server ends");
        }
    }

    /// Stops the process without ending it, or lets it continue.
    ///
    /// # Panics
    /// If the server does not run.
    pub fn signal(&self, name: &str) {
        let server = self.server.as_ref().expect("the server runs");
        crate::host::signal(server.id(), name);
    }

    /// Starts the server again, at the same address.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// The answer to a command, as redis-cli shows it.
    ///
    /// # Panics
    /// If redis-cli is not installed.
    pub fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command
            .current_dir(self.folder.path())
            .args(["-h", &self.addr.ip().to_string()])
            .args(["-p", &self.addr.port().to_string()]);
        if self.is_secure {
            command
                .args(["--tls", "--insecure", "--no-auth-warning"])
                .args(["-a", PASSWORD]);
        }
        let output = command
            .args(words)
            .output()
            .expect("redis-cli is installed: apt-get install redis-tools");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn begin(addr: SocketAddr, own: &[&str], more: &[&str], is_secure: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        Self::begin_in(folder, addr, own, more, is_secure)
    }

    fn begin_in(
        folder: TempDir,
        addr: SocketAddr,
        own: &[&str],
        more: &[&str],
        is_secure: bool,
    ) -> Self {
        let arguments = own.iter().chain(more).map(|word| (*word).to_owned());
        let mut redis = Self {
            addr,
            server: None,
            arguments: arguments.collect(),
            folder,
            is_secure,
        };
        redis.launch();
        redis
    }

    fn launch(&mut self) {
        let place = self.folder.path();
        let log = File::create(place.join("log")).expect("a log can be written");
        let server = Command::new("redis-server")
            .current_dir(place)
            .args(["--bind", &self.addr.ip().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("redis-server is installed: apt-get install redis-server");
        self.server = Some(server);
        wait::until("Redis answers", || {
            self.cli(&["ping"]).contains("PONG").then_some(())
        });
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ended = server.kill();
            let _reaped = server.wait();
        }
    }
}
