//! Logs what workers have noted. Runs on the control side.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis_policy::FailureKind;
use portcullis_text::rfc3339;
use tokio::sync::watch::Receiver;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::notices::hops::{DownHop, FORGET, News};
use crate::notices::pace::{INTERVAL, Pace};
use crate::notices::{Example, Trouble};
use crate::shared::Shared;
use crate::tenants::Seat;

/// Interval between two looks for something to log.
const LOOK: Duration = Duration::from_millis(250);

/// Interval between two lines about clocks that differ.
const CLOCKS: Duration = Duration::from_secs(3_600);

/// Log lines per look for each kind of subject (seats, next hops); the rest is summarised in one line.
const MOST_LINES: usize = 16;

/// Logs new notices until the host ends, and then those that are left.
pub async fn watch(shared: Arc<Shared>, mut stop: Receiver<bool>) {
    let mut watch = Watch {
        shared,
        troubles: Default::default(),
        hops: HashMap::new(),
        seats: HashMap::new(),
        failures: 0,
        is_pending: false,
        clock_told: None,
    };
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = tick.tick() => watch.look(Instant::now()),
        }
    }
    watch.look(Instant::now());
    watch.shared.notices.traces.close();
}

struct Watch {
    shared: Arc<Shared>,
    troubles: [Pace; Trouble::ALL.len()],
    /// The next hops that a line has been logged about, and when.
    hops: HashMap<SocketAddr, Instant>,
    /// What has been logged about seats whose policies failed.
    seats: HashMap<Arc<str>, [Pace; FailureKind::ALL.len()]>,
    /// Number of policy failures at the last look.
    failures: u64,
    /// Whether seats have to be checked again although no policy has failed since.
    is_pending: bool,
    /// When a line about the clocks of the fleet was last logged.
    clock_told: Option<Instant>,
}

impl Watch {
    fn look(&mut self, now: Instant) {
        self.look_at_clocks(now);
        self.look_at_hops(now);
        self.look_at_troubles(now);
        self.look_at_policies(now);
    }

    fn look_at_troubles(&mut self, now: Instant) {
        let notices = &self.shared.notices;
        for (trouble, pace) in Trouble::ALL.into_iter().zip(&mut self.troubles) {
            if let Some(count) = pace.due(notices.count(trouble), now) {
                tell(trouble, count, notices.last(trouble));
            }
        }
    }

    /// One line an hour: no message is lost by it.
    fn look_at_clocks(&mut self, now: Instant) {
        let minutes = self.shared.proxy.take_minutes_ahead();
        let is_recent = |told: Instant| now.saturating_duration_since(told) < CLOCKS;
        if minutes == 0 || self.clock_told.is_some_and(is_recent) {
            return;
        }
        self.clock_told = Some(now);
        warn!(
            event = "seal_ahead",
            minutes,
            "seals of the fleet are ahead of this host's clock: another host's clock is fast, or this one's is slow or has been set back; set the clocks \
             of all hosts with the same key-file (NTP)"
        );
    }

    /// A next hop that goes down and comes up repeatedly is logged once per interval.
    fn look_at_hops(&mut self, now: Instant) {
        let is_recent = |told: &Instant| now.saturating_duration_since(*told) < INTERVAL;
        let mut beyond = 0;
        let mut lines = 0;
        for news in self.shared.notices.hops.news(now) {
            let told = self.hops.get(news.to()).copied();
            match news {
                News::Down(..) if told.as_ref().is_some_and(is_recent) => {}
                _ if lines == MOST_LINES => beyond += 1,
                News::Down(to, hop) => {
                    lines += 1;
                    self.hops.insert(to, now);
                    tell_down(to, &hop);
                }
                News::Up(to, hop) if told.is_some() => {
                    lines += 1;
                    tell_up(to, &hop);
                }
                News::Up(..) => {}
            }
        }
        if lines > 0 {
            // Its first requests are in the line about the next hop.
            self.troubles[Trouble::NextHopUnreachable as usize].hold(now);
        }
        self.hops
            .retain(|_, told| now.saturating_duration_since(*told) < FORGET);
        if beyond > 0 {
            warn!(
                event = "next_hops_changed",
                count = beyond,
                "further next hops went down or came up; portcullis.status shows those that are down"
            );
        }
    }

    fn look_at_policies(&mut self, now: Instant) {
        let workers = self.shared.counters.iter();
        let failures = workers.flat_map(|worker| {
            let kinds = FailureKind::ALL.into_iter();
            kinds.map(|kind| worker.policy_failures.value(kind))
        });
        let failures = failures.sum();
        let is_new = failures != self.failures;
        if !is_new && !self.is_pending {
            return;
        }
        self.failures = failures;
        // Workers count first and note the failure at the seat afterwards: look once more.
        self.is_pending = is_new;
        let tenants = self.shared.tenants.load();
        let mut lines = 0;
        let mut untold = 0;
        for seat in tenants.seats().filter(|seat| seat.failures.total() > 0) {
            let paces = self.seats.entry(Arc::clone(&seat.name)).or_default();
            for (kind, pace) in FailureKind::ALL.into_iter().zip(paces) {
                let total = seat.failures.count(kind);
                match pace.due(total, now) {
                    Some(count) if lines < MOST_LINES => {
                        lines += 1;
                        tell_failure(seat, kind, count);
                    }
                    Some(count) => untold += count,
                    None => self.is_pending |= pace.is_pending(total),
                }
            }
        }
        let names = |name: &Arc<str>| tenants.seats().any(|seat| seat.name == *name);
        if self.seats.len() > 64 {
            self.seats.retain(|name, _| names(name));
        }
        if untold > 0 {
            warn!(
                event = "policy_failed",
                count = untold,
                "policies of further seats failed; `portcullis tenant list` shows them"
            );
        }
    }
}

fn tell(trouble: Trouble, count: u64, example: Option<Example>) {
    let Some(example) = example else {
        return warn!(event = trouble.label(), count, "{}", trouble.text());
    };
    warn!(
        event = trouble.label(),
        count,
        peer = example.peer.map(tracing::field::display),
        tenant = example.tenant.as_deref(),
        call_id = example.call_id,
        decision = example.decision.map(tracing::field::display),
        example = example.text,
        "{}",
        trouble.text()
    );
}

fn tell_down(to: SocketAddr, hop: &DownHop) {
    warn!(
        event = "next_hop_down",
        next_hop = %to,
        error = hop.error,
        call_id = hop.call_id,
        "next hop accepts no connection; its requests go to the next target of the policy, or are answered with an error"
    );
}

fn tell_up(to: SocketAddr, hop: &DownHop) {
    info!(
        event = "next_hop_up",
        next_hop = %to,
        down_since = rfc3339(hop.since),
        undelivered = hop.undelivered,
        "next hop accepts connections again"
    );
}

fn tell_failure(seat: &Seat, kind: FailureKind, count: u64) {
    let Some(last) = seat.failures.last_of(kind) else {
        return warn!(
            event = "policy_failed",
            policy = &*seat.name,
            kind = kind.as_str(),
            count,
            "policy failed; no details were kept"
        );
    };
    warn!(
        event = "policy_failed",
        policy = &*seat.name,
        kind = kind.as_str(),
        count,
        generation = last.generation,
        call_id = last.call_id,
        decision = last.decision.map(tracing::field::display),
        example = last.text,
        "policy failed"
    );
}
