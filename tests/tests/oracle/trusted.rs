//! The table of trusted peers.

use std::collections::BTreeSet;

use portcullis_tests::oracle::Envelope;
use portcullis_tests::oracle::exceptions::{
    BACK_REFERENCES, IPV4_MAPPED, PRIORITY_WITHOUT_CACHE, TRUSTED_ROWS, TRUSTED_SOURCE,
};
use portcullis_tests::oracle::trusted::Oracle;
use portcullis_tests::oracle::trusted::case::{Call, Case, Question, Row};
use portcullis_tests::oracle::trusted::generate::Generator;
use portcullis_tests::oracle::trusted::view::View;

/// Answers compared in a run.
const DECISIONS: usize = 20_000;

#[test]
fn peers_trusted_by_both_alike() {
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
fn peers_a_different_answer_about_a_peer_is_made_small() {
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
    // Kamailio sees the table without the planted row.
    let smallest = oracle.shrink(case, |case| {
        let mut view = View::of(case);
        view.rows.retain(|row| row.source != "192.0.2.77");
        view
    });
    assert_eq!(smallest.rows, [Row::plain("192.0.2.77")]);
    assert_eq!(smallest.calls, asked);
}

/// Kamailio as it comes answers each example otherwise.
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

#[test]
fn peers_priority_without_cache_is_the_other_way_round() {
    let mut oracle = Oracle::start_with(&["EACH_TIME"]);
    let tagged = |tag: &str, priority| Row {
        tag: Some(tag.into()),
        priority,
        ..Row::plain("192.0.2.1")
    };
    let case = asks(vec![tagged("low", 1), tagged("high", 5)], "192.0.2.1");
    let both = |first: &str, all: &str| vec![vec![format!("1[{first}]"), format!("2[{all}]")]];
    let name = PRIORITY_WITHOUT_CACHE.name;
    assert_eq!(
        oracle.kamailio_each_time(&case),
        both("low", "low|high"),
        "{name}"
    );
    assert_eq!(
        oracle.portcullis_alone(&case),
        both("high", "high|low"),
        "{name}"
    );
}

/// A table and a question about a peer with two letters alike in its From URI.
fn asks(rows: Vec<Row>, source: &str) -> Case {
    let question = Question::Peer {
        source: source.into(),
        proto: "udp".into(),
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
