//! All sets of one load.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portcullis_address::{RowError, RowWarning};
use portcullis_sip::mark;

use crate::member::{Identity, Load, Member, Parts, Runtime, identity, next_hop_name};
use crate::set::{Set, Turns};

/// The sets of one load. Immutable, except for the states of the destinations, which are shared with the next load.
#[derive(Debug)]
pub struct Sets {
    /// By number.
    sets: BTreeMap<u32, Set>,
    /// Where a destination is: the set and the slot, by the mark of its name as a next hop.
    places: Places,
    /// The same for further destinations with the same name: rows that differ in their socket only.
    twins: Twins,
    /// The counted calls, by the marks of the next hops: also of those that are gone, as long as there are any.
    loads: Loads,
    /// Number of the load, from 1; 0 before the first.
    pub generation: u64,
    /// Time of the load.
    pub loaded_at: SystemTime,
    /// Duration of the load.
    pub took: Duration,
    /// Number of invalid rows, which were skipped.
    pub skipped: u64,
    /// The first hundred of these, with reasons.
    pub errors: Vec<RowError>,
    /// Number of rows that are used with a warning.
    pub warned: u64,
    /// The first hundred of these.
    pub warnings: Vec<RowWarning>,
}

/// The rows of a load.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) rows: Vec<Parts>,
    pub(crate) skipped: u64,
    pub(crate) errors: Vec<RowError>,
    pub(crate) warned: u64,
    pub(crate) warnings: Vec<RowWarning>,
}

impl Sets {
    /// The sets of these rows. Destinations that `before` has, too, keep their state, unless the flags of their row have changed. Of rows that differ
    /// in nothing that identifies a destination, the last one says the flags.
    pub(crate) fn new(rows: Rows, before: &Self, took: Duration) -> Self {
        Self::with_turns(rows, before, took, Turns::new)
    }

    /// The same, with these turns of new sets.
    pub(crate) fn with_turns(
        rows: Rows,
        before: &Self,
        took: Duration,
        new_turns: impl Fn() -> Turns,
    ) -> Self {
        let Rows {
            rows,
            skipped,
            errors,
            warned,
            warnings,
        } = rows;
        let runtimes = before.runtimes_for(&rows);
        let mut loads = before.loads_in_use();
        let mut members: BTreeMap<u32, Vec<Member>> = BTreeMap::new();
        for (parts, runtime) in rows.into_iter().zip(runtimes) {
            let mark = mark(&next_hop_name(parts.set, &parts.uri));
            let known = || before.loads.get(&mark).cloned().unwrap_or_default();
            let load = Arc::clone(loads.entry(mark).or_insert_with(known));
            let member = Member::new(parts, runtime, load);
            members.entry(member.set).or_default().push(member);
        }
        let turns = |id| match before.sets.get(&id) {
            Some(set) => Arc::clone(set.turns()),
            None => Arc::new(new_turns()),
        };
        let sets = members.into_iter();
        let sets: BTreeMap<_, _> = sets
            .map(|(id, members)| (id, Set::new(id, members, turns(id))))
            .collect();
        let (places, twins) = places(&sets);
        Self {
            places,
            twins,
            loads,
            sets,
            generation: before.generation + 1,
            loaded_at: SystemTime::now(),
            took,
            skipped,
            errors,
            warned,
            warnings,
        }
    }

    /// The set with this number.
    pub fn get(&self, id: u32) -> Option<&Set> {
        self.sets.get(&id)
    }

    /// All sets, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Set> {
        self.sets.values()
    }

    /// The destination with this name as a next hop.
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.member_of_mark(mark(name))
    }

    /// All destinations with this name as a next hop, the one of [`Sets::member`] first: what happens to the next hop counts for each of them.
    pub fn members_named(&self, name: &str) -> impl Iterator<Item = &Member> {
        let mark = mark(name);
        let first = self.places.get(&mark);
        let twins = self.twins.get(&mark).into_iter().flatten();
        let all = first.into_iter().chain(twins);
        all.filter_map(move |(id, slot)| self.sets.get(id)?.members().get(*slot))
    }

    /// The destination whose name has this [`mark`].
    pub(crate) fn member_of_mark(&self, mark: u64) -> Option<&Member> {
        let (id, slot) = self.places.get(&mark)?;
        self.sets.get(id)?.members().get(*slot)
    }

    /// The counted calls to the next hop whose name has this [`mark`].
    pub(crate) fn load_of_mark(&self, mark: u64) -> Option<&Load> {
        self.loads.get(&mark).map(|load| &**load)
    }

    /// The counted calls to each next hop, by the [`mark`] of its name.
    pub(crate) fn loads(&self) -> impl Iterator<Item = (u64, &Load)> {
        self.loads.iter().map(|(mark, load)| (*mark, &**load))
    }

    /// All destinations.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.sets.values().flat_map(|set| set.members())
    }

    /// Number of sets.
    pub fn len(&self) -> usize {
        self.sets.len()
    }

    /// Whether there is no set.
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The rows of the load, in an order that gives the same slots.
    pub(crate) fn to_rows(&self) -> Rows {
        let members = self.iter().flat_map(|set| set.members().iter().rev());
        Rows {
            rows: members.map(Member::parts).collect(),
            skipped: self.skipped,
            errors: self.errors.clone(),
            warned: self.warned,
            warnings: self.warnings.clone(),
        }
    }

    /// What happens to each of these rows: as before, if the destination is known.
    fn runtimes_for(&self, rows: &[Parts]) -> Vec<Arc<Runtime>> {
        let of_row = |parts: &Parts| identity(parts.set, &parts.uri, &parts.attrs);
        let known = self.members();
        let known = known.map(|member| (member.identity(), Arc::clone(&member.runtime)));
        let known: HashMap<Identity, _> = known.collect();
        // A later row replaces an equal one.
        let last: HashMap<Identity, &Parts> =
            rows.iter().map(|parts| (of_row(parts), parts)).collect();
        let runtimes = last.into_iter().map(|(identity, parts)| {
            let runtime = match known.get(&identity) {
                Some(runtime) => Arc::clone(runtime),
                None => Arc::new(Runtime::of(parts)),
            };
            runtime.follow(parts.flags);
            (identity, runtime)
        });
        let runtimes: HashMap<Identity, Arc<Runtime>> = runtimes.collect();
        let all = rows.iter().filter_map(|parts| runtimes.get(&of_row(parts)));
        all.cloned().collect()
    }

    /// The counted calls of next hops that have any of this host: they end, whatever becomes of the rows.
    fn loads_in_use(&self) -> Loads {
        let in_use = self.loads.iter().filter(|(_, load)| load.own() > 0);
        in_use
            .map(|(mark, load)| (*mark, Arc::clone(load)))
            .collect()
    }
}

impl Default for Sets {
    fn default() -> Self {
        Self {
            sets: BTreeMap::new(),
            places: HashMap::new(),
            twins: HashMap::new(),
            loads: HashMap::new(),
            generation: 0,
            loaded_at: SystemTime::UNIX_EPOCH,
            took: Duration::ZERO,
            skipped: 0,
            errors: Vec::new(),
            warned: 0,
            warnings: Vec::new(),
        }
    }
}

/// Destinations by the marks of their names: the set and the slot.
type Places = HashMap<u64, (u32, usize)>;

/// The same for further destinations with the same names.
type Twins = HashMap<u64, Vec<(u32, usize)>>;

/// Counted calls by the marks of the names of their next hops.
type Loads = HashMap<u64, Arc<Load>>;

/// The last destination with each name, and the others with the same name. Equal rows share what happens to them: one of them is enough.
fn places(sets: &BTreeMap<u32, Set>) -> (Places, Twins) {
    let mut places = HashMap::new();
    let mut twins = Twins::new();
    let mut seen = HashSet::new();
    for (&id, set) in sets.iter().rev() {
        for (slot, member) in set.members().iter().enumerate().rev() {
            let mark = mark(&member.name);
            let is_new = seen.insert(Arc::as_ptr(&member.runtime));
            match places.entry(mark) {
                Entry::Vacant(entry) => {
                    entry.insert((id, slot));
                }
                Entry::Occupied(_) if is_new => twins.entry(mark).or_default().push((id, slot)),
                Entry::Occupied(_) => {}
            }
        }
    }
    (places, twins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::DispatcherRow;

    fn rows(lines: &[(i64, &str, i64, &str)]) -> Rows {
        let parse = |&(setid, destination, flags, attrs): &(i64, &str, i64, &str)| {
            let row = DispatcherRow {
                id: 1,
                setid,
                destination,
                flags,
                priority: 0,
                attrs,
                description: "",
            };
            row.parts().unwrap().0
        };
        Rows {
            rows: lines.iter().map(parse).collect(),
            ..Rows::default()
        }
    }

    fn state(sets: &Sets, uri: &str) -> String {
        let name = crate::next_hop_name(1, uri);
        sets.member(&name).unwrap().runtime.state().to_string()
    }

    #[test]
    fn states_survive_a_load_unless_the_row_says_another_one() {
        let lines = [(1, "sip:192.0.2.1", 0, ""), (1, "sip:192.0.2.2", 8, "")];
        let first = Sets::new(rows(&lines), &Sets::default(), Duration::ZERO);
        assert_eq!(state(&first, "sip:192.0.2.2"), "AP");
        for member in first.members() {
            member.runtime.set_state("d".parse().unwrap());
        }
        let lines = [
            (1, "sip:192.0.2.1", 0, "weight=5"),
            (1, "sip:192.0.2.2", 0, ""),
            (1, "sip:192.0.2.3", 1, ""),
        ];
        let second = Sets::new(rows(&lines), &first, Duration::ZERO);
        assert_eq!(
            state(&second, "sip:192.0.2.1"),
            "DX",
            "its flags are the same"
        );
        assert_eq!(
            state(&second, "sip:192.0.2.2"),
            "AX",
            "its flags have changed"
        );
        assert_eq!(state(&second, "sip:192.0.2.3"), "IX");
        assert_eq!((second.generation, second.len()), (2, 1));
        let moved = [(1, "sip:192.0.2.1", 0, "socket=udp:192.0.2.9:5060")];
        let third = Sets::new(rows(&moved), &second, Duration::ZERO);
        assert_eq!(
            state(&third, "sip:192.0.2.1"),
            "AX",
            "another socket is another destination"
        );
    }

    #[test]
    fn the_last_of_equal_rows_says_the_flags_and_a_load_keeps_the_state() {
        let lines = [
            (1, "sip:192.0.2.1", 4, ""),
            (1, "sip:192.0.2.1", 0, "weight=5"),
        ];
        let first = Sets::new(rows(&lines), &Sets::default(), Duration::ZERO);
        assert_eq!(state(&first, "sip:192.0.2.1"), "AX");
        let member = first.members().next().unwrap();
        member.runtime.set_state("tp".parse().unwrap());
        let second = Sets::new(rows(&lines), &first, Duration::ZERO);
        assert_eq!(state(&second, "sip:192.0.2.1"), "TP");
        let turned = [lines[1], lines[0]];
        let third = Sets::new(rows(&turned), &second, Duration::ZERO);
        assert_eq!(state(&third, "sip:192.0.2.1"), "DX");
    }

    #[test]
    fn calls_count_for_each_row_of_a_next_hop_and_outlive_the_rows() {
        let of_one = "sip:192.0.2.1";
        let lines = [
            (1, of_one, 0, "maxload=2"),
            (1, of_one, 0, "maxload=2;socket=udp:192.0.2.9:5060"),
            (1, "sip:192.0.2.2", 0, ""),
        ];
        let next = |lines: &[_], before: &Sets| Sets::new(rows(lines), before, Duration::ZERO);
        let calls = crate::Calls::new(64);
        let begin = |sets: &Sets, call_id: &[u8]| {
            let member = sets.member(&next_hop_name(1, of_one)).unwrap();
            calls.begin(calls.key(call_id), member, 9);
        };
        let counted = |sets: &Sets| sets.members().map(Member::calls).collect::<Vec<_>>();
        let first = next(&lines, &Sets::default());
        begin(&first, b"a");
        // The slots have the reverse order of the rows.
        assert_eq!(counted(&first), [0, 1, 1]);
        let without = next(&lines[2..], &first);
        let back = next(&lines, &without);
        begin(&back, b"b");
        assert_eq!(counted(&back), [0, 2, 2], "the call of before is not over");
        let question = crate::Question {
            algorithm: crate::Algorithm::CallLoad,
            hash: None,
            most: 3,
            failed: None,
        };
        let chosen = back.get(1).unwrap().choose(question, |_| true);
        assert_eq!(
            chosen.slots().collect::<Vec<_>>(),
            [0],
            "both rows are full"
        );
        calls.end(calls.key(b"a"), &back);
        assert_eq!(counted(&back), [0, 1, 1]);
        let without = next(&lines[2..], &back);
        calls.end(calls.key(b"b"), &without);
        let again = next(&lines, &next(&lines[2..], &without));
        assert_eq!(counted(&again), [0, 0, 0]);
        assert_eq!((again.loads.len(), calls.counted()), (2, 0));
    }

    #[test]
    fn rows_that_differ_in_their_socket_have_the_same_name() {
        let lines = [
            (1, "sip:192.0.2.1", 0, ""),
            (1, "sip:192.0.2.1", 0, "socket=udp:192.0.2.9:5060"),
            (1, "sip:192.0.2.1", 0, "weight=5"),
            (1, "sip:192.0.2.2", 0, ""),
            (2, "sip:192.0.2.1", 0, ""),
        ];
        let sets = Sets::new(rows(&lines), &Sets::default(), Duration::ZERO);
        let count = |set: u32, uri: &str| {
            let name = crate::next_hop_name(set, uri);
            let first = sets.members_named(&name).next();
            let known = sets.member(&name);
            assert_eq!(first.map(|one| &one.uri), known.map(|one| &one.uri));
            sets.members_named(&name).count()
        };
        assert_eq!(count(1, "sip:192.0.2.1"), 2, "equal rows count once");
        assert_eq!(count(1, "sip:192.0.2.2"), 1);
        assert_eq!(count(2, "sip:192.0.2.1"), 1);
        assert_eq!(count(2, "sip:192.0.2.2"), 0);
    }

    #[test]
    fn a_row_may_know_the_latency_in_the_beginning() {
        let lines = [
            (1, "sip:192.0.2.1", 0, "latency=55"),
            (1, "sip:192.0.2.2", 0, ""),
        ];
        let sets = Sets::new(rows(&lines), &Sets::default(), Duration::ZERO);
        let latencies: Vec<_> = sets
            .members()
            .map(|member| member.runtime.latency())
            .collect();
        assert_eq!(latencies, [[0, 0], [55, 55]]);
        let again = Sets::new(rows(&lines), &sets, Duration::ZERO);
        let counted = again.members().last().unwrap().runtime.latencies();
        assert_eq!((counted.average, counted.deviation), (55.0, 0.0), "once");
    }

    #[test]
    fn a_set_goes_on_with_its_turn() {
        use crate::{Algorithm, Question};
        let lines = [(3, "sip:192.0.2.1", 0, ""), (3, "sip:192.0.2.2", 0, "")];
        let question = Question {
            algorithm: Algorithm::RoundRobin,
            hash: None,
            most: 1,
            failed: None,
        };
        let first = |sets: &Sets| {
            let set = sets.get(3).unwrap();
            let chosen = set.choose(question, |_| true);
            let slot = chosen.slots().next().unwrap();
            set.members()[slot].uri.to_string()
        };
        let one = Sets::new(rows(&lines), &Sets::default(), Duration::ZERO);
        assert_eq!(first(&one), "sip:192.0.2.2");
        let two = Sets::new(rows(&lines), &one, Duration::ZERO);
        assert_eq!(first(&two), "sip:192.0.2.1");
        assert!(two.get(4).is_none());
    }
}
