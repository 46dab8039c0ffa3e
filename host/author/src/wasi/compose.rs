//! Two components as one: what the guest imports of WASI comes from its neighbour, all else from outside.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use wasm_encoder::{
    Alias, Component, ComponentAliasSection, ComponentExportKind, ComponentExportSection,
    ComponentInstanceSection, ComponentSectionId, RawSection,
};
use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentTypeRef, Encoding, Parser, Payload,
};

use super::interfaces::PREFIX;

/// The exports of a policy.
const EXPORTS: [&str; 3] = ["decide", "validate-settings", "on-failure"];

/// What the first sections of a component import, by name.
#[derive(Default)]
struct Imported {
    instances: BTreeMap<String, u32>,
    types: BTreeMap<String, u32>,
    type_count: u32,
}

/// Puts the components together. The imports are those of `outside`, of which nothing else is used.
pub(super) fn composed(outside: &[u8], neighbour: &[u8], guest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut whole = Component::new();
    let imported = Imported::copy(outside, &mut whole)?;
    for component in [neighbour, guest] {
        whole.section(&RawSection {
            id: ComponentSectionId::Component.into(),
            data: component,
        });
    }

    let from_outside = |(name, kind): (String, ComponentExportKind)| {
        let all = match kind == ComponentExportKind::Type {
            true => &imported.types,
            false => &imported.instances,
        };
        let found = all.get(&name);
        let index = *found.with_context(|| format!("it imports {name}, which no host offers"))?;
        anyhow::Ok((name, kind, index))
    };
    let arguments: Vec<_> = imports(neighbour)?
        .into_iter()
        .map(from_outside)
        .collect::<Result<_, _>>()?;
    let first = u32::try_from(imported.instances.len())?;
    let mut instances = ComponentInstanceSection::new();
    instances.instantiate(0, arguments);
    whole.section(&instances);

    let mut aliases = ComponentAliasSection::new();
    let mut arguments = Vec::new();
    for (name, kind) in imports(guest)? {
        if !name.starts_with(PREFIX) {
            arguments.push(from_outside((name, kind))?);
            continue;
        }
        let index = first + 1 + aliases.len();
        aliases.alias(Alias::InstanceExport {
            instance: first,
            kind,
            name: &name,
        });
        arguments.push((name, kind, index));
    }
    let second = first + 1 + aliases.len();
    whole.section(&aliases);
    let mut instances = ComponentInstanceSection::new();
    instances.instantiate(1, arguments);
    whole.section(&instances);

    let (mut aliases, mut exports) = (ComponentAliasSection::new(), ComponentExportSection::new());
    for name in exported(guest)? {
        let kind = ComponentExportKind::Func;
        exports.export(&*name, kind, aliases.len(), None);
        aliases.alias(Alias::InstanceExport {
            instance: second,
            kind,
            name: &name,
        });
    }
    whole.section(&aliases).section(&exports);
    Ok(whole.finish())
}

impl Imported {
    /// Copies the sections before the first module: types, imports, and aliases between them.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "any other section is behind them"
    )]
    fn copy(component: &[u8], whole: &mut Component) -> anyhow::Result<Self> {
        let mut imported = Self::default();
        for payload in Parser::new(0).parse_all(component) {
            let payload = payload?;
            match &payload {
                Payload::ComponentTypeSection(types) => imported.type_count += types.count(),
                Payload::ComponentAliasSection(aliases) => {
                    for alias in aliases.clone() {
                        imported.type_count += u32::from(is_type(&alias?));
                    }
                }
                Payload::ComponentImportSection(imports) => {
                    for import in imports.clone() {
                        let import = import?;
                        imported.add(import.name.name, import.ty)?;
                    }
                }
                Payload::Version {
                    encoding: Encoding::Component,
                    ..
                }
                | Payload::CustomSection(_) => continue,
                _ => break,
            }
            let (id, range) = payload.as_section().context("a section")?;
            let data = component.get(range).context("a section")?;
            whole.section(&RawSection { id, data });
        }
        Ok(imported)
    }

    fn add(&mut self, name: &str, ty: ComponentTypeRef) -> anyhow::Result<()> {
        match ty {
            ComponentTypeRef::Instance(_) => {
                let index = u32::try_from(self.instances.len())?;
                self.instances.insert(name.to_owned(), index);
            }
            ComponentTypeRef::Type(_) => {
                self.types.insert(name.to_owned(), self.type_count);
                self.type_count += 1;
            }
            ComponentTypeRef::Module(_)
            | ComponentTypeRef::Func(_)
            | ComponentTypeRef::Value(_)
            | ComponentTypeRef::Component(_) => bail!("it imports {name}, which no host offers"),
        }
        Ok(())
    }
}

fn is_type(alias: &ComponentAlias<'_>) -> bool {
    matches!(
        alias,
        ComponentAlias::InstanceExport {
            kind: ComponentExternalKind::Type,
            ..
        } | ComponentAlias::Outer {
            kind: wasmparser::ComponentOuterAliasKind::Type,
            ..
        }
    )
}

/// The imports of a component, in order.
fn imports(component: &[u8]) -> anyhow::Result<Vec<(String, ComponentExportKind)>> {
    let mut all = Vec::new();
    each_own(component, |payload| {
        if let Payload::ComponentImportSection(imports) = payload {
            for import in imports.clone() {
                let import = import?;
                let kind = match import.ty {
                    ComponentTypeRef::Instance(_) => ComponentExportKind::Instance,
                    ComponentTypeRef::Type(_) => ComponentExportKind::Type,
                    ComponentTypeRef::Module(_)
                    | ComponentTypeRef::Func(_)
                    | ComponentTypeRef::Value(_)
                    | ComponentTypeRef::Component(_) => {
                        bail!("it imports {}, which no host offers", import.name.name)
                    }
                };
                all.push((import.name.name.to_owned(), kind));
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// The functions of a policy that a component exports.
fn exported(component: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    each_own(component, |payload| {
        if let Payload::ComponentExportSection(exports) = payload {
            for export in exports.clone() {
                let name = export?.name.name;
                if EXPORTS.contains(&name) {
                    all.push(name.to_owned());
                }
            }
        }
        Ok(())
    })?;
    Ok(all)
}

/// Calls `each` with the component's own sections, and not with those of what is nested in it.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "`each` gets all other sections"
)]
fn each_own(
    component: &[u8],
    mut each: impl FnMut(&Payload<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload?;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            _ if depth == 0 => each(&payload)?,
            _ => {}
        }
    }
    Ok(())
}
