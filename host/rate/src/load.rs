//! Overload control on the side that receives (RFC 7339 §5.3, RFC 7415 §3.4): how many requests clients are asked to keep back, or may send.

/// What clients are asked to keep back: more while there is too much, less afterwards, in small steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Percentage.
    loss: u8,
}

/// What is added while there is too much, and taken away while there is not, in percent.
const STEP: u8 = 5;

/// The most that clients are asked to keep back: with nothing coming in, nobody would notice that there is room again.
const MOST: u8 = 95;

impl Load {
    /// The percentage after a step of time. `is_overloaded`: in this step, there was more than the host could serve.
    pub fn step(&mut self, is_overloaded: bool) -> u8 {
        self.loss = match is_overloaded {
            true => (self.loss + STEP).min(MOST),
            false => self.loss.saturating_sub(STEP),
        };
        self.loss
    }
}

/// The most requests per second of each client that is limited by rate: the same number for all of them, so that those that send little are not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FairRate {
    /// What these clients have sent in a second while the host was not overloaded, all together.
    own: Lately,
    /// What all clients have sent then.
    all: Lately,
    /// What each of them may send; `None` while the host is not overloaded.
    each: Option<u32>,
    /// What all of them together may send without a loss, since the overload began.
    capacity: u64,
}

/// What the host has served in the busiest second of late. One quiet second says nothing about what the host can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lately(u64);

/// The part by which a second counts less in each second after it: half as much after 22 seconds.
const FADING: u64 = 32;

impl Lately {
    fn note(&mut self, served: u64) {
        let faded = self.0 - self.0.div_ceil(FADING);
        self.0 = served.max(faded);
    }
}

impl FairRate {
    /// The number after a step of time; 0 while the host is not overloaded. `loss`: the percentage by which the load is to be reduced. `rates`: what each
    /// of these clients has sent in the last second; the order does not matter. `all`: what all clients have sent, limited by rate or not.
    pub fn step(&mut self, loss: u8, rates: &mut [u32], all: u64) -> u32 {
        let sum: u64 = rates.iter().copied().map(u64::from).sum();
        if loss == 0 {
            // The first such second after an overload is one in which the clients have obeyed.
            if self.each.take().is_none() {
                self.own.note(sum);
                self.all.note(all);
            }
            return 0;
        }
        if self.each.is_none() {
            // The host has taken the requests of this second, too. Those that were lost in a queue are not among them.
            self.capacity = self.own.0.max(sum);
            if self.capacity == 0 {
                // Without such a client, one that comes now may send as much as all others have.
                self.capacity = self.all.0.max(all);
            }
        }
        let total = self.capacity * u64::from(100 - loss.min(100)) / 100;
        let each = fair(rates, self.each, total);
        self.each = Some(each);
        each
    }
}

/// The most that each may send for all together to send `total`: what some do not need is for the others. Who sends nearly as much as it may, `limit`,
/// may want more. At least 1: 0 would stop everything.
fn fair(rates: &mut [u32], limit: Option<u32>, total: u64) -> u32 {
    rates.sort_unstable();
    let mut rest = total;
    for (nth, rate) in rates.iter().enumerate() {
        let part = rest / (rates.len() - nth) as u64;
        let is_at_limit = limit.is_some_and(|limit| is_nearly(*rate, limit));
        if is_at_limit || u64::from(*rate) > part {
            return limit_of(part);
        }
        rest -= u64::from(*rate);
    }
    // All of them together send less, and the largest one may use the rest.
    let largest = rates.last().copied().unwrap_or_default();
    limit_of(rest + u64::from(largest))
}

fn is_nearly(rate: u32, limit: u32) -> bool {
    u64::from(rate) * 10 >= u64::from(limit) * 9
}

fn limit_of(rate: u64) -> u32 {
    u32::try_from(rate.max(1)).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn clients_that_send_little_are_not_limited() {
        let mut rate = FairRate::default();
        let mut rates = [900, 60, 40];
        assert_eq!(rate.step(0, &mut rates, 2_000), 0);
        // 80 % of 1,000: 60 and 40 as before, and 700 of 900.
        assert_eq!(rate.step(20, &mut [900, 60, 40], 2_000), 700);
        assert_eq!(rate.step(20, &mut [700, 60, 40], 2_000), 700);
        // One of them sends less by itself: the other one may use that.
        assert_eq!(rate.step(20, &mut [690, 10, 40], 2_000), 750);
        assert_eq!(
            rate.step(20, &mut [300, 10, 40], 2_000),
            750,
            "no more is wanted"
        );
        assert_eq!(rate.step(95, &mut [300, 10, 40], 2_000), 20);
        assert_eq!(rate.step(0, &mut [20, 10, 20], 2_000), 0);
        assert_eq!(
            rate.step(20, &mut [20, 10, 20], 2_000),
            770,
            "what they sent while they were limited says nothing"
        );
    }

    #[test]
    fn a_quiet_second_changes_little() {
        let busy = [900, 60, 40];
        // What the largest client may send if the overload begins after these seconds, in which those clients and all of them send so much.
        let after = |seconds: &[([u32; 3], u64)], mut began: [u32; 3], all: u64| {
            let mut rate = FairRate::default();
            for (mut rates, all) in [(busy, 2_000)].iter().chain(seconds).copied() {
                assert_eq!(rate.step(0, &mut rates, all), 0);
            }
            rate.step(20, &mut began, all)
        };
        assert_eq!(after(&[], busy, 2_000), 700);
        // 968 of 1,000 are left after a second, 937 after another one. Neither silence of these clients nor that of all counts as what the host can serve.
        for quiet in [([0, 0, 0], 2_000), ([0, 0, 0], 0), ([3, 0, 0], 4)] {
            assert_eq!(after(&[quiet], [800, 60, 40], 2_000), 674, "{quiet:?}");
            assert_eq!(after(&[quiet; 2], [800, 60, 40], 2_000), 649, "{quiet:?}");
        }
        // Long after, what the overload began with counts, and not a flood that is lost before it is counted.
        let quiet = [([1, 0, 0], 1); 300];
        assert_eq!(after(&quiet, [800, 60, 40], 2_000), 620);
    }

    #[test]
    fn a_second_fades_and_is_forgotten() {
        let mut lately = Lately::default();
        lately.note(1_000);
        let mut left = || {
            lately.note(0);
            lately.0
        };
        let seconds: Vec<_> = (0..300).map(|_| left()).collect();
        assert!((480..520).contains(&seconds[21]), "{}", seconds[21]);
        assert!(seconds.is_sorted_by(|a, b| a > b || *b == 0));
        assert_eq!(seconds.last(), Some(&0));
    }

    #[test]
    fn a_client_that_comes_in_the_middle_gets_a_part() {
        let mut rate = FairRate::default();
        assert_eq!(rate.step(0, &mut [], 1_000), 0);
        assert_eq!(rate.step(10, &mut [], 1_000), 900);
        assert_eq!(rate.step(10, &mut [880], 1_000), 900);
        assert_eq!(rate.step(10, &mut [880, 850], 1_000), 450);
        assert_eq!(FairRate::default().step(5, &mut [], 0), 1, "never nothing");
    }

    /// Clients that obey, and a server that can serve so much.
    #[test]
    fn what_clients_send_follows_what_the_server_can_take() {
        const CAN: u64 = 1_000;
        let (mut load, mut rate) = (Load::default(), FairRate::default());
        let wanted = [3_000, 700, 90, 10];
        let (mut each, mut taken, mut smallest) = (0, Vec::new(), u32::MAX);
        for _ in 0..200 {
            let limit = if each == 0 { u32::MAX } else { each };
            let mut sent = wanted.map(|rate| u32::min(rate, limit));
            let sum = sent.iter().copied().map(u64::from).sum::<u64>();
            let loss = load.step(sum > CAN);
            each = rate.step(loss, &mut sent, sum);
            taken.push(sum);
            if each > 0 {
                smallest = smallest.min(each);
            }
        }
        // It takes 15 steps until enough is kept back; then the load is near the limit.
        let later = &taken[50..];
        let within = later.iter().filter(|sum| **sum <= CAN).count();
        assert!(within * 3 >= later.len(), "{later:?}");
        let mean = later.iter().sum::<u64>() / later.len() as u64;
        assert!((CAN * 8 / 10..CAN * 12 / 10).contains(&mean), "{mean}");
        assert!(smallest > 90, "small clients are never limited");
    }

    #[test]
    fn the_share_follows_the_load_in_steps() {
        let mut load = Load::default();
        assert_eq!(load.step(false), 0);
        let rising: Vec<_> = (0..3).map(|_| load.step(true)).collect();
        assert_eq!(rising, [5, 10, 15]);
        assert_eq!(load.step(false), 10);
        let last = (0..100).map(|_| load.step(true)).last();
        assert_eq!(last, Some(95));
        let last = (0..100).map(|_| load.step(false)).last();
        assert_eq!(last, Some(0));
    }
}
