//! Rights, and what a migration makes.

use portcullis_address::MigrationAction;
use portcullis_testkit::server::{Dialect, Server};

use crate::support::{book, database, database_at, until, watch, with_tables};

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_user_who_may_read_three_tables_is_enough() {
    let (server, _) = with_tables(Dialect::MariaDb).await;
    server
        .sql(&Dialect::MariaDb.reader("reader", "x", &["version", "address", "trusted"]))
        .await;
    let book = book(database_at(&server.url_of("reader", "x")));
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    watch.abort();
    let source = book.status().changes_seen_by.unwrap().to_string();
    assert_eq!(source, "UPDATE_TIME of the InnoDB table");

    server
        .sql("REVOKE SELECT ON kamailio.version FROM 'reader'@'%'")
        .await;
    let error = book.reload().await.unwrap_err().to_string();
    assert!(
        error.contains("denied") && error.contains("`version`") && error.contains("grant it"),
        "{error}"
    );
    // A migration without privileges fails, and changes nothing.
    let error = book.database().migrate().await.unwrap_err().to_string();
    assert!(error.contains("denied"), "{error}");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_migration_makes_what_is_absent_and_touches_nothing_else() {
    let server = Server::empty(Dialect::MariaDb);
    let database = database(&server);
    server
        .sql("CREATE TABLE address (grp INT, ip_addr TEXT, mask INT, port INT, tag TEXT) ENGINE = MyISAM; INSERT INTO address VALUES (1, '10.0.0.1', 32, 0, 'x')")
        .await;
    let address = server.ask_at("SHOW CREATE TABLE address", 1).await;
    let planned = database.migration().await.unwrap();
    let tables = "SELECT GROUP_CONCAT(table_name ORDER BY table_name) FROM information_schema.tables WHERE table_schema = 'kamailio'";
    assert_eq!(
        server.ask(tables).await,
        "address",
        "a plan changes nothing"
    );
    let done = database.migrate().await.unwrap();
    assert_eq!(planned, done);
    assert_eq!(
        server.ask(tables).await,
        "address,dispatcher,portcullis_artifact,portcullis_audit,portcullis_generation,portcullis_host,portcullis_rollout,portcullis_seat,portcullis_tenant,trusted,version"
    );
    assert_eq!(server.ask_at("SHOW CREATE TABLE address", 1).await, address);
    assert!(
        matches!(&done[0].action, MigrationAction::Create(statements) if statements.len() == 2)
    );
    // Only the operator knows whether the table is Kamailio's.
    assert!(
        matches!(&done[1].action, MigrationAction::Complain(why) if why.contains("no table `version`")),
        "{done:?}"
    );
    let again = database.migrate().await.unwrap();
    assert!(
        matches!(&again[1].action, MigrationAction::Complain(why) if why.contains("VALUES ('address', 6)")),
        "{again:?}"
    );
    assert_eq!(
        [&again[0].action, &again[2].action],
        [&MigrationAction::Keep; 2]
    );
    assert!(database.load().await.is_err());
    server
        .sql("INSERT INTO version (table_name, table_version) VALUES ('address', 6)")
        .await;
    assert_eq!(database.load().await.unwrap().table.len(), 1);
}
