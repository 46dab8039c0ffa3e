//! The targets of a verdict or a step, in ranks, and how the host learns them.

use std::fmt;

use crate::host;
use crate::level::Level;
use crate::target::{Refusal, Target};

/// What a verdict says about where the request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// The targets in order. Empty for a request that is relayed as routed, with a memo.
    pub targets: Vec<Target>,
    /// The codes after which the next rank has its turn; `None` for those of the host, 408 and 500 to 599, or the codes so far.
    pub retry_on: Option<Vec<u16>>,
    /// Bytes for [`outcome::memo`](crate::outcome::memo); `None` keeps the previous ones.
    pub memo: Option<Vec<u8>>,
    passing: Passing,
    /// Whether the host knows the targets already.
    is_of_set: bool,
}

/// [`pass_to_host`], as a pointer: only a policy that makes targets contains that function, and the one that drops targets, and imports the
/// interface `forwarding`.
#[derive(Clone, Copy)]
struct Passing(fn(Forwarding));

impl Forwarding {
    /// Targets of one rank.
    pub(crate) fn fork<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Self {
        Self {
            targets: targets.into_iter().map(T::into).collect(),
            retry_on: None,
            memo: None,
            passing: Passing(pass_to_host),
            is_of_set: false,
        }
    }

    /// A request that goes where its own header fields lead.
    pub(crate) fn as_routed() -> Self {
        Self::fork::<Target>([])
    }

    /// Targets that the host knows already: `dispatcher.add-set` has added them.
    pub(crate) fn added() -> Self {
        Self {
            targets: Vec::new(),
            retry_on: None,
            memo: None,
            passing: Passing(pass_rest_to_host),
            is_of_set: true,
        }
    }

    /// Whether the targets are those of a set, which the host knows already.
    pub(crate) fn is_of_set(&self) -> bool {
        self.is_of_set
    }

    /// Targets of one rank each.
    pub(crate) fn in_turn<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Self {
        let mut forwarding = Self::fork(targets);
        for (rank, target) in (0..=u8::MAX).zip(&mut forwarding.targets) {
            target.rank = rank;
        }
        forwarding
    }

    /// Appends a target to the next rank.
    pub(crate) fn append(&mut self, mut target: Target) {
        target.rank = self
            .targets
            .last()
            .map_or(0, |last| last.rank.saturating_add(1));
        self.targets.push(target);
    }

    /// Appends a target to the last rank.
    pub(crate) fn join(&mut self, mut target: Target) {
        target.rank = self.targets.last().map_or(0, |last| last.rank);
        self.targets.push(target);
    }

    /// Whether one target of a rank is drawn.
    pub fn is_shared(&self) -> bool {
        self.targets.iter().any(|target| target.weight.is_some())
    }

    /// Passes all of it to the host. A target that the host does not accept is logged and left out: the others may still serve the request.
    ///
    /// # Panics
    /// If the host accepts none of the targets, because the request must not go elsewhere then; if it does not accept codes or memo.
    pub(crate) fn pass_to_host(self) {
        let Passing(pass) = self.passing;
        pass(self);
    }
}

/// See [`Forwarding::pass_to_host`].
fn pass_to_host(forwarding: Forwarding) {
    let mut accepted = false;
    for target in &forwarding.targets {
        match host::add_target(target) {
            Ok(()) => accepted = true,
            Err(refusal) => log_refusal(target, refusal),
        }
    }
    let is_as_routed = forwarding.targets.is_empty();
    assert!(
        accepted || is_as_routed,
        "the host accepts no target of this request"
    );
    if forwarding.is_shared() {
        host::share(true);
    }
    pass_rest_to_host(forwarding);
}

/// Passes everything but the targets to the host.
fn pass_rest_to_host(forwarding: Forwarding) {
    if let Some(codes) = &forwarding.retry_on
        && host::retry_on(codes).is_err()
    {
        panic!("the host does not accept the codes of retry_on()");
    }
    if let Some(memo) = &forwarding.memo
        && host::set_memo(memo).is_err()
    {
        panic!("the host does not accept the memo: it has more than 256 bytes");
    }
}

/// All are the same function.
impl PartialEq for Passing {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Passing {}

impl fmt::Debug for Passing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

/// `format!` would add much to the machine code of a small policy.
fn log_refusal(target: &Target, refusal: Refusal) {
    let mut line = String::from("the host does not accept the target ");
    line.push_str(target.place.as_str());
    line.push_str(": ");
    line.push_str(refusal.as_str());
    host::log(Level::Error, &line);
}
