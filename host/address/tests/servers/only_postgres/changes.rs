//! Detection of changes.

use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{AddressBook, BookOptions, Database, Look, Watcher};
use portcullis_testkit::server::Dialect;

use crate::support::{database_at, eventually, knows, trust, until, watch, with_tables};

const SNAPSHOT: &str = "pg_current_snapshot() and the counters of the table";

/// With a user who may only read three tables.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn every_change_is_noticed() {
    let (server, _) = with_tables(Dialect::Postgres).await;
    server
        .sql(&Dialect::Postgres.reader("reader", "x", &["version", "address", "trusted"]))
        .await;
    let book = book(database_at(&server.url_of("reader", "x")).kept());
    let watch = watch(&book);
    until(&book, |snapshot| snapshot.generation > 0).await;
    for (statement, hosts) in [
        (
            "INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1'), (1, '10.0.0.2')",
            2,
        ),
        (
            "UPDATE address SET ip_addr = '10.0.0.3', mask = 24 WHERE ip_addr = '10.0.0.2'",
            1,
        ),
        ("DELETE FROM address WHERE ip_addr = '10.0.0.1'", 0),
        (
            "COPY address (grp, ip_addr) FROM PROGRAM 'printf \"1\\t10.0.0.4\\n1\\t10.0.0.5\\n\"'",
            2,
        ),
        ("TRUNCATE TABLE address", 0),
        (
            "BEGIN; INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.6'); COMMIT",
            1,
        ),
        (
            "ALTER TABLE address ALTER COLUMN port TYPE bigint; INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.7')",
            2,
        ),
        (
            "CREATE TABLE next (LIKE address INCLUDING ALL); INSERT INTO next (grp, ip_addr) VALUES (9, '10.0.0.9'); \
             GRANT SELECT ON next TO reader; ALTER TABLE address RENAME TO old; ALTER TABLE next RENAME TO address",
            1,
        ),
    ] {
        server.sql(statement).await;
        let seen = || {
            let counts = book.current().counts;
            (counts.hosts, counts.skipped) == (hosts, 0)
        };
        eventually(statement, seen).await;
    }
    server
        .sql("INSERT INTO trusted (src_ip, proto, tag) VALUES ('10.0.0.1', 'any', 'a')")
        .await;
    until(&book, |now| trust(now, "10.0.0.1", "sip:a@a") == ["a"]).await;
    server.sql("TRUNCATE TABLE trusted").await;
    until(&book, |now| trust(now, "10.0.0.1", "sip:a@a").is_empty()).await;
    let seen = book.status().changes_seen_by.expect("it was looked at");
    assert_eq!(seen.to_string(), SNAPSHOT);
    watch.abort();
}

/// A check reports no change while there are no transactions. After a transaction in another table, one check cannot tell.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_table_that_rests_is_not_read_again() {
    let (server, database) = with_tables(Dialect::Postgres).await;
    // No other transactions may take place.
    for statement in [
        "ALTER SYSTEM SET autovacuum = off",
        "SELECT pg_reload_conf()",
        "CREATE TABLE other (n INT)",
    ] {
        server.sql(statement).await;
    }
    let mut watcher = Watcher::new(database);
    assert_eq!(watcher.look().await.unwrap(), Look::Changed, "the first");
    eventually_same(&mut watcher).await;
    for _ in 0..5 {
        assert_eq!(watcher.look().await.unwrap(), Look::Same);
    }
    server.sql("INSERT INTO other VALUES (1)").await;
    assert_eq!(watcher.look().await.unwrap(), Look::Unknown);
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    // A pending transaction has not changed the table; it is detected after its commit.
    let mut session = server.session().await;
    let insert = "BEGIN; INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')";
    session.sql(insert).await;
    assert_ne!(watcher.look().await.unwrap(), Look::Changed);
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    session.sql("COMMIT").await;
    assert_ne!(watcher.look().await.unwrap(), Look::Same);
    session.close().await;
}

/// Waits until the processes that a server starts have finished writing.
async fn eventually_same(watcher: &mut Watcher) {
    let begun = std::time::Instant::now();
    while watcher.look().await.expect("the server answers") != Look::Same {
        assert!(begun.elapsed().as_secs() < 60, "the server never rests");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A session that stays open updates the counters late. Other sessions write meanwhile, so that no two checks see the same snapshot.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_change_of_a_session_that_goes_on_is_noticed_while_others_write() {
    let (server, database) = with_tables(Dialect::Postgres).await;
    server.sql("CREATE TABLE calls (n INT)").await;
    let book = book(database);
    let watch = watch(&book);
    until(&book, |snapshot| snapshot.generation > 0).await;
    let calls = async {
        let mut session = server.session().await;
        loop {
            session.sql("INSERT INTO calls VALUES (1)").await;
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let change = async {
        let mut session = server.session().await;
        for group in [5, 6, 7] {
            let insert = format!(
                "DELETE FROM address; INSERT INTO address (grp, ip_addr) VALUES ({group}, '10.0.0.1')"
            );
            session.sql(&insert).await;
            until(&book, |snapshot| knows(snapshot, "10.0.0.1", group)).await;
        }
    };
    tokio::select! {
        () = calls => {}
        () = change => {}
    }
    watch.abort();
}

/// A book without a delay for tables that become empty.
fn book(database: Database) -> Arc<AddressBook> {
    let options = BookOptions {
        poll: Duration::from_millis(50),
        settle: Duration::ZERO,
        ..BookOptions::default()
    };
    Arc::new(AddressBook::new(database, options))
}
