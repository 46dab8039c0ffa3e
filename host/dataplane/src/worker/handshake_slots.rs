//! Who may begin a TLS handshake: bounds of their number and rate.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use portcullis_config::StreamsConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pipeline::Answers;
use crate::transport::Origin;

/// How many seconds' worth of handshakes an address may begin at once.
const BURST: u32 = 2;

/// The handshakes of one worker.
pub(super) struct Slots {
    all: Arc<Semaphore>,
    by_address: RefCell<HashMap<Origin, usize>>,
    per_address: usize,
    rates: Answers,
}

/// The place of one handshake.
pub(super) struct Slot {
    slots: Rc<Slots>,
    origin: Origin,
    _permit: OwnedSemaphorePermit,
}

/// Why a handshake is not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The address has too many in progress.
    Number,
    /// The address has begun too many a moment ago.
    Rate,
}

impl Slots {
    pub(super) fn new(bounds: &StreamsConfig, now: Instant) -> Self {
        let per_second = bounds.handshakes_per_second;
        Self {
            all: Arc::new(Semaphore::new(bounds.handshakes)),
            by_address: RefCell::default(),
            per_address: bounds.handshakes_per_address,
            rates: Answers::new(per_second, per_second.saturating_mul(BURST), now),
        }
    }

    /// Waits until there is room for one more.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let all = Arc::clone(&self.all);
        all.acquire_owned().await.ok()
    }

    /// Takes a place for this address. `is_known`: the address is in the table, or that of a next hop, and no rate applies to it.
    pub(super) fn take(
        self: &Rc<Self>,
        permit: OwnedSemaphorePermit,
        ip: IpAddr,
        is_known: bool,
        now: Instant,
    ) -> Result<Slot, Refusal> {
        let origin = Origin::of(ip);
        let mut by_address = self.by_address.borrow_mut();
        let held = by_address.get(&origin).copied().unwrap_or_default();
        if held >= self.per_address {
            return Err(Refusal::Number);
        }
        if !is_known && !self.rates.take(ip, now) {
            return Err(Refusal::Rate);
        }
        by_address.insert(origin, held + 1);
        Ok(Slot {
            slots: Rc::clone(self),
            origin,
            _permit: permit,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_address = self.slots.by_address.borrow_mut();
        if let Some(held) = by_address.get_mut(&self.origin) {
            *held -= 1;
            if *held == 0 {
                by_address.remove(&self.origin);
            }
        }
    }
}

impl Refusal {
    pub(super) fn detail(self) -> &'static str {
        match self {
            Self::Number => {
                "too many TLS handshakes of this address are in progress: `handshakes-per-address` in [streams]"
            }
            Self::Rate => {
                "this address begins too many TLS handshakes: `handshakes-per-second` in [streams]"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_has_a_number_and_a_rate_of_handshakes() {
        let bounds = StreamsConfig {
            handshakes: 10,
            handshakes_per_address: 3,
            handshakes_per_second: 2,
            ..StreamsConfig::default()
        };
        let now = Instant::now();
        let slots = Rc::new(Slots::new(&bounds, now));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut held = Vec::new();
        for _ in 0..3 {
            let permit = slots.room().await.unwrap();
            held.push(
                slots
                    .take(permit, ip("192.0.2.1"), false, now)
                    .ok()
                    .unwrap(),
            );
        }
        let take = |text: &'static str, is_known| {
            let slots = Rc::clone(&slots);
            async move {
                let permit = slots.room().await.unwrap();
                slots.take(permit, ip(text), is_known, now).map(drop)
            }
        };
        assert_eq!(take("192.0.2.1", true).await, Err(Refusal::Number));
        assert_eq!(take("192.0.2.2", false).await, Ok(()));
        held.clear();
        assert_eq!(take("192.0.2.1", false).await, Ok(()));
        assert_eq!(take("192.0.2.1", false).await, Err(Refusal::Rate));
        assert_eq!(take("192.0.2.1", true).await, Ok(()));
        assert!(slots.by_address.borrow().is_empty());
        assert_eq!(slots.all.available_permits(), 10);
    }
}
