//! The table of trusted peers.

use portcullis_address::{
    DatabaseError, DatabaseUrl, Failure, FromUri, NewTrusted, Proto, Snapshot, TrustedQuestion,
    TrustedSource,
};

use super::server::Server;
use super::{book, until, watch};

/// The tags of the peers that trust a request from this source over UDP.
fn trust(snapshot: &Snapshot, source: &str, from: &str) -> Vec<String> {
    let question = TrustedQuestion {
        source: TrustedSource::Ip(source.parse().expect("an address")),
        proto: Proto::Udp,
        from: FromUri::Own(from),
        ruri: "sip:bob@example.com",
    };
    let matches = snapshot.trusted.table.matches(question);
    matches
        .iter()
        .map(|found| found.tag.unwrap_or("-").to_owned())
        .collect()
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn peers_are_loaded_as_kamctl_and_others_write_them() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql(
            "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES \
             ('10.0.0.1', 'any', NULL, NULL, NULL, 0), ('10.0.0.1', 'UDP', '^sip:a', '@example', 'first', 9), \
             ('10.0.0.1', 'tcp', '', '', 'tcp', 99), ('10.0.0.1', 'none', NULL, NULL, 'rests', 99), \
             ('10.0.0.2', 'udp', '\\\\(', NULL, 'broken', 0), ('10.0.0.2', 'tls', NULL, NULL, '', -1), \
             ('10.0.0.3', 'x25', NULL, NULL, NULL, 0)",
        )
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

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn columns_may_have_other_names_and_findings_use_them() {
    let server = Server::start(&[]);
    let mut schema = portcullis_address::Schema::default();
    schema.trusted.table = "peers".parse().unwrap();
    schema.trusted.source = "peer".parse().unwrap();
    schema.trusted.from = "caller".parse().unwrap();
    let database = server.database().with_schema(schema);
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
    server
        .sql("INSERT INTO peers (peer, proto, caller) VALUES ('10.0.0.2', 'udp', '\\\\(')")
        .await;

    let loaded = database.load_trusted().await.unwrap();

    assert_eq!(loaded.table.len(), 1);
    let error = loaded.errors[0].to_string();
    assert!(error.starts_with("row 2, column `caller`: "), "{error}");
    let rows = database.trusted_rows().await.unwrap();
    assert_eq!(rows[0].source.as_deref(), Some("10.0.0.1"));
    assert_eq!(database.remove_trusted("10.0.0.1").await.unwrap(), 1);

    server
        .sql("ALTER TABLE peers CHANGE caller who VARCHAR(64)")
        .await;
    let error = database.load_trusted().await.unwrap_err().to_string();
    assert!(error.contains("'caller'"), "{error}");
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_version_that_is_wrong_is_told_and_a_table_that_is_absent_is_not() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql("UPDATE version SET table_version = 5 WHERE table_name = 'trusted'")
        .await;
    let error = database.load_trusted().await.unwrap_err().to_string();
    assert!(
        error.contains("version \"5\"") && error.contains("UPDATE version SET"),
        "{error}"
    );

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

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn who_may_only_read_sees_every_change() {
    let (server, _) = Server::with_tables(&[]).await;
    server
        .sql(
            "CREATE USER 'reader'@'%' IDENTIFIED BY 'r'; GRANT SELECT ON kamailio.* TO 'reader'@'%'",
        )
        .await;
    let url = server.url().replace("kamailio:kamailiorw", "reader:r");
    let book = book(portcullis_address::Database::new(
        url.parse::<DatabaseUrl>().unwrap(),
    ));
    book.reload_trusted().await.unwrap();
    let watch = watch(&book);
    let change = async |statement: &str, expected: &'static [&'static str]| {
        server.sql(statement).await;
        until(&book, |now| trust(now, "10.0.0.1", "sip:a@a") == expected).await;
    };

    change(
        "INSERT INTO trusted (src_ip, proto, tag) VALUES ('10.0.0.1', 'any', 'a')",
        &["a"],
    )
    .await;
    change("UPDATE trusted SET tag = 'b'", &["b"]).await;
    change(
        "INSERT INTO trusted (src_ip, proto, tag, priority) VALUES ('10.0.0.1', 'udp', 'c', 5)",
        &["c", "b"],
    )
    .await;
    change("DELETE FROM trusted WHERE tag = 'b'", &["c"]).await;
    change("TRUNCATE TABLE trusted", &[]).await;
    watch.abort();

    let refused = book
        .database()
        .remove_trusted("10.0.0.1")
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("denied"), "{refused}");
}
