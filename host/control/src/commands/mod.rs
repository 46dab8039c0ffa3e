//! The commands: those of Kamailio that operators and tools use, and our own.
//!
//! A command is a type that holds its parameters, and a line in `table` with its name, its help and the type. Everything else about it is
//! in the file of the type: parsing of the parameters, the implementation, and the type of its reply, which each control interface
//! serialises and the command line deserialises.

pub mod address;
pub mod alert;
pub mod audit;
mod cell;
pub mod core;
pub mod ctl;
pub mod dispatcher;
pub mod dns;
pub mod fleet;
pub mod guard;
mod help;
pub mod history;
pub mod permissions;
pub mod pike;
pub mod policy;
mod procedure;
mod reply;
pub mod rollout;
pub mod rules;
mod sl;
mod stats;
pub mod status;
mod system;
mod table;
pub mod tenant;
mod tenant_error;
pub mod tls;
pub mod tm;
pub mod trusted;

use futures_util::future::BoxFuture;
use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Reply};
use schemars::SchemaGenerator;

use crate::Control;
use crate::audit::About;
use crate::caller::Caller;
use crate::conditions::CHANGED;
use crate::operation::RpcCommand;
pub use cell::Cell;
pub(crate) use procedure::{Dispatch, FromCall, Procedure};
use procedure::{expect, not_reloaded};
pub(crate) use reply::IntoReply;
pub use reply::{ReloadStatus, Timestamp};
use table::command_table;

macro_rules! commands {
    (
        rpc { $($name:literal, $help:literal => $variant:ident($type:ty),)+ }
        http { $($http_name:literal => $http_variant:ident($http_type:ty),)+ }
    ) => {
        /// A command with its parameters, from any control interface.
        #[derive(Debug)]
        pub(crate) enum Command {
            $($variant($type),)+
            $($http_variant($http_type),)+
        }

        impl Command {
            /// Returns the command that a call names, with its parameters; `None` if it does not exist.
            pub(crate) fn from_call(call: &Call) -> Option<Result<Self, Fault>> {
                Some(match call.method.as_str() {
                    $($name => <$type>::from_call(call).map(Self::$variant),)+
                    _ => return None,
                })
            }

            /// Returns the name for the log, which is also that over JSON-RPC and BINRPC if the command exists there.
            pub(crate) const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                    $(Self::$http_variant(_) => $http_name,)+
                }
            }

            /// Returns the seat that the command concerns.
            fn seat(&self) -> Option<&str> {
                match self {
                    $(Self::$variant(command) => command.seat(),)+
                    $(Self::$http_variant(command) => command.seat(),)+
                }
            }

            /// Returns what else the command concerns.
            fn subject(&self) -> Option<String> {
                match self {
                    $(Self::$variant(command) => command.subject(),)+
                    $(Self::$http_variant(command) => command.subject(),)+
                }
            }

            /// Returns the role that the caller's token needs.
            const fn needs(&self) -> TokenRole {
                match self {
                    $(Self::$variant(_) => <$type as Procedure>::NEEDS,)+
                    $(Self::$http_variant(_) => <$http_type as Procedure>::NEEDS,)+
                }
            }

            /// Whether every tenant may call it.
            const fn is_open(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$type as Procedure>::IS_OPEN,)+
                    $(Self::$http_variant(_) => <$http_type as Procedure>::IS_OPEN,)+
                }
            }

            /// Whether the audit has it, if it needs more than the role of a reader.
            const fn is_noted(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$type as Procedure>::IS_NOTED,)+
                    $(Self::$http_variant(_) => <$http_type as Procedure>::IS_NOTED,)+
                }
            }

            /// Executes the command. The futures of all commands have one type here. Otherwise, the compiler looks into each of them again
            /// wherever a command is executed, which doubles the time that this crate takes.
            fn run<'c>(
                self,
                control: &'c Control,
                caller: &'c Caller,
            ) -> BoxFuture<'c, Result<Reply, Fault>> {
                match self {
                    $(Self::$variant(command) => Box::pin(reply_to(command, control, caller)),)+
                    $(Self::$http_variant(command) => Box::pin(reply_to(command, control, caller)),)+
                }
            }
        }

        $(impl Dispatch for $type {
            async fn dispatch(self, control: &Control, caller: &Caller) -> Result<Reply, Fault> {
                Command::$variant(self).execute(control, caller).await
            }
        })+

        $(impl Dispatch for $http_type {
            async fn dispatch(self, control: &Control, caller: &Caller) -> Result<Reply, Fault> {
                Command::$http_variant(self).execute(control, caller).await
            }
        })+

        /// Each command of JSON-RPC and BINRPC with its help and the schema of its reply.
        pub(crate) fn described(generator: &mut SchemaGenerator) -> Vec<RpcCommand> {
            vec![$(($name, $help, <<$type as Procedure>::Reply as IntoReply>::schema(generator)),)+]
        }
    };
}

command_table!(commands);

async fn reply_to<P: Procedure>(
    command: P,
    control: &Control,
    caller: &Caller,
) -> Result<Reply, Fault> {
    command.execute(control, caller).await?.into_reply()
}

impl Command {
    /// Executes the command if the caller is authorised.
    pub(crate) async fn execute(self, control: &Control, caller: &Caller) -> Result<Reply, Fault> {
        let (name, door) = (self.name(), caller.door().as_str());
        let needed = self.needs();
        let seat = self.seat().map(str::to_owned);
        let is_allowed = caller.may(needed).and_then(|()| match self.is_open() {
            true => Ok(()),
            false => caller.may_ask_about(seat.as_deref()),
        });
        let is_noted = needed > TokenRole::Read && self.is_noted();
        let noted = is_noted.then(|| {
            let about = About {
                seat: seat.clone(),
                subject: self.subject(),
            };
            control.audit.begin(caller, name, about)
        });
        let done = match is_allowed {
            Ok(()) => self.run(control, caller).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &done {
            tracing::debug!(
                event = "control_command_failed",
                command = name,
                door,
                by = caller.to_string(),
                code = fault.code,
                error = fault.message,
                "control command failed"
            );
        }
        let done = done.map_err(|fault| shown_to(caller, fault));
        if let Some(noted) = noted {
            noted.end(done.as_ref().err());
        }
        if done.is_ok() {
            tracing::debug!(
                event = "control_command",
                command = name,
                door,
                by = caller.to_string(),
                "control command executed"
            );
        }
        done
    }
}

/// The cause of faults whose text may say where the database, or the file of a table, is.
const NO_DATABASE: &str = "the host does not reach its database";

/// The fault of a database, or of the file of a table.
fn of_database(code: i32, error: impl std::fmt::Display) -> Fault {
    Fault::new(code, error.to_string()).because(NO_DATABASE)
}

/// The fault of a row with an id that no row has, in the table of this path.
fn unknown_row(id: i64, path: &str) -> Fault {
    Fault::new(
        404,
        format!("no row has the id {id}: GET {path} lists the rows"),
    )
}

/// The fault of an id that several rows have.
fn not_unique(id: i64) -> Fault {
    Fault::new(
        409,
        format!(
            "several rows have the id {id}, which is possible in a view: change them in the tables behind it"
        ),
    )
}

/// The fault of a row that somebody has changed while it was about to be changed.
fn row_changed() -> Fault {
    Fault::new(412, CHANGED)
}

/// The causes of faults whose text names a file of the host. They are what a tenant sees of the fault.
const FILES: [&str; 3] = [ADDRESSES_IN_FILE, SETS_IN_FILE, FOLLOWS_FILE];
const ADDRESSES_IN_FILE: &str = "the addresses are in a file of the host, which its operator edits";
const SETS_IN_FILE: &str =
    "the sets of the dispatcher are in a file of the host, which its operator edits";
const FOLLOWS_FILE: &str = "the seat follows a file of the host, which its operator replaces";

/// The fault as this caller sees it.
pub(crate) fn shown_to(caller: &Caller, fault: Fault) -> Fault {
    match caller.is_operator() {
        true => fault,
        false => without_places(fault),
    }
}

/// A tenant does not learn where the database is, nor the names of files of the host.
fn without_places(fault: Fault) -> Fault {
    match fault.data.as_deref() {
        Some(NO_DATABASE) => Fault::new(fault.code, format!("{NO_DATABASE}: try again later")),
        Some(cause) if FILES.contains(&cause) => Fault::new(fault.code, cause),
        _ => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_learns_that_there_is_a_file_and_not_its_name() {
        for cause in FILES {
            let fault = Fault::new(409, "the file /etc/portcullis/a").because(cause);
            assert_eq!(without_places(fault), Fault::new(409, cause));
        }
    }

    #[test]
    fn a_tenant_learns_the_reason_and_not_where_the_database_is() {
        let hidden = without_places(of_database(503, "mysql://10.0.0.7: refused"));
        let text = "the host does not reach its database: try again later";
        assert_eq!(hidden, Fault::new(503, text));
        let busy = Fault::new(503, "too many policies in transfer");
        assert_eq!(without_places(busy.clone()), busy);
    }
}
