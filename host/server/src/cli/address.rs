//! `portcullis address …`: rows in the database, with kamctl's arguments, and the table of the running host.

mod transfer;

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use portcullis_address::{Database, NewRow, StoredRow, network};
use portcullis_config::Config;
use portcullis_control::commands::address::{AddressReload, AddressRow};
use portcullis_control::commands::permissions::{
    DomainRow, Entry, HostRow, SubnetEntry, SubnetRow,
};
use serde_json::{Value, json};

use super::client::{Client, Elsewhere, Reach, Reaching};
use super::database::{block_on, is_absent, must_be_there};
use super::findings::{write_answered, write_findings};
use super::print::{Format, Table, clean, count, data, present, shown, stdout, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum AddressCommand {
    /// Add a row to the database; a running host detects it within about a second
    ///
    /// The arguments and their order are those of `kamctl address add`. An invalid row is refused.
    Add(Row),
    /// Show the rows in the database
    Show(Format),
    /// Remove all rows of a group and an address, whatever their masks and ports; for a network ADDRESS/BITS, those with its mask
    Rm {
        /// The group
        #[arg(allow_negative_numbers = true)]
        group: i64,
        /// The address, as written in the row, or a network as ADDRESS/BITS
        ip: String,
    },
    /// Write the rows of the database to a file: CSV, JSON lines, or Kamailio's address_file
    ///
    /// Rows that no import would accept are left out and listed, and the exit code is then 1.
    Export(transfer::ExportArgs),
    /// Add the rows of a file to the database, all of them or none
    ///
    /// Every invalid row is listed with its line, and then nothing is imported. A CSV file begins with a header of column names:
    /// grp,ip_addr,mask,port,tag, of which the last three may be omitted; a tag \N is NULL.
    Import(transfer::ImportArgs),
    /// Show the table that the running host has in memory
    Dump(Format),
    /// Reload the table of the running host, and list unusable rows
    ///
    /// The host reloads it automatically when the table changes. This command waits for the reload.
    Reload,
}

#[derive(Debug, clap::Args)]
pub(super) struct Row {
    /// The group, from 1
    #[arg(allow_negative_numbers = true)]
    group: i64,
    /// An IPv4 or IPv6 address, a network as ADDRESS/BITS or by its first address, or a name, which only `allow-address` matches
    ip: String,
    /// Bits of the network [default: 32 for IPv4 and names, 128 for IPv6: one host]
    #[arg(allow_negative_numbers = true)]
    mask: Option<i64>,
    /// The source port; 0 for any
    #[arg(default_value_t = 0, allow_negative_numbers = true)]
    port: i64,
    /// A text that policies can read
    #[arg(default_value = "", hide_default_value = true)]
    tag: String,
}

impl Reaching for AddressCommand {
    fn elsewhere(&self) -> Option<(&'static str, Elsewhere)> {
        let name = match self {
            Self::Add(_) => "address add",
            Self::Show(_) => "address show",
            Self::Rm { .. } => "address rm",
            Self::Export(_) => "address export",
            Self::Import(_) => "address import",
            Self::Dump(_) | Self::Reload => return None,
        };
        Some((name, Elsewhere::Database))
    }
}

impl AddressCommand {
    pub(super) fn run(self, config: &Config, reach: &Reach) -> anyhow::Result<ExitCode> {
        let out = &mut stdout();
        let database = config.database.database();
        match self {
            Self::Add(row) => add(&database, row, out)?,
            Self::Show(format) => show(&database, format, out)?,
            Self::Rm { group, ip } => remove(&database, group, &ip, out)?,
            Self::Export(args) => return transfer::export(&database, &args, &mut data()),
            Self::Import(args) => transfer::import(&database, &args, out)?,
            Self::Dump(format) => dump(&Client::new(config, reach)?, format, out)?,
            Self::Reload => reload(&Client::new(config, reach)?, out)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn add(database: &Database, row: Row, out: &mut impl Write) -> anyhow::Result<()> {
    let url = database.url();
    let is_new = is_absent(database);
    let has_mask = row.mask.is_some() || network(&row.ip).is_some();
    let new = NewRow::of_words(row.group, row.ip, row.mask, row.port, Some(row.tag))?;
    let warning = block_on(database.add(&new))?.context("the row was not added")?;
    if is_new {
        writeln!(
            out,
            "created {url}, a new database: a host that uses another one does not see what is added here"
        )?;
    }
    writeln!(
        out,
        "added to {url}: group {}, address {}, mask {}, port {}, tag {}",
        new.group,
        clean(&new.ip_addr),
        new.mask,
        match new.port {
            0 => "0 (any)".to_owned(),
            port => port.to_string(),
        },
        clean(&format!("\"{}\"", new.tag.unwrap_or_default()))
    )?;
    if new.mask == 128 && !has_mask {
        writeln!(
            out,
            "note: without a mask an IPv6 address is one host here; kamctl writes 32, which is a network of 2^96 addresses"
        )?;
    }
    if let Some(warning) = warning {
        writeln!(out, "warning: {}", clean(&warning.to_string()))?;
    }
    Ok(())
}

fn show(database: &Database, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    must_be_there(database, "portcullis address add")?;
    let rows = block_on(database.rows())??;
    if format.json {
        let loaded = block_on(database.load())??;
        let shown = json!({
            "source": database.address_source(),
            "rows": rows.into_iter().map(AddressRow::from).collect::<Vec<_>>(),
            "skipped": loaded.skipped,
            "errors": loaded.errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "warned": loaded.warned,
            "warnings": loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        return write_json(out, &shown);
    }
    let mut table = Table::new(["id", "group", "address", "mask", "port", "tag"]);
    for row in rows {
        let StoredRow {
            id,
            group,
            ip_addr,
            mask,
            port,
            tag,
        } = row;
        table.push(
            [id, group, ip_addr, mask, port, tag]
                .map(|column| column.unwrap_or_else(|| "NULL".into())),
        );
    }
    if table.is_empty() {
        writeln!(out, "{} has no rows", database.address_source())?;
        return Ok(());
    }
    table.write(out)?;
    let loaded = block_on(database.load())??;
    write_findings(out, "row", loaded.skipped, "cannot be used", &loaded.errors)?;
    Ok(write_findings(
        out,
        "row",
        loaded.warned,
        "may not mean what was intended",
        &loaded.warnings,
    )?)
}

fn remove(database: &Database, group: i64, ip: &str, out: &mut impl Write) -> anyhow::Result<()> {
    must_be_there(database, "portcullis address add")?;
    let removed = match network(ip) {
        Some((addr, bits)) => block_on(database.remove_network(group, &addr, bits))??,
        None => block_on(database.remove(group, ip))??,
    };
    match removed {
        0 => bail!(
            "no row of {} has group {group} and address {ip}; `portcullis address show` shows them",
            database.url()
        ),
        n => Ok(writeln!(
            out,
            "removed from {}: {} with group {group} and address {}",
            database.url(),
            count(n, "row"),
            clean(ip)
        )?),
    }
}

fn dump(client: &Client, format: Format, out: &mut impl Write) -> anyhow::Result<()> {
    let rows: Vec<Entry<HostRow<'_>>> = client.call("permissions.addressDump", json!([]))?;
    let subnet_rows: Vec<SubnetEntry<'_>> = client.call("permissions.subnetDump", json!([]))?;
    let name_rows: Vec<Entry<DomainRow<'_>>> = client.call("permissions.domainDump", json!([]))?;
    if format.json {
        return write_json(out, &dumped(&rows, &subnet_rows, &name_rows));
    }
    let mut hosts = Table::new(["group", "address", "port", "tag"]);
    for Entry { group, item, .. } in rows {
        let HostRow { ip, port, tag } = item;
        hosts.push([group.to_string(), ip.into(), port.to_string(), shown(&tag)]);
    }
    let mut subnets = Table::new(["group", "network", "mask", "port", "tag"]);
    for SubnetEntry { group, item, .. } in subnet_rows {
        let SubnetRow {
            ip,
            mask,
            port,
            tag,
        } = item;
        let (mask, port) = (mask.to_string(), port.to_string());
        subnets.push([group.to_string(), ip.into(), mask, port, shown(&tag)]);
    }
    let mut names = Table::new(["group", "name", "port", "tag"]);
    for Entry { group, item, .. } in name_rows {
        let DomainRow {
            domain_name,
            port,
            tag,
        } = item;
        let (group, port) = (group.to_string(), port.to_string());
        names.push([group, domain_name.into(), port, shown(&tag)]);
    }
    if hosts.is_empty() && subnets.is_empty() && names.is_empty() {
        writeln!(out, "the table of the running host is empty")?;
    }
    let mut separate = false;
    write_titled(out, "hosts", &hosts, &mut separate)?;
    write_titled(out, "subnets", &subnets, &mut separate)?;
    write_titled(out, "names", &names, &mut separate)
}

/// The table for programs: the names and values are those of `address show --json`, and not Kamailio's.
fn dumped(
    hosts: &[Entry<HostRow<'_>>],
    subnets: &[SubnetEntry<'_>],
    names: &[Entry<DomainRow<'_>>],
) -> Value {
    let hosts = hosts.iter().map(|Entry { group, item, .. }| {
        json!({"group": group, "address": item.ip, "port": item.port, "tag": present(&item.tag)})
    });
    let subnets = subnets.iter().map(|SubnetEntry { group, item, .. }| {
        let tag = present(&item.tag);
        json!({"group": group, "address": item.ip, "mask": item.mask, "port": item.port, "tag": tag})
    });
    let names = names.iter().map(|Entry { group, item, .. }| {
        json!({"group": group, "name": item.domain_name, "port": item.port, "tag": present(&item.tag)})
    });
    json!({
        "hosts": hosts.collect::<Vec<_>>(),
        "subnets": subnets.collect::<Vec<_>>(),
        "names": names.collect::<Vec<_>>(),
    })
}

fn reload(client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
    let AddressReload { status, table } = client.call("address.reload", json!([]))?;
    writeln!(
        out,
        "{status}: {}, generation {}, {} ms",
        clean(&table.rows),
        table.generation,
        table.took_ms
    )?;
    let (wrong, odd) = (
        (table.skipped, &*table.errors),
        (table.warned, &*table.warnings),
    );
    Ok(write_answered("row", wrong, odd, out)?)
}

/// A table under its title, after an empty line if another table precedes it; nothing for an empty table.
fn write_titled<const N: usize>(
    out: &mut impl Write,
    title: &str,
    table: &Table<N>,
    separate: &mut bool,
) -> anyhow::Result<()> {
    if table.is_empty() {
        return Ok(());
    }
    if std::mem::replace(separate, true) {
        writeln!(out)?;
    }
    writeln!(out, "{title}")?;
    Ok(table.write(out)?)
}

#[cfg(test)]
mod tests {
    use portcullis_address::DatabaseUrl;

    use super::*;

    fn database(folder: &tempfile::TempDir) -> Database {
        Database::new(DatabaseUrl::Sqlite(folder.path().join("table.db")))
    }

    fn row(group: i64, ip: &str, mask: Option<i64>) -> Row {
        Row {
            group,
            ip: ip.into(),
            mask,
            port: 0,
            tag: String::new(),
        }
    }

    fn added(database: &Database, row: Row) -> anyhow::Result<String> {
        let mut out = Vec::new();
        add(database, row, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn rows_are_added_shown_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(&folder);
        assert!(
            show(&database, Format::default(), &mut Vec::new())
                .unwrap_err()
                .to_string()
                .contains("address add")
        );
        let said = added(&database, row(200, "192.168.1.0", Some(24))).unwrap();
        assert!(said.starts_with("created sqlite:"), "{said}");
        assert!(
            said.ends_with("group 200, address 192.168.1.0, mask 24, port 0 (any), tag \"\"\n"),
            "{said}"
        );
        let mut out = Vec::new();
        show(&database, Format::default(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "id  group  address      mask  port  tag\n 1    200  192.168.1.0    24     0\n"
        );
        let mut out = Vec::new();
        show(&database, Format { json: true }, &mut out).unwrap();
        let shown: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            shown["rows"],
            json!([{"id": 1, "group": 200, "address": "192.168.1.0", "mask": 24, "port": 0, "tag": ""}])
        );
        assert_eq!(shown["skipped"], 0);
        remove(&database, 200, "192.168.1.0", &mut Vec::new()).unwrap();
        let again = remove(&database, 200, "192.168.1.0", &mut Vec::new());
        assert!(again.unwrap_err().to_string().contains("address show"));
    }

    #[test]
    fn an_ipv6_address_without_mask_is_one_host() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(&folder);
        let said = added(&database, row(200, "2001:db8::1", None)).unwrap();
        assert!(
            said.contains("mask 128") && said.contains("note:"),
            "{said}"
        );
        let said = added(&database, row(200, "2001:db8::1", Some(32))).unwrap();
        assert!(
            said.contains("mask 32") && said.contains("warning:"),
            "{said}"
        );
    }

    #[test]
    fn a_network_in_cidr_form_is_an_address_and_a_mask() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(&folder);
        for (cidr, mask, stored) in [
            ("10.0.0.0/8", None, "address 10.0.0.0, mask 8,"),
            ("10.0.0.0/16", Some(16), "address 10.0.0.0, mask 16,"),
            ("2001:db8::/32", None, "address 2001:db8::, mask 32,"),
            ("[2001:db8:1::]/48", None, "address 2001:db8:1::, mask 48,"),
        ] {
            let said = added(&database, row(200, cidr, mask)).unwrap();
            assert!(said.contains(stored) && !said.contains("note:"), "{said}");
        }
        let mut out = Vec::new();
        remove(&database, 200, "10.0.0.0/8", &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains(": 1 row with group 200"), "{said}");
        let again = remove(&database, 200, "10.0.0.0/8", &mut Vec::new());
        assert!(again.unwrap_err().to_string().contains("address show"));
        let masks: Vec<_> = block_on(database.rows()).unwrap().unwrap();
        let masks: Vec<_> = masks.iter().map(|row| row.mask.as_deref()).collect();
        assert_eq!(masks, [Some("16"), Some("32"), Some("48")]);
        // Without a mask it is all rows of the address.
        remove(&database, 200, "10.0.0.0", &mut Vec::new()).unwrap();
    }

    #[test]
    fn rows_that_no_host_could_use_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let database = database(&folder);
        for (bad, named) in [
            (row(0, "10.0.0.1", None), "grp"),
            (row(1, "10.0.0.1", Some(33)), "33"),
            (row(1, "10.0.0.0/24", Some(16)), "remove one of them"),
            (row(1, "10.0.0.0/0", None), "slash"),
            (row(1, "10.0.0.0/33", None), "slash"),
            (row(1, "sip.example.com/24", None), "slash"),
            (row(1, "300.1.1.1", None), "300.1.1.1"),
        ] {
            let error = format!("{:#}", added(&database, bad).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
