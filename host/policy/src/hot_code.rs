//! The machine code that the calls of a policy execute, as far as its trial run shows.

use std::ops::Range;

use wasmtime::Module;

use crate::look_ahead::Lines;

/// Most checks of the epoch at which functions are noted: each takes a microsecond.
const MOST_CHECKS: u32 = 4_096;

/// Most bytes of code that are read before a call. Policies whose calls execute more take so long that the reading would save little.
const MOST_BYTES: usize = 8 << 10;

/// The functions that a call has entered.
#[derive(Default)]
pub(crate) struct Visited {
    /// Their indices, sorted.
    functions: Vec<u32>,
    checks: u32,
}

/// Where the code is that calls execute: the functions that the trial run entered, and what the compiler and the host added.
#[derive(Default)]
pub(crate) struct HotCode {
    ranges: Box<[Range<u32>]>,
}

impl Visited {
    /// Whether functions are still noted.
    pub(crate) fn has_room(&self) -> bool {
        self.checks < MOST_CHECKS
    }

    /// Notes a function that is entered, or one of whose loops begins again.
    pub(crate) fn enter(&mut self, function: u32) {
        self.checks += 1;
        if let Err(at) = self.functions.binary_search(&function) {
            self.functions.insert(at, function);
        }
    }

    /// Forgets what ran before the call.
    pub(crate) fn clear(&mut self) {
        self.functions.clear();
    }
}

impl HotCode {
    /// The code of a call of this module.
    pub(crate) fn of(module: &Module, visited: &Visited) -> Self {
        let is_visited = |index: u32| visited.functions.binary_search(&index).is_ok();
        let functions = module.functions().map(|function| {
            let index = function.index.as_u32();
            let code = function.offset..function.offset + function.len;
            (code, is_visited(index))
        });
        // The rest of the last page is empty.
        let last = module.text().iter().rposition(|byte| *byte != 0);
        let size = last.map_or(0, |last| last + 1);
        Self {
            ranges: hot(functions.collect(), size).into(),
        }
    }

    /// Reads the code.
    pub(crate) fn read(&self, module: &Module, lines: &mut Lines) {
        let text = module.text();
        for range in &self.ranges {
            let code = text.get(range.start as usize..range.end as usize);
            lines.read_all(code.unwrap_or_default());
        }
    }
}

/// Number of functions at the end of a module that each call executes: the host has added them.
const ADDED: usize = 2;

/// The ranges to read of code with these functions, each with whether it was entered. What is between functions are trampolines, by which
/// host and policy call each other.
fn hot(mut functions: Vec<(Range<usize>, bool)>, size: usize) -> Vec<Range<u32>> {
    let own = functions.len().saturating_sub(ADDED);
    for (_, is_hot) in functions.iter_mut().skip(own) {
        *is_hot = true;
    }
    functions.sort_unstable_by_key(|(code, _)| code.start);
    let mut ranges: Vec<Range<u32>> = Vec::new();
    let mut left = MOST_BYTES;
    let mut add = |range: Range<usize>| {
        let range = range.start..range.end.min(range.start.saturating_add(left));
        let (Ok(start), Ok(end)) = (u32::try_from(range.start), u32::try_from(range.end)) else {
            return;
        };
        left -= range.len();
        match ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == start => last.end = end,
            Some(_) | None => ranges.push(start..end),
        }
    };
    let mut done = 0;
    for (code, is_hot) in functions {
        add(done..code.start);
        if is_hot {
            add(code.clone());
        }
        done = code.end.max(done);
    }
    add(done..size);
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entered_functions_and_what_is_between_functions_are_hot() {
        let functions = vec![
            (16..100, false),
            (100..200, true),
            (220..300, true),
            (300..400, false),
            (420..440, false),
            (450..460, false),
        ];
        assert_eq!(hot(functions, 480), [0..16, 100..300, 400..480]);
    }

    #[test]
    fn no_more_is_read_than_is_worth_its_time() {
        let functions = vec![
            (0..5_000, true),
            (5_000..10_000, true),
            (10_000..20_000, true),
        ];
        let hot_ones = hot(functions, 20_000);
        assert_eq!(hot_ones.len(), 1);
        assert_eq!(hot_ones[0], 0..MOST_BYTES as u32);
        assert_eq!(hot(Vec::new(), 0), []);
    }

    #[test]
    fn functions_that_were_not_entered_are_not_read() {
        let cold = "(drop (i32.popcnt (i32.load (i32.const 0))))".repeat(400);
        let text = format!(
            r#"(module (memory 1) (func $cold {cold}) (func $hot (export "hot")) (func $added) (func $last))"#
        );
        let file = wat::parse_str(text).unwrap();
        let module = Module::new(&wasmtime::Engine::default(), file).unwrap();
        let mut visited = Visited::default();
        visited.enter(1);
        let code = HotCode::of(&module, &visited);
        let functions: Vec<_> = module.functions().collect();
        let has = |nth: usize| {
            let at = u32::try_from(functions[nth].offset).unwrap();
            code.ranges.iter().any(|range| range.contains(&at))
        };
        assert_eq!([0, 1, 2, 3].map(has), [false, true, true, true]);
    }

    #[test]
    fn functions_are_noted_once_and_up_to_a_limit() {
        let mut visited = Visited::default();
        for function in (0..MOST_CHECKS).map(|check| check % 3) {
            assert!(visited.has_room());
            visited.enter(function);
        }
        assert!(!visited.has_room());
        assert_eq!(visited.functions, [0, 1, 2]);
    }
}
