//! The version of the SDK.

/// The version of this crate. Every policy contains it in the custom section `portcullis-sdk`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
