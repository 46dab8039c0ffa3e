//! The interface `trusted`, from modules and from components.

use std::sync::Arc;

use portcullis_address::{Snapshot, TrustedBuilder, TrustedPart, TrustedRow};
use portcullis_sip::Transport;

use crate::questions::{ask, guest, number};
use crate::support::{Host, both_forms, embedded, invite, invite_from, reject, table};

const TRUSTED: &str = "portcullis:policy/trusted@0.1.0";

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

#[test]
fn trusted_peers_are_found_by_the_request() {
    let request = invite();
    assert_eq!(ask(&own("allow-trusted"), &request), number(1));
    assert_eq!(ask(&own("count-trusted"), &request), number(3));
    let stranger = invite_from("192.0.2.2:5060");
    assert_eq!(ask(&own("allow-trusted"), &stranger), number(0));
    assert_eq!(ask(&own("count-trusted"), &stranger), number(0));
}

#[test]
fn trusted_peers_are_found_by_address() {
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
fn tags_are_those_of_the_last_match() {
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
    assert_eq!(tags("", 0), number(0), "no query");
    assert_eq!(tags("(drop (call $allow))", 0), Ok(reject(301, "high")));
    assert_eq!(tags("(drop (call $count))", 0), Ok(reject(302, "high")));
    assert_eq!(
        tags("(drop (call $count))", 1),
        Ok(reject(302, "low")),
        "a row without a tag adds none"
    );
}

/// As in Kamailio: a row is for its transport, `any` is for all, and one with `none` is not loaded.
#[test]
fn a_row_matches_the_transport_of_the_request_and_no_other() {
    const PROTOS: [&str; 6] = ["udp", "tcp", "tls", "ws", "wss", "sctp"];
    let host_with = |proto: &str| {
        let mut builder = TrustedBuilder::default();
        let row = TrustedRow {
            id: 1,
            source: "192.0.2.1",
            proto,
            from: None,
            ruri: None,
            tag: None,
            priority: 0,
        };
        builder.push(row).unwrap();
        let mut host = Host::new();
        host.addresses = Arc::new(Snapshot {
            trusted: Arc::new(TrustedPart::of(builder.build())),
            ..Snapshot::clone(&table(&[]))
        });
        host
    };
    let matches = |proto: &str, transport: Transport| {
        let mut host = host_with(proto);
        let mut request = invite();
        request.arrival.transport = transport;
        let [module, component] = both_forms(&host, &embedded(&own("allow-trusted")))
            .map(|policy| host.ask(&policy, request.clone()));
        assert_eq!(module, component);
        module == number(1)
    };
    for transport in Transport::ALL {
        for proto in PROTOS {
            let is_same = proto == transport.parameter();
            assert_eq!(matches(proto, transport), is_same, "{proto} {transport}");
        }
        assert!(matches("ANY", transport), "{transport}");
        assert!(!matches("none", transport), "{transport}");
    }
}
