//! Splits bulk memory operations into pieces, so that a deadline can interrupt them.
//!
//! The runtime checks the epoch before `memory.fill`, `memory.copy` and `memory.init`, and not again until they are done, which takes
//! longer than a deadline for a large memory. Each operation that may be large is therefore replaced by a call of a function that is added
//! to the module and executes the operation in pieces within a loop: the runtime checks the epoch in each iteration. The semantics are the
//! same: nothing is written if any byte is out of bounds, and a range is copied as if all of it were read first.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use wasm_encoder::{BlockType, Component, Encode, Function, Instruction, ValType};

use wasmparser::{BinaryReader, BinaryReaderError, FunctionBody, Operator, Parser, Payload};

use crate::added_functions::{AddedFunctions, Edit, first_added};
use crate::inspect::DEEPEST;

/// Size of a piece in bytes. A piece takes a few microseconds, or some tens if its pages are not mapped yet.
const PIECE: i32 = 64 << 10;

/// Ids of the component sections that contain a module or a component.
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;

/// An operation; for `memory.init` with its data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Fill,
    Copy,
    Init(u32),
}

/// The operations of a module that may be large, each with the index of the added function that executes it in pieces.
#[derive(Default)]
struct Large(BTreeMap<Operation, u32>);

/// Rewrites a valid module so that its bulk memory operations are executed in pieces.
pub(crate) fn module(file: &[u8]) -> wasmtime::Result<Cow<'_, [u8]>> {
    let mut large = Large::of(file)?;
    if large.0.is_empty() {
        return Ok(Cow::Borrowed(file));
    }
    let functions = AddedFunctions {
        params: &[ValType::I32; 3],
        results: &[],
        bodies: large
            .0
            .keys()
            .map(|operation| operation.in_pieces())
            .collect(),
    };
    let module = functions.add_to(file, &mut large);
    let module = module.ok_or_else(|| wasmtime::Error::msg("the module cannot be rewritten"))?;
    Ok(Cow::Owned(module))
}

/// Rewrites all modules of a valid component.
pub(crate) fn component(file: &[u8]) -> wasmtime::Result<Vec<u8>> {
    each_module(file, module)
}

/// What replaces a module.
type Rewrite = fn(&[u8]) -> wasmtime::Result<Cow<'_, [u8]>>;

/// Rewrites all modules of a valid component by this function.
pub(crate) fn each_module(file: &[u8], rewrite: Rewrite) -> wasmtime::Result<Vec<u8>> {
    within(file, rewrite, 0)
}

fn within(file: &[u8], rewrite: Rewrite, depth: u32) -> wasmtime::Result<Vec<u8>> {
    const HEADER: usize = Component::HEADER.len();
    if depth > DEEPEST {
        return Err(wasmtime::Error::msg("components are nested too deeply"));
    }
    let mut reader = BinaryReader::new(file, 0);
    let mut whole = reader.read_bytes(HEADER).map_err(bad)?.to_vec();
    while !reader.eof() {
        let id = reader.read_u8().map_err(bad)?;
        let size = reader.read_var_u32().map_err(bad)?;
        let data = reader.read_bytes(size as usize).map_err(bad)?;
        let data = match id {
            CORE_MODULE => rewrite(data)?,
            COMPONENT => Cow::Owned(within(data, rewrite, depth + 1)?),
            _ => Cow::Borrowed(data),
        };
        whole.push(id);
        data.encode(&mut whole);
    }
    Ok(whole)
}

impl Large {
    fn of(file: &[u8]) -> wasmtime::Result<Self> {
        let mut operations = BTreeMap::new();
        for payload in Parser::new(0).parse_all(file) {
            if let Payload::CodeSectionEntry(body) = payload.map_err(bad)? {
                each_large(&body, |operation, _, _| {
                    operations.insert(operation, 0);
                })?;
            }
        }
        let first = first_added(file);
        let first = first.ok_or_else(|| wasmtime::Error::msg("the module cannot be read"))?;
        for (index, place) in (first..).zip(operations.values_mut()) {
            *place = index;
        }
        Ok(Self(operations))
    }
}

impl Edit for Large {
    /// The body with its large operations replaced by calls.
    fn body<'f>(&mut self, file: &'f [u8], body: &FunctionBody<'f>) -> Option<Cow<'f, [u8]>> {
        let Range {
            start: mut copied,
            end,
        } = body.range();
        let mut out = Vec::with_capacity(end - copied);
        each_large(body, |operation, start, behind| {
            out.extend_from_slice(&file[copied..start]);
            Instruction::Call(self.0[&operation]).encode(&mut out);
            copied = behind;
        })
        .ok()?;
        out.extend_from_slice(&file[copied..end]);
        Some(Cow::Owned(out))
    }
}

/// Calls `each` for each operation that may be large, with the start and the end of its instruction.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "there are hundreds of instructions, and three of them matter"
)]
fn each_large(
    body: &FunctionBody<'_>,
    mut each: impl FnMut(Operation, usize, usize),
) -> wasmtime::Result<()> {
    let mut reader = body.get_operators_reader().map_err(bad)?;
    let mut size = None;
    while !reader.eof() {
        let start = reader.original_position();
        let operator = reader.read().map_err(bad)?;
        let operation = match operator {
            Operator::MemoryFill { .. } => Some(Operation::Fill),
            Operator::MemoryCopy { .. } => Some(Operation::Copy),
            Operator::MemoryInit { data_index, .. } => Some(Operation::Init(data_index)),
            _ => None,
        };
        let is_small = size.is_some_and(|size| (0..=PIECE).contains(&size));
        if let Some(operation) = operation.filter(|_| !is_small) {
            each(operation, start, reader.original_position());
        }
        size = match operator {
            Operator::I32Const { value } => Some(value),
            _ => None,
        };
    }
    Ok(())
}

impl Operation {
    /// The function that executes the operation in pieces. Its parameters are those of the operation: destination, source or value, and size.
    fn in_pieces(self) -> Function {
        const TO: u32 = 0;
        const FROM: u32 = 1;
        const SIZE: u32 = 2;
        let moves_source = self != Self::Fill;
        let mut function = Function::new([]);
        let mut code = Vec::new();
        let get = Instruction::LocalGet;
        let piece = Instruction::I32Const(PIECE);
        // Adds a size to a local, or subtracts it.
        let step = |local: u32, by: Instruction<'static>, how: Instruction<'static>| {
            [get(local), by, how, Instruction::LocalSet(local)]
        };
        let both = |by: &Instruction<'static>, how: &Instruction<'static>| {
            let mut steps = step(TO, by.clone(), how.clone()).to_vec();
            if moves_source {
                steps.extend(step(FROM, by.clone(), how.clone()));
            }
            steps
        };
        let (add, sub) = (Instruction::I32Add, Instruction::I32Sub);
        let all = [get(TO), get(FROM), get(SIZE), self.instruction()];
        let one = [get(TO), get(FROM), piece.clone(), self.instruction()];
        let is_large = [get(SIZE), piece.clone(), Instruction::I32GtU];

        code.push(Instruction::Block(BlockType::Empty));
        code.extend([get(SIZE), piece.clone(), Instruction::I32LeU]);
        code.push(Instruction::BrIf(0));
        // A range whose end overflows 32 bits is out of bounds: the original operation, which follows the block, traps.
        let sources: &[u32] = if moves_source { &[TO, FROM] } else { &[TO] };
        for &local in sources {
            code.extend([get(local), get(SIZE), Instruction::I32Add, get(local)]);
            code.extend([Instruction::I32LtU, Instruction::BrIf(0)]);
        }
        // An operation of size 0 at the end of the range traps if the range is out of bounds.
        code.extend([get(TO), get(SIZE), Instruction::I32Add, get(FROM)]);
        if moves_source {
            code.extend([get(SIZE), Instruction::I32Add]);
        }
        code.extend([Instruction::I32Const(0), self.instruction()]);

        let mut forwards = vec![Instruction::Loop(BlockType::Empty)];
        forwards.extend(one.clone());
        forwards.extend(both(&piece, &add));
        forwards.extend(step(SIZE, piece.clone(), sub.clone()));
        forwards.extend(is_large.clone());
        forwards.extend([Instruction::BrIf(0), Instruction::End]);
        if self == Self::Copy {
            // Backwards if the destination may overlap the source.
            code.extend([get(TO), get(FROM), Instruction::I32LeU]);
            code.push(Instruction::If(BlockType::Empty));
            code.extend(forwards);
            code.push(Instruction::Else);
            code.extend(both(&get(SIZE), &add));
            code.push(Instruction::Loop(BlockType::Empty));
            code.extend(both(&piece, &sub));
            code.extend(one);
            code.extend(step(SIZE, piece.clone(), sub.clone()));
            code.extend(is_large);
            code.extend([Instruction::BrIf(0), Instruction::End]);
            code.extend(both(&get(SIZE), &sub));
            code.push(Instruction::End);
        } else {
            code.extend(forwards);
        }
        code.push(Instruction::End);
        code.extend(all);
        code.push(Instruction::End);
        for instruction in &code {
            function.instruction(instruction);
        }
        function
    }

    fn instruction(self) -> Instruction<'static> {
        match self {
            Self::Fill => Instruction::MemoryFill(0),
            Self::Copy => Instruction::MemoryCopy {
                src_mem: 0,
                dst_mem: 0,
            },
            Self::Init(data_index) => Instruction::MemoryInit { mem: 0, data_index },
        }
    }
}

fn bad(error: BinaryReaderError) -> wasmtime::Error {
    wasmtime::Error::msg(error.message().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::sync::LazyLock;

    use super::*;
    use crate::lab::{Lab, compiled};
    use proptest::prelude::*;

    /// Three operations on a memory of four pages whose bytes differ, and a segment of more than a piece.
    fn text() -> String {
        let mut data = String::new();
        for n in 0..70_000_u32 {
            let _ = write!(data, "\\{:02x}", n.wrapping_mul(2_654_435_761) >> 24);
        }
        format!(
            r#"(module
                (memory (export "memory") 4)
                (data $passive "{data}")
                (func (export "fill") (param i32 i32 i32)
                    local.get 0 local.get 1 local.get 2 memory.fill)
                (func (export "copy") (param i32 i32 i32)
                    local.get 0 local.get 1 local.get 2 memory.copy)
                (func (export "init") (param i32 i32 i32)
                    local.get 0 local.get 1 local.get 2 memory.init $passive)
                (func (export "small") i32.const 0 i32.const 1 i32.const 64 memory.fill))"#
        )
    }

    /// The original module, and the rewritten one.
    static BOTH: LazyLock<[wasmtime::Module; 2]> = LazyLock::new(|| {
        let plain = wat::parse_str(text()).unwrap();
        let rewritten = module(&plain).unwrap();
        assert!(matches!(rewritten, Cow::Owned(_)));
        compiled([&plain, &rewritten])
    });

    fn compare(name: &str, arguments: (u32, u32, u32)) {
        let [plain, rewritten] = &*BOTH;
        let mut expected = Lab::new(plain);
        let mut found = Lab::new(rewritten);
        let done = found.does(name, arguments);
        assert_eq!(done, expected.does(name, arguments), "{name} {arguments:?}");
        assert!(found.memory() == expected.memory(), "{name} {arguments:?}");
    }

    #[test]
    fn operations_in_pieces_have_the_same_effect() {
        const SIZE: u32 = 4 << 16;
        const ONE: u32 = PIECE as u32;
        for size in [
            0,
            1,
            ONE - 1,
            ONE,
            ONE + 1,
            2 * ONE,
            2 * ONE + 7,
            SIZE,
            SIZE + 1,
            u32::MAX,
        ] {
            for to in [0, 3, ONE, SIZE - size.min(SIZE), SIZE, u32::MAX] {
                compare("fill", (to, 77, size));
                for from in [0, 5, ONE + 1, SIZE - size.min(SIZE), u32::MAX] {
                    compare("copy", (to, from, size));
                }
            }
        }
        for (to, from, size) in [
            (0, 0, 70_000),
            (9, 1, 69_999),
            (0, 1, 70_000),
            (SIZE - 69_000, 0, 70_000),
            (0, u32::MAX, 70_000),
            (u32::MAX, 0, 70_000),
        ] {
            compare("init", (to, from, size));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_copy_in_pieces_has_the_same_effect(to in 0..270_000_u32, from in 0..270_000_u32, size in 0..270_000_u32) {
            compare("copy", (to, from, size));
        }
    }

    #[test]
    fn modules_without_large_operations_are_unchanged() {
        let small =
            r#"(module (memory 1) (func i32.const 0 i32.const 1 i32.const 65536 memory.fill))"#;
        let small = wat::parse_str(small).unwrap();
        assert!(matches!(module(&small).unwrap(), Cow::Borrowed(_)));
        let large =
            r#"(module (memory 1) (func i32.const 0 i32.const 1 i32.const 65537 memory.fill))"#;
        let large = wat::parse_str(large).unwrap();
        assert!(matches!(module(&large).unwrap(), Cow::Owned(_)));
    }

    #[test]
    fn modules_within_components_are_rewritten() {
        let fill = "(core module (memory 1) (func (param i32) i32.const 0 i32.const 1 local.get 0 memory.fill))";
        let text = format!("(component {fill} (component (component {fill})))");
        let rewritten = component(&wat::parse_str(text).unwrap()).unwrap();
        wasmparser::validate(&rewritten).unwrap();
        let mut bodies = 0;
        for payload in Parser::new(0).parse_all(&rewritten) {
            bodies += usize::from(matches!(payload.unwrap(), Payload::CodeSectionEntry(_)));
        }
        assert_eq!(
            bodies, 4,
            "an original and an added function in each of two modules"
        );
    }
}
