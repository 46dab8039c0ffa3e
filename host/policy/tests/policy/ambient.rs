//! Counters, settings, the clock and changes to the header, by modules and components alike.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use portcullis_policy::{
    Counters, Edit, Evaluator, Failure, InvalidVerdict, LoadProblem, Moment, Policy, Scope,
    Settings, SettingsError, Tape, Verdict,
};
use serde_json::json;

use crate::support::{Host, answering, both_forms, component, embedded, invite};

const COUNTERS: &str = "portcullis:policy/counters@0.1.0";
const SETTINGS: &str = "portcullis:policy/settings@0.1.0";
const CLOCK: &str = "portcullis:policy/clock@0.1.0";
const EDITS: &str = "portcullis:policy/edits@0.1.0";

/// What module and component answer, each with a scope of its own.
fn codes(scope: impl Fn() -> Scope, calls: usize, wat: &str) -> Vec<u16> {
    let mut host = Host::new();
    let [module, component] = both_forms(&host, &embedded(wat)).map(|policy| {
        host.scope = Arc::new(scope());
        let code = |_| match host.ask(&policy, invite()) {
            Ok(Verdict::Reject(rejection)) => rejection.code,
            other => panic!("{other:?}"),
        };
        (0..calls).map(code).collect::<Vec<_>>()
    });
    assert_eq!(module, component);
    module
}

fn failures(scope: impl Fn() -> Scope, wat: &str) -> Failure {
    let mut host = Host::new();
    let [module, component] = both_forms(&host, &embedded(wat)).map(|policy| {
        host.scope = Arc::new(scope());
        host.ask(&policy, invite()).unwrap_err()
    });
    assert_eq!(module.kind(), component.kind());
    module
}

fn adding() -> String {
    let import =
        format!(r#"(import "{COUNTERS}" "add" (func $add (param i32 i32 i64 i32) (result i64)))"#);
    let add =
        "(i32.wrap_i64 (call $add (i32.const 256) (i32.const 4) (i64.const 3) (i32.const 60)))";
    answering(&import, "name", add)
}

#[test]
fn counters_outlast_calls_and_belong_to_one_scope() {
    assert_eq!(codes(Scope::operator, 3, &adding()), [303, 306, 309]);

    let shared = Arc::new(Counters::new(100));
    let mut host = Host::new();
    let policy = host.load_text(&adding());
    let mut ask = |counters: &Arc<Counters>| {
        host.scope = Arc::new(Scope::tenant("acme").with_counters(Arc::clone(counters)));
        match host.ask(&policy, invite()) {
            Ok(Verdict::Reject(rejection)) => rejection.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!([ask(&shared), ask(&shared)], [303, 306]);
    assert_eq!(ask(&Arc::default()), 303, "another tenant's are others");
    assert_eq!(ask(&shared), 309);
}

#[test]
fn rates_and_values() {
    let import = format!(
        r#"(import "{COUNTERS}" "rate-limit" (func $limit (param i32 i32 f64 i32) (result i32)))"#
    );
    let take = "(call $limit (i32.const 256) (i32.const 3) (f64.const 0.001) (i32.const 2))";
    let codes_of = codes(Scope::operator, 3, &answering(&import, "key", take));
    assert_eq!(codes_of, [301, 301, 300]);
    let import =
        format!(r#"(import "{COUNTERS}" "value" (func $value (param i32 i32) (result i64)))"#);
    let value = "(i32.wrap_i64 (call $value (i32.const 256) (i32.const 4)))";
    assert_eq!(
        codes(Scope::operator, 1, &answering(&import, "name", value)),
        [300]
    );
    let stray = "(i32.wrap_i64 (call $value (i32.const 65530) (i32.const 64)))";
    let failure = failures(Scope::operator, &answering(&import, "", stray));
    assert!(failure.to_string().contains("out of bounds"), "{failure}");
}

fn settings() -> Arc<Settings> {
    Arc::new(Settings::new(json!({
        "yes": true, "n": -7, "x": 1.5, "t": "four", "list": ["a", "bc"], "in": {"a": 1, "b": 2},
    })))
}

/// Asks one function of `settings` by a key, and reads `body` out of what it left at 512.
fn by_key(function: &str, key: &str, body: &str) -> u16 {
    let import = format!(r#"(import "{SETTINGS}" "{function}" (func $ask (param i32 i32 i32)))"#);
    let length = key.len();
    let body = format!(
        "(block (result i32) (call $ask (i32.const 256) (i32.const {length}) (i32.const 512)) {body})"
    );
    let scope = || Scope::operator().with_settings(settings());
    codes(scope, 1, &answering(&import, key, &body))[0] - 300
}

#[test]
fn settings_by_their_kinds() {
    let case = "(i32.load8_u (i32.const 512))";
    let byte = "(i32.load8_u (i32.const 513))";
    assert_eq!(
        by_key("boolean", "yes", &format!("(i32.add {case} {byte})")),
        2
    );
    assert_eq!(by_key("boolean", "n", case), 0);
    let negated = "(i32.wrap_i64 (i64.sub (i64.const 0) (i64.load (i32.const 520))))";
    assert_eq!(by_key("integer", "n", negated), 7);
    assert_eq!(by_key("integer", "x", case), 0);
    let doubled = "(i32.trunc_f64_s (f64.mul (f64.const 2) (f64.load (i32.const 520))))";
    assert_eq!(by_key("number", "x", doubled), 3);
    assert_eq!(by_key("number", "n", case), 1);
    assert_eq!(by_key("text", "t", "(i32.load (i32.const 520))"), 4);
    assert_eq!(
        by_key("text", "t", "(i32.load8_u (i32.load (i32.const 516)))"),
        u16::from(b'f')
    );
    assert_eq!(by_key("text", "none", case), 0);
    assert_eq!(by_key("texts", "list", "(i32.load (i32.const 520))"), 2);
    let second_length = "(i32.load (i32.add (i32.load (i32.const 516)) (i32.const 12)))";
    assert_eq!(by_key("texts", "list", second_length), 2);
    assert_eq!(by_key("texts", "t", case), 0);
    assert_eq!(by_key("keys", "in", "(i32.load (i32.const 516))"), 2);
    assert_eq!(by_key("keys", "", "(i32.load (i32.const 516))"), 6);
    assert_eq!(by_key("keys", "t", "(i32.load (i32.const 516))"), 0);

    let import = format!(r#"(import "{SETTINGS}" "json" (func $ask (param i32)))"#);
    let body = "(block (result i32) (call $ask (i32.const 512)) (i32.load (i32.const 516)))";
    let scope = || Scope::operator().with_settings(settings());
    let length = codes(scope, 1, &answering(&import, "", body))[0] - 300;
    let expected = json!({
        "yes": true, "n": -7, "x": 1.5, "t": "four", "list": ["a", "bc"], "in": {"a": 1, "b": 2},
    });
    assert_eq!(usize::from(length), expected.to_string().len());
}

/// 2026-11-25T21:30:15Z, a Wednesday.
fn moment() -> Moment {
    Moment {
        wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_642_215_250),
        steady: Instant::now(),
    }
}

#[test]
fn the_clock_stands_where_it_is_put() {
    let now = format!(r#"(import "{CLOCK}" "now" (func $now (result i64)))"#);
    let local = format!(r#"(import "{CLOCK}" "local" (func $local (param i32 i32 i32)))"#);
    let zone = "Europe/Berlin";
    let ask = |length: usize, body: &str| {
        format!(
            "(block (result i32) (call $local (i32.const 256) (i32.const {length}) (i32.const 512)) {body})"
        )
    };
    let mut host = Host::new();
    let mut code = |imports: &str, body: &str| {
        let codes = both_forms(&host, &embedded(&answering(imports, zone, body))).map(|policy| {
            host.evaluator.insert_tape(Tape::new(moment()));
            match host.ask(&policy, invite()) {
                Ok(Verdict::Reject(rejection)) => rejection.code - 300,
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(codes[0], codes[1]);
        codes[0]
    };
    let milliseconds = "(i32.wrap_i64 (i64.rem_u (call $now) (i64.const 1000)))";
    // Codes end at 699.
    assert_eq!(code(&now, milliseconds), 250);
    let parts = [
        (
            "(i32.sub (i32.load16_u (i32.const 516)) (i32.const 2000))",
            26,
        ),
        ("(i32.load8_u (i32.const 518))", 11),
        ("(i32.load8_u (i32.const 519))", 25),
        ("(i32.load8_u (i32.const 520))", 22),
        ("(i32.load8_u (i32.const 521))", 30),
        ("(i32.load8_u (i32.const 522))", 15),
        ("(i32.load8_u (i32.const 523))", 3),
        ("(i32.div_s (i32.load (i32.const 524)) (i32.const 60))", 60),
    ];
    for (read, expected) in parts {
        assert_eq!(code(&local, &ask(zone.len(), read)), expected, "{read}");
    }
    assert_eq!(code(&local, &ask(3, "(i32.load8_u (i32.const 512))")), 0);
}

/// Adds `X-A: bc` and takes `Via` or another name out, as the text says: `X-Abc` and the name.
fn editing(name: &str) -> String {
    let imports = format!(
        r#"(import "{EDITS}" "add-header" (func $add (param i32 i32 i32 i32) (result i32)))
           (import "{EDITS}" "remove-header" (func $remove (param i32 i32) (result i32)))"#
    );
    let length = name.len();
    let body = format!(
        "(i32.add
           (call $add (i32.const 256) (i32.const 3) (i32.const 259) (i32.const 2))
           (call $remove (i32.const 261) (i32.const {length})))"
    );
    answering(&imports, &format!("X-Abc{name}"), &body)
}

#[test]
fn changes_to_the_header_come_out_in_order() {
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&editing("Subject"))) {
        host.ask(&policy, invite()).unwrap();
        let edits = host.evaluator.take_edits();
        assert_eq!(edits.to_string(), "add X-A: bc, remove Subject");
        assert!(host.evaluator.take_edits().is_empty(), "taken");
    }
    // The next call has none of them.
    let policy = host.load_text(&adding());
    host.ask(&policy, invite()).unwrap();
    assert!(host.evaluator.take_edits().is_empty());
}

#[test]
fn header_fields_that_are_not_for_a_policy_stay() {
    let scope = || Scope::tenant("acme").with_headers(["x-a"]);
    let mut host = Host::new();
    for policy in both_forms(&host, &embedded(&editing("Subject"))) {
        host.scope = Arc::new(scope());
        let answer = host.ask(&policy, invite()).unwrap();
        assert_eq!(answer.to_string(), "reject 301");
        let edits = host.evaluator.take_edits();
        let names: Vec<_> = edits.iter().map(Edit::name).collect();
        assert_eq!(names, ["X-A"]);
        assert_eq!(host.scope.crossings(), 1);
    }
    for name in [
        "Via",
        "v",
        "contact",
        "m",
        "CSeq",
        "Route",
        "Record-Route",
        "Max-Forwards",
    ] {
        let failure = failures(Scope::operator, &editing(name));
        let expected = InvalidVerdict::ReservedHeader(name.into());
        assert_eq!(failure, Failure::InvalidVerdict(expected), "{name}");
    }
    let failure = failures(Scope::operator, &editing("a b"));
    let expected = InvalidVerdict::HeaderName("a b".into());
    assert_eq!(failure, Failure::InvalidVerdict(expected));
}

#[test]
fn changes_have_a_number() {
    let imports = format!(
        r#"(import "{EDITS}" "remove-header" (func $remove (param i32 i32) (result i32)))"#
    );
    let body = "(loop $again (result i32)
        (drop (call $remove (i32.const 256) (i32.const 3)))
        (br $again))";
    let failure = failures(Scope::operator, &answering(&imports, "X-A", body));
    assert_eq!(failure, Failure::InvalidVerdict(InvalidVerdict::ManyEdits));
}

/// A policy that looks at its settings: `yes` must be there and true, else it says what is in the text.
fn configured(text: &str, validate: &str) -> Vec<u8> {
    let length = text.len();
    let wat = format!(
        r#"(module
            (import "{SETTINGS}" "boolean" (func $boolean (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\02\00\00\00")
            (data (i32.const 64) "yes")
            (data (i32.const 256) "{text}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
            (func (export "decide") (result i32) i32.const 16)
            (func (export "validate-settings") (result i32)
              (call $boolean (i32.const 64) (i32.const 3) (i32.const 512))
              (i32.store8 (i32.const 1024) (i32.eqz (i32.load8_u (i32.const 513))))
              (i32.store (i32.const 1028) (i32.const 256))
              (i32.store (i32.const 1032) (i32.const {length}))
              {validate}
              i32.const 1024))"#
    );
    let mut module = wat::parse_str(wat).unwrap();
    portcullis_policy::embed_configured(&mut module).unwrap();
    module
}

#[test]
fn settings_are_looked_at_before_a_policy_serves() {
    let host = Host::new();
    let module = configured("say `yes`.", "");
    for bytes in [&module, &component(&module)] {
        let load = |settings: &Arc<Settings>| {
            let limits = host.runtime.limits();
            let loaded = host.runtime.load_within("x.wasm", bytes, limits, settings);
            loaded.map_err(|error| error.problem)
        };
        let refused: Result<Policy, _> = load(&Arc::default());
        let expected = SettingsError::Refused("say `yes`".into());
        assert_eq!(
            refused.unwrap_err(),
            LoadProblem::Settings(expected.clone())
        );
        let policy: Policy = load(&settings()).unwrap();
        assert_eq!(policy.check_settings(&settings()), Ok(()));
        assert_eq!(policy.check_settings(&Arc::default()), Err(expected));
    }
    // One that does not look takes any.
    let policy = host.load_text(&adding());
    assert_eq!(policy.check_settings(&Arc::default()), Ok(()));
}

#[test]
fn looking_at_settings_has_its_limits() {
    let host = Host::hasty();
    let refusal = |text: &str, body: &str| {
        let module = configured(text, body);
        let [module, component] =
            [module.clone(), component(&module)].map(|bytes| match host.refusal(&bytes) {
                LoadProblem::Settings(SettingsError::Failed(failure)) => failure.kind().as_str(),
                other => panic!("{other}"),
            });
        assert_eq!(module, component);
        module
    };
    assert_eq!(refusal("x", "unreachable"), "trap");
    assert_eq!(refusal("x", "(loop $again (br $again))"), "timeout");
    let far = "(i32.store (i32.const 1032) (i32.const 70000))";
    let module = configured("x", far);
    for bytes in [&module, &component(&module)] {
        let problem = host.refusal(bytes);
        let is_settings = matches!(problem, LoadProblem::Settings(SettingsError::Failed(_)));
        assert!(is_settings, "{problem}");
    }
}

#[test]
fn an_export_of_another_type_is_refused() {
    let host = Host::new();
    let wat = r#"(module
        (memory (export "memory") 1)
        (data (i32.const 16) "\02\00\00\00")
        (func (export "validate-settings") (param i32) (result i32) i32.const 16)
        (func (export "decide") (result i32) i32.const 16))"#;
    let mut module = wat::parse_str(wat).unwrap();
    portcullis_policy::embed_configured(&mut module).unwrap();
    let problem = host.refusal(&module);
    assert!(matches!(problem, LoadProblem::Encoding { .. }), "{problem}");
}

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

#[test]
fn fuel_is_the_same_each_time() {
    let limits = portcullis_policy::Limits::default();
    let runtime = portcullis_policy::Runtime::metered(limits).unwrap();
    let module = embedded(&adding());
    let mut evaluator = Evaluator::new();
    let (scope, addresses) = (Arc::default(), Arc::default());
    let fuel = [&module, &component(&module)].map(|bytes| {
        let policy: Policy = runtime.load("x", bytes).unwrap();
        let mut used = (0..3).map(|_| {
            let (_, answer) = evaluator.decide(&policy, &scope, &addresses, invite());
            answer.unwrap();
            evaluator.fuel().unwrap()
        });
        let first = used.next().unwrap();
        assert!(used.all(|used| used == first));
        first
    });
    assert!(fuel[0] > 5 && fuel[0] < 100, "{fuel:?}");
}
