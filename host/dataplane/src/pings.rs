//! What workers notice of the pings that the control side has them send: answers, and requests that were not delivered.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_queue::ArrayQueue;
use tokio::sync::Notify;

/// Most events that wait for the control side. Nobody but the pinged destinations can cause one.
const MOST_WAITING: usize = 4_096;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingEvent {
    /// The number in its branch.
    pub number: u64,
    /// When it was noticed.
    pub at: Instant,
    /// The status code of the answer; `None` if the ping was not delivered.
    pub code: Option<u16>,
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
    pub(crate) fn note(&self, number: u64, code: Option<u16>) {
        let event = PingEvent {
            number,
            at: Instant::now(),
            code,
        };
        let _lost = self.events.push(event);
        self.is_filled.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_wait_for_the_control_side_and_no_more_than_fit() {
        let pings = Pings::default();
        for number in 0..MOST_WAITING as u64 + 5 {
            pings.note(number, Some(200));
        }
        for number in 0..MOST_WAITING as u64 {
            assert_eq!(pings.next().await.number, number);
        }
        let later = async {
            tokio::task::yield_now().await;
            pings.note(9, None);
        };
        let (event, ()) = tokio::join!(pings.next(), later);
        assert_eq!((event.number, event.code), (9, None));
    }
}
