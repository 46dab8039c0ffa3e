//! The traits of commands.

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Reply};

use super::reply::IntoReply;
use crate::Control;
use crate::caller::Caller;

/// A command: the type holds its parameters.
pub(crate) trait Procedure: Sized + Send {
    /// Its result.
    type Reply: IntoReply + Send;

    /// The role that the caller's token needs.
    const NEEDS: TokenRole = TokenRole::Operate;

    /// Whether every tenant may call it. It then limits itself to what is the tenant's.
    const IS_OPEN: bool = false;

    /// Whether the audit has it, if it needs more than the role of a reader: it may change something, or hands out what is secret.
    const IS_NOTED: bool = true;

    /// Returns the seat that the command concerns. A tenant may call commands for its own seat.
    fn seat(&self) -> Option<&str> {
        None
    }

    /// Returns what else the command concerns, for the audit: a row, a tenant, a generation.
    fn subject(&self) -> Option<String> {
        None
    }

    /// Executes the command.
    fn execute(
        self,
        control: &Control,
        caller: &Caller,
    ) -> impl Future<Output = Result<Self::Reply, Fault>> + Send;
}

/// A command of the table.
pub(crate) trait Dispatch: Procedure {
    /// Executes the command, if this caller may ask for it, and logs how that ended.
    fn dispatch(
        self,
        control: &Control,
        caller: &Caller,
    ) -> impl Future<Output = Result<Reply, Fault>> + Send;
}

/// A command of JSON-RPC and BINRPC.
pub(crate) trait FromCall: Procedure {
    /// Parses the parameters in their order.
    ///
    /// # Errors
    /// 400 if they do not match those of the command.
    fn from_call(call: &Call) -> Result<Self, Fault>;
}

/// Returns the parameters if they are strings, one for each of `names`.
pub(super) fn expect<const N: usize>(call: &Call, names: [&str; N]) -> Result<[String; N], Fault> {
    let texts = call.texts()?;
    let texts: [&str; N] = texts
        .try_into()
        .map_err(|_| Fault::new(400, format!("{} takes {}", call.method, names.join(", "))))?;
    Ok(texts.map(str::to_owned))
}

/// Returns the fault of a failed reload, with its cause.
pub(super) fn not_reloaded(cause: impl std::fmt::Display) -> Fault {
    Fault::new(500, "Reload failed.").because(cause)
}
