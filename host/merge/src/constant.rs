//! Constant expressions, with what they refer to replaced by its value.

use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ConstExpr, Encode, Instruction};
use wasmparser::Operator;

use crate::problem::Problem;

/// A value that an expression names directly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Leaf {
    I32(i32),
    I64(i64),
    /// The bits of an `f32`.
    F32(u32),
    /// The bits of an `f64`.
    F64(u64),
    V128(i128),
    /// A function of the merged module.
    Func(u32),
    Null(wasm_encoder::HeapType),
    /// A global that the merged module imports.
    Global(u32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Arithmetic {
    Add32,
    Sub32,
    Mul32,
    Add64,
    Sub64,
    Mul64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Leaf(Leaf),
    Arithmetic(Arithmetic),
}

/// An expression of the merged module, as far as possible reduced to one value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Constant(Vec<Step>);

/// What functions and globals of a module are in the merged module.
pub(crate) trait Names {
    /// The index of a function.
    fn func(&self, index: u32) -> Result<u32, Problem>;
    /// The value of a global.
    fn global(&self, index: u32) -> Result<Leaf, Problem>;
}

impl Constant {
    /// Reads an expression.
    ///
    /// # Errors
    /// If it has an instruction that merging does not handle.
    pub(crate) fn read(
        expression: &wasmparser::ConstExpr<'_>,
        names: &impl Names,
    ) -> Result<Self, Problem> {
        let mut reader = expression.get_operators_reader();
        let mut steps = Vec::new();
        while !reader.is_end_then_eof() {
            match step(&reader.read()?, names)? {
                Step::Leaf(leaf) => steps.push(Step::Leaf(leaf)),
                Step::Arithmetic(arithmetic) => push(&mut steps, arithmetic),
            }
        }
        Ok(Self(steps))
    }

    /// The value, if it is known or that of an imported global.
    pub(crate) fn leaf(&self) -> Option<Leaf> {
        match *self.0 {
            [Step::Leaf(leaf)] => Some(leaf),
            _ => None,
        }
    }

    pub(crate) fn encoded(&self) -> ConstExpr {
        let mut bytes = Vec::new();
        for step in &self.0 {
            let instruction = match *step {
                Step::Leaf(Leaf::I32(value)) => Instruction::I32Const(value),
                Step::Leaf(Leaf::I64(value)) => Instruction::I64Const(value),
                Step::Leaf(Leaf::F32(bits)) => {
                    Instruction::F32Const(wasm_encoder::Ieee32::new(bits))
                }
                Step::Leaf(Leaf::F64(bits)) => {
                    Instruction::F64Const(wasm_encoder::Ieee64::new(bits))
                }
                Step::Leaf(Leaf::V128(value)) => Instruction::V128Const(value),
                Step::Leaf(Leaf::Func(index)) => Instruction::RefFunc(index),
                Step::Leaf(Leaf::Null(ty)) => Instruction::RefNull(ty),
                Step::Leaf(Leaf::Global(index)) => Instruction::GlobalGet(index),
                Step::Arithmetic(Arithmetic::Add32) => Instruction::I32Add,
                Step::Arithmetic(Arithmetic::Sub32) => Instruction::I32Sub,
                Step::Arithmetic(Arithmetic::Mul32) => Instruction::I32Mul,
                Step::Arithmetic(Arithmetic::Add64) => Instruction::I64Add,
                Step::Arithmetic(Arithmetic::Sub64) => Instruction::I64Sub,
                Step::Arithmetic(Arithmetic::Mul64) => Instruction::I64Mul,
            };
            instruction.encode(&mut bytes);
        }
        ConstExpr::raw(bytes)
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other constant instructions make objects"
)]
fn step(operator: &Operator<'_>, names: &impl Names) -> Result<Step, Problem> {
    Ok(match *operator {
        Operator::I32Const { value } => Step::Leaf(Leaf::I32(value)),
        Operator::I64Const { value } => Step::Leaf(Leaf::I64(value)),
        Operator::F32Const { value } => Step::Leaf(Leaf::F32(value.bits())),
        Operator::F64Const { value } => Step::Leaf(Leaf::F64(value.bits())),
        Operator::V128Const { value } => Step::Leaf(Leaf::V128(value.i128())),
        Operator::RefFunc { function_index } => Step::Leaf(Leaf::Func(names.func(function_index)?)),
        Operator::RefNull { hty } => {
            let ty = RoundtripReencoder.heap_type(hty);
            let ty = ty.map_err(|error| Problem::Encode(error.to_string()))?;
            Step::Leaf(Leaf::Null(ty))
        }
        Operator::GlobalGet { global_index } => Step::Leaf(names.global(global_index)?),
        Operator::I32Add => Step::Arithmetic(Arithmetic::Add32),
        Operator::I32Sub => Step::Arithmetic(Arithmetic::Sub32),
        Operator::I32Mul => Step::Arithmetic(Arithmetic::Mul32),
        Operator::I64Add => Step::Arithmetic(Arithmetic::Add64),
        Operator::I64Sub => Step::Arithmetic(Arithmetic::Sub64),
        Operator::I64Mul => Step::Arithmetic(Arithmetic::Mul64),
        _ => return Err(Problem::Unsupported("a constant is an object")),
    })
}

/// Appends an operation, or does it where both operands are known.
fn push(steps: &mut Vec<Step>, arithmetic: Arithmetic) {
    use Arithmetic::{Add32, Add64, Mul32, Mul64, Sub32, Sub64};
    let value = match (arithmetic, steps.as_slice()) {
        (
            Add32 | Sub32 | Mul32,
            [
                ..,
                Step::Leaf(Leaf::I32(left)),
                Step::Leaf(Leaf::I32(right)),
            ],
        ) => Leaf::I32(match arithmetic {
            Sub32 => left.wrapping_sub(*right),
            Mul32 => left.wrapping_mul(*right),
            Add32 | Add64 | Sub64 | Mul64 => left.wrapping_add(*right),
        }),
        (
            Add64 | Sub64 | Mul64,
            [
                ..,
                Step::Leaf(Leaf::I64(left)),
                Step::Leaf(Leaf::I64(right)),
            ],
        ) => Leaf::I64(match arithmetic {
            Sub64 => left.wrapping_sub(*right),
            Mul64 => left.wrapping_mul(*right),
            Add64 | Add32 | Sub32 | Mul32 => left.wrapping_add(*right),
        }),
        _ => {
            steps.push(Step::Arithmetic(arithmetic));
            return;
        }
    };
    steps.truncate(steps.len() - 2);
    steps.push(Step::Leaf(value));
}
