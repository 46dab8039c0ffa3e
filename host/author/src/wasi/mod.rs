//! The floor under components that import WASI's interfaces (`wasi:…@0.2`).
//!
//! The component gets a neighbour that exports exactly the interfaces that it imports: `interfaces` writes the neighbour's module, which
//! does by the functions of `wasi_snapshot_preview1` what the interfaces ask for, and the floor for modules stands in for those. `compose`
//! puts both into one component, which imports only the contract.

mod compose;
mod interfaces;

use portcullis_policy::WIT;
use wit_component::{ComponentEncoder, StringEncoding, WitPrinter};
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Resolve, TypeDefKind, TypeOwner, WorldId, WorldItem, WorldKey};

use compose::composed;
pub(crate) use interfaces::PREFIX;
#[cfg(test)]
pub(crate) use interfaces::imports_of;
use interfaces::module;

/// The prefix of the contract's interfaces.
const CONTRACT: &str = "portcullis:policy/";

/// What the floor itself imports.
const FLOOR_IMPORTS: [&str; 3] = ["clock", "log", "request"];

/// A component, as far as its imports are concerned.
struct Guest {
    resolve: Resolve,
    world: WorldId,
}

/// Links the floor into a valid component. `floor` stands in for `wasi_snapshot_preview1`.
///
/// # Errors
/// If the component imports something that is not WASI 0.2.
pub(crate) fn with_floor(component: &[u8], floor: &[u8]) -> anyhow::Result<Vec<u8>> {
    let DecodedWasm::Component(resolve, world) = decode(component)? else {
        anyhow::bail!("it is no component");
    };
    let guest = Guest { resolve, world };
    let neighbour = guest.neighbour(floor)?;
    composed(&guest.outside()?, &neighbour, component)
}

impl Guest {
    /// The names of the interfaces that the component imports, with this prefix.
    fn imports(&self, prefix: &str) -> Vec<String> {
        let world = &self.resolve.worlds[self.world];
        let names = world.imports.iter().filter_map(|(key, item)| match item {
            WorldItem::Interface { .. } => Some(self.resolve.name_world_key(key)),
            WorldItem::Function(_) | WorldItem::Type { .. } => None,
        });
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// A component that exports the WASI that the guest imports.
    fn neighbour(&self, floor: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut resolve = Resolve::default();
        resolve.push_source("routing-policy.wit", WIT)?;
        // The packages have only what the guest uses.
        for package in self.resolve.topological_packages() {
            if self.resolve.packages[package].name.namespace == "wasi" {
                let mut printer = WitPrinter::default();
                printer.emit_docs(false);
                printer.print(&self.resolve, package, &[])?;
                resolve.push_source("wasi.wit", &printer.output.to_string())?;
            }
        }
        let mut world = String::from("package portcullis:floor;\nworld neighbour {\n");
        for name in FLOOR_IMPORTS {
            world += &format!("import {CONTRACT}{name}@0.1.0;\n");
        }
        for name in self.imports(PREFIX) {
            world += &format!("export {name};\n");
        }
        world.push('}');
        let package = resolve.push_source("floor.wit", &world)?;
        let world = resolve.select_world(&[package], Some("neighbour"))?;
        let mut module = module(&resolve, world)?;
        wit_component::embed_component_metadata(
            &mut module,
            &resolve,
            world,
            StringEncoding::UTF8,
        )?;
        ComponentEncoder::default()
            .module(&module)?
            .adapter("wasi_snapshot_preview1", floor)?
            .encode()
    }

    /// A component with the imports that the guest and its neighbour need together, each interface as a whole.
    fn outside(&self) -> anyhow::Result<Vec<u8>> {
        let mut resolve = Resolve::default();
        resolve.push_source("routing-policy.wit", WIT)?;
        let mut names = self.imports(CONTRACT);
        names.extend(FLOOR_IMPORTS.map(|name| format!("{CONTRACT}{name}@0.1.0")));
        names.sort();
        names.dedup();
        let mut world = String::from("package portcullis:floor;\nworld outside {\n");
        for name in names {
            world += &format!("import {name};\n");
        }
        for name in self.types() {
            world += &format!("use {name};\n");
        }
        world.push('}');
        let package = resolve.push_source("floor.wit", &world)?;
        let world = resolve.select_world(&[package], Some("outside"))?;
        let mut module = interfaces::importing(&resolve, world)?;
        wit_component::embed_component_metadata(
            &mut module,
            &resolve,
            world,
            StringEncoding::UTF8,
        )?;
        ComponentEncoder::default().module(&module)?.encode()
    }

    /// The types that the component imports by themselves, as `use` names them: `portcullis:policy/types@0.1.0.{verdict}`.
    fn types(&self) -> Vec<String> {
        let world = &self.resolve.worlds[self.world];
        let types = world.imports.iter().filter_map(|(key, item)| {
            let (WorldKey::Name(name), WorldItem::Type { id, .. }) = (key, item) else {
                return None;
            };
            let TypeDefKind::Type(wit_parser::Type::Id(of)) = self.resolve.types[*id].kind else {
                return None;
            };
            let TypeOwner::Interface(owner) = self.resolve.types[of].owner else {
                return None;
            };
            Some(format!("{}.{{{name}}}", self.resolve.id_of(owner)?))
        });
        types.collect()
    }
}
