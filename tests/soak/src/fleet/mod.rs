//! Many hosts on one database: what they cost it, how soon a change is live on all of them, and what happens when all start, or all lose the
//! database, at the same moment.

mod databases;
mod plan;
mod report;
mod site;

use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use plan::Plan;
pub(crate) use report::Report;

use report::{Cost, Herd, Spread};
use site::{Site, Started};

/// How long the fleet is watched after the last change of a row: a table that has changed is read once more.
const AFTERMATH: Duration = Duration::from_secs(3);

/// The time within which hosts do the same thing at random moments.
const RANDOM: Duration = Duration::from_secs(1);

/// Runs the soak.
///
/// # Errors
/// If it cannot be set up, or a host does not follow a change.
pub(crate) fn run(plan: &Plan) -> Result<Report> {
    let begun = Instant::now();
    let mut site = Site::prepare(*plan)?;
    let cold = herd(&mut site, Site::start)?;
    let mut report = Report {
        servers: site.databases.count(),
        hosts: plan.hosts,
        rows: plan.rows,
        tenants: plan.tenants,
        cold,
        ..Report::default()
    };
    report.idle = idle(&site, plan.idle)?;
    report.connections = site.databases.open()?.now;
    change_rows(&mut site, plan, &mut report)?;
    change_others(&mut site, plan, &mut report)?;
    report.restart = restart(&mut site)?;
    report.memory_mib = Spread::of_numbers(site.memory_mib());
    report.warm = herd(&mut site, Site::start_again)?;
    report.memory_after_start_mib = Spread::of_numbers(site.memory_mib());
    report.seconds = begun.elapsed().as_secs();
    report.check(plan);
    Ok(report)
}

/// Starts all hosts at once.
fn herd(site: &mut Site, start: impl Fn(&mut Site) -> Result<Started>) -> Result<Herd> {
    site.databases.forget_most();
    let (before, begun) = (site.databases.work()?, Instant::now());
    let started = start(site)?;
    let seconds = begun.elapsed().as_secs_f64();
    let work = site.databases.work()? - before;
    Ok(Herd {
        ready_ms: Spread::of(started.ready),
        loaded_ms: Spread::of(started.loaded),
        most_connections: site.databases.open()?.most,
        cost: Cost::new(work, seconds),
    })
}

/// Watches the fleet while nothing changes.
fn idle(site: &Site, length: Duration) -> Result<Cost> {
    std::thread::sleep(AFTERMATH);
    let (before, begun) = (site.databases.work()?, Instant::now());
    std::thread::sleep(length);
    let work = site.databases.work()? - before;
    Ok(Cost::new(work, begun.elapsed().as_secs_f64()))
}

/// Makes changes of rows, at moments that have nothing to do with the polls of the hosts.
fn change_rows(site: &mut Site, plan: &Plan, report: &mut Report) -> Result<()> {
    let (before, begun) = (site.databases.work()?, Instant::now());
    let changes = plan.changes.div_ceil(2);
    let (mut each, mut all) = (Vec::new(), Vec::new());
    for nth in 0..changes {
        pause(nth);
        let took = site.change_row()?;
        all.extend(took.iter().max());
        each.extend(took);
    }
    std::thread::sleep(AFTERMATH);
    let work = site.databases.work()? - before;
    report.row_changes = changes;
    report.row_each_ms = Spread::of(each);
    report.row_all_ms = Spread::of(all);
    report.changing = Cost::new(work, begun.elapsed().as_secs_f64());
    Ok(())
}

/// Makes changes of policies and tenants.
fn change_others(site: &mut Site, plan: &Plan, report: &mut Report) -> Result<()> {
    let (mut pushes, mut tenants) = (Vec::new(), Vec::new());
    for nth in 0..plan.changes / 2 {
        pause(nth);
        if nth % 2 == 0 {
            pushes.extend(site.change_policy(nth / 2)?.into_iter().max());
        } else {
            tenants.extend(site.add_tenant(nth)?.into_iter().max());
        }
    }
    report.push_all_ms = Spread::of(pushes);
    report.tenant_all_ms = Spread::of(tenants);
    Ok(())
}

/// Restarts the database, or a node of it, under all hosts.
fn restart(site: &mut Site) -> Result<Herd> {
    let before = site.databases.restart()?;
    let begun = Instant::now();
    let took = site.change_row()?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Herd {
        ready_ms: Spread::of(took),
        loaded_ms: None,
        most_connections: site.databases.open()?.most,
        cost: Cost::new(site.databases.work()? - before, seconds),
    })
}

/// A pause that is another one each time, and the same in each soak.
fn pause(nth: usize) {
    std::thread::sleep(RANDOM.mul_f64((nth * 379 % 1000) as f64 / 1000.0));
}
