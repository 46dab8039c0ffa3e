//! All clients that can request a reload.

use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};

use crate::host::Host;
use crate::states::Counts;
use crate::tools::{Tool, Tools};
use crate::wait::PATIENCE;

/// A client that requests a reload of the address table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Kamailio's command over HTTP.
    Http,
    /// Our command over HTTP, which reports what was loaded.
    HttpWithCounts,
    /// `portcullis address reload`.
    CommandLine,
    /// SIGHUP, which has no reply.
    Signal,
    /// kamcmd over BINRPC.
    Kamcmd,
    /// kamctl over the FIFO.
    Kamctl,
    /// JSON-RPC in a Unix datagram, as kamcli sends it. Not kamcli itself, whose start takes longer than a reload.
    Datagram,
}

/// All of them.
pub const CLIENTS: [Client; 7] = [
    Client::Http,
    Client::HttpWithCounts,
    Client::CommandLine,
    Client::Signal,
    Client::Kamcmd,
    Client::Kamctl,
    Client::Datagram,
];

impl Client {
    /// Requests a reload and waits for the reply. Returns the counts in the reply, if it contains any.
    ///
    /// # Panics
    /// If the reply does not say that the table was loaded.
    pub fn reload(self, host: &Host, tools: &Tools) -> Option<Counts> {
        match self {
            Self::Http => {
                let answer = host.rpc("permissions.addressReload", json!([]));
                assert_eq!(answer["result"], "Reload OK", "{answer}");
                None
            }
            Self::HttpWithCounts => {
                let answer = host.rpc("address.reload", json!([]));
                let result = &answer["result"];
                assert_eq!(result["status"], "Reload OK", "{answer}");
                let count = |kind: &str| result[kind].as_u64().expect("a count is a number");
                Some(Counts {
                    hosts: count("hosts"),
                    subnets: count("subnets"),
                    domains: count("domains"),
                })
            }
            Self::CommandLine => {
                let said = host.run("address reload");
                assert!(said.starts_with("Reload OK"), "{said}");
                let count =
                    |noun| count_in(&said, noun).unwrap_or_else(|| panic!("no {noun} in {said}"));
                Some(Counts {
                    hosts: count("hosts"),
                    subnets: count("subnets"),
                    domains: count("names"),
                })
            }
            Self::Signal => {
                host.signal("HUP");
                None
            }
            Self::Kamcmd => {
                let said = tools.run(Tool::Kamcmd, "permissions.addressReload");
                assert_eq!(said, "Reload OK\n");
                None
            }
            Self::Kamctl => {
                let said = tools.run(Tool::Kamctl, "address reload");
                assert!(said.contains("\"result\": \"Reload OK\""), "{said}");
                None
            }
            Self::Datagram => {
                let answer = by_datagram(host);
                assert_eq!(answer["result"], "Reload OK", "{answer}");
                None
            }
        }
    }

    /// Whether the table is loaded when [`Client::reload`] returns.
    pub fn waits(self) -> bool {
        self != Self::Signal
    }
}

/// The number before this word.
fn count_in(said: &str, noun: &str) -> Option<u64> {
    let words = said.split(|c: char| !c.is_alphanumeric());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    let at = words.iter().position(|word| *word == noun)?;
    words.get(at.checked_sub(1)?)?.parse().ok()
}

fn by_datagram(host: &Host) -> Value {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = UnixDatagram::bind(folder.path().join("reply")).expect("a socket can be bound");
    socket
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout can be set");
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "permissions.addressReload"});
    socket
        .send_to(call.to_string().as_bytes(), host.folder().join("rpc.sock"))
        .expect("the host has a socket for datagrams");
    let mut answer = vec![0; 65_536];
    let length = socket.recv(&mut answer).expect("an answer comes");
    serde_json::from_slice(&answer[..length]).expect("the answer is JSON")
}
