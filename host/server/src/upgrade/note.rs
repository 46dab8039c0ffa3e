//! What the two processes of an upgrade say to each other.

use std::net::SocketAddr;
use std::str;

use portcullis_config::{Config, RelayMode, Spread};
use portcullis_dataplane::flow_pings::{ClientFlow, Registration};
use portcullis_dispatcher::CountedCall;
use portcullis_sip::Transport;

use crate::seal_keys::SealKeys;

/// Most names in one note.
pub(super) const NAMES_AT_ONCE: usize = 4_096;

/// Most states of destinations in one note.
pub(super) const DESTINATIONS_AT_ONCE: usize = 128;

/// The longest line about a destination. A URI has up to 192 bytes.
pub(super) const LONGEST_DESTINATION: usize = 480;

/// Most calls in one note: each has 24 bytes.
pub(super) const CALLS_AT_ONCE: usize = 1_024;

/// Most flows in one note: each has a line of two addresses and two numbers.
pub(super) const FLOWS_AT_ONCE: usize = 256;

/// A message between the two processes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// The version of the notes, and that of the program.
    Hello { protocol: u32, version: String },
    /// What both processes must have in common.
    Terms(Terms),
    /// The new process has loaded everything.
    Ask,
    /// A socket of a worker; with its descriptor.
    Sip {
        transport: Transport,
        worker: usize,
        addr: SocketAddr,
    },
    /// A socket of a control interface, with its descriptor, or a FIFO.
    Control(String),
    /// The channel to a process before the one that says this, with its descriptor. That process gets the next number: the one that says this has
    /// 0, and the last one before it 1.
    Elder,
    /// The link to a worker of a process, by its number; with its descriptor.
    Link { elder: usize, worker: usize },
    /// Transactions of a worker of a process.
    Names {
        elder: usize,
        worker: usize,
        names: Vec<u64>,
    },
    /// The states of destinations of the dispatcher, a line for each.
    Destinations(String),
    /// Calls that are counted for destinations, and the secret of their keys.
    Calls {
        secret: [u64; 2],
        calls: Vec<CountedCall>,
    },
    /// Flows of clients that are pinged.
    Flows(Vec<Registration>),
    /// That was all.
    Lent,
    /// A control interface on which the new process will answer.
    Taken(String),
    /// The new process can begin.
    Ready,
    /// The old process receives nothing any more.
    Go,
    /// The new process receives.
    Serving,
    /// The service manager follows the new process.
    Done,
    /// Why the new process does not begin.
    Refused(String),
}

/// What both processes must have in common.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) workers: usize,
    pub(super) spread: String,
    pub(super) mode: String,
    /// The current key first.
    pub(super) keys: Vec<[u8; 16]>,
}

impl Terms {
    pub(super) fn new(config: &Config, keys: &SealKeys) -> Self {
        let earlier = keys.earlier.iter().copied();
        Self {
            workers: config.worker_count(),
            spread: spread_of(config).to_owned(),
            mode: mode_of(config).to_owned(),
            keys: [keys.current].into_iter().chain(earlier).collect(),
        }
    }

    /// Why a process with this configuration cannot take over.
    pub(super) fn problem(&self, config: &Config) -> Option<String> {
        let differs = |key: &str, then: &str, now: &str| {
            (then != now).then(|| {
                format!("`{key}` is {now}, and was {then} at the start of the running process: a restart changes it")
            })
        };
        let (then, now) = (self.workers.to_string(), config.worker_count().to_string());
        differs("workers", &then, &now)
            .or_else(|| differs("spread", &self.spread, spread_of(config)))
            .or_else(|| differs("mode` in `[relay]", &self.mode, mode_of(config)))
    }
}

// Keys are secret.
impl std::fmt::Debug for Terms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            workers,
            spread,
            mode,
            keys,
        } = self;
        write!(f, "Terms({workers} {spread} {mode}, {} keys)", keys.len())
    }
}

impl Note {
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Hello { protocol, version } => format!("hello {protocol} {version}"),
            Self::Terms(Terms {
                workers,
                spread,
                mode,
                keys,
            }) => {
                let keys = keys.iter().map(|key| format!(" {}", hex::encode(key)));
                format!(
                    "terms {workers} {spread} {mode}{}",
                    keys.collect::<String>()
                )
            }
            Self::Ask => "ask".into(),
            Self::Sip {
                transport,
                worker,
                addr,
            } => format!("sip {} {worker} {addr}", transport.parameter()),
            Self::Control(name) => format!("control {name}"),
            Self::Elder => "elder".into(),
            Self::Link { elder, worker } => format!("link {elder} {worker}"),
            Self::Names {
                elder,
                worker,
                names,
            } => {
                let mut bytes = format!("names {elder} {worker}\n").into_bytes();
                bytes.extend(names.iter().flat_map(|name| name.to_be_bytes()));
                return bytes;
            }
            Self::Destinations(lines) => format!("destinations\n{lines}"),
            Self::Calls {
                secret: [first, second],
                calls,
            } => {
                let mut bytes = format!("calls {first} {second}\n").into_bytes();
                let numbers = calls
                    .iter()
                    .flat_map(|call| [call.key, call.mark, call.until]);
                bytes.extend(numbers.flat_map(u64::to_be_bytes));
                return bytes;
            }
            Self::Flows(flows) => {
                let lines = flows.iter().map(|one| {
                    let (ClientFlow { local, client }, seconds) = (one.flow, one.seconds);
                    format!("\n{local} {client} {seconds} {}", one.silent)
                });
                format!("flows{}", lines.collect::<String>())
            }
            Self::Lent => "lent".into(),
            Self::Taken(name) => format!("taken {name}"),
            Self::Ready => "ready".into(),
            Self::Go => "go".into(),
            Self::Serving => "serving".into(),
            Self::Done => "done".into(),
            Self::Refused(why) => format!("refused {why}"),
        }
        .into_bytes()
    }

    /// `None` for anything else.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let line = str::from_utf8(bytes.get(..end.unwrap_or(bytes.len()))?).ok()?;
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        Some(match kind {
            "hello" => Self::Hello {
                protocol: words.next()?.parse().ok()?,
                version: words.next()?.to_owned(),
            },
            "terms" => Self::Terms(Terms {
                workers: words.next()?.parse().ok()?,
                spread: words.next()?.to_owned(),
                mode: words.next()?.to_owned(),
                keys: words.map(key_of).collect::<Option<_>>()?,
            }),
            "ask" => Self::Ask,
            "sip" => Self::Sip {
                transport: words.next()?.parse().ok()?,
                worker: words.next()?.parse().ok()?,
                addr: words.next()?.parse().ok()?,
            },
            "control" => Self::Control(rest.to_owned()),
            "elder" => Self::Elder,
            "link" => Self::Link {
                elder: words.next()?.parse().ok()?,
                worker: words.next()?.parse().ok()?,
            },
            "names" => {
                let (names, []) = bytes.get(end? + 1..)?.as_chunks() else {
                    return None;
                };
                Self::Names {
                    elder: words.next()?.parse().ok()?,
                    worker: words.next()?.parse().ok()?,
                    names: names.iter().map(|name| u64::from_be_bytes(*name)).collect(),
                }
            }
            "destinations" => {
                let lines = str::from_utf8(bytes.get(end? + 1..)?).ok()?;
                Self::Destinations(lines.to_owned())
            }
            "calls" => {
                let (calls, []) = bytes.get(end? + 1..)?.as_chunks::<24>() else {
                    return None;
                };
                Self::Calls {
                    secret: [words.next()?.parse().ok()?, words.next()?.parse().ok()?],
                    calls: calls.iter().map(call_of).collect::<Option<_>>()?,
                }
            }
            "flows" => {
                let lines = str::from_utf8(bytes.get(end.unwrap_or(bytes.len())..)?).ok()?;
                let flows = lines.lines().skip(1).map(flow_of);
                Self::Flows(flows.collect::<Option<_>>()?)
            }
            "lent" => Self::Lent,
            "taken" => Self::Taken(rest.to_owned()),
            "ready" => Self::Ready,
            "go" => Self::Go,
            "serving" => Self::Serving,
            "done" => Self::Done,
            "refused" => Self::Refused(rest.to_owned()),
            _ => return None,
        })
    }
}

fn call_of(bytes: &[u8; 24]) -> Option<CountedCall> {
    let (numbers, []) = bytes.as_chunks() else {
        return None;
    };
    let &[key, mark, until] = numbers else {
        return None;
    };
    let [key, mark, until] = [key, mark, until].map(u64::from_be_bytes);
    Some(CountedCall { key, mark, until })
}

fn flow_of(line: &str) -> Option<Registration> {
    let mut words = line.split(' ');
    let flow = ClientFlow {
        local: words.next()?.parse().ok()?,
        client: words.next()?.parse().ok()?,
    };
    Some(Registration {
        flow,
        seconds: words.next()?.parse().ok()?,
        // The last word is new.
        silent: words.next().map_or(Some(0), |word| word.parse().ok())?,
    })
}

fn key_of(digits: &str) -> Option<[u8; 16]> {
    let mut key = [0; 16];
    hex::decode_to_slice(digits, &mut key).ok()?;
    Some(key)
}

fn spread_of(config: &Config) -> &'static str {
    match config.spread {
        Spread::Flow => "flow",
        Spread::Datagram => "datagram",
        Spread::Transaction => "transaction",
    }
}

fn mode_of(config: &Config) -> &'static str {
    match config.relay.mode {
        RelayMode::Stateful => "stateful",
        RelayMode::Stateless => "stateless",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let keys = SealKeys {
            current: [7; 16],
            earlier: vec![[255; 16]],
        };
        Terms::new(&Config::parse("workers = 3").unwrap(), &keys)
    }

    #[test]
    fn every_note_is_read_as_it_was_written() {
        for note in [
            Note::Hello {
                protocol: 1,
                version: "0.1.0".into(),
            },
            Note::Terms(terms()),
            Note::Ask,
            Note::Sip {
                transport: Transport::Tcp,
                worker: 3,
                addr: "[::1]:5060".parse().unwrap(),
            },
            Note::Control("fifo /run/a file".into()),
            Note::Elder,
            Note::Link {
                elder: 1,
                worker: 2,
            },
            Note::Names {
                elder: 0,
                worker: 1,
                names: vec![10, u64::MAX],
            },
            Note::Names {
                elder: 2,
                worker: 0,
                names: Vec::new(),
            },
            Note::Destinations("1 0 0 0 - sip:a\n2 8 4 0 - sip:b\n".into()),
            Note::Calls {
                secret: [1, u64::MAX],
                calls: vec![CountedCall {
                    key: 5,
                    mark: 6,
                    until: 7,
                }],
            },
            Note::Flows(Vec::new()),
            Note::Flows(vec![
                Registration {
                    flow: flow("192.0.2.9:5060", "198.51.100.7:40000"),
                    seconds: 3_600,
                    silent: 0,
                },
                Registration {
                    flow: flow("[2001:db8::9]:5060", "[2001:db8::7]:40000"),
                    seconds: u32::MAX,
                    silent: 2,
                },
            ]),
            Note::Lent,
            Note::Taken("http 127.0.0.1:8060".into()),
            Note::Ready,
            Note::Go,
            Note::Serving,
            Note::Done,
            Note::Refused("the file: it is not there".into()),
        ] {
            assert_eq!(Note::parse(&note.bytes()), Some(note));
        }
        for other in [
            "",
            "hello",
            "names 0 1\n1234567",
            "calls 1 2\n12345678",
            "destinations",
            "terms 1 flow stateful 12",
            "halt",
        ] {
            assert_eq!(Note::parse(other.as_bytes()), None, "{other}");
        }
    }

    fn flow(local: &str, client: &str) -> ClientFlow {
        ClientFlow {
            local: local.parse().unwrap(),
            client: client.parse().unwrap(),
        }
    }

    #[test]
    fn a_flow_of_a_version_that_counts_no_silent_pings_is_read() {
        let note = Note::parse(b"flows\n192.0.2.9:5060 198.51.100.7:40000 60");
        let expected = Registration {
            flow: flow("192.0.2.9:5060", "198.51.100.7:40000"),
            seconds: 60,
            silent: 0,
        };
        assert_eq!(note, Some(Note::Flows(vec![expected])));
    }

    #[test]
    fn a_difference_is_named_by_its_key() {
        let problem = |text: &str| terms().problem(&Config::parse(text).unwrap());
        assert_eq!(problem("workers = 3"), None);
        let workers = problem("workers = 2").unwrap();
        assert!(workers.contains("`workers` is 2, and was 3"), "{workers}");
        let spread = problem("workers = 3\nspread = \"flow\"").unwrap();
        assert!(spread.contains("`spread` is flow"), "{spread}");
        let mode = problem("workers = 3\n[relay]\nmode = \"stateless\"").unwrap();
        assert!(mode.contains("`mode` in `[relay]` is stateless"), "{mode}");
    }

    #[test]
    fn keys_are_not_shown() {
        assert!(!format!("{:?}", terms()).contains("07"));
    }
}
