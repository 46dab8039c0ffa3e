//! Docker's registry, as Debian packages it: started in a temporary directory on a leased loopback address.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::lease::Lease;
use crate::{certificates, wait};

/// The user of a registry that has users.
pub const USER: &str = "ann";
/// The user's password.
pub const PASSWORD: &str = "secret";
/// The user's line in a file of `htpasswd -B`.
const HTPASSWD: &str = "ann:$2b$04$SGBKDiwdtVmI6RtC55IZBON3xYLVBo1JGb84PPJd4CKH27lMlTLV2\n";

/// A running registry.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    folder: TempDir,
    lease: Lease,
}

/// What a registry requires of its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Door {
    /// Only [`USER`] is admitted.
    pub users: bool,
    /// It speaks TLS, with a certificate of its own authority.
    pub tls: bool,
}

impl DockerRegistry {
    /// Starts a registry for everybody, over HTTP.
    ///
    /// # Panics
    /// If it is not installed: a test that needs it must not pass without it.
    pub fn start() -> Self {
        Self::start_with(Door::default())
    }

    /// The same with users or TLS.
    ///
    /// # Panics
    /// If it, or openssl, is not installed.
    pub fn start_with(door: Door) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let lease = Lease::new();
        let addr = lease.addr(2, 5000);
        let shown = folder.path().display();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {shown}/data\nhttp:\n  addr: {addr}\n"
        );
        if door.tls {
            certificates::authority(folder.path(), "ca");
            let name = format!("IP:{}", addr.ip());
            certificates::certificate(folder.path(), "registry", &name);
            let tls = format!(
                "  tls:\n    certificate: {shown}/registry.pem\n    key: {shown}/registry.key\n"
            );
            config.push_str(&tls);
        }
        if door.users {
            fs::write(folder.path().join("htpasswd"), HTPASSWD).expect("a file can be written");
            write!(
                config,
                "auth:\n  htpasswd:\n    realm: test\n    path: {shown}/htpasswd\n"
            )
            .expect("a string can be written");
        }
        fs::write(folder.path().join("config.yml"), config).expect("a file can be written");
        let log = fs::File::create(folder.path().join("log")).expect("a file can be created");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed: apt-get install docker-registry");
        let mut registry = Self {
            process,
            folder,
            lease,
        };
        wait::until("the registry listens", || {
            let ended = registry.process.try_wait().expect("it was started");
            assert!(ended.is_none(), "docker-registry ended: {}", registry.log());
            TcpStream::connect(addr).ok()
        });
        registry
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.lease.addr(2, 5000)
    }

    /// The certificate of the authority of a registry with TLS.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The file in which it keeps the content with this digest (`sha256:…`).
    ///
    /// # Panics
    /// If it has no such content.
    pub fn file_of(&self, digest: &str) -> PathBuf {
        let hex = digest
            .strip_prefix("sha256:")
            .expect("a digest is of SHA-256");
        let file = self
            .data()
            .join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]));
        assert!(file.exists(), "{} is there", file.display());
        file
    }

    /// The manifest under a tag.
    ///
    /// # Panics
    /// If there is none.
    pub fn manifest(&self, repository: &str, tag: &str) -> Value {
        let link = format!("repositories/{repository}/_manifests/tags/{tag}/current/link");
        let digest = fs::read_to_string(self.data().join(link)).expect("the tag is there");
        let text = fs::read(self.file_of(&digest)).expect("the manifest can be read");
        serde_json::from_slice(&text).expect("a manifest is JSON")
    }

    /// Ends it.
    pub fn end(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data/docker/registry/v2")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.end();
    }
}
