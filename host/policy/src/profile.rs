//! Fuel by function: where a call of a policy spends its instructions.
//!
//! The module is changed before it is compiled: behind each call instruction stands a call of an added function, the *mark*, which does
//! nothing. The engine checks the epoch where a function begins, and in a profiled call each check calls [`Recorder::check`] with the stack and
//! the fuel that is left. A function that begins and a mark that begins are all moments at which another function goes on, so the fuel
//! between two of them belongs to one function. The result is exact and the same on every machine. Only in what the engine itself adds to a
//! component (adapters between its modules) are there no marks.

use std::borrow::Cow;
use std::collections::HashMap;

use wasm_encoder::{Encode, Function, Instruction, NameMap, NameSection};
use wasmparser::{FunctionBody, KnownCustom, Name, NameSectionReader, Operator, Parser, Payload};
use wasmtime::FrameInfo;

use crate::added_functions::{AddedFunctions, Edit, first_added};
use crate::bulk_memory;
use crate::inspect::{Kind, inspect};
use crate::names;
use crate::problem::LoadProblem;

/// The name of the mark.
const MARK: &str = "portcullis profile mark";

/// Stacks that are kept apart. The fuel of further ones is counted for their last function alone.
const MOST_STACKS: usize = 100_000;

/// Where the calls of a policy spent their fuel.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// The functions that ran.
    pub functions: Vec<ProfiledFunction>,
    /// Stacks of indices in `functions`, outermost first, with the fuel of their last function.
    pub stacks: Vec<(Vec<usize>, u64)>,
}

/// A function of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfiledFunction {
    /// Its demangled name, or its index if the file has no names.
    pub name: String,
    /// Number of times that it was entered.
    pub calls: u64,
}

/// What is recorded during a call.
pub(crate) struct Recorder {
    /// Fuel left at the last event.
    left: u64,
    /// Fuel of marks that the next event counts too much.
    overhead: u64,
    /// The functions that run now.
    stack: Vec<usize>,
    functions: HashMap<Place, usize>,
    profile: Profile,
    fuel: HashMap<Vec<usize>, u64>,
}

/// A function, by the address of its machine code's image and its index.
type Place = (usize, u32);

/// Adds marks to the modules of a policy file.
///
/// # Errors
/// If the bytes are no WebAssembly, or cannot be rewritten.
pub fn with_marks(file: &[u8]) -> Result<Vec<u8>, MarkError> {
    let marked = match inspect(file)?.kind {
        Kind::Module => marked(file).map(Cow::into_owned),
        Kind::Component => bulk_memory::each_module(file, marked),
    };
    marked.map_err(|error| MarkError::Rewrite(error.to_string()))
}

/// Why a file cannot get marks.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// It is no WebAssembly.
    #[error(transparent)]
    Unusable(#[from] LoadProblem),
    /// It cannot be rewritten.
    #[error("the file cannot be rewritten for a profile: {0}")]
    Rewrite(String),
}

fn marked(module: &[u8]) -> wasmtime::Result<Cow<'_, [u8]>> {
    let unreadable = || wasmtime::Error::msg("a module of the file cannot be rewritten");
    let mark = first_added(module).ok_or_else(unreadable)?;
    let mut body = Function::new([]);
    body.instruction(&Instruction::End);
    let functions = AddedFunctions {
        params: &[],
        results: &[],
        bodies: vec![body],
    };
    let Some(mut marked) = functions.add_to(module, &mut Marks { mark }) else {
        // A module without functions of its own, or one that the next steps refuse.
        return Ok(Cow::Borrowed(module));
    };
    let names = names_with(module, mark).ok_or_else(unreadable)?;
    wasm_encoder::Section::append_to(&names, &mut marked);
    Ok(Cow::Owned(marked))
}

/// Puts a call of the mark behind each call, and leaves out the names.
struct Marks {
    mark: u32,
}

impl Edit for Marks {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there are hundreds of instructions, and three of them call"
    )]
    fn body<'f>(&mut self, file: &'f [u8], body: &FunctionBody<'f>) -> Option<Cow<'f, [u8]>> {
        let range = body.range();
        let (mut copied, end) = (range.start, range.end);
        let mut out = Vec::with_capacity(range.len() * 5 / 4);
        let mut reader = body.get_operators_reader().ok()?;
        while !reader.eof() {
            match reader.read().ok()? {
                Operator::Call { .. }
                | Operator::CallIndirect { .. }
                | Operator::CallRef { .. } => {
                    let behind = reader.original_position();
                    out.extend_from_slice(file.get(copied..behind)?);
                    Instruction::Call(self.mark).encode(&mut out);
                    copied = behind;
                }
                _ => {}
            }
        }
        out.extend_from_slice(file.get(copied..end)?);
        Some(Cow::Owned(out))
    }

    fn section(
        &mut self,
        section: &Payload<'_>,
        _whole: &mut wasm_encoder::Module,
    ) -> Option<bool> {
        Some(names_in(section).is_some())
    }
}

/// The names of a module's functions, and that of the mark, which is the last function.
fn names_with(module: &[u8], mark: u32) -> Option<NameSection> {
    let mut map = NameMap::new();
    let mut last = None;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload.ok()?;
        for names in names_in(&payload).into_iter().flatten() {
            // Names that cannot be read are no reason to refuse a file.
            let Ok(Name::Function(names)) = names else {
                continue;
            };
            for name in names.into_iter().flatten() {
                if name.index < mark && last.is_none_or(|last| name.index > last) {
                    map.append(name.index, name.name);
                    last = Some(name.index);
                }
            }
        }
    }
    map.append(mark, MARK);
    let mut section = NameSection::new();
    section.functions(&map);
    Some(section)
}

fn names_in<'a>(payload: &Payload<'a>) -> Option<NameSectionReader<'a>> {
    let Payload::CustomSection(custom) = payload else {
        return None;
    };
    if let KnownCustom::Name(names) = custom.as_known() {
        return Some(names);
    }
    None
}

impl Recorder {
    /// A record of a call that begins with this fuel.
    pub(crate) fn new(left: u64) -> Self {
        Self {
            left,
            overhead: 0,
            stack: Vec::new(),
            functions: HashMap::new(),
            profile: Profile::default(),
            fuel: HashMap::new(),
        }
    }

    /// Notes that a function begins or a loop repeats, with the fuel that is left. The frames are those of the stack, innermost first.
    pub(crate) fn check(&mut self, left: u64, frames: &[FrameInfo]) {
        let Some(top) = frames.first() else {
            return;
        };
        let place = (top.module().image_range().start as usize, top.func_index());
        self.note(left, frames.len(), place, top.func_name());
    }

    fn note(&mut self, left: u64, depth: usize, place: Place, name: Option<&str>) {
        if name == Some(MARK) {
            // The call of the mark, which has been counted, and its body, which will be.
            self.overhead += 1;
            self.spend(left);
            self.overhead = 1;
            self.stack.truncate(depth.saturating_sub(1));
            return;
        }
        self.spend(left);
        let function = self.function(place, name);
        // A loop that repeats: in the engine's memory the fuel is that of the last call, so nothing has been counted.
        if self.stack.get(depth.saturating_sub(1)) == Some(&function) {
            self.stack.truncate(depth);
            return;
        }
        self.stack.truncate(depth.saturating_sub(1));
        self.stack.push(function);
        self.profile.functions[function].calls += 1;
    }

    /// Counts the fuel since the last event for the function that ran.
    fn spend(&mut self, left: u64) {
        let fuel = self.left.saturating_sub(left);
        if fuel == 0 {
            return;
        }
        let own = fuel.saturating_sub(self.overhead);
        (self.left, self.overhead) = (left, 0);
        if let Some(sum) = self.fuel.get_mut(&self.stack) {
            *sum += own;
        } else if self.fuel.len() < MOST_STACKS {
            self.fuel.insert(self.stack.clone(), own);
        } else {
            let last = self.stack.last().copied();
            *self.fuel.entry(last.into_iter().collect()).or_default() += own;
        }
    }

    fn function(&mut self, place: Place, name: Option<&str>) -> usize {
        let functions = &mut self.profile.functions;
        *self.functions.entry(place).or_insert_with(|| {
            functions.push(ProfiledFunction {
                name: match name {
                    Some(name) => names::readable(name),
                    None => format!("function {}", place.1),
                },
                calls: 0,
            });
            functions.len() - 1
        })
    }

    /// The profile of a call that ended with this fuel.
    pub(crate) fn finish(mut self, left: u64) -> Profile {
        self.spend(left);
        let stacks = self.fuel.into_iter();
        self.profile.stacks = stacks
            .filter(|(stack, fuel)| *fuel > 0 && !stack.is_empty())
            .collect();
        self.profile.stacks.sort_unstable();
        self.profile
    }
}

impl Profile {
    /// The fuel of all functions.
    pub fn fuel(&self) -> u64 {
        self.stacks.iter().map(|(_, fuel)| fuel).sum()
    }

    /// The fuel of each function itself, and of it with all that it called.
    pub fn own_and_total(&self) -> Vec<(u64, u64)> {
        let mut sums = vec![(0, 0); self.functions.len()];
        for (stack, fuel) in &self.stacks {
            if let Some(&last) = stack.last() {
                sums[last].0 += fuel;
            }
            for (at, &function) in stack.iter().enumerate() {
                if !stack[..at].contains(&function) {
                    sums[function].1 += fuel;
                }
            }
        }
        sums
    }

    /// Adds the profile of another call of the same policy. Functions are the same if their names are.
    pub fn add(&mut self, other: &Self) {
        let mut known = HashMap::new();
        for (at, function) in self.functions.iter().enumerate() {
            known.insert(function.name.clone(), at);
        }
        let mut places = Vec::with_capacity(other.functions.len());
        for function in &other.functions {
            let at = *known.entry(function.name.clone()).or_insert_with(|| {
                self.functions.push(ProfiledFunction {
                    calls: 0,
                    ..function.clone()
                });
                self.functions.len() - 1
            });
            self.functions[at].calls += function.calls;
            places.push(at);
        }
        let mut sums: HashMap<Vec<usize>, u64> = self.stacks.drain(..).collect();
        for (stack, fuel) in &other.stacks {
            let stack = stack.iter().map(|&function| places[function]).collect();
            *sums.entry(stack).or_default() += fuel;
        }
        self.stacks = sums.into_iter().collect();
        self.stacks.sort_unstable();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What events of this form leave: fuel left, depth, function; function 9 is the mark.
    fn recorded(events: &[(u64, usize, u32)], end: u64) -> Vec<(String, u64, u64, u64)> {
        let mut recorder = Recorder::new(1_000);
        for &(left, depth, function) in events {
            let name = match function {
                9 => MARK.to_owned(),
                n => format!("f{n}"),
            };
            recorder.note(left, depth, (0, function), Some(&name));
        }
        let profile = recorder.finish(end);
        let sums = profile.own_and_total();
        let functions = profile.functions.iter().zip(sums);
        functions
            .map(|(function, (own, total))| (function.name.clone(), function.calls, own, total))
            .collect()
    }

    #[test]
    fn fuel_belongs_to_the_function_that_ran() {
        // f0 spends 10 and calls f1, which spends 20 and repeats a loop; behind the mark f0 spends 30.
        let found = recorded(
            &[(1_000, 1, 0), (990, 2, 1), (990, 2, 1), (969, 2, 9)],
            969 - 31,
        );
        assert_eq!(found, [("f0".into(), 1, 40, 60), ("f1".into(), 1, 20, 20)]);
    }

    #[test]
    fn recursion_counts_once_in_the_total() {
        let found = recorded(
            &[
                (1_000, 1, 0),
                (990, 2, 0),
                (980, 3, 0),
                (969, 3, 9),
                (957, 2, 9),
            ],
            957 - 11,
        );
        assert_eq!(found, [("f0".into(), 3, 50, 50)]);
    }

    #[test]
    fn profiles_add_up_by_name() {
        let of = |name: &str, fuel| Profile {
            functions: vec![
                ProfiledFunction {
                    name: "decide".into(),
                    calls: 1,
                },
                ProfiledFunction {
                    name: name.into(),
                    calls: 2,
                },
            ],
            stacks: vec![(vec![0], 5), (vec![0, 1], fuel)],
        };
        let mut sum = of("a", 7);
        sum.add(&of("b", 1));
        sum.add(&of("a", 2));
        let names: Vec<_> = sum
            .functions
            .iter()
            .map(|one| (&*one.name, one.calls))
            .collect();
        assert_eq!(names, [("decide", 3), ("a", 4), ("b", 2)]);
        assert_eq!(
            sum.stacks,
            [(vec![0], 15), (vec![0, 1], 9), (vec![0, 2], 1)]
        );
        assert_eq!(sum.fuel(), 25);
    }

    #[test]
    fn a_marked_module_is_valid_and_keeps_its_names() {
        let text = r#"(module $m (import "a" "b" (func $host)) (table 1 funcref) (func $own (call $host) (call_indirect (i32.const 0))))"#;
        let marked = with_marks(&wat::parse_str(text).unwrap()).unwrap();
        wasmparser::validate(&marked).unwrap();
        let mut calls = 0;
        for payload in Parser::new(0).parse_all(&marked) {
            let Payload::CodeSectionEntry(body) = payload.unwrap() else {
                continue;
            };
            for operator in body.get_operators_reader().unwrap() {
                let operator = operator.unwrap();
                calls += u32::from(matches!(operator, Operator::Call { function_index: 2 }));
            }
        }
        assert_eq!(calls, 2);
        assert!(names_with(&marked, 3).is_some());
    }
}
