//! Kamailio's own tools, run against a real Kamailio or against Portcullis, to compare their output.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::host::{Builder, Host};
use crate::kamailio::Kamailio;
use crate::mariadb::MariaDb;

/// The tools, with their settings in a directory of their own.
#[derive(Debug)]
pub struct Tools {
    folder: TempDir,
    ctl: PathBuf,
    fifo: PathBuf,
}

/// A tool and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// BINRPC over a unix stream.
    Kamcmd,
    /// SQL, and JSON-RPC over the FIFO.
    Kamctl,
    /// SQL, and JSON-RPC over a unix datagram socket.
    Kamcli,
}

impl Tools {
    /// Enables the control interfaces that the tools use.
    pub fn doors(builder: Builder) -> Builder {
        builder
            .set("control", "binrpc = [\"unix:ctl\"]")
            .set("control", "fifo = \"rpc.fifo\"")
            .set("control", "datagram = [\"unix:rpc.sock\"]")
    }

    /// Tools for Portcullis.
    pub fn for_host(host: &Host, database: &MariaDb) -> Self {
        let file = |name| host.folder().join(name);
        Self::new(file("ctl"), file("rpc.fifo"), &file("rpc.sock"), database)
    }

    /// Tools for Kamailio.
    pub fn for_kamailio(kamailio: &Kamailio, database: &MariaDb) -> Self {
        Self::new(
            kamailio.ctl(),
            kamailio.fifo(),
            &kamailio.datagram(),
            database,
        )
    }

    fn new(ctl: PathBuf, fifo: PathBuf, datagram: &Path, database: &MariaDb) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let addr = database.addr();
        let kamctlrc = format!(
            "RPCFIFOPATH={}\nDBENGINE=MYSQL\nDBHOST={}\nDBPORT={}\nDBNAME=kamailio\nDBRWUSER=kamailio\n\
             DBRWPW=kamailiorw\nDBROUSER=kamailioro\nDBROPW=kamailioro\n",
            fifo.display(),
            addr.ip(),
            addr.port()
        );
        let kamcli = format!(
            "[main]\ndomain=test.com\n\
             [db]\ntype=mysql\ndriver=mysql+pymysql\nhost={addr}\ndbname=kamailio\nrwuser=kamailio\nrwpassword=kamailiorw\n\
             rouser=kamailioro\nropassword=kamailioro\n\
             [ctl]\ntype=jsonrpc\n\
             [jsonrpc]\ntransport=socket\nsrvaddr={}\nrcvaddr={}/kamcli\noutformat=json\n",
            datagram.display(),
            folder.path().display()
        );
        for (name, text) in [(".kamctlrc", kamctlrc), ("kamcli.ini", kamcli)] {
            fs::write(folder.path().join(name), text).expect("settings can be written");
        }
        Self { folder, ctl, fifo }
    }

    /// Runs a tool. Returns its output, followed by its errors, without the id of the request.
    ///
    /// # Panics
    /// If it is not installed.
    pub fn run(&self, tool: Tool, words: &str) -> String {
        let words: Vec<_> = words.split_whitespace().collect();
        let output = match tool {
            Tool::Kamcmd => crate::kamailio::kamcmd(&self.ctl, &words),
            Tool::Kamctl => self.kamctl(&words),
            Tool::Kamcli => self.kamcli(&words),
        };
        let said = [output.stdout, output.stderr].map(|bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let is_mark = |line: &&str| line.trim_start().starts_with("\"id\":");
            let lines = text.lines().filter(|line| !is_mark(line));
            lines.map(|line| format!("{line}\n")).collect::<String>()
        });
        said.concat()
    }

    fn kamctl(&self, words: &[&str]) -> Output {
        assert!(self.fifo.exists(), "{} is there", self.fifo.display());
        Command::new("kamctl")
            .args(words)
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .output()
            .expect("kamctl is installed: apt-get install kamailio kamailio-mysql-modules")
    }

    fn kamcli(&self, words: &[&str]) -> Output {
        Command::new("kamcli")
            .arg("--no-default-configs")
            .arg("-c")
            .arg(self.folder.path().join("kamcli.ini"))
            .args(words)
            .stdin(Stdio::null())
            // Debian's own interpreter takes precedence over others in PATH.
            .env("PATH", "/usr/bin:/bin")
            .output()
            .expect("kamcli is installed: apt-get install kamcli")
    }
}
