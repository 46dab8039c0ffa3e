//! The interfaces `trusted` and `rules`, from modules and from components.

use std::sync::Arc;

use portcullis_address::{
    LoadedRules, RulesPart, Snapshot, TrustedBuilder, TrustedPart, TrustedRow,
};
use portcullis_policy::{Failure, Verdict};
use portcullis_request::Request;

use crate::support::{Host, component, embedded, invite, invite_from, reject, table, with_lines};

const TRUSTED: &str = "portcullis:policy/trusted@0.1.0";
const RULES: &str = "portcullis:policy/rules@0.1.0";

/// Three texts at fixed places, an answer of 300 and a number, and `ask`.
fn guest(import: &str, texts: [&str; 3], body: &str) -> String {
    let [a, b, c] = texts;
    format!(
        r#"(module
            {import}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (data (i32.const 16) "\01\00\00\00")
            (data (i32.const 256) "{a}")
            (data (i32.const 512) "{b}")
            (data (i32.const 768) "{c}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (local $at i32)
              (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
              (local.set $at (global.get $heap))
              (global.set $heap (i32.add (global.get $heap) (local.get 3)))
              local.get $at)
            (func $code (param i32) (i32.store16 (i32.const 20) (i32.add (i32.const 300) (local.get 0))))
            (func (export "decide") (result i32)
              {body}
              i32.const 16))"#
    )
}

fn host() -> Host {
    let mut builder = TrustedBuilder::default();
    let row = TrustedRow {
        id: 1,
        source: "192.0.2.1",
        proto: "tcp",
        from: Some("^sip:alice@"),
        ruri: Some("^sip:bob@"),
        tag: Some("low"),
        priority: 0,
    };
    for row in [
        row,
        TrustedRow {
            tag: Some("high"),
            priority: 9,
            ..row
        },
        TrustedRow {
            tag: None,
            priority: 5,
            ..row
        },
        TrustedRow {
            proto: "udp",
            tag: Some("udp"),
            ..row
        },
        TrustedRow {
            source: "gw",
            from: Some("carol"),
            tag: Some("name"),
            ..row
        },
    ] {
        builder.push(row).unwrap();
    }
    let rules = LoadedRules::of([
        ("permissions", "", "\"^sip:alice@\" : \"^sip:bob@\"\n"),
        ("open", "\"alice\" : ALL\n", "ALL : ALL\n"),
        (
            "register",
            "",
            "\"^sip:bob@\" : \"^sip:[^@]*@10\\.0\\.0\\.1$\", \":5070$\"\n",
        ),
    ]);
    let mut host = Host::new();
    host.addresses = Arc::new(Snapshot {
        trusted: Arc::new(TrustedPart::of(builder.build())),
        rules: Arc::new(RulesPart::of(rules)),
        ..Snapshot::clone(&table(&[]))
    });
    host
}

/// What both forms of a guest answer: the number, as long as it is a small one.
fn ask(wat: &str, request: &Request) -> Result<Verdict, Failure> {
    let mut host = host();
    let module = embedded(wat);
    let answers = [module.clone(), component(&module)].map(|bytes| {
        let policy = host.runtime.load("inline", &bytes).unwrap();
        host.ask(&policy, request.clone())
    });
    let [one, other] = answers;
    assert_eq!(one, other, "{wat}");
    one
}

fn own(function: &str) -> String {
    let import = format!(r#"(import "{TRUSTED}" "{function}" (func $ask (result i32)))"#);
    guest(&import, [""; 3], "(call $code (call $ask))")
}

fn of(
    function: &str,
    address: &'static str,
    transport: &'static str,
    from: Option<&'static str>,
) -> String {
    let import = format!(
        r#"(import "{TRUSTED}" "{function}" (func $ask (param i32 i32 i32 i32 i32 i32 i32) (result i32)))"#
    );
    let body = format!(
        "(call $code (call $ask (i32.const 256) (i32.const {}) (i32.const 512) (i32.const {}) (i32.const {}) (i32.const 768) \
         (i32.const {})))",
        address.len(),
        transport.len(),
        i32::from(from.is_some()),
        from.unwrap_or_default().len()
    );
    guest(
        &import,
        [address, transport, from.unwrap_or_default()],
        &body,
    )
}

fn rule(function: &str, basename: Option<&'static str>, uri: Option<&'static str>) -> String {
    let parameters = if uri.is_some() {
        "i32 i32 i32 i32 i32"
    } else {
        "i32 i32 i32"
    };
    let import =
        format!(r#"(import "{RULES}" "{function}" (func $ask (param {parameters}) (result i32)))"#);
    let uri_arguments = uri.map_or_else(String::new, |uri| {
        format!("(i32.const 512) (i32.const {})", uri.len())
    });
    let body = format!(
        "(call $code (call $ask (i32.const {}) (i32.const 256) (i32.const {}) {uri_arguments}))",
        i32::from(basename.is_some()),
        basename.unwrap_or_default().len()
    );
    guest(
        &import,
        [basename.unwrap_or_default(), uri.unwrap_or_default(), ""],
        &body,
    )
}

fn number(n: u16) -> Result<Verdict, Failure> {
    Ok(reject(300 + n, ""))
}

#[test]
fn trusted_peers_are_known_by_the_request() {
    let request = invite();
    assert_eq!(ask(&own("allow-trusted"), &request), number(1));
    assert_eq!(ask(&own("count-trusted"), &request), number(3));
    let stranger = invite_from("192.0.2.2:5060");
    assert_eq!(ask(&own("allow-trusted"), &stranger), number(0));
    assert_eq!(ask(&own("count-trusted"), &stranger), number(0));
}

#[test]
fn trusted_peers_of_the_policys_choice() {
    let request = invite_from("203.0.113.9:5060");
    let count = |address, transport, from| {
        ask(
            &of("count-trusted-address", address, transport, from),
            &request,
        )
    };
    assert_eq!(count("192.0.2.1", "TCP", None), number(3));
    assert_eq!(count("192.0.2.1", "any", None), number(4));
    assert_eq!(count("192.0.2.1", "sip", None), number(0));
    assert_eq!(count("192.0.2.1", "tcp", Some("sip:carol@x")), number(0));
    assert_eq!(count("gw", "tcp", Some("sip:carol@x")), number(1));
    assert_eq!(count("GW", "tcp", Some("sip:carol@x")), number(0));
    let allow = ask(
        &of("allow-trusted-address", "192.0.2.1", "udp", None),
        &request,
    );
    assert_eq!(allow, number(1));
}

#[test]
fn tags_are_those_of_the_last_question_that_matched() {
    let tags = |questions: &str, nth: usize| {
        let import = format!(
            r#"(import "{TRUSTED}" "allow-trusted" (func $allow (result i32)))
               (import "{TRUSTED}" "count-trusted" (func $count (result i32)))
               (import "{TRUSTED}" "tags" (func $tags (param i32)))"#
        );
        let body = format!(
            "{questions}
             (call $tags (i32.const 1024))
             (call $code (i32.load (i32.const 1028)))
             (if (i32.load (i32.const 1028)) (then
               (i32.store (i32.const 24) (i32.load offset={} (i32.load (i32.const 1024))))
               (i32.store (i32.const 28) (i32.load offset={} (i32.load (i32.const 1024))))))",
            8 * nth,
            8 * nth + 4
        );
        ask(&guest(&import, [""; 3], &body), &invite())
    };
    assert_eq!(tags("", 0), number(0), "nothing asked");
    assert_eq!(tags("(drop (call $allow))", 0), Ok(reject(301, "high")));
    assert_eq!(tags("(drop (call $count))", 0), Ok(reject(302, "high")));
    assert_eq!(
        tags("(drop (call $count))", 1),
        Ok(reject(302, "low")),
        "a row without a tag adds none"
    );
}

#[test]
fn rules_about_calls() {
    let request = invite();
    let routing = |basename| ask(&rule("allow-routing", basename, None), &request);
    assert_eq!(routing(None), number(0), "alice may not call bob");
    assert_eq!(routing(Some("permissions")), number(0));
    assert_eq!(routing(Some("open")), number(1));
    assert_eq!(routing(Some("nowhere")), number(1));
    let uri = |uri| ask(&rule("allow-uri", None, Some(uri)), &request);
    assert_eq!(uri("sip:bob@elsewhere"), number(0));
    assert_eq!(uri("sip:dave@elsewhere"), number(1));
    assert_eq!(uri(""), number(1));
}

#[test]
fn rules_about_registrations() {
    let register = |function, contacts: &[&str]| {
        let lines = contacts
            .iter()
            .map(|contact| format!("Contact: {contact}\r\n"));
        let request = with_lines(&lines.collect::<String>());
        ask(&rule(function, Some("register"), None), &request)
    };
    let allow = |contacts: &[_]| register("allow-register", contacts);
    let with_port = |contacts: &[_]| register("allow-register-include-port", contacts);
    assert_eq!(allow(&[]), number(1), "no Contact");
    assert_eq!(allow(&["*"]), number(1));
    assert_eq!(allow(&["<sip:b@10.0.0.2>"]), number(1));
    assert_eq!(
        allow(&["<sip:b@10.0.0.2>", "<sip:b@10.0.0.1>"]),
        number(0),
        "one of them"
    );
    assert_eq!(allow(&["<sip:b@10.0.0.2:5070>"]), number(1));
    assert_eq!(with_port(&["<sip:b@10.0.0.2:5070>"]), number(0));
    assert_eq!(with_port(&["<sip:b@10.0.0.2>"]), number(1));
    assert_eq!(allow(&["tel:+4930123"]), number(0));
}

#[test]
fn what_a_policy_passes_is_bounded_and_checked() {
    let import = format!(
        r#"(import "{RULES}" "allow-routing" (func $ask (param i32 i32 i32) (result i32)))"#
    );
    let with = |arguments: &str| {
        ask(
            &guest(
                &import,
                [""; 3],
                &format!("(call $code (call $ask {arguments}))"),
            ),
            &invite(),
        )
    };
    let mut host = host();
    for (arguments, said) in [
        (
            "(i32.const 1) (i32.const 65000) (i32.const 65000)",
            "out of bounds",
        ),
        ("(i32.const 7) (i32.const 0) (i32.const 0)", "discriminant"),
    ] {
        let wat = guest(
            &import,
            [""; 3],
            &format!("(call $code (call $ask {arguments}))"),
        );
        let module = embedded(&wat);
        for bytes in [module.clone(), component(&module)] {
            let policy = host.runtime.load("inline", &bytes).unwrap();
            let failure = host.ask(&policy, invite()).unwrap_err().to_string();
            assert!(failure.contains(said), "{failure}");
        }
    }
    assert_eq!(
        with("(i32.const 0) (i32.const -1) (i32.const -1)"),
        number(0),
        "a text that is not there is not read"
    );
}
