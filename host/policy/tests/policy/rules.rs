//! The interface `rules`, from modules and from components.

use crate::questions::{ask, guest, host, number};
use crate::support::{component, embedded, invite, with_lines};

const RULES: &str = "portcullis:policy/rules@0.1.0";

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

#[test]
fn routing_is_allowed_by_rules() {
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
fn registrations_are_allowed_by_rules() {
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
fn arguments_are_limited_and_validated() {
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
