//! Translates the statements of a kamailio.cfg into our configuration.

use std::path::Path;

use regex::RegexBuilder;

use super::dispatcher;
use super::draft::{Draft, Origin};
use super::edge_modules;
use super::endpoints::Endpoints;
use super::finding::{Finding, Place, excerpt};
use super::listen::{Common, without_transport};
use super::modules::Modules;
use super::permissions;
use super::pike::Pike;
use super::settings::{self, LeftOut};
use super::statement::{Listen, Statement, Value, What};
use super::surroundings::Surroundings;
use super::tls::Tls;
use super::tm_calls::TmCalls;
use super::{calls, functions, tm};

/// The configuration made from the statements, and what is not in it.
pub(super) fn translate(
    file: &Path,
    statements: &[Statement],
    surroundings: &dyn Surroundings,
) -> (Draft, Vec<Finding>) {
    let mut translator = Translator {
        file,
        surroundings,
        common: common(statements),
        draft: Draft::new(head(file)),
        findings: Vec::new(),
        endpoints: Endpoints::new(),
        left_out: LeftOut::default(),
        modules: Modules::default(),
        tm_calls: TmCalls::default(),
        pike: Pike::default(),
        tls: Tls::default(),
        pings: dispatcher::Pings::default(),
        flows: None,
        has_websocket: false,
    };
    for statement in statements {
        if let What::Set { name, value } = &statement.what
            && matches!(name.as_str(), "run_dir" | "rundir")
        {
            translator.endpoints.run_dir = value.text().trim_end_matches('/').to_owned();
        }
    }
    for statement in statements {
        translator.statement(statement);
    }
    translator.finish(statements)
}

struct Translator<'s> {
    file: &'s Path,
    surroundings: &'s dyn Surroundings,
    common: Common,
    draft: Draft,
    findings: Vec<Finding>,
    endpoints: Endpoints,
    left_out: LeftOut,
    modules: Modules,
    tm_calls: TmCalls,
    pike: Pike,
    tls: Tls,
    pings: dispatcher::Pings,
    /// The first call that keeps phones behind NAT reachable.
    flows: Option<Place>,
    /// Whether the module `websocket` is loaded.
    has_websocket: bool,
}

impl Translator<'_> {
    fn statement(&mut self, statement: &Statement) {
        let place = &statement.place;
        match &statement.what {
            What::Set { name, value } => settings::setting(
                name,
                value,
                place,
                &mut self.draft,
                &mut self.findings,
                &mut self.left_out,
            ),
            What::Listen(listen) => self.listen(listen, place),
            What::Alias(aliases) => {
                for alias in aliases {
                    let alias = without_transport(alias);
                    self.draft
                        .push("sip", "aliases", alias, Origin::line(place));
                }
            }
            What::Module(name) => {
                self.endpoints.module(name, place);
                self.pings.module(name, place);
                self.modules.module(name, place);
                self.has_websocket |= name == "websocket";
            }
            What::Parameter {
                modules,
                name,
                value,
            } => self.parameter(modules, name, value, place),
            What::Call {
                function,
                arguments: _,
            } if functions::forces_rport(function) => {
                if !self.draft.has("sip", "force-rport") {
                    self.findings.push(calls::force_rport(place, function));
                    let origin = Origin::line(place);
                    self.draft.switch_on("sip", "force-rport", origin);
                }
            }
            What::Call {
                function,
                arguments,
            } if functions::is_of_tm(function) || functions::is_of_flows(function) => {
                if functions::is_of_flows(function) {
                    self.flows.get_or_insert_with(|| place.clone());
                }
                self.tm_calls.call(function, arguments, place);
            }
            What::Call {
                function,
                arguments,
            } => {
                if functions::reads_files(function) {
                    permissions::use_files(self.file, place, &mut self.draft);
                }
                self.findings
                    .push(calls::finding(place, function, arguments));
            }
        }
    }

    fn listen(&mut self, listen: &Listen, place: &Place) {
        let Self {
            common,
            surroundings,
            draft,
            findings,
            ..
        } = self;
        common.listen(listen, place, *surroundings, draft, findings);
    }

    fn parameter(&mut self, modules: &str, name: &str, value: &Value, place: &Place) {
        // Kamailio takes the module's name to be an extended regular expression, of which "a|b" is the common case.
        let pattern = RegexBuilder::new(&format!("^({modules})(\\.so)?$"))
            .size_limit(LARGEST_PATTERN)
            .build();
        let Ok(pattern) = pattern else {
            let what = format!("modparam of \"{}\"", excerpt(modules));
            let mend = "not a name of modules, and not a pattern of names";
            return self.findings.push(Finding::at(place, what, mend));
        };
        let Self {
            draft, findings, ..
        } = self;
        if let Value::Variable(variable) = value
            && [
                "permissions",
                "ctl",
                "dispatcher",
                "jsonrpcs",
                "tm",
                "pike",
                "tls",
            ]
            .into_iter()
            .chain(edge_modules::MODULES)
            .any(|module| pattern.is_match(module))
            && !is_peer_tag(name)
        {
            // A database URL contains a password.
            let shown = if name == "db_url" { "…" } else { variable };
            let what = format!("{}: {name} = {}", excerpt(modules), excerpt(shown));
            let mend = "a variable that only a running Kamailio knows: write the value yourself";
            return findings.push(Finding::at(place, what, mend));
        }
        if pattern.is_match("permissions") {
            permissions::parameter(self.file, name, value, place, draft, findings);
        }
        if pattern.is_match("dispatcher") {
            let pings = &mut self.pings;
            dispatcher::parameter(self.file, name, value, place, pings, draft, findings);
        }
        if pattern.is_match("ctl") {
            self.endpoints.ctl(name, value, place, draft, findings);
        }
        if pattern.is_match("tm") {
            tm::parameter(name, value, place, draft, findings);
        }
        if pattern.is_match("pike") {
            self.pike.parameter(name, value, place, findings);
        }
        if pattern.is_match("htable") && name == "htable" {
            self.pike.table(value, place);
        }
        if pattern.is_match("tls") {
            self.tls.parameter(name, value, place, findings);
        }
        for module in edge_modules::MODULES {
            if pattern.is_match(module) {
                edge_modules::parameter(module, name, value, place, draft, findings);
            }
        }
        if pattern.is_match("jsonrpcs") {
            self.endpoints.jsonrpcs(name, value, place, draft, findings);
        }
    }

    fn finish(mut self, statements: &[Statement]) -> (Draft, Vec<Finding>) {
        let listens = |statement: &Statement| matches!(statement.what, What::Listen(_));
        if !statements.iter().any(listens) {
            self.common.listen_everywhere(&mut self.draft);
        }
        self.note_clients();
        self.note_browsers();
        self.endpoints.write(&mut self.draft, &mut self.findings);
        self.pike.write(&mut self.draft);
        let (file, surroundings) = (self.file, self.surroundings);
        let tls = std::mem::take(&mut self.tls);
        tls.write(file, surroundings, &mut self.draft, &mut self.findings);
        self.pings.write(&mut self.draft);
        if !self.draft.has("database", "url") && !self.draft.has("database", "address-file") {
            let mend = "the address table is a new SQLite file, portcullis.db, until `url` in [database] names Kamailio's database";
            self.findings
                .push(Finding::whole("no db_url of the module permissions", mend));
        }
        self.draft.note("policy", "The routing logic becomes a policy: see \"Write a policy\" in the README and the list of calls that");
        self.draft.note(
            "policy",
            "the import gave. Until `file` names one, every request is answered 403.",
        );
        self.draft.note("policy", "file = \"policy.wasm\"");
        self.draft.note("relay", "Where relayed requests go, and where Route and request URI may lead: as in Kamailio's routing logic.");
        self.draft.note("relay", "next-hop = \"sip:HOST:PORT\"");
        self.draft.note("relay", "An entry of `domains` means the ports 5060 and 5061; \":PORT\" means that one, \":*\" all.");
        self.draft.note(
            "relay",
            "domains = [\"192.0.2.0/24\", \"198.51.100.7:5070\", \"203.0.113.0/24:*\"]",
        );
        self.findings.extend(self.tm_calls.findings());
        self.findings.extend(self.modules.findings());
        self.findings.extend(self.left_out.findings());
        (self.draft, self.findings)
    }

    /// Says what is left to write for browsers.
    fn note_browsers(&mut self) {
        const LINES: [&str; 4] = [
            "Kamailio takes browsers at a port of SIP. Here they have a port of their own: in `listen`, write \"ws:\" before its",
            "address in place of \"tcp:\", or \"wss:\" in place of \"tls:\". `origins` says whose pages may connect, as the checks in",
            "event_route[xhttp:request] do.",
            "origins = [\"https://phone.example.com\"]",
        ];
        if self.has_websocket {
            LINES
                .into_iter()
                .for_each(|line| self.draft.note("websocket", line));
        }
    }

    /// Names the listen addresses whose peers may be phones behind NAT, if the routing logic keeps such phones reachable.
    fn note_clients(&mut self) {
        let Some(place) = &self.flows else {
            return;
        };
        let of_phones = |listen: &&str| {
            let has_transport = ["udp:", "tcp:", "tls:"]
                .iter()
                .any(|transport| listen.starts_with(transport));
            has_transport && listen.chars().all(|c| c.is_ascii_graphic())
        };
        let listens = self.draft.items("", "listen");
        let listens = listens.map(|listen| listen.split(' ').next().unwrap_or(listen));
        let listens: Vec<_> = listens
            .filter(of_phones)
            .map(|one| format!("{one:?}"))
            .collect();
        let why = format!(
            "{}: the routing logic keeps phones behind NAT reachable. Name the listen addresses of phones, or write flows::keep() in the policy:",
            place.short()
        );
        self.draft.note("nat", why);
        self.draft
            .note("nat", format!("clients = [{}]", listens.join(", ")));
    }
}

/// The settings that apply to all listen lines, the last of each.
fn common(statements: &[Statement]) -> Common {
    let last = |wanted: &str| {
        let values = statements.iter().rev().filter_map(|s| {
            let What::Set { name, value } = &s.what else {
                return None;
            };
            (name == wanted).then_some(value)
        });
        values.into_iter().next()
    };
    let advertised_port = last("advertised_port").map(|port| format!(":{}", port.text()));
    Common {
        port: last("port").map(|port| port.text().to_owned()),
        tcp: last("disable_tcp").and_then(Value::number).unwrap_or(0) == 0,
        tls: statements.iter().rev().find_map(serves_tls) == Some(true),
        tls_port: last("tls_port_no").map(|port| port.text().to_owned()),
        advertise: last("advertised_address")
            .map(|address| format!("{}{}", address.text(), advertised_port.unwrap_or_default())),
    }
}

/// Whether a setting switches TLS on or off.
fn serves_tls(statement: &Statement) -> Option<bool> {
    let What::Set { name, value } = &statement.what else {
        return None;
    };
    let is_on = value.number().is_some_and(|number| number != 0);
    match name.as_str() {
        "enable_tls" | "tls_enable" => Some(is_on),
        "disable_tls" | "tls_disable" => Some(!is_on),
        _ => None,
    }
}

fn head(file: &Path) -> Vec<String> {
    vec![
        format!("Made from {} by `portcullis import`.", excerpt(&file.display().to_string())),
        "Each value names the line that it comes from. What is not here has its default: `portcullis check --defaults`.".into(),
    ]
}

fn is_peer_tag(name: &str) -> bool {
    name == "peer_tag_avp"
}

/// Memory limit of a compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 1 << 20;
