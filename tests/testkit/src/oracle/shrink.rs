//! Reduces a case with a difference to a minimal one.

use super::case::{Case, Row};
use super::{Difference, Oracle};

/// Removes questions and rows as long as a difference remains. `differs` returns the first difference of a case.
pub fn shrink(case: Case, mut differs: impl FnMut(&Case) -> Option<Difference>) -> Case {
    let mut case = one_question(case, &mut differs);
    case.rows = fewest(case.rows.clone(), |rows| {
        let rows = rows.to_vec();
        differs(&Case {
            rows,
            ..case.clone()
        })
        .is_some()
    });
    simplify(&mut case, &mut differs);
    case
}

/// Removes items as long as a difference remains: half of them, a quarter, and so on to single ones; then again, until nothing more can be
/// removed.
pub(super) fn fewest<T: Clone>(mut items: Vec<T>, mut differs: impl FnMut(&[T]) -> bool) -> Vec<T> {
    loop {
        let before = items.len();
        let mut size = before.div_ceil(2);
        while size > 0 {
            let mut at = 0;
            while at < items.len() {
                let mut without = items.clone();
                without.drain(at..(at + size).min(items.len()));
                match differs(&without) {
                    true => items = without,
                    false => at += size,
                }
            }
            size /= 2;
        }
        if items.len() == before {
            return items;
        }
    }
}

impl Oracle {
    /// The smallest case that still has a difference.
    pub fn shrink(&mut self, case: Case) -> Case {
        shrink(case, |case| self.differences(case).into_iter().next())
    }
}

/// Only the question that is answered differently; no question if the difference is in the load.
fn one_question(case: Case, differs: &mut impl FnMut(&Case) -> Option<Difference>) -> Case {
    let asks = match differs(&case) {
        Some(Difference::Answer { at, .. }) => vec![case.asks[at].clone()],
        Some(_) => Vec::new(),
        None => return case,
    };
    let alone = Case {
        asks,
        ..case.clone()
    };
    match differs(&alone) {
        Some(_) => alone,
        // The difference depends on the other questions.
        None => case,
    }
}

/// Replaces values that the difference does not depend on by plain ones.
fn simplify(case: &mut Case, differs: &mut impl FnMut(&Case) -> Option<Difference>) {
    let plain: [fn(&mut Row); 2] = [|row| row.tag = None, |row| row.port = 0];
    for at in 0..case.rows.len() {
        for make_plain in plain {
            let mut simpler = case.clone();
            make_plain(&mut simpler.rows[at]);
            if simpler != *case && differs(&simpler).is_some() {
                *case = simpler;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::case::{Ask, Question};
    use super::*;

    fn row(group: u32) -> Row {
        Row {
            group,
            ip_addr: "10.0.0.1".into(),
            mask: 32,
            port: 5060,
            tag: Some("a".into()),
        }
    }

    #[test]
    fn what_does_not_matter_is_taken_away() {
        let ask = |group| Ask {
            caller: 0,
            question: Question::Source { group },
        };
        let case = Case {
            rows: (1..=100).map(row).collect(),
            asks: (1..=100).map(ask).collect(),
        };
        // Differs as long as groups 7 and 70 are in the table, at the question for 7.
        let differs = |case: &Case| {
            let has = |group| case.rows.iter().any(|row| row.group == group);
            let at = case.asks.iter().position(|asked| *asked == ask(7))?;
            (has(7) && has(70)).then_some(Difference::Answer {
                at,
                kamailio: None,
                portcullis: None,
            })
        };
        let smallest = shrink(case, differs);
        assert_eq!(smallest.asks, [ask(7)]);
        let plain = |group| Row {
            port: 0,
            tag: None,
            ..row(group)
        };
        assert_eq!(smallest.rows, [plain(7), plain(70)]);
    }
}
