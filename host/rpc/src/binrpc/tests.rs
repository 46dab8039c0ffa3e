use std::borrow::Cow;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::{Call, Fault, MOST_REQUEST, Param, Reply, Rows, RowsForm, TooLarge, Value, invariants};

/// The packets of the description of the protocol, by hand.
const RELOAD: &[u8] = b"\xa1\x03\x1c\x12\x34\x56\x78\x91\x1apermissions.addressReload\0";
const COOKIE: u32 = 0x1234_5678;

fn call(method: &str, params: Vec<Param>) -> Call {
    Call {
        method: method.into(),
        params,
    }
}

fn parse(bytes: &[u8]) -> Packet<'_> {
    Packet::parse(bytes).unwrap().unwrap()
}

fn row(group: i64) -> Value<'static> {
    let item = [
        ("ip", Value::from("127.0.0.1")),
        ("port", 0.into()),
        ("tag", "NULL".into()),
    ];
    [
        ("table", Value::from(98)),
        ("group", group.into()),
        ("item", item.into()),
    ]
    .into()
}

#[test]
fn requests_are_read_and_written() {
    let packet = parse(RELOAD);
    assert_eq!((packet.kind, packet.cookie), (Kind::Request, COOKIE));
    let reload = call("permissions.addressReload", Vec::new());
    assert_eq!(packet.call(), Ok(reload.clone()));
    assert_eq!(request(COOKIE, &reload), RELOAD);
}

#[test]
fn replies_and_faults_are_written_as_kamailio_writes_them() {
    let write = |value: Value<'static>| reply(COOKIE, value.into(), MOST_REPLY).unwrap();
    assert_eq!(
        write("Reload OK".into()),
        b"\xa1\x13\x0c\x12\x34\x56\x78\x91\x0aReload OK\0"
    );
    assert_eq!(
        fault(COOKIE, &Fault::new(500, "ongoing reload")),
        b"\xa1\x33\x14\x12\x34\x56\x78\x20\x01\xf4\x91\x0fongoing reload\0"
    );
    let row = write(row(1));
    assert_eq!(
        row,
        b"\xa1\x13\x3e\x12\x34\x56\x78\x03\x65table\0\x10\x62\x65group\0\x10\x01\x55item\0\x03\x35ip\0\x91\x0a127.0.0.1\0\
          \x55port\0\x00\x45tag\0\x51NULL\0\x83\x83"
    );
}

#[test]
fn numbers_take_as_few_bytes_as_they_can() {
    let body = |value: Value<'static>| reply(0, value.into(), MOST_REPLY).unwrap()[4..].to_vec();
    for (number, bytes) in [
        (0, &b"\x00"[..]),
        (7, b"\x10\x07"),
        (255, b"\x10\xff"),
        (256, b"\x20\x01\x00"),
        (i64::from(i32::MAX), b"\x40\x7f\xff\xff\xff"),
        (-1, b"\x40\xff\xff\xff\xff"),
        // Beyond 32 bits kamcmd would show something else.
        (1 << 31, b"\x91\x0b2147483648\0"),
    ] {
        assert_eq!(body(Value::Int(number)), bytes, "{number}");
    }
    assert_eq!(body(Value::Double(1.5)), b"\x22\x05\xdc");
    assert_eq!(
        body(Value::Double(-0.001)),
        [&[0x82][..], &[0xff; 8]].concat()
    );
    assert_eq!(body(Value::Bool(true)), b"\x10\x01");
    assert_eq!(body(Value::Null), b"\x11\0");
}

#[test]
fn rows_are_records_or_one_structure_with_repeated_names() {
    let write = |form| {
        let rows = Rows::new(form, |each| (1..=2).try_for_each(|group| each(row(group))));
        let packet = reply(1, rows.into(), MOST_REPLY).unwrap();
        let body = parse(&packet).body.to_vec();
        (
            names(&body),
            body.iter().filter(|byte| **byte == 0x83).count(),
        )
    };
    let names = ["table", "group", "item", "ip", "port", "tag"].repeat(2);
    assert_eq!(write(RowsForm::Each), (names.join(" "), 4));
    assert_eq!(write(RowsForm::Repeated), (names.join(" "), 3));
    let nothing = |form| {
        reply(
            1,
            Rows::new(form, |_| ControlFlow::Continue(())).into(),
            MOST_REPLY,
        )
        .unwrap()
    };
    assert_eq!(nothing(RowsForm::Each), b"\xa1\x10\0\x01");
    assert_eq!(nothing(RowsForm::Repeated), b"\xa1\x10\x02\x01\x03\x83");
}

fn names(body: &[u8]) -> String {
    let names = Records::new(body).filter_map(|record| {
        let Record::Name(name) = record.unwrap() else {
            return None;
        };
        Some(String::from_utf8_lossy(name).into_owned())
    });
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_reply_that_is_too_large_tells_its_size() {
    let rows = || {
        Rows::new(RowsForm::Each, |each| {
            (0..5000).try_for_each(|group| each(row(group)))
        })
    };
    let whole = reply(COOKIE, rows().into(), usize::MAX).unwrap().len();
    let TooLarge { bytes, most } = reply(COOKIE, rows().into(), MOST_REPLY).unwrap_err();
    assert_eq!(most, MOST_REPLY);
    // The header is counted at its largest.
    assert!((whole..whole + 4).contains(&bytes), "{bytes} {whole}");
}

#[test]
fn long_texts_of_faults_are_cut_between_characters() {
    let packet = fault(1, &Fault::new(500, "ä".repeat(200)));
    let records: Vec<_> = Records::new(parse(&packet).body)
        .map(Result::unwrap)
        .collect();
    assert_eq!(records[1], Record::Text("ä".repeat(127).as_bytes()));
}

#[test]
fn parameters_keep_their_types() {
    let params = vec![
        Param::Text("sip:bob@example.com".into()),
        Param::Int(-5),
        Param::Int(70_000),
        Param::Double(0.25),
        Param::Text(String::new()),
    ];
    let call = call("core.echo", params);
    assert_eq!(parse(&request(0, &call)).call(), Ok(call));
    // A structure is one parameter, whatever it holds.
    let body = b"\x21m\0\x03\x25a\0\x03\x25b\0\x10\x01\x83\x83\x10\x05";
    let packet = [&[0xa1, 0, body.len() as u8, 0], &body[..]].concat();
    assert_eq!(
        parse(&packet).call().unwrap().params,
        [Param::Other("structure"), Param::Int(5)]
    );
}

#[test]
fn what_is_no_request_is_told() {
    let read = |body: &[u8]| {
        let packet = [&[0xa1, 0, body.len() as u8, 7], body].concat();
        let error = parse(&packet).call().unwrap_err();
        assert_eq!(error.cookie, 7);
        error.to_string()
    };
    for (body, what) in [
        (
            &b""[..],
            "bad request: end of packet encountered: no method",
        ),
        (
            b"\x10\x05",
            "bad request: bad record: the method is not a string",
        ),
        (
            b"\x91\xffm\0",
            "bad request: more data needed: a record is cut off",
        ),
        (
            b"\x21m\x01",
            "bad request: bad record: a string without its end",
        ),
        (b"\x01", "bad request: bad record: a string without its end"),
        (
            b"\x21\xff\0",
            "bad request: bad record: a string that is not UTF-8",
        ),
        (b"\x21m\0\x07", "bad request: bad record: unknown type 7"),
        (
            b"\x21m\0\x50\0\0\0\0\0",
            "bad request: bad record: a number of 5 bytes",
        ),
        (
            b"\x21m\0\x83",
            "bad request: bad record: an end without a start",
        ),
        (
            b"\x21m\0\x03",
            "bad request: end of packet encountered: a structure without an end",
        ),
        (
            b"\x21m\0\x25a\0\x00",
            "bad request: bad record: a name outside of a structure",
        ),
        (
            b"\x21m\0\x13\x00",
            "bad request: bad record: a structure with a length",
        ),
    ] {
        assert_eq!(read(body), what, "{body:x?}");
    }
    let reply = reply(7, Reply::One("x".into()), MOST_REPLY).unwrap();
    let error = parse(&reply).call().unwrap_err();
    assert_eq!(
        error.fault().message,
        "bad request: corrupted packet: a reply, not a request"
    );
    assert_eq!(error.fault().code, 400);
}

#[test]
fn what_is_no_packet_is_told_as_early_as_possible() {
    for (bytes, what) in [
        (
            &b"GET / HTTP/1.1"[..],
            "bad request: corrupted packet: it begins with 0x47, not with 0xa1",
        ),
        (
            b"\xa2",
            "bad request: corrupted packet: it begins with 0xa2, not with 0xa1",
        ),
        (b"\xa1\x20", "bad request: corrupted packet: unknown type 2"),
        (
            b"\xa1\x04\xff\xff\x01",
            "bad request: buffer too small (overflow): 65540 bytes, 65535 at most",
        ),
        (
            b"\xa1\x0c\xff\xff\xff\xff\x01",
            "bad request: buffer too small (overflow): 4294967302 bytes, 65535 at most",
        ),
    ] {
        assert_eq!(Packet::parse(bytes).unwrap_err().to_string(), what);
    }
    for length in 0..RELOAD.len() {
        assert_eq!(Packet::parse(&RELOAD[..length]), Ok(None), "{length}");
    }
    let most = MOST_REQUEST - 5;
    let largest = [
        &[0xa1, 4, (most >> 8) as u8, most as u8, 1],
        &vec![0; most][..],
    ]
    .concat();
    assert_eq!(parse(&largest).length, MOST_REQUEST);
}

#[test]
fn a_stream_is_cut_into_its_packets() {
    let mut framer = Framer::default();
    let stream = RELOAD.repeat(3);
    framer
        .space()
        .extend_from_slice(&stream[..stream.len() - 1]);
    for _ in 0..2 {
        assert_eq!(framer.next().unwrap().unwrap(), parse(RELOAD));
    }
    assert_eq!(framer.next(), Ok(None));
    assert_eq!(framer.pending(), RELOAD.len() - 1);
    framer.space().push(0);
    assert_eq!(framer.next().unwrap().unwrap(), parse(RELOAD));
    assert_eq!(framer.pending(), 0);
}

proptest! {
    #[test]
    fn values_are_read_as_they_are_written(value in value()) {
        let packet = reply(COOKIE, Reply::Each(vec![value.clone()]), usize::MAX).unwrap();
        // Limits are for requests.
        prop_assume!(packet.len() <= MOST_REQUEST);
        let packet = parse(&packet);
        prop_assert_eq!((packet.kind, packet.cookie), (Kind::Reply, COOKIE));
        let mut expected = Vec::new();
        flatten(&value, &mut expected);
        let read: Vec<_> = Records::new(packet.body).map(|record| show(&record.unwrap())).collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn requests_are_read_as_they_are_written(cookie: u32, call in any_call()) {
        prop_assert_eq!(parse(&request(cookie, &call)).call(), Ok(call));
    }

    #[test]
    fn chunks_do_not_matter(stream in stream(), chunk in 1usize..100) {
        invariants::binrpc(&stream, chunk);
    }

    #[test]
    fn chunks_do_not_matter_to_the_fifo(stream in "[{}\"\\\\a:1, ]{0,80}", chunk in 1usize..40) {
        invariants::fifo(stream.as_bytes(), chunk);
    }
}

/// What a value is on the wire, a word for each record.
fn flatten(value: &Value<'_>, out: &mut Vec<String>) {
    match value {
        Value::Null => out.push("\"\"".into()),
        Value::Bool(yes) => out.push(u8::from(*yes).to_string()),
        Value::Int(number) if i32::try_from(*number).is_err() => out.push(format!("\"{number}\"")),
        Value::Int(number) => out.push(number.to_string()),
        Value::Double(number) => out.push(format!("{number:.3}f")),
        Value::Text(text) => out.push(format!("{text:?}")),
        Value::List(values) => {
            out.push("{".into());
            values.iter().for_each(|value| flatten(value, out));
            out.push("}".into());
        }
        Value::Struct(members) => {
            out.push("{".into());
            for (name, value) in members {
                out.push(format!("{name}:"));
                flatten(value, out);
            }
            out.push("}".into());
        }
    }
}

fn show(record: &Record<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match *record {
        Record::Int(number) => number.to_string(),
        Record::Text(bytes) => format!("{:?}", text(bytes)),
        Record::Double(number) => format!("{number:.3}f"),
        Record::Struct => "{".into(),
        Record::StructEnd => "}".into(),
        Record::Name(name) => format!("{}:", text(name)),
        Record::List | Record::ListEnd | Record::Bytes(_) => panic!("{record:?} is never written"),
    }
}

fn value() -> impl Strategy<Value = Value<'static>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<i32>().prop_map(Value::from),
        any::<i32>().prop_map(|thousandths| Value::Double(f64::from(thousandths) / 1000.0)),
        ".{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = prop::sample::select(vec!["", "ip", "group", "a name of many letters"]);
        let name = name.prop_map(Cow::Borrowed);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::vec((name, inner), 0..6).prop_map(Value::Struct),
        ]
    })
}

fn any_call() -> impl Strategy<Value = Call> {
    let param = prop_oneof![
        any::<i32>().prop_map(|number| Param::Int(number.into())),
        any::<i32>().prop_map(|thousandths| Param::Double(f64::from(thousandths) / 1000.0)),
        ".{0,100}".prop_map(Param::Text),
    ];
    let params = prop::collection::vec(param, 0..6);
    ("[a-zA-Z._]{1,40}", params).prop_map(|(method, params)| Call { method, params })
}

/// Packets, parts of packets and rubbish behind one another.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => (any::<u32>(), any_call()).prop_map(|(cookie, call)| request(cookie, &call)),
        1 => Just(reply(9, Reply::One(row(1)), MOST_REPLY).unwrap()),
        1 => prop::sample::subsequence(RELOAD.to_vec(), 0..RELOAD.len()),
        1 => prop::collection::vec(any::<u8>(), 0..12).prop_map(|body| [&[0xa1, 0, body.len() as u8, 1], &body[..]].concat()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}
