//! What workers may rely on when they change one row at once, in every order of their accesses (loom).

use loom::sync::Arc;
use loom::thread;

use crate::bar::{Bar, Kind, Reason};
use crate::prefix::Prefix;
use crate::source::{Seen, Source, Thresholds};

const MOST: Thresholds = Thresholds {
    within: 30,
    refusals: 2,
    users: 0,
    challenges: 0,
    malformed: 0,
};

/// Runs this on two threads at once, in every order.
fn at_once<R: Send + 'static>(work: fn(&Source, u8) -> R, check: fn(&Source, [R; 2])) {
    loom::model(move || {
        let shared = Arc::new(Source::default());
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared, 1))
        };
        let own = work(&shared, 0);
        let other = other.join().expect("the other worker ends");
        check(&shared, [own, other]);
    });
}

#[test]
fn no_evidence_is_lost_and_one_worker_reports_it() {
    let note = |source: &Source, worker| source.note(Seen::Refusal(worker), 0, &MOST);
    at_once(note, |_, reasons| {
        let reported = reasons.iter().filter(|reason| reason.is_some());
        assert_eq!(reported.count(), 1);
    });
}

/// One worker bans the source of a row while another worker gives the row to another source.
#[test]
fn a_row_that_changes_hands_does_not_pass_on_a_ban() {
    const OWN: u64 = 7;
    const OTHER: u64 = 8;
    let work = |source: &Source, worker| {
        if worker == 0 {
            let bar = Bar {
                kind: Kind::Banned,
                reason: Reason::Refusals,
                end: 300,
            };
            return source.set_bar(OWN, bar, 0);
        }
        source.claim(Prefix::of([192, 0, 2, 1].into()))
    };
    at_once(work, |source, _| assert_eq!(source.bar(OTHER, 1), None));
}

#[test]
fn one_worker_gets_a_free_row() {
    let claim = |source: &Source, worker| source.claim(Prefix::of([192, 0, 2, worker].into()));
    at_once(claim, |source, claimed| {
        assert!(claimed.contains(&true));
        assert!(source.prefix().is_some());
    });
}
