//! The compiler of Rust for policies.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{are_installed, cargo, find, is_program};

/// Target of policies: nothing but the contract can be imported.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// Stack of a policy in bytes. It is small, because the part that was used must be cleared before the next call. The statics follow the stack,
/// which grows down: it ends in the middle of a page of the machine, so that a call of a small policy writes to one page and not to two.
const STACK: u32 = 29 * 1024;

/// How much code LLVM inlines. The limit is not much above that of `opt-level = 3`, but holds for cold calls, too: a policy then consists of fewer
/// functions, each of which would check its stack and its deadline, and the verdict is written where the host reads it. The machine code of a
/// small policy is a twelfth smaller.
const INLINE: &str = "-Cllvm-args=-inline-threshold=400";

/// Profile of policies, whatever their manifest says: fast, without unwinding, and without debug sections except function names, which the
/// host's backtraces use.
const PROFILE: [(&str, &str); 6] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
];

/// Debian's compiler in the version for browsers, with the source of the standard library, from which the target's library is built.
pub const PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "lld-19"];

/// A compiler of Rust that makes WebAssembly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RustCompiler {
    /// The one in use, with the library of the target.
    Own,
    /// Debian's, which also compiles the standard library.
    Debian {
        /// LLVM's linker for WebAssembly.
        linker: PathBuf,
    },
}

impl RustCompiler {
    /// The first one that is installed.
    pub fn installed() -> Option<Self> {
        if has_target() {
            return Some(Self::Own);
        }
        match are_installed(&PACKAGES) {
            true => Self::debian(),
            false => None,
        }
    }

    /// Debian's, once its packages are installed; `None` if there is no linker.
    pub fn debian() -> Option<Self> {
        Some(Self::Debian { linker: linker()? })
    }

    /// Returns a `cargo build` command for policies.
    pub fn build(&self) -> Command {
        let mut command = match self {
            Self::Own => cargo(),
            Self::Debian { linker } => debian_cargo(linker),
        };
        command
            .arg("build")
            .envs(PROFILE)
            // This variable takes precedence over all other sources of flags.
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                format!("-Clink-arg=-zstack-size={STACK}\x1f{INLINE}"),
            )
            .env_remove("CARGO_BUILD_TARGET")
            .env_remove("RUSTC_WORKSPACE_WRAPPER");
        if let Self::Debian { .. } = self {
            // Debian's compiler may be older than the manifests require; policies do not need the newer version.
            command.args(["-Zbuild-std=std,panic_abort", "--ignore-rust-version"]);
        }
        command
    }
}

/// Returns Debian's cargo, isolated from the rustup that runs this program.
fn debian_cargo(linker: &Path) -> Command {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::split_paths(&path).filter(|folder| !is_program(&folder.join("rustup")));
    let path = [PathBuf::from("/usr/bin")].into_iter().chain(path);

    let mut command = Command::new("/usr/bin/cargo");
    // These variables of this program name cargo, rustc and libraries of another toolchain.
    for name in [
        "CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTUP_TOOLCHAIN",
        "RUSTC_WRAPPER",
        "LD_LIBRARY_PATH",
    ] {
        command.env_remove(name);
    }
    command
        .env(
            "PATH",
            env::join_paths(path).unwrap_or_else(|_| "/usr/bin:/bin".into()),
        )
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
    command
}

/// Whether the installed Rust has the target's standard library.
pub fn has_target() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut query = Command::new(rustc);
    query.args(["--print", "target-libdir", "--target", TARGET]);
    query.output().is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(path.trim()).is_dir()
    })
}

/// Returns LLVM's linker for Wasm, in any installed version.
fn linker() -> Option<PathBuf> {
    find("wasm-ld-19")
        .or_else(|| find("wasm-ld"))
        .or_else(|| find("rust-lld"))
}
