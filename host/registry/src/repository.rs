//! A repository in a registry: its manifests and blobs, over HTTP.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use oci_client::Client;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use tokio::runtime::{Builder, Runtime};

use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::RegistryError;
use crate::reference::Reference;

/// Time limit for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit for the response to a request, which includes sending it, and for each part of it.
const RESPONSE: Duration = Duration::from_secs(120);
/// Time limit for one manifest or blob.
const PATIENCE: Duration = Duration::from_secs(300);

/// What no proxy is used for, if it is everything: names and addresses.
const ALL: &str = "*,0.0.0.0/0,::/0";

/// Largest manifest that is used, in bytes (what registries accept).
const MANIFEST: usize = 4 << 20;
/// Number of tags that are listed.
const TAGS: usize = 10_000;
/// Number of tags that are asked for at once.
const PAGE: usize = 1000;
/// Length of what a registry says in an error, in characters.
const SAID: usize = 300;

/// The kinds of manifest that are asked for. Lists of several are refused later, with an error that says so.
const KINDS: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// What a repository is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository, with credentials that the registry has been told.
pub struct Repository {
    reference: Reference,
    client: Client,
    auth: RegistryAuth,
    /// Whose credentials these are, for errors.
    who: String,
    /// Scheme and host.
    url: String,
    runtime: Runtime,
}

impl Repository {
    /// Connects to the registry of an artifact, with the credentials of docker or podman for it, if there are any. `plain_http` says
    /// whether to use HTTP without TLS; by default only for registries on this machine.
    ///
    /// # Errors
    /// If the registry cannot be reached, refuses the credentials, or if these cannot be read.
    pub fn open(
        reference: &Reference,
        plain_http: Option<bool>,
        access: Access,
    ) -> Result<Self, RegistryError> {
        let local = |error: String| RegistryError::Local(error);
        // Fails if there is a provider already, which is just as good.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| local(error.to_string()))?;
        let (protocol, scheme) = match plain_http.unwrap_or_else(|| reference.is_loopback()) {
            true => (ClientProtocol::Http, "http"),
            false => (ClientProtocol::Https, "https"),
        };
        let config = ClientConfig {
            protocol,
            use_monolithic_push: true,
            connect_timeout: Some(CONNECT),
            read_timeout: Some(RESPONSE),
            user_agent: concat!("portcullis/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let config = match reference.is_loopback() {
            true => without_proxy(config),
            false => config,
        };
        let client = Client::try_from(config).map_err(|error| local(chain(&error)))?;
        let credentials = runtime.block_on(Credentials::find(reference))?;
        let who = credentials.who();
        let auth = match credentials {
            Credentials::Anonymous { .. } => RegistryAuth::Anonymous,
            Credentials::Basic { user, password, .. } => RegistryAuth::Basic(user, password),
        };
        let repository = Self {
            url: format!("{scheme}://{}", reference.host()),
            reference: reference.clone(),
            client,
            auth,
            who,
            runtime,
        };
        repository.log_in(access)?;
        Ok(repository)
    }

    /// The artifact that the repository was opened for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The tags, in alphabetical order.
    ///
    /// # Errors
    /// If the registry does not list them.
    pub fn tags(&self) -> Result<BTreeSet<String>, RegistryError> {
        let image = image(&self.reference);
        let mut tags = BTreeSet::new();
        let mut last: Option<String> = None;
        while tags.len() < TAGS {
            let page = self
                .client
                .list_tags(&image, &self.auth, Some(PAGE), last.as_deref());
            let page = self.run(page, &self.reference, "the list of tags")?.tags;
            last = page.last().cloned();
            let known = tags.len();
            tags.extend(page);
            // A registry without pages sends the same list again.
            if tags.len() == known {
                break;
            }
        }
        Ok(tags)
    }

    /// The digest of the manifest that the reference names now.
    ///
    /// # Errors
    /// If there is none.
    pub fn resolve(&self) -> Result<Digest, RegistryError> {
        Ok(self.manifest(&self.reference)?.1)
    }

    /// A manifest of this repository and its digest, which is that of the reference if that has one.
    pub(crate) fn manifest(&self, at: &Reference) -> Result<(Bytes, Digest), RegistryError> {
        let what = "the manifest";
        let image = image(at);
        let read = self.client.pull_manifest_raw(&image, &self.auth, &KINDS);
        let (bytes, _) = self.run(read, at, what)?;
        if bytes.len() > MANIFEST {
            return Err(RegistryError::TooLarge {
                reference: Box::new(at.clone()),
                what,
                size: bytes.len() as u64,
                limit: MANIFEST as u64,
            });
        }
        let digest = Digest::of(&bytes);
        match at.digest() {
            Some(expected) if *expected != digest => {
                Err(RegistryError::changed(at, what, expected, &digest))
            }
            _ => Ok((bytes, digest)),
        }
    }

    /// A blob of this repository. `what` is what errors call it.
    pub(crate) fn blob(
        &self,
        expected: &Digest,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, RegistryError> {
        let image = image(&self.reference);
        let address = expected.to_string();
        let read = async {
            let mut parts = self
                .client
                .pull_blob_stream(&image, address.as_str())
                .await?;
            let mut bytes = Vec::new();
            while let Some(part) = parts.next().await {
                let part = part?;
                if (bytes.len() + part.len()) as u64 > limit {
                    return Ok(Err(bytes.len() + part.len()));
                }
                bytes.extend_from_slice(&part);
            }
            Ok(Ok(bytes))
        };
        let bytes = self.run(read, &self.reference, what)?;
        let bytes = bytes.map_err(|size| RegistryError::TooLarge {
            reference: Box::new(self.reference.clone()),
            what,
            size: size as u64,
            limit,
        })?;
        match Digest::of(&bytes) {
            actual if actual != *expected => Err(RegistryError::changed(
                &self.reference,
                what,
                expected,
                &actual,
            )),
            _ => Ok(bytes),
        }
    }

    /// Uploads a blob, unless the registry has it.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let image = image(&self.reference);
        let address = Digest::of(bytes).to_string();
        let write = async {
            if self.client.blob_exists(&image, &address).await? {
                return Ok(());
            }
            let size = bytes.len() as u64;
            let bytes = Bytes::copy_from_slice(bytes);
            let parts = stream::once(async { Ok(bytes) });
            self.client
                .push_blob_stream(&image, parts, &address, Some(size))
                .await
                .map(drop)
        };
        self.run(write, &self.reference, "an upload")
    }

    /// Uploads a manifest under the tag of this reference. Its blobs must be there.
    pub(crate) fn put_manifest(&self, at: &Reference, bytes: Vec<u8>) -> Result<(), RegistryError> {
        let image = image(at);
        let kind = OCI_IMAGE_MEDIA_TYPE.parse();
        let kind = kind.map_err(|_| RegistryError::Local("no media type".into()))?;
        let write = self.client.push_manifest_raw(&image, bytes, kind);
        self.run(write, at, "an upload").map(drop)
    }

    /// Tells the registry the credentials. Without this, oci-client would ignore an error and go on without them.
    fn log_in(&self, access: Access) -> Result<(), RegistryError> {
        let operation = match access {
            Access::Pull => oci_client::RegistryOperation::Pull,
            Access::Push => oci_client::RegistryOperation::Push,
        };
        let image = image(&self.reference);
        let token = self.client.auth(&image, &self.auth, operation);
        let token = self.run(token, &self.reference, "the token")?;
        // oci-client panics if the token does not fit into a header field.
        let is_good = token.is_none_or(|token| token.bytes().all(|byte| byte.is_ascii_graphic()));
        match is_good {
            true => Ok(()),
            false => Err(self.refused("a token that is no text of a header field")),
        }
    }

    /// Waits for a request.
    fn run<T>(
        &self,
        work: impl Future<Output = Result<T, OciDistributionError>>,
        at: &Reference,
        what: &'static str,
    ) -> Result<T, RegistryError> {
        let limited = async { tokio::time::timeout(PATIENCE, work).await };
        // oci-client panics on some malformed answers, and nothing of this repository is used after an error.
        match catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(limited))) {
            Ok(Ok(Ok(done))) => Ok(done),
            Ok(Ok(Err(error))) => Err(self.translate(error, at, what)),
            Ok(Err(_)) => Err(RegistryError::TooSlow {
                host: at.host().to_owned(),
                limit: PATIENCE,
            }),
            Err(_) => Err(self.refused("a malformed answer")),
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate")]
    fn translate(
        &self,
        error: OciDistributionError,
        at: &Reference,
        what: &'static str,
    ) -> RegistryError {
        use OciDistributionError as E;
        match error {
            E::UnauthorizedError { .. } => self.forbidden(""),
            E::AuthenticationFailure(message) => self.forbidden(&message),
            E::ServerError {
                code: 401 | 403,
                message,
                ..
            } => self.forbidden(&message),
            E::ServerError { code: 404, .. } => RegistryError::Missing(Box::new(at.clone())),
            E::ServerError { code, message, .. } => {
                self.refused(&format!("{code} {}", first(&message)))
            }
            E::RegistryError { envelope, .. } => {
                let Some(first) = envelope.errors.into_iter().next() else {
                    return self.refused("an error without a reason");
                };
                match first.code {
                    OciErrorCode::NameUnknown => RegistryError::NoRepository {
                        host: at.host().to_owned(),
                        repository: at.repository().to_owned(),
                    },
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::NotFound => RegistryError::Missing(Box::new(at.clone())),
                    OciErrorCode::Unauthorized | OciErrorCode::Denied => {
                        self.forbidden(&first.message)
                    }
                    code => self.refused(&format!("{code:?}: {}", first.message)),
                }
            }
            E::RequestError(error) => match error.status().map(|status| status.as_u16()) {
                Some(401 | 403) => self.forbidden(""),
                Some(404) => RegistryError::Missing(Box::new(at.clone())),
                Some(code) => self.refused(&code.to_string()),
                None => self.unreachable(&error),
            },
            E::DigestError(error) => {
                digest_error(&error, at, what).unwrap_or_else(|| self.refused(&error.to_string()))
            }
            E::IoError(error) => {
                let inner = error.get_ref();
                let digest = inner.and_then(|inner| inner.downcast_ref::<DigestError>());
                digest
                    .and_then(|error| digest_error(error, at, what))
                    .unwrap_or_else(|| self.unreachable(&error))
            }
            other => self.refused(&other.to_string()),
        }
    }

    fn forbidden(&self, message: &str) -> RegistryError {
        RegistryError::Forbidden {
            host: self.reference.host().to_owned(),
            repository: self.reference.repository().to_owned(),
            who: self.who.clone(),
            message: first(message),
        }
    }

    fn refused(&self, message: &str) -> RegistryError {
        RegistryError::Refused {
            host: self.reference.host().to_owned(),
            message: message.chars().take(SAID).collect(),
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> RegistryError {
        RegistryError::Unreachable {
            url: self.url.clone(),
            cause: chain(error),
        }
    }
}

/// Ignores the proxies that the environment names: a proxy elsewhere would look on its own machine for a registry of this one, and get the
/// credentials. A proxy that is used for nothing replaces them.
fn without_proxy(config: ClientConfig) -> ClientConfig {
    ClientConfig {
        http_proxy: Some("http://127.0.0.1:9".into()),
        no_proxy: Some(ALL.into()),
        ..config
    }
}

/// A reference of oci-client.
fn image(at: &Reference) -> oci_client::Reference {
    let (host, repository) = (at.host().to_owned(), at.repository().to_owned());
    match (at.digest(), at.tag()) {
        (Some(digest), _) => {
            oci_client::Reference::with_digest(host, repository, digest.to_string())
        }
        (None, tag) => {
            let tag = tag.unwrap_or("latest").to_owned();
            oci_client::Reference::with_tag(host, repository, tag)
        }
    }
}

fn digest_error(error: &DigestError, at: &Reference, what: &'static str) -> Option<RegistryError> {
    let DigestError::VerificationError { expected, actual } = error else {
        return None;
    };
    Some(RegistryError::Changed {
        reference: Box::new(at.clone()),
        what,
        expected: expected.chars().take(SAID).collect(),
        actual: actual.clone(),
    })
}

/// The first message of a registry's error, or the text if it is no such error.
fn first(text: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let message = parsed.as_ref().and_then(|parsed| {
        let error = parsed.get("errors")?.get(0)?;
        error.get("message")?.as_str()
    });
    let text = message.unwrap_or(text).trim();
    text.chars().take(SAID).collect()
}

/// The innermost cause, which says what failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_an_error_is_shown() {
        let json = r#"{"errors":[{"code":"DENIED","message":"not yours","detail":{}}]}"#;
        assert_eq!(first(json), "not yours");
        assert_eq!(first(" plain \n"), "plain");
        assert_eq!(first(&"x".repeat(1000)).len(), SAID);
    }

    #[test]
    fn no_proxy_is_between_this_machine_and_itself() {
        use std::io::{Read as _, Write as _};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let registry = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            stream.read_exact(&mut request).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).unwrap();
            request
        });
        // Through a proxy, even the one of `without_proxy`, the request would have another form, or not arrive.
        let reference: Reference = format!("oci://{addr}/acl:1").parse().unwrap();
        assert!(Repository::open(&reference, None, Access::Pull).is_ok());
        assert_eq!(&registry.join().unwrap(), b"GET /v2/");
    }

    #[test]
    fn a_registry_that_is_down_is_named() {
        // Nothing listens on a port that was just free.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let reference: Reference = format!("oci://{addr}/acl:1").parse().unwrap();
        for (plain_http, scheme) in [(None, "http"), (Some(false), "https")] {
            let error = Repository::open(&reference, plain_http, Access::Pull);
            let error = error.err().unwrap().to_string();
            let start = format!("cannot reach the registry at {scheme}://{addr}: ");
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
