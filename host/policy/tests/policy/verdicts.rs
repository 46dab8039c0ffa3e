//! Verdicts of modules and of components.

use portcullis_policy::Verdict;

use crate::support::answer;

#[test]
fn every_verdict_is_read() {
    let verdict = |data: &str| {
        answer(&format!(
            r#"(module
                (memory (export "memory") 1)
                (data (i32.const 16) {data})
                (data (i32.const 64) "gateway")
                (data (i32.const 80) "Contact")
                (data (i32.const 96) "<sip:b@192.0.2.7>")
                (data (i32.const 128) "\50\00\00\00" "\07\00\00\00" "\60\00\00\00" "\11\00\00\00")
                (func (export "decide") (result i32) i32.const 16))"#
        ))
    };

    assert_eq!(verdict(r#""\00\00\00\00\00""#), Verdict::Relay(None));
    assert_eq!(
        verdict(r#""\00\00\00\00\01\00\00\00\40\00\00\00\07\00\00\00""#),
        Verdict::Relay(Some("gateway".into()))
    );
    assert_eq!(verdict(r#""\02""#), Verdict::Drop);
    assert_eq!(verdict(r#""\03""#), Verdict::Pass);
    let moved = r#""\01\00\00\00\2e\01\00\00\00\00\00\00\00\00\00\00\80\00\00\00\01\00\00\00""#;
    let Verdict::Reject(rejection) = verdict(moved) else {
        panic!("a reject");
    };
    assert_eq!(rejection.code, 302);
    assert_eq!(
        rejection.headers,
        [("Contact".into(), "<sip:b@192.0.2.7>".into())]
    );
}
