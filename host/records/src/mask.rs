//! Masking of records.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use portcullis_config::RecordsConfig;
use regex::bytes::{Captures, Regex};
use serde_json::Value;

use portcullis_request::Request;
use portcullis_sip::HeaderName;

use super::record::{Asking, Change, Decided};

/// Replacement for a masked value.
const MASKED: &str = "***";

/// Replacement for a display name.
const NAME: &[u8] = b"\"***\"";

/// Least bytes of a value that is masked within another text. Shorter ones would mask parts of unrelated words.
const LEAST: usize = 6;

/// The user of a SIP URI, which may have parameters of its own (`sip:+49301;isub=7@example.com`), or the number of a tel URI.
static USER: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"(?i-u)\b(?:(sips?:)([^@\s<>"]+)@|(tel:)([^@\s<>;,"?]+))"#));

/// A display name: after the name of the header field or a comma, and before `<`, with folds (RFC 3261 §7.3.1) anywhere.
static DISPLAY_NAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?mx-u)
        (^[!-9;-~]+[\ \t]*:|,)
        ((?:[\ \t]|\r?\n[\ \t])*)
        ("(?:[^"\\]|\\[^\r\n])*"|[^<>";:=\s](?:[^<>";:=\r\n]|\r?\n[\ \t])*?)
        ((?:[\ \t]|\r?\n[\ \t])*<)"#,
    )
});

/// Masks requests and queries as configured.
#[derive(Clone, Debug)]
pub struct Mask {
    headers: Vec<String>,
    users: Option<RandomState>,
    body: bool,
}

impl Mask {
    /// Creates the masks of this configuration.
    pub fn new(config: &RecordsConfig) -> Self {
        Self {
            headers: config.mask.clone(),
            users: config.mask_users.then(RandomState::new),
            body: config.body,
        }
    }

    /// Returns the masked request, and the length of the body if the body is omitted.
    pub fn request(&self, request: &Request) -> (Vec<u8>, usize) {
        let (mut bytes, body) = request.without_values(&self.headers, MASKED.as_bytes());
        // As bytes, because a name in another encoding than UTF-8 is to be masked, too.
        if let Some(key) = &self.users {
            let named = DISPLAY_NAME.replace_all(&bytes, |found: &Captures<'_>| {
                [&found[1], &found[2], NAME, &found[4]].concat()
            });
            bytes = users(&named, key).into_owned();
        }
        match self.body {
            true => {
                bytes.extend_from_slice(body);
                (bytes, 0)
            }
            false => (bytes, body.len()),
        }
    }

    /// The URI with a pseudonym as its user, if users are masked.
    pub(super) fn uri(&self, uri: &str) -> String {
        match &self.users {
            Some(key) => users_in_text(uri, key).into_owned(),
            None => uri.to_owned(),
        }
    }

    /// What is masked in what policies asked and decided about this request.
    pub(super) fn secrets(&self, request: &Request) -> Secrets<'_> {
        let mut values = Vec::new();
        for name in &self.headers {
            request.headers(name, |value| values.push(value.into_owned()));
        }
        values.retain(|value| !value.is_empty());
        // A value may be part of another one.
        values.sort_by_key(|value| Reverse(value.len()));
        Secrets { mask: self, values }
    }

    /// Whether the values of the header fields with this name are masked.
    fn hides(&self, name: &str) -> bool {
        let wanted = HeaderName::of(name.as_bytes());
        self.headers
            .iter()
            .any(|hidden| match wanted == HeaderName::Other {
                true => hidden.eq_ignore_ascii_case(name),
                false => HeaderName::of(hidden.as_bytes()) == wanted,
            })
    }
}

/// Masks what a policy asked and decided: the values of masked header fields by their names and wherever a policy repeats them, and users.
#[derive(Debug)]
pub(super) struct Secrets<'m> {
    mask: &'m Mask,
    /// As policies read them, the longest first.
    values: Vec<String>,
}

impl Secrets<'_> {
    pub(super) fn asking(&self, asking: &mut Asking) {
        for question in &mut asking.asked {
            let named = question.arguments.get(0).and_then(Value::as_str);
            let is_hidden = named.is_some_and(|name| self.mask.hides(name));
            if question.function == "outcome.header" && is_hidden && !question.answer.is_null() {
                question.answer = MASKED.into();
            }
            self.value(&mut question.arguments);
            self.value(&mut question.answer);
        }
        match &mut asking.decided {
            Decided::Reject {
                reason, headers, ..
            }
            | Decided::Answer {
                reason, headers, ..
            } => {
                self.text(reason);
                for (name, value) in headers {
                    self.header(name, value);
                }
            }
            Decided::Failed { text, .. } => self.text(text),
            Decided::Relay(_) | Decided::Drop | Decided::Pass | Decided::Best | Decided::Again => {}
        }
        for edit in &mut asking.edits {
            match edit {
                Change::Add(name, value) => self.header(name, value),
                Change::Remove(_) => {}
            }
        }
    }

    /// Masks what a text repeats.
    pub(super) fn text(&self, text: &mut String) {
        for value in &self.values {
            if text == value {
                MASKED.clone_into(text);
            } else if value.len() >= LEAST && text.contains(value.as_str()) {
                *text = text.replace(value.as_str(), MASKED);
            }
        }
        if let Some(key) = &self.mask.users
            && let Cow::Owned(masked) = users_in_text(text, key)
        {
            *text = masked;
        }
    }

    fn header(&self, name: &str, value: &mut String) {
        match self.mask.hides(name) {
            true => MASKED.clone_into(value),
            false => self.text(value),
        }
    }

    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.text(text),
            // The name and the value of a header field.
            Value::Array(all) => match &mut all[..] {
                [Value::String(name), Value::String(value)] => {
                    self.header(name, value);
                    self.text(name);
                }
                all => all.iter_mut().for_each(|value| self.value(value)),
            },
            Value::Object(members) => members.values_mut().for_each(|value| self.value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

/// Replaces the user in each URI by a pseudonym, which is the same for the same user.
fn users<'t>(text: &'t [u8], key: &RandomState) -> Cow<'t, [u8]> {
    let pseudonym = |user: &[u8]| key.hash_one(user) as u32;
    USER.replace_all(text, |found: &Captures<'_>| match found.get(1) {
        Some(scheme) => {
            let user = format!("u{:08x}@", pseudonym(&found[2]));
            [scheme.as_bytes(), user.as_bytes()].concat()
        }
        None => {
            let number = pseudonym(&found[4]).to_string();
            [&found[3], number.as_bytes()].concat()
        }
    })
}

/// The same in a text. The pattern begins and ends at ASCII characters, so that the result is a text, too.
fn users_in_text<'t>(text: &'t str, key: &RandomState) -> Cow<'t, str> {
    match users(text.as_bytes(), key) {
        Cow::Borrowed(_) => Cow::Borrowed(text),
        Cow::Owned(masked) => String::from_utf8_lossy(&masked).into_owned().into(),
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the tests have compiled it")
}
