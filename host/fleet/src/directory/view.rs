//! What the rows of all hosts say together.

use std::collections::BTreeMap;

use super::row::HostRow;
use super::state::{SeatState, Stage};

/// What is known of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It starts.
    Starting,
    /// It serves.
    Serving,
    /// It drains.
    Draining,
    /// It has said that it ends.
    Ended,
    /// It has not written its row for too long, and has not said that it ends.
    Gone,
    /// It is alive, and its state cannot be read.
    Unreadable,
}

impl Standing {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Starting,
        Self::Serving,
        Self::Draining,
        Self::Ended,
        Self::Gone,
        Self::Unreadable,
    ];

    /// The standing of the host with this row.
    pub fn of(row: &HostRow) -> Self {
        match (row.stage(), row.is_alive()) {
            (Some(Stage::Ended), _) => Self::Ended,
            (_, false) => Self::Gone,
            (None, true) => Self::Unreadable,
            (Some(Stage::Starting), true) => Self::Starting,
            (Some(Stage::Serving), true) => Self::Serving,
            (Some(Stage::Draining), true) => Self::Draining,
        }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Ended => "ended",
            Self::Gone => "gone",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The seats to which policies are pushed and whose generations differ among the hosts that serve, by name. A seat that a host does not have, or
/// of a host that starts or ends, is no difference.
pub fn differing(rows: &[HostRow]) -> Vec<String> {
    let mut first: BTreeMap<&str, &SeatState> = BTreeMap::new();
    let mut differing = Vec::new();
    let serving = rows
        .iter()
        .filter(|row| Standing::of(row) == Standing::Serving);
    for (name, seat) in serving
        .filter_map(|row| row.state.as_ref())
        .flat_map(|state| &state.seats)
    {
        if seat.is_file || seat.is_elsewhere {
            continue;
        }
        let one = *first.entry(name).or_insert(seat);
        let roles = |seat: &SeatState| (seat.active, seat.candidate, seat.share);
        if roles(one) != roles(seat) {
            differing.push(name.clone());
        }
    }
    differing.sort_unstable();
    differing.dedup();
    differing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::HostState;

    fn row(stage: Stage, age_ms: i64, seats: &[(&str, u64, bool)]) -> HostRow {
        let seats = seats.iter().map(|(name, active, is_file)| {
            let seat = SeatState {
                active: Some(*active),
                is_file: *is_file,
                ..SeatState::default()
            };
            ((*name).to_owned(), seat)
        });
        HostRow {
            host: "a".into(),
            instance: String::new(),
            address: String::new(),
            version: String::new(),
            started_at: 0,
            seen_at: 0,
            age_ms,
            state: Some(HostState {
                stage,
                seats: seats.collect(),
                ..HostState::default()
            }),
            wish: None,
        }
    }

    #[test]
    fn a_host_that_does_not_write_is_gone_unless_it_has_said_that_it_ends() {
        let of = |stage, age_ms| Standing::of(&row(stage, age_ms, &[]));
        assert_eq!(of(Stage::Serving, 100), Standing::Serving);
        assert_eq!(of(Stage::Draining, 4_999), Standing::Draining);
        assert_eq!(of(Stage::Serving, 5_000), Standing::Gone);
        assert_eq!(of(Stage::Ended, 80_000_000), Standing::Ended);
        let unreadable = |age_ms| HostRow {
            state: None,
            ..row(Stage::Serving, age_ms, &[])
        };
        assert_eq!(Standing::of(&unreadable(0)), Standing::Unreadable);
        assert_eq!(Standing::of(&unreadable(6_000)), Standing::Gone);
    }

    #[test]
    fn seats_differ_if_serving_hosts_have_other_generations() {
        let one = row(
            Stage::Serving,
            0,
            &[("a", 1, false), ("b", 2, false), ("file", 1, true)],
        );
        let other = row(
            Stage::Serving,
            0,
            &[("a", 2, false), ("c", 9, false), ("file", 5, true)],
        );
        let gone = row(Stage::Serving, 9_000, &[("b", 1, false)]);
        let starting = row(Stage::Starting, 0, &[("b", 1, false)]);
        let all = [one.clone(), other, gone, starting];
        assert_eq!(differing(&all), ["a"]);
        assert_eq!(differing(&[one.clone(), one]), [""; 0]);
    }
}
