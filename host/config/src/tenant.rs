//! `[tenants.NAME]`: the traffic of a tenant, its policy, and what that policy may query and change.

mod claims;
mod edit;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;

use portcullis_policy::Share;
use portcullis_signature::Signers;

use super::control::ControlConfig;
use super::forwarding::{self, ForwardingLimits};
use super::listen::{Listen, is_host};
use super::next_hop::Domain;
use super::policy::{self, BreakerConfig, DefaultVerdict, PolicyConfig, SeatConfig};
use super::problem::{Bad, Problem};
use super::records::header_name;
use super::relay::RelayConfig;
use super::section::{Document, Section, Value};
use super::token::Token;
use super::value::{count, group, share};
use claims::Claims;

pub use edit::EditConfig;
pub use settings::{SettingsTextError, with_settings};

/// Longest name of a tenant in bytes.
const MAX_NAME: usize = 32;

/// Names with another meaning where a tenant can be named.
const RESERVED: [&str; 6] = ["default", "before", "after", "operator", "breaker", "self"];

/// One tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantConfig {
    /// Name.
    pub name: String,
    /// Which requests belong to the tenant.
    pub selector: SelectorConfig,
    /// Configuration of its seat.
    pub seat: Arc<SeatConfig>,
    /// Verdict on a request on which no policy decides.
    pub default: DefaultVerdict,
    /// Groups of the address table that the policy may query.
    pub groups: Vec<u32>,
    /// Rows of the address table that the tenant may change with its token.
    pub edit: EditConfig,
    /// Whether the policy may query trusted peers.
    pub trusted: bool,
    /// Pairs of allow and deny files that the policy may query.
    pub rules: Vec<String>,
    /// Names of the header fields that the policy may add to requests and remove from them.
    pub headers: Vec<String>,
    /// Name of the next hop, in `[relay.next-hops]`, of requests whose Route and request URI lead to no permitted destination.
    pub next_hop: Option<String>,
    /// Names of the next hops, in `[relay.next-hops]`, that the policy can select.
    pub next_hops: Vec<String>,
    /// Destinations to which Route and request URI may lead.
    pub domains: Vec<Domain>,
    /// Sets of the dispatcher that the policy may choose targets from.
    pub sets: Vec<u32>,
    /// How far the policy may go with targets.
    pub forwarding: ForwardingLimits,
    /// Largest share of each worker's CPU time that the policy may take.
    pub cpu_share: Share,
    /// Most requests; `None`: no limit.
    pub rate: Option<Rate>,
    /// Most log lines of the policy per second.
    pub log_rate: u32,
    /// Token for deploying policies to the tenant's seat; `None`: only the operator deploys them.
    pub token: Option<Token>,
}

/// A rate limit of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Per second.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// Selectors of a tenant. A request that matches any of them belongs to the tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectorConfig {
    /// Local sockets that receive the requests.
    pub local: Vec<Listen>,
    /// Hosts of the request URI: a name, an address, or `*.NAME` for all names below it.
    pub uri_domains: Vec<String>,
    /// Hosts of From.
    pub from_domains: Vec<String>,
    /// Groups of the address table that contain the source.
    pub source_groups: Vec<u32>,
}

/// The parts of the host's configuration against which a tenant is validated.
#[derive(Clone, Copy)]
pub(super) struct Operator<'c> {
    pub(super) listen: &'c [Listen],
    pub(super) policy: &'c PolicyConfig,
    pub(super) relay: &'c RelayConfig,
    pub(super) control: &'c ControlConfig,
    pub(super) has_redis: bool,
}

/// Reads `[tenants]`.
pub(super) fn read_all(section: Section<'_>, operator: Operator<'_>) -> Vec<Arc<TenantConfig>> {
    let mut claims = Claims::default();
    let tenants = section.tables(check_name);
    let read = tenants
        .into_iter()
        .map(|(name, section)| Arc::new(read(name, section, operator, &mut claims)));
    read.collect()
}

/// See [`Config::parse_tenant`](super::Config::parse_tenant).
pub(super) fn parse(
    name: &str,
    text: &str,
    operator: Operator<'_>,
    others: &[Arc<TenantConfig>],
) -> Result<TenantConfig, Vec<Problem>> {
    let document = Document::new(text);
    if let Err(bad) = check_name(name) {
        document.root().reject_whole(bad);
        return Err(document.problems());
    }
    let mut claims = Claims::default();
    for other in others.iter().filter(|other| other.name != name) {
        claim_all(&mut claims, other);
    }
    let mut tenant = read(name.to_owned(), document.root(), operator, &mut claims);
    if operator.policy.signers_bind_stored {
        let bound = bind(
            &mut Arc::make_mut(&mut tenant.seat).signers,
            &operator.policy.seat.signers,
        );
        if let Err(bad) = bound {
            document.root().reject("signers", bad);
        }
    }
    match document.problems() {
        problems if problems.is_empty() => Ok(tenant),
        problems => Err(problems),
    }
}

/// Applies the operator's signers to a tenant stored in the database: the right to write a row does not imply the right to sign, so the
/// signers of a row can only be a subset of the operator's.
fn bind(signers: &mut Signers, operators: &Signers) -> Result<(), Bad> {
    if operators.keys.is_empty() {
        return Ok(());
    }
    let is_operators = |key| operators.keys.iter().any(|(_, other)| other == key);
    let stranger = signers.keys.iter().find(|(_, key)| !is_operators(key));
    if let Some((name, _)) = stranger {
        let what = format!(
            "{} is not among the `signers` of [policy], which apply to tenants in the database",
            name.escape_debug()
        );
        let mend = "add the key to [policy.signers] of each host, or set `signers-bind-stored = false` in [policy]";
        return Err(Bad::new(what, mend));
    }
    if signers.keys.is_empty() {
        signers.keys.clone_from(&operators.keys);
    }
    signers.required |= operators.required;
    Ok(())
}

/// Validates the name of a tenant.
fn check_name(name: &str) -> Result<(), Bad> {
    const MEND: &str =
        "use lower-case letters, digits, - and _, beginning with a letter or digit, at most 32";
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let first = name.bytes().next().is_some_and(is_plain);
    let rest = name
        .bytes()
        .all(|byte| is_plain(byte) || b"-_".contains(&byte));
    if !first || !rest || name.len() > MAX_NAME {
        return Err(Bad::new("not a valid name of a tenant", MEND));
    }
    if RESERVED.contains(&name) {
        return Err(Bad::new("a reserved name", "choose another one"));
    }
    Ok(())
}

fn read(
    name: String,
    mut section: Section<'_>,
    operator: Operator<'_>,
    claims: &mut Claims,
) -> TenantConfig {
    let selector = selector(&name, &mut section, operator.listen, claims);
    if !section.has_any(&["local", "uri-domains", "from-domains", "source-groups"]) {
        section.reject_whole(Bad::new(
            "no selector",
            "set at least one of local, uri-domains, from-domains and source-groups",
        ));
    }
    let inherited = SeatConfig {
        failure: operator.policy.seat.failure.clone(),
        breaker: BreakerConfig {
            failures: 20,
            ..operator.policy.seat.breaker
        },
        ..SeatConfig::default()
    };
    let seat = policy::limited_seat(&mut section, inherited, &operator.policy.seat);
    // An inherited list is a problem of [policy].
    if !operator.has_redis && seat.fleet_counters != operator.policy.seat.fleet_counters {
        section.reject("fleet-counters", policy::lonely_counters(""));
    }
    let known_hop = |value: Value<'_>| {
        let hops = &operator.relay.next_hops;
        let text = value.text()?;
        let known: Vec<_> = hops.iter().map(|(name, _)| name.as_str()).collect();
        match known.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(Bad::new(
                "unknown next hop",
                match known[..] {
                    [] => "[relay.next-hops] is empty".to_owned(),
                    _ => format!("[relay.next-hops] has {}", known.join(", ")),
                },
            )),
        }
    };
    let next_hop = section.optional("next-hop", |value| match value.text()? {
        "" => Ok(None),
        _ => known_hop(value).map(Some),
    });
    let per_second = section.value("requests-per-second", 0, |v| count(v, 0, 10_000_000));
    let burst = section.value("requests-burst", 0, |v| count(v, 0, 10_000_000));
    let tenant = TenantConfig {
        default: policy::default_verdict(&mut section, &operator.policy.default),
        groups: section.list("groups", selector.source_groups.clone(), group),
        edit: edit::read(&mut section, &name, claims),
        trusted: section.value("trusted", false, |v| v.boolean()),
        rules: section.list("rules", Vec::new(), |v| Ok(v.text()?.to_owned())),
        headers: section.list("headers", Vec::new(), header_name),
        next_hop: next_hop.flatten(),
        next_hops: section.list("next-hops", Vec::new(), known_hop),
        domains: section.list("domains", Vec::new(), |v| Domain::parse(v.text()?)),
        sets: section.list("sets", Vec::new(), group),
        forwarding: forwarding::read(&mut section),
        cpu_share: section.value("cpu-share", Share::ALL, share),
        rate: (per_second > 0).then_some(Rate {
            per_second,
            burst: if burst == 0 { per_second } else { burst },
        }),
        log_rate: section.value("log-rate", 100, |v| count(v, 0, 1_000_000)),
        token: section
            .optional("token", |value| own_token(&name, value, operator, claims))
            .flatten(),
        name,
        selector,
        seat: Arc::new(seat),
    };
    section.finish();
    tenant
}

fn selector(
    name: &str,
    section: &mut Section<'_>,
    listen: &[Listen],
    claims: &mut Claims,
) -> SelectorConfig {
    SelectorConfig {
        local: section.list("local", Vec::new(), |value| {
            let local = Listen::parse(value.text()?)?;
            if local.addr().is_none() {
                let mend =
                    "name an address of the interface: other addresses may belong to other tenants";
                return Err(Bad::new("an interface", mend));
            }
            if !listen.iter().any(|listen| listen.may_cover(&local)) {
                let listen: Vec<_> = listen.iter().map(|one| format!("\"{one}\"")).collect();
                return Err(Bad::new(
                    "the host does not listen there",
                    format!("`listen` has {}", listen.join(", ")),
                ));
            }
            claims.add("local", local.to_string(), name)?;
            Ok(local)
        }),
        uri_domains: section.list("uri-domains", Vec::new(), |value| {
            let domain = domain(value)?;
            claims.add("uri-domains", domain.clone(), name)?;
            Ok(domain)
        }),
        from_domains: section.list("from-domains", Vec::new(), |value| {
            let domain = domain(value)?;
            claims.add("from-domains", domain.clone(), name)?;
            Ok(domain)
        }),
        source_groups: section.list("source-groups", Vec::new(), |value| {
            let group = group(value)?;
            claims.add_source_group(group, name)?;
            Ok(group)
        }),
    }
}

/// Claims what belongs to this tenant.
fn claim_all(claims: &mut Claims, tenant: &TenantConfig) {
    let SelectorConfig {
        local,
        uri_domains,
        from_domains,
        source_groups,
    } = &tenant.selector;
    let local = local.iter().map(|one| ("local", one.to_string()));
    let uri = uri_domains.iter().map(|one| ("uri-domains", one.clone()));
    let from = from_domains.iter().map(|one| ("from-domains", one.clone()));
    let token = tenant.token.iter();
    let token = token.map(|token| ("token", token.as_digest()));
    for (kind, value) in local.chain(uri).chain(from).chain(token) {
        claims.replace(kind, value, &tenant.name);
    }
    claims.replace_groups(source_groups, &tenant.edit.groups, &tenant.name);
}

/// Reads the token of a tenant. It must differ from all other tokens, because it identifies the caller.
fn own_token(
    name: &str,
    value: Value<'_>,
    operator: Operator<'_>,
    claims: &mut Claims,
) -> Result<Option<Token>, Bad> {
    let Some(token) = Token::parse(value)? else {
        return Ok(None);
    };
    if operator.control.is_open() {
        let what = "a token without effect: the host has no token, so every user of this machine is the operator";
        return Err(Bad::new(what, "set `token` or `token-file` in [control]").hidden());
    }
    let mut named = operator.control.tokens.iter();
    let is_named = named.any(|named| named.token == token);
    let is_operators = is_named || operator.control.token.as_ref() == Some(&token);
    if is_operators || claims.add("token", token.as_digest(), name).is_err() {
        return Err(Bad::new(
            "another tenant or the operator has the same token",
            "choose another one",
        )
        .hidden());
    }
    Ok(Some(token))
}

/// Reads a host in the form that selectors compare: a name in lower case without a trailing dot, `*.NAME`, or an address without brackets.
fn domain(value: Value<'_>) -> Result<String, Bad> {
    const MEND: &str = "write a host name, an address, or \"*.NAME\" for all names below a name";
    let text = value.text()?;
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_canonical().to_string());
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    match is_host(name.strip_prefix("*.").unwrap_or(&name)) {
        true => Ok(name),
        false => Err(Bad::new("not a host name or address", MEND)),
    }
}

#[cfg(test)]
mod tests;
