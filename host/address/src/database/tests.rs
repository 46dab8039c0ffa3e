//! Tests with SQLite in temporary directories; `tests/servers` of this crate tests the same on MariaDB and PostgreSQL.

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
    let mut link = database.open(Absent::Make).await.unwrap();
    link.run(statement).await.unwrap();
    link.release().await;
}

#[tokio::test]
async fn a_missing_file_is_created_with_kamailios_tables() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    assert!(file(&folder).exists());
    assert!(database.load().await.unwrap().table.is_empty());
    // Kamailio's own statements work.
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
async fn a_row_that_a_load_would_skip_is_not_added() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
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
async fn invalid_rows_are_reported_and_the_others_are_loaded() {
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
async fn a_wrong_version_or_missing_table_is_an_error_that_says_how_to_correct_it() {
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
        matches!(&error, DatabaseError::Database(Failure::Version { found, .. }) if found.as_deref() == Some("\"5\"")),
        "{error}"
    );
    run(&database, "delete from version").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::Version { found, .. }) if found.is_none()),
        "{error}"
    );
    run(
        &database,
        "insert into version (table_name, table_version) values ('address', 6); drop table address",
    )
    .await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "address"),
        "{error}"
    );
    run(&database, "drop table version").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "version"),
        "{error}"
    );
    database.create_tables().await.unwrap();
    assert!(database.load().await.unwrap().table.is_empty());
}

#[tokio::test]
async fn a_file_that_is_not_a_database_is_an_error() {
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
        matches!(error, DatabaseError::Database(Failure::Unreachable { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn an_unreachable_server_is_reported_without_the_password() {
    let url: DatabaseUrl = "mysql://kamailio:secret@127.0.0.1:1/kamailio"
        .parse()
        .unwrap();
    let error = Database::new(url).check().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::Unreachable { .. })),
        "{error}"
    );
    assert!(!error.to_string().contains("secret"));
    assert!(error.to_string().contains("127.0.0.1:1"));
}

#[tokio::test]
async fn changes_of_the_file_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    let mut watcher = Watcher::new(database.clone());
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Changed,
        "the first look"
    );
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    database.load().await.unwrap();
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Same,
        "reading changes nothing"
    );
    database.add(&row(200, "10.0.0.1")).await.unwrap();
    assert_eq!(watcher.look().await.unwrap(), Look::Changed);
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    watcher.forget();
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Changed,
        "a change that was not loaded is reported again"
    );

    let other = Database::new(DatabaseUrl::Sqlite(folder.path().join("other.db")));
    other.add(&row(200, "10.0.0.2")).await.unwrap();
    std::fs::rename(folder.path().join("other.db"), file(&folder)).unwrap();
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Changed,
        "another file has its place"
    );
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    database.add(&row(200, "10.0.0.3")).await.unwrap();
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Changed,
        "the new file is watched"
    );

    std::fs::remove_file(file(&folder)).unwrap();
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Changed,
        "the file is gone"
    );
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    database.add(&row(200, "10.0.0.4")).await.unwrap();
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Changed,
        "it was made again"
    );
}

#[tokio::test]
async fn a_load_does_not_recreate_a_file_that_was_removed() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let error = database.load_again().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoFile { url }) if url.contains("table.db")),
        "{error}"
    );
    assert!(matches!(
        database.rows().await,
        Err(DatabaseError::Database(Failure::NoFile { .. }))
    ));
    assert!(matches!(
        database.remove(1, "10.0.0.1").await,
        Err(DatabaseError::Database(Failure::NoFile { .. }))
    ));
    assert!(!file(&folder).exists());
    // A copy begins with an empty file, and SQLite treats an empty file as an empty database.
    std::fs::write(file(&folder), b"").unwrap();
    assert!(matches!(
        database.load_again().await,
        Err(DatabaseError::Database(Failure::NoFile { .. }))
    ));
    assert!(database.load().await.unwrap().table.is_empty());
    assert!(database.load_again().await.unwrap().table.is_empty());
}

#[tokio::test]
async fn a_column_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    run(&database, "alter table address drop column tag").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::NoColumn { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("no such column: tag"), "{error}");
}

#[tokio::test]
async fn only_the_rows_with_invalid_text_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.add(&row(200, "10.0.0.1")).await.unwrap();
    run(
        &database,
        "insert into address (id, grp, ip_addr, tag) values (7, 200, x'ff00', ''), (8, 200, '10.0.0.8', x'c328'), \
         (9, x'fe', '10.0.0.9', '')",
    )
    .await;
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.skipped), (1, 3));
    let named: Vec<_> = loaded.errors.iter().map(|e| (e.id, e.column)).collect();
    assert_eq!(named, [(7, "ip_addr"), (8, "tag"), (9, "grp")]);
    assert_eq!(database.rows().await.unwrap().len(), 4);
    assert_eq!(database.count().await.unwrap(), 4);
}

#[tokio::test]
async fn different_tables_have_different_digests() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.add(&row(200, "10.0.0.1")).await.unwrap();
    let digest = database.load().await.unwrap().digest;
    assert_eq!(database.load().await.unwrap().digest, digest);
    run(&database, "update address set tag = NULL").await;
    let changed = database.load().await.unwrap().digest;
    assert_ne!(changed, digest, "NULL is not empty");
    run(&database, "update address set tag = ''").await;
    assert_eq!(database.load().await.unwrap().digest, digest);
}

#[tokio::test]
async fn all_problems_are_counted_and_the_first_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    run(
        &database,
        "with recursive n(n) as (select 1 union all select n + 1 from n where n < 300) \
         insert into address (grp, ip_addr) select 1, '10.0.0.0/' || n from n union all select 1, 'a' || n from n",
    )
    .await;
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.skipped, loaded.errors.len()), (300, 100));
    assert_eq!((loaded.warned, loaded.warnings.len()), (300, 100));
    assert_eq!(loaded.errors[0].id, 1);
    assert_eq!(loaded.table.domain_count(), 300);
}

#[tokio::test]
async fn tables_and_columns_may_have_other_names() {
    let folder = tempfile::tempdir().unwrap();
    let mut schema = Schema {
        version_table: "versions".parse().unwrap(),
        ..Schema::default()
    };
    schema.address.table = "sip-trunks".parse().unwrap();
    schema.address.group = "customer".parse().unwrap();
    schema.address.mask = "bits".parse().unwrap();
    let database = database(&folder).with_schema(schema);
    database.add(&row(200, "10.0.0.1")).await.unwrap();
    run(
        &database,
        "insert into `sip-trunks` (customer, ip_addr, bits) values (0, '10.0.0.2', 32), (200, '10.0.0.3', 33)",
    )
    .await;
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.skipped), (1, 2));
    let said: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
    assert!(
        said[0].starts_with("row 2, column `customer`: grp 0 is not a group"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("row 3, column `bits`: mask 33 "),
        "{said:?}"
    );
    assert_eq!(database.count().await.unwrap(), 3);
    assert_eq!(database.remove(200, "10.0.0.1").await.unwrap(), 1);
    // An unknown column name is an error, and not taken for a string.
    run(
        &database,
        "alter table `sip-trunks` rename column bits to mask",
    )
    .await;
    let error = database.load().await.unwrap_err().to_string();
    assert!(error.contains("no such column: bits"), "{error}");
}

#[tokio::test]
async fn a_view_without_ids_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.check().await.unwrap();
    run(
        &database,
        "drop table address; create table trunks (customer, ip); insert into trunks values (200, '10.0.0.1'), (0, '10.0.0.2'); \
         create view address as select customer as grp, ip as ip_addr, 32 as mask, 0 as port, 7 as tag from trunks",
    )
    .await;
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.errors[0].id), (1, 2));
    let found = loaded.table.lookup("10.0.0.1".parse().unwrap());
    assert_eq!(found.find(200, 5060).unwrap().tag, Some("7"));
    assert_eq!(database.rows().await.unwrap()[0].id, None);
}

#[tokio::test]
async fn an_import_adds_all_rows_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    let rows: Vec<_> = (0..2_500)
        .map(|n| row(1 + n, &format!("10.0.{}.{}", n / 250, n % 250)))
        .collect();
    let imported = database.import(&rows, false).await.unwrap();
    assert_eq!((imported.added, imported.removed), (2_500, 0));
    run(&database, "create unique index once on address (grp)").await;
    let mut twice = rows.clone();
    twice.push(rows[7].clone());
    for replace in [false, true] {
        let error = database.import(&twice, replace).await.unwrap_err();
        assert!(error.to_string().contains("UNIQUE"), "{error}");
        assert_eq!(database.count().await.unwrap(), 2_500);
    }
    let imported = database.import(&rows[..3], true).await.unwrap();
    assert_eq!((imported.added, imported.removed), (3, 2_500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rows_added_at_the_same_time_do_not_exceed_their_bound() {
    let folder = tempfile::tempdir().unwrap();
    let database = database(&folder);
    database.add(&row(7, "10.0.0.1")).await.unwrap();
    let bound = RowBound {
        groups: vec![200, 201],
        most: 10,
    };
    let adds = (0..32).map(|number| {
        let (database, bound) = (database.clone(), bound.clone());
        let row = row(200 + number % 2, &format!("10.0.1.{number}"));
        tokio::spawn(async move { database.add_within(&[row], &bound).await })
    });
    let mut added = 0;
    for add in adds.collect::<Vec<_>>() {
        match add.await.unwrap() {
            Ok(()) => added += 1,
            Err(AddError::TooMany { rows, more, most }) => {
                assert_eq!((rows, more, most), (10, 1, 10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((added, database.count().await.unwrap()), (10, 11));
    database.check_within(0, &bound).await.unwrap();
    let full = database.check_within(1, &bound).await.unwrap_err();
    assert!(
        full.to_string().contains("exceed the maximum of 10"),
        "{full}"
    );
}

#[tokio::test]
async fn pages_have_each_row_that_matches_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("address.list");
    let database = database(&folder);
    let mut lines = String::new();
    for number in 0..25 {
        let group = 200 + number % 3;
        let mut row = row(group, &format!("10.0.0.{number}"));
        row.tag = Some(format!("Tag {number}"));
        database.add(&row).await.unwrap();
        lines += &format!("{group} 10.0.0.{number}\n");
    }
    let pages = async |database: &Database, filter: &RowFilter| {
        let (mut after, mut found, mut totals) = (Cursor::START, Vec::new(), Vec::new());
        loop {
            let page = database.page(filter, after, 4).await.unwrap();
            assert!(page.rows.len() <= 4);
            totals.push(page.total);
            found.extend(page.rows.into_iter().filter_map(|row| row.ip_addr));
            match page.next {
                Some(next) => after = next,
                None => return (found, totals),
            }
        }
    };
    let own = RowFilter {
        groups: Some(vec![200, 202]),
        contains: None,
    };
    let numbers = (0..25).filter(|number| number % 3 != 1);
    let expected: Vec<_> = numbers.map(|number| format!("10.0.0.{number}")).collect();
    let (found, totals) = pages(&database, &own).await;
    assert_eq!(found, expected);
    assert_eq!(totals, [Some(17), None, None, None, None]);
    // A row that is added or removed meanwhile shifts no page.
    let first = database.page(&own, Cursor::START, 4).await.unwrap();
    database.remove(200, "10.0.0.0").await.unwrap();
    let second = database.page(&own, first.next.unwrap(), 1).await.unwrap();
    assert_eq!(second.rows[0].ip_addr.as_deref(), Some("10.0.0.6"));
    let some = |text: &str| RowFilter {
        contains: Some(text.to_owned()),
        ..own.clone()
    };
    assert_eq!(pages(&database, &some("Tag 2")).await.0.len(), 5);
    assert_eq!(pages(&database, &some("tag 2")).await.0.len(), 0);
    assert_eq!(pages(&database, &some("%")).await.0.len(), 0);
    assert_eq!(pages(&database, &some(".24")).await.0, ["10.0.0.24"]);
    let none = RowFilter {
        groups: Some(Vec::new()),
        contains: None,
    };
    assert_eq!(pages(&database, &none).await, (Vec::new(), vec![Some(0)]));
    // Tables without ids, and files.
    run(&database, "ALTER TABLE address RENAME COLUMN id TO number").await;
    assert_eq!(pages(&database, &own).await.0, expected[1..]);
    std::fs::write(&path, lines).unwrap();
    let (found, totals) = pages(&database.with_address_file(&path), &own).await;
    assert_eq!(found, expected);
    assert_eq!(totals[0], Some(17));
}
