//! The table of trusted peers and the allow and deny files of the fake host.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Decides whether a pair of URIs is allowed, or whether From URI and request URI match.
pub(super) type Pair = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// The trusted peers, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers {
    rows: Vec<Peer>,
}

/// The pairs of files by basename.
#[derive(Clone, Default)]
pub(super) struct Rules {
    sets: HashMap<String, Pair>,
}

#[derive(Clone)]
struct Peer {
    source: String,
    transport: String,
    tag: Option<String>,
    fits: Option<Pair>,
}

/// A query of the peers.
pub(super) struct Question<'a> {
    pub(super) source: &'a str,
    pub(super) transport: &'a str,
    pub(super) from: &'a str,
    pub(super) ruri: &'a str,
}

/// The transports of rows and queries.
const TRANSPORTS: [&str; 7] = ["any", "udp", "tcp", "tls", "sctp", "ws", "wss"];

/// The default basename.
pub(super) const DEFAULT_RULES: &str = "permissions";

impl Peers {
    pub(super) fn push(&mut self, source: &str, transport: &str) -> Result<(), String> {
        let transport = transport.to_lowercase();
        if !TRANSPORTS.contains(&&*transport) {
            return Err(format!(
                "transport {transport:?} is not one of {}",
                TRANSPORTS.join(", ")
            ));
        }
        self.rows.push(Peer {
            source: source.to_owned(),
            transport,
            tag: None,
            fits: None,
        });
        Ok(())
    }

    /// False if there is no row.
    pub(super) fn tag_last(&mut self, tag: &str) -> bool {
        let last = self.rows.last_mut();
        last.map(|peer| peer.tag = Some(tag.to_owned())).is_some()
    }

    /// False if there is no row.
    pub(super) fn fit_last(&mut self, fits: Pair) -> bool {
        let last = self.rows.last_mut();
        last.map(|peer| peer.fits = Some(fits)).is_some()
    }

    /// The tags of the matching rows.
    pub(super) fn matches(&self, question: &Question<'_>) -> impl Iterator<Item = Option<&str>> {
        let matching = self.rows.iter().filter(|peer| peer.matches(question));
        matching.map(|peer| peer.tag.as_deref())
    }
}

impl Peer {
    fn matches(&self, question: &Question<'_>) -> bool {
        let Question {
            source,
            transport,
            from,
            ruri,
        } = *question;
        let transport = transport.to_lowercase();
        let same_transport = match (&*self.transport, &*transport) {
            (_, asked) if !TRANSPORTS.contains(&asked) => false,
            ("any", _) | (_, "any") => true,
            (row, asked) => row == asked,
        };
        same_source(&self.source, source)
            && same_transport
            && self.fits.as_ref().is_none_or(|fits| fits(from, ruri))
    }
}

impl Rules {
    pub(super) fn insert(&mut self, basename: &str, allowed: Pair) {
        self.sets.insert(basename.to_owned(), allowed);
    }

    /// Whether the pair is allowed; without files it is.
    pub(super) fn allows(&self, basename: Option<&str>, left: &str, right: &str) -> bool {
        let allowed = self.sets.get(basename.unwrap_or(DEFAULT_RULES));
        allowed.is_none_or(|allowed| allowed(left, right))
    }
}

/// `sip:USER@HOST`, the form in which Kamailio matches URIs, from any SIP URI. A request URI always has the `@`.
pub(super) fn plain(uri: &str, always_at: bool, with_port: bool) -> String {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let (user, place) = match rest.rsplit_once('@') {
        Some((user, place)) => (user.split([':', ';']).next().unwrap_or_default(), place),
        None => ("", rest),
    };
    let place = place.split([';', '?']).next().unwrap_or_default();
    let end_of_host = place.rfind(']').map_or(0, |end| end + 1);
    let host = match place[end_of_host..].find(':') {
        Some(colon) if !with_port => &place[..end_of_host + colon],
        _ => place,
    };
    match user.is_empty() && !always_at {
        true => format!("sip:{host}"),
        false => format!("sip:{user}@{host}"),
    }
}

fn same_source(row: &str, asked: &str) -> bool {
    match (row.parse::<IpAddr>(), asked.parse::<IpAddr>()) {
        (Ok(row), Ok(asked)) => row.to_canonical() == asked.to_canonical(),
        _ => row == asked,
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.source, self.transport, self.tag)
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.sets.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_have_the_form_for_rules() {
        for (uri, at, port, written) in [
            (
                "sip:bob@example.com:5070;user=phone",
                true,
                false,
                "sip:bob@example.com",
            ),
            (
                "sips:bob:secret@example.com?a=b",
                true,
                false,
                "sip:bob@example.com",
            ),
            ("sip:example.com", true, false, "sip:@example.com"),
            (
                "sip:example.com:5061;lr",
                false,
                true,
                "sip:example.com:5061",
            ),
            (
                "sip:bob@[2001:db8::1]:5070",
                false,
                false,
                "sip:bob@[2001:db8::1]",
            ),
            (
                "sip:bob@[2001:db8::1]:5070",
                false,
                true,
                "sip:bob@[2001:db8::1]:5070",
            ),
        ] {
            assert_eq!(plain(uri, at, port), written, "{uri}");
        }
    }

    #[test]
    fn transports_and_addresses_are_compared_by_meaning() {
        let mut peers = Peers::default();
        peers.push("2001:db8:0::1", "TCP").expect("a row");
        let count = |source, transport| {
            let question = Question {
                source,
                transport,
                from: "",
                ruri: "",
            };
            peers.matches(&question).count()
        };
        assert_eq!(count("2001:db8::1", "tcp"), 1);
        assert_eq!(count("2001:db8::1", "any"), 1);
        assert_eq!(count("2001:db8::1", "udp"), 0);
        assert_eq!(count("2001:db8::1", "none"), 0);
        assert_eq!(count("2001:db8::2", "tcp"), 0);
        let refused = peers
            .clone()
            .push("192.0.2.1", "dtls")
            .expect_err("no transport");
        assert!(refused.contains("dtls"), "{refused}");
    }
}
