//! The host's side of a call: what it knows beside the request.

use super::call::{current, local_socket, transport};
use super::peer::{Certificate, Peer};
use crate::flow::Flow;
use crate::name_kind::NameKind;
use crate::standing::{Offence, Standing};

pub(crate) fn listener() -> String {
    format!("{}:{}", transport().to_lowercase(), local_socket())
}

pub(crate) fn is_secure() -> bool {
    current(|call| call.request.is_secure())
}

pub(crate) fn tls_version() -> Option<String> {
    tls_peer().map(|_| "TLSv1.3".to_owned())
}

pub(crate) fn cipher_suite() -> Option<String> {
    tls_peer().map(|_| "TLS_AES_256_GCM_SHA384".to_owned())
}

pub(crate) fn server_name() -> Option<String> {
    tls_peer()?.asked_for()
}

pub(crate) fn has_certificate() -> bool {
    tls_peer().is_some_and(|peer| peer.shows_certificate())
}

pub(crate) fn is_verified() -> bool {
    certificate(|_| true)
}

pub(crate) fn peer_names(kind: NameKind) -> Vec<String> {
    certificate(|certificate| certificate.names(kind))
}

pub(crate) fn domains() -> Vec<String> {
    certificate(Certificate::domains)
}

pub(crate) fn speaks_for(domain: &str) -> bool {
    certificate(|certificate| certificate.speaks_for(domain))
}

pub(crate) fn subject() -> Option<String> {
    certificate(|certificate| Some(certificate.subject.clone()))
}

pub(crate) fn issuer() -> Option<String> {
    certificate(|certificate| Some(certificate.issuer.clone()))
}

pub(crate) fn common_name() -> Option<String> {
    certificate(|certificate| certificate.common_name.clone())
}

pub(crate) fn serial_number() -> Option<String> {
    certificate(|certificate| Some(certificate.serial_number.clone()))
}

pub(crate) fn fingerprint() -> Option<String> {
    certificate(|certificate| Some(certificate.fingerprint.clone()))
}

pub(crate) fn valid_from() -> Option<u64> {
    certificate(|certificate| Some(certificate.valid_from))
}

pub(crate) fn valid_until() -> Option<u64> {
    certificate(|certificate| Some(certificate.valid_until))
}

fn tls_peer() -> Option<Peer> {
    current(|call| call.request.tls_peer())
}

fn certificate<T: Default>(read: impl FnOnce(&Certificate) -> T) -> T {
    let peer = tls_peer();
    let verified = peer.as_ref().and_then(Peer::verified);
    verified.map(read).unwrap_or_default()
}

pub(crate) fn source_standing() -> Standing {
    current(|call| call.world.standing)
}

pub(crate) fn report(offence: Offence) -> bool {
    current(|call| {
        let counts = call.reported.is_none() && call.world.standing != Standing::Exempt;
        if counts {
            call.reported = Some(offence);
        }
        counts
    })
}

pub(crate) fn route() -> Flow {
    current(|call| call.request.route_flow())
}

pub(crate) fn came_along() -> bool {
    current(|call| call.request.has_come_along())
}

pub(crate) fn is_client() -> bool {
    current(|call| call.request.is_of_client())
}

pub(crate) fn keep() {
    current(|call| call.keeps_flow = true);
}
