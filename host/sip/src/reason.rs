//! The standard reason phrases of the status codes.

/// The reason phrase of `code` in the registry of SIP response codes; for an unknown code, the phrase of the class (`x00`, RFC 3261
/// §8.1.3.2). Empty for codes below 100 and above 699.
pub fn standard_reason(code: u16) -> &'static str {
    match code / 100 {
        1 => provisional(code),
        2 => success(code),
        3 => redirection(code),
        4 => request_failure(code),
        5 => server_failure(code),
        6 => global_failure(code),
        _ => "",
    }
}

fn provisional(code: u16) -> &'static str {
    match code {
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        _ => "Trying",
    }
}

fn success(code: u16) -> &'static str {
    match code {
        202 => "Accepted",
        204 => "No Notification",
        _ => "OK",
    }
}

fn redirection(code: u16) -> &'static str {
    match code {
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        _ => "Multiple Choices",
    }
}

fn request_failure(code: u16) -> &'static str {
    match code {
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        425 => "Bad Alert Message",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        _ => "Bad Request",
    }
}

fn server_failure(code: u16) -> &'static str {
    match code {
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        555 => "Push Notification Service Not Supported",
        580 => "Precondition Failure",
        _ => "Server Internal Error",
    }
}

fn global_failure(code: u16) -> &'static str {
    match code {
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => "Busy Everywhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_have_their_phrase_and_unknown_ones_that_of_their_class() {
        for (code, phrase) in [
            (200, "OK"),
            (401, "Unauthorized"),
            (403, "Forbidden"),
            (420, "Bad Extension"),
            (482, "Loop Detected"),
            (483, "Too Many Hops"),
            (503, "Service Unavailable"),
            (505, "Version Not Supported"),
            (499, "Bad Request"),
            (599, "Server Internal Error"),
            (666, "Busy Everywhere"),
            (99, ""),
            (700, ""),
        ] {
            assert_eq!(standard_reason(code), phrase, "{code}");
        }
    }

    #[test]
    fn every_code_of_sip_has_a_phrase_that_fits_a_status_line() {
        for code in 100..700 {
            let phrase = standard_reason(code);
            assert!(!phrase.is_empty(), "{code}");
            assert!(
                phrase.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{code}"
            );
        }
    }
}
