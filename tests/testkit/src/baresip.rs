//! baresip, a phone with outbound (RFC 5626), controlled over its own TCP interface.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait;

/// Where Debian's package has its modules.
const MODULES: &str = "/usr/lib/baresip/modules";

/// The port of its control interface, on its own address.
const CONTROL: u16 = 4444;

/// A running phone with one account, which answers every call.
#[derive(Debug)]
pub struct Baresip {
    child: Child,
    folder: TempDir,
    control: TcpStream,
    pending: Vec<u8>,
    events: VecDeque<Value>,
}

impl Baresip {
    /// Starts a phone on this address, with SIP on port 5070. `account` is a line of its file `accounts`; `more` are lines of `config`. It registers
    /// by itself.
    ///
    /// # Panics
    /// If baresip is not installed, or ends.
    pub fn start(ip: IpAddr, account: &str, more: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        let mut config = format!(
            "sip_listen {ip}:5070\nnet_interface {ip}\ncall_local_timeout 120\ncall_max_calls 4\n\
             audio_source aubridge,loop\naudio_player aubridge,loop\naudio_alert aubridge,alert\n\
             module_path {MODULES}\nmodule g711.so\nmodule aubridge.so\nmodule ctrl_tcp.so\nctrl_tcp_listen {ip}:{CONTROL}\n\
             module_tmp uuid.so\nmodule_tmp account.so\nmodule_app menu.so\n"
        );
        for line in more {
            config.push_str(line);
            config.push('\n');
        }
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("a file can be written");
        };
        write("config", &config);
        write("accounts", &format!("{account};answermode=auto\n"));
        // Without it, baresip writes one.
        write("contacts", "");
        let log = File::create(folder.path().join("log")).expect("a log can be written");
        let mut child = Command::new("baresip")
            .args(["-4", "-s", "-v", "-f"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log)
            .spawn()
            .expect("baresip is installed: apt-get install baresip-core");
        let control = wait::until("baresip listens for commands", || {
            if let Some(status) = child.try_wait().expect("the child can be asked") {
                let log = std::fs::read_to_string(folder.path().join("log"));
                panic!("baresip ended with {status}:\n{}", log.unwrap_or_default());
            }
            TcpStream::connect((ip, CONTROL)).ok()
        });
        control
            .set_read_timeout(Some(wait::PATIENCE))
            .expect("a timeout can be set");
        Self {
            child,
            folder,
            control,
            pending: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Waits until the registrar has accepted its registration.
    ///
    /// # Panics
    /// If that does not happen.
    pub fn wait_until_registered(&mut self) {
        wait::until("baresip is registered", || {
            let said = self.tell("reginfo", "");
            said.contains("OK").then_some(())
        });
    }

    /// Carries out a command; returns what baresip says.
    ///
    /// # Panics
    /// If it is not carried out.
    pub fn tell(&mut self, command: &str, words: &str) -> String {
        let text = json!({ "command": command, "params": words, "token": "test" }).to_string();
        let text = format!("{}:{text},", text.len());
        self.control
            .write_all(text.as_bytes())
            .expect("baresip takes commands");
        loop {
            let said = self.read();
            if said["response"] != true {
                self.events.push_back(said);
                continue;
            }
            assert_eq!(said["ok"], true, "{command} {words}: {said}");
            return said["data"].as_str().unwrap_or_default().to_owned();
        }
    }

    /// Waits for the next event of this kind; returns its parameter. Events before it are forgotten.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait_for(&mut self, kind: &str) -> String {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.read(),
            };
            if event["type"] == kind {
                return event["param"].as_str().unwrap_or_default().to_owned();
            }
        }
    }

    /// Ends it without a word to anybody, as when a phone loses power.
    pub fn kill(mut self) {
        self.end();
    }

    /// Messages that it has sent and received, and what it says of its work.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.path().join("log"));
        String::from_utf8_lossy(&log.unwrap_or_default()).into_owned()
    }

    /// The next message of the control interface: a netstring with JSON in it.
    fn read(&mut self) -> Value {
        loop {
            if let Some(message) = take_netstring(&mut self.pending) {
                return serde_json::from_slice(&message).expect("baresip writes JSON");
            }
            let mut chunk = [0; 4096];
            match self.control.read(&mut chunk) {
                Ok(count @ 1..) => self.pending.extend_from_slice(&chunk[..count]),
                Ok(_) | Err(_) => panic!("baresip says nothing more:\n{}", self.log()),
            }
        }
    }

    fn end(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Baresip {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("the log of baresip:\n{}", self.log());
        }
    }
}

/// Takes `LENGTH:TEXT,` from the front; `None` while it is not whole.
fn take_netstring(pending: &mut Vec<u8>) -> Option<Vec<u8>> {
    let colon = pending.iter().position(|byte| *byte == b':')?;
    let length = std::str::from_utf8(&pending[..colon]).expect("a length is text");
    let length: usize = length.parse().expect("a length is a number");
    let end = colon + 1 + length;
    if pending.len() <= end {
        return None;
    }
    let text = pending[colon + 1..end].to_vec();
    pending.drain(..=end);
    Some(text)
}
