//! Allow and deny files.

use std::collections::BTreeSet;

use portcullis_testkit::oracle::Envelope;
use portcullis_testkit::oracle::exceptions::{
    BACK_REFERENCES, CARRIAGE_RETURN, FILES_IN_UTF_8, FILES_RELOAD, LONG_LINE, ONE_BRANCH,
    STAR_BEHIND_CONTACTS, TELEPHONE_CONTACT, URI_SPELLING,
};
use portcullis_testkit::oracle::files::case::{Call, Case, ODD_BYTE, Pair, Question};
use portcullis_testkit::oracle::files::generate::Generator;
use portcullis_testkit::oracle::files::view::View;
use portcullis_testkit::oracle::files::{
    Oracle, Portcullis, Server, kamailio_alone, portcullis_alone, told,
};
use portcullis_testkit::wait;

/// Answers compared in a run.
const DECISIONS: usize = 30_000;

#[test]
fn peers_files_give_the_same_results() {
    let (seed, decisions) = (super::seed(), super::decisions(DECISIONS));
    let mut oracle = Oracle::default();
    let mut generator = Generator::new(seed);
    let mut cases = 0;
    while oracle.decisions < decisions {
        let case = generator.case();
        cases += 1;
        let differences = oracle.differences(&case);
        let Some(difference) = differences.first() else {
            continue;
        };
        let smallest = oracle.shrink(&case, difference, View::of);
        let told = match oracle.differences(&smallest).first() {
            Some(difference) => told(&smallest, difference),
            None => told(&case, difference),
        };
        panic!(
            "Kamailio and Portcullis differ {} times in {} answers (PORTCULLIS_ORACLE_SEED={seed}).\n{told}\n",
            differences.len(),
            oracle.decisions,
        );
    }
    let Oracle {
        decisions, refused, ..
    } = oracle;
    println!(
        "{decisions} answers about {cases} sets of files are equal; {refused} of them are refusals."
    );
    assert!(refused * 8 > decisions, "too few refusals to mean much");
    let all = [
        BACK_REFERENCES,
        CARRIAGE_RETURN,
        FILES_IN_UTF_8,
        LONG_LINE,
        STAR_BEHIND_CONTACTS,
        TELEPHONE_CONTACT,
        URI_SPELLING,
    ];
    assert_eq!(
        oracle.met,
        BTreeSet::from(all.map(|exception| exception.name)),
        "every exception was met"
    );
}

#[test]
fn peers_a_different_result_of_files_is_minimised() {
    let mut oracle = Oracle::default();
    let mut case = Generator::new(1).case();
    case.pairs[7].allow.clear();
    let planted = "ALL : ALL # planted".to_owned();
    case.pairs[7].deny.insert(0, planted.clone());
    // Kamailio gets the files without the planted line.
    let view = |case: &Case| {
        let mut view = View::of(case);
        for pair in &mut view.case.pairs {
            pair.deny.retain(|line| !line.ends_with("planted"));
        }
        view
    };
    let differences = oracle.compare(&case, view(&case));
    let smallest = oracle.shrink(&case, &differences[0], view);
    assert_eq!(smallest.pairs[1], pair(&planted));
    assert_eq!(smallest.calls.len(), 1);
}

/// The unmodified Kamailio gives another result for each example.
#[test]
fn peers_exceptions_of_files_make_a_difference() {
    let long = format!("ALL : \"nobody\" #{}ALL : ALL", " ".repeat(600));
    let odd_byte = format!("\"{ODD_BYTE}\", \"^sip:eeve@\" : ALL");
    let examples = [
        (BACK_REFERENCES, r#""(e)\1" : ALL"#),
        (CARRIAGE_RETURN, "ALL : ALL EXCEPT \"^sip:bob@\"\r"),
        (LONG_LINE, &long),
        (TELEPHONE_CONTACT, "\"nobody\" : ALL"),
        (FILES_IN_UTF_8, &odd_byte),
    ];
    let case = Case {
        pairs: examples.map(|(_, deny)| pair(deny)).into(),
        calls: vec![bob(|at| match at {
            3 => Question::Register,
            _ => Question::Routing,
        })],
    };
    let (kamailio, portcullis) = (kamailio_alone(&case), portcullis_alone(&case));
    for (at, (exception, _)) in examples.iter().enumerate() {
        let name = exception.name;
        assert_ne!(
            kamailio[0][at], portcullis[0][at],
            "{name} makes no difference"
        );
    }
}

#[test]
fn peers_nothing_hides_behind_a_star() {
    let mut case = denying("sip:mallory@");
    let call = &mut case.calls[0];
    let contacts = ["<sip:eve@example.com>", "*", "<sip:mallory@example.com>"];
    call.envelope.contacts = Some(contacts.map(str::to_owned).into());
    call.questions = vec![(0, Question::Register)];
    let name = STAR_BEHIND_CONTACTS.name;
    assert_eq!(kamailio_alone(&case), [["1"]], "{name}");
    assert_eq!(portcullis_alone(&case), [["no"]], "{name}");
}

#[test]
fn peers_contacts_that_only_one_of_them_parses() {
    let mut case = denying("sip:mallory@");
    case.calls[0].questions = vec![(0, Question::Register)];
    let name = URI_SPELLING.name;
    for (contact, kamailio, portcullis) in [
        ("<sip:bob@example.com:>", "1", "no"),
        ("<sip:bob@example.com:0>", "1", "no"),
        ("<sip:bob@ex_ample.com>", "no", "1"),
    ] {
        case.calls[0].envelope.contacts = Some(vec![contact.into()]);
        assert_eq!(kamailio_alone(&case), [[kamailio]], "{name}: {contact}");
        assert_eq!(portcullis_alone(&case), [[portcullis]], "{name}: {contact}");
    }
}

#[test]
fn peers_one_branch_is_checked() {
    let case = denying("sip:branch@");
    let answers = |defines: &[&str]| Server::start(&case, defines).ask(&case.calls);
    let (yes, no) = ([["1"]], [["no"]]);
    assert_eq!(answers(&["WITH_BRANCH"]), no, "{}", ONE_BRANCH.name);
    assert_eq!(answers(&["WITH_BRANCH", "FIRST_BRANCH_ONLY"]), yes);
    assert_eq!(portcullis_alone(&case), yes);
}

#[test]
fn peers_only_portcullis_reloads_files() {
    let before = denying("sip:nobody@");
    let after = denying("sip:bob@");
    let (kamailio, portcullis) = (Server::start(&before, &[]), Portcullis::start(&before));
    assert_eq!(kamailio.ask(&before.calls), [["1"]]);
    assert_eq!(portcullis.ask(&before.calls), [["1"]]);
    kamailio.write(&after.pairs);
    portcullis.write(&after.pairs);
    wait::until("Portcullis has the new rules", || {
        (portcullis.ask(&before.calls) == [["no"]]).then_some(())
    });
    assert_eq!(
        kamailio.ask(&before.calls),
        [["1"]],
        "{}",
        FILES_RELOAD.name
    );
}

/// The command of both servers, for each pair and for a missing one.
#[test]
fn peers_test_uri_gives_the_same_results() {
    let case = Generator::new(super::seed()).case();
    let seen = View::of(&case).case;
    let (kamailio, portcullis) = (Server::start(&seen, &[]), Portcullis::start(&case));
    let mut allowed = 0;
    for (at, pair) in case.pairs.iter().enumerate() {
        for (left, right) in [
            ("sip:alice@example.com", "sip:bob@example.com"),
            ("sip:bob@192.0.2.1;lr", "sip:+4930123@example.com"),
        ] {
            let said = portcullis.test(at, left, right);
            allowed += usize::from(said == "Allowed");
            assert_eq!(
                said,
                kamailio.test(at, left, right),
                "{left} {right}:\n{pair}"
            );
        }
    }
    println!("{allowed} of {} are allowed.", 2 * case.pairs.len());
    assert!(allowed > 0 && allowed < 2 * case.pairs.len());
    let absent = case.pairs.len();
    assert_eq!(kamailio.test(absent, "sip:a@b", "sip:c@d"), "Denied");
    assert_eq!(portcullis.test(absent, "sip:a@b", "sip:c@d"), "Denied");
}

/// One pair, whose deny file has this pattern on the right, and who may call Bob.
fn denying(pattern: &str) -> Case {
    let mut call = bob(|_| Question::Routing);
    call.questions.truncate(1);
    Case {
        pairs: vec![pair(&format!("ALL : \"{pattern}\""))],
        calls: vec![call],
    }
}

/// A request from Eve to Bob with a telephone for a Contact, and a question to each of five pairs.
fn bob(question: impl Fn(usize) -> Question) -> Call {
    let envelope = Envelope {
        from: Some("<sip:eeve@example.com>".into()),
        contacts: Some(vec!["<tel:+4930123>".into()]),
        ..Envelope::to("sip:bob@example.com")
    };
    Call {
        envelope,
        questions: (0..5).map(|at| (at, question(at))).collect(),
    }
}

fn pair(deny: &str) -> Pair {
    Pair {
        allow: Vec::new(),
        deny: vec![deny.into()],
    }
}
