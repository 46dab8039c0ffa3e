//! SQLite in temporary folders; the same against MariaDB is in `tests/mariadb.rs` of this crate.

use std::path::PathBuf;

use super::*;

fn database(folder: &tempfile::TempDir) -> Database {
    Database::new(DatabaseUrl::Sqlite(file(folder)))
}

fn file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("table.db")
}

fn row(group: i64, ip_addr: &str) -> NewRow {
    NewRow {
        group,
        ip_addr: ip_addr.to_owned(),
        mask: 32,
        port: 0,
        tag: Some(String::new()),
    }
}

async fn run(database: &Database, statement: &'static str) {
    let Link::Sqlite(mut link) = database.open().await.unwrap() else {
        panic!("an SQLite database");
    };
    link.execute(sqlx::raw_sql(statement)).await.unwrap();
    link.close().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_there_is_made_with_kamailios_tables() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    assert!(file(&folder).exists());
    assert!(database.load().await.unwrap().table.is_empty());
    // Kamailio's own statements fit.
    run(
        &database,
        "insert into address (grp, ip_addr, mask, port, tag) values (250, '10.8.203.139', 32, 5060, 'TestServer')",
    )
    .await;
    assert_eq!(database.load().await.unwrap().table.len(), 1);
}

#[tokio::test]
async fn rows_are_added_listed_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    assert_eq!(database.add(&row(200, "10.0.0.1")).await.unwrap(), None);
    database.add(&row(200, "10.0.0.1")).await.unwrap();
    database
        .add(&row(4_000_000_000, "2001:db8::1"))
        .await
        .unwrap()
        .unwrap();
    let rows = database.rows().await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].ip_addr.as_deref(), Some("10.0.0.1"));
    assert_eq!(rows[2].group.as_deref(), Some("4000000000"));
    assert_eq!(database.remove(200, "10.0.0.1").await.unwrap(), 2);
    assert_eq!(database.remove(200, "10.0.0.1").await.unwrap(), 0);
    assert_eq!(database.rows().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_a_load_would_skip_is_not_added() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    for (bad, column) in [
        (row(0, "10.0.0.1"), "grp"),
        (row(200, "10.0.0.0/24"), "ip_addr"),
        (row(200, "300.1.1.1"), "ip_addr"),
        (
            NewRow {
                mask: 33,
                ..row(200, "10.0.0.1")
            },
            "mask",
        ),
        (
            NewRow {
                port: 70_000,
                ..row(200, "10.0.0.1")
            },
            "port",
        ),
        (
            NewRow {
                tag: Some("x".repeat(65)),
                ..row(200, "10.0.0.1")
            },
            "tag",
        ),
    ] {
        let error = database.add(&bad).await.unwrap_err().to_string();
        assert!(error.starts_with(column), "{error}");
    }
    assert!(database.rows().await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_that_cannot_be_used_are_named_and_the_rest_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    run(
        &database,
        "drop table address; create table address (id, grp, ip_addr, mask, port, tag); \
         insert into address values (1, 200, '10.0.0.1', 32, 40000, 'a'), (2, NULL, '10.0.0.2', 32, 0, NULL), \
         (3, 200, NULL, 32, 0, NULL), (4, 200, '10.0.0.4', 'wide', 0, NULL), (5, 200, '10.0.0.5', 24.5, 0, NULL), \
         (6, 0, '10.0.0.6', 32, 0, NULL), (7, 200, '10.0.0.7', 32, 0, NULL)",
    )
    .await;
    let loaded = database.load().await.unwrap();
    assert_eq!(loaded.table.len(), 2);
    assert_eq!(loaded.skipped, 5);
    let named: Vec<_> = loaded.errors.iter().map(|e| (e.id, e.column)).collect();
    assert_eq!(
        named,
        [
            (2, "grp"),
            (3, "ip_addr"),
            (4, "mask"),
            (5, "mask"),
            (6, "grp")
        ]
    );
    let found = loaded.table.lookup("10.0.0.1".parse().unwrap());
    assert!(found.find(200, 40_000).is_some());
}

#[tokio::test]
async fn another_version_or_no_table_is_an_error_with_a_mend() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    run(
        &database,
        "update version set table_version = 5 where table_name = 'address'",
    )
    .await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Version { found, .. } if found == "\"5\""),
        "{error}"
    );
    run(&database, "delete from version").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Version { found, .. } if found == "none"),
        "{error}"
    );
    run(
        &database,
        "insert into version (table_name, table_version) values ('address', 6); drop table address",
    )
    .await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(
            error,
            DatabaseError::NoTable {
                table: "address",
                ..
            }
        ),
        "{error}"
    );
    run(&database, "drop table version").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(
            error,
            DatabaseError::NoTable {
                table: "version",
                ..
            }
        ),
        "{error}"
    );
    database.create_tables().await.unwrap();
    assert!(database.load().await.unwrap().table.is_empty());
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        file(&folder),
        b"this is not a database, only some text of some length",
    )
    .unwrap();
    let error = database(&folder).check().await.unwrap_err().to_string();
    assert!(error.contains("not a database"), "{error}");
    let nowhere = Database::new(DatabaseUrl::Sqlite("/nowhere/at/all.db".into()));
    let error = nowhere.check().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Unreachable { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_no_password_is_shown() {
    let url = "mysql://kamailio:secret@127.0.0.1:1/kamailio"
        .parse()
        .unwrap();
    let error = Database::new(url).check().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Unreachable { .. }),
        "{error}"
    );
    assert!(!error.to_string().contains("secret"));
    assert!(error.to_string().contains("127.0.0.1:1"));
}

#[tokio::test]
async fn changes_of_the_file_are_seen() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    let mut watcher = Watcher::new(database.clone());
    assert!(
        watcher.has_changed().await.unwrap(),
        "the first look says yes"
    );
    assert!(!watcher.has_changed().await.unwrap());
    database.load().await.unwrap();
    assert!(
        !watcher.has_changed().await.unwrap(),
        "reading changes nothing"
    );
    database.add(&row(200, "10.0.0.1")).await.unwrap();
    assert!(watcher.has_changed().await.unwrap());
    assert!(!watcher.has_changed().await.unwrap());

    let other = Database::new(DatabaseUrl::Sqlite(folder.path().join("other.db")));
    other.add(&row(200, "10.0.0.2")).await.unwrap();
    std::fs::rename(folder.path().join("other.db"), file(&folder)).unwrap();
    assert!(
        watcher.has_changed().await.unwrap(),
        "another file has its place"
    );
    assert!(!watcher.has_changed().await.unwrap());
    other_row_is_seen(&mut watcher, &database).await;
    std::fs::remove_file(file(&folder)).unwrap();
    assert!(watcher.has_changed().await.unwrap(), "the file is gone");
}

async fn other_row_is_seen(watcher: &mut Watcher, database: &Database) {
    database.add(&row(200, "10.0.0.3")).await.unwrap();
    assert!(
        watcher.has_changed().await.unwrap(),
        "the new file is watched"
    );
}
