//! Policies and tenants in a real MariaDB and a real PostgreSQL, each test with a server of its own in a temporary directory.
//!
//! `cargo test -p portcullis-store --test servers -- --ignored`: without these servers the tests fail.

#![expect(
    clippy::unwrap_used,
    reason = "the body of a test is a function of its own here, and a panic is how a test fails"
)]

use portcullis_database::{Connections, DatabaseUrl, Schema};
use portcullis_store::{
    Action, ActionBounds, ActionFilter, Kept, MOST_NOTED, Mark, NewGeneration, PutBack, Seat,
    Store, StoreError, Trial,
};
use portcullis_testkit::on_each_server;
use portcullis_testkit::server::{Dialect, Server};
use tokio::task::JoinSet;

on_each_server!(
    what_is_pushed_is_numbered_pruned_and_comes_back,
    of_two_who_change_a_seat_one_is_first,
    what_a_host_kept_in_memory_is_taken_over_by_the_first_one,
    all_who_push_at_once_get_numbers_of_their_own_and_keep_their_files,
    hosts_that_store_the_same_push_again_at_once_store_it_once,
    tenants_come_change_and_go_with_a_growing_revision,
    actions_are_stored_once_and_read_in_pages,
    actions_beyond_the_bounds_are_deleted,
    a_tenant_changes_only_at_the_revision_that_was_read,
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

/// Makes all files two hours older.
async fn age(server: &Server) {
    let age = "UPDATE portcullis_artifact SET created_at = created_at - 7200";
    server.sql(age).await;
}

async fn what_is_pushed_is_numbered_pruned_and_comes_back(dialect: Dialect) {
    let (server, store) = store(dialect).await;
    assert_eq!(store.mark().await.unwrap(), Mark::default());
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
    let first_digest = first.digest.clone();
    assert_eq!(store.generation("acme", 1).await.unwrap(), Some(first));
    let missing = store.artifact(&"0".repeat(64)).await.unwrap_err();
    assert!(
        matches!(missing, StoreError::NoArtifact { .. }),
        "{missing}"
    );
    // The active one stays, the others go when two newer ones are there.
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
    // A file goes when it is old: until then, another push may be about to use it.
    assert!(store.artifact(&second.digest).await.is_ok());
    age(&server).await;
    store.push(&policy("other", b"5"), 2).await.unwrap();
    assert!(store.artifact(&second.digest).await.is_err());
    assert!(store.artifact(&first_digest).await.is_ok());
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
    let now = store.seats().await.unwrap();
    let expected = Seat {
        revision: 1,
        changed_by: "ann".into(),
        changed_at: now[0].changed_at,
        ..after
    };
    assert_eq!(now, [expected]);
    assert_eq!(store.mark().await.unwrap().revisions, 1);
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
    let now = store.seats().await.unwrap();
    let expected = Seat {
        revision: 1,
        changed_by: "host".into(),
        changed_at: now[0].changed_at,
        ..seat.clone()
    };
    assert_eq!(now, [expected]);
    let late = [kept(5, b"other")];
    assert!(!store.adopt(&seat, &late, "late").await.unwrap());
    assert_eq!(store.generations("acme", 10).await.unwrap().len(), 3);
    let eighth = store.push(&policy("acme", b"eight"), 10).await.unwrap();
    assert_eq!(eighth.number, 8);
}

/// Each push may remove the files that no generation has, also one that another push is about to use.
async fn all_who_push_at_once_get_numbers_of_their_own_and_keep_their_files(dialect: Dialect) {
    let (server, store) = store(dialect).await;
    for n in 0..3 {
        store.push(&policy("before", &[n]), 1).await.unwrap();
    }
    // The first of the pushes find files that are about to be deleted.
    age(&server).await;
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

async fn hosts_that_store_the_same_push_again_at_once_store_it_once(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    let mut hosts = JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        hosts.spawn(async move {
            let kept = Kept {
                number: 7,
                created_at: 1000,
                new: policy("acme", b"seven"),
            };
            store.put_back(&kept).await
        });
    }
    let mut stored = 0;
    while let Some(done) = hosts.join_next().await {
        match done.unwrap().unwrap() {
            PutBack::Stored => stored += 1,
            PutBack::IsThere => {}
            PutBack::Taken { digest } => panic!("the number is that of {digest}"),
        }
    }
    assert_eq!(stored, 1);
    let digests = store.digests("acme").await.unwrap();
    assert_eq!(digests.keys().copied().collect::<Vec<_>>(), [1, 7]);
    assert_eq!(store.artifact(&digests[&7]).await.unwrap(), b"seven");
    let next = store.push(&policy("acme", b"eight"), 10).await.unwrap();
    assert_eq!(next.number, 8);
}

async fn tenants_come_change_and_go_with_a_growing_revision(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    assert_eq!(store.tenants_mark().await.unwrap(), Mark::default());
    let text = "source-groups = [200]\n# it's; -- a comment? \u{fc}\n";
    store.put_tenant("acme", Some(text), "ann").await.unwrap();
    store.put_tenant("beta", Some(""), "ann").await.unwrap();
    // In the order of bytes, whatever the collation of the database is.
    store.put_tenant("a_1", Some(""), "ann").await.unwrap();
    store.put_tenant("acme", None, "bob").await.unwrap();
    store.put_tenant("acme", Some(text), "cid").await.unwrap();
    assert_eq!(store.tenants_mark().await.unwrap().revisions, 5);
    let tenants = store.tenants().await.unwrap();
    let names: Vec<_> = tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!(names, ["a_1", "acme", "beta"]);
    assert_eq!(
        (tenants[1].config.as_deref(), tenants[1].revision),
        (Some(text), 3)
    );
    assert_eq!(tenants[1].changed_by, "cid");
}

fn action(number: u64, tenant: Option<&str>) -> Action {
    Action {
        host: "edge-1".into(),
        process: "0123456789abcdef0123456789abcdef".into(),
        number,
        at: 1_000 * number,
        author: "ann's \u{fc}?".into(),
        tenant: tenant.map(str::to_owned),
        token: None,
        door: "http".into(),
        command: "policy.push".into(),
        seat: Some("acme".into()),
        subject: None,
        error: Some("x".repeat(512)),
    }
}

async fn actions_are_stored_once_and_read_in_pages(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    assert_eq!(
        store.actions(&ActionFilter::default(), 10).await,
        Ok(vec![])
    );
    let all: Vec<_> = (1..=MOST_NOTED as u64)
        .map(|number| action(number, (number % 2 == 0).then_some("acme")))
        .collect();
    store.note(&[]).await.unwrap();
    store.note(&all[..10]).await.unwrap();
    // A batch whose answer was lost is written again.
    store.note(&all).await.unwrap();
    let other = Action {
        process: "f".repeat(32),
        host: "edge-2".into(),
        command: "policy.mode".into(),
        ..action(1, None)
    };
    store.note(std::slice::from_ref(&other)).await.unwrap();
    let newest = store
        .actions(&ActionFilter::default(), 1_000)
        .await
        .unwrap();
    assert_eq!(newest.len(), MOST_NOTED + 1);
    assert_eq!(newest[0].action, other);
    let stored: Vec<_> = newest[1..].iter().rev().map(|one| &one.action).collect();
    assert_eq!(stored, all.iter().collect::<Vec<_>>());
    // Pages by id.
    let (mut before, mut pages) = (None, Vec::new());
    loop {
        let filter = ActionFilter {
            before,
            ..ActionFilter::default()
        };
        let page = store.actions(&filter, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        pages.extend(page);
    }
    assert_eq!(pages, newest);
    let count = async |filter: ActionFilter| store.actions(&filter, 1_000).await.unwrap().len();
    let text = |text: &str| Some(text.to_owned());
    for (filter, expected) in [
        (
            ActionFilter {
                host: text("edge-2"),
                ..ActionFilter::default()
            },
            1,
        ),
        (
            ActionFilter {
                tenant: text("acme"),
                ..ActionFilter::default()
            },
            MOST_NOTED / 2,
        ),
        (
            ActionFilter {
                seat: text("acme"),
                command: text("policy.push"),
                ..ActionFilter::default()
            },
            MOST_NOTED,
        ),
        (
            ActionFilter {
                author: text("ann's \u{fc}?"),
                ..ActionFilter::default()
            },
            MOST_NOTED + 1,
        ),
        (
            ActionFilter {
                author: text("Ann's \u{fc}?"),
                ..ActionFilter::default()
            },
            0,
        ),
        (
            ActionFilter {
                seat: text("' OR 1=1 --"),
                ..ActionFilter::default()
            },
            0,
        ),
        (
            ActionFilter {
                after: Some(newest[3].id),
                ..ActionFilter::default()
            },
            3,
        ),
    ] {
        assert_eq!(count(filter.clone()).await, expected, "{filter:?}");
    }
}

async fn actions_beyond_the_bounds_are_deleted(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    for batch in 0..30 {
        let rows: Vec<_> = (1..=MOST_NOTED as u64)
            .map(|number| {
                let number = batch * MOST_NOTED as u64 + number;
                action(number, (!number.is_multiple_of(3)).then_some("acme"))
            })
            .collect();
        store.note(&rows).await.unwrap();
    }
    let bounds = ActionBounds {
        rows: 600,
        rows_of_one: 150,
        since: 1_000 * 1_101,
    };
    // 1,500 rows: the first 1,100 are too old, and two thirds of the others belong to one tenant.
    let deleted = store.prune_actions(&bounds).await.unwrap();
    let left = store
        .actions(&ActionFilter::default(), 10_000)
        .await
        .unwrap();
    let own = left.iter().filter(|one| one.action.tenant.is_some());
    assert_eq!(own.count(), 150);
    assert_eq!(left[0].action.number, 1_500);
    assert!(left.iter().all(|one| one.action.number > 1_100));
    assert_eq!(
        (deleted as usize, left.len()),
        (1_500 - left.len(), 150 + 134)
    );
    let bounds = ActionBounds { rows: 7, ..bounds };
    store.prune_actions(&bounds).await.unwrap();
    let left = store
        .actions(&ActionFilter::default(), 10_000)
        .await
        .unwrap();
    let numbers: Vec<_> = left.iter().map(|one| one.action.number).collect();
    assert_eq!(numbers, [1_500, 1_499, 1_498, 1_497, 1_496, 1_495, 1_494]);
    assert_eq!(store.prune_actions(&bounds).await, Ok(0));
}

async fn a_tenant_changes_only_at_the_revision_that_was_read(dialect: Dialect) {
    let (_server, store) = store(dialect).await;
    store
        .put_tenant("acme", Some("a = 1"), "ann")
        .await
        .unwrap();
    let read = store.tenants().await.unwrap().remove(0);
    let change = async |text: &str| {
        store
            .change_tenant("acme", read.revision, text, "bob")
            .await
    };
    assert_eq!(change("a = 2").await, Ok(true));
    assert_eq!(change("a = 3").await, Ok(false));
    let now = store.tenants().await.unwrap().remove(0);
    assert_eq!(
        (now.config.as_deref(), now.revision, &*now.changed_by),
        (Some("a = 2"), read.revision + 1, "bob")
    );
}

async fn what_is_wrong_is_told_with_its_mend(dialect: Dialect) {
    let server = Server::empty(dialect);
    let error = Store::new(connections(&server.url())).mark().await;
    let error = error.unwrap_err();
    assert!(matches!(error, StoreError::NoTables { .. }), "{error}");
    assert!(
        error.to_string().contains("portcullis db migrate"),
        "{error}"
    );
    // A user who may not read it.
    server
        .sql("CREATE TABLE portcullis_seat (seat CHAR(9), last BIGINT, revision BIGINT, changed_at BIGINT); CREATE TABLE others (n INT)")
        .await;
    server.sql(&dialect.reader("other", "x", &["others"])).await;
    let store = Store::new(connections(&server.url_of("other", "x")));
    let error = store.mark().await.unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("GRANT SELECT, INSERT, UPDATE, DELETE"),
        "{error}"
    );
}
