//! The reference page: known address groups pass, everyone else gets a 401.
