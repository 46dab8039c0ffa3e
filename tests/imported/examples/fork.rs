//! The routing logic of fork.cfg, translated by `portcullis import --policy`.
//!
//! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the
//! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.
//!
//! `on_failure` calls the failure route that `t_on_failure` has named, with `$ru` and `$du` of the request route. A verdict that
//! relays gives its targets their turn, one that rejects is the answer to the sender; otherwise the sender gets the best response.

#![forbid(unsafe_code)]

use std::time::Duration;

use portcullis_sdk::prelude::*;

policy!(decide, on_failure: on_failure);

/// The result of a route.
type Route = Result<bool, Verdict>;

/// `fr_timer`: milliseconds until the first response of a target.
const FR_TIMER: u64 = 1000;

fn decide() -> Verdict {
    let result: Route = Script::default().request_route();
    // A script that ends without a reply or a relay is silent.
    result.err().unwrap_or_else(drop_request)
}

fn on_failure() -> NextStep {
    let (failure_route, mut script) = Script::after_failure();
    let result = match &*failure_route {
        "failure_fork" => script.failure_fork(),
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
    /// Places and request URIs of `append_branch`.
    branches: Vec<(String, String)>,
    /// `$ru` and `$du` that are a target already: they have failed, or `append_branch()` has taken them.
    taken: Option<(Option<String>, Option<String>)>,
    /// The function for the failure route that `t_on_failure` names.
    failure_route: String,
    /// In a failure route: `$ru` and `$du` of the request route, with which each failure route begins.
    begin: Option<(Option<String>, Option<String>)>,
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
            taken: Some((request_uri.clone(), destination.clone())),
            request_uri,
            destination,
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
        if !self.branches.is_empty() {
            let mut targets = Vec::new();
            if self.is_changed() {
                let place = self.destination.clone().unwrap_or_else(|| self.uri());
                targets.push(self.target(&place));
            }
            for (place, request_uri) in &self.branches {
                targets.push(self.target(place).request_uri(request_uri));
            }
            return self.kept(fork(targets));
        }
        match (&self.destination, &self.request_uri) {
            (Some(place), _) | (None, Some(place)) => self.kept(fork([self.target(place)])),
            (None, None) => self.kept(relay()),
        }
    }

    /// A target at this URI, with the request URI of the script.
    fn target(&self, place: &str) -> Target {
        let mut target = Target::uri(place);
        if let Some(uri) = &self.request_uri {
            target = target.request_uri(uri);
        }
        target = target.within(Duration::from_millis(FR_TIMER));
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
        let memo = [
            self.failure_route.clone(),
            text(request_uri),
            text(destination),
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
        !self.branches.is_empty() || self.is_changed()
    }

    /// Whether `$ru` and `$du` are a target that has not been taken yet.
    fn is_changed(&self) -> bool {
        let Some((request_uri, destination)) = &self.taken else {
            return true;
        };
        self.request_uri != *request_uri
            || (self.destination.is_some() && self.destination != *destination)
    }

    /// `append_branch`: a target with this request URI, or `$ru` without one, at `$du` if there is one.
    fn append_branch(&mut self, request_uri: Option<&str>) {
        if request_uri.is_none() {
            self.taken = Some((self.request_uri.clone(), self.destination.clone()));
        }
        let request_uri = request_uri.map_or_else(|| self.uri(), str::to_owned);
        let place = self
            .destination
            .clone()
            .unwrap_or_else(|| request_uri.clone());
        self.branches.push((place, request_uri));
    }

    /// fork.cfg:22: `request_route`
    fn request_route(&mut self) -> Route {
        if request::method().eq_ignore_ascii_case("INVITE") {
            self.failure_route = "failure_fork".to_owned();
        }
        if uri::user(&self.uri()).unwrap_or_default() == "three" {
            self.append_branch(Some(&format!("sip:left@{}:5062", uri::host(&self.uri()))));
            self.append_branch(Some(&format!("sip:right@{}:5064", uri::host(&self.uri()))));
        } else if uri::user(&self.uri()).unwrap_or_default() == "kept" {
            self.request_uri = Some(format!("sip:one@{}:5062", uri::host(&self.uri())));
            self.append_branch(None);
            self.request_uri = Some(format!("sip:two@{}:5064", uri::host(&self.uri())));
            self.append_branch(None);
        } else if uri::user(&self.uri()).unwrap_or_default() == "at" {
            self.destination = Some(format!("sip:{}:5062", uri::host(&self.uri())));
            self.append_branch(Some(&format!("sip:beside@{}:5060", uri::host(&self.uri()))));
        }
        return Err(self.relay());
    }

    /// fork.cfg:41: `failure_route[FORK]`
    fn failure_fork(&mut self) -> Route {
        if matches!(reply_code(), 503) && uri::user(&request::uri()).unwrap_or_default() == "three"
        {
            let user = "again".to_string();
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
            self.append_branch(Some(&format!("sip:beside@{}:5066", uri::host(&self.uri()))));
            return Err(self.relay());
        } else if matches!(reply_code(), 503) {
            self.append_branch(Some(&format!("sip:alone@{}:5066", uri::host(&self.uri()))));
            return Err(self.relay());
        }
        Ok(true)
    }
}

/// `$T_reply_code`: the code of the best response, in a failure route; 0 elsewhere.
fn reply_code() -> u16 {
    outcome::best().map_or(0, |best| best.status)
}
