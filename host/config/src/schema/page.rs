//! Writes `docs/configuration.md` from the keys, their values and their comments, and checks that the page is what they say.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

const INTRODUCTION: &str = "\
# Configuration

Every key of `portcullis.toml`, with its values, its default and its meaning. `portcullis check --defaults` prints the same as a file, and
`man portcullis.toml` as a manual page. A file needs only the keys that differ from the defaults; `portcullis check` reports every error in it with
its position. A relative path starts in the directory in which `portcullis` is started.

A duration is a string with a unit: us, ms, s, m or h. So is a size: B, KiB, MiB or GiB. An empty string means none, unless the text of a key says
otherwise.

Editors complete keys, show these texts and mark mistakes with a JSON Schema. The packages have it as
`/usr/share/portcullis/portcullis.schema.json`, and their configuration names it in its first line; `portcullis config schema` prints it. For a file
of your own, this first line is what Taplo and the TOML plugins of editors that use it read:

    #:schema file:///usr/share/portcullis/portcullis.schema.json
";

/// The page, from the parts of `defaults.toml` in their order.
fn page() -> String {
    let survey = Survey::new();
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    let mut is_first = true;
    page.push_str("\n## At the top of the file\n");
    for item in items(DEFAULTS) {
        match item {
            // The head of the file, which the introduction repeats.
            Item::Remark(_) if is_first => {}
            Item::Remark(text) => writeln!(page, "\n{}", escaped(&text)).unwrap(),
            Item::Section(name, text) => {
                section = name.trim_matches(['[', ']']);
                writeln!(page, "\n## `{name}`").unwrap();
                if !text.is_empty() {
                    writeln!(page, "\n{}", escaped(&text)).unwrap();
                }
            }
            Item::Keys(lines, text) => write_keys(section, &lines, &text, &survey, &mut page),
        }
        is_first = false;
    }
    page
}

fn write_keys(
    section: &str,
    lines: &[KeyLine<'_>],
    text: &str,
    survey: &Survey,
    page: &mut String,
) {
    let pairs: Vec<_> = lines
        .iter()
        .filter_map(|line| line.text.split_once(" = "))
        .collect();
    let [first, ..] = pairs[..] else {
        panic!("{lines:?}")
    };
    let more = if pairs.len() > 1 { ", …" } else { "" };
    writeln!(page, "\n### `{}`{more}\n", join(section, first.0)).unwrap();
    page.push_str("| key | values | default |\n|---|---|---|\n");
    for ((key, value), line) in pairs.iter().zip(lines) {
        let section = general(section);
        // The names in an open section are the operator's.
        let key_in_file = match survey.open.get(&section) {
            Some(Open::Values) => CHOSEN,
            Some(Open::Sections | Open::Json) | None => key,
        };
        let path = join(&section, key_in_file);
        let shape = survey.shapes.get(&path);
        let items = survey.shapes.get(&format!("{path}[0]"));
        let values = match (shape, items) {
            (Some(Shape::List), Some(items)) => format!("a list; each item: {items}"),
            (Some(shape), _) => shape.to_string(),
            (None, _) => panic!("nothing is known about {path}"),
        };
        let default = match line.is_example {
            true => format!("for example `{value}`"),
            false => format!("`{value}`"),
        };
        writeln!(page, "| `{key}` | {values} | {default} |").unwrap();
    }
    if !text.is_empty() {
        writeln!(page, "\n{}", escaped(text)).unwrap();
    }
}

/// The comments are plain text.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    let mut is_code = false;
    for c in text.chars() {
        is_code ^= c == '`';
        if !is_code && matches!(c, '*' | '_' | '<' | '[' | ']') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[test]
fn the_page_shows_every_key() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let page = page();
    if std::env::var_os("PORTCULLIS_WRITE").is_some() {
        fs::write(&file, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == page,
        "docs/configuration.md is not what defaults.toml says: PORTCULLIS_WRITE=1 cargo nextest run -p portcullis-config the_page"
    );
}
