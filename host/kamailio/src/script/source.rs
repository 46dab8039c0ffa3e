//! The file of a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::context::{Helper, Part, Variable};
use super::settings::Settings;
use super::{pattern, state};

/// What the file of a policy is made of.
pub(super) struct Source<'s> {
    /// The name of the configuration.
    pub(super) name: &'s str,
    pub(super) parts: &'s BTreeSet<Part>,
    pub(super) variables: &'s BTreeMap<String, Variable>,
    pub(super) helpers: &'s BTreeSet<Helper>,
    /// The routes as functions.
    pub(super) functions: &'s [String],
    /// The names of those for failure routes.
    pub(super) after_failures: &'s [&'s str],
    pub(super) settings: &'s Settings,
}

impl<'s> Source<'s> {
    /// A policy without routes.
    pub(super) fn empty(name: &'s str) -> Self {
        Self {
            name,
            parts: &NO_PARTS,
            variables: &NO_VARIABLES,
            helpers: &NO_HELPERS,
            functions: &[],
            after_failures: &[],
            settings: &NO_SETTINGS,
        }
    }

    /// The whole file.
    pub(super) fn text(&self) -> String {
        let has_failure_routes = self.parts.contains(&Part::FailureRoute);
        let mut text = self.head(has_failure_routes);
        text.push_str(&self.decide());
        if has_failure_routes {
            text.push_str(&self.on_failure());
        }
        if self.parts.is_empty() {
            for function in self.functions {
                text.push('\n');
                text.push_str(function);
            }
        } else {
            let script = state::script(
                self.parts,
                self.variables,
                self.settings.first,
                self.functions,
            );
            text.push_str(&script);
            text.push_str(&self.functions.join("\n"));
            text.push_str("}\n");
        }
        for helper in self.helpers {
            text.push_str(&self.helper(*helper));
        }
        text
    }

    /// What precedes the functions.
    fn head(&self, has_failure_routes: bool) -> String {
        let mut text = format!(
            "//! The routing logic of {}, translated by `portcullis import --policy`.\n\
             //!\n\
             //! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the\n\
             //! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.\n",
            self.name
        );
        if has_failure_routes {
            text.push_str(
                "//!\n\
                 //! `on_failure` calls the failure route that `t_on_failure` has named, with `$ru` and `$du` of the request route. A verdict that\n\
                 //! relays gives its targets their turn, one that rejects is the answer to the sender; otherwise the sender gets the best response.\n",
            );
        }
        text.push_str("\n#![forbid(unsafe_code)]\n\n");
        let has_times = self.parts.contains(&Part::Times) || self.settings.first.is_some();
        if has_times && has_failure_routes {
            text.push_str("use std::time::Duration;\n\n");
        }
        let policy = match has_failure_routes {
            true => "decide, on_failure: on_failure",
            false => "decide",
        };
        let sets = match self.parts.contains(&Part::Set) {
            true => "use portcullis_sdk::dispatcher::{Algorithm, relay_to_set};\n",
            false => "",
        };
        let _infallible = write!(
            text,
            "{sets}use portcullis_sdk::prelude::*;\n\n\
             policy!({policy});\n\n\
             /// The result of a route.\n\
             type Route = Result<bool, Verdict>;\n"
        );
        if let (Some(first), true) = (self.settings.first, has_failure_routes) {
            let _infallible = write!(
                text,
                "\n/// `fr_timer`: milliseconds until the first response of a target.\nconst FR_TIMER: u64 = {first};\n"
            );
        }
        text
    }

    fn decide(&self) -> String {
        let call = match (self.functions.is_empty(), self.parts.is_empty()) {
            (true, _) => "Ok(true)",
            (false, true) => "request_route()",
            (false, false) => "Script::default().request_route()",
        };
        format!(
            "\nfn decide() -> Verdict {{\n    let result: Route = {call};\n    // A script that ends without a reply or a relay is silent.\n    \
             result.err().unwrap_or_else(drop_request)\n}}\n"
        )
    }

    fn on_failure(&self) -> String {
        let mut text = "\nfn on_failure() -> NextStep {\n    let (failure_route, mut script) = Script::after_failure();\n    \
                        let result = match &*failure_route {\n"
            .to_owned();
        for function in self.after_failures {
            let _infallible = writeln!(text, "        {function:?} => script.{function}(),");
        }
        text.push_str(
            "        _ => Ok(true),
    };
    match result {
        Err(verdict @ Verdict::Forward(_)) => again(verdict),
        Err(Verdict::Reject(rejection)) => NextStep::Answer(rejection),
        // `exit`, or the end of the route.
        Err(Verdict::Relay(_) | Verdict::Drop | Verdict::Pass) | Ok(_) => best_answer(),
    }
}
",
        );
        text
    }

    fn helper(&self, helper: Helper) -> String {
        let constant = match helper {
            Helper::Untranslated => UNTRANSLATED,
            Helper::Matcher => pattern::MATCHER,
            Helper::Subnet => SUBNET,
            Helper::Myself => {
                let own = &self.settings.own;
                return format!(
                    "\n/// What `alias` and `listen` name, with their ports.\nconst OWN: &[(&str, Option<u16>)] = &{own:?};\n{MYSELF}"
                );
            }
            Helper::Nat => NAT,
            Helper::Zone => ZONE,
            Helper::Now => NOW,
            Helper::ReplyCode => REPLY_CODE,
            Helper::BranchTimeout => BRANCH_TIMEOUT,
            Helper::BranchReplied => BRANCH_REPLIED,
            Helper::AnyTimeout => ANY_TIMEOUT,
            Helper::OtherRoutes => OTHER_ROUTES,
            Helper::BranchFlags => BRANCH_FLAGS,
            Helper::FirstHop => FIRST_HOP,
            Helper::MyAddress => MY_ADDRESS,
        };
        constant.to_owned()
    }
}

/// A configuration without routes.
static NO_PARTS: BTreeSet<Part> = BTreeSet::new();
static NO_VARIABLES: BTreeMap<String, Variable> = BTreeMap::new();
static NO_HELPERS: BTreeSet<Helper> = BTreeSet::new();
static NO_SETTINGS: Settings = Settings {
    own: Vec::new(),
    first: None,
};

const UNTRANSLATED: &str = r#"
/// Ends the script where it depends on something without counterpart. Replace each call.
fn untranslated(line: u32, what: &str) -> Route {
    log::error!("line {line} is not translated: {what}");
    Err(reject(500, "Policy incomplete"))
}
"#;

const SUBNET: &str = r#"
/// Whether an IPv4 address is in a subnet.
fn is_in(address: &str, network: u32, mask: u32) -> bool {
    let address = address.parse::<std::net::Ipv4Addr>();
    address.is_ok_and(|address| address.to_bits() & mask == network)
}
"#;

const MYSELF: &str = r#"
/// Whether a URI leads to this host. An alias without a port is for all ports.
fn is_myself(place: &str) -> bool {
    let host = uri::host(place);
    let port = uri::port(place).unwrap_or(5060);
    let is_socket = host == request::local_address() && port == request::local_port();
    let is_own = |(name, own): &(&str, Option<u16>)| {
        name.eq_ignore_ascii_case(host) && own.is_none_or(|own| own == port)
    };
    is_socket || OWN.iter().any(is_own)
}
"#;

const NAT: &str = r#"
/// `nat_uac_test(flags)`: 1 Contact is private, 2 the source is not that of Via, 4 Via is private, 16 the source port is not that of Via, 32 the
/// source is private, 64 WebSocket, 128 the source port is not that of Contact.
fn nat_uac_test(flags: u32) -> bool {
    let contact = request::header("Contact").unwrap_or_default();
    let contact = match contact.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => contact.split([',', ';']).next().unwrap_or_default().trim(),
    };
    let via = request::header("Via").unwrap_or_default();
    let sent_by = via.split([',', ';']).next().unwrap_or_default();
    let sent_by = sent_by.split_whitespace().last().unwrap_or_default();
    let via = ["sip:", sent_by].concat();
    let source = request::source_address();
    let is_source = |uri: &str| {
        let host = uri::host(uri).trim_matches(['[', ']']);
        host.parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.to_string() == source)
    };
    let is_port = |uri: &str| uri::port(uri).unwrap_or(5060) == request::source_port();
    let has = |flag: u32| flags & flag != 0;
    has(1) && is_private(uri::host(contact))
        || has(2) && !is_source(&via)
        || has(4) && is_private(uri::host(&via))
        || has(16) && !is_port(&via)
        || has(32) && is_private(&source)
        || has(64) && request::transport().starts_with("WS")
        || has(128) && !uri::host(contact).is_empty() && !is_port(contact)
}

/// Whether an address is one of RFC 1918 or RFC 6598.
fn is_private(host: &str) -> bool {
    let Ok(ip) = host.parse::<std::net::Ipv4Addr>() else {
        return false;
    };
    ip.is_private() || ip.to_bits() & 0xffc0_0000 == 0x6440_0000
}
"#;

const ZONE: &str = r#"
/// The zone of `$time(…)`: that of Kamailio's machine.
const ZONE: &str = "UTC";
"#;

const NOW: &str = r#"
fn now(zone: &str) -> clock::LocalTime {
    clock::local(zone).expect("a time zone")
}
"#;

const REPLY_CODE: &str = r#"
/// `$T_reply_code`: the code of the best response, in a failure route; 0 elsewhere.
fn reply_code() -> u16 {
    outcome::best().map_or(0, |best| best.status)
}
"#;

const BRANCH_TIMEOUT: &str = r#"
/// `t_branch_timeout()`: whether the target of the best response did not answer, or rang too long.
fn branch_timeout() -> bool {
    let cause = outcome::best().map(|best| best.cause);
    matches!(cause, Some(outcome::Cause::NoAnswer | outcome::Cause::RangOut))
}
"#;

const BRANCH_REPLIED: &str = r#"
/// `t_branch_replied()`: whether the target of the best response sent another response before. For a target that has not timed out, this
/// is not known.
fn branch_replied(line: u32) -> Route {
    match outcome::best().map(|best| best.cause) {
        Some(outcome::Cause::RangOut) => Ok(true),
        Some(outcome::Cause::Answered | outcome::Cause::Cancelled) => {
            untranslated(line, "t_branch_replied()")
        }
        _ => Ok(false),
    }
}
"#;

const OTHER_ROUTES: &str = r#"
/// Whether Route has a value that does not name this host. The host removes its own values.
fn has_other_routes() -> bool {
    request::headers("Route").iter().any(|line| {
        let mut values = line.split('>').filter_map(|value| value.split_once('<'));
        !line.contains('<') || values.any(|(_, place)| !is_myself(place))
    })
}
"#;

const FIRST_HOP: &str = r#"
/// Whether Via has one value: the request comes from where it began.
fn is_first_hop() -> bool {
    let lines = request::headers("Via");
    lines.len() == 1 && !lines.iter().any(|line| line.contains(','))
}
"#;

const MY_ADDRESS: &str = r#"
/// Whether an address is that at which the request has arrived, or one that `listen` names.
fn is_my_address(address: &str) -> bool {
    let is_own = |(name, _): &(&str, Option<u16>)| name.trim_matches(['[', ']']) == address;
    address == request::local_address() || OWN.iter().any(is_own)
}
"#;

const BRANCH_FLAGS: &str = r#"
/// The flags of the branch (`setbflag`) follow the 32 flags of the request.
const BRANCH: u32 = 32;
"#;

const ANY_TIMEOUT: &str = r#"
/// `t_any_timeout()`: whether any target did not answer, or rang too long.
fn any_timeout() -> bool {
    let is_timeout = |attempt: &outcome::Attempt| {
        matches!(attempt.cause, outcome::Cause::NoAnswer | outcome::Cause::RangOut)
    };
    outcome::attempts().iter().any(is_timeout)
}
"#;
