//! What is so with MariaDB only: its engines, its errors, and how it tells of changes.

mod import;
mod late;
mod schema;
mod watch;

use portcullis_address::{Database, DatabaseError, DatabaseUrl, Failure};
use portcullis_testkit::server::{Dialect, Server};

use super::support::{database, with_tables};

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn the_tables_are_those_of_kamailio() {
    let server = Server::empty(Dialect::MariaDb);
    let database = database(&server);
    // Tables are created only on request.
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
         id int(10) unsigned NO - PRI; setid int(11) NO 0 ; destination varchar(192) NO '' ; flags int(11) NO 0 ; priority int(11) NO 0 ; \
         attrs varchar(128) NO '' ; description varchar(64) NO '' ; \
         id int(10) unsigned NO - PRI; src_ip varchar(50) NO - MUL; proto varchar(4) NO - ; from_pattern varchar(64) YES NULL ; \
         ruri_pattern varchar(64) YES NULL ; tag varchar(64) YES NULL ; priority int(11) NO 0 ; \
         id int(10) unsigned NO - PRI; table_name varchar(32) NO - UNI; table_version int(10) unsigned NO 0 "
    );
    let versions = "SELECT GROUP_CONCAT(CONCAT(table_name, ' ', table_version) ORDER BY table_name) FROM version";
    assert_eq!(
        server.ask(versions).await,
        "address 6,dispatcher 4,portcullis_artifact 1,portcullis_audit 1,portcullis_generation 1,portcullis_host 1,portcullis_rollout 1,portcullis_seat 1,portcullis_tenant 1,trusted 6,version 1"
    );
    assert!(database.load().await.unwrap().table.is_empty());
}

#[tokio::test]
#[ignore = "needs MariaDB"]
async fn what_the_server_refuses_is_told_with_a_mend() {
    let (server, database) = with_tables(Dialect::MariaDb).await;
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
