//! Replaces the crate with this name, which contains the public certificate authorities.
//!
//! sqlx trusts these in addition to the authorities in `ssl-ca`. With `ssl-mode=verify-ca`, which does not verify the name in a
//! certificate, anybody with any public certificate could then impersonate the database. MySQL's clients trust only `ssl-ca`.

#![forbid(unsafe_code)]

use rustls_pki_types::TrustAnchor;

/// No certificate authorities.
pub const TLS_SERVER_ROOTS: &[TrustAnchor<'static>] = &[];
