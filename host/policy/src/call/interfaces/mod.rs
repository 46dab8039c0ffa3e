//! The host functions, one file for each interface of the contract: its functions for modules, with the signatures that the canonical ABI
//! prescribes, its functions for components, and the methods of [`Call`](super::Call) that answer both and note their answers on the tape.
//!
//! For modules, a text is an address and a length. A result other than a single number is written to the address in the last argument.

mod clock;
mod counters;
mod dispatcher;
mod edits;
mod flows;
mod forwarding;
mod guard;
mod log;
mod outcome;
mod peer;
mod permissions;
mod request;
mod rules;
mod settings;
mod trusted;

pub use dispatcher::hash_of_request;

use wasmtime::{Engine, Linker, component};

use crate::call::state::Data;

/// A linker with the host functions for modules.
pub(crate) fn module_linker(engine: &Engine) -> wasmtime::Result<Linker<Data>> {
    let mut linker = Linker::new(engine);
    permissions::link_module(&mut linker)?;
    request::link_module(&mut linker)?;
    log::link_module(&mut linker)?;
    trusted::link_module(&mut linker)?;
    rules::link_module(&mut linker)?;
    counters::link_module(&mut linker)?;
    settings::link_module(&mut linker)?;
    clock::link_module(&mut linker)?;
    edits::link_module(&mut linker)?;
    forwarding::link_module(&mut linker)?;
    outcome::link_module(&mut linker)?;
    dispatcher::link_module(&mut linker)?;
    peer::link_module(&mut linker)?;
    guard::link_module(&mut linker)?;
    flows::link_module(&mut linker)?;
    Ok(linker)
}

/// A linker with the host functions for components.
pub(crate) fn component_linker(engine: &Engine) -> wasmtime::Result<component::Linker<Data>> {
    let mut linker = component::Linker::new(engine);
    permissions::link_component(&mut linker)?;
    request::link_component(&mut linker)?;
    log::link_component(&mut linker)?;
    trusted::link_component(&mut linker)?;
    rules::link_component(&mut linker)?;
    counters::link_component(&mut linker)?;
    settings::link_component(&mut linker)?;
    clock::link_component(&mut linker)?;
    edits::link_component(&mut linker)?;
    forwarding::link_component(&mut linker)?;
    outcome::link_component(&mut linker)?;
    dispatcher::link_component(&mut linker)?;
    peer::link_component(&mut linker)?;
    guard::link_component(&mut linker)?;
    flows::link_component(&mut linker)?;
    Ok(linker)
}
