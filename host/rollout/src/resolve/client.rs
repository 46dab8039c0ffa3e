//! Queries to name servers.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig as Servers, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use portcullis_config::ResolverConfig;
use portcullis_resolve::{
    Answer, Kind, Naptr, Query, Records, Srv, TTL_FAILED, TTL_LEAST, TTL_NONE, ttl_of,
};
use tokio::time::timeout;
use tracing::warn;

/// The files of the system that say how names are resolved.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Asks name servers, as the files of the system say unless the configuration does.
#[derive(Clone)]
pub(super) struct Client {
    resolver: TokioResolver,
    /// Whether the system has a search list.
    searches: bool,
    patience: Duration,
    /// When the files of the system were changed last.
    files: [Option<SystemTime>; 2],
}

impl Client {
    /// # Errors
    /// If the resolver cannot be made.
    pub(super) fn new(config: &ResolverConfig) -> Result<Self, NetError> {
        let files = FILES.map(changed);
        let (servers, mut options) = match config.servers.is_empty() {
            true => of_system(),
            false => (servers_of(config), ResolverOpts::default()),
        };
        let searches = !servers.search().is_empty() || servers.domain().is_some();
        // A query that is lost is repeated once within the time.
        options.timeout = config.timeout / 2;
        options.attempts = 1;
        // Answers are stored with limits of our own.
        options.cache_size = 0;
        options.use_hosts_file = match config.hosts_file {
            true => ResolveHosts::Always,
            false => ResolveHosts::Never,
        };
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(servers, provider);
        Ok(Self {
            resolver: builder.with_options(options).build()?,
            searches,
            patience: config.timeout,
            files,
        })
    }

    /// Whether the files of the system have changed since this client was made.
    pub(super) fn is_outdated(&self) -> bool {
        self.files != FILES.map(changed)
    }

    /// Asks a query. A name with a dot is complete; only if it does not exist, the search list of the system applies to it.
    pub(super) async fn ask(&self, query: &Query) -> Answer {
        if query.name.ends_with('.') || !query.name.contains('.') {
            return self.ask_once(&query.name, query.kind).await;
        }
        let complete = self.ask_once(&format!("{}.", query.name), query.kind).await;
        match complete {
            Answer::None { .. } if self.searches => self.ask_once(&query.name, query.kind).await,
            answer @ (Answer::Found { .. } | Answer::None { .. } | Answer::Failed { .. }) => answer,
        }
    }

    async fn ask_once(&self, name: &str, kind: Kind) -> Answer {
        let failed = |error: String| Answer::Failed {
            error,
            ttl: TTL_FAILED,
        };
        let name = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(error) => return failed(format!("not a name of the DNS: {error}")),
        };
        let lookup = self.resolver.lookup(name, record_type(kind));
        match timeout(self.patience, lookup).await {
            Err(_) => failed(format!("no answer within {:?}", self.patience)),
            Ok(Ok(found)) => answer_of(&found, kind),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none)))) => {
                let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
                Answer::None {
                    ttl: ttl.unwrap_or(TTL_NONE).clamp(TTL_LEAST, TTL_NONE),
                }
            }
            Ok(Err(error)) => failed(error.to_string()),
        }
    }
}

/// The time of the last change of a file; `None` if there is no such file.
fn changed(path: &str) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|file| file.modified())
        .ok()
}

/// What the system says. Without a name server there, as the C library: the one of this machine.
fn of_system() -> (Servers, ResolverOpts) {
    match read_system_conf() {
        Ok(read) => read,
        Err(error) => {
            warn!(
                event = "name_servers_unknown",
                %error,
                "no name server in /etc/resolv.conf, 127.0.0.1 is asked; write them there, or into servers of [resolver]"
            );
            let local = NameServerConfig::udp_and_tcp(IpAddr::from([127, 0, 0, 1]));
            (
                Servers::from_name_servers(vec![local]),
                ResolverOpts::default(),
            )
        }
    }
}

fn servers_of(config: &ResolverConfig) -> Servers {
    let servers = config.servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        let connections = connections.map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    Servers::from_name_servers(servers.collect())
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::Naptr => RecordType::NAPTR,
        Kind::Srv => RecordType::SRV,
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
    }
}

fn answer_of(found: &Lookup, kind: Kind) -> Answer {
    let records = found.answers();
    let records = match kind {
        Kind::Naptr => Records::Naptr(records.iter().filter_map(naptr_of).collect()),
        Kind::Srv => Records::Srv(records.iter().filter_map(srv_of).collect()),
        Kind::A | Kind::Aaaa => Records::Addresses(records.iter().filter_map(address_of).collect()),
    };
    if records.is_empty() {
        return Answer::None { ttl: TTL_NONE };
    }
    let left = found
        .valid_until()
        .saturating_duration_since(Instant::now());
    // What the resolver says is a fraction of a second less than the TTL.
    let ttl = Duration::from_secs_f64(left.as_secs_f64().ceil());
    Answer::Found {
        records,
        ttl: ttl_of(ttl),
        stale: None,
    }
}

fn naptr_of(record: &Record) -> Option<Naptr> {
    let RData::NAPTR(data) = &record.data else {
        return None;
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(Naptr {
        order: data.order,
        preference: data.preference,
        flags: text(&data.flags),
        service: text(&data.services),
        regexp: text(&data.regexp),
        replacement: data.replacement.to_ascii(),
    })
}

fn srv_of(record: &Record) -> Option<Srv> {
    let RData::SRV(data) = &record.data else {
        return None;
    };
    Some(Srv {
        priority: data.priority,
        weight: data.weight,
        port: data.port,
        target: data.target.to_ascii(),
    })
}

fn address_of(record: &Record) -> Option<IpAddr> {
    record.data.ip_addr()
}
