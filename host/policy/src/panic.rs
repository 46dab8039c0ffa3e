//! Converts panics of libraries into problems of the policy file.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::problem::LoadProblem;
use crate::text;

/// Runs `work`, which reads or translates an untrusted file. A panic of a library is a problem of this file and ends nothing else.
pub(crate) fn catch<T>(work: impl FnOnce() -> Result<T, LoadProblem>) -> Result<T, LoadProblem> {
    // Unwind safe: a load changes shared state only after it is complete.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(LoadProblem::Panicked {
            cause: message(&*panic),
        })
    })
}

/// The message of a panic, escaped.
fn message(panic: &(dyn Any + Send)) -> String {
    const MOST: usize = 512;
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    text::shown(message.unwrap_or("no message"), MOST).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_problem_of_the_file() {
        let problem = catch::<()>(|| panic!("multiple\nmemories")).unwrap_err();
        let cause = "multiple\\nmemories".to_owned();
        assert_eq!(problem, LoadProblem::Panicked { cause });
    }
}
