//! Policies from their files to their verdicts, good and hostile.

mod forms;
mod hostile;
mod interfaces;
mod refusals;
mod slot;
mod support;
