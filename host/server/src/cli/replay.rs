//! `portcullis replay`: what another policy would have decided.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use portcullis_address::Snapshot;
use portcullis_config::{Config, InDialog};
use portcullis_policy::Settings;
use portcullis_text::{clean_json, rfc3339};
use serde_json::json;

use portcullis_records::replay::capture::{self, Capture};
use portcullis_records::replay::{self, Case, Filter, Played, Player};
use portcullis_rollout::address_task;
use portcullis_rollout::compiler;

use super::database::block_on;
use super::print::{clean, count, stdout};

/// The input, the policies, and the expected differences.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Decision records of a host, or a packet capture (pcap, pcapng)
    #[arg(value_name = "RECORDS|CAPTURE.pcap")]
    file: PathBuf,
    /// The policy to test
    #[arg(long, value_name = "NEW.wasm")]
    policy: PathBuf,
    /// The policy to compare with [default: the recorded decision; nothing for a capture]
    #[arg(long, value_name = "OLD.wasm")]
    against: Option<PathBuf>,
    /// Decisions of this tenant only (default for the operator's)
    #[arg(long)]
    tenant: Option<String>,
    /// The seat whose policy it would replace: before, after, or the tenant [default: the tenant]
    #[arg(long)]
    seat: Option<String>,
    /// Only requests of a capture to this address, with or without a port; can be given several times
    #[arg(long, value_name = "ADDRESS")]
    to: Vec<String>,
    /// Use the tables of the configuration instead of the recorded answers
    #[arg(long)]
    tables: bool,
    /// Use a file in the format of Kamailio's `address_file` instead of the recorded answers
    #[arg(long, value_name = "FILE", conflicts_with = "tables")]
    address_file: Option<PathBuf>,
    /// The settings of the policies: a TOML or JSON file [default: those of the seat in the configuration]
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Expected differences: a file of decision ids, one per line
    #[arg(long, value_name = "FILE")]
    expected: Option<PathBuf>,
    /// Show at most this many differences
    #[arg(long, default_value_t = 20)]
    show: usize,
    /// One JSON object for each decision, instead of text
    #[arg(long)]
    json: bool,
}

/// The exit code when nothing was replayed: then nothing is known about differences.
const NOTHING: u8 = 2;

/// TCP connections that are listed individually.
const MOST_SHOWN: usize = 20;

/// Totals for the summary.
#[derive(Debug, Default)]
struct Sums {
    decisions: usize,
    same: usize,
    expected: usize,
    different: usize,
    /// Number of decisions with a query that could not be answered.
    unanswered: usize,
    /// Number of decisions whose record was cut.
    cut: usize,
    fuel: [u64; 2],
}

/// One case and both decisions.
struct Pair<'c> {
    case: &'c Case,
    old: Option<Played>,
    new: Played,
}

/// Skips requests that a host would let follow their dialog: no policy is called for them.
fn leave_out_followers(cases: &mut Vec<Case>, config: &Config) {
    if config.policy.in_dialog == InDialog::Ask {
        return;
    }
    let all = cases.len();
    cases.retain(|case| !case.request.brings_seal());
    let left_out = all - cases.len();
    if left_out > 0 {
        let requests = count(left_out as u64, "request");
        eprintln!(
            "{requests} within dialogs skipped: they follow their dialog without a policy call"
        );
    }
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
            let requests = count(capture.requests.len() as u64, "request");
            eprintln!("{packets}, {requests}");
            write_lost(&mut stdout(), &capture, args.json)?;
            let mut cases = replay::captured(capture, &args.to);
            leave_out_followers(&mut cases, config);
            cases
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
    runtime.compile_with(compiler::for_a_command());
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
    let out = &mut stdout();
    let mut sums = Sums::default();
    for pair in &pairs {
        let is_expected = expected.contains(&pair.case.id);
        let is_same = sums.add(pair, is_expected);
        if args.json {
            let line = as_json(pair, is_same).to_string();
            writeln!(out, "{}", clean_json(&line))?;
        } else if !is_same && !is_expected && sums.different <= args.show {
            write_difference(out, pair, old_name(args), new.name())?;
        }
    }
    if !args.json {
        write_sums(out, &sums, &pairs, args)?;
    }
    // Not on standard output, because it differs between runs.
    eprintln!("{} in {took:.1?}", count(sums.decisions as u64, "decision"));
    Ok(match (sums.decisions, sums.different) {
        (0, _) => ExitCode::from(NOTHING),
        (_, 0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Reports the parts of a capture that could not be parsed: calls may be missing in the replay.
fn write_lost(out: &mut impl Write, capture: &Capture, is_json: bool) -> std::io::Result<()> {
    if capture.is_whole() {
        return Ok(());
    }
    if is_json {
        return write_lost_json(out, capture);
    }
    if capture.breaks_off {
        let n = capture.packets + 1;
        writeln!(
            out,
            "the file ends within packet {n}: it was still being written, or was copied in part"
        )?;
    }
    if capture.cut > 0 {
        let packets = count(capture.cut, "packet");
        writeln!(
            out,
            "{packets} captured in part only: capture with `tcpdump -s 0`"
        )?;
    }
    for (source, local, lost) in capture.lost.iter().take(MOST_SHOWN) {
        let mut parts = Vec::new();
        if lost.begins_inside {
            parts.push("begins within a message".to_owned());
        }
        if lost.gaps > 0 {
            let bytes = count(lost.missing_bytes, "missing byte");
            parts.push(format!("{}, {bytes}", count(lost.gaps, "gap")));
        }
        if lost.unreadable > 0 {
            parts.push(count(lost.unreadable, "unreadable message"));
        }
        writeln!(
            out,
            "TCP from {source} to {local}: {}, {}, from packet {} on; {} followed",
            parts.join(", "),
            count(lost.skipped_bytes, "skipped byte"),
            lost.first_packet,
            count(lost.messages, "message")
        )?;
    }
    if capture.lost.len() > MOST_SHOWN {
        let more = (capture.lost.len() - MOST_SHOWN) as u64;
        writeln!(out, "and {} of TCP", count(more, "more direction"))?;
    }
    if capture.foreign > 0 {
        let ways = count(capture.foreign, "direction");
        writeln!(out, "{ways} of TCP without SIP")?;
    }
    Ok(())
}

fn write_lost_json(out: &mut impl Write, capture: &Capture) -> std::io::Result<()> {
    let ways = capture.lost.iter().map(|(source, local, lost)| {
        json!({
            "source": source,
            "local": local,
            "begins_inside": lost.begins_inside,
            "gaps": lost.gaps,
            "missing_bytes": lost.missing_bytes,
            "unreadable": lost.unreadable,
            "skipped_bytes": lost.skipped_bytes,
            "first_packet": lost.first_packet,
            "messages": lost.messages,
        })
    });
    let line = json!({
        "capture": {
            "packets": capture.packets,
            "requests": capture.requests.len(),
            "ends_within_packet": capture.breaks_off,
            "packets_in_part": capture.cut,
            "not_followed": ways.collect::<Vec<_>>(),
            "ways_without_sip": capture.foreign,
        }
    });
    writeln!(out, "{line}")
}

impl Sums {
    /// Whether there is no difference.
    fn add(&mut self, pair: &Pair<'_>, is_expected: bool) -> bool {
        self.decisions += 1;
        self.unanswered += usize::from(!pair.new.unanswered.is_empty());
        self.cut += usize::from(pair.new.is_cut);
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
        let asked = question.to_string();
        writeln!(
            out,
            "  not recorded: {} was answered {}",
            clean(&asked),
            clean(&question.answer.to_string())
        )?;
    }
    if new.is_cut {
        writeln!(
            out,
            "  cut: the record does not contain all queries, so some answers are missing"
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
        cut,
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
            n => format!(", {n} different as expected"),
        };
        writeln!(
            out,
            "{all}: {same} the same, {different} different{expected}"
        )?;
    }
    for (verdict, n) in replay::count(pairs.iter().map(|pair| &pair.new)) {
        writeln!(out, "{n:>8}  {}", clean(&verdict))?;
    }
    if *unanswered > 0 {
        writeln!(
            out,
            "{} made a query that was not recorded; --tables or --address-file would answer it",
            count(*unanswered as u64, "decision")
        )?;
    }
    if *cut > 0 {
        writeln!(
            out,
            "{} cut: the record does not contain all queries",
            count(*cut as u64, "record")
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
            "said": played.said,
            "fuel": played.fuel,
            "unanswered": played.unanswered,
            "cut": played.is_cut,
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

fn old_name(args: &Args) -> &str {
    let file = args.against.as_ref().and_then(|file| file.file_name());
    file.and_then(|name| name.to_str()).unwrap_or("recorded")
}

fn read_expected(file: &Path) -> anyhow::Result<HashSet<String>> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
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
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    let table: serde_json::Value = match file.extension().is_some_and(|end| end == "json") {
        true => serde_json::from_str(&text).with_context(|| shown.to_string())?,
        false => toml::from_str(&text).with_context(|| shown.to_string())?,
    };
    if !table.is_object() {
        bail!("{shown}: settings are a table of names and values, such as limit = 5");
    }
    Ok(Arc::new(Settings::new(table)))
}

/// The answers that replace recorded ones; `None` to use the record.
fn tables(args: &Args, config: &Config, is_capture: bool) -> anyhow::Result<Option<Arc<Snapshot>>> {
    let mut database = config.database.clone();
    match &args.address_file {
        Some(file) => database.address_file = Some(file.clone()),
        None if args.tables => {}
        None if is_capture => {
            eprintln!("no tables: all address groups are empty (--tables, --address-file FILE)");
            return Ok(Some(Arc::default()));
        }
        None => return Ok(None),
    }
    database.required = true;
    let snapshot = block_on(async {
        let opened = address_task::open(&database, &config.permissions).await?;
        anyhow::Ok(opened.whole()?.current())
    })??;
    Ok(Some(snapshot))
}
