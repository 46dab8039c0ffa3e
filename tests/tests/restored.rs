//! A database that is replaced by a backup of itself under running hosts, and hosts whose clocks differ.

#![forbid(unsafe_code)]

use std::path::Path;

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::wait;

const FIRST: &str = "486 first";
const SECOND: &str = "486 second";
const THIRD: &str = "486 third";
const OTHER: &str = "486 other";

/// A host without a policy file, which takes its policies from the database.
fn builder(database: &MariaDb) -> Builder {
    Builder::new()
        .database(&database.url())
        .set("policy", "file = \"\"")
}

/// The same, with the files of the policies that the tests push.
fn host(database: &MariaDb) -> Host {
    with_files(builder(database).start())
}

fn with_files(host: Host) -> Host {
    for name in ["first", "second", "third", "other"] {
        host.write(&format!("{name}.wasm"), rejecting(486, name));
    }
    host
}

fn answer(host: &Host) -> String {
    let mut caller = host.udp(10);
    let answer = caller.ask(&caller.request("MESSAGE", "sip:bob@example.com"));
    let line = answer.start_line();
    line.trim_start_matches("SIP/2.0 ").to_owned()
}

fn wait_for_answer(host: &Host, expected: &str) {
    let what = format!("the host answers {expected}");
    wait::until(&what, || (answer(host) == expected).then_some(()));
}

/// The line of the log about an event.
fn line_of(host: &Host, event: &str) -> String {
    let event = format!("event=\"{event}\"");
    host.wait_for_log(&event);
    let log = host.log();
    let mut lines = log.lines().filter(|line| line.contains(&event));
    let line = lines.next().expect("it has just been found").to_owned();
    assert_eq!(lines.count(), 0, "{event} is told once:\n{log}");
    line
}

/// Numbers of the stored generations of the seat `default`.
fn numbers(database: &MariaDb) -> String {
    let ask = "SELECT GROUP_CONCAT(number ORDER BY number) FROM portcullis_generation WHERE seat = 'default'";
    database.sql("kamailio", ask).trim().to_owned()
}

#[test]
fn peers_hosts_follow_a_restored_database_and_store_later_pushes_again() {
    let database = MariaDb::start();
    let (one, other) = (host(&database), host(&database));
    one.run("policy push default first.wasm --activate");
    wait_for_answer(&other, FIRST);

    let yesterday = database.dump();
    one.run("policy push default second.wasm --activate");
    wait_for_answer(&other, SECOND);
    // Only this host has the file.
    other.run("policy push default third.wasm");
    one.write("beta.toml", "uri-domains = [\"beta.example\"]\n");
    one.run("tenant put beta beta.toml");
    wait::until("the other host has the tenant", || {
        other.run("tenant list").contains("beta").then_some(())
    });

    let load = Load::start(&one, 20, 1);
    database.restore(&yesterday);
    assert_eq!(numbers(&database), "1");
    wait_for_answer(&one, FIRST);
    wait_for_answer(&other, FIRST);
    // Each host says so once, and names what was missing.
    for host in [&one, &other] {
        let told = line_of(host, "seat_older");
        assert!(
            told.contains(" ERROR ") && told.contains("seat=\"default\""),
            "{told}"
        );
        let told = line_of(host, "tenants_older");
        assert!(told.contains("beta (gone)"), "{told}");
    }
    let told = line_of(&other, "seat_older");
    assert!(told.contains("3 (third.wasm, sha256:"), "{told}");
    wait::until("the tenant is gone", || {
        let hosts = [&one, &other];
        hosts
            .iter()
            .all(|host| !host.run("tenant list").contains("beta"))
            .then_some(())
    });
    let report = load.stop();
    for line in report.start_lines.keys() {
        let line = line.trim_start_matches("SIP/2.0 ");
        assert!([FIRST, SECOND].contains(&line), "a call got {line:?}");
    }
    assert_eq!(report.duplicates, 0);

    // No push is lost: each can be activated under its number, and the next one gets another number.
    wait::until("the pushes are stored again", || {
        (numbers(&database) == "1,2,3").then_some(())
    });
    one.run("policy activate default 3");
    wait_for_answer(&one, THIRD);
    wait_for_answer(&other, THIRD);
    other.run("policy activate default 2");
    wait_for_answer(&one, SECOND);
    one.run("policy push default other.wasm");
    assert_eq!(numbers(&database), "1,2,3,4");
}

#[test]
fn peers_a_number_that_a_restored_database_gives_again_means_one_file_on_all_hosts() {
    let database = MariaDb::start();
    let (one, other) = (host(&database), host(&database));
    one.run("policy push default first.wasm --activate");
    wait_for_answer(&other, FIRST);
    let yesterday = database.dump();
    one.run("policy push default second.wasm --activate");
    wait_for_answer(&other, SECOND);

    // The same number of changes as before, by the host that cannot know better yet. The second of a change must be another one.
    let second = "SELECT MAX(changed_at) < UNIX_TIMESTAMP() FROM portcullis_seat";
    wait::until("another second has begun", || {
        (database.sql("kamailio", second).trim() == "1").then_some(())
    });
    database.restore(&yesterday);
    one.run("policy push default other.wasm --activate");
    wait_for_answer(&one, OTHER);
    wait_for_answer(&other, OTHER);
    assert_eq!(numbers(&database), "1,2");
    for host in [&one, &other] {
        let told = line_of(host, "generation_number_reused");
        assert!(told.contains("generation=2"), "{told}");
        assert!(told.contains("second.wasm"), "{told}");
    }
    // A host that starts now serves the same.
    let late = host(&database);
    wait_for_answer(&late, OTHER);
    other.run("policy activate default 1");
    for host in [&one, &other, &late] {
        wait_for_answer(host, FIRST);
    }
}

/// The library that moves the wall clock of a program (package faketime).
fn faketime() -> String {
    let folders = ["x86_64-linux-gnu", "aarch64-linux-gnu"];
    let files = folders.map(|folder| format!("/usr/lib/{folder}/faketime/libfaketimeMT.so.1"));
    let found = files.into_iter().find(|file| Path::new(file).exists());
    found.expect("libfaketime is installed: apt-get install faketime")
}

#[test]
fn peers_hosts_whose_clocks_differ_by_minutes_follow_each_other() {
    let database = MariaDb::start();
    let library = faketime();
    let start = |offset: &str| {
        let builder = builder(&database)
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        with_files(builder.start())
    };
    let (slow, fast) = (start("-10m"), start("+10m"));
    slow.run("policy push default first.wasm --activate");
    wait_for_answer(&fast, FIRST);
    fast.run("policy push default second.wasm --activate");
    wait_for_answer(&slow, SECOND);
    slow.run("policy activate default 1");
    wait_for_answer(&fast, FIRST);

    let rows = |host: &Host| host.metric("portcullis_address_rows", &[]);
    database.sql(
        "kamailio",
        "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (200, '192.0.2.1', 32, 0, '')",
    );
    for host in [&slow, &fast] {
        wait::until("the row is live", || (rows(host) == 1.0).then_some(()));
    }
    for (from, to, name) in [(&slow, &fast, "acme"), (&fast, &slow, "beta")] {
        from.write(
            "tenant.toml",
            format!("uri-domains = [\"{name}.example\"]\n"),
        );
        from.run(&format!("tenant put {name} tenant.toml"));
        wait::until("the other host has the tenant", || {
            to.run("tenant list").contains(name).then_some(())
        });
    }
    // The clocks do differ, and no host takes the changes of the other for those of a restored database.
    let second = |host: &Host| host.log().lines().next().map(|line| line[..16].to_owned());
    assert_ne!(second(&slow), second(&fast));
    for host in [&slow, &fast] {
        let log = host.log();
        for event in ["seat_older", "tenants_older", "generation_number_reused"] {
            assert!(!log.contains(event), "{log}");
        }
    }
}
