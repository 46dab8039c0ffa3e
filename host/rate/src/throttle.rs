//! Overload control on the side that sends (RFC 7339 §5, RFC 7415 §3.5): keeps back what a server asks for, the least important requests first.

#[cfg(all(test, loom))]
use loom::sync::atomic::AtomicU64;
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use crate::due::Due;
use crate::second::SECOND;

/// What a server asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// How many requests may be sent.
    pub limit: Limit,
    /// For how long, in milliseconds. 0 ends it.
    pub validity: u32,
    /// Greater than in the order before; `None` if the server numbers none.
    pub sequence: Option<u64>,
}

/// How many requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All but this percentage, at most 100.
    Loss(u8),
    /// At most so many a second; 0: none.
    Rate(u32),
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
    /// The tick in which the order ends, its loss or [`BY_RATE`], and the end of its sequence number: 32, 7 and 25 bits.
    order: AtomicU64,
    /// The end of the sequence number of an order by rate, and the rate: 32 bits each.
    rate: AtomicU64,
    /// What has been sent under orders by rate.
    due: Due,
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

/// In place of a loss: the order limits the rate.
const BY_RATE: u64 = 0x7f;

/// Requests after which earlier ones count half.
const MIX: u64 = 1_000;

/// One request.
const WHOLE: u64 = 10_000;

/// How many requests may have been sent too early for a new one to be sent: TAU1 of RFC 7415 §3.5.2, in intervals.
const TOLERATED_NEW: u64 = 5;

/// The same for an urgent one: TAU2.
const TOLERATED_URGENT: u64 = 10;

impl Throttle {
    /// Obeys an order, unless it is older than the last one. Returns whether it was obeyed.
    pub fn obey(&self, order: Order, now: u64) -> bool {
        let tick = tick(now);
        // Rounded up: no order is shorter than it says.
        let ticks = (u64::from(order.validity) * TICKS).div_ceil(1_000);
        let end = tick.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX));
        let loss = match (order.validity, order.limit) {
            (0, _) => 0,
            (_, Limit::Loss(loss)) => loss.min(100).into(),
            (_, Limit::Rate(_)) => BY_RATE,
        };
        let mut written = 0;
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
            written = u64::from(end) << 32 | loss << SEQUENCE_BITS | sequence;
            Some(written)
        };
        // Whoever sees a rate sees its order, too: see `set_rate`.
        let obeyed = self
            .order
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if obeyed.is_ok()
            && let Limit::Rate(rate) = order.limit
        {
            self.set_rate(rate, written, now);
        }
        obeyed.is_ok()
    }

    /// Sets the rate of an order, unless another one has taken its place meanwhile.
    fn set_rate(&self, rate: u32, order: u64, now: u64) {
        let rate_of_order = (order & SEQUENCE) << 32 | u64::from(rate);
        let next = |_: u64| {
            let is_current = self.order.load(Ordering::Acquire) == order;
            is_current.then_some(rate_of_order)
        };
        let set = self
            .rate
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if set.is_ok() && rate > 0 {
            // What was sent at a lower rate takes no longer to be forgotten than at this one.
            let most = each(rate).saturating_mul(1 + TOLERATED_URGENT);
            self.due.keep_within(now, most);
        }
    }

    /// How many requests may be sent now; `None`: all.
    #[inline]
    pub fn limit(&self, now: u64) -> Option<Limit> {
        let order = self.order.load(Ordering::Acquire);
        if (order >> 32) as u32 <= tick(now) {
            return None;
        }
        match order >> SEQUENCE_BITS & LOSS {
            0 => None,
            BY_RATE => {
                let rate = self.rate.load(Ordering::Relaxed);
                // Otherwise the order is being written.
                (rate >> 32 == order & SEQUENCE).then_some(Limit::Rate(rate as u32))
            }
            loss => Some(Limit::Loss(loss as u8)),
        }
    }

    /// Whether the order has ended so long ago that nothing of it matters.
    pub fn is_forgotten(&self, now: u64) -> bool {
        let end = (self.order.load(Ordering::Relaxed) >> 32) as u32;
        end.saturating_add(MEMORY) <= tick(now)
    }

    /// Forgets everything.
    pub fn clear(&self) {
        for number in [&self.order, &self.rate, &self.mix, &self.owed] {
            number.store(0, Ordering::Relaxed);
        }
        self.due.clear();
    }

    /// Whether a request is kept back; counts it.
    pub fn keeps_back(&self, weight: Weight, now: u64) -> bool {
        match self.limit(now) {
            None => false,
            Some(Limit::Loss(loss)) => self.is_lost(loss, weight),
            Some(Limit::Rate(rate)) => !self.is_sent(rate, weight, now),
        }
    }

    /// Whether a request may be sent at this rate. The leaky bucket of RFC 7415 §3.5.2, with its values: an urgent request may be sent twice as far
    /// ahead as a new one.
    fn is_sent(&self, rate: u32, weight: Weight, now: u64) -> bool {
        let tolerated = match weight {
            Weight::New => TOLERATED_NEW,
            Weight::Urgent => TOLERATED_URGENT,
        };
        let each = each(rate);
        // What is ahead with this request.
        rate > 0 && self.due.take(now, each, each.saturating_mul(1 + tolerated))
    }

    /// The share is met without chance: of requests of one weight, every `n`th is kept back.
    fn is_lost(&self, loss: u8, weight: Weight) -> bool {
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

/// The interval between two requests at this rate, in nanoseconds: T of RFC 7415 §3.5.1. Rounded up: no more are sent than permitted.
fn each(rate: u32) -> u64 {
    SECOND.div_ceil(u64::from(rate.max(1)))
}

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
            limit: Limit::Loss(loss),
            validity,
            sequence: Some(sequence),
        }
    }

    fn loss(throttle: &Throttle, now: u64) -> u8 {
        match throttle.limit(now) {
            None => 0,
            Some(Limit::Loss(loss)) => loss,
            Some(Limit::Rate(rate)) => panic!("a rate: {rate}"),
        }
    }

    fn at_rate(rate: u32, validity: u32, sequence: u64) -> Order {
        Order {
            limit: Limit::Rate(rate),
            ..order(0, validity, sequence)
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
        assert_eq!(loss(&throttle, 0), 0);
        assert_eq!(kept_back(&throttle, 0, 1, 1), (0, 0));
    }

    /// RFC 7339 §4.1, §4.3, §5.5.
    #[test]
    fn an_order_is_obeyed_for_its_time() {
        let throttle = Throttle::default();
        assert!(throttle.obey(order(20, 500, 1), 0));
        assert_eq!(loss(&throttle, 0), 20);
        assert_eq!(loss(&throttle, 499 * MILLI), 20);
        assert_eq!(loss(&throttle, 600 * MILLI), 0);
        assert_eq!(kept_back(&throttle, 0, 1, 0), (40, 0));
        assert!(throttle.obey(order(20, 0, 2), MILLI));
        assert_eq!(loss(&throttle, MILLI), 0, "validity 0 ends it at once");
    }

    /// RFC 7339 §4.4: responses may come in another order than they were sent in.
    #[test]
    fn an_older_order_is_ignored_and_a_server_that_starts_anew_is_not() {
        let throttle = Throttle::default();
        assert!(throttle.obey(order(50, 1_000, 128_232_161_578_200), 0));
        assert!(!throttle.obey(order(10, 1_000, 128_232_161_578_199), MILLI));
        assert!(!throttle.obey(order(10, 1_000, 128_232_161_578_200), MILLI));
        assert_eq!(loss(&throttle, MILLI), 50);
        assert!(throttle.obey(order(10, 1_000, 128_232_161_578_201), MILLI));
        assert_eq!(loss(&throttle, MILLI), 10);
        assert!(
            throttle.obey(order(30, 1_000, 5), 60 * SECOND),
            "after a minute"
        );
        assert_eq!(loss(&throttle, 60 * SECOND), 30);
        let unnumbered = Order {
            sequence: None,
            ..order(40, 1_000, 0)
        };
        assert!(throttle.obey(unnumbered, 60 * SECOND));
        assert_eq!(loss(&throttle, 60 * SECOND), 40);
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
        assert_eq!(loss(&throttle, 0), 0);
    }

    /// The bucket with two tolerances of RFC 7415 §3.5.2, with the names that it has there.
    struct Bucket {
        t: i64,
        x: i64,
        lct: i64,
    }

    impl Bucket {
        fn sends(&mut self, weight: Weight, ta: i64) -> bool {
            let (tau1, tau2) = (5 * self.t, 10 * self.t);
            let xp = self.x - (ta - self.lct);
            let is_sent = xp <= tau1 || (weight == Weight::Urgent && xp <= tau2);
            if is_sent {
                self.x = xp.max(0) + self.t;
                self.lct = ta;
            }
            is_sent
        }
    }

    #[test]
    fn requests_are_sent_as_the_leaky_bucket_of_the_standard_sends_them() {
        // Numbers that look like chance, the same in each run.
        let mut state = 1_u64;
        let mut chance = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for rate in [1, 7, 150, 3_000, 1_000_000] {
            let throttle = Throttle::default();
            let mut bucket = Bucket {
                t: each(rate) as i64,
                x: 0,
                lct: 0,
            };
            let (mut now, mut sent) = (0, 0);
            for number in 1..20_000 {
                now += chance(each(rate));
                // The order is repeated, so that it does not end.
                throttle.obey(at_rate(rate, 60_000, number), now);
                let weight = match chance(4) {
                    0 => Weight::Urgent,
                    _ => Weight::New,
                };
                let is_sent = !throttle.keeps_back(weight, now);
                assert_eq!(is_sent, bucket.sends(weight, now as i64), "{rate} {number}");
                sent += u64::from(is_sent);
            }
            assert!(sent <= now / each(rate) + 12, "{sent} in {now} ns");
            assert!(sent + 12 >= now / each(rate), "{sent} in {now} ns");
        }
    }

    #[test]
    fn a_rate_is_an_upper_bound_and_what_is_urgent_goes_first() {
        let throttle = Throttle::default();
        assert!(throttle.obey(at_rate(100, 1_000, 1), 0));
        assert_eq!(throttle.limit(0), Some(Limit::Rate(100)));
        let sent = |weight, now| {
            (0..50)
                .filter(|_| !throttle.keeps_back(weight, now))
                .count()
        };
        assert_eq!(sent(Weight::New, 0), 6);
        assert_eq!(sent(Weight::Urgent, 0), 5);
        assert_eq!(sent(Weight::Urgent, 20 * MILLI), 2);
        assert_eq!(sent(Weight::New, 20 * MILLI), 0);
        assert_eq!(throttle.limit(2 * SECOND), None);
        assert_eq!(kept_back(&throttle, 2 * SECOND, 1, 1), (0, 0));
    }

    /// RFC 7415 §3.5.1: 0 stops everything, validity 0 ends it.
    #[test]
    fn a_rate_of_nothing_stops_all_until_it_ends() {
        let throttle = Throttle::default();
        throttle.obey(at_rate(0, 1_000, 1), 0);
        assert_eq!(kept_back(&throttle, 0, 1, 1), (200, 200));
        throttle.obey(at_rate(0, 0, 2), MILLI);
        assert_eq!(throttle.limit(MILLI), None);
        assert_eq!(kept_back(&throttle, MILLI, 1, 1), (0, 0));
    }

    #[test]
    fn a_server_may_change_its_rate_and_its_algorithm() {
        let throttle = Throttle::default();
        throttle.obey(at_rate(1, 60_000, 1), 0);
        let sent = |now| {
            (0..50)
                .filter(|_| !throttle.keeps_back(Weight::New, now))
                .count()
        };
        assert_eq!(sent(0), 6);
        throttle.obey(at_rate(1_000, 60_000, 2), MILLI);
        // Ten intervals of a millisecond later nothing is left of six seconds.
        assert!((4..=7).contains(&sent(12 * MILLI)));
        assert!(!throttle.obey(at_rate(7, 60_000, 1), MILLI));
        assert_eq!(throttle.limit(MILLI), Some(Limit::Rate(1_000)));
        throttle.obey(order(100, 60_000, 3), MILLI);
        assert_eq!(loss(&throttle, MILLI), 100);
        throttle.obey(at_rate(500, 60_000, 4), MILLI);
        assert_eq!(throttle.limit(MILLI), Some(Limit::Rate(500)));
        throttle.clear();
        assert_eq!(throttle.limit(MILLI), None);
    }
}
