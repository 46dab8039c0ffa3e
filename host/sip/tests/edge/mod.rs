//! A proxy on fixed addresses, and messages for it.

#![allow(dead_code)] // Each test file uses its own part of this.

use std::collections::HashMap;
use std::net::IpAddr;

use portcullis_sip::{
    Arrival, ConnectionId, Destination, Framing, Index, Limits, Local, Message, Proxy, ProxyConfig,
    Received, RelayError, Routes, RoutesBuilder, Target, Transport, scan,
};

/// The caller's address.
pub(crate) const CALLER: &str = "192.0.2.10:40000";

/// The default next hop.
pub(crate) const NEXT_HOP: &str = "192.0.2.80:5080";

/// A proxy that listens on UDP and TCP, 198.51.100.1:5060 and [2001:db8::1]:5060, and is called edge.example.com.
pub(crate) struct Edge {
    pub(crate) proxy: Proxy,
    pub(crate) routes: Routes,
}

impl Edge {
    /// With [`NEXT_HOP`], and what is asked for besides.
    pub(crate) fn new(routes: impl FnOnce(&mut RoutesBuilder)) -> Self {
        Self::with(
            |_| {},
            |builder| {
                builder.default_hop(&format!("sip:{NEXT_HOP}")).unwrap();
                routes(builder);
            },
        )
    }

    /// Without a next hop, unless `routes` adds one.
    pub(crate) fn with(
        configure: impl FnOnce(&mut ProxyConfig),
        routes: impl FnOnce(&mut RoutesBuilder),
    ) -> Self {
        let locals = ["198.51.100.1:5060", "[2001:db8::1]:5060"];
        let on = |transport| locals.map(|addr| local(transport, addr));
        let mut config = ProxyConfig {
            locals: [on(Transport::Udp), on(Transport::Tcp)].concat(),
            aliases: vec!["edge.example.com".into()],
            key: [0x5a; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 24 * 60,
            record_route: true,
            server_header: Some("Portcullis".into()),
            force_rport: Vec::new(),
            clients: portcullis_sip::Clients::default(),
        };
        configure(&mut config);
        let mut builder = RoutesBuilder::new();
        routes(&mut builder);
        let resolved = HashMap::from([
            (
                "gw.example.net".to_owned(),
                vec![ip("192.0.2.90"), ip("2001:db8::90")],
            ),
            ("six.example.net".to_owned(), vec![ip("2001:db8::66")]),
        ]);
        Self {
            proxy: Proxy::new(config),
            routes: builder.build(&resolved),
        }
    }

    /// What becomes of a message, and what is sent.
    pub(crate) fn receive(&self, text: &str, arrival: &Arrival) -> (Received, String) {
        let mut index = Index::default();
        let scanned = scan(
            text.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        );
        let mut out = b"left over".to_vec();
        let message = Message::new(text.as_bytes(), &index);
        let received = self.proxy.receive(message, scanned, arrival, &mut out);
        (received, String::from_utf8(out).unwrap())
    }

    /// Whether an ACK proves that its source has received our reply.
    pub(crate) fn proves_receipt(&self, ack: &str, arrival: &Arrival) -> bool {
        let mut index = Index::default();
        let limits = Limits::default();
        scan(ack.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        let ack = Message::new(ack.as_bytes(), &index);
        self.proxy.proves_receipt(ack, arrival)
    }

    /// The reply of our own to a message.
    pub(crate) fn answer(&self, text: &str, arrival: &Arrival) -> String {
        match self.receive(text, arrival) {
            (Received::Reply(_), reply) => reply,
            (other, _) => panic!("{other:?}, not a reply"),
        }
    }

    /// Relays a request.
    pub(crate) fn relay_to(
        &self,
        text: &str,
        arrival: &Arrival,
        target: Target<'_>,
    ) -> Result<(Destination, String), RelayError> {
        let mut index = Index::default();
        let _faulty_too = scan(
            text.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        );
        let mut out = b"left over".to_vec();
        let message = Message::new(text.as_bytes(), &index);
        let destination = self
            .proxy
            .relay(message, arrival, &self.routes, target, &mut out)?;
        Ok((destination, String::from_utf8(out).unwrap()))
    }

    /// Relays a request as it says itself.
    pub(crate) fn relay(
        &self,
        text: &str,
        arrival: &Arrival,
    ) -> Result<(Destination, String), RelayError> {
        self.relay_to(text, arrival, Target::AsRouted)
    }

    /// Where a request goes as it says itself, as `TRANSPORT ADDRESS`, or the code and text of the error.
    pub(crate) fn way(&self, text: &str) -> String {
        match self.relay(text, &udp(CALLER)) {
            Ok((to, _)) => format!("{} {}", to.transport, to.addr),
            Err(error) => format!("{} {error}", error.code()),
        }
    }

    /// Rejects a request.
    pub(crate) fn reject(
        &self,
        text: &str,
        arrival: &Arrival,
        code: u16,
        reason: &str,
        headers: &[(&str, &str)],
    ) -> Option<(Destination, String)> {
        let mut index = Index::default();
        let _faulty_too = scan(
            text.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        );
        let mut out = b"left over".to_vec();
        let message = Message::new(text.as_bytes(), &index);
        let destination = self
            .proxy
            .reject(message, arrival, code, reason, headers, &mut out)?;
        Some((destination, String::from_utf8(out).unwrap()))
    }
}

pub(crate) fn local(transport: Transport, addr: &str) -> Local {
    Local {
        transport,
        addr: addr.parse().unwrap(),
        advertised: None,
    }
}

/// A datagram from this address.
pub(crate) fn udp(source: &str) -> Arrival {
    let source: std::net::SocketAddr = source.parse().unwrap();
    let local = if source.is_ipv4() {
        "198.51.100.1:5060"
    } else {
        "[2001:db8::1]:5060"
    };
    Arrival {
        source,
        local: local.parse().unwrap(),
        transport: Transport::Udp,
        connection: None,
    }
}

/// A message on a stream from this address.
pub(crate) fn tcp(source: &str, connection: u64) -> Arrival {
    Arrival {
        transport: Transport::Tcp,
        connection: Some(ConnectionId(connection)),
        ..udp(source)
    }
}

/// A request without a body from [`CALLER`]. `lines` are further header lines.
pub(crate) fn request(method: &str, uri: &str, lines: &[&str]) -> String {
    let more: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {CALLER};branch=z9hG4bKcaller-1\r\nMax-Forwards: 70\r\n\
         From: <sip:ada@example.net>;tag=ada1\r\nTo: <sip:grace@example.com>\r\nCall-ID: call-1\r\n\
         CSeq: 7 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

/// The values of all header lines of this name, as they stand there.
pub(crate) fn headers<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
    let head = text.split("\r\n\r\n").next().unwrap();
    let lines = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "));
    lines
        .filter(|(own, _)| own.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}

/// The first line.
pub(crate) fn start_line(text: &str) -> &str {
    text.split("\r\n").next().unwrap()
}

/// The branch of a Via value.
pub(crate) fn branch(via: &str) -> &str {
    let behind = via.split_once(";branch=").unwrap().1;
    behind.split(';').next().unwrap()
}

/// A response to what the host sent, with these Vias.
pub(crate) fn response(code: u16, sent: &str) -> String {
    let vias: String = headers(sent, "Via")
        .iter()
        .map(|via| format!("Via: {via}\r\n"))
        .collect();
    let cseq = headers(sent, "CSeq")[0];
    format!(
        "SIP/2.0 {code} Whatever\r\n{vias}From: <sip:ada@example.net>;tag=ada1\r\n\
         To: <sip:grace@example.com>;tag=grace1\r\nCall-ID: call-1\r\nCSeq: {cseq}\r\nContent-Length: 0\r\n\r\n"
    )
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
