//! What workers notice of the pings that the control side has them send: answers, and requests that were not delivered.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use portcullis_text::clean;
use tokio::sync::Notify;

/// Most events that wait for the control side. Nobody but the pinged destinations can cause one.
const MOST_WAITING: usize = 4_096;

/// Most characters of a reason: a peer writes the names in its certificate.
const LONGEST_REASON: usize = 300;

/// The way of pings from workers to the control side, and what has become of them.
#[derive(Debug)]
pub struct Pings {
    events: ArrayQueue<PingEvent>,
    is_filled: Notify,
    /// Whether this process has the sockets: answers to another one do not come here.
    is_serving: AtomicBool,
    /// What has become of pings.
    pub results: PingResults,
}

/// What a worker has noticed of a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingEvent {
    /// The number in its branch.
    pub number: u64,
    /// When it was noticed.
    pub at: Instant,
    /// What it was.
    pub fate: PingFate,
}

/// What has become of a ping that a worker has sent, or should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PingFate {
    /// A response with this status code.
    Answered(u16),
    /// It was not delivered, for this reason if it is known, escaped for people: the connection failed, or the certificate of the peer is not accepted.
    Undelivered(Option<Box<str>>),
}

/// Numbers of pings by what has become of them.
#[derive(Debug, Default)]
pub struct PingResults {
    /// Answered with a code that counts as a success.
    pub good: AtomicU64,
    /// Answered with another code.
    pub bad: AtomicU64,
    /// Not answered in time.
    pub silent: AtomicU64,
    /// Not sent or not delivered.
    pub unreachable: AtomicU64,
}

impl Default for Pings {
    fn default() -> Self {
        Self {
            events: ArrayQueue::new(MOST_WAITING),
            is_filled: Notify::new(),
            is_serving: AtomicBool::new(false),
            results: PingResults::default(),
        }
    }
}

impl Pings {
    /// Whether this process has the sockets.
    pub fn is_serving(&self) -> bool {
        self.is_serving.load(Ordering::Relaxed)
    }

    /// Sets whether this process has the sockets: it pings as long as it does.
    pub fn set_serving(&self, is_serving: bool) {
        self.is_serving.store(is_serving, Ordering::Relaxed);
    }

    /// The next event; waits for one.
    pub async fn next(&self) -> PingEvent {
        loop {
            // Without an event, one that comes before the wait leaves a permit.
            if let Some(event) = self.next_now() {
                return event;
            }
            self.is_filled.notified().await;
        }
    }

    /// The next event, if there is one.
    pub fn next_now(&self) -> Option<PingEvent> {
        self.events.pop()
    }

    /// Notes an event, without a lock. If the control side is too slow, the event is lost, and the ping counts as silent.
    pub(crate) fn note(&self, number: u64, fate: PingFate) {
        let event = PingEvent {
            number,
            at: Instant::now(),
            fate,
        };
        let _lost = self.events.push(event);
        self.is_filled.notify_one();
    }
}

impl PingFate {
    /// One that was not delivered for this reason.
    pub(crate) fn undelivered(why: Option<&dyn Display>) -> Self {
        let shown = |why: &dyn Display| {
            let why = why.to_string();
            let shown: String = clean(&why).chars().take(LONGEST_REASON).collect();
            shown.into_boxed_str()
        };
        Self::Undelivered(why.map(shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_wait_for_the_control_side_and_no_more_than_fit() {
        let pings = Pings::default();
        for number in 0..MOST_WAITING as u64 + 5 {
            pings.note(number, PingFate::Answered(200));
        }
        for number in 0..MOST_WAITING as u64 {
            assert_eq!(pings.next().await.number, number);
        }
        let later = async {
            tokio::task::yield_now().await;
            pings.note(9, PingFate::undelivered(None));
        };
        let (event, ()) = tokio::join!(pings.next(), later);
        let fate = PingFate::Undelivered(None);
        assert_eq!((event.number, event.fate), (9, fate));
    }

    #[test]
    fn a_reason_is_short_and_harmless() {
        let reason = |why: &dyn Display| match PingFate::undelivered(Some(why)) {
            PingFate::Undelivered(Some(reason)) => reason.into_string(),
            other @ (PingFate::Answered(_) | PingFate::Undelivered(None)) => panic!("{other:?}"),
        };
        assert_eq!(
            reason(&"not valid for\n\u{1b}[31m"),
            "not valid for\\n\\u{1b}[31m"
        );
        assert_eq!(reason(&"x".repeat(10_000)).len(), LONGEST_REASON);
    }
}
