//! Our half of the oracle: asks the host what each `X-Ask` line of a request asks, and tells the answers in the reply's
//! `X-Answers`. `kamailio.cfg` beside this crate is the other half: the same questions, put to Kamailio.
//!
//! | question | function |
//! |---|---|
//! | `source,GROUP` | `allow_source_address(GROUP)` |
//! | `source-group` | `allow_source_address_group()` |
//! | `address,GROUP,PORT,TEXT,.` | `allow_address(GROUP, TEXT, PORT)` |
//! | `address-group,,PORT,TEXT,.` | `allow_address_group(TEXT, PORT)` |
//!
//! An answer is `no;`, or what the function returns in Kamailio, with the tag in brackets if there is one: `1;`, `200[office];`.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

fn decide() -> Verdict {
    let answers: String = request::headers("X-Ask")
        .iter()
        .map(|ask| match answer(ask) {
            Some(found) => told(found),
            None => "no;".to_owned(),
        })
        .collect();
    reject(480, "Asked").header("X-Answers", answers)
}

/// What Kamailio's function returns; none where it returns -1.
fn answer(ask: &str) -> Option<u32> {
    let mut fields = ask.split(',');
    let mut next = || fields.next().unwrap_or_default();
    let (kind, group, port, text) = (next(), next(), next(), next());
    let group = || group.parse().expect("a group is a number");
    let port = || port.parse().expect("a port is a number");
    match kind {
        "source" => allow_source_address(group()).then_some(1),
        "source-group" => allow_source_address_group(),
        "address" => allow_address(group(), text, port()).then_some(1),
        "address-group" => allow_address_group(text, port()),
        _ => panic!("nobody knows how to ask {ask:?}"),
    }
}

fn told(found: u32) -> String {
    match last_tag() {
        Some(tag) => format!("{found}[{tag}];"),
        None => format!("{found};"),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    #[test]
    fn every_kind_of_question_is_answered() {
        let host = Host::new()
            .address(200, "192.168.1.0/24", 5060)
            .tag("office")
            .address(7, "10.0.0.1", 0);
        let request = Request::new("MESSAGE", "sip:oracle@example.com")
            .from_source("192.168.1.7:5060")
            .header("X-Ask", "source,200")
            .header("X-Ask", "source,201")
            .header("X-Ask", "source-group")
            .header("X-Ask", "address,7,5061,10.0.0.1,.")
            .header("X-Ask", "address-group,,5061,10.0.0.2,.");
        let outcome = host.request(request).decide(decide);
        let answers = "1[office];no;200[office];1;no;";
        assert_eq!(
            outcome.verdict,
            reject(480, "Asked").header("X-Answers", answers)
        );
    }
}
