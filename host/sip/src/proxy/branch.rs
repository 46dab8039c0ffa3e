//! The branch that this host writes into its Via, and how it is verified when a response brings it back.
//!
//! A branch is `z9hG4bK`, 16 digits that name the transaction, two digits that number the target, and 16 digits that seal them. Target 0, the
//! only one of a stateless proxy, has no number:
//! - The name is a keyed hash of the values that a retransmission, a CANCEL and an ACK to a failure share with their request
//!   (RFC 3261 §16.11), so all of them get the same branch without state, even over another connection.
//! - The seal is a keyed hash of the name. A response whose branch has no valid seal is unsolicited.
//!
//! A Via parameter `i=SOCKET-STREAM-MINUTE-SEAL` records where and when the request came in. Its seal is a keyed hash of these
//! values, the transaction, and the address that the response goes to, which the next Via names. An observer of a branch can
//! therefore send responses only to the source of the request, and only for a limited time. The parameter is not part of the
//! branch: the CANCEL of a request must have the branch of the request, wherever and whenever it arrives. Among hosts that pass messages to each
//! other, the parameter ends with `-TAG`: which of them has the transaction. Every copy of a request has the same branch, whichever host relays it,
//! and a callee answers to the Via of the first one.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use super::identity::Identity;
use super::minute::Minute;
use super::stream::Stream;
use crate::arrival::Arrival;
use crate::edit::{
    HEX_DIGITS, read_hex, read_short_hex, write_decimal, write_hex, write_short_hex,
};
use crate::key::{Key, Keys, Request};
use crate::name_addr::NameAddr;
use crate::scan::{HeaderName, Message, StartLine};
use crate::top_via::TopVia;
use crate::via::{MAGIC_COOKIE, Via};

/// The name of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Transaction(u64);

/// The byte that names the owner of a transaction.
const OWNER: u64 = 0xff;

/// What distinguishes the request to one target of a transaction from those to its other targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Branch {
    /// The transaction of the received request.
    pub transaction: Transaction,
    /// The number of the target. Target 0 has the branch that a stateless proxy writes.
    pub number: u8,
}

/// The socket and time at which a request arrived, as its response reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Number of the socket; larger than every number in use if the socket is unknown.
    pub(super) socket: u32,
    /// The stream; `None` for a datagram.
    pub(super) stream: Option<Stream>,
    /// Time of arrival.
    pub(super) minute: Minute,
    /// The host that has the transaction, if there are several.
    pub(super) tag: Option<NonZeroU32>,
}

/// An [`Origin`] that a response brought back, before its seal is verified.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) origin: Origin,
    seal: u64,
}

impl Transaction {
    /// The transaction of a request by RFC 3261 §16.11: from a branch with the magic cookie, else from the fields that identify a
    /// transaction in RFC 2543. Both include sent-by, Call-ID and CSeq number, so that a client with poor random numbers does not
    /// collide with others.
    pub(super) fn of(key: &Key, message: Message<'_>, top: &TopVia<'_>) -> Self {
        let name = |fields: &[&[u8]]| Self(key.branch(&request(message, top, fields)));
        let branch = top.via.branch().unwrap_or_default();
        let call_id = value(message, HeaderName::CallId);
        let StartLine::Request { method, uri, .. } = message.start_line() else {
            return name(&[branch, call_id]);
        };
        if is_new(top) {
            return name(&[branch, call_id]);
        }
        // The ACK to a failure has the To-tag that its INVITE lacks.
        let to_tag = match method {
            b"INVITE" | b"ACK" | b"CANCEL" => &b""[..],
            _ => tag(value(message, HeaderName::To)),
        };
        let from_tag = tag(value(message, HeaderName::From));
        name(&[branch, call_id, from_tag, to_tag, uri])
    }

    /// The transaction of a request for a stateful proxy: sent-by is not part of the name if the branch has the magic cookie, because a client
    /// behind a NAT may write another one into its CANCEL after it has learnt its public address. The caller compares sent-by or the source.
    /// The owner byte of such a name is a hash of the branch, which [`Steering::filter`](crate::Steering::filter) finds in a datagram.
    pub(super) fn without_sent_by(key: &Key, message: Message<'_>, top: &TopVia<'_>) -> Self {
        if !is_new(top) {
            return Self::of(key, message, top);
        }
        let branch = top.via.branch().unwrap_or_default();
        let fields = [branch, value(message, HeaderName::CallId)];
        let request = Request {
            sent_by: b"",
            ..request(message, top, &fields)
        };
        let identifier = branch.get(MAGIC_COOKIE.len()..).unwrap_or_default();
        let owner = key.steering().owner(identifier);
        Self(key.branch(&request) & !OWNER | u64::from(owner))
    }

    /// The name as a number: a keyed hash, so that nobody else can choose where it goes in a table. Only the low byte, that of the owner, is a
    /// weaker one.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The transaction of a number that another process of this host has sent.
    pub fn of_number(number: u64) -> Self {
        Self(number)
    }

    /// The worker that has the transaction, of so many.
    pub fn owner(self, workers: usize) -> usize {
        (self.0 & OWNER) as usize % workers.max(1)
    }
}

impl Branch {
    /// A branch that this host wrote, and the key of its seal; `None` for any other branch.
    pub(super) fn of_our<'k>(keys: &'k Keys, via: &Via<'_>) -> Option<(Self, &'k Key)> {
        let digits = via.rfc3261_branch()?.get(MAGIC_COOKIE.len()..)?;
        let (name, rest) = digits.split_at_checked(HEX_DIGITS)?;
        let (number, seal) = rest.split_at_checked(rest.len().checked_sub(HEX_DIGITS)?)?;
        let branch = Self {
            transaction: Transaction(read_hex(name)?),
            number: match number {
                [] => 0,
                &[high, low] => read_number(high, low)?,
                _ => return None,
            },
        };
        let seal = read_hex(seal)?;
        let key = keys.all().find(|key| branch.seal(key) == seal)?;
        Some((branch, key))
    }

    /// Writes the branch.
    pub(super) fn write(self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        write_hex(self.transaction.0, out);
        if self.number != 0 {
            out.extend([self.number >> 4, self.number & 15].map(|digit| HEX[usize::from(digit)]));
        }
        write_hex(self.seal(key), out);
    }

    fn seal(self, key: &Key) -> u64 {
        match self.number {
            0 => key.seal(self.transaction.0),
            number => key.seal_of_target(self.transaction.0, number),
        }
    }
}

impl From<Transaction> for Branch {
    /// The branch of the first target.
    fn from(transaction: Transaction) -> Self {
        Self {
            transaction,
            number: 0,
        }
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The number of a target; not 0, which is written without digits.
fn read_number(high: u8, low: u8) -> Option<u8> {
    let digit = |digit| char::from(digit).to_digit(16);
    let number = digit(high)? << 4 | digit(low)?;
    u8::try_from(number).ok().filter(|number| *number != 0)
}

impl Origin {
    /// The origin of a request, for its response.
    pub(super) fn of(identity: &Identity, arrival: &Arrival, minute: Minute) -> Self {
        let place = identity.place_of(arrival.transport, arrival.local);
        Self {
            socket: place.map_or(u32::MAX, |(number, _)| number as u32),
            stream: Stream::of(arrival),
            minute,
            tag: None,
        }
    }

    /// The same at the host with this tag.
    pub(super) fn at(self, tag: Option<NonZeroU32>) -> Self {
        Self { tag, ..self }
    }

    /// Writes the Via parameter, sealed for this transaction and for responses to `back_to`.
    pub(super) fn write(
        self,
        key: &Key,
        transaction: Transaction,
        back_to: SocketAddr,
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(b";i=");
        write_decimal(self.socket, out);
        out.push(b'-');
        Stream::write(self.stream, out);
        out.push(b'-');
        write_short_hex(self.minute.0, out);
        out.push(b'-');
        write_hex(self.seal(key, transaction, back_to), out);
        if let Some(tag) = self.tag {
            out.push(b'-');
            write_short_hex(tag.get(), out);
        }
    }

    fn seal(self, key: &Key, transaction: Transaction, back_to: SocketAddr) -> u64 {
        let (transport, connection) = match self.stream {
            Some(stream) => (stream.transport.number(), stream.connection.0),
            None => (0, 0),
        };
        let place = u64::from(self.socket) << 32 | u64::from(transport);
        let tag = self.tag.map_or(0, NonZeroU32::get);
        let time = u64::from(tag) << 32 | u64::from(self.minute.0);
        key.origin([transaction.0, place, connection, time], back_to)
    }
}

impl Claim {
    /// Parses the output of [`Origin::write`]; `None` for anything else.
    pub(super) fn of(via: &Via<'_>) -> Option<Self> {
        let value = via.params.named("i")?.value?;
        let mut parts = value.split(|&byte| byte == b'-');
        let (socket, stream) = (parts.next()?, parts.next()?);
        let (minute, seal) = (parts.next()?, parts.next()?);
        let tag = match parts.next() {
            Some(tag) => Some(NonZeroU32::new(read_short_hex(tag)?)?),
            None => None,
        };
        let origin = Origin {
            socket: crate::cseq::number(socket, u32::MAX)?,
            stream: Stream::read(stream)?,
            minute: Minute(read_short_hex(minute)?),
            tag,
        };
        let seal = read_hex(seal)?;
        parts.next().is_none().then_some(Self { origin, seal })
    }

    /// The tag of the host that has the transaction, as whoever wrote the Via claims.
    pub(super) fn tag(&self) -> Option<NonZeroU32> {
        self.origin.tag
    }

    /// Whether its seal is valid for this transaction and for responses to `back_to`.
    pub(super) fn holds(&self, key: &Key, transaction: Transaction, back_to: SocketAddr) -> bool {
        self.origin.seal(key, transaction, back_to) == self.seal
    }
}

/// The To-tag of our own replies to a request from this source. The upper half is the same for each retransmission and for the ACK, which has the
/// request's top Via, Call-ID and CSeq number (RFC 3261 §17.1.1.3). The lower half is different for each source and period: whoever has sent the same
/// request from an address of its own does not know the tag that another address has got, and whoever has had the address before knows it no longer.
pub(super) fn own_tag(
    key: &Key,
    message: Message<'_>,
    top: &TopVia<'_>,
    source: IpAddr,
    period: u32,
) -> u64 {
    let branch = top.via.branch().unwrap_or_default();
    let call_id = value(message, HeaderName::CallId);
    let tag = key.tag(&request(message, top, &[branch, call_id]));
    tag & UPPER | key.receipt(tag, source, period) & !UPPER
}

/// Whether both are tags of our replies to the same request, whatever its source.
pub(super) fn is_same_request(one: u64, other: u64) -> bool {
    (one ^ other) & UPPER == 0
}

/// The half of a tag that does not depend on the source.
const UPPER: u64 = 0xffff_ffff_0000_0000;

/// Whether the branch identifies its transaction. A bare cookie identifies nothing (RFC 4475 §3.2.1).
fn is_new(top: &TopVia<'_>) -> bool {
    let branch = top.via.rfc3261_branch();
    branch.is_some_and(|branch| branch.len() > MAGIC_COOKIE.len())
}

fn request<'a>(message: Message<'a>, top: &TopVia<'a>, fields: &'a [&'a [u8]]) -> Request<'a> {
    let sent_by = top.field.value.get(top.via.sent_by.clone());
    Request {
        sent_by: sent_by.unwrap_or_default(),
        cseq: message.cseq().map_or(0, |cseq| cseq.number),
        fields,
    }
}

fn value(message: Message<'_>, name: HeaderName) -> &[u8] {
    let field = message.header(name);
    field.map(|field| field.value).unwrap_or_default()
}

fn tag(value: &[u8]) -> &[u8] {
    let address = NameAddr::parse(value).ok();
    address
        .and_then(|address| address.tag())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::arrival::{ConnectionId, Transport};
    use crate::scan::{Framing, Index, Limits, scan};

    const SECRET: [u8; 16] = [7; 16];

    fn transaction(method: &str, uri: &str, via: &str, to_tag: &str) -> Transaction {
        let bytes = format!(
            "{method} {uri} SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=f\r\nTo: <sip:c@d>{to_tag}\r\n\
             Call-ID: x\r\nCSeq: 4 {method}\r\n\r\n"
        );
        let mut index = Index::default();
        scan(
            bytes.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        )
        .unwrap();
        let message = Message::new(bytes.as_bytes(), &index);
        let top = TopVia::of(message).unwrap();
        Transaction::of(&Key::new(&SECRET), message, &top)
    }

    const COOKIE: &str = "SIP/2.0/UDP a.example:5060;branch=z9hG4bKx1";
    const OLD: &str = "SIP/2.0/UDP a.example:5060;branch=1";

    #[test]
    fn cancel_and_ack_share_the_transaction_of_their_invite() {
        for via in [
            COOKIE,
            OLD,
            "SIP/2.0/UDP a.example",
            "SIP/2.0/UDP a.example;branch=z9hG4bK",
        ] {
            let invite = transaction("INVITE", "sip:c@d", via, "");
            assert_eq!(transaction("INVITE", "sip:c@d", via, ""), invite);
            assert_eq!(transaction("CANCEL", "sip:c@d", via, ""), invite);
            assert_eq!(transaction("ACK", "sip:c@d", via, ";tag=callee"), invite);
        }
    }

    #[test]
    fn other_requests_are_other_transactions() {
        let invite = transaction("INVITE", "sip:c@d", COOKIE, "");
        assert_ne!(
            transaction("INVITE", "sip:c@d", &COOKIE.replace("x1", "x2"), ""),
            invite
        );
        assert_ne!(
            transaction(
                "INVITE",
                "sip:c@d",
                &COOKIE.replace("a.example", "b.example"),
                ""
            ),
            invite
        );
        // Without the cookie it is RFC 2543's fields that count.
        let old = transaction("BYE", "sip:c@d", OLD, ";tag=1");
        assert_ne!(transaction("BYE", "sip:c@d", OLD, ";tag=2"), old);
        assert_ne!(transaction("BYE", "sip:other@d", OLD, ";tag=1"), old);
        // Nor does a cookie alone tell anything.
        let bare = COOKIE.replace("x1", "");
        assert_ne!(
            transaction("BYE", "sip:c@d", &bare, ";tag=1"),
            transaction("BYE", "sip:c@d", &bare, ";tag=2")
        );
        let spelt = transaction(
            "BYE",
            "sip:c@d",
            &OLD.replace("a.example", "A.Example"),
            ";tag=1",
        );
        assert_eq!(spelt, old, "host names have no case");
    }

    #[test]
    fn a_seal_of_another_key_or_for_another_name_is_no_seal() {
        let key = Key::new(&SECRET);
        let mut branch = Vec::new();
        Branch::from(Transaction(5)).write(&key, &mut branch);
        let branch = String::from_utf8(branch).unwrap();
        let read = |keys: &Keys, branch: &str| {
            let via = format!("SIP/2.0/UDP a;branch={branch}");
            let read = Branch::of_our(keys, &Via::parse(via.as_bytes()).unwrap());
            read.map(|(branch, _)| branch.transaction)
        };
        let keys = Keys::new(&SECRET, &[]);
        assert_eq!(read(&keys, &branch), Some(Transaction(5)));
        assert_eq!(
            read(&keys, &branch.to_ascii_uppercase()),
            Some(Transaction(5))
        );
        assert_eq!(read(&Keys::new(&[8; 16], &[]), &branch), None);
        // A key that was changed is known for what it sealed.
        let changed = Keys::new(&[8; 16], &[[9; 16], SECRET]);
        assert_eq!(read(&changed, &branch), Some(Transaction(5)));
        assert_eq!(read(&keys, &branch.replacen('5', "6", 1)), None);
        for other in ["z9hG4bK", "z9hG4bKshort", "1", &format!("{branch}0")] {
            assert_eq!(read(&keys, other), None, "{other}");
        }
    }

    #[test]
    fn each_target_has_a_branch_of_its_own_and_the_first_one_has_the_stateless_branch() {
        let keys = Keys::new(&SECRET, &[]);
        let mut seen = std::collections::HashSet::new();
        for number in 0..=255 {
            let branch = Branch {
                transaction: Transaction(77),
                number,
            };
            let mut text = b"SIP/2.0/UDP a;branch=".to_vec();
            branch.write(keys.current(), &mut text);
            let via = Via::parse(&text).unwrap();
            let read = Branch::of_our(&keys, &via).map(|(branch, _)| branch);
            assert_eq!(read, Some(branch));
            assert_eq!(
                via.branch().unwrap().len(),
                if number == 0 { 39 } else { 41 }
            );
            assert!(seen.insert(text));
        }
        // A number does not fit the seal of another one.
        let mut text = b"SIP/2.0/UDP a;branch=".to_vec();
        let one = Branch {
            transaction: Transaction(77),
            number: 1,
        };
        one.write(keys.current(), &mut text);
        for turned in ["02", "00"] {
            let text = String::from_utf8(text.clone()).unwrap().replacen(
                "4d01",
                &format!("4d{turned}"),
                1,
            );
            assert!(Branch::of_our(&keys, &Via::parse(text.as_bytes()).unwrap()).is_none());
        }
    }

    #[test]
    fn a_name_without_sent_by_is_shared_by_a_cancel_with_another_one() {
        let name = |method: &str, via: &str| {
            let bytes = format!(
                "{method} sip:c@d SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=f\r\nTo: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 4 {method}\r\n\r\n"
            );
            let mut index = Index::default();
            scan(
                bytes.as_bytes(),
                Framing::Datagram,
                &Limits::default(),
                &mut index,
            )
            .unwrap();
            let message = Message::new(bytes.as_bytes(), &index);
            Transaction::without_sent_by(&Key::new(&SECRET), message, &TopVia::of(message).unwrap())
        };
        let moved = |via: &str| via.replace("a.example", "b.example");
        assert_eq!(name("INVITE", COOKIE), name("CANCEL", &moved(COOKIE)));
        // Without the cookie, sent-by is one of the few things that distinguish requests.
        assert_ne!(name("INVITE", OLD), name("CANCEL", &moved(OLD)));
    }

    proptest! {
        #[test]
        fn origins_come_back_for_their_transaction_and_their_address_only(
            name: u64,
            socket: u32,
            connection: Option<u64>,
            minute: u32,
            tag: Option<NonZeroU32>,
            back_to: SocketAddr,
            other: SocketAddr,
        ) {
            let key = Key::new(&SECRET);
            let stream = |transport, id| Some(Stream { transport, connection: ConnectionId(id) });
            let origin = Origin {
                socket,
                stream: connection.and_then(|id| stream(Transport::Tls, id)),
                minute: Minute(minute),
                tag,
            };
            let mut text = b"SIP/2.0/TCP a;branch=z9hG4bKx".to_vec();
            origin.write(&key, Transaction(name), back_to, &mut text);
            let claim = Claim::of(&Via::parse(&text).unwrap()).unwrap();
            prop_assert_eq!(claim.origin, origin);
            prop_assert!(claim.holds(&key, Transaction(name), back_to));
            prop_assert!(!claim.holds(&key, Transaction(name ^ 1), back_to));
            prop_assert!(!claim.holds(&Key::new(&[8; 16]), Transaction(name), back_to));
            let is_same = (back_to.ip().to_canonical(), back_to.port()) == (other.ip().to_canonical(), other.port());
            prop_assert_eq!(claim.holds(&key, Transaction(name), other), is_same);
            for turned in [
                Origin { socket: socket ^ 1, ..origin },
                Origin { minute: Minute(minute ^ 1), ..origin },
                Origin { tag: NonZeroU32::new(tag.map_or(1, |tag| tag.get() ^ 1)), ..origin },
                Origin { stream: stream(Transport::Tls, connection.map_or(0, |id| id ^ 1)), ..origin },
                Origin { stream: stream(Transport::Tcp, connection.unwrap_or(0)), ..origin },
            ] {
                let turned = Claim { origin: turned, ..claim };
                prop_assert!(!turned.holds(&key, Transaction(name), back_to));
            }
        }
    }
}
