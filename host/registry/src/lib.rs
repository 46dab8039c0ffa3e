//! Policies in OCI registries.
//!
//! [`publish()`] uploads a policy in the layout that tools for WebAssembly share (CNCF TAG Runtime, "Wasm OCI Artifact layout"): one layer of
//! type `application/wasm`, and a configuration of type `application/vnd.wasm.config.v0+json`. [`pull()`] downloads it. [`sign`] and [`verify`]
//! write and check signatures in the form of cosign, which lie beside the policy under the tag `sha256-….sig`.
//!
//! Content from a registry is untrusted. Every blob and manifest must have its digest. The size of every answer is limited while it is read
//! (module `session`). Every request has a time limit. This crate is independent of what a policy is.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod credentials;
mod digest;
mod error;
#[cfg(test)]
mod fake;
mod key;
mod manifest;
mod publish;
mod pull;
mod reference;
mod repository;
mod session;
mod signing;

pub use digest::Digest;
pub use error::RegistryError;
pub use key::{KeyError, SigningKey, VerifyKey};
pub use publish::{Artifact, Interfaces, publish};
pub use pull::{Pulled, pull};
pub use reference::{Reference, ReferenceError, SCHEME};
pub use repository::Repository;
pub use session::Access;
pub use signing::{Signed, sign, verify};

/// The annotation with the world that a policy is built for.
pub const WORLD: &str = "portcullis.policy.world";
/// The annotation with the version of the SDK that a policy is built with.
pub const SDK: &str = "portcullis.policy.sdk";
/// The annotation with the signature of the file, in Base64, which hosts check: that of FILE.wasm.sig.
pub const FILE_SIGNATURE: &str = "portcullis.policy.signature";
