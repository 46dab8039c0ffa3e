//! The configurations in the documentation are read by the host, and fit the schema.

use portcullis_testkit::documents::Page;

use super::tests::{json_of, problems};
use super::*;
use crate::Config;

/// Whether a table is not a configuration of the host: a manifest of cargo, or a file of cases.
fn is_another_file(table: &toml::Table) -> bool {
    table.contains_key("package") || table.contains_key("case")
}

#[test]
fn configurations_in_the_documentation_are_valid() {
    let schema = schema();
    let mut count = 0;
    // The settings of recipes are read in the tests of the recipes.
    let pages = Page::all()
        .into_iter()
        .filter(|page| page.name() != "docs/recipes.md");
    for page in pages {
        for block in page.blocks().iter().filter(|block| block.is_run("toml")) {
            let place = block.place();
            let table = block.text.parse::<toml::Table>();
            let table = table.unwrap_or_else(|error| panic!("{place}: not TOML: {error}"));
            if is_another_file(&table) {
                continue;
            }
            count += 1;
            // Secrets of the reader.
            let text = block.text.replace("\"…\"", "\"0123456789abcdef\"");
            let wrong = problems(&json_of(&text), &schema, "");
            assert!(wrong.is_empty(), "{place}: {wrong:?}");
            // A block may show a part of a tenant's section.
            let (_, mut found) = Config::parse_as_far_as_possible(&text);
            found.retain(|problem| problem.what != "no selector");
            assert!(found.is_empty(), "{place}: {found:#?}");
        }
    }
    assert!(count >= 10, "{count}");
}
