//! The table of commands: the name of each, its help, and its type.

/// Hands the table to the macro of this name.
macro_rules! command_table {
    ($with:ident) => {
        $with! {
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
                "permissions.allowUri", "Tests if (URI, Contact) pair is allowed according to allow/deny files." => AllowUri(permissions::AllowUri),
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
    };
}

pub(super) use command_table;
