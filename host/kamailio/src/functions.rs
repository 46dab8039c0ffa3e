//! The names of functions in a routing logic that the import recognises.

/// The module's functions.
pub(super) const FUNCTIONS: [&str; 9] = [
    "allow_source_address",
    "allow_source_address_group",
    "allow_address",
    "allow_address_group",
    "allow_trusted",
    "allow_routing",
    "allow_register",
    "allow_register_include_port",
    "allow_uri",
];

/// The core functions that send every response to the source port, and their newer name.
const FORCE_RPORT: [&str; 2] = ["force_rport", "add_rport"];

/// The function with this name, if it is translated.
pub(super) fn function(word: &str) -> Option<&'static str> {
    let mut all = FUNCTIONS.into_iter().chain(FORCE_RPORT);
    all.find(|name| *name == word)
}

/// Whether it is one of the functions replaced by `force-rport` of `[sip]`.
pub(super) fn forces_rport(function: &str) -> bool {
    FORCE_RPORT.contains(&function)
}

/// Whether a line of text names one of the functions.
pub(super) fn is_named_in(line: &str) -> bool {
    FUNCTIONS.iter().any(|name| line.contains(name))
}

/// Whether the function reads allow and deny files.
pub(super) fn reads_files(function: &str) -> bool {
    matches!(
        function,
        "allow_routing" | "allow_register" | "allow_register_include_port" | "allow_uri"
    )
}
