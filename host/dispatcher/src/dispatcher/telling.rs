//! What the log says about loads and about changes of state.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tracing::{error, info, warn};

use crate::member::Member;
use crate::sets::Sets;
use crate::state::State;

/// Most invalid rows that a load logs; the first hundred are in [`Sets::errors`]. Also most lines about unknown sockets at a time.
const MOST_LOGGED: usize = 20;

/// What the log said last about destinations and sets.
#[derive(Debug, Default)]
pub(super) struct Told {
    states: HashMap<Arc<str>, State>,
    /// Sets without a destination that gets requests, and since when.
    down: BTreeMap<u32, SystemTime>,
    /// Destinations whose socket the host does not have.
    without_socket: HashSet<Arc<str>>,
}

impl Told {
    /// Logs that requests no longer go to a destination, or go there again, since the last call (Kamailio: `event_route[dispatcher:dst-down]`
    /// and `dst-up`), and the same for whole sets. Workers change states, and must not write to the log. Returns how many lines that were.
    pub(super) fn tell(&mut self, sets: &Sets) -> usize {
        self.tell_members(sets) + self.tell_sets(sets)
    }

    /// Sets without a destination that gets requests, and since when.
    pub(super) fn down(&self) -> &BTreeMap<u32, SystemTime> {
        &self.down
    }

    /// Logs once which destinations name a socket that the host does not have, at most [`MOST_LOGGED`] in a call. Returns how many lines that were.
    pub(super) fn tell_sockets(
        &mut self,
        sets: &Sets,
        has_socket: impl Fn(SocketAddr) -> bool,
    ) -> usize {
        let named = sets
            .members()
            .filter_map(|member| Some((member, member.attrs.from?)));
        let unknown: Vec<_> = named.filter(|(_, from)| !has_socket(*from)).collect();
        let names: HashSet<&str> = unknown.iter().map(|(member, _)| &*member.name).collect();
        self.without_socket.retain(|name| names.contains(&**name));
        let mut lines = 0;
        for (member, from) in unknown {
            if lines == MOST_LOGGED {
                break;
            }
            if self.without_socket.insert(Arc::clone(&member.name)) {
                let (set, uri) = (member.set, &*member.uri);
                lines += 1;
                warn!(
                    event = "destination_socket_unknown",
                    set, uri, %from,
                    "no socket of `listen` has the address in `socket`: the usual one is used; correct the row, or add the socket"
                );
            }
        }
        lines
    }

    fn tell_members(&mut self, sets: &Sets) -> usize {
        let mut lines = 0;
        for member in sets.members() {
            let state = member.runtime.state();
            let before = self.states.insert(Arc::clone(&member.name), state);
            let was_open = before.is_none_or(|before| before.admission.is_open());
            if was_open != state.admission.is_open() {
                tell_turn(member, before.unwrap_or_default(), state);
                lines += 1;
            }
        }
        if self.states.len() > sets.members().count() {
            self.states.retain(|name, _| sets.member(name).is_some());
        }
        lines
    }

    fn tell_sets(&mut self, sets: &Sets) -> usize {
        let mut lines = 0;
        for set in sets.iter() {
            let id = set.id();
            match (set.open() == 0, self.down.contains_key(&id)) {
                (true, false) => {
                    self.down.insert(id, SystemTime::now());
                    lines += 1;
                    error!(
                        event = "set_down",
                        set = id,
                        "no destination of the set gets requests: `portcullis dispatcher show` says why"
                    );
                }
                (false, true) => {
                    self.down.remove(&id);
                    lines += 1;
                    info!(
                        event = "set_up",
                        set = id,
                        "the set has a destination again"
                    );
                }
                (true, true) | (false, false) => {}
            }
        }
        self.down.retain(|id, _| sets.get(*id).is_some());
        lines
    }
}

fn tell_turn(member: &Member, from: State, to: State) {
    let last = member.runtime.last().and_then(|last| last.code);
    let (set, uri, code) = (member.set, &*member.uri, last.unwrap_or(0));
    let is_open = to.admission.is_open();
    let (from, to) = (from.to_string(), to.to_string());
    match is_open {
        true => info!(
            event = "destination_up",
            set, uri, from, to, "destination gets requests again"
        ),
        false => warn!(
            event = "destination_down",
            set, uri, from, to, code, "destination gets no more requests"
        ),
    }
}

pub(super) fn tell_load(sets: &Sets, is_absent: bool) {
    if is_absent {
        info!(
            event = "dispatcher_table_missing",
            "no table of the dispatcher: there are no sets"
        );
        return;
    }
    info!(
        event = "dispatcher_loaded",
        generation = sets.generation,
        sets = sets.len(),
        destinations = sets.members().count(),
        skipped = sets.skipped,
        warned = sets.warned,
        milliseconds = sets.took.as_millis() as u64,
        "sets of the dispatcher loaded"
    );
    for error in sets.errors.iter().take(MOST_LOGGED) {
        warn!(
            event = "row_skipped",
            "row of the dispatcher skipped: {error}"
        );
    }
    for warning in sets.warnings.iter().take(MOST_LOGGED) {
        warn!(
            event = "row_odd",
            "row of the dispatcher used, with a warning: {warning}"
        );
    }
    let more = (sets.skipped + sets.warned).saturating_sub(2 * MOST_LOGGED as u64);
    if more > 0 {
        warn!(
            event = "row_skipped",
            "{more} further rows of the dispatcher skipped or used with a warning"
        );
    }
}
