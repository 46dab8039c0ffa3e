//! What this host says of its seats to the other hosts.

use std::collections::BTreeMap;

use portcullis_fleet::directory::SeatState;
use tokio::sync::watch;

use super::Deployments;

impl Deployments {
    /// What this host says to others of each seat that has a state in the database. None without a database.
    ///
    /// It is true for all workers when every worker has begun another decision since.
    pub fn seat_states(&self) -> BTreeMap<String, SeatState> {
        let Some(database) = &self.database else {
            return BTreeMap::new();
        };
        let entries = database.told().entries().into_iter();
        let states = entries.map(|(name, entry)| {
            let state = match self.seats.files(&name) {
                Some(files) => entry.state(&files),
                None => SeatState {
                    revision: entry.revision,
                    is_elsewhere: true,
                    ..SeatState::default()
                },
            };
            (name, state)
        });
        states.collect()
    }

    /// Changes after each stored change of a seat that this host has carried out, or could not. Never without a database.
    pub fn changed(&self) -> watch::Receiver<u64> {
        match &self.database {
            Some(database) => database.told().changes.subscribe(),
            None => watch::channel(0).1,
        }
    }
}
