//! Where an artifact is: `oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::digest::Digest;

/// What a reference begins with.
pub const SCHEME: &str = "oci://";

/// The longest name of a repository (OCI Distribution Specification 1.1).
const LONGEST_REPOSITORY: usize = 255;
/// The longest tag.
const LONGEST_TAG: usize = 128;

/// An artifact, or a repository of artifacts, in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// It has another scheme, or none.
    #[error("{0:?} does not begin with {SCHEME}: oci://registry.example.com/policies/acl:1.0")]
    Scheme(String),
    /// Only a host, or nothing.
    #[error("{0:?} names no repository: oci://registry.example.com/policies/acl:1.0")]
    NoRepository(String),
    /// The host is malformed.
    #[error("{0:?} is not a host of a registry: a name or an address, with a port if need be")]
    Host(String),
    /// The name of the repository is malformed.
    #[error(
        "{0:?} is not the name of a repository: small letters and digits, with `.`, `_`, `-` and `/` between them, {LONGEST_REPOSITORY} \
         characters at most"
    )]
    Repository(String),
    /// The tag is malformed.
    #[error(
        "{0:?} is not a tag: letters, digits, `_`, `.` and `-`, {LONGEST_TAG} characters at most"
    )]
    Tag(String),
    /// The digest is malformed, or not SHA-256.
    #[error("{0:?} is not a digest: `sha256:` and 64 hexadecimal digits")]
    Digest(String),
}

impl Reference {
    /// The registry: a host, with a port if need be.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name of the repository.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same artifact, by its digest alone.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The same repository with another tag.
    #[must_use]
    pub(crate) fn tagged(&self, tag: &str) -> Self {
        Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        }
    }

    /// Whether the registry is on this machine (`localhost`, `127.0.0.0/8`, `[::1]`): such a registry usually has no TLS.
    pub fn is_loopback(&self) -> bool {
        let (name, _) = split_port(&self.host);
        portcullis_text::is_loopback(name)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| ReferenceError::Scheme(text.to_owned()))?;
        let (host, path) = rest
            .split_once('/')
            .ok_or_else(|| ReferenceError::NoRepository(text.to_owned()))?;
        if !is_host(host) {
            return Err(ReferenceError::Host(host.to_owned()));
        }
        let (path, digest) = match path.split_once('@') {
            Some((path, digest)) => {
                let parsed = digest
                    .parse()
                    .map_err(|_| ReferenceError::Digest(digest.to_owned()))?;
                (path, Some(parsed))
            }
            None => (path, None),
        };
        let (repository, tag) = match path.split_once(':') {
            Some((_, tag)) if !is_tag(tag) => return Err(ReferenceError::Tag(tag.to_owned())),
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        if repository.is_empty() {
            return Err(ReferenceError::NoRepository(text.to_owned()));
        }
        if !is_repository(repository) {
            return Err(ReferenceError::Repository(repository.to_owned()));
        }
        Ok(Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{SCHEME}{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(out, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(out, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// A host and its port; an IPv6 address is in brackets.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let has_good_port = port.is_none_or(|port| {
        port.parse::<u16>().is_ok_and(|port| port > 0) && port.bytes().all(|b| b.is_ascii_digit())
    });
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_name = || {
        let is_label = |label: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
            let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
            label.bytes().all(fits) && is_end(label.bytes().next()) && is_end(label.bytes().last())
        };
        name.len() <= 253 && name.split('.').all(is_label)
    };
    has_good_port
        && match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_name(),
        }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` between slashes.
fn is_repository(name: &str) -> bool {
    name.len() <= LONGEST_REPOSITORY && name.split('/').all(is_component)
}

fn is_component(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    let mut between = bytes.split(|&byte| is_word(byte));
    is_word(first)
        && is_word(last)
        && between.all(|between| {
            matches!(between, [] | [b'.'] | [b'_'] | [b'_', b'_'])
                || between.iter().all(|&byte| byte == b'-')
        })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let first = tag.bytes().next();
    first.is_some_and(is_word)
        && tag.len() <= LONGEST_TAG
        && tag
            .bytes()
            .all(|byte| is_word(byte) || b".-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn the_parts_of_a_reference() {
        let digest = Digest::of(b"x");
        let text = format!("oci://registry.example.com:5000/policies/acl:1.0@{digest}");
        let reference = of(&text).unwrap();
        assert_eq!(reference.host(), "registry.example.com:5000");
        assert_eq!(reference.repository(), "policies/acl");
        assert_eq!(reference.tag(), Some("1.0"));
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!(reference.to_string(), text);
        let by_digest = reference.at(digest).to_string();
        assert_eq!(
            by_digest,
            format!("oci://registry.example.com:5000/policies/acl@{digest}")
        );
    }

    #[test]
    fn what_is_malformed_is_named() {
        use ReferenceError as E;
        let own = str::to_owned;
        assert_eq!(of("registry/acl"), Err(E::Scheme(own("registry/acl"))));
        assert_eq!(
            of("oci://registry"),
            Err(E::NoRepository(own("oci://registry")))
        );
        assert_eq!(
            of("oci://registry/"),
            Err(E::NoRepository(own("oci://registry/")))
        );
        assert_eq!(of("oci:///acl"), Err(E::Host(String::new())));
        assert_eq!(of("oci://a b/acl"), Err(E::Host(own("a b"))));
        assert_eq!(of("oci://a:99999/acl"), Err(E::Host(own("a:99999"))));
        assert_eq!(of("oci://u:p@host/acl"), Err(E::Host(own("u:p@host"))));
        assert_eq!(of("oci://a/Acl"), Err(E::Repository(own("Acl"))));
        assert_eq!(of("oci://a/b//c"), Err(E::Repository(own("b//c"))));
        assert_eq!(of("oci://a/../c"), Err(E::Repository(own("../c"))));
        assert_eq!(of("oci://a/b:"), Err(E::Tag(String::new())));
        assert_eq!(of("oci://a/b:c/d"), Err(E::Tag(own("c/d"))));
        assert_eq!(of("oci://a/b@sha512:00"), Err(E::Digest(own("sha512:00"))));
        assert_eq!(of("oci://a/b?x"), Err(E::Repository(own("b?x"))));
    }

    #[test]
    fn a_registry_on_this_machine_is_recognised() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.3.4.5",
            "[::1]:5000",
            "[::ffff:127.0.0.1]:5000",
            "LOCALHOST:5000",
        ] {
            assert!(
                of(&format!("oci://{host}/a")).unwrap().is_loopback(),
                "{host}"
            );
        }
        for host in [
            "registry.example.com",
            "10.0.0.1:5000",
            "localhost.example.com",
            "registry.localhost",
            "[fe80::1]",
        ] {
            assert!(
                !of(&format!("oci://{host}/a")).unwrap().is_loopback(),
                "{host}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(oci://)?[a-zA-Z0-9:./@_\\-\\[\\]%? ]{0,60}") {
            if let Ok(reference) = of(&text) {
                prop_assert_eq!(reference.to_string(), text);
            }
        }

        #[test]
        fn a_reference_survives_its_text(
            host in "[a-z0-9]{1,8}(\\.[a-z0-9]{1,8}){0,2}(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,5}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,2}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            content in proptest::option::of(any::<Vec<u8>>()),
        ) {
            let reference = Reference { host, repository, tag, digest: content.map(|c| Digest::of(&c)) };
            prop_assert_eq!(of(&reference.to_string()), Ok(reference));
        }
    }
}
