//! Tables and columns under other names, views, and versions.

use portcullis_address::{AddressNames, DatabaseError, Failure, NewRow, Schema};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::{Dialect, Server};

use super::support::{book, database, until, watch, with_tables};

on_each_server!(
    tables_and_columns_may_have_other_names,
    a_view_without_numbers_will_do,
    a_version_that_is_wrong_or_absent_is_told_with_the_statement_that_mends_it,
);

/// Names that need quotes in a statement, and one that is not in lower case.
fn renamed() -> Schema {
    let name = |text: &str| text.parse().expect("a good name");
    let mut schema = Schema {
        version_table: name("versions"),
        address: AddressNames {
            table: name("sip-trunks"),
            id: name("nr"),
            group: name("customer"),
            ip_addr: name("source"),
            mask: name("Bits"),
            port: name("from_port"),
            tag: name("label"),
        },
        ..Schema::default()
    };
    schema.trusted.table = name("peers");
    schema
}

async fn tables_and_columns_may_have_other_names(dialect: Dialect) {
    let server = Server::empty(dialect);
    let database = database(&server).with_schema(renamed());
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "versions"),
        "{error}"
    );
    database.migrate().await.unwrap();
    let [trunks, bits] = ["sip-trunks", "Bits"].map(|name| dialect.quoted(name));
    server
        .sql(&format!(
            "INSERT INTO {trunks} (customer, source, {bits}, from_port, label) VALUES \
             (200, '10.0.0.0', 24, 5060, 'a'), (200, '10.0.0.0/8', 32, 0, NULL)"
        ))
        .await;
    let new = NewRow {
        group: 200,
        ip_addr: "10.0.0.9".to_owned(),
        mask: 32,
        port: 0,
        tag: Some("new".to_owned()),
    };
    database.add(&new).await.unwrap();
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
        .sql(&format!(
            "INSERT INTO {trunks} (customer, source) VALUES (7, '10.0.0.7')"
        ))
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    watch.abort();

    let rename = async |old: &str, new: &str| {
        let [old, new] = [old, new].map(|name| dialect.quoted(name));
        let statement = format!("ALTER TABLE {trunks} RENAME COLUMN {old} TO {new}");
        server.sql(&statement).await;
    };
    rename("Bits", "mask").await;
    let error = book.reload().await.unwrap_err().to_string();
    assert!(
        error.contains(&dialect.in_errors("Bits"))
            && error.contains("customer, source, Bits, from_port, label"),
        "{error}"
    );
    rename("mask", "Bits").await;
    // A column for ids must exist if the configuration names it.
    rename("nr", "number").await;
    let error = book.reload().await.unwrap_err().to_string();
    assert!(error.contains(&dialect.in_errors("nr")), "{error}");
}

async fn a_view_without_numbers_will_do(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    server
        .sql(
            "DROP TABLE address; CREATE TABLE trunks (customer INT, ip VARCHAR(50), label INT); \
             INSERT INTO trunks VALUES (200, '10.0.0.1', 17), (200, '10.0.0.0/8', 18), (250, '10.0.0.3', NULL); \
             CREATE VIEW address AS SELECT customer AS grp, ip AS ip_addr, 32 AS mask, 0 AS port, label AS tag FROM trunks",
        )
        .await;
    if dialect == Dialect::Postgres {
        server.sql(&dialect.grant("address", "kamailio")).await;
    }
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.skipped), (2, 1));
    assert_eq!(loaded.errors[0].id, 2, "the second row of the view");
    let found = loaded.table.lookup("10.0.0.1".parse().unwrap());
    assert_eq!(found.find(200, 5060).unwrap().tag, Some("17"));
    assert_eq!(database.rows().await.unwrap()[0].id, None);
}

async fn a_version_that_is_wrong_or_absent_is_told_with_the_statement_that_mends_it(
    dialect: Dialect,
) {
    let (server, database) = with_tables(dialect).await;
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
        // The error names a condition and a statement.
        let statement = mend.find("UPDATE").or_else(|| mend.find("INSERT")).unwrap();
        server.sql(&mend[statement..]).await;
        database.load().await.unwrap();
    }
}
