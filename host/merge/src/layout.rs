//! A component, parsed as far as its core modules are concerned. Nested components are opaque.

use std::collections::HashMap;
use std::ops::Range;

use wasmparser::{
    CanonicalFunction, CanonicalOption, Chunk, ComponentAlias, ComponentExternalKind,
    ComponentInstance, ComponentInstanceSectionReader, ComponentNameSectionReader,
    ComponentOuterAliasKind, ComponentType, ComponentTypeRef, ComponentTypeSectionReader, Instance,
    KnownCustom, Parser, Payload,
};

use crate::module::Kind;
use crate::problem::Problem;

/// A definition of a component, or a section without core items.
pub(crate) enum Entry<'a> {
    /// A section that names no core item.
    Section { id: u8, data: &'a [u8] },
    /// A section that instantiates components, or calls a function.
    Running { id: u8, data: &'a [u8] },
    /// Types of resources with destructors, which are core functions.
    Types(ComponentTypeSectionReader<'a>, Vec<u32>),
    /// A core module.
    Module(&'a [u8]),
    /// A core instance.
    Instance(Instance<'a>),
    /// An alias.
    Alias(ComponentAlias<'a>),
    /// A function that is lifted, lowered, or works on a resource.
    Canon(CanonicalFunction),
    /// The names of items.
    Names(ComponentNameSectionReader<'a>),
}

/// Where a core item of the component comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'a> {
    /// An export of a core instance.
    Export { instance: u32, name: &'a str },
    /// A function that the runtime makes, by the entry at this position.
    Host { entry: usize },
}

/// A component.
#[derive(Default)]
pub(crate) struct Layout<'a> {
    pub(crate) entries: Vec<Entry<'a>>,
    /// The core modules.
    pub(crate) modules: Vec<&'a [u8]>,
    /// The positions of the core instances.
    pub(crate) instances: Vec<usize>,
    /// The core items of each kind.
    items: [Vec<Item<'a>>; 4],
    /// The core functions that entries make, by the position of the entry.
    hosts: HashMap<usize, u32>,
}

impl<'a> Layout<'a> {
    /// Parses a valid component.
    ///
    /// # Errors
    /// If it has something that merging does not handle.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut layout = Self::default();
        each_section(bytes, |payload| layout.read(payload, bytes))?;
        Ok(layout)
    }

    /// A core item of the component.
    pub(crate) fn item(&self, kind: Kind, index: u32) -> Result<Item<'a>, Problem> {
        let item = self.items[kind as usize].get(index as usize);
        item.copied().ok_or(Problem::Stray("the component's items"))
    }

    /// The index of the core function that an entry makes.
    pub(crate) fn host_function(&self, entry: usize) -> Option<u32> {
        self.hosts.get(&entry).copied()
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other sections are copied"
    )]
    fn read(&mut self, payload: Payload<'a>, bytes: &'a [u8]) -> Result<(), Problem> {
        match payload {
            Payload::Version { .. } | Payload::End(_) => {}
            Payload::ModuleSection {
                unchecked_range, ..
            } => {
                let module = slice(bytes, unchecked_range)?;
                self.modules.push(module);
                self.entries.push(Entry::Module(module));
            }
            Payload::InstanceSection(instances) => {
                for instance in instances {
                    self.instances.push(self.entries.len());
                    self.entries.push(Entry::Instance(instance?));
                }
            }
            Payload::ComponentAliasSection(aliases) => {
                for alias in aliases {
                    self.read_alias(alias?)?;
                }
            }
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions {
                    self.read_canon(function?)?;
                }
            }
            Payload::ComponentTypeSection(ref types) => {
                let mut destructors = Vec::new();
                for ty in types.clone() {
                    if let ComponentType::Resource { dtor, .. } = ty? {
                        destructors.extend(dtor);
                    }
                }
                match destructors.is_empty() {
                    true => self.copy(&payload, bytes)?,
                    false => self.entries.push(Entry::Types(types.clone(), destructors)),
                }
            }
            Payload::ComponentImportSection(ref imports) => {
                for import in imports.clone() {
                    if matches!(import?.ty, ComponentTypeRef::Module(_)) {
                        return Err(MODULE);
                    }
                }
                self.copy(&payload, bytes)?;
            }
            Payload::ComponentExportSection(ref exports) => {
                for export in exports.clone() {
                    refuse_module(export?.kind)?;
                }
                self.copy(&payload, bytes)?;
            }
            Payload::ComponentInstanceSection(ref instances) => {
                refuse_modules(instances.clone())?;
                self.copy(&payload, bytes)?;
                self.mark_running();
            }
            Payload::ComponentStartSection { .. } => {
                self.copy(&payload, bytes)?;
                self.mark_running();
            }
            Payload::CustomSection(ref custom) => match custom.as_known() {
                KnownCustom::ComponentName(names) => self.entries.push(Entry::Names(names)),
                _ => self.copy(&payload, bytes)?,
            },
            other => self.copy(&other, bytes)?,
        }
        Ok(())
    }

    fn copy(&mut self, payload: &Payload<'a>, bytes: &'a [u8]) -> Result<(), Problem> {
        let (id, data) = section(payload, bytes)?;
        self.entries.push(Entry::Section { id, data });
        Ok(())
    }

    fn mark_running(&mut self) {
        if let Some(Entry::Section { id, data }) = self.entries.pop() {
            self.entries.push(Entry::Running { id, data });
        }
    }

    fn read_alias(&mut self, alias: ComponentAlias<'a>) -> Result<(), Problem> {
        match alias {
            ComponentAlias::CoreInstanceExport {
                kind,
                instance_index,
                name,
            } => {
                let kind =
                    Kind::of(kind).ok_or(Problem::Unsupported("it has tags of exceptions"))?;
                self.items[kind as usize].push(Item::Export {
                    instance: instance_index,
                    name,
                });
            }
            ComponentAlias::InstanceExport { kind, .. } => refuse_module(kind)?,
            ComponentAlias::Outer { kind, .. } => match kind {
                ComponentOuterAliasKind::CoreModule => return Err(MODULE),
                ComponentOuterAliasKind::CoreType
                | ComponentOuterAliasKind::Type
                | ComponentOuterAliasKind::Component => {}
            },
        }
        self.entries.push(Entry::Alias(alias));
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other functions are those of the asynchronous component model"
    )]
    fn read_canon(&mut self, function: CanonicalFunction) -> Result<(), Problem> {
        match &function {
            CanonicalFunction::Lift { options, .. } => refuse_async(options)?,
            CanonicalFunction::Lower { options, .. } => {
                refuse_async(options)?;
                self.add_host();
            }
            CanonicalFunction::ResourceNew { .. }
            | CanonicalFunction::ResourceDrop { .. }
            | CanonicalFunction::ResourceRep { .. } => self.add_host(),
            _ => return Err(ASYNC),
        }
        self.entries.push(Entry::Canon(function));
        Ok(())
    }

    /// Adds the core function that the next entry makes.
    fn add_host(&mut self) {
        let entry = self.entries.len();
        let functions = &mut self.items[Kind::Func as usize];
        self.hosts.insert(entry, functions.len() as u32);
        functions.push(Item::Host { entry });
    }
}

const MODULE: Problem = Problem::Unsupported("it passes core modules between components");
const ASYNC: Problem = Problem::Unsupported("it has asynchronous functions");

fn refuse_module(kind: ComponentExternalKind) -> Result<(), Problem> {
    match kind {
        ComponentExternalKind::Module => Err(MODULE),
        ComponentExternalKind::Func
        | ComponentExternalKind::Value
        | ComponentExternalKind::Type
        | ComponentExternalKind::Instance
        | ComponentExternalKind::Component => Ok(()),
    }
}

fn refuse_modules(instances: ComponentInstanceSectionReader<'_>) -> Result<(), Problem> {
    for instance in instances {
        match instance? {
            ComponentInstance::Instantiate { args, .. } => {
                args.iter().try_for_each(|arg| refuse_module(arg.kind))?;
            }
            ComponentInstance::FromExports(exports) => {
                let mut exports = exports.iter();
                exports.try_for_each(|export| refuse_module(export.kind))?;
            }
        }
    }
    Ok(())
}

fn refuse_async(options: &[CanonicalOption]) -> Result<(), Problem> {
    for option in options {
        match option {
            CanonicalOption::UTF8
            | CanonicalOption::UTF16
            | CanonicalOption::CompactUTF16
            | CanonicalOption::Memory(_)
            | CanonicalOption::Realloc(_)
            | CanonicalOption::PostReturn(_) => {}
            CanonicalOption::Async
            | CanonicalOption::Callback(_)
            | CanonicalOption::CoreType(_)
            | CanonicalOption::Gc => return Err(ASYNC),
        }
    }
    Ok(())
}

/// Calls `each` with the component's own sections, and not with those of what is nested in it.
pub(crate) fn each_section<'a>(
    bytes: &'a [u8],
    mut each: impl FnMut(Payload<'a>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    while !rest.is_empty() {
        let Chunk::Parsed { consumed, payload } = parser.parse(rest, true)? else {
            return Err(Problem::Stray("a section"));
        };
        rest = rest.get(consumed..).unwrap_or_default();
        if let Payload::ModuleSection {
            unchecked_range, ..
        }
        | Payload::ComponentSection {
            unchecked_range, ..
        } = &payload
        {
            rest = rest.get(unchecked_range.len()..).unwrap_or_default();
        }
        each(payload)?;
    }
    Ok(())
}

/// The id and the content of a section.
pub(crate) fn section<'a>(
    payload: &Payload<'_>,
    bytes: &'a [u8],
) -> Result<(u8, &'a [u8]), Problem> {
    let (id, range) = payload.as_section().ok_or(Problem::Stray("a section"))?;
    Ok((id, slice(bytes, range)?))
}

fn slice(bytes: &[u8], range: Range<usize>) -> Result<&[u8], Problem> {
    bytes.get(range).ok_or(Problem::Stray("a section"))
}
