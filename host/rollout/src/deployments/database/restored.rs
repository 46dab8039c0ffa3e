//! What happens when the database was replaced by an older backup of itself under running hosts.
//!
//! The database stays the truth: the hosts go back to what it says, which is the only state that all hosts, also new ones, have in common. A
//! push that was acknowledged after the backup is not lost: a host that still has the file stores it again under its number, without a role,
//! so that an operator can activate it, and no other file gets the number. What no host has any more is named.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use parking_lot::Mutex;
use portcullis_policy::{Digest, Generation};
use portcullis_store::{Kept, NewGeneration, PutBack, Seat as StoredSeat, StoreError};

use super::{Database, Said};
use crate::deployments::{CONTRACT, ShipError};
use crate::policy_files::PolicyFiles;

/// How long a row must be older before it applies. A server that is a replica may lag behind the one that was asked before, and a backup
/// is not read back at once: nothing is written before the tables have been there for this time.
const SETTLED: Duration = Duration::from_secs(10);

/// Most generations of one seat that a log line names.
const MOST_NAMED: u64 = 50;

/// A row, compared with an earlier one of the same seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// It has been changed since.
    Newer,
    /// No role has changed.
    Same,
    /// It does not come from the earlier one: the database has gone back.
    Older,
}

/// The seats whose rows are older, or gone.
#[derive(Debug, Default)]
pub(super) struct Older(Mutex<BTreeMap<String, Since>>);

/// Since when the row of a seat has been older, or gone.
#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    /// The last number of the row at that time; `None` if there is no row.
    last: Option<u64>,
    /// Whether nothing is left to be done as long as that is so.
    is_over: bool,
}

/// What has become of the generations that a restored database may lack.
#[derive(Debug, Default)]
struct Missing {
    /// Those that this host has stored again.
    stored: Vec<String>,
    /// Those that are lost, as far as this host can say.
    lost: Vec<String>,
}

impl Age {
    fn of(row: &StoredSeat, before: &StoredSeat) -> Self {
        // Not the author: a column may be too short for a name.
        let has_same_roles = row.active == before.active
            && row.previous == before.previous
            && row.candidate == before.candidate
            && row.mode == before.mode;
        // A time is that of the host that made the change, so only whether it is the same one says something.
        let is_same_change = row.changed_at == before.changed_at || before.changed_at == 0;
        if row.last < before.last {
            return Self::Older;
        }
        match row.revision.cmp(&before.revision) {
            Ordering::Greater => Self::Newer,
            Ordering::Equal if has_same_roles && is_same_change => Self::Same,
            Ordering::Equal | Ordering::Less => Self::Older,
        }
    }
}

impl Older {
    /// Notes that the row of a seat is older, with its last number, or gone. Returns whether that has been so for [`SETTLED`].
    fn note(&self, seat: &str, last: Option<u64>, now: Instant) -> bool {
        let mut all = self.0.lock();
        let begins = Since {
            at: now,
            last,
            is_over: false,
        };
        let since = all.entry(seat.to_owned()).or_insert(begins);
        // A row that comes back is part of a restore that goes on.
        if since.last.is_none() != last.is_none() {
            *since = begins;
        }
        !since.is_over && now.saturating_duration_since(since.at) >= SETTLED
    }

    /// Notes that what follows from a row that is gone has been done.
    fn finish(&self, seat: &str) {
        if let Some(since) = self.0.lock().get_mut(seat) {
            since.is_over = true;
        }
    }

    /// The last number of a row when it was found to be older.
    fn last_of(&self, seat: &str) -> Option<u64> {
        self.0.lock().get(seat)?.last
    }

    /// Notes that the row of a seat is not older, or applies.
    pub(super) fn clear(&self, seat: &str) {
        self.0.lock().remove(seat);
    }

    /// Whether no seat waits.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().values().all(|since| since.is_over)
    }
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
    ) -> Result<(), ShipError> {
        let older = before.filter(|before| Age::of(seat, before) == Age::Older);
        let Some(before) = older else {
            return self.bring(files, seat, said, before).await;
        };
        let served = files.slot().number();
        let missing = self.put_back(files, seat, before).await?;
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
                event = "database_older",
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
                contract: CONTRACT,
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
            event = "database_older",
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
    use portcullis_store::Trial;

    use super::*;

    fn seat(revision: u64, last: u64, active: u64) -> StoredSeat {
        StoredSeat {
            name: "acme".to_owned(),
            last,
            active: Some(active),
            revision,
            ..StoredSeat::default()
        }
    }

    #[test]
    fn a_row_that_went_back_is_told_from_one_that_was_changed() {
        let before = seat(7, 5, 5);
        assert_eq!(Age::of(&before, &before), Age::Same);
        assert_eq!(Age::of(&seat(7, 6, 5), &before), Age::Same, "a push");
        assert_eq!(Age::of(&seat(8, 6, 6), &before), Age::Newer);
        assert_eq!(Age::of(&seat(6, 5, 4), &before), Age::Older);
        assert_eq!(
            Age::of(&seat(9, 4, 4), &before),
            Age::Older,
            "restored, and changed again"
        );
        assert_eq!(
            Age::of(&seat(7, 5, 4), &before),
            Age::Older,
            "as many changes, but others"
        );
        let tried = StoredSeat {
            candidate: Some((4, Trial::Shadow)),
            ..before.clone()
        };
        assert_eq!(Age::of(&tried, &before), Age::Older);
        let at = |changed_at| StoredSeat {
            changed_at,
            ..before.clone()
        };
        assert_eq!(Age::of(&at(9), &at(9)), Age::Same);
        assert_eq!(Age::of(&at(9), &at(0)), Age::Same, "the own change");
        assert_eq!(
            Age::of(&at(8), &at(9)),
            Age::Older,
            "the same numbers, another file"
        );
        let by_other = StoredSeat {
            changed_by: "ann".to_owned(),
            ..before.clone()
        };
        assert_eq!(Age::of(&by_other, &before), Age::Same);
    }

    #[test]
    fn an_older_row_applies_after_ten_seconds_unless_it_was_a_replica_that_lagged() {
        let (older, begun) = (Older::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(!older.note("acme", Some(3), begun));
        assert!(!older.note("acme", Some(6), after(9)));
        assert!(!older.is_over());
        assert!(older.note("acme", Some(6), after(10)));
        assert_eq!(older.last_of("acme"), Some(3), "before hosts raised it");
        older.clear("acme");
        assert!(older.is_over());
        assert!(!older.note("acme", Some(3), after(11)));
        assert!(!older.note("beta", Some(1), after(30)));
    }

    #[test]
    fn a_row_that_is_gone_is_told_once_and_one_that_comes_back_waits_again() {
        let (older, begun) = (Older::default(), Instant::now());
        let after = |seconds| begun + Duration::from_secs(seconds);
        assert!(!older.note("acme", None, begun));
        assert!(older.note("acme", None, after(10)));
        older.finish("acme");
        assert!(older.is_over(), "the seats need not be read again");
        assert!(!older.note("acme", None, after(60)));
        assert!(!older.note("acme", Some(1), after(61)));
        assert!(!older.is_over());
        assert!(older.note("acme", Some(1), after(71)));
    }

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
