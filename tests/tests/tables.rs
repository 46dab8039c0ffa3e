//! Sources of the rows: an address file instead of the table, tables with other names and a read-only user, exports and imports.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::{binary, wait};
use serde_json::json;

const CALLER: u8 = 10;
const OTHER: u8 = 20;

/// The host has no next hop: an allowed source gets 403, an unknown one 401, and no callee is needed.
fn wait_for_code(host: &Host, source: u8, expected: u16) {
    wait::until(&format!("the answer is {expected}"), || {
        let mut caller = host.udp(source);
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        (caller.ask(&request).code() == expected).then_some(())
    });
}

fn run(folder: &Path, words: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portcullis runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that refuses before it reads closes the pipe.
    let _closed = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("portcullis ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("portcullis prints UTF-8")
}

#[test]
fn an_address_file_replaces_the_table() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let file = folder.path().join("address.list");
    let builder = Builder::new().set("database", &format!("address-file = {file:?}"));
    let (caller, other) = (builder.lease().ip(CALLER), builder.lease().ip(OTHER));
    std::fs::write(&file, format!("200 {caller} # the office\n")).expect("a file can be written");
    let host = builder.start();
    wait_for_code(&host, CALLER, 403);
    wait_for_code(&host, OTHER, 401);
    host.wait_for_log("changes detected by size and times of the file");
    // Trusted peers, policies and tenants still use the database.
    assert_eq!(host.complaints(), [""; 0]);
    let status = host.rpc("portcullis.status", json!([]));
    let addresses = &status["result"]["addresses"];
    assert_eq!(addresses["address_file"], json!(file));
    assert_eq!(addresses["changes_seen_by"], "size and times of the file");

    std::fs::write(&file, format!("200 {other}\n0 {caller}\n")).expect("a file can be written");
    wait_for_code(&host, OTHER, 403);
    wait_for_code(&host, CALLER, 401);
    let said = host.run("address reload");
    let bad = format!("{}:2:1: grp 0 is not a group", file.display());
    assert!(said.contains(&bad), "{said}");
    assert!(host.run("address show").contains(&other.to_string()));

    // Without a valid line, the old table stays, and the reply gives the reason.
    std::fs::write(&file, format!("{other} 200\n")).expect("a file can be written");
    let output = host.command("address reload");
    assert!(!output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.contains("no valid line") && said.contains("address.list:1:1: grp"),
        "{said}"
    );
    wait_for_code(&host, OTHER, 403);
    for words in [
        format!("address add 200 {caller}"),
        format!("address rm 200 {other}"),
    ] {
        let output = host.command(&words);
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains("address.list"), "{words}");
    }
}

#[test]
fn peers_tables_with_other_names_and_a_read_only_user() {
    let database = MariaDb::start();
    database.sql(
        "kamailio",
        "RENAME TABLE version TO versions; CREATE TABLE trunks (customer INT, source VARCHAR(50), label INT); \
         INSERT INTO versions (table_name, table_version) VALUES ('sip_addresses', 6); \
         CREATE VIEW sip_addresses AS SELECT customer, source, 32 AS mask, 0 AS port, label FROM trunks; \
         CREATE USER 'reader'@'%' IDENTIFIED BY 'x'; GRANT SELECT ON kamailio.versions TO 'reader'@'%'; \
         GRANT SELECT ON kamailio.sip_addresses TO 'reader'@'%'",
    );
    let builder = Builder::new()
        .database(&format!("mysql://reader:x@{}/kamailio", database.addr()))
        .set("database", "version-table = \"versions\"")
        .set("database", "address-table = \"sip_addresses\"")
        .set("database", "grp-col = \"customer\"")
        .set("database", "ip-addr-col = \"source\"")
        .set("database", "tag-col = \"label\"");
    let (caller, other) = (builder.lease().ip(CALLER), builder.lease().ip(OTHER));
    database.sql(
        "kamailio",
        &format!("INSERT INTO trunks VALUES (200, '{caller}', 7), (0, '{other}', NULL)"),
    );
    let host = builder.start();
    wait_for_code(&host, CALLER, 403);
    wait_for_code(&host, OTHER, 401);
    let said = host.run("address reload");
    assert!(
        said.contains("row 2, column `customer`: grp 0 is not a group"),
        "{said}"
    );
    database.sql("kamailio", "UPDATE trunks SET customer = 250");
    wait_for_code(&host, OTHER, 403);
    let said = text(&host.command("check").stdout);
    assert!(
        said.contains("changes detected by reading it again (the server knows"),
        "{said}"
    );
    let output = host.command(&format!("address add 200 {caller}"));
    assert!(text(&output.stderr).contains("denied"), "{output:?}");
}

#[test]
fn peers_a_table_moves_to_mariadb_and_back() {
    let database = MariaDb::start();
    database.sql(
        "kamailio",
        "DROP DATABASE kamailio; CREATE DATABASE kamailio",
    );
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    std::fs::write(
        folder.path().join("portcullis.toml"),
        format!("[database]\nurl = {:?}\n", database.url()),
    )
    .expect("a configuration can be written");
    let run = |words: &[&str], input: &str| run(folder.path(), words, input);
    let text = |bytes: &[u8]| text(bytes);

    // The script of a dry run is equivalent to the migration.
    let plan = text(&run(&["db", "migrate", "--dry-run"], "").stdout);
    assert_eq!(
        database.sql("kamailio", "SHOW TABLES"),
        "",
        "nothing was made"
    );
    database.sql("kamailio", &plan);
    let said = text(&run(&["db", "migrate"], "").stdout);
    let tables = plan.matches("CREATE TABLE").count();
    assert!(tables >= 11, "{plan}");
    assert_eq!(said.matches("was not changed\n").count(), tables, "{said}");
    database.sql("kamailio", "DROP TABLE trusted");
    let said = text(&run(&["db", "migrate"], "").stdout);
    assert!(said.contains("\ncreated table `trusted`\n"), "{said}");

    let rows = "grp,ip_addr,mask,port,tag\n200,192.168.1.0,24,5060,\"Office, old\"\n250,10.8.203.139,32,5060,\n\
                1,2001:db8::1,128,0,\\N\n";
    let bad = format!("{rows}200,10.0.0.0/8,32,0,\n0,10.0.0.1,32,0,\n");
    let output = run(&["address", "import", "--format", "csv", "-"], &bad);
    assert!(!output.status.success());
    let said = text(&output.stderr);
    for line in [
        "standard input:5: ip_addr \"10.0.0.0/8\" is a network in CIDR form",
        "standard input:6: grp 0 is not a group",
        "2 rows of standard input cannot be used: nothing was imported",
    ] {
        assert!(said.contains(line), "{line} is not in: {said}");
    }
    assert_eq!(
        database.sql("kamailio", "SELECT COUNT(*) FROM address"),
        "0\n"
    );
    let output = run(&["address", "import", "--format", "csv", "-"], rows);
    assert!(output.status.success(), "{output:?}");
    for format in ["csv", "jsonl"] {
        let file = text(&run(&["address", "export", "--format", format], "").stdout);
        let words = ["address", "import", "--replace", "--format", format, "-"];
        let said = text(&run(&words, &file).stdout);
        assert!(
            said.starts_with("added 3 rows to mysql:") && said.ends_with("removed 3 rows\n"),
            "{said}"
        );
    }
    assert_eq!(text(&run(&["address", "export"], "").stdout), rows);
    let output = run(&["address", "export", "--format", "address-file"], "");
    assert!(!output.status.success());
    assert_eq!(
        text(&output.stdout),
        "250 10.8.203.139 32 5060\n1 2001:db8::1 128 0\n"
    );
    let said = text(&output.stderr);
    for line in [
        "left out: group 200, address 192.168.1.0: tag \"Office, old\"",
        "1 row with an empty tag",
        "1 row left out",
    ] {
        assert!(said.contains(line), "{line} is not in: {said}");
    }
}
