//! The servers of a database as this process sees them: which one is used, and how far the state that was read last was.

mod choice;
mod position;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::{error, info, warn};

use crate::{DatabaseUrl, DatabaseUrls, Failure};
use choice::{Change, Choice};
use position::Since;

pub use position::Position;

/// How long all servers that answer must have an older state before it is no longer taken for a delay: the database was restored.
const RESTORED: Duration = Duration::from_secs(10);

/// The servers of the databases of this process. Connections to the same ones share what is known of them.
static ALL: Mutex<Vec<Weak<Servers>>> = Mutex::new(Vec::new());

/// The servers of one database.
pub(crate) struct Servers {
    urls: DatabaseUrls,
    state: Mutex<State>,
}

struct State {
    choice: Choice,
    /// The highest position of a state that was read or written.
    seen: Option<Position>,
    past: Option<Past>,
    changes: u64,
    retries: u64,
}

/// No server has the state that was read last.
struct Past {
    since: Instant,
    /// What an operator has to decide.
    what: String,
    /// Whether it is told: it is no delay.
    is_told: bool,
}

/// What is known of the servers of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServersStatus {
    /// The servers in the order in which they are preferred.
    pub servers: Vec<ServerStatus>,
    /// How often another server was used from then on.
    pub changes: u64,
    /// How often a write was repeated after a conflict, or after a server had failed.
    pub retries: u64,
    /// The position of the state that was read last; `None` if the servers do not say.
    pub position: Option<Position>,
    /// Why nothing is read from the database until an operator accepts its state: it is older than the one in use, or of another history.
    pub older: Option<String>,
}

/// What is known of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its URL, which is shown without the password.
    pub url: DatabaseUrl,
    /// Whether it is the one in use.
    pub is_used: bool,
    /// Why it was not used at the last try; `None` if it served, or was not tried.
    pub trouble: Option<String>,
}

impl Servers {
    /// The servers of this database.
    pub(crate) fn of(urls: DatabaseUrls) -> Arc<Self> {
        if urls.file().is_some() {
            return Arc::new(Self::new(urls));
        }
        let mut all = ALL.lock();
        all.retain(|servers| servers.strong_count() > 0);
        let mut known = all.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|known| known.urls == urls) {
            return known;
        }
        let servers = Arc::new(Self::new(urls));
        all.push(Arc::downgrade(&servers));
        servers
    }

    pub(crate) fn new(urls: DatabaseUrls) -> Self {
        let state = State {
            choice: Choice::new(urls.all().len()),
            seen: None,
            past: None,
            changes: 0,
            retries: 0,
        };
        Self {
            urls,
            state: Mutex::new(state),
        }
    }

    /// All of them.
    pub(crate) fn urls(&self) -> &DatabaseUrls {
        &self.urls
    }

    pub(crate) fn url(&self, server: usize) -> &DatabaseUrl {
        &self.urls.all()[server]
    }

    /// The server in use, or the one that is tried first.
    pub(crate) fn current(&self) -> usize {
        self.state.lock().choice.current()
    }

    /// The servers in the order in which they are tried now.
    pub(crate) fn order(&self) -> Vec<usize> {
        self.state.lock().choice.order(Instant::now())
    }

    /// Notes that a server serves.
    pub(crate) fn served(&self, server: usize) {
        let mut state = self.state.lock();
        let from = state.choice.current();
        let change = state.choice.served(server, Instant::now());
        state.changes += u64::from(change.is_some());
        let why = change.and_then(|_| state.choice.trouble(from).map(str::to_owned));
        let was_past = state.past.take().is_some_and(|past| past.is_told);
        drop(state);
        if was_past {
            info!(
                event = "database_not_older",
                database = %self.url(server),
                "database has the state in use again"
            );
        }
        self.tell(change, why.as_deref().unwrap_or_default());
    }

    /// Notes that a server does not serve.
    pub(crate) fn failed(&self, server: usize, failure: &Failure) {
        let why = failure.to_string();
        let is_behind = matches!(failure, Failure::Older { .. });
        let mut state = self.state.lock();
        let is_news = state.choice.trouble(server).is_none();
        state.choice.failed(server, why, Instant::now());
        drop(state);
        if is_behind && is_news && self.urls.is_cluster() {
            warn!(
                event = "database_server_behind",
                server = %self.url(server),
                %failure,
                "server of the database has an older state than the one in use, another one is tried"
            );
        }
    }

    /// A preferred server that is to be tried now.
    pub(crate) fn probe(&self) -> Option<usize> {
        self.state.lock().choice.probe(Instant::now())
    }

    /// Notes that a preferred server has served a probe.
    pub(crate) fn proved(&self, server: usize) {
        let mut state = self.state.lock();
        let change = state.choice.proved(server, Instant::now());
        state.changes += u64::from(change.is_some());
        drop(state);
        self.tell(change, "the preferred server serves again");
    }

    /// Checks that a server in this position has the state that was read last. From then on, this position is the least. A server that does not
    /// say its position is not used beside servers that do: nobody would notice that it lags. A server alone cannot lag.
    ///
    /// # Errors
    /// When the server has an older state, or one of another history, or one that cannot be compared.
    pub(crate) fn admit(&self, server: usize, position: Option<&Position>) -> Result<(), Failure> {
        let mut state = self.state.lock();
        let Some(position) = position else {
            return match &state.seen {
                Some(seen) if self.urls.is_cluster() => Err(Failure::Older {
                    url: self.url(server).to_string(),
                    cause: format!("it does not say how far it is, and the state in use is {seen}"),
                    is_other: false,
                }),
                Some(_) | None => Ok(()),
            };
        };
        let since = state.seen.as_ref().map(|seen| (seen, position.since(seen)));
        let (seen, is_other) = match since {
            None | Some((_, Since::Reached)) => {
                state.seen = Some(position.clone());
                return Ok(());
            }
            Some((seen, Since::Behind)) => (seen, false),
            Some((seen, Since::Other)) => (seen, true),
        };
        let what = match is_other {
            true => "another history",
            false => "an older state",
        };
        Err(Failure::Older {
            url: self.url(server).to_string(),
            cause: format!("it has {what} ({position}) than the one in use ({seen})"),
            is_other,
        })
    }

    /// Notes the position of the database after a write: later reads are not from before it.
    pub(crate) fn raise(&self, position: &Position) {
        let mut state = self.state.lock();
        let is_later = |seen: &Position| position.since(seen) == Since::Reached;
        if state.seen.as_ref().is_none_or(is_later) {
            state.seen = Some(position.clone());
        }
    }

    /// Notes that no server has the state in use. After a while it is no delay: the database was restored, or is another one.
    pub(crate) fn all_older(&self, what: &str, is_other: bool) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let past = state.past.get_or_insert_with(|| Past {
            since: now,
            what: String::new(),
            is_told: false,
        });
        what.clone_into(&mut past.what);
        let is_over = is_other || now.saturating_duration_since(past.since) >= RESTORED;
        let is_news = is_over && !past.is_told;
        past.is_told |= is_over;
        drop(state);
        if is_news {
            error!(
                event = "database_older",
                cause = what,
                "database has an older state than the one in use, or is another one: nothing is read from it until `portcullis address reload` accepts it"
            );
        }
    }

    /// Accepts the state of the database although it is older than the one in use, if that has been told. Returns whether it was accepted.
    pub(crate) fn accept(&self) -> bool {
        let mut state = self.state.lock();
        if !state.past.as_ref().is_some_and(|past| past.is_told) {
            return false;
        }
        state.past = None;
        let before = state.seen.take();
        drop(state);
        warn!(
            event = "database_accepted",
            database = %self.urls,
            before = before.map(|position| position.to_string()),
            "an operator has accepted the state of the database, which is older than the one in use"
        );
        true
    }

    /// Notes that a write is repeated.
    pub(crate) fn retried(&self) {
        self.state.lock().retries += 1;
    }

    pub(crate) fn status(&self) -> ServersStatus {
        let state = self.state.lock();
        let current = state.choice.current();
        let servers = self.urls.all().iter().enumerate();
        let servers = servers.map(|(at, url)| ServerStatus {
            url: url.clone(),
            is_used: at == current,
            trouble: state.choice.trouble(at).map(str::to_owned),
        });
        let past = state.past.as_ref().filter(|past| past.is_told);
        ServersStatus {
            servers: servers.collect(),
            changes: state.changes,
            retries: state.retries,
            position: state.seen.clone(),
            older: past.map(|past| past.what.clone()),
        }
    }

    fn tell(&self, change: Option<Change>, why: &str) {
        let Some(Change {
            from,
            to,
            has_failed,
        }) = change
        else {
            return;
        };
        let (from, to) = (self.url(from), self.url(to));
        match has_failed {
            true => warn!(
                event = "database_server_changed",
                %from, %to, why, "server of the database does not serve, another one is used"
            ),
            false => info!(
                event = "database_server_changed",
                %from, %to, why, "preferred server of the database is used again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(count: usize) -> Servers {
        let url = |n| format!("mysql://k:p@127.0.0.{n}/k").parse().unwrap();
        let all = (1..=count).map(url).collect();
        Servers::new(DatabaseUrls::new(all).unwrap())
    }

    fn galera(cluster: &str, last: u64) -> Position {
        Position::Galera {
            cluster: cluster.to_owned(),
            last,
        }
    }

    #[test]
    fn an_older_state_is_not_admitted_and_another_history_is_accepted_only_when_it_was_told() {
        let servers = servers(2);
        servers.admit(0, Some(&galera("a", 7))).unwrap();
        let behind = servers.admit(1, Some(&galera("a", 6))).unwrap_err();
        assert_eq!(
            behind.to_string(),
            "the database mysql://k@127.0.0.2:3306/k is not read: it has an older state (a:6) than the one in use (a:7)"
        );
        // A delay is not a matter for operators.
        servers.all_older(&behind.to_string(), false);
        assert!(!servers.accept());
        assert_eq!(servers.status().older, None);
        let other = servers.admit(1, Some(&galera("b", 900))).unwrap_err();
        assert!(matches!(other, Failure::Older { is_other: true, .. }));
        servers.all_older(&other.to_string(), true);
        assert_eq!(servers.status().older, Some(other.to_string()));
        assert!(servers.accept());
        assert!(!servers.accept(), "once");
        servers.admit(1, Some(&galera("b", 900))).unwrap();
        servers.admit(1, Some(&galera("a", 9))).unwrap_err();
    }

    #[test]
    fn a_server_that_does_not_say_how_far_it_is_is_not_used_beside_servers_that_do() {
        let cluster = servers(2);
        cluster.admit(1, None).unwrap();
        cluster.admit(0, Some(&galera("a", 7))).unwrap();
        let refused = cluster.admit(1, None).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the database mysql://k@127.0.0.2:3306/k is not read: it does not say how far it is, and the state in use is a:7"
        );
        // No other server is left, and an operator accepts its state.
        cluster.all_older("primary gone", true);
        assert!(cluster.accept());
        cluster.admit(1, None).unwrap();
        let alone = servers(1);
        alone.admit(0, Some(&galera("a", 7))).unwrap();
        alone.admit(0, None).unwrap();
    }

    #[test]
    fn a_state_that_is_reached_again_ends_the_alarm() {
        let servers = servers(1);
        servers.admit(0, Some(&galera("a", 7))).unwrap();
        servers.all_older("restored", true);
        assert!(servers.status().older.is_some());
        servers.admit(0, Some(&galera("a", 8))).unwrap();
        servers.served(0);
        assert_eq!(servers.status().older, None);
        assert!(!servers.accept());
    }

    #[test]
    fn what_was_written_is_the_least_that_is_read() {
        let servers = servers(2);
        servers.raise(&galera("a", 5));
        servers.raise(&galera("a", 3));
        servers.admit(1, Some(&galera("a", 4))).unwrap_err();
        servers.admit(1, Some(&galera("a", 5))).unwrap();
        assert_eq!(servers.status().position, Some(galera("a", 5)));
    }

    #[test]
    fn the_server_in_use_and_the_trouble_of_others_are_known_without_passwords() {
        let servers = servers(2);
        servers.served(0);
        let failure = Failure::Hung {
            url: servers.url(0).to_string(),
            seconds: 1,
        };
        servers.failed(0, &failure);
        servers.served(1);
        let status = servers.status();
        assert_eq!(status.changes, 1);
        assert_eq!(
            status.servers.iter().map(|s| s.is_used).collect::<Vec<_>>(),
            [false, true]
        );
        let trouble = status.servers[0].trouble.as_deref().unwrap();
        assert!(trouble.contains("mysql://k@127.0.0.1:3306/k"), "{trouble}");
        assert!(!format!("{status:?}").contains("k:p@"));
    }
}
