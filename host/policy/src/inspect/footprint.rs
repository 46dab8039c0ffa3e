//! Counts the instances, memories and tables that an instantiation of a file creates, without compiling it.
//!
//! A component contains definitions, and may instantiate each of them any number of times. Nested components may do the same, so the
//! number of instances grows exponentially with the size of the file.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Instance, Parser, Payload,
};

use crate::engine::PAGE;

/// What one instantiation of a module or component creates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Core instances.
    pub(crate) instances: u64,
    /// Linear memories.
    pub(crate) memories: u64,
    /// Initial size of these memories in bytes.
    pub(crate) memory_bytes: u64,
    /// Tables.
    pub(crate) tables: u64,
    /// Whether it instantiates a module or component that it gets as an argument. The footprint of the argument is not known here.
    pub(crate) is_open: bool,
}

/// A module or component that is being parsed.
#[derive(Default)]
struct Scope {
    /// The index space of its modules.
    modules: Vec<Footprint>,
    /// The index space of its components.
    components: Vec<Footprint>,
    footprint: Footprint,
    is_module: bool,
}

impl Footprint {
    /// The footprint of an argument.
    const UNKNOWN: Self = Self {
        instances: 0,
        memories: 0,
        memory_bytes: 0,
        tables: 0,
        is_open: true,
    };

    /// Counts the instances, memories and tables of a file.
    ///
    /// # Errors
    /// If the file cannot be parsed. The result for a file that is not valid is meaningless.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other sections are read by the innermost scope"
    )]
    pub(crate) fn of(bytes: &[u8]) -> wasmparser::Result<Self> {
        let mut scopes = vec![Scope {
            is_module: !Parser::is_component(bytes),
            ..Scope::default()
        }];
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ModuleSection { .. } => scopes.push(Scope {
                    is_module: true,
                    ..Scope::default()
                }),
                Payload::ComponentSection { .. } => scopes.push(Scope::default()),
                Payload::End(_) if scopes.len() > 1 => close(&mut scopes),
                Payload::ComponentAliasSection(aliases) => {
                    for alias in aliases {
                        add_alias(&mut scopes, &alias?);
                    }
                }
                payload => {
                    if let Some(scope) = scopes.last_mut() {
                        scope.read(&payload)?;
                    }
                }
            }
        }
        Ok(scopes.first().map(Scope::total).unwrap_or_default())
    }

    fn add(&mut self, other: &Self) {
        let Self {
            instances,
            memories,
            memory_bytes,
            tables,
            is_open,
        } = other;
        self.instances = self.instances.saturating_add(*instances);
        self.memories = self.memories.saturating_add(*memories);
        self.memory_bytes = self.memory_bytes.saturating_add(*memory_bytes);
        self.tables = self.tables.saturating_add(*tables);
        self.is_open |= is_open;
    }
}

impl Scope {
    /// The footprint of one instantiation.
    fn total(&self) -> Footprint {
        Footprint {
            instances: self
                .footprint
                .instances
                .saturating_add(self.is_module.into()),
            ..self.footprint
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn read(&mut self, payload: &Payload<'_>) -> wasmparser::Result<()> {
        let footprint = &mut self.footprint;
        match payload {
            Payload::MemorySection(memories) => {
                for memory in memories.clone() {
                    let bytes = memory?.initial.saturating_mul(PAGE as u64);
                    footprint.memory_bytes = footprint.memory_bytes.saturating_add(bytes);
                    footprint.memories += 1;
                }
            }
            Payload::TableSection(tables) => footprint.tables += u64::from(tables.count()),
            Payload::InstanceSection(instances) => {
                for instance in instances.clone() {
                    if let Instance::Instantiate { module_index, .. } = instance? {
                        footprint.add(&at(&self.modules, module_index));
                    }
                }
            }
            Payload::ComponentInstanceSection(instances) => {
                for instance in instances.clone() {
                    if let ComponentInstance::Instantiate {
                        component_index, ..
                    } = instance?
                    {
                        footprint.add(&at(&self.components, component_index));
                    }
                }
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports.clone() {
                    match import?.ty {
                        ComponentTypeRef::Module(_) => self.modules.push(Footprint::UNKNOWN),
                        ComponentTypeRef::Component(_) => self.components.push(Footprint::UNKNOWN),
                        ComponentTypeRef::Func(_)
                        | ComponentTypeRef::Value(_)
                        | ComponentTypeRef::Type(_)
                        | ComponentTypeRef::Instance(_) => {}
                    }
                }
            }
            // An export adds an entry to its index space.
            Payload::ComponentExportSection(exports) => {
                for export in exports.clone() {
                    let export = export?;
                    match export.kind {
                        ComponentExternalKind::Module => {
                            self.modules.push(at(&self.modules, export.index));
                        }
                        ComponentExternalKind::Component => {
                            self.components.push(at(&self.components, export.index));
                        }
                        ComponentExternalKind::Func
                        | ComponentExternalKind::Value
                        | ComponentExternalKind::Type
                        | ComponentExternalKind::Instance => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Closes the innermost definition and adds it to the index space of its parent.
fn close(scopes: &mut Vec<Scope>) {
    let Some(closed) = scopes.pop() else {
        return;
    };
    if let Some(around) = scopes.last_mut() {
        match closed.is_module {
            true => around.modules.push(closed.total()),
            false => around.components.push(closed.total()),
        }
    }
}

fn add_alias(scopes: &mut [Scope], alias: &ComponentAlias<'_>) {
    let (is_module, footprint) = match *alias {
        ComponentAlias::InstanceExport {
            kind: ComponentExternalKind::Module,
            ..
        } => (true, Footprint::UNKNOWN),
        ComponentAlias::InstanceExport {
            kind: ComponentExternalKind::Component,
            ..
        } => (false, Footprint::UNKNOWN),
        ComponentAlias::Outer { kind, count, index } => {
            let outer = scopes.iter().rev().nth(count as usize);
            match (kind, outer) {
                (ComponentOuterAliasKind::CoreModule, Some(outer)) => {
                    (true, at(&outer.modules, index))
                }
                (ComponentOuterAliasKind::Component, Some(outer)) => {
                    (false, at(&outer.components, index))
                }
                _ => return,
            }
        }
        ComponentAlias::InstanceExport { .. } | ComponentAlias::CoreInstanceExport { .. } => return,
    };
    if let Some(scope) = scopes.last_mut() {
        match is_module {
            true => scope.modules.push(footprint),
            false => scope.components.push(footprint),
        }
    }
}

fn at(space: &[Footprint], index: u32) -> Footprint {
    space
        .get(index as usize)
        .copied()
        .unwrap_or(Footprint::UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = r#"(core module $m (memory 2) (table 1 funcref))"#;

    fn footprint(wat: &str) -> Footprint {
        Footprint::of(&wat::parse_str(wat).unwrap()).unwrap()
    }

    #[test]
    fn a_module_is_one_instance() {
        let found = footprint("(module (memory 2) (table 1 funcref) (table 2 funcref))");
        let expected = Footprint {
            instances: 1,
            memories: 1,
            memory_bytes: 2 * PAGE as u64,
            tables: 2,
            is_open: false,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn instantiations_count_and_definitions_do_not() {
        let none = footprint(&format!("(component {MODULE})"));
        assert_eq!(none, Footprint::default());
        let two = footprint(&format!(
            "(component {MODULE} (core instance (instantiate $m)) (core instance (instantiate $m)))"
        ));
        assert_eq!((two.instances, two.memories, two.tables), (2, 2, 2));
        assert_eq!(two.memory_bytes, 4 * PAGE as u64);
    }

    #[test]
    fn components_within_components_multiply() {
        let mut inner = format!("{MODULE} (core instance (instantiate $m))");
        for _ in 0..20 {
            inner = format!(
                "(component $c {inner}) (instance (instantiate $c)) (instance (instantiate $c))"
            );
        }
        let found = footprint(&format!("(component {inner})"));
        assert_eq!(found.instances, 1 << 20);
        assert!(!found.is_open);
    }

    #[test]
    fn aliases_and_exports_count_as_their_targets() {
        let found = footprint(&format!(
            r#"(component {MODULE}
                (component $inner
                    (alias outer 1 $m (core module $n))
                    (core instance (instantiate $n)))
                (export $again "again" (component $inner))
                (instance (instantiate $again)))"#
        ));
        assert_eq!((found.instances, found.is_open), (1, false));
    }

    #[test]
    fn an_instantiated_argument_is_detected() {
        let found = footprint(
            r#"(component (component (import "m" (core module $m)) (core instance (instantiate $m))))"#,
        );
        assert!(!found.is_open, "it is not instantiated");
        let found = footprint(&format!(
            r#"(component {MODULE}
                (component $c (import "m" (core module $n)) (core instance (instantiate $n)))
                (instance (instantiate $c (with "m" (core module $m)))))"#
        ));
        assert!(found.is_open);
    }
}
