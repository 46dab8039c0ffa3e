//! Many rows at once: all of them or none.

use portcullis_address::{Format, Imported, NewRow, RowWriter};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::Dialect;

use super::support::with_tables;

on_each_server!(
    an_import_adds_or_replaces_and_changes_nothing_if_it_fails_on_the_way,
    rows_go_out_and_come_back_as_they_were,
);

pub(crate) fn row(number: usize, tag: Option<&str>) -> NewRow {
    NewRow {
        group: 1 + number as i64 % 7,
        ip_addr: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
        mask: 32,
        port: number as i64 % 32_768,
        tag: tag.map(str::to_owned),
    }
}

pub(crate) fn rows(count: usize) -> Vec<NewRow> {
    (0..count).map(|number| row(number, Some("x"))).collect()
}

async fn an_import_adds_or_replaces_and_changes_nothing_if_it_fails_on_the_way(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let rows = rows(2_500);
    let added = Imported {
        added: 2_500,
        removed: 0,
    };
    assert_eq!(database.import(&rows, false).await.unwrap(), added);
    let replaced = Imported {
        added: 3,
        removed: 2_500,
    };
    assert_eq!(database.import(&rows[..3], true).await.unwrap(), replaced);
    server
        .sql("ALTER TABLE address ADD UNIQUE (ip_addr, grp)")
        .await;
    let mut twice = rows[3..].to_vec();
    twice.push(twice[0].clone());
    let said = match dialect {
        Dialect::MariaDb => "Duplicate entry",
        Dialect::Postgres => "duplicate key",
    };
    for replace in [false, true] {
        let error = database.import(&twice, replace).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(database.count().await.unwrap(), 3, "{replace}");
    }
}

async fn rows_go_out_and_come_back_as_they_were(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    if dialect == Dialect::MariaDb {
        server
            .sql("ALTER TABLE address MODIFY tag VARCHAR(64) CHARACTER SET utf8mb4")
            .await;
    }
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
