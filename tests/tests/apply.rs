//! The state of a host as files: compared, applied, exported and pruned, also when a step fails.

#![forbid(unsafe_code)]

use std::fs;
use std::process::Output;

use portcullis_testkit::control::kamctl;
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::sip::Caller;
use serde_json::Value;

const ACME: &str = "uri-domains = [\"acme.example\"]\ndefault-code = 480\n";

const ADDRESSES: &str = "grp,ip_addr,mask,port,tag\n\
    200,192.0.2.0,24,0,office\n\
    200,2001:db8::1,128,5060,\\N\n\
    201,198.51.100.7,32,0,\"a, b\"\n";

const TRUSTED: &str = "[[trusted]]\nsource = \"192.0.2.10\"\nproto = \"any\"\ntag = \"trunk\"\n\n\
    [[trusted]]\nsource = \"192.0.2.11\"\nproto = \"udp\"\nfrom_pattern = \"^sip:.*@acme\"\npriority = 5\n";

const DISPATCHER: &str = "setid,destination,flags,priority,attrs,description\n\
    1,sip:192.0.2.20:5060,0,0,weight=50,North\n\
    1,sip:192.0.2.21:5060,8,0,weight=50,South\n";

/// The number of items of [`write_state`]: a tenant with its policy, three addresses, two peers, two destinations.
const ITEMS: usize = 9;

fn write(host: &Host, name: &str, content: impl AsRef<[u8]>) {
    let path = host.folder().join("state").join(name);
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder can be made");
    fs::write(path, content).expect("a file can be written");
}

fn write_state(host: &Host) {
    write(host, "README.md", "the state of our edge");
    write(host, "tenants/acme.toml", ACME);
    write(host, "policies/acme.wasm", rejecting(486, "one"));
    write(host, "policies.toml", "[acme]\nnote = \"first\"\n");
    write(host, "addresses.csv", ADDRESSES);
    write(host, "trusted.toml", TRUSTED);
    write(host, "dispatcher.csv", DISPATCHER);
}

/// A host, with the folder of its state.
fn start(builder: Builder) -> Host {
    let host = builder.start();
    write_state(&host);
    host
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command and checks its exit code. Returns what it printed on both outputs.
fn run(host: &Host, words: &str, code: i32) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = host.command(words);
    let said = text(&stdout) + &text(&stderr);
    assert_eq!(status.code(), Some(code), "{words}: {said}");
    said
}

/// The plan, in JSON: pairs of action and key.
fn steps(host: &Host, words: &str, code: i32) -> Vec<(String, String)> {
    let output = host.command(&format!("diff -f state --json {words}"));
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    let plan: Value = serde_json::from_slice(&output.stdout).expect("the plan is JSON");
    let all = plan["steps"].as_array().expect("there are steps");
    let word = |step: &Value, name: &str| step[name].as_str().expect("a text").to_owned();
    let steps = all
        .iter()
        .map(|step| (word(step, "action"), word(step, "key")));
    steps.collect()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn answer(caller: &mut Caller, tenant: &str) -> String {
    let request = caller.request("MESSAGE", &format!("sip:bob@{tenant}.example"));
    let answer = caller.ask(&request);
    let line = answer.start_line();
    line.trim_start_matches("SIP/2.0 ").to_owned()
}

/// Changes of others are made by `change`: a tag, and an added row.
fn a_folder_becomes_the_state(
    builder: Builder,
    change_tag: impl Fn(&Host),
    add_row: impl Fn(&Host),
) {
    let host = start(builder);

    // The plan changes nothing.
    let said = run(&host, "diff -f state", 2);
    for line in [
        "+ tenant acme",
        "+ policy acme",
        "+ address 200 192.0.2.0/24",
        "+ address 200 2001:db8::1/128 port 5060",
        "+ trusted peer 192.0.2.11",
        "+ destination 1 sip:192.0.2.20:5060",
        "addresses: 3 to add, 0 to change, 0 to remove, 0 equal",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert_eq!(run(&host, "apply -f state --plan", 2), said);
    let refused = run(&host, "apply -f state", 1);
    assert!(refused.contains("add --yes"), "{refused}");
    assert_eq!(steps(&host, "", 2).len(), ITEMS);

    // The second time, there is nothing to do.
    let said = run(&host, "apply -f state --yes --author ann", 0);
    assert!(
        said.ends_with(&format!("done: {ITEMS} changes\n")),
        "{said}"
    );
    let mut caller = host.udp(10);
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    let said = run(&host, "apply -f state --yes", 0);
    assert!(
        said.contains("no changes") && !said.contains("done"),
        "{said}"
    );
    run(&host, "diff -f state", 0);
    let audit = host.run("audit");
    assert!(
        audit.contains("address.changeRows") && audit.contains("ann"),
        "{audit}"
    );
    let generations = host.run("policy list acme");
    assert_eq!(generations.lines().count(), 2, "one push: {generations}");

    // What others change is shown, and mended.
    change_tag(&host);
    let said = run(&host, "diff -f state", 2);
    let line = "~ address 200 192.0.2.0/24: tag: changed -> office";
    assert!(said.lines().any(|said| said == line), "{said}");
    host.run("trusted rm 192.0.2.10");
    host.run("dispatcher rm 1 sip:192.0.2.21:5060");
    write(
        &host,
        "tenants/acme.toml",
        format!("# ours\n{}", ACME.replace("480", "481")),
    );
    let expected = [
        ("change", "acme"),
        ("change", "200 192.0.2.0/24"),
        ("create", "192.0.2.10"),
        ("create", "1 sip:192.0.2.21:5060"),
    ];
    let expected = expected.map(|(action, key)| (action.to_owned(), key.to_owned()));
    assert_eq!(steps(&host, "", 2), expected);
    run(&host, "apply -f state --yes", 0);
    run(&host, "diff -f state", 0);

    // What only the host has stays until it is pruned, and much is not pruned by accident.
    add_row(&host);
    let said = run(&host, "diff -f state", 0);
    assert!(
        said.contains("note: addresses: 1 on the host and not in the files"),
        "{said}"
    );
    let pruned = vec![("prune".to_owned(), "300 10.9.9.9/32".to_owned())];
    assert_eq!(steps(&host, "--prune", 2), pruned);
    assert_eq!(steps(&host, "--prune=addresses", 2), pruned);
    assert_eq!(steps(&host, "--prune=trusted,dispatcher", 0), []);
    run(&host, "apply -f state --prune --yes", 0);
    for n in 1..=5 {
        host.run(&format!("address add 300 10.9.9.{n}"));
    }
    let said = run(&host, "apply -f state --prune --yes", 1);
    assert!(
        said.contains("nothing was changed: 5 of 8 addresses would be removed"),
        "{said}"
    );
    run(&host, "apply -f state --prune --yes --allow-large-prune", 0);
    run(&host, "diff -f state --prune", 0);
    let said = run(&host, "diff -f state/addresses.csv --prune=trusted", 1);
    assert!(said.contains("describe no trusted"), "{said}");

    // A tenant can be renamed, although two tenants cannot have one domain.
    let section = fs::read(host.folder().join("state/tenants/acme.toml")).expect("it is there");
    fs::remove_file(host.folder().join("state/tenants/acme.toml")).expect("it is there");
    fs::remove_file(host.folder().join("state/policies.toml")).expect("it is there");
    write(&host, "tenants/wile.toml", section);
    let from = host.folder().join("state/policies/acme.wasm");
    fs::rename(from, host.folder().join("state/policies/wile.wasm")).expect("it is there");
    let said = run(&host, "apply -f state --yes", 1);
    assert!(
        said.contains("wile.toml") && said.contains("nothing was changed"),
        "{said}"
    );
    run(&host, "apply -f state --yes --prune", 0);
    run(&host, "diff -f state --prune", 0);
    assert_eq!(answer(&mut caller, "acme"), "486 one");

    // The state as it is, as such a folder.
    let said = run(&host, "export -f copy", 0);
    assert!(said.contains("addresses: 3 rows"), "{said}");
    let policy = fs::read(host.folder().join("copy/policies/wile.wasm"));
    assert_eq!(policy.expect("it is there"), rejecting(486, "one"));
    let copied = fs::read_to_string(host.folder().join("copy/addresses.csv"));
    assert_eq!(sorted(&copied.expect("it is there")), sorted(ADDRESSES));
    run(&host, "diff -f copy --prune", 0);
    let said = run(&host, "export -f copy", 1);
    assert!(said.contains("is not empty"), "{said}");
}

#[test]
fn a_folder_becomes_the_state_in_sqlite() {
    let change_tag = |host: &Host| {
        host.run("address rm 200 192.0.2.0/24");
        host.run("address add 200 192.0.2.0/24 24 0 changed");
    };
    let add_row = |host: &Host| drop(host.run("address add 300 10.9.9.9"));
    a_folder_becomes_the_state(Builder::new(), change_tag, add_row);
}

#[test]
fn peers_a_folder_becomes_the_state_in_mariadb() {
    let database = MariaDb::start();
    let change_tag = |_: &Host| {
        let update = "UPDATE address SET tag = 'changed' WHERE ip_addr = '192.0.2.0'";
        database.sql("kamailio", update);
    };
    let add_row = |host: &Host| {
        let words = ["address", "add", "300", "10.9.9.9", "32"];
        let said = kamctl(host, Some(&database), &words);
        let count = "SELECT COUNT(*) FROM address WHERE grp = 300";
        assert_eq!(database.sql("kamailio", count).trim(), "1", "{said}");
    };
    let builder = Builder::new().database(&database.url());
    a_folder_becomes_the_state(builder, change_tag, add_row);
}

/// A step that fails ends the command. What was done before stays, and the same command does the rest.
#[test]
fn peers_a_failure_in_the_middle_says_what_is_open() {
    let database = MariaDb::start();
    let host = start(Builder::new().database(&database.url()));
    database.sql(
        "kamailio",
        "CREATE TRIGGER refused BEFORE INSERT ON trusted FOR EACH ROW \
         SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no space left'",
    );
    let said = run(&host, "apply -f state --yes", 1);
    for part in [
        "error: trusted peer 192.0.2.10: ",
        "no space left",
        "done: 5 of 9 changes; not done:",
        "the same command does the rest",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let open = [
        ("create", "192.0.2.10"),
        ("create", "192.0.2.11"),
        ("create", "1 sip:192.0.2.20:5060"),
        ("create", "1 sip:192.0.2.21:5060"),
    ];
    let open = open.map(|(action, key)| (action.to_owned(), key.to_owned()));
    assert_eq!(steps(&host, "", 2), open);
    let output = host.command("apply -f state --yes --json");
    assert_eq!(output.status.code(), Some(1));
    let result: Value = serde_json::from_slice(&output.stdout).expect("the result is JSON");
    assert_eq!(result["not_done"].as_array().map(Vec::len), Some(4));
    database.sql("kamailio", "DROP TRIGGER refused");
    let said = run(&host, "apply -f state --yes", 0);
    assert!(said.ends_with("done: 4 changes\n"), "{said}");
    run(&host, "diff -f state --prune", 0);

    // Many changes of addresses are one transaction: all of them are made, or none.
    database.sql(
        "kamailio",
        "CREATE TRIGGER refused BEFORE INSERT ON address FOR EACH ROW \
         SET NEW.mask = IF(NEW.ip_addr = '10.0.0.3', NULL, NEW.mask)",
    );
    let more: String = (1..=4)
        .map(|n| format!("202,10.0.0.{n},32,0,x\n"))
        .collect();
    write(&host, "addresses.csv", format!("{ADDRESSES}{more}"));
    let said = run(&host, "apply -f state --yes", 1);
    assert!(
        said.contains("4 addresses in one transaction, the first of them address 202 10.0.0.1/32"),
        "{said}"
    );
    let count = "SELECT COUNT(*) FROM address";
    assert_eq!(database.sql("kamailio", count).trim(), "3");
}

/// Domains that only one tenant can have change their owners in one run.
#[test]
fn tenants_exchange_domains_and_take_those_of_a_removed_one() {
    let host = Builder::new().start();
    let tenant = |name: &str, domains: &str, code: u16| {
        let text = format!("uri-domains = [{domains}]\ndefault-code = {code}\n");
        write(&host, &format!("tenants/{name}.toml"), text);
    };
    let mut caller = host.udp(10);
    let mut codes = || ["one", "two"].map(|name| answer(&mut caller, name)[..3].to_owned());
    tenant("first", "\"one.example\"", 481);
    tenant("second", "\"two.example\"", 482);
    run(&host, "apply -f state --yes", 0);
    assert_eq!(codes(), ["481", "482"]);
    tenant("first", "\"two.example\"", 481);
    tenant("second", "\"one.example\"", 482);
    let said = run(&host, "apply -f state --yes", 0);
    assert!(said.ends_with("done: 2 changes\n"), "{said}");
    assert_eq!(codes(), ["482", "481"]);
    assert!(host.run("audit").contains("tenants first, second"));
    run(&host, "diff -f state --prune", 0);

    tenant("second", "\"one.example\", \"two.example\"", 482);
    fs::remove_file(host.folder().join("state/tenants/first.toml")).expect("it is there");
    let said = run(&host, "apply -f state --yes", 1);
    assert!(said.contains("first"), "{said}");
    assert_eq!(codes(), ["482", "481"]);
    run(&host, "apply -f state --yes --prune", 0);
    assert_eq!(codes(), ["482", "482"]);
    run(&host, "diff -f state --prune", 0);
}

/// All errors are reported, with file and line, before anything is changed.
#[test]
fn bad_files_change_nothing() {
    let filed = "uri-domains = [\"filed.example\"]";
    let host = start(Builder::new().set("tenants.filed", filed));
    write(
        &host,
        "addresses.csv",
        "grp,ip_addr\n0,10.0.0.1\n200,10.0.0.2\n200,300.1.1.1\n",
    );
    write(
        &host,
        "trusted.toml",
        "[[trusted]]\nsource = \"10.0.0.1\"\nproto = \"smoke\"\n",
    );
    write(&host, "dispatcher.csv", "setid,destination\n1,gateway\n");
    write(
        &host,
        "tenants/broken.toml",
        "uri-domains = [\n\"a\"\ndefault-code = 480\n",
    );
    write(&host, "adresses.csv", "");
    let said = run(&host, "apply -f state --yes", 1);
    for part in [
        "state/addresses.csv:2: ",
        "state/addresses.csv:4: ",
        "state/trusted.toml:1: ",
        "state/dispatcher.csv:2: ",
        "state/tenants/broken.toml:",
        "state/adresses.csv: an unknown file",
        "6 errors in the files: nothing was changed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }

    // What only the host knows is checked before, too.
    write_state(&host);
    fs::remove_file(host.folder().join("state/adresses.csv")).expect("it is there");
    write(
        &host,
        "tenants/broken.toml",
        "uri-domains = [\"acme.example\"]\n",
    );
    write(
        &host,
        "tenants/filed.toml",
        "uri-domains = [\"other.example\"]\n",
    );
    write(
        &host,
        "tenants/odd.toml",
        "uri-domains = [\"odd.example\"]\nunknown-key = 1\n",
    );
    write(&host, "policies/acme.wasm", "no policy");
    write(&host, "policies/nobody.wasm", rejecting(486, "one"));
    write(&host, "policies/default.wasm", rejecting(486, "one"));
    let said = run(&host, "apply -f state --yes", 1);
    for part in [
        "tenants/broken.toml:1:",
        "tenants/filed.toml: the tenant filed is in the configuration file",
        "tenants/odd.toml:2:1: ",
        "policies.toml:1: ",
        "nobody.wasm: the host has no seat nobody",
        "default.wasm: the seat default follows the file",
        "6 errors in the files: nothing was changed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let trusted = host.run("trusted show");
    assert!(!trusted.contains("192.0.2.10"), "{trusted}");
    let missing = run(&host, "diff -f nowhere", 1);
    assert!(missing.contains("cannot read nowhere"), "{missing}");
}
