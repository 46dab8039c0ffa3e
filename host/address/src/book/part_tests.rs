//! Tests of the trusted peers and the rules in a book.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::tests::until;
use super::*;
use crate::database::{DatabaseUrl, NewTrusted};
use crate::rules::DEFAULT_RULES;
use crate::trusted::{FromUri, Proto, TrustedQuestion, TrustedSource};

fn book(folder: &Path) -> Arc<AddressBook> {
    let url = DatabaseUrl::Sqlite(folder.join("table.db"));
    let options = BookOptions {
        poll: Duration::from_millis(5),
        settle: Duration::from_millis(20),
        ..BookOptions::default()
    };
    let rules = RuleFolder::new(folder);
    Arc::new(AddressBook::with_rules(Database::new(url), rules, options))
}

fn peer(source: &str) -> NewTrusted {
    NewTrusted {
        source: source.to_owned(),
        proto: "any".to_owned(),
        from: Some("^sip:".to_owned()),
        ruri: None,
        tag: Some("peer".to_owned()),
        priority: 0,
    }
}

fn trusts(snapshot: &Snapshot, source: &str) -> bool {
    let question = TrustedQuestion {
        source: TrustedSource::parse(source),
        proto: Proto::Udp,
        from: FromUri::Own("sip:a@b"),
        ruri: "sip:c@d",
    };
    !snapshot.trusted.table.matches(question).is_empty()
}

fn denies(snapshot: &Snapshot) -> bool {
    let rules = &snapshot.rules.rules;
    !rules.allows(DEFAULT_RULES, "sip:a@b", Some("sip:1@d"))
}

#[tokio::test]
async fn a_reload_of_one_part_keeps_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    let addresses = book.reload().await.unwrap().snapshot;
    book.database()
        .add_trusted(&peer("192.0.2.1"))
        .await
        .unwrap();
    let snapshot = book.reload_trusted().await.unwrap().snapshot;
    assert!(trusts(&snapshot, "192.0.2.1") && !trusts(&snapshot, "192.0.2.2"));
    assert!(Arc::ptr_eq(&snapshot.table, &addresses.table));
    assert_eq!((snapshot.generation, snapshot.trusted.generation), (1, 1));
    std::fs::write(
        folder.path().join("permissions.deny"),
        "ALL : \"^sip:1@\"\nnonsense\n",
    )
    .unwrap();
    let snapshot = book.reload_rules().await.unwrap().snapshot;
    assert!(denies(&snapshot) && trusts(&snapshot, "192.0.2.1"));
    assert_eq!((snapshot.rules.generation, snapshot.rules.skipped), (1, 1));
    let again = book.reload().await.unwrap().snapshot;
    assert!(
        Arc::ptr_eq(&again.trusted, &snapshot.trusted)
            && Arc::ptr_eq(&again.rules, &snapshot.rules)
    );
}

#[tokio::test]
async fn a_watched_book_follows_peers_and_rules() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    book.reload().await.unwrap();
    let watched = Arc::clone(&book);
    let watch = tokio::spawn(async move { watched.watch().await });
    book.database()
        .add_trusted(&peer("192.0.2.1"))
        .await
        .unwrap();
    until(&book, |snapshot| trusts(snapshot, "192.0.2.1")).await;
    book.database().remove_trusted("192.0.2.1").await.unwrap();
    until(&book, |snapshot| !trusts(snapshot, "192.0.2.1")).await;
    let file = folder.path().join("permissions.deny");
    std::fs::write(&file, "ALL : \"^sip:1@\"\n").unwrap();
    until(&book, denies).await;
    std::fs::remove_file(&file).unwrap();
    until(&book, |snapshot| !denies(snapshot)).await;
    watch.abort();
}

#[tokio::test]
async fn rules_that_become_empty_stay_until_they_have_settled() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    let held = BookOptions {
        settle: Duration::from_secs(3600),
        ..BookOptions::default()
    };
    let file = folder.path().join("permissions.deny");
    let aside = folder.path().join("aside");
    let put = |text: &str| {
        std::fs::write(&aside, text).unwrap();
        std::fs::rename(&aside, &file).unwrap();
    };
    let follow = |options| book.rules.follow(options);
    put("ALL : \"^sip:1@\"\n");
    book.reload_rules().await.unwrap();
    // Renamed away, as editors do.
    std::fs::rename(&file, &aside).unwrap();
    for _ in 0..3 {
        follow(held).await.unwrap();
        assert!(denies(&book.current()));
    }
    // Nothing but a comment in it.
    put("# nothing\n");
    for _ in 0..3 {
        follow(held).await.unwrap();
        assert!(denies(&book.current()));
    }
    // A directory in place of the file is not a removal, however long it stays.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let at_once = BookOptions {
        settle: Duration::ZERO,
        ..held
    };
    until_refused(&book, at_once).await;
    book.reload_rules().await.unwrap_err();
    assert!(denies(&book.current()));
    std::fs::remove_dir(&file).unwrap();
    // Neither is a file whose only line is invalid, nor a pipe, which must not block the load.
    put("ALL : \"[\"\n");
    until_refused(&book, at_once).await;
    let error = book.reload_rules().await.unwrap_err().to_string();
    assert!(error.contains("none of its lines is valid"), "{error}");
    assert!(denies(&book.current()));
    std::fs::remove_file(&file).unwrap();
    make_pipe(&file);
    until_refused(&book, at_once).await;
    let error = book.reload_rules().await.unwrap_err().to_string();
    assert!(error.contains("and not a file"), "{error}");
    assert!(denies(&book.current()));
    std::fs::remove_file(&file).unwrap();
    // Other files may change while the rules are kept.
    follow(held).await.unwrap();
    assert!(denies(&book.current()));
    follow(at_once).await.unwrap();
    assert!(!denies(&book.current()), "it stays away");
    put("ALL : \"^sip:1@\"\n");
    until_denied(&book, held).await;
    std::fs::remove_file(&file).unwrap();
    book.reload_rules().await.unwrap();
    assert!(
        !denies(&book.current()),
        "a requested reload takes effect at once"
    );
}

fn make_pipe(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn rules_that_are_being_written_wait() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    let options = BookOptions::default();
    let file = folder.path().join("permissions.deny");
    std::fs::write(&file, "ALL : \"^sip:1@\"\nALL : \"^sip:2@\"\n").unwrap();
    book.reload_rules().await.unwrap();
    let generation = book.current().rules.generation;
    let mut writer = std::fs::File::create(&file).unwrap();
    for line in ["ALL : \"^sip:2@\"\n", "ALL : \"^sip:1@\"\n"] {
        book.rules.follow(options).await.unwrap();
        std::io::Write::write_all(&mut writer, line.as_bytes()).unwrap();
        book.rules.follow(options).await.unwrap();
        assert_eq!(book.current().rules.generation, generation);
    }
    drop(writer);
    until_denied(&book, options).await;
    while book.current().rules.generation == generation {
        book.rules.follow(options).await.unwrap();
        sleep(Duration::from_millis(10)).await;
    }
}

/// Files are read when the event of their change has arrived.
async fn until_refused(book: &AddressBook, options: BookOptions) {
    let refused = async {
        while book.rules.follow(options).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused)
        .await
        .expect("the rules are refused");
}

async fn until_denied(book: &AddressBook, options: BookOptions) {
    let denied = async {
        while !denies(&book.current()) {
            book.rules.follow(options).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), denied)
        .await
        .expect("the rules deny");
}

#[tokio::test]
async fn peers_of_an_emptied_table_stay_until_it_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    let database = book.database();
    database.add_trusted(&peer("192.0.2.1")).await.unwrap();
    book.reload_trusted().await.unwrap();
    let settle = Duration::from_secs(3600);
    let held = BookOptions {
        settle,
        ..BookOptions::default()
    };
    // A table that is filled anew without a transaction.
    database.remove_trusted("192.0.2.1").await.unwrap();
    for _ in 0..3 {
        book.trusted.follow(held, None).await.unwrap();
        assert!(trusts(&book.current(), "192.0.2.1"));
    }
    database.add_trusted(&peer("192.0.2.2")).await.unwrap();
    book.trusted.follow(held, None).await.unwrap();
    assert!(trusts(&book.current(), "192.0.2.2") && !trusts(&book.current(), "192.0.2.1"));
    database.remove_trusted("192.0.2.2").await.unwrap();
    book.trusted.follow(held, None).await.unwrap();
    assert!(trusts(&book.current(), "192.0.2.2"));
    book.reload_trusted().await.unwrap();
    assert!(
        book.current().trusted.table.is_empty(),
        "a requested reload takes effect at once"
    );
}

#[tokio::test]
async fn a_part_that_cannot_be_loaded_stays() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("permissions.deny"), "ALL : \"^sip:1@\"\n").unwrap();
    let url = DatabaseUrl::Sqlite(folder.path().join("table.db"));
    let book = AddressBook::with_rules(
        Database::new(url),
        RuleFolder::new(&rules),
        BookOptions::default(),
    );
    book.database()
        .add_trusted(&peer("192.0.2.1"))
        .await
        .unwrap();
    book.reload_trusted().await.unwrap();
    book.reload_rules().await.unwrap();
    std::fs::remove_dir_all(&rules).unwrap();
    std::fs::write(
        folder.path().join("table.db"),
        b"no database any more, just text",
    )
    .unwrap();
    book.reload_rules().await.unwrap_err();
    book.reload_trusted().await.unwrap_err();
    let status = book.status();
    assert_eq!((status.trusted.loads, status.trusted.failures), (1, 1));
    assert_eq!((status.rules.loads, status.rules.failures), (1, 1));
    assert!(status.rules.last_error.is_some() && status.trusted.last_error.is_some());
    let snapshot = book.current();
    assert!(denies(&snapshot) && trusts(&snapshot, "192.0.2.1"));
}

#[tokio::test]
async fn without_the_table_no_peer_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.db");
    let book = book(folder.path());
    book.reload().await.unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut link = sqlx::ConnectOptions::connect(&options).await.unwrap();
    sqlx::Executor::execute(&mut link, "DROP TABLE trusted")
        .await
        .unwrap();
    let snapshot = book.reload_trusted().await.unwrap().snapshot;
    assert!(snapshot.trusted.is_absent && snapshot.trusted.table.is_empty());
}

#[tokio::test]
async fn invalid_rows_are_named_and_rows_are_edited_as_with_kamctl() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(folder.path());
    let database = book.database();
    database.add_trusted(&peer("192.0.2.1")).await.unwrap();
    let again = database.add_trusted(&peer("192.0.2.1")).await.unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");
    let bad = NewTrusted {
        proto: "sip".to_owned(),
        ..peer("192.0.2.3")
    };
    assert!(
        database
            .add_trusted(&bad)
            .await
            .unwrap_err()
            .to_string()
            .contains("is not a transport")
    );
    let wide = NewTrusted {
        tag: Some("x".repeat(65)),
        ..peer("192.0.2.3")
    };
    assert!(
        database
            .add_trusted(&wide)
            .await
            .unwrap_err()
            .to_string()
            .contains("use at most 64")
    );
    let path = folder.path().join("table.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut link = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let odd = "INSERT INTO trusted (id, src_ip, proto, from_pattern) VALUES (41, '192.0.2.2', 'any', '['), (42, '::A', 'none', NULL), \
        (43, '2001:DB8::1', 'tls', NULL)";
    sqlx::Executor::execute(&mut link, odd).await.unwrap();
    let part = Arc::clone(&book.reload_trusted().await.unwrap().snapshot.trusted);
    assert_eq!(
        (part.table.len(), part.ignored, part.skipped, part.warned),
        (2, 1, 1, 1)
    );
    assert!(
        part.errors[0]
            .to_string()
            .starts_with("row 41: from_pattern \"[\""),
        "{:?}",
        part.errors
    );
    assert!(
        part.warnings[0].to_string().starts_with("row 43: src_ip"),
        "{:?}",
        part.warnings
    );
    assert_eq!(database.trusted_rows().await.unwrap().len(), 4);
    assert_eq!(database.remove_trusted("192.0.2.1").await.unwrap(), 1);
}
