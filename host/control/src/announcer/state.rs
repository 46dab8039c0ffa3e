//! What the host says of itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use portcullis_dataplane::drain::Stage as Drain;
use portcullis_fleet::directory::{
    HostState, Load, MOST_SEATS, PeersState, SeatState, Stage, TableState,
};
use portcullis_peers::Peers;
use portcullis_policy::Trial;
use portcullis_rollout::policy_files::PolicyFiles;
use sha2::{Digest as _, Sha256};

use crate::Control;
use crate::commands::alert;
use crate::fleet::lag_of;

/// The state of the host.
pub(super) fn state_of(control: &Control, load: Load) -> HostState {
    let shared = &control.shared;
    let mut told = control.registry.deployments().seat_states();
    let seats = control
        .registry
        .all_files()
        .into_iter()
        .filter_map(|files| {
            let name = files.seat().name.to_string();
            let state = told.remove(&name).or_else(|| seat_of(&files))?;
            Some((name, state))
        });
    let seats: Vec<_> = seats.collect();
    let (seats_total, seats_digest) = (seats.len() as u64, digest_of(&seats));
    // The rest are seats of tenants that run on other hosts only.
    let seats = seats.into_iter().chain(told).collect();
    let status = shared.addresses.status();
    let snapshot = shared.addresses.current();
    let seen = control.fleet.seen();
    let (twin, clock_ahead_ms) = (seen.twin().cloned(), seen.clock_ahead_ms);
    drop(seen);
    HostState {
        stage: stage_of(control),
        listen: shared.listen.iter().map(ToString::to_string).collect(),
        control: control.listening.lines(),
        seats_total,
        seats_digest,
        seats: listed(seats),
        addresses: TableState {
            generation: snapshot.generation,
            rows: snapshot.counts.used(),
            error: status.last_error.map(|error| error.to_string()),
        },
        trusted: TableState {
            generation: snapshot.trusted.generation,
            rows: snapshot.trusted.table.rows().len() as u64,
            error: status.trusted.last_error,
        },
        lag: lag_of(shared, &control.registry),
        alerts: alert::counts(control),
        load,
        clock_ahead_ms,
        twin,
        refuses_drain: !shared.config.fleet.remote_drain,
        peers: shared.peers.as_deref().map(peers_of),
    }
}

fn peers_of(peers: &Peers) -> PeersState {
    PeersState {
        listen: peers.listen().to_string(),
        others: peers.others().iter().map(ToString::to_string).collect(),
        alive: peers.table().addresses().map(|it| it.to_string()).collect(),
    }
}

fn stage_of(control: &Control) -> Stage {
    match control.shared.drain.stage() {
        Drain::Serving if control.registry.progress().is_some() => Stage::Starting,
        Drain::Serving => Stage::Serving,
        Drain::Announced | Drain::Refusing => Stage::Draining,
    }
}

/// The state of a seat without a state in the database; `None` without a policy.
fn seat_of(files: &PolicyFiles) -> Option<SeatState> {
    let lineup = files.slot().lineup()?;
    let candidate = lineup.candidate.as_ref();
    Some(SeatState {
        active: Some(lineup.active.number),
        digest: format!("{:#}", lineup.active.policy.digest()),
        is_file: files.file().is_some(),
        candidate: candidate.map(|candidate| candidate.generation.number),
        share: candidate.and_then(|candidate| match candidate.trial {
            Trial::Shadow => None,
            Trial::Canary(share) => Some(share.hundredths()),
        }),
        ..SeatState::default()
    })
}

/// The seats that are listed.
fn listed(mut seats: Vec<(String, SeatState)>) -> BTreeMap<String, SeatState> {
    if seats.len() > MOST_SEATS {
        let order = |seat: &SeatState| {
            let is_urgent = seat.candidate.is_some() || seat.refused.is_some();
            (is_urgent, seat.revision, !seat.is_elsewhere)
        };
        seats.sort_by_key(|(_, seat)| Reverse(order(seat)));
        seats.truncate(MOST_SEATS);
    }
    seats.into_iter().collect()
}

/// A digest of the roles in the seats to which policies are pushed.
fn digest_of(seats: &[(String, SeatState)]) -> String {
    let mut pushed: Vec<_> = seats.iter().filter(|(_, seat)| !seat.is_file).collect();
    pushed.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut text = String::new();
    for (name, seat) in pushed {
        let SeatState {
            active,
            candidate,
            share,
            ..
        } = seat;
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{name} {active:?} {candidate:?} {share:?}");
    }
    hex::encode(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(revision: u64, candidate: Option<u64>) -> SeatState {
        SeatState {
            active: Some(1),
            candidate,
            revision,
            ..SeatState::default()
        }
    }

    #[test]
    fn of_many_seats_those_on_trial_and_the_last_changed_are_listed() {
        let many = (0..MOST_SEATS as u64 + 10).map(|n| {
            let candidate = (n == 3).then_some(2);
            (format!("tenant-{n:04}"), seat(n, candidate))
        });
        let listed = listed(many.collect());
        assert_eq!(listed.len(), MOST_SEATS);
        assert!(listed.contains_key("tenant-0003"), "on trial");
        assert!(!listed.contains_key("tenant-0010"));
        assert!(listed.contains_key("tenant-0011"));
    }

    #[test]
    fn the_digest_is_that_of_roles_of_pushed_policies() {
        let file = SeatState {
            is_file: true,
            ..seat(0, None)
        };
        let busy = SeatState {
            calls: 7,
            ..seat(9, None)
        };
        let of = |seats: &[(&str, &SeatState)]| {
            let seats: Vec<_> = seats
                .iter()
                .map(|(name, seat)| ((*name).to_owned(), (*seat).clone()))
                .collect();
            digest_of(&seats)
        };
        let one = of(&[("a", &seat(1, None)), ("b", &seat(1, None))]);
        assert_eq!(
            of(&[("b", &busy), ("a", &seat(2, None)), ("f", &file)]),
            one
        );
        assert_ne!(of(&[("a", &seat(1, Some(2))), ("b", &busy)]), one);
        assert_eq!(one.len(), 16);
    }
}
