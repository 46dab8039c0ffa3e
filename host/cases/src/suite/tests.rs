use portcullis_policy::{Exports, Limits, embed_with};
use portcullis_records::replay::runtime;

use super::*;

/// A policy that relays to `carrier-a` with a memo, tries `carrier-b` after its failure, and then leaves the best response.
fn failover() -> Vec<u8> {
    let text = r#"(module
        (import "portcullis:policy/forwarding@0.1.0" "add"
          (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
        (import "portcullis:policy/outcome@0.1.0" "tries-left" (func $tries (result i32)))
        (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "\02")
        (data (i32.const 256) "carrier-a")
        (data (i32.const 288) "carrier-b")
        (func $to (param $at i32)
          (call $add (i32.const 0) (local.get $at) (i32.const 9) (i32.const 0) (i32.const 1)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512)))
        (func (export "decide") (result i32)
          (call $to (i32.const 256))
          i32.const 16)
        (func (export "on-failure") (result i32)
          (if (i32.lt_u (call $tries) (i32.const 7)) (then (return (i32.const 16))))
          (call $log (i32.const 1) (i32.const 288) (i32.const 9))
          (call $to (i32.const 288))
          i32.const 64))"#;
    let mut module = wat::parse_str(text).unwrap();
    let exports = Exports {
        on_failure: true,
        ..Exports::default()
    };
    embed_with(&mut module, exports).unwrap();
    module
}

fn run(text: &str) -> Report {
    let suite = Suite::parse(text, "cases.toml", Path::new("")).unwrap();
    let runtime = runtime(&Limits::default()).unwrap();
    let policy = suite.load(&runtime, "failover", &failover()).unwrap();
    suite.run(policy, Scope::operator)
}

fn mismatches(report: &Report) -> Vec<String> {
    let steps = report.cases.iter().flat_map(|case| &case.steps);
    let all = steps.flat_map(|step| step.mismatches.iter().map(move |found| (step, found)));
    let text = |(step, found): (&StepReport, &Mismatch)| {
        format!(
            "{}: {}: {} / {}",
            step.call, found.key, found.expected, found.got
        )
    };
    all.map(text).collect()
}

#[test]
fn targets_fail_one_after_the_other() {
    let report = run(
        "[[case]]\nname = \"both fail\"\nexpect = { verdict = \"relay\", target = \"carrier-a\", log = [] }\n\
         [[case.after]]\nresults = [\"carrier-a no-answer 4s\"]\n\
         expect = { verdict = \"again\", targets = [\"carrier-b\"], log = [\"carrier-b\"] }\n\
         [[case.after]]\nresults = [\"503\"]\nexpect = { verdict = \"best\" }\n",
    );
    assert_eq!(mismatches(&report), [""; 0]);
    assert_eq!(report.failed(), 0);
    let coverage = &report.coverage;
    assert_eq!(coverage.never, ["reject", "drop", "pass", "answer"]);
    assert_eq!(coverage.verdicts.len(), 3);
    assert_eq!(coverage.never_asked, [""; 0]);
}

#[test]
fn differences_name_what_was_expected_and_what_came() {
    let report = run(
        "[[case]]\nexpect = { verdict = \"reject\", status = 401, removed = [\"X\"], headers = { X-A = \"1\" }, most-fuel = 1 }\n\
         [[case]]\nexpect = { target = \"carrier-a\" }\n[[case.after]]\nresults = [\"carrier-c 500\"]\nexpect = { verdict = \"best\" }\n\
         [[case]]\nrequest = { method = \"OPTIONS\", uri = \"sip:198.51.100.1:5060\" }\nexpect = { verdict = \"relay\" }\n",
    );
    assert_eq!(report.failed(), 3);
    let found = mismatches(&report);
    assert_eq!(
        found[..2],
        ["decide: verdict: reject / relay", "decide: status: 401 / "]
    );
    assert!(
        found.contains(&"decide: headers.X-A: 1 / ".to_owned()),
        "{found:?}"
    );
    assert!(found[4].starts_with("decide: most-fuel: 1 / "), "{found:?}");
    assert_eq!(
        found[5],
        "on-failure 1: after: targets / the policy has not named the target carrier-c; it named carrier-a"
    );
    assert!(
        found[6].contains("no policy is called: the host answers 200 OK"),
        "{found:?}"
    );
    assert_eq!(report.coverage.never_asked, ["outcome.tries-left"]);
    let xml = crate::junit::junit(&report, "cases.toml");
    assert!(xml.contains("tests=\"3\" failures=\"3\""), "{xml}");
    assert!(
        xml.contains("message=\"decide: verdict: expected &quot;reject&quot;"),
        "{xml}"
    );
}

/// A policy that relays to the next two destinations of set 1.
fn in_turn() -> Vec<u8> {
    let text = r#"(module
        (import "portcullis:policy/dispatcher@0.1.0" "add-set"
          (func $add-set (param i32 i32 i32 i32 i32 i32 i32)))
        (memory (export "memory") 1)
        (data (i32.const 64) "\01\00\00\00\f7\01\00\00")
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
        (func (export "decide") (result i32)
          (call $add-set (i32.const 1) (i32.const 4) (i32.const 256) (i32.const 0)
            (i32.const 2) (i32.const 0) (i32.const 512))
          (if (i32.load8_u (i32.const 512)) (then (return (i32.const 64))))
          i32.const 16))"#;
    let mut module = wat::parse_str(text).unwrap();
    embed_with(&mut module, Exports::default()).unwrap();
    module
}

#[test]
fn sets_of_the_dispatcher_are_rows_of_a_file() {
    let text = "[tables]\ndispatcher = [\"1 sip:192.0.2.1 0 20\", \"1 sip:192.0.2.2 0 10\", \"1 sip:192.0.2.3 4 5\"]\n\
         [[case]]\nexpect = { verdict = \"relay\", targets = [\"sip:192.0.2.1\", \"sip:192.0.2.2\"] }\n\
         [[case]]\nname = \"it is the turn of the other one\"\ncontinues = true\n\
         expect = { targets = [\"sip:192.0.2.2\", \"sip:192.0.2.1\"] }\n\
         [[case]]\nname = \"from the beginning\"\nexpect = { targets = [\"sip:192.0.2.1\", \"sip:192.0.2.2\"] }\n\
         [[case]]\nname = \"other sets\"\ntables = { dispatcher = [\"1 sip:192.0.2.9\"] }\n\
         expect = { targets = [\"sip:192.0.2.9\"] }\n\
         [[case]]\nname = \"none\"\ntables = {}\nexpect = { verdict = \"reject\", status = 503 }\n";
    let suite = Suite::parse(text, "cases.toml", Path::new("")).unwrap();
    let runtime = runtime(&Limits::default()).unwrap();
    let policy = suite.load(&runtime, "in-turn", &in_turn()).unwrap();
    let report = suite.run(policy, Scope::operator);
    assert_eq!(mismatches(&report), [""; 0]);
    assert_eq!(report.failed(), 0);
}

#[test]
fn errors_name_the_line() {
    for (text, expected) in [
        (
            "polcy = 1\n[[case]]\nexpect = { verdict = \"relay\" }",
            "cases.toml:1: unknown field `polcy`",
        ),
        (
            "\n[[case]]\nexpect = { verdict = \"relay\" }\n[[case]]\nname = \"a\"\nexpct = {}",
            "cases.toml:6: unknown field `expct`",
        ),
        (
            "[[case]]\nexpect = { verdict = \"allow\" }",
            "cases.toml:2: unknown variant `allow`",
        ),
        (
            "\n[[case]]\nname = \"a\"\n",
            "cases.toml:2: case \"a\": expect is missing",
        ),
        (
            "[[case]]\nrequest = { headers = { X = 1 } }",
            "cases.toml:2: invalid type: integer `1`, expected a string or a list",
        ),
        (
            "[[case]]\nsource = \"here\"\nexpect = { status = 401 }",
            "cases.toml:1: case \"case 1\": source \"here\"",
        ),
        (
            "[[case]]\ntime = \"noon\"\nexpect = { status = 401 }",
            "cases.toml:1: case \"case 1\": time \"noon\"",
        ),
        (
            "\n[tables]\naddress = [\"200 10.0.0.0/33\"]\n",
            "cases.toml:2: tables.address: \"200 10.0.0.0/33\": mask",
        ),
        (
            "[tables]\ndispatcher = [\"1 gw\"]\n",
            "cases.toml:1: tables.dispatcher: \"1 gw\": list:1: destination \"gw\" has no scheme",
        ),
        (
            "[tables]\naddress = [\"x\"]\n",
            "cases.toml:1: tables.address: \"x\": ",
        ),
        ("[settings]\n", "cases.toml:1: the file has no cases"),
        (
            "[[case]]\nmessage = \"none.sip\"\nexpect = { status = 401 }",
            "cannot read none.sip",
        ),
        (
            "[[case]]\nexpect = { status = 401 }\n[[case.after]]\nresults = [\"a 200\"]\nexpect = { verdict = \"best\" }",
            "cases.toml:1: case \"case 1\": after: results: \"200\": a result is a status code",
        ),
    ] {
        let error = Suite::parse(text, "cases.toml", Path::new(""))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}\n{expected}");
    }
}

/// Reports the sender, keeps its flow, and rejects with 300, 100 for a verified peer, ten times the standing, and the state of the flow.
const ASKING: &str = r#"(module
    (import "portcullis:policy/peer@0.1.0" "is-verified" (func $verified (result i32)))
    (import "portcullis:policy/guard@0.1.0" "source-standing" (func $standing (result i32)))
    (import "portcullis:policy/guard@0.1.0" "report" (func $report (param i32) (result i32)))
    (import "portcullis:policy/flows@0.1.0" "route" (func $route (result i32)))
    (import "portcullis:policy/flows@0.1.0" "keep" (func $keep))
    (memory (export "memory") 1)
    (data (i32.const 16) "\01")
    (func (export "decide") (result i32)
      (drop (call $report (i32.const 1)))
      (call $keep)
      (i32.store16 (i32.const 20)
        (i32.add
          (i32.add (i32.const 300) (i32.mul (i32.const 100) (call $verified)))
          (i32.add (i32.mul (i32.const 10) (call $standing)) (call $route))))
      i32.const 16))"#;

#[test]
fn a_case_states_what_the_host_knows_and_expects_what_the_policy_asks() {
    let text = "[defaults]\nstanding = \"held\"\npeer = { dns = \"a.example\" }\n\
        [[case]]\ntransport = \"tls\"\nflow = \"gone\"\nexpect = { status = 422, reported = \"scan\", keeps-flow = true }\n\
        [[case]]\ntransport = \"tls\"\npeer = {}\nexpect = { status = 320 }\n\
        [[case]]\nstanding = \"exempt\"\nexpect = { status = 300, reported = \"none\" }\n\
        [[case]]\nexpect = { reported = \"guess\", keeps-flow = false }\n";
    let suite = Suite::parse(text, "cases.toml", Path::new("")).unwrap();
    let runtime = runtime(&Limits::default()).unwrap();
    let mut module = wat::parse_str(ASKING).unwrap();
    embed_with(&mut module, Exports::default()).unwrap();
    let policy = suite.load(&runtime, "asking", &module).unwrap();
    let report = suite.run(policy, Scope::operator);
    assert_eq!(
        mismatches(&report),
        [
            "decide: reported: guess / scan",
            "decide: keeps-flow: false / true"
        ]
    );
    assert_eq!(report.coverage.never_asked, [""; 0]);
}
