//! How many stream connections there may be, from one address and in all, and which of them makes room for a newcomer.
//!
//! A newcomer is refused only where every connection has a request under way. Else the connection goes that was of no use for longest:
//! first one of a stranger, of whom no request was let in and to whom none was sent. A stranger's keep-alives are no use, so they keep
//! no place that somebody else needs.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_sip::ConnectionId;
use tokio::sync::Notify;

/// How long a request keeps the place of its connection at most: longer than Timer C of RFC 3261 §16.6.
const UNDER_WAY: Duration = Duration::from_secs(200);

/// What a response begins with.
const SIP: &[u8] = b"SIP/2.0 ";

/// Connections that are looked at for one newcomer. Those that turn out to be in use go to the end of the row.
const LOOKS: usize = 64;

/// Who is counted as one: an IPv4 address, or an IPv6 /64, of which one customer has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin(IpAddr);

/// What a connection was used for. Its own task and those that send over it write this down without a lock.
#[derive(Debug)]
pub(crate) struct Activity {
    /// The number of the last use.
    used: AtomicU64,
    /// Numbers the uses of all connections in their order.
    uses: Arc<AtomicU64>,
    /// Whether a request of its peer was let in, or one was sent to it.
    is_known: AtomicBool,
    /// Requests that wait for their final response, both ways.
    under_way: AtomicU32,
    /// When the last of these began, in milliseconds from `start`.
    began: AtomicU64,
    start: Instant,
    evicted: Notify,
}

/// The connections in the order of their use, strangers apart. The order is put right where it is looked at: a connection stands
/// where its use was when it was looked at last, which is never behind where it should stand.
#[derive(Debug, Default)]
pub(super) struct Order {
    strangers: BTreeMap<u64, ConnectionId>,
    known: BTreeMap<u64, ConnectionId>,
}

/// Whether a connection has a request under way, and so keeps its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    Yes,
    No,
}

/// Where a connection stands in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    is_known: bool,
    used: u64,
}

impl Origin {
    pub(super) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

/// The address, or the network with its length.
impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "{ip}/64"),
        }
    }
}

impl Activity {
    /// A connection that is used now. All connections have the same `uses`.
    pub(super) fn new(uses: &Arc<AtomicU64>) -> Self {
        Self {
            used: AtomicU64::new(uses.fetch_add(1, Ordering::Relaxed)),
            uses: Arc::clone(uses),
            is_known: AtomicBool::new(false),
            under_way: AtomicU32::new(0),
            began: AtomicU64::new(0),
            start: Instant::now(),
            evicted: Notify::new(),
        }
    }

    /// A SIP message came or went.
    pub(crate) fn used(&self) {
        let number = self.uses.fetch_add(1, Ordering::Relaxed);
        self.used.store(number, Ordering::Relaxed);
    }

    /// A keep-alive came, which is a use by a peer whose requests are let in.
    pub(crate) fn kept_alive(&self) {
        if self.is_known.load(Ordering::Relaxed) {
            self.used();
        }
    }

    /// This message came from the peer. What came of it is told to [`Activity::relayed`].
    pub(crate) fn received(&self, message: &[u8]) {
        self.used();
        if is_final(message) {
            self.response();
        }
    }

    /// This message goes to the peer.
    pub(crate) fn sent(&self, message: &[u8]) {
        self.used();
        match message.starts_with(SIP) {
            true if is_final(message) => self.response(),
            true => {}
            // The answer to a keep-alive.
            false if message.starts_with(b"\r\n") => {}
            false => self.let_in(message),
        }
    }

    /// This is what came of a message of the peer: a response, or the request that is relayed.
    pub(crate) fn relayed(&self, message: &[u8]) {
        if !message.starts_with(SIP) {
            self.let_in(message);
        }
    }

    /// This request is relayed: the peer sent it, or gets it.
    pub(crate) fn let_in(&self, request: &[u8]) {
        self.is_known.store(true, Ordering::Relaxed);
        // An ACK has no response.
        if !request.starts_with(b"ACK ") {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.began.store(now, Ordering::Relaxed);
            self.under_way.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn response(&self) {
        let less = |count: u32| count.checked_sub(1);
        // A second final response to a request that was forked on its way finds none.
        let _none_left = self
            .under_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Returns when the place of this connection is needed for another.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Whether it has a request under way at `now`.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        let began = Duration::from_millis(self.began.load(Ordering::Relaxed));
        let is_recent = now.duration_since(self.start).saturating_sub(began) < UNDER_WAY;
        is_recent && self.under_way.load(Ordering::Relaxed) > 0
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            is_known: self.is_known.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
        }
    }
}

impl Standing {
    /// The least goes first: strangers, and among these who was of no use for longest.
    pub(super) fn rank(self) -> (bool, u64) {
        (self.is_known, self.used)
    }
}

/// True for a response that ends its transaction (RFC 3261 §17).
fn is_final(message: &[u8]) -> bool {
    let class = message.strip_prefix(SIP).and_then(|rest| rest.first());
    class.is_some_and(|class| (b'2'..=b'6').contains(class))
}

impl Order {
    pub(super) fn put(&mut self, id: ConnectionId, at: Standing) {
        self.row(at.is_known).insert(at.used, id);
    }

    pub(super) fn take(&mut self, at: Standing) {
        self.row(at.is_known).remove(&at.used);
    }

    /// The one that goes first. `current` gives the standing that a connection has now, which is where it stands from then on, and
    /// whether it stays; none if the connection is gone.
    pub(super) fn first(
        &mut self,
        mut current: impl FnMut(ConnectionId) -> Option<(Standing, Stays)>,
    ) -> Option<ConnectionId> {
        for is_known in [false, true] {
            let mut best: Option<(u64, ConnectionId)> = None;
            for _ in 0..LOOKS {
                let Some((stood, id)) = self.row(is_known).pop_first() else {
                    break;
                };
                let Some((standing, stays)) = current(id) else {
                    continue;
                };
                self.put(id, standing);
                if stays == Stays::Yes || standing.is_known != is_known {
                    continue;
                }
                if standing.used == stood {
                    return Some(id);
                }
                best = best.into_iter().chain([(standing.used, id)]).min();
            }
            // All of them were used since. A stranger goes all the same before one who is known.
            if let Some((_, id)) = best {
                return Some(id);
            }
        }
        None
    }

    fn row(&mut self, is_known: bool) -> &mut BTreeMap<u64, ConnectionId> {
        match is_known {
            true => &mut self.known,
            false => &mut self.strangers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_of_one_customer_is_one_origin() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(
            of("2001:db8:1:2::1"),
            of("2001:db8:1:2:ffff:ffff:ffff:ffff")
        );
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn a_request_is_under_way_until_its_final_response() {
        let activity = Activity::new(&Arc::default());
        let now = Instant::now();
        activity.received(b"INVITE sip:a SIP/2.0\r\n");
        assert!(!activity.standing().is_known && !activity.is_busy(now));
        activity.let_in(b"INVITE sip:a SIP/2.0\r\n");
        activity.sent(b"SIP/2.0 180 Ringing\r\n");
        assert!(activity.standing().is_known && activity.is_busy(now));
        assert!(!activity.is_busy(now + 2 * UNDER_WAY));
        activity.sent(b"SIP/2.0 200 OK\r\n");
        activity.sent(b"SIP/2.0 200 OK\r\n");
        activity.let_in(b"ACK sip:a SIP/2.0\r\n");
        assert!(!activity.is_busy(now));

        activity.sent(b"OPTIONS sip:a SIP/2.0\r\n");
        assert!(activity.is_busy(now));
        activity.received(b"SIP/2.0 404 Not Found\r\n");
        assert!(!activity.is_busy(now));
    }

    #[test]
    fn keep_alives_are_no_use_of_strangers() {
        let activity = Activity::new(&Arc::default());
        let before = activity.standing();
        activity.kept_alive();
        assert_eq!(activity.standing(), before);
        activity.received(b"OPTIONS sip:a SIP/2.0\r\n");
        activity.let_in(b"OPTIONS sip:a SIP/2.0\r\n");
        let before = activity.standing();
        activity.kept_alive();
        assert!(activity.standing().used > before.used);
    }
}
