//! `portcullis serve`: assembles a host, runs it, and shuts it down.

mod assembly;
mod running;
mod signals;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_config::Config;
use portcullis_control::descriptors::{self, Limit};
use portcullis_export::{Events, Exports, Listener};
use portcullis_text::one_line;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::drain::Draining;
use crate::logging;
use crate::notify::Manager;
use crate::rights;
use crate::upgrade::{End, Predecessor, Upgraded};
use assembly::Host;
use running::Running;
use signals::{SignalRequest, Signals, upgrades};

pub use signals::hold_upgrades;

/// Time limit for workers and control interfaces to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs a host until a signal ends it. `path` is the file that the configuration came from.
///
/// # Errors
/// If the log cannot be started. Later errors are logged and determine the exit code.
pub fn run(config: Config, path: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let events = Events::start(&config.events)?;
    let exports = events.as_ref().map(|events| events.stats());
    let listener = events.map(|events| (Listener::new(events), config.events.level));
    let _log = logging::start(&config.log, listener).map_err(anyhow::Error::msg)?;
    let limit = descriptors::raise().context("the limit of open files cannot be raised")?;
    // Everything except the workers: loading, compiling, HTTP. Two threads, so that one slow task does not block all others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(
        config,
        path.as_deref(),
        limit,
        exports.unwrap_or_default(),
    ));
    // A hanging worker or compilation must not keep the process alive.
    runtime.shutdown_timeout(PATIENCE);
    if let Err(error) = ended {
        tracing::error!(event = "host_failed", "{}", one_line(&error));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    config: Config,
    path: Option<&Path>,
    limit: Limit,
    exports: Exports,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // This thread lasts as long as the runtime.
    let _supported = upgrades().thread_unblock();
    let (stop, stopping) = watch::channel(false);
    let predecessor = Predecessor::of_environment()?;
    let (mut running, mut workers) = tokio::select! {
        running = begin(config, path, limit, exports, predecessor, &stopping) => running?,
        () = signals.end() => return Ok(()),
    };
    running.announce(path);
    let manager = Arc::new(Manager::of_environment());
    manager.ready();
    tokio::spawn(Arc::clone(&manager).watchdog(Arc::clone(&running.shared)));
    tokio::task::spawn_blocking(rights::tell);
    let mut draining = Draining::default();
    // The signal for a process that has taken over meanwhile.
    let mut passed_on = None;
    let ended = loop {
        tokio::select! {
            signal = signals.next_or(&running.drain_wish) => match signal {
                SignalRequest::Drain if draining.begin(&running.shared) => manager.stopping(),
                // It is meant for the process that has taken over; this one ends by itself.
                SignalRequest::Drain if draining.is_leaving() => {}
                SignalRequest::Drain | SignalRequest::End => {
                    passed_on = Some(Signal::INT);
                    break Ok(());
                }
                SignalRequest::Reload => running.reload(),
                SignalRequest::Upgrade => running.upgrade(&draining, &manager),
            },
            upgraded = running.upgrade.ended() => match upgraded {
                Ok(upgraded) => {
                    if draining.leave(&running.shared) {
                        // SIGTERM has come while the new process took over.
                        upgraded.signal(Signal::TERM);
                    }
                    running.leave(upgraded);
                }
                Err(error) => tracing::error!(
                    event = "upgrade_failed",
                    reason = %one_line(&anyhow::Error::from(error)),
                    "upgrade failed, this process goes on serving: remove the cause and send SIGUSR2 again, or restart the host"
                ),
            },
            end = successor_ended(&mut running.successor) => break after(end),
            () = draining.ended() => {
                passed_on = Some(Signal::TERM);
                break running.left();
            }
            Some(ended) = workers.join_next() => break ended.context("a worker").and_then(|worker| worker),
        }
    };
    tracing::info!(event = "ending", "Portcullis is ending");
    if running.upgrade.abandon()
        && let Ok(Ok(upgraded)) = timeout(PATIENCE, running.upgrade.ended()).await
    {
        if let Some(signal) = passed_on {
            upgraded.signal(signal);
        }
        running.leave(upgraded);
    }
    manager.stopping();
    let _nobody_listens = stop.send(true);
    running.close.send_replace(true);
    let all_ended = async { while workers.join_next().await.is_some() {} };
    if timeout(PATIENCE, all_ended).await.is_err() {
        tracing::warn!(
            event = "workers_not_ended",
            "workers did not end within {PATIENCE:?}"
        );
    }
    // Ends after the files of unix sockets and FIFO are removed.
    if timeout(PATIENCE, running.doors).await.is_err() {
        tracing::warn!(
            event = "control_not_ended",
            "control requests were not answered within {PATIENCE:?}"
        );
    }
    ended
}

/// Completes when the process that has taken over has ended. Never without one.
async fn successor_ended(successor: &mut Option<Upgraded>) -> End {
    match successor {
        Some(successor) => successor.ended().await,
        None => std::future::pending().await,
    }
}

/// The result of this process when the one that has taken over has ended before it: nobody reads the sockets any more, and a service manager that
/// restarts the host waits for both.
fn after(end: End) -> anyhow::Result<()> {
    if end == End::Exited(0) {
        tracing::info!(
            event = "successor_ended",
            %end,
            "the process that had taken over has ended, and so does this one"
        );
        return Ok(());
    }
    tracing::error!(
        event = "successor_ended",
        %end,
        "the process that had taken over ended, nobody reads the sockets: this one ends, too, so that the host is restarted"
    );
    bail!("the process that had taken over ended ({end})");
}

/// Loads everything and starts to serve, or to do so in place of a predecessor.
async fn begin(
    config: Config,
    path: Option<&Path>,
    limit: Limit,
    exports: Exports,
    predecessor: Option<Predecessor>,
    stopping: &watch::Receiver<bool>,
) -> anyhow::Result<(Running, JoinSet<anyhow::Result<()>>)> {
    let Some(predecessor) = predecessor else {
        let host = Host::assemble(config, path, limit, exports, stopping, None).await?;
        let (running, workers, open) = host.start(stopping)?;
        running.shared.pings.set_serving(true);
        open.send_replace(true);
        return Ok((running, workers));
    };
    let assembled =
        Host::assemble(config, path, limit, exports, stopping, Some(&predecessor)).await;
    let started = assembled.and_then(|mut host| {
        let inheritance = std::mem::take(&mut host.inheritance);
        Ok((inheritance, host.start(stopping)?))
    });
    let (inheritance, (running, workers, open)) = match started {
        Ok(started) => started,
        Err(error) => {
            predecessor.refuse(&error);
            return Err(error);
        }
    };
    predecessor
        .take_over(
            inheritance,
            &running.lent,
            &running.shared,
            running.upgrade.elders(),
        )
        .await?;
    running.shared.pings.set_serving(true);
    open.send_replace(true);
    // What has changed since this process read it was only told to the other one.
    running.reload();
    Ok((running, workers))
}
