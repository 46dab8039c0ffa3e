//! Why something in a registry cannot be read or written.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::digest::Digest;
use crate::reference::Reference;

/// Why something in a registry cannot be read or written.
#[derive(Debug, Error)]
pub enum RegistryError {
    /// No connection, or it broke.
    #[error("cannot reach the registry at {url}: {cause}{}", hint(.cause))]
    Unreachable {
        /// The registry.
        url: String,
        /// What failed.
        cause: String,
    },
    /// It took too long.
    #[error("the registry {host} did not finish within {} s", .limit.as_secs())]
    TooSlow {
        /// The registry.
        host: String,
        /// The limit.
        limit: Duration,
    },
    /// The registry does not admit the caller.
    #[error("the registry {host} refuses access to {repository} with {who}{}", details(.message))]
    Forbidden {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
        /// Which credentials were used.
        who: String,
        /// What the registry said.
        message: String,
    },
    /// There is no such tag or manifest.
    #[error("there is no {0} in the registry: `portcullis policy tags {SCHEME}{host}/{repository}` lists the tags", host = .0.host(),
        repository = .0.repository(), SCHEME = crate::reference::SCHEME)]
    Missing(Box<Reference>),
    /// There is no such repository.
    #[error("the registry {host} has no repository {repository}")]
    NoRepository {
        /// The registry.
        host: String,
        /// The repository.
        repository: String,
    },
    /// The registry refuses for another reason, or does not follow the specification.
    #[error("the registry {host} answers: {message}")]
    Refused {
        /// The registry.
        host: String,
        /// What it said.
        message: String,
    },
    /// Something else than a policy.
    #[error("{reference} is not a policy: {reason}")]
    NotAPolicy {
        /// What was read.
        reference: Box<Reference>,
        /// What it is.
        reason: String,
    },
    /// Content above a limit.
    #[error("{what} of {reference} has {size} bytes, above the limit of {limit}")]
    TooLarge {
        /// What was read.
        reference: Box<Reference>,
        /// Which part.
        what: &'static str,
        /// Its size, or the size up to which it was read.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// Content that is not what its digest says.
    #[error("{what} of {reference} has been changed: its digest is {actual}, not {expected}")]
    Changed {
        /// What was read.
        reference: Box<Reference>,
        /// Which part.
        what: &'static str,
        /// The digest by which it is addressed.
        expected: String,
        /// The digest that it has.
        actual: String,
    },
    /// A policy is published under a tag.
    #[error("{0} names a digest: name the tag under which to publish")]
    PublishedByDigest(Box<Reference>),
    /// No signature.
    #[error("{reference} is not signed with {key}: it has no signatures (there is no tag {tag})")]
    Unsigned {
        /// The artifact.
        reference: Box<Reference>,
        /// The key.
        key: String,
        /// The tag of its signatures.
        tag: String,
    },
    /// Signatures, but not by this key.
    #[error("{reference} is not signed with {key}: {found}")]
    WrongSignature {
        /// The artifact.
        reference: Box<Reference>,
        /// The key.
        key: String,
        /// Which signatures there are.
        found: String,
    },
    /// A file of credentials that cannot be used.
    #[error("cannot use the credentials in {}: {reason}", .file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// This process cannot do it.
    #[error("cannot connect to registries: {0}")]
    Local(String),
}

impl RegistryError {
    /// Content that is not what its digest says.
    pub(crate) fn changed(
        reference: &Reference,
        what: &'static str,
        expected: &Digest,
        actual: &Digest,
    ) -> Self {
        Self::Changed {
            reference: Box::new(reference.clone()),
            what,
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }
}

/// What helps in the two usual cases.
fn hint(cause: &str) -> &'static str {
    match cause {
        cause if cause.contains("InvalidContentType") || cause.contains("corrupt message") => {
            "; if the registry has no TLS, add --plain-http"
        }
        cause if cause.contains("UnknownIssuer") => {
            "; SSL_CERT_FILE names a file with the certificates of authorities to trust"
        }
        _ => "",
    }
}

fn details(message: &str) -> String {
    match message.is_empty() {
        true => String::new(),
        false => format!(": {message}"),
    }
}
