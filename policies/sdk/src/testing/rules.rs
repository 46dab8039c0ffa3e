//! The rules for verdicts. The real host counts a violation as a failure of the policy.

use std::time::Duration;

use super::effects::Edit;
use crate::response::{Header, Rejection};
use crate::target::{Place, Refusal, Target};

pub(super) const MAX_REASON: usize = 256;
pub(super) const MAX_HEADERS: usize = 32;
pub(super) const MAX_HEADER_VALUE: usize = 2048;
const MAX_NAME: usize = 128;
pub(super) const MAX_TARGETS: usize = 16;
pub(super) const MAX_MEMO: usize = 256;
/// All targets of a request, the memo included.
const MAX_TARGET_BYTES: usize = 64 << 10;
const MAX_URI: usize = 2048;
const MAX_CODES: usize = 32;

/// Header fields that the host adds to a reply, full and compact names.
const RESERVED: [&str; 19] = [
    "Call-ID",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "CSeq",
    "From",
    "Max-Forwards",
    "Record-Route",
    "Route",
    "Server",
    "To",
    "Via",
    "c",
    "e",
    "f",
    "i",
    "l",
    "t",
    "v",
];

/// Why the host would refuse a target as a bad value.
pub(super) fn check_target(target: &Target) -> Result<(), String> {
    match &target.place {
        Place::NextHop(name) => check_next_hop(name)?,
        Place::Uri(uri) if uri.to_ascii_lowercase().starts_with("sip:") => check_uri(uri)?,
        Place::Uri(uri) => return Err(format!("{uri:?} is not a `sip` URI")),
    }
    if let Some(uri) = &target.request_uri {
        check_uri(uri)?;
    }
    let within = |time: Option<Duration>, least: u64, most: u64| {
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        time.is_none_or(|time| range.contains(&time))
    };
    if !within(target.no_answer, 100, 32_000) {
        return Err("within() is for 100 ms to 32 s".to_owned());
    }
    if !within(target.ring, 1_000, 600_000) {
        return Err("ring_for() is for 1 s to 10 minutes".to_owned());
    }
    if target.headers.len() > MAX_HEADERS {
        return Err(format!("there are more than {MAX_HEADERS} header fields"));
    }
    let mut headers = target.headers.iter();
    headers.try_for_each(|header| check_change(&header.name, &header.value))
}

/// Whether a request whose targets have so many bytes may have one more.
pub(super) fn has_room(before: usize, target: &Target) -> bool {
    before + text_bytes(target) + MAX_MEMO <= MAX_TARGET_BYTES
}

/// Bytes of place, request URI and header fields.
pub(super) fn text_bytes(target: &Target) -> usize {
    let headers = target.headers.iter();
    let headers = headers.map(|header| header.name.len() + header.value.len());
    let uri = target.request_uri.as_ref().map_or(0, String::len);
    target.place.as_str().len() + uri + headers.sum::<usize>()
}

/// Whether the host accepts these codes for another target.
pub(super) fn check_codes(codes: &[u16]) -> Result<(), Refusal> {
    if codes.len() > MAX_CODES {
        return Err(Refusal::TooMany);
    }
    let is_fine =
        |code: &u16| matches!(code, 3..=5 | 300..=599) && !matches!(code, 401 | 407 | 487);
    match codes.iter().all(is_fine) {
        true => Ok(()),
        false => Err(Refusal::BadValue),
    }
}

/// Roughly: the real host also reads the parts of a `sip` URI.
fn check_uri(uri: &str) -> Result<(), String> {
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let forbidden = |c: char| c.is_control() || "\"<> ".contains(c);
    if !is_scheme || uri.len() > MAX_URI || uri.contains(forbidden) {
        return Err(format!("{uri:?} is not a URI"));
    }
    Ok(())
}

/// Why the host would refuse a header change.
pub(super) fn check_edit(edit: &Edit) -> Result<(), String> {
    match edit {
        Edit::Add { name, value } => check_change(name, value),
        Edit::Remove { name } => check_change(name, ""),
    }
}

fn check_change(name: &str, value: &str) -> Result<(), String> {
    if ["Contact", "m"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name))
    {
        return Err(format!(
            "the header field {name} can be written by the host only"
        ));
    }
    check_header(&Header {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

/// Checks the name of a next hop.
pub(super) fn check_next_hop(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME || has_control(name) {
        return Err(format!("{name:?} is not the name of a next hop"));
    }
    Ok(())
}

/// Checks a final response.
pub(super) fn check_rejection(rejection: &Rejection) -> Result<(), String> {
    let Rejection {
        code,
        reason,
        headers,
    } = rejection;
    if !(300..=699).contains(code) {
        return Err(format!("status code {code} is not within 300 to 699"));
    }
    if reason.len() > MAX_REASON {
        return Err(format!(
            "the reason phrase has more than {MAX_REASON} bytes"
        ));
    }
    if has_control(reason) {
        return Err("the reason phrase has a control character".to_owned());
    }
    if headers.len() > MAX_HEADERS {
        return Err(format!("there are more than {MAX_HEADERS} header fields"));
    }
    headers.iter().try_for_each(check_header)
}

fn check_header(header: &Header) -> Result<(), String> {
    let Header { name, value } = header;
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is not the name of a header field"));
    }
    if RESERVED.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        return Err(format!(
            "the header field {name} can be written by the host only"
        ));
    }
    if value.len() > MAX_HEADER_VALUE {
        return Err(format!(
            "the value of {name} has more than {MAX_HEADER_VALUE} bytes"
        ));
    }
    if has_control(value) {
        return Err(format!("the value of {name} has a control character"));
    }
    Ok(())
}

/// RFC 3261 §25.1, `token`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

fn has_control(text: &str) -> bool {
    text.chars().any(|c| c.is_control() && c != '\t')
}
