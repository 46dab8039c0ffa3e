//! Which destinations are pinged (Kamailio: `ds_probing_mode`).

/// Which destinations are pinged, and what an answer makes of the flag 8, probing (Kamailio: `ds_probing_mode`). A disabled destination is
/// never pinged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinged {
    /// All (1). The flag shows that the destination is pinged.
    All,
    /// Those with the flag (0). An answer clears the flag, a failure sets it.
    Flagged,
    /// Inactive ones with the flag (2). An answer clears the flag, a failure sets it.
    Inactive,
    /// Those with the flag (3). An answer keeps the flag, a failure sets it.
    FlaggedAlways,
}

impl Pinged {
    /// The words of the configuration.
    pub const NAMES: [&'static str; 4] = ["all", "flagged", "inactive", "flagged-always"];

    /// The word of the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Flagged => "flagged",
            Self::Inactive => "inactive",
            Self::FlaggedAlways => "flagged-always",
        }
    }

    /// The one with this word.
    pub fn of_name(name: &str) -> Option<Self> {
        let all = [
            Self::All,
            Self::Flagged,
            Self::Inactive,
            Self::FlaggedAlways,
        ];
        all.into_iter().find(|one| one.name() == name)
    }

    /// The flag after an answer that counts.
    pub(crate) fn flag_after_success(self, is_probing: bool) -> bool {
        match self {
            Self::All => true,
            Self::Flagged | Self::Inactive => false,
            Self::FlaggedAlways => is_probing,
        }
    }
}
