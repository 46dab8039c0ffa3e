//! Taking policies into the database that were kept in memory because it had no tables for them.

use std::time::UNIX_EPOCH;

use portcullis_store::{Kept, NewGeneration, Seat as StoredSeat, StoreError};

use crate::policy_files::PolicyFiles;

use super::Registry;
use super::shipping::{Provenance, stored_trial};
use super::stored::CONTRACT;
use super::stored::state::{Seen, Stored};

/// Who takes over what was kept in memory, as the database has it.
const HOST: &str = "host";

/// A generation in memory, and where it came from.
struct Held {
    number: u64,
    name: String,
    provenance: Provenance,
}

impl Registry {
    /// Takes into the database what was pushed before it had tables for that. Where another host was faster, its policies go for this
    /// host, too. Whether the database has changed.
    ///
    /// # Errors
    /// When it can't be written; the next look tries again.
    pub(super) async fn adopt(&self, stored: &Stored) -> Result<bool, StoreError> {
        let all = self.all_files();
        let mut is_changed = false;
        // Nothing is pushed meanwhile: it would be in memory only.
        let mut arrivals = Vec::new();
        for files in all.iter().filter(|files| files.file().is_none()) {
            // It is never closed.
            arrivals.push(files.seat().arrivals.acquire().await);
            let name = &*files.seat().name;
            if stored.seen.lock().contains_key(name) {
                continue;
            }
            let held = self.held(files);
            if held.is_empty() {
                continue;
            }
            is_changed |= self.adopt_seat(stored, files, &held).await?;
        }
        stored.answered();
        Ok(is_changed)
    }

    async fn adopt_seat(
        &self,
        stored: &Stored,
        files: &PolicyFiles,
        held: &[Held],
    ) -> Result<bool, StoreError> {
        let seat = self.seat_as_held(files, held);
        let generations: Vec<_> = held.iter().map(|held| held.kept(&seat.name)).collect();
        let name = seat.name.clone();
        if stored.store().adopt(&seat, &generations, HOST).await? {
            let seen = Seen {
                revision: 1,
                active: seat.active,
            };
            stored.seen.lock().insert(name.clone(), seen);
            tracing::info!(
                event = "policies_adopted",
                seat = name,
                generations = generations.len(),
                "policies kept in memory are now in the database"
            );
            return Ok(true);
        }
        // Their numbers are those of others now.
        files.slot().forget_kept();
        self.manifest.forget(&name);
        stored.foreign.lock().insert(name.clone());
        tracing::warn!(
            event = "policies_given_up",
            seat = name,
            generations = generations.len(),
            "The policies that were kept in memory are given up: another host has stored its own for this seat. Push them again."
        );
        Ok(false)
    }

    /// The generations of a seat that are in memory with their files.
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

    /// What each of them does.
    fn seat_as_held(&self, files: &PolicyFiles, held: &[Held]) -> StoredSeat {
        let slot = files.slot();
        let is_held = |number: &u64| held.iter().any(|held| held.number == *number);
        let lineup = slot.lineup();
        let candidate = lineup.as_ref().and_then(|lineup| lineup.candidate.as_ref());
        let candidate = candidate.map(|one| (one.generation.number, stored_trial(one.trial)));
        let mode = slot.mode();
        StoredSeat {
            name: files.seat().name.to_string(),
            last: slot.last_number(),
            active: Some(slot.number()).filter(is_held),
            previous: slot.previous().filter(is_held),
            candidate: candidate.filter(|(number, _)| is_held(number)),
            mode: (mode != files.seat().config.mode).then(|| mode.as_str().to_owned()),
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
