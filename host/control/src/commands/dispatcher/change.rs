//! `dispatcher.reload`, `dispatcher.add` and `dispatcher.remove`.

use portcullis_dispatcher::NewDestination;
use portcullis_rpc::{Call, Fault, Param};

use super::{number_of, text_of};
use crate::Control;
use crate::caller::Caller;
use crate::commands::{FromCall, Procedure};

/// `dispatcher.reload`.
#[derive(Debug)]
pub(crate) struct Reload;

/// `dispatcher.add`: in memory, until the next load.
#[derive(Debug)]
pub(crate) struct Add(NewDestination);

/// `dispatcher.remove`: in memory, until the next load.
#[derive(Debug)]
pub(crate) struct Remove {
    set: u32,
    uri: String,
}

impl FromCall for Reload {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for Reload {
    type Reply = String;

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let reloaded = control.shared.dispatcher.reload().await;
        reloaded.map_err(|error| Fault::new(500, "Reload Failed").because(error))?;
        Ok("Ok. Dispatcher successfully reloaded.".to_owned())
    }
}

impl FromCall for Add {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [set, uri, rest @ ..] = &call.params[..] else {
            return Err(invalid());
        };
        let number = |param: Option<&Param>| param.map_or(Some(0), number_of);
        Ok(Self(NewDestination {
            setid: number_of(set).ok_or_else(invalid)?,
            destination: text_of(uri).ok_or_else(invalid)?,
            flags: number(rest.first()).ok_or_else(invalid)?,
            priority: number(rest.get(1)).ok_or_else(invalid)?,
            attrs: rest
                .get(2)
                .map_or(Some(String::new()), text_of)
                .ok_or_else(invalid)?,
            description: String::new(),
        }))
    }
}

impl Procedure for Add {
    type Reply = String;

    fn subject(&self) -> Option<String> {
        Some(format!("set {} {}", self.0.setid, self.0.destination))
    }

    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let added = control.shared.dispatcher.add_until_reload(&self.0).await;
        added.map_err(|error| Fault::new(500, "Adding dispatcher dst failed").because(error))?;
        Ok("Ok. Dispatcher destination added.".to_owned())
    }
}

impl FromCall for Remove {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let [set, uri, ..] = &call.params[..] else {
            return Err(invalid());
        };
        let set = number_of(set).and_then(|set| u32::try_from(set).ok());
        Ok(Self {
            set: set.ok_or_else(invalid)?,
            uri: text_of(uri).ok_or_else(invalid)?,
        })
    }
}

impl Procedure for Remove {
    type Reply = String;

    fn subject(&self) -> Option<String> {
        Some(format!("set {} {}", self.set, self.uri))
    }

    /// Kamailio says the same if there is no such destination.
    async fn execute(self, control: &Control, _: &Caller) -> Result<String, Fault> {
        let dispatcher = &control.shared.dispatcher;
        dispatcher.remove_until_reload(self.set, &self.uri).await;
        Ok("Ok. Dispatcher destination removed.".to_owned())
    }
}

fn invalid() -> Fault {
    Fault::new(500, "Invalid Parameters")
}
