//! The routing logic of rewrite.cfg, translated by `portcullis import --policy`.
//!
//! Each route is a function. `Err(verdict)` ends the script with this verdict, as `exit` does behind a reply; `Ok` returns to the
//! caller, as `return` does. Requests within a dialog do not come here: the host relays them itself.

#![forbid(unsafe_code)]

use portcullis_sdk::prelude::*;

policy!(decide);

/// The result of a route.
type Route = Result<bool, Verdict>;

fn decide() -> Verdict {
    let result: Route = Script::default().request_route();
    // A script that ends without a reply or a relay is silent.
    result.err().unwrap_or_else(drop_request)
}

/// What the script has changed so far.
#[derive(Default)]
struct Script {
    request_uri: Option<String>,
    destination: Option<String>,
}

impl Script {
    /// `$ru`
    fn uri(&self) -> String {
        self.request_uri.clone().unwrap_or_else(request::uri)
    }

    /// `t_relay()`: to `$du` or, without it, to where the request URI leads.
    fn relay(&self) -> Verdict {
        match (&self.destination, &self.request_uri) {
            (Some(destination), _) => self.relay_by(destination),
            (None, Some(uri)) => self.relay_by(uri),
            (None, None) => relay(),
        }
    }

    /// To this URI, with the request URI of the script.
    fn relay_by(&self, place: &str) -> Verdict {
        let verdict = relay_to_uri(place);
        match &self.request_uri {
            Some(uri) => verdict.request_uri(uri),
            None => verdict,
        }
    }

    /// rewrite.cfg:27: `request_route`
    fn request_route(&mut self) -> Route {
        if uri::user(&self.uri()).unwrap_or_default().starts_with("00") {
            let user = uri::user(&self.uri())
                .unwrap_or_default()
                .chars()
                .skip(2)
                .collect::<String>();
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
            let user = format!("+{}", uri::user(&self.uri()).unwrap_or_default());
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
        } else if uri::user(&self.uri()).unwrap_or_default().starts_with("0") {
            let user = uri::user(&self.uri())
                .unwrap_or_default()
                .chars()
                .skip(1)
                .collect::<String>();
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
            let user = format!("+49{}", uri::user(&self.uri()).unwrap_or_default());
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
        }
        if uri::user(&self.uri()).unwrap_or_default() == "+4930" {
            let user = "berlin".to_string();
            self.request_uri = Some(uri::with_user(&self.uri(), &user));
        }
        if uri::user(&self.uri()).unwrap_or_default() == "away" {
            self.request_uri = Some(format!(
                "sip:{}-away@{}:{}",
                uri::user(&request::from_uri()).unwrap_or_default(),
                uri::host(&self.uri()),
                i64::from(uri::port(&self.uri()).unwrap_or(5060))
            ));
        }
        if uri::user(&self.uri()).unwrap_or_default() == "dst" {
            self.destination = Some(format!(
                "sip:{}:{}",
                uri::host(&self.uri()),
                i64::from(uri::port(&self.uri()).unwrap_or(5060))
            ));
            let host = "example.com".to_string();
            self.request_uri = Some(uri::with_host(&self.uri(), &host));
        }
        edits::remove_header("X-Old");
        edits::add_header(
            "X-Number",
            &format!("{}", uri::user(&self.uri()).unwrap_or_default()),
        );
        self.route_relay()?;
        Ok(true)
    }

    /// rewrite.cfg:50: `route[RELAY]`
    fn route_relay(&mut self) -> Route {
        return Err(self.relay());
    }
}
