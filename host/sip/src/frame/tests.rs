//! Streams of messages, in pieces of any size.

use proptest::prelude::*;

use super::*;
use crate::invariants;

const OPTIONS: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nVia: SIP/2.0/TCP b\r\nl: 4\r\n\r\nbody";

fn framer(bytes: &[u8]) -> Framer {
    let mut framer = Framer::new(&Limits::default());
    framer.push(bytes);
    framer
}

/// The messages of a stream, which must end in want of more.
fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut framer = framer(bytes);
    let mut messages = Vec::new();
    loop {
        match framer.next().unwrap() {
            Frame::Message(range) => messages.push(framer.bytes(range).to_vec()),
            Frame::Ping => {}
            Frame::Oversized { error, .. } => panic!("{error}"),
            Frame::NeedMore => return messages,
        }
    }
}

fn error(bytes: &[u8]) -> (Fault, Vec<u8>) {
    let mut framer = framer(bytes);
    let error = framer.next().unwrap_err();
    assert_eq!(framer.next(), Err(error.clone()), "an error stays");
    (error.error.fault, framer.bytes(error.readable).to_vec())
}

/// The fault and the reduced head of a message above a limit, with whole messages in front of it and behind it. Chunks make no
/// difference.
fn oversized(message: &[u8]) -> (Fault, String) {
    let stream = [OPTIONS, message, OPTIONS, message, b"\r\n", OPTIONS].concat();
    let mut heads = Vec::new();
    for chunk in [stream.len(), 4_096, 1_000, 7] {
        let mut framer = Framer::new(&Limits::default());
        let mut framed = 0;
        for bytes in stream.chunks(chunk) {
            framer.push(bytes);
            loop {
                match framer.next().unwrap() {
                    Frame::Message(range) => {
                        assert_eq!(framer.bytes(range), OPTIONS);
                        framed += 1;
                    }
                    Frame::Oversized { head, error } => {
                        let head = String::from_utf8(framer.bytes(head).to_vec()).unwrap();
                        heads.push((error.fault, head));
                    }
                    Frame::Ping => panic!("there is none"),
                    Frame::NeedMore => break,
                }
            }
            assert!(framer.buffer.len() < 2 * (65_535 + chunk));
        }
        assert_eq!((framed, framer.pending()), (3, 0), "{chunk}");
    }
    assert_eq!(heads.len(), 8);
    assert!(heads.iter().all(|head| *head == heads[0]));
    heads.swap_remove(0)
}

#[test]
fn messages_are_parted_by_content_length() {
    let stream = [OPTIONS, b"\r\n", OPTIONS, OPTIONS, b"\n\n", &OPTIONS[..20]].concat();
    assert_eq!(messages(&stream), [OPTIONS, OPTIONS, OPTIONS]);
}

#[test]
fn two_single_line_ends_are_no_ping_when_time_has_passed_between() {
    let mut framer = framer(b"\r\n");
    for _ in 0..2 {
        assert_eq!(framer.next(), Ok(Frame::NeedMore));
        assert!(framer.holds_line_end());
        framer.pass_line_end();
        assert_eq!((framer.holds_line_end(), framer.pending()), (false, 0));
        framer.push(b"\r\n");
    }
    framer.pass_line_end();
    framer.push(&OPTIONS[..9]);
    framer.pass_line_end();
    assert_eq!((framer.next(), framer.pending()), (Ok(Frame::NeedMore), 9));
}

#[test]
fn content_length_may_be_folded_and_full() {
    let message = b"OPTIONS sip:a SIP/2.0\r\nCONTENT-Length \t:\r\n 0002\r\n\r\nok";
    assert_eq!(messages(message), [message]);
}

#[test]
fn bare_line_feeds_frame_as_well_when_they_are_alone() {
    let message = b"OPTIONS sip:a SIP/2.0\nl: 2\n\n\r\n";
    assert_eq!(messages(message), [message]);
}

#[test]
fn a_double_line_end_is_a_ping_and_a_single_one_nothing() {
    let mut framer = framer(b"\r\n\r\n\r\n");
    assert_eq!(framer.next(), Ok(Frame::Ping));
    assert_eq!(framer.next(), Ok(Frame::NeedMore));
    assert_eq!(framer.pending(), 2);
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(Frame::Ping));
    framer.push(b"\r\n");
    assert_eq!(framer.next(), Ok(Frame::NeedMore));
    framer.push(OPTIONS);
    assert!(matches!(framer.next(), Ok(Frame::Message(_))));
    assert_eq!(framer.next(), Ok(Frame::NeedMore));
    assert_eq!(framer.pending(), 0);
}

#[test]
fn a_stream_without_usable_content_length_ends_with_its_headers_readable() {
    let head = |length: &str| format!("OPTIONS sip:a SIP/2.0\r\nv: b\r\n{length}\r\n").into_bytes();
    for (length, fault) in [
        ("", Fault::Missing(HeaderName::ContentLength)),
        ("l: -1\r\n", Fault::ContentLength),
        (
            "l: 1\r\nContent-Length: 1\r\n",
            Fault::Duplicate(HeaderName::ContentLength),
        ),
        ("l: 0x10\r\n", Fault::ContentLength),
        ("l: 2147483648\r\n", Fault::ContentLength),
        ("l: 1048560\r\n", Fault::MessageTooLong),
        ("l: 2147483647\r\n", Fault::MessageTooLong),
    ] {
        let bytes = head(length);
        let stream = [&bytes[..], b"more"].concat();
        assert_eq!(error(&stream), (fault, bytes), "{length:?}");
    }
}

#[test]
fn mixed_line_ends_end_the_stream() {
    let line = b"OPTIONS sip:a SIP/2.0\r\nl: 0\n";
    let stream = [&line[..], b"\r\n"].concat();
    assert_eq!(error(&stream), (Fault::LineEnd, line.to_vec()));
    assert_eq!(
        error(b"OPTIONS sip:a SIP/2.0\nl: 0\n\r\n").0,
        Fault::LineEnd
    );
}

#[test]
fn other_protocols_are_told_at_their_first_line() {
    assert_eq!(error(b"GET / HTTP/1.1\r\n"), (Fault::NotSip, Vec::new()));
    assert_eq!(error(b"\r\n\rgarbage\n"), (Fault::NotSip, Vec::new()));
    assert_eq!(error(&[b'x'; 10_000]), (Fault::NotSip, Vec::new()));
    let method = [&[b'x'; 10_000][..], b" sip:a SIP/2.0\r\n"].concat();
    assert_eq!(error(&method), (Fault::NotSip, Vec::new()));
}

#[test]
fn a_long_start_line_is_framed_and_what_follows_is_not_lost() {
    let uri = [b"OPTIONS sip:", &[b'x'; 10_000][..]].concat();
    let long = [&uri[..], b" SIP/2.0\r\nl: 2\r\n\r\nok"].concat();
    assert_eq!(
        messages(&[&long[..], OPTIONS].concat()),
        [&long[..], OPTIONS]
    );
    assert_eq!(
        error(&[&uri[..], b" HTTP/1.1\r\n"].concat()),
        (Fault::NotSip, Vec::new())
    );
}

/// What an answer needs, and Content-Length in several lines.
const NEEDED: &str = "Via: SIP/2.0/TCP b;branch=z9hG4bK1\r\nf: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\n\
                      i: 1\r\nCSeq: 1 OPTIONS\r\nContent-Length:\r\n 4\r\n";

#[test]
fn a_start_line_above_the_message_limit_is_shortened_and_the_stream_goes_on() {
    let at_the_limit = 65_500..65_540;
    for length in at_the_limit.chain([131_000, 131_072, 500_000, 1_000_000]) {
        let uri = "x".repeat(length);
        for (start, end) in [("OPTIONS sip:", " SIP/2.0"), ("SIP/2.0 200 ", "")] {
            let message = format!("{start}{uri}{end}\r\n{NEEDED}\r\nbody");
            let (fault, head) = oversized(message.as_bytes());
            assert_eq!(fault, Fault::StartLineTooLong);
            let (line, fields) = head.split_once("\r\n").unwrap();
            assert!(line.starts_with(start) && line.ends_with(&format!("xx{end}")));
            assert!((8_192..9_000).contains(&line.len()), "{}", line.len());
            assert_eq!(fields, format!("{NEEDED}\r\n"));
        }
    }
}

#[test]
fn white_space_behind_the_version_does_not_push_it_out_of_a_shortened_start_line() {
    for blanks in [60_000, 65_536, 200_000] {
        for (method, line_end) in [("OPTIONS", "\r\n"), ("MESSAGE", "\n")] {
            let uri = "x".repeat(9_000);
            let blanks = " \t".repeat(blanks / 2);
            let message = format!("{method} sip:{uri} SIP/2.0{blanks}\r\n{NEEDED}\r\nbody");
            let message = message.replace("\r\n", line_end);
            let (fault, head) = oversized(message.as_bytes());
            assert_eq!(fault, Fault::StartLineTooLong);
            let line = head.split_once(line_end).unwrap().0.trim_end();
            assert!(line.starts_with(method) && line.ends_with("xx SIP/2.0"));
            assert!(line.len() < 9_000, "{}", line.len());
        }
    }
}

#[test]
fn of_long_headers_what_an_answer_needs_is_kept_and_the_stream_goes_on() {
    let start = "OPTIONS sip:a SIP/2.0\r\n";
    let small = "X: 1\r\n".repeat(20_000);
    let folds = format!("X: 1\r\n{}", " fold\r\n".repeat(20_000));
    let no_name = format!("{}\r\n", "x".repeat(100_000));
    let large = format!("X: {}\r\n", "0".repeat(200_000));
    let large_via = format!("Via: {}\r\n {}\r\n", "0".repeat(40_000), "0".repeat(40_000));
    for field in [&small, &folds, &no_name, &large, &large_via] {
        let is_long_line = field == &no_name || field == &large || field == &large_via;
        let expected = match is_long_line {
            true => Fault::MessageTooLong,
            false => Fault::TooManyHeaders,
        };
        let whole = format!("{start}{NEEDED}\r\n");
        for message in [
            format!("{start}{NEEDED}{field}\r\nbody"),
            format!("{start}{field}{NEEDED}\r\nbody"),
            format!("{start}{field}{NEEDED}{field}\r\nbody"),
        ] {
            let (fault, head) = oversized(message.as_bytes());
            assert_eq!((fault, &head), (expected, &whole), "{}", &field[..10]);
        }
    }
    let message = format!("OPTIONS sip:a SIP/2.0\n{large}\n").replace('\r', "");
    let message = message.replacen('\n', "\nl:0\n", 1);
    assert_eq!(
        oversized(message.as_bytes()),
        (
            Fault::MessageTooLong,
            "OPTIONS sip:a SIP/2.0\nl:0\n\n".to_owned()
        )
    );
}

#[test]
fn more_header_lines_than_are_read_do_not_end_the_stream() {
    let start = "OPTIONS sip:a SIP/2.0\r\n";
    for line in ["X: 1\r\n", " f\r\n"] {
        let message = format!("{start}X:\r\n{}{NEEDED}\r\nbody", line.repeat(600));
        let (fault, head) = oversized(message.as_bytes());
        assert_eq!(fault, Fault::TooManyHeaders);
        assert_eq!(head, format!("{start}{NEEDED}\r\n"));
    }
}

#[test]
fn the_body_of_a_message_above_the_limit_is_skipped() {
    for length in [65_535, 66_000, 1_000_000] {
        let head = format!("OPTIONS sip:a SIP/2.0\r\nl: {length}\r\n\r\n");
        let message = format!("{head}{}", "x".repeat(length));
        assert_eq!(oversized(message.as_bytes()), (Fault::MessageTooLong, head));
    }
}

#[test]
fn a_stream_ends_where_the_end_of_a_message_is_lost_or_too_far_away() {
    let start = "OPTIONS sip:a SIP/2.0\r\n";
    let no_length = NEEDED.replace("Content-Length", "X");
    let ends = |message: String, expected: Fault, readable: &str| {
        let (fault, bytes) = error(message.as_bytes());
        assert_eq!(
            (fault, String::from_utf8(bytes).unwrap()),
            (expected, readable.to_owned())
        );
    };
    // No end of the header section, and none of the start line.
    let large = "X: 1\r\n".repeat(200_000);
    let message = format!("{start}{NEEDED}{large}");
    let (fault, readable) = error(message.as_bytes());
    assert_eq!(fault, Fault::TooManyHeaders);
    assert!(readable.starts_with(format!("{start}{NEEDED}").as_bytes()));
    assert!(readable.len() < 1_000);
    let endless = format!("OPTIONS sip:{}", "x".repeat(1_200_000));
    ends(endless, Fault::StartLineTooLong, "");
    // Too much of what an answer needs.
    let (fault, readable) = error(format!("{start}{}", NEEDED.repeat(600)).as_bytes());
    assert_eq!(fault, Fault::TooManyHeaders);
    assert!(readable.len() > 32_768);
    // No Content-Length, two of them, and one that is too long to be kept.
    let large = format!("X: {}\r\n", "0".repeat(200_000));
    ends(
        format!("{start}{no_length}{large}\r\n"),
        Fault::Missing(HeaderName::ContentLength),
        &format!("{start}{}\r\n", no_length.replace("X:\r\n 4\r\n", "")),
    );
    ends(
        format!("{start}l: 4\r\n{large}l: 4\r\n\r\n"),
        Fault::Duplicate(HeaderName::ContentLength),
        &format!("{start}l: 4\r\nl: 4\r\n\r\n"),
    );
    for (name, colon) in [("l:", ""), ("Content-Length", " :")] {
        let spaces = " ".repeat(70_000);
        ends(
            format!("{start}{name}{spaces}{colon}4\r\nl: 0\r\n\r\n"),
            Fault::ContentLength,
            &format!("{start}l: 0\r\n\r\n"),
        );
    }
}

#[test]
fn bytes_that_were_searched_are_not_searched_again() {
    let mut framer = Framer::new(&Limits::default());
    let head = &OPTIONS[..OPTIONS.len() - 6];
    for (at, byte) in head.iter().enumerate() {
        framer.push(&[*byte]);
        assert_eq!(framer.next(), Ok(Frame::NeedMore));
        let State::Headers(lines) = framer.state else {
            panic!("the headers are not whole");
        };
        assert_eq!(lines.searched, at + 1);
    }
}

#[test]
fn the_buffer_does_not_grow_with_the_stream() {
    let mut framer = Framer::new(&Limits::default());
    let large = [
        b"OPTIONS sip:a SIP/2.0\r\nl: 60000\r\n\r\n",
        &[0; 60_000][..],
    ]
    .concat();
    let stream = [OPTIONS, &large[..]].concat();
    for chunk in stream.repeat(20).chunks(1_000) {
        framer.push(chunk);
        while framer.next().unwrap() != Frame::NeedMore {}
        assert!(framer.buffer.len() < 130_000);
    }
    assert_eq!(framer.pending(), 0);
    assert!(framer.space().capacity() <= IDLE_CAPACITY);
}

proptest! {
    #[test]
    fn chunks_do_not_matter(stream in stream(), chunk in 1usize..200) {
        invariants::framer(&stream, chunk);
    }
}

/// Messages, line ends and rubbish behind one another.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => Just(OPTIONS.to_vec()),
        2 => Just(b"SIP/2.0 200 OK\nContent-Length: 3\nSubject: a\n b\n\nabc".to_vec()),
        2 => "[\r\n]{0,6}".prop_map(String::into_bytes),
        1 => prop::sample::subsequence(OPTIONS.to_vec(), 0..OPTIONS.len()),
        1 => "(l|Via|X)[: ]{1,2}[0-9]{1,5}\r?\n".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}
