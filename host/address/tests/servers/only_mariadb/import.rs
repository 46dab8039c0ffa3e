//! Imports into tables of each engine.

use portcullis_address::{Imported, NewRow};
use portcullis_testkit::server::Dialect;

use crate::import::{row, rows};
use crate::support::with_tables;

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn rows_are_imported_behind_or_in_place_of_those_that_are_there() {
    for engine in ["InnoDB", "MyISAM", "Aria"] {
        let (server, database) = with_tables(Dialect::MariaDb).await;
        server
            .sql(&format!("ALTER TABLE address ENGINE = {engine}"))
            .await;
        let rows = rows(2_500);
        let added = Imported {
            added: 2_500,
            removed: 0,
        };
        assert_eq!(database.import(&rows, false).await.unwrap(), added);
        assert_eq!(database.import(&rows, false).await.unwrap(), added);
        let replaced = Imported {
            added: 10,
            removed: 5_000,
        };
        assert_eq!(database.import(&rows[..10], true).await.unwrap(), replaced);
        let mut read = Vec::new();
        let each = |row: Result<NewRow, _>| read.push(row.unwrap());
        database.each_new_row(each).await.unwrap();
        assert_eq!(read, rows[..10]);
    }
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn what_a_table_cannot_undo_or_hold_is_refused() {
    let (server, database) = with_tables(Dialect::MariaDb).await;
    database.import(&rows(3), false).await.unwrap();
    server
        .sql("ALTER TABLE address ADD UNIQUE (ip_addr, grp)")
        .await;
    let mut twice = rows(2_500);
    twice.drain(..3);
    twice.push(twice[0].clone());
    server.sql("ALTER TABLE address ENGINE = MyISAM").await;
    let error = database
        .import(&twice, false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has no transactions") && error.contains("--replace"),
        "{error}"
    );
    // A value that does not fit the column is not truncated.
    server
        .sql("ALTER TABLE address ENGINE = InnoDB, MODIFY tag VARCHAR(5) CHARACTER SET latin1; SET GLOBAL sql_mode = ''")
        .await;
    let before = database.count().await.unwrap();
    for tag in ["longer", "\u{1f600}"] {
        let error = database
            .import(&[row(9_999, Some(tag))], false)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("tag"), "{error}");
        let error = database.add(&row(9_999, Some(tag))).await.unwrap_err();
        assert!(error.to_string().contains("tag"), "{error}");
    }
    assert_eq!(database.count().await.unwrap(), before);
}
