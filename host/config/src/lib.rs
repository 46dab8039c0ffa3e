//! The configuration: one TOML file in which every key has a default. `defaults.toml`, next to this file, lists all keys.
//!
//! [`Config::parse`] reads the text and reports every problem with its position. This crate opens no sockets, sends no queries, and does
//! not depend on how the host uses a value.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod capture;
mod config;
mod control;
mod database;
mod dispatcher;
pub mod documentation;
mod events;
mod fleet;
mod forwarding;
mod guard;
#[cfg(any(test, feature = "invariants"))]
pub mod invariants;
mod listen;
mod log;
mod log_level;
mod nat;
mod next_hop;
mod peers;
mod permissions;
mod policy;
mod problem;
mod records;
mod redis;
mod relay;
mod resolver;
mod role;
mod schema;
mod section;
mod shape;
mod sip;
mod socket;
mod streams;
mod tenant;
mod tls;
mod token;
mod transactions;
mod value;
mod websocket;

pub use capture::CaptureConfig;
pub use config::{Config, DATABASE_VARIABLE, DEFAULT_FILE, DEFAULTS, SYSTEM_FILE, Spread};
pub use control::{AuditConfig, ControlConfig, Endpoint, FileAccess, TlsFiles};
pub use database::{DatabaseConfig, Prefer};
pub use dispatcher::DispatcherConfig;
pub use events::{EventLevel, EventsConfig};
pub use fleet::{Announce, FleetConfig};
pub use forwarding::ForwardingLimits;
pub use guard::GuardConfig;
pub use listen::{Listen, Place, SIP_PORT};
pub use log::{LogConfig, LogFormat};
pub use nat::NatConfig;
pub use next_hop::{Domain, Host, Hosts, NextHop, Ports};
pub use peers::{Pass, PeersConfig};
pub use permissions::PermissionsConfig;
pub use policy::{
    Answer, BreakerConfig, CacheConfig, DefaultVerdict, FailureRules, InDialog, OnFailure,
    PolicyConfig, SeatConfig,
};
pub use problem::{Bad, ConfigError, Problem};
pub use records::RecordsConfig;
pub use redis::{RedisConfig, RedisServer};
pub use relay::{RelayConfig, RelayMode, Trying};
pub use resolver::ResolverConfig;
pub use role::{NamedToken, TokenRole};
pub use schema::schema;
pub use sip::{ConnectionLimits, ForceRport, SipConfig};
pub use socket::{Names, Socket, SocketError};
pub use streams::StreamsConfig;
pub use tenant::{
    EditConfig, Rate, SelectorConfig, SettingsTextError, TenantConfig, with_settings,
};
pub use token::Token;
pub use token::without_secret;
pub use transactions::{Adopt, TransactionsConfig};
pub use value::{parse_duration, show_size};
pub use websocket::WebSocketConfig;
