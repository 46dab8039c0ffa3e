//! In place of the crate of this name, which has the public certificate authorities.
//!
//! sqlx trusts these beside the authority that `ssl-ca` names. With `ssl-mode=verify-ca`, which does not look at the name in a
//! certificate, whoever has any public certificate could pass for the database then. MySQL's clients trust nobody but `ssl-ca`.

#![forbid(unsafe_code)]

use rustls_pki_types::TrustAnchor;

/// Nobody.
pub const TLS_SERVER_ROOTS: &[TrustAnchor<'static>] = &[];
