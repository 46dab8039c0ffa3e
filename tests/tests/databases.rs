//! Databases in difficult conditions: one that hangs, users with few privileges, tables that are created later, certificates.

#![forbid(unsafe_code)]

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::documents::privileges;
use portcullis_testkit::guests::{guest, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::proxy::Proxy;
use portcullis_testkit::{binary, policy, wait};
use serde_json::json;

const OURS: [&str; 7] = [
    "portcullis_artifact",
    "portcullis_generation",
    "portcullis_seat",
    "portcullis_tenant",
    "portcullis_audit",
    "portcullis_host",
    "portcullis_rollout",
];

fn answer(host: &Host, body: &str) -> String {
    let mut caller = host.udp(10);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    let request = match body {
        "" => request,
        body => request.body(body),
    };
    let answer = caller.ask(&request);
    answer
        .start_line()
        .trim_start_matches("SIP/2.0 ")
        .to_owned()
}

/// A lost response delays nothing else: a policy that fails is taken out of service at once, commands fail, and what could not be stored is
/// stored later. A condemned generation does not become active again by itself.
#[test]
fn peers_a_database_that_hangs_delays_nothing_else() {
    const GOOD: &str = "486 good";
    const BAD: &str = "401 Address not authorised";
    let database = MariaDb::start();
    let builder = Builder::new();
    let proxy = Proxy::start(builder.lease().addr(3, 3306), database.addr());
    let host = builder
        .database(&format!(
            "mysql://kamailio:kamailiorw@{}/kamailio",
            proxy.addr()
        ))
        .set("policy", "file = \"\"")
        .set("policy", "breaker-failures = 2")
        .set("policy", "breaker-pause = \"1h\"")
        .start();
    host.write("good.wasm", rejecting(486, "good"));
    host.write("bad.wasm", guest("loop-with-body"));
    host.run("policy push default good.wasm --activate");
    host.run("policy push default bad.wasm --activate");
    assert_eq!(answer(&host, ""), BAD);

    proxy.swallow(true);
    wait::until("a statement hangs", || {
        (proxy.swallowed() > 0).then_some(())
    });
    wait::until("an older generation serves", || {
        (answer(&host, "x") == GOOD).then_some(())
    });
    host.wait_for_log("event=\"database_");
    let said = host.refused("policy push default good.wasm");
    assert!(said.contains("answer"), "{said}");
    let said = host.refused("address reload");
    assert!(said.contains("answer"), "{said}");
    let status = host.rpc("portcullis.status", json!([]));
    let pushed = &status["result"]["pushed_policies"];
    assert_eq!(pushed["fall_backs_not_stored"], 1, "{pushed}");
    assert!(
        pushed["error"].is_string() && pushed["error_since"].is_string(),
        "{pushed}"
    );

    // Another host changes the row meanwhile, and it still names the generation that failed.
    database.sql(
        "kamailio",
        "UPDATE portcullis_seat SET revision = revision + 1, changed_by = 'ann'",
    );
    proxy.swallow(false);
    host.wait_for_log("event=\"condemned_generation_not_served\"");
    wait::until("the database knows", || {
        assert_eq!(answer(&host, ""), GOOD);
        let active = database.sql("kamailio", "SELECT active FROM portcullis_seat");
        (active.trim() == "1").then_some(())
    });
    let status = host.rpc("portcullis.status", json!([]));
    let pushed = &status["result"]["pushed_policies"];
    assert_eq!(pushed["fall_backs_not_stored"], 0, "{pushed}");
    assert!(pushed["error"].is_null(), "{pushed}");
    // An operator can activate it again.
    host.run("policy activate default 2");
    assert_eq!(answer(&host, ""), BAD);
}

/// The documented privileges are sufficient, and missing ones are reported.
#[test]
fn peers_the_documented_privileges_are_sufficient() {
    let database = MariaDb::start();
    let [to_read, to_change, to_push] = privileges("MySQL, MariaDB", "reader");
    database.sql("kamailio", "CREATE USER 'reader'@'%' IDENTIFIED BY 'x'");
    database.sql("kamailio", &to_read);
    let host = Builder::new()
        .database(&format!("mysql://reader:x@{}/kamailio", database.addr()))
        .set("tenants.acme", "uri-domains = [\"example.com\"]")
        .start();
    host.wait_for_log("event=\"policies_in_memory\"");
    assert_eq!(host.complaints(), [""; 0]);
    let said = host.run("check");
    assert!(
        said.contains("GRANT SELECT, INSERT, UPDATE, DELETE"),
        "{said}"
    );
    assert!(said.ends_with("no errors\n"), "{said}");

    host.write("one.wasm", rejecting(486, "one"));
    host.write("two.wasm", rejecting(487, "two"));
    let said = host.run("policy push acme one.wasm --activate --author ann");
    assert!(said.contains("kept until the host ends"), "{said}");
    host.run("policy push acme two.wasm --activate");
    host.run("policy rollback acme");
    assert_eq!(answer(&host, ""), "486 one");
    host.run("policy rollback acme");
    // With the privileges, the policy is stored with its number, and can be rolled back.
    database.sql("kamailio", &to_push);
    host.wait_for_log("event=\"policies_adopted\"");
    let said = host.run("policy list acme");
    assert!(said.contains("ann") && said.contains("previous"), "{said}");
    host.run("policy rollback acme");
    assert_eq!(answer(&host, ""), "486 one");
    let said = host.run("policy push acme two.wasm");
    assert!(said.starts_with("acme: generation 3"), "{said}");

    let row = "address add 200 192.0.2.1";
    assert!(!host.command(row).status.success());
    database.sql("kamailio", &to_change);
    host.run(row);
    host.run("address rm 200 192.0.2.1");
    host.changes_a_destination();
}

/// Two hosts have policies in memory when the tables are created: those of the first are used by both, and no number stands for two
/// policies.
#[test]
fn peers_policies_in_memory_are_stored_once_the_tables_exist() {
    let database = MariaDb::start();
    let drops: String = OURS
        .iter()
        .map(|table| format!("DROP TABLE {table};"))
        .collect();
    database.sql("kamailio", &drops);
    let start = || {
        Builder::new()
            .database(&database.url())
            .set("tenants.acme", "uri-domains = [\"example.com\"]")
            .start()
    };
    let hosts = [start(), start()];
    for (host, code) in hosts.iter().zip([486, 487]) {
        host.write("own.wasm", rejecting(code, "own"));
        host.run("policy push acme own.wasm --activate");
        assert_eq!(answer(host, ""), format!("{code} own"));
    }
    hosts[0].run("db migrate");
    let first = wait::until("a host is first", || {
        let is_first = |host: &&Host| host.log().contains("event=\"policies_adopted\"");
        hosts.iter().find(is_first)
    });
    let expected = answer(first, "");
    let second = hosts
        .iter()
        .find(|host| !std::ptr::eq(*host, first))
        .expect("there are two");
    second.wait_for_log("event=\"policies_given_up\"");
    for host in &hosts {
        wait::until("both serve the same", || {
            (answer(host, "") == expected).then_some(())
        });
        let said = host.run("policy list acme");
        assert_eq!(said.matches("own.wasm").count(), 1, "{said}");
    }
    let said = second.run("policy push acme own.wasm --activate");
    assert!(said.starts_with("acme: generation 2"), "{said}");
    first.run("policy rollback acme");
    for host in &hosts {
        wait::until("both go back", || {
            (answer(host, "") == expected).then_some(())
        });
    }
}

/// As in Kamailio, a table that is not queried may be in any state.
#[test]
fn peers_a_wrong_version_is_an_error_only_for_policies_that_query_the_table() {
    let database = MariaDb::start();
    let broken = "UPDATE version SET table_version = 5 WHERE table_name = 'trusted'";
    database.sql("kamailio", broken);
    let start = |name: &str| {
        let builder = Builder::new().database(&database.url());
        builder.policy(policy(name)).launch()
    };
    let mut host = start("address-acl");
    host.wait_until_ready();
    host.wait_for_log("event=\"unused_part_broken\"");
    assert_eq!(answer(&host, ""), "401 Address not authorised");
    let said = host.run("check");
    assert!(
        said.contains("warning: ") && said.contains("no policy of the configuration uses it"),
        "{said}"
    );
    for (name, table) in [("trusted-peers", "trusted"), ("address-acl", "address")] {
        database.sql(
            "kamailio",
            "UPDATE version SET table_version = 6 WHERE table_name IN ('address', 'trusted')",
        );
        let broken = format!("UPDATE version SET table_version = 5 WHERE table_name = '{table}'");
        database.sql("kamailio", &broken);
        let mut host = start(name);
        assert!(!host.wait_until_ended().success(), "{name}");
        let log = host.log();
        assert!(log.contains("has version \"5\""), "{log}");
        let output = host.command("check");
        assert!(!output.status.success(), "{name}");
    }
}

/// A certificate is verified with the authority in the URL only.
#[test]
fn peers_connections_to_the_database_are_encrypted_and_verified() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let database = MariaDb::start_with(|addr| {
        authority(folder.path(), "ca");
        authority(folder.path(), "other");
        certificate(folder.path(), "server", &format!("IP:{}", addr.ip()));
        [
            "--ssl-ca=ca.pem",
            "--ssl-cert=server.pem",
            "--ssl-key=server.key",
        ]
        .map(|word| word.replace('=', &format!("={}/", folder.path().display())))
        .to_vec()
    });
    database.sql(
        "kamailio",
        "CREATE USER 'tls'@'%' IDENTIFIED BY 'x' REQUIRE SSL; GRANT ALL ON kamailio.* TO 'tls'@'%'; \
         INSERT INTO address (grp, ip_addr, mask, port) VALUES (200, '192.0.2.1', 32, 0)",
    );
    let run = |host: &str, options: &str| {
        let options = options.replace("ssl-ca=", &format!("ssl-ca={}/", folder.path().display()));
        let url = format!(
            "mysql://tls:x@{host}:{}/kamailio{options}",
            database.addr().port()
        );
        let config = format!("[database]\nurl = {url:?}\n");
        std::fs::write(folder.path().join("portcullis.toml"), config).expect("it can be written");
        let output = Command::new(binary())
            .args(["address", "show"])
            .current_dir(folder.path())
            .output()
            .expect("portcullis runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let ip = database.addr().ip().to_string();
    for (host, options, is_good) in [
        (&*ip, "?ssl-mode=verify-identity&ssl-ca=ca.pem", true),
        (&*ip, "?ssl-mode=verify-ca&ssl-ca=ca.pem", true),
        (&*ip, "?ssl-mode=required", true),
        (&*ip, "?ssl-mode=preferred", true),
        (&*ip, "?ssl-mode=verify-identity&ssl-ca=other.pem", false),
        (&*ip, "?ssl-mode=verify-ca&ssl-ca=other.pem", false),
        (&*ip, "?ssl-mode=disabled", false),
        // On the same machine, the connection cannot be intercepted.
        (&*ip, "", false),
    ] {
        let (status, said) = run(host, options);
        assert_eq!(status, is_good, "{options}: {said}");
        assert_eq!(said.contains("192.0.2.1"), is_good, "{options}: {said}");
    }
    let (_, said) = run(&ip, "?ssl-mode=verify-ca&ssl-ca=other.pem");
    assert!(
        said.contains("`ssl-ca` must be the file of the authority"),
        "{said}"
    );
    let (_, said) = run(&ip, "");
    assert!(
        said.contains("?ssl-mode=verify-identity&ssl-ca=FILE"),
        "{said}"
    );
}

/// Certificates of the same authority for another host.
#[test]
fn peers_a_certificate_of_another_host_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let database = MariaDb::start_with(|_| {
        authority(folder.path(), "ca");
        certificate(folder.path(), "server", "DNS:db.example");
        [
            "--ssl-ca=ca.pem",
            "--ssl-cert=server.pem",
            "--ssl-key=server.key",
        ]
        .map(|word| word.replace('=', &format!("={}/", folder.path().display())))
        .to_vec()
    });
    let check = |mode: &str| {
        let ca = folder.path().join("ca.pem");
        let url = format!("{}?ssl-mode={mode}&ssl-ca={}", database.url(), ca.display());
        let config = format!("[database]\nurl = {url:?}\n");
        std::fs::write(folder.path().join("portcullis.toml"), config).expect("it can be written");
        let check = Command::new(binary())
            .arg("check")
            .current_dir(folder.path())
            .output();
        String::from_utf8_lossy(&check.expect("portcullis runs").stdout).into_owned()
    };
    let said = check("verify-ca");
    assert!(
        said.contains("database       mysql:") && !said.contains("database       error"),
        "{said}"
    );
    let said = check("verify-identity");
    assert!(
        said.contains("database       error") && said.contains("must name the host"),
        "{said}"
    );
}

/// Digests of tokens and headers of calls are not readable by other users, whatever the umask.
#[test]
fn files_are_not_readable_by_other_users() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let script = "umask 0; exec \"$0\" address add 200 192.0.2.1";
    let made = Command::new("sh")
        .args(["-c", script])
        .arg(binary())
        .current_dir(folder.path())
        .output()
        .expect("sh runs");
    assert!(made.status.success(), "{made:?}");
    let mode = |name: &str| {
        let metadata = std::fs::metadata(folder.path().join(name)).expect("the file is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("portcullis.db"), 0o600);
    let check = || {
        let check = Command::new(binary())
            .arg("check")
            .current_dir(folder.path())
            .output();
        String::from_utf8_lossy(&check.expect("portcullis runs").stdout).into_owned()
    };
    assert!(!check().contains("chmod"), "{}", check());
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(folder.path().join("portcullis.db"), open).expect("it is ours");
    assert!(
        check().contains("warning: portcullis.db has mode 0644"),
        "{}",
        check()
    );
}

/// The audit is in the database: it has the actions of all hosts, also of one that has ended. While the table is not there, a host lists
/// its own actions, and stores them when the table is back.
#[test]
fn peers_the_audit_is_that_of_all_hosts_of_a_database() {
    let database = MariaDb::start();
    let start = || {
        let builder = Builder::new().database(&database.url());
        builder.set("policy", "file = \"\"").start()
    };
    let actions = |host: &Host| {
        let (status, text) = host.get("/v1/audit").expect("the host answers");
        assert_eq!(status, 200, "{text}");
        let audit: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let entries = audit["entries"].as_array().expect("it is a list");
        let commands: Vec<_> = entries
            .iter()
            .map(|entry| entry["command"].as_str().unwrap_or_default().to_owned())
            .collect();
        let kept = audit["kept"].as_str().unwrap_or_default().to_owned();
        (kept, commands)
    };
    let (one, two) = (start(), start());
    one.write("one.wasm", rejecting(486, "one"));
    one.run("policy push default one.wasm");
    assert_eq!(
        actions(&one),
        ("database".to_owned(), vec!["policy.push".to_owned()])
    );
    drop(one);
    two.run("policy mode default monitor");
    let all = ["policy.mode", "policy.push"].map(str::to_owned).to_vec();
    assert_eq!(actions(&two), ("database".to_owned(), all));

    database.sql("kamailio", "RENAME TABLE portcullis_audit TO away");
    two.run("policy mode default enforce");
    let own = ["policy.mode", "policy.mode"].map(str::to_owned).to_vec();
    assert_eq!(actions(&two), ("memory".to_owned(), own));
    two.wait_for_log("audit_in_memory");
    database.sql("kamailio", "RENAME TABLE away TO portcullis_audit");
    let all = ["policy.mode", "policy.mode", "policy.push"].map(str::to_owned);
    wait::until("the last action is stored", || {
        (actions(&two) == ("database".to_owned(), all.to_vec())).then_some(())
    });
    two.wait_for_log("audit_stored");
}
