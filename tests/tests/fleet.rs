//! Hosts on one database: each shows all, drains another, and tells what is wrong.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::wait;
use serde_json::{Value, json};

fn start(database: &MariaDb, name: &str) -> Host {
    Builder::new()
        .database(&database.url())
        .set("fleet", &format!("name = {name:?}"))
        .set("fleet", "interval = \"200ms\"")
        .set("tenants.acme", "uri-domains = [\"example.com\"]")
        .start()
}

/// What a host says of all.
fn fleet(host: &Host) -> Value {
    serde_json::from_str(&host.run("fleet status --json")).expect("JSON")
}

/// Each host with its stage, as this one sees them.
fn stages(host: &Host) -> Vec<(String, String)> {
    let fleet = fleet(host);
    let hosts = fleet["hosts"].as_array().expect("hosts");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    hosts
        .iter()
        .map(|one| (text(&one["host"]), text(&one["stage"])))
        .collect()
}

fn wait_for_stages(host: &Host, wanted: &[(&str, &str)]) {
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(name, stage)| ((*name).to_owned(), (*stage).to_owned()))
        .collect();
    wait::until(&format!("the hosts are {wanted:?}"), || {
        (stages(host) == wanted).then_some(())
    });
}

fn answer(host: &Host) -> String {
    let mut caller = host.udp(10);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    let answer = caller.ask(&request);
    answer.start_line().to_owned()
}

/// The status of all from any of them, a push that all have, a drain through another host, a host that was killed, and a row of one that does not
/// exist.
#[test]
fn peers_each_host_shows_all_and_drains_another() {
    let database = MariaDb::start();
    let (one, mut two) = (start(&database, "edge-1"), start(&database, "edge-2"));
    let mut three = start(&database, "edge-3");
    let all = [
        ("edge-1", "serving"),
        ("edge-2", "serving"),
        ("edge-3", "serving"),
    ];
    for host in [&one, &two, &three] {
        wait_for_stages(host, &all);
    }
    one.run("fleet status --check");

    one.write("new.wasm", rejecting(486, "new"));
    one.run("policy push acme new.wasm --activate");
    wait::until("each host has the generation, and says so", || {
        let fleet = fleet(&three);
        let hosts = fleet["hosts"].as_array()?;
        let has_it = |host: &Value| host["seats"]["acme"]["active"] == 1;
        (hosts.len() == 3 && hosts.iter().all(has_it)).then_some(())
    });
    for host in [&one, &two, &three] {
        assert_eq!(answer(host), "SIP/2.0 486 new");
        assert_eq!(fleet(host)["differing"], json!([]));
    }

    let said = one.run("fleet drain edge-2 --wait 100");
    assert_eq!(said, "edge-2 is asked to drain\nedge-2 has ended\n");
    assert!(two.wait_until_ended().success());
    assert!(two.log().contains("fleet_drain"), "{}", two.log());
    wait_for_stages(
        &three,
        &[
            ("edge-1", "serving"),
            ("edge-2", "ended"),
            ("edge-3", "serving"),
        ],
    );
    // A host that has said that it ends is no problem.
    one.run("fleet status --check");
    let refused = one.refused("fleet drain edge-2");
    assert!(refused.contains("edge-2 has ended"), "{refused}");
    wait::until("the audit of the database has it", || {
        let audit = three.run("audit");
        (audit.contains("fleet.drain") && audit.contains("host edge-2")).then_some(())
    });

    three.signal("KILL");
    three.wait_until_ended();
    database.sql(
        "kamailio",
        "INSERT INTO portcullis_host (host, instance, address, version, started_at, seen_at, state) \
         VALUES ('ghost', '0', 'udp:192.0.2.1:5060', '0.1.0', 0, UNIX_TIMESTAMP() * 1000 - 3600000, '{}')",
    );
    wait_for_stages(
        &one,
        &[
            ("edge-1", "serving"),
            ("edge-2", "ended"),
            ("edge-3", "gone"),
            ("ghost", "gone"),
        ],
    );
    let output = one.command("fleet status --check");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{shown}");
    assert!(shown.contains("! edge-3 is gone: silent for"), "{shown}");
    wait::until("the metric counts both", || {
        let gone = one.metric("portcullis_fleet_hosts", &["stage=\"gone\""]);
        (gone > 1.5).then_some(())
    });
    let refused = one.refused("fleet drain edge-3");
    assert!(refused.contains("it cannot hear this"), "{refused}");
    for name in ["edge-3", "ghost", "edge-2"] {
        one.run(&format!("fleet forget {name}"));
    }
    let refused = one.refused("fleet forget edge-1");
    assert!(refused.contains("announces itself"), "{refused}");
    assert_eq!(stages(&one).len(), 1);
}

/// A copied machine has the name of its original: both serve, and each says once where the other is.
#[test]
fn peers_two_hosts_with_one_name_are_told_once_by_both() {
    let database = MariaDb::start();
    let hosts = [start(&database, "edge"), start(&database, "edge")];
    for host in &hosts {
        wait::until("the host has the alert", || {
            host.run("alert list")
                .contains("host-name-twice")
                .then_some(())
        });
    }
    // Both know, so each row that is written from now on says so.
    wait::until("the row says that there are two", || {
        fleet(&hosts[0])["hosts"][0]["twin"]
            .is_object()
            .then_some(())
    });
    for (host, other) in [(&hosts[0], &hosts[1]), (&hosts[1], &hosts[0])] {
        host.wait_for_log("host_name_twice");
        let mut told = host.complaints();
        told.retain(|line| line.contains("host_name_twice"));
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].contains(&other.sip().to_string()), "{told:#?}");
        let alert = host.run("alert list");
        assert!(alert.contains(&other.sip().to_string()), "{alert}");
        assert!((host.metric("portcullis_fleet_name_twice", &[]) - 1.0).abs() < f64::EPSILON);
        assert_eq!(answer(host), answer(other));
        let refused = host.refused("fleet drain edge");
        assert!(
            refused.contains("two processes have the name edge"),
            "{refused}"
        );
    }
}

/// The process that takes over at an upgrade takes the row over; that is no second host.
#[test]
fn peers_an_upgrade_keeps_one_row() {
    let database = MariaDb::start();
    let mut host = start(&database, "edge");
    wait_for_stages(&host, &[("edge", "serving")]);
    let instance = |host: &Host| fleet(host)["hosts"][0]["instance"].clone();
    let before = instance(&host);
    host.upgrade();
    wait::until("the new process has the row", || {
        let after = instance(&host);
        (after.is_string() && after != before).then_some(())
    });
    wait_for_stages(&host, &[("edge", "serving")]);
    assert!(!host.log().contains("host_name_twice"), "{}", host.log());
}

/// The clock of the database is two minutes behind.
#[test]
fn peers_a_clock_that_differs_from_the_databases_is_told() {
    let database = MariaDb::start();
    // For each connection of a user without special rights.
    database.sql(
        "",
        "SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() - 120'",
    );
    let host = start(&database, "edge");
    wait::until("the host has the alert", || {
        host.run("alert list")
            .contains("clock-differs")
            .then_some(())
    });
    host.wait_for_log("clock_differs");
    assert!(answer(&host).starts_with("SIP/2.0 "));
    let ahead = host.metric("portcullis_fleet_clock_ahead_seconds", &[]);
    assert!(ahead > 100.0, "{ahead}");
}

/// Read access to Kamailio's tables is enough for everything else.
#[test]
fn peers_a_host_without_the_right_to_write_says_so_once_and_serves() {
    let database = MariaDb::start();
    let url = database
        .url()
        .replace("kamailio:kamailiorw", "kamailioro:kamailioro");
    let host = Builder::new()
        .database(&url)
        .set("fleet", "interval = \"200ms\"")
        .start();
    host.wait_for_log("fleet_not_announced");
    assert!(answer(&host).starts_with("SIP/2.0 "));
    let shown = host.run("fleet status");
    assert!(shown.contains("does not announce itself"), "{shown}");
    assert!(
        shown.contains("GRANT SELECT, INSERT, UPDATE, DELETE ON portcullis_host"),
        "{shown}"
    );
    assert_eq!(host.log().matches("fleet_not_announced").count(), 1);
}
