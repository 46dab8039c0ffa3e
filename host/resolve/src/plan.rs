//! The queries about a name, and what follows from their answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portcullis_sip::{Candidate, Lookup, Sought, Transport};
use siphasher::sip::SipHasher24;

use crate::query::{Answer, Kind, Naptr, Query, Records, Srv, TTL_MOST};
use crate::usable::usable;

/// Most SRV records of one plan that are used: those with the lowest priorities.
const MOST_SERVERS: usize = 64;

/// Most addresses of one plan.
const MOST_CANDIDATES: usize = 128;

/// Most addresses of one name.
const MOST_ADDRESSES: usize = 64;

/// Which records are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether NAPTR records choose the transport (RFC 3263 §4.1).
    pub naptr: bool,
    /// Whether SRV records name the servers (RFC 3263 §4.2).
    pub srv: bool,
    /// Which addresses are asked for.
    pub families: Families,
    /// Whether loopback addresses of names are used.
    pub loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            naptr: true,
            srv: true,
            families: Families::Both,
            loopback: false,
        }
    }
}

/// Families of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Families {
    /// IPv4 and IPv6.
    Both,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Families {
    const fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Both => &[Kind::A, Kind::Aaaa],
            Self::Ipv4 => &[Kind::A],
            Self::Ipv6 => &[Kind::Aaaa],
        }
    }
}

/// The way from a name to its addresses.
///
/// There are at most three rounds of queries: NAPTR, SRV, addresses. CNAME records are followed by whoever answers the queries.
#[derive(Clone, Debug)]
pub struct Plan {
    lookup: Lookup,
    settings: Settings,
    /// The transports of the host that may be used, in the order of preference.
    transports: Vec<Transport>,
    stage: Stage,
    asked: BTreeMap<Query, Option<Answer>>,
    steps: Vec<Step>,
}

/// A query with its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The query.
    pub query: Query,
    /// The answer.
    pub answer: Answer,
}

#[derive(Clone, Debug)]
enum Stage {
    Services,
    Servers(Vec<Service>),
    Addresses(Vec<Server>),
    Done(Vec<Candidate>),
}

/// The SRV records of a transport are at this name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    transport: Transport,
    name: String,
}

/// A server whose addresses are asked for.
#[derive(Clone, Debug)]
struct Server {
    transport: Transport,
    order: u16,
    /// The SRV record; `None`: the name itself is the server.
    srv: Option<Srv>,
    name: String,
    port: u16,
}

/// What a plan has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The addresses, in the order in which they are tried before a draw by weight. Empty: the name leads nowhere.
    pub candidates: Vec<Candidate>,
    /// For how long that holds: the shortest time of all answers.
    pub ttl: Duration,
    /// The queries and their answers, in the order in which they were asked.
    pub steps: Vec<Step>,
}

impl Found {
    /// Why there is no address.
    pub fn error(&self) -> Option<String> {
        if !self.candidates.is_empty() {
            return None;
        }
        let failed = self.steps.iter().find_map(|step| match &step.answer {
            Answer::Failed { error, .. } => Some(format!("{}: {error}", step.query)),
            Answer::Found { .. } | Answer::None { .. } => None,
        });
        let has_addresses = |step: &Step| match &step.answer {
            Answer::Found { records, .. } => matches!(records, Records::Addresses(_)),
            Answer::None { .. } | Answer::Failed { .. } => false,
        };
        Some(failed.unwrap_or_else(|| {
            if self.steps.iter().any(has_addresses) {
                return "it has no addresses other than loopback, link-local, multicast and unspecified ones, which are ignored; to relay there, write the address itself".to_owned();
            }
            "it does not exist, or has no address".to_owned()
        }))
    }
}

impl Plan {
    /// The plan for what a URI asks about its name, with the transports that the host has.
    pub fn new(lookup: &Lookup, settings: Settings, transports: &[Transport]) -> Self {
        let mut plan = Self {
            lookup: lookup.clone(),
            settings,
            transports: transports.to_vec(),
            stage: Stage::Services,
            asked: BTreeMap::new(),
            steps: Vec::new(),
        };
        plan.begin();
        plan
    }

    /// The queries to ask now. None: the plan is complete.
    pub fn queries(&self) -> Vec<Query> {
        let open = self.asked.iter().filter(|(_, answer)| answer.is_none());
        open.map(|(query, _)| query.clone()).collect()
    }

    /// Takes the answer to a query of this plan; another one is ignored.
    pub fn answer(&mut self, query: &Query, answer: Answer) {
        let Some(open) = self.asked.get_mut(query) else {
            return;
        };
        *open = Some(answer);
        if self.asked.values().all(Option::is_some) {
            self.advance();
        }
    }

    /// The result of a complete plan; `None` if queries are open.
    pub fn found(self) -> Option<Found> {
        let Stage::Done(candidates) = self.stage else {
            return None;
        };
        let ttls = self.steps.iter().map(|step| step.answer.ttl());
        Some(Found {
            candidates,
            ttl: ttls.min().unwrap_or(TTL_MOST),
            steps: self.steps,
        })
    }

    fn begin(&mut self) {
        match self.lookup.sought {
            Sought::Addresses => self.ask_itself(Transport::Udp, 0),
            // `sips:HOST` and `sip:HOST;transport=tls` are one question here, and NAPTR records may answer the first (RFC 3263 §4.1).
            Sought::Anything | Sought::Servers(Transport::Tls)
                if self.settings.naptr && self.settings.srv =>
            {
                let name = complete(&self.lookup.name);
                self.ask([Query {
                    name,
                    kind: Kind::Naptr,
                }]);
            }
            Sought::Servers(_) | Sought::Anything => {
                let services = self.default_services();
                self.ask_services(services);
            }
        }
    }

    /// All queries of this round have answers.
    fn advance(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        let answers = asked
            .into_iter()
            .filter_map(|(query, answer)| Some((query, answer?)));
        let answers: BTreeMap<Query, Answer> = answers.collect();
        let steps = answers.iter().map(|(query, answer)| Step {
            query: query.clone(),
            answer: answer.clone(),
        });
        self.steps.extend(steps);
        match std::mem::replace(&mut self.stage, Stage::Services) {
            Stage::Services => {
                let mut services = self.services_of(&answers);
                if services.is_empty() {
                    services = self.default_services();
                }
                self.ask_services(services);
            }
            Stage::Servers(services) => self.servers_found(&services, &answers),
            Stage::Addresses(servers) => {
                let candidates = self.candidates(&servers, &answers);
                self.stage = Stage::Done(candidates);
            }
            done @ Stage::Done(_) => self.stage = done,
        }
    }

    fn ask(&mut self, queries: impl IntoIterator<Item = Query>) {
        self.asked = queries.into_iter().map(|query| (query, None)).collect();
    }

    /// The services of NAPTR records that this host supports, in their order (RFC 3263 §4.1, RFC 3403 §4.1).
    fn services_of(&self, answers: &BTreeMap<Query, Answer>) -> Vec<Service> {
        let mut records: Vec<&Naptr> = Vec::new();
        for answer in answers.values() {
            if let Answer::Found {
                records: Records::Naptr(found),
                ..
            } = answer
            {
                records.extend(found);
            }
        }
        records.sort_unstable_by_key(|record| (record.order, record.preference));
        let wanted = self.wanted();
        let mut services: Vec<Service> = Vec::new();
        for record in records {
            let transport = wanted.iter().find(|&&transport| {
                record
                    .service
                    .eq_ignore_ascii_case(naptr_service(transport))
            });
            let is_ours = record.flags.eq_ignore_ascii_case("s") && record.regexp.is_empty();
            let (Some(&transport), true) = (transport, is_ours) else {
                continue;
            };
            let name = absolute(&record.replacement);
            let service = Service { transport, name };
            if service.name != "." && !services.contains(&service) && services.len() < MOST_SERVICES
            {
                services.push(service);
            }
        }
        services
    }

    /// The services without NAPTR records: those of the named transport, or of each one that this host has (RFC 3263 §4.1).
    fn default_services(&self) -> Vec<Service> {
        let services = self.wanted().iter().map(|&transport| Service {
            transport,
            name: format!("{}.{}", srv_prefix(transport), complete(&self.lookup.name)),
        });
        services.collect()
    }

    /// The transports that the URI permits.
    fn wanted(&self) -> &[Transport] {
        match &self.lookup.sought {
            Sought::Servers(transport) => std::slice::from_ref(transport),
            Sought::Anything | Sought::Addresses => &self.transports,
        }
    }

    fn ask_services(&mut self, services: Vec<Service>) {
        if !self.settings.srv {
            return self.ask_itself(self.own_transport(), self.own_transport().default_port());
        }
        self.ask(services.iter().map(|service| Query {
            name: service.name.clone(),
            kind: Kind::Srv,
        }));
        self.stage = Stage::Servers(services);
    }

    /// Asks for the addresses of the servers; of the name itself, if there are no SRV records (RFC 3263 §4.2).
    fn servers_found(&mut self, services: &[Service], answers: &BTreeMap<Query, Answer>) {
        let mut servers: Vec<Server> = Vec::new();
        let mut has_records = false;
        for (order, service) in (0..).zip(services) {
            let query = Query {
                name: service.name.clone(),
                kind: Kind::Srv,
            };
            let Some(Answer::Found {
                records: Records::Srv(records),
                ..
            }) = answers.get(&query)
            else {
                continue;
            };
            has_records |= !records.is_empty();
            let mut records = records.clone();
            records.sort_unstable();
            records.dedup();
            // "." says that the service is not offered (RFC 2782).
            let offered = records.into_iter().filter(|record| {
                record.target != "." && !record.target.is_empty() && record.port > 0
            });
            servers.extend(offered.map(|record| Server {
                transport: service.transport,
                order,
                name: absolute(&record.target),
                port: record.port,
                srv: Some(record),
            }));
        }
        if !has_records {
            return self.ask_itself(self.own_transport(), self.own_transport().default_port());
        }
        servers.truncate(MOST_SERVERS);
        self.ask_servers(servers);
    }

    /// The transport of a name without SRV records: the named one, or UDP (RFC 3263 §4.1).
    fn own_transport(&self) -> Transport {
        match self.lookup.sought {
            Sought::Servers(transport) => transport,
            Sought::Anything | Sought::Addresses => Transport::Udp,
        }
    }

    fn ask_itself(&mut self, transport: Transport, port: u16) {
        let server = Server {
            transport,
            order: 0,
            srv: None,
            name: self.lookup.name.to_string(),
            port,
        };
        self.ask_servers(vec![server]);
    }

    fn ask_servers(&mut self, servers: Vec<Server>) {
        if servers.is_empty() {
            self.stage = Stage::Done(Vec::new());
            return;
        }
        let kinds = self.settings.families.kinds();
        self.ask(servers.iter().flat_map(|server| {
            kinds.iter().map(|&kind| Query {
                name: server.name.clone(),
                kind,
            })
        }));
        self.stage = Stage::Addresses(servers);
    }

    fn candidates(&self, servers: &[Server], answers: &BTreeMap<Query, Answer>) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for server in servers {
            let addresses = self.settings.families.kinds().iter().map(|&kind| {
                let query = Query {
                    name: server.name.clone(),
                    kind,
                };
                // What a name of the zone is called does not matter.
                self.addresses_of(answers.get(&query))
            });
            let (priority, weight, service) = match &server.srv {
                None => (0, 0, 0),
                Some(srv) => (srv.priority, srv.weight, hash(&server.name, srv.port)),
            };
            let all = interleaved(addresses.collect());
            candidates.extend(all.into_iter().map(|ip| Candidate {
                transport: server.transport,
                addr: SocketAddr::new(ip, server.port),
                order: server.order,
                priority,
                weight,
                service,
            }));
        }
        candidates.truncate(MOST_CANDIDATES);
        candidates
    }

    /// The addresses of an answer that requests may go to: sorted, because their order must not depend on the answer (RFC 3263 §4.4).
    fn addresses_of(&self, answer: Option<&Answer>) -> Vec<IpAddr> {
        let Some(Answer::Found {
            records: Records::Addresses(found),
            ..
        }) = answer
        else {
            return Vec::new();
        };
        let is_usable = |ip: &IpAddr| {
            usable(&self.lookup.name, *ip) || (self.settings.loopback && ip.is_loopback())
        };
        let found = found.iter().map(IpAddr::to_canonical);
        let mut addresses: Vec<IpAddr> = found.filter(is_usable).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(MOST_ADDRESSES);
        addresses
    }
}

/// Most services of NAPTR records.
const MOST_SERVICES: usize = 16;

/// The service of a NAPTR record for this transport (RFC 3263 §4.1, RFC 7118 §9.4).
const fn naptr_service(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "SIP+D2U",
        Transport::Tcp => "SIP+D2T",
        Transport::Tls => "SIPS+D2T",
        Transport::Ws => "SIP+D2W",
        Transport::Wss => "SIPS+D2W",
    }
}

/// The labels before a domain at which its SRV records for this transport are (RFC 3263 §4.1).
const fn srv_prefix(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "_sip._udp",
        Transport::Tcp => "_sip._tcp",
        Transport::Tls => "_sips._tcp",
        Transport::Ws => "_sip._ws",
        Transport::Wss => "_sips._wss",
    }
}

/// A name with a dot in it is complete; one without may have a domain in the search list of the system.
fn complete(name: &str) -> String {
    match name.ends_with('.') || !name.contains('.') {
        true => name.to_owned(),
        false => format!("{name}."),
    }
}

/// A name from a record is complete.
fn absolute(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.ends_with('.') {
        true => name,
        false => format!("{name}."),
    }
}

/// One of each list in turn (RFC 7984 §4.2).
fn interleaved(lists: Vec<Vec<IpAddr>>) -> Vec<IpAddr> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    let rounds = (0..longest).flat_map(|at| lists.iter().filter_map(move |list| list.get(at)));
    let mut all: Vec<IpAddr> = Vec::new();
    for ip in rounds {
        if !all.contains(ip) {
            all.push(*ip);
        }
    }
    all
}

/// Tells SRV records apart, and is the same on every host and after every query.
fn hash(target: &str, port: u16) -> u64 {
    let mut bytes = target.as_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    SipHasher24::new().hash(&bytes)
}
