//! Many rows at once: all of them or none.

use portcullis_address::{Format, Imported, NewRow, RowWriter};

use super::server::Server;

fn row(number: usize, tag: Option<&str>) -> NewRow {
    NewRow {
        group: 1 + number as i64 % 7,
        ip_addr: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
        mask: 32,
        port: number as i64 % 65_536,
        tag: tag.map(str::to_owned),
    }
}

fn rows(count: usize) -> Vec<NewRow> {
    (0..count).map(|number| row(number, Some("x"))).collect()
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn rows_are_imported_behind_or_in_place_of_those_that_are_there() {
    for engine in ["InnoDB", "MyISAM", "Aria"] {
        let (server, database) = Server::with_tables(&[]).await;
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
async fn an_import_that_fails_on_the_way_changes_nothing() {
    let (server, database) = Server::with_tables(&[]).await;
    database.import(&rows(3), false).await.unwrap();
    server
        .sql("ALTER TABLE address ADD UNIQUE (ip_addr, grp)")
        .await;
    let mut twice = rows(2_500);
    twice.drain(..3);
    twice.push(twice[0].clone());
    for replace in [false, true] {
        let error = database
            .import(&twice, replace)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("Duplicate entry"), "{error}");
        assert_eq!(database.count().await.unwrap(), 3, "{replace}");
    }
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
    // What the column cannot hold is not cut.
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

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn rows_go_out_and_come_back_as_they_were() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql("ALTER TABLE address MODIFY tag VARCHAR(64) CHARACTER SET utf8mb4")
        .await;
    let tags = [
        None,
        Some(""),
        Some("\\N"),
        Some("\\\\N"),
        Some("a,\"b\"\n\\c"),
        Some("ü \u{1f600}"),
        Some("NULL"),
    ];
    let mut rows: Vec<_> = (0..)
        .zip(tags)
        .map(|(number, tag)| row(number, tag))
        .collect();
    for (ip_addr, mask) in [
        ("2001:db8::1", 128),
        ("2001:db8::", 32),
        ("::ffff:10.0.0.1", 0),
        ("a.example", 32),
    ] {
        rows.push(NewRow {
            ip_addr: ip_addr.to_owned(),
            mask,
            ..rows[0].clone()
        });
    }
    database.import(&rows, false).await.unwrap();
    for format in [Format::Csv, Format::JsonLines] {
        let mut file = Vec::new();
        let mut writer = RowWriter::new(format, &mut file).unwrap();
        database
            .each_new_row(|row| writer.write(&row.unwrap()).unwrap())
            .await
            .unwrap();
        writer.finish().unwrap();
        let import = format.read(&file, "rows");
        assert_eq!((&import.errors[..], &import.rows), (&[][..], &rows));
        database.import(&import.rows, true).await.unwrap();
    }
    let mut read = Vec::new();
    let each = |row: Result<NewRow, _>| read.push(row.unwrap());
    database.each_new_row(each).await.unwrap();
    assert_eq!(read, rows);
}
