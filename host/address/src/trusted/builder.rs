//! From the rows of the table `trusted` to the table in memory.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use super::{Peer, Proto, Span, TrustedSource, TrustedTable};
use crate::pattern::{Pattern, Syntax};
use crate::row::{Finding, RowError, RowWarning};

/// Longest source and tag in bytes. Kamailio's columns are far shorter; this bounds what a changed schema can bring.
const LONGEST_TEXT: usize = 65_534;

/// One row of the table `trusted`, not yet validated.
///
/// The meaning is Kamailio's (`permissions/trusted.c`, `reload_trusted_table`, and `hash_table_insert`). Where Kamailio refuses the
/// whole table because of one row, the row is skipped and named.
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
/// | patterns | no regular expression | told at every request; undefined behaviour in `from_pattern` | row skipped |
/// | patterns | with a back-reference | evaluated | row skipped |
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

/// Makes a [`TrustedTable`] of rows.
#[derive(Default)]
pub struct TrustedBuilder {
    peers: Vec<(Key, Peer)>,
    /// Each pattern is compiled once, however many rows have it.
    patterns: HashMap<Box<str>, Arc<Pattern>, FxBuildHasher>,
    ignored: u64,
}

/// What rows of one source have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Ip(IpAddr),
    Text(Box<str>),
}

impl TrustedBuilder {
    /// Adds a row.
    ///
    /// # Errors
    /// What keeps the row from being used. The builder is as it was.
    pub fn push(&mut self, row: TrustedRow<'_>) -> Result<Option<RowWarning>, RowError> {
        let pushed = self.try_push(row);
        pushed
            .map(|warning| warning.map(|finding| finding.warning(row.id)))
            .map_err(|finding| finding.error(row.id))
    }

    /// Rows that are not loaded because their `proto` is `none`.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// The table of the rows so far.
    pub fn build(self) -> TrustedTable {
        let mut peers = self.peers;
        // Stable: of equal priority, the one loaded first comes first.
        peers.sort_by(|(a, one), (b, other)| {
            a.cmp(b)
                .then(Reverse(one.priority).cmp(&Reverse(other.priority)))
        });
        let mut table = TrustedTable::default();
        table.peers.reserve_exact(peers.len());
        for (first, (key, peer)) in (0..).zip(peers) {
            table.peers.push(peer);
            let span = Span { first, count: 0 };
            let span = match key {
                Key::Ip(ip) => table.by_ip.entry(ip).or_insert(span),
                Key::Text(text) => table.by_text.entry(text).or_insert(span),
            };
            span.count += 1;
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
        let peer = Peer {
            source: row.source.into(),
            proto,
            from: self.pattern("from_pattern", row.from)?,
            ruri: self.pattern("ruri_pattern", row.ruri)?,
            tag: row.tag.map(Into::into),
            priority,
        };
        self.peers.push((key, peer));
        Ok(warning)
    }

    fn pattern(
        &mut self,
        column: &'static str,
        text: Option<&str>,
    ) -> Result<Option<Arc<Pattern>>, Finding> {
        let Some(text) = text else {
            return Ok(None);
        };
        if let Some(known) = self.patterns.get(text) {
            return Ok(Some(Arc::clone(known)));
        }
        let pattern = Pattern::new(text, Syntax::Basic)
            .map_err(|error| Finding::text(column, text, &error.fault, error.mend))?;
        let pattern = Arc::new(pattern);
        self.patterns.insert(text.into(), Arc::clone(&pattern));
        Ok(Some(pattern))
    }
}

fn source(text: &str) -> Result<(Key, Option<Finding>), Finding> {
    bounded("src_ip", text)?;
    let TrustedSource::Ip(ip) = TrustedSource::parse(text) else {
        let warning = Finding::text(
            "src_ip",
            text,
            "is no address",
            "it matches only a policy that asks for this very text: write one address, without mask, port and blanks",
        );
        return Ok((Key::Text(text.into()), Some(warning)));
    };
    let printed = ip.to_canonical().to_string();
    let warning = (printed != text).then(|| {
        let mend =
            format!("it is read as {printed}: write that, or Kamailio never matches the row");
        Finding::text("src_ip", text, "is not spelled as sources are", &mend)
    });
    Ok((Key::Ip(ip.to_canonical()), warning))
}

fn bounded(column: &'static str, text: &str) -> Result<(), Finding> {
    if text.len() > LONGEST_TEXT {
        let fault = format!("has {} bytes", text.len());
        let mend = format!("keep to {LONGEST_TEXT} bytes; Kamailio's column is far shorter");
        return Err(Finding::text(column, text, &fault, &mend));
    }
    Ok(())
}

fn unknown_proto(text: &str) -> Finding {
    Finding::text(
        "proto",
        text,
        "is no transport",
        "write any, udp, tcp, tls, sctp, ws or wss, or none for a row that shall rest",
    )
}
