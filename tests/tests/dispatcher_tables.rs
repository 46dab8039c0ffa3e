//! The table of the dispatcher as it is: rows that commands and others write come into use while the host runs, in each database, and tenants have
//! their sets and no others.

#![forbid(unsafe_code)]

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::postgres::Postgres;
use portcullis_testkit::{policy, wait};
use serde_json::{Value, json};

const CALLER: u8 = 10;

/// The last byte of the address of the first gateway.
const GATEWAY: u8 = 20;

fn gateways(builder: &Builder) -> [Callee; 2] {
    [0, 1].map(|number| Callee::start(builder.lease().addr(GATEWAY + number, 5080)))
}

fn code(host: &Host, domain: &str) -> u16 {
    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", &format!("sip:bob@{domain}"));
    caller.ask(&request).code()
}

fn wait_for_code(host: &Host, expected: u16) {
    wait::until(&format!("the answer is {expected}"), || {
        (code(host, "example.com") == expected).then_some(())
    });
}

/// The state and the priority of each destination of set 1, by their URIs.
fn destinations(host: &Host) -> Vec<(String, String, i64)> {
    let shown = host.rpc("dispatcher.show", json!([]));
    let all = shown["result"]["sets"][0]["destinations"].as_array();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let shown = all.into_iter().flatten().map(|one| {
        let priority = one["priority"].as_i64().expect("a number");
        (text(&one["uri"]), text(&one["state"]), priority)
    });
    let mut shown: Vec<_> = shown.collect();
    shown.sort_unstable();
    shown
}

/// Rows are added, changed and removed by commands and by others, who use `sql`. Nobody asks for a reload.
fn rows_are_followed(builder: Builder, sql: impl Fn(&str)) {
    let gateways = gateways(&builder);
    let [one, two] = gateways
        .each_ref()
        .map(|gateway| format!("sip:{}", gateway.addr()));
    let host = builder
        .policy(policy("dispatching"))
        .set("dispatcher", "ping = \"0s\"")
        .start();
    assert_eq!(code(&host, "example.com"), 503, "there is no set");
    let said = host.run(&format!("dispatcher add 1 {one} 0 0 duid=one North"));
    assert!(said.contains(&one), "{said}");
    wait_for_code(&host, 200);
    gateways[0].next();

    // A row that is wrong is skipped and named, and disturbs no other one.
    sql(&format!(
        "INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) \
         VALUES (1, '{two}', 0, 0, '', ''), (1, 'gw.example.com', 0, 0, '', '')"
    ));
    wait::until("the second gateway has its turn", || {
        assert_eq!(code(&host, "example.com"), 200);
        gateways[1].taken().map(drop)
    });
    for words in ["dispatcher show", "dispatcher rows"] {
        let said = host.run(words);
        for part in [&one, &two, "has no scheme"] {
            assert!(said.contains(part), "{words}: {part}: {said}");
        }
    }

    // What an operator has said of a gateway survives a change of others.
    host.run(&format!("dispatcher set-state d 1 {one}"));
    sql(&format!(
        "UPDATE dispatcher SET priority = 9 WHERE destination = '{two}'"
    ));
    let expected = |state: &str| {
        vec![
            (one.clone(), "DX".to_owned(), 0),
            (two.clone(), state.to_owned(), 9),
        ]
    };
    wait::until("the priority is another one", || {
        (destinations(&host) == expected("AX")).then_some(())
    });
    // The flags of a row are the state of its gateway from then on.
    sql(&format!(
        "UPDATE dispatcher SET flags = 1 WHERE destination = '{two}'"
    ));
    wait_for_code(&host, 503);
    assert_eq!(destinations(&host), expected("IX"));
    sql(&format!(
        "UPDATE dispatcher SET flags = 0 WHERE destination = '{two}'"
    ));
    wait_for_code(&host, 200);

    let said = host.run(&format!("dispatcher rm 1 {two}"));
    assert!(said.contains("1 row"), "{said}");
    wait_for_code(&host, 503);
    let said = host.refused(&format!("dispatcher rm 1 {two}"));
    assert!(said.contains("no row"), "{said}");
}

#[test]
fn peers_rows_in_mariadb_are_followed() {
    let database = MariaDb::start();
    let builder = Builder::new().database(&database.url());
    rows_are_followed(builder, |statement| {
        database.sql("kamailio", statement);
    });
}

#[test]
fn peers_rows_in_postgresql_are_followed() {
    let database = Postgres::start();
    let builder = Builder::new().database(&database.url());
    rows_are_followed(builder, |statement| {
        database.sql("kamailio", statement);
    });
}

#[test]
fn rows_that_commands_write_are_in_use_without_a_reload() {
    let builder = Builder::new();
    let gateways = gateways(&builder);
    let [one, two] = gateways
        .each_ref()
        .map(|gateway| format!("sip:{}", gateway.addr()));
    let host = builder
        .policy(policy("dispatching"))
        .set("dispatcher", "ping = \"0s\"")
        .start();
    for uri in [&one, &two] {
        host.run(&format!("dispatcher add 1 {uri}"));
    }
    let mut has_had = [false; 2];
    wait::until("both gateways have had a request", || {
        code(&host, "example.com");
        for (had, gateway) in has_had.iter_mut().zip(&gateways) {
            *had |= gateway.taken().is_some();
        }
        has_had.iter().all(|had| *had).then_some(())
    });
    host.run(&format!("dispatcher rm 1 {one}"));
    wait::until("the host has one row", || {
        (destinations(&host).len() == 1).then_some(())
    });
    while !gateways.iter().all(Callee::saw_nothing_more) {}
    for _ in 0..2 {
        assert_eq!(code(&host, "example.com"), 200);
        gateways[1].next();
    }
    assert!(gateways[0].saw_nothing_more());
}

#[test]
fn a_tenant_has_its_sets_and_no_others() {
    let builder = Builder::new();
    let gateways = gateways(&builder);
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let list = folder.path().join("dispatcher.list");
    let rows = format!(
        "1 sip:{}\n2 sip:{}\n",
        gateways[0].addr(),
        gateways[1].addr()
    );
    std::fs::write(&list, rows).expect("the list can be written");
    let mut builder = builder
        .set("dispatcher", &format!("file = {list:?}"))
        .set("dispatcher", "ping = \"0s\"");
    // The policy of all of them asks for set 1.
    let tenants = [
        ("own", "sets = [1, 2]"),
        ("other", "sets = [2]"),
        ("none", ""),
    ];
    for (name, sets) in tenants {
        let section = format!("tenants.{name}");
        builder = builder.set(&section, &format!("uri-domains = [\"{name}.example\"]"));
        if !sets.is_empty() {
            builder = builder.set(&section, sets);
        }
    }
    let host = builder.start();
    for (name, _) in tenants {
        let file = policy("dispatching");
        host.run(&format!("policy push {name} {} --activate", file.display()));
    }
    assert_eq!(code(&host, "own.example"), 200);
    gateways[0].next();
    for name in ["other", "none"] {
        assert_eq!(code(&host, &format!("{name}.example")), 503, "{name}");
        let label = format!("tenant=\"{name}\"");
        let crossings = host.metric("portcullis_tenant_crossings_total", &[&label]);
        assert_eq!(crossings, 1.0, "{name}");
    }
    assert!(gateways.iter().all(Callee::saw_nothing_more));
}
