//! RFC 5118 §4: IPv6 addresses wherever SIP has addresses.

use super::{Case, Expected, SDP, SDP_LENGTH, message};

/// §4.1 to §4.10.
pub(crate) fn cases() -> Vec<Case> {
    let case = |section, name, bytes, expected| Case {
        section,
        name,
        bytes,
        expected,
    };
    use Expected::{Answer, Forward};
    const BAD_HOST: Expected = Answer(400, "Bad Host in Request-URI");
    vec![
        case("4.1", "ipv6-good", register("sip:[2001:db8::10]"), Forward),
        case(
            "4.2",
            "ipv6-bad",
            register("sip:2001:db8::10"),
            Answer(400, "Bad Port in Request-URI"),
        ),
        case(
            "4.3",
            "port-ambiguous",
            register("sip:[2001:db8::10:5070]"),
            Forward,
        ),
        case(
            "4.4",
            "port-unambiguous",
            register("sip:[2001:db8::10]:5070"),
            Forward,
        ),
        case(
            "4.5",
            "via-received-param-with-delim",
            received("[2001:db8::9:255]"),
            Forward,
        ),
        case(
            "4.5",
            "via-received-param-no-delim",
            received("2001:db8::9:255"),
            Forward,
        ),
        case("4.6", "ipv6-in-sdp", ipv6_in_sdp(), Forward),
        case("4.7", "mult-ip-in-header", mult_ip_in_header(), Forward),
        case("4.8", "mult-ip-in-sdp", mult_ip_in_sdp(), Forward),
        case("4.9", "ipv4-mapped-ipv6", ipv4_mapped_ipv6(), Forward),
        // The three colons are a slip of the old grammar, to be read like two.
        case(
            "4.10",
            "ipv6-bug-abnf-3-colons",
            colons("2001:db8:::192.0.2.1"),
            Forward,
        ),
        case(
            "4.10",
            "ipv6-correct-abnf-2-colons",
            colons("2001:db8::192.0.2.1"),
            Forward,
        ),
    ]
}

/// An IPv6 reference in request URI, Via and Contact.
fn register(uri: &str) -> Vec<u8> {
    let start = format!("REGISTER {uri} SIP/2.0");
    message(
        &[
            &start,
            "To: sip:ada@example.com",
            "From: sip:ada@example.com;tag=6055f6",
            "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKregister-c4e8",
            "Call-ID: register@torture.example",
            "Max-Forwards: 70",
            "Contact: \"Ada\" <sip:ada@[2001:db8::1]>",
            "CSeq: 98176 REGISTER",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// `received` with and without the brackets that do not belong there.
fn received(address: &str) -> Vec<u8> {
    let via =
        format!("Via: SIP/2.0/UDP [2001:db8::9:1];received={address};branch=z9hG4bKreceived-c4e8");
    message(
        &[
            "BYE sip:[2001:db8::10] SIP/2.0",
            "To: sip:ada@example.com;tag=83cd67",
            "From: sip:grace@example.com;tag=ef759c",
            &via,
            "Call-ID: received@torture.example",
            "Max-Forwards: 70",
            "CSeq: 321 BYE",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// Addresses without brackets in the body.
fn ipv6_in_sdp() -> Vec<u8> {
    let body =
        b"v=0\r\no=assistant 97 0 IN IP6 2001:db8::20\r\ns=-\r\nc=IN IP6 2001:db8::20\r\nt=0 0\r\n\
        m=audio 6000 RTP/AVP 2\r\na=rtpmap:2 G726-32/8000\r\n";
    let length = format!("Content-Length: {}", body.len());
    message(
        &[
            "INVITE sip:grace@[2001:db8::10] SIP/2.0",
            "To: sip:grace@[2001:db8::10]",
            "From: sip:ada@example.com;tag=819ed6",
            "Via: SIP/2.0/UDP [2001:db8::20];branch=z9hG4bKipv6_in_sdp-c4e8",
            "Call-ID: ipv6_in_sdp@torture.example",
            "Contact: \"Ada\" <sip:ada@[2001:db8::20]>",
            "CSeq: 8612 INVITE",
            "Max-Forwards: 70",
            "Content-Type: application/sdp",
            &length,
        ],
        body,
    )
}

/// Vias of both families.
fn mult_ip_in_header() -> Vec<u8> {
    message(
        &[
            "BYE sip:grace@host.example.net SIP/2.0",
            "Via: SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKmult_ip_in_header-c4e8",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKmult_ip_in_header-3be9",
            "Via: SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bKmult_ip_in_header-f5ea;received=192.0.2.200",
            "Call-ID: mult_ip_in_header@torture.example",
            "Max-Forwards: 70",
            "CSeq: 89187 BYE",
            "To: sip:grace@example.net;tag=25651e",
            "From: sip:ada@example.com;tag=d3348a",
            "Content-Length: 0",
        ],
        b"",
    )
}

/// Both families in the body.
fn mult_ip_in_sdp() -> Vec<u8> {
    let body = b"v=0\r\no=bob 28 28 IN IP4 host.example.com\r\ns=-\r\nt=0 0\r\nm=audio 22334 RTP/AVP 0\r\n\
        c=IN IP4 192.0.2.1\r\nm=video 6024 RTP/AVP 107\r\nc=IN IP6 2001:db8::1\r\na=rtpmap:107 H263-1998/90000\r\n";
    let length = format!("Content-Length: {}", body.len());
    message(
        &[
            "INVITE sip:grace@[2001:db8::10] SIP/2.0",
            "To: sip:grace@[2001:db8::10]",
            "From: sip:ada@example.com;tag=724f04",
            "Via: SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKmult_ip_in_sdp-c4e8",
            "Call-ID: mult_ip_in_sdp@torture.example",
            "Contact: \"Ada\" <sip:ada@[2001:db8::9:1]>",
            "Max-Forwards: 70",
            "CSeq: 8912 INVITE",
            "Content-Type: application/sdp",
            &length,
        ],
        body,
    )
}

/// IPv4 addresses in IPv6 clothes.
fn ipv4_mapped_ipv6() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:ada@east.example.com;tag=d236d2",
            "Via: SIP/2.0/UDP [::ffff:192.0.2.10]:19823;branch=z9hG4bKipv4_mapped_ipv6-dad1",
            "Via: SIP/2.0/UDP [::ffff:192.0.2.2];branch=z9hG4bKipv4_mapped_ipv6-c4e8",
            "Call-ID: ipv4_mapped_ipv6@torture.example",
            "Contact: \"T. desk phone\" <sip:ted@[::ffff:192.0.2.2]>",
            "CSeq: 612 INVITE",
            "Max-Forwards: 70",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// The grammar of RFC 3261 gave an IPv6 address that ends in an IPv4 one a colon too many.
fn colons(address: &str) -> Vec<u8> {
    let start = format!("OPTIONS sip:grace@[{address}] SIP/2.0");
    let to = format!("To: sip:grace@[{address}]");
    message(
        &[
            &start,
            &to,
            "From: sip:ada@example.com;tag=6a9b3d",
            "Via: SIP/2.0/UDP lab1.east.example.com;branch=z9hG4bKcolons-c4e8",
            "Call-ID: colons@torture.example",
            "CSeq: 689 OPTIONS",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ],
        b"",
    )
}
