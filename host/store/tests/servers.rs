//! Policies and tenants in a real MariaDB and a real PostgreSQL, each test with a server of its own in a temporary directory.
//!
//! `cargo test -p portcullis-store --test servers -- --ignored`: without these servers the tests fail.

#![expect(
    clippy::unwrap_used,
    reason = "the body of a test is a function of its own here, and a panic is how a test fails"
)]

use portcullis_database::{Connections, DatabaseUrl, Schema};
use portcullis_store::{Kept, NewGeneration, Seat, Store, StoreError, Trial};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::{Dialect, Server};
use tokio::task::JoinSet;

on_each_server!(
    what_is_pushed_is_numbered_pruned_and_comes_back,
    of_two_who_change_a_seat_one_is_first,
    what_a_host_kept_in_memory_is_taken_over_by_the_first_one,
    all_who_push_at_once_get_numbers_of_their_own_and_keep_their_files,
    tenants_come_change_and_go_with_a_growing_revision,
    what_is_wrong_is_told_with_its_mend,
);

fn connections(url: &str) -> Connections {
    let url: DatabaseUrl = url.parse().expect("a good URL");
    Connections::kept(url)
}

async fn store(dialect: Dialect) -> (Server, Store) {
    let server = Server::empty(dialect);
    let connections = connections(&server.url());
    let schema = Schema::default();
    let done = connections.migrate(&schema).await;
    done.expect("the tables can be made");
    (server, Store::new(connections))
}

fn policy<'n>(seat: &'n str, bytes: &'n [u8]) -> NewGeneration<'n> {
    NewGeneration {
        signature: "c2lnbmVk",
        seat,
        name: "policy.wasm",
        contract: "portcullis:policy@0.1.0",
        author: "ann",
        note: "it's; -- new? `\u{fc}`",
        bytes,
    }
}

async fn what_is_pushed_is_numbered_pruned_and_comes_back(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    assert_eq!(store.revision().await.unwrap(), 0);
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_000).collect();
    let first = store.push(&policy("acme", &bytes), 2).await.unwrap();
    let second = store.push(&policy("acme", b""), 2).await.unwrap();
    let other = store.push(&policy("other", &bytes), 2).await.unwrap();
    assert_eq!((first.number, second.number, other.number), (1, 2, 1));
    assert_eq!(store.artifact(&first.digest).await.unwrap(), bytes);
    assert_eq!(store.artifact(&second.digest).await.unwrap(), b"");
    assert_eq!(
        store.generations("acme", 10).await.unwrap(),
        [second.clone(), first.clone()]
    );
    assert_eq!(store.generation("acme", 1).await.unwrap(), Some(first));
    let missing = store.artifact(&"0".repeat(64)).await.unwrap_err();
    assert!(
        matches!(missing, StoreError::NoArtifact { .. }),
        "{missing}"
    );
    // The active one stays, the others go when two newer ones are there, and their files with them.
    let before = store.seats().await.unwrap().remove(0);
    let after = Seat {
        active: Some(1),
        ..before.clone()
    };
    assert!(store.replace(&before, &after, "ann").await.unwrap());
    for bytes in [b"3", b"4"] {
        store.push(&policy("acme", bytes), 2).await.unwrap();
    }
    let left = store.generations("acme", 10).await.unwrap();
    let numbers: Vec<_> = left.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [4, 3, 1]);
    assert!(store.artifact(&second.digest).await.is_err());
}

async fn of_two_who_change_a_seat_one_is_first(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    let before = store.seats().await.unwrap().remove(0);
    let after = Seat {
        active: Some(1),
        candidate: Some((2, Trial::Canary(500))),
        mode: Some("monitor".into()),
        ..before.clone()
    };
    assert!(store.replace(&before, &after, "ann").await.unwrap());
    assert!(!store.replace(&before, &before, "bob").await.unwrap());
    let expected = Seat {
        revision: 1,
        changed_by: "ann".into(),
        ..after
    };
    assert_eq!(store.seats().await.unwrap(), [expected]);
    assert_eq!(store.revision().await.unwrap(), 1);
}

async fn what_a_host_kept_in_memory_is_taken_over_by_the_first_one(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    let seat = Seat {
        name: "acme".into(),
        last: 7,
        active: Some(7),
        previous: Some(5),
        candidate: Some((6, Trial::Shadow)),
        mode: Some("monitor".into()),
        ..Seat::default()
    };
    let kept = |number, bytes: &'static [u8]| Kept {
        number,
        created_at: 1000 + number,
        new: policy("acme", bytes),
    };
    let all = [kept(5, b"five"), kept(6, b"six"), kept(7, b"five")];
    assert!(store.adopt(&seat, &all, "host").await.unwrap());
    let expected = Seat {
        revision: 1,
        changed_by: "host".into(),
        ..seat.clone()
    };
    assert_eq!(store.seats().await.unwrap(), [expected]);
    let late = [kept(5, b"other")];
    assert!(!store.adopt(&seat, &late, "late").await.unwrap());
    assert_eq!(store.generations("acme", 10).await.unwrap().len(), 3);
    let eighth = store.push(&policy("acme", b"eight"), 10).await.unwrap();
    assert_eq!(eighth.number, 8);
}

/// Each push may remove the files that no generation has, also one that another push is about to use.
async fn all_who_push_at_once_get_numbers_of_their_own_and_keep_their_files(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    let mut pushes = JoinSet::new();
    for n in 0..64_u8 {
        let store = store.clone();
        pushes.spawn(async move {
            // Two seats that keep one generation each, and take turns with the same three files.
            let seat = ["acme", "other"][usize::from(n % 2)];
            store.push(&policy(seat, &[n % 3]), 1).await
        });
    }
    let mut numbers = Vec::new();
    while let Some(pushed) = pushes.join_next().await {
        let pushed = pushed.unwrap().unwrap();
        numbers.push((pushed.seat, pushed.number));
    }
    numbers.sort_unstable();
    let expected: Vec<_> = ["acme", "other"]
        .iter()
        .flat_map(|seat| (1..=32).map(|number| ((*seat).to_owned(), number)))
        .collect();
    assert_eq!(numbers, expected);
    for seat in ["acme", "other"] {
        for left in store.generations(seat, 100).await.unwrap() {
            store.artifact(&left.digest).await.unwrap();
        }
    }
}

async fn tenants_come_change_and_go_with_a_growing_revision(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    assert_eq!(store.tenants_revision().await.unwrap(), 0);
    let text = "source-groups = [200]\n# it's; -- a comment? \u{fc}\n";
    store.put_tenant("acme", Some(text), "ann").await.unwrap();
    store.put_tenant("beta", Some(""), "ann").await.unwrap();
    // In the order of bytes, whatever the collation of the database is.
    store.put_tenant("a_1", Some(""), "ann").await.unwrap();
    store.put_tenant("acme", None, "bob").await.unwrap();
    store.put_tenant("acme", Some(text), "cid").await.unwrap();
    assert_eq!(store.tenants_revision().await.unwrap(), 5);
    let tenants = store.tenants().await.unwrap();
    let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["a_1", "acme", "beta"]);
    assert_eq!(
        (tenants[1].config.as_deref(), tenants[1].revision),
        (Some(text), 3)
    );
    assert_eq!(tenants[1].changed_by, "cid");
}

async fn what_is_wrong_is_told_with_its_mend(dialect: Dialect) {
    let server = Server::empty(dialect);
    let error = Store::new(connections(&server.url())).revision().await;
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::NoTables { .. }), "{error}");
    assert!(
        error.to_string().contains("portcullis db migrate"),
        "{error}"
    );
    // A user who may not read it.
    server
        .sql("CREATE TABLE portcullis_seat (revision BIGINT); CREATE TABLE others (n INT)")
        .await;
    server.sql(&dialect.reader("other", "x", &["others"])).await;
    let store = Store::new(connections(&server.url_of("other", "x")));
    let error = store.revision().await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("GRANT SELECT, INSERT, UPDATE, DELETE"),
        "{error}"
    );
}
