//! Writes a module for each block of Rust in the pages.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    println!("cargo::rerun-if-changed={}", root.join("docs").display());
    let mut files = vec![root.join("README.md")];
    let docs = fs::read_dir(root.join("docs")).expect("the directory of the pages");
    files.extend(docs.map(|entry| entry.expect("an entry").path()));
    files.sort();
    let mut modules = String::new();
    for file in files {
        let name = file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // These are examples and documentation tests of the recipes' crate.
        let is_tested = ["recipes.md", "sdk.md"].contains(&name.as_str());
        if name.ends_with(".md") && !is_tested {
            println!("cargo::rerun-if-changed={}", file.display());
            let text = fs::read_to_string(&file).expect("a page is text");
            write_modules(&name, &text, &mut modules);
        }
    }
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    fs::write(folder.join("pages.rs"), modules).expect("it can be written");
}

/// A block that has no policy of its own continues the one before it, such as a test.
fn write_modules(page: &str, text: &str, modules: &mut String) {
    let page = page
        .trim_end_matches(".md")
        .to_lowercase()
        .replace('-', "_");
    let mut open = false;
    for (line, code) in blocks(text) {
        let has_items = code.contains("fn ");
        let is_policy = code.contains("fn decide(") || !has_items;
        if is_policy && open {
            modules.push_str("}\n");
        }
        if is_policy {
            open = true;
            let _infallible = writeln!(modules, "mod {page}_line_{line} {{\nuse crate::common::*;");
        } else {
            let _infallible = writeln!(modules, "mod line_{line} {{\nuse super::*;");
        }
        match has_items {
            true => modules.push_str(&code),
            // Only the body of the policy.
            false => {
                let _infallible = writeln!(modules, "fn decide() -> Verdict {{\n{code}}}");
            }
        }
        if !is_policy {
            modules.push_str("}\n");
        }
    }
    if open {
        modules.push_str("}\n");
    }
}

/// Returns the blocks of Rust with the numbers of their lines.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        if let Some((_, code)) = &mut open {
            if line.starts_with("```") {
                blocks.extend(open.take());
            } else {
                code.push_str(line);
                code.push('\n');
            }
        } else if line == "```rust" {
            open = Some((at + 1, String::new()));
        }
    }
    blocks
}
