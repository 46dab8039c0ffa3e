//! Which messages of the running host a command follows, and for how long.

use std::time::{Duration, Instant};

/// Conditions on messages, and limits. Without a condition, all messages are followed.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Followed {
    /// Only messages from this address or network
    #[arg(long, value_name = "ADDRESS|NETWORK")]
    source: Option<String>,
    /// Only messages with this Call-ID
    #[arg(long, value_name = "CALL-ID")]
    call_id: Option<String>,
    /// Only messages with this method; for responses, the method in CSeq
    #[arg(long)]
    method: Option<String>,
    /// Only messages with this user in From
    #[arg(long, value_name = "USER")]
    from: Option<String>,
    /// Only messages with this user in To
    #[arg(long, value_name = "USER")]
    to: Option<String>,
    /// Only responses with this status, and requests that the host answered with it: 401, or 4xx for a class
    #[arg(long)]
    code: Option<String>,
    /// Maximum number per second; further ones are counted [default: 200]
    #[arg(long)]
    rate: Option<u32>,
    /// End after this many
    #[arg(long, value_name = "N")]
    pub(super) count: Option<u64>,
    /// End after this many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// One JSON object per line, instead of text
    #[arg(long)]
    pub(super) json: bool,
}

/// The parameters of a query.
pub(super) type Query = Vec<(&'static str, String)>;

impl Followed {
    /// The query of these conditions, and of those of the command.
    pub(super) fn query<const N: usize>(
        &self,
        others: [(&'static str, &Option<String>); N],
    ) -> Query {
        let own = [
            ("source", &self.source),
            ("call_id", &self.call_id),
            ("method", &self.method),
            ("from", &self.from),
            ("to", &self.to),
            ("code", &self.code),
        ];
        let texts = own.into_iter().chain(others);
        let mut query: Query = texts
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect();
        query.extend(self.rate.map(|rate| ("rate", rate.to_string())));
        query
    }

    /// When following ends; `None` for no limit.
    pub(super) fn end(&self) -> Option<Instant> {
        let seconds = self.seconds.map(Duration::from_secs);
        seconds.and_then(|time| Instant::now().checked_add(time))
    }
}

/// The parameters as a client takes them.
pub(super) fn borrowed<'q>(query: &'q [(&'static str, String)]) -> Vec<(&'q str, &'q str)> {
    let all = query.iter();
    all.map(|(name, value)| (*name, value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_asked_for() {
        let none = Followed::default();
        assert_eq!(none.query([("verdict", &None)]), []);
        let some = Followed {
            code: Some("4xx".into()),
            rate: Some(7),
            ..Followed::default()
        };
        let query = some.query([("verdict", &Some("reject".into()))]);
        let expected = [("code", "4xx"), ("verdict", "reject"), ("rate", "7")];
        assert_eq!(borrowed(&query), expected);
        assert!(none.end().is_none());
    }
}
