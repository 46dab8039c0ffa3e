//! Rows of the address table: what is loaded, added and removed.

use portcullis_address::{
    AddError, Cursor, DatabaseError, Failure, NewRow, NewTrusted, RowFilter, StoredRow,
};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::Dialect;

use super::support::with_tables;

on_each_server!(
    the_page_is_loaded_as_kamctl_writes_it,
    rows_are_added_counted_listed_and_removed,
    changed_schemas_cost_rows_and_not_the_host,
    a_load_is_one_state_of_the_table,
    a_row_changes_only_if_it_is_as_it_was_read,
    a_trusted_row_changes_only_if_it_is_as_it_was_read,
    rows_without_an_id_are_listed_with_the_others,
);

/// The largest group and port that Kamailio's columns hold.
fn largest(dialect: Dialect) -> (i64, i64) {
    match dialect {
        Dialect::MariaDb => (u32::MAX.into(), u16::MAX.into()),
        Dialect::Postgres => (i32::MAX.into(), i16::MAX.into()),
    }
}

async fn the_page_is_loaded_as_kamctl_writes_it(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let (group, port) = largest(dialect);
    server
        .sql(&format!(
            "insert into address (grp, ip_addr, mask, port, tag) VALUES (250, '10.8.203.139', 32, 5060, 'TestServer'); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (200, '192.168.1.0', 24, 5060, 'OfficeSubnet'); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES ({group}, '10.0.0.1', 32, {port}, NULL); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (1, '2001:db8::1', 128, 30000, ''); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (1, '2001:db8::2', 128, 0, '')"
        ))
        .await;
    let table = database.load().await.unwrap().table;
    let find = |ip: &str, group, port| table.lookup(ip.parse().unwrap()).find(group, port);
    assert_eq!(
        find("10.8.203.139", 250, 5060).unwrap().tag,
        Some("TestServer")
    );
    assert_eq!(
        find("192.168.1.77", 200, 5060).unwrap().tag,
        Some("OfficeSubnet")
    );
    assert!(find("192.168.1.77", 200, 5061).is_none());
    let (group, port) = (group as u32, port as u16);
    assert_eq!(find("10.0.0.1", group, port).unwrap().tag, None);
    assert_eq!(find("2001:db8::1", 1, 30_000).unwrap().tag, Some(""));
    assert!(find("2001:db8::1", 1, 40_000).is_none());
    assert_eq!(find("2001:db8::2", 1, 40_000).unwrap().tag, Some(""));
}

async fn rows_are_added_counted_listed_and_removed(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let (group, port) = largest(dialect);
    let new = NewRow {
        group,
        ip_addr: "192.168.1.0".to_owned(),
        mask: 24,
        port,
        tag: Some("o'Reilly; DROP TABLE address; -- ? \\".to_owned()),
    };
    assert_eq!(database.add(&new).await.unwrap(), None);
    let tagless = NewRow {
        tag: None,
        ..new.clone()
    };
    database.add(&tagless).await.unwrap();
    assert_eq!(database.count().await.unwrap(), 2);
    let rows = database.rows().await.unwrap();
    assert_eq!(rows[0].group, Some(group.to_string()));
    assert_eq!(rows[0].port, Some(port.to_string()));
    assert_eq!(
        (rows[0].tag.as_ref(), rows[1].tag.as_ref()),
        (new.tag.as_ref(), None)
    );
    assert_eq!(database.remove(group, "192.168.1.1").await.unwrap(), 0);
    assert_eq!(database.remove(group, "192.168.1.0").await.unwrap(), 2);
    database.add(&new).await.unwrap();
    let network = |mask| database.remove_network(group, "192.168.1.0", mask);
    assert_eq!(network(25).await.unwrap(), 0);
    assert_eq!(network(24).await.unwrap(), 1);
    let count = "SELECT CAST(COUNT(*) AS CHAR(9)) FROM address";
    assert_eq!(server.ask(count).await.trim(), "0");
}

async fn changed_schemas_cost_rows_and_not_the_host(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    // The fifth row has a value that no column of Kamailio can hold: an address that is not text, or a port that is not an integer.
    let (created, fifth) = match dialect {
        Dialect::MariaDb => (
            "CREATE TABLE address (id BIGINT, grp BIGINT, ip_addr VARBINARY(50), mask VARCHAR(20), port INT, tag INT)",
            "(5, 200, X'ff00', '32', 0, NULL)",
        ),
        Dialect::Postgres => (
            "CREATE TABLE address (id BIGINT, grp BIGINT, ip_addr TEXT, mask TEXT, port NUMERIC, tag INTEGER); \
             GRANT ALL ON address TO kamailio",
            "(5, 200, '10.0.0.5', '32', 5060.5, NULL)",
        ),
    };
    server
        .sql(&format!(
            "DROP TABLE address; {created}; \
             INSERT INTO address VALUES (1, 200, '10.0.0.1', '32', 40000, 7), (2, NULL, '10.0.0.2', '32', 0, NULL), \
             (3, 200, NULL, '32', 0, NULL), (4, 200, '10.0.0.4', 'wide', 0, NULL), {fifth}, \
             (6, 200, '10.0.0.6', NULL, 0, NULL), (7, 5000000000, '10.0.0.7', '32', 0, NULL), (NULL, 0, '10.0.0.8', '32', 0, NULL)"
        ))
        .await;
    let loaded = database.load().await.unwrap();
    let named: Vec<_> = loaded.errors.iter().map(|e| (e.id, e.column)).collect();
    let fifth = match dialect {
        Dialect::MariaDb => "ip_addr",
        Dialect::Postgres => "port",
    };
    let expected = [
        (2, "grp"),
        (3, "ip_addr"),
        (4, "mask"),
        (5, fifth),
        (6, "mask"),
        (7, "grp"),
        (8, "grp"),
    ];
    assert_eq!(named, expected);
    let found = loaded.table.lookup("10.0.0.1".parse().unwrap());
    assert_eq!(found.find(200, 40_000).unwrap().tag, Some("7"));

    // A table without ids can be loaded.
    server.sql("ALTER TABLE address DROP COLUMN id").await;
    assert_eq!(database.load().await.unwrap().table.len(), 1);
    server.sql("ALTER TABLE address DROP COLUMN tag").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::NoColumn { .. })),
        "{error}"
    );
    let said = error.to_string();
    assert!(
        said.contains(&dialect.in_errors("tag")) && said.contains("grp, ip_addr, mask, port, tag"),
        "{said}"
    );
    server.sql("DROP TABLE address").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "address"),
        "{error}"
    );
    assert!(error.to_string().contains("no table `address`"), "{error}");
    server
        .sql("UPDATE version SET table_version = 5 WHERE table_name = 'address'")
        .await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::Version { found, .. }) if found.as_deref() == Some("\"5\"")),
        "{error}"
    );
}

/// Writes are committed one after the other while the table is loaded: no load may see one without those before it.
async fn a_load_is_one_state_of_the_table(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    let (filled, last) = match dialect {
        Dialect::MariaDb => (
            "SELECT 1, CONCAT('10.0.', seq DIV 250, '.', seq MOD 250) FROM seq_1_to_20000",
            40,
        ),
        Dialect::Postgres => (
            "SELECT 1, '10.0.' || n / 250 || '.' || n % 250 FROM generate_series(1, 20000) AS n",
            20,
        ),
    };
    server
        .sql(&format!("INSERT INTO address (grp, ip_addr) {filled}"))
        .await;
    let writes = async {
        for group in 2..last {
            server
                .sql(&format!("UPDATE address SET grp = {group}"))
                .await;
        }
    };
    let loads = async {
        loop {
            let table = database.load().await.unwrap().table;
            let mut groups: Vec<_> = table.hosts().map(|row| row.group).collect();
            groups.dedup();
            assert_eq!(groups.len(), 1, "two states in one load");
        }
    };
    tokio::select! {
        () = writes => {}
        () = loads => {}
    }
}

fn row(ip_addr: &str, tag: Option<&str>) -> NewRow {
    NewRow {
        group: 200,
        ip_addr: ip_addr.to_owned(),
        mask: 32,
        port: 5060,
        tag: tag.map(str::to_owned),
    }
}

async fn a_row_changes_only_if_it_is_as_it_was_read(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    for (ip_addr, tag) in [("10.0.0.1", Some("Tag ü?")), ("10.0.0.2", None)] {
        database.add(&row(ip_addr, tag)).await.unwrap();
    }
    let read = async |id| database.rows_with_id(id).await.unwrap();
    let all = database.rows().await.unwrap();
    let ids: Vec<i64> = all
        .iter()
        .map(|row| row.id.as_ref().unwrap().parse().unwrap())
        .collect();
    let (one, two) = (ids[0], ids[1]);
    assert_eq!(read(one).await, [all[0].clone()]);
    assert_eq!(read(i64::MAX).await, []);
    // The case of a letter is a difference, whatever the collation of the column.
    let other_case = StoredRow {
        tag: Some("tag ü?".to_owned()),
        ..all[0].clone()
    };
    let new = row("10.0.0.3", None);
    let (is_done, _) = database.replace_row(one, &other_case, &new).await.unwrap();
    assert!(!is_done && !database.remove_row(one, &other_case).await.unwrap());
    let (is_done, _) = database.replace_row(one, &all[0], &new).await.unwrap();
    assert!(is_done);
    // The row is not the one that was read any more, neither for a change nor for a removal.
    let (is_done, _) = database.replace_row(one, &all[0], &new).await.unwrap();
    assert!(!is_done && !database.remove_row(one, &all[0]).await.unwrap());
    let now = read(one).await.remove(0);
    assert_eq!(
        (now.ip_addr.as_deref(), now.tag.as_deref()),
        (Some("10.0.0.3"), None)
    );
    // A NULL is compared, too.
    server
        .sql(&format!("UPDATE address SET tag = '' WHERE id = {two}"))
        .await;
    assert!(!database.remove_row(two, &all[1]).await.unwrap());
    let bad = database
        .replace_row(one, &now, &row("10.0.0.300", None))
        .await;
    assert!(matches!(bad, Err(AddError::Row(_))), "{bad:?}");
    assert!(database.remove_row(one, &now).await.unwrap());
    assert_eq!(database.rows().await.unwrap().len(), 1);
}

async fn a_trusted_row_changes_only_if_it_is_as_it_was_read(dialect: Dialect) {
    let (_server, database) = with_tables(dialect).await;
    let peer = |source: &str, from: Option<&str>| NewTrusted {
        source: source.to_owned(),
        proto: "udp".to_owned(),
        from: from.map(str::to_owned),
        ruri: None,
        tag: None,
        priority: 5,
    };
    for source in ["10.0.0.1", "10.0.0.2"] {
        database
            .add_trusted(&peer(source, Some("^sip:")))
            .await
            .unwrap();
    }
    let all = database.trusted_rows().await.unwrap();
    let id: i64 = all[0].id.as_ref().unwrap().parse().unwrap();
    assert_eq!(
        database.trusted_with_id(id).await.unwrap(),
        [all[0].clone()]
    );
    let taken = database
        .replace_trusted_row(id, &all[0], &peer("10.0.0.2", None))
        .await;
    assert!(matches!(taken, Err(AddError::Exists { .. })), "{taken:?}");
    let new = peer("10.0.0.1", None);
    let (is_done, _) = database
        .replace_trusted_row(id, &all[0], &new)
        .await
        .unwrap();
    assert!(is_done && !database.remove_trusted_row(id, &all[0]).await.unwrap());
    let now = database.trusted_with_id(id).await.unwrap().remove(0);
    assert_eq!(
        (now.from.as_deref(), now.priority.as_deref()),
        (None, Some("5"))
    );
    assert!(database.remove_trusted_row(id, &now).await.unwrap());
    assert!(database.trusted_with_id(id).await.unwrap().is_empty());
}

/// The column may be NULL in a table that another tool has made. Such rows come first or last, as the server sorts them.
async fn rows_without_an_id_are_listed_with_the_others(dialect: Dialect) {
    let (server, database) = with_tables(dialect).await;
    server
        .sql(
            "ALTER TABLE address RENAME TO kept; \
             CREATE TABLE address (id BIGINT NULL, grp INT, ip_addr VARCHAR(50), mask INT, port INT, tag VARCHAR(64)); \
             INSERT INTO address VALUES (1, 1, '10.0.0.1', 32, 0, NULL), (NULL, 1, '10.0.0.2', 32, 0, NULL), \
             (3, 1, '10.0.0.3', 32, 0, NULL), (NULL, 1, '10.0.0.4', 32, 0, NULL), (5, 1, '10.0.0.5', 32, 0, NULL)",
        )
        .await;
    if dialect == Dialect::Postgres {
        server.sql("ALTER TABLE address OWNER TO kamailio").await;
    }
    let (mut after, mut found) = (Cursor::START, Vec::new());
    loop {
        let page = database.page(&RowFilter::default(), after, 2).await;
        let page = page.unwrap();
        found.extend(page.rows.into_iter().filter_map(|row| row.ip_addr));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    found.sort_unstable();
    let expected = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
    assert_eq!(found, expected);
}
