//! Clients of the control interfaces: Kamailio's own tools, and hand-made requests that these would never send.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;

use crate::host::{Builder, Host};
use crate::mariadb::MariaDb;
use crate::wait;

/// A reply of BINRPC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// 1 for a reply, 3 for a fault.
    pub kind: u8,
    /// The cookie.
    pub cookie: u32,
    /// The records.
    pub body: Vec<u8>,
}

impl Packet {
    /// True if the body contains this text.
    pub fn says(&self, text: &str) -> bool {
        self.body
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    }
}

/// Enables every control interface: sockets and FIFO in the host's directory, TCP and UDP on its address.
pub fn open_all(builder: Builder) -> Builder {
    let (binrpc, json) = (builder.lease().addr(1, 2049), builder.lease().addr(1, 9062));
    builder
        .set(
            "control",
            &format!("binrpc = [\"unix:ctl\", \"unixd:ctld\", \"tcp:{binrpc}\", \"udp:{binrpc}\"]"),
        )
        .set("control", "fifo = \"rpc.fifo\"")
        .set(
            "control",
            &format!("datagram = [\"unix:rpc.sock\", \"udp:{json}\"]"),
        )
}

/// Returns the four BINRPC addresses in the form of `kamcmd -s`.
pub fn binrpc_endpoints(host: &Host) -> [String; 4] {
    let addr = host.lease().addr(1, 2049);
    [
        format!("unixs:{}", host.folder().join("ctl").display()),
        format!("unixd:{}", host.folder().join("ctld").display()),
        format!("tcp:{addr}"),
        format!("udp:{addr}"),
    ]
}

/// Runs `kamcmd` once, and returns its output.
///
/// # Panics
/// If it is not installed.
pub fn kamcmd(host: &Host, endpoint: &str, words: &[&str]) -> String {
    let output = Command::new("kamcmd")
        .args(["-D", &host.folder().display().to_string(), "-s", endpoint])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("kamcmd is installed: apt-get install kamailio");
    said(&output)
}

/// Runs `kamcmd` with lines on its standard input, as in an interactive session, and returns its output.
///
/// # Panics
/// If it is not installed.
pub fn kamcmd_interactive(host: &Host, endpoint: &str, lines: &str) -> String {
    let mut child = Command::new("kamcmd")
        .args(["-D", &host.folder().display().to_string(), "-s", endpoint])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kamcmd is installed: apt-get install kamailio");
    let mut stdin = child.stdin.take().expect("it has a standard input");
    stdin.write_all(lines.as_bytes()).expect("kamcmd reads");
    drop(stdin);
    said(&child.wait_with_output().expect("kamcmd ends"))
}

/// Runs `kamctl` with the host's FIFO, and the database if there is one, and returns its output.
///
/// # Panics
/// If it is not installed.
pub fn kamctl(host: &Host, database: Option<&MariaDb>, words: &[&str]) -> String {
    let mut settings = format!("RPCFIFOPATH={}\n", host.folder().join("rpc.fifo").display());
    if let Some(addr) = database.map(MariaDb::addr) {
        settings.push_str(&format!(
            "DBENGINE=MYSQL\nDBHOST={}\nDBPORT={}\nDBNAME=kamailio\nDBRWUSER=kamailio\nDBRWPW=kamailiorw\n\
             DBROUSER=kamailioro\nDBROPW=kamailioro\n",
            addr.ip(),
            addr.port()
        ));
    }
    fs::write(host.folder().join(".kamctlrc"), settings).expect("kamctl's settings can be written");
    let output = Command::new("kamctl")
        .args(words)
        .env("HOME", host.folder())
        .stdin(Stdio::null())
        .output()
        .expect("kamctl is installed: apt-get install kamailio");
    said(&output)
}

/// Runs `kamcli` with the host's Unix datagram socket, and returns its output.
///
/// # Panics
/// If it is not installed.
pub fn kamcli(host: &Host, words: &[&str]) -> String {
    let folder = host.folder().display();
    let settings = host.folder().join("kamcli.ini");
    let text = format!(
        "[main]\ndomain=test.com\n[ctl]\ntype=jsonrpc\n[jsonrpc]\ntransport=socket\nsrvaddr={folder}/rpc.sock\n\
         rcvaddr={folder}/kamcli\noutformat=json\n"
    );
    fs::write(&settings, text).expect("kamcli's settings can be written");
    let output = Command::new("kamcli")
        .arg("--no-default-configs")
        .arg("-c")
        .arg(&settings)
        .args(words)
        .stdin(Stdio::null())
        // Debian's own interpreter takes precedence.
        .env("PATH", "/usr/bin:/bin")
        .output()
        .expect("kamcli is installed: apt-get install kamcli");
    said(&output)
}

/// A request of BINRPC with texts as parameters.
pub fn request(cookie: u8, words: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in words {
        body.extend([0x91, word.len() as u8 + 1]);
        body.extend(word.as_bytes());
        body.push(0);
    }
    let mut packet = vec![0xa1, 0x00, body.len() as u8, cookie];
    packet.extend(body);
    packet
}

/// Reads one packet; none at the end of the stream.
pub fn read_packet(stream: &mut impl Read) -> Option<Packet> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).ok()?;
    assert_eq!(head[0], 0xa1, "a packet begins here");
    let mut number = |width: u8| {
        let mut bytes = [0; 4];
        let at = 4 - usize::from(width);
        stream.read_exact(&mut bytes[at..]).ok()?;
        Some(u32::from_be_bytes(bytes))
    };
    let length = number((head[1] >> 2 & 3) + 1)?;
    let cookie = number((head[1] & 3) + 1)?;
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Packet {
        kind: head[1] >> 4,
        cookie,
        body,
    })
}

/// A connection to the host's unix socket for BINRPC.
pub fn connect(host: &Host) -> UnixStream {
    let stream = UnixStream::connect(host.folder().join("ctl")).expect("the socket is there");
    stream
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a socket takes a time-out");
    stream
}

/// Sends one request over a fresh connection.
pub fn ask(host: &Host, words: &[&str]) -> Packet {
    let mut stream = connect(host);
    stream
        .write_all(&request(7, words))
        .expect("the host reads");
    let packet = read_packet(&mut stream).expect("the host answers");
    assert_eq!(packet.cookie, 7);
    packet
}

/// A pipe for the reply to a request through the FIFO, and the thread that reads it.
#[derive(Debug)]
pub struct ReplyPipe {
    path: PathBuf,
    reader: JoinHandle<String>,
}

impl ReplyPipe {
    /// Makes the pipe and begins to read.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn open(path: &Path) -> Self {
        make_pipe(path);
        let path = path.to_owned();
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || fs::read_to_string(path).expect("the reply is UTF-8"))
        };
        Self { path, reader }
    }

    /// Everything that came.
    pub fn reply(self) -> String {
        let reply = self.reader.join().expect("the pipe can be read");
        fs::remove_file(&self.path).expect("the pipe can be removed");
        reply
    }
}

/// Creates a named pipe.
///
/// # Panics
/// When it cannot be made.
pub fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "{}",
        path.display()
    );
}

/// Writes to the host's FIFO, as a client does.
///
/// # Panics
/// When the host does not read it.
pub fn write_fifo(host: &Host, bytes: &[u8]) {
    let mut fifo = fs::OpenOptions::new()
        .write(true)
        .open(host.folder().join("rpc.fifo"))
        .expect("the FIFO is there");
    fifo.write_all(bytes).expect("the host reads");
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(text).expect("tools print UTF-8")
}
