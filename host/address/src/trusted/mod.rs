//! The table `trusted`: peers that are let through by source, transport and the URIs of the request (Kamailio: `allow_trusted`).

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

/// The longest URI that Kamailio looks at here (`MAX_URI_SIZE`), in bytes. A request with a longer one is trusted by no row, unless
/// a policy asks with another From URI, which may be of any length.
const LONGEST_URI: usize = 1024;

/// The table of trusted peers: immutable, and shared by all workers. The default one is empty and trusts nobody.
#[derive(Debug, Default)]
pub struct TrustedTable {
    /// All rows, those of one source together, in the order in which Kamailio tries them: by priority, the highest first; of equal
    /// priority as loaded.
    peers: Vec<Peer>,
    /// The patterns of these rows, block by block. A block is of one source.
    blocks: Vec<Block>,
    /// Where the blocks of an address are.
    by_ip: HashMap<IpAddr, Span, FxBuildHasher>,
    /// Where the blocks are whose source is no address.
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
    from: Option<Column>,
    ruri: Option<Column>,
    tag: Option<Box<str>>,
    priority: i32,
}

/// A column that holds a pattern.
#[derive(Debug)]
struct Column {
    text: Arc<str>,
    /// Its bit in what the bank of its block answers; none for a pattern that fits every text.
    bit: Option<u8>,
}

/// Rows that follow each other, and what compares a text with the patterns of all of them at once.
#[derive(Debug)]
struct Block {
    first: u32,
    count: u32,
    from: Bank,
    ruri: Bank,
}

/// Blocks in a line: the first, and how many.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u32,
    count: u32,
}

impl TrustedTable {
    /// Hands the rows that let a request pass to `each`, in the order in which Kamailio tries them, until it has enough: the first one is
    /// the answer of `allow_trusted` with `peer_tag_mode` 0, all of them are that with 1.
    ///
    /// This is `match_hash_table` of Kamailio's `permissions/hash.c`.
    ///
    /// # Errors
    /// When it takes too long.
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

    /// All rows that let a request pass. Takes as long as it takes: not for the way of a request.
    pub fn matches<'t>(&'t self, question: TrustedQuestion<'_>) -> Vec<TrustedMatch<'t>> {
        let mut found = Vec::new();
        let _never_ended = self.find(question, &mut Effort::unbounded(), |one| {
            found.push(one);
            ControlFlow::Continue(())
        });
        found
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
            from: self.from.as_ref().map(|column| &*column.text),
            ruri: self.ruri.as_ref().map(|column| &*column.text),
            tag: self.tag.as_deref(),
            priority: self.priority,
        }
    }
}

impl Column {
    /// Whether a text fits in which these patterns are found. A column without a pattern fits every text.
    fn fits(column: &Option<Self>, found: u64) -> bool {
        let bit = column.as_ref().and_then(|column| column.bit);
        bit.is_none_or(|bit| found & 1 << bit != 0)
    }
}

#[cfg(test)]
mod tests;
