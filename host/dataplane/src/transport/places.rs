//! The limits on stream connections, per address and in total, and the choice of the connection to evict for a new one.
//!
//! A new connection is refused only if every connection has a request in progress. Otherwise the connection that has been unused for
//! longest is evicted: first those of strangers, from and to whom no request has been relayed. Keep-alives of a stranger do not count as
//! use.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_sip::ConnectionId;
use tokio::sync::Notify;

/// Maximum time for which a request protects its connection: longer than Timer C of RFC 3261 §16.6.
const UNDER_WAY: Duration = Duration::from_secs(200);

/// A connection without a complete message in either direction for this time is closed. Keep-alives count as messages (RFC 5626 sends them
/// every 2 minutes at most).
pub const IDLE: Duration = Duration::from_secs(300);

/// The same after a registration: the usual time until its client registers again, and a tenth more. Without its connection, the client could not be
/// reached meanwhile.
const REGISTERED: Duration = Duration::from_secs(3_960);

/// Time for a keep-alive beyond the Flow-Timer that was announced to its sender (RFC 5626 §5.4).
const GRACE: Duration = Duration::from_secs(30);

/// The first bytes of a response.
const SIP: &[u8] = b"SIP/2.0 ";

/// Connections examined for one new connection. Those that turn out to be in use move to the end of the queue.
const LOOKS: usize = 64;

/// The unit of the limit per address: an IPv4 address, or an IPv6 /64, which one customer controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

/// The use of a connection, updated without a lock by its own task and by those that send over it.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Sequence number of the last use.
    used: AtomicU64,
    /// Sequence of the uses of all connections.
    uses: Arc<AtomicU64>,
    /// Whether a request from or to its peer has been relayed.
    is_known: AtomicBool,
    /// Requests without a final response yet, in both directions.
    under_way: AtomicU32,
    /// Start of the last of these requests, in milliseconds since `start`.
    began: AtomicU64,
    /// When the last registration over it was accepted, in milliseconds since `start`, plus 1; 0 for none.
    registered: AtomicU64,
    /// The Flow-Timer of that registration, in seconds; 0 for none.
    flow_timer: AtomicU32,
    start: Instant,
    /// Whether input waits: a part of a message, or a request whose turn has not come.
    has_input: AtomicBool,
    evicted: Notify,
}

/// The connections in the order of their use, strangers separately. The order is corrected lazily: a connection is at the position of its
/// use at the last look, which is never behind its correct position.
#[derive(Debug, Default)]
pub(super) struct Order {
    strangers: BTreeMap<u64, ConnectionId>,
    known: BTreeMap<u64, ConnectionId>,
}

/// Whether a connection has a request in progress, which protects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stays {
    Yes,
    No,
}

/// The position of a connection in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    is_known: bool,
    used: u64,
}

impl Origin {
    pub(crate) fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        })
    }
}

/// The address, or the network with its prefix length.
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
            registered: AtomicU64::new(0),
            flow_timer: AtomicU32::new(0),
            start: Instant::now(),
            has_input: AtomicBool::new(false),
            evicted: Notify::new(),
        }
    }

    /// Notes that a SIP message was received or sent.
    pub(crate) fn used(&self) {
        let number = self.uses.fetch_add(1, Ordering::Relaxed);
        self.used.store(number, Ordering::Relaxed);
    }

    /// Notes a keep-alive, which counts as a use if requests of the peer have been relayed.
    pub(crate) fn kept_alive(&self) {
        if self.is_known.load(Ordering::Relaxed) {
            self.used();
        }
    }

    /// Notes whether input waits.
    pub(crate) fn set_input(&self, waits: bool) {
        self.has_input.store(waits, Ordering::Relaxed);
    }

    /// Whether input waits.
    pub(super) fn has_input(&self) -> bool {
        self.has_input.load(Ordering::Relaxed)
    }

    /// Notes a message from the peer. Its outcome is reported to [`Activity::relayed`].
    pub(crate) fn received(&self, message: &[u8]) {
        self.used();
        if is_counted(message) {
            self.response();
        }
    }

    /// How long the connection may be without a message or a keep-alive now. A client that was sent its Flow-Timer sends keep-alives within
    /// it.
    pub(crate) fn idle(&self) -> Duration {
        match self.flow_timer.load(Ordering::Relaxed) {
            0 => self.idle_with_pings(),
            seconds => Duration::from_secs(seconds.into()) + GRACE,
        }
    }

    /// The same for a connection that the host itself keeps alive, whatever the Flow-Timer.
    pub(crate) fn idle_with_pings(&self) -> Duration {
        match self.registered.load(Ordering::Relaxed) {
            0 => IDLE,
            since => {
                let since = Duration::from_millis(since - 1);
                let rest = REGISTERED.saturating_sub(self.start.elapsed().saturating_sub(since));
                rest.max(IDLE)
            }
        }
    }

    /// Notes a message to the peer.
    pub(crate) fn sent(&self, message: &[u8]) {
        self.used();
        match message.starts_with(SIP) {
            true if is_final(message) => {
                let method = method_of(message);
                if method != b"CANCEL" {
                    self.response();
                }
                if method == b"REGISTER" && is_registered(message) {
                    let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
                    self.registered
                        .store(now.saturating_add(1), Ordering::Relaxed);
                    let seconds = flow_timer_of(message).unwrap_or_default();
                    self.flow_timer.store(seconds, Ordering::Relaxed);
                }
            }
            true => {}
            // The response to a keep-alive.
            false if message.starts_with(b"\r\n") => {}
            false => self.let_in(message),
        }
    }

    /// Notes the outcome of a message from the peer: a response, or the relayed request.
    pub(crate) fn relayed(&self, message: &[u8]) {
        if !message.starts_with(SIP) {
            self.let_in(message);
        }
    }

    /// Notes that this request is relayed, from or to the peer.
    pub(crate) fn let_in(&self, request: &[u8]) {
        self.is_known.store(true, Ordering::Relaxed);
        // An ACK has no response, and a CANCEL belongs to a request that is counted.
        if !request.starts_with(b"ACK ") && !request.starts_with(b"CANCEL ") {
            let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.began.store(now, Ordering::Relaxed);
            self.under_way.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn response(&self) {
        let less = |count: u32| count.checked_sub(1);
        // A second final response, to a request that was forked downstream, finds no request in progress.
        let _none_left = self
            .under_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Completes when the connection is evicted.
    pub(crate) async fn evicted(&self) {
        self.evicted.notified().await;
    }

    pub(super) fn evict(&self) {
        self.evicted.notify_one();
    }

    /// Whether a request is in progress at `now`.
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
    /// The least is evicted first: strangers, and among these the one unused for longest.
    pub(super) fn rank(self) -> (bool, u64) {
        (self.is_known, self.used)
    }
}

/// Whether this is the final response to a request that [`Activity::let_in`] counts.
fn is_counted(message: &[u8]) -> bool {
    is_final(message) && method_of(message) != b"CANCEL"
}

/// The method in the CSeq of a response; empty if it cannot be found.
fn method_of(response: &[u8]) -> &[u8] {
    let cseq = fields(response).find(|(name, _)| name.eq_ignore_ascii_case(b"CSeq"));
    let words = cseq.map(|(_, value)| value.rsplit(|byte| matches!(byte, b' ' | b'\t')));
    words.and_then(|mut words| words.next()).unwrap_or_default()
}

/// Whether the response to a REGISTER says that a registration is in effect: it names the contacts (RFC 3261 §10.3).
fn is_registered(response: &[u8]) -> bool {
    let is_contact =
        |name: &[u8]| name.eq_ignore_ascii_case(b"Contact") || name.eq_ignore_ascii_case(b"m");
    response.starts_with(b"SIP/2.0 2") && fields(response).any(|(name, _)| is_contact(name))
}

/// The seconds in the Flow-Timer of a response.
fn flow_timer_of(response: &[u8]) -> Option<u32> {
    let (_, value) = fields(response).find(|(name, _)| name.eq_ignore_ascii_case(b"Flow-Timer"))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The lines of the header, as name and value.
fn fields(message: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let lines = message.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let head = lines.take_while(|line| !line.is_empty());
    head.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((
            line[..colon].trim_ascii_end(),
            line[colon + 1..].trim_ascii(),
        ))
    })
}

/// Whether a response is final (RFC 3261 §17).
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

    /// The connection to evict. `current` returns the current position of a connection, which becomes its stored position, and whether it
    /// is protected; `None` if the connection no longer exists.
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
            // All of them have been used since. A stranger is still evicted before a known peer.
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
    fn a_cancel_and_its_response_do_not_count() {
        let activity = Activity::new(&Arc::default());
        let now = Instant::now();
        activity.let_in(b"INVITE sip:a SIP/2.0\r\n");
        for response in [
            &b"SIP/2.0 200 OK\r\nCSeq: 1 CANCEL\r\n\r\n"[..],
            b"SIP/2.0 481 Gone\r\nVia: x\r\ncseq :\t2\tCANCEL\r\nTo: y\r\n\r\n",
        ] {
            activity.sent(response);
            activity.received(response);
            assert!(activity.is_busy(now));
        }
        activity.let_in(b"CANCEL sip:a SIP/2.0\r\n");
        activity
            .sent(b"SIP/2.0 487 Request Terminated\r\nCSeq: 1 INVITE\r\n\r\nCSeq: 1 CANCEL\r\n");
        assert!(!activity.is_busy(now));
    }

    #[test]
    fn a_registered_connection_may_be_idle_for_longer() {
        let activity = Activity::new(&Arc::default());
        for other in [
            &b"SIP/2.0 401 Unauthorized\r\nCSeq: 1 REGISTER\r\nContact: <sip:a>\r\n\r\n"[..],
            // The registrar names no contact after the last one was removed.
            b"SIP/2.0 200 OK\r\nCSeq: 2 REGISTER\r\n\r\nContact: <sip:a>\r\n",
            b"SIP/2.0 200 OK\r\nCSeq: 3 INVITE\r\nContact: <sip:a>\r\n\r\n",
        ] {
            activity.sent(other);
            assert_eq!(activity.idle(), IDLE);
        }
        activity.sent(b"SIP/2.0 200 OK\r\nCSeq: 4 REGISTER\r\nm: <sip:a>\r\n\r\n");
        assert!(activity.idle() > REGISTERED / 2);
    }

    #[test]
    fn a_connection_with_a_flow_timer_is_idle_soon_after_it() {
        let activity = Activity::new(&Arc::default());
        let accepted = |line: &str| {
            let text = format!(
                "SIP/2.0 200 OK\r\nCSeq: 4 REGISTER\r\nContact: <sip:a>\r\n{line}\r\nFlow-Timer: 7\r\n"
            );
            activity.sent(text.as_bytes());
        };
        accepted("flow-timer: 120\r\n");
        assert_eq!(activity.idle(), Duration::from_secs(150));
        assert!(activity.idle_with_pings() > REGISTERED / 2);
        accepted("Flow-Timer: nonsense\r\n");
        assert!(activity.idle() > REGISTERED / 2);
        accepted("Flow-Timer: 4294967295\r\n");
        assert!(activity.idle() > REGISTERED);
        accepted("");
        assert!(activity.idle() > REGISTERED / 2 && activity.idle() <= REGISTERED);
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
