//! Answers of the interface `guard`.

use serde_json::json;

use crate::standing::{Offence, Standing};
use crate::tape::SideEffect;

use super::Call;

impl Call {
    /// `guard.source-standing`
    pub(crate) fn source_standing(&mut self) -> Standing {
        self.answered(
            "guard.source-standing",
            SideEffect::None,
            || json!([]),
            |call| call.standing_now(),
        )
    }

    /// `guard.report`
    pub(crate) fn report(&mut self, offence: Offence) -> bool {
        let counts = self.answered(
            "guard.report",
            SideEffect::None,
            || json!([offence.as_str()]),
            |call| call.wishes().report.is_none() && call.standing_now() != Standing::Exempt,
        );
        if counts {
            self.wishes_mut().report = Some(offence);
        }
        counts
    }

    fn standing_now(&self) -> Standing {
        let arrival = &self.request().arrival;
        let host = self.host();
        host.map_or(Standing::Exempt, |host| host.standing(arrival))
    }
}
