//! What policies see of the host: each function of the contract, from modules and from components.

use portcullis_policy::Verdict;

use crate::support::{
    Host, both_forms, embedded, guest, invite, invite_from, reject, table, unauthorised,
    with_call_id,
};

const PERMISSIONS: &str = "portcullis:policy/permissions@0.1.0";
const REQUEST: &str = "portcullis:policy/request@0.1.0";

#[test]
fn the_page_decides_by_group() {
    let mut host = Host::new();
    host.addresses = table(&[
        (250, "10.8.203.139", 32, 5060, Some("TestServer")),
        (200, "192.168.1.0", 24, 5060, Some("OfficeSubnet")),
    ]);

    for policy in both_forms(&host, &guest("page")) {
        let mut ask = |source| host.ask(&policy, invite_from(source)).unwrap();
        assert_eq!(ask("192.168.1.7:5060"), Verdict::Relay(None));
        assert_eq!(ask("10.8.203.139:5060"), Verdict::Relay(None));
        assert_eq!(ask("10.8.203.139:5061"), unauthorised());
        assert_eq!(ask("[2001:db8::1]:5060"), unauthorised());
    }
}

#[test]
fn texts_of_the_request() {
    let text = |function| answer(&text_guest(REQUEST, function));

    assert_eq!(text("method"), reject(401, "INVITE"));
    assert_eq!(text("uri"), reject(401, "sip:bob@example.com"));
    assert_eq!(text("from-uri"), reject(401, "sip:alice@example.org"));
    assert_eq!(text("to-uri"), reject(401, "sip:bob@example.net"));
    assert_eq!(text("source-address"), reject(401, "192.0.2.1"));
    assert_eq!(text("local-address"), reject(401, "2001:db8::5"));
    assert_eq!(text("transport"), reject(401, "TCP"));
}

#[test]
fn numbers_of_the_request() {
    let number = |function| answer(&number_guest(REQUEST, function, "", ""));

    assert_eq!(number("cseq-number"), reject(300 + 42, ""));
    assert_eq!(number("source-port"), reject(300 + 5060 % 400, ""));
    assert_eq!(number("local-port"), reject(300 + 5061 % 400, ""));
    assert_eq!(number("body-length"), reject(300, ""));
}

#[test]
fn header_fields() {
    let first = |name| answer(&option_guest(REQUEST, "header", name));
    let nth = |name, n| answer(&list_guest(name, n));

    assert_eq!(first("subject"), reject(401, "Grüße"));
    assert_eq!(
        first("VIA"),
        reject(401, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
    );
    assert_eq!(first("Route"), reject(404, ""));
    assert_eq!(
        nth("Via", 0),
        reject(302, "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
    );
    assert_eq!(
        nth("via", 1),
        reject(302, "SIP/2.0/UDP 192.0.2.2;branch=z9hG4bK2")
    );
    assert_eq!(nth("Route", 0), reject(300, ""));
}

#[test]
fn empty_texts_need_no_memory() {
    let mut host = Host::new();
    let request = with_call_id("");

    for policy in both_forms(&host, &embedded(&text_guest(REQUEST, "call-id"))) {
        assert_eq!(host.ask(&policy, request.clone()), Ok(reject(401, "")));
    }
}

#[test]
fn long_texts_arrive_whole() {
    let mut host = Host::new();
    // Longer than the verdict's reason may be, so the guest counts it.
    let request = with_call_id(&"é".repeat(5000));

    for policy in both_forms(&host, &embedded(&length_guest())) {
        let expected = reject(300, "");
        assert_eq!(host.ask(&policy, request.clone()), Ok(expected));
    }
}

#[test]
fn questions_about_addresses() {
    let rows = [
        (7, "192.0.2.1", 32, 5060, None),
        (8, "192.0.2.0", 24, 0, Some("net")),
        (9, "2001:db8::1", 128, 0, Some("six")),
        (10, "gw.example.com", 0, 0, Some("name")),
    ];
    let ask = |wat: &str| answer_with(&rows, wat);
    let source = |group| {
        let arguments = format!("(i32.const {group})");
        ask(&number_guest(
            PERMISSIONS,
            "allow-source-address",
            "i32",
            &arguments,
        ))
    };
    let address = |group, text: &str, port| ask(&address_guest(group, text, port));
    let group = |text: &str, port| ask(&group_guest(text, port));

    assert_eq!(source(7), reject(301, ""));
    assert_eq!(source(8), reject(301, ""));
    assert_eq!(source(9), reject(300, ""));
    assert_eq!(address(8, "192.0.2.200", 1), reject(301, ""));
    assert_eq!(address(7, "192.0.2.1", 5061), reject(300, ""));
    assert_eq!(address(9, "2001:db8::1", 1), reject(301, ""));
    assert_eq!(address(9, "[2001:db8:0::1]", 1), reject(301, ""));
    assert_eq!(address(10, "gw.example.com", 1), reject(301, ""));
    assert_eq!(address(10, "GW.example.com", 1), reject(300, ""));
    assert_eq!(group("192.0.2.1", 5060), reject(307, ""));
    assert_eq!(group("192.0.2.1", 5061), reject(308, ""));
    assert_eq!(group("gw.example.com", 1), reject(310, ""));
    assert_eq!(group("203.0.113.1", 5060), reject(699, ""));
    assert_eq!(ask(&source_group_guest()), reject(307, ""));
}

#[test]
fn the_last_tag_is_that_of_the_last_match() {
    let rows = [
        (7, "192.0.2.1", 32, 5060, None),
        (8, "192.0.2.0", 24, 0, Some("net")),
        (9, "192.0.2.0", 24, 0, Some("")),
    ];
    let tag = |groups: &[u32]| answer_with(&rows, &tag_guest(groups));

    assert_eq!(tag(&[]), reject(404, ""));
    assert_eq!(tag(&[8]), reject(401, "net"));
    assert_eq!(
        tag(&[8, 99]),
        reject(401, "net"),
        "what found nothing changes nothing"
    );
    assert_eq!(tag(&[8, 7]), reject(404, ""), "a row without a tag");
    assert_eq!(tag(&[8, 9]), reject(401, ""), "an empty tag is a tag");
}

#[test]
fn a_tag_does_not_outlive_its_call() {
    let mut host = Host::new();
    host.addresses = table(&[(8, "192.0.2.0", 24, 0, Some("net"))]);
    let matching = host.load_text(&tag_guest(&[8]));
    let silent = host.load_text(&tag_guest(&[]));

    assert_eq!(host.ask(&matching, invite()), Ok(reject(401, "net")));
    assert_eq!(host.ask(&silent, invite()), Ok(reject(404, "")));
}

#[test]
fn verdicts_of_every_case() {
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

#[test]
fn state_is_kept_only_where_it_is_asked_for() {
    let mut host = Host::new();

    for policy in both_forms(&host, &guest("stateful")) {
        for _ in 0..3 {
            assert_eq!(host.ask(&policy, invite()), Ok(reject(301, "")));
        }
        let kept = policy.with_reuse(true);
        for code in 301..310 {
            assert_eq!(host.ask(&kept, invite()), Ok(reject(code, "")));
        }
    }
}

#[test]
fn a_kept_sandbox_sees_the_table_of_the_moment() {
    let mut host = Host::new();
    let policy = host.load("page").with_reuse(true);
    assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));

    host.addresses = table(&[(200, "192.0.2.1", 32, 0, None)]);

    assert_eq!(host.ask(&policy, invite()), Ok(Verdict::Relay(None)));
}

#[test]
fn kept_sandboxes_of_two_policies_do_not_mix() {
    let mut host = Host::new();
    let one = host.load("stateful").with_reuse(true);
    let other = host.load("reject").with_reuse(true);

    assert_eq!(host.ask(&one, invite()), Ok(reject(301, "")));
    assert_eq!(host.ask(&other, invite()), Ok(unauthorised()));
    assert_eq!(host.ask(&one, invite()), Ok(reject(302, "")));
    assert_eq!(host.runtime.pool_use().live, 2);
}

/// What a guest answers; both forms of it agree.
fn answer(wat: &str) -> Verdict {
    answer_with(&[], wat)
}

fn answer_with(rows: &[(i64, &str, i64, i64, Option<&str>)], wat: &str) -> Verdict {
    let mut host = Host::new();
    host.addresses = table(rows);
    let [module, component] =
        both_forms(&host, &embedded(wat)).map(|policy| host.ask(&policy, invite()));
    assert_eq!(module, component, "{wat}");
    module.unwrap()
}

/// Asks for a text and answers 401 with it as the reason.
fn text_guest(interface: &str, function: &str) -> String {
    shell(
        &format!(r#"(import "{interface}" "{function}" (func $ask (param i32)))"#),
        "",
        "(call $ask (i32.const 512))
         (i32.store (i32.const 24) (i32.load (i32.const 512)))
         (i32.store (i32.const 28) (i32.load (i32.const 516)))",
    )
}

/// Asks for the Call-ID and answers with its length.
fn length_guest() -> String {
    shell(
        &format!(r#"(import "{REQUEST}" "call-id" (func $ask (param i32)))"#),
        "",
        "(call $ask (i32.const 512))
         (call $code (i32.load (i32.const 516)))",
    )
}

/// Asks for a number and answers with it.
fn number_guest(interface: &str, function: &str, params: &str, arguments: &str) -> String {
    shell(
        &format!(
            r#"(import "{interface}" "{function}" (func $ask (param {params}) (result i32)))"#
        ),
        "",
        &format!("(call $code (call $ask {arguments}))"),
    )
}

/// Asks for an optional text under a name: 401 with the text, or 404.
fn option_guest(interface: &str, function: &str, name: &str) -> String {
    shell(
        &format!(r#"(import "{interface}" "{function}" (func $ask (param i32 i32 i32)))"#),
        name,
        &format!(
            "(call $ask (i32.const 256) (i32.const {}) (i32.const 512))
             (call $reason)",
            name.len()
        ),
    )
}

/// Asks for all header fields of a name: the code tells how many, the reason is the n-th.
fn list_guest(name: &str, n: usize) -> String {
    shell(
        &format!(r#"(import "{REQUEST}" "headers" (func $ask (param i32 i32 i32)))"#),
        name,
        &format!(
            "(call $ask (i32.const 256) (i32.const {}) (i32.const 512))
             (call $code (i32.load (i32.const 516)))
             (if (i32.load (i32.const 516))
               (then
                 (i32.store (i32.const 24) (i32.load (i32.add (i32.load (i32.const 512)) (i32.const {}))))
                 (i32.store (i32.const 28) (i32.load (i32.add (i32.load (i32.const 512)) (i32.const {}))))))",
            name.len(),
            8 * n,
            8 * n + 4
        ),
    )
}

fn address_guest(group: u32, address: &str, port: u16) -> String {
    shell(
        &format!(
            r#"(import "{PERMISSIONS}" "allow-address" (func $ask (param i32 i32 i32 i32) (result i32)))"#
        ),
        address,
        &format!(
            "(call $code (call $ask (i32.const {group}) (i32.const 256) (i32.const {}) (i32.const {port})))",
            address.len()
        ),
    )
}

fn group_guest(address: &str, port: u16) -> String {
    shell(
        &format!(r#"(import "{PERMISSIONS}" "address-group" (func $ask (param i32 i32 i32 i32)))"#),
        address,
        &format!(
            "(call $ask (i32.const 256) (i32.const {}) (i32.const {port}) (i32.const 512))
             (call $number)",
            address.len()
        ),
    )
}

fn source_group_guest() -> String {
    shell(
        &format!(r#"(import "{PERMISSIONS}" "source-address-group" (func $ask (param i32)))"#),
        "",
        "(call $ask (i32.const 512))
         (call $number)",
    )
}

/// Asks whether the source is in these groups, then for the tag.
fn tag_guest(groups: &[u32]) -> String {
    let questions: String = groups
        .iter()
        .map(|group| format!("(drop (call $allow (i32.const {group})))"))
        .collect();
    shell(
        &format!(
            r#"(import "{PERMISSIONS}" "allow-source-address" (func $allow (param i32) (result i32)))
               (import "{PERMISSIONS}" "last-tag" (func $tag (param i32)))"#
        ),
        "",
        &format!(
            "{questions}
             (call $tag (i32.const 512))
             (call $reason)"
        ),
    )
}

/// A guest that answers 401 unless `body` changes that. At 256 lies `text`, at 512 is room for a result.
fn shell(imports: &str, text: &str, body: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (global $heap (mut i32) (i32.const 4096))
            (data (i32.const 16) "\01\00\00\00" "\91\01\00\00")
            (data (i32.const 256) "{text}")
            (func (export "cabi_realloc") (param $old i32) (param $had i32) (param $align i32) (param $size i32) (result i32)
              (local $at i32)
              (global.set $heap
                (i32.and
                  (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
                  (i32.sub (i32.const 0) (local.get $align))))
              (local.set $at (global.get $heap))
              (global.set $heap (i32.add (global.get $heap) (local.get $size)))
              local.get $at)
            ;; The code is 300 and a number.
            (func $code (param i32)
              (i32.store16 (i32.const 20)
                (i32.add (i32.const 300) (i32.rem_u (local.get 0) (i32.const 400)))))
            ;; The optional number at 512; 699 for none.
            (func $number
              (call $code
                (select (i32.load (i32.const 516)) (i32.const 399) (i32.load8_u (i32.const 512)))))
            ;; The optional text at 512; 404 for none.
            (func $reason
              (if (i32.load8_u (i32.const 512))
                (then
                  (i32.store (i32.const 24) (i32.load (i32.const 516)))
                  (i32.store (i32.const 28) (i32.load (i32.const 520))))
                (else
                  (call $code (i32.const 104)))))
            (func (export "decide") (result i32)
              {body}
              i32.const 16))"#
    )
}
