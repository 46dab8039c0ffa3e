//! Why a policy file is not taken.

use thiserror::Error;

use crate::contract::WORLD;
use crate::failure::Failure;

/// A policy that was not taken. The one that serves, if any, goes on serving.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("policy {policy}: {problem}")]
pub struct LoadError {
    /// The name that the policy was loaded under: its file, as a rule.
    pub policy: String,
    /// What is wrong, and what to do.
    #[source]
    pub problem: LoadProblem,
}

/// Why a policy does not serve with these settings.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SettingsError {
    /// It does not take them.
    #[error(
        "the policy refuses its settings: {0}; mend the section `settings` of its configuration"
    )]
    Refused(String),
    /// It failed to look at them.
    #[error("the policy could not look at its settings (`validate-settings`): {0}")]
    Failed(Failure),
}

/// What is wrong with a policy file, and what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadProblem {
    /// The file is empty.
    #[error(
        "the file is empty; it may be in the middle of being written: write to another name and rename"
    )]
    Empty,
    /// The file is larger than allowed.
    #[error(
        "the file has {size} bytes, more than {limit}; strip it (`wasm-tools strip`; in Rust, strip = true in the release profile) or \
         raise `module` in [policy]"
    )]
    TooLarge {
        /// Bytes of the file.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// Machine code of some runtime: it could do anything.
    #[error(
        "the file is precompiled machine code, which is never taken; give the .wasm that it was made from"
    )]
    Precompiled,
    /// WebAssembly's text form.
    #[error("the file is WebAssembly text; translate it first (wasm-tools parse)")]
    Text,
    /// Anything else.
    #[error(
        "the file is not WebAssembly: it does not start with \\0asm; give the .wasm that the compiler made"
    )]
    NotWasm,
    /// Not a valid module or component.
    #[error(
        "the file is damaged or uses instructions that are not supported: {cause} (at byte {offset}); {mend}"
    )]
    Invalid {
        /// The validator's words.
        cause: String,
        /// Where.
        offset: usize,
        /// What to do, with the tool that made it.
        mend: &'static str,
    },
    /// The policy was built for WASI.
    #[error(
        "the policy imports {import}, and policies have no WASI: no files, no clock, no network; {mend}"
    )]
    Wasi {
        /// The first such import.
        import: String,
        /// What to do, with the tool that made it.
        mend: &'static str,
    },
    /// The runtime of the policy's language expects another host.
    #[error(
        "the policy imports {import}, which the runtime of its language wants and no policy gets; {mend}"
    )]
    LanguageRuntime {
        /// The first such import.
        import: String,
        /// What to do, with the tool that made it.
        mend: &'static str,
    },
    /// A crate in the policy expects a JavaScript host.
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
    /// The interface is known, the function is not.
    #[error(
        "the policy imports {import}, a function that the interface does not have; build it with the SDK of this host's version"
    )]
    UnknownFunction {
        /// The first such import.
        import: String,
    },
    /// The policy needs something else that no policy gets.
    #[error(
        "the policy imports {import}, which this host does not offer; a policy may import {offered}"
    )]
    ForeignImport {
        /// The first such import.
        import: String,
        /// The interfaces that this host offers.
        offered: String,
    },
    /// The module does not say what world it is built for.
    #[error(
        "the module was not built for world {WORLD}: it has no component-type section; use the SDK (crate portcullis-sdk) or \
         wit-bindgen with the WIT text of policy-wit"
    )]
    NoWorld,
    /// The policy has no `decide`.
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
        /// The world that it says it is built for.
        world: Option<String>,
        /// The first difference.
        cause: String,
    },
    /// The module cannot be made a component.
    #[error(
        "the module does not keep the canonical ABI of its world: {cause}; build it with the SDK or wit-bindgen"
    )]
    Encoding {
        /// The encoder's words.
        cause: String,
    },
    /// The policy wants texts in another encoding.
    #[error(
        "the policy passes texts in UTF-16, and this host takes UTF-8 only; choose UTF-8 in the bindings' generator"
    )]
    NotUtf8,
    /// The compiler took more time or memory than it may.
    #[error(
        "the policy can't be compiled: {cause}; leave out what is large or generated, or raise `compile-time` and `compile-memory` in \
         [policy]"
    )]
    TooCostly {
        /// Which of them.
        cause: String,
    },
    /// The policy does not take the settings that it would serve with.
    #[error("{0}")]
    Settings(#[from] SettingsError),
    /// The policy needs more memory than a sandbox has.
    #[error(
        "the policy starts with {wanted} bytes of memory, more than {limit}; {mend}, or raise `memory` in [policy]"
    )]
    Memory {
        /// Bytes that it starts with.
        wanted: u64,
        /// Bytes that it may have.
        limit: u64,
        /// What to do, with the tool that made it.
        mend: &'static str,
    },
    /// The policy needs a larger table than a sandbox has.
    #[error(
        "the policy has a table of {wanted} elements, more than {limit}; raise `table-elements` in [policy]"
    )]
    Table {
        /// Elements that it starts with.
        wanted: u64,
        /// Elements that it may have.
        limit: u64,
    },
    /// The policy has components within components within components.
    #[error(
        "components lie more than {limit} deep within components; compose it of components that lie beside each other"
    )]
    TooDeep {
        /// The deepest that they may lie.
        limit: u32,
    },
    /// The policy is composed of more parts than a sandbox has place for.
    #[error(
        "the component has {wanted} {what}, more than {limit}; compose it of fewer components, or link its parts into one module"
    )]
    Parts {
        /// Core instances, memories or tables.
        what: &'static str,
        /// How many it has.
        wanted: u64,
        /// How many it may have.
        limit: u32,
    },
    /// The policy instantiates modules or components that one of its parts gives to another.
    #[error(
        "a part of the component instantiates a module or component that it gets from another part, so the host can't tell how many \
         instances there will be; compose it with `wac plug` or `wasm-tools compose`, which pass instances only"
    )]
    OpenParts,
    /// A library of the host panicked over the file.
    #[error(
        "the file brings the host's WebAssembly library out of step: {cause}; build it with other tools, and please report it"
    )]
    Panicked {
        /// The message of the panic.
        cause: String,
    },
    /// The compiler gave up.
    #[error("the policy cannot be compiled: {cause}")]
    Compile {
        /// The compiler's words.
        cause: String,
    },
    /// The host's functions do not fit the imports.
    #[error(
        "the policy cannot be linked with the host: {cause}; build it with the SDK of this host's version"
    )]
    Link {
        /// The linker's words.
        cause: String,
    },
    /// The policy fails before it can be asked anything.
    #[error(
        "the policy fails when it starts: {0}; look at its start function and static initialisers"
    )]
    Start(Failure),
    /// The policy did not come to an end in the trial run.
    #[error(
        "the policy did not answer a plain OPTIONS within {limit_ms} ms, a multiple of `deadline` in [policy]; it loops, or does \
         far too much work"
    )]
    Endless {
        /// The time that the trial run had, in milliseconds.
        limit_ms: u64,
    },
}

impl LoadProblem {
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
            offset: error.offset() as usize,
            mend: BUILD_AGAIN,
        }
    }
}

/// What to do about a file that is damaged, where the tool that made it is not known.
pub(crate) const BUILD_AGAIN: &str = "build it again";

fn built_for(world: &Option<String>) -> String {
    match world {
        Some(world) if world != WORLD => format!(" (it is built for {world})"),
        _ => String::new(),
    }
}
