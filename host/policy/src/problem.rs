//! Why a policy file is refused.

use thiserror::Error;

use crate::contract::WORLD;
use crate::failure::Failure;

/// A policy was refused. The active policy, if any, stays active.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("policy {policy}: {problem}")]
pub struct LoadError {
    /// The name of the policy, usually that of its file.
    pub policy: String,
    /// What is wrong with the file, and how to fix it.
    #[source]
    pub problem: LoadProblem,
}

/// Why a policy cannot be used with these settings.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// The policy refuses the settings.
    #[error("the policy refuses its settings: {0}; correct `settings` in its configuration")]
    Refused(String),
    /// `validate-settings` failed.
    #[error("`validate-settings` of the policy failed: {0}")]
    Failed(Failure),
}

/// What is wrong with a policy file, and how to fix it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadProblem {
    /// The file is empty.
    #[error(
        "the file is empty; if it was still being written, write it under another name and rename it"
    )]
    Empty,
    /// The file is larger than allowed.
    #[error(
        "the file has {size} bytes, more than {limit}; strip it (`wasm-tools strip`; Rust: strip = true in the release profile; Go: \
         -ldflags='-s -w'; JavaScript: componentize-qjs) or raise `module` in [policy] (Python: \"32MiB\")"
    )]
    TooLarge {
        /// Bytes of the file.
        size: usize,
        /// Maximum size in bytes.
        limit: usize,
    },
    /// The file is precompiled machine code, which could not be sandboxed.
    #[error(
        "the file is precompiled machine code, which is never accepted; provide the .wasm file that it was compiled from"
    )]
    Precompiled,
    /// The file is WebAssembly text.
    #[error("the file is WebAssembly text; convert it to binary first (wasm-tools parse)")]
    Text,
    /// The file is not WebAssembly.
    #[error(
        "the file is not WebAssembly: it does not start with \\0asm; provide the .wasm file that the compiler wrote"
    )]
    NotWasm,
    /// The file is not a valid module or component.
    #[error(
        "the file is damaged or uses instructions that are not supported: {cause} (at byte {offset}); {mend}"
    )]
    Invalid {
        /// The message of the validator.
        cause: String,
        /// The offset in the file.
        offset: usize,
        /// How to fix it with the toolchain that built the file.
        mend: &'static str,
    },
    /// The policy was built for WASI.
    #[error(
        "the policy imports {import}, but policies have no WASI (files, network, environment); adapt it (portcullis policy adapt), or {mend}"
    )]
    Wasi {
        /// The first such import.
        import: String,
        /// How to fix it with the toolchain that built the file.
        mend: &'static str,
    },
    /// The language runtime of the policy imports host functions of another platform.
    #[error(
        "the policy imports {import}, which its language runtime needs and this host does not offer; {mend}"
    )]
    LanguageRuntime {
        /// The first such import.
        import: String,
        /// How to fix it with the toolchain that built the file.
        mend: &'static str,
    },
    /// The policy imports functions of a JavaScript host.
    #[error(
        "the policy imports {import}, which only a JavaScript host has; leave out the crate that uses wasm-bindgen, or its \
         feature for browsers"
    )]
    WasmBindgen {
        /// The first such import.
        import: String,
    },
    /// The policy was built against another version of the contract.
    #[error(
        "the policy imports {import}, but this host offers {offered}; build it with the SDK of this host's version"
    )]
    OtherVersion {
        /// The first such import.
        import: String,
        /// The interfaces that this host offers.
        offered: String,
    },
    /// The contract has the interface, but not the function.
    #[error(
        "the policy imports {import}, a function that the interface does not have; build it with the SDK of this host's version"
    )]
    UnknownFunction {
        /// The first such import.
        import: String,
    },
    /// The policy imports something else that the contract does not have.
    #[error(
        "the policy imports {import}, which this host does not offer; a policy may import {offered}"
    )]
    ForeignImport {
        /// The first such import.
        import: String,
        /// The interfaces that this host offers.
        offered: String,
    },
    /// The module has no section that says which world it is built for.
    #[error(
        "the module was not built for world {WORLD}: it has no component-type section; use the SDK (crate portcullis-sdk) or \
         wit-bindgen with the WIT text of policy-wit"
    )]
    NoWorld,
    /// The policy does not export `decide`.
    #[error(
        "the policy does not export `decide`; in Rust, write portcullis_sdk::policy!(…) in the crate's lib.rs"
    )]
    MissingExport,
    /// The policy was built for another world.
    #[error(
        "the policy does not fit world {WORLD}{}: {cause}; build it with the SDK of this host's version",
        built_for(.world)
    )]
    OtherWorld {
        /// The world that the module is built for, as it says.
        world: Option<String>,
        /// The first difference.
        cause: String,
    },
    /// The module cannot be encoded as a component.
    #[error(
        "the module violates the canonical ABI of its world: {cause}; build it with the SDK or wit-bindgen"
    )]
    Encoding {
        /// The message of the encoder.
        cause: String,
    },
    /// The policy passes texts in UTF-16.
    #[error(
        "the policy passes texts in UTF-16, but this host supports only UTF-8; select UTF-8 in the bindings generator"
    )]
    NotUtf8,
    /// The compiler exceeded its limit of time or memory.
    #[error(
        "the policy cannot be compiled: {cause}; make it smaller (generated code, large tables), or raise `compile-time` and `compile-memory` in \
         [policy]"
    )]
    TooCostly {
        /// Which limit.
        cause: String,
    },
    /// The policy cannot be used with its settings.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The initial memory of the policy exceeds the limit.
    #[error(
        "the policy starts with {wanted} bytes of memory, more than {limit}; {mend}, or raise `memory` in [policy]"
    )]
    Memory {
        /// Initial size in bytes.
        wanted: u64,
        /// Maximum size in bytes.
        limit: u64,
        /// How to fix it with the toolchain that built the file.
        mend: &'static str,
    },
    /// The initial table of the policy exceeds the limit.
    #[error(
        "the policy has a table of {wanted} elements, more than {limit}; raise `table-elements` in [policy]"
    )]
    Table {
        /// Initial number of elements.
        wanted: u64,
        /// Maximum number of elements.
        limit: u64,
    },
    /// Components are nested too deeply.
    #[error(
        "components or their types are nested more than {limit} levels deep; compose the policy of components side by side"
    )]
    TooDeep {
        /// Maximum depth.
        limit: u32,
    },
    /// The component has more instances, memories or tables than a sandbox may have.
    #[error(
        "the component has {wanted} {what}, more than {limit}; compose it of fewer components, or link its parts into one module"
    )]
    Footprint {
        /// Core instances, memories or tables.
        what: &'static str,
        /// Their number.
        wanted: u64,
        /// Maximum number.
        limit: u32,
    },
    /// A nested component instantiates a module or component that it gets as an argument.
    #[error(
        "a part of the component instantiates a module or component that it gets from another part, so the host cannot count the \
         instances; compose it with `wac plug` or `wasm-tools compose`, which pass instances only"
    )]
    UnknownFootprint,
    /// A library of the host panicked while it read the file.
    #[error(
        "the WebAssembly library of the host failed on this file: {cause}; build it with another toolchain, and please report this bug"
    )]
    Panicked {
        /// The message of the panic.
        cause: String,
    },
    /// The compiler refused the file.
    #[error("the policy cannot be compiled: {cause}")]
    Compile {
        /// The message of the compiler.
        cause: String,
    },
    /// The imports cannot be linked with the host functions.
    #[error(
        "the policy cannot be linked with the host: {cause}; build it with the SDK of this host's version"
    )]
    Link {
        /// The message of the linker.
        cause: String,
    },
    /// The policy fails before `decide` is called.
    #[error(
        "the policy fails when it starts: {0}; look at its start function and static initialisers"
    )]
    Start(Failure),
    /// The policy did not return from the trial run in time.
    #[error(
        "the policy did not answer a plain OPTIONS within {limit_ms} ms, a multiple of `deadline` in [policy]; it has an endless \
         loop, or does far too much work"
    )]
    Endless {
        /// The deadline of the trial run in milliseconds.
        limit_ms: u64,
    },
    /// The policy did not return from `on-failure` in the trial run in time.
    #[error(
        "the policy did not say within {limit_ms} ms, a multiple of `deadline` in [policy], what happens after the failure of a plain \
         OPTIONS (`on-failure`); it has an endless loop, or does far too much work"
    )]
    EndlessAfterFailure {
        /// The deadline of the trial run in milliseconds.
        limit_ms: u64,
    },
}

impl LoadProblem {
    /// The error for the policy of this name.
    pub(crate) fn of(self, policy: &str) -> LoadError {
        LoadError {
            policy: policy.to_owned(),
            problem: self,
        }
    }
}

impl From<wasmparser::BinaryReaderError> for LoadProblem {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid {
            cause: error.message().to_owned(),
            offset: error.offset(),
            mend: BUILD_AGAIN,
        }
    }
}

/// How to fix a damaged file of an unknown toolchain.
pub(crate) const BUILD_AGAIN: &str = "build it again";

fn built_for(world: &Option<String>) -> String {
    match world {
        Some(world) if world != WORLD => format!(" (it is built for {world})"),
        _ => String::new(),
    }
}
