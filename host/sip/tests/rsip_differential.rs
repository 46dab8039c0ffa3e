//! Our reading of a message beside that of `rsip` 0.4, as a second opinion.
//!
//! Where the two differ, a row below names the fault, shows a message that has it, and pins which
//! facts come out differently. The test fails when a difference appears that is not pinned, and
//! also when a pinned one goes away: a new `rsip` is then to be looked at again.

#[path = "rsip_differential/ours.rs"]
mod ours;
#[path = "rsip_differential/theirs.rs"]
mod theirs;

use std::collections::{BTreeMap, BTreeSet};

/// What a message says, by the name of the fact. `None`: the message is refused.
type Facts = Option<BTreeMap<&'static str, String>>;

/// A message and the facts in which `rsip` differs; `accepted` when only one of the two takes it.
struct Row {
    name: &'static str,
    message: Vec<u8>,
    differs: &'static [&'static str],
}

#[test]
fn both_agree_on_plain_messages() {
    check(&[
        row("request", &request(&[]), &[]),
        row("response", RESPONSE, &[]),
        row("body", &with_body("v=0\r\n"), &[]),
        row(
            "quoted display name",
            &request(&[(
                "<sip:alice@a.example>",
                "\"Alice, A.\" <sip:alice@a.example>",
            )]),
            &[],
        ),
        row(
            "unknown header",
            &request(&[("Max-Forwards: 70", "X-New: a\r\nMax-Forwards: 70")]),
            &[],
        ),
        row(
            "two Vias in two headers",
            &request(&[(
                "Max-Forwards: 70",
                "Via: SIP/2.0/TCP b.example\r\nMax-Forwards: 70",
            )]),
            &[],
        ),
        row(
            "no Max-Forwards",
            &request(&[("Max-Forwards: 70\r\n", "")]),
            &[],
        ),
        row(
            "known status with its own words",
            &RESPONSE.replace("200 OK", "299 Fine"),
            &[],
        ),
        row(
            "port and transport",
            &request(&[(
                "sip:bob@b.example",
                "sip:bob@b.example:5070;transport=TCP;lr",
            )]),
            &[],
        ),
        row(
            "semicolon in the user",
            &request(&[("sip:bob@b.example", "sip:bob;x=1@b.example")]),
            &[],
        ),
        row("no start line", "Via: SIP/2.0/UDP a.example\r\n\r\n", &[]),
        row(
            "another protocol",
            "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            &[],
        ),
    ]);
}

#[test]
fn requests_that_rsip_refuses() {
    const REFUSED: &[&str] = &["accepted"];
    check(&[
        row(
            "1: unknown method",
            &request(&[("OPTIONS", "NEWMETHOD")]),
            REFUSED,
        ),
        row(
            "2: IPv6 in the request URI",
            &request(&[("sip:bob@b.example", "sip:[2001:db8::1]")]),
            REFUSED,
        ),
        row(
            "3: dotted user with a password",
            &request(&[("sip:bob@b.example", "sip:bob.b:secret@b.example")]),
            REFUSED,
        ),
        row(
            "4: semicolon and dot in the user",
            &request(&[("sip:bob@b.example", "sip:bob;x=u%40b.example@b.example")]),
            REFUSED,
        ),
        row(
            "5: parameter with a colon",
            &request(&[(
                "sip:bob@b.example",
                "sip:bob@b.example;gr=urn:uuid:f81d4fae",
            )]),
            REFUSED,
        ),
        row(
            "6: unknown transport",
            &request(&[("sip:bob@b.example", "sip:bob@b.example;transport=foo")]),
            REFUSED,
        ),
        row(
            "7: tel",
            &request(&[("sip:bob@b.example", "tel:+15551234567")]),
            REFUSED,
        ),
        row(
            "8: folded header",
            &request(&[("Max-Forwards: 70", "Subject: a\r\n b\r\nMax-Forwards: 70")]),
            REFUSED,
        ),
        row(
            "8: space before the colon",
            &request(&[("Max-Forwards:", "Max-Forwards :")]),
            REFUSED,
        ),
        row(
            "8: line ends before the message",
            &format!("\r\n\r\n{}", request(&[])),
            REFUSED,
        ),
        row(
            "8: bare line feeds",
            &request(&[]).replace("\r\n", "\n"),
            REFUSED,
        ),
        bytes("14: a byte outside UTF-8", latin1(), REFUSED),
        row(
            "15: another version",
            &request(&[("sip:bob@b.example SIP/2.0", "sip:bob@b.example SIP/7.0")]),
            REFUSED,
        ),
    ]);
}

#[test]
fn messages_that_rsip_takes_and_should_not() {
    const TAKEN: &[&str] = &["accepted"];
    check(&[
        row(
            "12: no empty line",
            request(&[]).trim_end_matches("\r\n"),
            TAKEN,
        ),
        row(
            "12: body shorter than Content-Length",
            &request(&[("Content-Length: 0", "Content-Length: 5")]),
            TAKEN,
        ),
        row(
            "negative Content-Length",
            &request(&[("Content-Length: 0", "Content-Length: -1")]),
            TAKEN,
        ),
        row(
            "two Call-IDs",
            &request(&[("Call-ID: 1", "Call-ID: 1\r\nCall-ID: 2")]),
            TAKEN,
        ),
        row(
            "Max-Forwards above 255",
            &request(&[("Max-Forwards: 70", "Max-Forwards: 300")]),
            &["max forwards"],
        ),
        row(
            "CSeq of another method",
            &request(&[("1 OPTIONS", "1 INVITE")]),
            TAKEN,
        ),
        row(
            "no Via",
            &request(&[("Via: SIP/2.0/UDP a.example:5070;branch=z9hG4bK1\r\n", "")]),
            TAKEN,
        ),
    ]);
}

#[test]
fn messages_that_rsip_reads_differently() {
    check(&[
        row(
            "1: methods without case",
            &request(&[("OPTIONS", "options")]),
            &["bytes", "cseq", "start"],
        ),
        row(
            "2: IPv6 in Via",
            &request(&[("UDP a.example:5070", "UDP [2001:db8::1]:5070")]),
            &["via branch", "via host", "via port"],
        ),
        row(
            "3: dotted user",
            &request(&[("sip:bob@b.example", "sip:bob.b@b.example")]),
            &["uri host", "uri user"],
        ),
        row(
            "4: headers in the request URI",
            &request(&[("sip:bob@b.example", "sip:bob@b.example?Subject=x")]),
            &["uri host"],
        ),
        row(
            "5: received is IPv6",
            &request(&[(";branch", ";received=2001:db8::1;branch")]),
            &["via branch", "via received"],
        ),
        row(
            "5: quoted parameter",
            &request(&[(">;tag=1", ">;x=\"a;b\";tag=1")]),
            &["from tag", "from uri"],
        ),
        row(
            "5: instance in Contact",
            &request(&[(
                "Max-Forwards: 70",
                "Contact: <sip:a.example>;+sip.instance=\"<urn:uuid:1>\"\r\nMax-Forwards: 70",
            )]),
            &["contact uri"],
        ),
        row(
            "9: compact names",
            &request(&[("Via:", "v:"), ("Call-ID:", "i:"), ("From:", "f:")]),
            &[
                "call id",
                "from tag",
                "from uri",
                "names",
                "via branch",
                "via count",
                "via host",
                "via port",
            ],
        ),
        row(
            "10: list of Vias",
            &request(&[("z9hG4bK1", "z9hG4bK1, SIP/2.0/TCP b.example")]),
            &["via count"],
        ),
        row(
            "11: status with two words",
            &RESPONSE.replace("200 OK", "404 Not Found"),
            &["bytes", "start"],
        ),
        row(
            "11: known status with other words",
            &RESPONSE.replace("200 OK", "200 Fine"),
            &["bytes", "start"],
        ),
        row(
            "12: bytes behind the body",
            &format!("{}more", request(&[])),
            &["body", "bytes"],
        ),
        bytes("13: binary body", binary_body(), &["bytes"]),
        row(
            "6: spelling of the transport",
            &request(&[("sip:bob@b.example", "sip:bob@b.example;transport=tcp")]),
            &["bytes"],
        ),
        row(
            "15: a version of 2",
            &request(&[("sip:bob@b.example SIP/2.0", "sip:bob@b.example SIP/2.7")]),
            &["bytes"],
        ),
        row(
            "16: lr=on",
            &request(&[("sip:bob@b.example", "sip:b.example;lr=on")]),
            &["uri loose"],
        ),
        row(
            "16: spelling of names",
            &request(&[("Call-ID:", "CALL-ID:")]),
            &["bytes"],
        ),
        row(
            "space around values",
            &request(&[("Call-ID: 1", "Call-ID:1 ")]),
            &["bytes", "call id"],
        ),
    ]);
}

/// Row 2: what `rsip` writes for an IPv6 address is no URI.
#[test]
fn ipv6_uris_of_rsip_lack_their_brackets() {
    let host = rsip::Host::from(std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
    let uri = rsip::Uri {
        scheme: Some(rsip::Scheme::Sip),
        host_with_port: host.into(),
        ..rsip::Uri::default()
    };
    assert_eq!(uri.to_string(), "sip:::1");
    assert!(portcullis_sip::Uri::parse(uri.to_string().as_bytes()).is_err());
}

/// Row 17: tags and branches that `rsip` makes up are random, so a stateless host cannot use them.
#[test]
fn tags_and_branches_of_rsip_are_random() {
    assert_ne!(rsip::param::Tag::default(), rsip::param::Tag::default());
    assert_ne!(
        rsip::param::Branch::default(),
        rsip::param::Branch::default()
    );
}

const RESPONSE: &str = "SIP/2.0 200 OK\r\n\
    Via: SIP/2.0/UDP a.example;branch=z9hG4bK1\r\n\
    From: <sip:alice@a.example>;tag=1\r\n\
    To: <sip:bob@b.example>;tag=2\r\n\
    Call-ID: 1\r\n\
    CSeq: 1 OPTIONS\r\n\
    Content-Length: 0\r\n\r\n";

/// A plain request with these parts replaced.
fn request(replacements: &[(&str, &str)]) -> String {
    let plain = "OPTIONS sip:bob@b.example SIP/2.0\r\n\
        Via: SIP/2.0/UDP a.example:5070;branch=z9hG4bK1\r\n\
        Max-Forwards: 70\r\n\
        From: <sip:alice@a.example>;tag=1\r\n\
        To: <sip:bob@c.example>\r\n\
        Call-ID: 1\r\n\
        CSeq: 1 OPTIONS\r\n\
        Content-Length: 0\r\n\r\n";
    replacements
        .iter()
        .fold(plain.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from:?} is not there to be replaced");
            text.replace(from, to)
        })
}

fn with_body(body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    request(&[("Content-Length: 0", &length)]) + body
}

fn binary_body() -> Vec<u8> {
    let mut message = request(&[("Content-Length: 0", "Content-Length: 3")]).into_bytes();
    message.extend(b"\x00\xff\xfe");
    message
}

fn latin1() -> Vec<u8> {
    let message = request(&[("<sip:alice", "\"Ren?\" <sip:alice")]);
    message
        .bytes()
        .map(|byte| if byte == b'?' { 0xe9 } else { byte })
        .collect()
}

fn row(name: &'static str, message: &str, differs: &'static [&'static str]) -> Row {
    bytes(name, message.as_bytes().to_vec(), differs)
}

fn bytes(name: &'static str, message: Vec<u8>, differs: &'static [&'static str]) -> Row {
    Row {
        name,
        message,
        differs,
    }
}

fn check(rows: &[Row]) {
    let wrong: Vec<String> = rows.iter().filter_map(mismatch).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is not as the row says.
fn mismatch(row: &Row) -> Option<String> {
    let (ours, theirs) = (ours::read(&row.message), theirs::read(&row.message));
    let found = differences(&ours, &theirs);
    (found != row.differs).then(|| {
        format!(
            "{}: pinned {:?}, found {found:?}\n  ours: {ours:?}\n  rsip: {theirs:?}",
            row.name, row.differs
        )
    })
}

fn differences(ours: &Facts, theirs: &Facts) -> Vec<&'static str> {
    let (Some(ours), Some(theirs)) = (ours, theirs) else {
        return if ours.is_some() == theirs.is_some() {
            vec![]
        } else {
            vec!["accepted"]
        };
    };
    let names: BTreeSet<&'static str> = ours.keys().chain(theirs.keys()).copied().collect();
    let differs = |name: &&'static str| ours.get(name) != theirs.get(name);
    names.into_iter().filter(differs).collect()
}
