//! Tables and columns under other names, views, versions, and what a migration makes.

use portcullis_address::{
    AddressNames, Database, DatabaseError, DatabaseUrl, Failure, MigrationAction, NewRow, Schema,
};

use super::server::Server;
use super::{book, until, watch};

fn renamed() -> Schema {
    let name = |text: &str| text.parse().expect("a good name");
    let mut schema = Schema {
        version_table: name("versions"),
        address: AddressNames {
            table: name("sip-trunks"),
            id: name("nr"),
            group: name("customer"),
            ip_addr: name("source"),
            mask: name("bits"),
            port: name("from_port"),
            tag: name("label"),
        },
        ..Schema::default()
    };
    schema.trusted.table = name("peers");
    schema
}

fn row(ip_addr: &str) -> NewRow {
    NewRow {
        group: 200,
        ip_addr: ip_addr.to_owned(),
        mask: 32,
        port: 0,
        tag: Some("new".to_owned()),
    }
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn tables_and_columns_may_have_other_names() {
    let server = Server::start(&[]);
    let database = server.database().with_schema(renamed());
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "versions"),
        "{error}"
    );
    database.migrate().await.unwrap();
    server
        .sql("INSERT INTO `sip-trunks` (customer, source, bits, from_port, label) VALUES (200, '10.0.0.0', 24, 5060, 'a'), (200, '10.0.0.0/8', 32, 0, NULL)")
        .await;
    database.add(&row("10.0.0.9")).await.unwrap();
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.skipped), (2, 1));
    let error = loaded.errors[0].to_string();
    assert!(
        error.starts_with("row 2, column `source`: ip_addr \"10.0.0.0/8\" is a network"),
        "{error}"
    );
    assert_eq!(database.count().await.unwrap(), 3);
    assert_eq!(database.remove(200, "10.0.0.9").await.unwrap(), 1);
    let rows = database.rows().await.unwrap();
    assert_eq!(rows[0].port.as_deref(), Some("5060"));

    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO `sip-trunks` (customer, source) VALUES (7, '10.0.0.7')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    watch.abort();

    server
        .sql("ALTER TABLE `sip-trunks` CHANGE bits mask INT")
        .await;
    let error = book.reload().await.unwrap_err().to_string();
    assert!(
        error.contains("'bits'") && error.contains("customer, source, bits, from_port, label"),
        "{error}"
    );
    // A number that the configuration names must be there.
    server
        .sql("ALTER TABLE `sip-trunks` CHANGE mask bits INT, CHANGE nr number INT AUTO_INCREMENT")
        .await;
    let error = book.reload().await.unwrap_err().to_string();
    assert!(error.contains("'nr'"), "{error}");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_view_without_numbers_will_do() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql(
            "DROP TABLE address; CREATE TABLE trunks (customer INT, ip VARCHAR(50), label INT); \
             INSERT INTO trunks VALUES (200, '10.0.0.1', 17), (200, '10.0.0.0/8', 18), (250, '10.0.0.3', NULL); \
             CREATE VIEW address AS SELECT customer AS grp, ip AS ip_addr, 32 AS mask, 0 AS port, label AS tag FROM trunks",
        )
        .await;
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.skipped), (2, 1));
    assert_eq!(loaded.errors[0].id, 2, "the second row of the view");
    let found = loaded.table.lookup("10.0.0.1".parse().unwrap());
    assert_eq!(found.find(200, 5060).unwrap().tag, Some("17"));
    assert_eq!(database.rows().await.unwrap()[0].id, None);
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_version_that_is_wrong_or_absent_is_told_with_the_statement_that_mends_it() {
    let (server, database) = Server::with_tables(&[]).await;
    for (statement, found) in [
        (
            "UPDATE version SET table_version = 5 WHERE table_name = 'address'",
            "has version \"5\", and only version 6 is known: ",
        ),
        (
            "DELETE FROM version WHERE table_name = 'address'",
            "has no version, and only version 6 is known: ",
        ),
    ] {
        server.sql(statement).await;
        let error = database.load().await.unwrap_err().to_string();
        let (_, mend) = error.split_once(found).unwrap_or_else(|| panic!("{error}"));
        // Each names a condition and a statement.
        let statement = mend.find("UPDATE").or_else(|| mend.find("INSERT")).unwrap();
        server.sql(&mend[statement..]).await;
        database.load().await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_user_who_may_read_three_tables_is_enough() {
    let (server, _) = Server::with_tables(&[]).await;
    server
        .sql(
            "CREATE USER 'reader'@'%' IDENTIFIED BY 'x'; GRANT SELECT ON kamailio.version TO 'reader'@'%'; \
             GRANT SELECT ON kamailio.address TO 'reader'@'%'; GRANT SELECT ON kamailio.trusted TO 'reader'@'%'",
        )
        .await;
    let url = server.url().replace("kamailio:kamailiorw", "reader:x");
    let url: DatabaseUrl = url.parse().unwrap();
    let book = book(Database::new(url));
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
    // A migration that may do nothing says so, and does nothing.
    let error = book.database().migrate().await.unwrap_err().to_string();
    assert!(error.contains("denied"), "{error}");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_migration_makes_what_is_absent_and_touches_nothing_else() {
    let server = Server::start(&[]);
    let database = server.database();
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
        "address,portcullis_artifact,portcullis_generation,portcullis_seat,portcullis_tenant,trusted,version"
    );
    assert_eq!(server.ask_at("SHOW CREATE TABLE address", 1).await, address);
    assert!(
        matches!(&done[0].action, MigrationAction::Create(statements) if statements.len() == 2)
    );
    // Whether it is Kamailio's is for its owner to say.
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
