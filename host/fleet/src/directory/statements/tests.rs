use portcullis_database::{DatabaseUrl, Schema};

use super::*;
use crate::directory::Stage;

const ONE: &str = "00000000000000000000000000000001";
const TWO: &str = "00000000000000000000000000000002";

/// The directory in a new file.
async fn directory(folder: &tempfile::TempDir) -> Directory {
    let url = DatabaseUrl::Sqlite(folder.path().join("fleet.db"));
    let connections = Connections::kept(url);
    connections.migrate(&Schema::default()).await.unwrap();
    Directory::new(connections)
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

#[tokio::test]
async fn a_host_is_listed_with_what_it_says_of_itself() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    assert_eq!(directory.hosts().await.unwrap(), []);
    let draining = r#"{"stage":"draining","seats":{"acme":{"active":3}}}"#;
    directory
        .announce(&of("b", TWO, draining), false)
        .await
        .unwrap();
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    let hosts = directory.hosts().await.unwrap();
    let names: Vec<_> = hosts.iter().map(|row| row.host.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let state = hosts[1].state.as_ref().unwrap();
    assert_eq!(state.stage, Stage::Draining);
    assert_eq!(state.seats["acme"].active, Some(3));
    assert!(hosts.iter().all(HostRow::is_alive));
    assert_eq!(hosts[0].started_at, hosts[0].seen_at);
    // What has not changed is not written again.
    let same = Announcement {
        is_changed: false,
        ..of("b", TWO, "{}")
    };
    let answer = directory.announce(&same, true).await.unwrap();
    assert_eq!(answer.twin, None);
    let again = directory.hosts().await.unwrap().remove(1);
    assert_eq!(again.state.as_ref(), Some(state));
    assert_eq!(again.started_at, hosts[1].started_at);
    assert!(again.seen_at >= hosts[1].seen_at && answer.now >= hosts[1].seen_at);
}

#[tokio::test]
async fn a_successor_takes_the_row_over_and_a_second_process_is_noticed_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    // The first announcement of a process says nothing about a predecessor, which may just have ended.
    let answer = directory.announce(&of("a", TWO, "{}"), false).await;
    assert_eq!(answer.unwrap().twin, None);
    for instance in [ONE, TWO] {
        let answer = directory.announce(&of("a", instance, "{}"), true).await;
        assert_eq!(answer.unwrap().twin.as_deref(), Some("udp:192.0.2.1:5060"));
    }
    let answer = directory.announce(&of("a", TWO, "{}"), true).await;
    assert_eq!(answer.unwrap().twin, None);
}

#[tokio::test]
async fn a_row_of_a_restored_database_is_no_second_process() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    for age in [86_300_000_i64, -3_600_000] {
        shift(&directory, ONE, age).await;
        let answer = directory.announce(&of("a", TWO, "{}"), true).await;
        assert_eq!(answer.unwrap().twin, None, "{age}");
        directory
            .announce(&of("a", ONE, "{}"), false)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_wish_reaches_one_process_until_it_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    directory
        .announce(&of("a", ONE, "{}"), false)
        .await
        .unwrap();
    let asked = directory.wish("a", TWO, WishKind::Drain, "ann").await;
    assert!(!asked.unwrap(), "another process");
    assert!(
        directory
            .wish("a", ONE, WishKind::Drain, "ann")
            .await
            .unwrap()
    );
    let answer = directory.announce(&of("a", ONE, "{}"), true).await.unwrap();
    let wish = answer.wish.unwrap();
    assert_eq!((wish.kind, wish.by.as_str()), (WishKind::Drain, "ann"));
    let rows = directory.hosts().await.unwrap();
    assert_eq!(rows[0].wish.as_ref(), Some(&wish));
    assert!(directory.take_back("a", ONE).await.unwrap());
    assert!(!directory.take_back("a", ONE).await.unwrap());
    // A successor does not inherit it.
    directory
        .wish("a", ONE, WishKind::Drain, "ann")
        .await
        .unwrap();
    for is_known in [false, true] {
        let answer = directory.announce(&of("a", TWO, "{}"), is_known).await;
        assert_eq!(answer.unwrap().wish, None);
    }
}

#[tokio::test]
async fn old_rows_and_those_of_the_future_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    for (host, instance) in [("a", ONE), ("b", TWO), ("c", "3")] {
        let instance = format!("{instance:0>32}");
        directory
            .announce(&of(host, &instance, "{}"), false)
            .await
            .unwrap();
    }
    shift(&directory, ONE, 86_500_000).await;
    shift(&directory, TWO, -86_500_000).await;
    assert_eq!(directory.remove_old().await.unwrap(), 2);
    let left = directory.hosts().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].host, "c");
    assert!(directory.forget(&left[0]).await.unwrap());
    assert!(!directory.forget(&left[0]).await.unwrap());
}

#[tokio::test]
async fn a_missing_table_is_told_with_its_mend() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.db");
    std::fs::write(&path, b"").unwrap();
    let directory = Directory::new(DatabaseUrl::Sqlite(path));
    let error = directory.hosts().await.unwrap_err();
    assert!(error.is_lasting());
    assert!(
        error.to_string().contains("portcullis db migrate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let directory = directory(&folder).await;
    let broken = of("a", ONE, r#"{"stage":"dancing"}"#);
    directory.announce(&broken, false).await.unwrap();
    let row = directory.hosts().await.unwrap().remove(0);
    assert_eq!(row.state, None);
    assert!(row.is_alive());
}

/// Makes the row of a process this many milliseconds older than now.
async fn shift(directory: &Directory, instance: &str, age: i64) {
    let now = directory.connections.dialect().milliseconds();
    let update = format!("UPDATE `portcullis_host` SET `seen_at` = {now} - ? WHERE `instance` = ?");
    let values = [age.into(), instance.into()];
    assert_eq!(directory.change(&update, &values).await.unwrap(), 1);
}
