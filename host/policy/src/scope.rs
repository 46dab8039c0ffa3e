//! The scope of a seat: what its policy may query and change, and where it may send requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use portcullis_dispatcher::{Chosen, Dispatcher, Question, Set};
use portcullis_sip::Routes;

use crate::counters::Counters;
use crate::forwarding::{MAX_TARGETS, Place, Refusal};
use crate::settings::Settings;

/// What the policies of a seat may query and change, and where they may send requests. Shared by all calls for one tenant.
///
/// A query outside the scope is a *crossing*: it finds no row of the address table and no trusted peer, and rules deny, because a
/// missing rules file would allow.
#[derive(Debug)]
pub struct Scope {
    /// The name of the tenant for logs; empty for the operator.
    pub tenant: Arc<str>,
    groups: Option<Box<[u32]>>,
    trusted: bool,
    rules: Option<Box<[Box<str>]>>,
    lines: Option<Lines>,
    /// Names of header fields that may be changed; `None` means all.
    headers: Option<Box<[Box<str>]>>,
    /// Destinations of targets; `None` means all.
    routes: Option<Arc<ArcSwap<Routes>>>,
    /// The sets of the dispatcher; `None`: there are none.
    dispatcher: Option<Arc<Dispatcher>>,
    /// Whether each destination of the dispatcher is a next hop, although `routes` may not say so: there is no host that keeps them up to date.
    has_every_member: bool,
    /// The sets that targets may be chosen from; `None` means all.
    sets: Option<Box<[u32]>>,
    /// Most targets of a request.
    targets: u8,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    crossings: AtomicU64,
}

/// A rate limit for log lines: the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug)]
struct Lines {
    begun: Instant,
    /// Nanoseconds per line.
    each: u64,
    /// The theoretical arrival time, in nanoseconds since `begun`.
    due: AtomicU64,
    dropped: AtomicU64,
}

impl Scope {
    /// The scope of the operator: everything.
    pub fn operator() -> Self {
        Self {
            tenant: "".into(),
            groups: None,
            trusted: true,
            rules: None,
            lines: None,
            headers: None,
            routes: None,
            dispatcher: None,
            has_every_member: false,
            sets: None,
            targets: MAX_TARGETS,
            counters: Arc::default(),
            settings: Arc::default(),
            crossings: AtomicU64::new(0),
        }
    }

    /// The scope of a tenant: nothing, until something is added.
    pub fn tenant(name: &str) -> Self {
        Self {
            tenant: name.into(),
            groups: Some(Box::default()),
            trusted: false,
            rules: Some(Box::default()),
            lines: None,
            headers: Some(Box::default()),
            routes: Some(Arc::default()),
            dispatcher: None,
            has_every_member: false,
            sets: Some(Box::default()),
            targets: MAX_TARGETS,
            counters: Arc::default(),
            settings: Arc::default(),
            crossings: AtomicU64::new(0),
        }
    }

    /// Adds groups of the address table to the scope.
    pub fn with_groups(self, groups: impl IntoIterator<Item = u32>) -> Self {
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        Self {
            groups: Some(groups.into()),
            ..self
        }
    }

    /// Whether the trusted peers are in the scope.
    pub fn with_trusted(self, trusted: bool) -> Self {
        Self { trusted, ..self }
    }

    /// Adds rules, named by the basename of their allow and deny files.
    pub fn with_rules<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names = names.into_iter().map(Box::from).collect();
        Self {
            rules: Some(names),
            ..self
        }
    }

    /// Adds names of header fields that may be changed in relayed requests.
    pub fn with_headers<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names = names.into_iter().map(Box::from).collect();
        Self {
            headers: Some(names),
            ..self
        }
    }

    /// Sets the routes to whose next hops and domains targets may lead.
    pub fn with_routes(self, routes: Arc<ArcSwap<Routes>>) -> Self {
        Self {
            routes: Some(routes),
            ..self
        }
    }

    /// The routes by which requests of the tenant are relayed; `None` for those of the operator.
    pub fn routes(&self) -> Option<Arc<Routes>> {
        let routes = self.routes.as_ref();
        routes.map(|routes| routes.load_full())
    }

    /// Sets the dispatcher, whose sets targets may be chosen from.
    pub fn with_dispatcher(self, dispatcher: Arc<Dispatcher>) -> Self {
        Self {
            dispatcher: Some(dispatcher),
            ..self
        }
    }

    /// The same for calls without a host: each destination of the dispatcher counts as a next hop.
    pub fn with_dispatcher_alone(self, dispatcher: Arc<Dispatcher>) -> Self {
        Self {
            has_every_member: true,
            ..self.with_dispatcher(dispatcher)
        }
    }

    /// Adds sets of the dispatcher to the scope.
    pub fn with_sets(self, sets: impl IntoIterator<Item = u32>) -> Self {
        let sets = sets.into_iter().collect();
        Self {
            sets: Some(sets),
            ..self
        }
    }

    /// Sets the most targets of a request, up to [`MAX_TARGETS`].
    pub fn with_targets(self, most: u8) -> Self {
        Self {
            targets: most.min(MAX_TARGETS),
            ..self
        }
    }

    /// Sets the settings.
    pub fn with_settings(self, settings: Arc<Settings>) -> Self {
        Self { settings, ..self }
    }

    /// The settings that policies read.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Sets the counters, which may outlive the scope.
    pub fn with_counters(self, counters: Arc<Counters>) -> Self {
        Self { counters, ..self }
    }

    /// A scope with the same permissions and settings, for calls without effect: its counters are empty and its own, and its crossings are not those
    /// of the seat.
    #[must_use]
    pub fn aside(&self) -> Self {
        Self {
            tenant: Arc::clone(&self.tenant),
            groups: self.groups.clone(),
            trusted: self.trusted,
            rules: self.rules.clone(),
            lines: None,
            headers: self.headers.clone(),
            routes: self.routes.clone(),
            dispatcher: self.dispatcher.clone(),
            has_every_member: self.has_every_member,
            sets: self.sets.clone(),
            targets: self.targets,
            counters: Arc::default(),
            settings: Arc::clone(&self.settings),
            crossings: AtomicU64::new(0),
        }
    }

    /// The counters and rate limits of policies.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Limits the log lines per second of all calls in this scope together. The burst is one second's worth.
    pub fn with_log_rate(self, per_second: u32) -> Self {
        let lines = Lines {
            begun: Instant::now(),
            each: 1_000_000_000 / u64::from(per_second.max(1)),
            due: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        // No lines at all: the first one is never due.
        if per_second == 0 {
            lines.due.store(u64::MAX / 2, Ordering::Relaxed);
        }
        Self {
            lines: Some(lines),
            ..self
        }
    }

    /// Number of log lines dropped above the rate.
    pub fn dropped_lines(&self) -> u64 {
        let lines = self.lines.as_ref();
        lines.map_or(0, |lines| lines.dropped.load(Ordering::Relaxed))
    }

    /// Number of crossings.
    pub fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }

    /// Whether some groups are outside the scope.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.groups.is_some()
    }

    /// The groups in the scope, sorted. Empty if all are ([`Scope::is_limited`]).
    pub(crate) fn groups(&self) -> &[u32] {
        self.groups.as_deref().unwrap_or_default()
    }

    /// Whether a group is in the scope. Does not count a crossing.
    #[inline]
    pub(crate) fn has_group(&self, group: u32) -> bool {
        let Some(groups) = &self.groups else {
            return true;
        };
        groups.binary_search(&group).is_ok()
    }

    /// Whether a group is in the scope. Counts a crossing if not.
    #[inline]
    pub(crate) fn admits_group(&self, group: u32) -> bool {
        self.noted(self.has_group(group))
    }

    /// Whether the trusted peers are in the scope. Counts a crossing if not.
    #[inline]
    pub(crate) fn admits_trusted(&self) -> bool {
        self.noted(self.trusted)
    }

    /// Whether the rules of this basename are in the scope. Counts a crossing if not.
    pub(crate) fn admits_rules(&self, name: &str) -> bool {
        let Some(names) = &self.rules else {
            return true;
        };
        self.noted(names.iter().any(|own| &**own == name))
    }

    /// Whether header fields of this name may be changed. Counts a crossing if not.
    pub(crate) fn admits_header(&self, name: &str) -> bool {
        let Some(names) = &self.headers else {
            return true;
        };
        self.noted(names.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }

    /// The most targets of a request.
    pub(crate) fn targets(&self) -> usize {
        self.targets.into()
    }

    /// Whether requests may be sent to this place. Counts a crossing if not. The names of other next hops are not revealed to a tenant: they
    /// are not permitted, whether they exist or not.
    pub(crate) fn admit_place(&self, place: &Place) -> Result<(), Refusal> {
        let Some(routes) = &self.routes else {
            return Ok(());
        };
        let routes = routes.load();
        let (is_admitted, refusal) = match place {
            Place::NextHop(name) if self.tenant.is_empty() => {
                (routes.has_hop(name), Refusal::Unknown)
            }
            Place::NextHop(name) => (routes.has_hop(name), Refusal::NotPermitted),
            Place::Uri(uri) => (routes.permits(uri.as_bytes()), Refusal::NotPermitted),
            Place::Member(name) => {
                let is_known = self.has_every_member || routes.has_hop(name);
                (is_known, Refusal::NotPermitted)
            }
        };
        match self.noted(is_admitted) {
            true => Ok(()),
            false => Err(refusal),
        }
    }

    /// Chooses destinations of a set of the dispatcher that requests can be sent to now and that `fits` accepts, and passes each to `each`, in
    /// their order. Counts a crossing if the set is not in the scope. A tenant does not learn which other sets exist.
    pub(crate) fn choose(
        &self,
        set: u32,
        question: impl FnOnce(&Set) -> Question,
        fits: impl Fn(&str) -> bool,
        mut each: impl FnMut(&str),
    ) -> Result<(), Refusal> {
        let is_permitted = self.sets.as_ref().is_none_or(|sets| sets.contains(&set));
        if !self.noted(is_permitted) {
            return Err(Refusal::NotPermitted);
        }
        let dispatcher = self.dispatcher.as_ref().ok_or(Refusal::Unknown)?;
        let sets = dispatcher.sets();
        let set = sets.get(set).ok_or(Refusal::Unknown)?;
        let routes = self.routes.as_ref().map(|routes| routes.load());
        // A set that has just been loaded has no routes yet.
        let has_route = |name: &str| {
            self.has_every_member || routes.as_ref().is_none_or(|routes| routes.has_hop(name))
        };
        let chosen: Chosen = set.choose(question(set), |member| {
            has_route(&member.name) && fits(&member.name)
        });
        for slot in chosen.slots() {
            each(&set.members()[slot].uri);
        }
        Ok(())
    }

    /// Takes one log line from the rate; false if the line must be dropped.
    pub(crate) fn admits_line(&self) -> bool {
        self.lines
            .as_ref()
            .is_none_or(|lines| lines.take(Instant::now()))
    }

    #[inline]
    fn noted(&self, is_within: bool) -> bool {
        if !is_within {
            self.crossings.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }
}

impl Lines {
    fn take(&self, now: Instant) -> bool {
        const SECOND: u64 = 1_000_000_000;
        let now = now.saturating_duration_since(self.begun).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX / 4);
        let next = |due: u64| {
            let due = due.max(now) + self.each;
            (due - now <= SECOND).then_some(due)
        };
        let taken = self
            .due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if taken.is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken.is_ok()
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::operator()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn log_lines_are_limited_to_the_rate() {
        let scope = Scope::tenant("acme").with_log_rate(10);
        let lines = scope.lines.as_ref().unwrap();
        let at = |milliseconds| lines.begun + Duration::from_millis(milliseconds);
        let taken =
            |milliseconds, tries| (0..tries).filter(|_| lines.take(at(milliseconds))).count();
        assert_eq!(taken(0, 30), 10);
        assert_eq!(taken(100, 30), 1);
        assert_eq!(taken(60_000, 30), 10);
        assert_eq!(scope.dropped_lines(), 20 + 29 + 20);
        let silent = Scope::tenant("acme").with_log_rate(0);
        assert!(!silent.admits_line());
        assert!(Scope::operator().admits_line());
    }
}
