//! `pike.list` and `pike.top`: Kamailio's commands of the module `pike`, answered from the tables of the guard.

use std::time::Instant;

use portcullis_config::TokenRole;
use portcullis_rpc::{Call, Fault, Param};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::guard::guard_of;
use super::{FromCall, Procedure};
use crate::Control;
use crate::caller::Caller;

/// `pike.list`.
#[derive(Debug)]
pub(crate) struct ListSources(Shown);

/// `pike.top`, which says the same.
#[derive(Debug)]
pub(crate) struct Top(Shown);

/// Which sources are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Hot,
    Warm,
    All,
}

/// The reply, with Kamailio's names in Kamailio's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PikeDump {
    /// Messages per second of one source: `rate` in `[guard]`.
    pub max_hits: u32,
    /// The sources, by address.
    pub list: Vec<PikeSource>,
    /// Number of sources in the list.
    pub number_of_rows: u64,
}

/// A source in the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PikeSource {
    /// Its address; the first one of an IPv6 /64.
    pub ip_addr: String,
    /// Always 0: the guard keeps no earlier window.
    pub leaf_hits_prev: u64,
    /// Of a source that is held or banned, the messages that were dropped since; of another one, the evidence in this window.
    pub leaf_hits_curr: u64,
    /// Seconds until it is released, or until the window ends.
    pub expires: u64,
    /// Whether it is held or banned, or only suspected.
    pub status: PikeStatus,
}

/// What Kamailio calls the state of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum PikeStatus {
    /// Held or banned.
    Hot,
    /// There is evidence against it, and not enough.
    Warm,
}

impl FromCall for ListSources {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Shown::of(call).map(Self)
    }
}

impl FromCall for Top {
    fn from_call(call: &Call) -> Result<Self, Fault> {
        Shown::of(call).map(Self)
    }
}

impl Shown {
    fn of(call: &Call) -> Result<Self, Fault> {
        // Kamailio takes what is no text for nothing.
        let word = match call.params.first() {
            Some(Param::Text(word)) => word.to_ascii_uppercase(),
            Some(Param::Int(_) | Param::Double(_) | Param::Other(_)) | None => "HOT".into(),
        };
        match &*word {
            "HOT" => Ok(Self::Hot),
            "WARM" => Ok(Self::Warm),
            "ALL" => Ok(Self::All),
            _ => {
                let text = "Bad argument. Select: ALL, HOT or WARM";
                Err(Fault::new(500, text))
            }
        }
    }
}

impl Procedure for ListSources {
    type Reply = PikeDump;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<PikeDump, Fault> {
        PikeDump::of(self.0, control)
    }
}

impl Procedure for Top {
    type Reply = PikeDump;

    const NEEDS: TokenRole = TokenRole::Read;

    async fn execute(self, control: &Control, _: &Caller) -> Result<PikeDump, Fault> {
        PikeDump::of(self.0, control)
    }
}

impl PikeDump {
    fn of(shown: Shown, control: &Control) -> Result<Self, Fault> {
        let (guard, now) = (guard_of(control)?, Instant::now());
        let hot = match shown {
            Shown::Hot | Shown::All => guard.barred(now),
            Shown::Warm => Vec::new(),
        };
        let warm = match shown {
            Shown::Warm | Shown::All => guard.suspects(now),
            Shown::Hot => Vec::new(),
        };
        let hot = hot.into_iter().map(|barred| {
            let hits = barred.dropped;
            (barred.source, hits, barred.remaining, PikeStatus::Hot)
        });
        let warm = warm.into_iter().map(|suspect| {
            let hits = suspect.evidence;
            (suspect.source, hits, suspect.remaining, PikeStatus::Warm)
        });
        let mut all: Vec<_> = hot.chain(warm).collect();
        all.sort_by_key(|(source, ..)| *source);
        let list = all
            .into_iter()
            .map(|(source, hits, remaining, status)| PikeSource {
                ip_addr: source.ip().to_string(),
                leaf_hits_prev: 0,
                leaf_hits_curr: hits,
                expires: remaining.as_secs(),
                status,
            });
        let list: Vec<_> = list.collect();
        Ok(Self {
            max_hits: control.shared.config.guard.limits.rate,
            number_of_rows: list.len() as u64,
            list,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(params: Vec<Param>) -> Result<Shown, String> {
        let call = Call {
            method: "pike.top".into(),
            params,
        };
        Shown::of(&call).map_err(|fault| fault.message)
    }

    #[test]
    fn the_word_is_read_as_kamailio_reads_it() {
        let text = |word: &str| vec![Param::Text(word.into())];
        assert_eq!(read(vec![]), Ok(Shown::Hot));
        assert_eq!(read(vec![Param::Int(1)]), Ok(Shown::Hot));
        for (word, shown) in [
            ("all", Shown::All),
            ("HOT", Shown::Hot),
            ("Warm", Shown::Warm),
        ] {
            assert_eq!(read(text(word)), Ok(shown));
        }
        let wrong = read(text("x")).unwrap_err();
        assert_eq!(wrong, "Bad argument. Select: ALL, HOT or WARM");
    }
}
