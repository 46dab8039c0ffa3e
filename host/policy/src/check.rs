//! Checks a policy file against the contract and the limits, as far as that needs no engine.

use std::borrow::Cow;

use wit_component::ComponentEncoder;

use crate::contract::{CONTRACT, PACKAGE, WORLDS};
use crate::engine::{MOST_INSTANCES, MOST_MEMORIES, MOST_TABLES};
use crate::inspect::{Inspection, Kind, Toolchain, inspect};
use crate::limits::Limits;
use crate::problem::LoadProblem;

/// A file that fits the contract, encoded as a component.
pub(crate) struct Checked<'a> {
    pub(crate) inspection: Inspection,
    pub(crate) component: Cow<'a, [u8]>,
}

/// Checks a file as far as possible without compiling it.
pub(crate) fn check<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Checked<'a>, LoadProblem> {
    let inspection = check_again(bytes, limits)?;
    let component = match inspection.kind {
        Kind::Component => Cow::Borrowed(bytes),
        Kind::Module => Cow::Owned(encode(bytes, &inspection)?),
    };
    check_world(&component, &inspection)?;
    Ok(Checked {
        inspection,
        component,
    })
}

/// Checks a file again that fits the contract: only its limits may have changed.
pub(crate) fn check_again(bytes: &[u8], limits: &Limits) -> Result<Inspection, LoadProblem> {
    if bytes.len() > limits.module_bytes {
        return Err(LoadProblem::TooLarge {
            size: bytes.len(),
            limit: limits.module_bytes,
        });
    }
    let inspection = inspect(bytes)?;
    check_imports(&inspection)?;
    check_size(&inspection, limits)?;
    Ok(inspection)
}

fn check_imports(inspection: &Inspection) -> Result<(), LoadProblem> {
    let toolchain = inspection.toolchain();
    for import in &inspection.imports {
        let interface = &*import.interface;
        let offered = match &import.item {
            Some(item) => CONTRACT.offers_function(interface, item) && import.kind == "function",
            // A type needs no host function. `check_world` checks that it is a type of the contract.
            None => CONTRACT.offers(interface) || import.kind == "type",
        };
        if offered {
            continue;
        }
        let import = import.to_string();
        return Err(match interface {
            _ if interface.starts_with("wasi") => LoadProblem::Wasi {
                import,
                mend: toolchain.bare(),
            },
            "env" | "gojs" if matches!(toolchain, Toolchain::AssemblyScript | Toolchain::Go) => {
                LoadProblem::LanguageRuntime {
                    import,
                    mend: toolchain.portable(),
                }
            }
            _ if interface.starts_with("__wbindgen") || interface.contains("wbg") => {
                LoadProblem::WasmBindgen { import }
            }
            _ if CONTRACT.offers(interface) => LoadProblem::UnknownFunction { import },
            _ if interface.starts_with(PACKAGE) => LoadProblem::OtherVersion {
                import,
                offered: CONTRACT.interfaces().join(", "),
            },
            _ => LoadProblem::ForeignImport {
                import,
                offered: CONTRACT.interfaces().join(", "),
            },
        });
    }
    Ok(())
}

fn check_size(inspection: &Inspection, limits: &Limits) -> Result<(), LoadProblem> {
    let footprint = &inspection.footprint;
    if footprint.is_open {
        return Err(LoadProblem::UnknownFootprint);
    }
    for (what, wanted, limit) in [
        ("core instances", footprint.instances, MOST_INSTANCES),
        ("memories", footprint.memories, MOST_MEMORIES),
        ("tables", footprint.tables, MOST_TABLES),
    ] {
        if wanted > u64::from(limit) {
            return Err(LoadProblem::Footprint {
                what,
                wanted,
                limit,
            });
        }
    }
    let limit = limits.memory_bytes as u64;
    if inspection.memory_bytes > limit {
        return Err(LoadProblem::Memory {
            wanted: inspection.memory_bytes,
            limit,
            mend: inspection.toolchain().small_memory(),
        });
    }
    let limit = limits.table_elements as u64;
    if inspection.table_elements > limit {
        return Err(LoadProblem::Table {
            wanted: inspection.table_elements,
            limit,
        });
    }
    Ok(())
}

/// Encodes a module as a component.
fn encode(module: &[u8], inspection: &Inspection) -> Result<Vec<u8>, LoadProblem> {
    let Some(world) = &inspection.world else {
        return Err(LoadProblem::NoWorld);
    };
    let decides = inspection
        .exports
        .iter()
        .any(|export| export.name == "decide");
    if WORLDS.contains(&&**world) && !decides {
        return Err(LoadProblem::MissingExport);
    }
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|mut encoder| encoder.encode());
    encoded.map_err(|error| LoadProblem::Encoding {
        cause: error.root_cause().to_string(),
    })
}

fn check_world(component: &[u8], inspection: &Inspection) -> Result<(), LoadProblem> {
    CONTRACT
        .check(component, inspection.exported())
        .map_err(|cause| LoadProblem::OtherWorld {
            world: inspection.world.clone(),
            cause,
        })?;
    let utf8 = match inspection.kind {
        Kind::Component => inspection.utf8,
        Kind::Module => inspect(component)?.utf8,
    };
    match utf8 {
        true => Ok(()),
        false => Err(LoadProblem::NotUtf8),
    }
}
