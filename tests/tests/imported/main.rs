//! Policies that `portcullis import --policy` makes: the sources are those of today's command, and each decides as Kamailio does with the
//! configuration that it was made of.

#![forbid(unsafe_code)]

mod failures;
mod gateways;

use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::host::Builder;
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::sip::{Caller, Message};
use portcullis_testkit::{binary, policy, root};

const NAMES: [&str; 8] = [
    "edge",
    "failover",
    "fork",
    "gateways",
    "groups",
    "numbers",
    "rewrite",
    "variables",
];

/// A request as `METHOD USER`, and further header fields. `From` and `To` replace those of the request.
type Question = (&'static str, &'static [&'static str]);

const EDGE: &[Question] = &[
    ("INVITE 100", &[]),
    ("INVITE 100", &["User-Agent: Friendly-Scanner"]),
    ("INVITE 100", &["User-Agent: my sipvicious"]),
    ("INVITE 100", &["User-Agent: Phone"]),
    ("INVITE 100", &["X-Scanner: yes"]),
    ("INVITE 100", &["X-Blocked: 1"]),
    ("REGISTER ", &[]),
    ("PUBLISH 100", &[]),
    ("MESSAGE 100", &[]),
    ("OPTIONS 100", &[]),
];

const NUMBERS: &[Question] = &[
    ("INVITE 112", &[]),
    ("INVITE 1120", &[]),
    ("INVITE +4930123456", &[]),
    ("INVITE 4930123456", &[]),
    ("INVITE 0049", &[]),
    ("INVITE bob", &[]),
    ("INVITE Bobby", &[]),
    ("INVITE BOB", &["From: <sip:Alice@example.com>;tag=1"]),
    ("INVITE bob", &["From: <sip:alicia@example.com>;tag=1"]),
    ("INVITE x!y", &[]),
    ("INVITE X.Y", &[]),
    ("INVITE ababcxddd", &[]),
    ("INVITE cd", &[]),
    ("INVITE abc", &[]),
    ("INVITE Dave", &[]),
    ("INVITE dave", &[]),
    ("INVITE erin", &[]),
    ("MESSAGE x", &["From: <sip:a@example.com>;tag=1"]),
    ("INVITE x7", &[]),
    ("INVITE zzz", &[]),
];

const REWRITE: &[Question] = &[
    ("INVITE 004930", &["X-Old: 1"]),
    ("INVITE 030", &[]),
    ("INVITE 07", &["X-Old: 1", "X-Old: 2"]),
    ("INVITE away", &[]),
    ("INVITE dst", &[]),
    ("INVITE bob", &["X-Old: 1"]),
    ("MESSAGE +4930", &[]),
];

const VARIABLES: &[Question] = &[
    ("INVITE bob", &[]),
    ("INVITE bob", &["X-Mark: 1"]),
    ("INVITE 030", &[]),
    ("INVITE 030", &["X-Mark: 1"]),
    ("INVITE 0030", &[]),
    ("INVITE 0030", &["X-Mark: 1"]),
    ("MESSAGE bob", &[]),
    ("MESSAGE 07", &[]),
    ("INVITE 100", &[]),
    ("INVITE 101", &[]),
    ("INVITE 102", &[]),
    ("INVITE 10", &[]),
    // Nothing of the last request is left.
    ("INVITE bob", &[]),
];

const GROUPS: &[Question] = &[("INVITE 100", &[]), ("MESSAGE 100", &[])];

fn source(name: &str) -> PathBuf {
    root().join(format!("tests/imported/examples/{name}.rs"))
}

fn configuration(name: &str) -> PathBuf {
    root().join(format!("tests/imported/cfg/{name}.cfg"))
}

/// The policy of this configuration.
fn compiled(name: &str) -> PathBuf {
    let wasm = policy("address-acl");
    let wasm = wasm.parent().expect("policies are in a folder");
    wasm.join("imported").join(name).with_extension("wasm")
}

/// What `import --policy` writes for this configuration today.
fn imported(name: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let output = Command::new(binary())
        .arg("import")
        .arg(configuration(name))
        .arg("--policy")
        .arg(folder.path().join(name))
        .output()
        .expect("portcullis runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("translated, nothing left"), "{said}");
    let text = std::fs::read_to_string(folder.path().join(name).join("src/lib.rs"));
    text.expect("the policy is written")
}

/// The text without what rustfmt changes.
fn bare(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_whitespace() && *c != ',');
    kept.collect()
}

#[test]
fn the_sources_are_those_of_the_command() {
    for name in NAMES {
        let fresh = imported(name);
        if std::env::var_os("PORTCULLIS_WRITE").is_some() {
            std::fs::write(source(name), &fresh).expect("the source can be written");
        }
        let written = std::fs::read_to_string(source(name)).expect("the source of the policy");
        assert_eq!(
            bare(&written),
            bare(&fresh),
            "{name}: PORTCULLIS_WRITE=1 cargo nextest run -p portcullis-tests --test imported, then cargo fmt"
        );
    }
}

/// What became of a request: the response, and what the callee received.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    response: Option<String>,
    retry_after: Option<String>,
    request: Option<String>,
    headers: Vec<String>,
}

/// Sends the request; `wait` is how the caller waits for the response.
fn outcome(
    caller: &mut Caller,
    callee: &Callee,
    (line, headers): Question,
    wait: fn(&mut Caller) -> Option<Message>,
) -> Outcome {
    let (method, user) = line.split_once(' ').expect("a method");
    let to = match user {
        "" => format!("sip:{}", callee.addr()),
        user => format!("sip:{user}@{}", callee.addr()),
    };
    let mut request = caller.request(method, &to);
    for header in headers {
        match header.strip_prefix("From: ") {
            Some(from) => {
                let (from, _) = from.split_once(";tag").expect("a tag");
                request.from = from.to_owned();
            }
            None => request = request.header(header),
        }
    }
    caller.send(&request.bytes());
    // A request that is answered locally never reaches the callee, and one that reaches the callee is answered 200.
    let response = wait(caller);
    let relayed = response
        .as_ref()
        .filter(|message| message.start_line().starts_with("SIP/2.0 200"))
        .map(|_| callee.next());
    Outcome {
        response: response
            .as_ref()
            .map(|message| message.start_line().to_owned()),
        retry_after: response
            .as_ref()
            .and_then(|message| message.header("Retry-After").map(str::to_owned)),
        request: relayed
            .as_ref()
            .map(|message| message.start_line().to_owned()),
        headers: relayed
            .iter()
            .flat_map(|message| ["X-Number", "X-Old"].map(|name| message.headers(name).join("|")))
            .collect(),
    }
}

/// Asks both servers all questions, from a known address and from two others.
fn compare(name: &str, questions: &[Question]) {
    let database = MariaDb::start();
    let builder = Builder::new();
    let lease = builder.lease();
    let (listen, target) = (lease.addr(4, 5060), lease.addr(5, 5060));
    let domain = target.ip();
    let [known, second] = [10, 11].map(|host| lease.ip(host));
    let host = builder
        .policy(compiled(name))
        .database(&database.url())
        .row(&format!("200 {known} 32 0"))
        .row(&format!("250 {second} 32 0"))
        .set("relay", &format!("domains = [\"{domain}\"]"))
        .start();
    let kamailio = Kamailio::start(
        &std::fs::read_to_string(configuration(name)).expect("the configuration"),
        &[("LISTEN", listen.to_string()), ("DATABASE", database.url())],
        &[],
    );
    kamailio.reload().expect("Kamailio loads the table");
    let callee = Callee::start(target);
    for source in [10, 11, 12] {
        for question in questions {
            let mut ours = host.udp(source);
            let mut theirs = host.udp(source);
            theirs.turn_to(listen);
            let expected = outcome(&mut theirs, &callee, *question, Caller::hears);
            let decided = match expected.response {
                Some(_) => outcome(&mut ours, &callee, *question, |caller| {
                    Some(caller.receive())
                }),
                None => outcome(&mut ours, &callee, *question, Caller::hears),
            };
            assert_eq!(
                decided, expected,
                "{name}: {question:?} from the caller {source}"
            );
        }
    }
}

#[test]
fn peers_imported_groups_decide_as_kamailio_does() {
    compare("groups", GROUPS);
}

#[test]
fn peers_imported_edge_decides_as_kamailio_does() {
    compare("edge", EDGE);
}

#[test]
fn peers_imported_numbers_decide_as_kamailio_does() {
    compare("numbers", NUMBERS);
}

#[test]
fn peers_imported_rewriting_decides_as_kamailio_does() {
    compare("rewrite", REWRITE);
}

#[test]
fn peers_imported_variables_decide_as_kamailio_does() {
    compare("variables", VARIABLES);
}

/// The folder is not touched if it has a policy already.
#[test]
fn an_existing_policy_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let run = |more: &[&str]| {
        Command::new(binary())
            .current_dir(folder.path())
            .arg("import")
            .arg(configuration("groups"))
            .args(["--policy", "edge"])
            .args(more)
            .output()
            .expect("portcullis runs")
    };
    assert!(run(&[]).status.success());
    let again = run(&[]);
    assert!(!again.status.success());
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("exists already"), "{said}");
    assert!(run(&["--force"]).status.success());
    let manifest = std::fs::read_to_string(folder.path().join(Path::new("edge/Cargo.toml")));
    assert!(manifest.expect("a manifest").contains("name = \"edge\""));
}
