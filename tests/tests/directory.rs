//! Stored tenants: created, changed and removed on one host, and present on every other one.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

fn answer(caller: &mut Caller, tenant: &str) -> String {
    let request = caller.request("MESSAGE", &format!("sip:bob@{tenant}.example"));
    let answer = caller.ask(&request);
    answer
        .start_line()
        .trim_start_matches("SIP/2.0 ")
        .to_owned()
}

const ACME: &str = "uri-domains = [\"acme.example\"]\ndefault-code = 480\n";

/// A stored tenant is validated like a section of the file.
#[test]
fn a_tenant_is_created_changed_and_removed() {
    let host = Builder::new()
        .set("tenants.filed", "uri-domains = [\"filed.example\"]")
        .start();
    let mut caller = host.udp(10);
    assert_eq!(answer(&mut caller, "acme"), "401 Address not authorised");
    host.write("acme.toml", ACME);
    let said = host.run("tenant put acme acme.toml");
    assert!(
        said.starts_with("acme: stored, live on all workers here"),
        "{said}"
    );
    assert_eq!(answer(&mut caller, "acme"), "480 Temporarily Unavailable");
    let shown = host.run("tenant show acme");
    assert!(
        shown.starts_with("# acme: stored at ") && shown.ends_with(ACME),
        "{shown}"
    );
    let listed = host.run("tenant list");
    let line = |name: &str| {
        let line = listed.lines().find(|line| line.starts_with(name));
        line.expect("it is listed").to_owned()
    };
    assert!(
        line("acme").contains("database") && line("filed").contains("file"),
        "{listed}"
    );

    // The tenant keeps its policy when it changes.
    host.write("one.wasm", rejecting(486, "one"));
    host.run("policy push acme one.wasm --activate");
    host.write("acme.toml", ACME.replace("480", "481"));
    host.run("tenant put acme acme.toml");
    assert_eq!(answer(&mut caller, "acme"), "486 one");

    for (name, text, expected) in [
        (
            "acme",
            "uri-domains = [\"filed.example\"]",
            "the tenant filed has the same",
        ),
        (
            "acme",
            "uri-domains = [\"acme.example\"]\ncolour = 1",
            "2:1: colour: unknown key",
        ),
        ("acme", "", "no selector"),
        (
            "filed",
            ACME,
            "the tenant filed is in the configuration file",
        ),
    ] {
        host.write("bad.toml", text);
        let said = host.refused(&format!("tenant put {name} bad.toml"));
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(
        answer(&mut caller, "acme"),
        "486 one",
        "nothing has changed"
    );
    let said = host.refused("tenant rm filed");
    assert!(said.contains("is in the configuration file"), "{said}");
    let said = host.refused("tenant rm nobody");
    assert!(
        said.contains("there is no tenant nobody in the database"),
        "{said}"
    );

    // A reload of the file does not affect stored tenants.
    assert_eq!(
        host.run("tenant reload"),
        "Reload OK: added none; changed none; removed none\n"
    );
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    host.run("tenant rm acme");
    assert_eq!(answer(&mut caller, "acme"), "401 Address not authorised");
    assert!(
        host.refused("tenant show acme")
            .contains("there is no tenant acme")
    );
}

/// Reading the database does not permit a push.
#[test]
fn only_the_digest_of_a_stored_tenants_token_is_kept() {
    const TOKEN: &str = "acme-0123456789abcdef";
    let host = Builder::new().start();
    host.write("acme.toml", format!("{ACME}token = \"{TOKEN}\" # ours\n"));
    host.run("tenant put acme acme.toml");
    let shown = host.run("tenant show acme");
    assert!(!shown.contains(TOKEN), "{shown}");
    assert!(
        shown.contains("\ntoken = \"sha256:") && shown.ends_with("\" # ours\n"),
        "{shown}"
    );

    host.write("one.wasm", rejecting(486, "one"));
    let push = |token: &str| host.command_as(token, "policy push acme one.wasm --activate");
    let wrong = push("acme-0123456789abcdeg");
    assert!(!wrong.status.success());
    assert!(push(TOKEN).status.success());
    assert_eq!(answer(&mut host.udp(10), "acme"), "486 one");

    // The output of `show` can be stored again.
    let config: Vec<_> = shown
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    host.write("again.toml", config.join("\n"));
    host.run("tenant put acme again.toml");
    assert!(push(TOKEN).status.success());
    let digest = shown.split('"').find(|text| text.starts_with("sha256:"));
    let digest = push(digest.expect("it is shown"));
    assert!(!digest.status.success(), "the digest is no token");
}

/// On MariaDB: every host has the tenants with their policies, including a host that starts later.
#[test]
fn peers_tenants_are_on_every_host_of_the_database() {
    let database = MariaDb::start();
    let start = |more: &str| {
        let mut builder = Builder::new().database(&database.url());
        if !more.is_empty() {
            builder = builder.set(
                &format!("tenants.{more}"),
                "uri-domains = [\"acme.example\"]",
            );
        }
        builder.start()
    };
    let (one, two) = (start(""), start(""));
    let all_answer = |hosts: &[&Host], expected: &str| {
        for host in hosts {
            let mut caller = host.udp(10);
            let ask = || (answer(&mut caller, "acme") == expected).then_some(());
            wait::until(expected, ask);
        }
    };
    one.write("acme.toml", ACME);
    one.run("tenant put acme acme.toml");
    all_answer(&[&one, &two], "480 Temporarily Unavailable");
    two.write("one.wasm", rejecting(486, "one"));
    two.run("policy push acme one.wasm --activate");
    all_answer(&[&one, &two], "486 one");

    let three = start("");
    assert_eq!(
        answer(&mut three.udp(10), "acme"),
        "486 one",
        "from the first request on"
    );
    // A host whose file has the same selectors runs without the tenant, and reports it.
    let four = start("other");
    let status = four.rpc("portcullis.status", serde_json::json!([]));
    let alert = status["result"]["alerts"].to_string();
    assert!(
        alert.contains("stored tenant acme cannot be used")
            && alert.contains("the tenant other has the same"),
        "{alert}"
    );

    two.run("tenant rm acme");
    all_answer(&[&one, &two, &three], "401 Address not authorised");
    one.run("tenant put acme acme.toml");
    all_answer(&[&one, &two, &three], "486 one");
}
