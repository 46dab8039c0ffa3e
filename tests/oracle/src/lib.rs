//! Portcullis's half of the oracle: executes the queries in the `X-Ask` lines of a request, and returns the results in `X-Answers`, in
//! several header fields if they are long. `kamailio.cfg` next to this crate does the same in Kamailio.
//!
//! | question | function |
//! |---|---|
//! | `source,GROUP` | `allow_source_address(GROUP)` |
//! | `source-group` | `allow_source_address_group()` |
//! | `address,GROUP,PORT,TEXT,.` | `allow_address(GROUP, TEXT, PORT)` |
//! | `address-group,,PORT,TEXT,.` | `allow_address_group(TEXT, PORT)` |
//! | `trusted` | `allow_trusted()` |
//! | `trusted-address,SOURCE,PROTO,.` | `allow_trusted(SOURCE, PROTO)` |
//! | `trusted-from,SOURCE,PROTO,FROM,.` | `allow_trusted(SOURCE, PROTO, FROM)` |
//! | `count`, `count-address,…`, `count-from,…` | the same with `peer_tag_mode` 1 |
//! | `routing,NAME` | `allow_routing(NAME)`, without a name `allow_routing()` |
//! | `register,NAME` | `allow_register(NAME)` |
//! | `uri,NAME,URI,.` | `allow_uri(NAME, URI)` |
//!
//! A result is `no;`, or the return value of Kamailio's function, with the tag in brackets if there is one: `1;`, `200[office];`.
//! Several tags are separated by `|`, in the order of their rows: `3[a|b];`.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

use portcullis_sdk::prelude::*;

policy!(decide);

/// The limit for a header field that a policy adds is twice as long.
const LONGEST_FIELD: usize = 1024;

fn decide() -> Verdict {
    let mut fields = vec![String::new()];
    for ask in request::headers("X-Ask") {
        let answer = answer(&ask);
        match fields.last_mut() {
            Some(field) if field.len() + answer.len() <= LONGEST_FIELD => field.push_str(&answer),
            _ => fields.push(answer),
        }
    }
    let asked = reject(480, "Asked");
    fields.into_iter().fold(asked, |rejection, field| {
        rejection.header("X-Answers", field)
    })
}

fn answer(ask: &str) -> String {
    let fields: Vec<_> = ask.split(',').collect();
    let group = |at: usize| fields[at].parse().expect("a group is a number");
    let port = |at: usize| fields[at].parse().expect("a port is a number");
    let found = match fields[0] {
        "source" => allow_source_address(group(1)).then_some(1),
        "source-group" => allow_source_address_group(),
        "address" => allow_address(group(1), fields[3], port(2)).then_some(1),
        "address-group" => allow_address_group(fields[3], port(2)),
        _ => return other_answer(&fields),
    };
    told(found, &Vec::from_iter(last_tag()))
}

/// Executes a query of trusted peers, or of allow and deny files.
fn other_answer(fields: &[&str]) -> String {
    let once = |is_trusted: bool| u32::from(is_trusted);
    let count = match *fields {
        ["trusted"] => once(allow_trusted()),
        ["trusted-address", source, proto, _] => once(allow_trusted_address(source, proto, None)),
        ["trusted-from", source, proto, from, _] => {
            once(allow_trusted_address(source, proto, Some(from)))
        }
        ["count"] => count_trusted(),
        ["count-address", source, proto, _] => count_trusted_address(source, proto, None),
        ["count-from", source, proto, from, _] => count_trusted_address(source, proto, Some(from)),
        ["routing", name] => return told_rules(allow_routing(basename(name))),
        ["register", name] => return told_rules(allow_register(basename(name))),
        ["uri", name, uri, _] => return told_rules(allow_uri(basename(name), uri)),
        _ => panic!("unknown query {fields:?}"),
    };
    told((count > 0).then_some(count), &trusted::tags())
}

fn basename(name: &str) -> Option<&str> {
    (!name.is_empty()).then_some(name)
}

/// Formats the return value of Kamailio's function; `None` if it returns -1.
fn told(found: Option<u32>, tags: &[String]) -> String {
    match found {
        None => "no;".to_owned(),
        Some(found) if tags.is_empty() => format!("{found};"),
        Some(found) => format!("{found}[{}];", tags.join("|")),
    }
}

fn told_rules(is_allowed: bool) -> String {
    told(is_allowed.then_some(1), &[])
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    #[test]
    fn every_kind_of_query_is_executed() {
        let host = Host::new()
            .address(200, "192.168.1.0/24", 5060)
            .tag("office")
            .address(7, "10.0.0.1", 0)
            .trusted("192.168.1.7", "any")
            .tag("first")
            .trusted("192.168.1.7", "udp")
            .tag("")
            .rules("permissions", |_, right| right == "sip:a@b");
        let request = Request::new("MESSAGE", "sip:oracle@example.com")
            .from_source("192.168.1.7:5060")
            .header("X-Ask", "source,200")
            .header("X-Ask", "source,201")
            .header("X-Ask", "source-group")
            .header("X-Ask", "address,7,5061,10.0.0.1,.")
            .header("X-Ask", "address-group,,5061,10.0.0.2,.")
            .header("X-Ask", "trusted")
            .header("X-Ask", "trusted-address,192.168.1.8,udp,.")
            .header("X-Ask", "trusted-from,192.168.1.7,tcp,sip:a@b,.")
            .header("X-Ask", "count")
            .header("X-Ask", "count-address,192.168.1.7,tcp,.")
            .header("X-Ask", "count-from,192.168.1.7,fax,sip:a@b,.")
            .header("X-Ask", "routing,")
            .header("X-Ask", "register,other")
            .header("X-Ask", "uri,permissions,sip:a@b,.");
        let outcome = host.request(request).decide(decide);
        let answers =
            "1[office];no;200[office];1;no;1[first];no;1[first];2[first|];1[first];no;no;1;1;";
        assert_eq!(
            outcome.verdict,
            reject(480, "Asked").header("X-Answers", answers)
        );
    }
}
