//! Downloads and uploads (OCI Distribution Specification 1.1) with the token or the password that the registry asks for. Each answer has a bound on
//! its size.
//!
//! oci-client reads answers whole, whatever their size, so that a registry could fill the memory.

use std::cell::RefCell;

use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use thiserror::Error;

/// Largest answer of a token service, in bytes.
const TOKEN: u64 = 1 << 20;
/// Bytes of an error that are read: what a registry says in one is shortened further when it is shown.
const SAID: u64 = 64 << 10;

/// The digest that a registry has for a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";
/// The type of a blob that is uploaded.
const BYTES: &str = "application/octet-stream";

/// What a repository is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A session with one repository.
pub(crate) struct Session {
    client: Client,
    /// Scheme and host.
    base: String,
    repository: String,
    access: Access,
    /// User and password.
    credentials: Option<(String, String)>,
    admission: RefCell<Admission>,
}

/// A request that can be sent again.
struct Request<'a> {
    method: Method,
    url: Url,
    fields: Vec<(HeaderName, String)>,
    body: Option<&'a [u8]>,
}

/// How requests are authorised.
enum Admission {
    /// Not at all.
    Open,
    /// With user and password.
    Basic,
    /// With a token.
    Bearer(HeaderValue),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    /// The digest that the registry states for it.
    pub(crate) digest: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum SessionError {
    /// No connection, or it broke.
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    /// Another status than the one that is expected.
    #[error("{code}: {text}")]
    Status {
        code: u16,
        /// The beginning of the body.
        text: String,
    },
    /// The token service refuses.
    #[error("the token service refuses: {0}")]
    Denied(String),
    /// A body above the limit.
    #[error("{} is above the limit of {limit} bytes", .what.unwrap_or("the answer"))]
    TooLarge {
        /// The part, if it is not what was asked for.
        what: Option<&'static str>,
        /// The size that the registry states, or up to which the body was read.
        size: u64,
        limit: u64,
    },
    /// An answer that does not follow the specification.
    #[error("{0}")]
    Malformed(String),
}

/// The answer of a token service (Docker Registry v2 token authentication).
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// How a registry requires requests to be authorised.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    /// The token service and its parameter `service`.
    bearer: Option<(String, Option<String>)>,
    is_basic: bool,
}

impl Session {
    pub(crate) fn new(
        client: Client,
        base: String,
        repository: String,
        access: Access,
        credentials: Option<(String, String)>,
    ) -> Self {
        Self {
            client,
            base,
            repository,
            access,
            credentials,
            admission: RefCell::new(Admission::Open),
        }
    }

    /// Asks the registry how requests are authorised, and gets a token if one is required.
    ///
    /// # Errors
    /// If the registry does not answer, or its token service gives no token.
    pub(crate) async fn log_in(&self) -> Result<(), SessionError> {
        let answer = self.client.get(format!("{}/v2/", self.base)).send().await?;
        self.admit(answer.headers()).await
    }

    /// Reads what is at this path of the repository, of at most `limit` bytes.
    ///
    /// # Errors
    /// If the registry does not answer 200, or with more bytes.
    pub(crate) async fn get(
        &self,
        path: &str,
        query: &[(&str, &str)],
        accept: &[&str],
        limit: u64,
    ) -> Result<Answer, SessionError> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = Request::new(Method::GET, url);
        if !accept.is_empty() {
            request.fields = vec![(ACCEPT, accept.join(", "))];
        }
        let answer = self.send(&request).await?;
        if answer.status() != StatusCode::OK {
            return Err(status(answer).await);
        }
        let digest = answer.headers().get(CONTENT_DIGEST);
        let digest = digest.and_then(|digest| digest.to_str().ok());
        Ok(Answer {
            digest: digest.map(str::to_owned),
            bytes: whole(answer, limit, None).await?,
        })
    }

    /// Whether the registry has something at this path of the repository.
    ///
    /// # Errors
    /// If the registry answers neither yes nor no.
    pub(crate) async fn has(&self, path: &str) -> Result<bool, SessionError> {
        let request = Request::new(Method::HEAD, self.url(path)?);
        let answer = self.send(&request).await?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(status(answer).await),
        }
    }

    /// Uploads a blob: the registry says where to, and gets all bytes at once.
    ///
    /// # Errors
    /// If the registry does not accept the blob, or does not say where to upload it.
    pub(crate) async fn put_blob(&self, digest: &str, bytes: &[u8]) -> Result<(), SessionError> {
        let mut request = Request::new(Method::POST, self.url("blobs/uploads/")?);
        // Some registries require the length of an empty body.
        request.fields = vec![(CONTENT_LENGTH, "0".to_owned())];
        let answer = self.send(&request).await?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(status(answer).await);
        }
        let location = answer.headers().get(LOCATION);
        let place = location.and_then(|place| answer.url().join(place.to_str().ok()?).ok());
        let mut url = place.ok_or_else(|| {
            SessionError::Malformed(format!("no address for an upload: {location:?}"))
        })?;
        url.query_pairs_mut().append_pair("digest", digest);
        self.put(url, BYTES, bytes).await
    }

    /// Uploads a manifest under a tag.
    ///
    /// # Errors
    /// If the registry does not accept the manifest.
    pub(crate) async fn put_manifest(
        &self,
        tag: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), SessionError> {
        let url = self.url(&format!("manifests/{tag}"))?;
        self.put(url, media_type, bytes).await
    }

    async fn put(&self, url: Url, media_type: &str, bytes: &[u8]) -> Result<(), SessionError> {
        let mut request = Request::new(Method::PUT, url);
        request.fields = vec![(CONTENT_TYPE, media_type.to_owned())];
        request.body = Some(bytes);
        let answer = self.send(&request).await?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(status(answer).await),
        }
    }

    fn url(&self, path: &str) -> Result<Url, SessionError> {
        let url = format!("{}/v2/{}/{path}", self.base, self.repository);
        Url::parse(&url)
            .map_err(|error| SessionError::Malformed(format!("{url} is no URL: {error}")))
    }

    /// Sends a request, and once more if the registry asks for another token, because the one of before has expired.
    async fn send(&self, request: &Request<'_>) -> Result<Response, SessionError> {
        let answer = self.send_once(request).await?;
        if answer.status() != StatusCode::UNAUTHORIZED || !self.is_own(&request.url) {
            return Ok(answer);
        }
        self.admit(answer.headers()).await?;
        self.send_once(request).await
    }

    async fn send_once(&self, request: &Request<'_>) -> Result<Response, SessionError> {
        let mut sent = self
            .client
            .request(request.method.clone(), request.url.clone());
        for (name, value) in &request.fields {
            sent = sent.header(name, value);
        }
        if let Some(bytes) = request.body {
            sent = sent.body(bytes.to_vec());
        }
        if self.is_own(&request.url) {
            sent = match (&*self.admission.borrow(), &self.credentials) {
                (Admission::Bearer(token), _) => sent.header(AUTHORIZATION, token),
                (Admission::Basic, Some((user, password))) => sent.basic_auth(user, Some(password)),
                (Admission::Basic, None) | (Admission::Open, _) => sent,
            };
        }
        Ok(sent.send().await?)
    }

    /// Whether this is an address of the registry. Other servers that it names for uploads get neither token nor password.
    fn is_own(&self, url: &Url) -> bool {
        Url::parse(&self.base).is_ok_and(|base| base.origin() == url.origin())
    }

    /// Does what the registry asks for in an answer.
    async fn admit(&self, headers: &HeaderMap) -> Result<(), SessionError> {
        let challenge = Challenge::of(headers);
        let admission = match challenge.bearer {
            Some((realm, service)) => Admission::Bearer(self.token(&realm, service).await?),
            None if challenge.is_basic && self.credentials.is_some() => Admission::Basic,
            None => Admission::Open,
        };
        *self.admission.borrow_mut() = admission;
        Ok(())
    }

    /// Gets a token for this repository.
    async fn token(
        &self,
        realm: &str,
        service: Option<String>,
    ) -> Result<HeaderValue, SessionError> {
        let malformed = |text: String| SessionError::Malformed(text);
        let named = format!("the token service {realm:?}");
        let mut url =
            Url::parse(realm).map_err(|error| malformed(format!("{named} is no URL: {error}")))?;
        let is_plain = url.scheme() != "https";
        if is_plain && self.credentials.is_some() && self.base.starts_with("https:") {
            return Err(malformed(format!(
                "{named} has no TLS, and would get the password in plain text"
            )));
        }
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", &service);
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{}:{actions}", self.repository);
        url.query_pairs_mut().append_pair("scope", &scope);
        let request = self.client.get(url);
        let request = match &self.credentials {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let answer = request.send().await?;
        if answer.status() != StatusCode::OK {
            return Err(SessionError::Denied(beginning(answer).await));
        }
        let bytes = whole(answer, TOKEN, Some("the token")).await?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|error| malformed(format!("{named} sends no token: {error}")))?;
        let token = token.token.or(token.access_token).unwrap_or_default();
        let is_good = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        match (is_good, value) {
            (true, Ok(value)) => Ok(value),
            (true, Err(_)) | (false, _) => Err(malformed(
                "a token that is no text of a header field".to_owned(),
            )),
        }
    }
}

impl Request<'_> {
    fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            fields: Vec::new(),
            body: None,
        }
    }
}

impl Challenge {
    /// The challenges of a response (RFC 9110 §11.6.1), which may be in several fields. Malformed ones are ignored.
    fn of(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        let fields = headers.get_all(WWW_AUTHENTICATE).iter();
        for field in fields.filter_map(|field| field.to_str().ok()) {
            for challenge in http_auth::parse_challenges(field).unwrap_or_default() {
                let param = |name: &str| {
                    let mut params = challenge.params.iter();
                    let found = params.find(|(given, _)| given.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("Bearer") && all.bearer.is_none() {
                    all.bearer = param("realm").map(|realm| (realm, param("service")));
                }
                all.is_basic |= challenge.scheme.eq_ignore_ascii_case("Basic");
            }
        }
        all
    }
}

/// The body of an answer, of at most `limit` bytes. A registry that states a larger size is refused before it sends it.
async fn whole(
    mut answer: Response,
    limit: u64,
    what: Option<&'static str>,
) -> Result<Vec<u8>, SessionError> {
    let too_large = |size| SessionError::TooLarge { what, size, limit };
    if let Some(size) = answer.content_length().filter(|size| *size > limit) {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    while let Some(part) = answer.chunk().await? {
        let size = (bytes.len() + part.len()) as u64;
        if size > limit {
            return Err(too_large(size));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// The error for an answer with an unexpected status.
async fn status(answer: Response) -> SessionError {
    SessionError::Status {
        code: answer.status().as_u16(),
        text: beginning(answer).await,
    }
}

/// The beginning of a body, as far as it can be read.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        bytes.extend_from_slice(&part);
        if bytes.len() as u64 >= SAID {
            break;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::fake::{Fake, FakeReply};

    /// Logs in with a user and a password, and does something.
    fn with_session<T>(
        base: String,
        access: Access,
        work: impl AsyncFnOnce(&Session) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let client = Client::builder().no_proxy().build().unwrap();
        let credentials = Some(("ann".to_owned(), "secret".to_owned()));
        let session = Session::new(client, base, "acl".into(), access, credentials);
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            session.log_in().await?;
            work(&session).await
        })
    }

    fn read(base: String, path: &str) -> Result<Answer, SessionError> {
        with_session(base, Access::Pull, async |session| {
            session.get(path, &[], &["a", "b"], 8).await
        })
    }

    fn write(base: String) -> Result<(), SessionError> {
        with_session(base, Access::Push, async |session| {
            session.put_blob("sha256:00", b"\0asm").await
        })
    }

    #[test]
    fn a_password_goes_to_who_asks_for_one() {
        // "ann:secret" in Base64.
        let basic = Some("Basic YW5uOnNlY3JldA==".to_owned());
        let fake = Fake::start(|head| match head.contains("authorization: Basic") {
            true => FakeReply::ok("12345678"),
            false => FakeReply::challenge("Basic realm=\"r\""),
        });
        assert_eq!(read(fake.base(), "manifests/1").unwrap().bytes, b"12345678");
        assert_eq!(fake.authorisations("GET /v2/ "), [None]);
        assert_eq!(
            fake.authorisations("GET /v2/acl/"),
            std::slice::from_ref(&basic)
        );

        let open = Fake::start(|_| FakeReply::ok("1"));
        assert!(read(open.base(), "manifests/1").is_ok());
        assert_eq!(open.authorisations("GET /v2/acl/manifests/1"), [None]);

        // A token service gets the password, and the registry the token.
        let service = Fake::start(|_| FakeReply::ok(r#"{"access_token": "t0ken"}"#));
        let realm = format!("{}/token", service.base());
        let fake = Fake::start(
            move |head| match head.contains("authorization: Bearer t0ken") {
                true => FakeReply::ok("1"),
                false => FakeReply::challenge(&format!("Bearer realm=\"{realm}\",service=\"r&s\"")),
            },
        );
        assert!(read(fake.base(), "manifests/1").is_ok());
        let asked = "GET /token?service=r%26s&scope=repository%3Aacl%3Apull ";
        assert_eq!(service.authorisations(asked), [basic]);
    }

    #[test]
    fn a_token_that_has_expired_is_replaced() {
        use std::sync::atomic::{AtomicU64, Ordering};

        let count = AtomicU64::new(0);
        let service = Fake::start(move |_| {
            let number = count.fetch_add(1, Ordering::Relaxed);
            FakeReply::ok(format!("{{\"token\": \"t{number}\"}}"))
        });
        let realm = format!("{}/", service.base());
        let fake = Fake::start(
            move |head| match head.contains("authorization: Bearer t1") {
                true => FakeReply::ok("1"),
                false => FakeReply::challenge(&format!("Bearer realm=\"{realm}\"")),
            },
        );
        assert!(read(fake.base(), "manifests/1").is_ok());
        let both = ["Bearer t0", "Bearer t1"].map(|token| Some(token.to_owned()));
        assert_eq!(fake.authorisations("GET /v2/acl/"), both);
    }

    #[test]
    fn a_token_service_cannot_send_anything() {
        for (said, expected) in [
            (r#"{"token": "a b"}"#, "no text of a header field"),
            ("{}", "no text of a header field"),
            ("nonsense", "sends no token"),
        ] {
            let service = Fake::start(move |_| FakeReply::ok(said));
            let realm = service.base();
            let fake =
                Fake::start(move |_| FakeReply::challenge(&format!("Bearer realm=\"{realm}\"")));
            let error = read(fake.base(), "x").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let service = Fake::start(|_| FakeReply::Endless);
        let realm = service.base();
        let fake = Fake::start(move |_| FakeReply::challenge(&format!("Bearer realm=\"{realm}\"")));
        let error = read(fake.base(), "x").unwrap_err().to_string();
        assert_eq!(error, "the token is above the limit of 1048576 bytes");
        let fake = Fake::start(|_| FakeReply::challenge("Bearer realm=\"nowhere\""));
        let error = read(fake.base(), "x").unwrap_err().to_string();
        assert!(error.contains("\"nowhere\" is no URL"), "{error}");
    }

    #[test]
    fn a_blob_goes_where_the_registry_says_with_its_digest() {
        let fake = Fake::start(|head| match () {
            () if head.starts_with("POST ") => {
                FakeReply::location("/v2/acl/blobs/uploads/7?state=a%20b")
            }
            () => FakeReply::Whole("201 Created", String::new(), Vec::new()),
        });
        write(fake.base()).unwrap();
        let begun = "POST /v2/acl/blobs/uploads/ ";
        assert_eq!(fake.bodies(begun), [b""]);
        let place = "PUT /v2/acl/blobs/uploads/7?state=a%20b&digest=sha256%3A00 ";
        assert_eq!(fake.bodies(place), [b"\0asm"]);
    }

    #[test]
    fn who_uploads_asks_for_a_token_that_permits_it() {
        let service = Fake::start(|_| FakeReply::ok(r#"{"token": "t0ken"}"#));
        let realm = format!("{}/token", service.base());
        let fake = Fake::start(move |head| match () {
            () if !head.contains("authorization: Bearer t0ken") => {
                FakeReply::challenge(&format!("Bearer realm=\"{realm}\""))
            }
            () if head.starts_with("POST ") => FakeReply::location("7"),
            () => FakeReply::Whole("201 Created", String::new(), Vec::new()),
        });
        write(fake.base()).unwrap();
        let asked = "GET /token?scope=repository%3Aacl%3Apull%2Cpush ";
        assert_eq!(service.authorisations(asked).len(), 1);
        // Relative to the address of the request.
        assert_eq!(
            fake.authorisations("PUT /v2/acl/blobs/uploads/7?digest="),
            [Some("Bearer t0ken".to_owned())]
        );
    }

    #[test]
    fn another_server_that_takes_an_upload_gets_no_password() {
        let store = Fake::start(|_| FakeReply::Whole("201 Created", String::new(), Vec::new()));
        let place = format!("{}/store", store.base());
        let fake = Fake::start(move |head| match () {
            () if !head.contains("authorization: Basic") => {
                FakeReply::challenge("Basic realm=\"r\"")
            }
            () => FakeReply::location(&place),
        });
        write(fake.base()).unwrap();
        assert_eq!(store.authorisations("PUT /store?digest="), [None]);

        // Nor if the server asks for one.
        let store = Fake::start(|_| FakeReply::challenge("Basic realm=\"r\""));
        let place = format!("{}/store", store.base());
        let fake = Fake::start(move |head| match () {
            () if !head.contains("authorization: Basic") => {
                FakeReply::challenge("Basic realm=\"r\"")
            }
            () => FakeReply::location(&place),
        });
        let error = write(fake.base()).unwrap_err().to_string();
        assert_eq!(error, "401: ");
        assert_eq!(store.authorisations("PUT /store?digest="), [None]);
    }

    #[test]
    fn answers_to_uploads_are_not_read_without_a_bound() {
        // An answer without an end to the request that begins an upload, to the blob, or to the manifest.
        for endless in ["POST ", "PUT /v2/acl/blobs/", "PUT /v2/acl/manifests/"] {
            let fake = Fake::start(move |head| match () {
                () if head.starts_with(endless) => FakeReply::Endless,
                () if head.starts_with("POST ") => FakeReply::location("7"),
                () => FakeReply::Whole("201 Created", String::new(), Vec::new()),
            });
            let uploaded = with_session(fake.base(), Access::Push, async |session| {
                session.put_blob("sha256:00", b"\0asm").await?;
                session.put_manifest("1", "application/json", b"{}").await
            });
            // 200 does not begin an upload; for the end of one, it is good enough.
            match uploaded {
                Err(SessionError::Status { code: 200, text }) => {
                    assert_eq!(endless, "POST ");
                    assert!((text.len() as u64) < 2 * SAID, "{}", text.len());
                }
                other => assert!(other.is_ok() && endless != "POST ", "{other:?}"),
            }
        }
    }

    #[test]
    fn an_upload_without_an_address_is_an_error() {
        let fake = Fake::start(|_| FakeReply::Whole("202 Accepted", String::new(), Vec::new()));
        let error = write(fake.base()).unwrap_err().to_string();
        assert_eq!(error, "no address for an upload: None");
    }

    fn challenge(fields: &[&'static str]) -> Challenge {
        let fields = fields.iter();
        let fields = fields.map(|field| (WWW_AUTHENTICATE, HeaderValue::from_static(field)));
        Challenge::of(&fields.collect())
    }

    #[test]
    fn a_registry_says_how_it_is_asked() {
        let bearer = Some((
            "https://auth.example/token".to_owned(),
            Some("registry".to_owned()),
        ));
        let field = r#"Bearer realm="https://auth.example/token",service="registry",scope="x""#;
        assert_eq!(challenge(&[field]).bearer, bearer);
        let both = challenge(&["Basic realm=\"r\"", field]);
        assert_eq!((both.bearer, both.is_basic), (bearer, true));
        for nothing in [
            &[][..],
            &["Bearer service=\"x\""],
            &["Bearer realm=\""],
            &["Digest realm=\"x\""],
        ] {
            assert_eq!(challenge(nothing), Challenge::default(), "{nothing:?}");
        }
    }
}
