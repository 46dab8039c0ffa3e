//! Writes `docs/recipes.md` from the sources of the recipes, and checks that the page is that of the sources.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const INTRODUCTION: &str = "\
# Recipes

Policies for tasks that operators of Kamailio and OpenSIPS ask for again and again. Each is one file, complete and tested: copy it to `src/lib.rs` of
a policy crate ([Policies](policies.md#write)), change what you need, and run its tests with `cargo test`. The tests, which this page omits, are at the
end of each file in [policies/recipes/examples](../policies/recipes/examples). `cargo xtask build --policies` compiles all of them to
`target/policies/recipes/NAME.wasm`.

A recipe decides about one thing and returns `pass()` for everything else, so that the next policy decides: put it in `[policy.before]`, or call its
`decide` first in your own. The settings go into `settings` of the policy's section (`[policy.settings]`, `[tenants.acme.settings]`), and are checked
before the policy becomes active. Kamailio's lines are shown for orientation: they are what the recipe replaces, not a complete configuration.

Counters are those of one host and one seat. A request that is sent again with credentials, after a 401 or 407, counts again.

";

/// One recipe: the file without its tests.
struct Recipe {
    name: String,
    title: String,
    description: String,
    code: String,
}

impl Recipe {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a recipe can be read");
        let name = file.file_stem().expect("a recipe has a name");
        let name = name.to_string_lossy().into_owned();
        let (code, tests) = text
            .split_once("\n#[cfg(test)]\nmod tests {")
            .unwrap_or_else(|| panic!("{name} has no tests"));
        assert!(tests.contains("settings_are_validated"), "{name}");
        let (documentation, code): (Vec<_>, Vec<_>) =
            code.lines().partition(|line| line.starts_with("//!"));
        let lines = documentation
            .iter()
            .map(|line| line[3..].strip_prefix(' ').unwrap_or_default());
        let description: Vec<_> = lines.collect();
        let title = description[0].strip_prefix("# ");
        Self {
            title: title
                .unwrap_or_else(|| panic!("{name} has no title"))
                .to_owned(),
            description: description[1..].join("\n").trim().to_owned(),
            code: code.join("\n").trim().to_owned(),
            name,
        }
    }

    /// The link of GitHub and mdBook to its heading.
    fn anchor(&self) -> String {
        let lower = self.title.to_lowercase();
        let kept = lower
            .chars()
            .filter(|c| c.is_alphanumeric() || " -".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    }
}

fn recipes() -> Vec<Recipe> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = fs::read_dir(folder).expect("the folder of the recipes");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    files.iter().map(|file| Recipe::read(file)).collect()
}

fn page() -> String {
    let recipes = recipes();
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| recipe | file |\n|---|---|\n");
    for recipe in &recipes {
        let (title, name) = (&recipe.title, &recipe.name);
        writeln!(page, "| [{title}](#{}) | `{name}.rs` |", recipe.anchor()).expect("a text");
    }
    for recipe in &recipes {
        let Recipe {
            title,
            description,
            code,
            name,
        } = recipe;
        write!(
            page,
            "\n## {title}\n\n{description}\n\nThe policy, `{name}.rs`:\n\n```rust\n{code}\n```\n"
        )
        .expect("a text");
    }
    page
}

#[test]
fn the_page_shows_the_sources() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes.md");
    let page = page();
    if std::env::var_os("PORTCULLIS_WRITE").is_some() {
        fs::write(&file, &page).expect("the page can be written");
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == page,
        "docs/recipes.md is not what the sources say: PORTCULLIS_WRITE=1 cargo nextest run -p recipes the_page"
    );
}

#[test]
fn each_recipe_is_built() {
    let manifest = include_str!("../Cargo.toml");
    let library = include_str!("lib.rs");
    let recipes = recipes();
    assert_eq!(recipes.len(), 20);
    for Recipe { name, .. } in recipes {
        assert!(
            manifest.contains(&format!("[[example]]\nname = \"{name}\"\n")),
            "{name}"
        );
        assert!(
            library.contains(&format!("../examples/{name}.rs")),
            "{name}"
        );
    }
}
