//! The floor under a policy whose compiler expects WASI.

use std::sync::LazyLock;

use portcullis_policy::{
    CALL_COUNT, Exports, Inspection, Kind, LoadProblem, WIT, embed_with, inspect, with_call_count,
};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

use crate::wasi;

/// The module that compilers import, which the floor stands in for.
const WASI: &str = "wasi_snapshot_preview1";

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
    /// Core instances that were merged; 0 if there was nothing to merge.
    pub merged: usize,
    /// Core instances that were made of them.
    pub groups: usize,
    /// Why core instances that share memory or a table were not merged.
    pub unmerged: Option<String>,
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
        "it is a component that imports {import}, and the floor for WASI cannot be linked to it ({cause}): {mend}"
    )]
    Component {
        /// An interface of WASI.
        import: String,
        /// What is in the way.
        cause: String,
        /// How to build it without WASI, with the tool that built it.
        mend: &'static str,
    },
    /// The count of its calls cannot be added.
    #[error(
        "the module exports `{CALL_COUNT}`, a name that is reserved for the floor, or cannot be rewritten: build it again without that export"
    )]
    CallCount,
    /// The encoder refuses it.
    #[error("{0}")]
    Encode(String),
}

/// Declares the world where that is missing, links the floor under a module that imports `wasi_snapshot_preview1` or a component that imports
/// the interfaces of WASI 0.2, and merges the core modules of a component, so that a new instance costs less. Everything ends up in the file:
/// the host offers no WASI.
///
/// # Errors
/// If the file is no policy, or imports something else.
pub fn adapt(bytes: &[u8]) -> Result<Adapted, AdaptError> {
    let found = inspect(bytes)?;
    let has = |name: &str| found.exports.iter().any(|export| export.name == name);
    if !has("decide") {
        return Err(AdaptError::NoPolicy);
    }
    let adapted = match found.kind {
        Kind::Component => adapt_component(bytes, &found)?,
        Kind::Module => adapt_module(bytes, &found)?,
    };
    Ok(adapted.merge())
}

impl Adapted {
    /// How many core modules were merged, for people; `None` if there was nothing to merge.
    pub fn merging(&self) -> Option<String> {
        let into = match self.groups {
            0 => return None,
            1 => "one".to_owned(),
            groups => groups.to_string(),
        };
        Some(format!("{} core modules merged into {into}", self.merged))
    }

    fn merge(self) -> Self {
        let merged = portcullis_merge::merge(&self.bytes);
        Self {
            bytes: merged.bytes,
            merged: merged.instances,
            groups: merged.groups,
            unmerged: merged.unmerged,
            ..self
        }
    }
}

fn adapt_component(bytes: &[u8], found: &Inspection) -> Result<Adapted, AdaptError> {
    let mut names = found.imports.iter().map(|import| &*import.interface);
    let wasi = names.find(|name| name.starts_with(wasi::PREFIX));
    let adapted = match wasi {
        None => bytes.to_vec(),
        Some(import) => {
            let linked = wasi::with_floor(bytes, &DECLARED);
            linked.map_err(|error| AdaptError::Component {
                import: import.to_owned(),
                cause: chain(&error),
                mend: found.without_wasi(),
            })?
        }
    };
    Ok(Adapted {
        bytes: adapted,
        embedded: false,
        floor: wasi.is_some(),
        merged: 0,
        groups: 0,
        unmerged: None,
    })
}

fn adapt_module(bytes: &[u8], found: &Inspection) -> Result<Adapted, AdaptError> {
    let mut adapted = Adapted {
        bytes: bytes.to_vec(),
        embedded: found.world.is_none(),
        floor: found.imports.iter().any(|import| import.interface == WASI),
        merged: 0,
        groups: 0,
        unmerged: None,
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
        // The floor recognises the begin of a call by the count.
        let Some(counted) = with_call_count(&adapted.bytes) else {
            return Err(AdaptError::CallCount);
        };
        adapted.bytes = counted;
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

    #[test]
    fn a_component_with_another_wasi_is_told_the_flag_of_its_tool() {
        for (role, tool, flag) in [
            ("processed-by", "componentize-py", "--stub-wasi"),
            ("processed-by", "componentize-qjs", "--stub-wasi"),
            ("processed-by", "ComponentizeJS", "--disable all"),
            ("processed-by", "TinyGo", "-target=wasm-unknown"),
            ("language", "Rust", "wasm32-unknown-unknown"),
        ] {
            let text = format!(
                r#"(component
                    (@producers ({role} "{tool}" "1"))
                    (import "wasi:cli/environment@0.2.3" (instance (export "get" (func))))
                    (import "decide" (func $decide))
                    (export "decide" (func $decide)))"#
            );
            let refused = adapt(&wat::parse_str(text).unwrap()).unwrap_err();
            let said = refused.to_string();
            assert!(
                said.contains("imports wasi:cli/environment@0.2.3"),
                "{said}"
            );
            assert!(
                said.contains("it imports decide, which no host offers"),
                "{said}"
            );
            assert!(
                said.contains(flag) && !said.contains("policy adapt"),
                "{said}"
            );
        }
    }

    /// The interfaces that the guest below imports: those of `print` in most languages, a clock, random bytes, and a file.
    const INTERFACES: &str = "package wasi:io@0.2.3;
        interface error { resource error { to-debug-string: func() -> string; } }
        interface poll { resource pollable { block: func(); } poll: func(in: list<borrow<pollable>>) -> list<u32>; }
        interface streams {
            use error.{error}; use poll.{pollable};
            variant stream-error { last-operation-failed(error), closed }
            resource input-stream { read: func(len: u64) -> result<list<u8>, stream-error>; }
            resource output-stream {
                check-write: func() -> result<u64, stream-error>;
                write: func(contents: list<u8>) -> result<_, stream-error>;
                blocking-flush: func() -> result<_, stream-error>;
                subscribe: func() -> pollable;
            }
        }";

    /// A component of a policy in a world with WASI.
    fn component_with_wasi() -> Vec<u8> {
        let mut resolve = Resolve::default();
        resolve.push_source("routing-policy.wit", WIT).unwrap();
        resolve.push_source("io.wit", INTERFACES).unwrap();
        for (file, text) in [
            (
                "cli.wit",
                "package wasi:cli@0.2.3;
                 interface stderr { use wasi:io/streams@0.2.3.{output-stream}; get-stderr: func() -> output-stream; }
                 interface environment { get-arguments: func() -> list<string>; initial-cwd: func() -> option<string>; }
                 interface exit { exit: func(status: result); }",
            ),
            (
                "clocks.wit",
                "package wasi:clocks@0.2.3;
                 interface monotonic-clock {
                    use wasi:io/poll@0.2.3.{pollable}; now: func() -> u64; subscribe-duration: func(when: u64) -> pollable;
                 }
                 interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }",
            ),
            (
                "random.wit",
                "package wasi:random@0.2.3;
                 interface random { get-random-bytes: func(len: u64) -> list<u8>; get-random-u64: func() -> u64; }",
            ),
            (
                "filesystem.wit",
                "package wasi:filesystem@0.2.3;
                 interface types {
                    enum error-code { access, unsupported }
                    resource descriptor { sync: func() -> result<_, error-code>; }
                 }
                 interface preopens { use types.{descriptor}; get-directories: func() -> list<tuple<descriptor, string>>; }",
            ),
        ] {
            resolve.push_source(file, text).unwrap();
        }
        let names = [
            "io/error",
            "io/poll",
            "io/streams",
            "cli/stderr",
            "cli/environment",
            "cli/exit",
            "clocks/monotonic-clock",
            "clocks/wall-clock",
            "random/random",
            "filesystem/types",
            "filesystem/preopens",
        ];
        let mut world =
            "package a:b; world guest { include portcullis:policy/routing-policy@0.1.0;".to_owned();
        for name in names {
            world += &format!("import wasi:{name}@0.2.3;");
        }
        let package = resolve.push_source("guest.wit", &(world + "}")).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        let imports = wasi::imports_of(&resolve, world);
        let mut module = wat::parse_str(format!("(module {imports} {BODY})")).unwrap();
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .unwrap();
        let encoder = ComponentEncoder::default().module(&module).unwrap();
        encoder.validate(true).encode().unwrap()
    }

    /// Uses what it has imported, traps if something is not as it should be, and rejects with 480.
    const BODY: &str = r#"
        (memory (export "memory") 1)
        (data (i32.const 16) "\01\00\00\00\e0\01\00\00\40\00\00\00\00\00\00\00\40\00\00\00\00\00\00\00")
        (data (i32.const 64) "a line\0a")
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 4096)
        (func $expect (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        (func (export "decide") (result i32)
            (local $stream i32) (local $time i64)
            (local.set $stream (call $"wasi:cli/stderr@0.2.3#get-stderr"))
            (call $"wasi:io/streams@0.2.3#[method]output-stream.check-write" (local.get $stream) (i32.const 128))
            (call $expect (i32.eqz (i32.load8_u (i32.const 128))))
            (call $expect (i64.eq (i64.load (i32.const 136)) (i64.const 4096)))
            (call $"wasi:io/streams@0.2.3#[method]output-stream.write"
                (local.get $stream) (i32.const 64) (i32.const 7) (i32.const 128))
            (call $expect (i32.eqz (i32.load8_u (i32.const 128))))
            (local.set $time (call $"wasi:clocks/monotonic-clock@0.2.3#now"))
            (call $expect (i64.gt_u (local.get $time) (i64.const 1000000000)))
            (call $"wasi:io/poll@0.2.3#[method]pollable.block"
                (call $"wasi:clocks/monotonic-clock@0.2.3#subscribe-duration" (i64.const 5000000000)))
            (call $expect (i64.ge_u
                (call $"wasi:clocks/monotonic-clock@0.2.3#now")
                (i64.add (local.get $time) (i64.const 5000000000))))
            (call $"wasi:clocks/wall-clock@0.2.3#now" (i32.const 160))
            (call $expect (i64.gt_u (i64.load (i32.const 160)) (i64.const 1700000000)))
            (call $expect (i64.ne
                (call $"wasi:random/random@0.2.3#get-random-u64")
                (call $"wasi:random/random@0.2.3#get-random-u64")))
            (call $"wasi:filesystem/preopens@0.2.3#get-directories" (i32.const 176))
            (call $expect (i32.eqz (i32.load (i32.const 180))))
            (call $"wasi:cli/environment@0.2.3#initial-cwd" (i32.const 192))
            (call $expect (i32.eqz (i32.load8_u (i32.const 192))))
            i32.const 16)"#;

    #[test]
    fn a_component_gets_the_floor_as_well() {
        let adapted = adapt(&component_with_wasi()).unwrap();
        assert!(adapted.floor && !adapted.embedded);
        wasmparser::Validator::new()
            .validate_all(&adapted.bytes)
            .unwrap();
        let found = inspect(&adapted.bytes).unwrap();
        for import in found.imports.iter().map(|import| &import.interface) {
            assert!(!import.contains("wasi"), "{import}");
        }
        assert!(found.asks_for("log") && found.asks_for("request"));
        assert!(found.exports.iter().any(|export| export.name == "decide"));
        assert!(adapted.merged > 1, "{:?}", adapted.unmerged);
        assert!((1..adapted.merged).contains(&adapted.groups));
        let said = adapted.merging().unwrap();
        assert!(
            said.starts_with(&format!("{} core modules merged", adapted.merged)),
            "{said}"
        );
        let again = adapt(&adapted.bytes).unwrap();
        assert!(!again.floor);
        assert_eq!(again.bytes, adapted.bytes);
        let runtime =
            portcullis_policy::Runtime::new(portcullis_policy::Limits::default()).unwrap();
        // Which calls it once.
        let policy = runtime.load("guest", &adapted.bytes).unwrap();
        assert_eq!(policy.trial_failure(), None);
    }
}
