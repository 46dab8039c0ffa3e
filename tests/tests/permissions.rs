//! The rest of Kamailio's `permissions` module, end to end: the bundled policies with allow and deny files, and with the table of
//! trusted peers in MariaDB.

#![forbid(unsafe_code)]

use std::fs;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::Builder;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::office::{OFFICE, start};
use portcullis_testkit::sip::Caller;
use portcullis_testkit::{policy, wait};
use serde_json::json;

const STRANGER: u8 = 30;

fn ask(caller: &mut Caller, method: &str, uri: &str) -> String {
    let request = caller.request(method, uri);
    caller.ask(&request).start_line().to_owned()
}

const INLAND: (&str, &str) = ("group-200.allow", "ALL : \"^sip:\\+49\"\n");
const NOTHING_ELSE: &str = "ALL : ALL\n";

#[test]
fn allow_and_deny_files_are_reloaded() {
    let (host, _callee, folder) =
        start("call-routing", &[INLAND, ("group-200.deny", NOTHING_ELSE)]);
    let (inland, abroad) = ("sip:+4930123@example.com", "sip:+3312345@example.com");
    let mut office = host.udp(OFFICE);
    assert_eq!(ask(&mut office, "MESSAGE", inland), "SIP/2.0 200 OK");
    assert_eq!(
        ask(&mut office, "MESSAGE", abroad),
        "SIP/2.0 403 Destination not allowed"
    );
    assert_eq!(
        ask(&mut host.tcp(STRANGER), "MESSAGE", inland),
        "SIP/2.0 401 Address not authorised"
    );

    let test = host.rpc(
        "permissions.testUri",
        json!(["group-200", "sip:a@b", "sip:+49@c"]),
    );
    assert_eq!(test["result"], "Allowed");

    // An invalid line is reported, and does not affect the others.
    fs::write(
        folder.path().join(INLAND.0),
        "ALL : \"^sip:\\+33\"\nnonsense\n",
    )
    .expect("written");
    wait::until("the new rules serve", || {
        (ask(&mut office, "MESSAGE", abroad) == "SIP/2.0 200 OK").then_some(())
    });
    assert_eq!(
        ask(&mut office, "MESSAGE", inland),
        "SIP/2.0 403 Destination not allowed"
    );
    let status = &host.rpc("portcullis.status", json!([]))["result"]["rules"];
    let error = status["errors"][0].as_str().expect("an error is told");
    assert!(
        error.contains("group-200.allow") && error.contains('2'),
        "{error}"
    );
}

#[test]
fn a_subnet_may_register_only_its_users() {
    let builder_files = [
        (
            "register-from.allow",
            "\"^sip:caller@\" : \"^sip:127\\.\"\n",
        ),
        ("register-from.deny", NOTHING_ELSE),
        ("register.deny", "\"^sip:root@\" : ALL\n"),
    ];
    let (host, _callee, _folder) = start("register-guard", &builder_files);
    let mut office = host.udp(OFFICE);
    let mut register = office.request("REGISTER", "sip:example.com");
    register.to = "<sip:caller@example.com>".into();
    assert_eq!(office.ask(&register).start_line(), "SIP/2.0 200 OK");

    let mut register = office.request("REGISTER", "sip:example.com");
    register.to = "<sip:root@example.com>".into();
    assert_eq!(
        office.ask(&register).start_line(),
        "SIP/2.0 403 Contact not allowed"
    );

    let stranger = ask(&mut host.udp(STRANGER), "REGISTER", "sip:example.com");
    assert_eq!(stranger, "SIP/2.0 401 Address not authorised");
    // The policy passes other methods, so the default verdict applies.
    assert_eq!(
        ask(&mut office, "MESSAGE", "sip:bob@example.com"),
        "SIP/2.0 403 Forbidden"
    );
}

#[test]
fn peers_trusted_peers_come_from_mariadb() {
    let database = MariaDb::start();
    let builder = Builder::new();
    let office = builder.lease().ip(OFFICE);
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .policy(policy("trusted-peers"))
        .database(&database.url())
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    let mut caller = host.udp(OFFICE);
    let uri = "sip:bob@example.com";
    assert_eq!(
        ask(&mut caller, "MESSAGE", uri),
        "SIP/2.0 403 Peer not trusted"
    );

    database.sql(
        "kamailio",
        &format!(
            "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority)
             VALUES ('{office}', 'udp', '^sip:caller@', NULL, 'trunk-a', 5), ('{office}', 'fax', NULL, NULL, NULL, 0)"
        ),
    );
    let reloaded = host.rpc("permissions.trustedReload", json!([]));
    assert_eq!(reloaded["result"], "Reload OK", "{reloaded}");
    assert_eq!(ask(&mut caller, "MESSAGE", uri), "SIP/2.0 200 OK");
    assert_eq!(
        ask(&mut host.tcp(OFFICE), "MESSAGE", uri),
        "SIP/2.0 403 Peer not trusted"
    );
    host.wait_for_log("Coming from trusted peer trunk-a");

    let dump = host.rpc("permissions.trustedDump", json!([]));
    assert_eq!(dump["result"][0]["item"]["tag"], "trunk-a");
    let status = &host.rpc("portcullis.status", json!([]))["result"]["trusted"];
    assert_eq!(status["skipped"], 1, "{status}");
    assert!(
        status["errors"][0]
            .as_str()
            .is_some_and(|error| error.contains("fax")),
        "{status}"
    );

    // A change is detected without a reload.
    database.sql("kamailio", "DELETE FROM trusted");
    wait::until("nobody is trusted any more", || {
        (ask(&mut caller, "MESSAGE", uri) == "SIP/2.0 403 Peer not trusted").then_some(())
    });
}
