//! The table of commands: the name of each, its help, and its type.

/// Passes the table to the macro of this name.
macro_rules! command_table {
    ($with:ident) => {
        $with! {
            rpc {
                "address.reload", "Load the address table; report its contents and invalid rows." => AddressReload(address::Reload),
                "core.echo", "Returns back its parameters." => CoreEcho(core::Echo),
                "core.info", "Verbose info about the core" => CoreInfo(core::Info),
                "core.ps", "Returns the description of running threads." => CorePs(core::Ps),
                "core.psx", "Returns the detailed description of running threads." => CorePsx(core::Psx),
                "core.shmmem", "Returns memory usage of the process: a unit (b, k, m or g), b if omitted." => CoreSharedMemory(core::SharedMemory),
                "core.tcp_info", "Returns tcp related info." => CoreTcpInfo(core::TcpInfo),
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
                "policy.activate", "Activate a generation of a seat: seat, generation." => PolicyActivate(policy::Activate),
                "policy.canary", "Start a canary trial, in which a generation decides on a share of the dialogs: seat, generation, share." => PolicyCanary(policy::Canary),
                "policy.diff", "Compare the verdicts of a seat's candidate with those of the active generation: seat (default if omitted)." => PolicyDiff(policy::Diff),
                "policy.endTrial", "End the trial of a seat's candidate: seat." => PolicyEndTrial(policy::EndTrial),
                "policy.list", "List the generations of a seat: seat (default if omitted)." => PolicyList(policy::ListGenerations),
                "policy.mode", "Set whether a seat's verdicts are carried out: seat, enforce or monitor." => PolicyMode(policy::SetMode),
                "policy.reload", "Load the policy file and activate it on all workers." => PolicyReload(policy::Reload),
                "policy.rollback", "Activate the previous generation again: seat, and a generation unless it is the previous one." => PolicyRollback(policy::Rollback),
                "policy.shadow", "Start a shadow trial, in which a generation evaluates requests without effect: seat, generation." => PolicyShadow(policy::Shadow),
                "policy.status", "Show which policy is active, since when, and the error of the last file." => PolicyStatus(policy::Status),
                "portcullis.status", "Show the state of the host." => Status(status::Status),
                "rules.reload", "Load the allow and deny files; report their contents and invalid lines." => RulesReload(rules::Reload),
                "sl.stats", "Print reply statistics." => SlStats(sl::Stats),
                "stats.fetch", "Returns statistics as a structure of strings: all, GROUP: or names." => StatsFetch(stats::Fetch),
                "stats.fetchn", "Returns statistics as a structure of numbers: all, GROUP: or names." => StatsFetchNumbers(stats::FetchNumbers),
                "stats.get_statistics", "Returns statistics as lines of text: all, GROUP: or names." => StatsGetStatistics(stats::Lines),
                "system.listMethods", "Lists all RPC methods supported by the server." => ListMethods(system::ListMethods),
                "system.methodHelp", "Print the help string for given method." => MethodHelp(system::MethodHelp),
                "tenant.list", "List the tenants with statistics of their requests; the operator is called default." => TenantList(tenant::ListTenants),
                "tenant.reload", "Read the configuration file again and apply its tenants." => TenantReload(tenant::Reload),
                "tm.cancel", "Cancel a pending transaction" => TmCancel(tm::Cancel),
                "tm.list", "List transactions." => TmList(tm::ListTransactions),
                "tm.stats", "Print transaction statistics." => TmStats(tm::Stats),
                "trusted.reload", "Load the trusted peers; report their number and invalid rows." => TrustedReload(trusted::Reload),
            }
            http {
                "address.add" => AddressAdd(address::Add),
                "address.import" => AddressImport(address::Import),
                "address.list" => AddressList(address::ListAddresses),
                "address.match" => AddressFind(address::Find),
                "address.remove" => AddressRemove(address::Remove),
                "alert.acknowledge" => AlertAcknowledge(alert::Acknowledge),
                "alert.list" => AlertList(alert::ListAlerts),
                "audit.list" => AuditList(audit::ListActions),
                "policy.inspect" => PolicyInspect(policy::Inspect),
                "policy.push" => PolicyPush(policy::Push),
                "history.show" => HistoryShow(history::Show),
                "tenant.put" => TenantPut(tenant::Put),
                "tenant.remove" => TenantRemove(tenant::Remove),
                "tenant.self" => TenantOwn(tenant::Own),
                "tenant.show" => TenantShow(tenant::Show),
                "trusted.add" => TrustedAdd(trusted::Add),
                "trusted.list" => TrustedList(trusted::ListTrusted),
                "trusted.match" => TrustedFind(trusted::Find),
                "trusted.remove" => TrustedRemove(trusted::Remove),
            }
        }
    };
}

pub(super) use command_table;
