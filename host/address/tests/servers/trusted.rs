//! The table of trusted peers.

use portcullis_address::{DatabaseError, Failure, NewTrusted, Schema};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::{Dialect, Server};

use super::support::{book, database, trust, with_tables};

on_each_server!(
    peers_are_loaded_as_kamctl_and_others_write_them,
    columns_may_have_other_names_and_findings_use_them,
    a_version_that_is_wrong_is_told_and_a_table_that_is_absent_is_not,
);

async fn peers_are_loaded_as_kamctl_and_others_write_them(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let broken = dialect.text("\\(");
    server
        .sql(&format!(
            "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES \
             ('10.0.0.1', 'any', NULL, NULL, NULL, 0), ('10.0.0.1', 'UDP', '^sip:a', '@example', 'first', 9), \
             ('10.0.0.1', 'tcp', '', '', 'tcp', 99), ('10.0.0.1', 'none', NULL, NULL, 'rests', 99), \
             ('10.0.0.2', 'udp', {broken}, NULL, 'broken', 0), ('10.0.0.2', 'tls', NULL, NULL, '', -1), \
             ('10.0.0.3', 'x25', NULL, NULL, NULL, 0)"
        ))
        .await;

    let loaded = database.load_trusted().await.unwrap();

    assert_eq!((loaded.table.len(), loaded.ignored), (4, 1));
    let named: Vec<_> = loaded
        .errors
        .iter()
        .map(|error| (error.id, error.column))
        .collect();
    assert_eq!(named, [(5, "from_pattern"), (7, "proto")]);
    let book = book(database);
    book.reload_trusted().await.unwrap();
    let now = book.current();
    assert_eq!(trust(&now, "10.0.0.1", "sip:alice@a"), ["first", "-"]);
    assert_eq!(trust(&now, "10.0.0.1", "sip:bob@a"), ["-"]);
    assert!(trust(&now, "10.0.0.2", "sip:a@a").is_empty());
}

async fn columns_may_have_other_names_and_findings_use_them(dialect: Dialect) {
    let server = Server::empty(dialect);
    let mut schema = Schema::default();
    schema.trusted.table = "peers".parse().unwrap();
    schema.trusted.source = "peer".parse().unwrap();
    schema.trusted.from = "caller".parse().unwrap();
    let database = database(&server).with_schema(schema);
    database.migrate().await.unwrap();
    let peer = NewTrusted {
        source: "10.0.0.1".into(),
        proto: "any".into(),
        from: Some("^sip:".into()),
        ruri: None,
        tag: None,
        priority: 0,
    };
    database.add_trusted(&peer).await.unwrap();
    assert!(database.add_trusted(&peer).await.is_err(), "twice");
    let broken = dialect.text("\\(");
    server
        .sql(&format!(
            "INSERT INTO peers (peer, proto, caller) VALUES ('10.0.0.2', 'udp', {broken})"
        ))
        .await;

    let loaded = database.load_trusted().await.unwrap();

    assert_eq!(loaded.table.len(), 1);
    let error = loaded.errors[0].to_string();
    assert!(error.contains(", column `caller`: "), "{error}");
    let rows = database.trusted_rows().await.unwrap();
    assert_eq!(rows[0].source.as_deref(), Some("10.0.0.1"));
    let number = rows[1].id.as_deref().expect("a row with a number");
    assert!(error.starts_with(&format!("row {number}, ")), "{error}");
    assert_eq!(database.remove_trusted("10.0.0.1").await.unwrap(), 1);

    server
        .sql("ALTER TABLE peers RENAME COLUMN caller TO who")
        .await;
    let error = database.load_trusted().await.unwrap_err().to_string();
    assert!(error.contains(&dialect.in_errors("caller")), "{error}");
}

async fn a_version_that_is_wrong_is_told_and_a_table_that_is_absent_is_not(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    server
        .sql("UPDATE version SET table_version = 5 WHERE table_name = 'trusted'")
        .await;
    let error = database.load_trusted().await.unwrap_err().to_string();
    assert!(
        error.contains("version \"5\"") && error.contains("UPDATE version SET"),
        "{error}"
    );

    // The table is optional.
    server
        .sql("DROP TABLE trusted; DELETE FROM version WHERE table_name = 'trusted'")
        .await;
    let error = database.load_trusted().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::NoTable { .. })),
        "{error}"
    );
    let book = book(database);
    book.reload_trusted().await.unwrap();
    assert!(book.current().trusted.is_absent);
}
