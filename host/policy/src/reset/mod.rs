//! Puts instances of modules back to their first state.

mod cards;
mod pristine;
mod resettable;

pub(crate) use cards::{Cards, EXPORT, marked};
pub(crate) use pristine::Pristine;
pub(crate) use resettable::Resettable;
