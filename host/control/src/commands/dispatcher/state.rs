//! `dispatcher.set_state` and `dispatcher.set_duid_state`.

use portcullis_dispatcher::{State, Whose};
use portcullis_rpc::{Call, Fault};

use super::{number_of, text_of};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dispatcher.set_state`.
#[derive(Debug)]
pub(crate) struct SetState(Change);

/// `dispatcher.set_duid_state`.
#[derive(Debug)]
pub(crate) struct SetDuidState(Change);

/// A state, and whose it is to be.
#[derive(Debug)]
struct Change {
    state: State,
    set: u32,
    whose: String,
}

/// Kamailio's text.
const DONE: &str = "Ok. Dispatcher state updated.";

/// The word for all destinations of a set.
const ALL: &str = "all";

impl Change {
    fn of(call: &Call) -> Result<Self, Fault> {
        let invalid = || Fault::new(500, "Invalid Parameters");
        let [state, set, whose, ..] = &call.params[..] else {
            return Err(invalid());
        };
        let state = text_of(state).ok_or_else(invalid)?;
        let set = number_of(set).and_then(|set| u32::try_from(set).ok());
        let unknown = |error| Fault::new(500, "Unknown State Value").because(error);
        Ok(Self {
            set: set.ok_or_else(invalid)?,
            whose: text_of(whose).ok_or_else(invalid)?,
            state: state.parse().map_err(unknown)?,
        })
    }

    fn subject(&self) -> Option<String> {
        Some(format!("set {} {} {}", self.set, self.whose, self.state))
    }

    fn carry_out(&self, control: &Control, whose: Whose<'_>) -> Result<String, Fault> {
        let changed = control
            .shared
            .dispatcher
            .set_state(self.set, whose, self.state);
        match (changed, whose) {
            // Kamailio says the same for a set that does not exist.
            (1.., _) | (0, Whose::All) => Ok(DONE.to_owned()),
            (0, Whose::Uri(_) | Whose::Duid(_)) => {
                let cause = format!("set {} has no destination {}", self.set, self.whose);
                Err(Fault::new(500, "State Update Failed").because(cause))
            }
        }
    }
}

impl FromCall for SetState {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Change::of(call).map(Self)
    }
}

impl Procedure for SetState {
    type Reply = String;

    fn subject(&self) -> Option<String> {
        self.0.subject()
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let Self(change) = self;
        match change.whose.as_str() {
            ALL => change.carry_out(control, Whose::All),
            uri => change.carry_out(control, Whose::Uri(uri)),
        }
    }
}

impl FromCall for SetDuidState {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Change::of(call).map(Self)
    }
}

impl Procedure for SetDuidState {
    type Reply = String;

    fn subject(&self) -> Option<String> {
        self.0.subject()
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let Self(change) = self;
        match change.whose.as_str() {
            ALL => change.carry_out(control, Whose::All),
            duid => change.carry_out(control, Whose::Duid(duid)),
        }
    }
}
