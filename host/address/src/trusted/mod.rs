//! The table `trusted`: peers that are let through by source, transport and the URIs of the request (Kamailio: `allow_trusted`).

mod builder;
mod proto;

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

pub use builder::{TrustedBuilder, TrustedRow};
pub use proto::Proto;

use crate::pattern::Pattern;
use crate::row::parse_ip;
use crate::table::bucket;

/// The longest URI that Kamailio looks at here (`MAX_URI_SIZE`), in bytes. A request with a longer one is trusted by no row, unless
/// a policy asks with another From URI, which may be of any length.
const LONGEST_URI: usize = 1024;

/// The table of trusted peers: immutable, and shared by all workers. The default one is empty and trusts nobody.
#[derive(Debug, Default)]
pub struct TrustedTable {
    /// All rows, those of one source together, in the order in which Kamailio tries them: by priority, the highest first; of equal
    /// priority as loaded.
    peers: Vec<Peer>,
    /// Where the rows of an address are.
    by_ip: HashMap<IpAddr, Span, FxBuildHasher>,
    /// Where the rows are whose source is no address.
    by_text: HashMap<Box<str>, Span, FxBuildHasher>,
}

/// What is asked: may the request pass?
#[derive(Clone, Copy, Debug)]
pub struct TrustedQuestion<'q> {
    /// Where the request comes from.
    pub source: TrustedSource<'q>,
    /// The transport; [`Proto::Any`] asks for the rows of all.
    pub proto: Proto,
    /// The From URI.
    pub from: FromUri<'q>,
    /// The request URI.
    pub ruri: &'q str,
}

/// A From URI, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromUri<'q> {
    /// The request's own.
    Own(&'q str),
    /// One of the policy's choice.
    Given(&'q str),
}

/// A source, as an address or in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedSource<'q> {
    /// An address. It equals the column when that is an address, however it is spelled.
    Ip(IpAddr),
    /// Any other text. It equals the column letter for letter.
    Text(&'q str),
}

/// A row that lets the request pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedMatch<'t> {
    /// Column `tag`.
    pub tag: Option<&'t str>,
}

/// A row, as a dump shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedDumpRow<'t> {
    /// The bucket of Kamailio's hash table in which the row would be: `table` in a dump.
    pub bucket: u8,
    /// Column `src_ip`, as it is written there.
    pub source: &'t str,
    /// Column `proto`.
    pub proto: Proto,
    /// Column `from_pattern`.
    pub from: Option<&'t str>,
    /// Column `ruri_pattern`.
    pub ruri: Option<&'t str>,
    /// Column `tag`.
    pub tag: Option<&'t str>,
    /// Column `priority`.
    pub priority: i32,
}

/// One row.
#[derive(Debug)]
struct Peer {
    source: Box<str>,
    proto: Proto,
    from: Option<Arc<Pattern>>,
    ruri: Option<Arc<Pattern>>,
    tag: Option<Box<str>>,
    priority: i32,
}

/// Rows in a line: the first, and how many.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    count: u32,
}

impl TrustedTable {
    /// The rows that let a request pass, in the order in which Kamailio tries them: the first one is the answer of `allow_trusted`
    /// with `peer_tag_mode` 0, all of them are that with 1. Never allocates.
    ///
    /// This is `match_hash_table` of Kamailio's `permissions/hash.c`.
    pub fn matches<'t>(
        &'t self,
        question: TrustedQuestion<'t>,
    ) -> impl Iterator<Item = TrustedMatch<'t>> {
        let TrustedQuestion {
            source,
            proto,
            from,
            ruri,
        } = question;
        let (from, is_bounded) = match from {
            FromUri::Own(from) => (from, from.len() <= LONGEST_URI),
            FromUri::Given(from) => (from, true),
        };
        let peers = match is_bounded && ruri.len() <= LONGEST_URI {
            true => self.peers_of(source),
            false => &[],
        };
        let found = peers.iter().filter(move |peer| {
            peer.proto.fits(proto) && fits(&peer.from, from) && fits(&peer.ruri, ruri)
        });
        found.map(|peer| TrustedMatch {
            tag: peer.tag.as_deref(),
        })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether nobody is trusted.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// All rows in the order of Kamailio's `permissions.trustedDump`: by hash bucket, then by priority, then as loaded.
    ///
    /// Sorts the rows, so it costs time and memory: not for the way of a request.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = TrustedDumpRow<'_>> {
        let mut rows: Vec<_> = self.peers.iter().map(Peer::dumped).collect();
        rows.sort_by_key(|row| (row.bucket, std::cmp::Reverse(row.priority)));
        rows.into_iter()
    }

    fn peers_of(&self, source: TrustedSource<'_>) -> &[Peer] {
        let span = match source {
            TrustedSource::Ip(ip) => self.by_ip.get(&ip.to_canonical()),
            TrustedSource::Text(text) => self.by_text.get(text),
        };
        let peers = span.and_then(|span| {
            let rest = self.peers.get(span.first as usize..)?;
            rest.get(..span.count as usize)
        });
        peers.unwrap_or_default()
    }
}

impl<'q> TrustedSource<'q> {
    /// An address however it is spelled, in a row as in a question, or else a text.
    pub fn parse(text: &'q str) -> Self {
        parse_ip(text).map_or(Self::Text(text), Self::Ip)
    }
}

impl Peer {
    fn dumped(&self) -> TrustedDumpRow<'_> {
        TrustedDumpRow {
            bucket: bucket(self.source.as_bytes()),
            source: &self.source,
            proto: self.proto,
            from: self.from.as_ref().map(|pattern| pattern.as_str()),
            ruri: self.ruri.as_ref().map(|pattern| pattern.as_str()),
            tag: self.tag.as_deref(),
            priority: self.priority,
        }
    }
}

/// A column without a pattern fits every text.
fn fits(pattern: &Option<Arc<Pattern>>, text: &str) -> bool {
    pattern
        .as_ref()
        .is_none_or(|pattern| pattern.is_match(text))
}

#[cfg(test)]
mod tests;
