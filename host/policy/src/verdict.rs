//! Verdicts, and their validation against the rules of the contract.

use std::fmt;

use portcullis_sip::HeaderName;
use thiserror::Error;

use crate::text;

/// Maximum length of a reason phrase in bytes.
pub const MAX_REASON: usize = 256;
/// Maximum number of header fields that a rejection may add.
pub const MAX_HEADERS: usize = 32;
/// Maximum length of the value of an added header field in bytes.
pub const MAX_HEADER_VALUE: usize = 2048;
/// Maximum length of the name of an added header field or of a next hop in bytes.
pub const MAX_NAME: usize = 128;

/// The decision on one request. Status code, reason phrase, header fields and next hop satisfy the rules of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Relay the request: to the next hop of this name or, with `None`, as its Route header fields and Request-URI say. Whether the next
    /// hop exists is not checked here.
    Relay(Option<String>),
    /// Reply with this status.
    Reject(Rejection),
    /// Neither relay nor reply.
    Drop,
    /// No decision: the next policy is called.
    Pass,
}

/// A final response to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The status code, 300 to 699.
    pub code: u16,
    /// The reason phrase; empty for the default phrase of the code.
    pub reason: String,
    /// Names and values of the header fields to add.
    pub headers: Vec<(String, String)>,
}

/// Which rule of the contract a verdict violates.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidVerdict {
    /// The status code is not that of a final response other than 2xx.
    #[error("the status code {0} is not in 300 to 699")]
    Code(u16),
    /// The reason phrase has a line break or another control character.
    #[error("the reason phrase \"{0}\" has a control character")]
    Reason(String),
    /// The reason phrase is too long.
    #[error("the reason phrase has {0} bytes, more than {MAX_REASON}")]
    LongReason(usize),
    /// There are too many header fields.
    #[error("{0} header fields, more than {MAX_HEADERS}")]
    ManyHeaders(usize),
    /// The name of a header field is not a token.
    #[error("the header name \"{0}\" is not a token of at most {MAX_NAME} bytes")]
    HeaderName(String),
    /// Header fields of this name are written by the host.
    #[error("the header field {0} is the host's to write")]
    ReservedHeader(String),
    /// The value of a header field has a line break or another control character.
    #[error("the value of the header field {0} has a control character")]
    HeaderValue(String),
    /// The value of a header field is too long.
    #[error("the value of the header field {name} has {bytes} bytes, more than {MAX_HEADER_VALUE}")]
    LongHeader {
        /// The name of the header field.
        name: String,
        /// The length of the value.
        bytes: usize,
    },
    /// The name of the next hop is not valid.
    #[error(
        "the next hop \"{0}\" is empty, has a control character or is longer than {MAX_NAME} bytes"
    )]
    NextHop(String),
    /// The policy changes too many header fields.
    #[error("more than {MAX_HEADERS} changes to header fields")]
    ManyEdits,
    /// The policy has added targets and names a next hop.
    #[error("the policy added targets and relays to the next hop \"{0}\" instead")]
    TargetsAndNextHop(String),
    /// `again` without a new target.
    #[error("`again` without a new target")]
    NoTargets,
    /// A text is not UTF-8.
    #[error("a text in the verdict is not UTF-8")]
    NotUtf8,
    /// The verdict in the memory of the policy is malformed: a pointer out of bounds, an unknown discriminant.
    #[error("the verdict cannot be read: {0}")]
    Unreadable(String),
}

impl Verdict {
    /// Validates the verdict of a call that has or has not added targets.
    pub(crate) fn checked(self, has_targets: bool) -> Result<Self, InvalidVerdict> {
        match &self {
            Self::Relay(Some(name)) => {
                check_next_hop(name)?;
                if has_targets {
                    return Err(InvalidVerdict::TargetsAndNextHop(name.clone()));
                }
            }
            Self::Reject(rejection) => rejection.check()?,
            Self::Relay(None) | Self::Drop | Self::Pass => {}
        }
        Ok(self)
    }
}

/// For logs: `relay to pstn`, `reject 401 Address not authorised`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(None) => f.write_str("relay"),
            Self::Relay(Some(next_hop)) => write!(f, "relay to {next_hop}"),
            Self::Reject(Rejection { code, reason, .. }) if reason.is_empty() => {
                write!(f, "reject {code}")
            }
            Self::Reject(Rejection { code, reason, .. }) => write!(f, "reject {code} {reason}"),
            Self::Drop => f.write_str("drop"),
            Self::Pass => f.write_str("pass"),
        }
    }
}

impl Rejection {
    pub(crate) fn check(&self) -> Result<(), InvalidVerdict> {
        if !(300..=699).contains(&self.code) {
            return Err(InvalidVerdict::Code(self.code));
        }
        if self.reason.len() > MAX_REASON {
            return Err(InvalidVerdict::LongReason(self.reason.len()));
        }
        if has_control(&self.reason) {
            return Err(InvalidVerdict::Reason(shown(&self.reason)));
        }
        if self.headers.len() > MAX_HEADERS {
            return Err(InvalidVerdict::ManyHeaders(self.headers.len()));
        }
        self.headers
            .iter()
            .try_for_each(|(name, value)| check_header(name, value))
    }
}

pub(crate) fn check_next_hop(name: &str) -> Result<(), InvalidVerdict> {
    if name.is_empty() || name.len() > MAX_NAME || has_control(name) {
        return Err(InvalidVerdict::NextHop(shown(name)));
    }
    Ok(())
}

fn check_header(name: &str, value: &str) -> Result<(), InvalidVerdict> {
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
        return Err(InvalidVerdict::HeaderName(shown(name)));
    }
    if HeaderName::of(name.as_bytes()).is_reserved() {
        return Err(InvalidVerdict::ReservedHeader(name.to_owned()));
    }
    check_value(name, value)
}

/// Checks that the configuration may let policies add and remove header fields of this name in requests.
///
/// # Errors
/// If the name is not a token, or if the host, routing, dialogs or the body depend on header fields of this name.
pub fn may_be_edited(name: &str) -> Result<(), InvalidVerdict> {
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_token) {
        return Err(InvalidVerdict::HeaderName(shown(name)));
    }
    match HeaderName::of(name.as_bytes()).may_be_edited() {
        true => Ok(()),
        false => Err(InvalidVerdict::ReservedHeader(name.to_owned())),
    }
}

pub(crate) fn check_value(name: &str, value: &str) -> Result<(), InvalidVerdict> {
    if value.len() > MAX_HEADER_VALUE {
        return Err(InvalidVerdict::LongHeader {
            name: name.to_owned(),
            bytes: value.len(),
        });
    }
    if has_control(value) {
        return Err(InvalidVerdict::HeaderValue(name.to_owned()));
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

fn shown(text: &str) -> String {
    text::shown(text, 64).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_verdicts_are_unchanged() {
        let verdicts = [
            Verdict::Relay(None),
            Verdict::Relay(Some("gateway 2".into())),
            reject(300, "", &[]),
            reject(699, "Nicht erwünscht", &[]),
            reject(
                302,
                "Moved Temporarily",
                &[
                    ("Contact", "<sip:bob@192.0.2.7>"),
                    ("X-Empty", ""),
                    ("X-Tab", "a\tb"),
                ],
            ),
            Verdict::Drop,
            Verdict::Pass,
        ];

        for verdict in verdicts {
            assert_eq!(verdict.clone().checked(false), Ok(verdict));
        }
    }

    #[test]
    fn status_codes_are_300_to_699() {
        for code in [0, 100, 200, 299, 700, u16::MAX] {
            assert_eq!(
                reject(code, "", &[]).checked(false),
                Err(InvalidVerdict::Code(code))
            );
        }
    }

    #[test]
    fn reason_phrases_are_one_short_line() {
        assert_eq!(
            reject(401, "No\r\nVia: evil", &[]).checked(false),
            Err(InvalidVerdict::Reason("No\\r\\nVia: evil".into()))
        );
        assert_eq!(
            reject(401, &"x".repeat(MAX_REASON + 1), &[]).checked(false),
            Err(InvalidVerdict::LongReason(MAX_REASON + 1))
        );
        assert!(
            reject(401, &"x".repeat(MAX_REASON), &[])
                .checked(false)
                .is_ok()
        );
    }

    #[test]
    fn header_names_are_tokens() {
        for name in ["", "X Y", "X:", "X\r\n", "Größe", &"x".repeat(MAX_NAME + 1)] {
            assert!(
                matches!(
                    reject(401, "", &[(name, "")]).checked(false),
                    Err(InvalidVerdict::HeaderName(_))
                ),
                "{name}"
            );
        }
    }

    #[test]
    fn header_fields_of_the_host_are_refused() {
        for name in [
            "Via",
            "VIA",
            "v",
            "from",
            "F",
            "t",
            "To",
            "i",
            "call-id",
            "cseq",
            "l",
            "content-length",
            "Content-Type",
            "c",
            "record-route",
            "Route",
            "Max-Forwards",
            "Server",
        ] {
            assert_eq!(
                reject(401, "", &[(name, "x")]).checked(false),
                Err(InvalidVerdict::ReservedHeader(name.into()))
            );
        }
    }

    #[test]
    fn header_values_are_one_line() {
        assert_eq!(
            reject(401, "", &[("X-A", "a\nb")]).checked(false),
            Err(InvalidVerdict::HeaderValue("X-A".into()))
        );
        assert_eq!(
            reject(401, "", &[("X-A", &"x".repeat(MAX_HEADER_VALUE + 1))]).checked(false),
            Err(InvalidVerdict::LongHeader {
                name: "X-A".into(),
                bytes: MAX_HEADER_VALUE + 1
            })
        );
        let many = vec![("X-A", "x"); MAX_HEADERS + 1];
        assert_eq!(
            reject(401, "", &many).checked(false),
            Err(InvalidVerdict::ManyHeaders(MAX_HEADERS + 1))
        );
    }

    #[test]
    fn next_hop_names_are_not_empty_and_have_no_control_characters() {
        for name in ["", "a\0b", &"x".repeat(MAX_NAME + 1)] {
            assert!(matches!(
                Verdict::Relay(Some(name.into())).checked(false),
                Err(InvalidVerdict::NextHop(_))
            ));
        }
    }

    fn reject(code: u16, reason: &str, headers: &[(&str, &str)]) -> Verdict {
        Verdict::Reject(Rejection {
            code,
            reason: reason.into(),
            headers: headers
                .iter()
                .map(|&(name, value)| (name.into(), value.into()))
                .collect(),
        })
    }
}
