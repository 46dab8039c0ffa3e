//! The example of the README, end to end: known address groups are relayed, all other sources get 401, over UDP and TCP, from SQLite and
//! MariaDB, and a change of the table is detected without a reload.

#![forbid(unsafe_code)]

use std::process::Command;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

const OFFICE: u8 = 10;
const TEST_SERVER: u8 = 20;
const STRANGER: u8 = 30;

fn start(database: Option<&MariaDb>) -> (Host, Callee) {
    let builder = Builder::new();
    let (office, server) = (builder.lease().ip(OFFICE), builder.lease().ip(TEST_SERVER));
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let mut builder = builder.set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()));
    if let Some(database) = database {
        builder = builder.database(&database.url());
    }
    let host = builder
        .row(&format!("200 {office} 32 0 OfficeSubnet"))
        .row(&format!("250 {server} 32 5060 TestServer"))
        .start();
    (host, callee)
}

fn assert_relayed(caller: &mut Caller, callee: &Callee) {
    let request = caller
        .request("MESSAGE", "sip:bob@example.com")
        .body("hello");
    let answer = caller.ask(&request);
    assert_eq!(answer.code(), 200, "{}", answer.start_line());
    assert_eq!(answer.headers("Via").len(), 1, "our Via is taken off again");
    let seen = callee.next();
    assert_eq!(seen.first_word(), "MESSAGE");
    assert_eq!(seen.header("Max-Forwards"), Some("69"));
    assert_eq!(seen.headers("Via").len(), 2);
    assert_eq!(seen.body(), b"hello");
}

fn assert_rejected(caller: &mut Caller, callee: &Callee) {
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    let answer = caller.ask(&request);
    assert_eq!(answer.start_line(), "SIP/2.0 401 Address not authorised");
    assert!(answer.header("To").is_some_and(|to| to.contains(";tag=")));
    assert_eq!(answer.header("CSeq"), Some("1 MESSAGE"));
    assert!(callee.saw_nothing_more());
}

fn the_page(host: &Host, callee: &Callee) {
    assert_relayed(&mut host.udp(OFFICE), callee);
    assert_relayed(&mut host.tcp(OFFICE), callee);
    let server = host.lease().addr(TEST_SERVER, 5060);
    assert_relayed(&mut Caller::udp_from(server, host.sip()), callee);
    // The row of the test server has port 5060: the same address with another port is an unknown source.
    assert_rejected(&mut host.udp(TEST_SERVER), callee);
    assert_rejected(&mut host.tcp(TEST_SERVER), callee);
    assert_rejected(&mut host.udp(STRANGER), callee);
    assert_rejected(&mut host.tcp(STRANGER), callee);
    host.wait_for_log("Coming from address group 200");
    host.wait_for_log("Coming from address group 250");
}

#[test]
fn the_page_with_sqlite() {
    let (host, callee) = start(None);
    the_page(&host, &callee);
}

#[test]
fn peers_the_page_with_mariadb() {
    let database = MariaDb::start();
    let (host, callee) = start(Some(&database));
    the_page(&host, &callee);
}

#[test]
fn every_worker_gives_the_same_verdict() {
    let builder = Builder::new().workers(2);
    let office = builder.lease().ip(OFFICE);
    let callee = Callee::start(builder.lease().addr(3, 5080));
    let host = builder
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .row(&format!("200 {office} 32"))
        .start();
    // Each caller is a flow of its own, so that the kernel spreads them over the workers.
    for _ in 0..16 {
        assert_relayed(&mut host.udp(OFFICE), &callee);
        assert_relayed(&mut host.tcp(OFFICE), &callee);
        assert_rejected(&mut host.udp(STRANGER), &callee);
    }
}

#[test]
fn options_to_the_host_is_answered_by_the_host() {
    let (host, callee) = start(None);
    for mut caller in [host.udp(STRANGER), host.tcp(STRANGER)] {
        let request = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
        let answer = caller.ask(&request);
        assert_eq!(answer.code(), 200);
        assert!(answer.header("Allow").is_some() || answer.header("Accept").is_some());
    }
    assert!(callee.saw_nothing_more());
}

#[test]
fn the_ack_to_our_reject_is_absorbed() {
    let (host, callee) = start(None);
    let mut caller = host.udp(STRANGER);
    let invite = caller.request("INVITE", "sip:bob@example.com");
    let answer = caller.ask(&invite);
    assert_eq!(answer.code(), 401);
    let calls = host.metric("portcullis_policy_calls_total", &[]);
    caller.send(&invite.ack_for(&answer).bytes());
    // A retransmitted INVITE behind the ACK gets the same tag, and its answer shows that the ACK has been handled.
    let again = caller.ask(&invite);
    assert_eq!(again.header("To"), answer.header("To"));
    assert_eq!(
        host.metric("portcullis_policy_calls_total", &[]),
        calls + 1.0,
        "the ACK does not reach the policy"
    );
    assert!(caller.hears_nothing(), "an ACK gets no response");
    assert!(callee.saw_nothing_more());
}

fn wait_for_code(host: &Host, source: u8, code: u16) {
    let mut caller = host.udp(source);
    wait::until("the table's change is seen", || {
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        (caller.ask(&request).code() == code).then_some(())
    });
}

#[test]
fn a_running_host_detects_added_and_removed_rows() {
    let (host, _callee) = start(None);
    let stranger = host.lease().ip(STRANGER);
    wait_for_code(&host, STRANGER, 401);
    let said = host.run(&format!("address add 200 {stranger}"));
    assert!(said.contains(&stranger.to_string()), "{said}");
    wait_for_code(&host, STRANGER, 200);
    host.run(&format!("address rm 200 {stranger}"));
    wait_for_code(&host, STRANGER, 401);
}

#[test]
fn a_reload_by_command_reports_counts() {
    let (host, _callee) = start(None);
    let said = host.run("address reload");
    assert!(said.starts_with("Reload OK"), "{said}");
    assert!(said.contains('2'), "both rows are counted: {said}");
    let answer = host.rpc("permissions.addressReload", serde_json::json!([]));
    assert_eq!(answer["result"], "Reload OK");
}

#[test]
fn peers_the_host_detects_rows_added_by_kamctl() {
    let database = MariaDb::start();
    let (host, _callee) = start(Some(&database));
    let stranger = host.lease().ip(STRANGER);
    wait_for_code(&host, STRANGER, 401);
    let addr = database.addr();
    std::fs::write(
        host.folder().join(".kamctlrc"),
        format!(
            "DBENGINE=MYSQL\nDBHOST={}\nDBPORT={}\nDBNAME=kamailio\nDBRWUSER=kamailio\nDBRWPW=kamailiorw\n\
             DBROUSER=kamailioro\nDBROPW=kamailioro\n",
            addr.ip(),
            addr.port()
        ),
    )
    .expect("kamctl's settings can be written");
    let kamctl = |words: &str| {
        let output = Command::new("kamctl")
            .args(words.split_whitespace())
            .env("HOME", host.folder())
            .output()
            .expect("kamctl is installed: apt-get install kamailio");
        assert!(
            output.status.success(),
            "kamctl {words}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    };
    kamctl(&format!("address add 200 {stranger} 32 0 FromKamctl"));
    wait_for_code(&host, STRANGER, 200);
    kamctl(&format!("address rm 200 {stranger}"));
    wait_for_code(&host, STRANGER, 401);
}
