use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use portcullis_testkit::wait::eventually;

use super::*;
use crate::database::{DatabaseUrl, Failure, NewRow};

fn book(folder: &tempfile::TempDir) -> Arc<AddressBook> {
    let url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
    let options = BookOptions {
        poll: Duration::from_millis(5),
        settle: Duration::from_millis(20),
        ..BookOptions::default()
    };
    Arc::new(AddressBook::new(Database::new(url), options))
}

fn row(ip_addr: &str) -> NewRow {
    NewRow {
        group: 200,
        ip_addr: ip_addr.to_owned(),
        mask: 32,
        port: 0,
        tag: None,
    }
}

pub(super) async fn until(book: &AddressBook, is_so: impl Fn(&Snapshot) -> bool) {
    eventually("the book reaches the state", || is_so(&book.current())).await;
}

#[tokio::test]
async fn a_reload_replaces_the_table_and_a_failure_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    assert_eq!(book.current().generation, 0);
    book.database().add(&row("10.0.0.1")).await.unwrap();
    let mut reader = book.reader();
    assert!(reader.current().table.is_empty());
    let report = book.reload().await.unwrap();
    assert_eq!(
        (report.snapshot.generation, report.snapshot.counts.hosts),
        (1, 1)
    );
    assert_eq!(reader.current().table.len(), 1);
    assert_eq!(book.status().database, DatabaseState::Up);

    std::fs::write(
        folder.path().join("table.db"),
        b"no database any more, just text",
    )
    .unwrap();
    let error = book.reload().await.unwrap_err();
    assert_eq!(reader.current().table.len(), 1, "the old table is used");
    let status = book.status();
    assert_eq!((status.loads, status.failures), (1, 1));
    assert_eq!(status.last_error, Some(error));
}

#[tokio::test]
async fn waiting_reloads_share_one_load() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    let asked: Vec<_> = (0..50)
        .map(|_| {
            let book = Arc::clone(&book);
            tokio::spawn(async move { book.reload().await.unwrap().snapshot.generation })
        })
        .collect();
    for one in asked {
        assert!(one.await.unwrap() >= 1);
    }
    assert!(book.current().generation < 50);
    // A reload requested after a change includes the change, however many callers wait.
    book.database().add(&row("10.0.0.1")).await.unwrap();
    assert_eq!(book.reload().await.unwrap().snapshot.counts.hosts, 1);
}

#[tokio::test]
async fn a_watched_book_follows_its_database() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    let watched = Arc::clone(&book);
    let watch = tokio::spawn(async move { watched.watch().await });
    until(&book, |snapshot| snapshot.generation > 0).await;
    book.database().add(&row("10.0.0.1")).await.unwrap();
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    book.database().remove(200, "10.0.0.1").await.unwrap();
    until(&book, |snapshot| snapshot.counts.hosts == 0).await;

    let file = folder.path().join("table.db");
    std::fs::write(&file, b"no database any more, just text").unwrap();
    let down = async {
        while !matches!(book.status().database, DatabaseState::Down { .. }) {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), down)
        .await
        .expect("the failure is detected");
    std::fs::remove_file(&file).unwrap();
    book.database().add(&row("10.0.0.2")).await.unwrap();
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    assert_eq!(book.status().database, DatabaseState::Up);
    watch.abort();
}

#[tokio::test]
async fn old_snapshots_are_freed_after_their_last_use() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    let mut reader = book.reader();
    book.reload().await.unwrap();
    let weak = Arc::downgrade(reader.current());
    book.reload().await.unwrap();
    book.published.collect();
    assert!(weak.upgrade().is_some(), "the reader still has it");
    reader.current();
    book.published.collect();
    eventually("the table is freed", || weak.upgrade().is_none()).await;
}

#[tokio::test]
async fn a_missing_file_keeps_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    book.database().add(&row("10.0.0.1")).await.unwrap();
    book.reload().await.unwrap();
    std::fs::remove_file(folder.path().join("table.db")).unwrap();
    let error = book.reload().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::NoFile { .. })),
        "{error}"
    );
    assert!(matches!(book.status().database, DatabaseState::Down { .. }));
    assert_eq!(book.current().counts.hosts, 1);
    let watched = Arc::clone(&book);
    let watch = tokio::spawn(async move { watched.watch().await });
    // Many checks later, the file is still missing and the table is still used.
    let failures = book.status().failures;
    let tried = async {
        while book.status().failures < failures + 5 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), tried)
        .await
        .expect("the watch goes on");
    assert!(!folder.path().join("table.db").exists());
    assert_eq!(book.current().counts.hosts, 1);
    book.database().add(&row("10.0.0.2")).await.unwrap();
    until(&book, |snapshot| {
        snapshot
            .table
            .lookup([10, 0, 0, 2].into())
            .find(200, 1)
            .is_some()
    })
    .await;
    watch.abort();
}

#[tokio::test]
async fn a_change_before_the_watch_begins_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    book.reload().await.unwrap();
    book.database().add(&row("10.0.0.1")).await.unwrap();
    let watched = Arc::clone(&book);
    let watch = tokio::spawn(async move { watched.watch().await });
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    watch.abort();
}

#[tokio::test]
async fn a_table_that_was_written_but_not_changed_is_not_published_again() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    book.database().add(&row("10.0.0.1")).await.unwrap();
    let before = book.reload().await.unwrap().snapshot;
    book.database().add(&row("10.0.0.2")).await.unwrap();
    book.database().remove(200, "10.0.0.2").await.unwrap();
    let loads = book.status().loads;
    let options = BookOptions::default();
    book.addresses.follow(options, None).await.unwrap();
    assert_eq!(book.status().loads, loads + 1, "it was read");
    assert!(Arc::ptr_eq(&before, &book.current()));
    // A requested reload publishes the table anyway.
    assert_eq!(
        book.reload().await.unwrap().snapshot.generation,
        before.generation + 1
    );
}

#[tokio::test]
async fn a_reload_continues_if_its_caller_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    // Polled once and dropped.
    assert!(book.reload().now_or_never().is_none());
    until(&book, |snapshot| snapshot.generation == 1).await;
    book.database().add(&row("10.0.0.1")).await.unwrap();
    assert_eq!(
        book.reload().await.unwrap().snapshot.counts.hosts,
        1,
        "no stale result"
    );
}

#[tokio::test]
async fn a_reload_includes_everything_written_before_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    book.reload().await.unwrap();
    // Each task writes a row and reloads: the result must include the row, whatever other tasks reload meanwhile.
    let tasks: Vec<_> = (1..=20u8)
        .map(|n| {
            let book = Arc::clone(&book);
            tokio::spawn(async move {
                let ip = format!("10.0.0.{n}");
                book.database().add(&row(&ip)).await.unwrap();
                let snapshot = book.reload().await.unwrap().snapshot;
                snapshot
                    .table
                    .lookup(ip.parse().unwrap())
                    .find(200, 1)
                    .is_some()
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
}
