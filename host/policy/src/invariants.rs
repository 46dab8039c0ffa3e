//! Invariants of loading, as assertions that tests and the fuzz target share.
//!
//! Each function panics if its invariant is violated.

use wasmparser::Validator;

use crate::inspect::{features, inspect};
use crate::limits::Limits;
use crate::problem::LoadProblem;
use crate::{bulk_memory, check, module, panic};

/// Loads a file up to the point where it would be compiled: inspects it, checks it against the contract and the limits, encodes it as a
/// component, and rewrites it for the compiler.
///
/// A panic of a library that reads the file counts as a refusal ([`LoadProblem::Panicked`]), as in a host.
pub fn loader(file: &[u8]) {
    let limits = Limits::default();
    let inspected = inspect(file);
    assert_eq!(
        format!("{inspected:?}"),
        format!("{:?}", inspect(file)),
        "a file reads the same twice"
    );
    let checked = panic::catch(|| check::check(file, &limits));
    let checked = match checked {
        Ok(checked) => checked,
        Err(problem) => return explained(&problem),
    };
    let inspection = inspected.expect("a file that passes the checks can be inspected");
    assert!(file.len() <= limits.module_bytes);
    assert!(inspection.memory_bytes <= limits.memory_bytes as u64);
    valid(&checked.component);

    let rewritten = panic::catch(|| {
        Ok(match module::fits(&checked.inspection) {
            true => module::rewritten(file, true).map(|module| module.into_owned()),
            false => bulk_memory::component(&checked.component),
        })
    });
    match rewritten {
        Ok(Ok(bytes)) => valid(&bytes),
        Ok(Err(error)) => panic!("a file that fits the contract cannot be rewritten: {error:#}"),
        Err(problem) => explained(&problem),
    }
}

/// A valid file is still valid after it has been rewritten.
fn valid(bytes: &[u8]) {
    let validated = Validator::new_with_features(features()).validate_all(bytes);
    if let Err(error) = validated {
        panic!("the rewritten file is invalid: {error}");
    }
}

fn explained(problem: &LoadProblem) {
    assert!(!problem.to_string().is_empty());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The seeds of the fuzz target, complete and truncated at every offset.
    #[test]
    fn seeds_and_their_prefixes_are_accepted_or_refused() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/loader");
        let seeds: Vec<_> = std::fs::read_dir(seeds).unwrap().collect();
        assert!(seeds.len() >= 5);
        for seed in seeds {
            let file = std::fs::read(seed.unwrap().path()).unwrap();
            assert!(check::check(&file, &Limits::default()).is_ok());
            for end in 0..=file.len() {
                loader(&file[..end]);
            }
        }
    }
}
