//! A request with all of its targets: a small stateful proxy, with the callees of the test.

use std::cmp::Reverse;
use std::time::Duration;

use super::asking;
use super::effects::{Edit, Line};
use super::failed::Failed;
use super::message::Request;
use super::rules::text_bytes;
use super::world::World;
use crate::attempt::{Attempt, Cause};
use crate::target::{Place, Target};
use crate::{Forwarding, NextStep, Rejection, Verdict};

/// Most calls of `on_failure`.
const MOST_TRIES: u8 = 8;

/// Time until the final response if the policy names none.
const RING: Duration = Duration::from_secs(185);

/// What became of a request: the result of [`Call::complete`](super::Call::complete).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completed {
    /// The final status code that the sender gets; 0 if it gets none.
    pub status: u16,
    /// The reason phrase, if the policy has chosen one.
    pub reason: String,
    /// Header fields of the final response that the callee or the policy has added.
    pub headers: Vec<(String, String)>,
    /// The targets that had their turn, in order.
    pub attempts: Vec<Attempt>,
    /// What `decide` returned.
    pub verdict: Verdict,
    /// What the calls of `on_failure` returned.
    pub steps: Vec<NextStep>,
    /// The log lines of the policy, oldest first.
    pub log: Vec<Line>,
    /// The header changes for the first targets.
    pub edits: Vec<Edit>,
}

impl Completed {
    /// The names and URIs of the targets that had their turn, in order.
    pub fn places(&self) -> Vec<&str> {
        let attempts = self.attempts.iter();
        attempts.map(|attempt| attempt.place.as_str()).collect()
    }

    /// The texts of the log lines, oldest first.
    pub fn messages(&self) -> Vec<&str> {
        self.log.iter().map(|line| line.message.as_str()).collect()
    }
}

/// A request on its way through targets.
struct Way<'w> {
    world: &'w World,
    attempts: Vec<Attempt>,
    /// The places of the attempts with their request URIs.
    tried: Vec<(Place, Option<String>)>,
    /// The number of targets named so far.
    named: usize,
    /// Bytes of their texts.
    named_bytes: usize,
    /// The best final response so far.
    best: Option<(Attempt, Vec<(String, String)>)>,
    retry_on: Option<Vec<u16>>,
    memo: Vec<u8>,
}

/// Plays a request with the callees of `world`.
pub(super) fn complete(
    world: &World,
    request: &Request,
    decide: impl FnOnce() -> Verdict,
    on_failure: Option<&dyn Fn() -> NextStep>,
) -> Completed {
    let ended = asking::decide(world.clone(), request.clone(), decide);
    let mut completed = Completed {
        status: 0,
        reason: String::new(),
        headers: Vec::new(),
        attempts: Vec::new(),
        verdict: ended.answer,
        steps: Vec::new(),
        log: ended.log,
        edits: ended.edits,
    };
    let targets = match &completed.verdict {
        Verdict::Forward(forwarding) if !forwarding.targets.is_empty() => ended.targets,
        Verdict::Relay(Some(name)) => vec![Target::next_hop(name)],
        Verdict::Relay(None) | Verdict::Forward(_) => {
            panic!("a request that is relayed as routed has no callee: use decide()")
        }
        Verdict::Pass => panic!("another policy decides on this request: use decide()"),
        Verdict::Drop => return completed,
        Verdict::Reject(rejection) => {
            let rejection = rejection.clone();
            return completed.answered(rejection);
        }
    };
    let mut way = Way {
        world,
        attempts: Vec::new(),
        tried: Vec::new(),
        named: 0,
        named_bytes: 0,
        best: None,
        retry_on: None,
        memo: Vec::new(),
    };
    if let Verdict::Forward(forwarding) = &completed.verdict {
        way.remember(forwarding);
    }
    let mut next = Some(targets);
    let mut tries_left = MOST_TRIES;
    while let Some(targets) = next.take() {
        let is_open = way.follow(targets);
        if let Some(on_failure) = on_failure.filter(|_| is_open && tries_left > 0) {
            tries_left -= 1;
            let failed = way.failed(tries_left);
            let ended = asking::on_failure(world.clone(), request.clone(), failed, on_failure);
            completed.log.extend(ended.log);
            let step = ended.answer;
            completed.steps.push(step.clone());
            match step {
                NextStep::Best => {}
                NextStep::Answer(rejection) => {
                    completed.attempts = way.attempts;
                    return completed.answered(rejection);
                }
                NextStep::Again(forwarding) => {
                    way.remember(&forwarding);
                    next = Some(ended.targets);
                }
            }
        }
    }
    completed.attempts = way.attempts;
    if let Some((best, headers)) = way.best {
        // RFC 3261 §16.7(6)
        completed.status = if best.status == 503 { 500 } else { best.status };
        completed.headers = headers;
    }
    completed
}

impl Completed {
    fn answered(mut self, rejection: Rejection) -> Self {
        let headers = rejection.headers.into_iter();
        self.status = rejection.code;
        self.reason = rejection.reason;
        self.headers = headers.map(|field| (field.name, field.value)).collect();
        self
    }
}

impl Way<'_> {
    fn remember(&mut self, forwarding: &Forwarding) {
        if let Some(memo) = &forwarding.memo {
            self.memo.clone_from(memo);
        }
        if forwarding.retry_on.is_some() {
            self.retry_on.clone_from(&forwarding.retry_on);
        }
    }

    fn failed(&self, tries_left: u8) -> Failed {
        let (best, headers) = self.best.clone().unzip();
        Failed {
            attempts: self.attempts.clone(),
            tried: self.tried.clone(),
            named: self.named,
            named_bytes: self.named_bytes,
            best,
            headers: headers.unwrap_or_default(),
            tries_left,
            memo: self.memo.clone(),
        }
    }

    /// Sends the request to these targets, rank by rank. False if the search is over: with a 2xx or a 6xx response.
    fn follow(&mut self, mut targets: Vec<Target>) -> bool {
        self.named += targets.len();
        self.named_bytes += targets.iter().map(text_bytes).sum::<usize>();
        let is_shared = targets.iter().any(|target| target.weight.is_some());
        // Nothing is drawn: the heaviest target goes first.
        targets.sort_by_key(|target| {
            let weight = is_shared.then_some(target.weight.unwrap_or(1));
            (target.rank, Reverse(weight))
        });
        let turns: Vec<Vec<Target>> = match is_shared {
            true => targets.into_iter().map(|target| vec![target]).collect(),
            false => targets
                .chunk_by(|one, other| one.rank == other.rank)
                .map(<[Target]>::to_vec)
                .collect(),
        };
        let count = turns.len();
        for (turn, targets) in turns.into_iter().enumerate() {
            let is_last = turn + 1 == count;
            let code = self.take_turn(&targets, is_last);
            match code {
                200..=299 | 600.. => return false,
                code if !self.leads_on(code) => return true,
                _ => {}
            }
        }
        true
    }

    /// Sends the request to these targets at once. Returns the code that decides how it goes on.
    fn take_turn(&mut self, targets: &[Target], is_last: bool) -> u16 {
        let mut results: Vec<_> = targets
            .iter()
            .map(|target| self.result(target, is_last))
            .collect();
        // The first success, or 6xx, ends the others.
        let ends = results.iter().filter(|(attempt, _)| {
            attempt.cause == Cause::Answered && matches!(attempt.status, 200..=299 | 600..)
        });
        if let Some(end) = ends.map(|(attempt, _)| attempt.milliseconds).min() {
            for (attempt, headers) in &mut results {
                if attempt.milliseconds > end {
                    attempt.milliseconds = end;
                    attempt.status = 487;
                    attempt.cause = Cause::Cancelled;
                    headers.clear();
                }
            }
        }
        self.attempts
            .extend(results.iter().map(|(attempt, _)| attempt.clone()));
        let tried = targets.iter();
        self.tried
            .extend(tried.map(|target| (target.place.clone(), target.request_uri.clone())));
        let best = results
            .into_iter()
            .min_by_key(|(attempt, _)| order(attempt));
        let Some(best) = best else {
            return 0;
        };
        let code = best.0.status;
        // A response of an earlier turn counts only if this one has none.
        let is_own = |attempt: &Attempt| attempt.cause != Cause::Answered;
        let earlier = self.best.as_ref();
        if !is_own(&best.0) || earlier.is_none_or(|(earlier, _)| is_own(earlier)) {
            self.best = Some(best);
        }
        code
    }

    fn result(&self, target: &Target, is_last: bool) -> (Attempt, Vec<(String, String)>) {
        let callee = self.world.callee(&target.place);
        let first = Duration::from_secs(if is_last { 32 } else { 4 });
        let no_answer = target.no_answer.unwrap_or(first);
        let ring = target.ring.unwrap_or(RING);
        let (status, cause, took) = callee.result(no_answer, ring);
        let attempt = Attempt {
            place: target.place.as_str().to_owned(),
            status,
            cause,
            milliseconds: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        };
        let headers = match cause {
            Cause::Answered => callee.headers.clone(),
            Cause::NoAnswer
            | Cause::RangOut
            | Cause::Cancelled
            | Cause::Unreachable
            | Cause::Unresolved
            | Cause::Refused => Vec::new(),
        };
        (attempt, headers)
    }

    /// Whether the next rank has its turn after this code.
    fn leads_on(&self, code: u16) -> bool {
        match &self.retry_on {
            _ if matches!(code, 401 | 407 | 487) => false,
            Some(codes) => codes.contains(&code) || codes.contains(&(code / 100)),
            None => code == 408 || (500..600).contains(&code),
        }
    }
}

/// The order in which responses are preferred (RFC 3261 §16.7(6)): those of the host come last.
fn order(attempt: &Attempt) -> (bool, u8) {
    let rank = match attempt.status {
        200..=299 => 0,
        600.. => 1,
        300..=399 => 2,
        401 | 407 | 415 | 420 | 484 => 3,
        400..=499 => 4,
        503 => 6,
        _ => 5,
    };
    (attempt.cause != Cause::Answered, rank)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use crate::testing::{Callee, Host};
    use crate::{Refusal, outcome};

    fn invite() -> Request {
        Request::invite("sip:bob@example.com")
    }

    fn host() -> Host {
        Host::new()
            .callee("good", Callee::answers(200))
            .callee("busy", Callee::answers(486))
            .callee("broken", Callee::answers(503).header("Retry-After", "9"))
            .callee("silent", Callee::silent())
            .callee("silent-2", Callee::silent())
            .callee("rings", Callee::rings())
            .callee("gone", Callee::unreachable())
            .callee("never", Callee::answers(603))
            .callee(
                "moved",
                Callee::answers(302)
                    .header("Contact", "<sip:c@h>;q=0.2")
                    .header("Contact", "<sip:d@h>"),
            )
    }

    fn statuses(completed: &Completed) -> Vec<(u16, Cause, u32)> {
        let attempts = completed.attempts.iter();
        let statuses = attempts.map(|one| (one.status, one.cause, one.milliseconds));
        statuses.collect()
    }

    #[test]
    fn targets_are_tried_in_turn() {
        let within = Duration::from_millis(700);
        let call = host().request(invite()).complete(|| {
            relay_to("silent")
                .within(within)
                .or("gone")
                .or("good")
                .or("busy")
        });
        assert_eq!(call.status, 200);
        assert_eq!(call.places(), ["silent", "gone", "good"]);
        assert_eq!(
            statuses(&call),
            [
                (408, Cause::NoAnswer, 700),
                (503, Cause::Unreachable, 0),
                (200, Cause::Answered, 20)
            ]
        );
        // A target that another one follows has four seconds, the last one 32.
        let call = host()
            .request(invite())
            .complete(|| relay_to("silent").or("silent-2"));
        let waited: Vec<_> = statuses(&call).iter().map(|(.., time)| *time).collect();
        assert_eq!((call.status, waited), (408, vec![4_000, 32_000]));
    }

    #[test]
    fn codes_decide_whether_the_next_target_has_its_turn() {
        let places = |verdict: fn() -> Verdict| {
            let call = host().request(invite()).complete(verdict);
            (call.status, call.attempts.len())
        };
        assert_eq!(places(|| relay_to("busy").or("good")), (486, 1));
        assert_eq!(
            places(|| relay_to("busy").or("good").retry_on([4])),
            (200, 2)
        );
        assert_eq!(
            places(|| relay_to("broken").or("good").retry_on([486])),
            (500, 1)
        );
        assert_eq!(
            places(|| relay_to("never").or("good").retry_on([4, 5])),
            (603, 1)
        );
        // An answer of an earlier target is better than none.
        assert_eq!(places(|| relay_to("broken").or("silent")), (500, 2));
    }

    #[test]
    fn targets_of_one_rank_go_together() {
        let call = host()
            .request(invite())
            .complete(|| fork(["rings", "busy", "good"]));
        assert_eq!(call.status, 200);
        assert_eq!(
            statuses(&call),
            [
                (487, Cause::Cancelled, 20),
                (486, Cause::Answered, 20),
                (200, Cause::Answered, 20)
            ]
        );
        let call = host()
            .request(invite())
            .complete(|| fork(["busy", "broken", "silent"]));
        assert_eq!(call.status, 486);
    }

    #[test]
    fn the_heaviest_target_of_a_shared_rank_goes_first() {
        let call = host()
            .request(invite())
            .complete(|| relay_to("gone").weight(1).and("good").weight(3));
        assert_eq!(call.places(), ["good"]);
    }

    #[test]
    fn a_policy_is_asked_after_failures() {
        let decide = || relay_to("moved").memo("m");
        let after = || match outcome::contacts().first() {
            Some(contact) => {
                assert_eq!((outcome::memo(), outcome::tries_left()), (b"m".to_vec(), 7));
                assert_eq!(
                    outcome::header("contact").as_deref(),
                    Some("<sip:c@h>;q=0.2")
                );
                again(relay_to_uri(contact))
            }
            None => answer(480, "Nobody").header("X-Tried", outcome::attempts().len().to_string()),
        };
        let host = host().callee("sip:d@h", Callee::answers(404));
        let call = host.request(invite()).complete_with(decide, after);
        assert_eq!((call.status, &*call.reason), (480, "Nobody"));
        assert_eq!(call.headers, [("X-Tried".to_owned(), "2".to_owned())]);
        assert_eq!(call.places(), ["moved", "sip:d@h"]);
        assert_eq!(call.steps.len(), 2);

        let best = host
            .request(invite())
            .complete_with(|| relay_to("broken"), best_answer);
        assert_eq!((best.status, best.headers.len()), (500, 1));
        // It is not asked after a success and after a 6xx.
        for place in ["good", "never"] {
            let call = host
                .request(invite())
                .complete_with(|| relay_to(place), || panic!("not asked"));
            assert!(call.steps.is_empty());
        }
        assert_eq!(
            host.request(invite())
                .decide(|| {
                    assert!(outcome::attempts().is_empty());
                    pass()
                })
                .verdict,
            pass()
        );
    }

    #[test]
    fn further_targets_may_have_codes_of_their_own() {
        let decide = || relay_to("busy").or("good").retry_on([5]);
        let host = host().callee("busy-2", Callee::answers(486));
        let places = |on_failure: fn() -> NextStep| {
            let call = host.request(invite()).complete_with(decide, on_failure);
            call.attempts.len()
        };
        let again_once = || match outcome::attempts().len() {
            1 => again(relay_to("busy-2").or("good").retry_on([4])),
            _ => best_answer(),
        };
        assert_eq!(places(again_once), 3);
        let with_those_of_before = || match outcome::attempts().len() {
            1 => again(relay_to("busy-2").or("good")),
            _ => best_answer(),
        };
        assert_eq!(places(with_those_of_before), 2);
    }

    #[test]
    fn a_policy_that_never_gives_up_is_asked_eight_times() {
        let names: Vec<_> = (0..9).map(|n| format!("gone-{n}")).collect();
        let gone = |host: Host, name: &String| host.callee(name, Callee::unreachable());
        let host = names.iter().fold(host(), gone);
        let call = host.request(invite()).complete_with(
            || relay_to(&names[0]),
            || again(relay_to(&names[outcome::attempts().len()])),
        );
        assert_eq!((call.steps.len(), call.attempts.len()), (8, 9));
        assert_eq!(call.status, 500);
    }

    /// RFC 3261 §16.5
    #[test]
    fn a_target_is_named_once() {
        let own = Target::next_hop("gone").request_uri("sip:bob@other.example.com");
        let call = host().request(invite()).complete_with(
            || relay_to("gone").or("gone").or(own),
            || match outcome::attempts().len() {
                2 => again(relay_to("gone").or("busy")),
                _ => best_answer(),
            },
        );
        assert_eq!(call.places(), ["gone", "gone", "busy"]);
        let refused = "the host does not accept the target gone: bad-value";
        assert_eq!(call.messages(), [refused; 2]);
    }

    #[test]
    fn a_refused_target_is_left_out_and_logged() {
        let host = host().refusing("other", Refusal::NotPermitted);
        let call = host
            .request(invite())
            .complete(|| relay_to("other").or("good"));
        assert_eq!(call.places(), ["good"]);
        assert_eq!(
            call.messages(),
            ["the host does not accept the target other: not-permitted"]
        );
        let to = |user: u8| Target::next_hop("gone").request_uri(format!("sip:{user}@example.com"));
        let many = host.request(invite()).complete(|| in_turn((0..17).map(to)));
        assert_eq!(many.attempts.len(), 16);
    }

    #[test]
    fn the_texts_of_all_targets_are_bounded() {
        let long = |user: u8| {
            let target = Target::next_hop("gone").request_uri(format!("sip:{user}@example.com"));
            (0..15).fold(target, |target, _| {
                target.header("X-Long", "x".repeat(2048))
            })
        };
        let decide = || in_turn((0..3).map(long));
        let again_once = || match outcome::attempts().len() {
            2 => again(in_turn([long(4), Target::next_hop("busy")])),
            _ => best_answer(),
        };
        let call = host().request(invite()).complete_with(decide, again_once);
        assert_eq!(call.places(), ["gone", "gone", "busy"]);
        let refused = "the host does not accept the target gone: too-many";
        assert_eq!(call.messages(), [refused; 2]);
    }

    #[test]
    #[should_panic(expected = "the host accepts no target of this request")]
    fn a_request_without_targets_goes_nowhere() {
        let host = host().refusing("other", Refusal::Unknown);
        host.request(invite()).decide(|| in_turn(["other"]));
    }

    #[test]
    #[should_panic(expected = "the host refuses this target: within() is for 100 ms to 32 s")]
    fn bad_values_do_not_pass() {
        let time = Duration::from_secs(60);
        host()
            .request(invite())
            .decide(|| relay_to("good").within(time));
    }

    #[test]
    #[should_panic(expected = "it has more than 256 bytes")]
    fn a_long_memo_does_not_pass() {
        host()
            .request(invite())
            .decide(|| relay_to("good").memo([0; 257]));
    }

    #[test]
    #[should_panic(expected = "the host does not accept the codes")]
    fn codes_for_the_sender_do_not_pass() {
        host()
            .request(invite())
            .decide(|| relay_to("good").retry_on([407]));
    }
}
