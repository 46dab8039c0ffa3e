//! Answers of name servers, and the last good ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portcullis_resolve::{Answer, Query, Records, TTL_FAILED};
use tokio::time::Instant;

/// Most queries whose answers are stored.
const MOST: usize = 10_000;

/// The answers to queries. One query is asked once at a time.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Mutex<HashMap<Query, Arc<Entry>>>,
}

/// The answer to a query. The outer lock is held while the query is asked.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) asking: tokio::sync::Mutex<()>,
    stored: Mutex<Stored>,
}

#[derive(Clone, Debug, Default)]
struct Stored {
    answer: Option<(Answer, Instant)>,
    /// The last records, and when they were asked for.
    good: Option<(Records, Instant)>,
}

/// An answer as stored, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The query.
    pub query: Query,
    /// The answer; its time is what is left of it.
    pub answer: Answer,
}

/// Whether an answer that is about to expire is good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Until it expires.
    Valid,
    /// Until 80 % of its time.
    Early,
}

impl Cache {
    /// Bytes that the answers may take: each query with an answer as large as TCP permits. That is far above what zones have.
    pub(super) const MOST_BYTES: usize = MOST * (size_of::<Entry>() + 0x1_0000);

    /// The entry of a query, which may be empty.
    pub(super) fn entry(&self, query: &Query) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(query) {
            return Arc::clone(entry);
        }
        if entries.len() >= MOST {
            let now = Instant::now();
            entries.retain(|_, entry| entry.fresh(now, Freshness::Valid).is_some());
        }
        let entry = Arc::<Entry>::default();
        // A full table of fresh answers stays as it is.
        if entries.len() < MOST {
            entries.insert(query.clone(), Arc::clone(&entry));
        }
        entry
    }

    /// The answers that have not expired, in the order of their queries.
    pub(super) fn view(&self) -> Vec<Cached> {
        let now = Instant::now();
        let entries = self.entries.lock();
        let fresh = entries.iter().filter_map(|(query, entry)| {
            let answer = entry.fresh(now, Freshness::Valid)?;
            let query = query.clone();
            Some(Cached { query, answer })
        });
        let mut all: Vec<Cached> = fresh.collect();
        drop(entries);
        all.sort_unstable_by(|one, other| one.query.cmp(&other.query));
        all
    }

    /// Makes all answers expire. The last good ones stay, for the case that name servers do not answer.
    pub(super) fn expire(&self) {
        for entry in self.entries.lock().values() {
            entry.stored.lock().answer = None;
        }
    }

    /// Number of stored answers.
    pub(super) fn len(&self) -> usize {
        self.entries.lock().len()
    }

    /// Bytes that the answers take, approximately.
    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.lock();
        let one = |(query, entry): (&Query, &Arc<Entry>)| {
            let stored = entry.stored.lock();
            let answer = stored
                .answer
                .as_ref()
                .map(|(answer, _)| bytes_of_answer(answer));
            let good = stored.good.as_ref().map(|(records, _)| bytes_of(records));
            size_of::<Entry>() + query.name.len() + answer.unwrap_or(0) + good.unwrap_or(0)
        };
        entries.iter().map(one).sum()
    }
}

impl Cached {
    /// Bytes of the name and of the answer, approximately.
    pub fn bytes(&self) -> usize {
        self.query.name.len() + bytes_of_answer(&self.answer)
    }
}

fn bytes_of_answer(answer: &Answer) -> usize {
    match answer {
        Answer::Found { records, .. } => bytes_of(records),
        Answer::None { .. } => 0,
        Answer::Failed { error, .. } => error.len(),
    }
}

fn bytes_of(records: &Records) -> usize {
    match records {
        Records::Addresses(records) => size_of_val(&records[..]),
        Records::Srv(records) => {
            size_of_val(&records[..]) + records.iter().map(|srv| srv.target.len()).sum::<usize>()
        }
        Records::Naptr(records) => {
            let texts = records.iter().map(|naptr| {
                naptr.flags.len()
                    + naptr.service.len()
                    + naptr.regexp.len()
                    + naptr.replacement.len()
            });
            size_of_val(&records[..]) + texts.sum::<usize>()
        }
    }
}

impl Entry {
    /// The answer, if it is fresh, with the time that is left of it.
    pub(super) fn fresh(&self, now: Instant, freshness: Freshness) -> Option<Answer> {
        let stored = self.stored.lock();
        let (answer, asked) = stored.answer.as_ref()?;
        let age = now.saturating_duration_since(*asked);
        let whole = answer.ttl();
        let limit = match freshness {
            Freshness::Valid => whole,
            Freshness::Early => whole.mul_f64(0.8),
        };
        let left = whole.saturating_sub(age);
        (age < limit).then(|| with_ttl(answer.clone(), left))
    }

    /// Stores an answer. A failure is replaced by the last records, unless they are older than `stale`. Returns what is used.
    pub(super) fn store(&self, answer: Answer, now: Instant, stale: Duration) -> Answer {
        let mut stored = self.stored.lock();
        let answer = match answer {
            Answer::Found { ref records, .. } => {
                stored.good = Some((records.clone(), now));
                answer
            }
            Answer::None { .. } => {
                stored.good = None;
                answer
            }
            Answer::Failed { error, ttl } => match &stored.good {
                Some((records, at)) if now.saturating_duration_since(*at) < stale => {
                    Answer::Found {
                        records: records.clone(),
                        ttl: TTL_FAILED,
                        stale: Some(error),
                    }
                }
                Some(_) | None => Answer::Failed { error, ttl },
            },
        };
        stored.answer = Some((answer.clone(), now));
        answer
    }
}

fn with_ttl(answer: Answer, ttl: Duration) -> Answer {
    match answer {
        Answer::Found { records, stale, .. } => Answer::Found {
            records,
            ttl,
            stale,
        },
        Answer::None { .. } => Answer::None { ttl },
        Answer::Failed { error, .. } => Answer::Failed { error, ttl },
    }
}

#[cfg(test)]
mod tests {
    use portcullis_resolve::Kind;

    use super::*;

    const STALE: Duration = Duration::from_secs(60);

    fn found(ttl: u64) -> Answer {
        Answer::Found {
            records: Records::Addresses(vec!["192.0.2.1".parse().unwrap()]),
            ttl: Duration::from_secs(ttl),
            stale: None,
        }
    }

    fn query(number: usize) -> Query {
        Query {
            name: format!("n{number}.example.com"),
            kind: Kind::A,
        }
    }

    fn failed() -> Answer {
        Answer::Failed {
            error: "SERVFAIL".to_owned(),
            ttl: TTL_FAILED,
        }
    }

    #[test]
    fn answers_expire_and_are_renewed_early() {
        let (cache, now) = (Cache::default(), Instant::now());
        let entry = cache.entry(&query(1));
        entry.store(found(100), now, STALE);
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(entry.fresh(after(79), Freshness::Early), Some(found(21)));
        assert_eq!(entry.fresh(after(80), Freshness::Early), None);
        assert_eq!(entry.fresh(after(80), Freshness::Valid), Some(found(20)));
        assert_eq!(entry.fresh(after(100), Freshness::Valid), None);
    }

    #[test]
    fn the_last_records_take_the_place_of_a_failure_for_a_while() {
        let (cache, now) = (Cache::default(), Instant::now());
        let entry = cache.entry(&query(1));
        assert_eq!(entry.store(failed(), now, STALE), failed());
        entry.store(found(10), now, STALE);
        let Answer::Found { stale, ttl, .. } = entry.store(failed(), now + STALE / 2, STALE) else {
            panic!("the last records are kept");
        };
        assert_eq!((stale.as_deref(), ttl), (Some("SERVFAIL"), TTL_FAILED));
        assert_eq!(entry.store(failed(), now + STALE, STALE), failed());
        // A name that does not exist any more is no failure.
        entry.store(found(10), now, STALE);
        entry.store(Answer::None { ttl: STALE }, now, STALE);
        assert_eq!(entry.store(failed(), now, STALE), failed());
    }

    #[test]
    fn the_table_is_bounded() {
        let (cache, now) = (Cache::default(), Instant::now());
        for number in 0..MOST + 10 {
            cache.entry(&query(number)).store(found(3_600), now, STALE);
        }
        assert_eq!(cache.len(), MOST);
        assert!(cache.bytes() > MOST * 16);
        cache.expire();
        assert_eq!(cache.view(), []);
        cache.entry(&query(MOST + 1));
        assert_eq!(cache.len(), 1);
    }
}
