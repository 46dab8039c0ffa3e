//! Everybody who can ask a host for a reload.

use serde_json::json;

use crate::host::Host;
use crate::states::Counts;

/// A client that asks for a reload of the address table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Kamailio's command over HTTP.
    Http,
    /// Our own command over HTTP, which tells what was loaded.
    HttpWithCounts,
    /// `portcullis address reload`.
    CommandLine,
    /// SIGHUP, which nobody answers.
    Signal,
}

/// All of them.
pub const CLIENTS: [Client; 4] = [
    Client::Http,
    Client::HttpWithCounts,
    Client::CommandLine,
    Client::Signal,
];

impl Client {
    /// Asks for a reload and returns when it is answered, with what it tells about the table, if that client is told.
    ///
    /// # Panics
    /// When the answer is not that the table was loaded.
    pub fn reload(self, host: &Host) -> Option<Counts> {
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
                let count = |noun: &str| {
                    let words: Vec<_> = said
                        .split(|c: char| !c.is_alphanumeric())
                        .filter(|word| !word.is_empty())
                        .collect();
                    let at = words.iter().position(|word| *word == noun)?;
                    words[at - 1].parse().ok()
                };
                let count = |noun| count(noun).unwrap_or_else(|| panic!("no {noun} in {said}"));
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
        }
    }

    /// Whether the table is loaded when [`Client::reload`] returns.
    pub fn waits(self) -> bool {
        self != Self::Signal
    }
}
