//! `portcullis audit`: what operators and tenants have done.

use std::io::Write;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::audit::{AuditEntries, AuditEntry, AuditPlace};

use super::client::{Client, Reach};
use super::followed::borrowed;
use super::print::{Format, Table, clean, stdout, write_json};

/// The largest page that a host returns.
const PAGE: usize = 1_000;

/// Which actions. Without a filter, the last ones of all.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Args {
    /// Only actions that concerned this seat: a tenant, default, before or after
    #[arg(long)]
    seat: Option<String>,
    /// Only this command, such as policy.push
    #[arg(long, value_name = "NAME")]
    command: Option<String>,
    /// Only actions of this author, as the list shows it
    #[arg(long, value_name = "AUTHOR")]
    by: Option<String>,
    /// Only actions on this host; not for a tenant
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Only older actions than that with this id
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// Only newer actions than that with this id
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// Most actions to show, the newest ones
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    limit: usize,
    /// Show all actions, whatever their number
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let client = Client::new(config, &args.reach)?;
    let out = &mut stdout();
    let most = if args.all { usize::MAX } else { args.limit };
    let list = read(most, args.before.clone(), |before, limit| {
        client.send(
            "GET",
            "/v1/audit",
            &borrowed(&args.query(before, limit)),
            None,
        )
    })?;
    match args.format.json {
        true => write_json(out, &list)?,
        false => write(&list, args, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// The query of one page.
    fn query(&self, before: Option<&str>, limit: usize) -> Vec<(&'static str, String)> {
        let texts = [
            ("seat", self.seat.as_deref()),
            ("command", self.command.as_deref()),
            ("by", self.by.as_deref()),
            ("host", self.host.as_deref()),
            ("before", before),
            ("after", self.after.as_deref()),
        ];
        let given = texts.into_iter();
        let mut query: Vec<_> = given
            .filter_map(|(name, value)| Some((name, value?.to_owned())))
            .collect();
        query.push(("limit", limit.to_string()));
        query
    }
}

/// Reads pages until there are so many actions, or no older ones. `page` returns that page of so many actions before an id.
fn read(
    most: usize,
    before: Option<String>,
    mut page: impl FnMut(Option<&str>, usize) -> anyhow::Result<AuditEntries>,
) -> anyhow::Result<AuditEntries> {
    let mut list = page(before.as_deref(), most.min(PAGE))?;
    while let Some(before) = list.next.take() {
        let left = most.saturating_sub(list.entries.len());
        if left == 0 {
            list.next = Some(before);
            break;
        }
        let older = page(Some(&before), left.min(PAGE))?;
        list.entries.extend(older.entries);
        list.next = older.next;
        list.warning = list.warning.or(older.warning);
    }
    Ok(list)
}

fn write(list: &AuditEntries, args: &Args, out: &mut impl Write) -> anyhow::Result<()> {
    if list.entries.is_empty() {
        let is_filtered = args.query(args.before.as_deref(), 1).len() > 1;
        let text = match is_filtered {
            true => "no such action",
            false => "no action",
        };
        writeln!(out, "{text}")?;
    } else {
        let columns = [
            "id", "time", "by", "host", "command", "seat", "subject", "result",
        ];
        let mut table = Table::new(columns);
        list.entries.iter().for_each(|entry| table.push(row(entry)));
        table.write(out)?;
    }
    if let Some(next) = &list.next {
        writeln!(out, "older ones: --before {}, or --all", clean(next))?;
    }
    match list.kept {
        AuditPlace::Database => {}
        AuditPlace::Memory => writeln!(
            out,
            "note: this list is in the memory of the host: its last 1,000 actions since its start"
        )?,
    }
    if let Some(warning) = &list.warning {
        writeln!(out, "note: {}", clean(warning))?;
    }
    Ok(())
}

fn row(entry: &AuditEntry) -> [String; 8] {
    let shown = |text: &Option<String>| text.clone().unwrap_or_default();
    let result = match &entry.error {
        None => "done".to_owned(),
        Some(error) => format!("failed: {error}"),
    };
    [
        entry.id.clone(),
        entry.at.to_string(),
        entry.by.clone(),
        shown(&entry.host),
        entry.command.clone(),
        shown(&entry.seat),
        shown(&entry.subject),
        result,
    ]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn entry(id: u64, error: Option<&str>) -> AuditEntry {
        AuditEntry {
            id: id.to_string(),
            host: Some("edge-1".into()),
            at: (UNIX_EPOCH + Duration::from_secs(1)).into(),
            by: "acme: ann".into(),
            tenant: Some("acme".into()),
            token: None,
            door: "http".into(),
            command: "policy.push".into(),
            seat: Some("acme".into()),
            subject: None,
            error: error.map(str::to_owned),
        }
    }

    /// A host with the actions 1 to `count`.
    fn host(count: u64) -> impl FnMut(Option<&str>, usize) -> anyhow::Result<AuditEntries> {
        move |before, limit| {
            assert!((1..=PAGE).contains(&limit), "{limit}");
            let newest = match before {
                Some(id) => id.parse::<u64>()? - 1,
                None => count,
            };
            let ids: Vec<u64> = (1..=newest).rev().take(limit).collect();
            let oldest = ids.last().copied().unwrap_or_default();
            Ok(AuditEntries {
                entries: ids.into_iter().map(|id| entry(id, None)).collect(),
                next: (oldest > 1).then(|| oldest.to_string()),
                kept: AuditPlace::Database,
                warning: None,
            })
        }
    }

    #[test]
    fn pages_are_read_until_there_is_enough() {
        let ids = |list: &AuditEntries| -> Vec<u64> {
            let ids = list.entries.iter();
            ids.map(|entry| entry.id.parse().unwrap()).collect()
        };
        for (count, most, before, first, last, next) in [
            (2_500, 100, None, 2_500, 2_401, Some("2401")),
            (2_500, 1_001, None, 2_500, 1_500, Some("1500")),
            (2_500, usize::MAX, None, 2_500, 1, None),
            (2_500, 2_500, Some("11"), 10, 1, None),
        ] {
            let list = read(most, before.map(str::to_owned), host(count)).unwrap();
            let expected: Vec<u64> = (last..=first).rev().collect();
            assert_eq!(ids(&list), expected, "{most} before {before:?}");
            assert_eq!(list.next.as_deref(), next);
        }
    }

    #[test]
    fn a_list_says_what_failed_and_where_older_actions_are() {
        let shown = |list: &AuditEntries| {
            let mut out = Vec::new();
            write(list, &Args::default(), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        let mut list = AuditEntries {
            entries: vec![entry(12, Some("a\u{1b}[2Jb")), entry(7, None)],
            next: Some("7".into()),
            kept: AuditPlace::Database,
            warning: None,
        };
        assert_eq!(
            shown(&list),
            "id  time                  by         host    command      seat  subject  result\n\
             12  1970-01-01T00:00:01Z  acme: ann  edge-1  policy.push  acme           failed: a\\u{1b}[2Jb\n \
              7  1970-01-01T00:00:01Z  acme: ann  edge-1  policy.push  acme           done\n\
             older ones: --before 7, or --all\n"
        );
        list = AuditEntries {
            entries: Vec::new(),
            next: None,
            kept: AuditPlace::Memory,
            warning: Some("the database is away".into()),
        };
        assert_eq!(
            shown(&list),
            "no action\nnote: this list is in the memory of the host: its last 1,000 actions since its start\nnote: the database is away\n"
        );
    }
}
