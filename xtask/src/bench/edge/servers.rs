//! Servers that listen on every transport, with one worker and one certificate.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use tempfile::TempDir;

use super::super::database::{self, Database};
use super::super::pinned::{Process, free_port};
use super::super::plan::{Pace, Rows, Server};
use super::super::servers::{self, Programs};
use super::limits::with_open_files;
use super::wire::Wire;
use crate::process::capture;

/// Connections that a server has to take, with some to spare.
const OPEN_FILES: usize = 16_384;

/// Connections from one address: the load has few addresses.
const PER_ADDRESS: u32 = 1_024;

/// Kamailio's module for TLS.
pub(crate) const KAMAILIO_TLS: &str = "kamailio/modules/tls.so";

/// Kamailio's module for WebSocket.
pub(crate) const KAMAILIO_WEBSOCKET: &str = "kamailio/modules/websocket.so";

/// The file of the certificate, and that of its key, in the folder of a server.
pub(crate) const CERTIFICATE: &str = "edge.pem";
/// See [`CERTIFICATE`].
pub(crate) const KEY: &str = "edge.key";

/// Where and with what servers are measured.
#[derive(Clone, Copy)]
pub(crate) struct Site<'s> {
    pub(crate) programs: &'s Programs,
    /// `None` without MariaDB, which Kamailio needs.
    pub(crate) database: Option<&'s Database>,
    pub(crate) pace: &'s Pace,
}

/// A server that is ready for load.
#[derive(Debug)]
pub(crate) struct EdgeServer {
    // Dropped in this order: the process ends before its files are removed.
    process: Process,
    places: Places,
    folder: TempDir,
}

/// Where a server listens, and where it relays to.
#[derive(Clone, Copy, Debug)]
struct Places {
    /// UDP and TCP.
    plain: SocketAddr,
    tls: SocketAddr,
    wss: SocketAddr,
    control: SocketAddr,
    callee: SocketAddr,
}

impl EdgeServer {
    /// Starts a server on its core and waits until it answers. Kamailio has its table in the database.
    ///
    /// # Errors
    /// If something is missing, or the server does not start.
    pub(crate) fn start(server: Server, site: &Site<'_>) -> Result<Self> {
        let Site {
            programs,
            database,
            pace,
        } = *site;
        let folder = tempfile::tempdir()?;
        let places = Places::find(server)?;
        make_certificate(folder.path(), CERTIFICATE, KEY)?;
        let command = match server {
            Server::Portcullis => places.portcullis(folder.path(), programs)?,
            Server::Kamailio => {
                let defines = ["-A", "STOCK", "-A", "EDGE", "-A", "WEBSOCKET"];
                places.kamailio(folder.path(), database, &defines)?
            }
            Server::KamailioBare => places.kamailio(folder.path(), database, &["-A", "EDGE"])?,
            Server::Echo | Server::PortcullisStateless => {
                bail!("{server} is not measured at the edge")
            }
        };
        let command = with_open_files(OPEN_FILES, &command)?;
        let log = folder.path().join("log");
        let mut process = Process::start(&server.to_string(), pace.server_core, &command, &log)?;
        process.wait_for_sip(places.plain)?;
        Ok(Self {
            process,
            places,
            folder,
        })
    }

    /// Where it listens on UDP and TCP.
    pub(crate) fn plain(&self) -> SocketAddr {
        self.places.plain
    }

    /// Where it listens on this transport.
    pub(crate) fn address(&self, wire: Wire) -> SocketAddr {
        match wire {
            Wire::Tcp => self.places.plain,
            Wire::Tls => self.places.tls,
            Wire::Wss => self.places.wss,
        }
    }

    /// Where it relays to.
    pub(crate) fn callee(&self) -> SocketAddr {
        self.places.callee
    }

    /// The control port of Portcullis.
    pub(crate) fn control(&self) -> SocketAddr {
        self.places.control
    }

    /// The directory with its certificate.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Places {
    fn find(server: Server) -> Result<Self> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let tls = local(free_port()?);
        Ok(Self {
            plain: local(free_port()?),
            tls,
            // Kamailio tells HTTP from SIP within a connection.
            wss: match server {
                Server::Kamailio | Server::KamailioBare => tls,
                Server::Echo | Server::Portcullis | Server::PortcullisStateless => {
                    local(free_port()?)
                }
            },
            control: local(free_port()?),
            callee: SocketAddr::from((Ipv4Addr::new(127, 3, 0, 1), free_port()?)),
        })
    }

    fn portcullis(&self, folder: &Path, programs: &Programs) -> Result<Command> {
        let Self {
            plain,
            tls,
            wss,
            control,
            callee,
        } = self;
        let config = format!(
            "workers = 1\n\
             listen = [\"udp:{plain}\", \"tcp:{plain}\", \"tls:{tls}\", \"wss:{wss}\"]\n\
             [database]\naddress-file = \"rows\"\n\
             [policy]\nfile = \"{}\"\n\
             [relay]\nnext-hop = \"sip:{callee}\"\n\
             [control]\nlisten = \"{control}\"\ntoken-file = \"\"\n\
             [sip]\nanswers-per-second = 1000000\nanswers-burst = 10000000\n\
             tcp-max-connections-per-address = {PER_ADDRESS}\n\
             [streams]\nhandshakes-per-second = 0\n\
             [tls.edge]\ncertificate = \"{}\"\nkey = \"{}\"\n\
             [log]\nlevel = \"error\"\n",
            programs.policy.display(),
            folder.join(CERTIFICATE).display(),
            folder.join(KEY).display(),
        );
        fs::write(folder.join("portcullis.toml"), config)?;
        // The rows of the README, and the loopback group, as in the other parts.
        fs::write(
            folder.join("rows"),
            "250 10.8.203.139 32 5060\n200 192.168.1.0 24 5060\n200 127.2.0.0 16 0\n",
        )?;
        let mut command = Command::new(&programs.portcullis);
        command.current_dir(folder).arg("serve");
        Ok(command)
    }

    fn kamailio(
        &self,
        folder: &Path,
        database: Option<&Database>,
        defines: &[&str],
    ) -> Result<Command> {
        let file = folder.join("tls.cfg");
        fs::write(
            &file,
            format!(
                "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n\
                 certificate = {}\nprivate_key = {}\n",
                folder.join(CERTIFICATE).display(),
                folder.join(KEY).display()
            ),
        )?;
        let url = database.map(|database| database.url(database::name(Rows::Few)));
        let config = servers::kamailio_config(self.plain, self.callee, Rows::Few, url.as_deref())?
            .replace("@TLS@", &self.tls.to_string())
            .replace("@TLS_CONFIG@", &file.display().to_string());
        servers::kamailio_command(&config, folder, defines)
    }
}

/// Writes a new certificate (ECDSA, P-256) that is its own authority, and its key. Returns their files.
///
/// # Errors
/// If openssl is missing or fails.
pub(crate) fn make_certificate(
    folder: &Path,
    certificate: &str,
    key: &str,
) -> Result<[PathBuf; 2]> {
    let files = [certificate, key].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "30"])
        .args(["-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", "/CN=portcullis.example"])
        .args(["-addext", "subjectAltName=DNS:portcullis.example"])
        .arg("-out")
        .arg(&files[0])
        .arg("-keyout")
        .arg(&files[1]);
    capture(&mut openssl)?;
    Ok(files)
}
