//! The interface `request`, from modules and from components.

use crate::support::{
    Host, answer, asking, both_forms, embedded, number_guest, reject, with_call_id,
};

const REQUEST: &str = "portcullis:policy/request@0.1.0";

#[test]
fn text_functions_return_parts_of_the_request() {
    let text = |function| answer(&text_guest(function));

    assert_eq!(text("method"), reject(401, "INVITE"));
    assert_eq!(text("uri"), reject(401, "sip:bob@example.com"));
    assert_eq!(text("from-uri"), reject(401, "sip:alice@example.org"));
    assert_eq!(text("to-uri"), reject(401, "sip:bob@example.net"));
    assert_eq!(text("source-address"), reject(401, "192.0.2.1"));
    assert_eq!(text("local-address"), reject(401, "2001:db8::5"));
    assert_eq!(text("transport"), reject(401, "TCP"));
}

#[test]
fn number_functions_return_parts_of_the_request() {
    let number = |function| answer(&number_guest(REQUEST, function, "", ""));

    assert_eq!(number("cseq-number"), reject(300 + 42, ""));
    assert_eq!(number("source-port"), reject(300 + 5060 % 400, ""));
    assert_eq!(number("local-port"), reject(300 + 5061 % 400, ""));
    assert_eq!(number("body-length"), reject(300, ""));
}

#[test]
fn header_fields_are_found_by_name() {
    let first = |name| answer(&header_guest(name));
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
fn an_empty_text_is_returned() {
    let mut host = Host::new();
    let request = with_call_id("");

    for policy in both_forms(&host, &embedded(&text_guest("call-id"))) {
        assert_eq!(host.ask(&policy, request.clone()), Ok(reject(401, "")));
    }
}

#[test]
fn long_texts_are_returned_whole() {
    let mut host = Host::new();
    // Longer than a reason phrase may be, so the guest returns its length.
    let request = with_call_id(&"é".repeat(5000));

    for policy in both_forms(&host, &embedded(&length_guest())) {
        let expected = reject(300, "");
        assert_eq!(host.ask(&policy, request.clone()), Ok(expected));
    }
}

/// Calls a function that returns a text, and answers 401 with the text as the reason phrase.
fn text_guest(function: &str) -> String {
    asking(
        &format!(r#"(import "{REQUEST}" "{function}" (func $ask (param i32)))"#),
        "",
        "(call $ask (i32.const 512))
         (i32.store (i32.const 24) (i32.load (i32.const 512)))
         (i32.store (i32.const 28) (i32.load (i32.const 516)))",
    )
}

/// Answers with 300 plus the length of the Call-ID, modulo 400.
fn length_guest() -> String {
    asking(
        &format!(r#"(import "{REQUEST}" "call-id" (func $ask (param i32)))"#),
        "",
        "(call $ask (i32.const 512))
         (call $code (i32.load (i32.const 516)))",
    )
}

/// Calls `header`: 401 with the value, or 404.
fn header_guest(name: &str) -> String {
    asking(
        &format!(r#"(import "{REQUEST}" "header" (func $ask (param i32 i32 i32)))"#),
        name,
        &format!(
            "(call $ask (i32.const 256) (i32.const {}) (i32.const 512))
             (call $reason)",
            name.len()
        ),
    )
}

/// Calls `headers`: the status code is 300 plus their number, the reason phrase is the value with index `n`.
fn list_guest(name: &str, n: usize) -> String {
    asking(
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
