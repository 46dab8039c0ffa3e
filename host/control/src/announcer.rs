//! Announces this host to the others on its database, looks at them, and carries out what an operator asks of it through another host.
//!
//! An idle host writes its row every two seconds, without its state; a host with news writes once in each `interval`. Each host writes its own
//! row only.

mod load;
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portcullis_fleet::directory::{
    Announcement, Answer, DirectoryError, HostState, Stage, Wish, WishKind,
};
use portcullis_text::rfc3339;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::Control;
use crate::fleet::TwinChange;
use load::Meter;
use state::state_of;

/// An announcement is due after this time, even if there is nothing new.
const HEARTBEAT: Duration = Duration::from_millis(1_500);

/// The shortest pause between two announcements.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// How long an announcement waits until every worker uses what it says. It says what was true before if a policy takes longer.
const UNTIL_LIVE: Duration = Duration::from_millis(500);

/// The pause after an announcement that failed because of what somebody has to change in the database.
const LASTING_PAUSE: Duration = Duration::from_secs(30);

/// The pause after another failed one; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Clocks are compared if an announcement takes less than this: the database says its time somewhere in between.
const PROMPT: Duration = Duration::from_secs(1);

/// Interval between two looks at the rows of all hosts: this, and a little more for each of them.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_FOR_EACH: Duration = Duration::from_millis(100);

/// Longest interval between two deletions of old rows.
const PRUNED: Duration = Duration::from_hours(1);

/// Announces the host until `stopping` becomes true, and says then that the host has ended.
pub(super) async fn run(control: Arc<Control>, mut stopping: watch::Receiver<bool>) {
    if !control.fleet.is_announced() {
        return;
    }
    let announce = async {
        let mut announcer = Announcer::new(&control);
        // Hosts that start at the same time do not write at the same time.
        sleep(announcer.interval.mul_f64(fastrand::f64())).await;
        let mut changed = control.registry.deployments().changed();
        loop {
            changed.mark_unchanged();
            let pause = announcer.turn().await;
            sleep(SHORTEST_PAUSE).await;
            tokio::select! {
                () = sleep(pause.mul_f64(0.8 + fastrand::f64() / 5.0)) => {}
                // Whoever has changed a seat waits for this host.
                Ok(()) = changed.changed(), if announcer.written.is_some() => {}
            }
        }
    };
    tokio::select! {
        never = announce => never,
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    // A process that another one has replaced does not say that the host has ended.
    if control.shared.pings.is_serving() {
        leave(&control).await;
    }
}

/// Says that the host has ended.
async fn leave(control: &Control) {
    let fleet = &control.fleet;
    if fleet.seen().announced == 0 {
        return;
    }
    let state = HostState {
        stage: Stage::Ended,
        ..state_of(control, portcullis_fleet::directory::Load::default())
    };
    let text = text_of(&state);
    let left = fleet
        .directory()
        .leave(fleet.name(), fleet.instance(), &text)
        .await;
    tracing::debug!(
        event = "fleet_left",
        ?left,
        "the table of hosts says that this host has ended"
    );
}

/// What has been announced.
struct Announcer<'c> {
    control: &'c Control,
    interval: Duration,
    address: String,
    meter: Meter,
    /// The last state that was written, and when; `None` if the row may be missing.
    written: Option<(HostState, Instant)>,
    /// Whether this process has written the row before.
    is_known: bool,
    pause: Duration,
    /// Whether the wish to drain has been passed on.
    is_draining: bool,
    looks_at: Instant,
    prunes_at: Instant,
}

impl<'c> Announcer<'c> {
    fn new(control: &'c Control) -> Self {
        let now = Instant::now();
        Self {
            control,
            interval: control.shared.config.fleet.interval,
            address: address_of(control),
            meter: Meter::default(),
            written: None,
            is_known: false,
            pause: FIRST_PAUSE,
            is_draining: false,
            looks_at: now,
            prunes_at: now + PRUNED.mul_f64(fastrand::f64()),
        }
    }

    /// Announces the host if that is due. Returns the pause until the next turn.
    async fn turn(&mut self) -> Duration {
        let load = self.meter.read(self.control);
        let mut state = state_of(self.control, load);
        if !self.is_due(&state) {
            return self.interval;
        }
        if self.has_new_seats(&state) && !self.control.shared.live_on_all_workers(UNTIL_LIVE).await
        {
            let written = self.written.as_ref();
            state.seats = written.map_or_else(BTreeMap::new, |(written, _)| written.seats.clone());
        }
        let announced = self.announce(state).await;
        let pause = self.note(announced);
        if self.written.is_some() {
            self.look().await;
            self.prune().await;
        }
        pause
    }

    fn is_due(&self, state: &HostState) -> bool {
        let Some((written, at)) = &self.written else {
            return true;
        };
        at.elapsed() >= HEARTBEAT || written.essence() != state.essence()
    }

    /// Whether the state says of a seat what was not written yet.
    fn has_new_seats(&self, state: &HostState) -> bool {
        let written = self.written.as_ref();
        written.is_none_or(|(written, _)| written.essence().seats != state.essence().seats)
    }

    async fn announce(&mut self, state: HostState) -> Result<Answer, DirectoryError> {
        let fleet = &self.control.fleet;
        let before = self.written.take();
        let is_changed = before.is_none_or(|(written, _)| written != state);
        let announcement = Announcement {
            host: fleet.name(),
            instance: fleet.instance(),
            address: &self.address,
            version: env!("CARGO_PKG_VERSION"),
            state: &text_of(&state),
            is_changed,
        };
        let (asked, begun) = (SystemTime::now(), Instant::now());
        let answer = fleet.directory().announce(&announcement, self.is_known);
        let answer = answer.await?;
        self.written = Some((state, Instant::now()));
        self.is_known = true;
        let is_exact = answer.now != 0 && begun.elapsed() < PROMPT;
        if let Some(now) = milliseconds_of(asked).filter(|_| is_exact) {
            self.note_clock(now - answer.now);
        }
        Ok(answer)
    }

    /// Notes the result of an announcement. Returns the pause until the next one.
    fn note(&mut self, announced: Result<Answer, DirectoryError>) -> Duration {
        let fleet = &self.control.fleet;
        match announced {
            Ok(answer) => {
                self.pause = FIRST_PAUSE;
                let mut seen = fleet.seen();
                seen.announced += 1;
                let is_first = seen.announced == 1;
                let was_failing = seen.error.take().is_some();
                let change = seen.twins.note(answer.twin, answer.now, Instant::now());
                drop(seen);
                if is_first || was_failing {
                    tracing::info!(
                        event = "fleet_announced",
                        host = fleet.name(),
                        "the host announces itself to the others on the database"
                    );
                }
                tell_twin(change, fleet.name(), &self.address);
                self.carry_out(answer.wish);
                self.interval
            }
            Err(error) => {
                let is_lasting = error.is_lasting();
                let mut seen = fleet.seen();
                seen.failed += 1;
                let before = seen.error.replace(error.clone());
                drop(seen);
                if is_lasting && before.as_ref() != Some(&error) {
                    tracing::info!(
                        event = "fleet_not_announced",
                        host = fleet.name(),
                        %error,
                        "the host does not announce itself to the others on the database"
                    );
                }
                if is_lasting {
                    return LASTING_PAUSE;
                }
                let pause = self.pause;
                self.pause = (pause * 2).min(LONGEST_PAUSE);
                pause
            }
        }
    }

    /// Carries out what an operator asks of this host through another one.
    fn carry_out(&mut self, wish: Option<Wish>) {
        let Some(wish) = wish else {
            return;
        };
        match wish.kind {
            WishKind::Drain if self.is_draining => {}
            WishKind::Drain if !self.control.shared.config.fleet.remote_drain => {
                // Said once: `fleet.drain` refuses such a wish, so that somebody has written it by other means.
                self.is_draining = true;
                tracing::warn!(
                    event = "fleet_drain_refused",
                    by = wish.by,
                    "the table of hosts asks this host to drain, and `remote-drain` in [fleet] is false: it goes on serving"
                );
            }
            WishKind::Drain => {
                self.is_draining = true;
                tracing::info!(
                    event = "fleet_drain",
                    by = wish.by,
                    "an operator asks this host to drain, through the table of hosts"
                );
                self.control.fleet.drain().notify_one();
            }
        }
    }

    fn note_clock(&self, ahead_ms: i64) {
        let mut seen = self.control.fleet.seen();
        let was_wrong = seen.has_wrong_clock();
        seen.clock_ahead_ms = ahead_ms;
        let is_wrong = seen.has_wrong_clock();
        drop(seen);
        let seconds = ahead_ms / 1_000;
        match (was_wrong, is_wrong) {
            (false, true) => tracing::warn!(
                event = "clock_differs",
                seconds,
                "the clock of this host is ahead of the database's, or behind it: seals, certificates and times in the log depend on it; check its time service"
            ),
            (true, false) => tracing::info!(
                event = "clock_right",
                "the clocks of this host and of the database agree again"
            ),
            (true, true) | (false, false) => {}
        }
    }

    /// Looks at the rows of all hosts, for metrics and alerts.
    async fn look(&mut self) {
        if Instant::now() < self.looks_at {
            return;
        }
        let hosts = match self.control.fleet.directory().hosts().await {
            Ok(rows) => {
                self.control.fleet.seen().note_hosts(&rows);
                u32::try_from(rows.len()).unwrap_or(u32::MAX)
            }
            // The next announcement contains the change.
            Err(_) => 0,
        };
        self.looks_at = Instant::now() + LOOK + LOOK_FOR_EACH.saturating_mul(hosts);
    }

    async fn prune(&mut self) {
        if Instant::now() < self.prunes_at {
            return;
        }
        self.prunes_at = Instant::now() + PRUNED.mul_f64(0.5 + fastrand::f64() / 2.0);
        let removed = self.control.fleet.directory().remove_old().await;
        tracing::debug!(
            event = "fleet_pruned",
            ?removed,
            "old rows of hosts removed"
        );
    }
}

fn tell_twin(change: Option<TwinChange>, name: &str, own: &str) {
    match change {
        Some(TwinChange::Appeared(twin)) => {
            let since = UNIX_EPOCH + Duration::from_millis(twin.since.unsigned_abs());
            tracing::warn!(
                event = "host_name_twice",
                host = name,
                other = twin.address,
                since = rfc3339(since),
                "two processes announce themselves under the name {name}, at {own} and at {}: both serve, and `portcullis fleet status` shows one of them; set `name` in [fleet] of one of them",
                twin.address
            );
        }
        Some(TwinChange::Vanished) => tracing::info!(
            event = "host_name_once",
            host = name,
            "no other process announces itself under the name {name} any more"
        ),
        None => {}
    }
}

/// The first listen address: one that says more than "all" has precedence.
fn address_of(control: &Control) -> String {
    let listen = &control.shared.listen;
    let specific = listen
        .iter()
        .find(|bound| !bound.addr.ip().is_unspecified());
    let bound = specific.or_else(|| listen.first());
    bound.map(ToString::to_string).unwrap_or_default()
}

fn text_of(state: &HostState) -> String {
    serde_json::to_string(state).unwrap_or_default()
}

fn milliseconds_of(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}
