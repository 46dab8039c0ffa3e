//! What the scanner finds and what it refuses, message by message.

use crate::via;

use super::{
    Fault, Framing, HeaderName, Index, Limits, LineEnd, Message, ScanError, StartLine, scan,
};

const REQUIRED: &str =
    "Via: SIP/2.0/UDP a\r\nFrom: b\r\nTo: c\r\nCall-ID: d\r\nCSeq: 1 OPTIONS\r\n";

fn request(headers: &str, body: &str) -> String {
    format!("OPTIONS sip:e SIP/2.0\r\n{REQUIRED}{headers}\r\n{body}")
}

fn read(bytes: &[u8], framing: Framing) -> (Result<(), ScanError>, Index) {
    let mut index = Index::default();
    let result = scan(bytes, framing, &Limits::default(), &mut index);
    (result, index)
}

fn fault(text: &str) -> Option<Fault> {
    let (result, _) = read(text.as_bytes(), Framing::Datagram);
    result.err().map(|error| error.fault)
}

fn header_fault(headers: &str) -> Option<Fault> {
    fault(&request(headers, ""))
}

#[test]
fn a_request_is_read_in_full() {
    let text = request("m: <sip:f>\r\nl : 2\r\nX-New: \r\n", "hi");
    let (result, index) = read(text.as_bytes(), Framing::Datagram);
    assert_eq!(result, Ok(()));
    let message = Message::new(text.as_bytes(), &index);
    let StartLine::Request { method, uri, .. } = message.start_line() else {
        panic!("not a request");
    };
    assert_eq!((method, uri), (&b"OPTIONS"[..], &b"sip:e"[..]));
    assert_eq!(&text[message.uri_range().unwrap()], "sip:e");
    assert!(message.start_line().is_sip_2());
    assert_eq!(message.body(), b"hi");
    assert_eq!(&text[message.header_end()..], "\r\nhi");
    assert_eq!(message.content_length(), Some(2));
    assert_eq!(message.max_forwards(), None);
    assert_eq!(message.cseq().unwrap().number, 1);
    assert_eq!(message.fields().len(), 8);

    let contact = message.header(HeaderName::Contact).unwrap();
    assert_eq!(
        (contact.raw_name, contact.value),
        (&b"m"[..], &b"<sip:f>"[..])
    );
    assert_eq!(&text[contact.line], "m: <sip:f>\r\n");
    let length = message.by_name("content-length").next().unwrap();
    assert_eq!(
        (length.raw_name, &text[length.value_range]),
        (&b"l"[..], "2")
    );
    assert_eq!(message.by_name("x-nEW").next().unwrap().value, b"");
    assert_eq!(message.by_name("x-old").count(), 0);
}

#[test]
fn a_response_needs_little() {
    let text = b"SIP/2.0 404 Not \xff Found\r\nv: SIP/2.0/UDP a\r\n\r\n";
    let (result, index) = read(text, Framing::Datagram);
    assert_eq!(result, Ok(()));
    let start = Message::new(text, &index).start_line();
    let StartLine::Response { code, reason, .. } = start else {
        panic!("not a response");
    };
    assert_eq!((code, reason), (404, &b"Not \xff Found"[..]));
    assert_eq!(fault("SIP/2.0 200\r\nv: a\r\n\r\n"), None);
    assert_eq!(
        fault("SIP/2.0 200 OK\r\n\r\n"),
        Some(Fault::Missing(HeaderName::Via))
    );
    for code in ["99", "4294967301", "700", "20x", "", "099"] {
        let text = format!("SIP/2.0 {code} OK\r\nv: a\r\n\r\n");
        assert_eq!(fault(&text), Some(Fault::StatusLine), "{code:?}");
    }
}

#[test]
fn folds_belong_to_their_header() {
    let text = request("Subject: a\r\n\tb \r\n  c\r\nTo2: x\r\n", "");
    let (result, index) = read(text.as_bytes(), Framing::Datagram);
    assert_eq!(result, Ok(()));
    let message = Message::new(text.as_bytes(), &index);
    let subject = message.header(HeaderName::Subject).unwrap();
    assert_eq!(subject.value, b"a\r\n\tb \r\n  c");
    assert_eq!(&*subject.unfolded(), b"a b c");
    assert_eq!(message.by_name("To2").count(), 1);
}

#[test]
fn line_ends_before_the_message_are_no_part_of_it() {
    let text = request("", "");
    let received = format!("\r\n\r\n\n{text}");
    let (result, index) = read(received.as_bytes(), Framing::Datagram);
    assert_eq!(result, Ok(()));
    assert_eq!(
        Message::new(received.as_bytes(), &index).bytes(),
        text.as_bytes()
    );
    assert_eq!(fault("\r\n\r\n"), Some(Fault::Empty));
    assert_eq!(fault(""), Some(Fault::Empty));
}

#[test]
fn bare_line_feeds_are_read_when_there_is_nothing_else() {
    let text = request("Subject: a\r\n b\r\nl: 2\r\n", "").replace("\r\n", "\n") + "\r\n";
    let (result, index) = read(text.as_bytes(), Framing::Datagram);
    assert_eq!(result, Ok(()));
    let message = Message::new(text.as_bytes(), &index);
    assert_eq!(message.line_end(), LineEnd::Lf);
    assert_eq!(message.body(), b"\r\n");
    assert_eq!(
        &*message.header(HeaderName::Subject).unwrap().unfolded(),
        b"a b"
    );
}

#[test]
fn mixed_line_ends_and_lone_returns_are_refused() {
    assert_eq!(
        header_fault("Subject: a\nRoute: <sip:x>\r\n"),
        Some(Fault::LineEnd)
    );
    assert_eq!(
        header_fault("Subject: a\rRoute: <sip:x>\r\n"),
        Some(Fault::LineEnd)
    );
    assert_eq!(header_fault("Subject: a\n b\r\n"), Some(Fault::LineEnd));
    assert_eq!(header_fault("Subject: a\r\n b\n"), Some(Fault::LineEnd));
    assert_eq!(header_fault("Subject: a\r\r\n"), Some(Fault::LineEnd));
    let lf = request("", "").replace("\r\n", "\n");
    assert_eq!(fault(&lf.replace("\n\n", "\n\r\n")), Some(Fault::LineEnd));
    assert_eq!(
        fault(&request("", "").replace("\r\n\r\n", "\r\n\n")),
        Some(Fault::LineEnd)
    );
}

#[test]
fn content_length_rules_the_body() {
    let (_, index) = read(
        request("l: 2\r\n", "hi and more").as_bytes(),
        Framing::Datagram,
    );
    let text = request("l: 2\r\n", "hi and more");
    let message = Message::new(text.as_bytes(), &index);
    assert_eq!(message.body(), b"hi");
    assert!(message.bytes().ends_with(b"\r\n\r\nhi"));
    assert_eq!(fault(&request("l: 3\r\n", "hi")), Some(Fault::BodyTooShort));
    assert_eq!(header_fault("l: -999\r\n"), Some(Fault::ContentLength));
    assert_eq!(header_fault("l:\r\n"), Some(Fault::ContentLength));
    assert_eq!(
        header_fault("l: 0\r\nContent-Length: 0\r\n"),
        Some(Fault::Duplicate(HeaderName::ContentLength))
    );

    let (result, _) = read(request("", "").as_bytes(), Framing::Stream);
    assert_eq!(
        result.unwrap_err().fault,
        Fault::Missing(HeaderName::ContentLength)
    );
    let (result, _) = read(request("l: 0\r\n", "").as_bytes(), Framing::Stream);
    assert_eq!(result, Ok(()));
}

#[test]
fn request_lines_keep_to_their_two_spaces() {
    let with = |line: &str| fault(&format!("{line}\r\n{REQUIRED}\r\n"));
    assert_eq!(with("OPTIONS sip:e SIP/7.0"), None);
    assert_eq!(with("OPTIONS sip:e sip/2.0"), None);
    assert_eq!(with("OPTIONS nobodyKnowsThisScheme:x SIP/2.0"), None);
    for line in [
        "OPTIONS  sip:e SIP/2.0",
        "OPTIONS sip:e  SIP/2.0",
        "OPTIONS sip:e SIP/2.0 ",
        "OPTIONS sip:e; lr SIP/2.0",
        "OPTIONS sip:e\tx SIP/2.0",
        "OPTIONS SIP/2.0",
        "OPTIONS  SIP/2.0",
        "OPTIONS sip:e SIP/2.0\r\n SIP/2.0",
    ] {
        assert_eq!(with(line), Some(Fault::RequestLine), "{line:?}");
    }
    for line in [
        "OPTIONS",
        "OPTIONS sip:e",
        "GET / HTTP/1.1",
        " OPTIONS sip:e SIP/2.0",
        "OPT/IONS sip:e SIP/2.0",
    ] {
        assert_eq!(with(line), Some(Fault::NotSip), "{line:?}");
    }
}

#[test]
fn a_faulty_message_still_gives_what_a_reply_needs() {
    let text = request("Max-Forwards: 300\r\n", "").replace("OPTIONS sip:e", "OPTIONS  sip:e; lr");
    let (result, index) = read(text.as_bytes(), Framing::Datagram);
    assert_eq!(
        result,
        Err(ScanError {
            fault: Fault::RequestLine,
            offset: 0
        })
    );
    let message = Message::new(text.as_bytes(), &index);
    for name in [
        HeaderName::Via,
        HeaderName::From,
        HeaderName::To,
        HeaderName::CallId,
    ] {
        assert!(message.header(name).is_some(), "{name:?}");
    }
    assert_eq!(message.cseq().unwrap().method, b"OPTIONS");
    assert!(matches!(
        message.start_line(),
        StartLine::Request {
            method: b"OPTIONS",
            uri: b"sip:e; lr",
            ..
        }
    ));
}

#[test]
fn numbers_and_single_headers_are_checked() {
    assert_eq!(
        header_fault("Max-Forwards: 4294967296\r\n"),
        Some(Fault::MaxForwards)
    );
    assert_eq!(header_fault("Max-Forwards: 256\r\n"), None);
    assert_eq!(header_fault("Max-Forwards: 0\r\n"), None);
    for header in ["f: x", "t: x", "i: x", "CSeq: 1 OPTIONS"] {
        let fault = header_fault(&format!("{header}\r\n"));
        assert!(
            matches!(fault, Some(Fault::Duplicate(_))),
            "{header}: {fault:?}"
        );
    }
    assert_eq!(
        header_fault("Via: x\r\nContact: a\r\nContact: b\r\nExpires: 1\r\nExpires: 2\r\n"),
        None
    );
    for line in REQUIRED.split_inclusive("\r\n") {
        let fault = fault(&request("", "").replace(line, ""));
        assert!(
            matches!(fault, Some(Fault::Missing(_))),
            "{line:?}: {fault:?}"
        );
    }
    let cseq = |value: &str| fault(&request("", "").replace("1 OPTIONS", value));
    assert_eq!(cseq("0009\r\n OPTIONS"), None);
    assert_eq!(cseq("4294967296 OPTIONS"), Some(Fault::CSeq));
    assert_eq!(cseq("1"), Some(Fault::CSeq));
    assert_eq!(cseq("1 INVITE"), Some(Fault::CSeqMethod));
    assert_eq!(cseq("1 options"), Some(Fault::CSeqMethod));
}

#[test]
fn header_lines_need_a_name_and_a_colon() {
    for header in [
        "no colon here",
        ": x",
        "two words: x",
        "a\x01b: x",
        "Name\r\n : x",
    ] {
        assert_eq!(
            header_fault(&format!("{header}\r\n")),
            Some(Fault::HeaderLine),
            "{header:?}"
        );
    }
    assert_eq!(
        header_fault("Subject \t : x\r\nd\u{e9}: y\r\nextensionHeader-!.%*+_`'~: \u{5927}\r\n"),
        None
    );
}

#[test]
fn a_message_that_stops_early_is_told() {
    let text = request("", "");
    assert_eq!(fault(&text[..text.len() - 2]), Some(Fault::NoEmptyLine));
    assert_eq!(fault(&text[..text.len() - 4]), Some(Fault::NoEmptyLine));
    assert_eq!(fault("OPTIONS sip:e SIP/2.0"), Some(Fault::NotSip));
}

#[test]
fn limits_stop_the_work() {
    let limits = Limits {
        message_bytes: 200,
        header_lines: 7,
        header_bytes: 30,
        start_line_bytes: 25,
    };
    let check = |text: &str| {
        let mut index = Index::default();
        let result = scan(text.as_bytes(), Framing::Datagram, &limits, &mut index);
        (result.err().map(|error| error.fault), index.len())
    };
    assert_eq!(check(&request("X: 1\r\nX: 2\r\n", "")), (None, 7));
    assert_eq!(
        check(&request("X: 1\r\nX: 2\r\nX: 3\r\n", "")),
        (Some(Fault::TooManyHeaders), 7)
    );
    let just = format!("X: {}\r\n", "x".repeat(25));
    assert_eq!(check(&request(&just, "")), (None, 6));
    let long = format!("X: {}\r\n", "x".repeat(26));
    assert_eq!(check(&request(&long, "")), (Some(Fault::HeaderTooLong), 5));
    // A response may bring back a Via that this host has lengthened.
    let line = |length: usize| format!("X: {}\r\n", "x".repeat(length - 5));
    let response = |line: &str| format!("SIP/2.0 200 OK\r\nVia: a\r\n{line}\r\n");
    assert_eq!(check(&response(&line(30 + via::ADDED))), (None, 2));
    assert_eq!(
        check(&response(&line(31 + via::ADDED))),
        (Some(Fault::HeaderTooLong), 1)
    );
    assert_eq!(
        check(&request("", &"x".repeat(200))),
        (Some(Fault::MessageTooLong), 5)
    );
    let start = request("", "").replace("sip:e", "sip:eeeeeeeeeeee");
    assert_eq!(check(&start), (Some(Fault::StartLineTooLong), 5));
    let folded = |folds| request(&format!("X: 1{}\r\n", "\r\n ".repeat(folds)), "");
    assert_eq!(check(&folded(7)), (None, 6));
    assert_eq!(check(&folded(8)), (Some(Fault::TooManyHeaders), 5));
    // Those of all headers are counted together.
    let two = request(&"X: 1\r\n 2\r\n 3\r\n 4\r\n 5\r\n".repeat(2), "");
    assert_eq!(check(&two), (Some(Fault::TooManyHeaders), 6));
}

#[test]
fn carriage_returns_alone_are_one_fault_however_many() {
    let text = request(&format!("X: {}1\r\n", "\r".repeat(9)), "");
    assert_eq!(fault(&text), Some(Fault::LineEnd));
    assert_eq!(fault(&text.replace("1\r\n", "\r\n")), Some(Fault::LineEnd));
    assert_eq!(fault(&text.replace("1\r\n", "\n")), Some(Fault::LineEnd));
}

#[test]
fn a_used_index_keeps_its_memory() {
    let many = request(&"X: 1\r\n".repeat(100), "");
    let mut index = Index::default();
    let limits = Limits::default();
    assert_eq!(
        scan(many.as_bytes(), Framing::Datagram, &limits, &mut index),
        Ok(())
    );
    let before = (index.entries.as_ptr(), index.entries.capacity());
    for text in [&request("", ""), &many] {
        assert_eq!(
            scan(text.as_bytes(), Framing::Datagram, &limits, &mut index),
            Ok(())
        );
    }
    assert_eq!((index.entries.as_ptr(), index.entries.capacity()), before);
}
