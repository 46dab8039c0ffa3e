//! The current sets, and how they are reloaded.

mod log_lines;
mod sharing;
mod sharing_state;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use portcullis_address::{BookOptions, FileWatch, RowError};
use portcullis_database::{
    ChangeSource, Connections, DatabaseUrl, Failure, Follower, Look, Looked, Schema, TableWatch,
};
use portcullis_sync::{Retired, SingleFlight};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::warn;

use crate::calls::{CallKey, Calls};
use crate::error::DispatcherError;
use crate::file;
use crate::member::{LastSign, Member, Parts};
use crate::pings::Pings;
use crate::remembered::Remembered;
use crate::set::Turns;
use crate::sets::Sets;
use crate::source::{NewDestination, Source};
use crate::state::{Sign, State, Thresholds};
use log_lines::{LoggedSets, log_load, log_unknown_sockets};
use sharing_state::Sharing;

/// Interval between two looks for calls whose time is over.
const EXPIRE: Duration = Duration::from_secs(30);

/// Interval between two looks for destinations that have rested, and for changes of state.
const TEND: Duration = Duration::from_secs(1);

/// How destinations are judged, and how calls are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// When a state changes.
    pub thresholds: Thresholds,
    /// Whether what happens to requests changes the states.
    pub is_passive: bool,
    /// For how long an inactive destination that is not pinged gets no request before it is tried again, in whole seconds.
    pub rest: Duration,
    /// For how long a destination gets no request at most because it has asked for that (Retry-After), in whole seconds. Zero: it is not heard.
    pub longest_pause: Duration,
    /// How destinations are pinged.
    pub pings: Pings,
    /// Most calls that are counted.
    pub calls: usize,
    /// After what time a call counts as ended.
    pub longest_call: Duration,
}

/// Holds the current sets, and replaces them as a whole.
pub struct Dispatcher {
    shared: Arc<Shared>,
    options: BookOptions,
}

/// Whether the host has a socket with this address.
type HasSocket = Box<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// What a load needs.
struct Shared {
    source: Source,
    rules: Rules,
    current: ArcSwap<Sets>,
    /// Sets that a worker may still have. They are freed on the control side.
    retired: Retired<Sets>,
    calls: Calls,
    /// What is sent to other hosts of a fleet about calls; empty if nothing is.
    sharing: OnceLock<Sharing>,
    /// Whether pings are sent, if any are configured: not for 0.
    ping_active: AtomicI32,
    /// Whether the host has a socket with an address, as soon as that is known.
    has_socket: OnceLock<HasSocket>,
    status: Mutex<Status>,
    flights: SingleFlight<Keeper, Result<Arc<Sets>, DispatcherError>>,
    /// The generation that is current.
    generations: watch::Sender<u64>,
}

/// State of the dispatcher.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// Number of failed loads.
    pub failures: u64,
    /// The last failure, if the last load failed.
    pub last_error: Option<DispatcherError>,
    /// Whether the database has no such table.
    pub is_absent: bool,
    /// How changes are detected; `None` before the first check, and for a file.
    pub changes_seen_by: Option<ChangeSource>,
    /// Sets without a destination that gets requests, and since when.
    pub down: BTreeMap<u32, SystemTime>,
}

/// State that is kept between two loads.
struct Keeper {
    watch: TableWatch,
    /// When the last load ended, and how long it took.
    ended: Option<(Instant, Duration)>,
    /// Since when the table has been empty while there are sets.
    emptied: Option<Instant>,
}

/// Which destinations a change of state concerns.
#[derive(Clone, Copy, Debug)]
pub enum StateTarget<'w> {
    /// All of the set.
    All,
    /// Those with this URI.
    Uri(&'w str),
    /// Those with this `duid`.
    Duid(&'w str),
}

impl Dispatcher {
    /// A dispatcher without sets, generation 0. Nothing is loaded yet.
    pub fn new(source: Source, rules: Rules, options: BookOptions) -> Self {
        let watch = TableWatch::new(source.connections().clone(), source.table().clone());
        let keeper = Keeper {
            watch,
            ended: None,
            emptied: None,
        };
        let shared = Shared {
            current: ArcSwap::default(),
            retired: Retired::default(),
            calls: Calls::new(rules.calls),
            sharing: OnceLock::new(),
            ping_active: AtomicI32::new(1),
            has_socket: OnceLock::new(),
            status: Mutex::default(),
            flights: SingleFlight::new(keeper),
            generations: watch::Sender::new(0),
            source,
            rules,
        };
        Self {
            shared: Arc::new(shared),
            options,
        }
    }

    /// A dispatcher with the rows of a list in the format of [`Source::with_file`], for policy calls without a host. It never loads anything, and
    /// the same choices have the same results each time.
    ///
    /// # Errors
    /// The first invalid row.
    pub fn of_list(list: &str) -> Result<Self, RowError> {
        let mut rows = file::read(list, Path::new("list"));
        if !rows.errors.is_empty() {
            return Err(rows.errors.swap_remove(0));
        }
        let nowhere = DatabaseUrl::Sqlite(PathBuf::new());
        let source = Source::new(Connections::new(nowhere), Schema::default());
        let rules = Rules {
            thresholds: Thresholds {
                down_after: 1,
                up_after: 1,
            },
            is_passive: false,
            rest: Duration::ZERO,
            longest_pause: Duration::ZERO,
            pings: Pings::default(),
            calls: 0,
            longest_call: Duration::ZERO,
        };
        let dispatcher = Self::new(source, rules, BookOptions::default());
        let before = Sets::default();
        let sets = Sets::with_turns(rows, &before, Duration::ZERO, || Turns::of(0));
        dispatcher.shared.publish(Arc::new(sets));
        Ok(dispatcher)
    }

    /// Where the sets come from.
    pub fn source(&self) -> &Source {
        &self.shared.source
    }

    /// How destinations are judged.
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The current sets, for the control side.
    pub fn current(&self) -> Arc<Sets> {
        self.shared.current.load_full()
    }

    /// The current sets, for the path of a message: no lock.
    #[inline]
    pub fn sets(&self) -> Guard<Arc<Sets>> {
        self.shared.current.load()
    }

    /// State of the dispatcher.
    pub fn status(&self) -> Status {
        self.shared.status.lock().clone()
    }

    /// The calls that are counted.
    pub fn calls(&self) -> &Calls {
        &self.shared.calls
    }

    /// Receives the number of each new generation of the sets.
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.shared.generations.subscribe()
    }

    /// Loads the sets again and publishes them. Only one load runs at a time; callers that arrive meanwhile wait for the next one and share
    /// its result.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the sets cannot be loaded; the previous ones stay.
    pub async fn reload(&self) -> Result<Arc<Sets>, DispatcherError> {
        let ticket = self.shared.flights.ask();
        let shared = Arc::clone(&self.shared);
        let reload = tokio::spawn(async move { shared.reload(ticket).await });
        let ended = |error: tokio::task::JoinError| DispatcherError::Ended(error.to_string());
        reload.await.map_err(ended)?
    }

    /// Checks the source for changes and loads it, lets inactive destinations be tried again, and ends calls whose time is over, forever.
    pub async fn watch(&self) {
        let file = self.shared.source.file();
        tokio::join!(
            async {
                match file {
                    Some(path) => self.watch_file(FileWatch::patient(path)).await,
                    None => self.watch_table().await,
                }
            },
            self.expire_calls(),
            self.tend(),
        );
    }

    /// Sets the state of destinations (Kamailio: `ds_reinit_state`). Returns how many have it now.
    pub fn set_state(&self, set: u32, target: StateTarget<'_>, state: State) -> usize {
        let sets = self.current();
        let members = sets.get(set).map_or(&[][..], |set| set.members());
        let concerned = members.iter().filter(|member| match target {
            StateTarget::All => true,
            StateTarget::Uri(uri) => &*member.uri == uri,
            StateTarget::Duid(duid) => &*member.attrs.duid == duid,
        });
        concerned
            .inspect(|member| member.runtime.set_state(state))
            .count()
    }

    /// Notes what has happened to a request that was sent to a destination, unless that is configured to have no effect. Without a lock.
    pub fn note(&self, name: &str, sign: Sign, code: Option<u16>) {
        if !self.shared.rules.is_passive {
            return;
        }
        let sets = self.sets();
        for member in sets.members_named(name) {
            self.judge(member, sign, code);
        }
    }

    /// Notes that a destination has answered 503 with this Retry-After in seconds (RFC 3261 §21.5.4): it gets no requests for that time, which
    /// [`Rules::longest_pause`] limits, whatever pings say. Then it is tried. Without a lock.
    pub fn pause(&self, name: &str, retry_after: u32) {
        let rules = &self.shared.rules;
        let seconds = u64::from(retry_after).min(rules.longest_pause.as_secs());
        if !rules.is_passive || seconds == 0 {
            return;
        }
        let until = now() + seconds;
        for member in self.sets().members_named(name) {
            member.runtime.pause(until);
        }
    }

    /// Says which sockets the host has, so that the log can name rows with others. The first call counts.
    pub fn know_sockets(&self, has_socket: impl Fn(SocketAddr) -> bool + Send + Sync + 'static) {
        let _known_before = self.shared.has_socket.set(Box::new(has_socket));
    }

    /// Whether pings are sent, if any are configured (Kamailio: `dispatcher.ping_active`).
    pub fn is_pinging(&self) -> bool {
        self.ping_active() != 0
    }

    /// The number that says whether pings are sent, as Kamailio keeps it: not for 0.
    pub fn ping_active(&self) -> i32 {
        self.shared.ping_active.load(Ordering::Relaxed)
    }

    /// Sets that number. Returns the one before.
    pub fn set_ping_active(&self, active: i32) -> i32 {
        self.shared.ping_active.swap(active, Ordering::Relaxed)
    }

    /// Whether a destination is pinged in its present state.
    pub fn pings(&self, member: &Member) -> bool {
        let pings = &self.shared.rules.pings;
        self.is_pinging() && pings.include(member.flags, member.runtime.state())
    }

    /// Notes what has become of a ping: the status code of the answer and how long it took, and why it is no success. Without effect on the state if
    /// pings have been switched off, or the destination is gone or another one, since it was sent.
    pub fn note_ping(
        &self,
        member: &Member,
        answer: Option<(u16, Duration)>,
        complaint: Option<Box<str>>,
    ) {
        let sets = self.current();
        let mut known = sets.members_named(&member.name);
        if !known.any(|known| Arc::ptr_eq(&known.runtime, &member.runtime)) {
            return;
        }
        let sign = match complaint {
            None => Sign::Success,
            Some(_) => Sign::Failure,
        };
        let (code, took) = answer.unzip();
        for known in sets.members_named(&member.name) {
            if self.pings(known) {
                known.runtime.note_ping(took, complaint.clone());
                self.judge(known, sign, code);
            }
        }
    }

    /// The states of all destinations, for another process with the same sets.
    pub fn remembered(&self) -> Vec<Remembered> {
        self.current().members().map(Remembered::of).collect()
    }

    /// Takes the states of the same destinations in another process, unless the flags of their rows have changed since.
    pub fn remember(&self, states: &[Remembered]) {
        let sets = self.current();
        let states = states.iter().map(|state| (state.identity(), state));
        let states: HashMap<_, _> = states.collect();
        for member in sets.members() {
            if let Some(state) = states.get(&member.identity()) {
                state.restore(member);
            }
        }
    }

    /// Counts a call that a destination has accepted.
    pub fn begin_call(&self, name: &str, call: CallKey) {
        let until = now() + self.shared.rules.longest_call.as_secs();
        if let Some(member) = self.sets().member(name) {
            self.calls().begin(call, member, until);
        }
    }

    /// Whether a call may be counted, by this host or by another one: otherwise [`Dispatcher::end_call`] has no effect.
    #[inline]
    pub fn has_calls(&self) -> bool {
        self.calls().counted() > 0 || self.has_calls_of_others()
    }

    /// Ends a call, if it is counted: by this host, or by the one of the fleet that has counted it.
    pub fn end_call(&self, call_id: &[u8]) {
        let call = self.calls().key(call_id);
        if !self.calls().end(call, &self.sets()) {
            self.tell_end(call);
        }
    }

    /// Adds a destination until the next load, which drops it unless its row is there (Kamailio: `dispatcher.add`).
    ///
    /// # Errors
    /// If a load would skip such a row.
    pub async fn add_until_reload(&self, row: &NewDestination) -> Result<(), RowError> {
        let (parts, _) = row.as_row().parts()?;
        self.amend(|rows| rows.push(parts)).await;
        Ok(())
    }

    /// Removes destinations of a set and a URI until the next load (Kamailio: `dispatcher.remove`).
    pub async fn remove_until_reload(&self, set: u32, uri: &str) {
        self.amend(|rows| rows.retain(|row| row.set != set || &*row.uri != uri))
            .await;
    }

    /// Publishes the current sets with other rows.
    async fn amend(&self, change: impl FnOnce(&mut Vec<Parts>)) {
        let _turn = self.shared.flights.take().await;
        let current = self.current();
        let mut rows = current.to_rows();
        change(&mut rows.rows);
        let sets = Sets::new(rows, &current, current.took);
        self.shared.publish(Arc::new(sets));
    }

    /// Changes the state of a destination by a sign.
    fn judge(&self, member: &Member, sign: Sign, code: Option<u16>) {
        let Rules {
            thresholds, pings, ..
        } = &self.shared.rules;
        let is_pinged = self.is_pinging() && pings.may_include(member.flags);
        let pinged = is_pinged.then_some(pings.which);
        let runtime = &member.runtime;
        let _logged_soon = runtime.note(sign, code, now(), *thresholds, pinged);
    }

    async fn watch_table(&self) {
        let connections = self.shared.source.connections().clone();
        let mut follower = Follower::of_table(connections, self.options.poll);
        loop {
            let looked = follower.next().await;
            let (shared, options) = (Arc::clone(&self.shared), self.options);
            let follow = async move { shared.follow(options, looked.as_deref()).await };
            let followed = tokio::spawn(follow).await;
            follower.done(followed.ok().and_then(Result::ok));
            self.shared.collect();
        }
    }

    async fn watch_file(&self, mut file: FileWatch) {
        loop {
            file.changed().await;
            // An error is in the log and in the status.
            let _logged = self.reload().await;
            self.shared.collect();
        }
    }

    async fn expire_calls(&self) {
        loop {
            sleep(EXPIRE).await;
            self.calls().expire(now(), &self.current());
        }
    }

    /// Lets inactive destinations be tried again after their rest, and logs changes.
    async fn tend(&self) {
        let mut logged = LoggedSets::default();
        loop {
            sleep(TEND).await;
            self.wake_rested_at(now());
            let sets = self.current();
            logged.log_changes(&sets);
            if let Some(has_socket) = self.shared.has_socket.get() {
                log_unknown_sockets(&sets, has_socket);
            }
            self.shared.status.lock().down.clone_from(logged.down());
        }
    }

    /// An inactive destination is tried again after the time for which it has asked for no requests, and one that is not pinged after its rest: one
    /// more failure makes it inactive again.
    fn wake_rested_at(&self, now: u64) {
        let rules = &self.shared.rules;
        if !rules.is_passive {
            return;
        }
        for member in self.current().members() {
            let runtime = &member.runtime;
            let rested = |last: LastSign| last.at + rules.rest.as_secs() < now;
            let is_rested = || !self.pings(member) && runtime.last().is_some_and(rested);
            let is_paused = runtime.paused_until().is_some();
            if runtime.end_pause(now) || (!is_paused && is_rested()) {
                let _logged_soon = runtime.try_again(rules.thresholds);
            }
        }
    }
}

impl Shared {
    async fn reload(&self, ticket: u64) -> Result<Arc<Sets>, DispatcherError> {
        let load = async |keeper: &mut Keeper| {
            // Later changes are found by the next check.
            if self.source.file().is_none() {
                match keeper.watch.look().await {
                    Ok(_) | Err(Failure::NoTable { .. } | Failure::NoFile { .. }) => {}
                    Err(failure) => return Err(self.failed(failure.into())),
                }
            }
            self.load(keeper, None).await
        };
        self.flights.answer(ticket, load).await
    }

    /// Loads the table if it has changed, as this look at the database says, or one that is made now; returns how long that took.
    async fn follow(
        &self,
        options: BookOptions,
        looked: Option<&Looked>,
    ) -> Result<Duration, DispatcherError> {
        let mut flight = self.flights.take().await;
        let keeper = &mut flight.state;
        let look = match looked {
            Some(looked) => keeper.watch.compare(looked),
            None => keeper.watch.look().await,
        };
        let look = match look {
            Ok(look) => look,
            Err(Failure::NoTable { .. } | Failure::NoFile { .. }) => Look::Unknown,
            Err(failure) => return Err(self.failed(failure.into())),
        };
        self.status.lock().changes_seen_by = keeper.watch.source().cloned();
        let is_due = match look {
            Look::Changed => true,
            Look::Same => false,
            Look::Unknown | Look::Quiet => keeper.is_due(look, options),
        };
        if !is_due {
            return Ok(Duration::ZERO);
        }
        let begun = Instant::now();
        self.load(keeper, Some(options.settle)).await?;
        Ok(begun.elapsed())
    }

    /// `settle` is the time for which a table that has become empty must stay so; `None` for a requested load.
    async fn load(
        &self,
        keeper: &mut Keeper,
        settle: Option<Duration>,
    ) -> Result<Arc<Sets>, DispatcherError> {
        let begun = Instant::now();
        let loaded = match self.source.load().await {
            Ok(loaded) => loaded,
            Err(error) => {
                keeper.watch.forget();
                return Err(self.failed(error));
            }
        };
        let took = begun.elapsed();
        keeper.ended = Some((Instant::now(), took));
        let current = self.current.load_full();
        let is_absent = loaded.is_none();
        let was_absent = {
            let mut status = self.status.lock();
            status.last_error = None;
            std::mem::replace(&mut status.is_absent, is_absent)
        };
        let rows = loaded.unwrap_or_default();
        let is_emptied = rows.rows.is_empty() && !current.is_empty();
        if is_emptied && let Some(settle) = settle {
            let is_first = keeper.emptied.is_none();
            let since = *keeper.emptied.get_or_insert_with(Instant::now);
            if since.elapsed() < settle {
                keeper.watch.forget();
                if is_first {
                    warn!(
                        event = "table_emptied",
                        table = "dispatcher",
                        "table has become empty: its previous rows stay in use until it has been empty for {settle:?}, or until a reload is requested"
                    );
                }
                return Ok(current);
            }
        }
        keeper.emptied = None;
        if is_absent && was_absent && current.generation > 0 {
            return Ok(current);
        }
        let sets = Arc::new(Sets::new(rows, &current, took));
        log_load(&sets, is_absent);
        self.publish(Arc::clone(&sets));
        Ok(sets)
    }

    fn publish(&self, sets: Arc<Sets>) {
        let generation = sets.generation;
        self.retired.add(self.current.swap(sets));
        self.collect();
        self.generations.send_replace(generation);
    }

    /// Counts a failure. Logs it once, and not again while it repeats.
    fn failed(&self, error: DispatcherError) -> DispatcherError {
        let mut status = self.status.lock();
        status.failures += 1;
        if status.last_error.as_ref() != Some(&error) {
            status.last_error = Some(error.clone());
            drop(status);
            warn!(
                event = "dispatcher_not_loaded",
                %error,
                "sets of the dispatcher not loaded, the previous ones stay"
            );
        }
        error
    }

    /// Frees the old sets that no worker uses any more.
    fn collect(&self) {
        drop(self.retired.take_unused());
    }
}

impl Keeper {
    fn is_due(&self, look: Look, options: BookOptions) -> bool {
        self.ended
            .is_none_or(|(ended, took)| ended.elapsed() >= options.trust(look, took))
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("source", &self.shared.source)
            .field("generation", &self.shared.current.load().generation)
            .finish_non_exhaustive()
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
