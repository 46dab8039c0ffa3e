//! Masking of records.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use portcullis_config::RecordsConfig;
use regex::{Captures, Regex};
use serde_json::Value;

use portcullis_request::Request;

use super::record::Asking;

/// Replacement for a masked value.
const MASKED: &str = "***";

static USER: LazyLock<Regex> =
    LazyLock::new(|| regex(r#"(?i)\b(sips?:|tel:)([^@\s<>;,"?]+)(@|\b)"#));
static DISPLAY_NAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r#"(?m)^([!-9;-~]+[ \t]*:[ \t]*|.*,[ \t]*)("(?:[^"\\]|\\.)*"|[^<>";:=\s][^<>";:=\r\n]*?)([ \t]*<)"#,
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
        if let Some(key) = &self.users
            && let Ok(text) = std::str::from_utf8(&bytes)
        {
            let named = DISPLAY_NAME.replace_all(text, |found: &Captures<'_>| {
                format!("{}\"{MASKED}\"{}", &found[1], &found[3])
            });
            bytes = users(&named, key).into_owned().into_bytes();
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
            Some(key) => users(uri, key).into_owned(),
            None => uri.to_owned(),
        }
    }

    /// Masks users in the queries of a policy and their answers.
    pub(super) fn asking(&self, asking: &mut Asking) {
        let Some(key) = &self.users else {
            return;
        };
        for question in &mut asking.asked {
            texts(&mut question.arguments, key);
            texts(&mut question.answer, key);
        }
    }
}

/// Replaces the user in each URI by a pseudonym, which is the same for the same user.
fn users<'t>(text: &'t str, key: &RandomState) -> Cow<'t, str> {
    USER.replace_all(text, |found: &Captures<'_>| {
        let (scheme, user, end) = (&found[1], &found[2], &found[3]);
        // `sip:host` has no user.
        if end != "@" && !scheme.eq_ignore_ascii_case("tel:") {
            return found[0].to_owned();
        }
        let digits = key.hash_one(user) as u32;
        match scheme.eq_ignore_ascii_case("tel:") {
            true => format!("{scheme}{digits}{end}"),
            false => format!("{scheme}u{digits:08x}{end}"),
        }
    })
}

fn texts(value: &mut Value, key: &RandomState) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(masked) = users(text, key) {
                *text = masked;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|value| texts(value, key)),
        Value::Object(members) => members.values_mut().for_each(|value| texts(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("the tests have compiled it")
}
