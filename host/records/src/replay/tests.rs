//! Calls after failures are recorded and replayed.

use std::path::PathBuf;

use portcullis_config::RecordsConfig;
use portcullis_policy::{
    Attempt, Cause, Evaluator, Exports, Moment, NextStep, Policy, Tape, embed_with,
};
use portcullis_sip::Transport;

use super::*;
use crate::{Decision, Recorder};
use portcullis_testkit::wait::until_true;

const INVITE: &str = "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
    From: <sip:ann@example.org>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: one@192.0.2.1\r\nCSeq: 1 INVITE\r\n\
    Content-Length: 0\r\n\r\n";

/// A policy that relays to `carrier-a` with a memo, and tries `hop` again while tries are left.
fn policy(hop: &str) -> Vec<u8> {
    let length = hop.len();
    let text = format!(
        r#"(module
            (import "portcullis:policy/forwarding@0.1.0" "add"
              (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
            (import "portcullis:policy/forwarding@0.1.0" "memo" (func $memo (param i32 i32 i32)))
            (import "portcullis:policy/outcome@0.1.0" "tries-left" (func $tries (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 64) "\02")
            (data (i32.const 256) "carrier-a")
            (data (i32.const 288) "{hop}")
            (func $to (param $at i32) (param $length i32)
              (call $add (i32.const 0) (local.get $at) (local.get $length) (i32.const 0) (i32.const 1)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512)))
            (func (export "decide") (result i32)
              (call $to (i32.const 256) (i32.const 9))
              (call $memo (i32.const 256) (i32.const 9) (i32.const 512))
              i32.const 16)
            (func (export "on-failure") (result i32)
              (if (i32.eqz (call $tries)) (then (return (i32.const 16))))
              (call $to (i32.const 288) (i32.const {length}))
              i32.const 64))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    let exports = Exports {
        on_failure: true,
        ..Exports::default()
    };
    embed_with(&mut module, exports).unwrap();
    module
}

/// A recorder, and the policy whose calls it records.
struct Site {
    folder: tempfile::TempDir,
    recorder: Recorder,
    policy: Policy,
    evaluator: Evaluator,
}

impl Site {
    fn new(runtime: &Runtime) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = RecordsConfig {
            file: Some(folder.path().join("records.jsonl")),
            ..RecordsConfig::default()
        };
        Self {
            recorder: Recorder::start(&config).unwrap().unwrap(),
            policy: runtime.load("policy", &policy("carrier-b")).unwrap(),
            evaluator: Evaluator::new(),
            folder,
        }
    }

    /// Decides on a request whose targets all fail, until the policy gives up.
    fn fail(&mut self) {
        let id = self.recorder.next_id();
        let (scope, tables) = (Arc::default(), Arc::default());
        let (policy, evaluator) = (&self.policy, &mut self.evaluator);
        evaluator.insert_tape(Tape::new(Moment::now()));
        let (request, answer) = evaluator.decide(policy, &scope, &tables, request());
        let tape = evaluator.take_tape().unwrap();
        let decided = asking(Decided::of(&answer), tape);
        self.recorder.write(decision(id, &request, decided));
        let mut failed = FailedAttempts {
            tries_left: 2,
            ..FailedAttempts::default()
        };
        for call in 1.. {
            failed.attempts.push(Attempt {
                place: "carrier-a".into(),
                status: 503,
                cause: Cause::Unreachable,
                milliseconds: 1,
            });
            evaluator.insert_tape(Tape::new(Moment::now()));
            let (_, step) =
                evaluator.on_failure(policy, &scope, &tables, request.clone(), failed.clone());
            let tape = evaluator.take_tape().unwrap();
            let decided = asking(Decided::of_step(&step), tape);
            let failure = decision(id, &request, decided);
            self.recorder.write_failure(failure, call);
            if step == Ok(NextStep::Best) {
                return;
            }
            failed.tries_left -= 1;
        }
    }

    /// The file, when everything is written.
    fn finish(self, written: u64) -> (tempfile::TempDir, PathBuf) {
        until_true("all is written", || {
            self.recorder.stats().written() >= written
        });
        let file = self.folder.path().join("records.jsonl");
        (self.folder, file)
    }
}

fn request() -> Request {
    let arrival = Arrival {
        source: "192.0.2.1:5070".parse().unwrap(),
        local: "192.0.2.9:5060".parse().unwrap(),
        transport: Transport::Udp,
        connection: None,
    };
    Request::read(INVITE.as_bytes().to_vec(), Framing::Datagram, arrival).unwrap()
}

fn asking(decided: Decided, tape: Tape) -> Asking {
    Asking {
        seat: "default".into(),
        policy: "policy".into(),
        generation: 1,
        digest: String::new(),
        cut: tape.is_cut(),
        asked: tape.into_asked().into_iter().map(Question::of).collect(),
        decided,
        edits: Vec::new(),
        duration_us: 0,
    }
}

fn decision(id: portcullis_policy::DecisionId, request: &Request, asking: Asking) -> Decision<'_> {
    static TENANT: std::sync::LazyLock<Arc<str>> = std::sync::LazyLock::new(|| "default".into());
    Decision {
        id,
        time: SystemTime::now(),
        tenant: &TENANT,
        request,
        policies: vec![asking],
        tape_bytes: 0,
        outcome: &"best",
    }
}

fn player(runtime: &Runtime, folder: &Path, hop: &str, tables: Option<Arc<Snapshot>>) -> Player {
    let file = folder.join(format!("{hop}.wasm"));
    std::fs::write(&file, policy(hop)).unwrap();
    Player::new(runtime, &file, &Arc::default(), tables).unwrap()
}

#[test]
fn failovers_are_replayed_as_they_were_recorded() {
    const CALLS: usize = 1000;
    let runtime = runtime(&Limits::default()).unwrap();
    let mut site = Site::new(&runtime);
    (0..CALLS).for_each(|_| site.fail());
    // A decision and three calls after failures each.
    let (folder, file) = site.finish(4 * CALLS as u64);
    let cases = records(&file, &Filter::default()).unwrap();
    assert_eq!(cases.len(), 4 * CALLS);
    let ids: Vec<_> = cases[..4]
        .iter()
        .map(|case| case.id.split_once('-').unwrap().1)
        .collect();
    assert_eq!(ids, ["1", "1/1", "1/2", "1/3"]);

    for tables in [None, Some(Arc::default())] {
        let mut same = player(&runtime, folder.path(), "carrier-b", tables);
        for case in &cases {
            let played = same.play(case);
            let recorded = Played::recorded(case.recorded.as_ref().unwrap());
            assert_eq!(
                (&played.decided, &played.said),
                (&recorded.decided, &recorded.said),
                "{}",
                case.id
            );
            assert!(played.is_as(&recorded) && played.unanswered.is_empty());
        }
    }
    let shown: Vec<_> = cases[..4]
        .iter()
        .map(|case| Played::recorded(case.recorded.as_ref().unwrap()).to_string())
        .collect();
    let add = |hop: &str| format!(r#"add {{"next-hop":"{hop}","rank":0,"weight":1}}"#);
    let decide = format!("relay, {}, memo \"carrier-a\"", add("carrier-a"));
    let again = format!("again, {}", add("carrier-b"));
    assert_eq!(shown, [&*decide, &again, &again, "best"]);

    // Another target is a difference, though the step is the same, and the query was not recorded.
    let mut other = player(&runtime, folder.path(), "carrier-c", None);
    let played = other.play(&cases[1]);
    let recorded = Played::recorded(cases[1].recorded.as_ref().unwrap());
    assert_eq!(played.decided, recorded.decided);
    assert!(!played.is_as(&recorded));
    assert_eq!(played.unanswered.len(), 1);
}

#[test]
fn a_record_of_a_failure_names_its_decision() {
    let runtime = runtime(&Limits::default()).unwrap();
    let mut site = Site::new(&runtime);
    site.fail();
    let (_folder, file) = site.finish(4);
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(lines[0].get("kind").is_none() && lines[0].get("call").is_none());
    assert_eq!(lines[1]["kind"], "failure");
    assert_eq!(lines[2]["call"], 2);
    assert!(lines.iter().all(|line| line["id"] == lines[0]["id"]));
    assert_eq!(lines[3]["policies"][0]["decided"], "best");
    assert_eq!(lines[1]["policies"][0]["decided"], "again");
}
