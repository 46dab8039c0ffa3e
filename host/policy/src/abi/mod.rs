//! How the host's functions read what a policy passes, and give it their results: by hand for modules, by the runtime for components.

pub(crate) mod component;
pub(crate) mod module;
