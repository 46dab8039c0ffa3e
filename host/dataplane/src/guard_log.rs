//! Logs which sources are held, banned and released. Runs on the control side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_guard::{Barred, Kind, Prefix};
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::shared::Shared;

/// Interval between two looks for something to log.
const LOOK: Duration = Duration::from_millis(500);

/// Lines per look about sources that are held: anybody can forge their addresses. Bans are logged one by one.
const MOST_HELD: usize = 16;

/// Logs changes until the host ends.
pub async fn watch(shared: Arc<Shared>, mut stop: Receiver<bool>) {
    if shared.guard.is_none() {
        return;
    }
    let mut known = Known::default();
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = tick.tick() => look(&shared, &mut known),
        }
    }
}

fn look(shared: &Shared, known: &mut Known) {
    let Some(guard) = &shared.guard else {
        return;
    };
    let mut held = 0;
    for change in known.replace(guard.barred(Instant::now())) {
        match change {
            Change::Barred(one) if one.kind == Kind::Banned => {
                // Only bans of other hosts have one.
                let host = one.host.map(|host| guard.host_name(host));
                warn!(
                    event = "source_banned",
                    source = %one.source,
                    reason = one.reason.as_str(),
                    seconds = one.remaining.as_secs(),
                    host = host.as_deref(),
                    "source banned"
                );
            }
            Change::Barred(one) => {
                held += 1;
                if held <= MOST_HELD {
                    warn!(
                        event = "source_held",
                        source = %one.source,
                        reason = one.reason.as_str(),
                        seconds = one.remaining.as_secs(),
                        "source held: it sends over UDP, so its address may be forged"
                    );
                }
            }
            Change::Released(one) => info!(
                event = "source_released",
                source = %one.source,
                was = one.kind.as_str(),
                reason = one.reason.as_str(),
                dropped = one.dropped,
                "source released"
            ),
        }
    }
    if let Some(further @ 1..) = held.checked_sub(MOST_HELD) {
        warn!(
            event = "sources_held",
            further, "further sources held; `portcullis guard list` shows all"
        );
    }
}

/// The sources of the last look.
#[derive(Debug, Default)]
struct Known(BTreeMap<Prefix, Barred>);

/// A change since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Barred(Barred),
    Released(Barred),
}

impl Known {
    /// Notes the sources that are held or banned now. Returns what has changed, releases first.
    fn replace(&mut self, now: Vec<Barred>) -> Vec<Change> {
        let now: BTreeMap<_, _> = now.into_iter().map(|one| (one.source, one)).collect();
        let is_same = |one: &Barred, all: &BTreeMap<Prefix, Barred>| {
            let other = all.get(&one.source);
            other.is_some_and(|other| other.kind == one.kind)
        };
        let gone = self.0.values().filter(|one| !now.contains_key(&one.source));
        let gone = gone.copied().map(Change::Released);
        let new = now.values().filter(|one| !is_same(one, &self.0));
        let changes = gone.chain(new.copied().map(Change::Barred)).collect();
        self.0 = now;
        changes
    }
}

#[cfg(test)]
mod tests {
    use portcullis_guard::Reason;

    use super::*;

    fn barred(ip: [u8; 4], kind: Kind) -> Barred {
        Barred {
            source: Prefix::of(ip.into()),
            kind,
            reason: Reason::Users,
            remaining: Duration::from_secs(300),
            dropped: 0,
            host: None,
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let mut known = Known::default();
        let held = barred([192, 0, 2, 1], Kind::Held);
        let other = barred([192, 0, 2, 2], Kind::Banned);
        assert_eq!(known.replace(vec![held]), [Change::Barred(held)]);
        assert!(known.replace(vec![held]).is_empty());
        // The time goes on, and messages are dropped.
        let later = Barred { dropped: 7, ..held };
        assert_eq!(known.replace(vec![later, other]), [Change::Barred(other)]);
        let banned = barred([192, 0, 2, 1], Kind::Banned);
        assert_eq!(
            known.replace(vec![banned]),
            [Change::Released(other), Change::Barred(banned)]
        );
        assert_eq!(known.replace(Vec::new()), [Change::Released(banned)]);
    }
}
