//! The table of trusted peers.

use std::collections::BTreeSet;

use portcullis_testkit::oracle::Envelope;
use portcullis_testkit::oracle::exceptions::{
    BACK_REFERENCES, IPV4_MAPPED, TRUSTED_ROWS, TRUSTED_SOURCE, TRUSTED_WITHOUT_CACHE,
};
use portcullis_testkit::oracle::trusted::Oracle;
use portcullis_testkit::oracle::trusted::case::{Call, Case, Question, Row};
use portcullis_testkit::oracle::trusted::generate::Generator;
use portcullis_testkit::oracle::trusted::view::View;

/// Answers compared in a run.
const DECISIONS: usize = 20_000;

#[test]
fn peers_trust_gives_the_same_results() {
    let (seed, decisions) = (super::seed(), super::decisions(DECISIONS));
    let mut oracle = Oracle::start();
    let mut generator = Generator::new(seed, oracle.callers());
    let mut cases = 0;
    while oracle.decisions < decisions {
        let case = generator.case();
        cases += 1;
        if oracle.differences(&case).is_empty() {
            continue;
        }
        let smallest = oracle.shrink(case.clone(), View::of);
        let (case, differences) = match oracle.differences(&smallest) {
            found if found.is_empty() => (case.clone(), oracle.differences(&case)),
            found => (smallest, found),
        };
        let told = differences.first().map_or_else(
            || format!("It is gone when asked again: {case:?}"),
            |difference| oracle.told(&case, difference),
        );
        panic!(
            "Kamailio and Portcullis differ after {} equal answers (PORTCULLIS_ORACLE_SEED={seed}).\n{told}\n",
            oracle.decisions
        );
    }
    let Oracle {
        decisions, matched, ..
    } = oracle;
    println!("{decisions} answers about {cases} tables are equal; {matched} of them are matches.");
    assert!(matched * 6 > decisions, "too few matches to mean much");
    let all = [BACK_REFERENCES, IPV4_MAPPED, TRUSTED_ROWS, TRUSTED_SOURCE];
    assert_eq!(
        oracle.met,
        BTreeSet::from(all.map(|exception| exception.name)),
        "every exception was met"
    );
}

#[test]
fn peers_a_different_result_about_a_peer_is_minimised() {
    let mut oracle = Oracle::start();
    let mut case = Generator::new(1, oracle.callers()).case();
    let planted = Row {
        from: Some("aa".into()),
        tag: Some("planted".into()),
        priority: 7,
        ..Row::plain("192.0.2.77")
    };
    case.rows.insert(case.rows.len() / 2, planted);
    let asked = asks(Vec::new(), "192.0.2.77").calls;
    case.calls.extend(asked.clone());
    // Kamailio gets the table without the planted row.
    let smallest = oracle.shrink(case, |case| {
        let mut view = View::of(case);
        view.rows.retain(|row| row.source != "192.0.2.77");
        view
    });
    assert_eq!(smallest.rows, [Row::plain("192.0.2.77")]);
    assert_eq!(smallest.calls, asked);
}

/// The unmodified Kamailio gives another result for each example.
#[test]
fn peers_exceptions_of_trusted_peers_make_a_difference() {
    let mut oracle = Oracle::start();
    let peer = |source: &str| Row::plain(source);
    let unknown = Row {
        proto: "fax".into(),
        ..peer("192.0.2.2")
    };
    let referring = Row {
        from: Some(r"\(a\)\1".into()),
        ..peer("192.0.2.1")
    };
    for (exception, rows, asked) in [
        (TRUSTED_ROWS, vec![peer("192.0.2.1"), unknown], "192.0.2.1"),
        (TRUSTED_SOURCE, vec![peer("2001:DB8::1")], "2001:db8::1"),
        (TRUSTED_SOURCE, vec![peer("192.0.2.1")], "192.0.2.001"),
        (IPV4_MAPPED, vec![peer("::ffff:192.0.2.1")], "192.0.2.1"),
        (BACK_REFERENCES, vec![referring], "192.0.2.1"),
    ] {
        let case = asks(rows, asked);
        let portcullis = oracle.portcullis_alone(&case);
        let kamailio = oracle.kamailio_alone(&case);
        let name = exception.name;
        assert_ne!(
            kamailio,
            Ok(portcullis),
            "{name} makes no difference to {case:?}"
        );
    }
}

/// Kamailio's default, a query for each call, differs in three ways.
#[test]
fn peers_trust_without_cache_differs() {
    let mut oracle = Oracle::start_with(&["EACH_TIME"]);
    let tagged = |tag: &str, proto: &str, priority| Row {
        tag: Some(tag.into()),
        proto: proto.into(),
        priority,
        ..Row::plain("gw.example.com")
    };
    let both = |first: &str, all: &str| vec![vec![first.to_owned(), all.to_owned()]];
    let order = vec![tagged("low", "udp", 1), tagged("high", "udp", 5)];
    for (rows, asked, kamailio, portcullis) in [
        (
            order.clone(),
            "gw.example.com",
            both("1[low]", "2[low|high]"),
            both("1[high]", "2[high|low]"),
        ),
        (
            order,
            "GW.example.com ",
            both("1[low]", "2[low|high]"),
            both("no", "no"),
        ),
        (
            vec![tagged("rests", "none", 0)],
            "gw.example.com",
            both("1[rests]", "1[rests]"),
            both("no", "no"),
        ),
    ] {
        let case = asks(rows, asked);
        let name = TRUSTED_WITHOUT_CACHE.name;
        assert_eq!(oracle.kamailio_each_time(&case), kamailio, "{name}");
        assert_eq!(oracle.portcullis_alone(&case), portcullis, "{name}");
    }
    let refusal = oracle.kamailio_alone(&Case::default());
    assert!(refusal.is_err_and(|said| said.contains("Reload failed.")));
}

/// For unmodified requests, only the order of tags differs.
#[test]
fn peers_requests_are_trusted_equally_without_cache() {
    let mut oracle = Oracle::start_with(&["EACH_TIME"]);
    let mut generator = Generator::new(super::seed(), oracle.callers());
    let mut matched = 0;
    for _ in 0..60 {
        let mut case = generator.case();
        // An address with a trailing blank matches in the database only.
        case.rows.retain(|row| !row.source.ends_with(' '));
        for call in &mut case.calls {
            call.questions = vec![Question::Own];
        }
        let View { rows, calls, .. } = View::of(&case);
        let seen = Case { rows, calls };
        let ours = oracle.portcullis_alone(&case);
        for (at, theirs) in oracle.kamailio_each_time(&seen).iter().enumerate() {
            let [first, all] = [0, 1].map(|mode| [&ours[at][mode], &theirs[mode]]);
            let call = &case.calls[at];
            let is_trusted = first.map(|answer| answer != "no");
            assert_eq!(is_trusted[0], is_trusted[1], "{call:?} {:?}", case.rows);
            let tags = all.map(|answer| sorted(answer));
            assert_eq!(tags[0], tags[1], "{call:?} {:?}", case.rows);
            matched += usize::from(is_trusted[0]);
        }
    }
    println!("{matched} requests are trusted.");
    assert!(matched > 50, "too few matches to mean much");
}

/// The count of an answer, and its tags in order of the alphabet.
fn sorted(answer: &str) -> (&str, Option<Vec<&str>>) {
    let Some((count, tags)) = answer.split_once('[') else {
        return (answer, None);
    };
    let mut tags: Vec<_> = tags.trim_end_matches(']').split('|').collect();
    tags.sort_unstable();
    (count, Some(tags))
}

/// A table and a question about a peer with two letters alike in its From URI.
fn asks(rows: Vec<Row>, source: &str) -> Case {
    let question = Question::Peer {
        source: source.into(),
        proto: "any".into(),
        from: Some("sip:aa@example.com".into()),
    };
    let call = Call {
        caller: 0,
        envelope: Envelope::default(),
        questions: vec![question],
    };
    Case {
        rows,
        calls: vec![call],
    }
}
