//! From the bytes of a file to something that can be instantiated: all checks that need no engine.

mod maker;
mod problem;
mod trial;

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use wit_component::ComponentEncoder;

use crate::contract::{CONFIGURED_WORLD, CONTRACT, PACKAGE, VALIDATE, WORLD};
use crate::engine::{MOST_INSTANCES, MOST_MEMORIES, MOST_TABLES};
use crate::inspect::{Inspection, Kind, inspect};
use crate::limits::Limits;
use crate::text;

pub(crate) use maker::Maker;
pub use problem::{LoadError, LoadProblem, SettingsError};
pub(crate) use trial::{Trial, try_out};

/// A file that keeps the contract, as a component.
pub(crate) struct Checked<'a> {
    pub(crate) inspection: Inspection,
    pub(crate) component: Cow<'a, [u8]>,
}

/// Does something with a file that somebody else wrote. The libraries that read and translate it are large: a panic of theirs is a problem
/// with this file, and ends nothing else.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, LoadProblem>) -> Result<T, LoadProblem> {
    // Nothing that outlasts a load is changed before it is complete.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(LoadProblem::Panicked {
            cause: said(&*panic),
        })
    })
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    const MOST: usize = 512;
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    text::shown(message.unwrap_or("it gave no reason"), MOST).into_owned()
}

/// Checks all that can be checked without compiling.
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

/// Checks a file that this build has found to keep the contract: what limits say of it is checked again.
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
    let maker = inspection.maker();
    for import in &inspection.imports {
        let interface = &*import.interface;
        let offered = match &import.item {
            Some(item) => CONTRACT.offers_function(interface, item) && import.kind == "function",
            // Types need nothing of the host; whether they are the contract's is seen later.
            None => CONTRACT.offers(interface) || import.kind == "type",
        };
        if offered {
            continue;
        }
        let import = import.to_string();
        return Err(match interface {
            _ if interface.starts_with("wasi") => LoadProblem::Wasi {
                import,
                mend: maker.bare(),
            },
            "env" | "gojs" if matches!(maker, Maker::AssemblyScript | Maker::Go) => {
                LoadProblem::LanguageRuntime {
                    import,
                    mend: maker.bare(),
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
    let parts = &inspection.parts;
    if parts.is_open {
        return Err(LoadProblem::OpenParts);
    }
    for (what, wanted, limit) in [
        ("core instances", parts.instances, MOST_INSTANCES),
        ("memories", parts.memories, MOST_MEMORIES),
        ("tables", parts.tables, MOST_TABLES),
    ] {
        if wanted > u64::from(limit) {
            return Err(LoadProblem::Parts {
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
            mend: inspection.maker().small_memory(),
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

/// Makes a component of a module that says what world it is built for.
fn encode(module: &[u8], inspection: &Inspection) -> Result<Vec<u8>, LoadProblem> {
    let Some(world) = &inspection.world else {
        return Err(LoadProblem::NoWorld);
    };
    let decides = inspection
        .exports
        .iter()
        .any(|export| export.name == "decide");
    if (world == WORLD || world == CONFIGURED_WORLD) && !decides {
        return Err(LoadProblem::MissingExport);
    }
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.encode());
    encoded.map_err(|error| LoadProblem::Encoding {
        cause: error.root_cause().to_string(),
    })
}

fn check_world(component: &[u8], inspection: &Inspection) -> Result<(), LoadProblem> {
    CONTRACT
        .check(component, inspection.has_function(VALIDATE))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_problem_of_the_file() {
        let problem = caught::<()>(|| panic!("multiple\nmemories")).unwrap_err();
        let cause = "multiple\\nmemories".to_owned();
        assert_eq!(problem, LoadProblem::Panicked { cause });
    }
}
