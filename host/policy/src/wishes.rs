//! What a policy asks of the host beside its verdict.

use crate::standing::Offence;

/// What a call asks of the host beside its verdict. Nothing of it has happened when the call ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// What the source is reported for.
    pub report: Option<Offence>,
    /// Whether the sender is treated as a client that only its flow leads to, if the request is relayed.
    pub keeps_flow: bool,
}

impl Wishes {
    /// Adds those of a later policy. The first report counts.
    pub fn add(&mut self, later: Self) {
        self.report = self.report.or(later.report);
        self.keeps_flow |= later.keeps_flow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_report_of_several_policies_counts() {
        let mut wishes = Wishes::default();
        wishes.add(Wishes {
            report: Some(Offence::Scan),
            keeps_flow: false,
        });
        wishes.add(Wishes {
            report: Some(Offence::Guess),
            keeps_flow: true,
        });
        wishes.add(Wishes::default());
        assert_eq!(wishes.report, Some(Offence::Scan));
        assert!(wishes.keeps_flow);
    }
}
