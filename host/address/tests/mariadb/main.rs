//! The address table in a real MariaDB, each test with a server of its own in a temporary folder.
//!
//! `cargo test -p portcullis-address --test mariadb -- --ignored`: without MariaDB installed these tests fail.

mod import;
mod schema;
mod server;
mod trusted;
mod watch;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_address::{
    AddressBook, BookOptions, Database, DatabaseError, DatabaseState, DatabaseUrl, Failure, NewRow,
    Snapshot,
};
use server::Server;

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn the_page_is_loaded_as_kamctl_writes_it() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql(
            "insert into address (grp, ip_addr, mask, port, tag) VALUES (250, '10.8.203.139', 32, 5060, 'TestServer'); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (200, '192.168.1.0', 24, 5060, 'OfficeSubnet'); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (4294967295, '10.0.0.1', 32, 65535, NULL); \
             insert into address (grp, ip_addr, mask, port, tag) VALUES (1, '2001:db8::1', 128, 40000, '')",
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
    assert_eq!(find("10.0.0.1", 4_294_967_295, 65_535).unwrap().tag, None);
    assert_eq!(find("2001:db8::1", 1, 40_000).unwrap().tag, Some(""));
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn the_tables_are_those_of_kamailio() {
    let server = Server::start(&[]);
    let database = server.database();
    // Nothing is made unless it is asked for.
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "version"),
        "{error}"
    );
    assert!(error.to_string().contains("kamdbctl create"), "{error}");
    database.create_tables().await.unwrap();
    database
        .create_tables()
        .await
        .expect("twice is as good as once");
    let columns = server
        .ask(
            "SELECT GROUP_CONCAT(CONCAT_WS(' ', column_name, column_type, is_nullable, IFNULL(column_default, '-'), column_key) \
             ORDER BY table_name, ordinal_position SEPARATOR '; ') \
             FROM information_schema.columns WHERE table_schema = 'kamailio' AND table_name NOT LIKE 'portcullis%'",
        )
        .await;
    assert_eq!(
        columns,
        "id int(10) unsigned NO - PRI; grp int(11) unsigned NO 1 ; ip_addr varchar(50) NO - ; mask int(11) NO 32 ; \
         port smallint(5) unsigned NO 0 ; tag varchar(64) YES NULL ; \
         id int(10) unsigned NO - PRI; src_ip varchar(50) NO - MUL; proto varchar(4) NO - ; from_pattern varchar(64) YES NULL ; \
         ruri_pattern varchar(64) YES NULL ; tag varchar(64) YES NULL ; priority int(11) NO 0 ; \
         id int(10) unsigned NO - PRI; table_name varchar(32) NO - UNI; table_version int(10) unsigned NO 0 "
    );
    let versions = "SELECT GROUP_CONCAT(CONCAT(table_name, ' ', table_version) ORDER BY table_name) FROM version";
    assert_eq!(
        server.ask(versions).await,
        "address 6,portcullis_artifact 1,portcullis_generation 1,portcullis_seat 1,portcullis_tenant 1,trusted 6,version 1"
    );
    assert!(database.load().await.unwrap().table.is_empty());
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn rows_are_added_counted_listed_and_removed() {
    let (server, database) = Server::with_tables(&[]).await;
    let new = NewRow {
        group: 4_000_000_000,
        ip_addr: "192.168.1.0".to_owned(),
        mask: 24,
        port: 40_000,
        tag: Some("o'Reilly; DROP TABLE address; --".to_owned()),
    };
    assert_eq!(database.add(&new).await.unwrap(), None);
    let tagless = NewRow {
        tag: None,
        ..new.clone()
    };
    database.add(&tagless).await.unwrap();
    assert_eq!(database.count().await.unwrap(), 2);
    let rows = database.rows().await.unwrap();
    assert_eq!(rows[0].group.as_deref(), Some("4000000000"));
    assert_eq!(rows[0].port.as_deref(), Some("40000"));
    assert_eq!(
        (rows[0].tag.as_ref(), rows[1].tag.as_ref()),
        (new.tag.as_ref(), None)
    );
    assert_eq!(
        database.remove(4_000_000_000, "192.168.1.1").await.unwrap(),
        0
    );
    assert_eq!(
        database.remove(4_000_000_000, "192.168.1.0").await.unwrap(),
        2
    );
    assert_eq!(
        server
            .ask("SELECT CAST(COUNT(*) AS CHAR) FROM address")
            .await,
        "0"
    );
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn changed_schemas_cost_rows_and_not_the_host() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql(
            "DROP TABLE address; \
             CREATE TABLE address (id BIGINT, grp BIGINT, ip_addr VARBINARY(50), mask VARCHAR(20), port DECIMAL(8,2), tag INT); \
             INSERT INTO address VALUES (1, 200, '10.0.0.1', '32', 40000, 7), (2, NULL, '10.0.0.2', '32', 0, NULL), \
             (3, 200, NULL, '32', 0, NULL), (4, 200, '10.0.0.4', 'wide', 0, NULL), (5, 200, X'ff00', '32', 0, NULL), \
             (6, 200, '10.0.0.6', NULL, 0, NULL), (7, 5000000000, '10.0.0.7', '32', 0, NULL), (NULL, 0, '10.0.0.8', '32', 0, NULL); \
             ALTER TABLE address MODIFY port INT",
        )
        .await;
    let loaded = database.load().await.unwrap();
    let named: Vec<_> = loaded.errors.iter().map(|e| (e.id, e.column)).collect();
    let expected = [
        (2, "grp"),
        (3, "ip_addr"),
        (4, "mask"),
        (5, "ip_addr"),
        (6, "mask"),
        (7, "grp"),
        (8, "grp"),
    ];
    assert_eq!(named, expected);
    let found = loaded
        .table
        .lookup("10.0.0.1".parse().unwrap())
        .find(200, 40_000);
    assert_eq!(found.unwrap().tag, Some("7"));

    server.sql("ALTER TABLE address DROP COLUMN tag").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(error, DatabaseError::Database(Failure::NoColumn { .. })),
        "{error}"
    );
    assert!(error.to_string().contains("'tag'"), "{error}");
    server.sql("DROP TABLE address").await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::NoTable { table, .. }) if table == "address"),
        "{error}"
    );
    server
        .sql("UPDATE version SET table_version = 5 WHERE table_name = 'address'")
        .await;
    let error = database.load().await.unwrap_err();
    assert!(
        matches!(&error, DatabaseError::Database(Failure::Version { found, .. }) if found.as_deref() == Some("\"5\"")),
        "{error}"
    );
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn what_the_server_refuses_is_told_with_a_mend() {
    let (server, database) = Server::with_tables(&[]).await;
    let check = async |url: String| {
        let url: DatabaseUrl = url.parse().unwrap();
        Database::new(url)
            .check()
            .await
            .map_err(|error| error.to_string())
    };
    let url = server.url();
    assert_eq!(check(url.clone()).await, Ok(()));
    let socket = server.socket();
    assert_eq!(
        check(format!("{url}?socket={}", socket.display())).await,
        Ok(())
    );

    let error = check(url.replace("kamailiorw", "wrong")).await.unwrap_err();
    assert!(
        error.contains("Access denied") && error.contains("check user and password"),
        "{error}"
    );
    let error = check(format!("{url}_other")).await.unwrap_err();
    assert!(error.contains("check the name of the database"), "{error}");
    let error = check(format!("{url}?socket=/nowhere.sock"))
        .await
        .unwrap_err();
    assert!(
        error.contains("/nowhere.sock") && error.contains("No such file"),
        "{error}"
    );

    server
        .sql(
            "CREATE USER 'p@ss'@'%' IDENTIFIED BY 'a:b@c/d?e#f%41'; GRANT SELECT ON kamailio.* TO 'p@ss'@'%'; \
             CREATE USER 'tls'@'%' IDENTIFIED BY 'x' REQUIRE SSL; GRANT SELECT ON kamailio.* TO 'tls'@'%'",
        )
        .await;
    assert_eq!(
        check(url.replace("kamailio:kamailiorw", "p@ss:a:b@c/d?e#f%41")).await,
        Ok(())
    );
    let error = check(url.replace("kamailio:kamailiorw", "tls:x"))
        .await
        .unwrap_err();
    assert!(
        error.contains("REQUIRE SSL") && error.contains("?ssl-mode=verify-identity"),
        "{error}"
    );
    server.sql("SET GLOBAL require_secure_transport = ON").await;
    let error = check(url).await.unwrap_err();
    assert!(
        error.contains("?ssl-mode=verify-identity") && error.contains("?socket=PATH"),
        "{error}"
    );
    // The socket is secure.
    assert!(database.check().await.is_err());
    assert_eq!(
        check(format!("{}?socket={}", server.url(), socket.display())).await,
        Ok(())
    );
}

/// Writes are committed one after the other while the table is loaded: no load may see one without those before it.
#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_load_is_one_state_of_the_table() {
    let (server, database) = Server::with_tables(&[]).await;
    server.sql("INSERT INTO address (grp, ip_addr) SELECT 1, CONCAT('10.0.', seq DIV 250, '.', seq MOD 250) FROM seq_1_to_20000").await;
    let writes = async {
        for group in 2..40 {
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
#[ignore = "needs MariaDB"]
async fn a_watched_book_follows_the_server() {
    let (server, database) = Server::with_tables(&[]).await;
    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    // Two changes within one second, the second of them behind the look that saw the first.
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.2')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 2).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.3')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 3).await;
    server.sql("UPDATE address SET grp = 7").await;
    until(&book, |snapshot| knows(snapshot, "10.0.0.1", 7)).await;
    server
        .sql("DELETE FROM address WHERE ip_addr = '10.0.0.2'")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 2).await;
    server.sql("TRUNCATE TABLE address").await;
    until(&book, |snapshot| snapshot.table.is_empty()).await;
    server
        .sql(
            "CREATE TABLE next LIKE address; INSERT INTO next (grp, ip_addr) VALUES (9, '10.0.0.9'); \
             RENAME TABLE address TO old, next TO address",
        )
        .await;
    until(&book, |snapshot| knows(snapshot, "10.0.0.9", 9)).await;
    watch.abort();
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_read_only_user_sees_changes() {
    let (server, _) = Server::with_tables(&[]).await;
    let url: DatabaseUrl = server
        .url()
        .replace("kamailio:kamailiorw", "kamailioro:kamailioro")
        .parse()
        .unwrap();
    let book = book(Database::new(url));
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    let new = NewRow {
        group: 1,
        ip_addr: "10.0.0.2".to_owned(),
        mask: 32,
        port: 0,
        tag: None,
    };
    let error = book.database().add(&new).await.unwrap_err().to_string();
    assert!(error.contains("denied"), "{error}");
    watch.abort();
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_view_is_read_every_now_and_then() {
    let (server, database) = Server::with_tables(&[]).await;
    server
        .sql("RENAME TABLE address TO real_rows; CREATE VIEW address AS SELECT * FROM real_rows")
        .await;
    let book = book(database);
    book.reload().await.unwrap();
    let watch = watch(&book);
    server
        .sql("INSERT INTO real_rows (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    until(&book, |snapshot| snapshot.counts.hosts == 1).await;
    watch.abort();
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_server_that_dies_and_returns_is_followed_again() {
    let (mut server, database) = Server::with_tables(&[]).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    let book = book(database);
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

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn a_server_that_is_absent_at_the_start_is_found_later() {
    let (mut server, database) = Server::with_tables(&[]).await;
    server
        .sql("INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')")
        .await;
    server.kill();
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

fn book(database: Database) -> Arc<AddressBook> {
    let options = BookOptions {
        poll: Duration::from_millis(50),
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
