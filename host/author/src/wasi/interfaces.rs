//! A module that exports interfaces of WASI 0.2, in the text format.
//!
//! What a policy may need is done by `wasi_snapshot_preview1`, which the floor stands in for: output, clocks, random bytes, exit. All other
//! functions say that there is nothing: no argument, no file, no socket; what can fail fails as unsupported.

use std::fmt::Write as _;

use wit_parser::abi::{AbiVariant, WasmSignature, WasmType};
use wit_parser::{
    Function, Handle, Int, InterfaceId, LiftLowerAbi, ManglingAndAbi, Resolve, ResourceIntrinsic,
    SizeAlign, Type, TypeDefKind, TypeId, TypeOwner, WasmExport, WasmExportKind, WasmImport,
    WorldId, WorldItem, WorldKey,
};

/// The prefix of the interfaces.
pub(crate) const PREFIX: &str = "wasi:";

const MANGLING: ManglingAndAbi = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);

/// Where functions write their results: [`RESULT_SIZE`] bytes.
const RESULT: u32 = 16;
const RESULT_SIZE: u32 = 512;

/// The representations of the resources: those of the two streams are their file descriptors.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;
const OTHER: u32 = 3;

/// Names of what an error of an enumeration or a variant is called if nothing is there.
const UNSUPPORTED: [&str; 4] = ["unsupported", "not-supported", "closed", "access-denied"];

/// What all modules have. Memory: the results at 16, a vector of `fd_write` at 960, the number of bytes at 968, the result of `call-id` at 1024,
/// a subscription at 1040 and its event at 1104; from 65536 on, a ring of 64 KiB for the arguments and results of calls.
const BEGIN: &str = r#"
  (memory (export "memory") 2)
  (global $next (mut i32) (i32.const 65536))
  (global $large (mut i32) (i32.const 0))
  (global $large_size (mut i32) (i32.const 0))

  ;; Nothing outlives a call of a function here, so memory is used again. What does not fit in the ring has pages of its own.
  (func $alloc (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $pages i32)
    (if (i32.gt_u (local.get $size) (i32.const 32768)) (then
      (if (i32.gt_u (local.get $size) (global.get $large_size)) (then
        (local.set $pages (i32.add (i32.shr_u (i32.sub (local.get $size) (i32.const 1)) (i32.const 16)) (i32.const 1)))
        (global.set $large (memory.grow (local.get $pages)))
        (if (i32.eq (global.get $large) (i32.const -1)) (then unreachable))
        (global.set $large (i32.shl (global.get $large) (i32.const 16)))
        (global.set $large_size (i32.shl (local.get $pages) (i32.const 16)))))
      (return (global.get $large))))
    (global.set $next (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
    (if (i32.gt_u (i32.add (global.get $next) (local.get $size)) (i32.const 131072)) (then
      (global.set $next (i32.const 65536))))
    (global.get $next)
    (global.set $next (i32.add (global.get $next) (local.get $size))))

  ;; The module does not see its policy's calls. The floor needs a number that another call does not have: a hash (FNV-1a) of Call-ID, CSeq and
  ;; time.
  (func (export "portcullis_call_count") (result i32)
    (local $hash i64) (local $at i32) (local $end i32)
    (local.set $hash (i64.xor (i64.const 0xcbf29ce484222325) (call $now)))
    (local.set $hash (i64.mul (i64.xor (local.get $hash) (i64.extend_i32_u (call $cseq_number))) (i64.const 0x100000001b3)))
    (call $call_id (i32.const 1024))
    (local.set $at (i32.load (i32.const 1024)))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 1028))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $hash (i64.mul
        (i64.xor (local.get $hash) (i64.load8_u (local.get $at)))
        (i64.const 0x100000001b3)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (i32.wrap_i64 (i64.xor (local.get $hash) (i64.shr_u (local.get $hash) (i64.const 32)))))

  (func $clear (memory.fill (i32.const 16) (i32.const 0) (i32.const 512)))

  ;; Nanoseconds of a clock.
  (func $time (param $clock i32) (result i64)
    (drop (call $clock_time_get (local.get $clock) (i64.const 0) (i32.const 1104)))
    (i64.load (i32.const 1104)))

  ;; A wait on the monotonic clock, which ends at once.
  (func $wait (param $time i64) (param $is_absolute i32)
    (memory.fill (i32.const 1040) (i32.const 0) (i32.const 48))
    (i32.store (i32.const 1056) (i32.const 1))
    (i64.store (i32.const 1064) (local.get $time))
    (i32.store16 (i32.const 1080) (local.get $is_absolute))
    (drop (call $poll_oneoff (i32.const 1040) (i32.const 1104) (i32.const 1) (i32.const 968))))
"#;

const IMPORTS: &str = r#"
  (import "portcullis:policy/clock@0.1.0" "now" (func $now (result i64)))
  (import "portcullis:policy/request@0.1.0" "call-id" (func $call_id (param i32)))
  (import "portcullis:policy/request@0.1.0" "cseq-number" (func $cseq_number (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
"#;

/// A module with the exports of this world.
pub(super) fn module(resolve: &Resolve, world: WorldId) -> anyhow::Result<Vec<u8>> {
    let mut sizes = SizeAlign::default();
    sizes.fill(resolve);
    let mut writer = Writer {
        resolve,
        sizes,
        resources: Vec::new(),
        functions: String::new(),
    };
    for (key, item) in &resolve.worlds[world].exports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        for function in resolve.interfaces[*id].functions.values() {
            writer.function(*id, key, function)?;
        }
    }
    let mut text = format!("(module{IMPORTS}");
    for (at, (module, name)) in writer.resources.iter().enumerate() {
        writeln!(
            text,
            "  (import {module:?} {name:?} (func $new_{at} (param i32) (result i32)))"
        )?;
    }
    text += BEGIN;
    text += &writer.functions;
    text.push(')');
    Ok(wat::parse_str(text)?)
}

/// A module that imports all functions of this world, and does nothing.
pub(super) fn importing(resolve: &Resolve, world: WorldId) -> anyhow::Result<Vec<u8>> {
    let imports = imports_of(resolve, world);
    let rest = r#"(memory (export "memory") 0)
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)"#;
    Ok(wat::parse_str(format!("(module {imports} {rest})"))?)
}

/// The imports of all functions of this world, each with the name `$"MODULE#NAME"`.
pub(crate) fn imports_of(resolve: &Resolve, world: WorldId) -> String {
    let mut text = String::new();
    for (key, item) in &resolve.worlds[world].imports {
        let WorldItem::Interface { id, .. } = item else {
            continue;
        };
        for func in resolve.interfaces[*id].functions.values() {
            let interface = Some(key);
            let (module, name) =
                resolve.wasm_import_name(MANGLING, WasmImport::Func { interface, func });
            let signature = resolve.wasm_signature(AbiVariant::GuestImport, func);
            let types = types_of(&signature);
            text += &format!("(import {module:?} {name:?} (func $\"{module}#{name}\" {types}))\n");
        }
    }
    text
}

struct Writer<'r> {
    resolve: &'r Resolve,
    sizes: SizeAlign,
    /// The functions that make handles of a resource: module and name of the import. `$new_N` is the Nth of them.
    resources: Vec<(String, String)>,
    functions: String,
}

impl Writer<'_> {
    fn function(
        &mut self,
        interface: InterfaceId,
        key: &WorldKey,
        func: &Function,
    ) -> anyhow::Result<()> {
        if func.kind.is_async() {
            anyhow::bail!("it imports an asynchronous function, `{}`", func.name);
        }
        let name = self.resolve.wasm_export_name(
            MANGLING,
            WasmExport::Func {
                interface: Some(key),
                func,
                kind: WasmExportKind::Normal,
            },
        );
        let signature = self.resolve.wasm_signature(AbiVariant::GuestExport, func);
        let types = types_of(&signature);
        let id = self.resolve.id_of(interface).unwrap_or_default();
        let interface = id.split('@').next().unwrap_or_default();
        let body = self.body(interface, func, &signature);
        writeln!(
            self.functions,
            "  (func (export {name:?}) {types} (local $count i32) (local $at i32)\n{body})"
        )?;
        Ok(())
    }

    fn body(&mut self, interface: &str, func: &Function, signature: &WasmSignature) -> String {
        if let Some(body) = special(interface, &func.name) {
            return body.to_owned();
        }
        let representation = match interface {
            "wasi:cli/stdout" => STDOUT,
            "wasi:cli/stderr" => STDERR,
            _ => OTHER,
        };
        let result = func.result;
        if signature.retptr {
            let mut body = String::from("    (call $clear)\n");
            for (offset, byte) in result.map(|ty| self.failure(ty)).unwrap_or_default() {
                let at = RESULT + offset.min(RESULT_SIZE - 1);
                let _infallible =
                    writeln!(body, "    (i32.store8 (i32.const {at}) (i32.const {byte}))");
            }
            return format!("{body}    (i32.const {RESULT})");
        }
        if let Some(resource) = result.and_then(|ty| self.owned(ty)) {
            let new = self.new_of(resource);
            let before = match (interface, &*func.name) {
                ("wasi:clocks/monotonic-clock", "subscribe-duration") => {
                    "    (call $wait (local.get 0) (i32.const 0))\n"
                }
                ("wasi:clocks/monotonic-clock", "subscribe-instant") => {
                    "    (call $wait (local.get 0) (i32.const 1))\n"
                }
                _ => "",
            };
            return format!("{before}    (call $new_{new} (i32.const {representation}))");
        }
        let zero = |ty: &WasmType| format!("    ({}.const 0)", word(*ty));
        signature.results.iter().map(zero).collect()
    }

    /// The bytes of a failure, where a result can be one.
    fn failure(&self, ty: Type) -> Vec<(u32, usize)> {
        let Some(TypeDefKind::Result(result)) = self.definition(ty) else {
            return Vec::new();
        };
        let cases = [result.ok.as_ref(), result.err.as_ref()];
        let offset = self.sizes.payload_offset(Int::U8, cases).size_wasm32();
        let names: Vec<_> = match result.err.and_then(|err| self.definition(err)) {
            Some(TypeDefKind::Enum(all)) => all.cases.iter().map(|case| &*case.name).collect(),
            Some(TypeDefKind::Variant(all)) => all.cases.iter().map(|case| &*case.name).collect(),
            _ => Vec::new(),
        };
        let place = |name: &&str| names.iter().position(|case| case == name);
        let case = UNSUPPORTED.iter().find_map(place).unwrap_or(0);
        let offset = u32::try_from(offset).unwrap_or(RESULT_SIZE);
        vec![(0, 1), (offset, case)]
    }

    /// The resource of a handle that the caller gets.
    fn owned(&self, ty: Type) -> Option<TypeId> {
        let Some(&TypeDefKind::Handle(Handle::Own(mut resource))) = self.definition(ty) else {
            return None;
        };
        while let TypeDefKind::Type(Type::Id(of)) = self.resolve.types[resource].kind {
            resource = of;
        }
        Some(resource)
    }

    /// What a type is, behind its other names.
    fn definition(&self, ty: Type) -> Option<&TypeDefKind> {
        let Type::Id(mut id) = ty else {
            return None;
        };
        while let TypeDefKind::Type(Type::Id(of)) = self.resolve.types[id].kind {
            id = of;
        }
        Some(&self.resolve.types[id].kind)
    }

    /// The number of the import that makes handles of this resource.
    fn new_of(&mut self, resource: TypeId) -> usize {
        let owner = match self.resolve.types[resource].owner {
            TypeOwner::Interface(interface) => Some(WorldKey::Interface(interface)),
            TypeOwner::World(_) | TypeOwner::None => None,
        };
        let import = self.resolve.wasm_import_name(
            MANGLING,
            WasmImport::ResourceIntrinsic {
                interface: owner.as_ref(),
                resource,
                intrinsic: ResourceIntrinsic::ExportedNew,
            },
        );
        let known = self.resources.iter().position(|known| *known == import);
        known.unwrap_or_else(|| {
            self.resources.push(import);
            self.resources.len() - 1
        })
    }
}

/// The functions that do something. Parameters are numbered; `$count` and `$at` are for use.
fn special(interface: &str, function: &str) -> Option<&'static str> {
    Some(match (interface, function) {
        ("wasi:io/streams", "[method]output-stream.check-write") => {
            "    (call $clear) (i64.store (i32.const 24) (i64.const 4096)) (i32.const 16)"
        }
        (
            "wasi:io/streams",
            "[method]output-stream.write" | "[method]output-stream.blocking-write-and-flush",
        ) => {
            "    (i32.store (i32.const 960) (local.get 1)) (i32.store (i32.const 964) (local.get 2))
    (drop (call $fd_write (local.get 0) (i32.const 960) (i32.const 1) (i32.const 968)))
    (call $clear) (i32.const 16)"
        }
        (
            "wasi:io/streams",
            "[method]output-stream.flush" | "[method]output-stream.blocking-flush",
        ) => "    (call $clear) (i32.const 16)",
        ("wasi:io/poll", "[method]pollable.ready") => "    (i32.const 1)",
        ("wasi:io/poll", "poll") => {
            "    (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 4) (i32.shl (local.get 1) (i32.const 2))))
    (i32.store (i32.const 16) (local.get $at)) (i32.store (i32.const 20) (local.get 1))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $count) (local.get 1)))
      (i32.store (i32.add (local.get $at) (i32.shl (local.get $count) (i32.const 2))) (local.get $count))
      (local.set $count (i32.add (local.get $count) (i32.const 1)))
      (br $next)))
    (i32.const 16)"
        }
        ("wasi:clocks/monotonic-clock", "now") => "    (call $time (i32.const 1))",
        ("wasi:clocks/monotonic-clock", "resolution") => "    (i64.const 1000000)",
        ("wasi:clocks/wall-clock", "now") => {
            "    (i64.store (i32.const 16) (i64.div_u (call $time (i32.const 0)) (i64.const 1000000000)))
    (i32.store (i32.const 24) (i32.wrap_i64 (i64.rem_u (call $time (i32.const 0)) (i64.const 1000000000))))
    (i32.const 16)"
        }
        ("wasi:clocks/wall-clock", "resolution") => {
            "    (call $clear) (i32.store (i32.const 24) (i32.const 1000000)) (i32.const 16)"
        }
        ("wasi:random/random", "get-random-bytes")
        | ("wasi:random/insecure", "get-insecure-random-bytes") => {
            "    (if (i64.gt_u (local.get 0) (i64.const 1048576)) (then unreachable))
    (local.set $count (i32.wrap_i64 (local.get 0)))
    (local.set $at (call $alloc (i32.const 0) (i32.const 0) (i32.const 1) (local.get $count)))
    (drop (call $random_get (local.get $at) (local.get $count)))
    (i32.store (i32.const 16) (local.get $at)) (i32.store (i32.const 20) (local.get $count))
    (i32.const 16)"
        }
        ("wasi:random/random", "get-random-u64")
        | ("wasi:random/insecure", "get-insecure-random-u64") => {
            "    (drop (call $random_get (i32.const 16) (i32.const 8))) (i64.load (i32.const 16))"
        }
        ("wasi:random/insecure-seed", "insecure-seed" | "get-insecure-seed") => {
            "    (drop (call $random_get (i32.const 16) (i32.const 16))) (i32.const 16)"
        }
        ("wasi:cli/exit", _) => "    (call $proc_exit (i32.const 1)) unreachable",
        _ => return None,
    })
}

/// `(param i32 i64) (result i32)`
fn types_of(signature: &WasmSignature) -> String {
    let list = |name: &str, types: &[WasmType]| {
        let words: Vec<_> = types.iter().map(|ty| word(*ty)).collect();
        match words.is_empty() {
            true => String::new(),
            false => format!("({name} {}) ", words.join(" ")),
        }
    };
    list("param", &signature.params) + &list("result", &signature.results)
}

fn word(ty: WasmType) -> &'static str {
    match ty {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    }
}
