//! The looks at a database, each of which asks for all tables that this process follows there.
//!
//! There is no task that looks: one of those that wait for the next look makes it, and all of them get it. If it is dropped meanwhile, another
//! one makes the look.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Mutex as Turns, watch};
use tokio::time::{Instant as Moment, sleep, sleep_until, timeout};

use super::marks::{LOOK, Marks};
use crate::connections::Connections;
use crate::pace::Pace;
use crate::{DatabaseUrls, Failure, Name};

/// Longest pause between two looks at a database that answers, whatever the intervals of those that follow its tables.
const LONGEST: Duration = Duration::from_secs(1);

/// The looks of this process. Those that follow tables of the same servers share them, whatever connections they have; those of a file share them
/// within a pool, because what SQLite says depends on the connection that asks.
static ALL: Mutex<Vec<Weak<Looks>>> = Mutex::new(Vec::new());

/// The answer to one question about all followed tables of a database.
#[derive(Debug)]
pub struct Looked {
    /// Numbers the looks in the order in which they were made, from 1.
    number: u64,
    marks: Result<Marks, Failure>,
}

/// The looks at one database.
pub(super) struct Looks {
    urls: DatabaseUrls,
    /// The pool whose connections look, if the database is a file.
    pool: Option<Connections>,
    /// The followed tables, and how many follow each.
    tables: Mutex<BTreeMap<Name, usize>>,
    latest: watch::Sender<Arc<Looked>>,
    /// The shortest interval of those that follow, up to [`LONGEST`].
    interval: Mutex<Duration>,
    /// Held while a look is made.
    asking: Turns<()>,
    /// Held by the follower that makes the next look; `None` before the first one.
    lead: Turns<Option<Next>>,
}

/// When the next look is made.
struct Next {
    interval: Duration,
    pace: Pace,
    due: Moment,
}

/// Waits for the looks at a database in which tables are followed, and says when a table is to be loaded.
pub struct Follower {
    pace: Pace,
    interval: Duration,
    /// Before the next look is waited for.
    pause: Duration,
    /// `None` for a file that replaces a table.
    table: Option<Waiting>,
}

/// A follower of a table.
struct Waiting {
    connections: Connections,
    looks: Arc<Looks>,
    latest: watch::Receiver<Arc<Looked>>,
    /// The number of the look that was returned last.
    seen: u64,
    has_failed: bool,
}

impl Looked {
    /// The number of the look, which is higher than those of looks that were made before.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// What the database says.
    ///
    /// # Errors
    /// When it could not be reached or queried.
    pub(super) fn marks(&self) -> Result<&Marks, Failure> {
        self.marks.as_ref().map_err(Clone::clone)
    }
}

impl Looks {
    /// The looks at this database.
    pub(super) fn of(connections: &Connections) -> Arc<Self> {
        let urls = connections.urls();
        let mut all = ALL.lock();
        all.retain(|looks| looks.strong_count() > 0);
        let mut known = all.iter().filter_map(Weak::upgrade);
        let is_shared = |known: &Self| match &known.pool {
            Some(pool) => pool.is_pool_of(connections),
            None => known.urls == *urls,
        };
        if let Some(known) = known.find(|known| is_shared(known)) {
            return known;
        }
        let nothing = Looked {
            number: 0,
            marks: Ok(Marks::default()),
        };
        let looks = Arc::new(Self {
            urls: urls.clone(),
            pool: urls.file().map(|_| connections.clone()),
            tables: Mutex::default(),
            latest: watch::Sender::new(Arc::new(nothing)),
            interval: Mutex::new(LONGEST),
            asking: Turns::new(()),
            lead: Turns::default(),
        });
        all.push(Arc::downgrade(&looks));
        looks
    }

    /// Has each look from now on ask for this table.
    pub(super) fn add(&self, table: &Name) {
        *self.tables.lock().entry(table.clone()).or_default() += 1;
    }

    /// Ends one [`add`](Self::add).
    pub(super) fn remove(&self, table: &Name) {
        let mut tables = self.tables.lock();
        if let Some(count) = tables.get_mut(table) {
            *count -= 1;
            if *count == 0 {
                tables.remove(table);
            }
        }
    }

    /// Looks now, for all who follow.
    pub(super) async fn ask(&self, connections: &Connections) -> Arc<Looked> {
        let _one_at_a_time = self.asking.lock().await;
        let tables: Vec<Name> = self.tables.lock().keys().cloned().collect();
        let marks = match timeout(LOOK, Marks::ask(connections, &tables)).await {
            Ok(marks) => marks,
            Err(_elapsed) => Err(Failure::hung(connections.url(), LOOK)),
        };
        let number = self.latest.borrow().number + 1;
        let looked = Arc::new(Looked { number, marks });
        self.latest.send_replace(Arc::clone(&looked));
        looked
    }

    /// Makes the next look when it is due. `None` if another look has been made since the one with the number `seen`.
    async fn lead(&self, connections: &Connections, seen: u64) -> Option<Arc<Looked>> {
        let mut lead = self.lead.lock().await;
        if self.latest.borrow().number > seen {
            return None;
        }
        let interval = *self.interval.lock();
        let pace = Pace::new(interval);
        let next = lead.get_or_insert_with(|| Next {
            interval,
            pace,
            due: Moment::now() + pace.first(),
        });
        if next.interval != interval {
            (next.interval, next.pace) = (interval, pace);
        }
        sleep_until(next.due).await;
        let begun = Instant::now();
        let looked = self.ask(connections).await;
        let pause = match &looked.marks {
            Ok(_) => next.pace.answered(begun.elapsed()),
            Err(_) => next.pace.failed(),
        };
        next.due = Moment::now() + pause;
        Some(looked)
    }
}

impl Follower {
    /// A follower of tables in this database. It waits for each look if `interval` is up to a second, and for one in each `interval` if it is
    /// longer.
    pub fn of_table(connections: Connections, interval: Duration) -> Self {
        let looks = Looks::of(&connections);
        {
            let mut shortest = looks.interval.lock();
            *shortest = interval.min(*shortest);
        }
        let table = Waiting {
            latest: looks.latest.subscribe(),
            connections,
            looks,
            seen: 0,
            has_failed: false,
        };
        Self {
            pace: Pace::new(interval),
            interval,
            pause: Duration::ZERO,
            table: Some(table),
        }
    }

    /// A follower of a file that replaces a table: it only paces.
    pub fn of_file(interval: Duration) -> Self {
        let pace = Pace::new(interval);
        Self {
            pace,
            interval,
            pause: pace.first(),
            table: None,
        }
    }

    /// Waits until it is time to look again. Returns the look, or `None` for a file. A look that is dropped while it is waited for is not lost.
    pub async fn next(&mut self) -> Option<Arc<Looked>> {
        sleep(self.pause).await;
        let table = self.table.as_mut()?;
        Some(table.next().await)
    }

    /// Notes what came of the look: how long a load took, zero if there was none; `None` if the look or the load has failed.
    pub fn done(&mut self, took: Option<Duration>) {
        self.pause = match (took, &self.table) {
            // The next look itself comes after a pause.
            (None, Some(table)) if table.has_failed => Duration::ZERO,
            (None, _) => self.pace.failed(),
            (Some(took), Some(_)) if self.interval <= LONGEST => self.pace.loaded(took),
            (Some(took), _) => self.pace.succeeded(took),
        };
    }
}

impl Waiting {
    /// The first look after the one that was returned last.
    async fn next(&mut self) -> Arc<Looked> {
        let looked = loop {
            let latest = Arc::clone(&self.latest.borrow_and_update());
            if latest.number > self.seen {
                break latest;
            }
            tokio::select! {
                // Whatever is dropped here was not asked yet, or is asked again by the one that leads next.
                looked = self.looks.lead(&self.connections, self.seen) => {
                    if let Some(looked) = looked {
                        break looked;
                    }
                }
                _ = self.latest.changed() => {}
            }
        };
        self.seen = looked.number;
        self.has_failed = looked.marks.is_err();
        looked
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("interval", &self.interval)
            .field("is_file", &self.table.is_none())
            .finish_non_exhaustive()
    }
}
