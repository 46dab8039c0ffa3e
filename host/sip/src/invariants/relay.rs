//! A request on its way through the proxy and its response on the way back, compared with a reading of both line by line.

mod edges;
mod lines;

use crate::arrival::{Arrival, ConnectionId, Destination, Transport};
use crate::frame::{Frame, Framer};
use crate::list::values;
use crate::name_addr::NameAddr;
use crate::proxy::{DialogSeal, DropReason, HeaderChange, Received, Target};
use crate::scan::{Framing, HeaderName, Index, Limits, Message, scan};
use crate::uri::Uri;
use crate::via::Via;
use edges::{Edge, is_ours};
use lines::Lines;

/// Narrower than the defaults, so that what a proxy adds fits into those.
const LIMITS: Limits = Limits {
    message_bytes: 60_000,
    header_lines: 200,
    header_bytes: 7_000,
    start_line_bytes: 7_000,
};

/// Relays a request, and the response to it back. Returns whether the request was relayed.
///
/// The input is a byte that chooses how the request arrives and where it goes, edits up to a zero byte, and the request; without a zero
/// byte there are no edits. An edit is a line: `+NAME: VALUE` adds a header field, `-NAME` removes those of this name. Edits that no policy
/// may make are ignored.
pub fn relay(input: &[u8]) -> bool {
    let Some((&choice, rest)) = input.split_first() else {
        return false;
    };
    let zero = rest.iter().position(|&byte| byte == 0);
    let (edits, bytes) = zero.map_or((&b""[..], rest), |at| (&rest[..at], &rest[at + 1..]));
    let edits = String::from_utf8_lossy(edits);
    let changes: Vec<_> = edits.lines().filter_map(change).collect();

    let edge = &edges::edges()[usize::from(choice & 1)];
    let arrival = arrival(edge, choice);
    let framing = framing(arrival.transport);
    let mut index = Index::default();
    let scanned = scan(bytes, framing, &LIMITS, &mut index);
    let message = Message::new(bytes, &index);
    let mut out = Vec::new();
    if edge.proxy.receive(message, scanned, &arrival, &mut out) != Received::Judge {
        return false;
    }
    let target = match choice >> 3 & 3 {
        1 => Target::NextHop("tcp"),
        2 => Target::NextHop("six"),
        _ => match edge.proxy.dialog(message) {
            DialogSeal::Valid(dialog) => Target::Within(dialog),
            DialogSeal::None | DialogSeal::Forged | DialogSeal::Expired => Target::AsRouted,
        },
    };
    let routes = &edge.routes;
    let relayed = edge
        .proxy
        .relay_changed(message, &arrival, routes, target, &changes, &mut out);
    let to = match relayed {
        Ok(to) => to,
        Err(error) => {
            assert!((400..600).contains(&error.code()) && !error.to_string().is_empty());
            return false;
        }
    };
    let way = Way {
        edge,
        arrival,
        to,
        changes: &changes,
    };
    way.there(message, &out);
    way.back(&out, choice);
    true
}

/// An edit that a policy may make.
fn change(line: &str) -> Option<HeaderChange<'_>> {
    let may_be_edited = |name: &str| {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
        let is_name = !name.is_empty() && name.bytes().all(is_token);
        is_name && HeaderName::of(name.as_bytes()).may_be_edited()
    };
    if let Some(name) = line.strip_prefix('-') {
        return may_be_edited(name).then_some(HeaderChange::Remove(name));
    }
    let (name, value) = line.strip_prefix('+')?.split_once(": ")?;
    let is_line = !value.chars().any(|c| c.is_control() && c != '\t');
    (may_be_edited(name) && is_line).then_some(HeaderChange::Add { name, value })
}

fn arrival(edge: &Edge, choice: u8) -> Arrival {
    let is_stream = choice & 2 != 0;
    let (source, local) = match choice & 4 {
        0 => ("192.0.2.10:40000", edge.local),
        _ => ("[2001:db8::10]:40000", edge.local_v6),
    };
    let source = source.parse().expect("an address");
    Arrival {
        source,
        local,
        transport: if is_stream {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        connection: is_stream.then_some(ConnectionId(7)),
    }
}

fn framing(transport: Transport) -> Framing {
    Framing::of(transport)
}

/// One request that was relayed.
struct Way<'a> {
    edge: &'a Edge,
    arrival: Arrival,
    to: Destination,
    changes: &'a [HeaderChange<'a>],
}

impl Way<'_> {
    /// What was sent is the received request with the edits, and the next hop can read it.
    fn there(&self, received: Message<'_>, sent: &[u8]) {
        let shown = || {
            format!(
                "{}\n{}",
                received.bytes().escape_ascii(),
                sent.escape_ascii()
            )
        };
        let before = Lines::of(received.bytes()).expect("what was scanned has lines");
        let after = Lines::of(sent).expect("what was sent has lines");
        assert_eq!(after.length, sent.len(), "{}", shown());
        assert_eq!(after.body, before.body, "{}", shown());
        assert_eq!(after.line_end, before.line_end);
        if let Some(length) = after.content_length() {
            assert_eq!(length, Some(after.body.len()), "{}", shown());
        }
        let is_one = Self::readings(&before).any(|reading| reading.is(self, &before, &after));
        assert!(is_one, "{}", shown());
        self.readable(sent, self.to);
        self.accepted(sent);
    }

    /// How the Routes may have changed.
    fn readings(before: &Lines<'_>) -> impl Iterator<Item = Reading> + use<> {
        let total = before.routes().count();
        let kinds = [(false, false), (true, false), (false, true), (true, true)];
        let kinds = kinds
            .into_iter()
            .filter(move |(last, _)| !last || total > 0);
        kinds.flat_map(move |(last, added)| {
            let first = usize::from(added)..=total - usize::from(last);
            first.map(move |first| Reading { first, last, added })
        })
    }

    /// The peer that gets the message can cut it out of a stream and scan it.
    fn readable(&self, sent: &[u8], to: Destination) {
        let mut index = Index::default();
        let scanned = scan(sent, framing(to.transport), &Limits::default(), &mut index);
        assert_eq!(scanned, Ok(()), "{}", sent.escape_ascii());
        assert_eq!(Message::new(sent, &index).bytes(), sent);
        if to.transport.is_reliable() || Message::new(sent, &index).content_length().is_some() {
            let mut framer = Framer::new(&Limits::default());
            framer.push(sent);
            assert_eq!(framer.next(), Ok(Frame::Message(0..sent.len())));
        }
    }

    /// Another proxy accepts the request; only further hops may be used up, and extensions may be required that it does not have.
    fn accepted(&self, sent: &[u8]) {
        let mut index = Index::default();
        let framing = framing(self.to.transport);
        let scanned = scan(sent, framing, &Limits::default(), &mut index);
        let message = Message::new(sent, &index);
        let arrival = Arrival {
            source: self.to.from.expect("a socket that it is sent from"),
            local: self.to.addr,
            transport: self.to.transport,
            connection: self.to.connection,
        };
        let mut out = Vec::new();
        let received = edges::next_hop().receive(message, scanned, &arrival, &mut out);
        let is_accepted = match received {
            Received::Judge | Received::Absorbed => true,
            Received::Reply(_) => ["200", "420", "483"]
                .iter()
                .any(|code| out.starts_with(format!("SIP/2.0 {code} ").as_bytes())),
            Received::Drop(reason) => {
                reason == DropReason::BadAck && message.max_forwards() == Some(0)
            }
            Received::Forward(_) => false,
        };
        assert!(
            is_accepted,
            "{received:?}: {}\n{}",
            sent.escape_ascii(),
            out.escape_ascii()
        );
    }

    /// The response to what was sent goes back without our Via and otherwise as it came.
    fn back(&self, sent: &[u8], choice: u8) {
        let request = Lines::of(sent).expect("what was sent has lines");
        let lacks_length = choice & 0x40 != 0 && !self.to.transport.is_reliable();
        let shares_line = choice & 0x20 != 0;
        let (response, expected) = answer(&request, lacks_length, shares_line);
        let arrival = Arrival {
            source: self.to.addr,
            local: self.to.from.expect("a socket that it is sent from"),
            transport: self.to.transport,
            connection: self.to.transport.is_reliable().then_some(ConnectionId(9)),
        };
        let mut index = Index::default();
        let framing = framing(arrival.transport);
        let scanned = scan(&response, framing, &Limits::default(), &mut index);
        let message = Message::new(&response, &index);
        let mut out = Vec::new();
        let received = self
            .edge
            .proxy
            .receive(message, scanned, &arrival, &mut out);
        let back = match received {
            Received::Forward(back) => back,
            // The caller wants responses where nothing may be sent.
            Received::Drop(DropReason::NoWayBack) => return,
            Received::Judge | Received::Reply(_) | Received::Absorbed | Received::Drop(_) => {
                panic!("{received:?}: {}", response.escape_ascii())
            }
        };
        let is_added = self.arrival.transport.is_reliable() && message.content_length().is_none();
        assert_eq!(
            out.escape_ascii().to_string(),
            expected(is_added).escape_ascii().to_string()
        );
        assert_eq!(back.transport, self.arrival.transport);
        assert_eq!(back.connection, self.arrival.connection);
        assert_eq!(back.from, Some(self.arrival.local));
        self.readable(&out, back);
    }
}

/// The response that answers what was sent, and what of it goes back, with a Content-Length or without.
fn answer(
    request: &Lines<'_>,
    lacks_length: bool,
    shares_line: bool,
) -> (Vec<u8>, impl Fn(bool) -> Vec<u8>) {
    let end = request.line_end;
    let stays = |line: &&&[u8]| match &lines::name(line)[..] {
        b"max-forwards" | b"route" => false,
        b"content-length" => !lacks_length,
        _ => true,
    };
    let fields: Vec<&[u8]> = request.fields.iter().filter(stays).copied().collect();
    let body = request.body;
    let start = [b"SIP/2.0 200 OK", end].concat();
    let (ours, others) = fields.split_first().expect("our Via is there");
    // The Vias as they came, or ours in front of the next one on the same line.
    let shared = others.first().filter(|_| shares_line);
    let shared = shared.filter(|line| lines::name(line) == b"via");
    let top = match shared {
        Some(line) => {
            let ours = ours.strip_suffix(end).expect("a line ends");
            [ours, b",", lines::behind_colon(line)].concat()
        }
        None => [*ours, others.first().copied().unwrap_or_default()].concat(),
    };
    let next = match shared {
        // The name of our line, and the value that is first now.
        Some(line) => [b"Via: ", &line[lines::place(line).start..]].concat(),
        None => others.first().copied().unwrap_or_default().to_vec(),
    };
    let rest = others.get(1..).unwrap_or_default().concat();
    let response = [&start[..], &top, &rest, end, body].concat();
    let (end, body) = (end.to_vec(), body.to_vec());
    let expected = move |with_length: bool| {
        let length = match with_length {
            true => [format!("Content-Length: {}", body.len()).as_bytes(), &end].concat(),
            false => Vec::new(),
        };
        [&start[..], &next, &rest, &length, &end, &body].concat()
    };
    (response, expected)
}

/// How many Route values were removed and added.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// In front.
    first: usize,
    /// Whether the last one.
    last: bool,
    /// Whether one was added behind the others.
    added: bool,
}

impl Reading {
    /// Whether what was sent is what was received with the edits of a proxy and this change of the Routes.
    fn is(self, way: &Way<'_>, before: &Lines<'_>, after: &Lines<'_>) -> bool {
        let mut expected = Vec::new();
        let mut number = 0;
        let mut vias = 0;
        for line in &before.fields {
            let name = lines::name(line);
            if way.removes(&name) {
                continue;
            }
            match &name[..] {
                b"via" => {
                    vias += 1;
                    expected.push(match vias {
                        1 => way.with_source(line),
                        _ => line.to_vec(),
                    });
                }
                b"max-forwards" => match one_hop_less(line) {
                    Some(line) => expected.push(line),
                    None => return false,
                },
                b"route" => {
                    let total = before.routes().count();
                    let stays = self.first..total - usize::from(self.last);
                    expected.extend(route_line(line, &mut number, stays));
                }
                _ => expected.push(line.to_vec()),
            }
        }
        for change in way.changes {
            if let HeaderChange::Add { name, value } = change {
                expected.push([format!("{name}: {value}").as_bytes(), before.line_end].concat());
            }
        }
        if self.added {
            let route = [b"Route: <", before.uri(), b">", before.line_end].concat();
            let strict = before.routes().last().map(uri_of);
            let strict = strict.map(|uri| [b"Route: <", uri, b">", before.line_end].concat());
            expected.push(if self.last {
                strict.unwrap_or_default()
            } else {
                route
            });
        }
        if way.to.transport.is_reliable() && before.content_length().is_none() {
            let length = format!("Content-Length: {}", before.body.len());
            expected.push([length.as_bytes(), before.line_end].concat());
        }
        let Some(added) = after.fields.len().checked_sub(expected.len()) else {
            return false;
        };
        let (head, rest) = after.fields.split_at(added);
        *rest == expected[..]
            && way.is_head(head, before)
            && self.explains_start(before, after)
            && self.explains_routes(before, after)
    }

    /// The start line differs in the request URI only, and in that only for the sake of Routes or of an `maddr` of ours.
    fn explains_start(self, before: &Lines<'_>, after: &Lines<'_>) -> bool {
        let (method, version) = (before.method(), before.version());
        if method != after.method() || version != after.version() {
            return false;
        }
        let (old, new) = (before.uri(), after.uri());
        let mut values = before.routes();
        match (self.added, self.last) {
            (true, _) => self
                .first
                .checked_sub(1)
                .and_then(|strict| values.nth(strict))
                .is_some_and(|value| uri_of(value) == new),
            (false, true) => values.last().is_some_and(|value| uri_of(value) == new),
            (false, false) => {
                let has_maddr = old
                    .windows(5)
                    .any(|word| word.eq_ignore_ascii_case(b"maddr"));
                old == new || (has_maddr && is_with_cuts(old, new))
            }
        }
    }

    /// Only values that name us were removed, and one that is the request URI now.
    fn explains_routes(self, before: &Lines<'_>, after: &Lines<'_>) -> bool {
        let values: Vec<_> = before.routes().collect();
        let ours = self.first - usize::from(self.added);
        let names_us = |uri: &[u8]| Uri::parse(uri).is_ok_and(|uri| is_ours(uri.host));
        let are_ours = values[..ours].iter().all(|value| names_us(uri_of(value)));
        let is_strict = !self.added || uri_of(values[ours]) == after.uri();
        let is_swapped = !self.last || names_us(before.uri());
        are_ours && is_strict && is_swapped
    }
}

impl Way<'_> {
    fn removes(&self, name: &[u8]) -> bool {
        self.changes.iter().any(|change| match change {
            HeaderChange::Remove(removed) => lines::full(removed.as_bytes()) == name,
            HeaderChange::Add { .. } => false,
        })
    }

    /// The first line of Via with the source of the request (RFC 3261 §18.2.1, RFC 3581 §4).
    fn with_source(&self, line: &[u8]) -> Vec<u8> {
        let value_at = lines::place(line).start;
        let via = Via::parse(lines::value(line)).expect("a Via that can be read");
        let is_forced = self.edge.forces_rport && !self.arrival.transport.is_reliable();
        let source = self.arrival.source;
        let ip = source.ip();
        let is_symmetric = is_forced || via.rport_range().is_some();
        let is_said = via.host.ip().is_some_and(|said| said.to_canonical() == ip);
        let at_end = via.range.end..via.range.end;
        let rport = via
            .rport_range()
            .or_else(|| is_forced.then(|| at_end.clone()));
        let rport = rport.map(|place| (place, format!(";rport={}", source.port())));
        let received = via
            .received_range()
            .or_else(|| (is_symmetric || !is_said).then_some(at_end));
        let received = received.map(|place| (place, format!(";received={ip}")));
        let mut edits: Vec<_> = rport.into_iter().chain(received).collect();
        edits.sort_by_key(|(place, _)| place.start);
        let mut line = line.to_vec();
        for (place, text) in edits.into_iter().rev() {
            line.splice(value_at + place.start..value_at + place.end, text.bytes());
        }
        line
    }

    /// What a proxy adds in front: its Via, Record-Route, and Max-Forwards where there was none.
    fn is_head(&self, head: &[&[u8]], before: &Lines<'_>) -> bool {
        let Some((via, mut others)) = head.split_first() else {
            return false;
        };
        let own = format!("Via: SIP/2.0/{} ", self.to.transport);
        let value = lines::value(via);
        let is_via = via.starts_with(own.as_bytes())
            && via.ends_with(before.line_end)
            && values(value).count() == 1
            && Via::parse(value).is_ok_and(|via| {
                is_ours(via.host) && via.rfc3261_branch().is_some_and(|branch| branch.len() > 7)
            });
        let counts_hops = before.named(b"max-forwards").next().is_none();
        if counts_hops {
            let expected = [b"Max-Forwards: 70", before.line_end].concat();
            match others.split_last() {
                Some((last, first)) if *last == &expected[..] => others = first,
                _ => return false,
            }
        }
        let has_flow = self.edge.has_clients || self.to.is_flow;
        if self.edge.has_clients && before.method() == b"REGISTER" {
            let Some((token, before_it)) = others.split_last() else {
                return false;
            };
            let is_path = |line: &[u8], start: &[u8]| self.is_own_value(line, start, before);
            return is_via
                && before_it.len() <= 1
                && before_it.iter().all(|line| is_path(line, b"Path: <sip:"))
                && is_path(token, b"Path: <sip:flow-");
        }
        let may_start_dialog = (self.edge.record_routes || has_flow)
            && matches!(
                before.method(),
                b"INVITE" | b"SUBSCRIBE" | b"REFER" | b"NOTIFY"
            );
        let mut record_routes = others.iter();
        let are_record_routes =
            record_routes.all(|line| self.is_own_value(line, b"Record-Route: <sip:", before));
        is_via && others.len() <= 2 && (may_start_dialog || others.is_empty()) && are_record_routes
    }

    /// Whether a line begins so and has one value, a URI of the proxy.
    fn is_own_value(&self, line: &[u8], start: &[u8], before: &Lines<'_>) -> bool {
        let value = lines::value(line);
        line.starts_with(start)
            && line.ends_with(before.line_end)
            && values(value).count() == 1
            && Uri::parse(uri_of(value)).is_ok_and(|uri| is_ours(uri.host))
    }
}

/// The URI of a Route value that can be read.
fn uri_of(value: &[u8]) -> &[u8] {
    NameAddr::parse(value).map_or(&b""[..], |address| address.uri)
}

/// Max-Forwards lowered: the number alone changes. A number beyond 255 becomes 70.
fn one_hop_less(line: &[u8]) -> Option<Vec<u8>> {
    let number = std::str::from_utf8(lines::value(line)).ok()?;
    let hops = match number.parse::<u64>().ok()? {
        0 => return None,
        hops @ 1..=255 => hops - 1,
        _ => 70,
    };
    let place = lines::place(line);
    Some(
        [
            &line[..place.start],
            hops.to_string().as_bytes(),
            &line[place.end..],
        ]
        .concat(),
    )
}

/// A Route line without the values that do not stay; `None` if none does. `number` counts the values of all lines.
fn route_line(line: &[u8], number: &mut usize, stays: std::ops::Range<usize>) -> Option<Vec<u8>> {
    let value = lines::value(line);
    let base = lines::place(line).start;
    let all: Vec<_> = values(value).map(|value| value.range).collect();
    let own = *number..*number + all.len();
    *number = own.end;
    if all.is_empty() {
        return Some(line.to_vec());
    }
    let kept = stays.start.max(own.start)..stays.end.min(own.end);
    if kept.is_empty() {
        return None;
    }
    let (first, last) = (&all[kept.start - own.start], &all[kept.end - own.start - 1]);
    let (front, end) = (&all[0], &all[all.len() - 1]);
    Some(
        [
            &line[..base + front.start],
            &value[first.start..last.end],
            &line[base + end.end..],
        ]
        .concat(),
    )
}

/// Whether the bytes of `new` are those of `old` with some left out.
fn is_with_cuts(old: &[u8], new: &[u8]) -> bool {
    let mut rest = old.iter();
    new.iter().all(|byte| rest.any(|other| other == byte))
}

#[cfg(test)]
mod tests;
