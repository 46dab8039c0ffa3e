//! `docs/operations.md` lists every metric with its type and labels. Prometheus' own tool accepts the page of metrics, the alert rules, their
//! tests, and every expression of the dashboards, which name only metrics and labels that exist.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::{root, wait};
use serde_json::Value;

/// The `Accept` of Prometheus 3.
const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

/// Type and label names of one metric.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The optional parts are on, the dispatcher has a destination, and a request has been rejected by a policy, so that every metric has a series.
fn host() -> Host {
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let gateways = folder.join("dispatcher.list");
    fs::write(&gateways, "1 sip:192.0.2.2\n").expect("a list of gateways");
    let builder = Builder::new();
    let peers_listen = builder.lease().addr(1, 5070);
    let host = builder
        .set("policy", &format!("cache = {:?}", folder.join("compiled")))
        .set("records", &format!("file = {:?}", folder.join("r.jsonl")))
        .set("records", &format!("calls = {:?}", folder.join("c.jsonl")))
        .set("events", &format!("file = {:?}", folder.join("e.jsonl")))
        .set("capture", "hep = \"udp:127.0.0.1:9\"")
        .set("relay.next-hops", "carrier = \"sip:192.0.2.1\"")
        .set("dispatcher", &format!("file = {gateways:?}"))
        .set("dispatcher", "ping = \"0s\"")
        .set("fleet", "announce = true")
        .set("fleet", &format!("peers-listen = \"{peers_listen}\""))
        // Nobody listens there.
        .set("fleet.redis", "url = \"redis://127.0.0.1:1\"")
        .start();
    wait::until("the host has looked at the table of hosts", || {
        let (_, text) = host.get("/metrics")?;
        text.contains("portcullis_fleet_hosts{").then_some(())
    });
    let mut caller = host.udp(10);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.ask(&request);
    host
}

/// Every metric that `/metrics` serves, under the name of its samples.
fn served(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, kind) = described.split_once(' ').expect("a name and a type");
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let metric = metrics.entry(format!("{name}{suffix}")).or_default();
            kind.clone_into(&mut metric.kind);
        } else if !line.starts_with('#') {
            let end = line.find(['{', ' ']).expect("a sample has a value");
            let sample = &line[..end];
            let parts = ["", "_bucket", "_sum", "_count"];
            let name = parts
                .iter()
                .filter_map(|part| sample.strip_suffix(part))
                .find(|name| metrics.contains_key(*name))
                .unwrap_or_else(|| panic!("{sample} has no type"))
                .to_owned();
            let labels = line[end..].strip_prefix('{');
            let labels = labels.and_then(|rest| Some(rest.split_once('}')?.0));
            let names = labels.into_iter().flat_map(|labels| labels.split("\","));
            let names = names.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            metrics.entry(name).or_default().labels.extend(names);
        }
    }
    metrics
}

/// Every metric in the table.
fn listed() -> BTreeMap<String, Metric> {
    let text = fs::read_to_string(root().join("docs/operations.md")).expect("it is there");
    let (_, rest) = text.split_once("\n## Every metric\n").expect("the table");
    let (table, _) = rest.split_once("\n## ").expect("more follows");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" |");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let kind = cells.next()?.trim().to_owned();
        let labels = cells
            .next()?
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        let labels = labels.collect();
        Some((name, Metric { kind, labels }))
    });
    rows.collect()
}

#[test]
fn every_metric_is_listed_with_its_type_and_labels() {
    let (served, listed) = (served(&page(&host(), OPEN_METRICS)), listed());
    assert!(served.len() > 60, "{}", served.len());
    for (name, metric) in &served {
        let listed = listed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in docs/operations.md"));
        assert_eq!(listed.kind, metric.kind, "{name}");
        // A family of failures has a series only after the first failure, and one of certificates with a certificate.
        assert!(listed.labels.is_superset(&metric.labels), "{name}");
        let has_series = ![
            "portcullis_generation_failures_total",
            "portcullis_tls_certificate_not_after_timestamp_seconds",
        ]
        .contains(&name.as_str());
        assert!(!has_series || listed.labels == metric.labels, "{name}");
    }
    for name in listed.keys() {
        assert!(served.contains_key(name), "{name} is not served");
    }
}

/// The page of metrics for a client with this `Accept`.
fn page(host: &Host, accept: &str) -> String {
    let (status, media, body) = host.read("/metrics", accept);
    let expected = match accept.contains("openmetrics") {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    assert_eq!((status, media.as_str()), (200, expected));
    body
}

/// Runs Prometheus' tool with this input.
fn promtool(words: &[&str], input: &str) -> Output {
    let mut tool = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is installed (Debian's package prometheus)");
    let mut stdin = tool.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    tool.wait_with_output().expect("it ends")
}

/// Asserts that the tool found nothing to criticise.
fn assert_clean(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}

#[test]
fn peers_promtool_accepts_the_metrics() {
    let host = host();
    let page = page(&host, "text/plain;version=0.0.4");
    let output = promtool(&["check", "metrics"], &page);
    assert_clean(&output);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn peers_promtool_accepts_the_alert_rules_and_their_tests() {
    let folder = root().join("contrib/prometheus");
    for words in [
        ["check", "rules", "portcullis.rules.yml"],
        ["test", "rules", "portcullis.rules.test.yml"],
    ] {
        let output = Command::new("promtool")
            .args(words)
            .current_dir(&folder)
            .output();
        assert_clean(&output.expect("promtool is installed (Debian's package prometheus)"));
    }
}

/// Every file of `contrib` that has expressions, with these.
fn expressions() -> Vec<(PathBuf, Vec<String>)> {
    let contrib = root().join("contrib");
    let rules = contrib.join("prometheus/portcullis.rules.yml");
    let text = fs::read_to_string(&rules).expect("it is there");
    let lines = text.lines().filter_map(|line| {
        let expression = line.trim_start().strip_prefix("expr: ")?;
        Some(expression.to_owned())
    });
    let mut files = vec![(rules, lines.collect::<Vec<_>>())];
    for entry in fs::read_dir(contrib.join("grafana")).expect("it is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "json") {
            let text = fs::read_to_string(&path).expect("it is text");
            let board: Value = serde_json::from_str(&text).expect("it is JSON");
            let mut found = Vec::new();
            collect_expressions(&board, &mut found);
            files.push((path, found));
        }
    }
    files
}

fn collect_expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    Value::String(text) if name == "definition" => {
                        // label_values(METRIC, LABEL) of a variable.
                        let inner = text.strip_prefix("label_values(").unwrap_or(text);
                        found.extend(inner.split(", ").next().map(str::to_owned));
                    }
                    other => collect_expressions(other, found),
                }
            }
        }
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect_expressions(item, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// The words of an expression, without those within strings.
fn words(expression: &str) -> BTreeSet<String> {
    let outside = expression.split('"').step_by(2);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = outside.flat_map(|part| part.split(move |c| !is_part(c)));
    words.map(str::to_owned).collect()
}

/// The labels that an expression names: in matchers, in `by (…)` and in `on (…)`.
fn labels(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (open, close) in [("{", '}'), ("by (", ')'), ("on (", ')'), ("without (", ')')] {
        for (at, _) in expression.match_indices(open) {
            let rest = &expression[at + open.len()..];
            let inner = rest.split(close).next().unwrap_or_default();
            found.extend(words(inner));
        }
    }
    found.remove("");
    found
}

#[test]
fn dashboards_and_alert_rules_name_metrics_and_labels_that_exist() {
    let listed = listed();
    let files = expressions();
    assert_eq!(files.len(), 4, "the rules and three dashboards");
    for (path, expressions) in files {
        let file = path.display();
        assert!(expressions.len() >= 8, "{file}: {}", expressions.len());
        for expression in expressions {
            let mut known = BTreeSet::from(["job", "instance", "le"].map(str::to_owned));
            let names = words(&expression);
            let names = names
                .iter()
                .filter(|word| word.starts_with("portcullis_") || word.starts_with("process_"));
            for name in names {
                let metric = ["", "_bucket", "_sum", "_count"].iter().find_map(|part| {
                    let metric = listed.get(name.strip_suffix(part)?)?;
                    Some(metric).filter(|metric| part.is_empty() || metric.kind == "histogram")
                });
                let metric = metric.unwrap_or_else(|| panic!("{file}: {name} does not exist"));
                known.extend(metric.labels.iter().cloned());
            }
            let unknown: Vec<_> = labels(&expression).difference(&known).cloned().collect();
            assert!(unknown.is_empty(), "{file}: {expression}: {unknown:?}");
        }
    }
}

#[test]
fn peers_promtool_accepts_the_expressions_of_the_dashboards() {
    let mut rules = String::from("groups:\n- name: dashboards\n  rules:\n");
    for (path, expressions) in expressions() {
        for (at, expression) in expressions.iter().enumerate() {
            // The variables of Grafana.
            let expression = expression.replace("$__rate_interval", "5m");
            let expression = serde_json::to_string(&expression).expect("a string");
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            let name = name.replace(['-', '.'], "_");
            rules.push_str(&format!(
                "  - record: {name}:e{at}\n    expr: {expression}\n"
            ));
        }
    }
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("rules.yml");
    fs::write(&file, rules).expect("it can be written");
    let file = file.to_str().expect("it is text");
    assert_clean(&promtool(&["check", "rules", file], ""));
}
