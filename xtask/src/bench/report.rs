//! The results, as text and as JSON.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::calls::Longest;
use super::comparisons::{Comparison, comparisons};
use super::datagrams::Shaped;
use super::edge::Edge;
use super::figures::{Figure, Figures};
use super::lingering::Lingering;
use super::machine::Machine;
use super::memory::Attacked;
use super::million::Million;
use super::neighbours::{Check, Neighbours};
use super::plan::{Pace, STEADY, Shape};
use super::reload::Reload;
use super::set_up::SetUpBeside;
use super::targets::{Parts, Target, targets};
use super::tenants::Crowded;
use super::upgrades::Upgrades;

/// All results of a benchmark.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    machine: Machine,
    peers: Peers,
    pace: Pace,
    steady_per_second: u64,
    figures: Vec<Figure>,
    reloads: Vec<Reload>,
    neighbours: Vec<Neighbours>,
    tenants: Vec<Crowded>,
    million: Option<Million>,
    datagrams: Vec<Shaped>,
    attacks: Vec<Attacked>,
    calls: Vec<Longest>,
    lingering: Option<Lingering>,
    set_ups: Vec<SetUpBeside>,
    upgrades: Option<Upgrades>,
    edge: Edge,
    targets: Vec<Target>,
    comparisons: Vec<Comparison>,
    problems: Vec<String>,
}

/// The versions of the other programs; `None` for missing ones.
#[derive(Debug, serde::Serialize)]
pub(super) struct Peers {
    pub(super) kamailio: Option<String>,
    pub(super) mariadb: Option<String>,
}

impl Outcome {
    pub(crate) fn new(
        machine: Machine,
        peers: Peers,
        pace: Pace,
        figures: &Figures,
        parts: Parts,
        problems: Vec<String>,
    ) -> Self {
        Self {
            machine,
            peers,
            pace,
            steady_per_second: STEADY,
            figures: figures.all(),
            targets: targets(figures, &parts),
            comparisons: comparisons(figures, &parts.edge),
            reloads: parts.reloads,
            neighbours: parts.neighbours,
            tenants: parts.tenants,
            million: parts.million,
            datagrams: parts.datagrams,
            attacks: parts.attacks,
            calls: parts.calls,
            lingering: parts.lingering,
            set_ups: parts.set_ups,
            upgrades: parts.upgrades,
            edge: parts.edge,
            problems,
        }
    }

    /// Writes the JSON to this directory, with the time of the run as its name and as `latest.json`, and to `also`. Returns the files.
    pub(crate) fn write(&self, folder: &Path, also: Option<&Path>) -> Result<Vec<PathBuf>> {
        let text = serde_json::to_string_pretty(self)?;
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let mut files = vec![
            folder.join(format!("{}.json", self.machine.time)),
            folder.join("latest.json"),
        ];
        files.extend(also.map(Path::to_owned));
        for file in &files {
            fs::write(file, &text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(files)
    }

    /// Whether something could not be measured.
    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    fn conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            machine,
            peers,
            pace,
            ..
        } = self;
        let version = |peer: &Option<String>| peer.clone().unwrap_or_else(|| "(missing)".into());
        writeln!(f)?;
        writeln!(
            f,
            "Portcullis at {}, Kamailio {}, MariaDB {}",
            machine.commit,
            version(&peers.kamailio),
            version(&peers.mariadb)
        )?;
        writeln!(
            f,
            "{}, {} cores, Linux {}",
            machine.cpu, machine.cores, machine.kernel
        )?;
        writeln!(
            f,
            "Server on core {}, everything else on core {}; {} sources with {} requests under way each, or a fixed rate; {} x {} s each, medians.",
            pace.server_core,
            pace.load_core,
            pace.sources,
            pace.outstanding,
            pace.rounds,
            pace.seconds
        )?;
        writeln!(
            f,
            "Kamailio has the modules and checks of Debian's configuration, \"Kamailio bare\" only what the page needs."
        )?;
        writeln!(
            f,
            "One worker each; nothing is logged for a request (the page's xlog and log::info! are called, below the level that is shown)."
        )?;
        writeln!(
            f,
            "CPU: the scheduler's account of all processes and threads of the server; user and system are told apart by sampling."
        )?;
        if machine.is_busy() {
            writeln!(
                f,
                "NOT ALONE: {} processes wanted a core before this began, so these figures are provisional.",
                machine.load_before
            )?;
        }
        Ok(())
    }

    fn table(&self, f: &mut fmt::Formatter<'_>, shape: Shape, title: &str) -> fmt::Result {
        let figures: Vec<&Figure> = self
            .figures
            .iter()
            .filter(|figure| figure.task.shape == shape)
            .collect();
        if figures.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{title}")?;
        writeln!(
            f,
            "{:<13} {:<13} {:>8} {:>8} {:>6} {:>6} {:>12} {:>10} {:>8} {:>8} {:>8}",
            "",
            "",
            "rows",
            "CPU µs",
            "user",
            "system",
            "lowest-most",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "MiB"
        )?;
        let mut last = None;
        for figure in figures {
            let work = figure.task.work;
            let name = if last == Some(work) {
                String::new()
            } else {
                work.to_string()
            };
            last = Some(work);
            row(f, &name, figure)?;
        }
        Ok(())
    }

    fn tenants(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tenants.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n401 to tenants in random order, each with a policy of its own: CPU of a request at {STEADY} a second in small bursts, and at full load"
        )?;
        writeln!(
            f,
            "{:>8} {:>10} {:>8} {:>10} {:>8} {:>15} {:>15} {:>18} {:>18} {:>18} {:>10}",
            "tenants",
            "steady, µs",
            "to one",
            "full, µs",
            "to one",
            "first start, s",
            "next start, s",
            "KiB each, idle",
            "KiB each, used",
            "descriptors each",
            "maps each"
        )?;
        for crowded in &self.tenants {
            write!(
                f,
                "{:>8} {:>10.2} {:>7.2}x {:>10.2} {:>7.2}x {:>15.2} {:>15.2}",
                crowded.tenants,
                crowded.steady.cpu_us,
                crowded.steady.against_one,
                crowded.full.cpu_us,
                crowded.full.against_one,
                crowded.first_start_seconds,
                crowded.next_start_seconds
            )?;
            match crowded.each {
                Some(each) => writeln!(
                    f,
                    " {:>18.1} {:>18.1} {:>18.2} {:>10.1}",
                    each.idle_bytes / 1024.0,
                    each.used_bytes / 1024.0,
                    each.descriptors,
                    each.maps
                )?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }

    fn datagrams(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.datagrams.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nDatagrams of 60,000 bytes from a stranger, CPU µs each"
        )?;
        for shaped in &self.datagrams {
            writeln!(
                f,
                "  {:<32} {:>8.1} {:>7.2}x",
                shaped.shape, shaped.cpu_us, shaped.against_plain
            )?;
        }
        Ok(())
    }

    fn attacks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attacks.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nMemory under attack, MiB before and at most")?;
        for attacked in &self.attacks {
            writeln!(
                f,
                "  {:<56} {:>5} {:>6}",
                attacked.attack, attacked.before_mib, attacked.most_mib
            )?;
        }
        Ok(())
    }

    fn calls(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.calls.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\nCalls that do nothing else until their deadline of 5 ms, ms each"
        )?;
        for longest in &self.calls {
            writeln!(
                f,
                "  {:<40} {:>8.2}",
                longest.function, longest.milliseconds
            )?;
        }
        Ok(())
    }

    fn transactions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lingering) = &self.lingering {
            writeln!(
                f,
                "\nMESSAGE at {} a second: {} ended transactions take {:.0} MiB, {:.0} bytes each; {:.2} µs each, {:.2} µs with few",
                lingering.per_second,
                lingering.transactions,
                lingering.grown_bytes as f64 / f64::from(1 << 20),
                lingering.bytes_each,
                lingering.many_cpu_us,
                lingering.few_cpu_us
            )?;
        }
        for set_up in &self.set_ups {
            let [ringing, accepted] = set_up.p99_us.map(|us| us / 1000.0);
            let [quiet_ringing, quiet_accepted] = set_up.quiet_p99_us.map(|us| us / 1000.0);
            writeln!(
                f,
                "\nCalls at {} a second beside {} x {:?}: p99 {ringing:.2} ms to 180 and {accepted:.2} ms to 200, \
                 {quiet_ringing:.2} and {quiet_accepted:.2} ms alone",
                set_up.per_second, set_up.count, set_up.beside
            )?;
        }
        Ok(())
    }

    fn goals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nTargets")?;
        for target in &self.targets {
            let told = target
                .told()
                .map_or_else(|| "-".to_owned(), |told| told.to_string());
            writeln!(
                f,
                "  {:<13} {:<50} {:>8}   ({})",
                target.verdict(),
                target.what,
                told,
                target.goal()
            )?;
        }
        let missed = self
            .targets
            .iter()
            .filter(|target| target.reached() == Some(false))
            .count();
        let measured = self
            .targets
            .iter()
            .filter(|target| target.reached().is_some())
            .count();
        writeln!(
            f,
            "{} of {measured} measured targets reached.",
            measured - missed
        )?;
        for comparison in &self.comparisons {
            writeln!(f, "  {comparison}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conditions(f)?;
        self.table(f, Shape::Full, "Server's core full")?;
        for shape in Shape::EVEN {
            let rate = shape.rate().unwrap_or_default();
            self.table(f, shape, &format!("{rate} requests a second"))?;
        }
        for reload in &self.reloads {
            writeln!(
                f,
                "\n401 at {STEADY} a second beside {} reloads of {} rows from {}, {:.2} s each: p99 {:.2} ms, {:.2} ms without",
                reload.reloads,
                reload.rows,
                reload.source,
                reload.reload_seconds,
                reload.p99_us / 1000.0,
                reload.quiet_p99_us / 1000.0
            )?;
        }
        for beside in &self.neighbours {
            let held = match beside.check {
                Check::Breaker => "taken out of service as by default",
                Check::Share => {
                    "without a breaker, each with 1 ms for a call and a twentieth of the worker"
                }
            };
            writeln!(
                f,
                "\nA tenant at {} a second, and four hostile ones at as many each, {held}: p99 {:.2} ms, {:.2} ms beside four calm ones, \
                 {:.2} ms alone; {:.2} % answered",
                beside.per_second,
                beside.hostile_p99_us / 1000.0,
                beside.calm_p99_us / 1000.0,
                beside.alone_p99_us / 1000.0,
                beside.answered * 100.0
            )?;
        }
        if let Some(million) = &self.million {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            writeln!(
                f,
                "\n{} rows from MariaDB: {:.2} s; table {:.1} MiB, process {:.1} MiB",
                million.rows,
                million.load_seconds,
                mib(million.table_bytes),
                mib(million.memory_bytes)
            )?;
        }
        if let Some(upgrades) = &self.upgrades {
            writeln!(
                f,
                "\n{} upgrades of a running host beside {} MESSAGEs a second: {} of {} lost, p99 {:.2} ms, the slowest {:.1} ms",
                upgrades.upgrades,
                upgrades.per_second,
                upgrades.lost,
                upgrades.sent,
                upgrades.p99_us / 1000.0,
                upgrades.most_us / 1000.0
            )?;
        }
        self.tenants(f)?;
        self.datagrams(f)?;
        self.attacks(f)?;
        self.calls(f)?;
        self.transactions(f)?;
        write!(f, "{}", self.edge)?;
        self.goals(f)?;
        for problem in &self.problems {
            writeln!(f, "NOT MEASURED: {problem}")?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, figure: &Figure) -> fmt::Result {
    let [lowest, most] = figure.cpu_us_range;
    let rows = figure
        .rows
        .map_or_else(String::new, |rows| rows.to_string());
    let resent = match figure.resent {
        0 => String::new(),
        resent => format!("  ({resent} sent again)"),
    };
    // If the server was partly idle and the load generator was not, the generator limited the rate.
    let is_starved =
        figure.task.shape == Shape::Full && figure.generator_idle < 0.02 && figure.cores < 0.95;
    let starved = if is_starved {
        "  (generator at its limit)"
    } else {
        ""
    };
    writeln!(
        f,
        "{name:<13} {:<13} {rows:>8} {:>8.2} {:>6.2} {:>6.2} {:>12} {:>10.0} {:>8.2} {:>8.2} {:>8.1}{resent}{starved}",
        figure.server.to_string(),
        figure.cpu_us,
        figure.user_us,
        figure.system_us,
        format!("{lowest:.2}-{most:.2}"),
        figure.per_second,
        figure.p50_us / 1000.0,
        figure.p99_us / 1000.0,
        figure.memory_bytes as f64 / f64::from(1 << 20),
    )
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{reject, report};
    use super::super::plan::Server;
    use super::*;

    fn outcome(ours: f64, problems: Vec<String>) -> Outcome {
        let mut figures = Figures::default();
        figures.add(reject(Server::Portcullis), 0, report(ours));
        figures.add(reject(Server::Kamailio), 0, report(24.0));
        let peers = Peers {
            kamailio: Some("5.6.3".into()),
            mariadb: None,
        };
        let pace = Pace {
            quick: false,
            rounds: 1,
            warm_up_seconds: 0.0,
            seconds: 1.0,
            sources: 1,
            outstanding: 1,
            server_core: 1,
            load_core: 0,
            tenants: vec![1],
        };
        Outcome::new(
            Machine::new(),
            peers,
            pace,
            &figures,
            Parts::default(),
            problems,
        )
    }

    #[test]
    fn the_text_shows_which_targets_were_reached() {
        let text = outcome(5.0, Vec::new()).to_string();
        assert!(
            text.contains("aim reached   401, 3 rows: CPU against Kamailio's"),
            "{text}"
        );
        assert!(text.contains("1/4.8   (at most 1/3, aim 1/4)"), "{text}");
        assert!(text.contains("1 of 1 measured targets reached."), "{text}");
        let text = outcome(12.0, vec!["the moon".into()]).to_string();
        assert!(
            text.contains("MISSED        401, 3 rows: CPU against Kamailio's"),
            "{text}"
        );
        assert!(text.contains("0 of 1 measured targets reached."), "{text}");
        assert!(text.contains("NOT MEASURED: the moon"), "{text}");
    }

    #[test]
    fn the_json_has_what_the_table_has() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let also = folder.path().join("also.json");
        let files = outcome(12.0, Vec::new()).write(&folder.path().join("bench"), Some(&also));
        assert_eq!(files.expect("files are written").len(), 3);
        let text = fs::read(also).expect("the file is there");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
        assert_eq!(json["figures"][0]["work"], "reject");
        assert_eq!(json["figures"][0]["server"], "portcullis");
        assert_eq!(json["figures"][0]["cpu_us"], 12.0);
        assert_eq!(json["targets"][0]["value"], 0.5);
    }
}
