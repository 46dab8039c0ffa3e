//! A repository in a registry: its manifests and blobs, over HTTP.

use std::collections::BTreeSet;
use std::time::Duration;

use oci_client::errors::{OciEnvelope, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};

use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::RegistryError;
use crate::reference::Reference;
use crate::session::{Access, Answer, Session, SessionError};

/// Time limit for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Time limit for the response to a request, which includes sending it, and for each part of it.
const RESPONSE: Duration = Duration::from_secs(120);
/// Time limit for one manifest or blob.
const PATIENCE: Duration = Duration::from_secs(300);

/// What errors call that which is uploaded.
const UPLOAD: &str = "an upload";

/// The tag of a reference that has none.
const LATEST: &str = "latest";

/// The name of this program and its version, for the log of the registry.
const AGENT: &str = concat!("portcullis/", env!("CARGO_PKG_VERSION"));

/// Largest manifest that is read, in bytes (what registries accept).
const MANIFEST: u64 = 4 << 20;
/// Largest list of tags that is read, in bytes: a registry without pages sends all at once.
const LIST: u64 = 16 << 20;
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

/// A list of tags.
#[derive(Deserialize)]
struct Tags {
    /// `null` if there are none.
    tags: Option<Vec<String>>,
}

/// A repository, with credentials that the registry has been told.
pub struct Repository {
    reference: Reference,
    session: Session,
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
        let scheme = match plain_http.unwrap_or_else(|| reference.is_loopback()) {
            true => "http",
            false => "https",
        };
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .read_timeout(RESPONSE)
            .user_agent(AGENT);
        // A proxy elsewhere would look on its own machine for a registry of this one, and get the credentials.
        let client = match reference.is_loopback() {
            true => client.no_proxy(),
            false => client,
        };
        let client = client.build().map_err(|error| local(chain(&error)))?;
        let credentials = runtime.block_on(Credentials::find(reference))?;
        let who = credentials.who();
        let credentials = match credentials {
            Credentials::Anonymous { .. } => None,
            Credentials::Basic { user, password, .. } => Some((user, password)),
        };
        let base = format!("{scheme}://{}", server(reference));
        let name = reference.repository().to_owned();
        let repository = Self {
            url: format!("{scheme}://{}", reference.host()),
            reference: reference.clone(),
            session: Session::new(client, base, name, access, credentials),
            who,
            runtime,
        };
        let admitted = repository.wait(repository.session.log_in(), reference)?;
        admitted.map_err(|error| repository.failed(error, reference, "the token"))?;
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
        let what = "the list of tags";
        let most = PAGE.to_string();
        let mut tags = BTreeSet::new();
        let mut last: Option<String> = None;
        while tags.len() < TAGS {
            let mut query = vec![("n", most.as_str())];
            query.extend(last.as_deref().map(|last| ("last", last)));
            let Answer { bytes, .. } =
                self.read(&self.reference, what, "tags/list", &query, &[], LIST)?;
            let page: Tags = serde_json::from_slice(&bytes)
                .map_err(|error| self.refused(&format!("{what} is malformed: {error}")))?;
            let page = page.tags.unwrap_or_default();
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
    pub(crate) fn manifest(&self, at: &Reference) -> Result<(Vec<u8>, Digest), RegistryError> {
        let what = "the manifest";
        let named = match (at.digest(), at.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(LATEST).to_owned(),
        };
        let path = format!("manifests/{named}");
        let Answer {
            bytes,
            digest: stated,
        } = self.read(at, what, &path, &[], &KINDS, MANIFEST)?;
        let digest = Digest::of(&bytes);
        match at.digest() {
            Some(expected) if *expected != digest => {
                return Err(RegistryError::changed(at, what, expected, &digest));
            }
            Some(_) | None => {}
        }
        // A digest of another kind is not compared.
        match stated.and_then(|stated| stated.parse::<Digest>().ok()) {
            Some(stated) if stated != digest => {
                Err(RegistryError::changed(at, what, &stated, &digest))
            }
            Some(_) | None => Ok((bytes, digest)),
        }
    }

    /// A blob of this repository. `what` is what errors call it.
    pub(crate) fn blob(
        &self,
        expected: &Digest,
        limit: u64,
        what: &'static str,
    ) -> Result<Vec<u8>, RegistryError> {
        let path = format!("blobs/{expected}");
        let Answer { bytes, .. } = self.read(&self.reference, what, &path, &[], &[], limit)?;
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
        let digest = Digest::of(bytes).to_string();
        let write = async {
            match self.session.has(&format!("blobs/{digest}")).await? {
                true => Ok(()),
                false => self.session.put_blob(&digest, bytes).await,
            }
        };
        let written = self.wait(write, &self.reference)?;
        written.map_err(|error| self.failed(error, &self.reference, UPLOAD))
    }

    /// Uploads a manifest under the tag of this reference. Its blobs must be there.
    pub(crate) fn put_manifest(&self, at: &Reference, bytes: &[u8]) -> Result<(), RegistryError> {
        let tag = at.tag().unwrap_or(LATEST);
        let write = self.session.put_manifest(tag, OCI_IMAGE_MEDIA_TYPE, bytes);
        let written = self.wait(write, at)?;
        written.map_err(|error| self.failed(error, at, UPLOAD))
    }

    /// Reads what is at a path of the repository. `what` is what errors call it.
    fn read(
        &self,
        at: &Reference,
        what: &'static str,
        path: &str,
        query: &[(&str, &str)],
        accept: &[&str],
        limit: u64,
    ) -> Result<Answer, RegistryError> {
        let read = self.wait(self.session.get(path, query, accept, limit), at)?;
        read.map_err(|error| self.failed(error, at, what))
    }

    /// What an error of the session means. `what` is what was read or written.
    fn failed(&self, error: SessionError, at: &Reference, what: &'static str) -> RegistryError {
        match error {
            SessionError::Request(error) => self.unreachable(&error),
            SessionError::Status { code, text } => self.answered(code, &text, at),
            SessionError::Denied(text) => self.forbidden(&text),
            SessionError::TooLarge {
                what: part,
                size,
                limit,
            } => RegistryError::TooLarge {
                reference: Box::new(at.clone()),
                what: part.unwrap_or(what),
                size,
                limit,
            },
            SessionError::Malformed(text) => self.refused(&text),
        }
    }

    /// What another status than 200 means.
    fn answered(&self, code: u16, text: &str, at: &Reference) -> RegistryError {
        let envelope = serde_json::from_str::<OciEnvelope>(text).ok();
        match (code, envelope) {
            (401, _) => self.forbidden(text),
            (_, Some(envelope)) => self.told(envelope, at),
            (403, None) => self.forbidden(text),
            (404, None) => RegistryError::Missing(Box::new(at.clone())),
            (code, None) => self.refused(&format!("{code} {}", first(text))),
        }
    }

    /// What an error of a registry means.
    #[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate")]
    fn told(&self, envelope: OciEnvelope, at: &Reference) -> RegistryError {
        let Some(first) = envelope.errors.into_iter().next() else {
            return self.refused("an error without a reason");
        };
        match first.code {
            OciErrorCode::NameUnknown => RegistryError::NoRepository {
                host: at.host().to_owned(),
                repository: at.repository().to_owned(),
            },
            OciErrorCode::ManifestUnknown | OciErrorCode::BlobUnknown | OciErrorCode::NotFound => {
                RegistryError::Missing(Box::new(at.clone()))
            }
            OciErrorCode::Unauthorized | OciErrorCode::Denied => self.forbidden(&first.message),
            code => self.refused(&format!("{code:?}: {}", first.message)),
        }
    }

    /// Waits for a request.
    ///
    /// # Errors
    /// If it takes too long.
    fn wait<T>(&self, work: impl Future<Output = T>, at: &Reference) -> Result<T, RegistryError> {
        let limited = async { tokio::time::timeout(PATIENCE, work).await };
        let done = self.runtime.block_on(limited);
        done.map_err(|_| RegistryError::TooSlow {
            host: at.host().to_owned(),
            limit: PATIENCE,
        })
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

/// The server of a registry, which has another name than the registry for Docker Hub.
fn server(at: &Reference) -> String {
    let (host, repository) = (at.host().to_owned(), at.repository().to_owned());
    let image = oci_client::Reference::with_tag(host, repository, LATEST.to_owned());
    image.resolve_registry().to_owned()
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
    use crate::fake::{Fake, FakeReply};

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
        // Through a proxy, the request would have another form, or not arrive.
        let reference: Reference = format!("oci://{addr}/acl:1").parse().unwrap();
        assert!(Repository::open(&reference, None, Access::Pull).is_ok());
        assert_eq!(&registry.join().unwrap(), b"GET /v2/");
    }

    /// Bytes that may be on the way when the reader stops: the buffers of both sockets.
    const ON_THE_WAY: u64 = 64 << 20;

    fn open(at: &Reference) -> Repository {
        Repository::open(at, None, Access::Pull).unwrap()
    }

    #[test]
    fn a_registry_cannot_fill_the_memory() {
        let digest = Digest::of(b"x");
        let fake = Fake::start(|head| match head.starts_with("GET /v2/ ") {
            true => FakeReply::ok(""),
            false => FakeReply::Endless,
        });
        let at = fake.at("acl:1");
        let repository = open(&at);
        let said = [
            repository.manifest(&at).unwrap_err().to_string(),
            repository.tags().unwrap_err().to_string(),
            repository
                .blob(&digest, 100_000, "the file")
                .unwrap_err()
                .to_string(),
        ];
        for (said, (what, limit)) in said.iter().zip([
            ("the manifest", 4 << 20),
            ("the list of tags", 16 << 20),
            ("the file", 100_000),
        ]) {
            assert!(said.starts_with(&format!("{what} of {at} has ")), "{said}");
            assert!(
                said.ends_with(&format!("above the limit of {limit}")),
                "{said}"
            );
        }
        drop(repository);
        assert!(fake.sent() < (20 << 20) + 3 * ON_THE_WAY, "{}", fake.sent());
    }

    #[test]
    fn a_size_that_is_announced_is_refused_at_once() {
        let fake = Fake::start(|head| match head.starts_with("GET /v2/ ") {
            true => FakeReply::ok(""),
            false => FakeReply::Announced(5 << 20),
        });
        let at = fake.at("acl:1");
        let error = open(&at).manifest(&at).unwrap_err().to_string();
        let expected =
            format!("the manifest of {at} has 5242880 bytes, above the limit of 4194304");
        assert_eq!(error, expected);
    }

    #[test]
    fn what_a_registry_says_against_a_request_is_shown() {
        let fake = Fake::start(|head| {
            let of = |part: &str| head.starts_with(&format!("GET /v2/acl/{part}"));
            let json = |code: &str| {
                let text = format!(r#"{{"errors":[{{"code":"{code}","message":"because"}}]}}"#);
                text.into_bytes()
            };
            match () {
                () if of("manifests/gone ") => {
                    FakeReply::Whole("404 Not Found", String::new(), json("MANIFEST_UNKNOWN"))
                }
                () if of("manifests/secret ") => {
                    FakeReply::Whole("403 Forbidden", String::new(), json("DENIED"))
                }
                () if of("manifests/broken ") => {
                    FakeReply::Whole("503 Busy", String::new(), b"come back".to_vec())
                }
                () if of("manifests/other ") => {
                    let digest = format!("Docker-Content-Digest: {}\r\n", Digest::of(b"y"));
                    FakeReply::Whole("200 OK", digest, b"x".to_vec())
                }
                () if of("tags/list?n=1000 ") => {
                    FakeReply::ok(r#"{"name": "acl", "tags": ["1.0", "1.1"]}"#)
                }
                () => FakeReply::ok(r#"{"name": "acl", "tags": null}"#),
            }
        });
        let said = |tag: &str| {
            let at = fake.at(&format!("acl:{tag}"));
            open(&at).manifest(&at).unwrap_err().to_string()
        };
        for (tag, expected) in [
            ("gone", "there is no "),
            ("secret", ": because"),
            ("broken", "answers: 503 come back"),
            ("other", "the manifest of "),
        ] {
            assert!(said(tag).contains(expected), "{}", said(tag));
        }
        let tags = open(&fake.at("acl:1.0")).tags().unwrap();
        assert_eq!(tags, BTreeSet::from(["1.0".to_owned(), "1.1".to_owned()]));
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
