//! The plans of names: queries, their answers from the cache or from name servers, and counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use portcullis_config::ResolverConfig;
use portcullis_resolve::{Answer, Found, Plan, Query, Settings, TTL_FAILED};
use portcullis_sip::{Lookup, Transport};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::cache::{Cache, Cached, Freshness};
use super::client::Client;

/// Most queries that are asked at once.
const AT_ONCE: usize = 64;

/// Shortest time between two looks at the files of the system.
const LOOK: Duration = Duration::from_secs(5);

/// Resolves names for the operator and all tenants, with one cache.
pub struct Dns {
    config: ResolverConfig,
    /// Made with the first query.
    client: Mutex<Option<(Client, Instant)>>,
    cache: Cache,
    permits: Semaphore,
    /// How often all answers were made to expire.
    age: watch::Sender<u64>,
    found: AtomicU64,
    none: AtomicU64,
    failed: AtomicU64,
}

/// Queries to name servers by result, since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryCounts {
    /// With records.
    pub found: u64,
    /// Without records.
    pub none: u64,
    /// Without an answer, or answered with an error.
    pub failed: u64,
}

impl Dns {
    /// With the settings of `[resolver]`. No file is read and no query is asked yet.
    pub fn new(config: &ResolverConfig) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            client: Mutex::new(None),
            cache: Cache::default(),
            permits: Semaphore::new(AT_ONCE),
            age: watch::Sender::new(0),
            found: AtomicU64::new(0),
            none: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Where a name leads. Answers that are about to expire are asked for again.
    pub async fn plan(&self, lookup: &Lookup) -> Found {
        let settings = Settings {
            naptr: self.config.naptr,
            srv: self.config.srv,
            families: self.config.families,
            loopback: self.config.loopback,
        };
        let mut plan = Plan::new(lookup, settings, &Transport::OF_SERVERS);
        loop {
            let queries = plan.queries();
            if queries.is_empty() {
                break;
            }
            let answers = queries
                .iter()
                .map(|query| self.ask(query, Freshness::Early));
            for (query, answer) in queries.iter().zip(join_all(answers).await) {
                plan.answer(query, answer);
            }
        }
        plan.found().unwrap_or(Found {
            candidates: Vec::new(),
            ttl: TTL_FAILED,
            steps: Vec::new(),
        })
    }

    /// The answer to one query, from the cache while it is valid.
    pub async fn answer(&self, query: &Query) -> Answer {
        self.ask(query, Freshness::Valid).await
    }

    async fn ask(&self, query: &Query, freshness: Freshness) -> Answer {
        let entry = self.cache.entry(query);
        // Whoever asks the same waits for the answer.
        let _asking = entry.asking.lock().await;
        if let Some(answer) = entry.fresh(Instant::now(), freshness) {
            return answer;
        }
        let answer = match self.client() {
            Err(error) => Answer::Failed {
                error,
                ttl: TTL_FAILED,
            },
            Ok(client) => {
                let _permit = self.permits.acquire().await;
                client.ask(query).await
            }
        };
        let count = match &answer {
            Answer::Found { .. } => &self.found,
            Answer::None { .. } => &self.none,
            Answer::Failed { .. } => &self.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        entry.store(answer, Instant::now(), self.config.stale)
    }

    /// The answers that have not expired, in the order of their queries.
    pub fn view(&self) -> Vec<Cached> {
        self.cache.view()
    }

    /// Makes all answers expire, so that all names are resolved again. Until then their addresses stay as they are.
    pub fn clear(&self) {
        self.cache.expire();
        self.age.send_modify(|age| *age += 1);
    }

    /// Number of queries in the cache.
    pub fn entries(&self) -> usize {
        self.cache.len()
    }

    /// Bytes that the cache takes, approximately.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// Bytes that the cache may take, approximately: as many queries as it has, each with the most records that a plan uses.
    pub fn most_bytes(&self) -> usize {
        Cache::MOST_BYTES
    }

    /// Queries to name servers by result.
    pub fn counts(&self) -> QueryCounts {
        let value = |count: &AtomicU64| count.load(Ordering::Relaxed);
        QueryCounts {
            found: value(&self.found),
            none: value(&self.none),
            failed: value(&self.failed),
        }
    }

    /// The time limit of one query.
    pub(super) fn patience(&self) -> Duration {
        self.config.timeout
    }

    /// How long the last addresses of a name are used.
    pub(super) fn stale(&self) -> Duration {
        self.config.stale
    }

    /// How often all answers were made to expire.
    pub(super) fn age(&self) -> u64 {
        *self.age.borrow()
    }

    /// Waits until all answers have been made to expire once more.
    pub(super) async fn cleared(&self, age: u64) {
        let mut ages = self.age.subscribe();
        // The sender lives as long as this value.
        let _changed = ages.wait_for(|now| *now != age).await;
    }

    /// Reads the files of the system again, if they have changed.
    pub(super) fn look_at_files(&self) {
        let mut client = self.client.lock();
        let Some((known, looked)) = client.as_mut() else {
            return;
        };
        if looked.elapsed() < LOOK {
            return;
        }
        *looked = Instant::now();
        if known.is_outdated() {
            *client = None;
            drop(client);
            self.clear();
        }
    }

    fn client(&self) -> Result<Client, String> {
        let mut client = self.client.lock();
        if let Some((known, _)) = client.as_ref() {
            return Ok(known.clone());
        }
        let new = Client::new(&self.config).map_err(|error| error.to_string())?;
        *client = Some((new.clone(), Instant::now()));
        Ok(new)
    }
}
