//! A set of destinations, and the choice among them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::algorithm::Algorithm;
use crate::member::Member;

/// Most destinations of one choice.
pub const MOST_CHOSEN: usize = 16;

/// The golden ratio in 64 bits: its multiples spread evenly (Weyl, 1916).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The destinations of a set.
#[derive(Clone, Debug)]
pub struct Set {
    id: u32,
    members: Box<[Member]>,
    turns: Arc<Turns>,
}

/// What a set counts to choose in turn. Outlives a load.
#[derive(Debug)]
pub(crate) struct Turns {
    /// The slot that is next.
    next: AtomicU32,
    /// Number of draws.
    draws: AtomicU64,
    /// What draws begin with.
    seed: u64,
}

/// What a choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// How to choose.
    pub algorithm: Algorithm,
    /// The [hash](crate::hash) of what the algorithm names. `None` if the request has no such part: the choice is then the next in turn.
    pub hash: Option<u32>,
    /// Most destinations to choose, up to [`MOST_CHOSEN`].
    pub most: usize,
    /// The slot of the destination that has failed last, if this request has been to the set. A request takes one turn: what would be next in turn is
    /// then the one behind it (Kamailio: `ds_next_dst`).
    pub failed: Option<usize>,
}

/// Chosen destinations in their order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chosen {
    slots: [u32; MOST_CHOSEN],
    count: usize,
}

impl Set {
    /// A set with these members in the order of a load.
    ///
    /// The slots have the order of Kamailio after a start: higher priorities first, and those of one priority in the reverse order of the
    /// rows.
    pub(crate) fn new(id: u32, mut members: Vec<Member>, turns: Arc<Turns>) -> Self {
        members.reverse();
        members.sort_by_key(|member| std::cmp::Reverse(member.priority));
        Self {
            id,
            members: members.into(),
            turns,
        }
    }

    /// The number of the set.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The members, in the order of their slots.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Number of members that get requests.
    pub fn open(&self) -> usize {
        let open = self.members.iter();
        open.filter(|member| member.runtime.state().admission.is_open())
            .count()
    }

    pub(crate) fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// Chooses destinations: the first, and those that follow it if it fails. Destinations that are inactive or disabled, or that `admits`
    /// refuses, are left out.
    ///
    /// After the first one follow the others in the order of their slots, as in Kamailio; with `latency` and `srv` those that are the next
    /// best.
    pub fn choose(&self, question: Question, admits: impl Fn(&Member) -> bool) -> Chosen {
        let Question {
            algorithm,
            hash,
            most,
            failed,
        } = question;
        let most = most.min(MOST_CHOSEN);
        if self.members.is_empty() || most == 0 {
            return Chosen::default();
        }
        let choice = Choice {
            members: &self.members,
            turns: &self.turns,
            is_open: |member: &Member| member.runtime.state().admission.is_open() && admits(member),
            most,
            failed,
        };
        match algorithm {
            Algorithm::CallId
            | Algorithm::FromUri
            | Algorithm::ToUri
            | Algorithm::RequestUri
            | Algorithm::AuthUser
            | Algorithm::Key => match hash {
                Some(hash) => choice.starting_at(hash as usize % self.members.len()),
                None => choice.in_turn(),
            },
            Algorithm::RoundRobin => choice.in_turn(),
            Algorithm::Random => choice.by_weight(|_| 1, |turns| turns.random()),
            Algorithm::Priority | Algorithm::Parallel => choice.starting_at(0),
            Algorithm::Weight => choice.by_weight(|member| member.attrs.weight, Turns::even),
            Algorithm::RelativeWeight => choice.by_weight(relative_weight, Turns::even),
            Algorithm::CallLoad => choice.by_load(),
            Algorithm::Latency => choice.by_latency(),
            Algorithm::Srv => choice.as_srv(),
        }
    }
}

impl Chosen {
    /// Their slots.
    pub fn slots(&self) -> impl Iterator<Item = usize> + '_ {
        let slots = self.slots.iter().take(self.count);
        slots.map(|&slot| slot as usize)
    }

    /// Number of destinations.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn push(&mut self, slot: usize) {
        if let (Some(place), Ok(slot)) = (self.slots.get_mut(self.count), u32::try_from(slot)) {
            *place = slot;
            self.count += 1;
        }
    }

    fn has(&self, slot: usize) -> bool {
        self.slots().any(|chosen| chosen == slot)
    }
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self::of(RandomState::new().hash_one(0))
    }

    /// Turns that begin with this number: the same choices each time.
    pub(crate) fn of(seed: u64) -> Self {
        Self {
            next: AtomicU32::new(0),
            draws: AtomicU64::new(0),
            seed,
        }
    }

    /// The next number of an even sequence: of any number of successive ones, each share of the range has as many as it should, to within a
    /// few.
    fn even(&self) -> u64 {
        let count = self.draws.fetch_add(1, Ordering::Relaxed);
        self.seed.wrapping_add(count.wrapping_mul(GOLDEN))
    }

    /// A number that does not show the one before it (the finalizer of MurmurHash3 by Stafford, as in SplitMix64).
    fn random(&self) -> u64 {
        let mut number = self.even();
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }
}

/// A choice among members.
struct Choice<'s, F> {
    members: &'s [Member],
    turns: &'s Turns,
    is_open: F,
    most: usize,
    failed: Option<usize>,
}

impl<F: Fn(&Member) -> bool> Choice<'_, F> {
    /// The first open one from a slot on, and those that follow, around the set once.
    fn starting_at(&self, start: usize) -> Chosen {
        self.starting_at_if(start, |_| true)
    }

    fn starting_at_if(&self, start: usize, fits: impl Fn(&Member) -> bool) -> Chosen {
        let mut chosen = Chosen::default();
        for slot in self.around(start) {
            if chosen.len() == self.most {
                break;
            }
            if self.is_open_at(slot) && fits(&self.members[slot]) {
                chosen.push(slot);
            }
        }
        chosen
    }

    /// From the slot after the one that was chosen last.
    fn in_turn(&self) -> Chosen {
        let first = self.take_turn(|start| self.around(start).find(|&slot| self.is_open_at(slot)));
        first.map_or_else(Chosen::default, |slot| self.starting_at(slot))
    }

    /// The first one with the fewest calls, and those that follow.
    fn by_load(&self) -> Chosen {
        let open = (0..self.members.len()).filter(|&slot| self.is_open_at(slot));
        let with_room = open.filter(|&slot| self.members[slot].has_room());
        match with_room.min_by_key(|&slot| self.members[slot].calls()) {
            Some(slot) => self.starting_at_if(slot, Member::has_room),
            None => Chosen::default(),
        }
    }

    /// One in proportion to its weight, and those that follow. If no open member has a weight, all weigh the same.
    fn by_weight(&self, weight: impl Fn(&Member) -> u32, number: impl Fn(&Turns) -> u64) -> Chosen {
        let all = 0..self.members.len();
        let drawn = self.draw(all, weight, || number(self.turns));
        drawn.map_or_else(Chosen::default, |slot| self.starting_at(slot))
    }

    /// The best ones by priority and latency, from the slot after the one that was chosen last.
    fn by_latency(&self) -> Chosen {
        let best = |start: usize, chosen: &Chosen| {
            let open = self.around(start).filter(|&slot| self.is_open_at(slot));
            let mut rest = open.filter(|&slot| !chosen.has(slot));
            let first = rest.next()?;
            // The first one of the highest priority.
            Some(rest.fold(first, |best, slot| {
                let [high, low] = [slot, best].map(|slot| lowered_priority(&self.members[slot]));
                if high > low { slot } else { best }
            }))
        };
        let mut chosen = Chosen::default();
        // Equal ones follow each other from there, too (Kamailio: `ds_manage_route_algo13`).
        let begin = Cell::new(0);
        let first = self.take_turn(|start| {
            begin.set(start);
            best(start, &Chosen::default())
        });
        let Some(first) = first else {
            return chosen;
        };
        chosen.push(first);
        while chosen.len() < self.most
            && let Some(slot) = best(begin.get(), &chosen)
        {
            chosen.push(slot);
        }
        chosen
    }

    /// The lowest priority first, each drawn by weight among those of its priority (RFC 2782).
    fn as_srv(&self) -> Chosen {
        let mut chosen = Chosen::default();
        while chosen.len() < self.most {
            let rest = (0..self.members.len()).filter(|slot| !chosen.has(*slot));
            let open = rest.filter(|&slot| self.is_open_at(slot));
            let priority = |slot: usize| self.members[slot].priority;
            let Some(lowest) = open.clone().map(priority).min() else {
                break;
            };
            let equal = open.filter(|&slot| priority(slot) == lowest);
            let Some(slot) = self.draw(equal, |member| member.attrs.weight, || self.turns.random())
            else {
                break;
            };
            chosen.push(slot);
        }
        chosen
    }

    /// Draws one of these slots in proportion to its weight.
    fn draw(
        &self,
        slots: impl Iterator<Item = usize> + Clone,
        weight: impl Fn(&Member) -> u32,
        number: impl FnOnce() -> u64,
    ) -> Option<usize> {
        let open = slots.filter(|&slot| self.is_open_at(slot));
        let weighed = open.map(|slot| (slot, u64::from(weight(&self.members[slot]))));
        let total: u64 = weighed.clone().map(|(_, weight)| weight).sum();
        let equal = u64::from(total == 0);
        let total = match total {
            0 => weighed.clone().count() as u64,
            total => total,
        };
        // The number as a fraction of its range.
        let mut left = ((u128::from(number()) * u128::from(total)) >> 64) as u64;
        let mut last = None;
        for (slot, weight) in weighed {
            let weight = weight + equal;
            if left < weight {
                return Some(slot);
            }
            left -= weight;
            last = Some(slot);
        }
        // A state has changed meanwhile.
        last
    }

    /// Takes the turn: the next one begins after the slot that `first` returns. A request that has failed took its turn before.
    fn take_turn(&self, first: impl Fn(usize) -> Option<usize>) -> Option<usize> {
        let count = self.members.len();
        if let Some(failed) = self.failed {
            return first((failed + 1) % count);
        }
        let mut taken = None;
        let next = |next: u32| {
            taken = first(next as usize % count);
            u32::try_from((taken? + 1) % count).ok()
        };
        let turn = &self.turns.next;
        let turned = turn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        turned.ok().and(taken)
    }

    /// All slots from this one on.
    fn around(&self, start: usize) -> impl Iterator<Item = usize> + Clone {
        (start..self.members.len()).chain(0..start)
    }

    fn is_open_at(&self, slot: usize) -> bool {
        (self.is_open)(&self.members[slot])
    }
}

/// The relative weight, less the milliseconds by which answers are slower than usual, if the member asks for that (Kamailio: `cc`).
fn relative_weight(member: &Member) -> u32 {
    match (member.attrs.rweight, member.attrs.is_congestion) {
        (0, _) => 0,
        (weight, false) => weight,
        (weight, true) => weight.saturating_sub(congestion(member)).max(1),
    }
}

/// The priority for the algorithm `latency`: less one for each time that the latency in milliseconds exceeds it, and at least 1.
fn lowered_priority(member: &Member) -> i32 {
    let priority = member.priority;
    let latency = match member.attrs.is_congestion {
        true => congestion(member),
        false => member.runtime.latency()[1],
    };
    let latency = i32::try_from(latency).unwrap_or(i32::MAX);
    match priority > 0 && latency > priority {
        true => (priority - latency / priority).max(1),
        false => priority,
    }
}

/// The milliseconds by which the next answer is expected to be slower than usual.
fn congestion(member: &Member) -> u32 {
    let [average, estimate] = member.runtime.latency();
    estimate.saturating_sub(average)
}

#[cfg(test)]
mod tests;
