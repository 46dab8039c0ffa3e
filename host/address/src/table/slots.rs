//! The networks and hosts of one address family, and the search for the innermost one that contains an address.
//!
//! Each network or host in the rows has one slot, whatever the number of rows. The slots are sorted by their first address; each refers to
//! the slot of the network around it. The innermost slot that contains an address is the last one that starts at or before the address, or
//! one of those around that slot.
//!
//! Above the slots is a tree of bins: each node divides the range from its first to its last start into equal bins, and stores the first
//! slot of each bin. A bin with few slots is searched in place, a bin with many has a node of its own. The tree is therefore wide where
//! addresses are dense and absent where they are not, for IPv4 and IPv6 alike: a random table of a million rows needs one node, clustered
//! ones two or three, and the worst case is bounded by the number of bits in an address. A lookup touches one cache line of bins for each
//! node and one or two of slots, so that an unknown source costs as much as a known one.

use super::address::Address;
use super::sets::{Ranked, SetId, SetsBuilder};
use crate::turns::{InTurns, sort_by_key};

/// No slot.
const NONE: u32 = u32::MAX;
/// Most slots of a bin that are searched in place.
const LEAF: usize = 8;
/// Slots per bin, on average, when a node is created.
const PER_BIN: usize = 4;
/// Marks a bin that has a node of its own.
const NODE: u32 = 1 << 31;

/// All slots of an address family, and the bins.
#[derive(Default)]
pub(super) struct Slots<A> {
    slots: Vec<Slot<A>>,
    /// For each bin its first slot, or its node with [`NODE`].
    bins: Vec<u32>,
    /// The root is first. Empty if there are no slots.
    nodes: Vec<Node<A>>,
}

/// A network or a host.
#[derive(Clone, Copy)]
struct Slot<A> {
    first: A,
    /// The rules of its rows.
    set: SetId,
    /// Position of its row in Kamailio's order, if it has only one.
    rank: u32,
    /// The slot of the smallest network around it, or [`NONE`].
    around: u32,
    bits: u8,
}

/// Divides the addresses from `base` on into bins of 2^shift addresses.
#[derive(Clone, Copy)]
struct Node<A> {
    base: A,
    /// Index of its first bin.
    bins: u32,
    /// Number of its last bin, which also contains everything after it.
    last: u32,
    shift: u8,
}

/// A row, as input for the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placed<A> {
    first: A,
    bits: u8,
    ranked: Ranked,
}

impl<A: Address> Slots<A> {
    /// Returns the innermost slot that contains the address.
    #[inline]
    pub(super) fn lookup(&self, addr: A) -> Option<u32> {
        let mut number = self.last_up_to(addr)?;
        loop {
            let slot = &self.slots[number as usize];
            if addr.first(slot.bits) == slot.first {
                return Some(number);
            }
            if slot.around == NONE {
                return None;
            }
            number = slot.around;
        }
    }

    /// Returns the rule that matches a request, from the sets of this slot and of those around it.
    ///
    /// `find` returns the matching rule of a set with the lowest rank; its second argument is the rank of a single rule. Kamailio tries the
    /// rows about the host first, then those of all networks by rank.
    #[inline]
    pub(super) fn answer(
        &self,
        slot: u32,
        find: impl Fn(SetId, u32) -> Option<Ranked>,
    ) -> Option<u32> {
        let mut best: Option<Ranked> = None;
        for slot in self.outwards(slot) {
            let Some(found) = find(slot.set, slot.rank) else {
                continue;
            };
            if slot.bits == A::WIDTH {
                return Some(found.rule);
            }
            if best.is_none_or(|best| found.rank < best.rank) {
                best = Some(found);
            }
        }
        best.map(|best| best.rule)
    }

    /// Returns the rules of this slot and those around it in Kamailio's order. `all` returns the rules of a set.
    pub(super) fn rules<R>(&self, slot: u32, all: impl Fn(SetId, u32) -> R) -> Vec<u32>
    where
        R: Iterator<Item = Ranked>,
    {
        let mut rules: Vec<(bool, Ranked)> = Vec::new();
        for slot in self.outwards(slot) {
            rules.extend(all(slot.set, slot.rank).map(|ranked| (slot.bits < A::WIDTH, ranked)));
        }
        rules.sort_unstable();
        rules.into_iter().map(|(_, ranked)| ranked.rule).collect()
    }

    /// Returns the first address of a slot, and its prefix length.
    pub(super) fn network(&self, slot: u32) -> (A, u8) {
        let slot = &self.slots[slot as usize];
        (slot.first, slot.bits)
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<A>>()
            + self.bins.capacity() * size_of::<u32>()
            + self.nodes.capacity() * size_of::<Node<A>>()
    }

    /// Returns the slot and those around it, from the innermost to the outermost.
    #[inline]
    fn outwards(&self, slot: u32) -> impl Iterator<Item = &Slot<A>> {
        let mut next = slot;
        std::iter::from_fn(move || {
            let slot = self.slots.get(next as usize)?;
            next = slot.around;
            Some(slot)
        })
    }

    /// Returns the last slot that starts at or before the address.
    #[inline]
    fn last_up_to(&self, addr: A) -> Option<u32> {
        let mut node = self.nodes.first()?;
        let mut slot = loop {
            // An address before the first slot of the node is after the last slot of the previous bin: bin 0 leads to the first slot, and
            // the result is the slot before it.
            let bin = match addr >= node.base {
                true => addr.steps_from(node.base, node.shift, node.last),
                false => 0,
            };
            let first = self.bins[(node.bins + bin) as usize];
            if first & NODE == 0 {
                break first;
            }
            node = &self.nodes[(first & !NODE) as usize];
        };
        while self
            .slots
            .get(slot as usize)
            .is_some_and(|slot| slot.first <= addr)
        {
            slot += 1;
        }
        slot.checked_sub(1)
    }
}

impl<A: Address> Placed<A> {
    /// Creates a row about the network of this prefix length around an address, or about the address itself if all bits are used.
    pub(super) fn new(addr: A, bits: u8, ranked: Ranked) -> Self {
        Self {
            first: addr.first(bits),
            bits,
            ranked,
        }
    }

    /// Whether it is about one address.
    pub(super) fn is_host(&self) -> bool {
        self.bits == A::WIDTH
    }

    /// Returns its position in Kamailio's order among hosts, or among networks.
    pub(super) fn rank(&self) -> u32 {
        self.ranked.rank
    }

    fn network(&self) -> (A, u8) {
        (self.first, self.bits)
    }
}

impl<A: Address> Slots<A> {
    /// Builds the slots of these rows, in any order. `placed` is called with the slot of each row.
    pub(super) fn new(
        mut rows: Vec<Placed<A>>,
        sets: &mut SetsBuilder,
        mut placed: impl FnMut(&Placed<A>, u32),
    ) -> Self {
        sort_by_key(&mut rows, |row| *row);
        let networks = rows.chunk_by(|a, b| a.network() == b.network());
        let count = networks.in_turns().count();
        let mut slots = Vec::with_capacity(count);
        let nested = nest(&rows, &mut slots);
        let same = rows.chunk_by(|a, b| a.network() == b.network());
        let slot_by_slot = same.zip(&mut slots).zip((0..).zip(nested));
        for ((rows, slot), (number, nested)) in slot_by_slot.in_turns() {
            for row in rows {
                placed(row, number);
            }
            slot.rank = rows[0].ranked.rank;
            slot.set = match rows {
                [row] => SetId::rule(row.ranked.rule),
                // Hosts precede networks whatever their rank, so only ranks of nested networks are compared.
                _ => sets.block(
                    rows.iter().map(|row| row.ranked),
                    nested && slot.bits < A::WIDTH,
                ),
            };
        }
        let mut slots = Self {
            slots,
            bins: Vec::new(),
            nodes: Vec::new(),
        };
        if count > 0 {
            slots.add_node(0, count);
        }
        slots.bins.shrink_to_fit();
        slots.nodes.shrink_to_fit();
        slots
    }

    /// Creates the node over these slots and those below it; returns its number.
    fn add_node(&mut self, from: usize, to: usize) -> u32 {
        let base = self.slots[from].first;
        let end = self.slots[to - 1].first;
        let want = ((to - from) / PER_BIN)
            .next_power_of_two()
            .clamp(LEAF, 1 << 24);
        let shift = end
            .bits_from(base)
            .saturating_sub(want.trailing_zeros() as u8);
        let last = end.steps_from(base, shift, u32::MAX);
        let bins = self.bins.len();
        let number = self.nodes.len();
        self.nodes.push(Node {
            base,
            bins: bins as u32,
            last,
            shift,
        });
        for slot in (from..to).in_turns() {
            let bin = self.slots[slot].first.steps_from(base, shift, last) as usize;
            if self.bins.len() <= bins + bin {
                self.bins.resize(bins + bin + 1, slot as u32);
            }
        }
        let end = bins + last as usize;
        for bin in (bins..=end).in_turns() {
            let first = self.bins[bin] as usize;
            // The bins of nodes below are after those of this node, and the successor of this bin is still a slot.
            let behind = match bin == end {
                true => to,
                false => self.bins[bin + 1] as usize,
            };
            // Slots with the same start cannot be separated. There are at most as many of them as bits in an address.
            if behind - first > LEAF && self.slots[first].first != self.slots[behind - 1].first {
                self.bins[bin] = self.add_node(first, behind) | NODE;
            }
        }
        number as u32
    }
}

/// Creates a slot for each network and host of the sorted rows, and finds the network around it. Returns which networks have another
/// network around or inside them.
fn nest<A: Address>(rows: &[Placed<A>], slots: &mut Vec<Slot<A>>) -> Vec<bool> {
    let mut nested = Vec::with_capacity(slots.capacity());
    // The slots that contain the current address, from the outermost to the innermost.
    let mut open: Vec<u32> = Vec::new();
    let networks = rows.chunk_by(|a, b| a.network() == b.network());
    for rows in networks.in_turns() {
        let (first, bits) = rows[0].network();
        while open
            .pop_if(|&mut slot| {
                let Slot {
                    first: start, bits, ..
                } = slots[slot as usize];
                start.last(bits) < first
            })
            .is_some()
        {}
        let around = open.last().copied();
        if let Some(around) = around.filter(|_| bits < A::WIDTH) {
            nested[around as usize] = true;
        }
        nested.push(around.is_some());
        open.push(slots.len() as u32);
        slots.push(Slot {
            first,
            set: SetId::rule(rows[0].ranked.rule),
            rank: rows[0].ranked.rank,
            around: around.unwrap_or(NONE),
            bits,
        });
    }
    nested
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sets::Rule;
    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn finds_the_innermost_network_v4(
            networks in networks().prop_map(|networks| {
                networks.into_iter().map(|(addr, bits)| ((addr >> 96) as u32, 1 + bits % 32)).collect()
            }),
            addrs in proptest::collection::vec(any::<u32>(), 0..50),
        ) {
            compare::<u32>(networks, &addrs)?;
        }

        #[test]
        fn finds_the_innermost_network_v6(networks in networks(), addrs in proptest::collection::vec(any::<u128>(), 0..50)) {
            compare::<u128>(networks, &addrs)?;
        }
    }

    #[test]
    fn halves_of_the_address_space_down_to_one_address() {
        let mut networks: Vec<(u128, u8)> = (0..128).map(|bit| (1 << bit, 128)).collect();
        networks.extend((0..128).map(|bit| (!(1 << bit), 128)));
        networks.extend((1..128).map(|bits| (0, bits)));
        networks.extend((1..128).map(|bits| (u128::MAX, bits)));
        compare(networks, &[0, 1, 2, 3, u128::MAX, u128::MAX - 1, 1 << 127]).unwrap();
    }

    /// Dense in clusters, whose width ranges from one address to the whole address space.
    fn networks() -> impl Strategy<Value = Vec<(u128, u8)>> {
        let inside =
            proptest::collection::vec((any::<u128>(), prop_oneof![Just(128u8), 1..=128u8]), 1..200);
        let cluster = (any::<u128>(), 0u32..128, inside).prop_map(|(base, shift, inside)| {
            inside
                .into_iter()
                .map(move |(low, bits)| (base ^ (low >> shift), bits))
                .collect::<Vec<_>>()
        });
        proptest::collection::vec(cluster, 0..5).prop_map(|clusters| clusters.concat())
    }

    fn compare<A: Address>(networks: Vec<(A, u8)>, addrs: &[A]) -> Result<(), TestCaseError> {
        let rule = Rule::new(1, 0, None).unwrap();
        let rows = (0..)
            .zip(&networks)
            .map(|(rank, &(addr, bits))| Placed::new(addr, bits, Ranked { rank, rule: 0 }));
        let slots = Slots::new(rows.collect(), &mut SetsBuilder::new(vec![rule]), |_, _| {});
        let edges = networks
            .iter()
            .flat_map(|&(addr, bits)| [addr, addr.first(bits), addr.last(bits)]);
        for addr in addrs.iter().copied().chain(edges) {
            let expected = networks
                .iter()
                .filter(|(network, bits)| network.first(*bits) == addr.first(*bits))
                .map(|&(network, bits)| (network.first(bits), bits))
                .max_by_key(|&(_, bits)| bits);
            prop_assert_eq!(
                slots.lookup(addr).map(|slot| slots.network(slot)),
                expected,
                "{:?}",
                addr
            );
        }
        Ok(())
    }
}
