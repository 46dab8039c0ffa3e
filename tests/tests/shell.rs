//! The shell commands of the pages work: each block of a page for operators runs against a host with its tables, a tenant and a next hop.
//! A block that a test cannot run says why (`sh no-run REASON`); those of the tutorial are run by `tutorial.rs`.

#![forbid(unsafe_code)]

use std::fs;
use std::process::{Command, Stdio};

use portcullis_testkit::callee::Callee;
use portcullis_testkit::documents::{Block, Page};
use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::tools::{Tool, Tools};
use portcullis_testkit::{binary, policy};
use tempfile::TempDir;

/// A host as the pages describe it.
struct Site {
    host: Host,
    callee: Callee,
    /// Files of the section `permissions`.
    _rules: TempDir,
}

impl Site {
    /// Without a policy of the tenant, so that its generations count from 1.
    fn start() -> Self {
        let builder = Builder::new();
        let hop = builder.lease().addr(5, 5060);
        let capture = builder.lease().addr(9, 9060);
        let rules = tempfile::tempdir().expect("a temporary directory can be made");
        let allow = rules.path().join("permissions.allow");
        fs::write(allow, "ALL : ALL\n").expect("rules can be written");
        let host = builder
            .policy(policy("address-acl"))
            .set("permissions", &format!("folder = {:?}", rules.path()))
            .set("relay.next-hops", &format!("carrier = \"sip:{hop}\""))
            .set("relay", &format!("next-hop = \"sip:{hop}\""))
            .set("tenants.acme", "uri-domains = [\"acme.example\"]")
            // Sections that have metrics of their own.
            .set("events", "file = \"events.jsonl\"")
            .set("capture", &format!("hep = \"udp:{capture}\""))
            .start();
        for name in ["acme-policy.wasm", "my-policy.wasm"] {
            host.write(name, rejecting(480, "away"));
        }
        let acl = fs::read(policy("address-acl")).expect("the policy can be read");
        host.write("address-acl.wasm", acl);
        host.write("addresses", "200 192.0.2.0 24 0 Office\n");
        host.write("cases.toml", CASES);
        host.write("globex.toml", "uri-domains = [\"globex.example\"]\n");
        host.write("invite.sip", INVITE);
        host.write("body", "{}");
        Self {
            host,
            callee: Callee::start(hop),
            _rules: rules,
        }
    }

    /// The tenant has a policy.
    fn with_a_policy(self) -> Self {
        let wasm = rejecting(486, "busy");
        let pushed = self
            .host
            .push("acme", "arrival=activate&name=old.wasm", &wasm);
        assert_eq!(pushed.0, 201, "{}", pushed.1);
        self
    }

    /// The script with the addresses and files of this host in place of those of the page.
    fn script(&self, text: &str) -> String {
        let control = self.host.lease().addr(1, 8060).to_string();
        let mut script = text.to_owned();
        for (of_the_page, here) in [
            ("127.0.0.1:8060", control.as_str()),
            ("sip:127.0.0.1:5060", &format!("sip:{}", self.host.sip())),
            (
                "sip:192.0.2.10:5060",
                &format!("sip:{}", self.callee.addr()),
            ),
            ("/var/lib/portcullis/portcullis.token", "portcullis.token"),
            ("/var/log/portcullis", "."),
            ("FILE.wasm", "policy.wasm"),
            (" SEAT", " default"),
            (" NAME", " acme"),
        ] {
            script = script.replace(of_the_page, here);
        }
        script
    }

    /// Runs a script to its end; `Err` says what it has printed.
    fn run(&self, script: &str) -> Result<(), String> {
        let binary = binary();
        let folder = binary.parent().expect("it is in a directory");
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.host.folder())
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("TOKEN", self.host.token().unwrap_or_default())
            .env("TIMESTAMP", "1764450000")
            .env("SECRET", "secret")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .output()
            .expect("bash runs");
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "{}\n{}{}",
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}

const INVITE: &str = "INVITE sip:bob@acme.example SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bK1\r\n\
    From: <sip:a@example.com>;tag=1\r\nTo: <sip:bob@acme.example>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n\
    Contact: <sip:a@192.0.2.7>\r\nContent-Length: 0\r\n\r\n";

/// Cases of the policies that always reject.
const CASES: &str = r#"
[[case]]
name = "the callee is away"
source = "192.0.2.7:5060"
expect = { verdict = "reject", status = 480, reason = "away" }
"#;

/// The blocks of a page that are run here.
fn blocks(page: &str) -> Vec<Block> {
    let blocks = Page::named(page).blocks().into_iter();
    let is_ours = |block: &Block| block.is_run("sh") && !block.text.starts_with("kamctl");
    blocks.filter(is_ours).collect()
}

/// Runs the blocks of these pages in their order.
fn run(site: &Site, pages: &[&str]) -> usize {
    let mut wrong = Vec::new();
    let mut functions = String::new();
    let mut count = 0;
    for block in pages.iter().flat_map(|page| blocks(page)) {
        count += 1;
        let script = site.script(&block.text);
        if let Err(said) = site.run(&format!("{functions}{script}")) {
            wrong.push(format!("{}:\n{script}{said}", block.place()));
        }
        // Later sections use the functions of earlier ones.
        for line in script.lines().filter(|line| line.contains("() {")) {
            functions.push_str(&format!("{line}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    count
}

#[test]
fn peers_the_commands_of_runbooks_run() {
    let site = Site::start().with_a_policy();
    assert!(run(&site, &["docs/runbooks.md"]) > 10);
}

#[test]
fn peers_the_commands_about_policies_run() {
    let site = Site::start();
    assert!(run(&site, &["docs/policies.md"]) >= 9);
}

#[test]
fn peers_the_commands_of_other_pages_run() {
    let site = Site::start().with_a_policy();
    let pages = [
        "README.md",
        "docs/cases.md",
        "docs/control.md",
        "docs/database.md",
        "docs/dispatcher.md",
        "docs/guard.md",
        "docs/operations.md",
        "docs/tenants.md",
    ];
    assert!(run(&site, &pages) >= 13);
}

/// Kamailio's tools, on the table that the host reads.
#[test]
fn peers_the_tools_in_the_readme_run() {
    let database = MariaDb::start();
    let host = Tools::doors(Builder::new())
        .policy(policy("address-acl"))
        .database(&database.url())
        .start();
    let tools = Tools::for_host(&host, &database);
    let page = Page::named("README.md");
    let blocks = page.blocks();
    let block = blocks
        .iter()
        .find(|block| block.is_run("sh") && block.text.starts_with("kamctl"))
        .expect("the block of Kamailio's tools");
    let mut said = String::new();
    for line in block.text.lines() {
        let (tool, words) = line.split_once(' ').expect("a command");
        let tool = match tool {
            "kamctl" => Tool::Kamctl,
            "kamcmd" => Tool::Kamcmd,
            other => panic!("{other}?"),
        };
        said.push_str(&tools.run(tool, words));
    }
    for part in ["Reload OK", "10.8.203.139", "192.168.1.0"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}
