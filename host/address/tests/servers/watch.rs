//! Changes that an address book detects. How they are detected depends on the server: see `only_mariadb` and `only_postgres`.

use portcullis_testkit::on_each_server;
use portcullis_testkit::server::Dialect;

use super::support::{book, database_at, knows, trust, until, watch, with_tables};

on_each_server!(
    a_watched_book_follows_the_server,
    who_may_only_read_sees_every_change,
    a_view_is_read_every_now_and_then,
);

async fn a_watched_book_follows_the_server(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    // Two changes within one second, the second one after the check that detected the first.
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.2')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 2).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.3')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 3).await;
    server.sql("UPDATE address SET grp = 7").await;
    until(&book, |snapshot| knows(snapshot, "10.0.0.1", 7)).await;
    server
        .sql("DELETE FROM address WHERE ip_addr = '10.0.0.2'")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 2).await;
    server.sql("TRUNCATE TABLE address").await;
    until(&book, |snapshot| snapshot.table.is_empty()).await;
    let replaced = match dialect {
        Dialect::MariaDb => {
            "CREATE TABLE next LIKE address; INSERT INTO next (grp, ip_addr) VALUES (9, '10.0.0.9'); \
             RENAME TABLE address TO old, next TO address"
        }
        Dialect::Postgres => {
            "CREATE TABLE next (LIKE address INCLUDING ALL); INSERT INTO next (grp, ip_addr) VALUES (9, '10.0.0.9'); \
             GRANT SELECT ON next TO kamailio; ALTER TABLE address RENAME TO old; ALTER TABLE next RENAME TO address"
        }
    };
    server.sql(replaced).await;
    until(&book, |snapshot| knows(snapshot, "10.0.0.9", 9)).await;
    watch.abort();
}

async fn who_may_only_read_sees_every_change(dialect: Dialect) {
    let (server, _) = with_tables(dialect).await;
    server
        .sql(&dialect.reader("reader", "r", &["version", "address", "trusted"]))
        .await;
    let book = book(database_at(&server.url_of("reader", "r")));
    book.reload().await.unwrap();
    book.reload_trusted().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
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

    let database = book.database();
    let refused = [
        database
            .add(&super::import::row(2, None))
            .await
            .unwrap_err(),
        database
            .remove_trusted("10.0.0.1")
            .await
            .unwrap_err()
            .into(),
    ];
    for refused in refused {
        assert!(refused.to_string().contains("denied"), "{refused}");
    }
}

async fn a_view_is_read_every_now_and_then(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let (renamed, granted) = match dialect {
        Dialect::MariaDb => ("RENAME TABLE address TO real_rows", ""),
        Dialect::Postgres => (
            "ALTER TABLE address RENAME TO real_rows",
            "; GRANT SELECT ON address TO kamailio",
        ),
    };
    server
        .sql(&format!(
            "{renamed}; CREATE VIEW address AS SELECT grp, ip_addr, mask, port, tag FROM real_rows{granted}"
        ))
        .await;
    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO real_rows (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    let seen = book.status().changes_seen_by.expect("it was looked at");
    assert!(seen.to_string().starts_with("reading it again"), "{seen}");
    watch.abort();
}
