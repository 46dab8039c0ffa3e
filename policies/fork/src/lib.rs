//! Relays requests to several next hops at once. The first one that accepts the request gets it, and the others are cancelled; when none
//! does, another next hop has its turn, such as a voicemail.
//!
//! ```toml
//! [policy.settings]
//! next-hops = ["desk", "mobile"]
//! ring-seconds = 20                 # how long they ring
//! then = "voicemail"                # without it: the best answer of all
//! ```

#![forbid(unsafe_code)]

use std::time::Duration;

use portcullis_sdk::prelude::*;

policy!(decide, settings: check);

fn decide() -> Verdict {
    let all = fork(settings::texts("next-hops").unwrap_or_default());
    let all = match settings::number("ring-seconds") {
        Some(seconds) => all.ring_for(Duration::from_secs_f64(seconds)),
        None => all,
    };
    match settings::text("then") {
        // The voicemail is for busy and absent callees, too.
        Some(next_hop) => all.or(next_hop).retry_on([4, 5]),
        None => all,
    }
}

/// Validates the settings.
fn check() -> Result<(), String> {
    settings::known(&["next-hops", "ring-seconds", "then"])?;
    match settings::texts("next-hops") {
        Some(next_hops) if (1..=15).contains(&next_hops.len()) => {}
        _ => {
            let what = "`next-hops` must be a list of 1 to 15 names of next hops";
            return Err(what.to_owned());
        }
    }
    let seconds = settings::number("ring-seconds");
    if settings::has("ring-seconds")
        && !seconds.is_some_and(|seconds| (1.0..=600.0).contains(&seconds))
    {
        return Err("`ring-seconds` must be a number from 1 to 600".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use portcullis_sdk::outcome::Cause;
    use portcullis_sdk::testing::{Callee, Completed, Host, Request};

    use super::*;

    fn host() -> Host {
        Host::new()
            .setting("next-hops", ["desk", "mobile"])
            .setting("ring-seconds", 20)
            .callee("desk", Callee::rings())
            .callee("mobile", Callee::rings())
            .callee("voicemail", Callee::answers(200))
    }

    fn call(host: &Host) -> Completed {
        host.request(Request::invite("sip:bob@example.com"))
            .complete(decide)
    }

    #[test]
    fn the_first_to_answer_gets_the_call() {
        let answers = Callee::answers(200).after(Duration::from_secs(5));
        let call = call(&host().callee("mobile", answers));
        assert_eq!(call.status, 200);
        let causes: Vec<_> = call.attempts.iter().map(|attempt| attempt.cause).collect();
        assert_eq!(causes, [Cause::Cancelled, Cause::Answered]);
        assert_eq!(call.attempts[0].milliseconds, 5000);
    }

    #[test]
    fn the_voicemail_takes_what_nobody_takes() {
        let host = host().setting("then", "voicemail");
        assert_eq!(call(&host).places(), ["desk", "mobile", "voicemail"]);
        let busy = host.callee("desk", Callee::answers(486));
        assert_eq!(call(&busy).status, 200);
        let declined = busy.callee("mobile", Callee::answers(603));
        assert_eq!(call(&declined).status, 603);
    }

    #[test]
    fn without_a_voicemail_the_best_answer_counts() {
        assert_eq!(call(&host()).status, 408);
        let busy = host().callee("desk", Callee::answers(486));
        assert_eq!(call(&busy).status, 486);
    }

    #[test]
    fn settings_are_validated() {
        assert_eq!(host().validate(check), Ok(()));
        let wrong = |host: Host| host.validate(check).unwrap_err();
        assert!(wrong(Host::new()).contains("1 to 15 names"));
        for seconds in [0.5, 601.0] {
            assert!(wrong(host().setting("ring-seconds", seconds)).contains("1 to 600"));
        }
        assert!(wrong(host().setting("after", "x")).starts_with("`after` is unknown"));
    }
}
