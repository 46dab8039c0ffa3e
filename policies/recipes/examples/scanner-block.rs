//! # Scanners
//!
//! Drops requests whose User-Agent is that of a known scanner, without an answer that would tell it that somebody is here, and everything else
//! from its address for an hour. The source of a datagram can be forged: `exempt-group` has the addresses that nobody may block this way.
//!
//! In kamailio.cfg:
//!
//! ```kamailio left=2
//! modparam("htable", "htable", "ipban=>size=8;autoexpire=3600;")
//!
//! if ($sht(ipban=>$si) != $null) exit;
//! if ($ua =~ "(friendly-scanner|sipvicious|sipcli|sip-scan|sundayddr|VaxSIPUserAgent)") {
//!     $sht(ipban=>$si) = 1;
//!     exit;
//! }
//! ```
//!
//! Settings:
//!
//! ```toml
//! agents = ["friendly-scanner", "sipvicious", "sipcli", "sip-scan", "sundayddr", "VaxSIPUserAgent", "pplsip"]
//! seconds = 3600
//! exempt-group = 200
//! ```

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    if exempt_group().is_some_and(allow_source_address) {
        return pass();
    }
    let source = request::source_address();
    if counters::value(&source) > 0 {
        return drop_request();
    }
    let agent = request::header("User-Agent").unwrap_or_default();
    let lower = agent.to_ascii_lowercase();
    let agents = settings::texts("agents").unwrap_or_default();
    if !agents
        .iter()
        .any(|name| lower.contains(&name.to_ascii_lowercase()))
    {
        return pass();
    }
    log::warn!("scanner {agent} at {source}: blocked");
    counters::add(&source, 1, seconds().unwrap_or(3600));
    drop_request()
}

fn exempt_group() -> Option<u32> {
    settings::integer("exempt-group")?.try_into().ok()
}

fn seconds() -> Option<u32> {
    settings::integer("seconds")?.try_into().ok()
}

fn check() -> Result<(), String> {
    settings::known(&["agents", "exempt-group", "seconds"])?;
    if settings::texts("agents").is_none_or(|list| list.iter().any(String::is_empty)) {
        return Err("`agents` must be a list of parts of User-Agent".into());
    }
    if settings::has("seconds") && seconds().is_none_or(|seconds| seconds == 0) {
        return Err("`seconds` must be a number above 0".into());
    }
    match settings::has("exempt-group") && exempt_group().is_none() {
        true => Err("`exempt-group` must be the number of a group".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::testing::{Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("agents", ["friendly-scanner", "sipcli"])
            .setting("seconds", 60)
            .setting("exempt-group", 200)
            .address(200, "192.0.2.8", 0)
    }

    fn verdict(host: &Host, source: &str, agent: &str) -> Verdict {
        let request = Request::options("sip:100@example.com").header("User-Agent", agent);
        host.request(request.from_source(source))
            .decide(decide)
            .verdict
    }

    #[test]
    fn a_scanner_blocks_its_address() {
        let host = host();
        assert_eq!(verdict(&host, "192.0.2.1", "Phone 1.0"), pass());
        assert_eq!(
            verdict(&host, "192.0.2.1", "Friendly-Scanner"),
            drop_request()
        );
        assert_eq!(verdict(&host, "192.0.2.1", "Phone 1.0"), drop_request());
        assert_eq!(verdict(&host, "192.0.2.2", "Phone 1.0"), pass());
        host.wait(61.0);
        assert_eq!(verdict(&host, "192.0.2.1", "Phone 1.0"), pass());
    }

    #[test]
    fn trunks_are_never_blocked() {
        let host = host();
        assert_eq!(verdict(&host, "192.0.2.8", "sipcli/v1.8"), pass());
        assert_eq!(verdict(&host, "192.0.2.8", "PBX"), pass());
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        assert!(host().setting("seconds", 0).validate(check).is_err());
        assert!(host().setting("agents", [""]).validate(check).is_err());
    }
}
