//! How host functions read arguments and return results: by the canonical ABI for modules, and through the runtime for components.

pub(crate) mod component;
pub(crate) mod module;
