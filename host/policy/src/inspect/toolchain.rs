//! The toolchain that built a file, and how to build files with it that the host accepts.

use crate::problem::BUILD_AGAIN;

use super::items::{Import, Producer};

/// A compiler or componentizer whose files need advice of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    Rust,
    /// clang, with or without wasi-sdk.
    C,
    Zig,
    Go,
    TinyGo,
    AssemblyScript,
    /// componentize-js, which `jco componentize` calls.
    JavaScript,
    /// componentize-qjs.
    QuickJs,
    /// componentize-py.
    Python,
    Unknown,
}

impl Toolchain {
    /// Detects the toolchain from the `producers` section or, without one, from the imports.
    pub(crate) fn of(producers: &[Producer], imports: &[Import]) -> Self {
        let is_named = |word: &str| {
            let mut names = producers.iter().map(|producer| &producer.name);
            names.any(|name| name.to_ascii_lowercase().contains(word))
        };
        let has_language = |is_it: fn(&str) -> bool| {
            let mut languages = producers
                .iter()
                .filter(|producer| producer.role == "language");
            languages.any(|producer| is_it(&producer.name))
        };
        let imports_from =
            |interface: &str| imports.iter().any(|import| import.interface == interface);
        let aborts = || {
            let is_it = |import: &Import| {
                import.interface == "env" && import.item.as_deref() == Some("abort")
            };
            imports.iter().any(is_it)
        };
        // Tools that embed a language runtime come first: the runtime is written in another language.
        match () {
            () if is_named("componentize-py") => Self::Python,
            () if is_named("componentize-qjs") => Self::QuickJs,
            () if is_named("componentizejs") || is_named("componentize-js") => Self::JavaScript,
            () if has_language(|name| name == "JavaScript") => Self::JavaScript,
            () if is_named("tinygo") => Self::TinyGo,
            () if has_language(|name| name.eq_ignore_ascii_case("go")) || imports_from("gojs") => {
                Self::Go
            }
            () if is_named("zig") => Self::Zig,
            () if has_language(|name| name == "Rust") => Self::Rust,
            () if has_language(|name| name.starts_with('C')) || is_named("clang") => Self::C,
            () if is_named("assemblyscript") || aborts() => Self::AssemblyScript,
            () => Self::Unknown,
        }
    }

    /// How to build files that import only the contract.
    pub(crate) fn bare(self) -> &'static str {
        match self {
            Self::Rust => {
                "build it for wasm32-unknown-unknown (cargo build --release --target wasm32-unknown-unknown)"
            }
            Self::C => {
                "build it as a library without code for files, output and time (clang -nostartfiles -Wl,--no-entry)"
            }
            Self::Zig => {
                "build it for wasm32-freestanding (zig build-exe -target wasm32-freestanding -fno-entry)"
            }
            Self::Go => "build it with another compiler: the runtime of Go needs WASI",
            Self::TinyGo => "build it for wasm-unknown (tinygo build -target=wasm-unknown)",
            Self::AssemblyScript => "build it without them (asc --use abort= --runtime stub)",
            Self::JavaScript => {
                "disable the features of other hosts (jco componentize --disable all)"
            }
            Self::QuickJs => "replace WASI by stubs (componentize-qjs --sync --stub-wasi)",
            Self::Python => "replace WASI by stubs (componentize-py componentize --stub-wasi)",
            Self::Unknown => {
                "build it for a target without WASI (in Rust: cargo build --release --target wasm32-unknown-unknown)"
            }
        }
    }

    /// How to build files whose language runtime needs no other platform than the contract.
    pub(crate) fn portable(self) -> &'static str {
        match self {
            Self::Go => {
                "build it for WASI (GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared), and adapt it (portcullis policy adapt)"
            }
            Self::Rust
            | Self::C
            | Self::Zig
            | Self::TinyGo
            | Self::AssemblyScript
            | Self::JavaScript
            | Self::QuickJs
            | Self::Python
            | Self::Unknown => self.bare(),
        }
    }

    /// How to build files with less initial memory.
    pub(crate) fn small_memory(self) -> &'static str {
        match self {
            Self::Rust => "link it with a smaller stack (-C link-arg=-zstack-size=32768)",
            Self::C | Self::Zig => "link it with a smaller stack (-Wl,-z,stack-size=32768)",
            Self::TinyGo => "give it a smaller stack and heap (its target's `default-stack-size`)",
            Self::AssemblyScript => "reduce its initial memory (asc --initialMemory 1)",
            Self::Go | Self::JavaScript | Self::QuickJs | Self::Python | Self::Unknown => {
                "reduce its initial memory"
            }
        }
    }

    /// How to build files without unsupported instructions; `cause` is the message of the validator.
    pub(crate) fn plain(self, cause: &str) -> &'static str {
        match self {
            Self::QuickJs if cause.contains("tail call") => {
                "build it again without --opt-size: it needs tail calls"
            }
            Self::QuickJs if cause.contains("async") => "build it again with --sync",
            Self::Rust => "build it again with the target's own features",
            Self::C
            | Self::Zig
            | Self::Go
            | Self::TinyGo
            | Self::AssemblyScript
            | Self::JavaScript
            | Self::QuickJs
            | Self::Python
            | Self::Unknown => BUILD_AGAIN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(producers: &[(&str, &str)], imports: &[(&str, &str)]) -> Toolchain {
        let producers: Vec<_> = producers
            .iter()
            .map(|&(role, name)| Producer {
                role: role.into(),
                name: name.into(),
                version: String::new(),
            })
            .collect();
        let imports: Vec<_> = imports
            .iter()
            .map(|&(interface, item)| Import {
                interface: interface.into(),
                item: Some(item.into()),
                kind: "function",
            })
            .collect();
        Toolchain::of(&producers, &imports)
    }

    #[test]
    fn toolchains_are_detected_by_producers_and_imports() {
        let wasi = [("wasi_snapshot_preview1", "fd_write")];
        for (producers, imports, toolchain) in [
            (
                &[("language", "Rust"), ("processed-by", "rustc")][..],
                &wasi[..],
                Toolchain::Rust,
            ),
            (
                &[("language", "C11"), ("processed-by", "clang")],
                &wasi,
                Toolchain::C,
            ),
            (&[("processed-by", "Zig")], &wasi, Toolchain::Zig),
            (&[("language", "Go")], &wasi, Toolchain::Go),
            (&[], &[("gojs", "runtime.wasmExit")], Toolchain::Go),
            (
                &[("language", "C99"), ("processed-by", "TinyGo")],
                &wasi,
                Toolchain::TinyGo,
            ),
            (&[], &[("env", "abort")], Toolchain::AssemblyScript),
            (
                &[("language", "JavaScript"), ("language", "Rust")],
                &wasi,
                Toolchain::JavaScript,
            ),
            (
                &[("processed-by", "ComponentizeJS"), ("language", "Rust")],
                &wasi,
                Toolchain::JavaScript,
            ),
            (
                &[("processed-by", "componentize-qjs"), ("language", "C11")],
                &wasi,
                Toolchain::QuickJs,
            ),
            (
                &[("processed-by", "componentize-py"), ("language", "Rust")],
                &wasi,
                Toolchain::Python,
            ),
            (&[], &wasi, Toolchain::Unknown),
        ] {
            assert_eq!(
                of(producers, imports),
                toolchain,
                "{producers:?} {imports:?}"
            );
        }
    }
}
