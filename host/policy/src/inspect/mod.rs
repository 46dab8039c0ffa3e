//! Inspection of policy files without compiling or running them.

mod footprint;
mod items;
mod nesting;
mod toolchain;

use std::collections::BTreeSet;
use std::fmt;

use wasmparser::{
    CanonicalFunction, CanonicalOption, ComponentExternalKind, ComponentTypeRef, ExternalKind,
    MemoryType, Parser, Payload, ProducersSectionReader, TypeRef, Validator, WasmFeatures,
};

use crate::contract::{Exports, ON_FAILURE, SECTION, VALIDATE};
use crate::digest::Digest;
use crate::engine::PAGE;
use crate::panic;
use crate::problem::LoadProblem;

pub use items::{Export, Import, Producer};
pub(crate) use toolchain::Toolchain;

use footprint::Footprint;
pub(crate) use nesting::DEEPEST;

/// The custom section with the version of the SDK.
const SDK_SECTION: &str = "portcullis-sdk";

/// The suffix that wit-bindgen adds to the name of a world without its exports.
const IMPORTS_ALONE: &str = "-with-all-of-its-exports-removed";

/// What a policy file contains.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Module or component.
    pub kind: Kind,
    /// Size of the file in bytes.
    pub size: usize,
    /// SHA-256 digest of the file.
    pub digest: Digest,
    /// The world that a module is built for, from its `component-type` section. `None` for components.
    pub world: Option<String>,
    /// The imports of the file.
    pub imports: Vec<Import>,
    /// The exports of the file.
    pub exports: Vec<Export>,
    /// Languages and tools, from the `producers` section.
    pub producers: Vec<Producer>,
    /// The version of the SDK that the file was built with.
    pub sdk: Option<String>,
    /// Initial size of linear memory in bytes: the sum of all memories of all instances.
    pub memory_bytes: u64,
    /// Declared maximum of linear memory in bytes; `None` if there is no maximum.
    pub max_memory_bytes: Option<u64>,
    /// Initial number of elements of the largest table.
    pub table_elements: u64,
    /// Whether all texts are passed in UTF-8.
    pub(crate) utf8: bool,
    /// The instances, memories and tables of one instantiation.
    pub(crate) footprint: Footprint,
}

/// The two forms of a policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A core module, the usual output of compilers.
    Module,
    /// A component, the output of `wasm-tools component new`.
    Component,
}

/// Reads a policy file without compiling or running it.
///
/// # Errors
/// If it is not a valid WebAssembly file.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, LoadProblem> {
    panic::catch(|| inspect_untrusted(bytes))
}

fn inspect_untrusted(bytes: &[u8]) -> Result<Inspection, LoadProblem> {
    refuse_other_formats(bytes)?;
    let mut found = Inspection {
        kind: match Parser::is_component(bytes) {
            true => Kind::Component,
            false => Kind::Module,
        },
        size: bytes.len(),
        digest: Digest::of(bytes),
        world: None,
        imports: Vec::new(),
        exports: Vec::new(),
        producers: Vec::new(),
        sdk: None,
        memory_bytes: 0,
        max_memory_bytes: Some(0),
        table_elements: 0,
        utf8: true,
        footprint: Footprint::default(),
    };
    nesting::check(bytes)?;
    found.read(bytes)?;
    let validated = Validator::new_with_features(features()).validate_all(bytes);
    validated.map_err(|error| LoadProblem::Invalid {
        mend: found.toolchain().plain(error.message()),
        cause: error.message().to_owned(),
        offset: error.offset(),
    })?;
    found.footprint = Footprint::of(bytes)?;
    found.memory_bytes = found.footprint.memory_bytes;
    Ok(found)
}

impl Inspection {
    /// The toolchain that built the file.
    pub(crate) fn toolchain(&self) -> Toolchain {
        Toolchain::of(&self.producers, &self.imports)
    }

    /// How to build the policy without WASI, with the tool that built it as far as the file says which one that was.
    pub fn without_wasi(&self) -> &'static str {
        self.toolchain().bare()
    }

    /// Whether the file imports an interface of the contract, such as `trusted`.
    pub fn asks_for(&self, interface: &str) -> bool {
        let asks = |import: &Import| {
            let path = import.interface.split_once('@');
            let path = path.map_or(import.interface.as_str(), |(path, _)| path);
            path.strip_prefix("portcullis:policy/") == Some(interface)
        };
        self.imports.iter().any(asks)
    }

    /// Whether the file has an export of this name.
    /// What the file exports besides `decide`.
    pub(crate) fn exported(&self) -> Exports {
        Exports {
            validate_settings: self.has_function(VALIDATE),
            on_failure: self.has_function(ON_FAILURE),
        }
    }

    fn has_function(&self, name: &str) -> bool {
        self.exports.iter().any(|export| export.name == name)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other sections are read by `read_section`"
    )]
    fn read(&mut self, bytes: &[u8]) -> Result<(), LoadProblem> {
        let mut producers = BTreeSet::new();
        // Nesting depth of modules and components; 0 is the file itself.
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload?;
            match &payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                    depth += 1;
                }
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(section) if section.name() == "producers" => {
                    // Nothing depends on this section, so a malformed one is ignored.
                    let _ = read_producers(section.data(), section.data_offset(), &mut producers);
                }
                Payload::CustomSection(section) if section.name() == SDK_SECTION => {
                    self.sdk = Some(String::from_utf8_lossy(section.data()).into_owned());
                }
                Payload::CustomSection(section)
                    if depth == 0 && section.name().starts_with(SECTION) =>
                {
                    self.note_world(world(section.data()));
                }
                _ => self.read_section(&payload, depth == 0)?,
            }
        }
        self.producers = producers.into_iter().collect();
        // A host keeps this for each policy.
        self.imports.shrink_to_fit();
        self.exports.shrink_to_fit();
        Ok(())
    }

    /// Bindings add one section for the world, and another one for the world without its exports. The former counts.
    fn note_world(&mut self, world: String) {
        let is_part = |world: &String| world.contains(IMPORTS_ALONE);
        if self.world.as_ref().is_none_or(is_part) {
            self.world = Some(world);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn read_section(&mut self, payload: &Payload<'_>, outermost: bool) -> wasmparser::Result<()> {
        match payload {
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    self.add_memory(memory?);
                }
            }
            Payload::TableSection(tables) => {
                for table in tables.clone() {
                    self.table_elements = self.table_elements.max(table?.ty.initial);
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions.clone() {
                    self.utf8 &= is_utf8(&function?);
                }
            }
            _ if outermost => self.read_border(payload)?,
            _ => {}
        }
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn read_border(&mut self, payload: &Payload<'_>) -> wasmparser::Result<()> {
        match payload {
            Payload::ImportSection(imports) => {
                for import in imports.clone().into_imports() {
                    let import = import?;
                    self.imports.push(Import {
                        interface: import.module.to_owned(),
                        item: Some(import.name.to_owned()),
                        kind: core_kind(import.ty),
                    });
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    self.exports.push(Export {
                        name: export.name.to_owned(),
                        kind: external_kind(export.kind),
                    });
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    let import = import?;
                    self.imports.push(Import {
                        interface: import.name.name.to_owned(),
                        item: None,
                        kind: component_kind(&import.ty),
                    });
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    self.exports.push(Export {
                        name: export.name.name.to_owned(),
                        kind: component_external_kind(export.kind),
                    });
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn add_memory(&mut self, memory: MemoryType) {
        let bytes = |pages: u64| pages.saturating_mul(PAGE as u64);
        self.max_memory_bytes = match (self.max_memory_bytes, memory.maximum) {
            (Some(sum), Some(maximum)) => Some(sum.saturating_add(bytes(maximum))),
            _ => None,
        };
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Module => "module",
            Self::Component => "component",
        })
    }
}

/// The proposals that policies may use. The engine supports them, too.
pub(crate) fn features() -> WasmFeatures {
    let mut features = WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST;
    features |= WasmFeatures::COMPONENT_MODEL;
    features
}

fn refuse_other_formats(bytes: &[u8]) -> Result<(), LoadProblem> {
    if bytes.is_empty() {
        return Err(LoadProblem::Empty);
    }
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return Err(LoadProblem::Precompiled);
    }
    if bytes.starts_with(b"\0asm") {
        return Ok(());
    }
    let start = bytes.trim_ascii_start();
    match start.starts_with(b"(") || start.starts_with(b";;") {
        true => Err(LoadProblem::Text),
        false => Err(LoadProblem::NotWasm),
    }
}

fn read_producers(
    data: &[u8],
    offset: usize,
    producers: &mut BTreeSet<Producer>,
) -> wasmparser::Result<()> {
    let reader = wasmparser::BinaryReader::new(data, offset);
    for field in ProducersSectionReader::new(reader)? {
        let field = field?;
        for value in field.values {
            let value = value?;
            producers.insert(Producer {
                role: field.name.to_owned(),
                name: value.name.to_owned(),
                version: value.version.to_owned(),
            });
        }
    }
    Ok(())
}

/// The name of the world in a `component-type` section.
fn world(section: &[u8]) -> String {
    let Ok((resolve, world)) = wit_parser::decoding::decode_world(section) else {
        return "(unreadable)".into();
    };
    let world = &resolve.worlds[world];
    match world.package {
        Some(package) => resolve.id_of_name(package, &world.name),
        None => world.name.clone(),
    }
}

fn is_utf8(function: &CanonicalFunction) -> bool {
    let (CanonicalFunction::Lift { options, .. } | CanonicalFunction::Lower { options, .. }) =
        function
    else {
        return true;
    };
    !options.iter().any(|option| {
        matches!(
            option,
            CanonicalOption::UTF16 | CanonicalOption::CompactUTF16
        )
    })
}

fn core_kind(ty: TypeRef) -> &'static str {
    match ty {
        TypeRef::Func(_) | TypeRef::FuncExact(_) => "function",
        TypeRef::Table(_) => "table",
        TypeRef::Memory(_) => "memory",
        TypeRef::Global(_) => "global",
        TypeRef::Tag(_) => "tag",
    }
}

fn external_kind(kind: ExternalKind) -> &'static str {
    match kind {
        ExternalKind::Func | ExternalKind::FuncExact => "function",
        ExternalKind::Table => "table",
        ExternalKind::Memory => "memory",
        ExternalKind::Global => "global",
        ExternalKind::Tag => "tag",
    }
}

fn component_kind(ty: &ComponentTypeRef) -> &'static str {
    match ty {
        ComponentTypeRef::Module(_) => "module",
        ComponentTypeRef::Func(_) => "function",
        ComponentTypeRef::Value(_) => "value",
        ComponentTypeRef::Type(_) => "type",
        ComponentTypeRef::Instance(_) => "interface",
        ComponentTypeRef::Component(_) => "component",
    }
}

fn component_external_kind(kind: ComponentExternalKind) -> &'static str {
    match kind {
        ComponentExternalKind::Module => "module",
        ComponentExternalKind::Func => "function",
        ComponentExternalKind::Value => "value",
        ComponentExternalKind::Type => "type",
        ComponentExternalKind::Instance => "interface",
        ComponentExternalKind::Component => "component",
    }
}
