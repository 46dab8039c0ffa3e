//! The functions of the contract, as the fake host answers them.

pub(crate) use super::call::*;
pub(crate) use super::surroundings::*;
