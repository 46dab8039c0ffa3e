//! The build of a policy in any language.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use portcullis_policy::Inspection;
use portcullis_toolchains::{TARGET, show};
use serde::Deserialize;

use crate::adapt::{AdaptError, adapt};
use crate::language::Language;
use crate::manifest::{MANIFEST, Manifest, ManifestError};
use crate::toolchain::{MissingToolchain, Toolchain};
use crate::wit::{WitError, write_wit};

/// The directory of intermediate files in the directory of a policy. cargo has its own.
const SCRATCH: &str = "build";

/// Stack of a policy in C or Zig, in bytes.
const STACK: u32 = 32 * 1024;

/// A policy that was built.
#[derive(Debug)]
pub struct Built {
    /// The file.
    pub file: PathBuf,
    /// What it contains.
    pub inspection: Inspection,
    /// Whether the floor for WASI was linked into it.
    pub floor: bool,
    /// How many core modules were merged, for people.
    pub merging: Option<String>,
}

/// Why a policy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Nothing says what language the policy is in.
    #[error(
        "{folder} has no {MANIFEST} and no file that names a language: is it the directory of a policy? `portcullis policy new` makes one",
        folder = .0.display()
    )]
    NoLanguage(PathBuf),
    /// The compiler is not installed.
    #[error(transparent)]
    Missing(#[from] MissingToolchain),
    /// The contract for the tool could not be written.
    #[error(transparent)]
    Wit(#[from] WitError),
    /// The main source file is not there.
    #[error("there is no {path}: `source` in {MANIFEST} names the main file", path = .0.display())]
    NoSource(PathBuf),
    /// The compiler does not start.
    #[error("cannot start `{command}`: {source}")]
    NotStarted {
        /// The command.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// The compiler fails. Its messages have been printed.
    #[error("`{command}` failed ({status})")]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// cargo made no library of type `cdylib`.
    #[error("cargo built no policy: add to {manifest}: [lib] crate-type = [\"cdylib\"]", manifest = .0.display())]
    NoLibrary(PathBuf),
    /// A file cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The compiled file is no policy.
    #[error("{path}: {cause}", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: AdaptError,
    },
}

/// Compiles the policy in a directory to `NAME.wasm` there, says what world it is for, and links the floor for WASI where it is needed. `say`
/// gets each command before it is run. The file is replaced atomically, and only if it has changed, because a running host may use it.
/// With `names`, it keeps the names of its functions, for profiles and the messages of failures.
///
/// # Errors
/// If the language is unknown, its compiler is missing or fails, or the compiled file is no policy.
pub fn build(folder: &Path, names: bool, say: &mut dyn FnMut(&str)) -> Result<Built, BuildError> {
    let manifest = manifest_of(folder)?;
    let toolchain = Toolchain::find(manifest.language, folder)?;
    let work = Work {
        folder,
        manifest: &manifest,
        names,
    };
    let compiled = work.compile(&toolchain, say)?;
    work.deliver(&compiled)
}

/// The file that [`build`] makes in a directory, which need not be there yet.
///
/// # Errors
/// If the directory is not that of a policy.
pub fn file_of(folder: &Path) -> Result<PathBuf, BuildError> {
    let manifest = manifest_of(folder)?;
    let work = Work {
        folder,
        manifest: &manifest,
        names: false,
    };
    Ok(work.file())
}

fn manifest_of(folder: &Path) -> Result<Manifest, BuildError> {
    match Manifest::of(folder)? {
        Some(manifest) => Ok(manifest),
        None => guess(folder)
            .map(Manifest::of_language)
            .ok_or_else(|| BuildError::NoLanguage(folder.to_owned())),
    }
}

/// The language of a directory without a manifest.
fn guess(folder: &Path) -> Option<Language> {
    let has = |file: &str| folder.join(file).is_file();
    let found = [
        ("Cargo.toml", Language::Rust),
        ("go.mod", Language::Go),
        ("policy.c", Language::C),
        ("policy.zig", Language::Zig),
        ("policy.ts", Language::AssemblyScript),
        ("policy.js", Language::JavaScript),
        ("policy.py", Language::Python),
    ];
    found
        .into_iter()
        .find(|(file, _)| has(file))
        .map(|(_, language)| language)
}

/// One build.
struct Work<'w> {
    folder: &'w Path,
    manifest: &'w Manifest,
    /// Whether the file keeps the names of its functions.
    names: bool,
}

impl Work<'_> {
    /// Runs the compiler, and returns its file.
    fn compile(
        &self,
        toolchain: &Toolchain,
        say: &mut dyn FnMut(&str),
    ) -> Result<PathBuf, BuildError> {
        if let Toolchain::Rust(compiler) = toolchain {
            let mut command = compiler.build();
            command.args([
                "--release",
                "--target",
                TARGET,
                "--message-format=json-render-diagnostics",
            ]);
            if self.names {
                command.args(["--config", "profile.release.strip=false"]);
            }
            let made = self.run_for_output(&mut command, say)?;
            let own = self.folder.join("Cargo.toml");
            return library(&made, &own).ok_or(BuildError::NoLibrary(own));
        }
        let scratch = self.folder.join(SCRATCH);
        fs::create_dir_all(&scratch).map_err(at(&scratch))?;
        let core = Path::new(SCRATCH).join("core.wasm");
        self.run(&mut self.command(toolchain, &core)?, say)?;
        Ok(self.folder.join(core))
    }

    /// The command of a compiler that writes one file, relative to the directory of the policy.
    fn command(&self, toolchain: &Toolchain, core: &Path) -> Result<Command, BuildError> {
        let mut command = match toolchain {
            Toolchain::Rust(compiler) => compiler.build(),
            Toolchain::Clang(program) => {
                let mut command = Command::new(program);
                command.args(["--target=wasm32-wasi", "-O2", "-nostartfiles"]);
                self.c(&mut command, core)?;
                command
            }
            Toolchain::ZigCc(zig) => {
                let mut command = zig.command();
                command.args(["cc", "--target=wasm32-wasi", "-O2", "-mexec-model=reactor"]);
                self.c(&mut command, core)?;
                command
            }
            Toolchain::Zig(zig) => {
                let mut command = zig.command();
                command.arg("build-exe").arg(self.source("policy.zig")?);
                command.args(["-target", "wasm32-freestanding", "-O", "ReleaseSmall"]);
                command.arg(self.stripped("-fno-strip", "-fstrip"));
                command.args(["-fno-entry", "--export=decide", "--export=cabi_realloc"]);
                command.args(["--stack", &STACK.to_string(), "--cache-dir"]);
                command.arg(Path::new(SCRATCH).join("zig-cache"));
                command.arg(format!("-femit-bin={}", core.display()));
                command
            }
            Toolchain::AssemblyScript(program) => {
                let mut command = Command::new(program);
                command.arg(self.source("policy.ts")?);
                command.args(["-O3", "--runtime", "stub", "--use"]);
                command.arg(match self.folder.join("portcullis.ts").is_file() {
                    true => "abort=portcullis/abort",
                    false => "abort=",
                });
                command.args(self.names.then_some("--debug"));
                command.arg("-o").arg(core);
                command
            }
            Toolchain::Go(program) => {
                let mut command = Command::new(program);
                command.env("GOOS", "wasip1").env("GOARCH", "wasm");
                command.args(["build", "-buildmode=c-shared"]);
                command.arg(self.stripped("-ldflags=-w", "-ldflags=-s -w"));
                command.arg("-o");
                command.arg(core);
                command
            }
            Toolchain::JavaScript(program) => {
                let mut command = Command::new(program);
                command.arg("--wit").arg(self.wit()?);
                command.arg("--js").arg(self.source("policy.js")?);
                command.args(["--world", self.world(), "--sync", "-o"]);
                command.arg(core);
                command
            }
            Toolchain::Python(program) => {
                let source = self.source("policy.py")?;
                let mut command = Command::new(program);
                command.arg("-d").arg(self.wit()?);
                command.args(["-w", self.world(), "componentize"]);
                command.arg(source.file_stem().unwrap_or_default());
                command.arg("-o").arg(core);
                command
            }
        };
        command.args(&self.manifest.flags);
        if let Toolchain::Go(_) = toolchain {
            command.arg(".");
        }
        Ok(command)
    }

    /// The arguments of a compiler of C.
    fn c(&self, command: &mut Command, core: &Path) -> Result<(), BuildError> {
        command.arg("-Wl,--no-entry");
        command.arg(self.stripped("-Wl,--strip-debug", "-Wl,--strip-all"));
        command.args(["-I", "."]);
        command.arg(format!("-Wl,-z,stack-size={STACK}"));
        command.arg(self.source("policy.c")?);
        let bindings = Path::new("bindings/routing_policy.c");
        if self.folder.join(bindings).is_file() {
            command.arg(bindings);
        }
        command.arg("-o").arg(core);
        Ok(())
    }

    /// One of two arguments: the first if names are kept, the second if not.
    fn stripped(&self, names: &'static str, none: &'static str) -> &'static str {
        match self.names {
            true => names,
            false => none,
        }
    }

    /// The main source file, relative to the directory.
    fn source(&self, usual: &str) -> Result<PathBuf, BuildError> {
        let source = self.manifest.source.clone();
        let source = source.unwrap_or_else(|| usual.into());
        match self.folder.join(&source).is_file() {
            true => Ok(source),
            false => Err(BuildError::NoSource(self.folder.join(source))),
        }
    }

    /// The directory of the contract, relative to the directory of the policy: its own, or a fresh copy.
    fn wit(&self) -> Result<PathBuf, BuildError> {
        let own = Path::new("wit");
        if self.folder.join(own).is_dir() {
            return Ok(own.to_owned());
        }
        let copy = Path::new(SCRATCH).join(own);
        write_wit(&self.folder.join(&copy), true)?;
        Ok(copy)
    }

    fn world(&self) -> &str {
        self.manifest.world.as_deref().unwrap_or("routing-policy")
    }

    fn run(&self, command: &mut Command, say: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
        let status = self.start(command, say)?.status();
        self.ended(command, status).map(drop)
    }

    /// The same, with the standard output returned.
    fn run_for_output(
        &self,
        command: &mut Command,
        say: &mut dyn FnMut(&str),
    ) -> Result<Vec<u8>, BuildError> {
        let command = self.start(command, say)?;
        let output = command.stderr(Stdio::inherit()).output();
        let (status, output) = match output {
            Ok(output) => (Ok(output.status), output.stdout),
            Err(error) => (Err(error), Vec::new()),
        };
        self.ended(command, status).map(|()| output)
    }

    fn start<'c>(
        &self,
        command: &'c mut Command,
        say: &mut dyn FnMut(&str),
    ) -> Result<&'c mut Command, BuildError> {
        say(&show(command));
        Ok(command.current_dir(self.folder).stdin(Stdio::null()))
    }

    fn ended(&self, command: &Command, status: io::Result<ExitStatus>) -> Result<(), BuildError> {
        let command = show(command);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(BuildError::Failed { command, status }),
            Err(source) => Err(BuildError::NotStarted { command, source }),
        }
    }

    /// Adapts the compiled file, and puts it in its place.
    fn deliver(&self, compiled: &Path) -> Result<Built, BuildError> {
        let bytes = fs::read(compiled).map_err(at(compiled))?;
        let unusable = |cause: AdaptError| BuildError::Unusable {
            path: compiled.to_owned(),
            cause,
        };
        let adapted = adapt(&bytes).map_err(unusable)?;
        let inspection = portcullis_policy::inspect(&adapted.bytes);
        let inspection = inspection.map_err(|problem| unusable(problem.into()))?;
        let file = self.file();
        replace(&file, &adapted.bytes)?;
        Ok(Built {
            file,
            inspection,
            floor: adapted.floor,
            merging: adapted.merging(),
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name()))
    }

    fn name(&self) -> String {
        if let Some(name) = &self.manifest.name {
            return name.to_string();
        }
        let folder = fs::canonicalize(self.folder).unwrap_or_else(|_| self.folder.to_owned());
        let name = folder.file_name();
        name.map_or_else(|| "policy".into(), |name| name.to_string_lossy().into())
    }
}

/// A message of cargo about something that it has built.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

/// The WebAssembly file of the crate with this manifest, in cargo's messages.
fn library(messages: &[u8], manifest: &Path) -> Option<PathBuf> {
    let manifest = fs::canonicalize(manifest).ok()?;
    let lines = messages.split(|&byte| byte == b'\n');
    let of_crate = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let mut of_crate = of_crate.filter(|message| {
        message.reason == "compiler-artifact" && message.manifest_path.as_ref() == Some(&manifest)
    });
    of_crate.find_map(|message| {
        let mut files = message.filenames.into_iter();
        files.find(|file| file.extension().is_some_and(|name| name == "wasm"))
    })
}

/// Writes a file atomically, if its content changes.
fn replace(file: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let fresh = file.with_file_name(format!(".{name}.new"));
    fs::write(&fresh, bytes).map_err(at(&fresh))?;
    fs::rename(&fresh, file).map_err(at(file))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder(files: &[&str]) -> Option<Language> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        guess(folder.path())
    }

    #[test]
    fn files_name_the_language() {
        assert_eq!(in_folder(&["Cargo.toml"]), Some(Language::Rust));
        assert_eq!(
            in_folder(&["package.json", "policy.ts"]),
            Some(Language::AssemblyScript)
        );
        assert_eq!(
            in_folder(&["package.json", "policy.js"]),
            Some(Language::JavaScript)
        );
        assert_eq!(in_folder(&["README.md"]), None);
    }

    #[test]
    fn a_directory_of_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = build(folder.path(), false, &mut |_| {}).unwrap_err();
        assert!(matches!(error, BuildError::NoLanguage(_)), "{error}");
    }

    #[test]
    fn the_library_of_the_crate_is_found_in_cargos_messages() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("Cargo.toml");
        fs::write(&manifest, "").unwrap();
        let own = fs::canonicalize(&manifest).unwrap();
        let messages = format!(
            "{}\n{}\n{}\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/other/Cargo.toml","filenames":["/x/other.wasm"]}"#,
            serde_json::json!({"reason": "compiler-artifact", "manifest_path": own, "filenames": ["/x/a.rlib", "/x/a.wasm"]}),
            r#"{"reason":"build-finished","success":true}"#,
        );
        let found = library(messages.as_bytes(), &manifest);
        assert_eq!(found.as_deref(), Some(Path::new("/x/a.wasm")));
    }

    #[test]
    fn an_unchanged_file_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.wasm");
        replace(&file, b"one").unwrap();
        let first = fs::metadata(&file).unwrap().modified().unwrap();
        replace(&file, b"one").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first);
        replace(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
    }
}
