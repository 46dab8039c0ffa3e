//! The routing logic of variables.cfg, translated by `portcullis import --policy`.
//!
//! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the
//! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

/// The result of a route.
type Route = Result<bool, Verdict>;

fn decide() -> Verdict {
    let result: Route = Script::default().request_route();
    // A script that ends without a reply or a relay is silent.
    result.err().unwrap_or_else(drop_request)
}

/// What the script has changed so far.
#[derive(Default)]
struct Script {
    request_uri: Option<String>,
    destination: Option<String>,
    /// `setflag` and `setbflag`: a bit for each flag.
    flags: u64,
    /// `$avp(s:kind)`
    avp_s_kind: String,
    /// `$avp(s:prefix)`
    avp_s_prefix: String,
    /// `$var(number)`
    var_number: String,
    /// `$var(tries)`
    var_tries: i64,
}

impl Script {
    /// `$ru`
    fn uri(&self) -> String {
        self.request_uri.clone().unwrap_or_else(request::uri)
    }

    /// `t_relay()`: to `$du` or, without it, to where the request URI leads.
    fn relay(&self) -> Verdict {
        match (&self.destination, &self.request_uri) {
            (Some(destination), _) => self.relay_by(destination),
            (None, Some(uri)) => self.relay_by(uri),
            (None, None) => relay(),
        }
    }

    /// To this URI, with the request URI of the script.
    fn relay_by(&self, place: &str) -> Verdict {
        let verdict = relay_to_uri(place);
        match &self.request_uri {
            Some(uri) => verdict.request_uri(uri),
            None => verdict,
        }
    }

    /// `isflagset`, `isbflagset`
    fn has_flag(&self, flag: u32) -> bool {
        self.flags & (1 << flag) != 0
    }

    /// `setflag`, `setbflag`
    fn set_flag(&mut self, flag: u32) {
        self.flags |= 1 << flag;
    }

    /// `resetflag`, `resetbflag`
    fn reset_flag(&mut self, flag: u32) {
        self.flags &= !(1 << flag);
    }

    /// variables.cfg:28: `request_route`
    fn request_route(&mut self) -> Route {
        self.var_tries = 0;
        self.avp_s_prefix = "+49".to_string();
        if request::header("X-Mark").is_some() {
            self.set_flag(5);
            self.set_flag(BRANCH + 6);
        }
        if uri::user(&self.uri()).unwrap_or_default().starts_with("0") {
            self.var_tries = i64::wrapping_add(self.var_tries, 1);
            self.avp_s_prefix = format!(
                "{}-{}",
                self.avp_s_prefix.clone(),
                uri::user(&self.uri()).unwrap_or_default()
            );
        }
        if uri::user(&self.uri()).unwrap_or_default().starts_with("00") {
            self.var_tries = i64::wrapping_add(self.var_tries, 2);
            self.reset_flag(5);
        }
        if request::method().eq_ignore_ascii_case("MESSAGE") {
            self.avp_s_kind = "text".to_string();
        }
        if self.var_tries > 2 && !self.has_flag(5) {
            return Err(reject(480, format!("Tried {}", self.var_tries)));
        }
        if self.has_flag(5) && self.has_flag(BRANCH + 6) {
            return Err(reject(486, "Marked"));
        }
        if self.avp_s_kind.clone() == "" {
            edits::add_header("X-Old", "call");
        }
        if self.var_tries == 0 {
            edits::add_header("X-Old", "first");
        }
        if uri::user(&self.uri()).unwrap_or_default() == "100"
            || uri::user(&self.uri()).unwrap_or_default() == "101"
        {
            edits::add_header("X-Old", "hundred");
        } else if uri::user(&self.uri()).unwrap_or_default() == "102" {
            return Err(reject(404, "No such user"));
        } else {
            edits::add_header("X-Old", "other");
        }
        self.var_number = format!("{}x", self.avp_s_prefix.clone());
        edits::add_header("X-Number", &format!("{}", self.var_number.clone()));
        self.route_relay()?;
        Ok(true)
    }

    /// variables.cfg:76: `route[RELAY]`
    fn route_relay(&mut self) -> Route {
        if has_other_routes() {
            untranslated(77, "remove_hf(\"Route\")")?;
        }
        return Err(self.relay());
    }
}

/// Ends the script where it depends on something without counterpart. Replace each call.
fn untranslated(line: u32, what: &str) -> Route {
    log::error!("line {line} is not translated: {what}");
    Err(reject(500, "Policy incomplete"))
}

/// What `alias` and `listen` name, with their ports.
const OWN: &[(&str, Option<u16>)] = &[("", Some(5060))];

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

/// Whether Route has a value that does not name this host. The host removes its own values.
fn has_other_routes() -> bool {
    request::headers("Route").iter().any(|line| {
        let mut values = line.split('>').filter_map(|value| value.split_once('<'));
        !line.contains('<') || values.any(|(_, place)| !is_myself(place))
    })
}

/// The flags of the branch (`setbflag`) follow the 32 flags of the request.
const BRANCH: u32 = 32;
