//! Looks at a database that several followers share.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Follower, Look, Looked, TableWatch};
use crate::connections::Connections;
use crate::{DatabaseUrl, Failure, Name};

/// Time limit of an answer.
const LOOK: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(20);

fn connections(folder: &tempfile::TempDir) -> Connections {
    let path = folder.path().join("looks.db");
    std::fs::write(&path, b"").unwrap();
    Connections::kept(DatabaseUrl::Sqlite(path))
}

async fn make(connections: &Connections, table: &str) {
    let mut link = connections.take(LOOK).await.unwrap();
    let create = format!("CREATE TABLE {table} (n INTEGER)");
    link.run(&create).await.unwrap();
    link.release().await;
}

async fn next(follower: &mut Follower) -> Arc<Looked> {
    let next = timeout(Duration::from_secs(30), follower.next());
    next.await.expect("a look is made").expect("of a table")
}

#[tokio::test]
async fn all_followers_of_a_pool_share_each_look() {
    let folder = tempfile::tempdir().unwrap();
    let pool = connections(&folder);
    make(&pool, "rows").await;
    // Another pool of the same file. SQLite reports to each connection the writes of the others.
    let other = Connections::kept(pool.urls().clone());
    let mut first = TableWatch::new(pool.clone(), Name::known("first"));
    let mut second = TableWatch::new(pool.clone(), Name::known("second"));
    let mut apart = Follower::of_table(other.clone(), POLL);
    let mut followers = [(); 3].map(|()| Follower::of_table(pool.clone(), POLL));
    for number in 1..5 {
        let [a, b, c] = &mut followers;
        let (a, b, c, apart) = tokio::join!(next(a), next(b), next(c), next(&mut apart));
        assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&b, &c) && !Arc::ptr_eq(&a, &apart));
        assert_eq!(a.number(), number);
        let expected = match number {
            1 | 3 => Look::Changed,
            _ => Look::Same,
        };
        assert_eq!(first.compare(&a), Ok(expected), "{number}");
        assert_eq!(second.compare(&a), Ok(expected), "{number}");
        if number == 2 {
            make(&other, "more").await;
        }
    }
}

#[tokio::test]
async fn a_follower_that_was_busy_gets_the_latest_look_and_one_that_leads_may_be_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let connections = connections(&folder);
    make(&connections, "rows").await;
    let mut watch = TableWatch::new(connections.clone(), Name::known("rows"));
    let mut busy = Follower::of_table(connections.clone(), POLL);
    let mut idle = Follower::of_table(connections.clone(), POLL);
    for number in 1..4 {
        assert_eq!(next(&mut idle).await.number(), number);
    }
    let latest = next(&mut busy).await;
    assert_eq!(latest.number(), 3);
    // A look for one of them is one for all; what was made before it is no news.
    assert_eq!(watch.look().await, Ok(Look::Changed));
    assert_eq!(watch.compare(&latest), Ok(Look::Same));
    assert_eq!(next(&mut busy).await.number(), 4);
    // The one that leads ends while it waits.
    let hour = Duration::from_secs(3600);
    let leads = async {
        let mut gone = Follower::of_table(connections.clone(), hour);
        next(&mut gone).await;
        next(&mut gone).await
    };
    let ended = timeout(POLL, leads).await;
    assert!(ended.is_err() || ended.is_ok_and(|looked| looked.number() > 4));
    let before = next(&mut idle).await.number();
    assert!(next(&mut idle).await.number() > before);
}

#[tokio::test]
async fn a_failed_look_is_one_for_all_and_the_next_one_reports_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let connections = connections(&folder);
    let mut watch = TableWatch::new(connections.clone(), Name::known("rows"));
    let mut followers = [(); 2].map(|()| Follower::of_table(connections.clone(), POLL));
    let [a, b] = &mut followers;
    // The file is empty.
    let (looked, same) = tokio::join!(next(a), next(b));
    assert!(Arc::ptr_eq(&looked, &same));
    assert!(matches!(
        watch.compare(&looked),
        Err(Failure::NoFile { .. })
    ));
    a.done(None);
    make(&connections, "rows").await;
    let looked = next(a).await;
    assert_eq!(watch.compare(&looked), Ok(Look::Changed));
    assert_eq!(watch.look().await, Ok(Look::Same));
}
