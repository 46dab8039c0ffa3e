//! The routing logic of gateways.cfg, translated by `portcullis import --policy`.
//!
//! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the
//! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.
//!
//! `on_failure` calls the failure route that `t_on_failure` has named, with `$ru` and `$du` of the request route. A verdict that
//! relays gives its targets their turn, one that rejects is the answer to the sender; otherwise the sender gets the best response.

#![forbid(unsafe_code)]

use portcullis_sdk::dispatcher::{Algorithm, relay_to_set};
use portcullis_sdk::prelude::*;

policy!(decide, on_failure: on_failure);

/// The result of a route.
type Route = Result<bool, Verdict>;

fn decide() -> Verdict {
    let result: Route = Script::default().request_route();
    // A script that ends without a reply or a relay is silent.
    result.err().unwrap_or_else(drop_request)
}

fn on_failure() -> NextStep {
    let (failure_route, mut script) = Script::after_failure();
    let result = match &*failure_route {
        "failure_next" => script.failure_next(),
        _ => Ok(true),
    };
    match result {
        Err(verdict @ Verdict::Forward(_)) => again(verdict),
        Err(Verdict::Reject(rejection)) => NextStep::Answer(rejection),
        // `exit`, or the end of the route.
        Err(Verdict::Relay(_) | Verdict::Drop | Verdict::Pass) | Ok(_) => best_answer(),
    }
}

/// What the script has changed so far.
#[derive(Default)]
struct Script {
    request_uri: Option<String>,
    destination: Option<String>,
    /// The function for the failure route that `t_on_failure` names.
    failure_route: String,
    /// In a failure route: `$ru` and `$du` of the request route, with which each failure route begins.
    begin: Option<(Option<String>, Option<String>)>,
    /// To the destination that `ds_select_dst` or `ds_next_dst` has chosen.
    selected: Option<Verdict>,
    /// The set and the algorithm of the last `ds_select_dst`.
    set: Option<(u32, u8)>,
}

impl Script {
    /// The function for a failure route, and the state in which the route begins.
    fn after_failure() -> (String, Self) {
        let memo = String::from_utf8(outcome::memo()).unwrap_or_default();
        let parts: Vec<_> = memo.split('\n').collect();
        let part = |at: usize| {
            let part = parts.get(at).filter(|part| !part.is_empty());
            part.map(|part| (*part).to_owned())
        };
        let (request_uri, destination) = (part(1), part(2));
        let script = Self {
            begin: Some((request_uri.clone(), destination.clone())),
            request_uri,
            destination,
            set: part(3)
                .and_then(|set| set.parse().ok())
                .zip(part(4).and_then(|algorithm| algorithm.parse().ok())),
            ..Self::default()
        };
        (part(0).unwrap_or_default(), script)
    }

    /// `$ru`
    fn uri(&self) -> String {
        self.request_uri.clone().unwrap_or_else(request::uri)
    }

    /// `t_relay()`: to `$du` or, without it, to where the request URI leads.
    fn relay(&self) -> Verdict {
        if !self.has_target() {
            // What has failed is not tried again: the sender gets the best response.
            return drop_request();
        }
        if let Some(verdict) = &self.selected {
            if self.request_uri.is_some() || self.destination.is_some() {
                log::error!("ds_select_dst with another $ru or $du is not translated");
                return reject(500, "Policy incomplete");
            }
            return self.kept(verdict.clone());
        }
        match (&self.destination, &self.request_uri) {
            (Some(place), _) | (None, Some(place)) => self.relay_by(place),
            (None, None) => self.kept(relay()),
        }
    }

    /// To this URI, with the request URI of the script.
    fn relay_by(&self, place: &str) -> Verdict {
        if !self.has_target() {
            // What has failed is not tried again: the sender gets the best response.
            return drop_request();
        }
        self.kept(fork([self.target(place)]))
    }

    /// A target at this URI, with the request URI of the script.
    fn target(&self, place: &str) -> Target {
        let mut target = Target::uri(place);
        if let Some(uri) = &self.request_uri {
            target = target.request_uri(uri);
        }
        target
    }

    /// With the memo that `after_failure` reads.
    fn kept(&self, verdict: Verdict) -> Verdict {
        if self.failure_route.is_empty() {
            return verdict.memo("");
        }
        let now = (self.request_uri.clone(), self.destination.clone());
        let (request_uri, destination) = self.begin.as_ref().unwrap_or(&now);
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let of_set = |part: fn((u32, u8)) -> u32| {
            self.set
                .map(|set| part(set).to_string())
                .unwrap_or_default()
        };
        let memo = [
            self.failure_route.clone(),
            text(request_uri),
            text(destination),
            of_set(|(set, _)| set),
            of_set(|(_, algorithm)| algorithm.into()),
        ];
        let memo = memo.join("\n");
        if memo.len() > 256 {
            log::error!("no failure route for this request: $ru and $du are too long to be kept");
            return verdict.memo("");
        }
        verdict.memo(memo)
    }

    /// Whether `t_relay()` has a target: in a failure route, one that has not failed.
    fn has_target(&self) -> bool {
        if self.selected.is_some() {
            return true;
        }
        let Some((request_uri, destination)) = &self.begin else {
            return true;
        };
        self.request_uri != *request_uri
            || (self.destination.is_some() && self.destination != *destination)
    }

    /// `ds_select_dst`: one destination of a set. The host tries no other one unless the script asks for it.
    fn select(&mut self, set: u32, algorithm: u8) -> bool {
        let how = match algorithm {
            0 => Algorithm::CallId,
            1 => Algorithm::FromUri,
            2 => Algorithm::ToUri,
            3 => Algorithm::RequestUri,
            5 => Algorithm::AuthUser,
            6 => Algorithm::Random,
            8 => Algorithm::Priority,
            9 => Algorithm::Weight,
            10 => Algorithm::CallLoad,
            11 => Algorithm::RelativeWeight,
            13 => Algorithm::Latency,
            _ => Algorithm::RoundRobin,
        };
        self.destination = None;
        self.set = Some((set, algorithm));
        self.selected = relay_to_set(set, how, 1);
        self.selected.is_some()
    }

    /// `ds_next_dst`: a destination of the set that has not been tried.
    fn next_destination(&mut self) -> bool {
        self.set
            .is_some_and(|(set, algorithm)| self.select(set, algorithm))
    }

    /// gateways.cfg:24: `request_route`
    fn request_route(&mut self) -> Route {
        if request::method().eq_ignore_ascii_case("ACK") {
            return Err(self.relay());
        }
        self.failure_route = "failure_next".to_owned();
        if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("call-id")
        {
            self.select(1, 0);
        } else if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("from")
        {
            self.select(1, 1);
        } else if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("to")
        {
            self.select(1, 2);
        } else if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("uri")
        {
            self.select(1, 3);
        } else if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("turn")
        {
            self.select(1, 4);
        } else if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("user")
        {
            self.select(1, 5);
        } else if uri::user(&self.uri())
            .unwrap_or_default()
            .to_ascii_lowercase()
            .starts_with("priority")
        {
            self.select(1, 8);
        } else if !self.select(2, 4) {
            return Err(reject(404, "No gateway"));
        }
        return Err(self.relay());
    }

    /// gateways.cfg:53: `failure_route[NEXT]`
    fn failure_next(&mut self) -> Route {
        if matches!(reply_code(), 408 | 500..=599) && self.next_destination() {
            self.failure_route = "failure_next".to_owned();
            if self.has_target() {
                return Err(self.relay());
            }
            return Err(drop_request());
        }
        if matches!(reply_code(), 503) {
            return Err(reject(480, "No gateway left"));
        }
        Ok(true)
    }
}

/// `$T_reply_code`: the code of the best response, in a failure route; 0 elsewhere.
fn reply_code() -> u16 {
    outcome::best().map_or(0, |best| best.status)
}
