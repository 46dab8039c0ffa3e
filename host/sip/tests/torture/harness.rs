//! A proxy that the messages are shown to.

use std::collections::HashMap;
use std::net::SocketAddr;

use portcullis_sip::{
    Arrival, Destination, Framing, HeaderName, Index, Limits, Local, Message, Proxy, ProxyConfig,
    Received, Routes, RoutesBuilder, StartLine, Target, Transport, Via, scan,
};

use super::{Case, Expected, message};

/// The default next hop.
pub(crate) const NEXT_HOP: &str = "198.51.100.80:5080";

/// Runs every case and panics with the names of those that came out otherwise.
pub(crate) fn run(cases: &[Case], source: &str, local: &str) {
    let harness = Harness::new(source, local);
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let verdict = harness.verdict(case);
            let problem = verdict.err()?;
            Some(format!("{} {}: {problem}", case.section, case.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Harness {
    proxy: Proxy,
    routes: Routes,
    arrival: Arrival,
}

impl Harness {
    fn new(source: &str, local: &str) -> Self {
        let addresses = ["198.51.100.1:5060", "[2001:db8:ffff::1]:5060"];
        let local_on = |transport, addr: &str| Local {
            transport,
            addr: addr.parse().unwrap(),
            advertised: None,
        };
        let locals = [Transport::Udp, Transport::Tcp]
            .map(|transport| addresses.map(|addr| local_on(transport, addr)));
        let mut builder = RoutesBuilder::new();
        builder.default_hop(&format!("sip:{NEXT_HOP}")).unwrap();
        builder.domain("routes.example.com").unwrap();
        let resolved = HashMap::from([(
            "routes.example.com".to_owned(),
            vec![[198, 51, 100, 81].into()],
        )]);
        Self {
            proxy: Proxy::new(ProxyConfig {
                locals: locals.concat(),
                aliases: Vec::new(),
                key: *b"a key for a test",
                earlier_keys: Vec::new(),
                dialog_minutes: 24 * 60,
                record_route: true,
                server_header: None,
                force_rport: Vec::new(),
                clients: portcullis_sip::Clients::default(),
            }),
            routes: builder.build(&resolved),
            arrival: Arrival {
                source: source.parse().unwrap(),
                local: local.parse().unwrap(),
                transport: Transport::Udp,
                connection: None,
            },
        }
    }

    fn verdict(&self, case: &Case) -> Result<(), String> {
        let bytes = self.with_our_via(&case.bytes);
        let mut index = Index::default();
        let scanned = scan(&bytes, Framing::Datagram, &Limits::default(), &mut index);
        let received = Message::new(&bytes, &index);
        let mut out = Vec::new();
        let got = self
            .proxy
            .receive(received, scanned, &self.arrival, &mut out);
        match (case.expected, got) {
            (Expected::Forward, Received::Judge) => self.check_relay(received),
            (Expected::Back, Received::Forward(destination)) => {
                check_way_back(&bytes, &out, destination)
            }
            (Expected::Answer(code, reason), Received::Reply(destination)) => {
                self.check_reply(received, &out, code, reason, destination)
            }
            (Expected::Drop(expected), Received::Drop(reason)) if expected == reason => Ok(()),
            (expected, got) => Err(format!("{got:?} ({}), not {expected:?}", start(&out))),
        }
    }

    /// Puts the Via that this proxy would have written in the place of `{VIA}`.
    fn with_our_via(&self, bytes: &[u8]) -> Vec<u8> {
        const MARK: &[u8] = b"{VIA}";
        let Some(at) = bytes.windows(MARK.len()).position(|part| part == MARK) else {
            return bytes.to_vec();
        };
        let request = message(
            &[
                "INVITE sip:grace@example.com SIP/2.0",
                "Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKfirst",
                "From: <sip:ada@example.com>;tag=1",
                "To: <sip:grace@example.com>",
                "Call-ID: first",
                "CSeq: 35 INVITE",
            ],
            b"",
        );
        let mut index = Index::default();
        scan(&request, Framing::Datagram, &Limits::default(), &mut index).unwrap();
        let mut out = Vec::new();
        let request = Message::new(&request, &index);
        self.proxy
            .relay(
                request,
                &self.arrival,
                &self.routes,
                Target::AsRouted,
                &mut out,
            )
            .unwrap();
        let mut lines = out.split(|&byte| byte == b'\n');
        let via = lines.nth(1).unwrap().strip_suffix(b"\r").unwrap();
        let mut whole = bytes.to_vec();
        whole.splice(at..at + MARK.len(), via.iter().copied());
        whole
    }

    /// The policy says "relay": the request goes on, and what needs no change has none.
    fn check_relay(&self, received: Message<'_>) -> Result<(), String> {
        let mut out = Vec::new();
        let relayed = self.proxy.relay(
            received,
            &self.arrival,
            &self.routes,
            Target::AsRouted,
            &mut out,
        );
        let destination = relayed.map_err(|error| error.to_string())?;
        let has_route = received.header(HeaderName::Route).is_some();
        let expected: SocketAddr = if has_route {
            "198.51.100.81:5060"
        } else {
            NEXT_HOP
        }
        .parse()
        .unwrap();
        ensure(destination.addr == expected, "it goes elsewhere")?;

        let mut index = Index::default();
        scan(&out, Framing::Datagram, &Limits::default(), &mut index)
            .map_err(|error| error.to_string())?;
        let sent = Message::new(&out, &index);
        ensure(
            sent.start_line() == received.start_line(),
            "the start line is another",
        )?;
        ensure(sent.body() == received.body(), "the body is another")?;
        let hops = received.max_forwards().map_or(70, |hops| hops - 1);
        ensure(sent.max_forwards() == Some(hops), "Max-Forwards is wrong")?;
        let vias = |message| via_values(message).len();
        ensure(
            vias(sent) == vias(received) + 1,
            "there is not one Via more",
        )?;
        let is_ours = Via::parse(sent.header(HeaderName::Via).unwrap().value).unwrap();
        ensure(
            is_ours.host.to_string() == "198.51.100.1",
            "our Via is not on top",
        )?;

        let line = |message: Message<'_>, field: portcullis_sip::Field<'_>| {
            message.bytes()[field.line].to_vec()
        };
        let mut lines = sent.fields().map(|field| line(sent, field));
        let top = received.header(HeaderName::Via).map(|field| field.line);
        for field in received.fields() {
            let is_edited =
                field.name == HeaderName::MaxForwards || Some(&field.line) == top.as_ref();
            let original = line(received, field);
            ensure(
                is_edited || lines.any(|line| line == original),
                &format!("`{}` is not what it was", original.escape_ascii()),
            )?;
        }
        Ok(())
    }

    fn check_reply(
        &self,
        request: Message<'_>,
        out: &[u8],
        code: u16,
        reason: &str,
        destination: Destination,
    ) -> Result<(), String> {
        let mut index = Index::default();
        let scanned = scan(out, Framing::Datagram, &Limits::default(), &mut index);
        let reply = Message::new(out, &index);
        let StartLine::Response {
            code: got,
            reason: phrase,
            ..
        } = reply.start_line()
        else {
            return Err("the answer is no response".into());
        };
        ensure(
            (got, phrase) == (code, reason.as_bytes()),
            &format!("the answer is {}", start(out)),
        )?;
        // What cannot be read in the request cannot be read in its copy either, but headers are there and end.
        ensure(code == 400 || scanned.is_ok(), "the answer cannot be read")?;
        ensure(
            out.ends_with(b"Content-Length: 0\r\n\r\n"),
            "the answer has no end",
        )?;
        ensure(
            destination.addr.ip() == self.arrival.source.ip(),
            "the answer goes elsewhere",
        )?;
        ensure(
            via_values(reply).len() == via_values(request).len(),
            "Vias are lost",
        )?;
        for name in [HeaderName::From, HeaderName::CallId, HeaderName::CSeq] {
            let value = |message: Message<'_>| {
                message
                    .header(name)
                    .map(|field| field.unfolded().into_owned())
            };
            ensure(
                value(reply) == value(request),
                &format!("{} is another", name.as_str()),
            )?;
        }
        if code == 420 {
            let unsupported = reply
                .header(HeaderName::Unsupported)
                .map(|field| field.value);
            let required = request
                .header(HeaderName::ProxyRequire)
                .map(|field| field.value);
            ensure(
                unsupported == required,
                "Unsupported does not name what is required",
            )?;
        }
        Ok(())
    }
}

fn check_way_back(received: &[u8], out: &[u8], destination: Destination) -> Result<(), String> {
    ensure(
        destination.addr.to_string() == "192.0.2.15:5060",
        "it goes elsewhere",
    )?;
    let mut lines = received.splitn(3, |&byte| byte == b'\n');
    let (first, _via, rest) = (lines.next().unwrap(), lines.next(), lines.next().unwrap());
    let expected = [first, b"\n", rest].concat();
    ensure(out == expected, "more than our Via was changed")
}

fn via_values(message: Message<'_>) -> Vec<&[u8]> {
    message
        .headers(HeaderName::Via)
        .flat_map(|field| portcullis_sip::values(field.value))
        .map(|value| value.bytes)
        .collect()
}

fn start(out: &[u8]) -> String {
    out.split(|&byte| byte == b'\r')
        .next()
        .unwrap_or_default()
        .escape_ascii()
        .to_string()
}

fn ensure(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}
