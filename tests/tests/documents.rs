//! The pages of the repository: each link leads somewhere, each page is in the book, and each alert and signal is described.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use portcullis_testkit::documents::Page;
use portcullis_testkit::root;

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::Normal(name) => normal.push(name),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Returns what is wrong with a link of a page.
fn broken(page: &Page, link: &str, anchors: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    if ["http://", "https://", "mailto:"]
        .iter()
        .any(|scheme| link.starts_with(scheme))
    {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = Path::new(page.name())
        .parent()
        .unwrap_or_else(|| Path::new(""));
    let target = match path {
        "" => PathBuf::from(page.name()),
        path => normal(&folder.join(path)),
    };
    if !root().join(&target).exists() {
        return Some("there is no such file".to_owned());
    }
    if anchor.is_empty() {
        return None;
    }
    match anchors.get(&target.display().to_string()) {
        None => Some("an anchor of a file that is no page".to_owned()),
        Some(known) if known.contains(anchor) => None,
        Some(known) => Some(format!("no such heading; there are {known:?}")),
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = Page::all();
    let anchors = pages
        .iter()
        .map(|page| (page.name().to_owned(), page.anchors()));
    let anchors: BTreeMap<_, _> = anchors.collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (place, link) in page.links() {
            count += 1;
            if let Some(what) = broken(page, &link, &anchors) {
                wrong.push(format!("{place}: {link}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 200, "{count}");
}

/// Directories of the sources, as the pages for developers name them.
const SOURCES: [&str; 9] = [
    "contrib/",
    "docs/",
    "host/",
    "migrations/",
    "packaging/",
    "policies/",
    "policy-wit/",
    "tests/",
    "xtask/",
];

#[test]
fn files_that_the_pages_for_developers_name_exist() {
    let mut named = 0;
    for name in ["CONTRIBUTING.md", "docs/architecture.md"] {
        for (place, code) in Page::named(name).code_in_lines() {
            let is_path = SOURCES.iter().any(|folder| code.starts_with(folder))
                && !code.contains([' ', '*', ':']);
            if is_path {
                named += 1;
                let exists = root().join(&code).exists();
                assert!(exists, "{place}: there is no {code}");
            }
        }
    }
    assert!(named > 100, "{named}");
}

#[test]
fn the_book_has_every_page_once() {
    let summary = Page::named("docs/SUMMARY.md");
    let links: Vec<_> = summary.links().into_iter().map(|(_, link)| link).collect();
    let listed: BTreeSet<_> = links
        .iter()
        .map(|link| normal(&Path::new("docs").join(link)))
        .collect();
    assert_eq!(links.len(), listed.len(), "a page twice: {links:?}");
    for page in Page::all() {
        let name = page.name();
        let belongs = name.starts_with("docs/") || !name.contains('/');
        if belongs && name != "docs/SUMMARY.md" {
            assert!(
                listed.contains(Path::new(name)),
                "{name} is not in docs/SUMMARY.md"
            );
        }
    }
    let doors: Vec<_> = summary
        .headings()
        .into_iter()
        .map(|(_, heading)| heading)
        .collect();
    assert_eq!(
        doors,
        [
            "Summary",
            "Tutorial",
            "How-to guides",
            "Reference",
            "Explanation"
        ]
    );
}

#[test]
fn json_in_the_documentation_is_json() {
    for page in Page::all() {
        for block in page.blocks().iter().filter(|block| block.is_run("json")) {
            let read = serde_json::from_str::<serde_json::Value>(&block.text);
            assert!(read.is_ok(), "{}: {read:?}", block.place());
        }
    }
}

#[test]
fn a_block_that_is_not_run_says_why() {
    for page in Page::all() {
        for block in page.blocks() {
            assert_ne!(block.reason_not_to_run(), Some(""), "{}", block.place());
        }
    }
}

/// Pages whose blocks in the language of a shell are run by a test: tutorial.rs and shell.rs.
const RUN: [&str; 11] = [
    "README.md",
    "docs/cases.md",
    "docs/control.md",
    "docs/database.md",
    "docs/dispatcher.md",
    "docs/guard.md",
    "docs/operations.md",
    "docs/policies.md",
    "docs/runbooks.md",
    "docs/tenants.md",
    "docs/tutorial.md",
];

/// Programs that the pages name.
const PROGRAMS: [&str; 25] = [
    "apt",
    "awk",
    "cargo",
    "cat",
    "cp",
    "curl",
    "df",
    "dnf",
    "install",
    "jq",
    "journalctl",
    "kamcmd",
    "kamctl",
    "kill",
    "ls",
    "metrics",
    "mysql",
    "openssl",
    "portcullis",
    "printf",
    "psql",
    "sngrep",
    "ss",
    "systemctl",
    "tcpdump",
];

#[test]
fn commands_are_run_or_say_why_not() {
    let pages = Page::all().into_iter().filter(|page| {
        let name = page.name();
        // CONTRIBUTING.md is for those who change this program, in a checkout.
        (name.starts_with("docs/") || name == "README.md") && name != "docs/commands.md"
    });
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages {
        for block in page.blocks() {
            let is_command = |line: &str| {
                let line = line.strip_prefix("$ ").unwrap_or(line);
                let mut words = line.split(' ').skip_while(|word| word.contains('='));
                words.next().is_some_and(|word| PROGRAMS.contains(&word))
            };
            if !["", "sh", "console"].contains(&block.language())
                || !block.text.lines().any(is_command)
            {
                continue;
            }
            count += 1;
            let is_checked = block.reason_not_to_run().is_some()
                || (block.language() == "sh" && RUN.contains(&page.name()));
            if !is_checked {
                wrong.push(format!("{}: {}", block.place(), block.text));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "```sh, or ```sh no-run REASON:\n{}",
        wrong.join("\n")
    );
    assert!(count > 60, "{count}");
}

/// The alerts of the rules, with severity and the address of the runbook.
fn alerts() -> BTreeMap<String, (String, String)> {
    let file = root().join("contrib/prometheus/portcullis.rules.yml");
    let text = fs::read_to_string(file).expect("it is there");
    let rules = text.split("- alert: ").skip(1).map(|rule| {
        let name = rule.lines().next().expect("a name").to_owned();
        let value = |key: &str, end: char| {
            let (_, rest) = rule
                .split_once(key)
                .unwrap_or_else(|| panic!("{name} has no {key}"));
            rest.split(end).next().unwrap_or_default().to_owned()
        };
        let found = (value("{severity: ", '}'), value("runbook_url: \"", '"'));
        (name, found)
    });
    rules.collect()
}

#[test]
fn each_alert_has_a_runbook() {
    let page = Page::named("docs/runbooks.md");
    let sections: BTreeSet<_> = page
        .headings()
        .into_iter()
        .map(|(_, heading)| heading)
        .collect();
    let table = Page::named("docs/operations.md");
    let table = table.section("Alerts");
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for (alert, (severity, address)) in &alerts {
        assert!(
            sections.contains(alert),
            "docs/runbooks.md has no section {alert}"
        );
        let section = page.section(alert).trim_start();
        let expected = match severity.as_str() {
            "critical" => "*Critical.*",
            "warning" => "*Warning.*",
            other => panic!("{alert}: {other}"),
        };
        assert!(
            section.starts_with(expected),
            "{alert} does not begin with {expected}"
        );
        let expected = format!(
            "file:///usr/share/doc/portcullis/docs/runbooks.md#{}",
            alert.to_lowercase()
        );
        assert_eq!(address, &expected, "{alert}");
        assert!(
            table.contains(&format!("| `{alert}` |")),
            "docs/operations.md does not list {alert}"
        );
    }
    for section in sections
        .iter()
        .filter(|section| section.starts_with("Portcullis"))
    {
        assert!(alerts.contains_key(section), "there is no alert {section}");
    }
}

/// Signals by the name of their function in tokio.
const SIGNALS: [(&str, &str); 5] = [
    ("terminate()", "SIGTERM"),
    ("interrupt()", "SIGINT"),
    ("hangup()", "SIGHUP"),
    ("user_defined2()", "SIGUSR2"),
    ("from_raw(SIGXFSZ)", "SIGXFSZ"),
];

#[test]
fn every_signal_that_a_host_handles_is_listed() {
    let page = Page::named("docs/operations.md");
    let listed = page.section("Signals");
    let source =
        fs::read_to_string(root().join("host/server/src/serve/signals.rs")).expect("it is there");
    let handled: BTreeSet<_> = source
        .split("SignalKind::")
        .skip(1)
        .filter_map(|rest| Some(&rest[..=rest.find(')')?]))
        .collect();
    assert!(handled.len() >= 5, "{handled:?}");
    for signal in handled {
        let (_, name) = SIGNALS
            .iter()
            .find(|(function, _)| *function == signal)
            .unwrap_or_else(|| panic!("the name of SignalKind::{signal}?"));
        assert!(
            listed.contains(&format!("| {name} |")),
            "docs/operations.md does not list {name}"
        );
    }
}

/// The chapters about the edge show who speaks with whom. A page is as wide as the book, and the corners of boxes meet their sides.
#[test]
fn each_chapter_about_the_edge_has_a_drawing_that_fits() {
    const WIDEST: usize = 110;
    for name in ["tls", "websocket", "nat", "dispatcher", "load-balancers"] {
        let page = Page::named(&format!("docs/{name}.md"));
        let blocks = page.blocks();
        let is_drawing = |text: &str| text.contains('▶') || text.contains('►');
        let drawings = blocks
            .iter()
            .filter(|block| block.language() == "text" && is_drawing(&block.text));
        let mut count = 0;
        for drawing in drawings {
            count += 1;
            let rows: Vec<Vec<char>> = drawing
                .text
                .lines()
                .map(|line| line.chars().collect())
                .collect();
            let at = |row: Option<usize>, column: Option<usize>| {
                let row = row.and_then(|row| rows.get(row));
                row.zip(column)
                    .and_then(|(row, column)| row.get(column).copied())
            };
            for (number, row) in rows.iter().enumerate() {
                let place = format!("{}, line {number} of the drawing", drawing.place());
                assert!(row.len() <= WIDEST, "{place}: {} columns", row.len());
                for (column, corner) in row.iter().enumerate() {
                    let (above, below) = (number.checked_sub(1), Some(number + 1));
                    let (left, right) = (column.checked_sub(1), Some(column + 1));
                    let (vertical, horizontal) = match corner {
                        '┌' => (below, right),
                        '┐' => (below, left),
                        '└' => (above, right),
                        '┘' => (above, left),
                        _ => continue,
                    };
                    let vertical = at(vertical, Some(column));
                    let horizontal = at(Some(number), horizontal);
                    let meets = vertical.is_some_and(|side| "│├┤┼▲▼".contains(side))
                        && horizontal.is_some_and(|side| "─┬┴┼".contains(side));
                    assert!(meets, "{place}: {corner} in column {column}");
                }
            }
        }
        assert!(count > 0, "{name}: no drawing");
    }
}
