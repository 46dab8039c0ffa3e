//! The merged module: the items of all members behind each other, with the imports between them resolved.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wasm_encoder::reencode::{self, Reencode, RoundtripReencoder};
use wasm_encoder::{
    CodeSection, DataCountSection, DataSection, ElementSection, Elements, EntityType,
    ExportSection, Function, FunctionSection, GlobalSection, ImportSection, Instruction,
    MemorySection, MemoryType, NameMap, NameSection, ProducersField, ProducersSection,
    StartSection, TableSection, TableType, TypeSection,
};
use wasmparser::{
    DataKind, ElementItems, ElementKind, FuncType, FunctionBody, Operator, RefType, TableInit,
    TypeRef,
};

use crate::constant::{Constant, Leaf, Names};
use crate::graph::{Entity, Graph};
use crate::module::{Kind, Module};
use crate::problem::Problem;

/// The module name of all imports of the merged module. The fields are numbers.
pub(crate) const OUTSIDE: &str = "outside";

/// The merged module.
pub(crate) struct Linked {
    pub(crate) bytes: Vec<u8>,
    /// What it imports: the fields `0`, `1` and so on of [`OUTSIDE`].
    pub(crate) imports: Vec<(Kind, Entity)>,
    /// What it exports, under which names.
    pub(crate) exports: HashMap<Entity, String>,
}

/// Merges the modules of core instances. `needed` are items of theirs that others use.
///
/// # Errors
/// If a constant cannot be reduced to a value.
pub(crate) fn link(
    graph: &Graph<'_>,
    members: &BTreeSet<u32>,
    needed: &[Entity],
) -> Result<Linked, Problem> {
    let mut linker = Linker::default();
    for member in members {
        linker.add_imports(graph, members, *member)?;
    }
    for member in members {
        linker.add_definitions(graph, *member)?;
    }
    let mut writer = Writer::default();
    for member in members {
        let (module, imports) = graph.module_of(*member)?;
        let first = (writer.data.len(), writer.elements.len());
        let view = linker.view(*member, module, imports, first)?;
        writer.add(&view)?;
        let values = view.values()?;
        linker.values.extend(values);
    }
    writer.finish(linker, needed)
}

/// The index spaces of the merged module.
#[derive(Default)]
struct Linker {
    types: Vec<FuncType>,
    type_indices: HashMap<FuncType, u32>,
    imports: Vec<(Entity, Kind, EntityType)>,
    import_positions: HashMap<Entity, usize>,
    /// The index of each item.
    indices: HashMap<Entity, u32>,
    /// The number of items of each kind.
    counts: [u32; 4],
    /// The values of the globals of the members before, as far as they are constant.
    values: HashMap<Entity, Leaf>,
}

impl Linker {
    fn type_index(&mut self, ty: &FuncType) -> u32 {
        if let Some(index) = self.type_indices.get(ty) {
            return *index;
        }
        let index = self.types.len() as u32;
        self.types.push(ty.clone());
        self.type_indices.insert(ty.clone(), index);
        index
    }

    /// Adds what a member imports from outside the group.
    fn add_imports(
        &mut self,
        graph: &Graph<'_>,
        members: &BTreeSet<u32>,
        member: u32,
    ) -> Result<(), Problem> {
        let (module, imports) = graph.module_of(member)?;
        for (import, entity) in module.imports.iter().zip(imports) {
            if matches!(entity, Entity::Defined { instance, .. } if members.contains(instance)) {
                continue;
            }
            let kind = Kind::of_type(import.ty).ok_or(Problem::Stray("imports"))?;
            let ty = self.entity_type(import.ty, module)?;
            if let Some(position) = self.import_positions.get(entity) {
                let before = &mut self.imports[*position].2;
                *before = narrowed(*before, ty);
                continue;
            }
            self.import_positions.insert(*entity, self.imports.len());
            self.imports.push((*entity, kind, ty));
            self.add(*entity, kind);
        }
        Ok(())
    }

    fn add(&mut self, entity: Entity, kind: Kind) {
        let count = &mut self.counts[kind as usize];
        self.indices.insert(entity, *count);
        *count += 1;
    }

    fn entity_type(&mut self, ty: TypeRef, module: &Module<'_>) -> Result<EntityType, Problem> {
        let TypeRef::Func(index) = ty else {
            return round(RoundtripReencoder.entity_type(ty));
        };
        let ty = module.types.get(index as usize);
        let ty = ty.ok_or(Problem::Stray("types"))?;
        Ok(EntityType::Function(self.type_index(ty)))
    }

    fn add_definitions(&mut self, graph: &Graph<'_>, member: u32) -> Result<(), Problem> {
        let (module, _) = graph.module_of(member)?;
        for kind in Kind::ALL {
            let imported = module.imported(kind);
            for index in imported..imported + module.defined(kind) {
                let instance = member;
                let entity = Entity::Defined {
                    instance,
                    kind,
                    index,
                };
                self.add(entity, kind);
            }
        }
        for ty in &module.types {
            self.type_index(ty);
        }
        Ok(())
    }

    /// A member as it is in the merged module, with the indices of its first segments of data and of elements.
    fn view<'v, 'a>(
        &'v self,
        member: u32,
        module: &'v Module<'a>,
        imports: &'v [Entity],
        first: (u32, u32),
    ) -> Result<View<'v, 'a>, Problem> {
        let types = module.types.iter().map(|ty| self.type_indices.get(ty));
        let types = types.map(|index| index.copied().ok_or(Problem::Stray("types")));
        let mut view = View {
            linker: self,
            member,
            module,
            imports,
            types: types.collect::<Result<_, _>>()?,
            indices: Default::default(),
            first_data: first.0,
            first_element: first.1,
        };
        for kind in Kind::ALL {
            for index in 0..module.imported(kind) + module.defined(kind) {
                let found = self.indices.get(&view.entity(kind, index));
                let found = found.copied().ok_or(Problem::Stray("a module's items"))?;
                view.indices[kind as usize].push(found);
            }
        }
        Ok(view)
    }
}

/// The type of an import that two members have, with other limits: both are true of what is imported.
fn narrowed(one: EntityType, other: EntityType) -> EntityType {
    match (one, other) {
        (EntityType::Memory(one), EntityType::Memory(other)) => EntityType::Memory(MemoryType {
            minimum: one.minimum.max(other.minimum),
            maximum: least(one.maximum, other.maximum),
            ..one
        }),
        (EntityType::Table(one), EntityType::Table(other)) => EntityType::Table(TableType {
            minimum: one.minimum.max(other.minimum),
            maximum: least(one.maximum, other.maximum),
            ..one
        }),
        (one, _) => one,
    }
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// A result of the encoder for something without indices.
fn round<T>(result: Result<T, reencode::Error>) -> Result<T, Problem> {
    result.map_err(|error| Problem::Encode(error.to_string()))
}

/// A member with the indices of its items in the merged module.
struct View<'v, 'a> {
    linker: &'v Linker,
    member: u32,
    module: &'v Module<'a>,
    imports: &'v [Entity],
    types: Vec<u32>,
    /// The new indices of the items of each kind.
    indices: [Vec<u32>; 4],
    first_data: u32,
    first_element: u32,
}

impl View<'_, '_> {
    fn entity(&self, kind: Kind, index: u32) -> Entity {
        let import = self.module.import_of(kind, index);
        let entity = import.and_then(|import| self.imports.get(import)).copied();
        entity.unwrap_or(Entity::Defined {
            instance: self.member,
            kind,
            index,
        })
    }

    fn index(&self, kind: Kind, index: u32) -> Result<u32, Problem> {
        let found = self.indices[kind as usize].get(index as usize);
        found.copied().ok_or(Problem::Stray("a module's items"))
    }

    fn ty(&self, index: u32) -> Result<u32, Problem> {
        let found = self.types.get(index as usize);
        found.copied().ok_or(Problem::Stray("types"))
    }

    fn constant(&self, expression: &wasmparser::ConstExpr<'_>) -> Result<Constant, Problem> {
        Constant::read(expression, self)
    }

    /// The values of the globals that never change and have a value that needs no calculation.
    fn values(&self) -> Result<Vec<(Entity, Leaf)>, Problem> {
        let mut values = Vec::new();
        let first = self.module.imported(Kind::Global);
        for (index, global) in (first..).zip(&self.module.globals) {
            if global.ty.mutable {
                continue;
            }
            if let Some(leaf) = self.constant(&global.init_expr)?.leaf() {
                values.push((self.entity(Kind::Global, index), leaf));
            }
        }
        Ok(values)
    }
}

impl Names for View<'_, '_> {
    fn func(&self, index: u32) -> Result<u32, Problem> {
        self.index(Kind::Func, index)
    }

    fn global(&self, index: u32) -> Result<Leaf, Problem> {
        let entity = self.entity(Kind::Global, index);
        if let Some(value) = self.linker.values.get(&entity) {
            return Ok(*value);
        }
        // Constants may refer to imported globals only.
        match self.linker.import_positions.contains_key(&entity) {
            true => Ok(Leaf::Global(self.index(Kind::Global, index)?)),
            false => Err(Problem::Unsupported("a constant needs a calculation")),
        }
    }
}

/// Rewrites function bodies.
impl Reencode for &View<'_, '_> {
    type Error = Problem;

    fn type_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        self.ty(index).map_err(reencode::Error::UserError)
    }

    fn function_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        let index = self.index(Kind::Func, index);
        index.map_err(reencode::Error::UserError)
    }

    fn table_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        let index = self.index(Kind::Table, index);
        index.map_err(reencode::Error::UserError)
    }

    fn memory_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        let index = self.index(Kind::Memory, index);
        index.map_err(reencode::Error::UserError)
    }

    fn global_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        let index = self.index(Kind::Global, index);
        index.map_err(reencode::Error::UserError)
    }

    fn data_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        Ok(self.first_data + index)
    }

    fn element_index(&mut self, index: u32) -> Result<u32, reencode::Error<Problem>> {
        Ok(self.first_element + index)
    }
}

/// The sections of the merged module.
#[derive(Default)]
struct Writer<'a> {
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    starts: Vec<u32>,
    elements: ElementSection,
    /// The functions to which code refers. Their modules may have declared them by exports, which are not in the merged module.
    referred: BTreeSet<u32>,
    code: CodeSection,
    data: DataSection,
    names: BTreeMap<u32, &'a str>,
    /// Tools that made the members: field, name and version.
    producers: BTreeSet<[&'a str; 3]>,
}

impl<'a> Writer<'a> {
    fn add(&mut self, view: &View<'_, 'a>) -> Result<(), Problem> {
        let module = view.module;
        for ty in &module.functions {
            self.functions.function(view.ty(*ty)?);
        }
        for table in &module.tables {
            let ty = round(RoundtripReencoder.table_type(table.ty))?;
            match &table.init {
                TableInit::RefNull => self.tables.table(ty),
                TableInit::Expr(value) => {
                    let value = view.constant(value)?.encoded();
                    self.tables.table_with_init(ty, &value)
                }
            };
        }
        for memory in &module.memories {
            let ty = round(RoundtripReencoder.memory_type(*memory))?;
            self.memories.memory(ty);
        }
        for global in &module.globals {
            let ty = round(RoundtripReencoder.global_type(global.ty))?;
            let value = view.constant(&global.init_expr)?;
            self.globals.global(ty, &value.encoded());
        }
        if let Some(start) = module.start {
            self.starts.push(view.index(Kind::Func, start)?);
        }
        for body in &module.bodies {
            let mut reencoder = view;
            reencoder.parse_function_body(&mut self.code, body.clone())?;
            self.add_references(view, body)?;
        }
        self.add_elements(view)?;
        self.add_data(view)?;
        for (index, name) in &module.names {
            // An imported function has the name that its own module gives it. A name of no function has no effect.
            let is_defined = module.import_of(Kind::Func, *index).is_none();
            if let (true, Ok(index)) = (is_defined, view.index(Kind::Func, *index)) {
                self.names.insert(index, *name);
            }
        }
        self.producers.extend(&module.producers);
        Ok(())
    }

    fn add_references(
        &mut self,
        view: &View<'_, 'a>,
        body: &FunctionBody<'a>,
    ) -> Result<(), Problem> {
        for operator in body.get_operators_reader()? {
            if let Operator::RefFunc { function_index } = operator? {
                self.referred
                    .insert(view.index(Kind::Func, function_index)?);
            }
        }
        Ok(())
    }

    fn add_elements(&mut self, view: &View<'_, 'a>) -> Result<(), Problem> {
        for element in &view.module.elements {
            let items = elements(view, &element.items)?;
            match &element.kind {
                ElementKind::Active {
                    table_index,
                    offset_expr,
                } => {
                    let table = view.index(Kind::Table, table_index.unwrap_or_default())?;
                    let table = (table > 0).then_some(table);
                    let offset = view.constant(offset_expr)?.encoded();
                    self.elements.active(table, &offset, items);
                }
                ElementKind::Passive => {
                    self.elements.passive(items);
                }
                ElementKind::Declared => {
                    self.elements.declared(items);
                }
            }
        }
        Ok(())
    }

    fn add_data(&mut self, view: &View<'_, 'a>) -> Result<(), Problem> {
        for data in &view.module.data {
            let bytes = data.data.iter().copied();
            match &data.kind {
                DataKind::Active {
                    memory_index,
                    offset_expr,
                } => {
                    let memory = view.index(Kind::Memory, *memory_index)?;
                    let offset = view.constant(offset_expr)?.encoded();
                    self.data.active(memory, &offset, bytes);
                }
                DataKind::Passive => {
                    self.data.passive(bytes);
                }
            }
        }
        Ok(())
    }

    fn finish(mut self, mut linker: Linker, needed: &[Entity]) -> Result<Linked, Problem> {
        let start = match *self.starts {
            [] => None,
            [only] => Some(only),
            [..] => Some(self.add_start(&mut linker)),
        };
        let (section, exports) = exports(&linker, needed)?;
        if !self.referred.is_empty() {
            let functions: Vec<_> = self.referred.iter().copied().collect();
            self.elements
                .declared(Elements::Functions(functions.into()));
        }

        let mut module = wasm_encoder::Module::new();
        let mut types = TypeSection::new();
        for ty in &linker.types {
            types
                .ty()
                .func_type(&round(RoundtripReencoder.func_type(ty.clone()))?);
        }
        module.section(&types);
        let mut imports = ImportSection::new();
        for (number, (_, _, ty)) in linker.imports.iter().enumerate() {
            imports.import(OUTSIDE, &number.to_string(), *ty);
        }
        module.section(&imports);
        module.section(&self.functions);
        module.section(&self.tables);
        module.section(&self.memories);
        module.section(&self.globals);
        module.section(&section);
        if let Some(function_index) = start {
            module.section(&StartSection { function_index });
        }
        module.section(&self.elements);
        let count = self.data.len();
        if count > 0 {
            module.section(&DataCountSection { count });
        }
        module.section(&self.code);
        module.section(&self.data);
        self.add_customs(&mut module);
        let imports = linker.imports.into_iter();
        Ok(Linked {
            bytes: module.finish(),
            imports: imports.map(|(entity, kind, _)| (kind, entity)).collect(),
            exports,
        })
    }

    /// Adds a function that calls the start functions of all members.
    fn add_start(&mut self, linker: &mut Linker) -> u32 {
        self.functions
            .function(linker.type_index(&FuncType::new([], [])));
        let mut body = Function::new([]);
        for start in &self.starts {
            body.instruction(&Instruction::Call(*start));
        }
        body.instruction(&Instruction::End);
        self.code.function(&body);
        linker.counts[Kind::Func as usize]
    }

    fn add_customs(&self, module: &mut wasm_encoder::Module) {
        if !self.names.is_empty() {
            let mut functions = NameMap::new();
            for (index, name) in &self.names {
                functions.append(*index, name);
            }
            let mut names = NameSection::new();
            names.functions(&functions);
            module.section(&names);
        }
        let mut producers = ProducersSection::new();
        for name in ["language", "processed-by", "sdk"] {
            let mut field = ProducersField::new();
            let mut is_empty = true;
            for [_, tool, version] in self.producers.iter().filter(|one| one[0] == name) {
                field.value(tool, version);
                is_empty = false;
            }
            if !is_empty {
                producers.field(name, &field);
            }
        }
        if !self.producers.is_empty() {
            module.section(&producers);
        }
    }
}

/// The items of a segment. A list of functions stays one, and expressions that name functions become one: the engine makes an image of a
/// table from lists of functions only.
fn elements<'e>(view: &View<'_, '_>, items: &ElementItems<'_>) -> Result<Elements<'e>, Problem> {
    match items.clone() {
        ElementItems::Functions(functions) => {
            let mut indices = Vec::new();
            for function in functions {
                indices.push(view.index(Kind::Func, function?)?);
            }
            Ok(Elements::Functions(indices.into()))
        }
        ElementItems::Expressions(ty, expressions) => {
            let mut values = Vec::new();
            for expression in expressions {
                values.push(view.constant(&expression?)?);
            }
            let functions: Option<Vec<_>> = values
                .iter()
                .map(|value| match value.leaf() {
                    Some(Leaf::Func(index)) => Some(index),
                    _ => None,
                })
                .collect();
            match functions {
                Some(functions) if ty == RefType::FUNCREF => {
                    Ok(Elements::Functions(functions.into()))
                }
                _ => {
                    let ty = round(RoundtripReencoder.ref_type(ty))?;
                    let values: Vec<_> = values.iter().map(Constant::encoded).collect();
                    Ok(Elements::Expressions(ty, values.into()))
                }
            }
        }
    }
}

/// The exports: each needed item once. The names are numbers.
fn exports(
    linker: &Linker,
    needed: &[Entity],
) -> Result<(ExportSection, HashMap<Entity, String>), Problem> {
    let mut section = ExportSection::new();
    let mut names = HashMap::new();
    for entity in needed {
        let Entity::Defined { kind, .. } = entity else {
            return Err(Problem::Stray("exports"));
        };
        if names.contains_key(entity) {
            continue;
        }
        let index = linker.indices.get(entity);
        let index = *index.ok_or(Problem::Stray("exports"))?;
        let name = names.len().to_string();
        section.export(&name, kind.encoded(), index);
        names.insert(*entity, name);
    }
    Ok((section, names))
}
