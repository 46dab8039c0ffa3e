//! The whole configuration: its sections, and the checks between them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_address::DatabaseUrl;
use portcullis_sip::Transport;
use portcullis_tls::{Profile, Settings};

use super::capture::CaptureConfig;
use super::control::ControlConfig;
use super::database::{self, DatabaseConfig};
use super::dispatcher::{self, DispatcherConfig};
use super::events::EventsConfig;
use super::guard::GuardConfig;
use super::listen::{Listen, Place, SIP_PORT};
use super::log::{self, LogConfig};
use super::nat::{self, NatConfig};
use super::permissions::{self, PermissionsConfig};
use super::policy::{self, PolicyConfig, SeatConfig};
use super::problem::{Bad, ConfigError, Problem};
use super::records::RecordsConfig;
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

/// The environment variable that replaces `url` of `[database]`, so that the password need not be in the configuration file.
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
        let url = url.parse::<DatabaseUrl>();
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
    let mut config = Config {
        workers,
        spread,
        database: database::read(root.section("database"), defaults.database),
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
        listen,
    };
    config.database.schema.dispatcher = config.dispatcher.names.clone();
    config.tenants = tenant::read_all(root.section("tenants"), config.for_tenants());
    reject_half_tls(&root, &config);
    reject_links(&root, &config);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{Answer, DefaultVerdict, LogFormat};

    use super::*;

    fn problems(text: &str) -> Vec<String> {
        Config::parse(text)
            .unwrap_err()
            .iter()
            .map(Problem::to_string)
            .collect()
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        assert_eq!(Config::parse(DEFAULTS), Ok(Config::default()));
        assert_eq!(Config::parse(""), Ok(Config::default()));
    }

    #[test]
    fn the_environment_names_the_database() {
        let config = Config::parse("[database]\nurl = \"sqlite:a.db\"\n").unwrap();
        let with = |url: &str| config.clone().with_database_url(Some(url.into()));
        let changed = with("mysql://kamailio:secret@db/kamailio").unwrap();
        assert_eq!(
            changed.database.url.to_string(),
            "mysql://kamailio@db:3306/kamailio"
        );
        assert_eq!(with("").unwrap(), config);
        assert_eq!(config.clone().with_database_url(None).unwrap(), config);
        let error = with("mysql:kamailio:secret@db").unwrap_err().to_string();
        assert!(
            error
                .starts_with("the environment variable PORTCULLIS_DATABASE_URL: \"//\" is missing"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn every_key_is_documented() {
        // The parser knows every key that it reads. The error for an unknown key lists the known keys of the section.
        for section in [
            "",
            "database",
            "permissions",
            "dispatcher",
            "policy",
            "policy.on-failure",
            "policy.before",
            "tenants.acme",
            "relay",
            "relay.tls",
            "relay.tls-profiles.carrier",
            "streams",
            "tls.edge",
            "nat",
            "websocket",
            "transactions",
            "control",
            "log",
            "sip",
            "guard",
        ] {
            let header = if section.is_empty() {
                String::new()
            } else {
                format!("[{section}]\n")
            };
            let listed = problems(&format!("{header}zzzz = 1"));
            let mut told = listed.iter();
            let (_, known) = told
                .find_map(|line| line.split_once("known keys: "))
                .unwrap();
            for key in known.split(", ").filter(|key| !key.is_empty()) {
                let written = DEFAULTS.lines().any(|line| {
                    // A key without a default is documented as a commented example.
                    let line = line.strip_prefix("# ").unwrap_or(line);
                    line.starts_with(&format!("{key} = "))
                        || line == format!("[{key}]")
                        || line == format!("[{section}.{key}]")
                        // A section whose keys the operator chooses.
                        || line.starts_with(&format!("[{section}.{key}."))
                        // The sections that all policies have are documented once, for [policy].
                        || line == format!("[policy.{key}]")
                });
                assert!(written, "{section}.{key} is not in defaults.toml");
            }
        }
    }

    #[test]
    fn a_whole_file_is_read() {
        let read = Config::parse(
            r#"
            workers = 1
            spread = "datagram"
            listen = ["udp:127.0.0.1:5060", "tcp:[::1]:5061 advertise sip.example.com"]
            [database]
            url = "mysql://kamailio:kamailiorw@127.0.0.1/kamailio"
            required = false
            poll = "500ms"
            [policy]
            file = "target/policies/address-acl.wasm"
            default = "reject"
            default-code = 480
            default-reason = "Not now"
            failure-code = 500
            deadline = "20ms"
            memory = "1MiB"
            [relay]
            next-hop = "sip:127.0.0.1:5080"
            domains = ["example.com", "10.0.0.0/8"]
            record-route = false
            [relay.next-hops]
            pstn = "sip:10.0.0.7;transport=tcp"
            "voice mail" = "sip:[::1]:5090"
            [control]
            listen = "[::1]:8061"
            [log]
            format = "json"
            level = "warn"
            [sip]
            aliases = ["Edge.Example.com", "192.0.2.1:5070"]
            server-header = ""
            header-lines = 100
            "#,
        )
        .unwrap();
        assert_eq!(read.workers, Some(1));
        assert_eq!(read.spread, Spread::Datagram);
        assert_eq!(
            read.listen[1].to_string(),
            "tcp:[::1]:5061 advertise sip.example.com:5060"
        );
        assert!(!read.database.required);
        assert_eq!(read.database.poll, Duration::from_millis(500));
        assert_eq!(
            read.policy.seat.file,
            Some("target/policies/address-acl.wasm".into())
        );
        let answer = Answer {
            code: 480,
            reason: "Not now".into(),
        };
        assert_eq!(read.policy.default, DefaultVerdict::Reject(answer));
        assert_eq!(read.policy.seat.failure.answer, Answer::new(500));
        assert_eq!(read.policy.seat.limits.deadline, Duration::from_millis(20));
        assert_eq!(read.policy.seat.limits.memory_bytes, 1 << 20);
        assert_eq!(
            read.relay.next_hop.unwrap().to_string(),
            "sip:127.0.0.1:5080"
        );
        let names: Vec<_> = read
            .relay
            .next_hops
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["pstn", "voice mail"]);
        assert_eq!(read.relay.domains.len(), 2);
        assert!(!read.relay.record_route);
        assert_eq!(read.control.listen, "[::1]:8061".parse().ok());
        assert_eq!(read.log.format, LogFormat::Json);
        assert_eq!(read.sip.aliases, ["edge.example.com", "192.0.2.1:5070"]);
        assert_eq!(read.sip.server_header, None);
        assert_eq!(read.sip.limits.header_lines, 100);
    }

    #[test]
    fn every_problem_has_position_value_and_correction() {
        let text = r#"workers = 0
listen = ["udp:127.0.0.1:5060", "upd:127.0.0.1:5060", "udp:127.0.0.1:5060"]
colour = "red"
[database]
url = "oracle://localhost/kamailio"
required = "yes"
poll = 5
[policy]
fiel = "a.wasm"
default = "accept"
default-code = 200
deadline = "soon"
memory = "99GiB"
workers = 2
[relay]
next-hop = "http://example.com"
domains = "example.com"
[relay.next-hops]
b = "sip:b.example;transport=sctp"
[control]
listen = "0.0.0.0:8060"
[log]
level = "loud"
"#;
        let said = problems(text);
        let expected = [
            "1:11: workers = 0: too small; write a whole number from 1 to 1024, or \"auto\" for one worker per core",
            "2:33: listen[1] = \"upd:127.0.0.1:5060\": unknown transport `upd`; write \"udp:ADDRESS:PORT\"",
            "2:55: listen[2] = \"udp:127.0.0.1:5060\": duplicate of udp:127.0.0.1:5060; remove one of them",
            "3:1: colour: unknown key; known keys: workers, spread, listen, database, permissions, dispatcher, policy, relay, streams, tls, nat, websocket, resolver, transactions, control, capture, events, records, log, sip, guard, tenants",
            "5:7: database.url: the database \"oracle\" is not supported; write \"mysql://",
            "6:12: database.required = \"yes\": a string, not a boolean; write true or false",
            "7:8: database.poll = 5: a time without a unit; write a time from \"100ms\" to \"3600s\"",
            "9:1: policy.fiel: unknown key; did you mean `file`?",
            "10:11: policy.default = \"accept\": not one of the choices; write \"reject\" or \"relay\" or \"drop\"",
            "11:16: policy.default-code = 200: too small; write a whole number from 300 to 699",
            "12:12: policy.deadline = \"soon\": not a time; write a time from \"1ms\" to \"10s\"",
            "13:10: policy.memory = \"99GiB\": too large; write a size from \"64KiB\" to \"1GiB\"",
            "14:1: policy.workers: unknown key; it belongs at the top of the file",
            "16:12: relay.next-hop = \"http://example.com\": not a SIP URI; write \"sip:HOST:PORT\"",
            "17:11: relay.domains = \"example.com\": not a list; write domains = [",
            "19:5: relay.next-hops.b = \"sip:b.example;transport=sctp\": unknown parameter `transport=sctp`; ",
            "21:10: control.listen = \"0.0.0.0:8060\": not a loopback address",
            "23:9: log.level = \"loud\": `loud` is not a level; write error, warn",
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.starts_with(expected), "{said}\n{expected}");
        }
    }

    #[test]
    fn a_line_that_is_not_toml_does_not_hide_other_problems() {
        let said = problems("workers = one\n[log\nlevel = \"info\"\n[control]\nlisten = 8060\n");
        assert!(said[0].starts_with("1:11: not TOML: "), "{said:#?}");
        assert!(said.iter().any(|line| line.starts_with("2:")), "{said:#?}");
        assert!(
            said.last()
                .unwrap()
                .starts_with("5:10: control.listen = 8060: an integer, not a string")
        );
    }

    #[test]
    fn addresses_that_no_socket_has_are_named_with_their_keys() {
        let config = Config::parse(
            "listen = [\"udp:lo:5060\", \"udp:192.0.2.1:5070\"]\n[nat]\nclients = [\"udp:lo:5060\", \"udp:192.0.2.9:5060\"]\n\
             [sip]\nforce-rport = [\"udp:192.0.2.1:5070\", \"udp:127.0.0.1:5060\"]\n[tenants.acme]\nlocal = [\"udp:192.0.2.8:5060\"]\n",
        )
        .unwrap();
        let sockets = Socket::all(&config.listen).unwrap();
        let unmatched = config.unmatched(&sockets).into_iter();
        let said: Vec<_> = unmatched.map(|(key, one)| format!("{key} {one}")).collect();
        assert_eq!(
            said,
            [
                "nat.clients udp:192.0.2.9:5060",
                "tenants.acme.local udp:192.0.2.8:5060"
            ]
        );
    }

    #[test]
    fn an_empty_list_of_listen_addresses_is_refused() {
        assert_eq!(
            problems("listen = []"),
            [
                "1:10: listen = []: no listen address; name at least one address, for example [\"udp:127.0.0.1:5060\"]"
            ]
        );
    }

    #[test]
    fn a_link_local_next_hop_needs_one_link() {
        let relay = "[relay]\nnext-hop = \"sip:[fe80::9]:5060;transport=tcp\"\n";
        let with = |listen: &str| Config::parse(&format!("listen = [{listen}]\n{relay}"));
        let said = |listen: &str| with(listen).unwrap_err()[0].to_string();
        let none = said("\"tcp:[::]:5060\", \"udp:[fe80::1%eth0]:5060\"");
        let text = "the next hop sip:[fe80::9]:5060;transport=tcp is link-local, and `listen` has no link-local tcp address; \
                    add that of the link: \"tcp:[fe80::1%INTERFACE]:5060\"";
        assert!(none.ends_with(text), "{none}");
        let two = said("\"tcp:[fe80::1%eth0]:5060\", \"tcp:[fe80::2%eth1]:5060\"");
        assert!(
            two.contains("`listen` has tcp addresses of several links"),
            "{two}"
        );
        assert!(with("\"tcp:[fe80::1%eth0]:5060\", \"tcp:[fe80::1%eth0]:5070\"").is_ok());
    }
}
