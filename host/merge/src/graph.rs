//! What each core instance of a component imports, followed to where it is defined.

use std::collections::HashMap;

use wasmparser::{CanonicalFunction, CanonicalOption, Instance};

use crate::layout::{Entry, Item, Layout};
use crate::module::{Kind, Module};
use crate::problem::Problem;

/// Maximum number of core instances of a component that is examined.
const MOST_INSTANCES: usize = 256;

/// Maximum number of core items that are used, each counted with every use: each instance of one module imports as many.
const MOST_USES: usize = 1 << 20;

/// A core item, whatever the number of names under which it is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entity {
    /// Defined in the module of a core instance. The index is that of the module's items.
    Defined {
        instance: u32,
        kind: Kind,
        index: u32,
    },
    /// A function that the runtime makes: its index among the core functions of the component.
    Host(u32),
}

/// A core instance.
pub(crate) enum Made<'a> {
    /// From a module: its index, and what each of its imports is.
    Module { module: u32, imports: Vec<Entity> },
    /// A list of items under names.
    Exports(HashMap<&'a str, Entity>),
}

/// A component with the relations between its core instances.
pub(crate) struct Graph<'a> {
    pub(crate) layout: Layout<'a>,
    pub(crate) modules: Vec<Module<'a>>,
    /// The core instances.
    pub(crate) made: Vec<Made<'a>>,
    /// For each entry, the core items that it needs. Aliases and lists of exports need nothing by themselves.
    pub(crate) uses: Vec<Vec<Entity>>,
}

impl<'a> Graph<'a> {
    /// Follows all imports.
    ///
    /// # Errors
    /// If a module has something that merging does not handle, or the component is too large.
    pub(crate) fn new(layout: Layout<'a>) -> Result<Self, Problem> {
        if layout.instances.len() > MOST_INSTANCES {
            return Err(Problem::Unsupported("it has too many core instances"));
        }
        let modules = layout.modules.iter().map(|&module| Module::parse(module));
        let mut graph = Self {
            modules: modules.collect::<Result<_, _>>()?,
            made: Vec::new(),
            uses: Vec::new(),
            layout,
        };
        let mut count = 0;
        for position in 0..graph.layout.entries.len() {
            let uses = graph.uses_of(position)?;
            count += uses.len();
            if count > MOST_USES {
                return Err(Problem::Unsupported("its core instances import too much"));
            }
            graph.uses.push(uses);
        }
        Ok(graph)
    }

    fn uses_of(&mut self, position: usize) -> Result<Vec<Entity>, Problem> {
        let mut uses = Vec::new();
        match &self.layout.entries[position] {
            Entry::Instance(instance) => {
                let made = self.make(instance)?;
                if let Made::Module { imports, .. } = &made {
                    uses.clone_from(imports);
                }
                self.made.push(made);
            }
            Entry::Types(_, destructors) => {
                for function in destructors {
                    uses.push(self.entity(Kind::Func, *function)?);
                }
            }
            Entry::Canon(function) => {
                for (kind, index) in core_items(function) {
                    uses.push(self.entity(kind, index)?);
                }
            }
            Entry::Section { .. }
            | Entry::Running { .. }
            | Entry::Module(_)
            | Entry::Alias(_)
            | Entry::Names(_) => {}
        }
        Ok(uses)
    }

    fn make(&self, instance: &Instance<'a>) -> Result<Made<'a>, Problem> {
        match instance {
            Instance::FromExports(exports) => {
                let mut items = HashMap::new();
                for export in exports {
                    let kind = Kind::of(export.kind).ok_or(Problem::Unsupported("it has tags"))?;
                    items.insert(export.name, self.entity(kind, export.index)?);
                }
                Ok(Made::Exports(items))
            }
            Instance::Instantiate { module_index, args } => {
                let args: HashMap<_, _> = args.iter().map(|arg| (arg.name, arg.index)).collect();
                let module = self.module(*module_index)?;
                let mut imports = Vec::new();
                for import in &module.imports {
                    let from = args.get(import.module);
                    let from = *from.ok_or(Problem::Stray("an import"))?;
                    imports.push(self.export(from, import.name)?);
                }
                Ok(Made::Module {
                    module: *module_index,
                    imports,
                })
            }
        }
    }

    /// What a core item of the component is.
    pub(crate) fn entity(&self, kind: Kind, index: u32) -> Result<Entity, Problem> {
        match self.layout.item(kind, index)? {
            Item::Export { instance, name } => self.export(instance, name),
            Item::Host { .. } => Ok(Entity::Host(index)),
        }
    }

    /// What an export of a core instance is.
    fn export(&self, instance: u32, name: &str) -> Result<Entity, Problem> {
        let missing = Problem::Stray("an export");
        match self.instance(instance)? {
            Made::Exports(items) => items.get(name).copied().ok_or(missing),
            Made::Module { module, imports } => {
                let module = self.module(*module)?;
                let (kind, index) = module.export(name).ok_or(missing)?;
                Ok(follow(module, instance, imports, kind, index))
            }
        }
    }

    /// What an item of the module of a core instance is.
    pub(crate) fn item(&self, instance: u32, kind: Kind, index: u32) -> Result<Entity, Problem> {
        let (module, imports) = self.module_of(instance)?;
        Ok(follow(module, instance, imports, kind, index))
    }

    pub(crate) fn instance(&self, instance: u32) -> Result<&Made<'a>, Problem> {
        let made = self.made.get(instance as usize);
        made.ok_or(Problem::Stray("core instances"))
    }

    fn module(&self, module: u32) -> Result<&Module<'a>, Problem> {
        let found = self.modules.get(module as usize);
        found.ok_or(Problem::Stray("core modules"))
    }

    /// The module of an instance, and what its imports are.
    pub(crate) fn module_of(&self, instance: u32) -> Result<(&Module<'a>, &[Entity]), Problem> {
        match self.instance(instance)? {
            Made::Module { module, imports } => Ok((self.module(*module)?, imports)),
            Made::Exports(_) => Err(Problem::Stray("core instances")),
        }
    }

    /// The position of the entry that makes an item.
    pub(crate) fn position(&self, entity: Entity) -> Result<usize, Problem> {
        match entity {
            Entity::Defined { instance, .. } => {
                let position = self.layout.instances.get(instance as usize);
                position.copied().ok_or(Problem::Stray("core instances"))
            }
            Entity::Host(index) => match self.layout.item(Kind::Func, index)? {
                Item::Host { entry } => Ok(entry),
                Item::Export { .. } => Err(Problem::Stray("core functions")),
            },
        }
    }
}

fn follow(
    module: &Module<'_>,
    instance: u32,
    imports: &[Entity],
    kind: Kind,
    index: u32,
) -> Entity {
    let import = module.import_of(kind, index);
    let entity = import.and_then(|import| imports.get(import)).copied();
    entity.unwrap_or(Entity::Defined {
        instance,
        kind,
        index,
    })
}

/// The core items that a function is made of.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other functions and options name no core item"
)]
fn core_items(function: &CanonicalFunction) -> Vec<(Kind, u32)> {
    let mut items = Vec::new();
    let options = match function {
        CanonicalFunction::Lift {
            core_func_index,
            options,
            ..
        } => {
            items.push((Kind::Func, *core_func_index));
            options
        }
        CanonicalFunction::Lower { options, .. } => options,
        _ => return items,
    };
    for option in options {
        match option {
            CanonicalOption::Memory(index) => items.push((Kind::Memory, *index)),
            CanonicalOption::Realloc(index) | CanonicalOption::PostReturn(index) => {
                items.push((Kind::Func, *index));
            }
            _ => {}
        }
    }
    items
}
