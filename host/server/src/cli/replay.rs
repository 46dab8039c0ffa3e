//! `portcullis replay`: what another policy would have decided.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use portcullis_address::Snapshot;
use portcullis_policy::Settings;
use serde_json::json;

use crate::address_task;
use crate::config::Config;
use crate::records::Question;
use crate::replay::{self, Case, Filter, Played, Player, capture};
use crate::time::rfc3339;

use super::database::block_on;
use super::print::{clean, count};

/// What is played, with what, and what is expected.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Decision records of a host, or a packet capture (pcap, pcapng)
    #[arg(value_name = "RECORDS|CAPTURE.pcap")]
    file: PathBuf,
    /// The policy to try
    #[arg(long, value_name = "NEW.wasm")]
    policy: PathBuf,
    /// What it is compared with [default: what was decided then; nothing for a capture]
    #[arg(long, value_name = "OLD.wasm")]
    against: Option<PathBuf>,
    /// Decisions of this tenant only (default for the operator's)
    #[arg(long)]
    tenant: Option<String>,
    /// The seat whose policy it would replace: before, after, or the tenant [default: the tenant]
    #[arg(long)]
    seat: Option<String>,
    /// Requests of a capture to this address only, with or without a port; can be given several times
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Ask the tables of the configuration in place of the recorded answers
    #[arg(long)]
    tables: bool,
    /// Ask a file in the form of Kamailio's `address_file` in place of the recorded answers
    #[arg(long, value_name = "FILE", conflicts_with = "tables")]
    address_file: Option<PathBuf>,
    /// The settings of the policies: a TOML or JSON file [default: those of the seat in the configuration]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Differences that are expected: a file of decision ids, one a line
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Show no more differences than this
    #[arg(long, default_value_t = 20)]
    show: usize,
    /// One JSON object for each decision, in place of text
    #[arg(long)]
    json: bool,
}

/// Numbers of the end.
#[derive(Debug, Default)]
struct Sums {
    decisions: usize,
    same: usize,
    expected: usize,
    different: usize,
    /// Of all: those where something was asked that nobody had an answer for.
    unanswered: usize,
    fuel: [u64; 2],
}

/// One case and both decisions.
struct Pair<'c> {
    case: &'c Case,
    old: Option<Played>,
    new: Played,
}

pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let is_capture = replay::is_capture(&args.file)?;
    let filter = Filter {
        tenant: args.tenant.clone(),
        seat: args.seat.clone(),
    };
    let cases = match is_capture {
        true => {
            let capture = capture::read(&args.file)?;
            let packets = count(capture.packets, "packet");
            let end = if capture.breaks_off {
                ", the last one cut off"
            } else {
                ""
            };
            eprintln!(
                "{packets}{end}, {} of them requests",
                capture.requests.len()
            );
            replay::captured(capture, &args.to)
        }
        false => replay::records(&args.file, &filter)?,
    };
    let expected = match &args.expected {
        Some(file) => read_expected(file)?,
        None => HashSet::new(),
    };
    let settings = settings(args, config)?;
    let tables = tables(args, config, is_capture)?;
    let runtime = replay::runtime(&config.policy.seat.limits)?;
    let load = |file: &Path| Player::new(&runtime, file, &settings, tables.clone());
    let mut new = load(&args.policy)?;
    let mut old = args.against.as_deref().map(load).transpose()?;
    let begun = Instant::now();
    let pairs = cases.iter().map(|case| Pair {
        case,
        old: match &mut old {
            Some(old) => Some(old.play(case)),
            None => case.recorded.as_ref().map(Played::recorded),
        },
        new: new.play(case),
    });
    let pairs: Vec<_> = pairs.collect();
    let took = begun.elapsed();
    let out = &mut std::io::stdout().lock();
    let mut sums = Sums::default();
    for pair in &pairs {
        let is_expected = expected.contains(&pair.case.id);
        let is_same = sums.add(pair, is_expected);
        if args.json {
            writeln!(out, "{}", as_json(pair, is_same))?;
        } else if !is_same && !is_expected && sums.different <= args.show {
            write_difference(out, pair, old_name(args), new.name())?;
        }
    }
    if !args.json {
        write_sums(out, &sums, &pairs, args)?;
    }
    // Not on standard output: it is another one each time.
    eprintln!("{} in {took:.1?}", count(sums.decisions as u64, "decision"));
    Ok(match sums.different {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

impl Sums {
    /// Whether there is no difference.
    fn add(&mut self, pair: &Pair<'_>, is_expected: bool) -> bool {
        self.decisions += 1;
        self.unanswered += usize::from(!pair.new.unanswered.is_empty());
        self.fuel[1] += pair.new.fuel.unwrap_or(0);
        let is_same = match &pair.old {
            Some(old) => {
                self.fuel[0] += old.fuel.unwrap_or(0);
                old.is_as(&pair.new)
            }
            None => true,
        };
        match (is_same, is_expected) {
            (true, _) => self.same += 1,
            (false, true) => self.expected += 1,
            (false, false) => self.different += 1,
        }
        is_same
    }
}

fn write_difference(
    out: &mut impl Write,
    Pair { case, old, new }: &Pair<'_>,
    old_name: &str,
    new_name: &str,
) -> std::io::Result<()> {
    let arrival = &case.request.arrival;
    let tenant = match case.tenant.as_str() {
        "" => String::new(),
        tenant => format!(", tenant {}", clean(tenant)),
    };
    writeln!(
        out,
        "{} at {}{tenant}, from {} over {}",
        clean(&case.id),
        rfc3339(case.at),
        arrival.source,
        arrival.transport
    )?;
    let width = old_name.len().max(new_name.len()) + 1;
    let fuel = |played: &Played| match played.fuel {
        Some(fuel) => format!("  (fuel {fuel})"),
        None => String::new(),
    };
    let mut line = |name: &str, played: &Played| {
        let label = format!("{name}:");
        let decided = played.to_string();
        writeln!(
            out,
            "  {label:<width$}  {}{}",
            clean(&decided),
            fuel(played)
        )
    };
    if let Some(old) = old {
        line(old_name, old)?;
    }
    line(new_name, new)?;
    for question in &new.unanswered {
        let asked = called(question);
        writeln!(
            out,
            "  not recorded: {} was answered {}",
            clean(&asked),
            clean(&question.answer.to_string())
        )?;
    }
    let text = case.request.as_text();
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    for line in head.lines() {
        writeln!(out, "  | {}", clean(line))?;
    }
    writeln!(out)
}

fn write_sums(
    out: &mut impl Write,
    sums: &Sums,
    pairs: &[Pair<'_>],
    args: &Args,
) -> std::io::Result<()> {
    let Sums {
        decisions,
        same,
        expected,
        different,
        unanswered,
        fuel,
    } = sums;
    if *different > args.show {
        writeln!(
            out,
            "{} more differ (--show {different})\n",
            different - args.show
        )?;
    }
    let all = count(*decisions as u64, "decision");
    if pairs.iter().all(|pair| pair.old.is_none()) {
        writeln!(out, "{all}, compared with nothing (--against OLD.wasm)")?;
    } else {
        let expected = match expected {
            0 => String::new(),
            n => format!(", {n} otherwise as expected"),
        };
        writeln!(
            out,
            "{all}: {same} the same, {different} otherwise{expected}"
        )?;
    }
    for (verdict, n) in replay::count(pairs.iter().map(|pair| &pair.new)) {
        writeln!(out, "{n:>8}  {}", clean(&verdict))?;
    }
    if *unanswered > 0 {
        writeln!(
            out,
            "{} asked something that was not recorded: --tables or --address-file would answer",
            count(*unanswered as u64, "decision")
        )?;
    }
    match args.against {
        Some(_) => writeln!(out, "fuel: {} before, {} now", fuel[0], fuel[1]),
        None => writeln!(out, "fuel: {}", fuel[1]),
    }
}

fn as_json(Pair { case, old, new }: &Pair<'_>, is_same: bool) -> serde_json::Value {
    let played = |played: &Played| {
        json!({
            "decided": played.decided,
            "edits": played.edits,
            "fuel": played.fuel,
            "unanswered": played.unanswered,
        })
    };
    json!({
        "id": case.id,
        "tenant": case.tenant,
        "same": is_same,
        "old": old.as_ref().map(played),
        "new": played(new),
    })
}

/// `permissions.allow-address(200, "192.0.2.1", 5060)`
fn called(question: &Question) -> String {
    let arguments = question.arguments.as_array().map(Vec::as_slice);
    let arguments = arguments.unwrap_or_default().iter();
    let arguments: Vec<_> = arguments.map(serde_json::Value::to_string).collect();
    format!("{}({})", question.function, arguments.join(", "))
}

fn old_name(args: &Args) -> &str {
    let file = args.against.as_ref().and_then(|file| file.file_name());
    file.and_then(|name| name.to_str()).unwrap_or("recorded")
}

fn read_expected(file: &Path) -> anyhow::Result<HashSet<String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn settings(args: &Args, config: &Config) -> anyhow::Result<Arc<Settings>> {
    let seat = args
        .seat
        .as_deref()
        .or(args.tenant.as_deref())
        .unwrap_or("default");
    let Some(file) = &args.settings else {
        let seat = config.seat(seat).unwrap_or(&config.policy.seat);
        return Ok(Arc::new(Settings::new(seat.settings.clone())));
    };
    let shown = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {shown}"))?;
    let table: serde_json::Value = match file.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).with_context(|| shown.to_string())?,
        false => toml::from_str(&text).with_context(|| shown.to_string())?,
    };
    if !table.is_object() {
        bail!("{shown}: settings are a table");
    }
    Ok(Arc::new(Settings::new(table)))
}

/// What policies are told in place of recorded answers; none where those count.
fn tables(args: &Args, config: &Config, is_capture: bool) -> anyhow::Result<Option<Arc<Snapshot>>> {
    let mut database = config.database.clone();
    match &args.address_file {
        Some(file) => database.address_file = Some(file.clone()),
        None if args.tables => {}
        None if is_capture => {
            eprintln!("no tables: nobody is in any group (--tables, --address-file FILE)");
            return Ok(Some(Arc::default()));
        }
        None => return Ok(None),
    }
    database.required = true;
    let snapshot = block_on(async {
        let book = address_task::open(&database, &config.permissions).await?;
        anyhow::Ok(book.current())
    })??;
    Ok(Some(snapshot))
}
