//! Resets instances of modules to their initial state after each call.

mod cards;
mod data;
mod pristine;
mod resettable;

pub(crate) use cards::{Cards, Marked, marked};
pub(crate) use pristine::Pristine;
pub use resettable::NoReset;
pub(crate) use resettable::{EXPORT, INITIALIZE, Resettable, SAVE};
