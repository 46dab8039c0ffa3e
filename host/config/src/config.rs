//! The whole configuration: its sections, and the checks between them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_address::{DatabaseUrl, DatabaseUrls};
use portcullis_sip::Transport;
use portcullis_tls::{Profile, Settings};

use super::capture::CaptureConfig;
use super::control::ControlConfig;
use super::database::{self, DatabaseConfig};
use super::dispatcher::{self, DispatcherConfig};
use super::events::EventsConfig;
use super::fleet::FleetConfig;
use super::guard::GuardConfig;
use super::listen::{Listen, Place, SIP_PORT};
use super::log::{self, LogConfig};
use super::nat::{self, NatConfig};
use super::permissions::{self, PermissionsConfig};
use super::policy::{self, PolicyConfig, SeatConfig};
use super::problem::{Bad, ConfigError, Problem};
use super::records::RecordsConfig;
use super::redis::RedisConfig;
use super::relay::{self, RelayConfig, RelayMode};
use super::resolver::ResolverConfig;
use super::section::{Document, Outline, Section, Value};
use super::shape::Shape;
use super::sip::{self, ForceRport, SipConfig};
use super::socket::Socket;
use super::streams::StreamsConfig;
use super::tenant::{self, Operator, TenantConfig};
use super::tls;
use super::transactions::{self, TransactionsConfig};
use super::value::count;
use super::websocket::{self, WebSocketConfig};

/// A configuration file with every key, its default and its meaning.
pub const DEFAULTS: &str = include_str!("defaults.toml");

/// Name of the configuration file that is read from the current directory if no other is named.
pub const DEFAULT_FILE: &str = "portcullis.toml";

/// The configuration file of packages, which is read if no other is named and the current directory has none.
pub const SYSTEM_FILE: &str = "/etc/portcullis/portcullis.toml";

/// The environment variable that replaces `url` of `[database]` (several URLs are separated by blanks), so that the password need not be in the configuration file.
pub const DATABASE_VARIABLE: &str = "PORTCULLIS_DATABASE_URL";

/// The configuration of one host, validated.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Number of worker threads; `None` means one per core.
    pub workers: Option<usize>,
    /// How UDP datagrams are distributed among the workers.
    pub spread: Spread,
    /// Listen addresses.
    pub listen: Vec<Listen>,
    /// `[database]`
    pub database: DatabaseConfig,
    /// `[fleet]`
    pub fleet: FleetConfig,
    /// `[permissions]`
    pub permissions: PermissionsConfig,
    /// `[dispatcher]`
    pub dispatcher: DispatcherConfig,
    /// `[policy]`
    pub policy: PolicyConfig,
    /// `[relay]`
    pub relay: RelayConfig,
    /// `[streams]`
    pub streams: StreamsConfig,
    /// `[tls.…]`, in the order of their names.
    pub tls: Vec<Profile>,
    /// `[nat]`
    pub nat: NatConfig,
    /// `[websocket]`
    pub websocket: WebSocketConfig,
    /// `[resolver]`
    pub resolver: ResolverConfig,
    /// `[transactions]`
    pub transactions: TransactionsConfig,
    /// `[tenants.…]`, in the order of their names. Each is in memory once, however many configurations and tables have it.
    pub tenants: Vec<Arc<TenantConfig>>,
    /// `[control]`
    pub control: ControlConfig,
    /// `[capture]`
    pub capture: CaptureConfig,
    /// `[events]`
    pub events: EventsConfig,
    /// `[records]`
    pub records: RecordsConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[sip]`
    pub sip: SipConfig,
    /// `[guard]`
    pub guard: GuardConfig,
    /// `[fleet.redis]`
    pub redis: RedisConfig,
}

/// How UDP datagrams are distributed among the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// All datagrams of one peer go to the same worker.
    Flow,
    /// Any worker may take any datagram.
    Datagram,
    /// All datagrams of one transaction go to the same worker.
    Transaction,
}

impl Config {
    /// Returns the configuration of a seat: that of a tenant, `default`, `before` or `after`. An unconfigured seat of the operator has the
    /// configuration of `default`.
    pub fn seat(&self, name: &str) -> Option<&SeatConfig> {
        let policy = &self.policy;
        match name {
            "default" => Some(&policy.seat),
            "before" => Some(policy.before.as_ref().unwrap_or(&policy.seat)),
            "after" => Some(policy.after.as_ref().unwrap_or(&policy.seat)),
            name => {
                let tenant = self.tenants.iter().find(|tenant| tenant.name == name);
                tenant.map(|tenant| &*tenant.seat)
            }
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// If the file cannot be read, or with every problem in it.
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

    /// Reads the named file; without a name, the file of [`Config::default_file`]; without such a file, returns the defaults. Also returns
    /// the path of the file that was read. [`DATABASE_VARIABLE`] has precedence over the file.
    ///
    /// # Errors
    /// See [`Config::load`] and [`Config::with_environment`].
    pub fn find(named: Option<&Path>) -> Result<(Self, Option<PathBuf>), ConfigError> {
        let path = named.map(Path::to_owned).or_else(Self::default_file);
        let config = match &path {
            Some(path) => Self::load(path)?,
            None => Self::default(),
        };
        Ok((config.with_environment()?, path))
    }

    /// Replaces the URL of the database by that of [`DATABASE_VARIABLE`], if it is set and not empty.
    ///
    /// # Errors
    /// If it is not a URL of a database.
    pub fn with_environment(self) -> Result<Self, ConfigError> {
        self.with_database_url(std::env::var_os(DATABASE_VARIABLE))
    }

    fn with_database_url(mut self, url: Option<OsString>) -> Result<Self, ConfigError> {
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            return Ok(self);
        };
        let refused = |cause: String| ConfigError::Environment {
            name: DATABASE_VARIABLE,
            cause,
        };
        let url = url
            .into_string()
            .map_err(|_| refused("not UTF-8".to_owned()))?;
        // Several URLs are separated by blanks.
        let all = separated(&url).map(str::parse::<DatabaseUrl>);
        let all = all.collect::<Result<Vec<_>, _>>();
        let all = all.map_err(|error| refused(error.to_string()))?;
        let url = DatabaseUrls::new(all);
        self.database.url = url.map_err(|error| refused(error.to_string()))?;
        Ok(self)
    }

    /// Returns the file that is read if none is named: the first of [`DEFAULT_FILE`] and [`SYSTEM_FILE`] that exists.
    pub fn default_file() -> Option<PathBuf> {
        [DEFAULT_FILE, SYSTEM_FILE]
            .map(PathBuf::from)
            .into_iter()
            .find(|path| path.exists())
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// Every problem in the text, with its position.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        match Self::parse_as_far_as_possible(text) {
            (config, problems) if problems.is_empty() => Ok(config),
            (_, problems) => Err(problems),
        }
    }

    /// Like [`Config::parse`], but uses the default of each invalid value, so that later checks can run in spite of problems.
    pub fn parse_as_far_as_possible(text: &str) -> (Self, Vec<Problem>) {
        let document = Document::new(text);
        let config = root(document.root());
        (config, document.problems())
    }

    /// Reads the section of a tenant that is not in the configuration file. `others` are the tenants with which its selectors and token
    /// must not conflict.
    ///
    /// # Errors
    /// Every problem in the text, with its position.
    pub fn parse_tenant(
        &self,
        name: &str,
        text: &str,
        others: &[Arc<TenantConfig>],
    ) -> Result<TenantConfig, Vec<Problem>> {
        tenant::parse(name, text, self.for_tenants(), others)
    }

    /// Returns the number of worker threads: as configured, or one per core that this process may use.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.unwrap_or_else(cores)
    }

    /// Returns what SIP over TLS needs; `None` if the host does not listen on TLS.
    pub fn tls_settings(&self) -> Option<Settings> {
        let mut listen = self.listen.iter();
        let has_tls = listen.any(|listen| listen.transport.is_secure());
        has_tls.then(|| Settings {
            profiles: self.tls.clone(),
            relay: self.relay.tls.clone(),
            relay_profiles: self.relay.tls_profiles.clone(),
        })
    }

    /// Whether this is the address of a load balancer: all its clients come from there.
    #[inline]
    pub fn is_load_balancer(&self, ip: IpAddr) -> bool {
        self.streams.is_load_balancer(ip) || self.websocket.is_load_balancer(ip)
    }

    /// Addresses that the configuration names as some of `listen`, with their keys, and that none of these sockets has. Which addresses an interface has,
    /// or the machine, is known only there.
    pub fn unmatched(&self, sockets: &[Socket]) -> Vec<(String, &Listen)> {
        let clients = self.nat.clients.iter();
        let clients = clients.map(|one| ("nat.clients".to_owned(), one));
        let force_rport = match &self.sip.force_rport {
            ForceRport::Never | ForceRport::Always => &[][..],
            ForceRport::On(these) => &these[..],
        };
        let force_rport = force_rport
            .iter()
            .map(|one| ("sip.force-rport".to_owned(), one));
        let local = self.tenants.iter().flat_map(|tenant| {
            let key = format!("tenants.{}.local", tenant.name);
            let local = tenant.selector.local.iter();
            local.map(move |one| (key.clone(), one))
        });
        let is_unmatched = |(_, one): &(String, &Listen)| !sockets.iter().any(|own| own.is_of(one));
        let all = clients.chain(force_rport).chain(local);
        all.filter(is_unmatched).collect()
    }

    fn for_tenants(&self) -> Operator<'_> {
        Operator {
            listen: &self.listen,
            policy: &self.policy,
            relay: &self.relay,
            control: &self.control,
            has_redis: !self.redis.servers.is_empty(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let listen = |transport| Listen {
            transport,
            place: Place::Addr(SocketAddr::from((Ipv4Addr::LOCALHOST, SIP_PORT))),
            advertise: None,
        };
        Self {
            workers: None,
            spread: Spread::Transaction,
            listen: vec![listen(Transport::Udp), listen(Transport::Tcp)],
            database: DatabaseConfig::default(),
            fleet: FleetConfig::default(),
            permissions: PermissionsConfig::default(),
            dispatcher: DispatcherConfig::default(),
            policy: PolicyConfig::default(),
            relay: RelayConfig::default(),
            streams: StreamsConfig::default(),
            tls: Vec::new(),
            nat: NatConfig::default(),
            websocket: WebSocketConfig::default(),
            resolver: ResolverConfig::default(),
            transactions: TransactionsConfig::default(),
            tenants: Vec::new(),
            control: ControlConfig::default(),
            capture: CaptureConfig::default(),
            events: EventsConfig::default(),
            records: RecordsConfig::default(),
            log: LogConfig::default(),
            sip: SipConfig::default(),
            guard: GuardConfig::default(),
            redis: RedisConfig::default(),
        }
    }
}

/// Returns which keys and sections a reader of this text asks for, and which values they may have if they have values that no key has.
pub(super) fn outline(text: &str) -> Outline {
    let document = Document::new(text);
    let _defaults = root(document.root());
    document.outline()
}

fn root(mut root: Section<'_>) -> Config {
    let defaults = Config::default();
    let workers = root.value("workers", defaults.workers, workers);
    let spread = root.value("spread", defaults.spread, spread);
    let listen = listen(&mut root, defaults.listen);
    let database = database::read(root.section("database"), defaults.database);
    let mut fleet = root.section("fleet");
    let redis = RedisConfig::read(fleet.section("redis"), defaults.redis);
    let fleet = FleetConfig::read(fleet, defaults.fleet);
    let mut config = Config {
        workers,
        spread,
        database,
        fleet,
        permissions: permissions::read(root.section("permissions")),
        dispatcher: dispatcher::read(root.section("dispatcher"), defaults.dispatcher),
        policy: policy::read(root.section("policy"), defaults.policy),
        relay: relay::read(root.section("relay"), defaults.relay),
        streams: StreamsConfig::read(root.section("streams"), defaults.streams, &listen),
        tls: tls::read_profiles(root.section("tls")),
        nat: nat::read(root.section("nat"), defaults.nat, &listen),
        websocket: websocket::read(root.section("websocket"), defaults.websocket, &listen),
        resolver: ResolverConfig::read(root.section("resolver"), defaults.resolver),
        transactions: transactions::read(root.section("transactions"), defaults.transactions),
        tenants: Vec::new(),
        control: ControlConfig::read(root.section("control"), defaults.control),
        capture: CaptureConfig::read(root.section("capture"), defaults.capture),
        events: EventsConfig::read(root.section("events"), defaults.events),
        records: RecordsConfig::read(root.section("records"), defaults.records),
        log: log::read(root.section("log"), defaults.log),
        sip: sip::read(root.section("sip"), defaults.sip, &listen),
        guard: GuardConfig::read(root.section("guard"), defaults.guard),
        redis,
        listen,
    };
    config.database.schema.dispatcher = config.dispatcher.names.clone();
    config.database.host.clone_from(&config.fleet.name);
    config.tenants = tenant::read_all(root.section("tenants"), config.for_tenants());
    reject_half_tls(&root, &config);
    reject_links(&root, &config);
    if config.redis.servers.is_empty() {
        let policy = &config.policy;
        let seats = [
            ("", Some(&policy.seat)),
            (" in [policy.before]", policy.before.as_ref()),
            (" in [policy.after]", policy.after.as_ref()),
        ];
        let together = |seat: &&SeatConfig| !seat.fleet_counters.is_empty();
        let mut lonely = seats
            .iter()
            .filter(|(_, seat)| seat.as_ref().is_some_and(together));
        if let Some((place, _)) = lonely.next() {
            root.reject("policy", policy::lonely_counters(place));
        }
    }
    if !config.nat.ping.is_zero() && config.relay.mode == RelayMode::Stateless {
        let what = "`ping` is not possible with `mode = \"stateless\"` in [relay]";
        let mend =
            "remove one of both: only a transaction knows whether a registration was accepted";
        root.reject("nat", Bad::new(what, mend));
    }
    root.finish();
    config
}

/// Reports a listener on TLS without a certificate, and a next hop over TLS without a listener, whose address Via and Record-Route would name. What is
/// wrong with a profile is reported by itself.
fn reject_half_tls(root: &Section<'_>, config: &Config) {
    let has_tls = config.tls_settings().is_some();
    if has_tls && config.tls.is_empty() && !root.is_filled_table("tls") {
        let mend = "add a section [tls.NAME] with `certificate` and `key`";
        root.reject(
            "listen",
            Bad::new("a TLS address without a certificate", mend),
        );
    }
    let relay = &config.relay;
    let mut hops = relay
        .next_hop
        .iter()
        .chain(relay.next_hops.iter().map(|(_, hop)| hop));
    if !has_tls && let Some(hop) = hops.find(|hop| hop.transport.is_some_and(Transport::is_secure))
    {
        let what = format!("the next hop {hop} needs TLS, and `listen` has no TLS address");
        let mend =
            "add one for Via and Record-Route to `listen`, for example \"tls:192.0.2.1:5061\"";
        root.reject("relay", Bad::new(what, mend));
    }
}

/// Reports a link-local next hop whose link is not known: it is that of the only link-local address in `listen` over the same transport.
fn reject_links(root: &Section<'_>, config: &Config) {
    let relay = &config.relay;
    let named = relay.next_hops.iter().map(|(_, hop)| hop);
    for hop in relay
        .next_hop
        .iter()
        .chain(named)
        .filter(|hop| hop.is_link_local())
    {
        let transport = hop.transport.unwrap_or(Transport::Udp);
        let zones = config.listen.iter().filter_map(|one| match &one.place {
            Place::Zoned(_, zone, _) if one.transport == transport => Some(zone),
            Place::Zoned(..) | Place::Addr(_) | Place::Interface(..) => None,
        });
        let zones: BTreeSet<_> = zones.collect();
        let name = transport.parameter();
        let (what, mend) = match zones.len() {
            1 => continue,
            0 => (
                format!(
                    "the next hop {hop} is link-local, and `listen` has no link-local {name} address"
                ),
                format!("add that of the link: \"{name}:[fe80::1%INTERFACE]:5060\""),
            ),
            _ => (
                format!(
                    "the next hop {hop} is link-local, and `listen` has {name} addresses of several links"
                ),
                "leave one of them, or use addresses that are not link-local".to_owned(),
            ),
        };
        root.reject("relay", Bad::new(what, mend));
    }
}

fn workers(value: Value<'_>) -> Result<Option<usize>, Bad> {
    if value.text() == Ok("auto") {
        return Ok(None);
    }
    let mend = |bad: Bad| Bad {
        mend: format!("{}, or \"auto\" for one worker per core", bad.mend),
        shape: bad
            .shape
            .map(|number| Shape::Any(vec![number, Shape::OneOf(&["auto"])])),
        ..bad
    };
    count(value, 1, 1024).map(Some).map_err(mend)
}

fn spread(value: Value<'_>) -> Result<Spread, Bad> {
    let words = Shape::OneOf(&["flow", "datagram", "transaction"]);
    match value.text().map_err(|bad| bad.shaped(words))? {
        "flow" => Ok(Spread::Flow),
        "datagram" => Ok(Spread::Datagram),
        "transaction" => Ok(Spread::Transaction),
        _ => Err(Bad::new(
            "unknown value",
            "write \"flow\", \"datagram\" or \"transaction\"",
        )),
    }
}

fn listen(root: &mut Section<'_>, default: Vec<Listen>) -> Vec<Listen> {
    let mut seen = Vec::<Listen>::new();
    let has_certificates = root.has_any(&["tls"]);
    let read = root.list("listen", default, |value| {
        let listen = Listen::parse(value.text()?)?;
        if listen.transport.is_secure() && !has_certificates {
            let mend = "add a section [tls.NAME] with `certificate` and `key`";
            return Err(Bad::new("a TLS address without a certificate", mend));
        }
        let same = |other: &&Listen| {
            other.transport == listen.transport
                && other.place == listen.place
                && listen.place.port() != 0
        };
        if let Some(other) = seen.iter().find(same) {
            return Err(Bad::new(
                format!("duplicate of {other}"),
                "remove one of them",
            ));
        }
        seen.push(listen.clone());
        Ok(listen)
    });
    if root.is_empty_list("listen") {
        let mend = "name at least one address, for example [\"udp:127.0.0.1:5060\"]";
        root.reject("listen", Bad::new("no listen address", mend));
    }
    read
}

/// The URLs in a text, separated by blanks. A blank that no scheme follows is part of a password.
fn separated(text: &str) -> impl Iterator<Item = &str> {
    const SCHEMES: [&str; 4] = ["mysql://", "mariadb://", "postgres://", "postgresql://"];
    let begins = |at: &usize| {
        let is_after_blank = text[..*at].ends_with(char::is_whitespace);
        is_after_blank && SCHEMES.iter().any(|scheme| text[*at..].starts_with(scheme))
    };
    let starts = text.char_indices().map(|(at, _)| at).filter(begins);
    let mut starts: Vec<_> = [0].into_iter().chain(starts).collect();
    starts.push(text.len());
    let parts: Vec<_> = starts
        .windows(2)
        .map(|pair| text[pair[0]..pair[1]].trim())
        .filter(|part| !part.is_empty())
        .collect();
    parts.into_iter()
}

#[cfg(test)]
mod tests;
