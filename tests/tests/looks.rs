//! How a host notices changes in its database.

#![forbid(unsafe_code)]

use portcullis_testkit::host::Builder;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::wait;

/// Every table that a host follows, with a row that is there before the host.
const FOLLOWED: [(&str, &str); 6] = [
    ("address", "(grp, ip_addr) VALUES (1, '192.0.2.1')"),
    (
        "trusted",
        "(src_ip, proto, tag) VALUES ('192.0.2.1', 'any', 'a')",
    ),
    (
        "dispatcher",
        "(setid, destination) VALUES (1, 'sip:192.0.2.1')",
    ),
    (
        "portcullis_seat",
        "(seat, last, revision, changed_by, changed_at) VALUES ('gone', 0, 0, 'ann', 1)",
    ),
    (
        "portcullis_tenant",
        "(name, config, revision, changed_by, changed_at) VALUES ('gone', NULL, 1, 'ann', 1)",
    ),
    (
        "portcullis_rollout",
        "(seat, generation, base, steps, gates, step, step_at, state, why, revision, changed_by, changed_at) \
         VALUES ('gone', 2, 1, '100%', '', 0, 1, 'aborted', '', 1, 'ann', 1)",
    ),
];

/// Number of looks that are read in the log of the server.
const LOOKS: u32 = 12;

#[test]
fn peers_an_idle_host_asks_for_all_tables_with_one_statement_and_reads_none() {
    let database = MariaDb::start();
    let sql = |statements: &str| database.sql("kamailio", statements);
    for (table, row) in FOLLOWED {
        sql(&format!("INSERT INTO {table} {row}"));
    }
    // All intervals have their defaults.
    let host = Builder::new().database(&database.url()).start();
    let names = FOLLOWED.map(|(table, _)| format!("'{table}'"));
    let rest = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'kamailio' AND TABLE_NAME IN ({}) \
         AND TIMESTAMPDIFF(SECOND, IFNULL(UPDATE_TIME, CREATE_TIME), NOW()) >= 4",
        names.join(", ")
    );
    wait::until("the tables rest", || {
        (sql(&rest).trim() == "6").then_some(())
    });

    sql("SET GLOBAL log_output = 'TABLE'; TRUNCATE mysql.general_log; SET GLOBAL general_log = ON");
    let looks = "SELECT COUNT(*) FROM mysql.general_log WHERE argument LIKE '%FROM information\\_schema.TABLES%' \
                 AND argument NOT LIKE '%general\\_log%'";
    wait::until("the host looks", || {
        let count: u32 = sql(looks).trim().parse().expect("a number");
        (count >= LOOKS).then_some(())
    });
    sql("SET GLOBAL general_log = OFF");
    let log = sql(
        "SELECT REPLACE(argument, '\\n', ' ') FROM mysql.general_log WHERE command_type IN ('Query', 'Prepare', 'Execute') \
         AND argument NOT LIKE '%general\\_log%'",
    );
    let mentions = |line: &str, (table, _): &(&str, &str)| line.contains(table);
    // What the host announces and the audit may name tables, too.
    let asked = log
        .lines()
        .filter(|line| !line.contains("portcullis_host") && !line.contains("portcullis_audit"))
        .filter(|line| FOLLOWED.iter().any(|table| mentions(line, table)));
    let mut count = 0;
    for line in asked {
        let asks_for_all = FOLLOWED.iter().all(|table| mentions(line, table));
        assert!(
            asks_for_all && line.contains("information_schema.TABLES"),
            "{line}\n{log}"
        );
        count += 1;
    }
    assert!(count >= LOOKS, "{log}");

    // Each table is read when it has changed.
    let rows = || host.metric("portcullis_address_rows", &[]) as u64;
    assert_eq!(rows(), 1);
    sql("INSERT INTO address (grp, ip_addr) VALUES (1, '192.0.2.2')");
    wait::until("the row is live", || (rows() == 2).then_some(()));
    sql("UPDATE dispatcher SET destination = 'sip:192.0.2.9'");
    wait::until("the destination is live", || {
        host.run("dispatcher show")
            .contains("192.0.2.9")
            .then_some(())
    });
    sql("UPDATE trusted SET tag = 'another'");
    wait::until("the peer is live", || {
        host.run("trusted dump").contains("another").then_some(())
    });
    sql(
        "INSERT INTO portcullis_tenant (name, config, revision, changed_by, changed_at) VALUES ('acme', 'source-groups = [5]', 1, 'ann', 2)",
    );
    wait::until("the tenant is live", || {
        host.run("tenant list").contains("acme").then_some(())
    });
}
