//! Tests of masks, rates and records files.

use std::time::{Duration, Instant, SystemTime};

use portcullis_sip::{Arrival, Framing, Transport};
use portcullis_testkit::wait::until_true;

use super::mask::Mask;
use super::*;

const INVITE: &str = "INVITE sip:+4930123@example.com;user=phone SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
    From: \"Ann Smith\" <sip:ann@example.org>;tag=1\r\n\
    To: Bob <sip:bob@example.com>\r\n\
    Contact: <sip:ann@192.0.2.1>\r\n\
    P-Asserted-Identity: <tel:+49301234567>\r\n\
    Authorization: Digest username=\"ann\"\r\n\
    Call-ID: one@192.0.2.1\r\nCSeq: 1 INVITE\r\nContent-Length: 4\r\n\r\nv=0\n";

fn request(text: &str) -> Request {
    let arrival = Arrival {
        source: "192.0.2.1:5070".parse().unwrap(),
        local: "192.0.2.9:5060".parse().unwrap(),
        transport: Transport::Udp,
        connection: None,
    };
    Request::read(text.as_bytes().to_vec(), Framing::Datagram, arrival).unwrap()
}

fn config() -> RecordsConfig {
    RecordsConfig::default()
}

fn masked(config: &RecordsConfig) -> (String, usize) {
    let (bytes, body) = Mask::new(config).request(&request(INVITE));
    (String::from_utf8(bytes).unwrap(), body)
}

#[test]
fn secrets_and_bodies_are_omitted_by_default() {
    let (text, body) = masked(&config());
    let expected = INVITE
        .replace("Digest username=\"ann\"", "***")
        .replace("v=0\n", "");
    assert_eq!((text, body), (expected, 4));

    let whole = RecordsConfig {
        mask: Vec::new(),
        body: true,
        ..config()
    };
    assert_eq!(masked(&whole), (INVITE.to_owned(), 0));
}

#[test]
fn users_are_replaced_by_consistent_pseudonyms() {
    let (text, _) = masked(&RecordsConfig {
        mask_users: true,
        ..config()
    });
    for name in ["4930", "ann", "Ann", "bob", "Bob"] {
        assert!(!text.contains(name), "{name}: {text}");
    }
    assert!(text.contains("From: \"***\" <sip:u"), "{text}");
    let word = |before: &str| {
        let at = text.find(before).unwrap() + before.len();
        text[at..].split('@').next().unwrap().to_owned()
    };
    assert_eq!(word("From: \"***\" <sip:"), word("Contact: <sip:"));
    assert_ne!(word("From: \"***\" <sip:"), word("To: \"***\" <sip:"));
    let again = request(&format!("{text}v=0\n"));
    assert_eq!(
        again.call_id_bytes(),
        b"one@192.0.2.1",
        "it can still be read"
    );
}

#[test]
fn users_and_names_are_masked_however_they_are_written() {
    let mask = Mask::new(&RecordsConfig {
        mask_users: true,
        ..config()
    });
    let masked = |header: &[u8]| {
        let (before, after) = INVITE.split_once("P-Asserted-Identity").unwrap();
        let message = [
            before.as_bytes(),
            header,
            b"\r\nP-Asserted-Identity",
            after.as_bytes(),
        ];
        let arrival = request(INVITE).arrival;
        let request = Request::read(message.concat(), Framing::Datagram, arrival).unwrap();
        let (bytes, _) = mask.request(&request);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    for header in [
        // In a folded line, and with a fold before the URI.
        &b"Refer-To:\r\n Clara <sip:clara@example.net>"[..],
        b"Refer-To: \"Clara\"\r\n <sip:clara@example.net>",
        b"Refer-To: Clara\r\n\tClara <sip:clara@example.net>",
        // Several in one field.
        b"Reply-To: A <sip:clara@example.net>, Clara <sip:clara@example.net>, \"Clara, C.\" <tel:5550clara>",
        b"Reply-To: <sip:clara@example.net>,\r\n \"Clara\" <sip:clara@example.net>",
        // In another encoding.
        b"Reply-To: \"Clara M\xfcller\" <sip:clara@example.net>",
        b"Reply-To: <sip:m\xfcller-clara@example.net>",
        // A user with parameters and a password.
        b"Reply-To: <sip:clara;phone-context=+49@example.net;user=phone>",
        b"Reply-To: <sips:clara:secret@example.net>",
        b"Reply-To: <SIP:clara?clara@example.net>",
    ] {
        let text = masked(header);
        let header = String::from_utf8_lossy(header);
        for hidden in ["Clara", "clara", "secret", "ann", "Bob"] {
            assert!(!text.contains(hidden), "{hidden} of {header:?}: {text}");
        }
        assert!(text.contains("@192.0.2.1>\r\n"), "{header:?}: {text}");
    }
    // Hosts, and commas that separate no addresses, stay.
    let text = masked(b"Route: <sip:gw.example.net;lr>\r\nAllow: INVITE, ACK");
    assert!(
        text.contains("Route: <sip:gw.example.net;lr>\r\nAllow: INVITE, ACK\r\n"),
        "{text}"
    );
}

#[test]
fn queries_of_policies_are_masked_consistently() {
    let mask = Mask::new(&RecordsConfig {
        mask_users: true,
        ..config()
    });
    let (bytes, _) = mask.request(&request(INVITE));
    let text = String::from_utf8(bytes).unwrap();
    let mut asking = asking("sip:bob@example.com", Decided::Pass);
    mask.secrets(&request(INVITE)).asking(&mut asking);
    let asked = asking.asked[0].arguments[1].as_str().unwrap();
    assert!(!asked.contains("bob") && text.contains(asked), "{asked}");
}

#[test]
fn places_and_memos_are_masked() {
    let mask = Mask::new(&RecordsConfig {
        mask_users: true,
        ..config()
    });
    let mut asking = asking("x", Decided::Relay(None));
    let question = |function: &'static str, arguments, answer| Question {
        function: function.into(),
        arguments,
        answer,
        left: None,
    };
    let place = "sip:bob@example.com";
    asking.asked = vec![
        question(
            "forwarding.add",
            serde_json::json!([{"uri": place}]),
            serde_json::Value::Null,
        ),
        question(
            "forwarding.memo",
            serde_json::json!([place]),
            serde_json::Value::Null,
        ),
        question("outcome.memo", serde_json::json!([]), place.into()),
        question(
            "outcome.attempts",
            serde_json::json!([]),
            serde_json::json!([{"place": place}]),
        ),
    ];
    mask.secrets(&request(INVITE)).asking(&mut asking);
    let text = serde_json::to_string(&asking.asked).unwrap();
    assert_eq!(text.matches("@example.com").count(), 4, "{text}");
    assert!(!text.contains("bob"), "{text}");
}

#[test]
fn values_of_masked_header_fields_are_masked_wherever_a_policy_repeats_them() {
    use serde_json::{Value, json};

    let secret = "Digest username=\"ann\"";
    let mask = Mask::new(&RecordsConfig {
        mask: vec!["authorization".into(), "Subject".into()],
        ..config()
    });
    let reject = Decided::Reject {
        code: 302,
        reason: format!("{secret} is known"),
        headers: vec![
            ("X-Copy".into(), secret.into()),
            ("Authorization".into(), "of a policy".into()),
            ("X-Other".into(), "of a policy".into()),
        ],
    };
    let mut asking = asking(secret, reject);
    asking.edits = vec![
        Change::Add("s".into(), "hello".into()),
        Change::Add("X-Copy".into(), format!("<{secret}>")),
    ];
    let question = |function: &'static str, arguments, answer| Question {
        function: function.into(),
        arguments,
        answer,
        left: None,
    };
    asking.asked.extend([
        question("outcome.header", json!(["AUTHORIZATION"]), "other".into()),
        question("outcome.header", json!(["Subject"]), Value::Null),
        question("outcome.header", json!(["Server"]), "Phone".into()),
        question(
            "forwarding.add",
            json!([{"uri": "sip:b@c", "headers": [["Subject", "hello"], ["X-Copy", secret]]}]),
            Value::Null,
        ),
        question("counters.increment", json!([secret, 1]), json!(7)),
    ]);
    mask.secrets(&request(INVITE)).asking(&mut asking);
    let text = serde_json::to_string(&asking).unwrap();
    for hidden in ["ann", "hello", "other", "Authorization\",\"of"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    assert_eq!(asking.asked[1].answer, "***");
    assert_eq!(
        (&asking.asked[2].answer, &asking.asked[3].answer),
        (&Value::Null, &json!("Phone"))
    );
    assert_eq!(asking.asked[5].arguments, json!(["***", 1]));
    assert_eq!(
        asking.edits[1],
        Change::Add("X-Copy".into(), "<***>".into())
    );
    assert!(
        text.contains("*** is known") && text.contains("[\"X-Other\",\"of a policy\"]"),
        "{text}"
    );
}

/// A recorder whose file can be written.
fn recorder(folder: &tempfile::TempDir, change: impl FnOnce(&mut RecordsConfig)) -> Recorder {
    let mut config = RecordsConfig {
        file: Some(folder.path().join("records.jsonl")),
        ..config()
    };
    change(&mut config);
    Recorder::start(&config).unwrap().unwrap()
}

fn write(recorder: &Recorder, n: u64) {
    (0..n).for_each(|_| write_asked(recorder, Vec::new(), 0));
}

fn write_asked(recorder: &Recorder, policies: Vec<Asking>, tape_bytes: usize) {
    recorder.write(Decision {
        id: recorder.next_id(),
        time: SystemTime::now(),
        tenant: &Arc::from("acme"),
        request: &request(INVITE),
        policies,
        tape_bytes,
        outcome: &"relay",
    });
}

/// A call with a query about this text, and this result.
fn asking(text: &str, decided: Decided) -> Asking {
    Asking {
        seat: "default".into(),
        policy: "x".into(),
        generation: 1,
        digest: String::new(),
        asked: vec![Question {
            function: "rules.allow-uri".into(),
            arguments: serde_json::json!(["calls", text]),
            answer: true.into(),
            left: None,
        }],
        cut: false,
        decided,
        edits: Vec::new(),
        duration_us: 0,
    }
}

/// Ends the recorder: then everything is in the file.
fn end(recorder: Recorder, written: u64) {
    let stats = Arc::clone(&recorder.stats);
    drop(recorder);
    until_true("all is written", || stats.written() >= written);
}

#[test]
fn lines_can_be_parsed_and_ids_are_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(&folder, |_| {});
    write(&recorder, 3);
    end(recorder, 3);
    let text = std::fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
    let records: Vec<Record> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(records.len(), 3);
    assert_eq!(records[0].tenant, "acme");
    assert_eq!(records[0].body_bytes, 4);
    let numbers: Vec<_> = records
        .iter()
        .map(|record| record.id.split_once('-').unwrap().1)
        .collect();
    assert_eq!(numbers, ["1", "2", "3"]);
}

#[test]
fn a_full_file_is_rotated_and_a_moved_one_created_again() {
    let folder = tempfile::tempdir().unwrap();
    let full = recorder(&folder, |config| config.size = 1500);
    write(&full, 5);
    end(full, 5);
    let lines = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.len() <= 1500 && text.ends_with('\n'));
        text.lines().count()
    };
    // The oldest lines are gone, and all others are complete.
    assert!(lines("records.jsonl") > 0 && lines("records.jsonl.1") > 0);

    let recorder = recorder(&folder, |_| {});
    std::fs::rename(
        folder.path().join("records.jsonl"),
        folder.path().join("moved.jsonl"),
    )
    .unwrap();
    until_true("the file is created again", || {
        write(&recorder, 1);
        folder.path().join("records.jsonl").exists()
    });
}

#[test]
fn records_above_the_rate_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(&folder, |config| config.per_second = 3);
    let part = Part::default();
    let now = Instant::now();
    assert_eq!(wanted(&recorder, &part, now), 3);
    assert_eq!(wanted(&recorder, &part, now + SECOND), 3);
    assert_eq!(recorder.stats().lost()[0], ("rate", 14));
}

const SECOND: Duration = Duration::from_secs(1);

/// Returns how many of ten decisions would be recorded.
fn wanted(recorder: &Recorder, part: &Part, now: Instant) -> usize {
    let request = request(INVITE);
    (0..10)
        .filter(|_| recorder.wants(&request, part, now))
        .count()
}

#[test]
fn each_tenant_gets_its_part_of_the_rate() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(&folder, |config| config.per_second = 20);
    let (loud, calm) = (Part::default(), Part::default());
    let start = Instant::now();
    let mut had = (0, 0);
    for tenth in 0..100 {
        let now = start + SECOND * tenth / 10;
        for _ in 0..10 {
            had.0 += wanted(&recorder, &loud, now);
        }
        had.1 += usize::from(recorder.wants(&request(INVITE), &calm, now));
    }
    // The quiet tenant has all of its ten per second, which is its part; the busy one has the rest, and once the burst.
    assert_eq!(had.1, 100);
    assert!((90..=130).contains(&had.0), "{had:?}");

    // Alone again, it has the whole rate.
    let later = start + 60 * SECOND;
    let all: usize = (0..100)
        .map(|tenth| wanted(&recorder, &loud, later + SECOND * tenth / 10))
        .sum();
    assert!((200..=220).contains(&all), "{all}");
}

#[test]
fn a_tenant_does_not_exceed_its_own_rate() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(&folder, |config| config.per_tenant = Some(4));
    let (one, other) = (Part::default(), Part::default());
    let now = Instant::now();
    assert_eq!(wanted(&recorder, &one, now), 4);
    assert_eq!(wanted(&recorder, &other, now), 4);
    assert_eq!(wanted(&recorder, &one, now + SECOND), 4);
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let config = RecordsConfig {
        queue: 1 << 20,
        ..config()
    };
    let stats = Arc::new(RecordStats::default());
    let (writer, next) = Writer::queue(&config, Arc::clone(&stats));
    let recorder = Recorder {
        config,
        start: 0,
        next: AtomicU64::new(0),
        pace: Pace::new(),
        share_key: ShareKey::random(),
        calls: None,
        writer: Some(writer),
        stats,
    };
    // A few large records, because of queries or of a response, or many small ones.
    let values = vec![("X".to_owned(), "y".repeat(60_000))];
    let large = Decided::Reject {
        code: 480,
        reason: String::new(),
        headers: values,
    };
    for (decided, tape_bytes) in [(Decided::Pass, 60_000), (large, 0), (Decided::Pass, 0)] {
        let lost = recorder.stats().lost()[1].1;
        for _ in 0..5000 {
            write_asked(&recorder, vec![asking("x", decided.clone())], tape_bytes);
        }
        assert!(recorder.stats().waiting() <= 1 << 20);
        let taken = next.try_iter().count() as u64;
        assert_eq!(recorder.stats().lost()[1].1 - lost, 5000 - taken);
        let least = (1 << 20) / (64_000 + 4_000);
        assert!(taken >= least, "{taken}");
        recorder.stats.waiting.store(0, Ordering::Relaxed);
    }
}

#[test]
fn a_record_that_is_too_long_is_cut_or_counted() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(&folder, |config| config.line = 4096);
    write_asked(&recorder, vec![asking("short", Decided::Pass)], 0);
    // 1,000 bytes that take 6,000 in JSON.
    write_asked(
        &recorder,
        vec![asking(&"\u{1}".repeat(1000), Decided::Pass)],
        0,
    );
    let long = Decided::Relay(Some("x".repeat(5000)));
    write_asked(&recorder, vec![asking("short", long)], 0);
    let stats = Arc::clone(&recorder.stats);
    end(recorder, 2);
    until_true("one record is too long", || stats.lost()[2].1 >= 1);
    assert_eq!(stats.waiting(), 0);
    let text = std::fs::read_to_string(folder.path().join("records.jsonl")).unwrap();
    assert!(text.lines().all(|line| line.len() < 4096));
    let shown: Vec<_> = text
        .lines()
        .map(|line| {
            let record: Record = serde_json::from_str(line).unwrap();
            let asking = &record.policies[0];
            (asking.asked.len(), asking.cut)
        })
        .collect();
    assert_eq!(shown, [(1, false), (0, true)]);
}

#[test]
fn writing_resumes_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.jsonl");
    // A disk that is always full.
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let recorder = recorder(&folder, |_| {});
    write(&recorder, 3);
    until_true("three records are lost", || {
        recorder.stats().lost()[3].1 >= 3
    });
    let error = recorder.stats().error().unwrap();
    assert!(error.contains("records.jsonl: No space left"), "{error}");
    // Removed, and created again.
    std::fs::remove_file(&path).unwrap();
    write(&recorder, 2);
    until_true("two records are written", || {
        recorder.stats().written() >= 2
    });
    assert_eq!(recorder.stats().error(), None);
    assert_eq!(recorder.stats().lost()[3].1, 3);
    // Truncated by another program.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(0).unwrap();
    write(&recorder, 1);
    end(recorder, 3);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    serde_json::from_str::<Record>(&text).unwrap();
}

#[test]
fn all_requests_of_a_dialog_are_recorded_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorder(&folder, |config| {
        config.share = Share::parse("30%").unwrap();
        config.per_second = 1_000_000;
    });
    let (part, now) = (Part::default(), Instant::now());
    let mut wanted = 0;
    for n in 0..300 {
        let request = request(&INVITE.replace("one@", &format!("{n}@")));
        let is_wanted = recorder.wants(&request, &part, now);
        assert_eq!(recorder.wants(&request, &part, now), is_wanted);
        wanted += i32::from(is_wanted);
    }
    assert!((50..130).contains(&wanted), "{wanted}");
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let config = RecordsConfig {
        file: Some("/no/such/folder/records.jsonl".into()),
        ..config()
    };
    let error = Recorder::start(&config).unwrap_err().to_string();
    assert!(
        error.starts_with("[records] file: cannot write /no/such/folder/records.jsonl: "),
        "{error}"
    );
    assert!(
        Recorder::start(&RecordsConfig::default())
            .unwrap()
            .is_none()
    );
}
