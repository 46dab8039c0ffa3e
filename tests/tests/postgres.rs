//! A host on PostgreSQL: the example of the README, commands that write, policies and tenants of several hosts, certificates.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis_testkit::callee::Callee;
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::documents::privileges;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::postgres::Postgres;
use portcullis_testkit::{binary, wait};

const CALLER: u8 = 10;

/// The answer to a request, without the version of SIP.
fn answer(host: &Host) -> String {
    let mut caller = host.udp(CALLER);
    let answer = caller.ask(&caller.request("MESSAGE", "sip:bob@acme.example"));
    answer
        .start_line()
        .trim_start_matches("SIP/2.0 ")
        .to_owned()
}

fn all_answer(hosts: &[&Host], expected: &str) {
    for host in hosts {
        wait::until(expected, || (answer(host) == expected).then_some(()));
    }
}

fn write(host: &Host, name: &str, bytes: impl AsRef<[u8]>) {
    std::fs::write(host.folder().join(name), bytes).expect("a file can be written");
}

/// Runs a command with the configuration in this directory.
fn run(folder: &Path, words: &[&str], input: &str) -> Output {
    use std::io::Write as _;

    let mut child = Command::new(binary())
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portcullis runs");
    let mut pipe = child.stdin.take().expect("the input is a pipe");
    pipe.write_all(input.as_bytes()).expect("it is read");
    drop(pipe);
    child.wait_with_output().expect("portcullis ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// With Kamailio's own tables, and nothing else in the database.
#[test]
fn peers_the_example_with_postgresql() {
    let database = Postgres::start();
    let builder = Builder::new().database(&database.url());
    let caller = builder.lease().ip(CALLER);
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let next_hop = format!("next-hop = \"sip:{}\"", callee.addr());
    let host = builder.set("relay", &next_hop).start();
    assert_eq!(answer(&host), "401 Address not authorised");
    assert!(
        host.run("check")
            .contains("changes detected by pg_current_snapshot() and the counters of the table"),
        "{}",
        host.run("check")
    );
    let known = |expected: bool| {
        wait::until("the table is read", || {
            let answer = answer(&host);
            assert!(matches!(&answer[..4], "200 " | "401 "), "{answer}");
            (answer.starts_with("200 ") == expected).then_some(())
        });
    };
    // Other tools write the table.
    database.sql(
        "kamailio",
        &format!("INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES (200, '{caller}', 32, 0, 'Office');"),
    );
    known(true);
    database.sql("kamailio", "DELETE FROM address;");
    known(false);
    // So do our own commands.
    host.run(&format!("address add 200 {caller}"));
    known(true);
    assert!(host.run("address show").contains(&caller.to_string()));
    host.run(&format!("address rm 200 {caller}"));
    known(false);
    host.run("trusted add 192.0.2.1 any");
    assert!(host.run("trusted show").contains("192.0.2.1"));
    host.run("trusted rm 192.0.2.1");
    assert_eq!(
        database.sql("kamailio", "SELECT COUNT(*) FROM trusted;"),
        "0\n"
    );
}

#[test]
fn peers_a_table_moves_to_postgresql_and_back() {
    let database = Postgres::start();
    database.sql(
        "postgres",
        "DROP DATABASE kamailio; CREATE DATABASE kamailio OWNER kamailio;",
    );
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(
        folder.path().join("portcullis.toml"),
        format!("[database]\nurl = {:?}\n", database.url()),
    )
    .expect("a configuration can be written");
    let run = |words: &[&str], input: &str| run(folder.path(), words, input);

    // The script of a dry run is equivalent to the migration.
    let plan = text(&run(&["db", "migrate", "--dry-run"], "").stdout);
    let count = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public';";
    assert_eq!(database.sql("kamailio", count), "0\n", "nothing was made");
    database.sql("kamailio", &format!("SET ROLE kamailio;\n{plan}"));
    assert_eq!(database.sql("kamailio", count), "11\n");
    let said = text(&run(&["db", "migrate"], "").stdout);
    assert_eq!(said.matches("was not changed\n").count(), 11, "{said}");
    database.sql("kamailio", "DROP TABLE trusted;");
    let said = text(&run(&["db", "migrate"], "").stdout);
    assert!(said.contains("\ncreated table `trusted`\n"), "{said}");

    let rows = "grp,ip_addr,mask,port,tag\n200,192.168.1.0,24,5060,\"Office, old\"\n250,10.8.203.139,32,5060,\n\
                1,2001:db8::1,128,0,\\N\n";
    let output = run(&["address", "import", "--format", "csv", "-"], rows);
    assert!(output.status.success(), "{output:?}");
    for format in ["csv", "jsonl"] {
        let file = text(&run(&["address", "export", "--format", format], "").stdout);
        let words = ["address", "import", "--replace", "--format", format, "-"];
        let said = text(&run(&words, &file).stdout);
        assert!(
            said.starts_with("added 3 rows to postgres:") && said.ends_with("removed 3 rows\n"),
            "{said}"
        );
    }
    assert_eq!(text(&run(&["address", "export"], "").stdout), rows);
    let output = run(
        &["address", "import", "--format", "csv", "-"],
        "grp,ip_addr,mask,port\n200,10.0.0.1,32,40000\n",
    );
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(said.contains("ALTER COLUMN port TYPE integer"), "{said}");
}

/// Policies and tenants stored by one host are on all hosts, including one that starts later, and while the database is unreachable.
#[test]
fn peers_policies_and_tenants_are_on_every_host_of_the_database() {
    const ACME: &str = "uri-domains = [\"acme.example\"]\n";
    let mut database = Postgres::start();
    let start = || Builder::new().database(&database.url()).start();
    let (one, two) = (start(), start());
    one.wait_for_log("event=\"policies_in_memory\"");
    one.run("db migrate");
    write(&one, "acme.toml", ACME);
    wait::until("the tables are seen", || {
        one.command("tenant put acme acme.toml")
            .status
            .success()
            .then_some(())
    });
    write(&one, "one.wasm", rejecting(486, "one"));
    write(&two, "two.wasm", rejecting(487, "two"));
    wait::until("the tenant is everywhere", || {
        two.command("policy push acme two.wasm")
            .status
            .success()
            .then_some(())
    });
    one.run("policy push acme one.wasm --activate --author ann");
    all_answer(&[&one, &two], "486 one");
    two.run("policy activate acme 1");
    all_answer(&[&one, &two], "487 two");
    one.run("policy rollback acme");
    all_answer(&[&one, &two], "486 one");
    let listed = two.run("policy list acme");
    assert!(
        listed.contains("ann") && listed.contains("previous"),
        "{listed}"
    );

    let three = start();
    assert_eq!(answer(&three), "486 one", "from the first request on");
    three.run("policy pull acme --output pulled.wasm");
    let pulled = std::fs::read(three.folder().join("pulled.wasm")).expect("it was written");
    assert_eq!(pulled, rejecting(486, "one"));

    database.die();
    three.wait_for_log("event=\"database_unreachable\"");
    assert_eq!(answer(&three), "486 one");
    let refused = three.command("policy push acme pulled.wasm");
    assert!(!refused.status.success());
    let said = text(&refused.stderr);
    assert!(
        said.contains("cannot reach the database postgres://kamailio@"),
        "{said}"
    );
    assert!(!said.contains("kamailiorw"), "{said}");
    database.up();
    wait::until("the database is back", || {
        three
            .command("policy activate acme 1")
            .status
            .success()
            .then_some(())
    });
    all_answer(&[&one, &two, &three], "487 two");
    two.run("tenant rm acme");
    all_answer(&[&one, &two, &three], "401 Address not authorised");
}

/// The documented privileges are sufficient.
#[test]
fn peers_the_documented_privileges_are_sufficient() {
    let database = Postgres::start();
    let [to_read, to_change, to_push] = privileges("PostgreSQL", "reader");
    database.sql(
        "kamailio",
        &format!("CREATE ROLE reader LOGIN PASSWORD 'x'; {to_read}"),
    );
    let host = Builder::new()
        .database(&format!("postgres://reader:x@{}/kamailio", database.addr()))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    host.wait_for_log("event=\"policies_in_memory\"");
    assert_eq!(host.complaints(), [""; 0]);
    let said = host.run("check");
    assert!(said.ends_with("no errors\n"), "{said}");
    write(&host, "one.wasm", rejecting(486, "one"));
    host.run("policy push acme one.wasm --activate");
    // Tables that another user has created cannot be used until access is granted.
    let plan = "SET ROLE kamailio;\n".to_owned() + &plan(&database);
    database.sql("kamailio", &plan);
    let said = host.run("check");
    assert!(
        said.contains("GRANT SELECT, INSERT, UPDATE, DELETE"),
        "{said}"
    );
    database.sql("kamailio", &to_push);
    host.wait_for_log("event=\"policies_adopted\"");
    assert_eq!(
        database.sql("kamailio", "SELECT seat, active FROM portcullis_seat;"),
        "acme|1\n"
    );
    let row = "address add 200 192.0.2.1";
    let refused = host.command(row);
    let said = text(&refused.stderr);
    assert!(
        said.contains("permission denied for table address"),
        "{said}"
    );
    database.sql("kamailio", &to_change);
    host.run(row);
    host.run("address rm 200 192.0.2.1");
    host.changes_a_destination();
}

/// The statements of a migration.
fn plan(database: &Postgres) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let config = format!("[database]\nurl = {:?}\n", database.url());
    std::fs::write(folder.path().join("portcullis.toml"), config).expect("it can be written");
    text(&run(folder.path(), &["db", "migrate", "--dry-run"], "").stdout)
}

/// The certificate is verified with the authority in the URL, and the host name in the URL.
#[test]
fn peers_connections_to_postgresql_are_encrypted_and_verified() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let database = Postgres::start_with(|server, addr| {
        authority(folder.path(), "ca");
        authority(folder.path(), "other");
        certificate(folder.path(), "server", &format!("IP:{}", addr.ip()));
        for name in ["server.key", "server.pem"] {
            std::fs::copy(folder.path().join(name), server.join(name)).expect("it can be copied");
        }
        let file = |name: &str| server.join(name).display().to_string();
        [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", file("server.pem")),
            format!("ssl_key_file={}", file("server.key")),
        ]
        .into_iter()
        .flat_map(|word| ["-c".to_owned(), word])
        .collect()
    });
    database.sql(
        "kamailio",
        "INSERT INTO address (grp, ip_addr) VALUES (200, '192.0.2.1');",
    );
    let connect = |host: &str, options: &str| {
        let ca = format!("{}/", folder.path().display());
        let options = options.replace("=FILE:", &format!("={ca}"));
        let url = format!(
            "postgres://kamailio:kamailiorw@{host}:{}/kamailio{options}",
            database.addr().port()
        );
        let config = format!("[database]\nurl = {url:?}\n");
        std::fs::write(folder.path().join("portcullis.toml"), config).expect("it can be written");
        let output = run(folder.path(), &["address", "show"], "");
        (
            output.status.success(),
            text(&[output.stdout, output.stderr].concat()),
        )
    };
    let ip = database.addr().ip().to_string();
    // From here on, only encrypted connections are accepted.
    let hba = "SELECT setting FROM pg_settings WHERE name = 'hba_file';";
    let hba = database.sql("kamailio", hba);
    let rules = "local all all trust\nhostssl all all all scram-sha-256\n";
    std::fs::write(hba.trim(), rules).expect("the server's file can be written");
    database.sql("kamailio", "SELECT pg_reload_conf();");
    wait::until("the server has read it", || {
        (!connect(&ip, "").0).then_some(())
    });
    for (options, is_good) in [
        ("?ssl-mode=verify-identity&ssl-ca=FILE:ca.pem", true),
        ("?sslmode=verify-full&sslrootcert=FILE:ca.pem", true),
        ("?ssl-mode=verify-ca&ssl-ca=FILE:ca.pem", true),
        ("?ssl-mode=required", true),
        ("?ssl-mode=preferred", true),
        ("?ssl-mode=verify-identity&ssl-ca=FILE:other.pem", false),
        ("?ssl-mode=verify-ca&ssl-ca=FILE:other.pem", false),
        ("?ssl-mode=disabled", false),
    ] {
        let (status, said) = connect(&ip, options);
        assert_eq!(status, is_good, "{options}: {said}");
        assert_eq!(said.contains("192.0.2.1"), is_good, "{options}: {said}");
    }
    let (_, said) = connect(&ip, "?ssl-mode=verify-ca&ssl-ca=FILE:other.pem");
    assert!(
        said.contains("`ssl-ca` must be the file of the authority"),
        "{said}"
    );
    let (_, said) = connect(&ip, "");
    assert!(said.contains("hostssl"), "{said}");
}
