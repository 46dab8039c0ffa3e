//! The rules for verdicts. The real host counts a violation as a failure of the policy.

use super::outcome::Edit;
use crate::{Header, Rejection, Verdict};

const MAX_REASON: usize = 256;
pub(super) const MAX_HEADERS: usize = 32;
const MAX_HEADER_VALUE: usize = 2048;
const MAX_NAME: usize = 128;

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

/// Checks a verdict, and returns what is wrong with it.
pub(super) fn check(verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Relay(Some(name)) => check_next_hop(name),
        Verdict::Reject(rejection) => check_rejection(rejection),
        Verdict::Relay(None) | Verdict::Drop | Verdict::Pass => Ok(()),
    }
}

/// Why the host would refuse a header change.
pub(super) fn check_edit(edit: &Edit) -> Result<(), String> {
    let (name, value) = match edit {
        Edit::Add { name, value } => (name, value.as_str()),
        Edit::Remove { name } => (name, ""),
    };
    if ["Contact", "m"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(name))
    {
        return Err(format!(
            "the header field {name} can be written by the host only"
        ));
    }
    check_header(&Header {
        name: name.clone(),
        value: value.to_owned(),
    })
}

fn check_next_hop(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > MAX_NAME || has_control(name) {
        return Err(format!("{name:?} is not the name of a next hop"));
    }
    Ok(())
}

fn check_rejection(rejection: &Rejection) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drop_request, pass, reject, relay, relay_to};

    #[test]
    fn verdicts_that_the_host_accepts() {
        let taken = [
            relay(),
            relay_to("gateway 2"),
            reject(300, ""),
            reject(699, "Nicht erwünscht"),
            reject(302, "Moved")
                .header("Contact", "<sip:bob@192.0.2.7>")
                .header("X_odd!", ""),
            reject(401, "x".repeat(MAX_REASON)).header("X-Tab", "a\tb"),
            drop_request(),
            pass(),
        ];

        for verdict in taken {
            assert_eq!(check(&verdict), Ok(()), "{verdict:?}");
        }
    }

    #[test]
    fn verdicts_that_the_host_refuses() {
        let many = (0..=MAX_HEADERS).fold(reject(401, ""), |verdict, _| verdict.header("X", "y"));
        let refused = [
            (relay_to(""), "\"\" is not the name of a next hop"),
            (relay_to("a\n"), "\"a\\n\" is not the name of a next hop"),
            (reject(299, ""), "status code 299"),
            (reject(700, ""), "status code 700"),
            (
                reject(401, "two\r\nlines"),
                "the reason phrase has a control",
            ),
            (
                reject(401, "x".repeat(MAX_REASON + 1)),
                "the reason phrase has more than",
            ),
            (many, "there are more than 32"),
            (
                reject(401, "").header("", "x"),
                "\"\" is not the name of a header",
            ),
            (
                reject(401, "").header("Retry After", "x"),
                "\"Retry After\" is not the name",
            ),
            (
                reject(401, "").header("call-id", "x"),
                "the header field call-id can be written by the host only",
            ),
            (
                reject(401, "").header("V", "x"),
                "the header field V can be written by the host only",
            ),
            (
                reject(401, "").header("Retry-After", "1\n2"),
                "the value of Retry-After has a control",
            ),
            (
                reject(401, "").header("X", "x".repeat(MAX_HEADER_VALUE + 1)),
                "the value of X has more",
            ),
        ];

        for (verdict, why) in refused {
            let error = check(&verdict).expect_err("refused");
            assert!(error.starts_with(why), "{verdict:?}: {error}");
        }
    }
}
