//! The excerpts of kamailio.cfg in the pages are given to the importer.

use std::path::Path;

use portcullis_testkit::documents::{Block, Page};

use super::{Script, Settings, translate};
use crate::preprocessor::Preprocessor;
use crate::surroundings::Machine;

/// The languages of such blocks: GitHub has colours for C only.
const LANGUAGES: [&str; 2] = ["kamailio", "c"];

/// What begins an item outside of request_route.
const OUTSIDE: [&str; 7] = [
    "#!",
    "loadmodule",
    "modparam(",
    "route[",
    "failure_route[",
    "branch_route[",
    "onreply_route[",
];

/// The excerpt as a configuration: what stands outside of routes stays there, the rest is in request_route.
fn configuration(text: &str) -> String {
    if text.contains("request_route") {
        return text.to_owned();
    }
    let (mut inside, mut outside) = (String::new(), String::new());
    let mut is_outside = false;
    for line in text.lines() {
        let begins_outside = OUTSIDE.iter().any(|word| line.starts_with(word));
        let into = match is_outside || begins_outside {
            true => &mut outside,
            false => &mut inside,
        };
        into.push_str(line);
        into.push('\n');
        is_outside = (is_outside || line.ends_with('{') && begins_outside) && line != "}";
    }
    format!("{outside}request_route {{\n{inside}}}\n")
}

fn translated(block: &Block) -> Script {
    let file = Path::new(block.place());
    let text = configuration(&block.text);
    let (tokens, _) = Preprocessor::new(file, &text, &[], &Machine).run();
    translate(file, &tokens, &Settings::default())
}

/// The number of parts that the page says are left to the reader: "kamailio left=2".
fn left(block: &Block) -> usize {
    let left = block.attribute("left").map(str::parse);
    left.unwrap_or(Ok(0)).expect("a number")
}

#[test]
fn excerpts_are_translated_or_say_what_is_left() {
    let pages = Page::all();
    let blocks = pages.iter().flat_map(Page::blocks);
    let blocks: Vec<_> = blocks
        .filter(|block| LANGUAGES.iter().any(|language| block.is_run(language)))
        .collect();
    let mut wrong = Vec::new();
    for block in &blocks {
        let script = translated(block);
        let said: Vec<_> = script.findings.iter().map(ToString::to_string).collect();
        if script.translated == 0 {
            wrong.push(format!(
                "{}: nothing is translated: {said:#?}",
                block.place()
            ));
        }
        if script.left != left(block) {
            let count = script.left;
            wrong.push(format!("{}: left={count}: {said:#?}", block.place()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(blocks.len() > 20, "{}", blocks.len());
}

/// What stands behind an excerpt in from-kamailio.md is what the importer makes of it.
#[test]
fn the_example_is_what_the_importer_writes() {
    let blocks = Page::named("docs/from-kamailio.md").blocks();
    let at = blocks.iter().position(|block| block.is_run("kamailio"));
    let at = at.expect("an excerpt");
    let source = translated(&blocks[at]).source;
    let bare = |text: &str| text.split_whitespace().collect::<String>().replace(',', "");
    let shown = &blocks[at + 1];
    assert_eq!(shown.language(), "rust", "{}", shown.place());
    for part in shown.text.split("\n\n") {
        // The lines are those of the excerpt in request_route, which the page does not show.
        assert!(
            bare(&source).contains(&bare(part)),
            "{part}\nis not in\n{source}"
        );
    }
}

#[test]
fn an_excerpt_becomes_a_configuration() {
    let text =
        "modparam(\"a\", \"b\", 1)\n\nt_relay();\n\nfailure_route[X] {\n    exit;\n}\nexit;\n";
    let expected = "modparam(\"a\", \"b\", 1)\nfailure_route[X] {\n    exit;\n}\nrequest_route {\n\nt_relay();\n\nexit;\n}\n";
    assert_eq!(configuration(text), expected);
    assert_eq!(configuration("request_route {}"), "request_route {}");
}
