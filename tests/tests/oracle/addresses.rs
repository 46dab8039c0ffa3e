//! The table of addresses.

use std::collections::BTreeSet;

use portcullis_testkit::oracle::case::{Ask, Case, Question, Row};
use portcullis_testkit::oracle::exceptions::{
    EXCEPTIONS, Exception, NAME_GROUP_TAG, OF_CLIENTS, OF_THE_CONFIGURATION, OF_TRANSACTIONS,
    OF_TRUSTED_AND_FILES, View,
};
use portcullis_testkit::oracle::generate::Generator;
use portcullis_testkit::oracle::shrink::shrink;
use portcullis_testkit::oracle::{Difference, Oracle};

/// Answers compared in a run.
const DECISIONS: usize = 25_000;

#[test]
fn peers_the_same_answers_as_kamailio() {
    let (seed, decisions) = (super::seed(), super::decisions(DECISIONS));
    let mut oracle = Oracle::start();
    let mut generator = Generator::new(seed, oracle.callers());
    let mut cases = 0;
    while oracle.decisions < decisions {
        let case = generator.case();
        cases += 1;
        if let Some(difference) = oracle.differences(&case).into_iter().next() {
            fail(&mut oracle, case, difference, seed);
        }
    }
    let Oracle {
        decisions, matched, ..
    } = oracle;
    println!("{decisions} answers about {cases} tables are equal; {matched} of them are matches.");
    assert!(matched * 5 > decisions, "too few matches to mean much");
    let all: BTreeSet<_> = EXCEPTIONS
        .iter()
        .filter(|exception| {
            !OF_THE_CONFIGURATION.contains(exception)
                && !OF_CLIENTS.contains(exception)
                && !OF_TRUSTED_AND_FILES.contains(exception)
                && !OF_TRANSACTIONS.contains(exception)
        })
        .map(|exception| exception.name)
        .collect();
    assert_eq!(oracle.met, all, "every exception was met");
}

/// Prints the smallest case that still differs, and fails the test.
fn fail(oracle: &mut Oracle, case: Case, difference: Difference, seed: u64) -> ! {
    let smallest = oracle.shrink(case.clone());
    let again = oracle.differences(&smallest).into_iter().next();
    let (case, difference) = match again {
        Some(difference) => (smallest, difference),
        None => (case, difference),
    };
    panic!(
        "Kamailio and Portcullis differ after {} equal answers (PORTCULLIS_ORACLE_SEED={seed}).\n{}\n",
        oracle.decisions,
        oracle.finding(case, difference)
    );
}

#[test]
fn peers_a_difference_is_found_and_minimised() {
    let mut oracle = Oracle::start();
    let hosts = |n: u32| row(1 + n % 5, &format!("192.0.2.{n}"), 32, Some("plain"));
    let mut case = Case {
        rows: (0..40).map(hosts).collect(),
        asks: (0..60)
            .map(|n| asks(address(1 + n % 5, &format!("192.0.2.{n}"))))
            .collect(),
    };
    assert_eq!(oracle.differences(&case), []);
    case.rows
        .insert(17, row(77, "192.0.2.77", 32, Some("planted")));
    case.asks.insert(44, asks(address(77, "192.0.2.77")));
    // Kamailio gets the table without the planted row.
    let smallest = shrink(case, |case| {
        let mut view = View::of(case);
        view.rows.retain(|row| row.group != 77);
        oracle.compare(case, view).into_iter().next()
    });
    assert_eq!(smallest.rows, [row(77, "192.0.2.77", 32, None)]);
    assert_eq!(smallest.asks, [asks(address(77, "192.0.2.77"))]);
}

/// Every exception in the list is a real difference: the unmodified Kamailio gives another result for each example. `side_by_side.rs` does
/// the same for the output of clients.
#[test]
fn peers_every_exception_makes_a_difference() {
    let mut oracle = Oracle::start_with(&["IPV6"]);
    let decided = EXCEPTIONS.iter().filter(|exception| {
        !OF_CLIENTS.contains(exception)
            && !OF_TRUSTED_AND_FILES.contains(exception)
            && !OF_TRANSACTIONS.contains(exception)
    });
    for exception in decided.copied() {
        let case = example(exception);
        let portcullis = oracle.portcullis_alone(&case);
        let kamailio = oracle.kamailio_alone(&case);
        assert_ne!(
            kamailio,
            Ok(portcullis),
            "{} makes no difference to {case:?}",
            exception.name
        );
    }
}

/// A table and queries for which Kamailio gives other results.
fn example(exception: Exception) -> Case {
    let rows = |rows: &[Row]| rows.to_vec();
    let one = |ip_addr: &str, mask| rows(&[row(200, ip_addr, mask, None)]);
    let host = || row(200, "192.0.2.1", 32, None);
    let (rows, asked) = match exception.name {
        "group-zero" => (rows(&[host(), row(0, "192.0.2.2", 32, None)]), "192.0.2.1"),
        "group-above-31-bits" => (
            rows(&[host(), row(1 << 31, "192.0.2.2", 32, None)]),
            "192.0.2.1",
        ),
        "mask-out-of-range" => (
            rows(&[host(), row(200, "192.0.2.2", 33, None)]),
            "192.0.2.1",
        ),
        "ipv4-text" => (one("300.1.1.1", 32), "44.1.1.1"),
        "ipv6-text" => (one("12345::1", 128), "2345::1"),
        "neither-address-nor-name" => (one("192.0.2.0/24", 24), "192.0.2.0/24"),
        "ipv6-spelling" => (one("64:ff9b::192.0.2.1", 128), "64:ff9b::c000:201"),
        "ipv4-mapped" => (one("::ffff:c000:201", 128), "192.0.2.1"),
        "subnet-limit" => {
            let network = |n| row(200, &format!("10.{}.{}.0", n / 256, n % 256), 24, None);
            ((0..513).map(network).collect(), "10.2.0.1")
        }
        "tags-stack" => {
            let tagged = row(100, "192.0.2.1", 32, Some("earlier"));
            (rows(&[tagged, host()]), "192.0.2.1")
        }
        "name-group-tag" => (
            rows(&[row(200, "gw.example.com", 32, Some("name"))]),
            "gw.example.com",
        ),
        name => panic!("{name} has no example"),
    };
    let by_group = Question::AddressGroup {
        text: asked.into(),
        port: 5060,
    };
    let questions = match exception {
        NAME_GROUP_TAG => vec![by_group],
        _ => vec![address(100, asked), address(200, asked)],
    };
    let asks = questions.into_iter().map(asks).collect();
    Case { rows, asks }
}

fn row(group: u32, ip_addr: &str, mask: i32, tag: Option<&str>) -> Row {
    Row {
        group,
        ip_addr: ip_addr.into(),
        mask,
        port: 0,
        tag: tag.map(str::to_owned),
    }
}

fn address(group: u32, text: &str) -> Question {
    Question::Address {
        group,
        text: text.into(),
        port: 5060,
    }
}

fn asks(question: Question) -> Ask {
    Ask {
        caller: 0,
        question,
    }
}
