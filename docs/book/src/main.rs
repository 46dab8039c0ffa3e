//! Builds the book of the repository: `portcullis-book ROOT OUTPUT`.
//!
//! The pages are laid out for mdBook below `OUTPUT/source`: those in `docs` at the top, the others with names of their own, and the files that they
//! link to below `files`. Links are changed accordingly.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use mdbook_driver::MDBook;
use mdbook_driver::config::Config;
use pulldown_cmark::{Event, Options, Parser, Tag};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [root, output] = &arguments[..] else {
        eprintln!("usage: portcullis-book ROOT OUTPUT");
        return ExitCode::FAILURE;
    };
    match build(root, output) {
        Ok(pages) => {
            println!(
                "{pages} pages in {}",
                output.join("html/index.html").display()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Builds the book, and returns the number of its pages.
fn build(root: &Path, output: &Path) -> Result<usize> {
    if output.exists() {
        fs::remove_dir_all(output)
            .with_context(|| format!("cannot remove {}", output.display()))?;
    }
    let source = output.join("source");
    let layout = Layout::new(root)?;
    let mut files = BTreeSet::new();
    for page in &layout.pages {
        let text = read(&root.join(page))?;
        let text = layout.with_links(page, &text, &mut files);
        write(&source.join(layout.place(page)), &text)?;
    }
    for file in &files {
        copy(&root.join(file), &source.join(layout.place(file)))?;
    }
    copy(&root.join("docs/book/book.css"), &output.join("book.css"))?;

    let mut config = Config::from_disk(root.join("docs/book.toml"))?;
    config.book.src = PathBuf::from("source");
    config.build.build_dir = PathBuf::from("html");
    MDBook::load_with_config(output, config)?.build()?;
    check(&output.join("html"))?;
    Ok(layout.pages.len() - 1)
}

/// Where the pages and files of the repository are in the book.
struct Layout {
    root: PathBuf,
    /// Paths in the repository: the summary, and all pages that it has.
    pages: BTreeSet<PathBuf>,
}

/// The order of the pages.
const SUMMARY: &str = "docs/SUMMARY.md";

impl Layout {
    fn new(root: &Path) -> Result<Self> {
        let summary = Path::new(SUMMARY);
        let text = read(&root.join(summary))?;
        let links = links(&text)
            .into_iter()
            .map(|(_, link)| beside(summary, &link));
        let mut pages: BTreeSet<_> = links.collect();
        pages.insert(summary.to_owned());
        Ok(Self {
            root: root.to_owned(),
            pages,
        })
    }

    /// Returns the path in the book of a page or file with this path in the repository.
    fn place(&self, path: &Path) -> PathBuf {
        if let Ok(below) = path.strip_prefix("docs")
            && (self.pages.contains(path) || is_image(path))
        {
            return match below == Path::new("README.md") {
                true => PathBuf::from("index.md"),
                false => below.to_owned(),
            };
        }
        if !self.pages.contains(path) {
            let files = Path::new("files").join(path);
            return match path.extension() {
                // mdBook copies no Markdown.
                Some(extension) if extension == "md" => files.with_extension("md.txt"),
                _ => files,
            };
        }
        match path.to_str() {
            Some("README.md") => PathBuf::from("overview.md"),
            Some(name) if name.ends_with("/README.md") => {
                PathBuf::from(name.trim_end_matches("/README.md").replace('/', "-") + ".md")
            }
            _ => PathBuf::from(path.to_string_lossy().to_lowercase()),
        }
    }

    /// Returns the text of a page with links to where things are in the book. Adds the linked files that are no pages.
    fn with_links(&self, page: &Path, text: &str, files: &mut BTreeSet<PathBuf>) -> String {
        let mut changed = text.to_owned();
        let place = self.place(page);
        // From the end, so that offsets stay valid.
        for (range, link) in links(text).into_iter().rev() {
            let (path, anchor) = match link.split_once('#') {
                Some((path, anchor)) => (path, format!("#{anchor}")),
                None => (link.as_str(), String::new()),
            };
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let target = beside(page, path);
            let is_folder = self.root.join(&target).is_dir();
            if !self.pages.contains(&target) {
                files.insert(target.clone());
            }
            let mut to = relative(&place, &self.place(&target));
            if is_folder {
                to += "/index.html";
            }
            // Only the target, which is last.
            let old = &text[range.clone()];
            if let Some(at) = old.rfind(&format!("({link}")) {
                let start = range.start + at + 1;
                changed.replace_range(start..start + link.len(), &(to + &anchor));
            }
        }
        changed
    }
}

/// Returns the links and images of a text, with their ranges.
fn links(text: &str) -> Vec<(std::ops::Range<usize>, String)> {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter();
    let links = events.filter_map(|(event, range)| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some((range, dest_url.into_string()))
        }
        _ => None,
    });
    links.collect()
}

fn is_image(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("png"))
}

/// Returns the path in the repository that a page calls `link`.
fn beside(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap_or(Path::new("")).to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// Returns the way from a page to a path, both in the book.
fn relative(page: &Path, to: &Path) -> String {
    let depth = page.components().count().saturating_sub(1);
    "../".repeat(depth) + &to.to_string_lossy()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    make_parent(path)?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Copies a file, or the files of a directory, with a list of them.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        make_parent(to)?;
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // mdBook copies no Markdown.
        if entry.file_type()?.is_file() && !name.ends_with(".md") {
            copy(&entry.path(), &to.join(&name))?;
            names.push(name);
        }
    }
    names.sort();
    let items: String = names
        .iter()
        .map(|name| format!("<li><a href=\"{name}\">{name}</a></li>\n"))
        .collect();
    let title = from.file_name().unwrap_or_default().to_string_lossy();
    let page = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<ul>\n{items}</ul>\n"
    );
    write(&to.join("index.html"), &page)
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))
}

/// Checks that each link of each page leads to a file of the book, and to a heading of it.
fn check(html: &Path) -> Result<()> {
    let mut pages = BTreeMap::new();
    collect(html, html, &mut pages)?;
    let mut broken = Vec::new();
    for (name, text) in &pages {
        // Its links are those of the other pages.
        if name == Path::new("print.html") || name == Path::new("404.html") {
            continue;
        }
        for link in text
            .split("href=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            if link.contains(':') {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => name.clone(),
                path => beside(name, path),
            };
            let has_anchor = anchor.is_empty()
                || pages
                    .get(&target)
                    .is_none_or(|page| page.contains(&format!("id=\"{anchor}\"")));
            if !html.join(&target).exists() || !has_anchor {
                broken.push(format!("{}: {link}", name.display()));
            }
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => bail!("links that lead nowhere:\n{}", broken.join("\n")),
    }
}

fn collect(root: &Path, folder: &Path, pages: &mut BTreeMap<PathBuf, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, pages)?;
        } else if path.extension() == Some(OsStr::new("html"))
            && !path.starts_with(root.join("files"))
        {
            pages.insert(path.strip_prefix(root)?.to_owned(), read(&path)?);
        }
    }
    Ok(())
}
