//! The floor under a policy whose compiler expects WASI.

use std::sync::LazyLock;

use portcullis_policy::{Exports, Inspection, Kind, LoadProblem, WIT, embed_with, inspect};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

/// The module that compilers import, which the floor stands in for.
const WASI: &str = "wasi_snapshot_preview1";

/// The prefix of the interfaces that components import.
const WASI_INTERFACES: &str = "wasi:";

/// `src/floor.wat`, assembled.
const FLOOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/floor.wasm"));

/// What the floor imports.
const FLOOR_WIT: &str = "package portcullis:floor;
world floor {
    import portcullis:policy/log@0.1.0;
    import portcullis:policy/clock@0.1.0;
    import portcullis:policy/request@0.1.0;
}
";

/// The floor, with its imports declared.
static DECLARED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let mut floor = FLOOR.to_vec();
    let parsed = resolve
        .push_source("routing-policy.wit", WIT)
        .and_then(|_| resolve.push_source("floor.wit", FLOOR_WIT))
        .and_then(|package| resolve.select_world(&[package], Some("floor")));
    let declared = parsed.and_then(|world| {
        wit_component::embed_component_metadata(&mut floor, &resolve, world, StringEncoding::UTF8)
    });
    declared
        .expect("the contract and the floor are part of this build, and its tests adapt a module");
    floor
});

/// A policy that a host can load, as far as adapting can make it one.
#[derive(Debug)]
pub struct Adapted {
    /// The file.
    pub bytes: Vec<u8>,
    /// Whether it did not say what world it is for, and does now.
    pub embedded: bool,
    /// Whether it expected WASI, and has the floor in it now.
    pub floor: bool,
}

/// Why a file cannot be adapted.
#[derive(Debug, thiserror::Error)]
pub enum AdaptError {
    /// It is no WebAssembly.
    #[error(transparent)]
    Unusable(#[from] LoadProblem),
    /// It exports no policy.
    #[error("it exports no function `decide`: is it a program instead of a policy?")]
    NoPolicy,
    /// It is a component with WASI outside.
    #[error(
        "it is a component that imports {0}: adapt the core module before it becomes a component, or have its tool leave WASI out (`--stub-wasi` \
         of componentize-py and componentize-qjs; for Rust, the target wasm32-unknown-unknown)"
    )]
    Component(String),
    /// The encoder refuses it.
    #[error("{0}")]
    Encode(String),
}

/// Declares the world where that is missing, and links the floor under a module that imports `wasi_snapshot_preview1`. Everything ends up in
/// the file: the host offers no WASI.
///
/// # Errors
/// If the file is no policy, or a component that imports WASI.
pub fn adapt(bytes: &[u8]) -> Result<Adapted, AdaptError> {
    let found = inspect(bytes)?;
    let has = |name: &str| found.exports.iter().any(|export| export.name == name);
    if !has("decide") {
        return Err(AdaptError::NoPolicy);
    }
    match found.kind {
        Kind::Component => refuse_wasi(&found)?,
        Kind::Module => return adapt_module(bytes, &found),
    }
    Ok(Adapted {
        bytes: bytes.to_vec(),
        embedded: false,
        floor: false,
    })
}

fn refuse_wasi(found: &Inspection) -> Result<(), AdaptError> {
    let is_wasi = |name: &&str| name.starts_with(WASI_INTERFACES);
    let mut names = found.imports.iter().map(|import| import.interface.as_str());
    match names.find(is_wasi) {
        Some(name) => Err(AdaptError::Component(name.to_owned())),
        None => Ok(()),
    }
}

fn adapt_module(bytes: &[u8], found: &Inspection) -> Result<Adapted, AdaptError> {
    let mut adapted = Adapted {
        bytes: bytes.to_vec(),
        embedded: found.world.is_none(),
        floor: found.imports.iter().any(|import| import.interface == WASI),
    };
    if adapted.embedded {
        let has = |name: &str| found.exports.iter().any(|export| export.name == name);
        let exports = Exports {
            validate_settings: has("validate-settings"),
            on_failure: has("on-failure"),
        };
        embed_with(&mut adapted.bytes, exports).map_err(AdaptError::Encode)?;
    }
    if adapted.floor {
        let encoded = ComponentEncoder::default()
            .module(&adapted.bytes)
            .and_then(|encoder| encoder.adapter(WASI, &DECLARED))
            .and_then(|mut encoder| encoder.encode());
        adapted.bytes = encoded.map_err(|error| AdaptError::Encode(chain(&error)))?;
    }
    Ok(adapted)
}

/// The causes of an error, on one line.
fn chain(error: &impl std::fmt::Display) -> String {
    format!("{error:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(body: &str) -> Vec<u8> {
        let text = format!(
            r#"(module {body}
                (memory (export "memory") 1)
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024))"#
        );
        wat::parse_str(text).unwrap()
    }

    const DECIDE: &str = r#"(func (export "decide") (result i32) i32.const 16)"#;

    #[test]
    fn a_module_without_a_world_gets_one() {
        let adapted = adapt(&module(DECIDE)).unwrap();
        assert!(adapted.embedded && !adapted.floor);
        let found = inspect(&adapted.bytes).unwrap();
        assert_eq!(found.kind, Kind::Module);
        assert_eq!(found.world.as_deref(), Some(portcullis_policy::WORLD));

        let again = adapt(&adapted.bytes).unwrap();
        assert!(!again.embedded && !again.floor);
        assert_eq!(again.bytes, adapted.bytes);
    }

    #[test]
    fn the_world_is_that_of_the_exports() {
        let on_failure = r#"(func (export "on-failure") (result i32) i32.const 16)"#;
        let adapted = adapt(&module(&format!("{DECIDE} {on_failure}"))).unwrap();
        let found = inspect(&adapted.bytes).unwrap();
        assert_eq!(
            found.world.as_deref(),
            Some("portcullis:policy/failover-policy@0.1.0")
        );
    }

    #[test]
    fn the_floor_replaces_wasi_and_uses_the_contract() {
        let wasi = r#"
            (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "path_open"
                (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;
        let adapted = adapt(&module(&format!("{wasi} {DECIDE}"))).unwrap();
        assert!(adapted.embedded && adapted.floor);
        let found = inspect(&adapted.bytes).unwrap();
        assert_eq!(found.kind, Kind::Component);
        for import in found.imports.iter().map(|import| &import.interface) {
            assert!(!import.contains("wasi"), "{import}");
        }
        for interface in ["log", "clock", "request"] {
            assert!(found.asks_for(interface), "{interface}");
        }
    }

    #[test]
    fn every_function_of_wasi_is_there() {
        let floor = wasm_exports(FLOOR);
        for function in FUNCTIONS.split_whitespace() {
            assert!(floor.iter().any(|name| name == function), "{function}");
        }
    }

    fn wasm_exports(bytes: &[u8]) -> Vec<String> {
        let found = inspect(bytes).unwrap();
        found
            .exports
            .into_iter()
            .map(|export| export.name)
            .collect()
    }

    /// The functions of `wasi_snapshot_preview1`.
    const FUNCTIONS: &str = "args_get args_sizes_get environ_get environ_sizes_get clock_res_get clock_time_get fd_advise fd_allocate fd_close
        fd_datasync fd_fdstat_get fd_fdstat_set_flags fd_fdstat_set_rights fd_filestat_get fd_filestat_set_size fd_filestat_set_times fd_pread
        fd_prestat_get fd_prestat_dir_name fd_pwrite fd_read fd_readdir fd_renumber fd_seek fd_sync fd_tell fd_write path_create_directory
        path_filestat_get path_filestat_set_times path_link path_open path_readlink path_remove_directory path_rename path_symlink
        path_unlink_file poll_oneoff proc_exit proc_raise sched_yield random_get sock_accept sock_recv sock_send sock_shutdown";

    #[test]
    fn programs_and_components_with_wasi_are_refused() {
        let start = r#"(func (export "_start"))"#;
        assert!(matches!(adapt(&module(start)), Err(AdaptError::NoPolicy)));
        assert!(matches!(adapt(b"text"), Err(AdaptError::Unusable(_))));
    }
}
