//! Reloads of the address table: large ones under load, databases that fail and return, invalid rows.

#![forbid(unsafe_code)]

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::wait;

const CALLER: u8 = 10;
const STRANGER: u8 = 30;
const SUBNETS: u32 = 100_000;

fn code(host: &Host, source: u8) -> u16 {
    let mut caller = host.udp(source);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.ask(&request).code()
}

fn wait_for_code(host: &Host, source: u8, expected: u16) {
    wait::until(&format!("the answer is {expected}"), || {
        (code(host, source) == expected).then_some(())
    });
}

/// A host without a next hop: an allowed source gets 403, an unknown one 401, and no callee is needed.
fn start(database: &MariaDb) -> Host {
    Builder::new().database(&database.url()).start()
}

#[test]
fn peers_reloads_of_100_000_rows_under_load() {
    let database = MariaDb::start();
    database.fill_subnets(SUBNETS);
    let host = start(&database);
    let caller = host.lease().ip(CALLER);
    let allow =
        format!("INSERT INTO address (grp, ip_addr, mask, port) VALUES (200, '{caller}', 32, 0)");
    database.sql("kamailio", &allow);
    host.run("address reload");
    let load = Load::start(&host, CALLER, 2);
    for _ in 0..5 {
        let said = host.run("address reload");
        assert!(said.starts_with("Reload OK"), "{said}");
        assert!(
            said.contains("100001") || said.contains("100,001"),
            "{said}"
        );
        load.wait_for(50);
    }
    let report = load.stop();
    assert_eq!(
        report.answers.keys().collect::<Vec<_>>(),
        [&403],
        "one verdict all the time"
    );
    assert_eq!(report.duplicates, 0);
    assert_eq!(code(&host, STRANGER), 401);
}

#[test]
fn peers_a_database_that_fails_and_returns() {
    let mut database = MariaDb::start();
    let caller_row = |host: &Host, source: u8| {
        format!(
            "INSERT INTO address (grp, ip_addr, mask, port) VALUES (200, '{}', 32, 0)",
            host.lease().ip(source)
        )
    };
    let host = start(&database);
    database.sql("kamailio", &caller_row(&host, CALLER));
    wait_for_code(&host, CALLER, 403);
    database.die();
    let output = host.command("address reload");
    assert!(
        !output.status.success(),
        "a reload without a database is no success"
    );
    assert_eq!(code(&host, CALLER), 403, "the old table is used");
    assert_eq!(code(&host, STRANGER), 401);
    database.up();
    database.sql("kamailio", &caller_row(&host, STRANGER));
    wait_for_code(&host, STRANGER, 403);
    assert_eq!(code(&host, CALLER), 403);
}

#[test]
fn peers_an_unreachable_database_at_the_start() {
    let mut database = MariaDb::start();
    database.die();
    let mut host = Builder::new().database(&database.url()).launch();
    assert!(!host.wait_until_ended().success());
    let log = host.log();
    assert!(log.contains(&database.addr().to_string()), "{log}");
    assert!(
        log.contains("required"),
        "the error says how to correct it: {log}"
    );
    assert!(!log.contains("kamailiorw"), "no password in the log: {log}");

    let host = Builder::new()
        .database(&database.url())
        .set("database", "required = false")
        .launch();
    wait::until("the host listens", || {
        host.get("/healthz").filter(|(s, _)| *s == 200)
    });
    let (status, text) = host.get("/readyz").expect("the control port answers");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("address"), "{text}");
    assert_eq!(code(&host, CALLER), 401, "an empty table matches no source");
    database.up();
    let caller = host.lease().ip(CALLER);
    database.sql(
        "kamailio",
        &format!("INSERT INTO address (grp, ip_addr, mask, port) VALUES (200, '{caller}', 32, 0)"),
    );
    wait_for_code(&host, CALLER, 403);
    wait::until("the host is ready", || {
        host.get("/readyz").filter(|(s, _)| *s == 200)
    });
}

#[test]
fn peers_invalid_rows_are_reported_and_the_others_are_used() {
    let database = MariaDb::start();
    let host = start(&database);
    let caller = host.lease().ip(CALLER);
    database.sql(
        "kamailio",
        &format!(
            "INSERT INTO address (id, grp, ip_addr, mask, port, tag) VALUES \
             (11, 200, '{caller}', 32, 0, NULL), (12, 200, '10.0.0.0', 99, 0, NULL), (13, 0, '10.0.0.1', 32, 0, NULL), \
             (14, 3000000000, '10.0.0.2', 32, 40000, 'big'), (15, 200, '300.1.1.1', 32, 0, NULL)"
        ),
    );
    let said = host.run("address reload");
    assert!(said.starts_with("Reload OK"), "{said}");
    for word in ["12", "mask", "99", "13", "grp", "15", "300.1.1.1"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    wait_for_code(&host, CALLER, 403);
    let dump = host.run("address dump");
    assert!(
        dump.contains("3000000000") && dump.contains("40000"),
        "{dump}"
    );
}
