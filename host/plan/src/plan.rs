//! The steps from one state to another.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;

use crate::comparison::Comparison;
use crate::kind::Kind;
use crate::state::{Item, State};

/// So many items of a kind may be removed without further ado, however few there are.
const FEW: u64 = 3;

/// Steps from one state to another, in their order: tenants come before their policies, what is added and changed comes before what is
/// removed, and removals come in the opposite order of kinds. At no time does a row refer to a tenant that is gone, and no source loses its row
/// before the row that replaces it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// Counts of each kind that is described.
    pub tallies: BTreeMap<Kind, Tally>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Kind of the item.
    pub kind: Kind,
    /// Key of the item.
    pub key: String,
    /// What is done.
    #[serde(flatten)]
    pub action: Action,
}

/// What a step does. Positions are those in the lists of the states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Action {
    /// Creates the item.
    Create {
        /// Position of the desired item.
        #[serde(skip)]
        desired: usize,
    },
    /// Changes the item.
    Change {
        /// Position of the desired item.
        #[serde(skip)]
        desired: usize,
        /// Position of the existing item.
        #[serde(skip)]
        actual: usize,
        /// What is different.
        fields: Vec<FieldChange>,
    },
    /// Removes the item.
    Prune {
        /// Position of the existing item.
        #[serde(skip)]
        actual: usize,
    },
}

/// A field that changes. A value that is absent is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Name of the field.
    pub name: String,
    /// The existing value.
    pub from: Option<String>,
    /// The desired value.
    pub to: Option<String>,
}

/// Counts of the items of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Items to be created.
    pub create: u64,
    /// Items to be changed.
    pub change: u64,
    /// Items to be removed.
    pub prune: u64,
    /// Items that are as they should be.
    pub equal: u64,
    /// Existing items that are not desired and stay.
    pub kept: u64,
}

/// Which existing items are removed if they are not desired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prune {
    /// None.
    Nothing,
    /// Those of each kind that is described.
    All,
    /// Those of these kinds.
    Kinds(Vec<Kind>),
}

/// Kinds that cannot be pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PruneError {
    /// The kind is not described, so all of its items would be removed.
    #[error(
        "the files describe no {0}, so all of them would be removed: add a file for them, empty if there should be none"
    )]
    NotDescribed(Kind),
    /// Items of this kind are never removed.
    #[error(
        "{0} cannot be removed: a seat keeps its policy until another one replaces it, or its tenant is removed"
    )]
    Never(Kind),
}

/// More than half of the items of a kind would be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "{prune} of {all} {kind} would be removed, which is more than half: if this is meant, add --allow-large-prune"
)]
pub struct Large {
    /// The kind.
    pub kind: Kind,
    /// Number of items that would be removed.
    pub prune: u64,
    /// Number of items that exist.
    pub all: u64,
}

impl Plan {
    /// Compares two states. A kind that is not described by `desired` is left alone; one that is not described by `actual` is empty.
    ///
    /// # Errors
    /// If `prune` names a kind that cannot be pruned.
    pub fn of(desired: &State, actual: &State, prune: &Prune) -> Result<Self, PruneError> {
        prune.check(desired)?;
        let mut plan = Self::default();
        let mut removals = Vec::new();
        for kind in desired.kinds() {
            let wanted = desired.of(kind).unwrap_or_default();
            let existing = actual.of(kind).unwrap_or_default();
            let compared = Comparison::of(wanted, existing);
            let is_pruned = kind.is_prunable() && prune.has(kind);
            let surplus = compared.surplus.len() as u64;
            let (pruned, kept) = if is_pruned {
                (surplus, 0)
            } else {
                (0, surplus)
            };
            let tally = Tally {
                create: compared.missing.len() as u64,
                change: compared.different.len() as u64,
                prune: pruned,
                equal: compared.equal,
                kept,
            };
            plan.tallies.insert(kind, tally);
            let step = |item: &Item, action| Step {
                kind,
                key: item.key.clone(),
                action,
            };
            let created = compared.missing.iter().filter_map(|&desired| {
                let item = wanted.get(desired)?;
                Some(step(item, Action::Create { desired }))
            });
            plan.steps.extend(created);
            let changed = compared.different.iter().filter_map(|&(desired, actual)| {
                let (to, from) = (wanted.get(desired)?, existing.get(actual)?);
                let fields = differences(from, to);
                let change = Action::Change {
                    desired,
                    actual,
                    fields,
                };
                Some(step(to, change))
            });
            plan.steps.extend(changed);
            if is_pruned {
                let pruned = compared.surplus.iter().filter_map(|&actual| {
                    let item = existing.get(actual)?;
                    Some(step(item, Action::Prune { actual }))
                });
                removals.push(pruned.collect::<Vec<_>>());
            }
        }
        plan.steps.extend(removals.into_iter().rev().flatten());
        Ok(plan)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the number of existing items that are not desired and stay.
    pub fn kept(&self) -> u64 {
        self.tallies.values().map(|tally| tally.kept).sum()
    }

    /// Returns the kinds of which more than half would be removed, and more than a few.
    pub fn large_prunes(&self) -> Vec<Large> {
        let large = self.tallies.iter().filter_map(|(&kind, tally)| {
            let all = tally.change + tally.prune + tally.equal + tally.kept;
            let prune = tally.prune;
            (prune > FEW && prune * 2 > all).then_some(Large { kind, prune, all })
        });
        large.collect()
    }
}

impl Prune {
    /// # Errors
    /// If a kind that is named cannot be pruned.
    fn check(&self, desired: &State) -> Result<(), PruneError> {
        let Self::Kinds(kinds) = self else {
            return Ok(());
        };
        for &kind in kinds {
            if !kind.is_prunable() {
                return Err(PruneError::Never(kind));
            }
            if desired.of(kind).is_none() {
                return Err(PruneError::NotDescribed(kind));
            }
        }
        Ok(())
    }

    fn has(&self, kind: Kind) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Kinds(kinds) => kinds.contains(&kind),
        }
    }
}

fn differences(from: &Item, to: &Item) -> Vec<FieldChange> {
    let mut names: Vec<_> = from.fields.keys().chain(to.fields.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let changed = names.into_iter().filter_map(|name| {
        let (from, to) = (from.fields.get(name), to.fields.get(name));
        (from != to).then(|| FieldChange {
            name: name.clone(),
            from: from.cloned(),
            to: to.cloned(),
        })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Items with few keys and values, so that they repeat.
    fn items() -> impl Strategy<Value = Vec<Item>> {
        let field = proptest::option::of("[ab]");
        let item = ("[a-d]", field.clone(), field).prop_map(|(key, one, two)| {
            Item::new(key)
                .with_optional("one", one)
                .with_optional("two", two)
        });
        proptest::collection::vec(item, 0..12)
    }

    fn states() -> impl Strategy<Value = State> {
        proptest::collection::btree_map(
            proptest::sample::select(&Kind::ALL[..]),
            items(),
            0..Kind::ALL.len(),
        )
        .prop_map(|all| {
            let add = |state: State, (kind, items)| state.with(kind, items);
            all.into_iter().fold(State::default(), add)
        })
    }

    /// The state after the first steps of a plan.
    fn after(actual: &State, desired: &State, steps: &[Step]) -> State {
        let mut state = State::default();
        for kind in Kind::ALL {
            let mut items: Vec<Option<Item>> = actual
                .of(kind)
                .unwrap_or_default()
                .iter()
                .cloned()
                .map(Some)
                .collect();
            let wanted = |at: usize| desired.of(kind).unwrap()[at].clone();
            for step in steps.iter().filter(|step| step.kind == kind) {
                match &step.action {
                    Action::Create { desired } => items.push(Some(wanted(*desired))),
                    Action::Change {
                        desired,
                        actual,
                        fields,
                    } => {
                        let item = items[*actual].as_mut().unwrap();
                        for FieldChange { name, from, to } in fields {
                            assert_eq!(item.fields.get(name), from.as_ref());
                            match to {
                                Some(to) => drop(item.fields.insert(name.clone(), to.clone())),
                                None => drop(item.fields.remove(name)),
                            }
                        }
                        assert_eq!(*item, wanted(*desired));
                    }
                    Action::Prune { actual } => assert!(items[*actual].take().is_some()),
                }
            }
            state = state.with(kind, sorted(items.into_iter().flatten()));
        }
        state
    }

    fn sorted(items: impl Iterator<Item = Item>) -> Vec<Item> {
        let mut items: Vec<_> = items.collect();
        items.sort();
        items
    }

    proptest! {
        /// With pruning, the state after the plan is the desired one; without it, nothing that existed is lost.
        #[test]
        fn a_plan_leads_to_the_desired_state(desired in states(), actual in states()) {
            let pruned = Plan::of(&desired, &actual, &Prune::All).unwrap();
            let reached = after(&actual, &desired, &pruned.steps);
            let kept = Plan::of(&desired, &actual, &Prune::Nothing).unwrap();
            let grown = after(&actual, &desired, &kept.steps);
            for kind in Kind::ALL {
                let existing = sorted(actual.of(kind).unwrap_or_default().iter().cloned());
                let Some(wanted) = desired.of(kind) else {
                    prop_assert_eq!(reached.of(kind).unwrap(), &existing[..]);
                    continue;
                };
                let wanted = sorted(wanted.iter().cloned());
                if kind.is_prunable() {
                    prop_assert_eq!(reached.of(kind).unwrap(), &wanted[..]);
                }
                let grown = grown.of(kind).unwrap();
                prop_assert!(wanted.iter().all(|item| grown.contains(item)));
                prop_assert!(grown.len() >= existing.len());
            }
        }

        /// A plan that was carried out leaves nothing to do, also if only a part of it was carried out before.
        #[test]
        fn a_second_plan_is_empty(desired in states(), actual in states(), done in 0_usize..30) {
            let first = Plan::of(&desired, &actual, &Prune::All).unwrap();
            let done = done.min(first.steps.len());
            let halfway = after(&actual, &desired, &first.steps[..done]);
            let rest = Plan::of(&desired, &halfway, &Prune::All).unwrap();
            prop_assert_eq!(rest.steps.len(), first.steps.len() - done);
            let reached = after(&halfway, &desired, &rest.steps);
            prop_assert!(Plan::of(&desired, &reached, &Prune::All).unwrap().is_empty());
        }

        #[test]
        fn equal_states_need_no_steps(state in states()) {
            let plan = Plan::of(&state, &state, &Prune::All).unwrap();
            prop_assert!(plan.is_empty());
            prop_assert_eq!(plan.kept(), 0);
        }

        /// Additions and changes come first, by kind; removals last, in the opposite order.
        #[test]
        fn steps_are_in_the_order_of_safety(desired in states(), actual in states()) {
            let plan = Plan::of(&desired, &actual, &Prune::All).unwrap();
            let is_prune = |step: &Step| matches!(step.action, Action::Prune { .. });
            let (removals, others): (Vec<_>, Vec<_>) = plan.steps.iter().partition(|step| is_prune(step));
            prop_assert!(plan.steps.iter().skip(others.len()).all(is_prune));
            prop_assert!(others.is_sorted_by_key(|step| step.kind));
            prop_assert!(removals.iter().rev().is_sorted_by_key(|step| step.kind));
        }
    }

    #[test]
    fn a_change_names_its_fields() {
        let desired = Item::new("1 sip:a")
            .with("flags", "8")
            .with("attrs", "weight=5");
        let actual = Item::new("1 sip:a")
            .with("flags", "0")
            .with("description", "old");
        let desired = State::default().with(Kind::Dispatcher, vec![desired]);
        let actual = State::default().with(Kind::Dispatcher, vec![actual]);
        let plan = Plan::of(&desired, &actual, &Prune::Nothing).unwrap();
        let [step] = &plan.steps[..] else {
            panic!("{plan:?}")
        };
        let Action::Change { fields, .. } = &step.action else {
            panic!("{step:?}")
        };
        let shown = fields.iter().map(|field| {
            let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            format!("{} {} {}", field.name, text(&field.from), text(&field.to))
        });
        let shown: Vec<_> = shown.collect();
        assert_eq!(
            shown,
            ["attrs - weight=5", "description old -", "flags 0 8"]
        );
    }

    #[test]
    fn pruning_is_limited_to_what_is_described() {
        let rows = |count: usize| (0..count).map(|at| Item::new(at.to_string())).collect();
        let actual = State::default()
            .with(Kind::Address, rows(10))
            .with(Kind::Trusted, rows(3));
        let desired = State::default().with(Kind::Address, rows(4));
        let plan = Plan::of(&desired, &actual, &Prune::All).unwrap();
        assert_eq!(plan.tallies[&Kind::Address].prune, 6);
        assert_eq!(plan.tallies.get(&Kind::Trusted), None);
        let large = Large {
            kind: Kind::Address,
            prune: 6,
            all: 10,
        };
        assert_eq!(plan.large_prunes(), [large]);
        let half = State::default().with(Kind::Address, rows(5));
        let plan = Plan::of(&half, &actual, &Prune::All).unwrap();
        assert_eq!(plan.large_prunes(), []);
        let none = State::default().with(Kind::Trusted, Vec::new());
        let plan = Plan::of(&none, &actual, &Prune::All).unwrap();
        assert_eq!(plan.large_prunes(), [], "three rows are few");

        for (kind, error) in [
            (Kind::Trusted, PruneError::NotDescribed(Kind::Trusted)),
            (Kind::Policy, PruneError::Never(Kind::Policy)),
        ] {
            let prune = Prune::Kinds(vec![kind]);
            assert_eq!(Plan::of(&desired, &actual, &prune), Err(error));
        }
        let prune = Prune::Kinds(vec![Kind::Address]);
        assert_eq!(Plan::of(&desired, &actual, &prune).unwrap().steps.len(), 6);
    }

    #[test]
    fn a_policy_stays_until_it_is_replaced() {
        let policy = |seat: &str| Item::new(seat).with("digest", "sha256:1");
        let actual = State::default().with(Kind::Policy, vec![policy("acme"), policy("other")]);
        let desired = State::default().with(Kind::Policy, vec![policy("acme")]);
        let plan = Plan::of(&desired, &actual, &Prune::All).unwrap();
        assert!(plan.is_empty());
        assert_eq!(plan.kept(), 1);
    }

    #[test]
    fn kinds_have_names() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("tenant".parse::<Kind>().is_err());
    }
}
