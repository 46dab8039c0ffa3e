use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::wait::eventually;

use super::*;
use crate::book::{AddressBook, BookOptions, DatabaseState};
use crate::database::{ChangeSource, Database, DatabaseUrl, Look, Watcher};

fn file(folder: &tempfile::TempDir, text: impl AsRef<[u8]>) -> Database {
    let path = folder.path().join("address.list");
    std::fs::write(&path, text).unwrap();
    // A database that must not be queried.
    Database::new(DatabaseUrl::Sqlite("/nowhere/at/all.db".into())).with_address_file(path)
}

#[tokio::test]
async fn lines_are_read_as_kamailio_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let database = file(
        &folder,
        "# group address mask port tag\n\n  200\t192.168.1.0  24 5060 OfficeSubnet # ours\r\n\
         250 10.8.203.139\n250 [2001:db8::1] 128 0 six#teen\n300 2001:db8:1:: 48\n4294967295 10.0.0.1 32 65535 last",
    );
    let loaded = database.load().await.unwrap();
    assert_eq!(
        (loaded.table.len(), loaded.skipped, loaded.warned),
        (5, 0, 0)
    );
    let find = |ip: &str, group, port| {
        let found = loaded.table.lookup(ip.parse().unwrap()).find(group, port);
        found.map(|entry| entry.tag)
    };
    assert_eq!(find("192.168.1.77", 200, 5060), Some(Some("OfficeSubnet")));
    assert_eq!(find("192.168.1.77", 200, 5061), None);
    assert_eq!(find("10.8.203.139", 250, 9), Some(None));
    assert_eq!(find("2001:db8::1", 250, 9), Some(Some("six")));
    assert_eq!(find("2001:db8:1::7", 300, 9), Some(None));
    assert_eq!(find("10.0.0.1", 4_294_967_295, 65_535), Some(Some("last")));
    let rows = database.rows().await.unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["3", "4", "5", "6", "7"]);
    assert_eq!(
        (rows[1].mask.as_deref(), rows[1].tag.as_deref()),
        (Some("0"), None)
    );
    assert_eq!(database.count().await.unwrap(), 5);
}

#[tokio::test]
async fn every_invalid_line_is_reported_and_the_others_are_used() {
    let folder = tempfile::tempdir().unwrap();
    let database = file(
        &folder,
        b"200 10.0.0.1\nabc 10.0.0.2\n0 10.0.0.3\n 200 10.0.0.0/24\n200 10.0.0.5 33\n200 10.0.0.6 32 sip\n200\n\
          200 10.0.0.8 32 0 \xc3\x28\n200 10.0.0.9 32 0 Office Subnet\n200 10.0.0.10 32 70000\n",
    );
    let loaded = database.load().await.unwrap();
    assert_eq!(
        (loaded.table.len(), loaded.skipped, loaded.warned),
        (2, 8, 1)
    );
    let path = folder.path().join("address.list");
    let said: Vec<_> = loaded.errors.iter().map(ToString::to_string).collect();
    let expected = [
        "2:1: grp \"abc\" is not a whole number",
        "3:1: grp 0 is not a group; use a group from 1",
        "4:6: ip_addr \"10.0.0.0/24\" is a network in CIDR form, which Kamailio takes for a name; write ip_addr 10.0.0.0 and mask 24",
        "5:14: mask 33 ",
        "6:17: port \"sip\" is not a whole number",
        "7:1: grp \"200\" is not followed by an address",
        "8:1: line \"200 10.0.0.8 32 0 \u{fffd}(\" is not text; write it in UTF-8",
        "10:18: port 70000 is not a port",
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        let expected = format!("{}:{expected}", path.display());
        assert!(said.starts_with(&expected), "{said}\n{expected}");
    }
    let warning = loaded.warnings[0].to_string();
    assert!(
        warning.contains(":9:19: tag \"Subnet\" follows the tag"),
        "{warning}"
    );
}

#[tokio::test]
async fn a_file_without_a_usable_line_is_an_error_and_one_without_lines_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let error = file(&folder, "0 10.0.0.1\n200 x y\n")
        .load()
        .await
        .unwrap_err();
    assert!(
        matches!(error, DatabaseError::NoUsableLine { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("address.list:1:1: grp 0 is not a group"),
        "{error}"
    );
    for empty in ["", "\n\n", "# nobody\n"] {
        assert!(file(&folder, empty).load().await.unwrap().table.is_empty());
    }
    std::fs::remove_file(folder.path().join("address.list")).unwrap();
    let database = Database::new(DatabaseUrl::Sqlite("x.db".into()));
    let error = database
        .with_address_file(folder.path().join("address.list"))
        .load()
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("`address-file` in [database]"),
        "{error}"
    );
}

#[tokio::test]
async fn a_pipe_in_place_of_the_file_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let database = file(&folder, "");
    let path = folder.path().join("address.list");
    std::fs::remove_file(&path).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let error = database.load().await.unwrap_err().to_string();
    assert!(error.contains("and not a file"), "{error}");
}

#[tokio::test]
async fn commands_do_not_change_an_address_file() {
    let folder = tempfile::tempdir().unwrap();
    let database = file(&folder, "200 10.0.0.1\n");
    let row = NewRow {
        group: 1,
        ip_addr: "10.0.0.2".to_owned(),
        mask: 32,
        port: 0,
        tag: None,
    };
    for error in [
        database.add(&row).await.unwrap_err().to_string(),
        database
            .remove(200, "10.0.0.1")
            .await
            .unwrap_err()
            .to_string(),
        database.import(&[row], true).await.unwrap_err().to_string(),
    ] {
        assert!(
            error.contains("address.list") && error.contains("edit the file"),
            "{error}"
        );
    }
    assert_eq!(database.rows().await.unwrap().len(), 1);
}

/// A file that is written in place is read when it has settled, a file that is renamed into place at once.
#[tokio::test]
async fn a_watched_book_follows_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("address.list");
    let options = BookOptions {
        poll: Duration::from_millis(5),
        ..BookOptions::default()
    };
    let book = Arc::new(AddressBook::new(file(&folder, "200 10.0.0.1\n"), options));
    book.reload().await.unwrap();
    assert_eq!(book.status().changes_seen_by, Some(ChangeSource::FileStamp));
    let watched = Arc::clone(&book);
    let watch = tokio::spawn(async move { watched.watch().await });
    std::fs::write(&path, "200 10.0.0.1\n200 10.0.0.2\n").unwrap();
    eventually("it is rewritten", || book.current().counts.hosts == 2).await;

    let next = folder.path().join("next");
    std::fs::write(&next, "200 10.0.0.1\n200 10.0.0.2\n200 10.0.0.3\n").unwrap();
    std::fs::rename(&next, &path).unwrap();
    eventually("it is replaced", || book.current().counts.hosts == 3).await;

    let generation = book.current().generation;
    std::fs::write(&path, "200 10.0.0.1/32\n").unwrap();
    let failed = || {
        let error = book.status().last_error;
        matches!(error, Some(DatabaseError::NoUsableLine { .. }))
    };
    eventually("not one line is good", failed).await;
    assert_eq!(
        book.current().generation,
        generation,
        "the old table is used"
    );
    std::fs::remove_file(&path).unwrap();
    let is_down = || matches!(book.status().database, DatabaseState::Down { .. });
    eventually("it is gone", is_down).await;
    std::fs::write(&path, "200 10.0.0.1/32\n7 10.0.0.7\n").unwrap();
    eventually("it is back", || {
        let counts = book.current().counts;
        (counts.hosts, counts.skipped) == (1, 1)
    })
    .await;
    assert_eq!(book.status().database, DatabaseState::Up);
    watch.abort();
}

/// An incomplete file must not be used: while it is being written, it is not read.
#[tokio::test]
async fn a_file_that_is_being_written_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let database = file(&folder, "200 10.0.0.1\n");
    let path = folder.path().join("address.list");
    let mut watcher = Watcher::new(database);
    assert_eq!(watcher.look().await.unwrap(), Look::Changed);
    assert_eq!(watcher.look().await.unwrap(), Look::Same);
    let mut writer = std::fs::File::create(&path).unwrap();
    for line in ["200 10.0.0.1\n", "200 10.0.0.2\n"] {
        std::io::Write::write_all(&mut writer, line.as_bytes()).unwrap();
        assert_eq!(watcher.look().await.unwrap(), Look::Same, "it is open");
    }
    // A failed load is tried again, but not while the file is being written.
    watcher.forget();
    assert_eq!(watcher.look().await.unwrap(), Look::Changed, "as it was");
    drop(writer);
    assert_eq!(
        watcher.look().await.unwrap(),
        Look::Same,
        "there may be more"
    );
    // A requested load does not wait.
    watcher.insist();
    assert_eq!(watcher.look().await.unwrap(), Look::Changed);
    let next = folder.path().join("next");
    std::fs::write(&next, "200 10.0.0.3\n").unwrap();
    std::fs::rename(&next, &path).unwrap();
    let looks = async {
        while watcher.look().await.unwrap() != Look::Changed {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks)
        .await
        .expect("it was renamed into place");
}

/// An empty file may be one that is being written, until it has settled.
#[tokio::test]
async fn the_rows_of_an_emptied_file_stay_until_it_has_settled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("address.list");
    let put = |text: &str| {
        let next = folder.path().join("next");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(&next, &path).unwrap();
    };
    let hour = Duration::from_secs(3600);
    let book = AddressBook::new(file(&folder, "200 10.0.0.1\n"), BookOptions::default());
    let held = BookOptions {
        settle: hour,
        ..BookOptions::default()
    };
    let hosts = || book.current().counts.hosts;
    book.reload().await.unwrap();
    put("# nobody\n");
    let loads = book.status().loads;
    while book.status().loads < loads + 3 {
        book.follow(held).await.unwrap();
    }
    assert_eq!(hosts(), 1);
    put("200 10.0.0.1\n200 10.0.0.2\n");
    while hosts() != 2 {
        book.follow(held).await.unwrap();
    }
    // The file stays empty.
    put("# nobody\n");
    let at_once = BookOptions {
        settle: Duration::ZERO,
        ..held
    };
    while hosts() != 0 {
        book.follow(at_once).await.unwrap();
    }
    // A requested load takes effect at once.
    put("200 10.0.0.1\n");
    assert_eq!(book.reload().await.unwrap().snapshot.counts.hosts, 1);
    put("# nobody\n");
    assert_eq!(book.reload().await.unwrap().snapshot.counts.hosts, 0);
}
