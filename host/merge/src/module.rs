//! A core module, parsed.

use std::collections::{BTreeMap, HashMap};

use wasm_encoder::ExportKind;
use wasmparser::{
    CompositeInnerType, Data, Element, ExternalKind, FuncType, FunctionBody, Global, Import,
    KnownCustom, MemoryType, Name, Parser, Payload, Table, TypeRef,
};

use crate::problem::Problem;

/// Length in bytes of the longest name of a function that the merged module keeps.
const LONGEST_NAME: usize = 1024;

/// A kind of item that modules import, define and export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Func,
    Table,
    Memory,
    Global,
}

/// A core module.
#[derive(Default)]
pub(crate) struct Module<'a> {
    pub(crate) types: Vec<FuncType>,
    pub(crate) imports: Vec<Import<'a>>,
    /// For each kind, the positions in `imports` of the imports of this kind.
    imported: [Vec<usize>; 4],
    /// The types of the defined functions.
    pub(crate) functions: Vec<u32>,
    pub(crate) tables: Vec<Table<'a>>,
    pub(crate) memories: Vec<MemoryType>,
    pub(crate) globals: Vec<Global<'a>>,
    exports: HashMap<&'a str, (Kind, u32)>,
    /// The first name of each item that is exported.
    export_names: HashMap<(Kind, u32), &'a str>,
    pub(crate) start: Option<u32>,
    pub(crate) elements: Vec<Element<'a>>,
    pub(crate) bodies: Vec<FunctionBody<'a>>,
    pub(crate) data: Vec<Data<'a>>,
    /// The names of functions.
    pub(crate) names: BTreeMap<u32, &'a str>,
    /// The tools that made it: field, name and version.
    pub(crate) producers: Vec<[&'a str; 3]>,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Func, Self::Table, Self::Memory, Self::Global];

    /// The kind of an import or export; none for tags.
    pub(crate) fn of(kind: ExternalKind) -> Option<Self> {
        match kind {
            ExternalKind::Func | ExternalKind::FuncExact => Some(Self::Func),
            ExternalKind::Table => Some(Self::Table),
            ExternalKind::Memory => Some(Self::Memory),
            ExternalKind::Global => Some(Self::Global),
            ExternalKind::Tag => None,
        }
    }

    pub(crate) fn of_type(ty: TypeRef) -> Option<Self> {
        match ty {
            TypeRef::Func(_) | TypeRef::FuncExact(_) => Some(Self::Func),
            TypeRef::Table(_) => Some(Self::Table),
            TypeRef::Memory(_) => Some(Self::Memory),
            TypeRef::Global(_) => Some(Self::Global),
            TypeRef::Tag(_) => None,
        }
    }

    pub(crate) fn encoded(self) -> ExportKind {
        match self {
            Self::Func => ExportKind::Func,
            Self::Table => ExportKind::Table,
            Self::Memory => ExportKind::Memory,
            Self::Global => ExportKind::Global,
        }
    }
}

impl<'a> Module<'a> {
    /// Parses a module of a valid component.
    ///
    /// # Errors
    /// If the module has types or tags that merging does not handle.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut module = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            module.read(payload?)?;
        }
        Ok(module)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections have nothing to merge"
    )]
    fn read(&mut self, payload: Payload<'a>) -> Result<(), Problem> {
        match payload {
            Payload::TypeSection(types) => {
                for group in types {
                    for ty in group?.into_types() {
                        let CompositeInnerType::Func(ty) = ty.composite_type.inner else {
                            return Err(Problem::Unsupported("a module has types of objects"));
                        };
                        self.types.push(ty);
                    }
                }
            }
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import?;
                    let kind = Kind::of_type(import.ty).ok_or(TAGS)?;
                    self.imported[kind as usize].push(self.imports.len());
                    self.imports.push(import);
                }
            }
            Payload::FunctionSection(functions) => self.functions = all(functions)?,
            Payload::TableSection(tables) => self.tables = all(tables)?,
            Payload::MemorySection(memories) => self.memories = all(memories)?,
            Payload::TagSection(_) => return Err(TAGS),
            Payload::GlobalSection(globals) => self.globals = all(globals)?,
            Payload::ExportSection(exports) => {
                for export in exports {
                    let export = export?;
                    let item = (Kind::of(export.kind).ok_or(TAGS)?, export.index);
                    self.exports.insert(export.name, item);
                    self.export_names.entry(item).or_insert(export.name);
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(elements) => self.elements = all(elements)?,
            Payload::CodeSectionEntry(body) => self.bodies.push(body),
            Payload::DataSection(data) => self.data = all(data)?,
            Payload::CustomSection(custom) => self.read_custom(custom.as_known()),
            _ => {}
        }
        Ok(())
    }

    /// Reads names and producers. Custom sections have no meaning, so that what cannot be read is left out.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other custom sections describe code that moves"
    )]
    fn read_custom(&mut self, custom: KnownCustom<'a>) {
        match custom {
            KnownCustom::Name(names) => {
                for name in names.map_while(Result::ok) {
                    if let Name::Function(functions) = name {
                        let all = functions.into_iter().map_while(Result::ok);
                        let short = all.filter(|name| name.name.len() <= LONGEST_NAME);
                        self.names.extend(short.map(|name| (name.index, name.name)));
                    }
                }
            }
            KnownCustom::Producers(fields) => {
                for field in fields.into_iter().map_while(Result::ok) {
                    for value in field.values.into_iter().map_while(Result::ok) {
                        self.producers.push([field.name, value.name, value.version]);
                    }
                }
            }
            _ => {}
        }
    }

    /// The number of imported items of a kind.
    pub(crate) fn imported(&self, kind: Kind) -> u32 {
        self.imported[kind as usize].len() as u32
    }

    /// The position in `imports` of an imported item; none if the item is defined here.
    pub(crate) fn import_of(&self, kind: Kind, index: u32) -> Option<usize> {
        self.imported[kind as usize].get(index as usize).copied()
    }

    /// The number of defined items of a kind.
    pub(crate) fn defined(&self, kind: Kind) -> u32 {
        let count = match kind {
            Kind::Func => self.functions.len(),
            Kind::Table => self.tables.len(),
            Kind::Memory => self.memories.len(),
            Kind::Global => self.globals.len(),
        };
        count as u32
    }

    /// What an export is.
    pub(crate) fn export(&self, name: &str) -> Option<(Kind, u32)> {
        self.exports.get(name).copied()
    }

    /// The name under which an item is exported.
    pub(crate) fn export_name(&self, kind: Kind, index: u32) -> Option<&'a str> {
        self.export_names.get(&(kind, index)).copied()
    }
}

const TAGS: Problem = Problem::Unsupported("a module has tags of exceptions");

fn all<'a, T: wasmparser::FromReader<'a>>(
    section: wasmparser::SectionLimited<'a, T>,
) -> Result<Vec<T>, Problem> {
    Ok(section.into_iter().collect::<Result<_, _>>()?)
}
