//! Why the certificate of a host is refused.

use rustls::CertificateError;

/// Why the certificate of the host is refused; `None` if the error has another cause.
pub(super) fn untrusted(error: &ureq::Error) -> Option<String> {
    let ureq::Error::Io(error) = error else {
        return None;
    };
    let error: &rustls::Error = error.get_ref()?.downcast_ref()?;
    let rustls::Error::InvalidCertificate(reason) = error else {
        return None;
    };
    Some(in_words(reason))
}

/// Why a certificate is refused, for readers who do not know rustls.
#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of another crate")]
fn in_words(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".into()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name than that of the URL".into()
        }
        CertificateError::UnknownIssuer => "its authority is unknown here".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_against_a_certificate_is_in_words() {
        for (reason, words) in [
            (CertificateError::Expired, "it has expired"),
            (
                CertificateError::NotValidForName,
                "it is for another name than that of the URL",
            ),
            (
                CertificateError::UnknownIssuer,
                "its authority is unknown here",
            ),
        ] {
            assert_eq!(in_words(&reason), words);
        }
    }
}
