//! What a verdict must keep to. The real host counts a verdict that does not as a failure of the policy.

use crate::{Header, Rejection, Verdict};

/// Ok, or what is wrong.
pub(super) fn check(verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Reject(rejection) => check_rejection(rejection),
        Verdict::Relay(Some(name)) if name.is_empty() => {
            Err("the name of a next hop is not empty".into())
        }
        Verdict::Relay(_) | Verdict::Drop | Verdict::Pass => Ok(()),
    }
}

fn check_rejection(rejection: &Rejection) -> Result<(), String> {
    if !(300..=699).contains(&rejection.code) {
        return Err(format!(
            "status code {} is not within 300 to 699",
            rejection.code
        ));
    }
    if rejection.reason.contains(BREAKS) {
        return Err("the reason phrase has a line break or NUL".into());
    }
    rejection.headers.iter().try_for_each(check_header)
}

fn check_header(header: &Header) -> Result<(), String> {
    let Header { name, value } = header;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is not the name of a header field"));
    }
    if WRITTEN_BY_THE_HOST
        .iter()
        .any(|taken| taken.eq_ignore_ascii_case(name))
    {
        return Err(format!("only the host writes the header field {name}"));
    }
    if value.contains(BREAKS) {
        return Err(format!(
            "the value of header field {name} has a line break or NUL"
        ));
    }
    Ok(())
}

/// RFC 3261 §25.1, `token`.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

const BREAKS: [char; 3] = ['\r', '\n', '\0'];

const WRITTEN_BY_THE_HOST: [&str; 14] = [
    "Via",
    "v",
    "From",
    "f",
    "To",
    "t",
    "Call-ID",
    "i",
    "CSeq",
    "Content-Length",
    "l",
    "Record-Route",
    "Route",
    "Max-Forwards",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drop_request, pass, reject, relay, relay_to};

    #[test]
    fn what_the_host_takes() {
        let taken = [
            relay(),
            relay_to("carrier-a"),
            reject(300, ""),
            reject(699, "Ende. Schluß."),
            reject(302, "Moved")
                .header("Contact", "<sip:bob@192.0.2.7>")
                .header("X_odd!", ""),
            drop_request(),
            pass(),
        ];

        for verdict in taken {
            assert_eq!(check(&verdict), Ok(()), "{verdict:?}");
        }
    }

    #[test]
    fn what_the_host_refuses() {
        let refused = [
            (relay_to(""), "the name of a next hop"),
            (reject(299, ""), "status code 299"),
            (reject(700, ""), "status code 700"),
            (reject(401, "two\r\nlines"), "the reason phrase"),
            (reject(401, "").header("", "x"), "\"\" is not the name"),
            (
                reject(401, "").header("Retry After", "x"),
                "\"Retry After\" is not the name",
            ),
            (
                reject(401, "").header("call-id", "x"),
                "only the host writes the header field call-id",
            ),
            (
                reject(401, "").header("v", "x"),
                "only the host writes the header field v",
            ),
            (
                reject(401, "").header("Retry-After", "1\n2"),
                "the value of header field Retry-After",
            ),
        ];

        for (verdict, why) in refused {
            let error = check(&verdict).expect_err("refused");
            assert!(error.starts_with(why), "{verdict:?}: {error}");
        }
    }
}
