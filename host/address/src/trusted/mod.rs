//! The table `trusted`: peers that are trusted by source, transport and URIs of the request (Kamailio: `allow_trusted`).

mod builder;
mod proto;

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

pub use builder::{TrustedBuilder, TrustedRow};
pub use proto::Proto;

use crate::pattern::bank::Bank;
use crate::pattern::{Effort, Spent};
use crate::row::parse_ip;
use crate::table::bucket;

/// Longest URI that Kamailio compares here (`MAX_URI_SIZE`), in bytes. A request with a longer one is not trusted by any row, unless the
/// policy passes another From URI, which may have any length.
const LONGEST_URI: usize = 1024;

/// The table of trusted peers: immutable, and shared by all workers. The default is empty.
#[derive(Debug, Default)]
pub struct TrustedTable {
    /// All rows, grouped by source, in the order in which Kamailio tries them: by descending priority; with equal priority, in the order of
    /// the load.
    peers: Vec<Peer>,
    /// The patterns of these rows, in blocks. A block has rows of one source only.
    blocks: Vec<Block>,
    /// The blocks of each address.
    by_ip: HashMap<IpAddr, Span, FxBuildHasher>,
    /// The blocks of each source that is not an address.
    by_text: HashMap<Box<str>, Span, FxBuildHasher>,
}

/// A query: is the request trusted?
#[derive(Clone, Copy, Debug)]
pub struct TrustedQuestion<'q> {
    /// The source of the request.
    pub source: TrustedSource<'q>,
    /// The transport; [`Proto::Any`] queries the rows of all transports.
    pub proto: Proto,
    /// The From URI.
    pub from: FromUri<'q>,
    /// The request URI.
    pub ruri: &'q str,
}

/// A From URI, and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromUri<'q> {
    /// That of the request.
    Own(&'q str),
    /// One that the policy has passed.
    Given(&'q str),
}

/// A source, as an address or as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedSource<'q> {
    /// An address. It equals the column if that is the same address, however it is written.
    Ip(IpAddr),
    /// Any other text. It is compared with the column literally.
    Text(&'q str),
}

/// A row that trusts the request.
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
    from: Option<Column>,
    ruri: Option<Column>,
    tag: Option<Box<str>>,
    priority: i32,
}

/// A column with a pattern.
#[derive(Debug)]
struct Column {
    text: Arc<str>,
    /// Its bit in the result of the bank of its block; `None` for a pattern that matches every text.
    bit: Option<u8>,
}

/// Consecutive rows, and a bank that matches the patterns of all of them at once.
#[derive(Debug)]
struct Block {
    first: u32,
    count: u32,
    from: Bank,
    ruri: Bank,
}

/// Consecutive blocks: the first, and their number.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    count: u32,
}

impl TrustedTable {
    /// Whether a row has this address as its source, whatever else it requires.
    pub fn has_source(&self, ip: IpAddr) -> bool {
        self.by_ip.contains_key(&ip.to_canonical())
    }

    /// Passes the rows that trust a request to `each`, in the order in which Kamailio tries them, until it returns that it has enough. The
    /// first row is the result of `allow_trusted` with `peer_tag_mode` 0, all rows are that with 1.
    ///
    /// This is `match_hash_table` of Kamailio's `permissions/hash.c`.
    ///
    /// # Errors
    /// If it takes too long.
    pub fn find<'t>(
        &'t self,
        question: TrustedQuestion<'_>,
        effort: &mut Effort<'_>,
        mut each: impl FnMut(TrustedMatch<'t>) -> ControlFlow<()>,
    ) -> Result<(), Spent> {
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
        if !is_bounded || ruri.len() > LONGEST_URI {
            return Ok(());
        }
        for block in self.blocks_of(source) {
            let peers = self.peers_of(block);
            effort.spend(peers.len())?;
            if !peers.iter().any(|peer| peer.proto.fits(proto)) {
                continue;
            }
            let from = block.from.found(from, effort)?;
            let ruri = block.ruri.found(ruri, effort)?;
            let found = peers.iter().filter(|peer| {
                peer.proto.fits(proto)
                    && Column::fits(&peer.from, from)
                    && Column::fits(&peer.ruri, ruri)
            });
            for peer in found {
                let tag = peer.tag.as_deref();
                effort.spend(tag.map_or(0, str::len))?;
                if each(TrustedMatch { tag }).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns all rows that trust a request. The time is not limited: not for the path of a message.
    pub fn matches<'t>(&'t self, question: TrustedQuestion<'_>) -> Vec<TrustedMatch<'t>> {
        let mut found = Vec::new();
        let _never_ended = self.find(question, &mut Effort::unbounded(), |one| {
            found.push(one);
            ControlFlow::Continue(())
        });
        found
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// Returns all rows in the order of Kamailio's `permissions.trustedDump`: by hash bucket, then by priority, then in the order of the
    /// load.
    ///
    /// Sorts the rows, which takes time and memory: not for the path of a message.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = TrustedDumpRow<'_>> {
        let mut rows: Vec<_> = self.peers.iter().map(Peer::dumped).collect();
        rows.sort_by_key(|row| (row.bucket, std::cmp::Reverse(row.priority)));
        rows.into_iter()
    }

    fn blocks_of(&self, source: TrustedSource<'_>) -> &[Block] {
        let span = match source {
            TrustedSource::Ip(ip) => self.by_ip.get(&ip.to_canonical()),
            TrustedSource::Text(text) => self.by_text.get(text),
        };
        let blocks = span.and_then(|span| {
            let rest = self.blocks.get(span.first as usize..)?;
            rest.get(..span.count as usize)
        });
        blocks.unwrap_or_default()
    }

    fn peers_of(&self, block: &Block) -> &[Peer] {
        let rest = self.peers.get(block.first as usize..);
        let peers = rest.and_then(|rest| rest.get(..block.count as usize));
        peers.unwrap_or_default()
    }
}

impl<'q> TrustedSource<'q> {
    /// Parses an address, however it is written, or else takes the text literally.
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
            from: self.from.as_ref().map(|column| &*column.text),
            ruri: self.ruri.as_ref().map(|column| &*column.text),
            tag: self.tag.as_deref(),
            priority: self.priority,
        }
    }
}

impl Column {
    /// Whether a text matches in which these patterns are found. A column without a pattern matches every text.
    fn fits(column: &Option<Self>, found: u64) -> bool {
        let bit = column.as_ref().and_then(|column| column.bit);
        bit.is_none_or(|bit| found & 1 << bit != 0)
    }
}

#[cfg(test)]
mod tests;
