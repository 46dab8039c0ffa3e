//! What happens when the database was replaced by an older backup of itself under running hosts.
//!
//! The database stays the truth: the hosts go back to what it says, which is the only state that all hosts, also new ones, have in common. A
//! push that was acknowledged after the backup is not lost: a host that still has the file stores it again under its number, without a role,
//! so that an operator can activate it, and no other file gets the number. What no host has any more is named.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Instant, UNIX_EPOCH};

use portcullis_policy::{Digest, Generation, WORLD};
use portcullis_store::{Kept, NewGeneration, PutBack, Seat as StoredSeat, StoreError};

use super::age::Age;
use super::{Brought, Database, Said};
use crate::deployments::error::ShipError;
use crate::policy_files::PolicyFiles;

/// Most generations of one seat that a log line names.
const MOST_NAMED: u64 = 50;

/// What has become of the generations that a restored database may lack.
#[derive(Debug, Default)]
struct Missing {
    /// Those that this host has stored again.
    stored: Vec<String>,
    /// Those that are lost, as far as this host can say.
    lost: Vec<String>,
}

impl Database {
    /// Returns the row to be applied; `None` if there is nothing to do, or not yet.
    pub(super) async fn due(
        &self,
        seat: &StoredSeat,
        before: Option<&StoredSeat>,
        said: Said,
    ) -> Result<Option<StoredSeat>, StoreError> {
        let (Some(before), Said::ByRow) = (before, said) else {
            return Ok(Some(seat.clone()));
        };
        match Age::of(seat, before) {
            Age::Newer => Ok(Some(seat.clone())),
            Age::Same => {
                self.see(seat.clone());
                self.older.clear(&seat.name);
                Ok(None)
            }
            Age::Older => self.settled(seat, before).await,
        }
    }

    /// Applies a stored row to a seat, after what was applied before.
    pub(super) async fn bring_from(
        &self,
        files: &Arc<PolicyFiles>,
        seat: &StoredSeat,
        said: Said,
        before: Option<&StoredSeat>,
    ) -> Result<Brought, ShipError> {
        let older = before.filter(|before| Age::of(seat, before) == Age::Older);
        let Some(before) = older else {
            return self.bring(files, seat, said, before).await;
        };
        let served = files.slot().number();
        let missing = self.put_back(files, seat, before).await?;
        // Revisions count from the older row again.
        self.told.forget(&seat.name);
        // An automatic fallback concerned a generation of the lost history.
        self.fall_backs.lock().remove(&seat.name);
        let done = self.bring(files, seat, said, Some(before)).await;
        if !matches!(&done, Err(ShipError::Store(error)) if error.is_away()) {
            missing.tell(seat, before, served);
        }
        done
    }

    /// Returns the row of a seat as it is now, if an older row has been there long enough; otherwise a later poll decides.
    ///
    /// # Errors
    /// If the database does not answer.
    async fn settled(
        &self,
        row: &StoredSeat,
        before: &StoredSeat,
    ) -> Result<Option<StoredSeat>, StoreError> {
        let seat = &before.name;
        if !self.older.note(seat, Some(row.last), Instant::now()) {
            return Ok(None);
        }
        // The row may have been read before this host has changed it.
        let row = self.store.seat(seat).await?;
        let row = row.filter(|row| Age::of(row, before) != Age::Same);
        if row.is_none() {
            self.older.clear(seat);
        }
        Ok(row)
    }

    /// Notes which seats have no row any more. Their policies stay, because a host cannot go back to none.
    pub(in crate::deployments) fn note_gone(&self, seats: &[StoredSeat]) {
        let there: BTreeSet<&str> = seats.iter().map(|seat| seat.name.as_str()).collect();
        let gone: Vec<StoredSeat> = {
            let seen = self.seen.lock();
            let gone = seen
                .values()
                .filter(|seat| !there.contains(&*seat.name) && seat.last > 0);
            gone.cloned().collect()
        };
        for seat in gone {
            if !self.older.note(&seat.name, None, Instant::now()) {
                continue;
            }
            tracing::error!(
                event = "seat_older",
                seat = seat.name,
                revision = 0,
                before = seat.revision,
                generation = 0,
                lost = named(1..=seat.last, |number| format!("{number}")).join(", "),
                "the database does not have this seat any more, as after a restore of a backup: its policy stays in use on the running hosts only; \
                 push it again"
            );
            self.older.finish(&seat.name);
        }
    }

    /// Stores the generations again that an older row of a seat lacks, as far as this host has them. The result is for [`Missing::tell`].
    ///
    /// # Errors
    /// If the database does not answer. What it refuses is in the result.
    async fn put_back(
        &self,
        files: &PolicyFiles,
        row: &StoredSeat,
        before: &StoredSeat,
    ) -> Result<Missing, StoreError> {
        let digests = self.store.digests(&row.name).await?;
        let (slot, mut missing) = (files.slot(), Missing::default());
        // Other hosts may have raised the number since.
        let restored = self.older.last_of(&row.name).unwrap_or(row.last);
        let restored = restored.min(row.last);
        for number in slot.numbers() {
            let Some(generation) = slot.generation(number) else {
                continue;
            };
            if digests.get(&number) == Some(&digest_of(&generation)) {
                continue;
            }
            // A generation that was pruned before the backup is not missing.
            if number <= restored && !digests.contains_key(&number) {
                continue;
            }
            let put = self.put_back_one(&row.name, &generation).await;
            let told = describe(&generation);
            match put {
                Ok(Some(PutBack::Stored)) => missing.stored.push(told),
                Ok(Some(PutBack::IsThere)) => {}
                Ok(Some(PutBack::Taken { digest })) => {
                    let other: String = digest.chars().take(12).collect();
                    let told = format!("{told}: its number is that of sha256:{other} now");
                    missing.lost.push(told);
                }
                Ok(None) => missing.lost.push(told),
                Err(error) if error.is_away() => return Err(error),
                Err(error) => missing.lost.push(format!("{told}: {error}")),
            }
        }
        // Numbers that were given after the backup, and that this host does not have.
        let digests = self.store.digests(&row.name).await?;
        let numbers = restored.saturating_add(1)..=before.last;
        let unknown = named(numbers, |number| {
            let is_known = digests.contains_key(&number) || slot.generation(number).is_some();
            if is_known {
                String::new()
            } else {
                format!("{number} (not on this host)")
            }
        });
        let unknown = unknown.into_iter().filter(|told| !told.is_empty());
        missing.lost.extend(unknown);
        Ok(missing)
    }

    /// `None` if this host does not have the file.
    async fn put_back_one(
        &self,
        seat: &str,
        generation: &Generation,
    ) -> Result<Option<PutBack>, StoreError> {
        let Some(provenance) = self.manifest.find(seat, generation.number) else {
            return Ok(None);
        };
        if Digest::of(&provenance.bytes) != generation.policy.digest() {
            return Ok(None);
        }
        let since = provenance.at.duration_since(UNIX_EPOCH);
        let kept = Kept {
            number: generation.number,
            created_at: since.map_or(0, |since| since.as_secs()),
            new: NewGeneration {
                seat,
                name: generation.policy.name(),
                contract: WORLD,
                author: &provenance.author,
                note: &provenance.note,
                signature: &provenance.signature,
                bytes: &provenance.bytes,
            },
        };
        Ok(Some(self.store.put_back(&kept).await?))
    }

    /// Whether the database has another file under the number of a generation. Logs it: the database was replaced by a backup, and the number
    /// was given again.
    pub(super) fn is_replaced(
        &self,
        seat: &str,
        generation: &Arc<Generation>,
        stored: &str,
    ) -> bool {
        if digest_of(generation) == stored {
            return false;
        }
        let digest: String = stored.chars().take(12).collect();
        tracing::error!(
            event = "generation_number_reused",
            seat,
            generation = generation.number,
            digest = format!("sha256:{digest}"),
            before = describe(generation),
            "the database has another file under the number of this generation, as after a restore of a backup: the file of the database applies; push \
             the other one again if it is needed"
        );
        true
    }
}

impl Missing {
    /// Logs that a seat has gone back. `served` is the number of the generation that was active until now.
    fn tell(&self, row: &StoredSeat, before: &StoredSeat, served: u64) {
        tracing::error!(
            event = "seat_older",
            seat = row.name,
            revision = row.revision,
            before = before.revision,
            generation = row.active.unwrap_or(0),
            served,
            stored = self.stored.join(", "),
            lost = self.lost.join(", "),
            "the database has an older state of this seat, as after a restore of a backup: the state applies; later pushes that hosts still had are \
             stored again without a role: activate one with `portcullis policy activate`"
        );
    }
}

/// The digest as the database stores it.
fn digest_of(generation: &Generation) -> String {
    generation.policy.digest().to_string()
}

fn describe(generation: &Generation) -> String {
    format!(
        "{} ({}, sha256:{:#})",
        generation.number,
        generation.policy.name(),
        generation.policy.digest()
    )
}

/// Texts for numbers, up to [`MOST_NAMED`].
fn named(numbers: RangeInclusive<u64>, text: impl Fn(u64) -> String) -> Vec<String> {
    let (first, last) = (*numbers.start(), *numbers.end());
    let end = last.min(first.saturating_add(MOST_NAMED - 1));
    let mut texts: Vec<String> = (first..=end).map(text).collect();
    if end < last {
        texts.push(format!("and others up to {last}"));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_numbers_is_cut() {
        let text = |number: u64| number.to_string();
        assert_eq!(named(4..=5, text), ["4", "5"]);
        assert_eq!(named(RangeInclusive::new(5, 4), text), Vec::<String>::new());
        let many = named(1..=1_000, text);
        assert_eq!(many.len() as u64, MOST_NAMED + 1);
        assert_eq!(
            many.last().map(String::as_str),
            Some("and others up to 1000")
        );
    }
}
