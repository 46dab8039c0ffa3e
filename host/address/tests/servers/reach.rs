//! A server that cannot be reached for a while.

use portcullis_address::{DatabaseError, DatabaseState, Failure};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::Dialect;

use super::support::{book, eventually, until, watch, with_tables};

on_each_server!(
    a_server_that_dies_and_returns_is_followed_again,
    a_server_that_is_absent_at_the_start_is_found_later,
);

async fn a_server_that_dies_and_returns_is_followed_again(dialect: Dialect) {
    let (mut server, database) = with_tables(dialect).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    server.die();
    eventually("the death is noticed", || {
        matches!(book.status().database, DatabaseState::Down { .. })
    })
    .await;
    assert!(matches!(
        book.reload().await,
        Err(DatabaseError::Database(Failure::Unreachable { .. }))
    ));
    assert_eq!(book.current().counts.hosts, 1, "the table goes on serving");
    server.up();
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.2')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 2).await;
    assert_eq!(book.status().database, DatabaseState::Up);
    watch.abort();
}

async fn a_server_that_is_absent_at_the_start_is_found_later(dialect: Dialect) {
    let (mut server, database) = with_tables(dialect).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    server.die();
    let book = book(database);
    assert!(matches!(
        book.reload().await,
        Err(DatabaseError::Database(Failure::Unreachable { .. }))
    ));
    let watch = watch(&book);
    server.up();
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    assert_eq!(book.current().generation, 1);
    watch.abort();
}
