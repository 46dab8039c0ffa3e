//! A real browser on the host's machine, and a foreign web page that tries to act as the operator.

#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{policy, wait};
use serde_json::json;

/// A browser with a profile of its own; it ends with this.
struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens a page. `extra` are further switches.
    fn open(url: &str, extra: &[String], out: Stdio) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--no-proxy-server",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(extra)
            .arg(url)
            .env("HOME", profile.path())
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is installed: apt-get install chromium");
        Self {
            child,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A foreign web server. It serves one page, and returns what the page reports to `/done`.
struct Site {
    addr: SocketAddr,
    reports: Receiver<String>,
}

impl Site {
    fn start(addr: SocketAddr, page: String) -> Self {
        let listener = TcpListener::bind(addr).expect("a loopback address can be bound");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (page, sender) = (page.clone(), sender.clone());
                std::thread::spawn(move || serve(stream, &page, &sender));
            }
        });
        Self { addr, reports }
    }

    fn report(&self) -> String {
        self.reports
            .recv_timeout(wait::PATIENCE)
            .expect("the page reports")
    }
}

/// Answers one request.
fn serve(stream: TcpStream, page: &str, reports: &Sender<String>) -> Option<()> {
    let mut reader = BufReader::new(&stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (kind, answer) = match first.split(' ').nth(1)? {
        "/policy.wasm" => ("application/wasm", std::fs::read(policy("observe")).ok()?),
        "/done" => ("text/plain", Vec::new()),
        _ => ("text/html", page.as_bytes().to_vec()),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    (&stream)
        .write_all(&[head.as_bytes(), &answer].concat())
        .ok()?;
    if first.contains(" /done ") {
        reports
            .send(String::from_utf8_lossy(&body).into_owned())
            .ok()?;
    }
    Some(())
}

/// All requests that a page can send to another origin by itself, with their results as the page sees them.
const PAGE: &str = r#"<!doctype html><title>a page</title><iframe name="sink"></iframe><script>
const host = "http://HOST";
const push = host + "/v1/policies/acme?arrival=activate";
const call = JSON.stringify({jsonrpc: "2.0", id: 1, method: "policy.mode", params: ["acme", "monitor"]});
const seen = {};
async function attempt(name, url, options) {
  try { const answer = await fetch(url, options); seen[name] = answer.type + " " + answer.status; }
  catch (error) { seen[name] = "blocked"; }
}
function submitted(action, type, name, value) {
  return new Promise(resolve => {
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action, enctype: type, target: "sink"});
    const field = document.createElement("input");
    Object.assign(field, {type: "hidden", name, value});
    form.append(field);
    document.body.append(form);
    document.querySelector("iframe").onload = resolve;
    form.submit();
  });
}
(async () => {
  const wasm = await (await fetch("/policy.wasm")).arrayBuffer();
  await attempt("push without asking", push, {method: "POST", mode: "no-cors", body: new Blob([wasm], {type: "text/plain"})});
  await attempt("push without a type", push, {method: "POST", mode: "no-cors", body: wasm});
  await attempt("push as it should be", push, {method: "POST", body: wasm, headers: {"Content-Type": "application/wasm"}});
  await attempt("call without asking", host + "/RPC", {method: "POST", mode: "no-cors", body: call});
  await attempt("call as it should be", host + "/RPC", {method: "POST", body: call, headers: {"Content-Type": "application/json"}});
  await attempt("change without a body", host + "/v1/policies/acme/rollback", {method: "POST", mode: "no-cors"});
  await attempt("read", host + "/metrics", {});
  await submitted(push, "text/plain", "a", "b");
  await submitted(host + "/RPC", "text/plain", call.slice(0, -1) + ',"x":"', '"}');
  await fetch("/done", {method: "POST", body: JSON.stringify(seen)});
})();
</script>"#;

/// A host without a token, so that only the origin of a request is checked.
fn open_host() -> Host {
    let host = Builder::new()
        .set("control", "token-file = \"\"")
        .set("log", "level = \"debug\"")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    let observe = std::fs::read(policy("observe")).expect("the policy can be read");
    assert_eq!(host.push("acme", "arrival=activate", &observe).0, 201);
    host
}

#[test]
fn peers_a_page_of_another_origin_changes_nothing() {
    let host = open_host();
    let control = host.lease().addr(1, 8060);
    let before = host.rpc("policy.list", json!(["acme"]))["result"].clone();
    let site = Site::start(
        SocketAddr::new(host.lease().ip(5), 0),
        PAGE.replace("HOST", &control.to_string()),
    );
    // With a port for debuggers it stays open.
    let stay = ["--remote-debugging-port=0".to_owned()];
    let _browser = Browser::open(&format!("http://{}/", site.addr), &stay, Stdio::null());
    let report = site.report();
    let seen: serde_json::Value = serde_json::from_str(&report).expect("the page sends JSON");
    for name in ["push as it should be", "call as it should be", "read"] {
        assert_eq!(seen[name], "blocked", "{report}");
    }
    // The requests that the browser sends without permission have arrived, and were refused because of their origin.
    host.wait_for_log("event=\"http_refused\"");
    let log = host.log();
    for path in ["/v1/policies/acme ", "/v1/policies/acme/rollback ", "/RPC "] {
        let refused = log.lines().filter(|line| {
            line.contains("event=\"http_request_refused\"")
                && line.contains(&format!("path={path}"))
        });
        assert!(refused.count() > 0, "{path}: {report}\n{log}");
    }
    assert_eq!(host.rpc("policy.list", json!(["acme"]))["result"], before);
    let status = host.rpc("policy.status", json!(["acme"]));
    assert_eq!(status["result"]["mode"], "enforce", "{status}");
}

/// DNS rebinding: the page's own name resolves to this machine, so that the page could read responses.
#[test]
fn peers_a_page_whose_name_resolves_to_the_host_reads_nothing() {
    let host = open_host();
    let control = host.lease().addr(1, 8060);
    let rules = format!("--host-resolver-rules=MAP evil.example {}", control.ip());
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let (own, foreign) = (
        dump(folder.path(), &format!("http://{control}/"), &rules),
        dump(
            folder.path(),
            &format!("http://evil.example:{}/", control.port()),
            &rules,
        ),
    );
    assert!(own.contains("POST /RPC"), "{own}");
    assert!(foreign.contains("Host: evil.example"), "{foreign}");
    assert!(!foreign.contains("POST /RPC"), "{foreign}");
}

/// Returns the document after the browser has loaded a page.
fn dump(folder: &Path, url: &str, rules: &str) -> String {
    let path = folder.join("document");
    let file = std::fs::File::create(&path).expect("a file can be made");
    let extra = ["--dump-dom".to_owned(), rules.to_owned()];
    let mut browser = Browser::open(url, &extra, Stdio::from(file));
    wait::until("the browser has the document", || {
        browser.child.try_wait().expect("the child can be asked")
    });
    std::fs::read_to_string(&path).expect("the document is UTF-8")
}
