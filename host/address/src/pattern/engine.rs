//! The automata of patterns.
//!
//! A table of states that is complete when it is loaded ([`DFA`]) takes one step per byte, whatever the pattern and the text. If it would
//! be too large, the states of the pattern ([`NFA`]) are followed in parallel, with as many steps per byte as there are states. Nothing is
//! built while a request waits, and each thread keeps only a list of states.

use std::cell::RefCell;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson::{self, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind};

use super::budget::PatternBudget;
use super::effort::{Effort, Spent};
use crate::turns;

/// The memory that the states of one pattern may take, in bytes.
const MOST_MEMORY: usize = 1 << 20;

/// The largest table of states of one pattern, and of several, in bytes.
const MOST_ALONE: usize = 64 << 10;
const MOST_TOGETHER: usize = 256 << 10;

/// Most states of a pattern, and of several, for which a table is tried: finding out that a table is too large takes time, too.
const MOST_STATES_ALONE: usize = 1 << 10;
const MOST_STATES_TOGETHER: usize = 1 << 12;

/// One pattern, or several that are searched for at once.
#[derive(Debug)]
pub(crate) enum Engine {
    Dfa(Box<dense::DFA<Vec<u32>>>),
    /// Of one pattern.
    Nfa(NFA),
}

/// Returns the states of patterns in the engine's syntax; `None` if they take too much memory, or are invalid.
pub(super) fn states(patterns: &[&str]) -> Option<NFA> {
    let syntax = syntax::Config::new()
        .unicode(false)
        .utf8(false)
        .dot_matches_new_line(true);
    let config = thompson::Config::new()
        .utf8(false)
        .which_captures(WhichCaptures::None)
        .nfa_size_limit(Some(MOST_MEMORY));
    let mut compiler = NFA::compiler();
    compiler.syntax(syntax).configure(config);
    compiler.build_many(patterns).ok()
}

impl Engine {
    /// Builds the engine of one pattern.
    pub(super) fn alone(pattern: &str, budget: &mut PatternBudget) -> Option<Self> {
        let states = states(&[pattern])?;
        let dfa = match states.states().len() <= MOST_STATES_ALONE {
            true => table(&states, MOST_ALONE, budget),
            false => None,
        };
        Some(dfa.unwrap_or(Self::Nfa(states)))
    }

    /// Builds the engine of several patterns; `None` if their table would be too large.
    pub(super) fn together(patterns: &[&str], budget: &mut PatternBudget) -> Option<Self> {
        let states = states(patterns)?;
        match states.states().len() <= MOST_STATES_TOGETHER {
            true => table(&states, MOST_TOGETHER, budget),
            false => None,
        }
    }

    /// Returns which of the patterns match the text, a bit for each. There are `count` of them, at most 64.
    #[inline]
    pub(super) fn found(
        &self,
        count: u32,
        text: &[u8],
        effort: &mut Effort<'_>,
    ) -> Result<u64, Spent> {
        match self {
            Self::Dfa(dfa) => found_by_table(dfa, u64::MAX >> (64 - count), text, effort),
            Self::Nfa(states) => found_by_states(states, text, effort).map(u64::from),
        }
    }
}

/// Returns a table of states if it is small enough for its limit and for the budget.
fn table(states: &NFA, most: usize, budget: &mut PatternBudget) -> Option<Engine> {
    if !budget.may_try() {
        return None;
    }
    let most = most.min(budget.left());
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Unanchored)
        .accelerate(false)
        .dfa_size_limit(Some(most))
        .determinize_size_limit(Some(most));
    let built = dense::Builder::new()
        .configure(config)
        .build_from_nfa(states);
    turns::give_way();
    let Ok(dfa) = built else {
        budget.note_failure();
        return None;
    };
    budget
        .take_spare(dfa.memory_usage())
        .then(|| Engine::Dfa(Box::new(dfa)))
}

fn found_by_table(
    dfa: &dense::DFA<Vec<u32>>,
    all: u64,
    text: &[u8],
    effort: &mut Effort<'_>,
) -> Result<u64, Spent> {
    effort.spend(text.len() + 1)?;
    // Fails only for kinds of start states that were not requested.
    let Ok(mut state) = dfa.start_state_forward(&Input::new(text)) else {
        return Ok(0);
    };
    let mut found = 0;
    for &byte in text {
        state = dfa.next_state(state, byte);
        if !dfa.is_special_state(state) {
            continue;
        }
        if dfa.is_match_state(state) {
            found |= matching(dfa, state);
            if found == all {
                return Ok(found);
            }
        } else if dfa.is_dead_state(state) {
            return Ok(found);
        }
    }
    state = dfa.next_eoi_state(state);
    if dfa.is_match_state(state) {
        found |= matching(dfa, state);
    }
    Ok(found)
}

/// Returns the patterns that match in this state.
fn matching(dfa: &dense::DFA<Vec<u32>>, state: StateID) -> u64 {
    let patterns = (0..dfa.match_len(state)).map(|index| dfa.match_pattern(state, index));
    patterns.fold(0, |found, pattern| found | 1 << pattern.as_usize())
}

thread_local! {
    /// Kept from text to text, so that following states allocates only for a pattern that is larger than all before.
    static ACTIVE: RefCell<[Active; 2]> = RefCell::default();
}

/// A set of states.
#[derive(Default)]
struct Active {
    /// Index in `states` of each state that is in the set.
    places: Vec<u32>,
    states: Vec<StateID>,
    stack: Vec<StateID>,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these states of the engine consume a byte"
)]
fn found_by_states(nfa: &NFA, text: &[u8], effort: &mut Effort<'_>) -> Result<bool, Spent> {
    ACTIVE.with_borrow_mut(|[now, next]| {
        now.begin(nfa);
        next.begin(nfa);
        for (at, byte) in text.iter().map(Some).chain([None]).enumerate() {
            // A match may begin anywhere.
            if now.add(nfa, nfa.start_anchored(), text, at) {
                return Ok(true);
            }
            effort.spend(1 + now.states.len())?;
            let Some(&byte) = byte else {
                break;
            };
            next.states.clear();
            for &state in &now.states {
                let to = match nfa.state(state) {
                    State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
                    State::Sparse(sparse) => sparse.matches_byte(byte),
                    State::Dense(dense) => dense.matches_byte(byte),
                    _ => None,
                };
                if let Some(to) = to
                    && next.add(nfa, to, text, at + 1)
                {
                    return Ok(true);
                }
            }
            std::mem::swap(now, next);
        }
        Ok(false)
    })
}

impl Active {
    fn begin(&mut self, nfa: &NFA) {
        self.states.clear();
        if self.places.len() < nfa.states().len() {
            self.places.resize(nfa.states().len(), 0);
        }
    }

    /// Adds a state and all states that follow without a byte. Returns true if the pattern matches.
    fn add(&mut self, nfa: &NFA, state: StateID, text: &[u8], at: usize) -> bool {
        self.stack.push(state);
        while let Some(state) = self.stack.pop() {
            if !self.insert(state) {
                continue;
            }
            match nfa.state(state) {
                State::Match { .. } => {
                    self.stack.clear();
                    return true;
                }
                State::Look { look, next } => {
                    if nfa.look_matcher().matches(*look, text, at) {
                        self.stack.push(*next);
                    }
                }
                State::Union { alternates } => self.stack.extend(alternates.iter()),
                State::BinaryUnion { alt1, alt2 } => self.stack.extend([alt1, alt2]),
                State::Capture { next, .. } => self.stack.push(*next),
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Fail => {}
            }
        }
        false
    }

    /// Returns false if the state is already in the set.
    fn insert(&mut self, state: StateID) -> bool {
        let place = self.places[state.as_usize()] as usize;
        if self.states.get(place) == Some(&state) {
            return false;
        }
        self.places[state.as_usize()] = self.states.len() as u32;
        self.states.push(state);
        true
    }
}
