//! The branch that this host writes into its Via, and how it is verified when a response brings it back.
//!
//! A branch is `z9hG4bK`, 16 digits that name the transaction, and 16 digits that seal them:
//! - The name is a keyed hash of the values that a retransmission, a CANCEL and an ACK to a failure share with their request
//!   (RFC 3261 §16.11), so all of them get the same branch without state, even over another connection.
//! - The seal is a keyed hash of the name. A response whose branch has no valid seal is unsolicited.
//!
//! A Via parameter `i=SOCKET-CONNECTION-MINUTE-SEAL` records where and when the request came in. Its seal is a keyed hash of these
//! values, the transaction, and the address that the response goes to, which the next Via names. An observer of a branch can
//! therefore send responses only to the source of the request, and only for a limited time. The parameter is not part of the
//! branch: the CANCEL of a request must have the branch of the request, wherever and whenever it arrives.

use std::net::SocketAddr;

use super::identity::Identity;
use super::minute::Minute;
use crate::arrival::{Arrival, ConnectionId};
use crate::edit::{
    HEX_DIGITS, read_hex, read_short_hex, write_decimal, write_hex, write_short_hex,
};
use crate::key::{Key, Keys, Request};
use crate::name_addr::NameAddr;
use crate::scan::{HeaderName, Message, StartLine};
use crate::top_via::TopVia;
use crate::via::{MAGIC_COOKIE, Via};

/// The name of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transaction(u64);

/// The socket and time at which a request arrived, as its response reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// Number of the socket; larger than every number in use if the socket is unknown.
    pub(super) socket: u32,
    /// The stream; `None` for a datagram.
    pub(super) connection: Option<ConnectionId>,
    /// Time of arrival.
    pub(super) minute: Minute,
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
        // A bare cookie identifies nothing (RFC 4475 §3.2.1).
        let is_new = branch.len() > MAGIC_COOKIE.len() && top.via.rfc3261_branch().is_some();
        let StartLine::Request { method, uri, .. } = message.start_line() else {
            return name(&[branch, call_id]);
        };
        if is_new {
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

    /// The transaction of a branch that this host wrote, and the key of its seal; `None` for any other branch.
    pub(super) fn of_our<'k>(keys: &'k Keys, via: &Via<'_>) -> Option<(Self, &'k Key)> {
        let digits = via.rfc3261_branch()?.get(MAGIC_COOKIE.len()..)?;
        let (name, seal) = digits.split_at_checked(HEX_DIGITS)?;
        let transaction = Self(read_hex(name)?);
        let seal = read_hex(seal)?;
        let key = keys.all().find(|key| transaction.seal(key) == seal)?;
        Some((transaction, key))
    }

    /// Writes the branch.
    pub(super) fn write(self, key: &Key, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC_COOKIE);
        write_hex(self.0, out);
        write_hex(self.seal(key), out);
    }

    fn seal(self, key: &Key) -> u64 {
        key.seal(self.0)
    }
}

impl Origin {
    /// The origin of a request, for its response.
    pub(super) fn of(identity: &Identity, arrival: &Arrival, minute: Minute) -> Self {
        let place = identity.place_of(arrival.transport, arrival.local);
        Self {
            socket: place.map_or(u32::MAX, |(number, _)| number as u32),
            connection: arrival.connection,
            minute,
        }
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
        if let Some(connection) = self.connection {
            write_hex(connection.0, out);
        }
        out.push(b'-');
        write_short_hex(self.minute.0, out);
        out.push(b'-');
        write_hex(self.seal(key, transaction, back_to), out);
    }

    fn seal(self, key: &Key, transaction: Transaction, back_to: SocketAddr) -> u64 {
        let (is_stream, connection) = match self.connection {
            Some(connection) => (1, connection.0),
            None => (0, 0),
        };
        let place = u64::from(self.socket) << 32 | is_stream;
        let numbers = [transaction.0, place, connection, self.minute.0.into()];
        key.origin(numbers, back_to)
    }
}

impl Claim {
    /// Parses the output of [`Origin::write`]; `None` for anything else.
    pub(super) fn of(via: &Via<'_>) -> Option<Self> {
        let value = via.params.named("i")?.value?;
        let mut parts = value.split(|&byte| byte == b'-');
        let (socket, connection) = (parts.next()?, parts.next()?);
        let (minute, seal) = (parts.next()?, parts.next()?);
        let origin = Origin {
            socket: crate::cseq::number(socket, u32::MAX)?,
            connection: match connection {
                b"" => None,
                digits => Some(ConnectionId(read_hex(digits)?)),
            },
            minute: Minute(read_short_hex(minute)?),
        };
        let seal = read_hex(seal)?;
        parts.next().is_none().then_some(Self { origin, seal })
    }

    /// Whether its seal is valid for this transaction and for responses to `back_to`.
    pub(super) fn holds(&self, key: &Key, transaction: Transaction, back_to: SocketAddr) -> bool {
        self.origin.seal(key, transaction, back_to) == self.seal
    }
}

/// The To-tag of our own replies to a request: the same for each retransmission and for the ACK, which has the request's top
/// Via, Call-ID and CSeq number (RFC 3261 §17.1.1.3).
pub(super) fn own_tag(key: &Key, message: Message<'_>, top: &TopVia<'_>) -> u64 {
    let branch = top.via.branch().unwrap_or_default();
    let call_id = value(message, HeaderName::CallId);
    key.tag(&request(message, top, &[branch, call_id]))
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
        Transaction(5).write(&key, &mut branch);
        let branch = String::from_utf8(branch).unwrap();
        let read = |keys: &Keys, branch: &str| {
            let via = format!("SIP/2.0/UDP a;branch={branch}");
            let read = Transaction::of_our(keys, &Via::parse(via.as_bytes()).unwrap());
            read.map(|(transaction, _)| transaction)
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

    proptest! {
        #[test]
        fn origins_come_back_for_their_transaction_and_their_address_only(
            name: u64,
            socket: u32,
            connection: Option<u64>,
            minute: u32,
            back_to: SocketAddr,
            other: SocketAddr,
        ) {
            let key = Key::new(&SECRET);
            let connection = connection.map(ConnectionId);
            let origin = Origin { socket, connection, minute: Minute(minute) };
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
                Origin { connection: Some(ConnectionId(connection.map_or(0, |id| id.0 ^ 1))), ..origin },
            ] {
                let turned = Claim { origin: turned, ..claim };
                prop_assert!(!turned.holds(&key, Transaction(name), back_to));
            }
        }
    }
}
