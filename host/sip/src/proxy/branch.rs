//! The branch that this host writes into its Via, and what it tells when a response brings it back.
//!
//! A branch is `z9hG4bK`, 16 digits that name the transaction, and 16 digits that seal them:
//! - The name is a keyed hash of what a retransmission, a CANCEL and an ACK to a failure share with their request
//!   (RFC 3261 §16.11), so all of them get the same branch without any memory, also when they come over another connection.
//! - The seal is a keyed hash of the name. A response whose branch is not sealed was not asked for.
//!
//! Where a response can't find its way back by the next Via alone, since the request came over a stream or to another socket
//! than it was sent from, a Via parameter `i=SOCKET-CONNECTION-SEAL` says where. It is no part of the branch: the CANCEL of a
//! request must have the branch of the request, wherever it comes from.

use super::identity::Identity;
use super::top_via::TopVia;
use crate::arrival::{Arrival, ConnectionId};
use crate::edit::{HEX_DIGITS, read_hex, write_decimal, write_hex};
use crate::key::{Key, Request};
use crate::name_addr::NameAddr;
use crate::scan::{HeaderName, Message, StartLine};
use crate::via::{MAGIC_COOKIE, Via};

/// The name of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transaction(u64);

/// Where a request came in, as its response is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The number of the socket; above all numbers if the socket is unknown.
    pub(super) socket: u32,
    /// The stream.
    pub(super) connection: Option<ConnectionId>,
}

impl Transaction {
    /// The transaction of a request, in the way of RFC 3261 §16.11: of a branch with the magic cookie; without one, of what
    /// RFC 2543 tells transactions by. Sent-by, Call-ID and CSeq number are in both, so that a client with poor random numbers
    /// disturbs nobody else.
    pub(super) fn of(key: &Key, message: Message<'_>, top: &TopVia<'_>) -> Self {
        let name = |fields: &[&[u8]]| Self(key.branch(&request(message, top, fields)));
        let branch = top.via.branch().unwrap_or_default();
        let call_id = value(message, HeaderName::CallId);
        // A bare cookie names nothing (RFC 4475 §3.2.1).
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

    /// The transaction of a branch that this host wrote; none for any other branch.
    pub(super) fn of_our(key: &Key, via: &Via<'_>) -> Option<Self> {
        let digits = via.rfc3261_branch()?.get(MAGIC_COOKIE.len()..)?;
        let (name, seal) = digits.split_at_checked(HEX_DIGITS)?;
        let transaction = Self(read_hex(name)?);
        (read_hex(seal)? == transaction.seal(key)).then_some(transaction)
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
    /// What the response to a request needs to be told; none where the next Via says everything.
    pub(super) fn of(
        identity: &Identity,
        arrival: &Arrival,
        sent_from: std::net::SocketAddr,
    ) -> Option<Self> {
        if arrival.connection.is_none() && arrival.local == sent_from {
            return None;
        }
        let place = identity.place_of(arrival.transport, arrival.local);
        Some(Self {
            socket: place.map_or(u32::MAX, |(number, _)| number as u32),
            connection: arrival.connection,
        })
    }

    /// Reads what [`Origin::write`] wrote for this transaction.
    pub(super) fn of_our(key: &Key, via: &Via<'_>, transaction: Transaction) -> Option<Self> {
        let value = via.params.named("i")?.value?;
        let mut parts = value.split(|&byte| byte == b'-');
        let (socket, connection, seal) = (parts.next()?, parts.next()?, parts.next()?);
        let origin = Self {
            socket: crate::cseq::number(socket, u32::MAX)?,
            connection: match connection {
                b"" => None,
                digits => Some(ConnectionId(read_hex(digits)?)),
            },
        };
        (parts.next().is_none() && read_hex(seal)? == origin.seal(key, transaction))
            .then_some(origin)
    }

    /// Writes the Via parameter.
    pub(super) fn write(self, key: &Key, transaction: Transaction, out: &mut Vec<u8>) {
        out.extend_from_slice(b";i=");
        write_decimal(self.socket, out);
        out.push(b'-');
        if let Some(connection) = self.connection {
            write_hex(connection.0, out);
        }
        out.push(b'-');
        write_hex(self.seal(key, transaction), out);
    }

    fn seal(self, key: &Key, transaction: Transaction) -> u64 {
        let (is_stream, connection) = match self.connection {
            Some(connection) => (1, connection.0),
            None => (0, 0),
        };
        key.origin([transaction.0, self.socket.into(), is_stream, connection])
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
        let read = |key: &Key, branch: &str| {
            let via = format!("SIP/2.0/UDP a;branch={branch}");
            Transaction::of_our(key, &Via::parse(via.as_bytes()).unwrap())
        };
        assert_eq!(read(&key, &branch), Some(Transaction(5)));
        assert_eq!(
            read(&key, &branch.to_ascii_uppercase()),
            Some(Transaction(5))
        );
        assert_eq!(read(&Key::new(&[8; 16]), &branch), None);
        assert_eq!(read(&key, &branch.replacen('5', "6", 1)), None);
        for other in ["z9hG4bK", "z9hG4bKshort", "1", &format!("{branch}0")] {
            assert_eq!(read(&key, other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn origins_come_back_for_their_transaction_only(name: u64, socket: u32, connection: Option<u64>) {
            let key = Key::new(&SECRET);
            let origin = Origin { socket, connection: connection.map(ConnectionId) };
            let mut text = b"SIP/2.0/TCP a;branch=z9hG4bKx".to_vec();
            origin.write(&key, Transaction(name), &mut text);
            let via = Via::parse(&text).unwrap();
            prop_assert_eq!(Origin::of_our(&key, &via, Transaction(name)), Some(origin));
            prop_assert_eq!(Origin::of_our(&key, &via, Transaction(name ^ 1)), None);
        }
    }
}
