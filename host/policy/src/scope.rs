//! On whose behalf a policy is asked, and what it may therefore ask about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    crossings: AtomicU64,
}

impl Scope {
    /// That of the operator, who may ask about everything.
    pub fn operator() -> Self {
        Self {
            tenant: "".into(),
            groups: None,
            trusted: true,
            rules: None,
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

    /// Questions beyond it so far.
    pub fn crossings(&self) -> u64 {
        self.crossings.load(Ordering::Relaxed)
    }

    /// Whether there is a group that is beyond it.
    #[inline]
    pub(crate) fn is_limited(&self) -> bool {
        self.groups.is_some()
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

    #[inline]
    fn noted(&self, is_within: bool) -> bool {
        if !is_within {
            self.crossings.fetch_add(1, Ordering::Relaxed);
        }
        is_within
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::operator()
    }
}
