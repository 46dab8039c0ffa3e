//! The table of hosts in a real MariaDB and a real PostgreSQL, each test with a server of its own in a temporary directory.
//!
//! `cargo test -p portcullis-fleet --test servers -- --ignored`: without these servers the tests fail.

#![expect(
    clippy::unwrap_used,
    reason = "the body of a test is a function of its own here, and a panic is how a test fails"
)]

use std::time::{SystemTime, UNIX_EPOCH};

use portcullis_database::{Connections, DatabaseUrl, Look, Name, Schema, TableWatch};
use portcullis_fleet::directory::{
    Announcement, Directory, DirectoryError, Stage, Standing, WishKind,
};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::{Dialect, Server};
use tokio::task::JoinSet;

on_each_server!(
    hosts_are_listed_by_the_clock_of_the_database,
    a_wish_reaches_its_process_beside_announcements,
    old_rows_are_removed_and_silent_hosts_are_gone,
    announcements_are_no_change_of_other_tables,
    what_is_wrong_is_told_with_its_mend,
);

const ONE: &str = "00000000000000000000000000000001";
const TWO: &str = "00000000000000000000000000000002";

fn connections(url: &str) -> Connections {
    let url: DatabaseUrl = url.parse().expect("a good URL");
    Connections::kept(url)
}

async fn directory(dialect: Dialect) -> (Server, Directory) {
    let server = Server::empty(dialect);
    let connections = connections(&server.url());
    let done = connections.migrate(&Schema::default()).await;
    done.expect("the tables can be made");
    (server, Directory::new(connections))
}

fn of<'a>(host: &'a str, instance: &'a str, state: &'a str) -> Announcement<'a> {
    Announcement {
        host,
        instance,
        address: "udp:192.0.2.1:5060",
        version: "0.1.0",
        state,
        is_changed: true,
    }
}

async fn hosts_are_listed_by_the_clock_of_the_database(dialect: Dialect) {
    let (_server, directory) = directory(dialect).await;
    let state = format!(
        r#"{{"stage":"draining","listen":["{}"]}}"#,
        "x".repeat(200_000)
    );
    directory
        .announce(&of("b", TWO, &state), false)
        .await
        .unwrap();
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    let answer = directory.announce(&of("a", ONE, "{}"), true).await.unwrap();
    // The server runs on this machine.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_millis()).unwrap();
    assert!((now - answer.now).abs() < 60_000, "{} at {now}", answer.now);
    let hosts = directory.hosts().await.unwrap();
    assert_eq!(hosts.len(), 2);
    assert_eq!((hosts[0].host.as_str(), hosts[1].host.as_str()), ("a", "b"));
    assert_eq!(hosts[1].stage(), Some(Stage::Draining));
    assert!(hosts.iter().all(|row| (0..60_000).contains(&row.age_ms)));
    assert!(hosts[0].seen_at >= hosts[0].started_at);
    assert!(
        directory
            .leave("a", ONE, r#"{"stage":"ended"}"#)
            .await
            .unwrap()
    );
    assert!(!directory.leave("a", TWO, "{}").await.unwrap());
    let left = directory.hosts().await.unwrap();
    assert_eq!(Standing::of(&left[0]), Standing::Ended);
}

async fn a_wish_reaches_its_process_beside_announcements(dialect: Dialect) {
    let (_server, directory) = directory(dialect).await;
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    let mut writers = JoinSet::new();
    for n in 0..20 {
        let directory = directory.clone();
        writers.spawn(async move {
            if n % 2 == 0 {
                return directory.wish("a", ONE, WishKind::Drain, "ann").await;
            }
            let announced = directory.announce(&of("a", ONE, "{}"), true).await;
            announced.map(|answer| answer.twin.is_none())
        });
    }
    while let Some(written) = writers.join_next().await {
        assert!(written.unwrap().unwrap());
    }
    let answer = directory.announce(&of("a", ONE, "{}"), true).await.unwrap();
    let wish = answer.wish.unwrap();
    assert_eq!((wish.kind, wish.by.as_str()), (WishKind::Drain, "ann"));
    assert!((answer.now - wish.at).abs() < 60_000);
    assert!(directory.take_back("a", ONE).await.unwrap());
    assert!(!directory.take_back("a", ONE).await.unwrap());
}

async fn old_rows_are_removed_and_silent_hosts_are_gone(dialect: Dialect) {
    let (server, directory) = directory(dialect).await;
    for (host, instance) in [("a", ONE), ("b", TWO), ("c", ONE)] {
        directory
            .announce(&of(host, instance, "{}"), false)
            .await
            .unwrap();
    }
    server
        .sql(
            "UPDATE portcullis_host SET seen_at = seen_at - 100000000 WHERE host = 'a'; \
             UPDATE portcullis_host SET seen_at = seen_at - 6000 WHERE host = 'b'",
        )
        .await;
    assert_eq!(directory.remove_old().await.unwrap(), 1);
    let left = directory.hosts().await.unwrap();
    let standings: Vec<_> = left.iter().map(Standing::of).collect();
    assert_eq!(standings, [Standing::Gone, Standing::Serving]);
    // Its successor is no twin: the row is silent.
    let answer = directory.announce(&of("b", ONE, "{}"), true).await;
    assert_eq!(answer.unwrap().twin, None);
    let answer = directory.announce(&of("c", TWO, "{}"), true).await;
    assert_eq!(answer.unwrap().twin.as_deref(), Some("udp:192.0.2.1:5060"));
}

/// Where the server says which table has changed.
async fn announcements_are_no_change_of_other_tables(dialect: Dialect) {
    let (server, directory) = directory(dialect).await;
    let mut watch = TableWatch::new(connections(&server.url()), Name::known("address"));
    assert_eq!(watch.look().await.unwrap(), Look::Changed);
    assert_ne!(watch.look().await.unwrap(), Look::Changed);
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    directory.announce(&of("a", ONE, "{}"), true).await.unwrap();
    assert_ne!(watch.look().await.unwrap(), Look::Changed);
}

async fn what_is_wrong_is_told_with_its_mend(dialect: Dialect) {
    let server = Server::empty(dialect);
    let directory = Directory::new(connections(&server.url()));
    let error = directory.hosts().await.unwrap_err();
    assert!(matches!(error, DirectoryError::NoTable { .. }), "{error}");
    assert!(error.is_lasting() && error.to_string().contains("portcullis db migrate"));
    let schema = Schema::default();
    connections(&server.url()).migrate(&schema).await.unwrap();
    server
        .sql(&dialect.reader("other", "x", &["portcullis_host"]))
        .await;
    let reader = Directory::new(connections(&server.url_of("other", "x")));
    assert_eq!(reader.hosts().await.unwrap(), []);
    let announcement = of("a", ONE, "{}");
    let error = reader.announce(&announcement, false).await.unwrap_err();
    assert!(matches!(error, DirectoryError::Denied { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("GRANT SELECT, INSERT, UPDATE, DELETE ON portcullis_host")
    );
}
