//! `docs/operations.md` lists every metric with its type and labels.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::root;

/// Type and label names of one metric.
#[derive(Debug, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// The optional parts are on, and a request has been rejected by a policy, so that every metric has a series.
fn host() -> Host {
    let folder = tempfile::tempdir().expect("a temporary directory").keep();
    let host = Builder::new()
        .set("policy", &format!("cache = {:?}", folder.join("compiled")))
        .set("records", &format!("file = {:?}", folder.join("r.jsonl")))
        .set("records", &format!("calls = {:?}", folder.join("c.jsonl")))
        .set("relay.next-hops", "carrier = \"sip:192.0.2.1\"")
        .start();
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
        let mut cells = line.strip_prefix("| `portcullis_")?.split(" |");
        let name = cells.next()?.trim_end_matches('`');
        let kind = cells.next()?.trim().to_owned();
        let labels = cells
            .next()?
            .split(',')
            .map(|label| label.trim().trim_matches('`'));
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned);
        let labels = labels.collect();
        Some((format!("portcullis_{name}"), Metric { kind, labels }))
    });
    rows.collect()
}

#[test]
fn every_metric_is_listed_with_its_type_and_labels() {
    let (status, text) = host().get("/metrics").expect("the control port answers");
    assert_eq!(status, 200);
    let (served, listed) = (served(&text), listed());
    assert!(served.len() > 60, "{}", served.len());
    for (name, metric) in &served {
        let listed = listed
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in docs/operations.md"));
        assert_eq!(listed.kind, metric.kind, "{name}");
        // A family of failures has a series only after the first failure.
        assert!(listed.labels.is_superset(&metric.labels), "{name}");
        let has_series = name != "portcullis_generation_failures_total";
        assert!(!has_series || listed.labels == metric.labels, "{name}");
    }
    for name in listed.keys() {
        assert!(served.contains_key(name), "{name} is not served");
    }
}
