//! The next hops that refuse connections.

use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::call_id::cut;

/// Limit of next hops remembered as down. Callers can name many of them if `domains` permits.
const MOST: usize = 256;

/// Time after which a next hop that nothing was sent to is no longer remembered as down.
pub(crate) const FORGET: Duration = Duration::from_secs(600);

/// The next hops whose last connection attempt failed. TCP only: over UDP, an unreachable next hop cannot be detected.
///
/// The lock is held briefly, by workers that failed to deliver and by the first one that succeeds again; nothing is logged under it.
#[derive(Debug, Default)]
pub struct Hops {
    /// Number of next hops that are down, so that workers need not lock the table while it is 0.
    down: AtomicUsize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    hops: HashMap<SocketAddr, DownHop>,
    /// Next hops that have gone down or come up since the last look.
    news: Vec<News>,
}

/// A next hop that refuses connections.
#[derive(Clone, Debug)]
pub struct DownHop {
    /// Time of the first failure.
    pub since: SystemTime,
    /// Number of requests that were not delivered since then.
    pub undelivered: u64,
    /// The last error of the system.
    pub error: String,
    /// The Call-ID of the first request that failed.
    pub call_id: String,
    /// Time of the last failure.
    last: Instant,
}

/// A change that has not been logged yet.
#[derive(Debug)]
pub(crate) enum News {
    Down(SocketAddr, DownHop),
    Up(SocketAddr, DownHop),
}

impl News {
    /// The next hop.
    pub(crate) fn to(&self) -> &SocketAddr {
        match self {
            Self::Down(to, _) | Self::Up(to, _) => to,
        }
    }
}

impl Hops {
    /// Notes that a request could not be delivered to this address.
    pub fn failed(&self, to: SocketAddr, error: &str, call_id: &[u8], now: Instant) {
        let mut table = self.table.lock();
        let table = &mut *table;
        if let Some(hop) = table.hops.get_mut(&to) {
            hop.undelivered += 1;
            hop.last = now;
            if hop.error != error {
                error.clone_into(&mut hop.error);
            }
            return;
        }
        if table.hops.len() >= MOST {
            return;
        }
        let hop = DownHop {
            since: SystemTime::now(),
            undelivered: 1,
            error: error.to_owned(),
            call_id: cut(call_id),
            last: now,
        };
        table.tell(News::Down(to, hop.clone()));
        table.hops.insert(to, hop);
        self.down.store(table.hops.len(), Ordering::Relaxed);
    }

    /// Notes that a connection to this address was opened. Costs one load while no next hop is down.
    #[inline]
    pub fn works(&self, to: SocketAddr) {
        if self.down.load(Ordering::Relaxed) > 0 {
            self.is_up(to);
        }
    }

    #[cold]
    fn is_up(&self, to: SocketAddr) {
        let mut table = self.table.lock();
        if let Some(hop) = table.hops.remove(&to) {
            table.tell(News::Up(to, hop));
            self.down.store(table.hops.len(), Ordering::Relaxed);
        }
    }

    /// The next hops that are down, in the order in which they went down.
    pub fn down(&self) -> Vec<(SocketAddr, DownHop)> {
        let table = self.table.lock();
        let mut all: Vec<_> = table
            .hops
            .iter()
            .map(|(to, hop)| (*to, hop.clone()))
            .collect();
        drop(table);
        all.sort_by_key(|(to, hop)| (hop.since, *to));
        all
    }

    /// The changes since the last call. Removes next hops to which nothing has been sent for [`FORGET`].
    pub(crate) fn news(&self, now: Instant) -> Vec<News> {
        let mut table = self.table.lock();
        if !table.hops.is_empty() {
            let is_recent = |hop: &DownHop| now.saturating_duration_since(hop.last) < FORGET;
            table.hops.retain(|_, hop| is_recent(hop));
            self.down.store(table.hops.len(), Ordering::Relaxed);
        }
        mem::take(&mut table.news)
    }
}

impl Table {
    fn tell(&mut self, news: News) {
        if self.news.len() < MOST {
            self.news.push(news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn a_hop_goes_down_once_and_comes_up_once() {
        let hops = Hops::default();
        let now = Instant::now();
        hops.works(addr(1));
        hops.failed(addr(1), "refused", b"a", now);
        hops.failed(addr(1), "timed out", b"b", now);
        let [News::Down(to, _)] = &hops.news(now)[..] else {
            panic!("one goes down");
        };
        assert_eq!(*to, addr(1));
        let down = hops.down();
        assert_eq!((down.len(), down[0].1.undelivered), (1, 2));
        assert_eq!((&*down[0].1.error, &*down[0].1.call_id), ("timed out", "a"));
        hops.works(addr(2));
        hops.works(addr(1));
        hops.works(addr(1));
        assert!(matches!(&hops.news(now)[..], [News::Up(to, _)] if *to == addr(1)));
        assert!(hops.down().is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_forgets() {
        let hops = Hops::default();
        let now = Instant::now();
        for port in 0..2 * MOST as u16 {
            hops.failed(addr(port), "refused", b"a", now);
        }
        assert_eq!(hops.down().len(), MOST);
        assert_eq!(hops.news(now + FORGET).len(), MOST);
        assert!(hops.down().is_empty());
    }
}
