//! The commands: those of Kamailio that its operators and tools call, and our own.
//!
//! A command is a line in [`COMMANDS`] and an arm in [`Control::execute`]; the answers are built in the module of its first word.

mod core;
mod ctl;
mod dump;
mod members;
mod own;
mod parts;
mod permissions;
pub(super) mod policy;

use portcullis_rpc::{Call, Fault, Reply};

use super::Control;

/// Each command with what `system.methodHelp` says about it, in the order of their names.
const COMMANDS: [(&str, &str); 35] = [
    (
        "address.reload",
        "Load the address table and tell what it holds and which rows can't be used.",
    ),
    ("core.echo", "Returns back its parameters."),
    ("core.ps", "Returns the description of running threads."),
    (
        "core.psx",
        "Returns the detailed description of running threads.",
    ),
    ("core.uptime", "Returns uptime of SIP server."),
    ("core.version", "Returns the version string of the server."),
    ("ctl.connections", "returns number of open connections"),
    ("ctl.listen", "list ctl listen sockets"),
    ("ctl.who", "list open connections"),
    ("jsonrpc.echo", "Sample echo command"),
    ("permissions.addressDump", "Dump address table."),
    (
        "permissions.addressReload",
        "Reload permissions address table.",
    ),
    (
        "permissions.allowUri",
        "Tests if (URI, Contact) pair is allowed according to allow/deny files.",
    ),
    ("permissions.domainDump", "Dump domain name table."),
    ("permissions.subnetDump", "Dump subnet table."),
    (
        "permissions.testUri",
        "Tests if (URI, Contact) pair is allowed according to allow/deny files.",
    ),
    ("permissions.trustedDump", "Dump trusted table."),
    (
        "permissions.trustedReload",
        "Reload permissions trusted table.",
    ),
    (
        "policy.activate",
        "Let a generation of a seat serve: seat, generation.",
    ),
    (
        "policy.canary",
        "Let a generation decide on a share of a seat's dialogs: seat, generation, share.",
    ),
    (
        "policy.diff",
        "Tell what the candidate of a seat decides otherwise: seat, default if none is named.",
    ),
    (
        "policy.endTrial",
        "End the trial of a seat's candidate: seat.",
    ),
    (
        "policy.list",
        "List the generations of a seat that can serve at once: seat, default if none is named.",
    ),
    (
        "policy.mode",
        "Say whether a seat's verdicts are carried out: seat, enforce or monitor.",
    ),
    (
        "policy.reload",
        "Load the policy file and give it to all workers.",
    ),
    (
        "policy.rollback",
        "Let the generation serve again that did before: seat, and a generation if it is another one.",
    ),
    (
        "policy.shadow",
        "Ask a generation beside the one that serves, off the way of the requests: seat, generation.",
    ),
    (
        "policy.status",
        "Tell which policy serves, since when, and what was wrong with the last file.",
    ),
    (
        "portcullis.status",
        "Tell everything that is worth knowing about the host.",
    ),
    (
        "rules.reload",
        "Read the allow and deny files and tell what they hold and which lines can't be used.",
    ),
    (
        "system.listMethods",
        "Lists all RPC methods supported by the server.",
    ),
    (
        "system.methodHelp",
        "Print the help string for given method.",
    ),
    (
        "tenant.list",
        "List the tenants with what became of their requests; the operator is called default.",
    ),
    (
        "tenant.reload",
        "Read the configuration file again and make its tenants the tenants.",
    ),
    (
        "trusted.reload",
        "Load the table of trusted peers and tell what it holds and which rows can't be used.",
    ),
];

impl Control {
    /// Does what the call asks for; none if there is no such command.
    pub(super) async fn execute(&self, call: &Call) -> Option<Result<Reply, Fault>> {
        Some(match call.method.as_str() {
            "address.reload" => self.address_reload(call).await,
            "core.echo" => core::echo(call),
            "core.ps" => core::ps(call).await,
            "core.psx" => core::psx(call).await,
            "core.uptime" => self.uptime(call),
            "core.version" => core::version(call),
            "ctl.connections" => self.connections(call),
            "ctl.listen" => self.listen(call),
            "ctl.who" => self.who(call),
            "jsonrpc.echo" => core::sample_echo(call),
            "permissions.addressDump" => self.address_dump(call),
            "permissions.addressReload" => self.permissions_address_reload(call).await,
            "permissions.allowUri" | "permissions.testUri" => self.test_uri(call),
            "permissions.domainDump" => self.domain_dump(call),
            "permissions.subnetDump" => self.subnet_dump(call),
            "permissions.trustedDump" => self.trusted_dump(call),
            "permissions.trustedReload" => self.trusted_reload(call).await,
            "policy.activate" => self.policy_activate(call).await,
            "policy.canary" => self.policy_canary(call).await,
            "policy.diff" => self.policy_diff(call),
            "policy.endTrial" => self.policy_end_trial(call).await,
            "policy.list" => self.policy_list(call).await,
            "policy.mode" => self.policy_mode(call).await,
            "policy.reload" => self.policy_reload(call).await,
            "policy.rollback" => self.policy_roll_back(call).await,
            "policy.shadow" => self.policy_shadow(call).await,
            "policy.status" => self.policy_status(call),
            "portcullis.status" => self.status(call),
            "rules.reload" => self.rules_reload(call).await,
            "system.listMethods" => list_methods(call),
            "system.methodHelp" => method_help(call),
            "tenant.list" => self.tenant_list(call),
            "tenant.reload" => self.tenant_reload(call).await,
            "trusted.reload" => self.own_trusted_reload(call).await,
            _ => return None,
        })
    }
}

fn list_methods(call: &Call) -> Result<Reply, Fault> {
    call.no_params()?;
    Ok(Reply::Each(
        COMMANDS.iter().map(|(name, _)| (*name).into()).collect(),
    ))
}

fn method_help(call: &Call) -> Result<Reply, Fault> {
    let texts = call.texts()?;
    let [name] = texts[..] else {
        return Err(Fault::new(400, "Method Name Expected"));
    };
    let found = COMMANDS.iter().find(|(command, _)| *command == name);
    let (_, help) = found.ok_or_else(|| Fault::new(400, "command not found"))?;
    Ok(Reply::One((*help).into()))
}
