//! `dispatcher.set_state` and `dispatcher.set_duid_state`.

use portcullis_dispatcher::{State, StateTarget};
use portcullis_rpc::{Call, Fault};

use super::{number_of, text_of};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// A state, and the destination that gets it: that of a URI or, `BY_DUID`, of a `duid`.
#[derive(Debug)]
pub(crate) struct SetStateOf<const BY_DUID: bool> {
    state: State,
    set: u32,
    target: String,
}

/// `dispatcher.set_state`.
pub(crate) type SetState = SetStateOf<false>;

/// `dispatcher.set_duid_state`.
pub(crate) type SetDuidState = SetStateOf<true>;

/// Kamailio's text.
const DONE: &str = "Ok. Dispatcher state updated.";

/// The word for all destinations of a set.
const ALL: &str = "all";

impl<const BY_DUID: bool> FromCall for SetStateOf<BY_DUID> {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let invalid = || Fault::new(500, "Invalid Parameters");
        let [state, set, target, ..] = &call.params[..] else {
            return Err(invalid());
        };
        let state = text_of(state).ok_or_else(invalid)?;
        let set = number_of(set).and_then(|set| u32::try_from(set).ok());
        let unknown = |error| Fault::new(500, "Unknown State Value").because(error);
        Ok(Self {
            set: set.ok_or_else(invalid)?,
            target: text_of(target).ok_or_else(invalid)?,
            state: state.parse().map_err(unknown)?,
        })
    }
}

impl<const BY_DUID: bool> Procedure for SetStateOf<BY_DUID> {
    type Reply = String;

    fn subject(&self) -> Option<String> {
        Some(format!("set {} {} {}", self.set, self.target, self.state))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let Self { state, set, target } = self;
        let concerned = match &*target {
            ALL => StateTarget::All,
            duid if BY_DUID => StateTarget::Duid(duid),
            uri => StateTarget::Uri(uri),
        };
        let dispatcher = &control.shared.dispatcher;
        match (dispatcher.set_state(set, concerned, state), concerned) {
            // Kamailio says the same for a set that does not exist.
            (1.., _) | (0, StateTarget::All) => Ok(DONE.to_owned()),
            (0, StateTarget::Uri(_) | StateTarget::Duid(_)) => {
                let cause = format!("set {set} has no destination {target}");
                Err(Fault::new(500, "State Update Failed").because(cause))
            }
        }
    }
}
