//! Card marking: records which parts of its memory a call wrote, so that a reset restores only those.
//!
//! The memory is divided into 64 cards. The module gets a 64-bit global, and code before each instruction that writes memory sets the bit
//! of the card that is written. This is the write barrier of a generational garbage collector. For its own writes, the host sets the bits
//! in [`Cards`].
//!
//! The marks are reliable even for a hostile module: the host adds the code after the module has been validated, so the module cannot name
//! the global, and every instruction that writes memory is marked. A module with instructions that write memory and are not listed here
//! gets no marks, and a reset restores its whole memory.

use std::borrow::Cow;
use std::ops::Range;

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{
    BlockType, ConstExpr, Encode, Function, GlobalSection, GlobalType, Instruction, Module, ValType,
};
use wasmparser::{
    FunctionBody, MemArg, Operator, Parser, Payload, TypeRef, Validator, WasmFeatures,
};

use crate::added_functions::{AddedFunctions, Edit, first_added};

/// Number of cards of a memory.
const CARDS: usize = u64::BITS as usize;

/// Bytes of the largest value that one instruction stores. It may begin in one card and end in the next, but only the first is marked.
const WIDEST: usize = 16;

/// The cards that the host wrote during a call, in a memory of fixed size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cards {
    /// Binary logarithm of the size of a card in bytes.
    shift: u32,
    written: u64,
}

impl Cards {
    /// No cards, for a memory of this many bytes.
    pub(crate) fn none(memory: usize) -> Self {
        Self {
            shift: shift(memory),
            written: 0,
        }
    }

    /// Marks the cards of a range that the host writes.
    #[inline]
    pub(crate) fn mark(&mut self, at: usize, size: usize) {
        if size == 0 {
            return;
        }
        let first = (at >> self.shift) as u32 % u64::BITS;
        let last = ((at + size - 1) >> self.shift) as u32 % u64::BITS;
        self.written |= (u64::MAX << first) & (u64::MAX >> (u64::BITS - 1 - last));
    }

    /// Returns the marks and clears them.
    pub(crate) fn take(&mut self) -> u64 {
        std::mem::take(&mut self.written)
    }
}

/// Calls `each` with the byte ranges of the marked cards, in a memory of this many bytes.
pub(super) fn each_range(marks: u64, memory: usize, mut each: impl FnMut(Range<usize>)) {
    let shift = shift(memory);
    let mut marks = marks;
    while marks != 0 {
        let first = marks.trailing_zeros();
        let count = (marks >> first).trailing_ones();
        let end = ((first + count) as usize) << shift;
        each((first as usize) << shift..(end + WIDEST - 1).min(memory));
        let rest = first + count;
        marks = match rest < u64::BITS {
            true => marks >> rest << rest,
            false => 0,
        };
    }
}

/// Binary logarithm of the size of a card, for a memory of this many bytes.
fn shift(memory: usize) -> u32 {
    memory
        .div_ceil(CARDS)
        .max(1)
        .next_power_of_two()
        .trailing_zeros()
}

/// A module with marks.
pub(crate) struct Marked {
    pub(crate) module: Vec<u8>,
    /// The index of the global with the marks.
    pub(crate) global: u32,
}

/// Adds marks to a module; `None` if it may write memory by instructions that are not listed here, or has no functions of its own. The module must be
/// valid and import only functions.
pub(crate) fn marked(file: &[u8]) -> Option<Marked> {
    let known = Validator::new_with_features(known_features()).validate_all(file);
    known.ok()?;
    let mut marking = Marking::of(file)?;
    let functions = AddedFunctions {
        params: &[ValType::I32; 2],
        results: &[],
        bodies: vec![marking.mark_range()],
    };
    Some(Marked {
        module: functions.add_to(file, &mut marking)?,
        global: marking.global,
    })
}

/// The supported proposals. [`Written::by`] lists all their instructions that write memory.
fn known_features() -> WasmFeatures {
    WasmFeatures::WASM2 | WasmFeatures::EXTENDED_CONST
}

/// What an instruction writes to memory.
enum Written {
    /// A value of this type at an address on the stack.
    Value(ValType, MemArg),
    /// A range whose address and size are on the stack.
    Range,
}

impl Written {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are hundreds of instructions, and those that write memory matter"
    )]
    fn by(operator: &Operator<'_>) -> Option<Self> {
        Some(match *operator {
            Operator::I32Store { memarg }
            | Operator::I32Store8 { memarg }
            | Operator::I32Store16 { memarg } => Self::Value(ValType::I32, memarg),
            Operator::I64Store { memarg }
            | Operator::I64Store8 { memarg }
            | Operator::I64Store16 { memarg }
            | Operator::I64Store32 { memarg } => Self::Value(ValType::I64, memarg),
            Operator::F32Store { memarg } => Self::Value(ValType::F32, memarg),
            Operator::F64Store { memarg } => Self::Value(ValType::F64, memarg),
            Operator::V128Store { memarg }
            | Operator::V128Store8Lane { memarg, .. }
            | Operator::V128Store16Lane { memarg, .. }
            | Operator::V128Store32Lane { memarg, .. }
            | Operator::V128Store64Lane { memarg, .. } => Self::Value(ValType::V128, memarg),
            Operator::MemoryFill { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryInit { .. } => Self::Range,
            _ => return None,
        })
    }
}

/// The facts about a module that its marking needs.
struct Marking {
    /// Binary logarithm of the size of a card in bytes.
    shift: u32,
    /// The index of the global with the marks.
    global: u32,
    /// The index of the function that marks a range.
    mark: u32,
    /// The number of parameters of each function of the module that has not been rewritten yet.
    params: std::vec::IntoIter<u32>,
    /// Whether the section with the globals has been written.
    has_globals: bool,
}

impl Marking {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other sections of a file do not matter here"
    )]
    fn of(file: &[u8]) -> Option<Self> {
        let mut types = Vec::new();
        let mut params = Vec::new();
        let (mut globals, mut memory) = (0, 0);
        for payload in Parser::new(0).parse_all(file) {
            match payload.ok()? {
                Payload::TypeSection(section) => {
                    for ty in section.into_iter_err_on_gc_types() {
                        types.push(u32::try_from(ty.ok()?.params().len()).ok()?);
                    }
                }
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        match import.ok()?.ty {
                            TypeRef::Func(_) => {}
                            _ => return None,
                        }
                    }
                }
                Payload::FunctionSection(section) => {
                    for ty in section {
                        params.push(*types.get(ty.ok()? as usize)?);
                    }
                }
                Payload::MemorySection(section) => {
                    for ty in section {
                        memory = usize::try_from(ty.ok()?.initial).ok()?;
                    }
                }
                Payload::GlobalSection(section) => globals = section.count(),
                _ => {}
            }
        }
        Some(Self {
            shift: shift(memory.checked_mul(crate::engine::PAGE)?),
            global: globals,
            mark: first_added(file)?,
            params: params.into_iter(),
            has_globals: false,
        })
    }

    /// The body of a function with a mark before each instruction that writes memory.
    fn function(&self, file: &[u8], body: &FunctionBody<'_>, params: u32) -> Option<Vec<u8>> {
        let whole = body.range();
        let mut locals = body.get_locals_reader().ok()?;
        let groups = locals.get_count();
        let groups_at = locals.original_position();
        let mut used = params;
        for _ in 0..groups {
            used = used.checked_add(locals.read().ok()?.0)?;
        }
        let code_at = locals.original_position();

        let mut out = Vec::with_capacity(2 * whole.len());
        (groups + u32::try_from(SCRATCH.len()).ok()?).encode(&mut out);
        out.extend_from_slice(file.get(groups_at..code_at)?);
        for ty in SCRATCH {
            1_u32.encode(&mut out);
            ty.encode(&mut out);
        }
        let mut copied = code_at;
        let mut operators = body.get_operators_reader().ok()?;
        while !operators.eof() {
            let at = operators.original_position();
            let operator = operators.read().ok()?;
            if let Some(written) = Written::by(&operator) {
                out.extend_from_slice(file.get(copied..at)?);
                for instruction in self.mark(&written, used)? {
                    instruction.encode(&mut out);
                }
                copied = at;
            }
        }
        out.extend_from_slice(file.get(copied..whole.end)?);
        Some(out)
    }

    /// The code that marks what the next instruction writes. It leaves the stack unchanged. `scratch` is the index of the first scratch local.
    fn mark(&self, written: &Written, scratch: u32) -> Option<Vec<Instruction<'static>>> {
        use Instruction::{
            Call, GlobalGet, GlobalSet, I32Add, I32Const, I32ShrU, I64Const, I64ExtendI32U, I64Or,
            I64Shl, LocalGet, LocalSet,
        };
        let to = scratch + TO;
        Some(match written {
            Written::Value(ty, memarg) => {
                let value =
                    scratch + u32::try_from(SCRATCH.iter().rposition(|it| it == ty)?).ok()?;
                let mut code = vec![LocalSet(value), LocalSet(to), I64Const(1), LocalGet(to)];
                // If this addition overflows 32 bits, the address is out of bounds, and the instruction traps.
                let offset = u32::try_from(memarg.offset).ok()?;
                if offset > 0 {
                    code.extend([I32Const(offset.cast_signed()), I32Add]);
                }
                code.extend([
                    I32Const(self.shift.cast_signed()),
                    I32ShrU,
                    I64ExtendI32U,
                    // The shift takes the index of the card modulo 64. It exceeds 63 only in a memory that has grown, which is not reset.
                    I64Shl,
                    GlobalGet(self.global),
                    I64Or,
                    GlobalSet(self.global),
                    LocalGet(to),
                    LocalGet(value),
                ]);
                code
            }
            Written::Range => {
                let (from, size) = (scratch + FROM, scratch + SIZE);
                let mut code = vec![LocalSet(size), LocalSet(from), LocalSet(to)];
                code.extend([LocalGet(to), LocalGet(size), Call(self.mark)]);
                code.extend([LocalGet(to), LocalGet(from), LocalGet(size)]);
                code
            }
        })
    }

    /// The function that marks a range. Its parameters are the address and the size of the range.
    fn mark_range(&self) -> Function {
        use Instruction::{
            Else, End, GlobalGet, GlobalSet, I32Add, I32Const, I32Eqz, I32ShrU, I32Sub, I64And,
            I64Const, I64ExtendI32U, I64Or, I64Shl, I64ShrU, I64Sub, If, LocalGet,
        };
        let shift = I32Const(self.shift.cast_signed());
        let mut function = Function::new([]);
        let code = [
            LocalGet(1),
            I32Eqz,
            If(BlockType::Empty),
            Else,
            // The bits from the first card on …
            I64Const(-1),
            LocalGet(0),
            shift.clone(),
            I32ShrU,
            I64ExtendI32U,
            I64Shl,
            // … and up to the last card.
            I64Const(-1),
            I64Const(63),
            LocalGet(0),
            LocalGet(1),
            I32Add,
            I32Const(1),
            I32Sub,
            shift,
            I32ShrU,
            I64ExtendI32U,
            I64Sub,
            I64ShrU,
            I64And,
            GlobalGet(self.global),
            I64Or,
            GlobalSet(self.global),
            End,
            End,
        ];
        for instruction in &code {
            function.instruction(instruction);
        }
        function
    }
}

impl Edit for Marking {
    fn body<'f>(&mut self, file: &'f [u8], body: &FunctionBody<'f>) -> Option<Cow<'f, [u8]>> {
        let params = self.params.next()?;
        self.function(file, body, params).map(Cow::Owned)
    }

    /// Adds the global with the marks, in a section of its own before the exports if the module has no globals.
    fn section(&mut self, section: &Payload<'_>, whole: &mut Module) -> Option<bool> {
        if let Payload::GlobalSection(section) = section {
            let mut globals = GlobalSection::new();
            RoundtripReencoder
                .parse_global_section(&mut globals, section.clone())
                .ok()?;
            whole.section(&with_marks(globals));
            self.has_globals = true;
            return Some(true);
        }
        if matches!(section, Payload::ExportSection(_)) && !self.has_globals {
            whole.section(&with_marks(GlobalSection::new()));
        }
        Some(false)
    }
}

/// Scratch locals of each function: address, source and size of a range, and a value of each type.
const SCRATCH: [ValType; 7] = [
    ValType::I32,
    ValType::I32,
    ValType::I32,
    ValType::I64,
    ValType::F32,
    ValType::F64,
    ValType::V128,
];
const TO: u32 = 0;
const FROM: u32 = 1;
const SIZE: u32 = 2;

/// The globals of the module, followed by the global with the marks.
fn with_marks(mut globals: GlobalSection) -> GlobalSection {
    let ty = GlobalType {
        val_type: ValType::I64,
        mutable: true,
        shared: false,
    };
    globals.global(ty, &ConstExpr::i64_const(0));
    globals
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use wasm_encoder::{ExportKind, ExportSection, RawSection};
    use wasmtime::TypedFunc;

    use super::*;
    use crate::lab::{Lab, compiled, first};

    const SIZE: usize = 2 << 16;

    /// One function for each instruction that writes memory. Its parameters are an address, a value or source, and a size.
    const WRITERS: [(&str, &str); 18] = [
        ("i32.store", "local.get 1 i32.store offset=5"),
        ("i32.store8", "local.get 1 i32.store8"),
        ("i32.store16", "local.get 1 i32.store16 offset=1"),
        (
            "i64.store",
            "local.get 1 i64.extend_i32_u i64.store offset=4000000000",
        ),
        ("i64.store8", "local.get 1 i64.extend_i32_u i64.store8"),
        (
            "i64.store16",
            "local.get 1 i64.extend_i32_u i64.store16 offset=70000",
        ),
        ("i64.store32", "local.get 1 i64.extend_i32_u i64.store32"),
        ("f32.store", "local.get 1 f32.convert_i32_s f32.store"),
        ("f64.store", "local.get 1 f64.convert_i32_s f64.store"),
        ("v128.store", "local.get 1 i8x16.splat v128.store offset=3"),
        (
            "v128.store8_lane",
            "local.get 1 i8x16.splat v128.store8_lane 7",
        ),
        (
            "v128.store16_lane",
            "local.get 1 i8x16.splat v128.store16_lane 2",
        ),
        (
            "v128.store32_lane",
            "local.get 1 i8x16.splat v128.store32_lane 1",
        ),
        (
            "v128.store64_lane",
            "local.get 1 i8x16.splat v128.store64_lane offset=9 0",
        ),
        ("memory.fill", "local.get 1 local.get 2 memory.fill"),
        ("memory.copy", "local.get 1 local.get 2 memory.copy"),
        ("memory.init", "local.get 1 local.get 2 memory.init $d"),
        ("constant", "drop i32.const 1023 i32.const -1 i32.store"),
    ];

    fn text() -> String {
        let writers = WRITERS.map(|(name, code)| {
            format!("(func (export \"{name}\") (param i32 i32 i32) local.get 0 {code})")
        });
        let data = "abcdefghijklmnop".repeat(100);
        format!(
            "(module (memory (export \"memory\") 2) (data $d \"{data}\") {}
                (func (export \"locals\") (param i32 i64) (result i64) (local f32 i64)
                    (local.set 3 (local.get 1))
                    (i64.store (local.get 0) (local.get 3))
                    (if (i64.eqz (local.get 3)) (then (return (i64.const 5))))
                    (i64.add (i64.load (local.get 0)) (local.get 3))))",
            writers.concat()
        )
    }

    /// The export name of the global with the marks.
    const MARKS: &str = "marks";

    /// The module with its marks exported.
    fn exported(Marked { module, global }: &Marked) -> Vec<u8> {
        let mut whole = Module::new();
        for payload in Parser::new(0).parse_all(module) {
            let payload = payload.unwrap();
            if let Payload::ExportSection(section) = &payload {
                let mut exports = ExportSection::new();
                RoundtripReencoder
                    .parse_export_section(&mut exports, section.clone())
                    .unwrap();
                exports.export(MARKS, ExportKind::Global, *global);
                whole.section(&exports);
            } else if let Some((id, range)) = payload.as_section() {
                let data = &module[range];
                whole.section(&RawSection { id, data });
            }
        }
        whole.finish()
    }

    /// The original module, and the one with marks.
    static BOTH: LazyLock<[wasmtime::Module; 2]> = LazyLock::new(|| {
        let plain = wat::parse_str(text()).unwrap();
        let marked = exported(&marked(&plain).unwrap());
        compiled([&plain, &marked])
    });

    /// The marked module has the same effect as the original one, and every byte that it changed is in a marked card.
    fn compare(name: &str, arguments: (u32, u32, u32)) -> Result<(), TestCaseError> {
        let [plain, marked] = &*BOTH;
        let mut expected = Lab::new(plain);
        let mut found = Lab::new(marked);
        let done = found.does(name, arguments);
        prop_assert_eq!(
            done,
            expected.does(name, arguments),
            "{} {:?}",
            name,
            arguments
        );
        prop_assert!(found.memory() == expected.memory());
        let mut ranges = Vec::new();
        each_range(found.global(MARKS), SIZE, |range| ranges.push(range));
        let changed = found
            .memory()
            .iter()
            .enumerate()
            .filter(|(at, byte)| **byte != first(*at));
        for (at, _) in changed {
            let is_marked = ranges.iter().any(|range| range.contains(&at));
            prop_assert!(is_marked, "{} {:?} wrote at {}", name, arguments, at);
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn writes_of_the_module_are_marked(
            card in 0..=64_u32, near in -20..20_i32, what in any::<u32>(), size in 0..5_000_u32,
            within in 0..131_072_u32, writer in 0..WRITERS.len(),
        ) {
            let near = (card * 2_048).wrapping_add_signed(near);
            // Some sources are out of bounds, so that the instruction traps.
            let what = if what % 4 == 0 { what } else { what % 2_000 };
            for to in [near, within, near.wrapping_sub(70_000), near.wrapping_sub(4_000_000_000)] {
                compare(WRITERS[writer].0, (to, what, size))?;
            }
        }

        #[test]
        fn writes_of_the_host_are_marked(at in 0..SIZE, size in 0..SIZE, pages in 1..=2_usize) {
            let memory = pages * (SIZE / 2);
            let at = at.min(memory);
            let size = size.min(memory - at);
            let mut cards = Cards::none(memory);
            cards.mark(at, size);
            let mut marked = vec![false; memory];
            each_range(cards.take(), memory, |range| marked[range].fill(true));
            prop_assert!(marked[at..at + size].iter().all(|is_marked| *is_marked));
            prop_assert_eq!(cards.take(), 0);
        }
    }

    #[test]
    fn a_write_marks_only_its_cards() {
        let mut lab = Lab::new(&BOTH[1]);
        for (name, _) in WRITERS {
            assert!(WRITERS.iter().filter(|writer| writer.0 == name).count() == 1);
        }
        assert!(lab.does("i32.store8", (5 * 2_048, 1, 0)));
        assert!(lab.does("memory.fill", (9 * 2_048, 1, 2_049)));
        assert!(lab.does("memory.fill", (63 * 2_048, 1, 0)));
        assert_eq!(lab.global(MARKS), 1 << 5 | 1 << 9 | 1 << 10);
    }

    #[test]
    fn locals_keep_their_values() {
        for module in &*BOTH {
            let mut lab = Lab::new(module);
            let function: TypedFunc<(u32, u64), u64> = lab
                .instance
                .get_typed_func(&mut lab.store, "locals")
                .unwrap();
            assert_eq!(function.call(&mut lab.store, (8, 21)).unwrap(), 42);
            assert_eq!(function.call(&mut lab.store, (8, 0)).unwrap(), 5);
        }
    }

    #[test]
    fn a_module_with_unlisted_instructions_gets_no_marks() {
        for text in [
            "(module (memory 1) (func (drop (i32.atomic.rmw.add (i32.const 0) (i32.const 1)))))",
            "(module (memory 1) (memory 1) (func (i32.store 1 (i32.const 0) (i32.const 1))))",
            "(module (import \"a\" \"b\" (memory 1)) (func))",
        ] {
            assert!(marked(&wat::parse_str(text).unwrap()).is_none(), "{text}");
        }
    }
}
