//! What strangers do: passes evidence to the guard, and drops what it does not accept. Whoever is in the address table, a next hop or an exempt
//! network is no stranger; the tables are asked only when there is enough evidence.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use portcullis_guard::{Admission, Evidence, Guard, Kind, Proof, Reason};
use portcullis_metrics::{Label, Lost, Method};
use portcullis_policy::Offence;
use portcullis_sip::{
    Arrival, Destination, DialogSeal, HeaderName, Message, NameAddr, ScanError, StartLine,
    Transport, Uri,
};

use super::fate::code_of;
use super::reporter::{Loss, Reporter};
use crate::shared::Shared;

/// What strangers do, as far as one worker sees it.
#[derive(Clone)]
pub(super) struct Strangers {
    shared: Arc<Shared>,
    number: usize,
    reporter: Reporter,
}

/// What a relayed request of a stranger says about its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    source: IpAddr,
    proof: Proof,
    /// The user in To.
    to: u64,
    /// The user in From.
    from: u64,
    has_credentials: bool,
    /// Whether it is a REGISTER or an INVITE.
    makes_known: bool,
}

/// What a final status code says about the sender of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The request, or its user, was refused.
    Refusal,
    /// Credentials are required, or wrong.
    Challenge,
    Success,
    Other,
}

impl Answer {
    fn of(code: u16) -> Self {
        match code {
            200..300 => Self::Success,
            401 | 407 => Self::Challenge,
            403 | 404 | 410 | 484 | 485 | 604 => Self::Refusal,
            _ => Self::Other,
        }
    }
}

impl Strangers {
    /// The strangers of the worker with this number.
    pub(super) fn new(shared: Arc<Shared>, number: usize, reporter: Reporter) -> Self {
        Self {
            shared,
            number,
            reporter,
        }
    }

    /// Whether a message is accepted, before it is parsed. A banned peer loses its connection.
    #[inline]
    pub(super) fn admits(&self, bytes: &[u8], arrival: &Arrival) -> bool {
        let Some(guard) = self.guard_for(arrival.source.ip()) else {
            return true;
        };
        match guard.admit(arrival.source.ip(), Instant::now()) {
            Admission::Pass => true,
            Admission::Banned(_) => self.drop_banned(guard, bytes, arrival),
            Admission::Excess => self.drop_excess(guard, bytes, arrival),
        }
    }

    /// Drops a message of a banned source, unless it has become exempt meanwhile. Returns whether it is accepted.
    #[cold]
    fn drop_banned(&self, guard: &Guard, bytes: &[u8], arrival: &Arrival) -> bool {
        if self.is_exempt(guard, arrival.source.ip()) == Some(true) {
            guard.forget(arrival.source.ip());
            return true;
        }
        self.lose(Lost::Banned, bytes, arrival, "the source is banned");
        self.close(arrival);
        false
    }

    /// The same for a message above the rate. Over a stream, its source is banned.
    #[cold]
    fn drop_excess(&self, guard: &Guard, bytes: &[u8], arrival: &Arrival) -> bool {
        let source = arrival.source.ip();
        match self.is_exempt(guard, source) {
            Some(true) => {
                guard.forget(source);
                return true;
            }
            Some(false) if proof_of(arrival.transport) == Proof::Stream => {
                self.bar(guard, source, Kind::Banned, Reason::Flood);
                self.close(arrival);
            }
            Some(false) | None => {}
        }
        let detail = "the source is above `rate` in [guard]";
        self.lose(Lost::Flood, bytes, arrival, detail);
        false
    }

    /// Whether a connection of this peer is closed at once. Counts it.
    pub(super) fn refuses_peer(&self, peer: SocketAddr) -> bool {
        let Some(guard) = self.guard_for(peer.ip()) else {
            return false;
        };
        if !guard.is_barred(peer.ip(), Kind::Banned, Instant::now()) {
            return false;
        }
        if self.is_exempt(guard, peer.ip()) == Some(true) {
            guard.forget(peer.ip());
            return false;
        }
        guard.count_dropped(peer.ip());
        self.shared.counters[self.number].lost.inc(Lost::Banned);
        true
    }

    /// Whether a request, or its response, is kept back because its source is held. Counts it.
    #[inline]
    pub(super) fn keeps_back(&self, message: Message<'_>, arrival: &Arrival) -> bool {
        let ip = arrival.source.ip();
        if arrival.transport.is_reliable() {
            return false;
        }
        let Some(guard) = self.guard_for(ip) else {
            return false;
        };
        let now = Instant::now();
        guard.is_barred(ip, Kind::Held, now)
            && self.keeps_back_of_held(guard, message, arrival, now)
    }

    #[cold]
    fn keeps_back_of_held(
        &self,
        guard: &Guard,
        message: Message<'_>,
        arrival: &Arrival,
        now: Instant,
    ) -> bool {
        let ip = arrival.source.ip();
        if self.is_exempt(guard, ip) == Some(true) {
            guard.forget(ip);
            return false;
        }
        let answers = || {
            let answers = nonce_in(message).is_some_and(|nonce| guard.take_nonce(ip, nonce, now));
            if answers {
                guard.note_answer(ip, call_of(message), now);
            }
            answers
        };
        let is_proved = matches!(self.shared.proxy.dialog(message), DialogSeal::Valid(_))
            || answers()
            || user_in(message, HeaderName::From)
                .is_some_and(|name| guard.knows_user(ip, guard.user(name), now));
        if is_proved || guard.take_held(ip, now) {
            return false;
        }
        guard.count_dropped(ip);
        self.shared.counters[self.number].lost.inc(Lost::Held);
        true
    }

    /// Notes the result of the first look: a message that cannot be parsed, violates a rule, or has an unknown method.
    #[inline]
    pub(super) fn looked(
        &self,
        scanned: Result<(), ScanError>,
        message: Message<'_>,
        reply: Option<&[u8]>,
        arrival: &Arrival,
    ) {
        let is_malformed = scanned.is_err()
            || reply.is_some_and(|reply| matches!(code_of(reply), 400 | 414 | 416 | 505 | 513))
            || matches!(message.start_line(), StartLine::Request { method, .. } if Method::of(method) == Method::Other);
        if is_malformed {
            self.note(arrival.source.ip(), arrival.transport, |_| {
                Evidence::Malformed
            });
        }
    }

    /// Notes a rejection by a policy or by the host.
    #[inline]
    pub(super) fn rejected<H: AsRef<str>>(
        &self,
        code: u16,
        headers: &[(H, H)],
        message: Message<'_>,
        arrival: &Arrival,
    ) {
        let is_challenge = |name: &str| {
            name.eq_ignore_ascii_case("WWW-Authenticate")
                || name.eq_ignore_ascii_case("Proxy-Authenticate")
        };
        let has_challenge = || headers.iter().any(|(name, _)| is_challenge(name.as_ref()));
        let is_invite = || {
            let line = message.start_line();
            matches!(line, StartLine::Request { method, .. } if method == b"INVITE")
        };
        match Answer::of(code) {
            Answer::Challenge if has_challenge() => {
                self.note(arrival.source.ip(), arrival.transport, |_| {
                    Evidence::Challenge
                });
            }
            Answer::Refusal | Answer::Challenge => {
                self.note(arrival.source.ip(), arrival.transport, |guard| {
                    let user = hash_of(guard, message, HeaderName::To);
                    match is_invite() {
                        true => Evidence::RefusedInvite(user),
                        false => Evidence::Refusal(user),
                    }
                });
            }
            Answer::Success | Answer::Other => {}
        }
    }

    /// Notes what a policy reports of the sender of a request.
    pub(super) fn reported(&self, offence: Offence, message: Message<'_>, arrival: &Arrival) {
        self.note(
            arrival.source.ip(),
            arrival.transport,
            |guard| match offence {
                Offence::Guess => Evidence::Refusal(hash_of(guard, message, HeaderName::To)),
                Offence::Scan => Evidence::Malformed,
            },
        );
    }

    /// What a request that is relayed in a transaction says about its sender; `None` if that is no stranger.
    #[inline]
    pub(super) fn asked(&self, message: Message<'_>, arrival: &Arrival) -> Option<Asked> {
        let guard = self.guard_for(arrival.source.ip())?;
        let line = message.start_line();
        let makes_known = matches!(line, StartLine::Request { method, .. } if matches!(method, b"REGISTER" | b"INVITE"));
        Some(Asked {
            source: arrival.source.ip(),
            proof: proof_of(arrival.transport),
            to: hash_of(guard, message, HeaderName::To),
            from: hash_of(guard, message, HeaderName::From),
            has_credentials: credentials(message).next().is_some(),
            makes_known,
        })
    }

    /// Notes the final response of a target to such a request.
    pub(super) fn answered(&self, asked: &Asked, code: u16) {
        let Some(guard) = self.guard_for(asked.source) else {
            return;
        };
        let now = Instant::now();
        let evidence = match Answer::of(code) {
            Answer::Refusal => Evidence::Refusal(asked.to),
            Answer::Challenge => Evidence::Challenge,
            Answer::Success => {
                if asked.makes_known {
                    guard.note_user(asked.source, asked.from, now);
                }
                if !asked.has_credentials {
                    return;
                }
                Evidence::Success
            }
            Answer::Other => return,
        };
        if let Some(reason) = guard.note(asked.source, evidence, now) {
            self.judge(guard, asked.source, asked.proof, reason);
        }
    }

    /// Notes a response that is relayed without a transaction. Whether its request had credentials is not known: a success counts as one
    /// with credentials.
    #[inline]
    pub(super) fn returned(&self, response: Message<'_>, to: &Destination) {
        let StartLine::Response { code, .. } = response.start_line() else {
            return;
        };
        let Some(guard) = self.guard_for(to.addr.ip()) else {
            return;
        };
        let asked = Asked {
            source: to.addr.ip(),
            proof: proof_of(to.transport),
            to: hash_of(guard, response, HeaderName::To),
            from: hash_of(guard, response, HeaderName::From),
            has_credentials: true,
            makes_known: response
                .cseq()
                .is_some_and(|cseq| matches!(cseq.method, b"REGISTER" | b"INVITE")),
        };
        self.answered(&asked, code);
        self.challenged(response.bytes(), to);
    }

    /// Remembers the challenge in a response that is sent to a stranger over UDP.
    #[inline]
    pub(super) fn challenged(&self, response: &[u8], to: &Destination) {
        if to.transport.is_reliable() || Answer::of(code_of(response)) != Answer::Challenge {
            return;
        }
        let (ip, now) = (to.addr.ip(), Instant::now());
        if let Some(guard) = self.guard_for(ip)
            && let Some(nonce) = nonce_of(response)
            && !guard.is_answer(ip, call_in(response), now)
        {
            guard.note_nonce(ip, nonce, now);
        }
    }

    /// Notes that a source over UDP has acknowledged a rejection of the host, with the host's tag.
    pub(super) fn acknowledged(&self, source: SocketAddr) {
        if let Some(guard) = self.guard_for(source.ip())
            && let Some(reason) = guard.confirm(source.ip(), Instant::now())
        {
            // The source has received what it acknowledges.
            self.judge(guard, source.ip(), Proof::Stream, reason);
        }
    }

    #[inline]
    fn note(
        &self,
        source: IpAddr,
        transport: Transport,
        evidence: impl FnOnce(&Guard) -> Evidence,
    ) {
        let Some(guard) = self.guard_for(source) else {
            return;
        };
        if let Some(reason) = guard.note(source, evidence(guard), Instant::now()) {
            self.judge(guard, source, proof_of(transport), reason);
        }
    }

    /// Holds or bans a source with enough evidence, unless it is exempt. If that cannot be checked now, the next evidence will do.
    #[cold]
    fn judge(&self, guard: &Guard, source: IpAddr, proof: Proof, reason: Reason) {
        let kind = match proof {
            Proof::Datagram => Kind::Held,
            Proof::Stream => Kind::Banned,
        };
        if !guard.is_barred(source, kind, Instant::now()) {
            match self.is_exempt(guard, source) {
                Some(false) => {}
                Some(true) => return guard.forget(source),
                None => return,
            }
        }
        self.bar(guard, source, kind, reason);
    }

    fn bar(&self, guard: &Guard, source: IpAddr, kind: Kind, reason: Reason) {
        if !guard.bar(source, kind, reason, Instant::now()) {
            return;
        }
        let counters = &self.shared.counters[self.number].guard;
        match kind {
            Kind::Held => counters.held.inc(reason),
            Kind::Banned => counters.banned.inc(reason),
        }
    }

    /// The guard, if this address is neither in an exempt network nor that of a load balancer, from which all its clients come.
    #[inline]
    fn guard_for(&self, ip: IpAddr) -> Option<&Guard> {
        let guard = self.shared.guard.as_ref()?;
        let config = &self.shared.config;
        let is_exempt = config.guard.is_exempt(ip) || config.is_load_balancer(ip);
        (!is_exempt).then_some(guard)
    }

    /// Whether this address is in the address table, in that of trusted peers, or a next hop. `None` if it may be a next hop of a tenant, of
    /// which there may be many, and the last check was too short a time ago.
    fn is_exempt(&self, guard: &Guard, ip: IpAddr) -> Option<bool> {
        if self.shared.is_known(ip) {
            return Some(true);
        }
        if self.shared.tenants.load().named.is_empty() {
            return Some(false);
        }
        let may_check = guard.take_check(ip, Instant::now());
        may_check.then(|| self.shared.is_known_to_tenants(ip))
    }

    fn lose(&self, lost: Lost, bytes: &[u8], arrival: &Arrival, detail: &'static str) {
        self.shared.counters[self.number].lost.inc(lost);
        if self.reporter.is_watched() {
            self.reporter.show_loss(&Loss {
                lost,
                bytes,
                transport: arrival.transport,
                peer: arrival.source,
                detail: &detail,
            });
        }
    }

    fn close(&self, arrival: &Arrival) {
        if let Some(connection) = arrival.connection {
            self.shared.connections.remove(connection);
        }
    }
}

/// The label of a request that is kept back.
pub(super) fn held() -> &'static str {
    Lost::Held.label()
}

fn proof_of(transport: Transport) -> Proof {
    match transport.is_reliable() {
        true => Proof::Stream,
        false => Proof::Datagram,
    }
}

/// A hash of the user in From or To; that of nothing if there is none.
fn hash_of(guard: &Guard, message: Message<'_>, name: HeaderName) -> u64 {
    guard.user(user_in(message, name).unwrap_or_default())
}

fn user_in<'m>(message: Message<'m>, name: HeaderName) -> Option<&'m [u8]> {
    let address = NameAddr::parse(message.header(name)?.value).ok()?;
    Uri::parse(address.uri).ok()?.user
}

fn credentials<'m>(message: Message<'m>) -> impl Iterator<Item = &'m [u8]> {
    let names = [HeaderName::Authorization, HeaderName::ProxyAuthorization];
    let fields = names
        .into_iter()
        .flat_map(move |name| message.headers(name));
    fields.map(|field| field.value)
}

fn nonce_in<'m>(message: Message<'m>) -> Option<&'m [u8]> {
    credentials(message).find_map(nonce_of)
}

/// The value of the first parameter `nonce` (RFC 8760 §2, RFC 7616 §3.3).
fn nonce_of(bytes: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"nonce=\"";
    let mut from = 0;
    loop {
        let at = from + find(&bytes[from..], NAME)?;
        let is_name = at.checked_sub(1).is_none_or(|before| {
            let byte = bytes[before];
            !byte.is_ascii_alphanumeric()
        });
        let value = &bytes[at + NAME.len()..];
        if is_name {
            let end = value.iter().position(|byte| *byte == b'"')?;
            return Some(&value[..end]);
        }
        from = at + NAME.len();
    }
}

/// What a request and its responses have in common: the Call-ID, and the number in CSeq.
fn call_of(request: Message<'_>) -> (&[u8], u32) {
    let call_id = request.header(HeaderName::CallId);
    let number = request.cseq().map_or(0, |cseq| cseq.number);
    (
        call_id.map_or(&b""[..], |field| first_word(field.value)),
        number,
    )
}

/// The same of a response that has not been scanned; empty and 0 where it is missing. Servers copy the fields of the request, with its folds.
fn call_in(response: &[u8]) -> (&[u8], u32) {
    let (mut call_id, mut number): (&[u8], &[u8]) = (b"", b"");
    let mut name = None;
    for line in response.split(|byte| *byte == b'\n').skip(1) {
        let value = match line {
            [] | [b'\r'] => break,
            // The line belongs to the field before it (RFC 3261 §7.3.1).
            [b' ' | b'\t', ..] => line,
            [..] => {
                let mut parts = line.splitn(2, |byte| *byte == b':');
                name = parts
                    .next()
                    .map(|name| HeaderName::of(name.trim_ascii_end()));
                parts.next().unwrap_or_default()
            }
        };
        if name == Some(HeaderName::CallId) && call_id.is_empty() {
            call_id = first_word(value);
        } else if name == Some(HeaderName::CSeq) && number.is_empty() {
            number = first_word(value);
        }
    }
    let number = std::str::from_utf8(number).unwrap_or_default();
    (call_id, number.parse().unwrap_or_default())
}

fn first_word(text: &[u8]) -> &[u8] {
    let mut words = text.split(u8::is_ascii_whitespace);
    words.find(|word| !word.is_empty()).unwrap_or_default()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let mut windows = bytes.windows(what.len());
    windows.position(|window| window.eq_ignore_ascii_case(what))
}

#[cfg(test)]
mod tests {
    use portcullis_sip::{Framing, Index, Limits, scan};

    use super::*;

    #[test]
    fn the_nonce_of_a_challenge_is_found() {
        for (text, nonce) in [
            (
                "Digest realm=\"a\", nonce=\"abc\", qop=\"auth\"",
                Some("abc"),
            ),
            ("Digest cnonce=\"x\",Nonce=\"abc\"", Some("abc")),
            ("Digest cnonce=\"x\"", None),
            ("nonce=\"", None),
            ("nonce=\"\"", Some("")),
            ("", None),
        ] {
            assert_eq!(
                nonce_of(text.as_bytes()),
                nonce.map(str::as_bytes),
                "{text}"
            );
        }
    }

    /// However the request is written: otherwise whoever guesses passwords would hide that a challenge is one to a wrong answer.
    #[test]
    fn a_request_and_its_response_are_of_the_same_call() {
        const REST: &str = "Via: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nContent-Length: 0\r\n\r\n";
        let of_request = |before: &str, fields: &str| {
            let text = format!("{before}REGISTER sip:a SIP/2.0\r\n{fields}\r\n{REST}");
            let mut index = Index::default();
            let scanned = scan(
                text.as_bytes(),
                Framing::Datagram,
                &Limits::default(),
                &mut index,
            );
            assert_eq!(scanned, Ok(()), "{text}");
            let (call_id, number) = call_of(Message::new(text.as_bytes(), &index));
            (call_id.to_vec(), number)
        };
        let of_response = |fields: &str| {
            let text = format!("SIP/2.0 401 Unauthorized\r\n{fields}\r\n\r\nCall-ID: x\r\n");
            let (call_id, number) = call_in(text.as_bytes());
            (call_id.to_vec(), number)
        };
        let expected = (b"a@b".to_vec(), 2);
        for fields in [
            "Call-ID: a@b\r\nCSeq: 2 REGISTER",
            "i:a@b\r\nCSEQ:\t02\tREGISTER",
            "call-id :\r\n a@b\r\nCSeq:\r\n \r\n 2\r\n REGISTER",
            "X: a\r\n \r\n Call-ID: x\r\nCall-ID: a@b\r\nCSeq: 2 REGISTER\r\nY: a\r\n\tCSeq: 3",
        ] {
            assert_eq!(of_request("", fields), expected, "{fields}");
            assert_eq!(of_request("\r\n\r\n", fields), expected, "{fields}");
            assert_eq!(of_response(fields), expected, "{fields}");
        }
        assert_eq!(of_response("CSeq: x"), (Vec::new(), 0));
        assert_eq!(call_in(b""), (&b""[..], 0));
    }

    #[test]
    fn codes_are_read_as_their_senders_mean_them() {
        for (code, answer) in [
            (200, Answer::Success),
            (401, Answer::Challenge),
            (407, Answer::Challenge),
            (403, Answer::Refusal),
            (404, Answer::Refusal),
            (486, Answer::Other),
            (503, Answer::Other),
            (180, Answer::Other),
        ] {
            assert_eq!(Answer::of(code), answer, "{code}");
        }
    }
}
