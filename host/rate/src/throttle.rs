//! Overload control on the side that sends (RFC 7339 §5): keeps back the share of requests that a server asks for, the least important ones first.

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::second::SECOND;

/// What a server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Percentage of requests to keep back, at most 100.
    pub loss: u8,
    /// For how long, in milliseconds. 0 ends it.
    pub validity: u32,
    /// Greater than in the order before; `None` if the server numbers none.
    pub sequence: Option<u64>,
}

/// How important a request is (RFC 7339 §5.10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// A new request.
    New,
    /// A request within a dialog, or an emergency: kept back only if all new requests together are too few.
    Urgent,
}

/// What is kept back from one server, for all workers.
#[derive(Debug, Default)]
pub struct Throttle {
    /// The tick in which the order ends, its loss, and the end of its sequence number: 32, 7 and 25 bits.
    order: AtomicU64,
    /// New and urgent requests of late: 32 bits each.
    mix: AtomicU64,
    /// What has been kept back too little of new and of urgent requests, in ten-thousandths of a request: 32 bits each.
    owed: AtomicU64,
}

/// Ticks in a second.
const TICKS: u64 = 32;

/// Ticks after the end of an order in which an older one is still recognised as older.
const MEMORY: u32 = 32 * TICKS as u32;

const SEQUENCE_BITS: u32 = 25;
const SEQUENCE: u64 = (1 << SEQUENCE_BITS) - 1;
const LOSS: u64 = 0x7f;

/// Requests after which earlier ones count half.
const MIX: u64 = 1_000;

/// One request.
const WHOLE: u64 = 10_000;

impl Throttle {
    /// Obeys an order, unless it is older than the last one. Returns whether it was obeyed.
    pub fn obey(&self, order: Order, now: u64) -> bool {
        let tick = tick(now);
        // Rounded up: no order is shorter than it says.
        let ticks = (u64::from(order.validity) * TICKS).div_ceil(1_000);
        let end = tick.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX));
        let loss = match order.validity {
            0 => 0,
            _ => u64::from(order.loss.min(100)),
        };
        let next = |old: u64| {
            let is_remembered = ((old >> 32) as u32).saturating_add(MEMORY) > tick;
            let has_number = old & SEQUENCE != 0;
            let sequence = match order.sequence {
                Some(sequence)
                    if is_remembered && has_number && !is_newer(sequence, old & SEQUENCE) =>
                {
                    return None;
                }
                Some(sequence) => sequence & SEQUENCE,
                None => old & SEQUENCE,
            };
            Some(u64::from(end) << 32 | loss << SEQUENCE_BITS | sequence)
        };
        let obeyed = self
            .order
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        obeyed.is_ok()
    }

    /// The percentage that is to be kept back now.
    #[inline]
    pub fn loss(&self, now: u64) -> u8 {
        let order = self.order.load(Ordering::Relaxed);
        match (order >> 32) as u32 > tick(now) {
            true => (order >> SEQUENCE_BITS & LOSS) as u8,
            false => 0,
        }
    }

    /// Whether the order has ended so long ago that nothing of it matters.
    pub fn is_forgotten(&self, now: u64) -> bool {
        let end = (self.order.load(Ordering::Relaxed) >> 32) as u32;
        end.saturating_add(MEMORY) <= tick(now)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for number in [&self.order, &self.mix, &self.owed] {
            number.store(0, Ordering::Relaxed);
        }
    }

    /// Whether a request is kept back; counts it. The share is met without chance: of requests of one weight, every `n`th is kept back.
    pub fn keeps_back(&self, weight: Weight, now: u64) -> bool {
        let loss = self.loss(now);
        if loss == 0 {
            return false;
        }
        let share = share(loss, self.count(weight), weight);
        let shift = shift_of(weight);
        let mut is_kept_back = false;
        let next = |owed: u64| {
            let sum = (owed >> shift & HALF) + share;
            is_kept_back = sum >= WHOLE;
            let rest = if is_kept_back { sum - WHOLE } else { sum };
            Some(owed & !(HALF << shift) | rest << shift)
        };
        let _always = self
            .owed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        is_kept_back
    }

    /// Counts a request. Returns the numbers of new and of urgent requests, this one included.
    fn count(&self, weight: Weight) -> (u64, u64) {
        let mut counted = (0, 0);
        let next = |mix: u64| {
            let (mut new, mut urgent) = (mix >> 32, mix & HALF);
            if new + urgent >= MIX {
                (new, urgent) = (new / 2, urgent / 2);
            }
            match weight {
                Weight::New => new += 1,
                Weight::Urgent => urgent += 1,
            }
            counted = (new, urgent);
            Some(new << 32 | urgent)
        };
        let _always = self
            .mix
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        counted
    }
}

const HALF: u64 = 0xffff_ffff;

fn shift_of(weight: Weight) -> u32 {
    match weight {
        Weight::New => 32,
        Weight::Urgent => 0,
    }
}

/// The share of requests of this weight that is kept back, in ten-thousandths, so that the loss is met with as few urgent ones as possible (RFC 7339
/// §7.2).
fn share(loss: u8, (new, urgent): (u64, u64), weight: Weight) -> u64 {
    // In hundredths of a request.
    let wanted = u64::from(loss) * (new + urgent);
    let of_new = wanted.min(100 * new);
    let (part, all) = match weight {
        Weight::New => (of_new, new),
        Weight::Urgent => (wanted - of_new, urgent),
    };
    (part * (WHOLE / 100))
        .checked_div(all)
        .unwrap_or(0)
        .min(WHOLE)
}

/// Whether a sequence number is later than one of which the last bits are known.
fn is_newer(sequence: u64, known: u64) -> bool {
    let ahead = sequence.wrapping_sub(known) & SEQUENCE;
    ahead != 0 && ahead <= SEQUENCE / 2
}

fn tick(now: u64) -> u32 {
    let tick = now / (SECOND / TICKS);
    u32::try_from(tick).unwrap_or(u32::MAX).saturating_add(1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MILLI: u64 = SECOND / 1_000;

    fn order(loss: u8, validity: u32, sequence: u64) -> Order {
        Order {
            loss,
            validity,
            sequence: Some(sequence),
        }
    }

    /// How many of these requests are kept back: new and urgent ones, one after the other in this proportion.
    fn kept_back(throttle: &Throttle, now: u64, new: usize, urgent: usize) -> (usize, usize) {
        let mut kept = (0, 0);
        for _ in 0..200 {
            for _ in 0..new {
                kept.0 += usize::from(throttle.keeps_back(Weight::New, now));
            }
            for _ in 0..urgent {
                kept.1 += usize::from(throttle.keeps_back(Weight::Urgent, now));
            }
        }
        kept
    }

    #[test]
    fn nothing_is_kept_back_without_an_order() {
        let throttle = Throttle::default();
        assert_eq!(throttle.loss(0), 0);
        assert_eq!(kept_back(&throttle, 0, 1, 1), (0, 0));
    }

    /// RFC 7339 §4.1, §4.3, §5.5.
    #[test]
    fn an_order_is_obeyed_for_its_time() {
        let throttle = Throttle::default();
        assert!(throttle.obey(order(20, 500, 1), 0));
        assert_eq!(throttle.loss(0), 20);
        assert_eq!(throttle.loss(499 * MILLI), 20);
        assert_eq!(throttle.loss(600 * MILLI), 0);
        assert_eq!(kept_back(&throttle, 0, 1, 0), (40, 0));
        assert!(throttle.obey(order(20, 0, 2), MILLI));
        assert_eq!(throttle.loss(MILLI), 0, "validity 0 ends it at once");
    }

    /// RFC 7339 §4.4: responses may come in another order than they were sent in.
    #[test]
    fn an_older_order_is_ignored_and_a_server_that_starts_anew_is_not() {
        let throttle = Throttle::default();
        assert!(throttle.obey(order(50, 1_000, 128_232_161_578_200), 0));
        assert!(!throttle.obey(order(10, 1_000, 128_232_161_578_199), MILLI));
        assert!(!throttle.obey(order(10, 1_000, 128_232_161_578_200), MILLI));
        assert_eq!(throttle.loss(MILLI), 50);
        assert!(throttle.obey(order(10, 1_000, 128_232_161_578_201), MILLI));
        assert_eq!(throttle.loss(MILLI), 10);
        assert!(
            throttle.obey(order(30, 1_000, 5), 60 * SECOND),
            "after a minute"
        );
        assert_eq!(throttle.loss(60 * SECOND), 30);
        let unnumbered = Order {
            sequence: None,
            ..order(40, 1_000, 0)
        };
        assert!(throttle.obey(unnumbered, 60 * SECOND));
        assert_eq!(throttle.loss(60 * SECOND), 40);
    }

    /// RFC 7339 §7.2.
    #[test]
    fn new_requests_are_kept_back_first_and_the_share_is_met() {
        let kept = |loss, new, urgent| {
            let throttle = Throttle::default();
            throttle.obey(order(loss, 1_000, 1), 0);
            // The proportion is known after the first requests.
            kept_back(&throttle, 0, new, urgent);
            kept_back(&throttle, 0, new, urgent)
        };
        let is_about = |number: usize, wanted: usize| number.abs_diff(wanted) <= 2 + wanted / 100;
        // 10 % of 200 new and 200 urgent ones: 40 new ones.
        let (new, urgent) = kept(10, 1, 1);
        assert!(is_about(new, 40) && urgent == 0, "{new} {urgent}");
        // 60 % of them: all new ones, and 40 urgent ones.
        let (new, urgent) = kept(60, 1, 1);
        assert!(is_about(new, 200) && is_about(urgent, 40), "{new} {urgent}");
        let (new, urgent) = kept(25, 3, 1);
        assert!(is_about(new, 200) && urgent == 0, "{new} {urgent}");
        assert_eq!(kept(100, 1, 1), (200, 200));
        let (new, urgent) = kept(30, 0, 1);
        assert!(new == 0 && is_about(urgent, 60), "{new} {urgent}");
    }

    #[test]
    fn a_throttle_is_forgotten_long_after_its_order() {
        let throttle = Throttle::default();
        assert!(
            !throttle.is_forgotten(0),
            "the memory of nothing lasts as long"
        );
        throttle.obey(order(20, 1_000, 1), 0);
        assert!(!throttle.is_forgotten(10 * SECOND));
        assert!(throttle.is_forgotten(40 * SECOND));
        throttle.clear();
        assert_eq!(throttle.loss(0), 0);
    }
}
