//! A proxy and an INVITE of 500 bytes.

use std::collections::HashMap;

use portcullis_sip::{
    Arrival, Framing, Index, Limits, Local, Proxy, ProxyConfig, Routes, RoutesBuilder, Transport,
    scan,
};

/// On UDP and TCP, with a next hop.
pub(crate) fn edge() -> (Proxy, Routes) {
    let locals = [Transport::Udp, Transport::Tcp].map(|transport| Local {
        transport,
        addr: ([198, 51, 100, 1], 5060).into(),
        advertised: None,
    });
    let config = ProxyConfig {
        locals: locals.into(),
        aliases: vec!["edge.example.com".into()],
        key: [7; 16],
        earlier_keys: Vec::new(),
        dialog_minutes: 24 * 60,
        record_route: true,
        server_header: Some("Portcullis".into()),
        force_rport: Vec::new(),
        clients: portcullis_sip::Clients::default(),
    };
    let mut routes = RoutesBuilder::new();
    let added = routes.default_hop("sip:192.0.2.80:5080").map(|_| ());
    assert!(added.is_ok());
    (Proxy::new(config), routes.build(&HashMap::new()))
}

/// A datagram from the caller.
pub(crate) fn arrival() -> Arrival {
    Arrival {
        source: ([192, 0, 2, 10], 40_000).into(),
        local: ([198, 51, 100, 1], 5060).into(),
        transport: Transport::Udp,
        connection: None,
    }
}

/// A request of 500 bytes in all, from a caller behind NAT.
pub(crate) fn request(method: &str, lines: &str) -> Vec<u8> {
    let head = format!(
        "{method} sip:+4930123456@edge.example.com SIP/2.0\r\n\
         Via: SIP/2.0/UDP 10.1.2.3:5060;branch=z9hG4bK-524287-1---8d2e3a61c0b7f952;rport\r\n\
         Max-Forwards: 70\r\nContact: <sip:2001@10.1.2.3:5060>\r\n\
         To: <sip:+4930123456@edge.example.com>\r\nFrom: \"Desk 7\" <sip:2001@edge.example.com>;tag=8a4b1c5d\r\n\
         Call-ID: 97241MzFkZDQ0YmEyNWJlZTI0\r\nCSeq: 1 {method}\r\n{lines}\
         User-Agent: desk/7.3\r\nContent-Type: application/sdp\r\nContent-Length: "
    );
    let body = 500 - head.len() - "99\r\n\r\n".len();
    let request = format!("{head}{body}\r\n\r\n{}", "v".repeat(body));
    assert_eq!(request.len(), 500);
    request.into_bytes()
}

/// Scans a message that is in order.
pub(crate) fn index(bytes: &[u8]) -> Index {
    let mut index = Index::default();
    assert_eq!(
        scan(bytes, Framing::Datagram, &Limits::default(), &mut index),
        Ok(())
    );
    index
}
