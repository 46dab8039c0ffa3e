//! On whose behalf a policy is asked, and what it may therefore ask about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::counters::Counters;
use crate::settings::Settings;

/// What a policy may ask about. Immutable, and shared by all calls on behalf of one tenant.
///
/// A question beyond it is answered as if nothing were there: no row of the address table, no trusted peer. Rules deny then, because
/// rules that are not there would allow.
#[derive(Debug)]
pub struct Scope {
    /// The tenant's name for the log; empty for the operator.
    pub tenant: Arc<str>,
    groups: Option<Box<[u32]>>,
    trusted: bool,
    rules: Option<Box<[Box<str>]>>,
    lines: Option<Lines>,
    /// Names of header fields that may be changed; none for all.
    headers: Option<Box<[Box<str>]>>,
    counters: Arc<Counters>,
    settings: Arc<Settings>,
    crossings: AtomicU64,
}

/// Lines that may be logged, by the generic cell rate algorithm (ITU-T I.371).
#[derive(Debug)]
struct Lines {
    begun: Instant,
    /// Nanoseconds that a line takes.
    each: u64,
    /// When all lines so far would be due, in nanoseconds since `begun`.
    due: AtomicU64,
    dropped: AtomicU64,
}

impl Scope {
    /// That of the operator, who may ask about everything.
    pub fn operator() -> Self {
        Self {
            tenant: "".into(),
            groups: None,
            trusted: true,
            rules: None,
            lines: None,
            headers: None,
            counters: Arc::default(),
            settings: Arc::default(),
            crossings: AtomicU64::new(0),
        }
    }

    /// That of a tenant, who may ask about nothing but what is added.
    pub fn tenant(name: &str) -> Self {
        Self {
            tenant: name.into(),
            groups: Some(Box::default()),
            trusted: false,
            rules: Some(Box::default()),
            lines: None,
            headers: Some(Box::default()),
            counters: Arc::default(),
            settings: Arc::default(),
            crossings: AtomicU64::new(0),
        }
    }

    /// Adds groups of the address table.
    pub fn with_groups(self, groups: impl IntoIterator<Item = u32>) -> Self {
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        Self {
            groups: Some(groups.into()),
            ..self
        }
    }

    /// Adds the trusted peers, or leaves them out.
    pub fn with_trusted(self, trusted: bool) -> Self {
        Self { trusted, ..self }
    }

    /// Adds pairs of allow and deny files.
    pub fn with_rules<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names = names.into_iter().map(Box::from).collect();
        Self {
            rules: Some(names),
            ..self
        }
    }

    /// Adds names of header fields that may be changed in requests that are relayed.
    pub fn with_headers<'n>(self, names: impl IntoIterator<Item = &'n str>) -> Self {
        let names = names.into_iter().map(Box::from).collect();
        Self {
            headers: Some(names),
            ..self
        }
    }

    /// Gives it these settings to read.
    pub fn with_settings(self, settings: Arc<Settings>) -> Self {
        Self { settings, ..self }
    }

    /// What its policies read as their settings.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Gives it these counters, which may outlast it.
    pub fn with_counters(self, counters: Arc<Counters>) -> Self {
        Self { counters, ..self }
    }

    /// What its policies count.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Bounds the lines that all its calls together may log in a second. As many may come at once.
    pub fn with_log_rate(self, per_second: u32) -> Self {
        let lines = Lines {
            begun: Instant::now(),
            each: 1_000_000_000 / u64::from(per_second.max(1)),
            due: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        };
        // None at all: as if the first one were never due.
        if per_second == 0 {
            lines.due.store(u64::MAX / 2, Ordering::Relaxed);
        }
        Self {
            lines: Some(lines),
            ..self
        }
    }

    /// Lines beyond that rate so far.
    pub fn dropped_lines(&self) -> u64 {
        let lines = self.lines.as_ref();
        lines.map_or(0, |lines| lines.dropped.load(Ordering::Relaxed))
    }

    /// Questions beyond it so far.
    pub fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }

    /// Whether there is a group that is beyond it.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.groups.is_some()
    }

    /// The groups within it, sorted, if not all are.
    pub(crate) fn groups(&self) -> &[u32] {
        self.groups.as_deref().unwrap_or_default()
    }

    /// Whether a group is within it. No question: nothing is counted.
    #[inline]
    pub(crate) fn has_group(&self, group: u32) -> bool {
        let Some(groups) = &self.groups else {
            return true;
        };
        groups.binary_search(&group).is_ok()
    }

    /// Whether a policy may ask about a group.
    #[inline]
    pub(crate) fn admits_group(&self, group: u32) -> bool {
        self.noted(self.has_group(group))
    }

    /// Whether a policy may ask about trusted peers.
    #[inline]
    pub(crate) fn admits_trusted(&self) -> bool {
        self.noted(self.trusted)
    }

    /// Whether a policy may ask about this pair of files.
    pub(crate) fn admits_rules(&self, name: &str) -> bool {
        let Some(names) = &self.rules else {
            return true;
        };
        self.noted(names.iter().any(|own| &**own == name))
    }

    /// Whether header fields of this name may be changed.
    pub(crate) fn admits_header(&self, name: &str) -> bool {
        let Some(names) = &self.headers else {
            return true;
        };
        self.noted(names.iter().any(|own| own.eq_ignore_ascii_case(name)))
    }

    /// Whether one more line may be logged now.
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
    fn lines_come_at_their_rate() {
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
