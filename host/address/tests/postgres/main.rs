//! The tables in a real PostgreSQL, each test with a server of its own in a temporary folder.
//!
//! `cargo test -p portcullis-address --test postgres -- --ignored`: without PostgreSQL and Kamailio's scripts for it these tests fail.

mod changes;
mod server;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{
    AddressBook, BookOptions, Database, DatabaseError, DatabaseState, DatabaseUrl, Failure, Format,
    FromUri, Imported, MigrationAction, NewRow, NewTrusted, Proto, RowWriter, Schema, Snapshot,
    TrustedQuestion, TrustedSource,
};
use server::Server;

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_page_is_loaded_as_kamctl_writes_it() {
    let (server, connections) = Server::with_tables();
    let database = Database::new(connections);
    server
        .sql(
            "insert into address (grp, ip_addr, mask, port, tag) VALUES (250, '10.8.203.139', 32, 5060, 'TestServer'); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (200, '192.168.1.0', 24, 5060, 'OfficeSubnet'); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (2147483647, '10.0.0.1', 32, 32767, NULL); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (1, '2001:db8::1', 128, 0, '')",
        )
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
    assert_eq!(find("10.0.0.1", 2_147_483_647, 32_767).unwrap().tag, None);
    assert_eq!(find("2001:db8::1", 1, 40_000).unwrap().tag, Some(""));
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_tables_are_those_of_kamailio() {
    let columns = "SELECT string_agg(concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default), \
                   '; ' ORDER BY table_name, ordinal_position) FROM information_schema.columns \
                   WHERE table_schema = 'public' AND table_name IN ('version', 'address', 'trusted')";
    let (kamailio, _) = Server::with_tables();
    let server = Server::start();
    let database = Database::new(server.connections());
    // Nothing is made unless it is asked for.
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "version"),
        "{error}"
    );
    let planned = database.migration().await.unwrap();
    assert_eq!(database.migrate().await.unwrap(), planned);
    let again = database.migrate().await.unwrap();
    assert!(
        again
            .iter()
            .all(|step| step.action == MigrationAction::Keep),
        "{again:?}"
    );
    assert_eq!(server.ask(columns).await, kamailio.ask(columns).await);
    let versions = "SELECT string_agg(table_name || ' ' || table_version, ',' ORDER BY table_name) FROM version";
    assert_eq!(
        server.ask(versions).await,
        "address 6,portcullis_artifact 1,portcullis_generation 1,portcullis_seat 1,portcullis_tenant 1,trusted 6,version 1"
    );
    assert!(database.load().await.unwrap().table.is_empty());

    // Where Kamailio's tables are, only our own are made.
    let done = Database::new(kamailio.connections())
        .migrate()
        .await
        .unwrap();
    let made: Vec<_> = done
        .iter()
        .filter(|step| step.action != MigrationAction::Keep)
        .map(|step| step.table.as_str())
        .collect();
    let ours = [
        "portcullis_artifact",
        "portcullis_generation",
        "portcullis_seat",
        "portcullis_tenant",
    ];
    assert_eq!(made, ours);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn rows_are_added_counted_listed_and_removed() {
    let (server, connections) = Server::with_tables();
    let database = Database::new(connections);
    let new = NewRow {
        group: 2_000_000_000,
        ip_addr: "192.168.1.0".to_owned(),
        mask: 24,
        port: 5060,
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
    assert_eq!(rows[0].group.as_deref(), Some("2000000000"));
    assert_eq!(
        (rows[0].tag.as_ref(), rows[1].tag.as_ref()),
        (new.tag.as_ref(), None)
    );
    assert_eq!(
        database.remove(2_000_000_000, "192.168.1.1").await.unwrap(),
        0
    );
    let network = database.remove_network(2_000_000_000, "192.168.1.0", 24);
    assert_eq!(network.await.unwrap(), 2);
    assert_eq!(
        server
            .ask("SELECT CAST(COUNT(*) AS TEXT) FROM address")
            .await,
        "0"
    );
    // Kamailio's own column is smaller than a port.
    let high = NewRow {
        port: 40_000,
        ..new
    };
    let error = database.add(&high).await.unwrap_err().to_string();
    assert!(
        error.contains("smallint out of range") && error.contains("ALTER COLUMN port TYPE integer"),
        "{error}"
    );
    server
        .sql("ALTER TABLE address ALTER COLUMN port TYPE integer")
        .await;
    database.add(&high).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn changed_schemas_cost_rows_and_not_the_host() {
    let (server, connections) = Server::with_tables();
    let database = Database::new(connections);
    server
        .sql(
            "DROP TABLE address; \
             CREATE TABLE address (id BIGINT, grp BIGINT, ip_addr TEXT, mask TEXT, port NUMERIC, tag INTEGER); \
             INSERT INTO address VALUES (1, 200, '10.0.0.1', '32', 40000, 7), (2, NULL, '10.0.0.2', '32', 0, NULL), \
             (3, 200, NULL, '32', 0, NULL), (4, 200, '10.0.0.4', 'wide', 0, NULL), (5, 200, '10.0.0.5', '32', 5060.5, NULL), \
             (6, 200, '10.0.0.6', NULL, 0, NULL), (7, 5000000000, '10.0.0.7', '32', 0, NULL), (NULL, 0, '10.0.0.8', '32', 0, NULL); \
             GRANT ALL ON address TO kamailio",
        )
        .await;
    let loaded = database.load().await.unwrap();
    let named: Vec<_> = loaded.errors.iter().map(|e| (e.id, e.column)).collect();
    let expected = [
        (2, "grp"),
        (3, "ip_addr"),
        (4, "mask"),
        (5, "port"),
        (6, "mask"),
        (7, "grp"),
        (8, "grp"),
    ];
    assert_eq!(named, expected);
    let found = loaded.table.lookup("10.0.0.1".parse().unwrap());
    assert_eq!(found.find(200, 40_000).unwrap().tag, Some("7"));

    // A table may go without numbers.
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
        said.contains("\"tag\"") && said.contains("grp, ip_addr, mask, port, tag"),
        "{said}"
    );
    server.sql("DROP TABLE address").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "address"),
        "{error}"
    );
    // The statement that mends a version is one of PostgreSQL, too.
    for (statement, found) in [
        (
            "UPDATE version SET table_version = 5 WHERE table_name = 'address'",
            "has version \"5\", and only version 6 is known: ",
        ),
        (
            "DELETE FROM version WHERE table_name = 'address'",
            "has no version, and only version 6 is known: ",
        ),
    ] {
        server.sql(statement).await;
        let error = database.load().await.unwrap_err().to_string();
        let (_, mend) = error.split_once(found).unwrap_or_else(|| panic!("{error}"));
        let statement = mend.find("UPDATE").or_else(|| mend.find("INSERT")).unwrap();
        server.sql(&mend[statement..]).await;
    }
    let error = database.load().await.unwrap_err().to_string();
    assert!(error.contains("no table `address`"), "{error}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_the_server_refuses_is_told_with_a_mend() {
    let (server, _) = Server::with_tables();
    let check = async |url: String| {
        let url: DatabaseUrl = url.parse().unwrap();
        Database::new(url)
            .check()
            .await
            .map_err(|error| error.to_string())
    };
    let url = server.url();
    assert_eq!(check(url.clone()).await, Ok(()));
    assert_eq!(
        check(url.replace("postgres://", "postgresql://")).await,
        Ok(())
    );
    let socket = server.socket();
    assert_eq!(
        check(format!("{url}?socket={}", socket.display())).await,
        Ok(())
    );
    for (bad, said) in [
        (
            url.replace("kamailiorw", "wrong"),
            "check user and password",
        ),
        (format!("{url}_other"), "check the name of the database"),
        (
            format!("{url}?socket=/nowhere"),
            "check host and port in [database] url",
        ),
        (
            format!("{url}?ssl-mode=required"),
            "that the server has a certificate (ssl = on)",
        ),
    ] {
        let error = check(bad).await.unwrap_err();
        assert!(error.contains(said), "{error}");
        assert!(!error.contains("kamailiorw"), "{error}");
    }
    server
        .sql(
            "CREATE ROLE \"p@ss\" LOGIN PASSWORD 'a:b@c/d?e#f%41'; \
             GRANT SELECT ON version, address, trusted TO \"p@ss\"; \
             CREATE ROLE bare LOGIN PASSWORD 'x'",
        )
        .await;
    let other = url.replace("kamailio:kamailiorw", "p@ss:a:b@c/d?e#f%41");
    assert_eq!(check(other.clone()).await, Ok(()));
    let other: DatabaseUrl = other.parse().unwrap();
    let error = Database::new(other)
        .remove(1, "10.0.0.1")
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("permission denied for table address"),
        "{error}"
    );
    let error = check(url.replace("kamailio:kamailiorw", "bare:x"))
        .await
        .unwrap_err();
    assert!(
        error.contains("permission denied for table version") && error.contains("grant it"),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn an_import_is_whole_or_nothing_and_comes_out_as_it_went_in() {
    let (server, connections) = Server::with_tables();
    let database = Database::new(connections);
    let row = |number: i64, tag: Option<&str>| NewRow {
        group: 1 + number % 7,
        ip_addr: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
        mask: 32,
        port: number % 32_768,
        tag: tag.map(str::to_owned),
    };
    let rows: Vec<_> = (0..2_500).map(|number| row(number, Some("x"))).collect();
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
    for replace in [false, true] {
        let error = database.import(&twice, replace).await.unwrap_err();
        assert!(error.to_string().contains("duplicate key"), "{error}");
        assert_eq!(database.count().await.unwrap(), 3, "{replace}");
    }

    let tags = [
        None,
        Some(""),
        Some("\\N"),
        Some("a,\"b\"\n\\c"),
        Some("ü \u{1f600}"),
        Some("NULL"),
    ];
    let rows: Vec<_> = (0..).zip(tags).map(|(n, tag)| row(n, tag)).collect();
    database.import(&rows, true).await.unwrap();
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
}

/// Writes are committed one after the other while the table is loaded: no load may see one without those before it.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_load_is_one_state_of_the_table() {
    let (server, connections) = Server::with_tables();
    let database = Database::new(connections);
    server
        .sql("INSERT INTO address (grp, ip_addr) SELECT 1, '10.0.' || n / 250 || '.' || n % 250 FROM generate_series(1, 20000) AS n")
        .await;
    let writes = async {
        for group in 2..20 {
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

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn tables_and_columns_may_have_other_names() {
    let server = Server::start();
    let name = |text: &str| text.parse().expect("a good name");
    let mut schema = Schema {
        version_table: name("versions"),
        ..Schema::default()
    };
    schema.address.table = name("SIP-trunks");
    schema.address.id = name("nr");
    schema.address.group = name("customer");
    schema.address.mask = name("Bits");
    schema.trusted.table = name("peers");
    schema.trusted.source = name("peer");
    let database = Database::new(server.connections()).with_schema(schema);
    database.migrate().await.unwrap();
    let row = NewRow {
        group: 200,
        ip_addr: "10.0.0.9".to_owned(),
        mask: 32,
        port: 0,
        tag: None,
    };
    database.add(&row).await.unwrap();
    server
        .sql("INSERT INTO \"SIP-trunks\" (customer, ip_addr, \"Bits\") VALUES (200, '10.0.0.0/8', 32)")
        .await;
    let loaded = database.load().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.skipped), (1, 1));
    assert_eq!(loaded.errors[0].id, 2);
    let peer = NewTrusted {
        source: "10.0.0.1".into(),
        proto: "any".into(),
        from: Some("^sip:".into()),
        ruri: None,
        tag: None,
        priority: 0,
    };
    database.add_trusted(&peer).await.unwrap();
    assert!(database.add_trusted(&peer).await.is_err(), "twice");
    assert_eq!(database.load_trusted().await.unwrap().table.len(), 1);
    assert_eq!(database.remove_trusted("10.0.0.1").await.unwrap(), 1);
    server
        .sql("ALTER TABLE \"SIP-trunks\" RENAME COLUMN \"Bits\" TO bits")
        .await;
    let error = database.load().await.unwrap_err().to_string();
    assert!(error.contains("\"Bits\""), "{error}");
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn peers_are_loaded_as_kamctl_and_others_write_them() {
    let (server, connections) = Server::with_tables();
    let database = Database::new(connections);
    server
        .sql(
            "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES \
             ('10.0.0.1', 'any', NULL, NULL, NULL, 0), ('10.0.0.1', 'UDP', '^sip:a', '@example', 'first', 9), \
             ('10.0.0.1', 'tcp', '', '', 'tcp', 99), ('10.0.0.1', 'none', NULL, NULL, 'rests', 99), \
             ('10.0.0.2', 'udp', '\\(', NULL, 'broken', 0), ('10.0.0.3', 'x25', NULL, NULL, NULL, 0)",
        )
        .await;
    let loaded = database.load_trusted().await.unwrap();
    assert_eq!((loaded.table.len(), loaded.ignored), (3, 1));
    let named: Vec<_> = loaded.errors.iter().map(|e| (e.id, e.column)).collect();
    assert_eq!(named, [(5, "from_pattern"), (6, "proto")]);
    let book = book(database);
    book.reload_trusted().await.unwrap();
    let now = book.current();
    assert_eq!(trust(&now, "10.0.0.1", "sip:alice@a"), ["first", "-"]);

    // Many a database does without.
    server
        .sql("DROP TABLE trusted; DELETE FROM version WHERE table_name = 'trusted'")
        .await;
    let error = book.database().load_trusted().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::NoTable { .. })),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_server_that_dies_and_returns_is_followed_again() {
    let (mut server, connections) = Server::with_tables();
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    let book = book(Database::new(connections));
    book.reload().await.unwrap();
    let watch = watch(&book);
    server.kill();
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

/// The tags of the peers that trust a request from this source over UDP.
fn trust(snapshot: &Snapshot, source: &str, from: &str) -> Vec<String> {
    let question = TrustedQuestion {
        source: TrustedSource::Ip(source.parse().expect("an address")),
        proto: Proto::Udp,
        from: FromUri::Own(from),
        ruri: "sip:bob@example.com",
    };
    let matches = snapshot.trusted.table.matches(question);
    let tag = |tag: Option<&str>| tag.unwrap_or("-").to_owned();
    matches.iter().map(|found| tag(found.tag)).collect()
}

fn book(database: Database) -> Arc<AddressBook> {
    let options = BookOptions {
        poll: Duration::from_millis(50),
        settle: Duration::ZERO,
        ..BookOptions::default()
    };
    Arc::new(AddressBook::new(database, options))
}

fn watch(book: &Arc<AddressBook>) -> tokio::task::JoinHandle<()> {
    let book = Arc::clone(book);
    tokio::spawn(async move { book.watch().await })
}

async fn until(book: &AddressBook, what: impl Fn(&Snapshot) -> bool) {
    eventually("the table is as it should be", || what(&book.current())).await;
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap_or_else(|_| panic!("not so: {what}"));
}

fn knows(snapshot: &Snapshot, source: &str, group: u32) -> bool {
    let source: IpAddr = source.parse().expect("an address");
    snapshot.table.lookup(source).find(group, 5060).is_some()
}
