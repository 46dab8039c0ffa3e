//! The commands: those of Kamailio that its operators and tools call, and our own.
//!
//! A command is a type, which holds its parameters, and a line in the table below: its name, its help and the type. Everything else
//! about it is in the file of the type: how the parameters are read, what it does, and the type of its reply, which every door
//! writes and the command line reads.

pub mod address;
pub mod core;
pub mod ctl;
pub mod permissions;
pub mod policy;
mod reply;
pub mod rules;
pub mod status;
mod system;
pub mod tenant;
pub mod trusted;

use portcullis_rpc::{Call, Fault, Reply};
use schemars::{Schema, SchemaGenerator};

use crate::Control;
use crate::caller::Caller;
pub(crate) use reply::IntoReply;
pub use reply::{ReloadStatus, Timestamp};

/// One command: the type holds its parameters.
pub(crate) trait Procedure: Sized + Send {
    /// Its result.
    type Reply: IntoReply + Send;

    /// The seat that it is about. A tenant may ask for what is about its own.
    fn seat(&self) -> Option<&str> {
        None
    }

    /// Does what it says.
    fn execute(
        self,
        control: &Control,
        caller: &Caller,
    ) -> impl Future<Output = Result<Self::Reply, Fault>> + Send;
}

/// A command of JSON-RPC and BINRPC.
pub(crate) trait FromCall: Procedure {
    /// Reads the parameters, in their order.
    ///
    /// # Errors
    /// 400 if they are others than the command takes.
    fn from_call(call: &Call) -> Result<Self, Fault>;
}

macro_rules! commands {
    (
        rpc { $($name:literal, $help:literal => $variant:ident($type:ty),)+ }
        http { $($http_name:literal => $http_variant:ident($http_type:ty),)+ }
    ) => {
        /// A command with its parameters, from whatever door.
        #[derive(Debug)]
        pub(crate) enum Command {
            $($variant($type),)+
            $($http_variant($http_type),)+
        }

        /// Each command of JSON-RPC and BINRPC with what `system.methodHelp` says about it, in the order of their names.
        const HELP: &[(&str, &str)] = &[$(($name, $help),)+];

        impl Command {
            /// The command that a call names, with its parameters; none if there is no such command.
            pub(crate) fn from_call(call: &Call) -> Option<Result<Self, Fault>> {
                Some(match call.method.as_str() {
                    $($name => <$type>::from_call(call).map(Self::$variant),)+
                    _ => return None,
                })
            }

            /// Its name in the log, and over JSON-RPC and BINRPC where they have it.
            pub(crate) const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                    $(Self::$http_variant(_) => $http_name,)+
                }
            }

            /// The seat that it is about.
            fn seat(&self) -> Option<&str> {
                match self {
                    $(Self::$variant(command) => command.seat(),)+
                    $(Self::$http_variant(command) => command.seat(),)+
                }
            }

            async fn dispatch(self, control: &Control, caller: &Caller) -> Result<Reply, Fault> {
                match self {
                    $(Self::$variant(command) => command.execute(control, caller).await?.into_reply(),)+
                    $(Self::$http_variant(command) => command.execute(control, caller).await?.into_reply(),)+
                }
            }
        }

        /// Each command of JSON-RPC and BINRPC with its help and the schema of its reply.
        pub(crate) fn described(generator: &mut SchemaGenerator) -> Vec<(&'static str, &'static str, Schema)> {
            vec![$(($name, $help, <<$type as Procedure>::Reply as IntoReply>::schema(generator)),)+]
        }
    };
}

commands! {
    rpc {
        "address.reload", "Load the address table and tell what it holds and which rows can't be used." => AddressReload(address::Reload),
        "core.echo", "Returns back its parameters." => CoreEcho(core::Echo),
        "core.ps", "Returns the description of running threads." => CorePs(core::Ps),
        "core.psx", "Returns the detailed description of running threads." => CorePsx(core::Psx),
        "core.uptime", "Returns uptime of SIP server." => CoreUptime(core::Uptime),
        "core.version", "Returns the version string of the server." => CoreVersion(core::Version),
        "ctl.connections", "returns number of open connections" => CtlConnections(ctl::Connections),
        "ctl.listen", "list ctl listen sockets" => CtlListen(ctl::Listen),
        "ctl.who", "list open connections" => CtlWho(ctl::Who),
        "jsonrpc.echo", "Sample echo command" => JsonrpcEcho(core::SampleEcho),
        "permissions.addressDump", "Dump address table." => AddressDump(permissions::AddressDump),
        "permissions.addressReload", "Reload permissions address table." => PermissionsAddressReload(permissions::AddressReload),
        "permissions.allowUri", "Tests if (URI, Contact) pair is allowed according to allow/deny files." => AllowUri(permissions::TestUri),
        "permissions.domainDump", "Dump domain name table." => DomainDump(permissions::DomainDump),
        "permissions.subnetDump", "Dump subnet table." => SubnetDump(permissions::SubnetDump),
        "permissions.testUri", "Tests if (URI, Contact) pair is allowed according to allow/deny files." => TestUri(permissions::TestUri),
        "permissions.trustedDump", "Dump trusted table." => TrustedDump(permissions::TrustedDump),
        "permissions.trustedReload", "Reload permissions trusted table." => PermissionsTrustedReload(permissions::TrustedReload),
        "policy.activate", "Let a generation of a seat serve: seat, generation." => PolicyActivate(policy::Activate),
        "policy.canary", "Let a generation decide on a share of a seat's dialogs: seat, generation, share." => PolicyCanary(policy::Canary),
        "policy.diff", "Tell what the candidate of a seat decides otherwise: seat, default if none is named." => PolicyDiff(policy::Diff),
        "policy.endTrial", "End the trial of a seat's candidate: seat." => PolicyEndTrial(policy::EndTrial),
        "policy.list", "List the generations of a seat that can serve at once: seat, default if none is named." => PolicyList(policy::List),
        "policy.mode", "Say whether a seat's verdicts are carried out: seat, enforce or monitor." => PolicyMode(policy::SetMode),
        "policy.reload", "Load the policy file and give it to all workers." => PolicyReload(policy::Reload),
        "policy.rollback", "Let the generation serve again that did before: seat, and a generation if it is another one." => PolicyRollback(policy::Rollback),
        "policy.shadow", "Ask a generation beside the one that serves, off the way of the requests: seat, generation." => PolicyShadow(policy::Shadow),
        "policy.status", "Tell which policy serves, since when, and what was wrong with the last file." => PolicyStatus(policy::Status),
        "portcullis.status", "Tell everything that is worth knowing about the host." => Status(status::Status),
        "rules.reload", "Read the allow and deny files and tell what they hold and which lines can't be used." => RulesReload(rules::Reload),
        "system.listMethods", "Lists all RPC methods supported by the server." => ListMethods(system::ListMethods),
        "system.methodHelp", "Print the help string for given method." => MethodHelp(system::MethodHelp),
        "tenant.list", "List the tenants with what became of their requests; the operator is called default." => TenantList(tenant::List),
        "tenant.reload", "Read the configuration file again and make its tenants the tenants." => TenantReload(tenant::Reload),
        "trusted.reload", "Load the table of trusted peers and tell what it holds and which rows can't be used." => TrustedReload(trusted::Reload),
    }
    http {
        "policy.push" => PolicyPush(policy::Push),
        "tenant.put" => TenantPut(tenant::Put),
        "tenant.remove" => TenantRemove(tenant::Remove),
        "tenant.show" => TenantShow(tenant::Show),
    }
}

impl Command {
    /// Does what the command says, if this caller may ask for it.
    pub(crate) async fn execute(self, control: &Control, caller: &Caller) -> Result<Reply, Fault> {
        let (name, door) = (self.name(), caller.door().as_str());
        let done = match caller.may_ask_about(self.seat()) {
            Ok(()) => self.dispatch(control, caller).await,
            Err(fault) => Err(fault),
        };
        match &done {
            Ok(_) => {
                tracing::debug!(
                    event = "control_command",
                    command = name,
                    door,
                    by = caller.to_string(),
                    "control command executed"
                );
            }
            Err(fault) => {
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
        }
        done
    }
}

/// The parameters, if they are texts and as many as names.
fn expect<const N: usize>(call: &Call, names: [&str; N]) -> Result<[String; N], Fault> {
    let texts = call.texts()?;
    let texts: [&str; N] = texts
        .try_into()
        .map_err(|_| Fault::new(400, format!("{} takes {}", call.method, names.join(", "))))?;
    Ok(texts.map(str::to_owned))
}

/// A fault of a reload, with its cause.
fn not_reloaded(cause: impl std::fmt::Display) -> Fault {
    Fault::new(500, "Reload failed.").because(cause)
}
