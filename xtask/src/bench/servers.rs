//! The servers under load, each started as its operator would, with one worker.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::pinned::{Process, free_port};
use super::plan::{Rows, Server, Subject};
use crate::debian::install_line;
use crate::process::{capture, find, library_file};

/// Kamailio's module for MySQL.
pub(crate) const KAMAILIO_MYSQL: &str = "kamailio/modules/db_mysql.so";

const KAMAILIO_CONFIG: &str = include_str!("kamailio.cfg");

/// The rows of the README and the loopback group, as arguments of `portcullis address add`.
const PAGE: [[&str; 5]; 3] = [
    ["250", "10.8.203.139", "32", "5060", "TestServer"],
    ["200", "192.168.1.0", "24", "5060", "OfficeSubnet"],
    ["200", "127.2.0.0", "16", "0", "Loopback"],
];

/// Paths of the programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Portcullis, built as packages are.
    pub(crate) portcullis: PathBuf,
    /// The compiled policy of the README.
    pub(crate) policy: PathBuf,
    /// The policy that misbehaves as its settings say.
    pub(crate) hostile: PathBuf,
    /// The policy that tries several next hops.
    pub(crate) failover: PathBuf,
    /// The policy that relays to a set of gateways.
    pub(crate) dispatching: PathBuf,
    /// Load generator, callee and echo server.
    pub(crate) load: PathBuf,
}

impl Programs {
    /// All files that a measurement may need.
    pub(crate) fn files(&self) -> [&Path; 6] {
        [
            &self.portcullis,
            &self.policy,
            &self.hostile,
            &self.failover,
            &self.dispatching,
            &self.load,
        ]
    }
}

/// A server that is ready for load.
#[derive(Debug)]
pub(crate) struct Running {
    // Dropped in this order: the process ends before its files are removed.
    process: Process,
    /// Its SIP address.
    pub(crate) address: SocketAddr,
    /// The address to which it relays.
    pub(crate) callee: SocketAddr,
    /// The control port of Portcullis.
    pub(crate) control: SocketAddr,
    _folder: TempDir,
}

impl Running {
    /// Starts a server on this core, with its table in the database of this URL, and waits until it answers. Without a database, Portcullis
    /// gets the rows of the README in SQLite; Kamailio cannot run without one.
    pub(crate) fn start(
        subject: Subject,
        core: usize,
        programs: &Programs,
        database: Option<&str>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let places = Places::find(folder.path())?;
        let command = match subject.server {
            Server::Echo => places.echo(programs),
            Server::Portcullis => places.portcullis(programs, database, "stateful", "")?,
            Server::PortcullisStateless => {
                places.portcullis(programs, database, "stateless", "")?
            }
            Server::Kamailio => places.kamailio(subject.rows, database, &["-A", "STOCK"])?,
            Server::KamailioBare => places.kamailio(subject.rows, database, &[])?,
        };
        Self::started(&subject.server.to_string(), core, &command, places, folder)
    }

    /// Starts Portcullis with the rows of the README, and with these sections at the end of its configuration.
    pub(crate) fn start_with(sections: &str, core: usize, programs: &Programs) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let places = Places::find(folder.path())?;
        let command = places.portcullis(programs, None, "stateful", sections)?;
        Self::started("Portcullis", core, &command, places, folder)
    }

    fn started(
        name: &str,
        core: usize,
        command: &Command,
        places: Places,
        folder: TempDir,
    ) -> Result<Self> {
        let log = folder.path().join("log");
        let mut process = Process::start(name, core, command, &log)?;
        process.wait_for_sip(places.address)?;
        Ok(Self {
            process,
            address: places.address,
            callee: places.callee,
            control: places.control,
            _folder: folder,
        })
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// Returns the version of the installed Kamailio, after checking for the required modules.
pub(crate) fn kamailio_version() -> Result<String> {
    kamailio_modules()?;
    let text = capture(Command::new(kamailio_program()?).arg("-v"))?;
    Ok(text.split_whitespace().nth(2).unwrap_or("?").to_owned())
}

/// Files and addresses of one server.
struct Places {
    folder: PathBuf,
    address: SocketAddr,
    control: SocketAddr,
    callee: SocketAddr,
}

impl Places {
    /// Free ports for a server with its files in this directory.
    fn find(folder: &Path) -> Result<Self> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self {
            folder: folder.to_owned(),
            address: local(free_port()?),
            control: local(free_port()?),
            callee: SocketAddr::from((Ipv4Addr::new(127, 3, 0, 1), free_port()?)),
        })
    }

    fn echo(&self, programs: &Programs) -> Command {
        let mut command = Command::new(&programs.load);
        command.args(["echo", "--listen", &self.address.to_string()]);
        command
    }

    fn portcullis(
        &self,
        programs: &Programs,
        database: Option<&str>,
        mode: &str,
        sections: &str,
    ) -> Result<Command> {
        let Self {
            address,
            control,
            callee,
            ..
        } = self;
        let policy = programs.policy.display();
        let url = database.unwrap_or("sqlite:table.db");
        let config = format!(
            "workers = 1\n\
             listen = [\"udp:{address}\"]\n\
             [database]\nurl = \"{url}\"\n\
             [policy]\nfile = \"{policy}\"\n\
             [relay]\nnext-hop = \"sip:{callee}\"\nmode = \"{mode}\"\n\
             [control]\nlisten = \"{control}\"\ntoken-file = \"\"\n\
             [sip]\nanswers-per-second = 1000000\nanswers-burst = 10000000\n\
             [log]\nlevel = \"warn\"\n{sections}"
        );
        let file = self.folder.join("portcullis.toml");
        fs::write(&file, config)?;
        let command = |verb: &[&str]| {
            let mut command = Command::new(&programs.portcullis);
            command.current_dir(&self.folder).args(verb);
            command.arg("--config").arg(&file);
            command
        };
        if database.is_none() {
            for row in PAGE {
                capture(&mut command(
                    &[&["address", "add"], row.as_slice()].concat(),
                ))?;
            }
        }
        Ok(command(&["serve"]))
    }

    fn kamailio(
        &self,
        rows: Option<Rows>,
        database: Option<&str>,
        defines: &[&str],
    ) -> Result<Command> {
        let rows = rows.unwrap_or(Rows::Few);
        let config = kamailio_config(self.address, self.callee, rows, database)?;
        let mut command = kamailio_command(&config, &self.folder, defines)?;
        if rows == Rows::Many {
            // MB of private memory of each process: the default is too small for so many rows.
            command.args(["-M", "256"]);
        }
        Ok(command)
    }
}

/// The configuration of a Kamailio that listens on this address and relays to this callee.
pub(crate) fn kamailio_config(
    address: SocketAddr,
    callee: SocketAddr,
    rows: Rows,
    database: Option<&str>,
) -> Result<String> {
    let database = database.context("Kamailio needs MariaDB")?;
    let modules = kamailio_modules()?;
    // Kamailio allocates the whole array of subnets at its start; 512 is its default size.
    let subnets = rows.count() + 512;
    Ok(KAMAILIO_CONFIG
        .replace("@LISTEN@", &address.to_string())
        .replace("@MODULES@", &format!("{}/", modules.display()))
        .replace("@DATABASE@", database)
        .replace("@ROWS@", &subnets.to_string())
        .replace("@CALLEE@", &callee.to_string()))
}

/// Starts Kamailio with this configuration, and its files in this directory.
pub(crate) fn kamailio_command(config: &str, folder: &Path, defines: &[&str]) -> Result<Command> {
    let file = folder.join("kamailio.cfg");
    fs::write(&file, config)?;
    let mut command = Command::new(kamailio_program()?);
    command
        .arg("-f")
        .arg(file)
        // In the foreground, with runtime files in our directory.
        .args(["-DD", "-E", "-Y"])
        .arg(folder)
        .args(defines)
        // MB of shared memory: at these rates the default of 64 is full of transactions after a second, because each lingers for five.
        .args(["-m", "2048"]);
    Ok(command)
}

fn kamailio_program() -> Result<PathBuf> {
    find("kamailio").context("kamailio is not installed")
}

fn kamailio_modules() -> Result<PathBuf> {
    let module = library_file("kamailio/modules/permissions.so")
        .context("Kamailio's modules are not where Debian, Fedora or its own build put them")?;
    ensure!(
        library_file(KAMAILIO_MYSQL).is_some(),
        "Kamailio's module db_mysql is missing: {}",
        install_line(&["kamailio-mysql-modules"])
    );
    let modules = module.parent().context("a module is in a directory")?;
    Ok(modules.to_owned())
}
