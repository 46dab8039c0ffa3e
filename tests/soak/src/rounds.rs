//! Two rounds of the same length in one host. What the idle host holds after each shows whether anything accumulates.

use anyhow::Result;
use serde::Serialize;

use crate::process::{Held, settled, table};

/// The resources of a host before, between and after two rounds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Rounds {
    /// After the start.
    pub(crate) started: Held,
    /// Of the idle host after the first round.
    pub(crate) after_first: Held,
    /// The same after the second round.
    pub(crate) after_second: Held,
    /// The largest values of any second.
    pub(crate) most: Held,
}

impl Rounds {
    /// Makes both rounds in the host with this process. `started` is what it holds before. `round` makes one, 0 or 1, and returns the largest
    /// resources of the host meanwhile.
    ///
    /// # Errors
    /// If a round fails, or the process cannot be read.
    pub(crate) fn run(
        pid: u32,
        started: Held,
        mut round: impl FnMut(usize) -> Result<Held>,
    ) -> Result<Self> {
        let first = round(0)?;
        let after_first = settled(pid)?;
        let second = round(1)?;
        Ok(Self {
            started,
            after_first,
            after_second: settled(pid)?,
            most: first.max(second),
        })
    }

    /// What the host holds after the second round beyond what it held after the first one and `more`: the invariants that this breaks.
    pub(crate) fn grown(&self, more: Held) -> impl Iterator<Item = String> {
        let beyond = self.after_second.beyond(&self.after_first.and(more));
        beyond
            .into_iter()
            .map(|text| format!("after the second round the host holds {text}"))
    }

    /// The table for the text of a report.
    pub(crate) fn table(&self) -> String {
        table(&[
            ("started", self.started),
            ("idle, after the 1st round", self.after_first),
            ("idle, after the 2nd round", self.after_second),
            ("at most", self.most),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(files: usize) -> Held {
        Held {
            files,
            ..Held::default()
        }
    }

    #[test]
    fn the_second_round_may_add_a_bounded_number() {
        let rounds = |files| Rounds {
            after_first: held(10),
            after_second: held(files),
            ..Rounds::default()
        };
        assert_eq!(rounds(12).grown(held(2)).next(), None);
        assert_eq!(
            rounds(13).grown(held(2)).collect::<Vec<_>>(),
            ["after the second round the host holds 13 descriptors; 12 were expected at most"]
        );
    }

    #[test]
    fn rounds_are_made_in_order_and_the_larger_one_counts() {
        let mut made = Vec::new();
        let rounds = Rounds::run(std::process::id(), held(1), |nth| {
            made.push(nth);
            Ok(held(1_000_000 * (2 - nth)))
        });
        let rounds = rounds.expect("this process can be read");
        assert_eq!((rounds.started, rounds.most), (held(1), held(2_000_000)));
        assert!(rounds.after_first.files > 0 && rounds.after_second.files > 0);
        assert_eq!(made, [0, 1]);
    }
}
