//! The files of a new policy in each language.

use portcullis_policy::WIT;

use crate::language::Language;
use crate::name::Name;
use crate::sdk;

/// Stands for the name of the policy.
const NAME: &str = "{{name}}";
/// Stands for the name as an identifier, with underscores.
const IDENTIFIER: &str = "{{identifier}}";
/// Stands for the language.
const LANGUAGE: &str = "{{language}}";
/// Stands for the steps that install the compiler.
const STEPS: &str = "{{steps}}";

/// Directory of the SDK in a Rust policy.
const SDK: &str = "vendor/portcullis-sdk";

/// The folder of a policy.
pub(crate) struct Template {
    /// Paths and texts.
    pub(crate) files: Vec<(String, String)>,
    /// The files that the author reads and changes.
    pub(crate) shown: Vec<&'static str>,
    /// The commands that follow.
    pub(crate) next: Vec<String>,
}

/// A file as it is in this library.
type File = (&'static str, &'static str);

/// The files of every language.
const COMMON: [File; 3] = [
    ("cases.toml", include_str!("../templates/common/cases.toml")),
    (
        ".github/workflows/policy.yml",
        include_str!("../templates/common/workflow.yml"),
    ),
    (
        "policy.toml",
        include_str!("../templates/common/policy.toml"),
    ),
];

/// The folder of a policy with this name.
pub(crate) fn of(language: Language, name: &Name) -> Template {
    let fill = |text: &str| {
        text.replace(NAME, name.as_str())
            .replace(IDENTIFIER, &name.as_str().replace('-', "_"))
            .replace(LANGUAGE, language.name())
    };
    let own = own(language);
    let mut files: Vec<(String, String)> = own
        .iter()
        .chain(&COMMON)
        .map(|&(path, text)| (path.to_owned(), fill(text)))
        .collect();
    files.extend(libraries(language));
    for (path, text) in &mut files {
        match path.as_str() {
            "policy.toml" => text.push_str(source_line(language)),
            ".github/workflows/policy.yml" => *text = text.replace(STEPS, steps(language)),
            _ => {}
        }
    }
    let mut next = vec![format!("cd {name}")];
    next.extend(install(language).map(str::to_owned));
    next.push("portcullis policy build".into());
    next.push("portcullis policy test cases.toml".into());
    Template {
        files,
        shown: shown(language),
        next,
    }
}

fn own(language: Language) -> Vec<File> {
    match language {
        Language::Rust => vec![
            ("src/lib.rs", include_str!("../templates/rust/lib.rs")),
            ("Cargo.toml", include_str!("../templates/rust/policy.toml")),
            ("README.md", include_str!("../templates/rust/README.md")),
            (".gitignore", "/target\n/*.wasm\n"),
        ],
        Language::C => vec![
            ("policy.c", include_str!("../templates/c/policy.c")),
            ("portcullis.h", include_str!("../templates/c/portcullis.h")),
            ("README.md", include_str!("../templates/c/README.md")),
            (".gitignore", "/build\n/.venv\n/*.wasm\n"),
        ],
        Language::Zig => vec![
            ("policy.zig", include_str!("../templates/zig/policy.zig")),
            (
                "portcullis.zig",
                include_str!("../templates/zig/portcullis.zig"),
            ),
            ("README.md", include_str!("../templates/zig/README.md")),
            (".gitignore", "/build\n/.zig-cache\n/.venv\n/*.wasm\n"),
        ],
        Language::AssemblyScript => vec![
            (
                "policy.ts",
                include_str!("../templates/assemblyscript/policy.ts"),
            ),
            (
                "portcullis.ts",
                include_str!("../templates/assemblyscript/portcullis.ts"),
            ),
            (
                "package.json",
                include_str!("../templates/assemblyscript/package.json"),
            ),
            (
                "tsconfig.json",
                include_str!("../templates/assemblyscript/tsconfig.json"),
            ),
            (
                "README.md",
                include_str!("../templates/assemblyscript/README.md"),
            ),
            (".gitignore", "/build\n/node_modules\n/*.wasm\n"),
        ],
        Language::Go => vec![
            ("policy.go", include_str!("../templates/go/policy.go")),
            ("go.mod", include_str!("../templates/go/go_mod")),
            (
                "portcullis/portcullis.go",
                include_str!("../templates/go/portcullis/portcullis.go"),
            ),
            ("README.md", include_str!("../templates/go/README.md")),
            (".gitignore", "/build\n/.venv\n/*.wasm\n"),
        ],
        Language::JavaScript => vec![
            ("policy.js", include_str!("../templates/js/policy.js")),
            ("package.json", include_str!("../templates/js/package.json")),
            ("README.md", include_str!("../templates/js/README.md")),
            (".gitignore", "/build\n/node_modules\n/*.wasm\n"),
        ],
        Language::Python => vec![
            ("policy.py", include_str!("../templates/python/policy.py")),
            (
                "requirements.txt",
                include_str!("../templates/python/requirements.txt"),
            ),
            (
                "portcullis.toml",
                include_str!("../templates/python/portcullis.toml"),
            ),
            ("README.md", include_str!("../templates/python/README.md")),
            (
                ".gitignore",
                "/build\n/.venv\n/wit_world\n__pycache__\n/*.wasm\n",
            ),
        ],
    }
}

/// What is copied into the folder and not changed there: the SDK of Rust, generated bindings, and the contract for all others.
fn libraries(language: Language) -> Vec<(String, String)> {
    let contract = || ("wit/routing-policy.wit".to_owned(), WIT.to_owned());
    match language {
        Language::Rust => {
            let files = sdk::files();
            let place = |(path, text)| (format!("{SDK}/{path}"), text);
            files.into_iter().map(place).collect()
        }
        Language::C => {
            let place = |(path, text): &File| (format!("bindings/{path}"), (*text).to_owned());
            C_BINDINGS.iter().map(place).chain([contract()]).collect()
        }
        Language::Zig
        | Language::AssemblyScript
        | Language::Go
        | Language::JavaScript
        | Language::Python => vec![contract()],
    }
}

/// The bindings that `wit-bindgen c` generates from the contract.
const C_BINDINGS: [File; 2] = [
    (
        "routing_policy.h",
        include_str!("../templates/c/bindings/routing_policy.h"),
    ),
    (
        "routing_policy.c",
        include_str!("../templates/c/bindings/routing_policy.c"),
    ),
];

fn shown(language: Language) -> Vec<&'static str> {
    let source = match language {
        Language::Rust => "src/lib.rs",
        Language::C => "policy.c",
        Language::Zig => "policy.zig",
        Language::AssemblyScript => "policy.ts",
        Language::Go => "policy.go",
        Language::JavaScript => "policy.js",
        Language::Python => "policy.py",
    };
    vec![source, "cases.toml", "README.md", "policy.toml"]
}

/// The line of the manifest that names the main file, for compilers that take one.
fn source_line(language: Language) -> &'static str {
    match language {
        Language::Rust | Language::Go => "",
        Language::C => "source = \"policy.c\"\n",
        Language::Zig => "source = \"policy.zig\"\n",
        Language::AssemblyScript => "source = \"policy.ts\"\n",
        Language::JavaScript => "source = \"policy.js\"\n",
        Language::Python => "source = \"policy.py\"\n",
    }
}

/// The command that installs what the project file lists.
fn install(language: Language) -> Option<&'static str> {
    match language {
        Language::Rust | Language::C | Language::Zig | Language::Go => None,
        Language::AssemblyScript | Language::JavaScript => Some("npm install"),
        Language::Python => {
            Some("python3 -m venv .venv && .venv/bin/pip install -r requirements.txt")
        }
    }
}

/// The steps of the CI file that install the compiler.
fn steps(language: Language) -> &'static str {
    match language {
        Language::Rust => {
            "      - run: rustup target add wasm32-unknown-unknown\n      - run: cargo test\n"
        }
        Language::C => {
            "      - run: sudo apt-get update && sudo apt-get install --yes clang lld wasi-libc libclang-rt-dev-wasm32\n"
        }
        Language::Zig => "      - run: python3 -m venv .venv && .venv/bin/pip install ziglang\n",
        Language::AssemblyScript | Language::JavaScript => "      - run: npm ci || npm install\n",
        Language::Go => {
            "      - uses: actions/setup-go@v6\n        with:\n          go-version-file: go.mod\n"
        }
        Language::Python => {
            "      - run: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};

    use super::*;

    /// With `PORTCULLIS_WRITE=1` in the environment, the files are written anew.
    #[test]
    fn the_bindings_for_c_are_those_of_the_contract() {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("routing-policy.wit", WIT).unwrap();
        let world = resolve.select_world(&[package], Some("routing-policy"));
        let mut generator = wit_bindgen_c::Opts {
            // The build of the policy says which world it is for.
            no_object_file: true,
            ..Default::default()
        }
        .build();
        let mut files = Files::default();
        WorldGenerator::generate(&mut *generator, &mut resolve, world.unwrap(), &mut files)
            .unwrap();

        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/c/bindings");
        let generated = files.iter().map(|(name, bytes)| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            (name.to_owned(), text)
        });
        let generated: Vec<_> = generated.collect();
        if env::var_os("PORTCULLIS_WRITE").is_some() {
            for (name, text) in &generated {
                fs::write(folder.join(name), text).unwrap();
            }
            return;
        }
        assert_eq!(generated.len(), C_BINDINGS.len());
        for (name, text) in C_BINDINGS {
            let found = generated.iter().find(|(generated, _)| generated == name);
            assert_eq!(found.map(|(_, text)| text.as_str()), Some(text), "{name}");
        }
    }
}
