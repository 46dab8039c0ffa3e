//! Selects the messages that a trace shows.

use std::net::IpAddr;

use ipnet::IpNet;
use portcullis_sip::{Arrival, HeaderName, Message, NameAddr, StartLine, Uri};
use serde::Deserialize;
use thiserror::Error;

use super::decisions::Decisions;
use super::entry::{Asked, Entry};
use super::outcome::Outcome;

/// Messages per second that a trace shows by default, and the maximum.
const RATE: u32 = 200;
const MOST_RATE: u32 = 2_000;

/// The conditions on messages; an absent one matches any message. Parsed from the query of a request.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The source address or network.
    pub source: Option<String>,
    /// The Call-ID.
    pub call_id: Option<String>,
    /// The method; for a response that of its CSeq.
    pub method: Option<String>,
    /// The tenant; `default` for the operator.
    pub tenant: Option<String>,
    /// The user of From.
    pub from: Option<String>,
    /// The user of To.
    pub to: Option<String>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The status of the response: `401`, or `4xx` for a class.
    pub code: Option<String>,
    /// Messages per second that are shown; further ones are counted.
    pub rate: Option<u32>,
    /// `source`, parsed.
    #[serde(skip)]
    network: Option<IpNet>,
    /// `code`, parsed: the lowest and the highest status.
    #[serde(skip)]
    codes: Option<(u16, u16)>,
    /// The decisions to show; `None` shows messages.
    #[serde(skip)]
    decisions: Option<Decisions>,
}

/// An invalid filter.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// The source.
    #[error("source: `{0}` is neither an address nor a network: write 10.0.0.7 or 10.0.0.0/8")]
    Source(String),
    /// The rate.
    #[error("rate: {0} messages per second; use 1 to {MOST_RATE}")]
    Rate(u32),
    /// The status.
    #[error("code: `{0}` is not a status: write 401, or 4xx for a class")]
    Code(String),
}

impl Filter {
    /// The same, with source and status parsed.
    ///
    /// # Errors
    /// When one of them is invalid.
    pub fn read(mut self) -> Result<Self, FilterError> {
        if let Some(text) = &self.source {
            let network = text.parse::<IpNet>().ok();
            let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
            let network = network.or_else(host);
            self.network = Some(network.ok_or_else(|| FilterError::Source(text.clone()))?);
        }
        if !(1..=MOST_RATE).contains(&self.rate()) {
            return Err(FilterError::Rate(self.rate()));
        }
        if let Some(text) = &self.code {
            let codes = codes(text).ok_or_else(|| FilterError::Code(text.clone()))?;
            self.codes = Some(codes);
        }
        Ok(self)
    }

    /// The same for decisions instead of messages.
    #[must_use]
    pub fn of_decisions(self, decisions: Decisions) -> Self {
        Self {
            decisions: Some(decisions),
            ..self
        }
    }

    pub(super) fn decisions(&self) -> Option<&Decisions> {
        self.decisions.as_ref()
    }

    /// Whether the policies called for a message matter.
    pub(super) fn concerns(&self, asked: &[Asked]) -> bool {
        let decisions = self.decisions.as_ref();
        decisions.is_none_or(|decisions| decisions.concern(asked))
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate.unwrap_or(RATE)
    }

    /// Whether the filter matches every message.
    pub(super) fn is_of_any(&self) -> bool {
        let parts = [
            &self.source,
            &self.call_id,
            &self.method,
            &self.tenant,
            &self.from,
            &self.to,
        ];
        parts.into_iter().all(Option::is_none)
    }

    /// Whether the filter selects messages from this address.
    pub fn has_source(&self, source: IpAddr) -> bool {
        let network = self.network.as_ref();
        network.is_none_or(|network| network.contains(&source.to_canonical()))
    }

    /// Whether the filter selects this status of a response; `None` if there is none.
    pub fn has_code(&self, code: Option<u16>) -> bool {
        self.codes.is_none_or(|(lowest, highest)| {
            code.is_some_and(|code| (lowest..=highest).contains(&code))
        })
    }

    /// Whether the filter selects this Call-ID.
    pub(super) fn is_call(&self, call_id: &[u8]) -> bool {
        let wanted = self.call_id.as_deref();
        wanted.is_some_and(|wanted| wanted.as_bytes() == call_id)
    }

    /// The conditions that can be checked before the decision.
    pub(super) fn matches_message(&self, message: Message<'_>, arrival: &Arrival) -> bool {
        if !self.has_source(arrival.source.ip()) {
            return false;
        }
        let header = |name| message.header(name).map_or(&b""[..], |field| field.value);
        if self.call_id.is_some() && !self.is_call(header(HeaderName::CallId)) {
            return false;
        }
        let is_in_share = |decisions: &Decisions| decisions.holds(header(HeaderName::CallId));
        if !self.decisions.as_ref().is_none_or(is_in_share) {
            return false;
        }
        let is_method = |wanted: &String| method(message) == wanted.as_bytes();
        let is_user = |wanted: &Option<String>, name| {
            let user = |wanted: &String| user(header(name)) == Some(wanted.as_bytes());
            wanted.as_ref().is_none_or(user)
        };
        self.method.as_ref().is_none_or(is_method)
            && is_user(&self.from, HeaderName::From)
            && is_user(&self.to, HeaderName::To)
    }

    /// The conditions that can be checked after the decision.
    pub(super) fn matches_outcome(&self, entry: &Entry<'_>) -> bool {
        let is_tenant = |wanted: &String| entry.tenant() == wanted;
        self.tenant.as_ref().is_none_or(is_tenant) && self.matches_loss(entry)
    }

    /// The same if the tenant of the message is unknown.
    pub(super) fn matches_loss(&self, entry: &Entry<'_>) -> bool {
        self.outcome.is_none_or(|wanted| entry.outcome() == wanted) && self.has_code(entry.code())
    }
}

fn codes(text: &str) -> Option<(u16, u16)> {
    let (class, rest) = text.split_at_checked(1)?;
    let class: u16 = class.parse().ok().filter(|class| (1..=6).contains(class))?;
    if rest.eq_ignore_ascii_case("xx") {
        return Some((class * 100, class * 100 + 99));
    }
    let code: u16 = text.parse().ok().filter(|_| rest.len() == 2)?;
    Some((code, code))
}

fn method(message: Message<'_>) -> &[u8] {
    match message.start_line() {
        StartLine::Request { method, .. } => method,
        StartLine::Response { .. } => message.cseq().map_or(&b""[..], |cseq| cseq.method),
    }
}

fn user(value: &[u8]) -> Option<&[u8]> {
    let uri = NameAddr::parse(value).ok()?.uri;
    Uri::parse(uri).ok()?.user
}

#[cfg(test)]
mod tests {
    use portcullis_sip::{Framing, Index, Limits, Transport, scan};

    use super::*;

    const INVITE: &[u8] = b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:alice@a>;tag=1\r\n\
        To: \"B\" <sip:bob@b>\r\nCall-ID: id@host\r\nCSeq: 1 INVITE\r\n\r\n";

    fn matches(filter: Filter) -> bool {
        let mut index = Index::default();
        scan(INVITE, Framing::Datagram, &Limits::default(), &mut index).unwrap();
        let arrival = Arrival {
            source: "10.1.2.3:5060".parse().unwrap(),
            local: "10.0.0.9:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        filter
            .read()
            .unwrap()
            .matches_message(Message::new(INVITE, &index), &arrival)
    }

    #[test]
    fn each_part_of_a_filter_counts() {
        let of = |set: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            set(&mut filter);
            matches(filter)
        };
        assert!(matches(Filter::default()));
        for (text, is_it) in [
            ("10.1.0.0/16", true),
            ("10.1.2.3", true),
            ("10.1.2.4", false),
            ("::/0", false),
        ] {
            assert_eq!(
                of(&|filter| filter.source = Some(text.into())),
                is_it,
                "{text}"
            );
        }
        assert!(of(&|filter| filter.call_id = Some("id@host".into())));
        assert!(!of(&|filter| filter.call_id = Some("id".into())));
        assert!(of(&|filter| filter.method = Some("INVITE".into())));
        assert!(!of(&|filter| filter.method = Some("BYE".into())));
        assert!(of(&|filter| filter.from = Some("alice".into())));
        assert!(!of(&|filter| filter.from = Some("bob".into())));
        assert!(of(&|filter| filter.to = Some("bob".into())));
        assert!(!of(&|filter| filter.to = Some("alice".into())));
    }

    #[test]
    fn codes_and_networks_are_read() {
        assert_eq!(codes("401"), Some((401, 401)));
        assert_eq!(codes("4xx"), Some((400, 499)));
        for bad in ["", "4", "40", "4000", "7xx", "x01", "ü01"] {
            assert_eq!(codes(bad), None, "{bad}");
        }
        let filter = Filter {
            source: Some("10.0.0".into()),
            ..Filter::default()
        };
        assert_eq!(filter.read(), Err(FilterError::Source("10.0.0".into())));
        let filter = Filter {
            rate: Some(0),
            ..Filter::default()
        };
        assert_eq!(filter.read(), Err(FilterError::Rate(0)));
    }
}
