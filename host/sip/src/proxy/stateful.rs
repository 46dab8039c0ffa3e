//! What a stateful proxy asks of these rules: names of transactions, branches of several targets, and loop detection.

use std::net::IpAddr;
use std::num::NonZeroU32;

use memchr::memchr_iter;

use super::Proxy;
use super::branch::{Branch, Claim, Transaction};
use super::drop_reason::DropReason;
use crate::arrival::{Arrival, Destination};
use crate::edit::read_hex;
use crate::key::Request;
use crate::name_addr::NameAddr;
use crate::reason::standard_reason;
use crate::reply::Reply;
use crate::routes::Routes;
use crate::scan::{HeaderName, Message, StartLine};
use crate::token::skip_space;
use crate::via::Via;

/// What a request has in common with its copies, its CANCEL, and the ACK to a failure (RFC 3261 §17.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestName {
    /// Branch, Call-ID and CSeq number.
    pub transaction: Transaction,
    /// A keyed hash of sent-by.
    pub sent_by: u64,
}

impl Proxy {
    /// The name of a request; `None` if its top Via cannot be parsed.
    pub fn name_of(&self, message: Message<'_>, arrival: &Arrival) -> Option<RequestName> {
        let top = self.top_via(message, arrival)?;
        let key = self.keys.current();
        let sent_by = top.field.value.get(top.via.sent_by.clone());
        Some(RequestName {
            transaction: Transaction::without_sent_by(key, message, &top),
            sent_by: key.branch(&Request {
                sent_by: sent_by.unwrap_or_default(),
                cseq: 0,
                fields: &[],
            }),
        })
    }

    /// The branch that a response brings back.
    ///
    /// # Errors
    /// Why the response cannot be one to a request of this host.
    pub fn branch_of(&self, message: Message<'_>) -> Result<Branch, DropReason> {
        self.our_via(message).map(|(_, branch, _)| branch)
    }

    /// The tag of the host that has the transaction of a response, if one of this fleet has written it ([`Proxy::with_tag`]). Whoever has seen the
    /// branch can have written another tag: the host with the tag verifies the seal.
    pub fn tag_of(&self, response: Message<'_>) -> Option<NonZeroU32> {
        let (top, ..) = self.our_via(response).ok()?;
        Claim::of(&top.via)?.tag()
    }

    /// The branch of a request that this host sent: of the datagram that an ICMP error quotes, or of one that a connection could not send. The
    /// quoted part may end anywhere behind the top Via, and `message` may come from a scan that has failed for this reason. `None` if the top
    /// Via has no valid seal of this host, which nobody else can forge, or is not there as a whole.
    pub fn branch_of_request(&self, message: Message<'_>) -> Option<Branch> {
        let StartLine::Request { .. } = message.start_line() else {
            return None;
        };
        self.our_via(message).ok().map(|(_, branch, _)| branch)
    }

    /// The destination of responses to a request: its source, or `maddr` if requests may go there (RFC 3261 §18.2.2). `None` if its top Via
    /// cannot be parsed.
    pub fn way_up(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        routes: &Routes,
    ) -> Option<Destination> {
        let top = self.top_via(message, arrival)?;
        Some(Destination {
            addr: self.back_to(&top, arrival, routes),
            ..top.reply_to(arrival)
        })
    }

    /// Writes a 100 (Trying) without a To-tag and with the Timestamp of the request (RFC 3261 §8.2.6.1). `None` when nothing may be sent.
    pub fn trying(
        &self,
        message: Message<'_>,
        arrival: &Arrival,
        out: &mut Vec<u8>,
    ) -> Option<Destination> {
        out.clear();
        let StartLine::Request { method, .. } = message.start_line() else {
            return None;
        };
        if method == b"ACK" || arrival.source.port() == 0 {
            return None;
        }
        let top = self.top_via(message, arrival)?;
        let reason = standard_reason(100);
        let mut reply = Reply::to(message, Some(&top), arrival, 100, reason, None, out);
        reply.timestamp(message);
        reply.end(&self.server_line);
        Some(top.reply_to(arrival))
    }

    /// Whether the request has been here before with the same values of everything that routing depends on (RFC 5393 §4.2). One that comes
    /// back with other values is a spiral, which is permitted. Policies route by the source too: a request that an application server
    /// sends back is a spiral, and a loop through other hosts is found one lap later.
    pub fn is_loop(&self, message: Message<'_>, arrival: &Arrival) -> bool {
        let mut mark = None;
        self.own_loop_marks(message)
            .any(|seen| seen == *mark.get_or_insert_with(|| self.loop_mark(message, arrival)))
    }

    /// A keyed hash of the values that RFC 5393 §4.2.1 lists, and of the source and transport.
    pub(super) fn loop_mark(&self, message: Message<'_>, arrival: &Arrival) -> u64 {
        let StartLine::Request { uri, .. } = message.start_line() else {
            return 0;
        };
        let key = self.keys.current();
        let chain = |mark: u64, name| {
            let fields = message.headers(name);
            fields.fold(mark, |mark, field| {
                let fields: &[&[u8]] = &[&mark.to_le_bytes(), field.value, b""];
                key.tag(&Request {
                    sent_by: b"",
                    cseq: name as u32,
                    fields,
                })
            })
        };
        let marks = [
            HeaderName::Route,
            HeaderName::ProxyRequire,
            HeaderName::ProxyAuthorization,
        ];
        let lists = marks.into_iter().fold(0, chain);
        let value = |name| message.header(name).map_or(&b""[..], |field| field.value);
        let tag = |name| {
            let address = NameAddr::parse(value(name)).ok();
            address
                .and_then(|address| address.tag())
                .unwrap_or_default()
        };
        let source = match arrival.source.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        key.tag(&Request {
            sent_by: b"",
            cseq: message.cseq().map_or(0, |cseq| cseq.number),
            fields: &[
                uri,
                tag(HeaderName::From),
                tag(HeaderName::To),
                value(HeaderName::CallId),
                &lists.to_le_bytes(),
                &source.octets(),
                arrival.transport.token().as_bytes(),
            ],
        })
    }

    /// The marks in the Vias that this host wrote.
    fn own_loop_marks<'m>(&self, message: Message<'m>) -> impl Iterator<Item = u64> + use<'_, 'm> {
        let fields = message.headers(HeaderName::Via);
        let fields = fields.filter(|field| may_have_mark(field.value));
        let vias = fields.flat_map(|field| {
            let mut rest = Some(field.value);
            std::iter::from_fn(move || {
                let text = rest?;
                let via = Via::parse(text).ok();
                rest = via.as_ref().and_then(|via| text.get(via.next?..));
                via
            })
        });
        vias.filter(|via| self.identity.is_our_via(via))
            .filter_map(|via| read_hex(via.params.named("l")?.value?))
    }
}

/// Whether a Via value may have the parameter `l`. Hardly any has it, and parsing takes much longer.
fn may_have_mark(vias: &[u8]) -> bool {
    memchr_iter(b';', vias).any(|at| {
        let name = vias.get(skip_space(vias, at + 1));
        name.is_some_and(|first| first.eq_ignore_ascii_case(&b'l'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vias_with_other_parameters_are_not_parsed() {
        for vias in [
            "",
            "SIP/2.0/UDP l",
            "SIP/2.0/UDP l;branch=z9hG4bKl;rport",
            "SIP/2.0/UDP a;",
            "SIP/2.0/UDP a; ",
        ] {
            assert!(!may_have_mark(vias.as_bytes()), "{vias}");
        }
    }

    proptest! {
        #[test]
        fn no_via_with_a_mark_is_left_out(
            before in "(;[a-m]{1,2}(=[;\"a-l]{0,3})?){0,2}",
            space in "( |\t|\r\n ){0,2}",
            name in "[lL]",
            after in "(;[a-z]{0,2}){0,2}",
        ) {
            let vias = format!("SIP/2.0/UDP a{before};{space}{name}{space}=00{after}");
            if let Ok(via) = Via::parse(vias.as_bytes()) && via.params.named("l").is_some() {
                prop_assert!(may_have_mark(vias.as_bytes()));
            }
        }
    }
}
