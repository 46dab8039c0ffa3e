//! `portcullis trusted …`: trusted peers in the database, with kamctl's arguments, and those of the running host.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use portcullis_address::{Database, NewTrusted, Proto, StoredTrusted};
use portcullis_config::Config;
use portcullis_control::commands::permissions::TrustedEntry;
use portcullis_control::commands::trusted::{StoredPeer, TrustedReload};
use serde_json::{Value, json};

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::database::{block_on, is_absent, must_be_there};
use super::findings::{write_answered, write_findings};
use super::print::{Format, Table, clean, count, present, shown, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum TrustedCommand {
    /// Add a peer to the database; a running host detects it within about a second
    ///
    /// The arguments and their order are those of `kamctl trusted add`, which, like this command, accepts one row per source. An invalid
    /// row is refused.
    Add(Row),
    /// Show the peers in the database
    Show(Format),
    /// Remove all rows of a source
    Rm {
        /// The address, as written in the row
        source: String,
    },
    /// Show the peers that the running host has in memory, in the order in which they are tried
    Dump(Format),
    /// Reload the peers of the running host, and list unusable rows
    ///
    /// The host reloads them automatically when the table changes. This command waits for the reload.
    Reload,
}

#[derive(Debug, clap::Args)]
pub(super) struct Row {
    /// The source address of requests; any other text is compared literally
    source: String,
    /// The transport: any, udp, tcp, tls, sctp, ws, wss, or none to disable the row
    proto: String,
    /// A POSIX regular expression for the From URI [default: none: any URI]
    #[arg(default_value = "", hide_default_value = true)]
    from_pattern: String,
    /// A text that policies can read
    #[arg(default_value = "", hide_default_value = true)]
    tag: String,
    /// A POSIX regular expression for the request URI [default: none: any URI]
    #[arg(
        long,
        value_name = "PATTERN",
        default_value = "",
        hide_default_value = true
    )]
    ruri_pattern: String,
    /// Rows with a higher priority are tried first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    priority: i64,
}

impl Reaching for TrustedCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        let name = match self {
            Self::Add(_) => "trusted add",
            Self::Show(_) => "trusted show",
            Self::Rm { .. } => "trusted rm",
            Self::Dump(_) | Self::Reload => return None,
        };
        Some((name, Elsewhere::Database))
    }
}

impl TrustedCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let database = config.database.database();
        match self {
            Self::Add(row) => add(&database, row, out)?,
            Self::Show(format) => show(&database, format, out)?,
            Self::Rm { source } => remove(&database, &source, out)?,
            Self::Dump(format) => dump(&Client::new(config, reach)?, format, out)?,
            Self::Reload => reload(&Client::new(config, reach)?, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn add(database: &Database, row: Row, out: &mut impl Write) -> anyhow::Result<()> {
    let url = database.url();
    let is_new = is_absent(database);
    let pattern = |text: String| Some(text).filter(|text| !text.is_empty());
    let new = NewTrusted {
        source: row.source,
        proto: row.proto,
        from: pattern(row.from_pattern),
        ruri: pattern(row.ruri_pattern),
        tag: pattern(row.tag),
        priority: row.priority,
    };
    let warning = block_on(database.add_trusted(&new))?.context("the row was not added")?;
    if is_new {
        writeln!(
            out,
            "created {url}, a new database: a host that uses another one does not see what is added here"
        )?;
    }
    let shown = |text: Option<String>, without: &str| match text {
        Some(text) => clean(&format!("\"{text}\"")).into_owned(),
        None => without.to_owned(),
    };
    writeln!(
        out,
        "added to {url}: source {}, proto {}, From {}, request URI {}, tag {}, priority {}",
        clean(&new.source),
        clean(&new.proto),
        shown(new.from, "any"),
        shown(new.ruri, "any"),
        shown(new.tag, "none"),
        new.priority
    )?;
    if let Some(warning) = warning {
        writeln!(out, "warning: {}", clean(&warning.to_string()))?;
    }
    Ok(())
}

fn show(database: &Database, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    must_be_there(database, "portcullis trusted add")?;
    let stored = block_on(database.trusted_rows())??;
    if format.json {
        let loaded = block_on(database.load_trusted())??;
        let shown = json!({
            "rows": stored.into_iter().map(StoredPeer::from).collect::<Vec<_>>(),
            "skipped": loaded.skipped,
            "errors": loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "warned": loaded.warned,
            "warnings": loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        return write_json(out, &shown);
    }
    let mut table = Table::new(HEAD);
    for row in stored {
        let StoredTrusted {
            id,
            source,
            proto,
            from,
            ruri,
            tag,
            priority,
        } = row;
        table.push(
            [id, source, proto, from, ruri, tag, priority]
                .map(|column| column.unwrap_or_else(|| "NULL".into())),
        );
    }
    if table.is_empty() {
        let name = &database.schema().trusted.table;
        writeln!(out, "table `{name}` of {} has no rows", database.url())?;
        return Ok(());
    }
    table.write(out)?;
    let loaded = block_on(database.load_trusted())??;
    let (skipped, warned) = (loaded.skipped, loaded.warned);
    write_findings(out, "row", skipped, "cannot be used", &loaded.errors)?;
    let odd = "may not mean what was intended";
    Ok(write_findings(out, "row", warned, odd, &loaded.warnings)?)
}

fn remove(database: &Database, source: &str, out: &mut impl Write) -> anyhow::Result<()> {
    must_be_there(database, "portcullis trusted add")?;
    let url = database.url();
    match block_on(database.remove_trusted(source))?? {
        0 => bail!("no row of {url} has source {source}; `portcullis trusted show` shows them"),
        n => Ok(writeln!(
            out,
            "removed from {url}: {} with source {}",
            count(n, "row"),
            clean(source)
        )?),
    }
}

fn dump(client: &Client, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let peers: Vec<TrustedEntry<'_>> = client.call("permissions.trustedDump", json!([]))?;
    if format.json {
        return write_json(out, &dumped(&peers));
    }
    let mut table = Table::new(["source", "proto", "From", "request URI", "tag", "priority"]);
    for TrustedEntry { item: peer, .. } in peers {
        table.push([
            shown(&peer.ip),
            proto(peer.proto),
            shown(&peer.pattern),
            shown(&peer.ruri_pattern),
            shown(&peer.tag),
            peer.priority.to_string(),
        ]);
    }
    match table.is_empty() {
        true => writeln!(out, "the running host has no trusted peers")?,
        false => table.write(out)?,
    }
    Ok(())
}

/// The peers for programs: the names and values are those of `trusted show --json`, and not Kamailio's.
fn dumped(peers: &[TrustedEntry<'_>]) -> Value {
    let peers = peers.iter().map(|TrustedEntry { item: peer, .. }| {
        json!({
            "source": peer.ip,
            "proto": proto(peer.proto),
            "from_pattern": present(&peer.pattern),
            "ruri_pattern": present(&peer.ruri_pattern),
            "tag": present(&peer.tag),
            "priority": peer.priority,
        })
    });
    peers.collect()
}

fn reload(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let TrustedReload { status, table } = client.call("trusted.reload", json!([]))?;
    let rows = match table.table_is_absent {
        true => "there is no such table".to_owned(),
        false => count(table.rows, "row"),
    };
    writeln!(
        out,
        "{status}: {rows}, generation {}, {} ms",
        table.generation, table.took_ms
    )?;
    let (wrong, odd) = (
        (table.skipped, &*table.errors),
        (table.warned, &*table.warnings),
    );
    Ok(write_answered("row", wrong, odd, out)?)
}

/// The word for a transport that Kamailio shows as a number.
fn proto(number: u8) -> String {
    let mut all = Proto::ALL.into_iter();
    let found = all.find(|proto| proto.number() == number);
    found.map_or_else(|| number.to_string(), |proto| proto.to_string())
}

const HEAD: [&str; 7] = [
    "id",
    "source",
    "proto",
    "From",
    "request URI",
    "tag",
    "priority",
];

#[cfg(test)]
mod tests {
    use portcullis_address::DatabaseUrl;

    use super::*;

    fn row(source: &str, proto: &str, from: &str) -> Row {
        Row {
            source: source.into(),
            proto: proto.into(),
            from_pattern: from.into(),
            tag: "Tag".into(),
            ruri_pattern: String::new(),
            priority: 5,
        }
    }

    fn said(work: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) -> anyhow::Result<String> {
        let mut out = Vec::new();
        work(&mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn peers_are_added_shown_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.db");
        let database = Database::new(DatabaseUrl::Sqlite(path));
        let absent = said(|out| show(&database, Format::default(), out)).unwrap_err();
        assert!(absent.to_string().contains("trusted add"), "{absent}");

        let added = said(|out| add(&database, row("10.0.0.1", "udp", "^sip:"), out)).unwrap();
        assert!(added.starts_with("created sqlite:"), "{added}");
        assert!(
            added.ends_with("source 10.0.0.1, proto udp, From \"^sip:\", request URI any, tag \"Tag\", priority 5\n"),
            "{added}"
        );
        let again = said(|out| add(&database, row("10.0.0.1", "tcp", ""), out)).unwrap_err();
        assert!(format!("{again:#}").contains("10.0.0.1"), "{again:#}");
        let shown = said(|out| show(&database, Format::default(), out)).unwrap();
        assert_eq!(
            shown,
            "id  source    proto  From   request URI  tag  priority\n 1  10.0.0.1  udp    ^sip:  NULL         Tag         5\n"
        );

        said(|out| remove(&database, "10.0.0.1", out)).unwrap();
        let gone = said(|out| remove(&database, "10.0.0.1", out)).unwrap_err();
        assert!(gone.to_string().contains("trusted show"), "{gone}");
        let empty = said(|out| show(&database, Format::default(), out)).unwrap();
        assert!(empty.ends_with("has no rows\n"), "{empty}");
    }

    #[test]
    fn peers_that_no_host_could_use_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.db");
        let database = Database::new(DatabaseUrl::Sqlite(path));
        for (bad, named) in [
            (row("10.0.0.1", "carrier-pigeon", ""), "proto"),
            (row("10.0.0.1", "udp", "\\("), "from_pattern"),
        ] {
            let error = said(|out| add(&database, bad, out)).unwrap_err();
            assert!(format!("{error:#}").contains(named), "{error:#}");
        }
    }
}
