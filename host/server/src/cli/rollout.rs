//! `portcullis fleet rollout …`: generations that are moved over all hosts in steps.

use std::io::Write;

use portcullis_control::commands::rollout::{RolloutState, RolloutStatus};

use super::client::Client;
use super::policy::segment;
use super::print::{Format, Table, clean, count, write_json};

#[derive(Debug, clap::Subcommand)]
pub(super) enum RolloutCommand {
    /// Begin to roll a generation out over all hosts: a trial on a growing share of the dialogs, and at the end the generation is active
    ///
    /// One of the hosts moves it, and another one does if that host ends. A step ends when its time is over, every host has it, there were enough
    /// calls, and its gates hold over the sum of all hosts. A gate that fails ends the trial on all hosts at once: the generation before, which
    /// has been active all the time, decides again.
    Start(Box<StartArgs>),
    /// Show the last roll-out of each seat, or that of one seat
    Status {
        /// A tenant, or default, before or after for the operator's policies
        seat: Option<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Hold a roll-out at its step; a gate that fails still rolls it back
    Pause {
        /// A tenant, or default, before or after
        seat: String,
    },
    /// Have a paused roll-out go on
    Resume {
        /// A tenant, or default, before or after
        seat: String,
    },
    /// End a roll-out and its trial, or the alert of one that was rolled back
    Abort {
        /// A tenant, or default, before or after
        seat: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct StartArgs {
    /// A tenant, or default, before or after for the operator's policies
    seat: String,
    /// The number of the generation, as `policy push` printed it
    #[arg(long)]
    generation: u64,
    /// The steps: shadow (only as the first one) and growing shares up to 100% [default: 1%,10%,100%]
    #[arg(long)]
    steps: Option<String>,
    /// The shortest time of each step [default: 10m]
    #[arg(long, value_name = "TIME")]
    step_time: Option<String>,
    /// Most failed calls of the generation, as a part of its calls [default: 0.1%]
    #[arg(long, value_name = "SHARE")]
    max_failures: Option<String>,
    /// Most calls with another verdict than the active generation, as a part of those that are compared, or off [default: 1%]
    ///
    /// A shadow compares all calls. The other steps compare a sample of at most 20 requests a second on each host: the generation that does not decide evaluates the
    /// request beside, without effect. With off, nothing is evaluated twice.
    #[arg(long, value_name = "SHARE")]
    max_differing: Option<String>,
    /// Longest duration of a call, in the mean and at the 99th percentile, compared with the active generation, or off [default: 2x]
    #[arg(long, value_name = "FACTOR")]
    max_latency: Option<String>,
    /// Calls that each step needs [default: 100]
    #[arg(long, value_name = "CALLS")]
    min_calls: Option<u64>,
    /// The author [default: $USER]
    #[arg(long)]
    author: Option<String>,
}

impl RolloutCommand {
    pub(super) fn run(self, client: &Client, out: &mut impl Write) -> anyhow::Result<()> {
        let rollout = match self {
            Self::Start(args) => start(client, &args)?,
            Self::Status { seat, format } => return status(client, seat.as_deref(), format, out),
            Self::Pause { seat } => change(client, &seat, "pause")?,
            Self::Resume { seat } => change(client, &seat, "resume")?,
            Self::Abort { seat } => change(client, &seat, "abort")?,
        };
        write(&rollout, out)
    }
}

fn start(client: &Client, args: &StartArgs) -> anyhow::Result<RolloutStatus> {
    let user = std::env::var("USER").ok();
    let author = args.author.clone().or(user);
    let generation = args.generation.to_string();
    let min_calls = args.min_calls.map(|calls| calls.to_string());
    let optional = [
        ("steps", &args.steps),
        ("step_time", &args.step_time),
        ("max_failures", &args.max_failures),
        ("max_differing", &args.max_differing),
        ("max_latency", &args.max_latency),
        ("min_calls", &min_calls),
        ("author", &author),
    ];
    let mut query = vec![("generation", generation.as_str())];
    query.extend(
        optional
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?))),
    );
    let path = format!("/v1/rollouts/{}", segment(&args.seat)?);
    client.send("POST", &path, &query, None)
}

fn change(client: &Client, seat: &str, what: &str) -> anyhow::Result<RolloutStatus> {
    let user = std::env::var("USER").ok();
    let query: Vec<_> = user.iter().map(|user| ("author", user.as_str())).collect();
    let path = format!("/v1/rollouts/{}/{what}", segment(seat)?);
    client.send("POST", &path, &query, None)
}

fn status(
    client: &Client,
    seat: Option<&str>,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let Some(seat) = seat else {
        let all: Vec<RolloutStatus> = client.send("GET", "/v1/rollouts", &[], None)?;
        if format.json {
            return write_json(out, &all);
        }
        if all.is_empty() {
            return Ok(writeln!(out, "no seat has had a roll-out")?);
        }
        let mut table = Table::new([
            "seat",
            "generation",
            "state",
            "step",
            "calls",
            "failures",
            "note",
        ]);
        for one in all {
            let note = one.why.clone().or_else(|| one.waits.clone());
            table.push([
                one.seat.clone(),
                one.generation.to_string(),
                one.state.to_string(),
                step_of(&one),
                one.seen.calls.to_string(),
                one.seen.failures.to_string(),
                note.unwrap_or_default(),
            ]);
        }
        return Ok(table.write(out)?);
    };
    let path = format!("/v1/rollouts/{}", segment(seat)?);
    let rollout: RolloutStatus = client.send("GET", &path, &[], None)?;
    match format.json {
        true => write_json(out, &rollout),
        false => write(&rollout, out),
    }
}

fn write(rollout: &RolloutStatus, out: &mut impl Write) -> anyhow::Result<()> {
    let seen = &rollout.seen;
    writeln!(
        out,
        "{}: generation {}, {}, step {}, for {} s",
        clean(&rollout.seat),
        rollout.generation,
        rollout.state,
        step_of(rollout),
        rollout.elapsed_seconds
    )?;
    if let Some(why) = &rollout.why {
        writeln!(out, "  {}", clean(why))?;
    }
    if let Some(waits) = &rollout.waits {
        writeln!(out, "  {}", clean(waits))?;
    }
    match rollout.state {
        RolloutState::Running | RolloutState::Paused => {}
        RolloutState::Done | RolloutState::RolledBack | RolloutState::Aborted => return Ok(()),
    }
    let times = [
        ("in the mean", seen.mean_ns.zip(seen.active_mean_ns)),
        ("for 99% of them", seen.p99_ns.zip(seen.active_p99_ns)),
    ];
    let times = times.map(|(which, both)| {
        both.map_or_else(String::new, |(own, active)| {
            format!(", {own} ns a call {which} ({active} ns of the active generation)")
        })
    });
    let times = times.concat();
    writeln!(
        out,
        "  {} of {}: {}, {} failed, {} of {} compared ones differ{times}",
        seen.hosts_there,
        count(seen.hosts, "host"),
        count(seen.calls, "call"),
        seen.failures,
        seen.differing,
        seen.compared
    )?;
    Ok(())
}

/// The current step: its share, its number, and the number of all.
fn step_of(rollout: &RolloutStatus) -> String {
    let at = usize::try_from(rollout.step.saturating_sub(1)).unwrap_or(usize::MAX);
    let share = rollout.steps.get(at).map_or("", |step| step.share.as_str());
    format!("{share} ({} of {})", rollout.step, rollout.steps.len())
}
