//! The operations on the rows of Kamailio's tables.

use serde_json::{Value, json};

use super::{
    ACME, ADDRESS, ADDRESS_CHANGES, ADDRESSES, Described, GATEWAY, GATEWAYS, IMPORT, MATCH, PEER,
    TRUSTED,
};

/// The operations on the tables of addresses and trusted peers.
pub(super) fn tables(host: &mut Described) {
    let none = (None, &b""[..]);
    let (json, csv) = (Some("application/json"), Some("text/csv"));
    let row = &b"{\"group\": 200, \"address\": \"192.168.1.0/24\", \"tag\": \"Office\"}"[..];
    let added = host.ask(None, ("POST", ADDRESSES, "?author=ann"), (json, row), 201);
    assert_eq!(
        (&added["address"], &added["mask"]),
        (&json!("192.168.1.0"), &json!(24))
    );
    let file = &b"grp,ip_addr\n300,10.2.0.1\n300,10.2.0.2\n"[..];
    let imported = host.ask(None, ("POST", IMPORT, "?dry_run=true"), (csv, file), 200);
    assert_eq!(
        (&imported["added"], &imported["is_dry_run"]),
        (&json!(2), &json!(true))
    );
    host.ask(None, ("POST", IMPORT, ""), (csv, file), 200);
    let listed = host.ask(None, ("GET", ADDRESSES, "?group=300&limit=1"), none, 200);
    assert_eq!(
        (&listed["total"], &listed["rows"][0]["address"]),
        (&json!(2), &json!("10.2.0.1"))
    );
    portcullis_testkit::wait::until("the row is loaded", || {
        let path = "/v1/addresses/match?source=192.168.1.7:5060";
        let (_, _, body) = host.host.ask(None, "GET", path, none);
        let found: Value = serde_json::from_slice(&body).ok()?;
        (found["first_group"] == 200).then_some(())
    });
    host.ask(None, ("GET", MATCH, "?source=192.168.1.7"), none, 200);
    host.row = listed["rows"][0]["id"].to_string();
    let shown = host.ask(None, ("GET", ADDRESS, ""), none, 200);
    assert_eq!(shown, listed["rows"][0]);
    let moved = &b"{\"group\": 300, \"address\": \"10.2.0.1\", \"port\": 5060}"[..];
    host.ask(None, ("PUT", ADDRESS, "?author=ann"), (json, moved), 200);
    host.ask(None, ("PUT", ADDRESS, ""), (json, b"{}"), 400);
    host.ask(Some(ACME), ("DELETE", ADDRESS, ""), none, 404);
    host.ask(None, ("DELETE", ADDRESS, ""), none, 200);
    host.ask(None, ("DELETE", ADDRESS, ""), none, 404);
    host.ask(
        None,
        ("POST", IMPORT, ""),
        (csv, b"grp,ip_addr\n300,10.2.0.1\n"),
        200,
    );
    let query = "?group=300&address=10.2.0.1";
    let removed = host.ask(None, ("DELETE", ADDRESSES, query), none, 200);
    assert_eq!(removed["removed"], 1);
    host.ask(None, ("DELETE", ADDRESSES, query), none, 404);
    let add = &b"{\"add\": [{\"group\": 301, \"address\": \"10.3.0.1\"}]}"[..];
    let changed = host.ask(None, ("POST", ADDRESS_CHANGES, ""), (json, add), 200);
    assert_eq!(changed, json!({"added": 1, "replaced": 0, "removed": 0}));
    let listed = host.ask(None, ("GET", ADDRESSES, "?group=301"), none, 200);
    let read = &listed["rows"][0];
    let row = json!({"group": 301, "address": "10.3.0.2"});
    let sent = json!({"add": [row], "remove": [read]}).to_string();
    let stale = json!({"add": [row], "replace": [{"read": read, "row": row}]}).to_string();
    let path = ("POST", ADDRESS_CHANGES, "?author=ann");
    host.ask(Some(ACME), path, (json, sent.as_bytes()), 403);
    host.ask(None, path, (json, sent.as_bytes()), 200);
    host.ask(None, path, (json, stale.as_bytes()), 412);
    let listed = host.ask(None, ("GET", ADDRESSES, "?group=301"), none, 200);
    assert_eq!(listed["total"], 1, "all changes or none: {listed}");
    host.ask(None, path, (json, b"{\"add\": [{}]}"), 400);
    host.ask(None, path, (json, b"{\"remove\": [{\"id\": null}]}"), 422);
    let bad = &b"{\"group\": 0, \"address\": \"192.168.1.1\"}"[..];
    host.ask(None, ("POST", ADDRESSES, ""), (json, bad), 422);
    host.ask(None, ("POST", ADDRESSES, ""), (json, b"{}"), 400);
    host.ask(
        None,
        ("POST", ADDRESSES, ""),
        (Some("text/plain"), b"{}"),
        415,
    );
    host.ask(
        None,
        ("POST", IMPORT, ""),
        (csv, b"grp,ip_addr\n0,x\n"),
        422,
    );

    let peer = &b"{\"source\": \"192.0.2.9\", \"proto\": \"any\", \"tag\": \"peer\"}"[..];
    host.ask(None, ("POST", TRUSTED, ""), (json, peer), 201);
    host.ask(None, ("POST", TRUSTED, ""), (json, peer), 409);
    let listed = host.ask(None, ("GET", TRUSTED, ""), none, 200);
    assert_eq!(listed[0]["source"], "192.0.2.9");
    portcullis_testkit::wait::until("the peer is loaded", || {
        let path = "/v1/trusted/match?source=192.0.2.9&proto=udp";
        let (_, _, body) = host.host.ask(None, "GET", path, none);
        let found: Value = serde_json::from_slice(&body).ok()?;
        (found["tags"] == json!(["peer"])).then_some(())
    });
    let path = "/v1/trusted/match";
    host.ask(None, ("GET", path, "?source=192.0.2.9"), none, 200);
    host.ask(
        None,
        ("GET", path, "?source=192.0.2.9&proto=smtp"),
        none,
        400,
    );
    host.row = listed[0]["id"].to_string();
    let shown = host.ask(None, ("GET", PEER, ""), none, 200);
    assert_eq!(shown, listed[0]);
    host.ask(None, ("PUT", PEER, ""), (json, peer), 200);
    host.ask(None, ("DELETE", PEER, "?author=ann"), none, 200);
    host.ask(None, ("GET", PEER, ""), none, 404);
    host.ask(None, ("POST", TRUSTED, ""), (json, peer), 201);
    host.ask(None, ("DELETE", TRUSTED, "?source=192.0.2.9"), none, 200);
    host.ask(None, ("DELETE", TRUSTED, "?source=192.0.2.9"), none, 404);
    gateways(host);
}

/// The operations on the rows of the dispatcher.
fn gateways(host: &mut Described) {
    let (none, json) = ((None, &b""[..]), Some("application/json"));
    let row = &b"{\"set\": 9, \"uri\": \"sip:192.0.2.30\", \"attrs\": \"sockname=a\"}"[..];
    let added = host.ask(None, ("POST", GATEWAYS, "?author=ann"), (json, row), 201);
    assert_eq!(
        (&added["set"], &added["uri"]),
        (&json!(9), &json!("sip:192.0.2.30"))
    );
    let warning = added["warning"]
        .as_str()
        .expect("the attribute has no effect");
    assert!(warning.contains("sockname"), "{warning}");
    for bad in [
        &b"{\"set\": 9, \"uri\": \"gw\"}"[..],
        b"{\"set\": 9, \"uri\": \"sip:a;transport=ws\"}",
    ] {
        host.ask(None, ("POST", GATEWAYS, ""), (json, bad), 422);
    }
    host.ask(None, ("POST", GATEWAYS, ""), (json, b"{}"), 400);
    host.ask(None, ("POST", GATEWAYS, ""), (Some("text/plain"), row), 415);
    let listed = host.ask(None, ("GET", GATEWAYS, ""), none, 200);
    let all = listed.as_array().expect("a list");
    let ours = all
        .iter()
        .find(|row| row["set"] == 9)
        .expect("the row is listed");
    host.row = ours["id"].to_string();
    let shown = host.ask(None, ("GET", GATEWAY, ""), none, 200);
    assert_eq!(&shown, ours);
    portcullis_testkit::wait::until("the row is loaded", || {
        let (_, text) = host.host.get("/v1/dispatcher")?;
        text.contains("sip:192.0.2.30").then_some(())
    });
    let moved = &b"{\"set\": 9, \"uri\": \"sips:192.0.2.31\", \"priority\": 5}"[..];
    let replaced = host.ask(None, ("PUT", GATEWAY, "?author=ann"), (json, moved), 200);
    assert_eq!(replaced["warning"], Value::Null);
    host.ask(None, ("PUT", GATEWAY, ""), (json, b"{}"), 400);
    host.ask(None, ("DELETE", GATEWAY, ""), none, 200);
    host.ask(None, ("GET", GATEWAY, ""), none, 404);
    host.ask(None, ("PUT", GATEWAY, ""), (json, moved), 404);
    host.ask(None, ("DELETE", GATEWAY, ""), none, 404);
    host.ask(None, ("POST", GATEWAYS, ""), (json, row), 201);
    let query = "?set=9&uri=sip:192.0.2.30";
    let removed = host.ask(None, ("DELETE", GATEWAYS, query), none, 200);
    assert_eq!(removed["removed"], 1);
    host.ask(None, ("DELETE", GATEWAYS, query), none, 404);
}
