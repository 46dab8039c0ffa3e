//! What the log says about loads and about changes of state.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use tracing::{error, info, warn};

use crate::member::{Member, Turned};
use crate::sets::Sets;

/// Most invalid rows that a load logs; the first hundred are in [`Sets::errors`]. Also most lines about unknown sockets at a time.
const MOST_LOGGED: usize = 20;

/// What the log said last about sets. What it said about a destination is in its [`Runtime`](crate::Runtime): rows with the same URI may have different
/// states.
#[derive(Debug, Default)]
pub(super) struct LoggedSets {
    /// Sets without a destination that gets requests, and since when.
    down: BTreeMap<u32, SystemTime>,
}

impl LoggedSets {
    /// Logs that requests no longer go to a destination, or go there again, since the last call (Kamailio: `event_route[dispatcher:dst-down]`
    /// and `dst-up`), and the same for whole sets. Workers change states, and must not write to the log. Returns how many lines that were.
    pub(super) fn log_changes(&mut self, sets: &Sets) -> usize {
        log_members(sets) + self.log_sets(sets)
    }

    /// Sets without a destination that gets requests, and since when.
    pub(super) fn down(&self) -> &BTreeMap<u32, SystemTime> {
        &self.down
    }

    fn log_sets(&mut self, sets: &Sets) -> usize {
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

/// Logs once which destinations name a socket that the host does not have, at most [`MOST_LOGGED`] in a call. Returns how many lines that were.
pub(super) fn log_unknown_sockets(sets: &Sets, has_socket: impl Fn(SocketAddr) -> bool) -> usize {
    let mut lines = 0;
    for member in sets.members() {
        let Some(from) = member.attrs.from else {
            continue;
        };
        if has_socket(from) {
            member.runtime.has_socket();
            continue;
        }
        if lines < MOST_LOGGED && member.runtime.tell_socket() {
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

fn log_members(sets: &Sets) -> usize {
    let members = sets.members();
    let turned = members.filter_map(|member| Some((member, member.runtime.to_tell()?)));
    turned
        .inspect(|(member, turned)| log_turn(member, *turned))
        .count()
}

fn log_turn(member: &Member, turned: Turned) {
    let Turned { from, to } = turned;
    let last = member.runtime.last().and_then(|last| last.code);
    let (set, uri, code) = (member.set, &*member.uri, last.unwrap_or(0));
    // Tells rows with the same URI apart.
    let socket = Some(&*member.attrs.socket).filter(|socket| !socket.is_empty());
    // Why the last ping was no success.
    let complaint = member.runtime.complaint();
    let ping = complaint.as_deref();
    // It has asked for that (Retry-After).
    let paused_until = member.runtime.paused_until();
    let is_open = to.admission.is_open();
    let (from, to) = (from.to_string(), to.to_string());
    match is_open {
        true => info!(
            event = "destination_up",
            set, uri, socket, from, to, "destination gets requests again"
        ),
        false => warn!(
            event = "destination_down",
            set,
            uri,
            socket,
            from,
            to,
            code,
            ping,
            paused_until,
            "destination gets no more requests"
        ),
    }
}

pub(super) fn log_load(sets: &Sets, is_absent: bool) {
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
