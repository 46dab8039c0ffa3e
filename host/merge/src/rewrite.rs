//! The component with one core instance in place of a group of them.
//!
//! Definitions keep their order. Only core items change their indices: an alias of an export is written where it is first needed, and what a
//! member exported is an alias of the merged instance.

use std::collections::{BTreeSet, HashMap, HashSet};

use wasm_encoder::reencode::{self, Reencode, ReencodeComponent};
use wasm_encoder::{
    Alias, CanonicalFunctionSection, Component, ComponentAliasSection, ComponentNameSection,
    ComponentSectionId, ComponentTypeSection, InstanceSection, ModuleArg, NameMap, RawSection,
};
use wasmparser::{CanonicalFunction, ComponentAlias, ComponentName, ComponentNameSectionReader};

use crate::graph::{Entity, Graph, Made};
use crate::layout::Entry;
use crate::link::{Linked, OUTSIDE, link};
use crate::module::Kind;
use crate::plan::Plan;
use crate::problem::Problem;

/// A component whose group is merged.
pub(crate) struct Rewritten {
    pub(crate) bytes: Vec<u8>,
    /// The number of the merged core instance.
    pub(crate) merged: u32,
    /// The new numbers of the other core instances that are made of modules.
    pub(crate) instances: HashMap<u32, u32>,
}

/// Writes a component whose group is merged.
///
/// # Errors
/// If the group cannot be linked.
pub(crate) fn rewrite(graph: &Graph<'_>, plan: &Plan) -> Result<Rewritten, Problem> {
    let mut writer = Writer {
        graph,
        plan,
        linked: link(graph, &plan.members, &needed(graph, plan))?,
        component: Component::new(),
        open: Open::Nothing,
        modules: HashMap::new(),
        modules_read: 0,
        module_count: 0,
        instances: HashMap::new(),
        instance_count: 0,
        merged: None,
        items: HashMap::new(),
        counts: [0; 4],
    };
    for position in 0..graph.layout.entries.len() {
        if position == plan.position {
            writer.make_merged()?;
        }
        writer.write(position)?;
    }
    if writer.merged.is_none() {
        writer.make_merged()?;
    }
    writer.close();
    let merged = writer.merged.ok_or(Problem::Stray("core instances"))?;
    Ok(Rewritten {
        bytes: writer.component.finish(),
        merged,
        instances: writer.instances,
    })
}

/// What others use of the members.
fn needed(graph: &Graph<'_>, plan: &Plan) -> Vec<Entity> {
    let is_own = |entity: &Entity| match entity {
        Entity::Defined { instance, .. } => plan.members.contains(instance),
        Entity::Host(_) => false,
    };
    let positions = &graph.layout.instances;
    let own: BTreeSet<_> = plan
        .members
        .iter()
        .map(|one| positions[*one as usize])
        .collect();
    let entries = graph.uses.iter().enumerate();
    let others = entries.filter(|(position, _)| !own.contains(position));
    let used = others.flat_map(|(_, uses)| uses);
    used.copied().filter(is_own).collect()
}

/// A section that further items can be added to.
enum Open {
    Nothing,
    Aliases(ComponentAliasSection),
    Canon(CanonicalFunctionSection),
    Instances(InstanceSection),
}

/// An argument of a core instance: its name, its kind, and its index.
type Argument = (String, Kind, u32);

struct Writer<'g, 'a> {
    graph: &'g Graph<'a>,
    plan: &'g Plan,
    linked: Linked,
    component: Component,
    open: Open,
    /// The new indices of the modules that are kept.
    modules: HashMap<u32, u32>,
    /// The number of modules of the given component so far.
    modules_read: u32,
    module_count: u32,
    /// The new indices of the instances that are kept.
    instances: HashMap<u32, u32>,
    instance_count: u32,
    /// The index of the merged instance.
    merged: Option<u32>,
    /// The new indices of core items.
    items: HashMap<Entity, u32>,
    /// The number of core items of each kind.
    counts: [u32; 4],
}

impl Writer<'_, '_> {
    fn write(&mut self, position: usize) -> Result<(), Problem> {
        let graph = self.graph;
        let uses = &graph.uses[position];
        match &graph.layout.entries[position] {
            Entry::Section { id, data } | Entry::Running { id, data } => {
                self.section(&RawSection { id: *id, data });
            }
            Entry::Types(types, _) => {
                self.items(uses)?;
                let mut section = ComponentTypeSection::new();
                self.parse_component_type_section(&mut section, types.clone())?;
                self.section(&section);
            }
            Entry::Module(bytes) => self.module(bytes),
            Entry::Instance(_) => self.instance(position)?,
            Entry::Alias(ComponentAlias::CoreInstanceExport { .. }) => {}
            Entry::Alias(alias) => {
                let alias = self.component_alias(alias.clone())?;
                self.alias(alias);
            }
            Entry::Canon(function) => {
                self.items(uses)?;
                self.canon(position, function)?;
            }
            Entry::Names(names) => {
                if let Some(names) = component_names(names.clone()) {
                    self.section(&names);
                }
            }
        }
        Ok(())
    }

    fn section(&mut self, section: &impl wasm_encoder::ComponentSection) {
        self.close();
        self.component.section(section);
    }

    /// Ends the section that is open.
    fn close(&mut self) {
        match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => {}
            Open::Aliases(section) => {
                self.component.section(&section);
            }
            Open::Canon(section) => {
                self.component.section(&section);
            }
            Open::Instances(section) => {
                self.component.section(&section);
            }
        }
    }

    fn alias(&mut self, alias: Alias<'_>) {
        if !matches!(self.open, Open::Aliases(_)) {
            self.close();
            self.open = Open::Aliases(ComponentAliasSection::new());
        }
        if let Open::Aliases(section) = &mut self.open {
            section.alias(alias);
        }
    }

    /// Adds an instance and returns its index.
    fn add_instance(&mut self, add: impl FnOnce(&mut InstanceSection)) -> u32 {
        if !matches!(self.open, Open::Instances(_)) {
            self.close();
            self.open = Open::Instances(InstanceSection::new());
        }
        if let Open::Instances(section) = &mut self.open {
            add(section);
        }
        self.instance_count += 1;
        self.instance_count - 1
    }

    fn module(&mut self, bytes: &[u8]) {
        let index = self.modules_read;
        self.modules_read += 1;
        let is_merged = |member: &u32| {
            let made = &self.graph.made[*member as usize];
            matches!(made, Made::Module { module, .. } if *module == index)
        };
        if self.plan.members.iter().any(is_merged) {
            return;
        }
        self.modules.insert(index, self.module_count);
        self.add_module(bytes);
    }

    fn add_module(&mut self, bytes: &[u8]) {
        self.section(&RawSection {
            id: ComponentSectionId::CoreModule.into(),
            data: bytes,
        });
        self.module_count += 1;
    }

    /// Writes the merged module and its instance.
    fn make_merged(&mut self) -> Result<(), Problem> {
        let module = self.module_count;
        let bytes = std::mem::take(&mut self.linked.bytes);
        self.add_module(&bytes);
        let imports = std::mem::take(&mut self.linked.imports);
        let mut arguments = Vec::new();
        for (number, (kind, entity)) in imports.into_iter().enumerate() {
            arguments.push((number.to_string(), kind, self.item(entity)?));
        }
        let outside = (!arguments.is_empty()).then(|| self.add_exports(&arguments));
        let arguments = outside.map(|instance| (OUTSIDE, ModuleArg::Instance(instance)));
        self.merged = Some(self.add_instance(|section| {
            section.instantiate(module, arguments);
        }));
        Ok(())
    }

    /// Adds an instance that is a list of items.
    fn add_exports(&mut self, items: &[(String, Kind, u32)]) -> u32 {
        let items = items.iter();
        let items: Vec<_> = items
            .map(|(name, kind, index)| (name.as_str(), kind.encoded(), *index))
            .collect();
        self.add_instance(|section| {
            section.export_items(items);
        })
    }

    /// Writes an instance that is no member. Lists of items are written where they are needed.
    fn instance(&mut self, position: usize) -> Result<(), Problem> {
        let graph = self.graph;
        let found = graph.layout.instances.binary_search(&position);
        let instance = found.map_err(|_| Problem::Stray("core instances"))? as u32;
        let Made::Module { module, imports } = graph.instance(instance)? else {
            return Ok(());
        };
        if self.plan.members.contains(&instance) {
            return Ok(());
        }
        let mut arguments: Vec<(&str, Vec<Argument>)> = Vec::new();
        let (mut places, mut names) = (HashMap::new(), HashSet::new());
        let (parsed, _) = graph.module_of(instance)?;
        for (import, entity) in parsed.imports.iter().zip(imports) {
            // A module may import an item more than once.
            if !names.insert((import.module, import.name)) {
                continue;
            }
            let kind = Kind::of_type(import.ty).ok_or(Problem::Stray("imports"))?;
            let item = (import.name.to_owned(), kind, self.item(*entity)?);
            let next = arguments.len();
            let place = *places.entry(import.module).or_insert(next);
            match arguments.get_mut(place) {
                None => arguments.push((import.module, vec![item])),
                Some((_, items)) => items.push(item),
            }
        }
        let mut made = Vec::new();
        for (name, items) in &arguments {
            made.push((*name, ModuleArg::Instance(self.add_exports(items))));
        }
        let module = self.modules.get(module).copied();
        let module = module.ok_or(Problem::Stray("core modules"))?;
        let index = self.add_instance(|section| {
            section.instantiate(module, made);
        });
        self.instances.insert(instance, index);
        Ok(())
    }

    /// Writes aliases of items, as far as there are none yet.
    fn items(&mut self, entities: &[Entity]) -> Result<(), Problem> {
        for entity in entities {
            self.item(*entity)?;
        }
        Ok(())
    }

    /// The index of a core item, for which an alias is written if there is none yet.
    fn item(&mut self, entity: Entity) -> Result<u32, Problem> {
        if let Some(index) = self.items.get(&entity) {
            return Ok(*index);
        }
        let Entity::Defined {
            instance,
            kind,
            index,
        } = entity
        else {
            return Err(Problem::Stray("core functions"));
        };
        let (instance, name) = match self.plan.members.contains(&instance) {
            true => {
                let name = self.linked.exports.get(&entity).cloned();
                (self.merged, name)
            }
            false => {
                let (module, _) = self.graph.module_of(instance)?;
                let name = module.export_name(kind, index).map(str::to_owned);
                (self.instances.get(&instance).copied(), name)
            }
        };
        let (Some(instance), Some(name)) = (instance, name) else {
            return Err(Problem::Stray("core instances"));
        };
        self.alias(Alias::CoreInstanceExport {
            instance,
            kind: kind.encoded(),
            name: &name,
        });
        Ok(self.add_item(entity, kind))
    }

    fn add_item(&mut self, entity: Entity, kind: Kind) -> u32 {
        let count = &mut self.counts[kind as usize];
        let index = *count;
        *count += 1;
        self.items.insert(entity, index);
        index
    }

    /// Writes a function whose items have been written.
    fn canon(&mut self, position: usize, function: &CanonicalFunction) -> Result<(), Problem> {
        if !matches!(self.open, Open::Canon(_)) {
            self.close();
            self.open = Open::Canon(CanonicalFunctionSection::new());
        }
        let open = std::mem::replace(&mut self.open, Open::Nothing);
        if let Open::Canon(mut section) = open {
            self.parse_component_canonical(&mut section, function.clone())?;
            self.open = Open::Canon(section);
        }
        if !matches!(function, CanonicalFunction::Lift { .. }) {
            let entity = self.graph.layout.host_function(position);
            let entity = entity.ok_or(Problem::Stray("core functions"))?;
            self.add_item(Entity::Host(entity), Kind::Func);
        }
        Ok(())
    }

    /// The new index of a core item that is written.
    fn written(&self, kind: Kind, index: u32) -> Result<u32, reencode::Error<Problem>> {
        let entity = self.graph.entity(kind, index);
        let entity = entity.map_err(reencode::Error::UserError)?;
        let found = self.items.get(&entity).copied();
        found.ok_or(reencode::Error::UserError(Problem::Stray("core items")))
    }
}

impl Reencode for Writer<'_, '_> {
    type Error = Problem;

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        self.written(Kind::Func, index)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        self.written(Kind::Memory, index)
    }
}

impl ReencodeComponent for Writer<'_, '_> {}

/// The names of the component's items, without those of core items. None if the names cannot be read.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the indices of core items change"
)]
fn component_names(names: ComponentNameSectionReader<'_>) -> Option<ComponentNameSection> {
    let mut kept = ComponentNameSection::new();
    for name in names {
        match name.ok()? {
            ComponentName::Component { name, .. } => kept.component(name),
            ComponentName::CoreTypes(names) => kept.core_types(&name_map(names)?),
            ComponentName::Types(names) => kept.types(&name_map(names)?),
            ComponentName::Instances(names) => kept.instances(&name_map(names)?),
            ComponentName::Components(names) => kept.components(&name_map(names)?),
            ComponentName::Funcs(names) => kept.funcs(&name_map(names)?),
            ComponentName::Values(names) => kept.values(&name_map(names)?),
            _ => {}
        }
    }
    Some(kept)
}

fn name_map(names: wasmparser::NameMap<'_>) -> Option<NameMap> {
    let mut kept = NameMap::new();
    for name in names {
        let name = name.ok()?;
        kept.append(name.index, name.name);
    }
    Some(kept)
}
