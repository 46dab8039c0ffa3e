//! Ratios of figures that have no target.

use std::fmt;

use serde::Serialize;

use super::edge::wire::{Version, Wire};
use super::edge::{Edge, handshakes, requests};
use super::figures::{Figures, key, with_shape};
use super::plan::{Rows, Server, Shape, Work};

/// A ratio without a target.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    /// Name of the ratio.
    pub(crate) what: &'static str,
    /// Its value.
    pub(crate) value: f64,
}

/// Returns ratios for comparison.
pub(crate) fn comparisons(figures: &Figures, edge: &Edge) -> Vec<Comparison> {
    let few = Some(Rows::Few);
    let (ours, theirs, bare) = (Server::Portcullis, Server::Kamailio, Server::KamailioBare);
    let steady = |key| with_shape(Shape::Steady, key);
    let quiet = |key| with_shape(Shape::Quiet, key);
    let brisk = |key| with_shape(Shape::Brisk, key);
    let reject = |server| key(Work::Reject, server, few);
    let relay = |server| key(Work::Relay, server, few);
    let options = |server| key(Work::Options, server, few);
    [
        ("401 against Kamailio bare", reject(ours), reject(bare)),
        ("Relay against Kamailio bare", relay(ours), relay(bare)),
        (
            "MESSAGE relayed against Kamailio bare",
            key(Work::Message, ours, few),
            key(Work::Message, bare, few),
        ),
        (
            "Call against Kamailio bare",
            key(Work::Call, ours, few),
            key(Work::Call, bare, few),
        ),
        (
            "Call at 1,000 a second against Kamailio",
            quiet(key(Work::Call, ours, few)),
            quiet(key(Work::Call, theirs, few)),
        ),
        (
            "Call at 1,000 a second against Kamailio bare",
            quiet(key(Work::Call, ours, few)),
            quiet(key(Work::Call, bare, few)),
        ),
        (
            "OPTIONS 200 against Kamailio",
            options(ours),
            options(theirs),
        ),
        (
            "401 at 10,000 a second against Kamailio",
            steady(reject(ours)),
            steady(reject(theirs)),
        ),
        (
            "401 at 10,000 a second against Kamailio bare",
            steady(reject(ours)),
            steady(reject(bare)),
        ),
        (
            "401 at 1,000 a second against Kamailio bare",
            quiet(reject(ours)),
            quiet(reject(bare)),
        ),
        (
            "401 at 50,000 a second against Kamailio bare",
            brisk(reject(ours)),
            brisk(reject(bare)),
        ),
        (
            "Relay at 10,000 a second against Kamailio",
            steady(relay(ours)),
            steady(relay(theirs)),
        ),
        (
            "Relay at 10,000 a second against Kamailio bare",
            steady(relay(ours)),
            steady(relay(bare)),
        ),
    ]
    .into_iter()
    .filter_map(|(what, of, to)| {
        let value = figures.ratio(of, to)?;
        Some(Comparison { what, value })
    })
    .chain(comparisons_of_the_edge(edge))
    .collect()
}

fn comparisons_of_the_edge(edge: &Edge) -> impl Iterator<Item = Comparison> {
    let (ours, theirs, bare) = (Server::Portcullis, Server::Kamailio, Server::KamailioBare);
    let asked = |work, of, to| requests::ratio(&edge.requests, work, of, to);
    let shaken =
        |version, resumed| handshakes::against_kamailio(&edge.handshakes, version, resumed);
    let (tcp, tls, wss) = (Wire::Tcp, Wire::Tls, Wire::Wss);
    [
        (
            "401 over TLS against Kamailio",
            asked(Work::Reject, (ours, tls), (theirs, tls)),
        ),
        (
            "401 over TLS against Kamailio bare",
            asked(Work::Reject, (ours, tls), (bare, tls)),
        ),
        (
            "401 over TLS against our own over TCP",
            asked(Work::Reject, (ours, tls), (ours, tcp)),
        ),
        (
            "401 over TCP against Kamailio",
            asked(Work::Reject, (ours, tcp), (theirs, tcp)),
        ),
        (
            "401 over WSS against Kamailio",
            asked(Work::Reject, (ours, wss), (theirs, wss)),
        ),
        (
            "Call over TLS against Kamailio",
            asked(Work::Call, (ours, tls), (theirs, tls)),
        ),
        (
            "Call over TLS against Kamailio bare",
            asked(Work::Call, (ours, tls), (bare, tls)),
        ),
        (
            "Call over TLS against our own over TCP",
            asked(Work::Call, (ours, tls), (ours, tcp)),
        ),
        (
            "Call over TCP against Kamailio",
            asked(Work::Call, (ours, tcp), (theirs, tcp)),
        ),
        (
            "Call over WSS against Kamailio",
            asked(Work::Call, (ours, wss), (theirs, wss)),
        ),
        (
            "TLS 1.3 handshake against Kamailio",
            shaken(Version::V13, false),
        ),
        (
            "TLS 1.3 resumption against Kamailio",
            shaken(Version::V13, true),
        ),
        (
            "TLS 1.2 handshake against Kamailio",
            shaken(Version::V12, false),
        ),
        (
            "TLS 1.2 resumption against Kamailio",
            shaken(Version::V12, true),
        ),
    ]
    .into_iter()
    .filter_map(|(what, value)| {
        Some(Comparison {
            what,
            value: value?,
        })
    })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<50} {:.2}x", self.what, self.value)
    }
}
