//! Kamailio's modules: those whose work a policy or another server has to do here.

use super::finding::{Finding, Place};

/// The loaded modules that are not simply built in here.
#[derive(Clone, Debug, Default)]
pub(super) struct Modules {
    /// Modules with the same explanation, and the place of the first.
    explained: Vec<(&'static str, Vec<String>, Place)>,
    others: Vec<String>,
}

impl Modules {
    /// Notes a loaded module.
    pub(super) fn module(&mut self, name: &str, place: &Place) {
        if is_covered(name) {
            return;
        }
        let Some(mend) = explanation(name) else {
            return self.others.push(format!("{name} ({})", place.short()));
        };
        match self.explained.iter_mut().find(|other| other.0 == mend) {
            Some((_, names, _)) => names.push(name.to_owned()),
            None => self
                .explained
                .push((mend, vec![name.to_owned()], place.clone())),
        }
    }

    /// Reports the function of the modules, where it matters.
    pub(super) fn findings(self) -> Vec<Finding> {
        let explained = self.explained.into_iter().map(|(mend, names, place)| {
            let noun = if names.len() == 1 {
                "module"
            } else {
                "modules"
            };
            Finding::at(&place, format!("{noun} {}", names.join(", ")), mend)
        });
        let others = (!self.others.is_empty()).then(|| {
            let what = format!("modules without a counterpart: {}", self.others.join(", "));
            let mend = "see whether the routing logic needs them; a policy can read the request, the permissions tables, counters, its settings and the clock";
            Finding::whole(what, mend)
        });
        explained.chain(others).collect()
    }
}

/// Modules whose function the host, the contract of policies or the SDK provides, or that only support other modules.
fn is_covered(name: &str) -> bool {
    const COVERED: &[&str] = &[
        "permissions",
        "ctl",
        "jsonrpcs",
        "db_mysql",
        "db_postgres",
        "db_sqlite",
        "sl",
        "tm",
        "tmx",
        "rr",
        "maxfwd",
        "sanity",
        "pv",
        "pv_headers",
        "textops",
        "textopsx",
        "siputils",
        "xlog",
        "kex",
        "corex",
        "cfg_rpc",
        "cfgutils",
        "counters",
        "debugger",
        "mi_fifo",
        "mi_rpc",
        "statistics",
    ];
    COVERED.contains(&name)
}

fn explanation(name: &str) -> Option<&'static str> {
    Some(match name {
        "usrloc" | "registrar" => {
            "there is no registrar: relay REGISTER, and calls to registered users, to one with relay_to(\"NAME\")"
        }
        "auth" | "auth_db" | "auth_ephemeral" | "auth_radius" => {
            "there is no digest authentication: leave it to the server behind Portcullis, and admit known addresses with allow_source_address"
        }
        "rtpproxy" | "rtpengine" | "mediaproxy" => {
            "media is not relayed: leave it to the server behind"
        }
        "dispatcher" => {
            "the table `dispatcher` is used as it is: name it in [dispatcher], and choose from its sets in the policy with \
             dispatcher::relay_to_set(1, Algorithm::Weight, 3); a failure marks a destination by itself, without ds_mark_dst"
        }
        "lcr" | "drouting" | "carrierroute" | "pdt" => {
            "name the destinations in [relay.next-hops] and choose among them in the policy with relay_to(\"NAME\").or(\"OTHER\"), or with \
             .weight(n) and .and(\"OTHER\") for shares of the load"
        }
        "uac_redirect" => {
            "after a redirection, outcome::contacts() in on_failure has the contacts: again(relay_to_uri(contact).request_uri(contact))"
        }
        "domain" => {
            "name the domains that may be routed to in `domains` of [relay], and those that mean this host in `aliases` of [sip]"
        }
        "acc" => {
            "`calls` in [records] names a file with a line for each attempt and each transaction; there is no database table"
        }
        "dialog" | "cdr" | "siptrace" | "sipcapture" => {
            "the host keeps transactions and no dialogs: account for whole calls on the server behind, and trace requests with `portcullis trace`"
        }
        "tls" | "tlsa" => {
            "its profiles become [tls.NAME] for peers that connect, and [relay.tls] and [relay.tls-profiles.NAME] for next hops, whose certificates and \
             names are verified (docs/tls.md)"
        }
        "nathelper" | "path" | "outbound" => {
            "name the listen addresses of phones behind NAT in `clients` of [nat]: the host writes their flow into Path and Record-Route, \
             leaves Contact alone and answers keep-alives; the registrar needs use_path (docs/nat.md)"
        }
        "stun" => "STUN is answered on the UDP ports of SIP: see `stun` in [nat]",
        "websocket" => {
            "browsers have addresses of their own: Kamailio takes them at a port of SIP over TCP or TLS, so write \"ws:\" in place of \"tcp:\", or \
             \"wss:\" in place of \"tls:\", before the address of that port in `listen`, and `origins` in [websocket] in place of the checks in \
             event_route[xhttp:request] (docs/websocket.md)"
        }
        "xhttp" => "HTTP for operators is on a port of its own: see `listen` in [control]",
        "pike" => {
            "the guard limits the rate of each source that is in no table, and holds or bans those that scan and guess ([guard]); no call is needed in \
             a policy. The policy rate-guard limits known sources, too"
        }
        "ratelimit" | "pipelimit" => {
            "a policy limits rates with counters::rate_limit(key, per_second, burst); the policy rate-guard does so for each source, and \
             stops answering one that goes on. Rates that follow the load of the machine have no counterpart but the host's own limits \
             for tenants"
        }
        "htable" => {
            "a policy counts with counters::add(name, amount, seconds) and counters::value(name); counters end by themselves. Tables of \
             texts have no counterpart: fixed ones go into [policy.settings] or the tags of the address table; nothing is loaded from or \
             written to a database, and there are no htable.* commands"
        }
        "secfilter" => {
            "write its lists as conditions of the policy, as rules or as rows of the tables"
        }
        "sqlops" | "db_redis" | "ndb_redis" | "http_client" | "http_async_client" | "rtjson"
        | "evapi" => {
            "a policy has no database and no network: put what it needs into the address table's groups and tags"
        }
        "app_lua" | "app_python" | "app_python3" | "app_python3s" | "app_jsdt" | "app_ruby"
        | "app_perl" | "app_mono" | "app_sqlang" => {
            "the routing logic is in another language: look there for KSR.permissions.* and write it as a policy"
        }
        "db_text" | "db_oracle" | "db_mongodb" | "db_cassandra" | "db_unixodbc" | "db_cluster" => {
            "only MySQL, MariaDB, PostgreSQL and SQLite are read: copy the address table there, or give it as a file"
        }
        _ => return None,
    })
}
