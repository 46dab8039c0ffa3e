//! Seats whose generations are in the memory of this host only: the slot is the state.

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, ready};
use portcullis_policy::NoGeneration;
use portcullis_store::{Generation as StoredGeneration, NewGeneration};

use crate::policy_files::PolicyFiles;

use super::desired::DesiredState;
use super::error::ShipError;
use super::state::{Change, Deployment};

/// Storage in memory, which ends with the host.
#[derive(Debug)]
pub(crate) struct Memory;

impl DesiredState for Memory {
    fn add<'a>(
        &'a self,
        _files: &'a PolicyFiles,
        _new: NewGeneration<'a>,
    ) -> BoxFuture<'a, Result<Option<u64>, ShipError>> {
        ready(Ok(None)).boxed()
    }

    fn previous<'a>(&'a self, files: &'a PolicyFiles) -> BoxFuture<'a, Result<u64, ShipError>> {
        let previous = deployment_of(files).back_to(None);
        ready(previous.map_err(ShipError::from)).boxed()
    }

    fn change<'a>(
        &'a self,
        files: &'a Arc<PolicyFiles>,
        change: Change,
        _by: &'a str,
    ) -> BoxFuture<'a, Result<(), ShipError>> {
        ready(carry_out(files, change)).boxed()
    }

    fn generations<'a>(
        &'a self,
        _seat: &'a str,
    ) -> BoxFuture<'a, Result<Vec<StoredGeneration>, ShipError>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn bytes<'a>(
        &'a self,
        files: &'a PolicyFiles,
        number: u64,
    ) -> BoxFuture<'a, Result<Arc<[u8]>, ShipError>> {
        let slot = files.slot();
        let error = match slot.generation(number) {
            Some(_) => ShipError::NotPushed(number),
            None => {
                let kept = slot.numbers();
                NoGeneration::Unknown { number, kept }.into()
            }
        };
        ready(Err(error)).boxed()
    }

    fn note_fall_back(&self, _files: &PolicyFiles, _from: u64, _to: u64) {}
}

/// Returns the roles of the generations of a slot.
pub(crate) fn deployment_of(files: &PolicyFiles) -> Deployment {
    let slot = files.slot();
    let lineup = slot.lineup();
    let candidate = lineup.as_ref().and_then(|lineup| lineup.candidate.as_ref());
    let mode = slot.mode();
    Deployment {
        kept: slot.numbers().into_iter().collect(),
        is_served: lineup.is_some(),
        active: lineup.as_ref().map(|lineup| lineup.active.number),
        previous: slot.previous(),
        candidate: candidate.map(|one| (one.generation.number, one.trial)),
        mode: (mode != files.seat().config.mode).then_some(mode),
    }
}

fn carry_out(files: &PolicyFiles, change: Change) -> Result<(), ShipError> {
    let (slot, seat) = (files.slot(), &*files.seat().name);
    deployment_of(files).after(change)?;
    match change {
        Change::Activate(number) => {
            slot.activate(number)?;
            tracing::info!(
                event = "generation_active",
                seat,
                generation = number,
                "generation is active"
            );
        }
        Change::RollBack(to) => {
            let number = slot.roll_back(to)?.number;
            tracing::info!(
                event = "generation_rolled_back",
                seat,
                generation = number,
                "older generation is active again"
            );
        }
        Change::TryOut(number, trial) => drop(slot.try_out(number, trial)?),
        Change::EndTrial => drop(slot.end_trial()),
        Change::SetMode(mode) => slot.set_mode(mode),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use portcullis_config::SeatConfig;
    use portcullis_dataplane::tenants::Seat;
    use portcullis_policy::{Limits, PolicySlot, Runtime, Scope};
    use proptest::prelude::*;

    use crate::deployments::state::tests::steps;
    use crate::policy_files::tests::rejecting;

    use super::*;

    static RUNTIME: LazyLock<Arc<Runtime>> = LazyLock::new(|| {
        let limits = Limits {
            instances: 1,
            ..Limits::default()
        };
        Arc::new(Runtime::new(limits).unwrap())
    });

    /// A seat that retains every generation.
    fn files() -> PolicyFiles {
        let slot = Arc::new(PolicySlot::keeping(64));
        let config = SeatConfig::default();
        let seat = Seat::new("a", slot, Scope::operator(), config, Arc::default());
        PolicyFiles::new(Arc::new(seat), Arc::clone(&RUNTIME))
    }

    /// Adds another generation to the seat, and returns its number.
    fn admit(files: &PolicyFiles, module: &[u8]) -> u64 {
        let settings = files.seat().scope.settings();
        let policy = RUNTIME.load_within("a.wasm", module, RUNTIME.limits(), settings);
        files.slot().admit(policy.unwrap(), None).number
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_slot_does_what_the_state_machine_says(steps in steps()) {
            let module = rejecting(480);
            let files = files();
            let configured = files.seat().config.mode;
            let mut state = deployment_of(&files);
            for step in steps {
                let Some(change) = step else {
                    let number = admit(&files, &module);
                    state.kept.insert(number);
                    continue;
                };
                let done = carry_out(&files, change);
                match state.after(change) {
                    Ok(after) => {
                        prop_assert_eq!(done, Ok(()));
                        state = after;
                    }
                    Err(refusal) => prop_assert_eq!(done, Err(refusal.into())),
                }
                let mut slot = deployment_of(&files);
                prop_assert_eq!(slot.mode.unwrap_or(configured), state.mode.unwrap_or(configured));
                slot.mode = state.mode;
                prop_assert_eq!(&slot, &state);
            }
        }
    }
}
