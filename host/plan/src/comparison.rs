//! The comparison of the items of one kind.

use std::collections::HashMap;

use crate::state::Item;

/// What corresponds to what, as positions in the two lists.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Desired items that do not exist.
    pub(crate) missing: Vec<usize>,
    /// Desired items with an existing item that has the same key and other fields.
    pub(crate) different: Vec<(usize, usize)>,
    /// Existing items that are not desired.
    pub(crate) surplus: Vec<usize>,
    /// Number of items that exist as they are desired.
    pub(crate) equal: u64,
}

impl Comparison {
    /// Compares two lists, in which keys may repeat. Equal items correspond first, so that no item is changed that could stay.
    pub(crate) fn of(desired: &[Item], actual: &[Item]) -> Self {
        let mut existing: HashMap<&str, Vec<usize>> = HashMap::new();
        // From the last to the first: `pop` then takes the first.
        for (at, item) in actual.iter().enumerate().rev() {
            existing.entry(&item.key).or_default().push(at);
        }
        let mut compared = Self::default();
        let mut open = Vec::new();
        for (at, item) in desired.iter().enumerate() {
            let same = existing.get_mut(item.key.as_str());
            let same = same.and_then(|all| take(all, |&other| actual.get(other) == Some(item)));
            match same {
                Some(_) => compared.equal += 1,
                None => open.push((at, item)),
            }
        }
        for (at, item) in open {
            match existing.get_mut(item.key.as_str()).and_then(Vec::pop) {
                Some(other) => compared.different.push((at, other)),
                None => compared.missing.push(at),
            }
        }
        compared.surplus = existing.into_values().flatten().collect();
        compared.surplus.sort_unstable();
        compared
    }
}

/// Takes the last element that fits out of the list, and keeps the order of the others.
fn take(all: &mut Vec<usize>, fits: impl Fn(&usize) -> bool) -> Option<usize> {
    let at = all.iter().rposition(fits)?;
    Some(all.remove(at))
}
