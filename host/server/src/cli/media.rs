//! Media types of the bodies that commands send.

/// What is sent as JSON below these paths: rows of tables, and checks of tenants.
const TABLES: [&str; 4] = [
    "/v1/addresses",
    "/v1/trusted",
    "/v1/dispatcher/rows",
    "/v1/stored-tenants",
];

/// The media type of the body of a request to this path.
pub(super) fn media_of(path: &str) -> &'static str {
    if path.starts_with("/v1/tenants/") {
        return "application/toml";
    }
    let is_of_table = TABLES.iter().any(|table| path.starts_with(table));
    match is_of_table || path.ends_with("/settings") {
        true => "application/json",
        false => "application/wasm",
    }
}
