//! The responses to requests with an `Idempotency-Key`, which are kept for a while and within a bound.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode};
use parking_lot::Mutex;

/// How long a response is kept.
const KEPT: Duration = Duration::from_secs(3600);

/// Most responses that are kept.
const MOST: usize = 1_000;

/// Most responses of one caller among them.
const MOST_OF_CALLER: usize = MOST / 4;

/// Most requests of one caller in progress. They are executed to their end even if their clients are gone.
pub(crate) const MOST_BEGUN: usize = 16;

/// The responses that are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats(Arc<Mutex<KeptResponses>>);

#[derive(Debug, Default)]
struct KeptResponses {
    all: HashMap<Named, Progress>,
    /// Those that have ended, the oldest first.
    order: VecDeque<Named>,
}

/// A caller, and its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    pub(crate) caller: String,
    pub(crate) key: String,
}

#[derive(Debug)]
enum Progress {
    /// The first request is in progress.
    Begun,
    Ended(Arc<First>),
}

/// The first request, and its response.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) at: Instant,
    /// Method and target.
    pub(crate) request: String,
    /// Digest of the body.
    pub(crate) body: [u8; 32],
    pub(crate) status: StatusCode,
    pub(crate) media: Option<HeaderValue>,
    pub(crate) response: Bytes,
}

/// What to do with a request.
pub(crate) enum Found {
    /// It is the first one.
    New(Begun),
    /// The first one is in progress.
    InProgress,
    /// The first one has ended.
    Known(Arc<First>),
    /// It would be the first one, and the caller has too many in progress.
    TooMany,
}

/// A first request in progress. Unless its response is kept, the key can be used again.
pub(crate) struct Begun {
    repeats: Repeats,
    named: Named,
}

impl Repeats {
    /// Begins a request, unless there was one with this key.
    pub(crate) fn find(&self, named: Named, now: Instant) -> Found {
        let mut kept = self.0.lock();
        kept.forget(now);
        match kept.all.get(&named) {
            Some(Progress::Begun) => Found::InProgress,
            Some(Progress::Ended(first)) => Found::Known(Arc::clone(first)),
            None if kept.begun(&named.caller) >= MOST_BEGUN => Found::TooMany,
            None => {
                kept.all.insert(named.clone(), Progress::Begun);
                Found::New(Begun {
                    repeats: self.clone(),
                    named,
                })
            }
        }
    }
}

impl KeptResponses {
    /// Forgets what is too old.
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.order.front() {
            let is_old = match self.all.get(oldest) {
                Some(Progress::Ended(first)) => now.saturating_duration_since(first.at) >= KEPT,
                Some(Progress::Begun) | None => true,
            };
            if !is_old {
                return;
            }
            self.drop_at(0);
        }
    }

    /// Returns the number of requests of this caller in progress.
    fn begun(&self, caller: &str) -> usize {
        let all = self.all.iter();
        all.filter(|(named, progress)| {
            named.caller == caller && matches!(progress, Progress::Begun)
        })
        .count()
    }

    /// Forgets the oldest if there are too many. A caller that has its part of them replaces its own.
    fn make_room(&mut self, caller: &str) {
        let is_own = |named: &&Named| named.caller == caller;
        if self.order.iter().filter(is_own).count() >= MOST_OF_CALLER {
            let oldest = self.order.iter().position(|named| named.caller == caller);
            self.drop_at(oldest.unwrap_or_default());
        }
        if self.order.len() >= MOST {
            self.drop_at(0);
        }
    }

    fn drop_at(&mut self, at: usize) {
        if let Some(named) = self.order.remove(at) {
            self.all.remove(&named);
        }
    }
}

impl Begun {
    /// Keeps the response.
    pub(crate) fn keep(self, first: First) {
        let mut kept = self.repeats.0.lock();
        kept.make_room(&self.named.caller);
        kept.order.push_back(self.named.clone());
        let ended = Progress::Ended(Arc::new(first));
        kept.all.insert(self.named.clone(), ended);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut kept = self.repeats.0.lock();
        if matches!(kept.all.get(&self.named), Some(Progress::Begun)) {
            kept.all.remove(&self.named);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(caller: &str, key: usize) -> Named {
        Named {
            caller: caller.to_owned(),
            key: key.to_string(),
        }
    }

    fn first(at: Instant) -> First {
        First {
            at,
            request: "POST /".to_owned(),
            body: [0; 32],
            status: StatusCode::OK,
            media: None,
            response: Bytes::new(),
        }
    }

    fn keep(repeats: &Repeats, named: Named, now: Instant) {
        match repeats.find(named, now) {
            Found::New(begun) => begun.keep(first(now)),
            Found::InProgress | Found::Known(_) | Found::TooMany => panic!("it is new"),
        }
    }

    #[test]
    fn a_key_is_in_progress_then_known_and_then_forgotten() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let Found::New(begun) = repeats.find(named("a", 1), now) else {
            panic!("it is new");
        };
        assert!(matches!(
            repeats.find(named("a", 1), now),
            Found::InProgress
        ));
        assert!(matches!(repeats.find(named("b", 1), now), Found::New(_)));
        drop(begun);
        keep(&repeats, named("a", 1), now);
        assert!(matches!(repeats.find(named("a", 1), now), Found::Known(_)));
        assert!(matches!(
            repeats.find(named("a", 1), now + KEPT),
            Found::New(_)
        ));
    }

    #[test]
    fn requests_in_progress_are_bounded_for_each_caller() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        let begin = |caller, key| match repeats.find(named(caller, key), now) {
            Found::New(begun) => Some(begun),
            Found::InProgress | Found::Known(_) | Found::TooMany => None,
        };
        let mut begun: Vec<_> = (0..MOST_BEGUN).map_while(|key| begin("a", key)).collect();
        assert_eq!(begun.len(), MOST_BEGUN);
        assert!(matches!(
            repeats.find(named("a", MOST_BEGUN), now),
            Found::TooMany
        ));
        assert!(matches!(
            repeats.find(named("a", 0), now),
            Found::InProgress
        ));
        assert!(begin("b", 0).is_some());
        begun.pop().unwrap().keep(first(now));
        let more = begin("a", MOST_BEGUN);
        assert!(more.is_some() && begin("a", MOST_BEGUN + 1).is_none());
        drop(begun);
        assert!(begin("a", MOST_BEGUN + 1).is_some());
    }

    #[test]
    fn memory_is_bounded_and_a_caller_has_its_part() {
        let (repeats, now) = (Repeats::default(), Instant::now());
        keep(&repeats, named("other", 0), now);
        for key in 0..MOST {
            keep(&repeats, named("a", key), now);
        }
        let count = || repeats.0.lock().all.len();
        assert_eq!(count(), MOST_OF_CALLER + 1);
        assert!(matches!(
            repeats.find(named("other", 0), now),
            Found::Known(_)
        ));
        for caller in 0..10 {
            for key in 0..MOST_OF_CALLER {
                keep(&repeats, named(&caller.to_string(), key), now);
            }
        }
        assert_eq!(count(), MOST);
    }
}
