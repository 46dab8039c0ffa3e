//! The configuration: one TOML file, every key with a default. `defaults.toml` beside this file shows them all.
//!
//! [`Config::parse`] reads the text and reports every problem with its place. This crate opens no socket, asks no database, and does
//! not know what the host does with a value.

#![forbid(unsafe_code)]

mod control;
mod database;
mod listen;
mod log_level;
mod next_hop;
mod policy;
mod problem;
mod read;
mod records;
mod section;
mod tenant;
mod token;
mod value;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_address::DEFAULT_PATTERN_MEMORY;
use portcullis_sip::Transport;

pub use control::{ControlConfig, Endpoint, FileAccess};
pub use database::DatabaseConfig;
pub use listen::{Listen, SIP_PORT};
pub use next_hop::{Domain, Host, Hosts, NextHop, Ports};
pub use policy::{
    Answer, BreakerConfig, CacheConfig, DefaultVerdict, FailureRules, InDialog, OnFailure,
    PolicyConfig, SeatConfig,
};
pub use problem::{Bad, ConfigError, Problem};
pub use records::RecordsConfig;
pub use tenant::{Rate, SelectorConfig, TenantConfig};
pub use token::Token;
pub use token::without_secret;
pub use value::{parse_duration, show_size};

/// Every key with its default and its meaning, as a configuration file.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// The file that is read when none is named and it exists.
pub const DEFAULT_FILE: &str = "portcullis.toml";

/// The configuration of one host, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Worker threads; none for one for each core.
    pub workers: Option<usize>,
    /// How datagrams are shared out among them.
    pub spread: Spread,
    /// Where to listen.
    pub listen: Vec<Listen>,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[permissions]`
    pub permissions: PermissionsConfig,
    /// `[policy]`
    pub policy: PolicyConfig,
    /// `[relay]`
    pub relay: RelayConfig,
    /// `[tenants.…]`, in the order of their names.
    pub tenants: Vec<TenantConfig>,
    /// `[control]`
    pub control: ControlConfig,
    /// `[records]`
    pub records: RecordsConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[sip]`
    pub sip: SipConfig,
}

/// How datagrams are shared out among workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Those of one peer to one worker.
    Flow,
    /// Each to any.
    Datagram,
}

/// What policies can ask beside the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionsConfig {
    /// The folder of allow and deny files; empty for none.
    pub folder: PathBuf,
    /// What the patterns of the trusted peers, and those of the allow and deny files, may take of memory, in bytes.
    pub pattern_memory: usize,
}

/// Where requests may go.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayConfig {
    /// Where "relay" goes when the request itself leads nowhere that is allowed.
    pub next_hop: Option<NextHop>,
    /// The next hops that a policy can name, in the order of their names.
    pub next_hops: Vec<(String, NextHop)>,
    /// Where Route and request URI may lead.
    pub domains: Vec<Domain>,
    /// True if the host stays in the path of a dialog.
    pub record_route: bool,
}

/// The log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// What is logged: a level, or levels for parts.
    pub level: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What goes for every SIP message.
#[derive(Clone, Debug, PartialEq)]
pub struct SipConfig {
    /// Further names that mean this host, each as `HOST` or `HOST:PORT`.
    pub aliases: Vec<String>,
    /// The Server header of our own replies.
    pub server_header: Option<String>,
    /// What a message may hold.
    pub limits: portcullis_sip::Limits,
    /// The file of the key behind branches, tags and seals; none for the default.
    pub key_file: Option<PathBuf>,
    /// Answers of our own a second to one source over UDP that has not proved itself; 0 for any number.
    pub answers_per_second: u32,
    /// How many of them at once.
    pub answers_burst: u32,
    /// How many TCP connections there may be, both ways.
    pub tcp: ConnectionLimits,
    /// Where answers and responses go to the source port of a request that does not ask for it.
    pub force_rport: ForceRport,
}

/// The most SIP connections over TCP, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all.
    pub total: usize,
    /// From one IPv4 address, or one /64 of IPv6.
    pub per_address: usize,
}

/// Which listeners take every request for one with `rport` (RFC 3581), as Kamailio does after `force_rport()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForceRport {
    /// None.
    Never,
    /// Every UDP listener. Over TCP responses go back over the connection anyway.
    Always,
    /// These UDP listeners.
    On(Vec<Listen>),
}

impl ForceRport {
    /// Whether it goes for requests to this listener.
    pub fn goes_for(&self, listen: &Listen) -> bool {
        let is_udp = !listen.transport.is_reliable();
        match self {
            Self::Never => false,
            Self::Always => is_udp,
            Self::On(these) => is_udp && these.iter().any(|one| one.covers(listen)),
        }
    }
}

impl Config {
    /// What is configured for the policy of a seat: a tenant's name, `default`, `before` or `after`. An operator's seat that is not
    /// configured is as `default` is.
    pub fn seat(&self, name: &str) -> Option<&SeatConfig> {
        let policy = &self.policy;
        match name {
            "default" => Some(&policy.seat),
            "before" => Some(policy.before.as_ref().unwrap_or(&policy.seat)),
            "after" => Some(policy.after.as_ref().unwrap_or(&policy.seat)),
            name => {
                let tenant = self.tenants.iter().find(|tenant| tenant.name == name);
                tenant.map(|tenant| &tenant.seat)
            }
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When the file cannot be read, or with every problem in it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|problems| ConfigError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }

    /// The named file; without one `portcullis.toml` if the current directory has it; else the defaults. With it the path that
    /// was read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn find(named: Option<&Path>) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let path = match named {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
            None => return Ok((Self::default(), None)),
        };
        Ok((Self::load(path)?, Some(path.to_owned())))
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// Every problem of the text, with its place.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        match read::config(text) {
            (config, problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    /// The same, with defaults in place of what can't be used: for a check that goes on behind the first problem.
    pub fn parse_as_far_as_possible(text: &str) -> (Self, Vec<Problem>) {
        read::config(text)
    }

    /// The number of worker threads: as configured, or one for each core that this process may use.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or_else(cores)
    }
}

impl Default for PermissionsConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::new(),
            pattern_memory: DEFAULT_PATTERN_MEMORY,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let listen = |transport| Listen {
            transport,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, SIP_PORT)),
            advertise: None,
        };
        Self {
            workers: None,
            spread: Spread::Flow,
            listen: vec![listen(Transport::Udp), listen(Transport::Tcp)],
            database: DatabaseConfig::default(),
            permissions: PermissionsConfig::default(),
            policy: PolicyConfig::default(),
            relay: RelayConfig {
                next_hop: None,
                next_hops: Vec::new(),
                domains: Vec::new(),
                record_route: true,
            },
            tenants: Vec::new(),
            control: ControlConfig::default(),
            records: RecordsConfig::default(),
            log: LogConfig {
                format: LogFormat::Human,
                level: "info".into(),
            },
            sip: SipConfig {
                aliases: Vec::new(),
                server_header: Some("Portcullis".into()),
                limits: portcullis_sip::Limits::default(),
                key_file: None,
                answers_per_second: 1_000,
                answers_burst: 5_000,
                tcp: ConnectionLimits {
                    total: 16_384,
                    per_address: 256,
                },
                force_rport: ForceRport::Never,
            },
        }
    }
}
