//! Recording and replaying the queries of a call.

use portcullis_policy::Tape;
use serde_json::json;

use crate::clock::moment;
use crate::counters::adding;
use crate::support::{Host, invite};

#[test]
fn queries_are_recorded_and_replayed() {
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

    // The answer is the recorded one, whatever the value of the counter is now.
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
    // Queries that were not recorded are listed.
    host.evaluator
        .insert_tape(Tape::replaying(moment(), Vec::new()));
    host.ask(&policy, invite()).unwrap();
    let replayed = host.evaluator.take_tape().unwrap();
    assert_eq!(replayed.unanswered().len(), 1);
    // The next call has no tape.
    host.ask(&policy, invite()).unwrap();
    assert!(host.evaluator.take_tape().is_none());
}
