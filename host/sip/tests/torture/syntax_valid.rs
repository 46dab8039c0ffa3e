//! RFC 4475 §3.1.1: well-formed messages.

use super::{Case, Expected, SDP, SDP_LENGTH, bytes, message};

/// §3.1.1.1 to §3.1.1.13.
pub(crate) fn cases() -> Vec<Case> {
    let case = |section, name, bytes, expected| Case {
        section,
        name,
        bytes,
        expected,
    };
    use Expected::{Back, Forward};
    vec![
        case("3.1.1.1", "wsinv", wsinv(), Forward),
        case("3.1.1.2", "intmeth", intmeth(), Forward),
        case("3.1.1.3", "esc01", esc01(), Forward),
        case("3.1.1.4", "escnull", escnull(), Forward),
        case("3.1.1.5", "esc02", esc02(), Forward),
        case("3.1.1.6", "lwsdisp", lwsdisp(), Forward),
        case("3.1.1.7", "longreq", longreq(), Forward),
        case("3.1.1.8", "dblreq", dblreq(), Forward),
        case("3.1.1.9", "semiuri", semiuri(), Forward),
        case("3.1.1.10", "transports", transports(), Forward),
        case("3.1.1.11", "mpart01", mpart01(), Forward),
        case("3.1.1.12", "unreason", unreason(), Back),
        case("3.1.1.13", "noreason", noreason(), Back),
    ]
}

/// White space and folds wherever the grammar has them, compact names, odd capitals, leading zeros, escapes in quoted strings,
/// several values in a line, headers and parameters that nobody knows, an empty Subject.
fn wsinv() -> Vec<u8> {
    message(
        &[
            "INVITE sip:grace@lab.example.com;flavour=odd SIP/2.0",
            "tO  :",
            "  sip:grace@lab.example.com ;",
            "\ttag\t=  to-19ab",
            "fROM :   \"G. \\\\ \\\"H\\\"\"  <sip:ada@engine.example.net>",
            "   ;",
            "   tag = 77af",
            "mAx-fOrwards  :   0068",
            "cAll-iD:  wsinv.88f1@192.0.2.15",
            "cSeq :  0011",
            "   INVITE",
            "S  :",
            "v  :  SIP  /   2.0",
            "  /  UDP",
            "     192.0.2.15 ; branch = 471oldstyle",
            "x-wHaT-iS-tHiS  :  with \"unclosed?\" no: \"closed\"; and=more,",
            "    ,,%%; on a second line",
            "NoValueNorNeed: yes;;,,;;;",
            "v:  SIP  /  2.0 /  TCP    hop1.example.org  ;",
            "  branch  =   z9hG4bKfold1 , SIP / 2.0/UDP",
            "   192.0.2.201:5080 ;  received = 192.0.2.207  ; branch=z9hG4bKfold2",
            "rOUTE:",
            "  <sip:routes.example.com;lr;odd=value;bare>",
            "m : \"Has \\\"quotes\\\" and , ; inside\" <sip:ada@engine.example.net> ; strange =",
            "  \"va,lue\" ; q  = 0.20",
            "l :  0091",
            "cONTENT-tYPE  : application/sdp",
        ],
        SDP,
    )
}

/// Every character that a token, a user part, a password and a display name may have. The method is known to nobody.
fn intmeth() -> Vec<u8> {
    bytes(
        &[
            b"Frob-0123456789.!%*_+`'~ sip:a-_.!~*'()%2e&=+$,;?/b:p-_.!~*'()&=+$,w@example.com SIP/2.0",
            b"Via: SIP/2.0/TCP host-1.example.com:5066;branch=z9hG4bK-.!%66*_+`'~",
            b"To: \"Grace \xc3\xa9\xe2\x82\xac \\\x7f\\\xc2\\\"\" <sip:g_1-*.!~'()&=+$,;?/@example.com>",
            b"From: token1 !%*_+`'~ token2.- <sip:mundane@example.com>;a_%*!'~+`.-=\"$%^&\xc3\x9f\";tag=_t.!%*+`'~-1",
            b"Call-ID: im%Zx_w.!~*'+()<>:\\\"/[]?{}`@im\"th{o}d",
            b"CSeq: 1393 Frob-0123456789.!%*_+`'~",
            b"Max-Forwards: 255",
            b"Extension-.!%*_+`'~: \xe5\xb9\xb8\xe9\x81\x8b, anything at all",
            b"Content-Length: 0",
        ],
        b"",
    )
}

/// Escapes that are escapes: a user part that looks like a URI of its own, escaped reserved characters.
fn esc01() -> Vec<u8> {
    message(
        &[
            "INVITE sip:sip%3Agrace%40inner.example.com@example.com;o%74her=%41 SIP/2.0",
            "To: sip:%67r%61c%65@example.com",
            "From: <sip:two%20words@example.net>;tag=5358f7",
            "Max-Forwards: 87",
            "Call-ID: esc01@torture.example",
            "CSeq: 234234 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.15:5060;branch=z9hG4bKesc01-16a0",
            "Contact: <sip:grace@%68ost1.example.net;n%61me=v%61lue%25>",
            "Content-Type: application/sdp",
            SDP_LENGTH,
        ],
        SDP,
    )
}

/// Escaped zero bytes in URIs stay what they are: three characters.
fn escnull() -> Vec<u8> {
    message(
        &[
            "REGISTER sip:registrar.example.com SIP/2.0",
            "To: sip:zero-%00-zero@example.com",
            "From: sip:zero-%00-zero@example.com;tag=ba82bb",
            "Max-Forwards: 70",
            "Call-ID: escnull@torture.example",
            "CSeq: 14398234 REGISTER",
            "Via: SIP/2.0/UDP host5.example.com;branch=z9hG4bKescnull-d031",
            "Contact: <sip:%00@host5.example.com>",
            "Contact: <sip:%00%00@host5.example.com>",
            "L:0",
        ],
        b"",
    )
}

/// Per cent signs where nothing is escaped: a method, a display name, a tag. `RE%47ISTER` is not REGISTER.
fn esc02() -> Vec<u8> {
    message(
        &[
            "RE%47ISTER sip:registrar.example.com SIP/2.0",
            "To: \"%Z%45 100% sure\" <sip:shelf@example.com>",
            "From: \"%Z%45\" <sip:shelf@example.com>;tag=f232%zz%",
            "Call-ID: esc02.asdfnqwo34rq23i34jrjasdcnl23nrlknsdf",
            "Via: SIP/2.0/TCP host.example.com;branch=z9hG4bK209%fzsnel234",
            "CSeq: 29344 RE%47ISTER",
            "Max-Forwards: 70",
            "Contact: <sip:one@host1.example.com>",
            "C%6Fntact: <sip:two@host2.example.com>",
            "Contact: <sip:three@host3.example.com>",
            "l: 0",
        ],
        b"",
    )
}

/// No space between display name and `<`.
fn lwsdisp() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: ada<sip:ada@example.com>;tag=53ef71",
            "Max-Forwards: 70",
            "Call-ID: lwsdisp@torture.example",
            "CSeq: 60 OPTIONS",
            "Via: SIP/2.0/UDP lws.example.com;branch=z9hG4bKlwsdisp-ab2f",
            "l: 0",
        ],
        b"",
    )
}

/// Long names, values, parameters, and 34 Vias.
fn longreq() -> Vec<u8> {
    let uri = format!(
        "INVITE sip:user@example.com;{}=ending SIP/2.0",
        "a-parameter-that-goes-on".repeat(8)
    );
    let to = format!(
        "To: \"{}\" <sip:{}@example.net:6000;{}=v>",
        "a name that does not want to come to an end ".repeat(6),
        "long".repeat(60),
        "odd-parameter".repeat(12)
    );
    let from = format!(
        "From: sip:{}@{}example.com;tag={};{}=p",
        "caller-of-many-letters".repeat(6),
        "sub.".repeat(40),
        "0a1b2c3d4e".repeat(12),
        "parameter-of-from".repeat(10)
    );
    let call_id = format!("Call-ID: longreq-{}-end", "on-and-".repeat(40));
    let unknown = format!(
        "{}: {}",
        "Header-That-Goes-On-".repeat(12),
        "value that goes on;".repeat(20)
    );
    let contact = format!(
        "Contact: <sip:{}@host5.example.net>",
        "everlasting".repeat(30)
    );
    let mut lines = vec![
        uri,
        to,
        from,
        call_id,
        "CSeq: 3882340 INVITE".into(),
        unknown,
    ];
    for hop in (1..=34).rev() {
        let name = if hop % 2 == 0 { "v" } else { "Via" };
        let branch = "branching".repeat(28);
        lines.push(format!(
            "{name}: SIP/2.0/TCP sip{hop}.example.com;branch=z9hG4bK{branch}{hop}"
        ));
    }
    lines.extend([
        "Max-Forwards: 70".to_owned(),
        contact,
        "Content-Type: application/sdp".into(),
        SDP_LENGTH.into(),
    ]);
    message(&lines.iter().map(String::as_str).collect::<Vec<_>>(), SDP)
}

/// A second request behind the end of the first one in the same datagram: noise.
fn dblreq() -> Vec<u8> {
    let mut first = message(
        &[
            "REGISTER sip:example.com SIP/2.0",
            "To: sip:ada@example.com",
            "From: sip:ada@example.com;tag=799776",
            "Max-Forwards: 8",
            "I: dblreq@torture.example",
            "Contact: sip:ada@host.example.com",
            "CSeq: 8 REGISTER",
            "Via: SIP/2.0/UDP 192.0.2.125;branch=z9hG4bKdblreq-a3fa",
            "Content-Length: 0",
        ],
        b"",
    );
    first.extend(message(
        &[
            "",
            "INVITE sip:grace@example.com SIP/2.0",
            "t: sip:grace@example.com",
            "From: sip:caller@example.net;tag=1f9d3e",
            "Max-Forwards: 8",
            "Call-ID: dblreq@torture.example",
            "CSeq: 8 INVITE",
            "Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKdblreq-951e",
            SDP_LENGTH,
        ],
        SDP,
    ));
    first
}

/// `;` in the user part belongs to the user part.
fn semiuri() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:desk;floor=3%40tower@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: sip:caller@example.org;tag=68e967",
            "Max-Forwards: 3",
            "Call-ID: semiuri@torture.example",
            "CSeq: 8 OPTIONS",
            "Accept: application/sdp, application/pkcs7-mime,",
            "        multipart/mixed, multipart/signed",
            "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKsemiuri-ce6c",
            "l: 0",
        ],
        b"",
    )
}

/// Vias of every transport, one of them nobody knows.
fn transports() -> Vec<u8> {
    message(
        &[
            "OPTIONS sip:grace@example.com SIP/2.0",
            "To: sip:grace@example.com",
            "From: <sip:caller@example.com>;tag=2cc50d",
            "Max-Forwards: 70",
            "Call-ID: transports@torture.example",
            "Accept: application/sdp",
            "CSeq: 60 OPTIONS",
            "Via: SIP/2.0/UDP t1.example.com;branch=z9hG4bKtransports-3d5b",
            "Via: SIP/2.0/SCTP t2.example.com;branch=z9hG4bKtransports-3040",
            "Via: SIP/2.0/TLS t3.example.com;branch=z9hG4bKtransports-2694",
            "Via: SIP/2.0/PIGEON t4.example.com;branch=z9hG4bKtransports-85f9",
            "Via: SIP/2.0/TCP t5.example.com;branch=z9hG4bKtransports-470f",
            "l: 0",
        ],
        b"",
    )
}

/// A body in two parts, the second of bytes that are no text, a line end and a zero among them.
fn mpart01() -> Vec<u8> {
    let mut body = b"--next\r\nContent-Type: text/plain\r\n\r\nHello\r\n--next\r\n\
        Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        .to_vec();
    body.extend(0..=255);
    body.extend_from_slice(b"0\x82\r\n\r\nINVITE sip:x SIP/2.0\r\n\r\n\xff\r\n--next--\r\n");
    let length = format!("Content-Length: {}", body.len());
    message(
        &[
            "MESSAGE sip:grace@example.com SIP/2.0",
            "Via: SIP/2.0/UDP 192.0.2.70:5070;branch=z9hG4bKmpart01-48d4;rport",
            "Max-Forwards: 70",
            "Route: <sip:routes.example.com;lr>",
            "Identity: c2lnbmVkLCBzZWFsZWQsIGRlbGl2ZXJlZA==",
            "Contact: <sip:ada@192.0.2.70:5070>",
            "To: <sip:grace@example.com>",
            "From: <sip:ada@example.com>;tag=c9c893",
            "Call-ID: mpart01@torture.example",
            "CSeq: 1 MESSAGE",
            "Content-Type: multipart/mixed;boundary=next",
            &length,
        ],
        &body,
    )
}

/// A reason phrase that is free text, not only in ASCII.
fn unreason() -> Vec<u8> {
    bytes(
        &[
            b"SIP/2.0 200 1 + 1 = \xe4\xba\x8c; \xc3\xa7a va, \xce\xba\xce\xb1\xce\xbb\xce\xac!",
            b"{VIA}",
            b"Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKunreason-0e80",
            b"Call-ID: unreason@torture.example",
            b"CSeq: 35 INVITE",
            b"From: sip:caller@example.com;tag=3ae2f7",
            b"To: sip:grace@example.edu;tag=14512f",
            b"Content-Length: 91",
            b"Content-Type: application/sdp",
            b"Contact: <sip:grace@host198.example.com>",
        ],
        SDP,
    )
}

/// No reason phrase at all, only the space before it.
fn noreason() -> Vec<u8> {
    message(
        &[
            "SIP/2.0 100 ",
            "{VIA}",
            "Via: SIP/2.0/UDP 192.0.2.15;branch=z9hG4bKnoreason-697d",
            "Call-ID: noreason@torture.example",
            "CSeq: 35 INVITE",
            "From: <sip:caller@example.com>;tag=39707d",
            "To: <sip:grace@example.edu>;tag=dd7aa1",
            "Content-Length: 0",
            "Contact: <sip:grace@host105.example.com>",
        ],
        b"",
    )
}
