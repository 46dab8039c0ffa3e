//! Copies policies to the database that were kept in memory while its tables did not exist.

use std::time::UNIX_EPOCH;

use portcullis_store::{Kept, NewGeneration, Seat as StoredSeat, StoreError};

use crate::policy_files::PolicyFiles;

use super::database::{Database, stored_trial};
use super::memory::deployment_of;
use super::provenance::Provenance;
use super::{CONTRACT, Deployments};

/// Author of the copies, as stored in the database.
const HOST: &str = "host";

/// A generation in memory, with its provenance.
struct Held {
    number: u64,
    name: String,
    provenance: Provenance,
}

impl Deployments {
    /// Copies the policies that are kept in memory to the database. If another host has already stored policies for the seat, those are
    /// used, and the policies in memory are dropped. Returns whether the database has changed.
    ///
    /// # Errors
    /// If the database cannot be written. The next call tries again.
    pub(super) async fn adopt(&self, database: &Database) -> Result<bool, StoreError> {
        let all = self.seats.all_files();
        let mut is_changed = false;
        // Holds off pushes meanwhile: a policy pushed now would be in memory only.
        let mut arrivals = Vec::new();
        for files in all.iter().filter(|files| files.file().is_none()) {
            // The semaphore is never closed.
            arrivals.push(files.seat().arrivals.acquire().await);
            let name = &*files.seat().name;
            if database.has_seen(name) {
                continue;
            }
            let held = self.held(files);
            if held.is_empty() {
                continue;
            }
            is_changed |= self.adopt_seat(database, files, &held).await?;
        }
        database.health().answered();
        Ok(is_changed)
    }

    async fn adopt_seat(
        &self,
        database: &Database,
        files: &PolicyFiles,
        held: &[Held],
    ) -> Result<bool, StoreError> {
        let seat = Self::seat_as_held(files, held);
        let generations: Vec<_> = held.iter().map(|held| held.kept(&seat.name)).collect();
        let name = seat.name.clone();
        if database.store().adopt(&seat, &generations, HOST).await? {
            database.told().note_done(&name, 1);
            database.see(StoredSeat {
                revision: 1,
                ..seat.clone()
            });
            tracing::info!(
                event = "policies_adopted",
                seat = name,
                generations = generations.len(),
                "policies kept in memory are now in the database"
            );
            return Ok(true);
        }
        // The numbers now belong to the generations of another host.
        files.slot().forget_kept();
        self.manifest.forget(&name);
        database.give_up(&name);
        tracing::warn!(
            event = "policies_given_up",
            seat = name,
            generations = generations.len(),
            "policies kept in memory dropped, another host has stored its own for this seat; push them again"
        );
        Ok(false)
    }

    /// Returns the generations of a seat that are in memory, with their files.
    fn held(&self, files: &PolicyFiles) -> Vec<Held> {
        let (slot, name) = (files.slot(), &files.seat().name);
        let held = slot.numbers().into_iter().filter_map(|number| {
            Some(Held {
                number,
                name: slot.generation(number)?.policy.name().to_owned(),
                provenance: self.provenance(name, number)?,
            })
        });
        held.collect()
    }

    /// Returns the state of the seat with these generations, as the row to be stored.
    fn seat_as_held(files: &PolicyFiles, held: &[Held]) -> StoredSeat {
        let is_held = |number: &u64| held.iter().any(|held| held.number == *number);
        let now = deployment_of(files);
        let candidate = now.candidate.filter(|(number, _)| is_held(number));
        StoredSeat {
            name: files.seat().name.to_string(),
            last: files.slot().last_number(),
            active: now.active.filter(is_held),
            previous: now.previous.filter(is_held),
            candidate: candidate.map(|(number, trial)| (number, stored_trial(trial))),
            mode: now.mode.map(|mode| mode.as_str().to_owned()),
            ..StoredSeat::default()
        }
    }
}

impl Held {
    fn kept<'h>(&'h self, seat: &'h str) -> Kept<'h> {
        let Provenance {
            bytes,
            author,
            note,
            signature,
            at,
        } = &self.provenance;
        let since = at.duration_since(UNIX_EPOCH);
        Kept {
            number: self.number,
            created_at: since.map_or(0, |since| since.as_secs()),
            new: NewGeneration {
                seat,
                name: &self.name,
                contract: CONTRACT,
                author,
                note,
                signature,
                bytes,
            },
        }
    }
}
