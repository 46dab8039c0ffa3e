//! RFC 4475 §3.2 to §3.4: well-formed messages whose trouble lies beyond the grammar.

use portcullis_sip::DropReason;

use super::{Case, Expected, SDP, SDP_LENGTH, message};

/// §3.2.1, §3.3.1 to §3.3.15 and §3.4.1.
pub(crate) fn cases() -> Vec<Case> {
    let case = |section, name, bytes, expected| Case {
        section,
        name,
        bytes,
        expected,
    };
    use Expected::{Answer, Drop, Forward};
    vec![
        case("3.2.1", "badbranch", badbranch(), Forward),
        case("3.3.1", "insuf", insuf(), Answer(400, "Missing From")),
        // The RFC has 416 from a proxy that must route by the URI itself; here a next hop takes it.
        case("3.3.2", "unkscm", unkscm(), Forward),
        case("3.3.3", "novelsc", novelsc(), Forward),
        case("3.3.4", "unksm2", unksm2(), Forward),
        case(
            "3.3.5",
            "bext01",
            bext01(),
            Answer(420, "Bad Proxy Require Extension"),
        ),
        case("3.3.6", "invut", invut(), Forward),
        case("3.3.7", "regaut01", regaut01(), Forward),
        case(
            "3.3.8",
            "multi01",
            multi01(),
            Answer(400, "Two CSeq Headers"),
        ),
        case(
            "3.3.9",
            "mcl01",
            mcl01(),
            Answer(400, "Two Content-Length Headers"),
        ),
        case("3.3.10", "bcast", bcast(), Drop(DropReason::NoWayBack)),
        case("3.3.11", "zeromf", zeromf(), Answer(483, "Too Many Hops")),
        case("3.3.12", "cparam01", cparam01(), Forward),
        case("3.3.13", "cparam02", cparam02(), Forward),
        case("3.3.14", "regescrt", regescrt(), Forward),
        case("3.3.15", "sdp01", sdp01(), Forward),
        case("3.4.1", "inv2543", inv2543(), Forward),
    ]
}

/// A branch that is a magic cookie and nothing else.
fn badbranch() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.org;tag=358cd3",
            "Max-Forwards: 3",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK",
            "Accept: application/sdp",
            "Call-ID: badbranch@torture.example",
            "CSeq: 8 OPTIONS",
            "l: 0",
        ],
        b"",
    )
}

/// Neither Call-ID nor From nor To.
fn insuf() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "CSeq: 193942 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.95;branch=z9hG4bKinsuf-70c5",
            "Content-Type: application/sdp",
            "l: 91",
        ],
        SDP,
    )
}

/// A request URI of a scheme that nobody knows.
fn unkscm() -> Vec<u8> {
    message(
        &[
            "OPTIONS pneumatic-tube:station-9/left SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=9dcf2a",
            "Max-Forwards: 3",
            "Call-ID: unkscm@torture.example",
            "CSeq: 3923423 OPTIONS",
            "Via: SIP/2.0/TCP host9.example.com;branch=z9hG4bKunkscm-2aa5",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// A registered scheme that has nothing to do with calls.
fn novelsc() -> Vec<u8> {
    message(
        &[
            "OPTIONS msrp://192.0.2.10:2855/session;tcp SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=e236ae",
            "Max-Forwards: 3",
            "Call-ID: novelsc@torture.example",
            "CSeq: 3923423 OPTIONS",
            "Via: SIP/2.0/TCP host9.example.com;branch=z9hG4bKnovelsc-2aa5",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// Other schemes in To, From and Contact, which are none of a proxy's business.
fn unksm2() -> Vec<u8> {
    message(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "To: mailto:grace@example.com",
            "From: <https://ada.example.net/card>;tag=591b2b",
            "Call-ID: unksm2@torture.example",
            "CSeq: 234902 REGISTER",
            "Max-Forwards: 70",
            "Via: SIP/2.0/UDP 192.0.2.21:5060;branch=z9hG4bKunksm2-ab2f",
            "Contact: <urn:uuid:00000000-0000-0000-0000-000000000001>",
            "l: 0",
        ],
        b"",
    )
}

/// Extensions that a proxy has to have, and some that only the callee has to have.
fn bext01() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=71892a",
            "Max-Forwards: 6",
            "Call-ID: bext01@torture.example",
            "Require: nobody-has-this, nor-this",
            "Proxy-Require: no-proxy-has-this, nor-that",
            "CSeq: 8 OPTIONS",
            "Via: SIP/2.0/TLS stapler.example.org;branch=z9hG4bKbext01-ab2f",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// A body of a type that nobody knows.
fn invut() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "Contact: <sip:caller@host5.example.net>",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=8cc9b9",
            "Max-Forwards: 70",
            "Call-ID: invut@torture.example",
            "CSeq: 235448 INVITE",
            "Via: SIP/2.0/UDP somehost.example.com;branch=z9hG4bKinvut-ab2f",
            "Content-Type: application/x-knitting-pattern",
            "Content-Length: 35",
        ],
        b"k2 p2 to end; yo; k2tog <not> xml\r\n",
    )
}

/// Credentials of a scheme that nobody knows. Nothing is challenged here.
fn regaut01() -> Vec<u8> {
    message(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "To: sip:ada@example.com",
            "From: sip:ada@example.com;tag=7b8d4f",
            "Max-Forwards: 8",
            "Call-ID: regaut01@torture.example",
            "CSeq: 9338 REGISTER",
            "Via: SIP/2.0/TCP 192.0.2.253;branch=z9hG4bKregaut01-ab2f",
            "Authorization: Handshake grip=\"firm, short\"",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// Two of everything that there must be one of.
fn multi01() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@company.example SIP/2.0",
            "Contact: <sip:caller@host25.example.net>",
            "Via: SIP/2.0/UDP 192.0.2.25;branch=z9hG4bKmulti01-ab2f",
            "Max-Forwards: 70",
            "CSeq: 5 INVITE",
            "Call-ID: multi01@torture.example",
            "CSeq: 59 INVITE",
            "Call-ID: multi01@torture.example",
            "From: sip:caller@example.com;tag=dd93ce",
            "To: sip:grace@example.com",
            "To: sip:other@example.net",
            "From: sip:caller@example.net;tag=54be8d",
            "Content-Type: application/sdp",
            SDP_LENGTH,
            "Max-Forwards: 5",
        ],
        SDP,
    )
}

/// Two lengths: whoever takes the other one sees another message.
fn mcl01() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "Via: SIP/2.0/UDP host5.example.net;branch=z9hG4bKmcl01-610d",
            "To: sip:grace@example.com",
            "From: sip:other@example.net;tag=9eb365",
            "Call-ID: mcl01@torture.example",
            "CSeq: 15932 OPTIONS",
            "Content-Length: 13",
            "Max-Forwards: 60",
            "Content-Length: 5",
            "Content-Type: text/plain",
        ],
        b"Five octets, thirteen, or all of these?\r\n",
    )
}

/// A response that would go to everybody.
fn bcast() -> Vec<u8> {
    message(
        &[
            "SIP/2.0 200 OK",
            "{VIA}",
            "Via: SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKbcast-137c",
            "Call-ID: bcast@torture.example",
            "CSeq: 35 INVITE",
            "From: sip:ada@example.com;tag=d4328b",
            "To: sip:grace@example.edu;tag=a458a0",
            SDP_LENGTH,
            "Content-Type: application/sdp",
            "Contact: <sip:grace@host28.example.com>",
        ],
        SDP,
    )
}

/// A request that may go no further.
fn zeromf() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.net;tag=fb9e18",
            "Call-ID: zeromf@torture.example",
            "CSeq: 39234321 OPTIONS",
            "Via: SIP/2.0/UDP host1.example.com;branch=z9hG4bKzeromf-86d5",
            "Max-Forwards: 0",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// An unknown parameter of Contact.
fn cparam01() -> Vec<u8> {
    register(
        "cparam01",
        "Contact: sip:+4930123456@gw7.example.net;odd-parameter",
    )
}

/// An unknown parameter of the URI in Contact.
fn cparam02() -> Vec<u8> {
    register(
        "cparam02",
        "Contact: <sip:+4930123456@gw7.example.net;odd-parameter>",
    )
}

/// A header within the URI in Contact, in brackets as it has to be.
fn regescrt() -> Vec<u8> {
    register(
        "regescrt",
        "Contact: <sip:ada@example.com?Route=%3Csip:sip.example.com%3E>",
    )
}

fn register(name: &str, contact: &str) -> Vec<u8> {
    let call_id = format!("Call-ID: {name}@torture.example");
    message(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "Via: SIP/2.0/UDP desk7.example.com:5060;branch=z9hG4bKregister-ab2f",
            "Max-Forwards: 70",
            "From: sip:ada@example.com;tag=c3544a",
            "To: sip:ada@example.com",
            &call_id,
            "CSeq: 2 REGISTER",
            contact,
            "l: 0",
        ],
        b"",
    )
}

/// An Accept that no answer to this offer can fulfil, which is for the callee to say.
fn sdp01() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "Contact: <sip:caller@host15.example.net>",
            "From: sip:caller@example.net;tag=420745",
            "Max-Forwards: 5",
            "Call-ID: sdp01@torture.example",
            "Accept: text/x-runes",
            "CSeq: 8 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKsdp01-ab2f",
            SDP_LENGTH,
            "Content-Type: application/sdp",
        ],
        SDP,
    )
}

/// A request of RFC 2543: no branch, no From-tag, no Max-Forwards, no Content-Length.
fn inv2543() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "Via: SIP/2.0/UDP oldgw.example.com",
            "From: <sip:+4930111@old.client.example.net;user=phone>",
            "Record-Route: <sip:grace@example.com;maddr=s1.example.com>",
            "To: sip:+4930222@s1.example.net;user=phone",
            "Call-ID: inv2543@torture.example",
            "CSeq: 56 INVITE",
            "Content-Type: application/sdp",
        ],
        SDP,
    )
}
