//! What `on_failure` reads.

use crate::attempt::Attempt;
use crate::target::Place;

/// What `on_failure` reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Failed {
    pub(super) attempts: Vec<Attempt>,
    /// The places of the attempts with their request URIs.
    pub(super) tried: Vec<(Place, Option<String>)>,
    /// The number of targets named so far, those that have not had their turn included.
    pub(super) named: usize,
    /// Bytes of their texts.
    pub(super) named_bytes: usize,
    pub(super) best: Option<Attempt>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) tries_left: u8,
    pub(super) memo: Vec<u8>,
}

impl Failed {
    /// The values of all header fields of the best response with this name. Compact forms are not known here.
    pub(super) fn values_of(&self, name: &str) -> impl Iterator<Item = &str> {
        let headers = self.headers.iter();
        let named = headers.filter(move |(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    /// The Contact URIs of a redirection, each on a line of its own in the test.
    pub(super) fn contacts(&self) -> Vec<String> {
        let is_redirection = self
            .best
            .as_ref()
            .is_some_and(|best| (300..400).contains(&best.status));
        if !is_redirection {
            return Vec::new();
        }
        let uris = self.values_of("Contact").map(|value| {
            let inside = value
                .split_once('<')
                .and_then(|(_, rest)| rest.split_once('>'));
            let uri = inside.map_or_else(
                || value.split(';').next().unwrap_or_default(),
                |(uri, _)| uri,
            );
            let params = value.rsplit('>').next().unwrap_or_default();
            let q = params
                .split(';')
                .find_map(|param| param.trim().strip_prefix("q="));
            let q = q.and_then(|q| q.parse::<f64>().ok()).unwrap_or(1.0);
            (q, uri.trim().to_owned())
        });
        let mut uris: Vec<_> = uris.collect();
        uris.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        uris.into_iter().take(8).map(|(_, uri)| uri).collect()
    }
}
