//! Conditional requests below `/v1` (RFC 9110 §13): `ETag` and `If-None-Match` on reads, `If-Match` on changes.
//!
//! The tag of a seat is that of its state: which generations it has in which roles, and its mode. Statistics do not change it. The tag of a
//! stored tenant is its revision. The tag of settings is that of their content. The tag of the rows of a table is that of the reply.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use portcullis_rollout::TenantError;
use portcullis_rpc::{Fault, Reply, json};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::Control;
use crate::caller::Caller;
use crate::operation::{Refusal, Tagged, refusal};

/// The largest reply in bytes whose tag is that of its content.
const MOST_CONTENT: u64 = 4 << 20;

/// Changes of the same seat or tenant with a condition come one after the other: between the check and the change, there is no other such
/// change.
static CHANGES: LazyLock<Changes> = LazyLock::new(Changes::default);

/// The changes with a condition that are in progress or wait, each with the lock of those of the same seat or tenant.
#[derive(Debug, Default)]
struct Changes(parking_lot::Mutex<HashMap<Tagged, Weak<Mutex<()>>>>);

/// The condition of a change, which its handler checks when the body has come.
#[derive(Clone, Debug)]
pub(crate) struct Condition(Option<Given>);

#[derive(Clone, Debug)]
struct Given {
    tagged: Tagged,
    /// If-Match.
    is: Option<String>,
    /// If-None-Match.
    is_none: Option<String>,
}

/// The condition of a change of one row, which its command checks: the row itself is compared when it is changed.
#[derive(Clone, Debug)]
pub(crate) struct RowCondition {
    /// If-Match.
    is: Option<String>,
    /// If-None-Match.
    is_none: Option<String>,
}

/// The turn of a change whose condition is met.
#[derive(Debug)]
#[must_use]
pub(crate) struct Turn {
    _held: OwnedMutexGuard<()>,
}

/// The error of a condition that is not met.
pub(crate) const CHANGED: &str = "it has changed since it was read, or does not exist: read it again, and use its ETag in If-Match";

/// The error of a condition that something does not exist.
const EXISTS: &str = "it exists already, and If-None-Match forbids that";

/// How long a change waits for another one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks the condition of a request, and adds the tag to the reply.
pub(crate) async fn check(
    State(control): State<Arc<Control>>,
    mut request: Request,
    next: Next,
) -> Response {
    let method = match request.method() {
        &Method::HEAD => Method::GET,
        method => method.clone(),
    };
    let is_read = method == Method::GET;
    let is = condition(request.headers(), &header::IF_MATCH);
    let is_none = condition(request.headers(), &header::IF_NONE_MATCH);
    let tagged = Tagged::of(&method, request.uri().path());
    let Some(tagged) = tagged else {
        if is.is_some() && Tagged::is_of_rows(&method, request.uri().path()) {
            let text = "If-Match has no meaning for several rows: change one by its id, at /v1/addresses/ID, /v1/trusted/ID or /v1/dispatcher/rows/ID";
            return refusal(StatusCode::BAD_REQUEST, text);
        }
        return next.run(request).await;
    };
    if is_read {
        return read(&control, &tagged, is_none.as_deref(), request, next).await;
    }
    if is.is_none() && is_none.is_none() {
        return next.run(request).await;
    }
    // Conditions reveal nothing of other tenants: the change itself is refused.
    let caller = request.extensions().get::<Caller>();
    let is_foreign = caller.is_some_and(|caller| caller.may_ask_about(tagged.name()).is_err());
    let has_body = Tagged::has_body(&method, request.uri().path());
    let condition = (!is_foreign).then_some(Given {
        tagged,
        is,
        is_none,
    });
    let condition = Condition(condition);
    if has_body {
        request.extensions_mut().insert(condition);
        return next.run(request).await;
    }
    match condition.hold(&control).await {
        Ok(_turn) => next.run(request).await,
        Err(fault) => Refusal::from(fault).into_response(),
    }
}

impl Condition {
    /// Checks the condition, and makes other changes of the same seat or tenant with a condition wait until what this returns is dropped;
    /// `None` without a condition.
    ///
    /// # Errors
    /// 412 if the condition is not met, 503 if it cannot be checked.
    pub(crate) async fn hold(self, control: &Control) -> Result<Option<Turn>, Fault> {
        let Some(Given {
            tagged,
            is,
            is_none,
        }) = self.0
        else {
            return Ok(None);
        };
        let lock = CHANGES.lock_of(&tagged);
        let Ok(turn) = timeout(PATIENCE, lock.lock_owned()).await else {
            let text = "another change with a condition takes long: try again later";
            return Err(Fault::new(503, text));
        };
        let now = tag_now(&tagged, control).await;
        let now = now.map_err(|error| Fault::new(503, error.to_string()))?;
        let has = |given: &str| matches(given, now.as_deref(), false);
        if is.as_deref().is_some_and(|given| !has(given)) {
            return Err(Fault::new(412, CHANGED));
        }
        if is_none.as_deref().is_some_and(has) {
            return Err(Fault::new(412, EXISTS));
        }
        Ok(Some(Turn { _held: turn }))
    }
}

impl RowCondition {
    /// Checks the condition of a row that was read, whose tag is that of the reply to a `GET`.
    ///
    /// # Errors
    /// 412 if the condition is not met, or why the row cannot be read.
    pub(crate) fn check<T>(
        &self,
        read: Result<T, Fault>,
        reply: impl FnOnce(&T) -> Result<Reply, Fault>,
    ) -> Result<T, Fault> {
        let read = match read {
            Err(fault) if fault.code == 404 && self.is.is_some() => {
                return Err(Fault::new(412, CHANGED));
            }
            read => read?,
        };
        let now = tag(&Bytes::from(json::bare(reply(&read)?)));
        let has = |given: &str| matches(given, Some(&now), false);
        if self.is.as_deref().is_some_and(|given| !has(given)) {
            return Err(Fault::new(412, CHANGED));
        }
        if self.is_none.as_deref().is_some_and(has) {
            return Err(Fault::new(412, EXISTS));
        }
        Ok(read)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RowCondition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            is: condition(&parts.headers, &header::IF_MATCH),
            is_none: condition(&parts.headers, &header::IF_NONE_MATCH),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Condition {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.remove().unwrap_or(Self(None)))
    }
}

impl Changes {
    /// Returns the lock of a seat or tenant, and removes those that no request holds.
    fn lock_of(&self, tagged: &Tagged) -> Arc<Mutex<()>> {
        let mut locks = self.0.lock();
        if let Some(lock) = locks.get(tagged).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(tagged.clone(), Arc::downgrade(&lock));
        lock
    }
}

/// The tag now; `None` if what it is the tag of does not exist, or is the reply.
///
/// # Errors
/// If it is not known whether it exists.
async fn tag_now(tagged: &Tagged, control: &Control) -> Result<Option<String>, TenantError> {
    match tagged {
        Tagged::Content => Ok(None),
        Tagged::Seat(seat) => Ok(tag_of_seat(seat, control)),
        Tagged::Settings(seat) => {
            let files = control.registry.files(seat);
            let settings = files.map(|files| files.seat().config.settings.to_string());
            Ok(settings.map(|settings| tag(&(seat, settings))))
        }
        Tagged::Tenant(name) => match control.registry.stored_tenant(name).await {
            Ok(stored) => Ok(Some(tag(&(name, stored.revision, stored.config)))),
            Err(TenantError::Unknown(_)) => Ok(None),
            Err(error) => Err(error),
        },
    }
}

fn tag_of_seat(seat: &str, control: &Control) -> Option<String> {
    let files = control.registry.files(seat)?;
    let slot = files.slot();
    let lineup = slot.lineup();
    let lineup = lineup.as_ref();
    let candidate = lineup.and_then(|lineup| lineup.candidate.as_ref());
    let candidate = candidate.map(|tried| (tried.generation.number, format!("{:?}", tried.trial)));
    let active = lineup.map(|lineup| lineup.active.number);
    let mode = slot.mode().as_str();
    Some(tag(&(
        seat,
        active,
        candidate,
        slot.previous(),
        mode,
        slot.numbers(),
    )))
}

/// The reply to a read, with its tag, or 304.
async fn read(
    control: &Control,
    tagged: &Tagged,
    known: Option<&str>,
    request: Request,
    next: Next,
) -> Response {
    // Before the read: a change in between leads to a tag that does not match any more.
    // The read itself says why it fails.
    let before = tag_now(tagged, control).await.unwrap_or_default();
    let response = next.run(request).await;
    if response.status() != StatusCode::OK {
        return response;
    }
    let (tag, mut response) = match before {
        Some(tag) => (tag, response),
        None if *tagged == Tagged::Content => match with_tag(response).await {
            Ok(tagged) => tagged,
            Err(response) => return response,
        },
        None => return response,
    };
    let is_known = known.is_some_and(|known| matches(known, Some(&tag), true));
    if is_known {
        response = StatusCode::NOT_MODIFIED.into_response();
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The tag of a reply, if it is in memory already.
async fn with_tag(response: Response) -> Result<(String, Response), Response> {
    let is_small = |size: u64| size <= MOST_CONTENT;
    if !response.body().size_hint().exact().is_some_and(is_small) {
        return Err(response);
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await {
        Ok(bytes) => {
            let tag = tag(&bytes);
            Ok((tag, Response::from_parts(parts, Body::from(bytes))))
        }
        Err(error) => Err(refusal(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}

/// All values of a condition in one text.
fn condition(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values = headers.get_all(name).iter();
    // A value that is not text is no tag, and still a condition.
    let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| values.join(","))
}

/// Whether one of these tags is the current one, or `*` and there is one. A weak tag matches only if `is_weak` permits it (§8.8.3.2).
fn matches(given: &str, now: Option<&str>, is_weak: bool) -> bool {
    let Some(now) = now else {
        return false;
    };
    let mut given = given.split(',').map(str::trim);
    given.any(|tag| match tag.strip_prefix("W/") {
        Some(tag) => is_weak && tag == now,
        None => tag == now || tag == "*",
    })
}

/// The same on every host of the same build.
fn tag(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_as_rfc_9110_says() {
        let one = tag(&1);
        for (given, weak, strong) in [
            (one.clone(), true, true),
            ("*".to_owned(), true, true),
            (format!("\"x\", {one}"), true, true),
            (format!("W/{one}"), true, false),
            ("\"x\"".to_owned(), false, false),
        ] {
            let has = |is_weak| matches(&given, Some(&one), is_weak);
            assert_eq!((has(true), has(false)), (weak, strong), "{given}");
            assert!(!matches(&given, None, true));
        }
        assert_ne!(one, tag(&2));
    }

    #[test]
    fn a_condition_that_is_not_text_is_one_that_fails() {
        let mut headers = HeaderMap::new();
        assert_eq!(condition(&headers, &header::IF_MATCH), None);
        let value = HeaderValue::from_bytes(b"\"\xff\"").unwrap();
        headers.insert(header::IF_MATCH, value);
        let given = condition(&headers, &header::IF_MATCH).unwrap();
        assert!(!matches(&given, Some(&tag(&1)), false));
    }

    #[test]
    fn only_changes_of_the_same_seat_wait_for_each_other() {
        let changes = Changes::default();
        let seat = |name: &str| Tagged::Seat(name.to_owned());
        let one = changes.lock_of(&seat("acme"));
        let turn = one.try_lock().unwrap();
        assert!(changes.lock_of(&seat("acme")).try_lock().is_err());
        for other in 0..1_000 {
            assert!(
                changes
                    .lock_of(&seat(&other.to_string()))
                    .try_lock()
                    .is_ok()
            );
        }
        assert!(
            changes
                .lock_of(&Tagged::Tenant("acme".to_owned()))
                .try_lock()
                .is_ok()
        );
        assert_eq!(changes.0.lock().len(), 2);
        drop(turn);
        assert!(one.try_lock().is_ok());
    }
}
