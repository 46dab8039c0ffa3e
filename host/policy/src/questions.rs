//! The questions of the interfaces `trusted` and `rules`.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use portcullis_address::{
    DEFAULT_RULES, Effort, FromUri, Proto, RuleSet, Spent, TrustedQuestion, TrustedSource,
};

use portcullis_request::{Contact, PlainUri};
use serde_json::{Value, json};

use crate::call::Call;
use crate::failure::HostError;
use crate::tape::Leaves;

/// The most values of Contact that `allow-register` looks at. A request with more is denied: no telephone registers as many, and each is
/// compared with every line of the rules.
const MOST_CONTACTS: usize = 64;

/// A peer of the policy's choice.
pub(crate) struct Peer<'p> {
    pub(crate) address: &'p str,
    pub(crate) transport: &'p str,
    pub(crate) from: Option<&'p str>,
}

/// How many of the rows that match are of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rows {
    First,
    All,
}

/// The rules of a pair of files that a policy asks about.
enum Asked<'r> {
    /// They are not for it to ask about.
    Refused,
    /// There are none, which allows everything.
    Nothing,
    /// These.
    Rules(&'r RuleSet),
}

impl Call {
    /// `allow-trusted`, `count-trusted` and, with a peer, those for an address: the number of rows.
    pub(crate) fn trusted(&mut self, rows: Rows, peer: Option<Peer<'_>>) -> wasmtime::Result<u32> {
        let function = match (rows, &peer) {
            (Rows::First, None) => "trusted.allow-trusted",
            (Rows::First, Some(_)) => "trusted.allow-trusted-address",
            (Rows::All, None) => "trusted.count-trusted",
            (Rows::All, Some(_)) => "trusted.count-trusted-address",
        };
        let arguments = || match &peer {
            None => json!([]),
            Some(peer) => json!([peer.address, peer.transport, peer.from]),
        };
        let mut has_room = true;
        let count = self.answered(function, Leaves::Tags, arguments, |call| {
            let counted = call.count_trusted(rows, peer.as_ref(), &mut has_room);
            counted.unwrap_or_default()
        });
        // What was not counted to the end ends the call.
        self.in_time()?;
        match has_room {
            true => Ok(count),
            false => Err(HostError::TooMuch.into()),
        }
    }

    /// Counts the rows, and keeps their tags while there is room for what a policy may get at once.
    fn count_trusted(
        &mut self,
        rows: Rows,
        peer: Option<&Peer<'_>>,
        has_room: &mut bool,
    ) -> Result<u32, Spent> {
        let mut room = self.host_call_bytes();
        if !self.scope().admits_trusted() {
            return Ok(0);
        }
        let (request, snapshot, end, tags) = self.parts();
        let own_from;
        let (source, transport, from) = match peer {
            None => {
                own_from = request.from_uri();
                (
                    TrustedSource::Ip(request.source().ip()),
                    request.transport(),
                    FromUri::Own(&own_from),
                )
            }
            Some(peer) => {
                let from = match peer.from {
                    Some(from) => FromUri::Given(from),
                    None => {
                        own_from = request.from_uri();
                        FromUri::Own(&own_from)
                    }
                };
                (TrustedSource::parse(peer.address), peer.transport, from)
            }
        };
        let Some(proto) = Proto::parse(transport) else {
            return Ok(0);
        };
        let ruri = request.uri();
        let question = TrustedQuestion {
            source,
            proto,
            from,
            ruri: &ruri,
        };
        let mut count = 0;
        let goes_on = || end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        snapshot.trusted.table.find(question, effort, |found| {
            if count == 0 {
                tags.clear();
            }
            count += 1;
            if let Some(tag) = found.tag {
                let left = room.checked_sub(tag.len());
                *has_room = left.is_some();
                room = left.unwrap_or_default();
                tags.push(tag.to_owned());
            }
            match rows {
                Rows::All if *has_room => ControlFlow::Continue(()),
                Rows::All | Rows::First => ControlFlow::Break(()),
            }
        })?;
        Ok(count)
    }

    /// `allow-routing`
    pub(crate) fn allow_routing(&mut self, basename: Option<&str>) -> wasmtime::Result<bool> {
        let arguments = || json!([basename]);
        self.ruled("rules.allow-routing", arguments, |call| {
            call.routes(basename)
        })
    }

    /// `allow-register`, and with `ports` `allow-register-include-port`
    pub(crate) fn allow_register(
        &mut self,
        basename: Option<&str>,
        ports: bool,
    ) -> wasmtime::Result<bool> {
        let function = match ports {
            false => "rules.allow-register",
            true => "rules.allow-register-include-port",
        };
        let arguments = || json!([basename]);
        self.ruled(function, arguments, |call| call.registers(basename, ports))
    }

    /// `allow-uri`
    pub(crate) fn allow_uri(
        &mut self,
        basename: Option<&str>,
        uri: &str,
    ) -> wasmtime::Result<bool> {
        let arguments = || json!([basename, uri]);
        self.ruled("rules.allow-uri", arguments, |call| {
            call.goes_with(basename, uri)
        })
    }

    /// Answers a question about rules. One that is not answered in time ends the call.
    fn ruled(
        &mut self,
        function: &'static str,
        arguments: impl FnOnce() -> Value,
        live: impl FnOnce(&Self) -> Result<bool, Spent>,
    ) -> wasmtime::Result<bool> {
        let allowed = self.answered(function, Leaves::Nothing, arguments, |call| {
            live(call).unwrap_or_default()
        });
        self.in_time()?;
        Ok(allowed)
    }

    fn routes(&self, basename: Option<&str>) -> Result<bool, Spent> {
        let rules = match self.rules(basename) {
            Asked::Refused => return Ok(false),
            Asked::Nothing => return Ok(true),
            Asked::Rules(rules) => rules,
        };
        let goes_on = || self.end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        let request = self.request();
        let right = request.plain_uri().map(|uri| written(&uri, true, false));
        rules.allows(&request.from_uri(), right.as_deref(), effort)
    }

    fn registers(&self, basename: Option<&str>, ports: bool) -> Result<bool, Spent> {
        let rules = match self.rules(basename) {
            Asked::Refused => return Ok(false),
            Asked::Nothing => return Ok(true),
            Asked::Rules(rules) => rules,
        };
        let goes_on = || self.end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        let request = self.request();
        let to = request.to_uri();
        let (mut allowed, mut count, mut is_star) = (Ok(true), 0, false);
        request.contacts(|contact| {
            is_star |= count == 0 && contact == Contact::Star;
            count += 1;
            if allowed != Ok(true) {
                return;
            }
            if count > MOST_CONTACTS {
                allowed = Ok(false);
                return;
            }
            let right = match &contact {
                Contact::Uri(uri) => Some(written(uri, false, ports)),
                Contact::Star | Contact::Unreadable => None,
            };
            allowed = rules.allows(&to, right.as_deref(), effort);
        });
        Ok(allowed? || is_star)
    }

    fn goes_with(&self, basename: Option<&str>, uri: &str) -> Result<bool, Spent> {
        let goes_on = || self.end.is_ahead();
        let effort = &mut Effort::new(&goes_on);
        match self.rules(basename) {
            Asked::Refused => Ok(false),
            Asked::Nothing => Ok(true),
            Asked::Rules(rules) => rules.allows(&self.request().from_uri(), Some(uri), effort),
        }
    }

    fn rules(&self, basename: Option<&str>) -> Asked<'_> {
        let basename = basename.unwrap_or(DEFAULT_RULES);
        if !self.scope().admits_rules(basename) {
            return Asked::Refused;
        }
        let rules = self.snapshot().rules.rules.set(basename);
        match rules.filter(|rules| !rules.is_empty()) {
            Some(rules) => Asked::Rules(rules),
            None => Asked::Nothing,
        }
    }
}

/// `sip:USER@HOST`, as Kamailio writes URIs for its rules. The request URI has an `@` in any case.
fn written(uri: &PlainUri<'_>, always_at: bool, port: bool) -> String {
    let PlainUri { user, host, .. } = uri;
    let mut text = match user.is_empty() && !always_at {
        true => format!("sip:{host}"),
        false => format!("sip:{user}@{host}"),
    };
    if let (true, Some(port)) = (port, uri.port) {
        let _infallible = write!(text, ":{port}");
    }
    text
}
