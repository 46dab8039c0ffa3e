//! Builds the table of trusted peers of the rows of the table `trusted`.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::{Block, Column, Peer, Proto, Span, TrustedSource, TrustedTable};
use crate::pattern::bank::{self, BankBuilder};
use crate::pattern::{Draft, PatternBudget, Syntax, TOO_LARGE};
use crate::row::{Finding, RowError, RowWarning};

/// Longest source and tag in bytes. Kamailio's columns are far shorter; this limits what a changed schema can contain.
const LONGEST_TEXT: usize = 65_534;

/// One row of the table `trusted`, not yet validated.
///
/// The meaning is Kamailio's (`permissions/trusted.c`, `reload_trusted_table`, and `hash_table_insert`). Where Kamailio refuses the whole
/// table because of one row, the row is skipped and reported.
///
/// | column | value | Kamailio | here |
/// |---|---|---|---|
/// | `src_ip` | an address | compared as text with the source | compared as an address |
/// | `src_ip` | an address, spelled otherwise than sources are (`2001:DB8::1`, `[::1]`, `010.0.0.1`) | never matches | matches, with a warning |
/// | `src_ip` | any other text | matches what a script passes, never a source | the same, with a warning |
/// | `proto` | `any`, `udp`, `tcp`, `tls`, `sctp`, `ws`, `wss`, in any case | that transport | the same |
/// | `proto` | `none` | not loaded | not loaded, and counted |
/// | `proto` | anything else | refuses the table | row skipped |
/// | patterns | NULL or empty | fits every URI | the same |
/// | patterns | no regular expression | logs an error for every request; undefined behaviour in `from_pattern` | row skipped |
/// | patterns | with a back-reference | evaluated | row skipped |
/// | patterns | of all rows together beyond the memory for them | compiled for each request | row skipped |
/// | `tag` | NULL / empty | no tag / an empty tag | the same |
/// | `priority` | NULL | 0 | 0 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedRow<'r> {
    /// Column `id`: names the row in errors. 0 for a row that is not stored yet.
    pub id: i64,
    /// Column `src_ip`.
    pub source: &'r str,
    /// Column `proto`.
    pub proto: &'r str,
    /// Column `from_pattern`.
    pub from: Option<&'r str>,
    /// Column `ruri_pattern`.
    pub ruri: Option<&'r str>,
    /// Column `tag`.
    pub tag: Option<&'r str>,
    /// Column `priority`.
    pub priority: i64,
}

/// Builds a [`TrustedTable`] of rows.
#[derive(Default)]
pub struct TrustedBuilder {
    peers: Vec<(Key, NewPeer)>,
    /// Each pattern is compiled once, however many rows have it. `None` for a pattern that matches every text.
    drafts: HashMap<Arc<str>, Option<Arc<Draft>>, FxBuildHasher>,
    budget: PatternBudget,
    ignored: u64,
}

/// A row whose patterns have no bits yet.
struct NewPeer {
    peer: Peer,
    from: Option<Arc<Draft>>,
    ruri: Option<Arc<Draft>>,
}

/// The patterns of one column of a block.
#[derive(Default)]
struct Patterns(Vec<Arc<Draft>>);

/// The source of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Ip(IpAddr),
    Text(Box<str>),
}

impl TrustedBuilder {
    /// Creates a builder with this memory limit for all patterns.
    pub fn with_budget(budget: PatternBudget) -> Self {
        Self {
            budget,
            ..Self::default()
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the row is invalid. The builder is then unchanged.
    pub fn push(&mut self, row: TrustedRow<'_>) -> Result<Option<RowWarning>, RowError> {
        let pushed = self.try_push(row);
        pushed
            .map(|warning| warning.map(|finding| finding.warning(row.id)))
            .map_err(|finding| finding.error(row.id))
    }

    /// Returns the number of rows that are disabled because their `proto` is `none`.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Builds the table of the rows added so far.
    pub fn build(self) -> TrustedTable {
        let mut peers = self.peers;
        // The sort is stable: of equal priority, the row that was loaded first comes first.
        peers.sort_by(|(a, one), (b, other)| {
            a.cmp(b)
                .then(Reverse(one.peer.priority).cmp(&Reverse(other.peer.priority)))
        });
        let mut banks = BankBuilder::new(self.budget);
        let mut table = TrustedTable::default();
        table.peers.reserve_exact(peers.len());
        let mut peers = peers.into_iter().peekable();
        while let Some((key, first)) = peers.next() {
            let mut rows = vec![first];
            while let Some((_, next)) = peers.next_if(|(other, _)| *other == key) {
                rows.push(next);
            }
            table.add(key, rows, &mut banks);
        }
        table
    }

    fn try_push(&mut self, row: TrustedRow<'_>) -> Result<Option<Finding>, Finding> {
        let proto = match Proto::parse(row.proto) {
            Some(proto) => proto,
            None if row.proto.eq_ignore_ascii_case("none") => {
                self.ignored += 1;
                return Ok(None);
            }
            None => return Err(unknown_proto(row.proto)),
        };
        let (key, warning) = source(row.source)?;
        let priority = i32::try_from(row.priority).map_err(|_| {
            let mend = "write a number of 32 bits, or NULL for 0";
            Finding::number("priority", row.priority, "is out of range", mend)
        })?;
        if let Some(tag) = row.tag {
            bounded("tag", tag)?;
        }
        let (from, from_draft) = self.column("from_pattern", row.from)?;
        let (ruri, ruri_draft) = self.column("ruri_pattern", row.ruri)?;
        let peer = Peer {
            source: row.source.into(),
            proto,
            from,
            ruri,
            tag: row.tag.map(Into::into),
            priority,
        };
        let peer = NewPeer {
            peer,
            from: from_draft,
            ruri: ruri_draft,
        };
        self.peers.push((key, peer));
        Ok(warning)
    }

    /// Returns the pattern of a column, if it does not match every text.
    fn column(
        &mut self,
        name: &'static str,
        text: Option<&str>,
    ) -> Result<(Option<Column>, Option<Arc<Draft>>), Finding> {
        let Some(text) = text else {
            return Ok((None, None));
        };
        let column = |text| Some(Column { text, bit: None });
        if text.is_empty() {
            return Ok((column(Arc::from(text)), None));
        }
        if let Some((text, draft)) = self.drafts.get_key_value(text) {
            return Ok((column(Arc::clone(text)), draft.clone()));
        }
        let draft = match self.budget.is_spent() {
            false => Draft::new(text, Syntax::Basic),
            true => Ok(None),
        };
        let draft = draft.map_err(|error| {
            if error.fault == TOO_LARGE {
                self.budget.note_too_large();
            }
            Finding::text(name, text, &error.fault, error.mend)
        })?;
        let bytes = draft.as_ref().map_or(0, Draft::bytes);
        if self.budget.is_spent() || !self.budget.take(bytes) {
            let fault = format!(
                "is one pattern too many: those of all rows take more than {} bytes",
                self.budget.limit()
            );
            let mend =
                "raise `pattern-memory` in [permissions], or use fewer repetitions in the patterns";
            return Err(Finding::text(name, text, &fault, mend));
        }
        let (text, draft) = (Arc::<str>::from(text), draft.map(Arc::new));
        self.drafts.insert(Arc::clone(&text), draft.clone());
        Ok((column(text), draft))
    }
}

impl TrustedTable {
    /// Adds the rows of one source, in blocks of as many patterns as are matched at once.
    fn add(&mut self, key: Key, rows: Vec<NewPeer>, banks: &mut BankBuilder) {
        let first_block = self.blocks.len();
        let (mut from, mut ruri) = (Patterns::default(), Patterns::default());
        let mut first = self.peers.len();
        for row in rows {
            let is_full = self.peers.len() - first == bank::MOST
                || !from.has_room(&row.from)
                || !ruri.has_room(&row.ruri);
            if is_full {
                self.close(first, &mut from, &mut ruri, banks);
                first = self.peers.len();
            }
            let mut peer = row.peer;
            from.add(row.from, &mut peer.from);
            ruri.add(row.ruri, &mut peer.ruri);
            self.peers.push(peer);
        }
        self.close(first, &mut from, &mut ruri, banks);
        let span = Span {
            first: first_block as u32,
            count: (self.blocks.len() - first_block) as u32,
        };
        match key {
            Key::Ip(ip) => self.by_ip.insert(ip, span),
            Key::Text(text) => self.by_text.insert(text, span),
        };
    }

    /// Builds a block of the rows from `first` on.
    fn close(
        &mut self,
        first: usize,
        from: &mut Patterns,
        ruri: &mut Patterns,
        banks: &mut BankBuilder,
    ) {
        self.blocks.push(Block {
            first: first as u32,
            count: (self.peers.len() - first) as u32,
            from: from.take(banks),
            ruri: ruri.take(banks),
        });
    }
}

impl Patterns {
    fn place(&self, draft: &Arc<Draft>) -> Option<usize> {
        self.0.iter().position(|known| Arc::ptr_eq(known, draft))
    }

    fn has_room(&self, draft: &Option<Arc<Draft>>) -> bool {
        let is_there = |draft: &Arc<Draft>| self.place(draft).is_some();
        self.0.len() < bank::MOST || draft.as_ref().is_none_or(is_there)
    }

    /// Assigns a bit to a pattern.
    fn add(&mut self, draft: Option<Arc<Draft>>, column: &mut Option<Column>) {
        let (Some(draft), Some(column)) = (draft, column) else {
            return;
        };
        let place = self.place(&draft).unwrap_or_else(|| {
            self.0.push(draft);
            self.0.len() - 1
        });
        column.bit = Some(place as u8);
    }

    fn take(&mut self, banks: &mut BankBuilder) -> bank::Bank {
        let drafts = std::mem::take(&mut self.0);
        let drafts: Vec<_> = drafts.iter().map(|draft| &**draft).collect();
        banks.build(&drafts)
    }
}

fn source(text: &str) -> Result<(Key, Option<Finding>), Finding> {
    bounded("src_ip", text)?;
    let TrustedSource::Ip(ip) = TrustedSource::parse(text) else {
        let warning = Finding::text(
            "src_ip",
            text,
            "is not an address",
            "it matches only if a policy passes this very text: write one address, without mask, port and blanks",
        );
        return Ok((Key::Text(text.into()), Some(warning)));
    };
    let printed = ip.to_canonical().to_string();
    let warning = (printed != text).then(|| {
        let mend = format!(
            "it is read as {printed}: write that, because Kamailio never matches the row as it is"
        );
        Finding::text("src_ip", text, "is not written as sources are", &mend)
    });
    Ok((Key::Ip(ip.to_canonical()), warning))
}

fn bounded(column: &'static str, text: &str) -> Result<(), Finding> {
    if text.len() > LONGEST_TEXT {
        let fault = format!("has {} bytes", text.len());
        let mend = format!("use at most {LONGEST_TEXT} bytes; Kamailio's column is far shorter");
        return Err(Finding::text(column, text, &fault, &mend));
    }
    Ok(())
}

fn unknown_proto(text: &str) -> Finding {
    Finding::text(
        "proto",
        text,
        "is not a transport",
        "write any, udp, tcp, tls, sctp, ws or wss, or none for a disabled row",
    )
}
