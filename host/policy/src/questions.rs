//! The questions of the interfaces `trusted` and `rules`.

use std::fmt::Write as _;

use portcullis_address::{DEFAULT_RULES, FromUri, Proto, RuleSet, TrustedQuestion, TrustedSource};

use serde_json::json;

use crate::call::Call;
use crate::tape::Leaves;
use crate::view::{Contact, PlainUri, RequestView};

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

impl<R: RequestView> Call<R> {
    /// `allow-trusted`, `count-trusted` and, with a peer, those for an address: the number of rows.
    pub(crate) fn trusted(&mut self, rows: Rows, peer: Option<Peer<'_>>) -> u32 {
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
        self.answered(function, Leaves::Tags, arguments, |call| {
            call.count_trusted(rows, peer.as_ref())
        })
    }

    fn count_trusted(&mut self, rows: Rows, peer: Option<&Peer<'_>>) -> u32 {
        if !self.scope().admits_trusted() {
            return 0;
        }
        let (request, snapshot, tags) = self.parts();
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
            return 0;
        };
        let ruri = request.uri();
        let question = TrustedQuestion {
            source,
            proto,
            from,
            ruri: &ruri,
        };
        let most = match rows {
            Rows::First => 1,
            Rows::All => usize::MAX,
        };
        let mut count = 0;
        for found in snapshot.trusted.table.matches(question).take(most) {
            if count == 0 {
                tags.clear();
            }
            count += 1;
            tags.extend(found.tag.map(str::to_owned));
        }
        count
    }

    /// `allow-routing`
    pub(crate) fn allow_routing(&mut self, basename: Option<&str>) -> bool {
        self.answered(
            "rules.allow-routing",
            Leaves::Nothing,
            || json!([basename]),
            |call| call.routes(basename),
        )
    }

    /// `allow-register`, and with `ports` `allow-register-include-port`
    pub(crate) fn allow_register(&mut self, basename: Option<&str>, ports: bool) -> bool {
        let function = match ports {
            false => "rules.allow-register",
            true => "rules.allow-register-include-port",
        };
        self.answered(
            function,
            Leaves::Nothing,
            || json!([basename]),
            |call| call.registers(basename, ports),
        )
    }

    /// `allow-uri`
    pub(crate) fn allow_uri(&mut self, basename: Option<&str>, uri: &str) -> bool {
        self.answered(
            "rules.allow-uri",
            Leaves::Nothing,
            || json!([basename, uri]),
            |call| call.goes_with(basename, uri),
        )
    }

    fn routes(&self, basename: Option<&str>) -> bool {
        let rules = match self.rules(basename) {
            Asked::Refused => return false,
            Asked::Nothing => return true,
            Asked::Rules(rules) => rules,
        };
        let request = self.request();
        let right = request.plain_uri().map(|uri| written(&uri, true, false));
        rules.allows(&request.from_uri(), right.as_deref())
    }

    fn registers(&self, basename: Option<&str>, ports: bool) -> bool {
        let rules = match self.rules(basename) {
            Asked::Refused => return false,
            Asked::Nothing => return true,
            Asked::Rules(rules) => rules,
        };
        let request = self.request();
        let to = request.to_uri();
        let (mut is_allowed, mut is_first, mut is_star) = (true, true, false);
        request.contacts(&mut |contact| {
            is_star |= is_first && contact == Contact::Star;
            is_first = false;
            let right = match &contact {
                Contact::Uri(uri) => Some(written(uri, false, ports)),
                Contact::Star | Contact::Unreadable => None,
            };
            is_allowed = is_allowed && rules.allows(&to, right.as_deref());
        });
        is_allowed || is_star
    }

    fn goes_with(&self, basename: Option<&str>, uri: &str) -> bool {
        match self.rules(basename) {
            Asked::Refused => false,
            Asked::Nothing => true,
            Asked::Rules(rules) => rules.allows(&self.request().from_uri(), Some(uri)),
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
