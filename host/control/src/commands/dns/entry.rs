//! An answer in the cache, in Kamailio's form.

use portcullis_resolve::{Answer, Records};
use portcullis_rollout::resolve::Cached;
use portcullis_text::clean;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An answer in the cache, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsEntry {
    /// The name that was asked for, without a final dot.
    pub name: String,
    /// `NAPTR`, `SRV`, `A` or `AAAA`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of the records, approximately.
    pub size_bytes: u64,
    /// Users of the memory: 1.
    pub reference_counter: u32,
    /// Whether the entry never expires: `no`.
    pub permanent: String,
    /// Seconds until the answer expires.
    pub expires: u64,
    /// Seconds since the last use: not counted, 0.
    pub last_used: u64,
    /// Whether there are no such records, or the query failed: `yes` or `no`.
    pub negative_entry: String,
    /// The records; absent without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<DnsRecord>,
    /// Why the query failed, or why the records are those of an earlier answer; absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A record, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DnsRecord {
    /// An SRV record.
    Srv {
        /// Its place.
        rr_idx: u64,
        /// The name of the server.
        rr_name: String,
        /// The port.
        rr_port: u16,
        /// The priority.
        rr_priority: u16,
        /// The weight.
        rr_weight: u16,
        /// `no`
        rr_permanent: String,
        /// Seconds until it expires.
        rr_expires: u64,
    },
    /// A NAPTR record.
    Naptr {
        /// Its place.
        rr_idx: u64,
        /// The order.
        rr_order: u16,
        /// The preference.
        rr_preference: u16,
        /// The flags.
        rr_flags: String,
        /// The service.
        rr_service: String,
        /// The rewrite rule.
        rr_regexp: String,
        /// The name to ask next.
        rr_replacement: String,
        /// `no`
        rr_permanent: String,
        /// Seconds until it expires.
        rr_expires: u64,
    },
    /// An A or AAAA record.
    Address {
        /// Its place.
        rr_idx: u64,
        /// The address.
        rr_ip: String,
        /// `no`
        rr_permanent: String,
        /// Seconds until it expires.
        rr_expires: u64,
    },
}

impl DnsEntry {
    /// The entry of an answer.
    pub(super) fn of(cached: &Cached) -> Self {
        let Cached { query, answer } = cached;
        let expires = answer.ttl().as_secs();
        let (records, error, size_bytes) = match answer {
            Answer::Found { records, stale, .. } => {
                let all = records_of(records, expires);
                (all, stale.clone(), cached.bytes())
            }
            Answer::None { .. } => (Vec::new(), None, cached.bytes()),
            Answer::Failed { error, .. } => (Vec::new(), Some(error.clone()), cached.bytes()),
        };
        Self {
            name: clean(query.name.strip_suffix('.').unwrap_or(&query.name)).into_owned(),
            kind: query.kind.as_str().to_owned(),
            size_bytes: size_bytes as u64,
            reference_counter: 1,
            permanent: no(),
            expires,
            last_used: 0,
            negative_entry: match records.is_empty() {
                true => "yes".to_owned(),
                false => no(),
            },
            records,
            error: error.map(|error| clean(&error).into_owned()),
        }
    }
}

/// The texts of a zone are those of strangers: Kamailio's tools print them on a terminal.
fn records_of(records: &Records, rr_expires: u64) -> Vec<DnsRecord> {
    let shown = |text: &str| clean(text).into_owned();
    match records {
        Records::Addresses(ips) => (0..)
            .zip(ips)
            .map(|(rr_idx, ip)| DnsRecord::Address {
                rr_idx,
                rr_ip: ip.to_string(),
                rr_permanent: no(),
                rr_expires,
            })
            .collect(),
        Records::Srv(records) => (0..)
            .zip(records)
            .map(|(rr_idx, srv)| DnsRecord::Srv {
                rr_idx,
                rr_name: shown(&srv.target),
                rr_port: srv.port,
                rr_priority: srv.priority,
                rr_weight: srv.weight,
                rr_permanent: no(),
                rr_expires,
            })
            .collect(),
        Records::Naptr(records) => (0..)
            .zip(records)
            .map(|(rr_idx, naptr)| DnsRecord::Naptr {
                rr_idx,
                rr_order: naptr.order,
                rr_preference: naptr.preference,
                rr_flags: shown(&naptr.flags),
                rr_service: shown(&naptr.service),
                rr_regexp: shown(&naptr.regexp),
                rr_replacement: shown(&naptr.replacement),
                rr_permanent: no(),
                rr_expires,
            })
            .collect(),
    }
}

fn no() -> String {
    "no".to_owned()
}
