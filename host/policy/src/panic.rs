//! Turns a panic over a policy file into a problem with this file.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::problem::LoadProblem;
use crate::text;

/// Does something with a file that somebody else wrote. The libraries that read and translate it are large: a panic of theirs is a problem
/// with this file, and ends nothing else.
pub(crate) fn caught<T>(work: impl FnOnce() -> Result<T, LoadProblem>) -> Result<T, LoadProblem> {
    // Nothing that outlasts a load is changed before it is complete.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(LoadProblem::Panicked {
            cause: said(&*panic),
        })
    })
}

/// The message of a panic.
fn said(panic: &(dyn Any + Send)) -> String {
    const MOST: usize = 512;
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
    text::shown(message.unwrap_or("it gave no reason"), MOST).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_problem_of_the_file() {
        let problem = caught::<()>(|| panic!("multiple\nmemories")).unwrap_err();
        let cause = "multiple\\nmemories".to_owned();
        assert_eq!(problem, LoadProblem::Panicked { cause });
    }
}
