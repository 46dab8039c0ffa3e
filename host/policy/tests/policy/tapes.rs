//! What a call asked, written down and read back.

use portcullis_policy::Tape;
use serde_json::json;

use crate::clock::moment;
use crate::counters::adding;
use crate::support::{Host, invite};

#[test]
fn tapes_write_down_and_read_back() {
    let mut host = Host::new();
    let policy = host.load_text(&adding());
    host.evaluator.insert_tape(Tape::new(moment()));
    host.ask(&policy, invite()).unwrap();
    let tape = host.evaluator.take_tape().unwrap();
    let [asked] = tape.asked() else {
        panic!("{tape:?}")
    };
    assert_eq!(asked.function, "counters.add");
    assert_eq!(asked.arguments, json!(["name", 3, 60]));
    assert_eq!(asked.answer, json!(3));
    assert!(tape.unanswered().is_empty());

    // Whatever the counter is by now: the answer is the recorded one.
    for _ in 0..3 {
        let recorded = tape.asked().to_vec();
        let replaying = Tape::replaying(moment(), recorded);
        host.evaluator.insert_tape(replaying);
        let answer = host.ask(&policy, invite()).unwrap();
        assert_eq!(answer.to_string(), "reject 303");
        let replayed = host.evaluator.take_tape().unwrap();
        assert_eq!(replayed.asked(), tape.asked());
        assert!(replayed.unanswered().is_empty());
    }
    // What was not recorded is told.
    host.evaluator
        .insert_tape(Tape::replaying(moment(), Vec::new()));
    host.ask(&policy, invite()).unwrap();
    let replayed = host.evaluator.take_tape().unwrap();
    assert_eq!(replayed.unanswered().len(), 1);
    // The next call has no tape.
    host.ask(&policy, invite()).unwrap();
    assert!(host.evaluator.take_tape().is_none());
}
