//! Many rows at once: all of them or none.

use portcullis_address::{
    AddError, Cursor, Format, Imported, NewRow, RowBound, RowFilter, RowWriter,
};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::Dialect;

use super::support::with_tables;

on_each_server!(
    an_import_adds_or_replaces_and_changes_nothing_if_it_fails_on_the_way,
    rows_go_out_and_come_back_as_they_were,
    rows_added_at_the_same_time_do_not_exceed_their_bound,
    pages_have_each_row_that_matches_once,
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

async fn rows_added_at_the_same_time_do_not_exceed_their_bound(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    // In a table without a row there is nothing that could be locked. An engine without transactions is locked as a whole.
    for engine in ["InnoDB", "MyISAM"] {
        match dialect {
            Dialect::MariaDb => {
                let alter = format!("ALTER TABLE address ENGINE = {engine}");
                server.sql(&alter).await;
            }
            Dialect::Postgres if engine == "MyISAM" => return,
            // The lock must not depend on the isolation level.
            Dialect::Postgres => {
                let isolate =
                    "ALTER DATABASE kamailio SET default_transaction_isolation = 'repeatable read'";
                server.sql(isolate).await;
            }
        }
        server.sql("DELETE FROM address").await;
        let bound = RowBound {
            groups: (1..=7).collect(),
            most: 10,
        };
        let adds = (0..32).map(|number| {
            let (database, bound) = (database.clone(), bound.clone());
            tokio::spawn(async move { database.add_within(&[row(number, None)], &bound).await })
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
        assert_eq!((added, database.count().await.unwrap()), (10, 10));
    }
}

async fn pages_have_each_row_that_matches_once(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let mut rows = rows(100);
    rows[50].tag = Some("Tag % ü".to_owned());
    rows[51].tag = None;
    database.import(&rows, false).await.unwrap();
    let own = RowFilter {
        groups: Some(vec![1, 3]),
        contains: None,
    };
    let expected: Vec<_> = rows
        .iter()
        .filter(|row| [1, 3].contains(&row.group))
        .map(|row| row.ip_addr.clone())
        .collect();
    for has_id in [true, false] {
        let (mut after, mut found) = (Cursor::START, Vec::new());
        loop {
            let page = database.page(&own, after, 4).await.unwrap();
            let is_first = after == Cursor::START;
            assert_eq!(page.total, is_first.then_some(expected.len() as u64));
            found.extend(page.rows.into_iter().filter_map(|row| row.ip_addr));
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(found, expected);
        for (text, count) in [("Tag % ü", 1), ("tag", 0), ("10.0.0.9", 11), ("x", 98)] {
            let some = RowFilter {
                groups: None,
                contains: Some(text.to_owned()),
            };
            let page = database.page(&some, Cursor::START, 1).await.unwrap();
            assert_eq!(page.total, Some(count), "{text}");
        }
        if has_id {
            server.sql("ALTER TABLE address DROP COLUMN id").await;
        }
    }
}
