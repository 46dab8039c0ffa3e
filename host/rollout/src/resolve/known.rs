//! What is known of a name, and what the log says of it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use portcullis_resolve::{Answer, Found};
use portcullis_sip::{Candidate, Lookup};
use tokio::time::Instant;
use tracing::{info, warn};

/// What is known of the answer to a question about a name.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Where it leads.
    pub(super) candidates: Vec<Candidate>,
    /// Why there are no newer addresses.
    pub(super) error: Option<String>,
    /// When it should be resolved again.
    pub(super) due: Instant,
    /// Whether it is being resolved.
    pub(super) is_asking: bool,
    /// Whether there was a result.
    is_asked: bool,
    /// When it was resolved last.
    resolved: Instant,
}

/// What the log said of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoggedResult {
    addresses: Vec<SocketAddr>,
    error: Option<String>,
}

impl Known {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            candidates: Vec::new(),
            error: None,
            due: now,
            is_asking: false,
            is_asked: false,
            resolved: now,
        }
    }

    /// Whether the first result is on its way.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_asking && !self.is_asked
    }

    /// Takes the result of a plan. Returns whether the addresses have changed.
    pub(super) fn learn(
        &mut self,
        found: Found,
        now: Instant,
        stale: Duration,
        least: Duration,
    ) -> bool {
        (self.is_asking, self.is_asked) = (false, true);
        self.due = now + found.ttl.mul_f64(0.8).max(least);
        if let Some(error) = found.error() {
            self.error = Some(error);
            let is_over = now.duration_since(self.resolved) >= stale;
            let is_new = is_over && !self.candidates.is_empty();
            if is_over {
                self.candidates.clear();
            }
            return is_new;
        }
        self.error = found.steps.iter().find_map(|step| match &step.answer {
            Answer::Found { stale, .. } => stale.clone(),
            Answer::None { .. } | Answer::Failed { .. } => None,
        });
        self.resolved = now;
        let is_new = self.candidates != found.candidates;
        self.candidates = found.candidates;
        is_new
    }
}

/// Logs what has changed, once for each name, as soon as there are results for all questions about it.
pub(super) fn log_changes(
    known: &HashMap<Lookup, Known>,
    logged: &mut BTreeMap<Box<str>, LoggedResult>,
) {
    let mut names: BTreeMap<&str, Vec<(&Lookup, &Known)>> = BTreeMap::new();
    for (lookup, known) in known.iter().filter(|(_, known)| known.is_asked) {
        names.entry(&lookup.name).or_default().push((lookup, known));
    }
    for (lookup, _) in known.iter().filter(|(_, known)| !known.is_asked) {
        names.remove(&*lookup.name);
    }
    for (name, mut all) in names {
        all.sort_unstable_by_key(|(lookup, _)| *lookup);
        let now = result_of(&all);
        let before = logged.entry(name.into()).or_default();
        if *before != now {
            log_name(name, before, &now);
            *before = now;
        }
    }
}

/// A name is unresolved only if no question about it has an answer.
fn result_of(all: &[(&Lookup, &Known)]) -> LoggedResult {
    let candidates = all.iter().flat_map(|(_, known)| &known.candidates);
    let mut addresses: Vec<SocketAddr> = candidates.map(|one| one.addr).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let is_empty = |known: &Known| known.candidates.is_empty();
    let failed = all
        .iter()
        .find(|(_, known)| known.error.is_some() && (addresses.is_empty() || !is_empty(known)));
    LoggedResult {
        error: failed.and_then(|(_, known)| known.error.clone()),
        addresses,
    }
}

fn log_name(name: &str, before: &LoggedResult, now: &LoggedResult) {
    let addresses = &now.addresses;
    match &now.error {
        None => info!(
            event = "name_resolved",
            name,
            ?addresses,
            "name of [relay] resolved"
        ),
        // Other addresses with the same error say nothing new.
        Some(error) if before.error.as_ref() == Some(error) => {}
        Some(error) if addresses.is_empty() => warn!(
            event = "name_unresolved",
            name,
            error,
            "a name in [relay] has no address: requests to it are answered 503 until it resolves; check the name and the name servers \
             (portcullis resolve shows each query)"
        ),
        Some(error) => warn!(
            event = "name_stale",
            name,
            error,
            ?addresses,
            "name of [relay] no longer resolves, last addresses kept; check the name servers"
        ),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_resolve::{Kind, Query, Records, Step};
    use portcullis_sip::Transport;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    const SECOND: Duration = Duration::from_secs(1);

    fn found(ip: &str) -> Found {
        let addr = SocketAddr::new(ip.parse().unwrap(), 5060);
        Found {
            candidates: vec![Candidate::plain(Transport::Udp, addr)],
            ttl: Duration::from_secs(100),
            steps: Vec::new(),
        }
    }

    fn failed(error: &str) -> Found {
        let query = Query {
            name: "gw.example.com".to_owned(),
            kind: Kind::A,
        };
        let ttl = Duration::from_secs(5);
        Found {
            candidates: Vec::new(),
            ttl,
            steps: vec![Step {
                query,
                answer: Answer::Failed {
                    error: error.to_owned(),
                    ttl,
                },
            }],
        }
    }

    fn all(known: &Known) -> LoggedResult {
        result_of(&[(&Lookup::of("gw.example.com", Some(5060), None), known)])
    }

    #[test]
    fn a_name_keeps_its_last_addresses_for_a_while() {
        let now = Instant::now();
        let mut known = Known::new(now);
        assert!(known.learn(found("192.0.2.1"), now, DAY, SECOND));
        assert_eq!(known.due, now + Duration::from_secs(80));
        assert!(!known.learn(failed("down"), now + DAY / 2, DAY, SECOND));
        assert_eq!(known.candidates, found("192.0.2.1").candidates);
        assert_eq!(all(&known).error.as_deref(), Some("A gw.example.com: down"));
        assert_eq!(known.due, now + DAY / 2 + Duration::from_secs(4));
        assert!(!known.learn(found("192.0.2.1"), now + DAY / 2, DAY, SECOND));
        assert_eq!(all(&known).error, None);
        assert!(known.learn(found("192.0.2.2"), now + DAY / 2, DAY, SECOND));
        let later = now + DAY * 2;
        assert!(known.learn(failed("down"), later, DAY, SECOND));
        assert_eq!(known.candidates, []);
    }

    #[test]
    fn stale_records_are_logged_and_used() {
        let now = Instant::now();
        let mut known = Known::new(now);
        let mut stale = found("192.0.2.1");
        stale.steps = vec![Step {
            query: Query {
                name: "gw.example.com".to_owned(),
                kind: Kind::A,
            },
            answer: Answer::Found {
                records: Records::Addresses(vec!["192.0.2.1".parse().unwrap()]),
                ttl: SECOND,
                stale: Some("SERVFAIL".to_owned()),
            },
        }];
        assert!(known.learn(stale, now, DAY, SECOND));
        assert_eq!(all(&known).error.as_deref(), Some("SERVFAIL"));
        assert_eq!(all(&known).addresses.len(), 1);
    }

    #[test]
    fn a_name_that_only_some_questions_find_is_resolved() {
        let now = Instant::now();
        let (mut servers, mut itself) = (Known::new(now), Known::new(now));
        servers.learn(found("192.0.2.1"), now, DAY, SECOND);
        itself.learn(failed("no such name"), now, DAY, SECOND);
        let (one, two) = (
            Lookup::of("example.com", None, None),
            Lookup::of("example.com", Some(5060), None),
        );
        let logged = result_of(&[(&one, &servers), (&two, &itself)]);
        assert_eq!((logged.addresses.len(), logged.error), (1, None));
    }
}
