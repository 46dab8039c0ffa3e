//! What the author of a policy needs besides the host: a folder to begin with, in one of several languages, and the text of the contract.
//!
//! - [`create`] writes the folder of a new policy. Everything in it comes from this library, the SDK's sources included, so that a policy
//!   builds without the repository of Portcullis.
//! - [`write_wit`] writes the contract.
//! - [`build`] runs the compiler of the language, and [`adapt`] makes its file one that a host can load: with the world that it is for, and
//!   with a floor for WASI in it.
//! - [`Toolchain`] finds the compilers of this machine.
//!
//! Nothing here handles SIP, and no running host uses it.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

pub use adapt::{AdaptError, Adapted, adapt};
pub use build::{BuildError, Built, build, file_of};
pub use language::{Language, UnknownLanguage};
pub use manifest::{MANIFEST, Manifest, ManifestError};
pub use name::{InvalidName, Name};
pub use new::{Created, NewError, create};
pub use sdk::files as sdk_files;
pub use toolchain::{MissingToolchain, Toolchain, Zig};
pub use wit::{WitError, write_wit};

mod adapt;
mod build;
mod language;
mod manifest;
mod name;
mod new;
mod sdk;
mod templates;
mod toolchain;
mod wasi;
mod wit;
