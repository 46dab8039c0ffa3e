//! `system.…`: the list of commands and their help.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault};

use super::help::HELP;
use super::{FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;

/// `system.listMethods`.
#[derive(Debug)]
pub(crate) struct ListMethods;

/// `system.methodHelp`.
#[derive(Debug)]
pub(crate) struct MethodHelp {
    name: String,
}

impl FromCall for ListMethods {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        call.no_params().map(|()| Self)
    }
}

impl Procedure for ListMethods {
    type Reply = Vec<String>;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<Vec<String>, Fault> {
        Ok(HELP.iter().map(|(name, _)| (*name).to_owned()).collect())
    }
}

impl FromCall for MethodHelp {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        match call.texts()?[..] {
            [name] => Ok(Self {
                name: name.to_owned(),
            }),
            _ => Err(Fault::new(400, "Method Name Expected")),
        }
    }
}

impl Procedure for MethodHelp {
    type Reply = String;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, _: &Control, _: &Caller) -> Result<String, Fault> {
        let found = HELP.iter().find(|(name, _)| *name == self.name);
        let (_, help) = found.ok_or_else(|| Fault::new(400, "command not found"))?;
        Ok((*help).to_owned())
    }
}
