//! `docs/operations.md` lists every event of the log with its level.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use portcullis_testkit::root;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// The events whose names are chosen where they are logged: `event` is a variable there.
const CHOSEN: [&str; 18] = [
    "answer_limit",
    "bad_proxy_header",
    "database_hung",
    "database_unreachable",
    "datagram_too_large",
    "handover_full",
    "loop_detected",
    "next_hop_overloaded",
    "next_hop_unreachable",
    "next_hop_unresolved",
    "no_socket",
    "queue_full",
    "receive_buffer_full",
    "send_error",
    "table_not_loaded",
    "too_many_connections",
    "transactions_full",
    "unknown_next_hop",
];

/// Calls a function with each source file of the host.
fn each_source(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("the directory can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !matches!(&*name, "target" | "tests" | "benches" | "examples" | "fuzz") {
                each_source(&path, visit);
            }
        } else if name.ends_with(".rs") {
            visit(&path, &fs::read_to_string(&path).expect("a source is text"));
        }
    }
}

/// The level of the log macro that the place `at` is in.
fn level_at(source: &str, at: usize) -> &'static str {
    let macros = LEVELS.iter().filter_map(|level| {
        let start = source[..at].rfind(&format!("{level}!("))?;
        Some((start, *level))
    });
    let (start, level) = macros.max().expect("an event is in a macro");
    assert!(!source[start..at].contains(';'), "{}", &source[start..at]);
    level
}

/// Each event in the code, with its levels.
fn logged() -> BTreeMap<String, BTreeSet<&'static str>> {
    let mut events = BTreeMap::<_, BTreeSet<_>>::new();
    each_source(&root().join("host"), &mut |_, source| {
        for (at, found) in source.match_indices("event = \"") {
            let name = source[at + found.len()..].split('"').next();
            let name = name.unwrap_or_default().to_owned();
            // A policy chooses the level of what it logs.
            if name != "policy_log" {
                events.entry(name).or_default().insert(level_at(source, at));
            }
        }
    });
    for name in CHOSEN {
        events.entry(name.to_owned()).or_default().insert("warn");
    }
    events
}

/// Each event in the table. A name means one thing: it has one row.
fn listed() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/operations.md")).expect("it is there");
    let (_, rest) = text.split_once("\n## Every event\n").expect("the table");
    let (table, _) = rest.split_once("\n## ").expect("more follows");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let name = cells.next()?.trim_end_matches('`').to_owned();
        let levels = cells.next()?.split(", ").map(str::to_owned).collect();
        Some((name, levels))
    });
    let mut events = BTreeMap::new();
    for (name, levels) in rows {
        let before = events.insert(name.clone(), levels);
        assert_eq!(
            before, None,
            "{name} has two rows: give each meaning its own name"
        );
    }
    events
}

#[test]
fn every_event_is_listed_with_its_levels() {
    let (logged, listed) = (logged(), listed());
    assert!(logged.len() > 100, "{}", logged.len());
    for (name, levels) in &logged {
        let listed = listed.get(name);
        let listed = listed.unwrap_or_else(|| panic!("{name} is not in docs/operations.md"));
        assert!(listed.iter().eq(levels), "{name}: {listed:?}, {levels:?}");
    }
    for name in listed.keys() {
        assert!(logged.contains_key(name), "{name} is in no source");
    }
}

/// Folders with texts of policies.
const POLICIES: [&str; 2] = ["host/author/templates", "host/kamailio/src/script"];

#[test]
fn every_log_line_has_an_event() {
    let mut without = Vec::new();
    each_source(&root().join("host"), &mut |path, source| {
        // Texts of policies, which log through the host.
        if POLICIES
            .iter()
            .any(|folder| path.starts_with(root().join(folder)))
        {
            return;
        }
        let product = source
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default();
        for level in LEVELS {
            for (at, _) in product.match_indices(&format!("{level}!(")) {
                let is_whole_name = product[..at]
                    .chars()
                    .next_back()
                    .is_none_or(|before| !before.is_alphanumeric() && before != '_');
                let arguments = product[at..].split(';').next().unwrap_or_default();
                if is_whole_name && !arguments.contains("event") {
                    let start: String = product[at..].chars().take(60).collect();
                    without.push(format!("{}: {start}", path.display()));
                }
            }
        }
    });
    assert!(without.is_empty(), "{without:#?}");
}
