//! The address and trusted pages of Siremis (6 and later) on the tables of a host. The statements are of the same form as those of its pages: a
//! prepared statement for each, with every column that its schema enables, numbers as integers, and empty fields of a form as `''` and 0.
//! Siremis does not reload: the host notices the changes by itself.

#![forbid(unsafe_code)]

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::policy;
use portcullis_testkit::wait;

const CALLER: u8 = 10;

/// Executes a prepared statement with these values, and returns what it selects.
fn execute(database: &MariaDb, statement: &str, values: &[&str]) -> String {
    let names: Vec<_> = (0..values.len()).map(|n| format!("@v{n}")).collect();
    let set: Vec<_> = names
        .iter()
        .zip(values)
        .map(|(name, value)| format!("SET {name} = {value};"))
        .collect();
    let using = match names.is_empty() {
        true => String::new(),
        false => format!(" USING {}", names.join(", ")),
    };
    let set = set.concat();
    database.sql(
        "kamailio",
        &format!("{set} PREPARE page FROM '{statement}'; EXECUTE page{using};"),
    )
}

/// Waits until a request of the caller gets this status.
fn wait_for(host: &Host, code: u16) {
    let mut caller = host.udp(CALLER);
    wait::until(&format!("the caller gets {code}"), || {
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        (caller.ask(&request).code() == code).then_some(())
    });
}

#[test]
fn peers_the_address_page_of_siremis_changes_what_is_decided() {
    let database = MariaDb::start();
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let ip = format!("'{}'", builder.lease().ip(CALLER));
    let host = builder
        .database(&database.url())
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    wait_for(&host, 401);

    // New.
    let insert = "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (?, ?, ?, ?, ?)";
    execute(&database, insert, &["200", &ip, "32", "0", "''"]);
    wait_for(&host, 200);
    // List, and show. Siremis cannot read NULL as text.
    let list = execute(
        &database,
        "SELECT id, grp, ip_addr, mask, port, tag FROM address",
        &[],
    );
    let id = list.split('\t').next().expect("a row").to_owned();
    let show = "SELECT id, grp, ip_addr, mask, port, tag FROM address WHERE id = ?";
    assert_eq!(execute(&database, show, &[&id]), list);
    assert!(!list.contains("NULL"), "{list}");
    // Edit: another group, then the first one again, with a mask that the form left empty.
    let update = "UPDATE address SET grp=?, ip_addr=?, mask=?, port=?, tag=? WHERE id=?";
    execute(&database, update, &["7", &ip, "32", "0", "''", &id]);
    wait_for(&host, 401);
    execute(&database, update, &["200", &ip, "0", "0", "'x'", &id]);
    wait_for(&host, 200);
    // Delete.
    execute(&database, " DELETE FROM address WHERE id = ?", &[&id]);
    host.rpc("permissions.addressReload", serde_json::json!([]));
    wait_for(&host, 401);
    assert_eq!(host.metric("portcullis_address_skipped_rows", &[]), 0.0);
}

#[test]
fn peers_the_trusted_page_of_siremis_changes_what_is_decided() {
    let database = MariaDb::start();
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(20, 5060));
    let ip = format!("'{}'", builder.lease().ip(CALLER));
    let host = builder
        .policy(policy("trusted-peers"))
        .database(&database.url())
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    wait_for(&host, 403);

    let insert = "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) \
        VALUES (?, ?, ?, ?, ?, ?)";
    execute(&database, insert, &[&ip, "'tcp'", "''", "''", "''", "0"]);
    let list = execute(
        &database,
        "SELECT id, src_ip, proto, priority FROM trusted",
        &[],
    );
    let id = list.split('\t').next().expect("a row").to_owned();
    let update = "UPDATE trusted SET src_ip=?, proto=?, from_pattern=?, ruri_pattern=?, tag=?, priority=? WHERE id=?";
    let edit = |proto, from| {
        execute(
            &database,
            update,
            &[&ip, proto, from, "''", "'trunk'", "5", &id],
        );
    };
    // Empty patterns match everything, as in Kamailio.
    edit("'udp'", "''");
    wait_for(&host, 200);
    edit("'udp'", "'^sip:nobody@'");
    wait_for(&host, 403);
    let show = "SELECT id, src_ip, proto, from_pattern, ruri_pattern, tag, priority FROM trusted WHERE id = ?";
    let shown = execute(&database, show, &[&id]);
    assert!(
        shown.ends_with("\tudp\t^sip:nobody@\t\ttrunk\t5\n"),
        "{shown}"
    );
    execute(&database, " DELETE FROM trusted WHERE id = ?", &[&id]);
    host.rpc("permissions.trustedReload", serde_json::json!([]));
    wait_for(&host, 403);
    assert_eq!(host.metric("portcullis_trusted_skipped_rows", &[]), 0.0);
}
