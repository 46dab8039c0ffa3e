use portcullis_database::{Look, Name, Schema, TableWatch};

use super::*;
use crate::action::{Action, ActionBounds};
use crate::rollout::StoredRollout;

async fn store(folder: &tempfile::TempDir) -> Store {
    let url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
    let connections = Connections::from(url);
    connections.migrate(&Schema::default()).await.unwrap();
    Store::new(connections)
}

fn policy<'n>(seat: &'n str, bytes: &'n [u8]) -> NewGeneration<'n> {
    NewGeneration {
        signature: "c2lnbmVk",
        seat,
        name: "policy.wasm",
        contract: "portcullis:policy@0.1.0",
        author: "ann",
        note: "it's; -- new",
        bytes,
    }
}

#[tokio::test]
async fn what_is_pushed_is_numbered_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    assert_eq!(store.mark().await.unwrap(), Mark::default());
    let first = store.push(&policy("acme", b"one"), 10).await.unwrap();
    let second = store.push(&policy("acme", b"two"), 10).await.unwrap();
    let other = store.push(&policy("other", b"one"), 10).await.unwrap();
    assert_eq!((first.number, second.number, other.number), (1, 2, 1));
    assert_eq!(first.digest, other.digest);
    assert_eq!(
        store.generations("acme", 10).await.unwrap(),
        [second, first.clone()]
    );
    assert_eq!(
        store.generation("acme", 1).await.unwrap(),
        Some(first.clone())
    );
    assert_eq!(store.generation("acme", 3).await.unwrap(), None);
    assert_eq!(store.artifact(&first.digest).await.unwrap(), b"one");
    let missing = store.artifact(&"0".repeat(64)).await.unwrap_err();
    assert!(
        matches!(missing, StoreError::NoArtifact { .. }),
        "{missing}"
    );
}

#[tokio::test]
async fn of_two_who_change_a_seat_one_is_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    let [before] = &store.seats().await.unwrap()[..] else {
        panic!("one seat");
    };
    let after = Seat {
        active: Some(1),
        candidate: Some((2, Trial::Canary(500))),
        mode: Some("monitor".into()),
        ..before.clone()
    };
    assert!(store.replace(before, &after, "ann").await.unwrap());
    assert!(!store.replace(before, before, "bob").await.unwrap());
    let [now] = &store.seats().await.unwrap()[..] else {
        panic!("one seat");
    };
    let expected = Seat {
        revision: 1,
        changed_by: "ann".into(),
        changed_at: now.changed_at,
        ..after
    };
    assert_eq!(*now, expected);
    assert_eq!(store.mark().await.unwrap().revisions, 1);
}

#[tokio::test]
async fn a_roll_out_and_its_seat_are_moved_together_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    store.push(&policy("acme", b"two"), 10).await.unwrap();
    let seat = store.seat("acme").await.unwrap().unwrap();
    assert_eq!(store.seat("other").await.unwrap(), None);
    let on_trial = |share| Seat {
        active: Some(1),
        candidate: Some((2, Trial::Canary(share))),
        ..seat.clone()
    };
    let none = StoredRollout {
        seat: "acme".into(),
        ..StoredRollout::default()
    };
    let first = StoredRollout {
        generation: 2,
        base: 1,
        steps: "[]".into(),
        gates: "{}".into(),
        state: "running".into(),
        ..none.clone()
    };
    let move_it = async |before: &StoredRollout, after: &StoredRollout, seats: (&Seat, &Seat)| {
        store
            .move_rollout(before, after, Some(seats), "ann")
            .await
            .unwrap()
    };
    assert!(move_it(&none, &first, (&seat, &on_trial(100))).await);
    // Who has read the same comes too late.
    assert!(!move_it(&none, &first, (&seat, &on_trial(5))).await);
    let read = async || store.rollouts(Some("acme")).await.unwrap().remove(0);
    let begun = read().await;
    assert_eq!((begun.revision, begun.step), (1, 0));
    assert_eq!((begun.changed_by.as_str(), &begun.leader), ("ann", &None));
    assert!(begun.step_at > 1_600_000_000_000 && begun.now >= begun.step_at);
    assert_eq!(store.rollouts_in(&OPEN).await.unwrap().len(), 1);
    assert_eq!(store.rollouts_in(&["done"]).await.unwrap(), []);

    // The seat was changed meanwhile: neither of both is stored.
    let next = StoredRollout {
        step: 1,
        reference_ns: Some(7),
        reference_p99_ns: Some(9),
        ..begun.clone()
    };
    assert!(!move_it(&begun, &next, (&seat, &on_trial(1000))).await);
    assert_eq!(read().await.step, 0);
    let now = store.seat("acme").await.unwrap().unwrap();
    assert_eq!(now.candidate, Some((2, Trial::Canary(100))));
    assert!(move_it(&begun, &next, (&now, &on_trial(1000))).await);
    let moved = read().await;
    assert_eq!(
        (moved.step, moved.reference_ns, moved.revision),
        (1, Some(7), 2)
    );
    assert_eq!(moved.reference_p99_ns, Some(9));
    let paused = StoredRollout {
        state: "paused".into(),
        ..moved.clone()
    };
    assert!(
        store
            .move_rollout(&moved, &paused, None, "bob")
            .await
            .unwrap()
    );
    assert_eq!(read().await.step_at, moved.step_at, "the step goes on");
    let seat = store.seat("acme").await.unwrap().unwrap();
    assert_eq!(seat.revision, 2, "a pause does not change the seat");
}

#[tokio::test]
async fn one_host_at_a_time_leads_a_roll_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let none = StoredRollout {
        seat: "acme".into(),
        ..StoredRollout::default()
    };
    assert!(store.move_rollout(&none, &none, None, "ann").await.unwrap());
    let minute = Duration::from_secs(60);
    let lead = async |leader, time| store.lead_rollout("acme", leader, time).await.unwrap();
    assert!(lead("one", minute).await);
    assert!(!lead("two", minute).await);
    assert!(lead("one", minute).await, "it extends its lease");
    let found = store.rollouts(None).await.unwrap().remove(0);
    assert_eq!(found.leader.as_deref(), Some("one"));
    assert!(
        (50_000..=60_000).contains(&found.lead_ms),
        "{}",
        found.lead_ms
    );
    // A lease that ends much later than one from now was given before the clock was set back.
    assert!(lead("two", Duration::from_secs(1)).await);
    assert!(!lead("three", minute).await);
    assert!(!store.lead_rollout("other", "one", minute).await.unwrap());
}

#[tokio::test]
async fn what_a_host_kept_in_memory_is_taken_over_with_its_numbers_by_the_first_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
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
    let generations = store.generations("acme", 10).await.unwrap();
    let told: Vec<_> = generations
        .iter()
        .map(|one| (one.number, one.created_at))
        .collect();
    assert_eq!(told, [(7, 1007), (6, 1006), (5, 1005)]);
    assert_eq!(
        store.artifact(&generations[0].digest).await.unwrap(),
        b"five"
    );
    // Numbers go on, and who comes second changes nothing.
    assert_eq!(
        store
            .push(&policy("acme", b"eight"), 10)
            .await
            .unwrap()
            .number,
        8
    );
    assert!(
        !store
            .adopt(&seat, &[kept(5, b"other")], "late")
            .await
            .unwrap()
    );
    assert_eq!(store.generations("acme", 10).await.unwrap().len(), 4);
    assert!(store.artifact(&digest_of(b"other")).await.is_err());
}

#[tokio::test]
async fn old_generations_go_but_for_those_that_do_something() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    for bytes in [b"1", b"2"] {
        store.push(&policy("acme", bytes), 2).await.unwrap();
    }
    let before = store.seats().await.unwrap().remove(0);
    let after = Seat {
        active: Some(1),
        ..before.clone()
    };
    store.replace(&before, &after, "ann").await.unwrap();
    for bytes in [b"3", b"4", b"5"] {
        store.push(&policy("acme", bytes), 2).await.unwrap();
    }
    let left = store.generations("acme", 10).await.unwrap();
    let numbers: Vec<_> = left.iter().map(|one| one.number).collect();
    assert_eq!(numbers, [5, 4, 1]);
}

/// Makes all files two hours older.
async fn age(store: &Store) {
    let mut link = store.open().await.unwrap();
    let age = "UPDATE `portcullis_artifact` SET `created_at` = `created_at` - 7200";
    link.run(age).await.unwrap();
    link.release().await;
}

#[tokio::test]
async fn a_file_that_no_generation_has_goes_when_it_is_old() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let push = async |seat: &str, bytes: &[u8]| {
        store.push(&policy(seat, bytes), 1).await.unwrap();
    };
    let is_there = async |bytes: &[u8]| store.artifact(&digest_of(bytes)).await.is_ok();
    push("acme", b"1").await;
    push("acme", b"2").await;
    assert!(is_there(b"1").await, "another push may be about to use it");
    age(&store).await;
    push("acme", b"3").await;
    assert!(!is_there(b"1").await);
    assert!(!is_there(b"2").await);
    age(&store).await;
    push("other", b"4").await;
    assert!(is_there(b"3").await, "a generation has it");
}

#[tokio::test]
async fn an_old_file_is_renewed_before_a_generation_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let bytes = b"1";
    let digest = digest_of(bytes);
    let time = async || {
        let query = "SELECT `created_at` FROM `portcullis_artifact` WHERE `digest` = ?";
        let mut link = store.open().await.unwrap();
        let values = [digest.as_str().into()];
        let time = link.row(query, &values, |row| row.integer(0)).await;
        link.release().await;
        time.unwrap().flatten().unwrap()
    };
    let keep = async || {
        let mut link = store.open().await.unwrap();
        keep_artifact(&mut link, &digest, bytes).await.unwrap();
        link.release().await;
    };
    keep().await;
    let begun = time().await;
    assert!(begun > 1_600_000_000, "{begun}");
    age(&store).await;
    keep().await;
    assert!(time().await >= begun, "it is as good as a new one");
    // Pushes of one file at once do not wait for each other: a young one is left as it is.
    let mut link = store.open().await.unwrap();
    let younger = "UPDATE `portcullis_artifact` SET `created_at` = `created_at` - 600";
    link.run(younger).await.unwrap();
    link.release().await;
    let young = time().await;
    keep().await;
    assert_eq!(time().await, young);
}

#[tokio::test]
async fn all_who_push_at_once_get_numbers_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let mut pushes = tokio::task::JoinSet::new();
    for n in 0..8_u8 {
        let store = store.clone();
        pushes.spawn(async move { store.push(&policy("acme", &[n]), 100).await });
    }
    let mut numbers = Vec::new();
    while let Some(pushed) = pushes.join_next().await {
        numbers.push(pushed.unwrap().unwrap().number);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_mend() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.db");
    std::fs::write(&path, b"").unwrap();
    let bare = Store::new(DatabaseUrl::Sqlite(path));
    let error = bare.mark().await.unwrap_err().to_string();
    assert!(error.contains("portcullis db migrate"), "{error}");
    let nowhere = Store::new(DatabaseUrl::Sqlite(folder.path().join("none.db")));
    let error = nowhere.seats().await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");

    let store = store(&folder).await;
    let pushed = store.push(&policy("acme", b"good"), 10).await.unwrap();
    let path = folder.path().join("table.db");
    let mut link = Connections::from(DatabaseUrl::Sqlite(path))
        .take(ANSWER)
        .await
        .unwrap();
    link.run("UPDATE `portcullis_artifact` SET `bytes` = 'bad'")
        .await
        .unwrap();
    let error = store.artifact(&pushed.digest).await.unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn tenants_come_change_and_go_with_a_growing_revision() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    assert_eq!(store.tenants_mark().await.unwrap(), Mark::default());
    let text = "source-groups = [200]\n# it's; -- a comment \u{fc}\n";
    store.put_tenant("acme", Some(text), "ann").await.unwrap();
    store.put_tenant("beta", Some(""), "ann").await.unwrap();
    assert_eq!(store.tenants_mark().await.unwrap().revisions, 2);
    let [acme, beta] = &store.tenants().await.unwrap()[..] else {
        panic!("two tenants");
    };
    assert_eq!(
        (acme.name.as_str(), acme.config.as_deref()),
        ("acme", Some(text))
    );
    assert_eq!((acme.revision, acme.changed_by.as_str()), (1, "ann"));
    assert_eq!(beta.config.as_deref(), Some(""));

    store.put_tenant("acme", None, "bob").await.unwrap();
    let tenants = store.tenants().await.unwrap();
    assert_eq!(
        (&tenants[0].config, tenants[0].changed_by.as_str()),
        (&None, "bob")
    );
    assert_eq!(store.tenants_mark().await.unwrap().revisions, 3);

    let changes = [("acme", Some("a = 1")), ("beta", None), ("gamma", Some(""))];
    store.put_tenants(&changes, "eve").await.unwrap();
    let stored = store.tenants().await.unwrap();
    let stored = stored
        .iter()
        .map(|one| (&*one.name, one.config.as_deref(), one.revision));
    let expected = [
        ("acme", Some("a = 1"), 3),
        ("beta", None, 2),
        ("gamma", Some(""), 1),
    ];
    assert!(stored.eq(expected));
}

#[tokio::test]
async fn without_the_table_of_tenants_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("empty.db"));
    std::fs::write(folder.path().join("empty.db"), "").unwrap();
    let error = Store::new(url).tenants().await.unwrap_err();
    assert!(matches!(error, StoreError::NoTables { .. }), "{error}");
}

/// Whatever writes, a change of a table is reported once; the audit is none.
#[tokio::test]
async fn the_audit_is_no_change_of_a_table_and_hides_none() {
    let folder = tempfile::tempdir().unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
    let connections = Connections::kept(url.clone());
    connections.migrate(&Schema::default()).await.unwrap();
    let store = Store::new(connections.clone());
    let name = || "address".parse::<Name>().unwrap();
    // The second one has connections of its own, as the dispatcher of a host has.
    let mut watches = [
        TableWatch::new(connections.clone(), name()),
        TableWatch::new(Connections::kept(url.clone()), name()),
    ];
    let mut number = 0;
    let mut note = async || {
        number += 1;
        let action = Action {
            process: "f".repeat(32),
            number,
            ..Action::default()
        };
        store.note(&[action]).await
    };
    let write = async |connections: &Connections| {
        let mut link = connections.take(ANSWER).await.unwrap();
        let insert = "INSERT INTO address (grp, ip_addr) VALUES (1, '10.0.0.1')";
        link.run(insert).await.unwrap();
        link.release().await;
    };
    let mut expect = async |expected: Look, why: &str| {
        for watch in &mut watches {
            assert_eq!(watch.look().await.unwrap(), expected, "{why}");
            assert_eq!(watch.look().await.unwrap(), Look::Same, "{why}");
        }
    };
    expect(Look::Changed, "the first look").await;
    note().await.unwrap();
    expect(Look::Same, "the audit").await;
    let none = ActionBounds {
        rows: 0,
        rows_of_one: 0,
        since: 0,
    };
    store.prune_actions(&none).await.unwrap();
    expect(Look::Same, "the end of the audit").await;

    let other = Connections::new(url);
    for from in [&connections, &other] {
        write(from).await;
        expect(Look::Changed, "a row").await;
        write(from).await;
        note().await.unwrap();
        expect(Look::Changed, "a row before the audit").await;
        note().await.unwrap();
        write(from).await;
        expect(Look::Changed, "a row behind the audit").await;
    }

    let mut link = other.take(ANSWER).await.unwrap();
    link.run("DROP TABLE portcullis_audit").await.unwrap();
    link.release().await;
    expect(Look::Changed, "another table").await;
    assert!(note().await.is_err());
    expect(Look::Same, "an audit that cannot be written").await;
}

#[tokio::test]
async fn a_mark_tells_a_restored_history_from_the_one_before_by_its_times() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    store.put_tenant("acme", Some(""), "ann").await.unwrap();
    let (seats, tenants) = (
        store.mark().await.unwrap(),
        store.tenants_mark().await.unwrap(),
    );
    assert_eq!((seats.rows, seats.pushes), (1, 1));
    assert_eq!(tenants, Mark::of_tenants(&store.tenants().await.unwrap()));
    // As many changes as before, at other times.
    let mut link = store.open().await.unwrap();
    for table in ["portcullis_seat", "portcullis_tenant"] {
        let later = format!("UPDATE `{table}` SET `changed_at` = `changed_at` + 1");
        link.execute(&later, &[]).await.unwrap();
    }
    link.release().await;
    assert_ne!(store.mark().await.unwrap(), seats);
    assert_ne!(store.tenants_mark().await.unwrap(), tenants);
}

#[tokio::test]
async fn the_marks_of_small_and_large_tables_follow_each_change() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    let (mut seats, mut tenants) = (store.watch_seats(), store.watch_tenants());
    assert_eq!(seats.look().await.unwrap(), Mark::default());
    for rows in [1, 3_000] {
        let mut link = store.open().await.unwrap();
        let many = format!(
            "INSERT INTO `portcullis_tenant` WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             SELECT 't' || {rows} || '-' || i, '', 1, 'ann', 1 FROM n"
        );
        link.execute(&many, &[]).await.unwrap();
        link.release().await;
        let before = tenants.look().await.unwrap();
        assert!(before.rows >= rows);
        assert_eq!(tenants.look().await.unwrap(), before);
        store.put_tenant("t1-1", Some("x"), "bob").await.unwrap();
        let after = tenants.look().await.unwrap();
        assert_eq!(after.revisions, before.revisions + 1);
        assert_eq!(after, store.tenants_mark().await.unwrap());
        assert_eq!(tenants.look().await.unwrap(), after);
    }
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    assert_eq!(seats.look().await.unwrap().pushes, 1);
}

#[tokio::test]
async fn what_a_backup_lacks_is_stored_again_once_and_its_number_is_not_given_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(&folder).await;
    store.push(&policy("acme", b"one"), 10).await.unwrap();
    let kept = |number, bytes: &'static [u8]| Kept {
        number,
        created_at: 1000,
        new: policy("acme", bytes),
    };
    let put = async |kept: Kept<'static>| store.put_back(&kept).await.unwrap();
    assert_eq!(put(kept(1, b"one")).await, PutBack::IsThere);
    assert_eq!(put(kept(3, b"three")).await, PutBack::Stored);
    assert_eq!(put(kept(3, b"three")).await, PutBack::IsThere);
    assert_eq!(put(kept(2, b"two")).await, PutBack::Stored);
    let digest = digest_of(b"three");
    assert_eq!(put(kept(3, b"other")).await, PutBack::Taken { digest });
    let third = store.generation("acme", 3).await.unwrap().unwrap();
    assert_eq!((third.author.as_str(), third.created_at), ("ann", 1000));
    assert_eq!(store.artifact(&third.digest).await.unwrap(), b"three");
    let [seat] = &store.seats().await.unwrap()[..] else {
        panic!("one seat");
    };
    assert_eq!((seat.last, seat.active, seat.revision), (3, None, 0));
    let next = store.push(&policy("acme", b"four"), 10).await.unwrap();
    assert_eq!(next.number, 4);
    let numbers: Vec<_> = store.digests("acme").await.unwrap().into_keys().collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}
