//! The rest of a call after its 200: ACK and BYE, along the Record-Route of the response (RFC 3261 §12.2.1.1).

use std::net::SocketAddr;

use memchr::memmem;

use crate::transport::Transport;

/// The branch of a BYE before the id.
pub(crate) const BYE_BRANCH: &[u8] = b"z9hG4bK-bye-";

/// The branch of an ACK before the id.
const ACK_BRANCH: &str = "z9hG4bK-ack-";

/// The ACK and the BYE of a call.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) ack: Vec<u8>,
    pub(crate) bye: Vec<u8>,
}

impl Rest {
    /// Writes both for this 200. Returns false if it lacks what they need.
    pub(crate) fn write(
        &mut self,
        ok: &[u8],
        id: u64,
        source: SocketAddr,
        transport: Transport,
    ) -> bool {
        let Ok(text) = std::str::from_utf8(ok) else {
            return false;
        };
        let bye_branch = String::from_utf8_lossy(BYE_BRANCH);
        let via = format!("SIP/2.0/{} {source}", transport.in_via());
        let ack = write(text, "ACK", 1, ACK_BRANCH, id, &via);
        let bye = write(text, "BYE", 2, &bye_branch, id, &via);
        let (Some(ack), Some(bye)) = (ack, bye) else {
            return false;
        };
        (self.ack, self.bye) = (ack, bye);
        true
    }
}

fn write(ok: &str, method: &str, cseq: u32, branch: &str, id: u64, via: &str) -> Option<Vec<u8>> {
    let contact = value(ok, "Contact")?;
    let uri = contact.trim_start_matches('<').split('>').next()?;
    let (from, to) = (value(ok, "From")?, value(ok, "To")?);
    let call_id = value(ok, "Call-ID")?;
    let mut text = format!(
        "{method} {uri} SIP/2.0\r\nVia: {via};branch={branch}{id:016x};rport\r\nMax-Forwards: 70\r\n"
    );
    // The caller's route set is the reverse of Record-Route.
    let lines = values(ok, "Record-Route").flat_map(|line| line.split('<').skip(1));
    let routes: Vec<_> = lines
        .map(|route| format!("<{}", route.trim_end_matches([',', ' '])))
        .collect();
    for route in routes.iter().rev() {
        text.push_str(&format!("Route: {route}\r\n"));
    }
    text.push_str(&format!(
        "From: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    ));
    Some(text.into_bytes())
}

fn value<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    values(text, name).next()
}

fn values<'t>(text: &'t str, name: &str) -> impl Iterator<Item = &'t str> {
    let head = memmem::find(text.as_bytes(), b"\r\n\r\n").map_or(text, |end| &text[..end]);
    let fields = head.split("\r\n").filter_map(|line| line.split_once(": "));
    fields
        .filter(move |(own, _)| own.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_and_bye_follow_the_route_of_the_call() {
        let ok = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.2.0.1:4000;branch=x\r\n\
            Record-Route: <sip:second;lr>, <sip:middle;r2=on;lr>\r\nRecord-Route: <sip:first;lr>\r\n\
            From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: id@x\r\nCSeq: 1 INVITE\r\n\
            Contact: <sip:sink@127.3.0.1:5060>\r\nContent-Length: 0\r\n\r\n";
        let mut rest = Rest::default();
        assert!(write_rest(&mut rest, ok.as_bytes(), 255, Transport::Udp));
        let bye = String::from_utf8(rest.bye).unwrap();
        assert_eq!(
            bye,
            "BYE sip:sink@127.3.0.1:5060 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.2.0.1:4000;branch=z9hG4bK-bye-00000000000000ff;rport\r\n\
             Max-Forwards: 70\r\nRoute: <sip:first;lr>\r\nRoute: <sip:middle;r2=on;lr>\r\nRoute: <sip:second;lr>\r\n\
             From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: id@x\r\nCSeq: 2 BYE\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let ack = String::from_utf8(rest.ack).unwrap();
        assert!(ack.starts_with("ACK sip:sink@127.3.0.1:5060 SIP/2.0\r\n"));
        assert!(ack.contains("\r\nCSeq: 1 ACK\r\n"));
        assert!(write_rest(
            &mut Rest::default(),
            ok.as_bytes(),
            255,
            Transport::Tls
        ));
        assert!(!write_rest(
            &mut Rest::default(),
            b"SIP/2.0 200 OK\r\n\r\n",
            1,
            Transport::Udp
        ));
    }

    fn write_rest(rest: &mut Rest, ok: &[u8], id: u64, transport: Transport) -> bool {
        rest.write(ok, id, "127.2.0.1:4000".parse().unwrap(), transport)
    }
}
