//! Behaviour of PostgreSQL only: Kamailio's own tables, errors, and detection of changes.

mod changes;

use portcullis_address::{Database, DatabaseError, DatabaseUrl, Failure, MigrationAction, NewRow};
use portcullis_testkit::server::{Dialect, Server};

use super::support::{database, with_tables};

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_tables_are_those_of_kamailio() {
    let columns = "SELECT string_agg(concat_ws(' ', table_name, column_name, data_type, character_maximum_length, is_nullable, column_default), \
                   '; ' ORDER BY table_name, ordinal_position) FROM information_schema.columns \
                   WHERE table_schema = 'public' AND table_name IN ('version', 'address', 'trusted', 'dispatcher')";
    let (kamailio, of_kamailio) = with_tables(Dialect::Postgres).await;
    let server = Server::empty(Dialect::Postgres);
    let database = database(&server);
    // Tables are created only by a migration.
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
        "address 6,dispatcher 4,portcullis_artifact 1,portcullis_audit 1,portcullis_generation 1,portcullis_host 1,portcullis_rollout 1,portcullis_seat 1,portcullis_tenant 1,trusted 6,version 1"
    );
    assert!(database.load().await.unwrap().table.is_empty());

    // Where Kamailio's tables exist, a migration creates only our own.
    let done = of_kamailio.migrate().await.unwrap();
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
        "portcullis_audit",
        "portcullis_host",
        "portcullis_rollout",
    ];
    assert_eq!(made, ours);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_the_server_refuses_is_told_with_a_mend() {
    let (server, _) = with_tables(Dialect::Postgres).await;
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
async fn kamailios_column_is_smaller_than_a_port() {
    let (server, database) = with_tables(Dialect::Postgres).await;
    let high = NewRow {
        group: 1,
        ip_addr: "192.168.1.0".to_owned(),
        mask: 24,
        port: 40_000,
        tag: None,
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
