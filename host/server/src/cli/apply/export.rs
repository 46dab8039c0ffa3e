//! `portcullis export`: the state of a host as a folder that `apply` reads.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use portcullis_address::{Format as RowFormat, NewRow, RowWriter};
use portcullis_config::Config;
use portcullis_control::commands::address::AddressRow;
use portcullis_control::commands::dispatcher::StoredGateway;
use portcullis_control::commands::trusted::StoredPeer;

use super::actual::{self, cell};
use crate::cli::client::{Client, NoAnswer, Reach};
use crate::cli::print::{clean, count, stdout};

/// A text that is NULL.
const NULL: &str = "\\N";

/// The operator's seats.
const SEATS: [&str; 3] = ["default", "before", "after"];

/// Write the state of a host as a folder that `apply` and `diff` read
///
/// Tenants of the database, pushed policies, and the rows of addresses, trusted peers and the dispatcher. What is in files of the host is
/// left out, with a note. A row that no load uses is left out with an error.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// A new or an empty folder
    #[arg(short, long = "file", value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    reach: Reach,
}

/// A folder that is being written.
struct Target<'a, W> {
    folder: &'a Path,
    out: &'a mut W,
    /// Rows that cannot be written.
    left_out: u64,
}

pub(in crate::cli) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let folder = &args.folder;
    let client = Client::new(config, &args.reach)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    if entries.next().is_some() {
        bail!(
            "{} is not empty: name a new folder, and compare the two",
            folder.display()
        );
    }
    let mut target = Target {
        folder,
        out: &mut stdout(),
        left_out: 0,
    };
    let tenants = target.tenants(&client)?;
    target.policies(&client, &tenants)?;
    if let Some(rows) = target.there("addresses", actual::addresses(&client))? {
        target.addresses(&rows)?;
    }
    let peers = client.send("GET", "/v1/trusted", &[], None);
    if let Some(rows) = target.there::<Vec<StoredPeer>>("trusted", peers)? {
        target.trusted(&rows)?;
    }
    let gateways = client.send("GET", "/v1/dispatcher/rows", &[], None);
    if let Some(rows) = target.there::<Vec<StoredGateway>>("dispatcher", gateways)? {
        target.dispatcher(&rows)?;
    }
    match target.left_out {
        0 => Ok(ExitCode::SUCCESS),
        left_out => {
            eprintln!("error: {} left out", count(left_out, "row"));
            Ok(ExitCode::FAILURE)
        }
    }
}

impl<W: Write> Target<'_, W> {
    /// What was read; `None`, with a note, if the host has it elsewhere or not at all.
    fn there<T>(&mut self, what: &str, read: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.is::<NoAnswer>() => Err(error),
            Err(error) => {
                writeln!(self.out, "note: no {what}: {error:#}")?;
                Ok(None)
            }
        }
    }

    fn tenants(&mut self, client: &Client) -> anyhow::Result<Vec<String>> {
        let Some(tenants) = self.there("tenants", actual::tenants(client))? else {
            return Ok(Vec::new());
        };
        let folder = self.folder.join("tenants");
        fs::create_dir(&folder)?;
        for tenant in &tenants {
            let text = tenant.config.as_deref().unwrap_or_default();
            let mut text = text.trim_end().to_owned();
            text.push('\n');
            write(
                &folder.join(format!("{}.toml", tenant.name)),
                text.as_bytes(),
            )?;
        }
        let written = count(tenants.len() as u64, "tenant");
        writeln!(self.out, "tenants: {written}")?;
        Ok(tenants.into_iter().map(|tenant| tenant.name).collect())
    }

    /// Writes the active policies of seats that follow no file.
    fn policies(&mut self, client: &Client, tenants: &[String]) -> anyhow::Result<()> {
        let folder = self.folder.join("policies");
        let mut written: u64 = 0;
        for seat in SEATS.into_iter().chain(tenants.iter().map(String::as_str)) {
            let Some(status) = actual::seat_status(client, seat)? else {
                continue;
            };
            if let Some(file) = &status.file {
                writeln!(
                    self.out,
                    "note: no policy of the seat {}: it follows the file {} of the host",
                    clean(seat),
                    clean(file)
                )?;
                continue;
            }
            if status.digest.is_none() {
                continue;
            }
            let bytes = client.fetch(&format!("/v1/policies/{seat}/generations/active"))?;
            fs::create_dir_all(&folder)?;
            write(&folder.join(format!("{seat}.wasm")), &bytes)?;
            written += 1;
        }
        match written {
            1 => writeln!(self.out, "policies: 1 policy")?,
            written => writeln!(self.out, "policies: {written} policies")?,
        }
        Ok(())
    }

    fn addresses(&mut self, rows: &[AddressRow]) -> anyhow::Result<()> {
        let path = self.folder.join("addresses.csv");
        let mut writer = RowWriter::new(RowFormat::Csv, create(&path)?)?;
        for row in rows {
            match new_row(row) {
                Ok(new) => writer.write(&new)?,
                Err(error) => self.leave_out(&row.id, "addresses", &error),
            }
        }
        writer.finish()?;
        self.written("addresses", rows.len())
    }

    fn trusted(&mut self, rows: &[StoredPeer]) -> anyhow::Result<()> {
        let path = self.folder.join("trusted.csv");
        let mut writer = csv::Writer::from_writer(create(&path)?);
        writer.write_record([
            "src_ip",
            "proto",
            "from_pattern",
            "ruri_pattern",
            "tag",
            "priority",
        ])?;
        for row in rows {
            let (Some(source), Some(proto)) = (&row.source, &row.proto) else {
                self.leave_out(&row.id, "trusted", "src_ip or proto is NULL");
                continue;
            };
            let text = |text: &Option<String>| text.clone().unwrap_or_else(|| NULL.to_owned());
            writer.write_record([
                source,
                proto,
                &text(&row.from_pattern),
                &text(&row.ruri_pattern),
                &text(&row.tag),
                &cell(&row.priority).unwrap_or_else(|| "0".to_owned()),
            ])?;
        }
        writer.flush()?;
        self.written("trusted", rows.len())
    }

    fn dispatcher(&mut self, rows: &[StoredGateway]) -> anyhow::Result<()> {
        let path = self.folder.join("dispatcher.csv");
        let mut writer = csv::Writer::from_writer(create(&path)?);
        writer.write_record([
            "setid",
            "destination",
            "flags",
            "priority",
            "attrs",
            "description",
        ])?;
        for row in rows {
            let (Some(set), Some(uri)) = (cell(&row.set), &row.uri) else {
                self.leave_out(&row.id, "dispatcher", "setid or destination is NULL");
                continue;
            };
            let number = |number: &Option<_>| cell(number).unwrap_or_else(|| "0".to_owned());
            writer.write_record([
                &set,
                uri,
                &number(&row.flags),
                &number(&row.priority),
                row.attrs.as_deref().unwrap_or_default(),
                row.description.as_deref().unwrap_or_default(),
            ])?;
        }
        writer.flush()?;
        self.written("dispatcher", rows.len())
    }

    fn leave_out(
        &mut self,
        id: &Option<portcullis_control::commands::Cell>,
        table: &str,
        error: &str,
    ) {
        self.left_out += 1;
        let id = cell(id).unwrap_or_else(|| "without an id".to_owned());
        let line = format!("left out: {table}: row {id}: {error}");
        eprintln!("{}", clean(&line));
    }

    fn written(&mut self, what: &str, rows: usize) -> anyhow::Result<()> {
        Ok(writeln!(self.out, "{what}: {}", count(rows as u64, "row"))?)
    }
}

/// The row as a file can have it, if a load would use it.
fn new_row(row: &AddressRow) -> Result<NewRow, String> {
    let number = |name: &str, column| {
        let text = cell(column).ok_or_else(|| format!("{name} is NULL"))?;
        text.trim()
            .parse()
            .map_err(|_| format!("{name} {text:?} is not a whole number"))
    };
    let new = NewRow {
        group: number("grp", &row.group)?,
        ip_addr: row.address.clone().ok_or("ip_addr is NULL")?,
        mask: number("mask", &row.mask)?,
        port: number("port", &row.port)?,
        tag: row.tag.clone(),
    };
    match new.check() {
        Ok(_) => Ok(new),
        Err(error) => Err(error.to_string()),
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create_new(path).with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = create(path)?;
    let written = file.write_all(bytes);
    written.with_context(|| format!("cannot write {}", path.display()))
}
