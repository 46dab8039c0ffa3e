//! The Markdown of the repository: headings, links and code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::root;

/// A page, with its path in the repository.
#[derive(Debug)]
pub struct Page {
    name: String,
    text: String,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the parser has many events, of which each function reads a few"
)]
impl Page {
    /// Returns every Markdown file of the repository, in the order of the names.
    ///
    /// # Panics
    /// If a file cannot be read.
    pub fn all() -> Vec<Self> {
        let mut files = Vec::new();
        collect(root(), &mut files);
        files.sort();
        files.iter().map(|file| Self::read(file)).collect()
    }

    /// Returns the page with this path in the repository.
    ///
    /// # Panics
    /// If the file cannot be read.
    pub fn named(name: &str) -> Self {
        Self::read(&root().join(name))
    }

    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file);
        let name = file.strip_prefix(root()).unwrap_or(file);
        Self {
            name: name.display().to_string(),
            text: text.unwrap_or_else(|error| panic!("{}: {error}", file.display())),
        }
    }

    /// Returns the path in the repository.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the blocks of code.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (event, range) in self.events() {
            match event {
                Event::Start(Tag::CodeBlock(kind)) => {
                    let info = match kind {
                        CodeBlockKind::Fenced(info) => info.into_string(),
                        CodeBlockKind::Indented => String::new(),
                    };
                    let text = String::new();
                    let place = self.place(range.start);
                    open = Some(Block { place, info, text });
                }
                Event::Text(text) => {
                    if let Some(block) = &mut open {
                        block.text.push_str(&text);
                    }
                }
                Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
                _ => {}
            }
        }
        blocks
    }

    /// Returns the code within lines, with its place.
    pub fn code_in_lines(&self) -> Vec<(String, String)> {
        let code = self.events().filter_map(|(event, range)| match event {
            Event::Code(text) => Some((self.place(range.start), text.into_string())),
            _ => None,
        });
        code.collect()
    }

    /// Returns the targets of links and images, with their places.
    pub fn links(&self) -> Vec<(String, String)> {
        let mut links = Vec::new();
        for (event, range) in self.events() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    links.push((self.place(range.start), dest_url.into_string()));
                }
                Event::Html(html) | Event::InlineHtml(html) => {
                    let targets = ["src=\"", "href=\""]
                        .into_iter()
                        .flat_map(|name| html.split(name).skip(1));
                    let targets = targets.filter_map(|rest| rest.split('"').next());
                    links.extend(targets.map(|to| (self.place(range.start), to.to_owned())));
                }
                _ => {}
            }
        }
        links
    }

    /// Returns the anchors of the headings, as GitHub and mdBook make them, and those that the page sets itself.
    pub fn anchors(&self) -> BTreeSet<String> {
        let mut own = BTreeSet::new();
        for (event, _) in self.events() {
            if let Event::Html(html) | Event::InlineHtml(html) = event {
                let ids = html.split("id=\"").skip(1);
                let ids = ids.filter_map(|rest| rest.split('"').next());
                own.extend(ids.map(str::to_owned));
            }
        }
        let mut seen = BTreeMap::<String, usize>::new();
        let headings = self.headings().into_iter().map(|(_, heading)| {
            let anchor = anchor(&heading);
            let count = seen.entry(anchor.clone()).or_default();
            *count += 1;
            match *count {
                1 => anchor,
                count => format!("{anchor}-{}", count - 1),
            }
        });
        headings.chain(own).collect()
    }

    /// Returns the headings with their levels.
    pub fn headings(&self) -> Vec<(usize, String)> {
        let mut headings = Vec::new();
        let mut open: Option<(usize, String)> = None;
        for (event, _) in self.events() {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    open = Some((level as usize, String::new()));
                }
                Event::Text(text) | Event::Code(text) => {
                    if let Some((_, heading)) = &mut open {
                        heading.push_str(&text);
                    }
                }
                Event::End(TagEnd::Heading(_)) => headings.extend(open.take()),
                _ => {}
            }
        }
        headings
    }

    /// Returns the text below a heading of level 2 up to the next one.
    ///
    /// # Panics
    /// If there is no such heading.
    pub fn section(&self, heading: &str) -> &str {
        let start = format!("\n## {heading}\n");
        let (_, rest) = self
            .text
            .split_once(&start)
            .unwrap_or_else(|| panic!("{} has no section {heading}", self.name));
        rest.split("\n## ").next().unwrap_or(rest)
    }

    fn events(&self) -> impl Iterator<Item = (Event<'_>, std::ops::Range<usize>)> {
        Parser::new_ext(&self.text, Options::ENABLE_TABLES).into_offset_iter()
    }

    fn place(&self, offset: usize) -> String {
        let line = self.text[..offset].matches('\n').count() + 1;
        format!("{}:{line}", self.name)
    }
}

/// Returns the statements of the three blocks of privileges in `docs/database.md` for one kind of server, as its comment names it, with another
/// user: to read the tables, to change their rows, and to store policies and tenants.
///
/// # Panics
/// If the page has other blocks.
pub fn privileges(server: &str, user: &str) -> [String; 3] {
    let blocks = Page::named("docs/database.md").blocks();
    let blocks = blocks.iter().filter(|block| block.is_run("sql"));
    let statements = blocks.map(|block| {
        let parts = block.text.split("-- ");
        let part = parts
            .filter_map(|part| part.split_once('\n'))
            .find(|(name, _)| *name == server);
        let (_, statements) = part.unwrap_or_else(|| panic!("{} has no {server}", block.place()));
        statements
            .replace("'portcullis'", &format!("'{user}'"))
            .replace("TO portcullis;", &format!("TO {user};"))
    });
    let statements: Vec<_> = statements.collect();
    statements.try_into().expect("three blocks of privileges")
}

/// A block of code.
#[derive(Debug)]
pub struct Block {
    place: String,
    info: String,
    /// The code.
    pub text: String,
}

impl Block {
    /// Returns the file and the line in which the block begins.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns the language; empty for a block that is indented or says none.
    pub fn language(&self) -> &str {
        self.info.split([' ', ',']).next().unwrap_or_default()
    }

    /// Whether the block is in this language and does not say that it is not to be checked: "sh no-run REASON".
    pub fn is_run(&self, language: &str) -> bool {
        self.language() == language && self.reason_not_to_run().is_none()
    }

    /// Returns the value of `NAME=VALUE` behind the language.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        let mut words = self.info.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Returns why the block is not checked; `None` if it is.
    pub fn reason_not_to_run(&self) -> Option<&str> {
        let (_, reason) = self.info.split_once("no-run")?;
        Some(reason.trim())
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        c => c.is_alphanumeric().then_some(c),
    });
    kept.flat_map(char::to_lowercase).collect()
}

/// Directories that have no pages of ours.
const FOREIGN: [&str; 3] = ["target", "node_modules", "corpus"];

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_hidden = name.starts_with('.');
        if path.is_dir() && !is_hidden && !FOREIGN.contains(&&*name) {
            collect(&path, files);
        } else if path.is_file() && name.ends_with(".md") {
            files.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Page {
        Page {
            name: "docs/a.md".to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn blocks_have_a_language_a_place_and_perhaps_a_reason() {
        let page =
            page("# A\n\n    portcullis serve\n\n```sh no-run needs root\napt install\n```\n");
        let blocks = page.blocks();
        assert_eq!(blocks[0].language(), "");
        assert_eq!(blocks[0].text, "portcullis serve\n");
        assert_eq!(blocks[0].place(), "docs/a.md:3");
        assert_eq!(blocks[1].language(), "sh");
        assert_eq!(blocks[1].reason_not_to_run(), Some("needs root"));
        assert!(!blocks[1].is_run("sh"));
    }

    #[test]
    fn anchors_are_those_of_github() {
        let page =
            page("# A\n\n## `[a.b]`: two words\n\n## Calls, and more\n\n## Calls and more\n");
        let anchors: Vec<_> = page.anchors().into_iter().collect();
        assert_eq!(
            anchors,
            ["a", "ab-two-words", "calls-and-more", "calls-and-more-1"]
        );
    }

    #[test]
    fn links_are_found_in_markdown_and_html() {
        let page = page("[a](b.md#c) ![d](e.png)\n\n<img src=\"f.png\" alt=\"\">\n");
        let links: Vec<_> = page.links().into_iter().map(|(_, to)| to).collect();
        assert_eq!(links, ["b.md#c", "e.png", "f.png"]);
    }
}
