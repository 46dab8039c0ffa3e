//! The routing logic of failover.cfg, translated by `portcullis import --policy`.
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
        "failure_next" => script.failure_next(),
        "failure_last" => script.failure_last(),
        "failure_reply" => script.failure_reply(),
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
    /// `t_set_fr`: milliseconds until the first response.
    first: Option<u64>,
    /// `t_set_fr`: milliseconds until the final response.
    ring: Option<u64>,
    /// Header fields for the targets of a failure route.
    headers: Vec<(&'static str, String)>,
    /// `setflag` and `setbflag`: a bit for each flag.
    flags: u64,
    /// `$avp(called)`
    avp_called: String,
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
            first: part(3).and_then(|time| time.parse().ok()),
            ring: part(4).and_then(|time| time.parse().ok()),
            flags: part(5)
                .and_then(|flags| flags.parse().ok())
                .unwrap_or_default(),
            avp_called: part(6).unwrap_or_default(),
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
        for (name, value) in &self.headers {
            target = target.header(*name, value);
        }
        let first = self.first.unwrap_or(FR_TIMER);
        target = target.within(Duration::from_millis(first));
        if let Some(ring) = self.ring {
            target = target.ring_for(Duration::from_millis(ring));
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
        let number = |time: Option<u64>| time.map(|time| time.to_string()).unwrap_or_default();
        let memo = [
            self.failure_route.clone(),
            text(request_uri),
            text(destination),
            number(self.first),
            number(self.ring),
            self.flags.to_string(),
            self.avp_called.clone(),
        ];
        let are_lines = memo.iter().all(|part| !part.contains('\n'));
        let memo = memo.join("\n");
        if memo.len() > 256 || !are_lines {
            log::error!(
                "no failure route for this request: $ru, $du and the $avp are too long to be kept, or have line breaks"
            );
            return verdict.memo("");
        }
        verdict.memo(memo)
    }

    /// Whether `t_relay()` has a target: in a failure route, one that has not failed.
    fn has_target(&self) -> bool {
        let Some((request_uri, destination)) = &self.begin else {
            return true;
        };
        self.request_uri != *request_uri
            || (self.destination.is_some() && self.destination != *destination)
    }

    /// `append_hf`: for all targets or, in a failure route, for those that it names.
    fn add_header(&mut self, name: &'static str, value: String) {
        match self.begin {
            Some(_) => self.headers.push((name, value)),
            None => {
                edits::add_header(name, &value);
            }
        }
    }

    /// `isflagset`, `isbflagset`
    fn has_flag(&self, flag: u32) -> bool {
        self.flags & (1 << flag) != 0
    }

    /// `setflag`, `setbflag`
    fn set_flag(&mut self, flag: u32) {
        self.flags |= 1 << flag;
    }

    /// failover.cfg:22: `request_route`
    fn request_route(&mut self) -> Route {
        edits::add_header("X-Way", "request");
        if uri::user(&self.uri()).unwrap_or_default() == "as-routed" {
            self.failure_route = "failure_reply".to_owned();
            return Err(self.relay());
        }
        if uri::user(&self.uri()).unwrap_or_default() == "once" {
            self.route_first()?;
            return Err(self.relay());
        }
        if uri::user(&self.uri()).unwrap_or_default() == "patient" {
            self.ring = None;
            self.first = Some(300);
        }
        self.route_first()?;
        self.route_relay()?;
        Ok(true)
    }

    /// failover.cfg:41: `route[FIRST]`
    fn route_first(&mut self) -> Route {
        self.destination = Some(format!("sip:{}:5062", uri::host(&self.uri())));
        let user = format!("first-{}", uri::user(&self.uri()).unwrap_or_default());
        self.request_uri = Some(uri::with_user(&self.uri(), &user));
        Ok(true)
    }

    /// failover.cfg:46: `route[RELAY]`
    fn route_relay(&mut self) -> Route {
        self.avp_called = uri::user(&self.uri()).unwrap_or_default().to_string();
        self.set_flag(5);
        self.failure_route = "failure_next".to_owned();
        return Err(self.relay());
    }

    /// failover.cfg:56: `failure_route[NEXT]`
    fn failure_next(&mut self) -> Route {
        log::info!(
            "{}: {}",
            uri::user(&self.uri()).unwrap_or_default(),
            i64::from(reply_code())
        );
        if branch_timeout() && !branch_replied(61)? {
            self.route_second()?;
            if self.has_target() {
                return Err(self.relay());
            }
            return Err(drop_request());
        }
        if matches!(reply_code(), 408 | 500..=599) {
            self.set_flag(6);
            self.add_header("X-Way", "second".to_owned());
            self.destination = Some(format!("sip:{}:5064", uri::host(&self.uri())));
            self.failure_route = "failure_last".to_owned();
            return Err(self.relay());
        } else if i64::from(reply_code()) == 486 {
            self.request_uri = Some(format!("sip:voicemail@{}:5066", uri::host(&self.uri())));
            self.add_header(
                "X-Way",
                format!(
                    "voicemail of {}",
                    uri::user(&request::uri()).unwrap_or_default()
                ),
            );
            self.destination = None;
            self.failure_route = "failure_last".to_owned();
            return Err(self.relay());
        } else if matches!(reply_code(), 401..=403) {
            if self.has_target() {
                return Err(self.relay());
            }
            return Err(reject(480, "Not for $oU").header("Retry-After", "7"));
        } else if matches!(reply_code(), 404) {
            if self.has_target() {
                return Err(self.relay());
            }
            return Err(reject(410, "Gone"));
        }
        Ok(true)
    }

    /// failover.cfg:89: `route[SECOND]`
    fn route_second(&mut self) -> Route {
        self.add_header("X-Way", "timeout".to_owned());
        self.destination = Some(format!("sip:{}:5064", uri::host(&self.uri())));
        self.failure_route = "failure_last".to_owned();
        Ok(true)
    }

    /// failover.cfg:95: `failure_route[LAST]`
    fn failure_last(&mut self) -> Route {
        self.add_header("X-Way", "last".to_owned());
        if self.has_flag(5) && self.has_flag(6) {
            self.add_header("X-Way", format!("{} twice", self.avp_called.clone()));
        }
        if any_timeout() && i64::from(reply_code()) != 404 {
            return Err(reject(504, "Too late"));
        } else if matches!(reply_code(), 500..=502 | 504..=509) || i64::from(reply_code()) == 404 {
            self.destination = Some(format!("sip:{}:5066", uri::host(&self.uri())));
            return Err(self.relay());
        }
        Ok(true)
    }

    /// failover.cfg:110: `failure_route[REPLY]`
    fn failure_reply(&mut self) -> Route {
        if matches!(
            reply_code(),
            406 | 416 | 426 | 436 | 446 | 456 | 466 | 476 | 486 | 496
        ) {
            return Err(reject(
                487,
                format!("Busy {}", uri::user(&self.uri()).unwrap_or_default()),
            ));
        }
        if matches!(reply_code(), 300..=399) {
            let user = "moved".to_string();
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
            return Err(self.relay());
        }
        Ok(true)
    }
}

/// Ends the script where it depends on something without counterpart. Replace each call.
fn untranslated(line: u32, what: &str) -> Route {
    log::error!("line {line} is not translated: {what}");
    Err(reject(500, "Policy incomplete"))
}

/// `$T_reply_code`: the code of the best response, in a failure route; 0 elsewhere.
fn reply_code() -> u16 {
    outcome::best().map_or(0, |best| best.status)
}

/// `t_branch_timeout()`: whether the target of the best response did not answer, or rang too long.
fn branch_timeout() -> bool {
    let cause = outcome::best().map(|best| best.cause);
    matches!(
        cause,
        Some(outcome::Cause::NoAnswer | outcome::Cause::RangOut)
    )
}

/// `t_branch_replied()`: whether the target of the best response sent another response before. For a target that has not timed out, this
/// is not known.
fn branch_replied(line: u32) -> Route {
    match outcome::best().map(|best| best.cause) {
        Some(outcome::Cause::RangOut) => Ok(true),
        Some(outcome::Cause::Answered | outcome::Cause::Cancelled) => {
            untranslated(line, "t_branch_replied()")
        }
        _ => Ok(false),
    }
}

/// `t_any_timeout()`: whether any target did not answer, or rang too long.
fn any_timeout() -> bool {
    let is_timeout = |attempt: &outcome::Attempt| {
        matches!(
            attempt.cause,
            outcome::Cause::NoAnswer | outcome::Cause::RangOut
        )
    };
    outcome::attempts().iter().any(is_timeout)
}
