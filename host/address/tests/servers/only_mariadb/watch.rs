//! Detection of changes, for each engine.

use std::sync::Arc;
use std::time::Instant;

use portcullis_address::AddressBook;
use portcullis_testkit::server::{Dialect, Server};

use crate::support::{book, eventually, knows, until, watch, with_tables};

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn every_change_of_an_innodb_table_is_noticed() {
    let seen = changes_are_noticed("InnoDB", true).await;
    assert_eq!(seen, "UPDATE_TIME of the InnoDB table");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn every_change_of_an_innodb_table_without_numbers_is_noticed() {
    let seen = changes_are_noticed("InnoDB", false).await;
    assert_eq!(seen, "UPDATE_TIME of the InnoDB table");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn every_change_of_a_myisam_table_is_noticed() {
    let seen = changes_are_noticed("MyISAM", true).await;
    assert_eq!(seen, "UPDATE_TIME of the MyISAM table");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn every_change_of_an_aria_table_is_noticed() {
    let seen = changes_are_noticed("Aria", true).await;
    assert_eq!(
        seen,
        "reading it again (Aria tells of changes late or not at all)"
    );
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn every_change_of_a_partitioned_table_is_noticed() {
    let seen = changes_are_noticed("InnoDB PARTITION BY HASH (id) PARTITIONS 4", true).await;
    assert!(seen.starts_with("reading it again (the server"), "{seen}");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_table_that_rests_is_not_read_again() {
    let (server, database) = with_tables(Dialect::MariaDb).await;
    let book = book(database);
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    let watch = watch(&book);
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    at_rest(&server).await;
    let loads = book.status().loads;
    at_rest_for(&server, 6).await;
    // A check may have been in progress.
    assert!(book.status().loads <= loads + 1);
    watch.abort();
}

/// After a restart, the server does not know when the table was changed, but reports the next change.
#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_server_that_was_started_again_tells_of_changes() {
    let (mut server, database) = with_tables(Dialect::MariaDb).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    server.die();
    server.up();
    let updated = "SELECT IFNULL(CAST(UPDATE_TIME AS CHAR), 'none') FROM information_schema.TABLES \
                   WHERE TABLE_SCHEMA = 'kamailio' AND TABLE_NAME = 'address'";
    assert_eq!(server.ask(updated).await, "none");
    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    let loads = book.status().loads;
    server
        .sql("UPDATE address SET grp = 7 WHERE ip_addr = '10.0.0.1'")
        .await;
    until(&book, |snapshot| knows(snapshot, "10.0.0.1", 7)).await;
    assert!(book.status().loads > loads);
    let seen = book.status().changes_seen_by.unwrap().to_string();
    assert_eq!(seen, "UPDATE_TIME of the InnoDB table");
    watch.abort();
}

/// Changes a table in each possible way, each time after a pause. Returns how the changes are detected.
async fn changes_are_noticed(engine: &str, numbered: bool) -> String {
    let (server, database) = with_tables(Dialect::MariaDb).await;
    let id = match numbered {
        true => "id INT AUTO_INCREMENT PRIMARY KEY, ",
        false => "",
    };
    server
        .sql(&format!(
            "DROP TABLE address; CREATE TABLE address ({id}grp INT, ip_addr VARCHAR(50), mask INT DEFAULT 32, \
             port INT DEFAULT 0, tag VARCHAR(64)) ENGINE = {engine}"
        ))
        .await;
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let rows = folder.path().join("rows");
    std::fs::write(&rows, "3\t10.0.0.7\n3\t10.0.0.8\n").expect("a file can be written");
    let load = format!(
        "LOAD DATA INFILE '{}' INTO TABLE address (grp, ip_addr)",
        rows.display()
    );
    let book = book(database);
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
            "INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.4'), (1, '10.0.0.5')",
            2,
        ),
        ("TRUNCATE TABLE address", 0),
        (&*load, 2),
        (
            "ALTER TABLE address MODIFY port BIGINT NOT NULL DEFAULT 0, ADD COLUMN note INT",
            2,
        ),
        (
            "REPLACE INTO address (grp, ip_addr) VALUES (1, '10.0.0.6')",
            3,
        ),
    ] {
        changes(&server, &book, statement, hosts).await;
    }
    watch.abort();
    let seen = book.status().changes_seen_by.expect("it was looked at");
    seen.to_string()
}

async fn changes(server: &Server, book: &Arc<AddressBook>, statement: &str, hosts: u64) {
    at_rest(server).await;
    server.sql(statement).await;
    let seen = || book.current().counts.hosts == hosts && book.current().counts.skipped == 0;
    eventually(statement, seen).await;
}

/// Waits until the last change is so long ago that a check does not regard it as recent.
async fn at_rest(server: &Server) {
    at_rest_for(server, 2).await;
}

async fn at_rest_for(server: &Server, seconds: u32) {
    let rests = format!(
        "SELECT CAST(TIMESTAMPDIFF(SECOND, IFNULL(UPDATE_TIME, CREATE_TIME), NOW()) >= {seconds} AS CHAR) \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'kamailio' AND TABLE_NAME = 'address'"
    );
    let begun = Instant::now();
    while server.ask(&rests).await != "1" {
        assert!(begun.elapsed().as_secs() < 60, "the table never rests");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
