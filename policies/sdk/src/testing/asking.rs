//! Calls of a policy, with the checks of the real host for its results.

use super::call::{Ended, with, with_failed};
use super::failed::Failed;
use super::message::Request;
use super::rules::{check_next_hop, check_rejection};
use super::world::World;
use crate::{NextStep, Verdict};

/// Calls `decide`, and passes the targets of its verdict to the host.
pub(super) fn decide(
    world: World,
    request: Request,
    policy: impl FnOnce() -> Verdict,
) -> Ended<Verdict> {
    let ended = with(world, request, || {
        let verdict = policy();
        if let Verdict::Forward(forwarding) = &verdict {
            forwarding.clone().pass_to_host();
        }
        verdict
    });
    if let Err(error) = check(&ended.answer) {
        panic!("the host refuses this verdict: {error}: {:?}", ended.answer);
    }
    ended
}

/// Calls `on_failure`, and passes the targets of its step to the host.
pub(super) fn on_failure(
    world: World,
    request: Request,
    failed: Failed,
    policy: impl FnOnce() -> NextStep,
) -> Ended<NextStep> {
    let ended = with_failed(world, request, Some(failed), || {
        let step = policy();
        if let NextStep::Again(forwarding) = &step {
            forwarding.clone().pass_to_host();
        }
        step
    });
    if let NextStep::Answer(rejection) = &ended.answer
        && let Err(error) = check_rejection(rejection)
    {
        panic!("the host refuses this step: {error}: {:?}", ended.answer);
    }
    ended
}

/// Checks a verdict, and returns what is wrong with it.
fn check(verdict: &Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Relay(Some(name)) => check_next_hop(name),
        Verdict::Reject(rejection) => check_rejection(rejection),
        // Targets have been checked one by one.
        Verdict::Relay(None) | Verdict::Forward(_) | Verdict::Drop | Verdict::Pass => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{MAX_HEADER_VALUE, MAX_HEADERS, MAX_REASON};
    use super::*;
    use crate::{drop_request, pass, reject, relay, relay_to};

    #[test]
    fn verdicts_that_the_host_accepts() {
        let taken = [
            relay(),
            relay_to("gateway 2"),
            reject(300, ""),
            reject(699, "Nicht erwünscht"),
            reject(302, "Moved")
                .header("Contact", "<sip:bob@192.0.2.7>")
                .header("X_odd!", ""),
            reject(401, "x".repeat(MAX_REASON)).header("X-Tab", "a\tb"),
            drop_request(),
            pass(),
        ];

        for verdict in taken {
            assert_eq!(check(&verdict), Ok(()), "{verdict:?}");
        }
    }

    #[test]
    fn verdicts_that_the_host_refuses() {
        let many = (0..=MAX_HEADERS).fold(reject(401, ""), |verdict, _| verdict.header("X", "y"));
        let refused = [
            (relay_to(""), "\"\" is not the name of a next hop"),
            (relay_to("a\n"), "\"a\\n\" is not the name of a next hop"),
            (reject(299, ""), "status code 299"),
            (reject(700, ""), "status code 700"),
            (
                reject(401, "two\r\nlines"),
                "the reason phrase has a control",
            ),
            (
                reject(401, "x".repeat(MAX_REASON + 1)),
                "the reason phrase has more than",
            ),
            (many, "there are more than 32"),
            (
                reject(401, "").header("", "x"),
                "\"\" is not the name of a header",
            ),
            (
                reject(401, "").header("Retry After", "x"),
                "\"Retry After\" is not the name",
            ),
            (
                reject(401, "").header("call-id", "x"),
                "the header field call-id can be written by the host only",
            ),
            (
                reject(401, "").header("V", "x"),
                "the header field V can be written by the host only",
            ),
            (
                reject(401, "").header("Retry-After", "1\n2"),
                "the value of Retry-After has a control",
            ),
            (
                reject(401, "").header("X", "x".repeat(MAX_HEADER_VALUE + 1)),
                "the value of X has more",
            ),
        ];

        for (verdict, why) in refused {
            let error = check(&verdict).expect_err("refused");
            assert!(error.starts_with(why), "{verdict:?}: {error}");
        }
    }
}
