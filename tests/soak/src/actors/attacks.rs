//! Attacks by unknown senders and hostile tenants.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::Result;

use crate::site::{HOSTILE, Site, at};

/// Connections of each kind of slow client in one turn.
const SLOW: usize = 24;

/// How long slow clients hold their connections.
const HOLD: Duration = Duration::from_millis(1500);

/// Sends a request to each hostile tenant; the responses are not checked.
pub(crate) fn ask_hostile_tenants(site: &Site, number: u64) -> Result<()> {
    for (nth, (name, _)) in (0..).zip(HOSTILE) {
        let caller = UdpSocket::bind((site.host.lease().ip(at::HOSTILE + nth), 0))?;
        let local = caller.local_addr()?;
        let request = format!(
            "MESSAGE sip:x@{name}.example SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK-hostile-{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:x@{name}.example>;tag=1\r\nTo: <sip:x@{name}.example>\r\n\
             Call-ID: hostile-{number}@{local}\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n"
        );
        caller.send_to(request.as_bytes(), site.host.sip())?;
    }
    Ok(())
}

/// Opens connections to SIP and to the control port that never complete a request, and holds them for a while. They may be refused or
/// closed.
pub(crate) fn slow_clients(site: &Site, _number: u64) -> Result<()> {
    let control = site.host.lease().addr(1, 8060);
    let unfinished: [(SocketAddr, &[u8]); 4] = [
        (site.host.sip(), b"INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TCP "),
        (site.host.sip(), b"\r\n"),
        (control, b"POST /v1/policies/acme HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"),
        (control, b"GET /metrics HTTP/1.1\r\nX-Slow: "),
    ];
    let mut held = Vec::new();
    for (target, bytes) in unfinished {
        for _ in 0..SLOW {
            let Ok(mut stream) = TcpStream::connect_timeout(&target, HOLD) else {
                site.books.count("slow clients refused");
                continue;
            };
            let _may_be_closed = stream.write_all(bytes);
            held.push(stream);
        }
    }
    site.books.add("slow connections held", held.len() as u64);
    std::thread::sleep(HOLD);
    Ok(())
}

/// Sends data that is not SIP, or is malformed.
pub(crate) fn junk(site: &Site, number: u64) -> Result<()> {
    let socket = UdpSocket::bind((site.host.lease().ip(at::SLOW), 0))?;
    let labels = "a.".repeat(4000);
    let junk: [Vec<u8>; 6] = [
        vec![0; 1400],
        b"INVITE sip:x SIP/2.0\r\n\r\n".to_vec(),
        format!("INVITE sip:x@{labels}example SIP/2.0\r\nVia: SIP/2.0/UDP h\r\n\r\n").into_bytes(),
        [
            b"OPTIONS sip:x@example.com SIP/2.0\r\n".as_slice(),
            &b"A: b\r\n".repeat(9000),
            b"\r\n",
        ]
        .concat(),
        b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bK1\r\n\r\n".to_vec(),
        vec![b'\n'; 3],
    ];
    let one = &junk[(number % junk.len() as u64) as usize];
    socket.send_to(one, site.host.sip())?;
    Ok(())
}
