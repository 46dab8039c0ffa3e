//! One run: everything that happens, in the order of time.

use std::time::Duration;

use portcullis_sip::Transport;

use super::callee::{Callee, Reaction};
use super::caller::Caller;
use super::log::{Duty, Log};
use super::network::{Action, Network};
use super::schedule::{Decision, Schedule, Target};
use crate::event::{Event, Failure};
use crate::outbox::What;
use crate::plan::{self, Plan, StatusSet, Step};
use crate::slab::Id;
use crate::testing::{CALLER, FIRST_TCP, Host, code, from_callee, from_caller, small};
use crate::time::Time;
use crate::transactions::Receipt;

/// The caller, the host, its targets, and the network.
pub(super) struct World<'s> {
    schedule: &'s Schedule,
    host: Host,
    caller: Caller,
    /// Every target that may be tried; its number is that of its branch.
    targets: Vec<&'s Target>,
    callees: Vec<Callee>,
    network: Network,
    log: Log,
    id: Option<Id>,
    steps: usize,
    /// Targets that the host was given.
    given: usize,
    now: u64,
}

impl<'s> World<'s> {
    pub(super) fn new(schedule: &'s Schedule) -> Self {
        let mut targets: Vec<&Target> = Vec::new();
        for decision in [&schedule.decision].into_iter().chain(&schedule.steps) {
            targets.extend(targets_of(decision.as_ref().map(|(_, decision)| decision)));
        }
        let callees = targets.iter().enumerate().map(|(number, target)| {
            let transport = transport(target.has_tcp);
            Callee::new(number, transport, target.callee.clone())
        });
        let breadth = schedule
            .max_breadth
            .map(|breadth| format!("Max-Breadth: {breadth}\r\n"));
        let more = format!("{}X-Whole: yes\r\n", breadth.unwrap_or_default());
        let (caller, request) = Caller::new(
            schedule.is_invite,
            transport(schedule.caller_has_tcp),
            &more,
        );
        let mut network = Network::new(schedule.seed, schedule.network);
        let is_reliable = caller.transport.is_reliable();
        network.send(0, is_reliable, || Action::FromCaller(request.clone()));
        if let (Some(after), true) = (schedule.cancel, schedule.is_invite) {
            network.plan(after.into(), Action::Cancel);
        }
        Self {
            host: Host::new(small()),
            caller,
            callees: callees.collect(),
            log: Log::new(schedule.is_invite, targets.len()),
            targets,
            network,
            schedule,
            id: None,
            steps: 0,
            given: 0,
            now: 0,
        }
    }

    /// Runs until nothing happens any more, and checks what has happened.
    pub(super) fn run(mut self) {
        let mut count = 0;
        while let Some(next) = self.next() {
            count += 1;
            assert!(count < 100_000, "a timer that is due stays due");
            // No input comes after the setup limit and the last retransmissions; what is left after that is left for ever.
            assert!(next < 1_500_000, "something never ends");
            self.now = next.max(self.now);
            self.host.now = Time::from_millis(self.now);
            self.step();
        }
        if self.id.is_some() {
            self.log.check();
        }
        assert!(self.host.core.is_empty(), "{:?} is left", self.host.core);
        assert_eq!(self.host.core.usage().bytes, 0, "bytes are left");
    }

    fn next(&self) -> Option<u64> {
        let callees = self.callees.iter().filter_map(Callee::deadline);
        let timers = [self.host_deadline(), self.caller.deadline()];
        let timers = timers
            .into_iter()
            .flatten()
            .chain(callees)
            .map(Time::as_millis);
        timers.chain(self.network.next()).min()
    }

    /// The first thing that is due.
    fn step(&mut self) {
        let now = self.time();
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|at| at <= now);
        if self.network.next().is_some_and(|at| at <= self.now) {
            if let Some(action) = self.network.take() {
                self.act(action);
            }
        } else if is_due(self.host_deadline()) {
            self.host.core.expire(now, 10);
            self.drain();
            self.check_timers();
        } else if is_due(self.caller.deadline()) {
            let sent = self.caller.expire(now);
            self.caller_sends(sent);
        } else {
            for number in 0..self.callees.len() {
                if is_due(self.callees[number].deadline()) {
                    let sent = self.callees[number].expire(now);
                    self.callee_sends(number, sent);
                }
            }
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.time();
        match action {
            Action::FromCaller(text) => self.host_receives_request(&text),
            Action::FromCallee(number, text) => self.host_receives_response(number, &text),
            Action::ToCaller(text) => {
                let sent = self.caller.receive(now, &text);
                self.caller_sends(sent);
            }
            Action::ToCallee(number, text) => {
                let reaction = self.callees[number].receive(now, &text);
                self.react(number, reaction);
            }
            Action::Cancel => {
                let sent = self.caller.give_up(now);
                self.caller_sends(sent);
            }
            Action::Decide => self.decide(),
            Action::Step => self.decide_step(),
            Action::Write(branch) => self.write(branch),
            Action::Error(branch) => {
                self.log.branches[usize::from(branch)].failed = true;
                if let Some(id) = self.id {
                    self.host.core.fail(now, id, branch, Failure::Unreachable);
                }
                self.drain();
            }
            Action::Say(number) => {
                let reaction = self.callees[number].say(now);
                self.react(number, reaction);
            }
            Action::Again(number, interval) => {
                if let Some(text) = self.callees[number].success_again() {
                    self.callee_sends(number, Some(text));
                    let next = (2 * interval).min(4_000);
                    // The callee gives up after 64·T1; a few retransmissions show the same.
                    if interval < 4_000 {
                        self.network
                            .plan(self.now + next, Action::Again(number, next));
                    }
                }
            }
        }
    }

    fn host_receives_request(&mut self, text: &str) {
        let arrival = from_caller(self.caller.transport);
        if self.id.is_none() && !text.starts_with("CANCEL") && !text.starts_with("ACK") {
            self.id = Some(self.host.begin(text.as_bytes(), &arrival));
            if let Some((after, _)) = self.schedule.decision {
                self.network
                    .plan(self.now + u64::from(after), Action::Decide);
            }
            return self.drain();
        }
        match self.host.receive(text.as_bytes(), &arrival) {
            Receipt::Handled => {}
            Receipt::Stateless => self.relay_statelessly(text),
            receipt @ (Receipt::New(_)
            | Receipt::Again
            | Receipt::Stray
            | Receipt::Conflict
            | Receipt::Changed
            | Receipt::Unreadable) => panic!("{receipt:?}: {text}"),
        }
        self.drain();
    }

    /// An ACK to a 2xx response reaches its callee; a late CANCEL or ACK ends somewhere.
    fn relay_statelessly(&mut self, text: &str) {
        let tag = text.split(";tag=callee").nth(1);
        let number = tag.and_then(|tag| tag.split("\r\n").next()?.parse().ok());
        if let (true, Some(number)) = (text.starts_with("ACK"), number) {
            self.send_to_callee(number, text.to_owned());
        }
    }

    fn host_receives_response(&mut self, number: usize, text: &str) {
        let arrival = from_callee(name(number, self.targets[number]));
        let duty = self.log.receives(self.now, number, text);
        let before = (self.log.branches[number].acks, self.log.finals());
        let mut is_relayed = false;
        match self.host.receive(text.as_bytes(), &arrival) {
            Receipt::Handled => {}
            Receipt::Stateless | Receipt::Again => {
                assert!((200..300).contains(&code(text)) && self.schedule.is_invite);
                is_relayed = true;
            }
            // The transaction ended long ago.
            Receipt::Stray => {}
            receipt @ (Receipt::New(_)
            | Receipt::Conflict
            | Receipt::Changed
            | Receipt::Unreadable) => {
                panic!("{receipt:?}: {text}");
            }
        }
        self.drain();
        let after = (self.log.branches[number].acks, self.log.finals());
        match duty {
            Duty::Acknowledge => assert_eq!(after.0, before.0 + 1, "one ACK for each failure"),
            Duty::PassOn => assert!(is_relayed || after.1 == before.1 + 1, "each 2xx passes"),
            Duty::None => {}
        }
    }

    fn decide(&mut self) {
        let (now, Some(id)) = (self.time(), self.id) else {
            return;
        };
        match self
            .schedule
            .decision
            .as_ref()
            .map(|(_, decision)| decision)
        {
            Some(Decision::Answer(code)) => {
                self.host.core.answer::<&str>(now, id, *code, "", &[]);
            }
            decision @ (Some(Decision::Targets(_) | Decision::Best) | None) => {
                let targets = self.next_targets(decision);
                let plan = Plan {
                    targets,
                    retry_on: match self.schedule.retries_all {
                        true => StatusSet::EMPTY.with_class(3).with_class(4).with_class(5),
                        false => StatusSet::default(),
                    },
                    asks: if self.schedule.steps.is_empty() {
                        0
                    } else {
                        u8::MAX
                    },
                    ..Plan::new(Vec::new())
                };
                // Too late after a CANCEL.
                let _planned = self.host.core.plan(now, id, plan);
            }
        }
        self.drain();
    }

    fn decide_step(&mut self) {
        let (now, Some(id)) = (self.time(), self.id) else {
            return;
        };
        let step = self.schedule.steps.get(self.steps).and_then(Option::as_ref);
        self.steps += 1;
        match step.map(|(_, step)| step) {
            Some(Decision::Answer(code)) => {
                self.host.core.answer::<&str>(now, id, *code, "", &[]);
            }
            decision @ Some(Decision::Targets(_)) => {
                let step = Step::again(self.next_targets(decision));
                let _taken = self.host.core.step(now, id, step);
            }
            Some(Decision::Best) | None => {
                let _taken = self.host.core.step(now, id, Step::Best);
            }
        }
        self.drain();
    }

    /// The targets of a decision, with the names of their next hops.
    fn next_targets(&mut self, decision: Option<&Decision>) -> Vec<plan::Target<usize>> {
        let first = self.given;
        let targets = targets_of(decision);
        self.given += targets.len();
        let targets = targets
            .iter()
            .zip(first..)
            .map(|(target, number)| plan::Target {
                to: name(number, target),
                rank: target.rank,
                no_answer: target
                    .no_answer
                    .map(|limit| Duration::from_millis(limit.into())),
                ring: Duration::from_millis(target.ring.into()),
            });
        targets.collect()
    }

    fn write(&mut self, branch: u8) {
        let (now, Some(id)) = (self.time(), self.id) else {
            return;
        };
        let target = self.targets[usize::from(branch)];
        if !target.is_written {
            self.log.branches[usize::from(branch)].failed = true;
            self.host.core.fail(now, id, branch, Failure::Unresolved);
        } else if self.host.forward(id, branch)
            && let Some(after) = target.error
        {
            self.network
                .plan(self.now + u64::from(after), Action::Error(branch));
        }
        self.drain();
    }

    /// Sends what the host sends, and plans what it asks for.
    fn drain(&mut self) {
        let caller: std::net::SocketAddr = CALLER.parse().expect("an address");
        let mut outbox = std::mem::take(&mut self.host.outbox);
        self.host.core.take_sends(&mut outbox);
        for outgoing in outbox.iter() {
            let text = String::from_utf8(outgoing.bytes.to_vec()).expect("ASCII");
            let is_reliable = outgoing.to.transport.is_reliable();
            match (outgoing.what, outgoing.branch) {
                (
                    What::Response
                    | What::ResponseRetransmission
                    | What::ResponseUnasked
                    | What::Reply
                    | What::ReplyRetransmission
                    | What::ReplyUnasked,
                    _,
                ) => {
                    assert_eq!(outgoing.to.addr, caller);
                    self.log.response(outgoing.what, &text);
                    self.network
                        .send(self.now, is_reliable, || Action::ToCaller(text.clone()));
                }
                (what, Some(number)) => {
                    let number = usize::from(number);
                    self.log.request(self.now, what, number, &text);
                    self.send_to_callee(number, text);
                }
                (what, None) => panic!("{what:?} without a branch"),
            }
        }
        self.host.outbox = outbox;
        while let Some(event) = self.host.core.poll_event() {
            match event {
                Event::Start { branch, .. } => {
                    let after = self.targets[usize::from(branch)].written_after;
                    self.network
                        .plan(self.now + u64::from(after), Action::Write(branch));
                }
                Event::Ask { .. } => {
                    let step = self.schedule.steps.get(self.steps);
                    let after = match step {
                        Some(Some((after, _))) => Some(*after),
                        // Nobody answers: the setup limit ends it.
                        Some(None) => None,
                        None => Some(0),
                    };
                    if let Some(after) = after {
                        self.network.plan(self.now + u64::from(after), Action::Step);
                    }
                }
                Event::Outcome { .. } | Event::Failover { .. } => {}
                Event::Ended { end, .. } => self.log.ended(end),
            }
        }
    }

    fn react(&mut self, number: usize, reaction: Reaction) {
        for text in reaction.send {
            self.callee_sends(number, Some(text));
        }
        if let Some(after) = reaction.say_after {
            self.network.plan(self.now + after, Action::Say(number));
        }
        if reaction.is_success {
            self.network
                .plan(self.now + 500, Action::Again(number, 500));
        }
    }

    fn caller_sends(&mut self, sent: Option<String>) {
        if let Some(text) = sent {
            let is_reliable = self.caller.transport.is_reliable();
            self.network
                .send(self.now, is_reliable, || Action::FromCaller(text.clone()));
        }
    }

    fn callee_sends(&mut self, number: usize, sent: Option<String>) {
        if let Some(text) = sent {
            let is_reliable = self.callees[number].transport.is_reliable();
            let arrives = || Action::FromCallee(number, text.clone());
            self.network.send(self.now, is_reliable, arrives);
        }
    }

    fn send_to_callee(&mut self, number: usize, text: String) {
        let is_reliable = self.callees[number].transport.is_reliable();
        let arrives = || Action::ToCallee(number, text.clone());
        self.network.send(self.now, is_reliable, arrives);
    }

    /// When the host handles its timers.
    fn host_deadline(&self) -> Option<Time> {
        let lateness = Duration::from_millis(self.schedule.lateness.into());
        self.host.core.next_deadline().map(|at| at + lateness)
    }

    /// The wheel has missed nothing.
    fn check_timers(&self) {
        let due = self
            .host
            .core
            .next_deadline()
            .is_some_and(|next| next <= self.time());
        let first = self.host.core.first_deadline();
        let late = first.map_or(0, |first| self.now.saturating_sub(first.as_millis()));
        // A tick of the wheel has ten milliseconds.
        assert!(due || late < 10, "a timer is {late} ms late");
    }

    fn time(&self) -> Time {
        Time::from_millis(self.now)
    }
}

fn targets_of(decision: Option<&Decision>) -> &[Target] {
    match decision {
        Some(Decision::Targets(targets)) => targets,
        Some(Decision::Answer(_) | Decision::Best) | None => &[],
    }
}

/// The next hop of a target.
fn name(number: usize, target: &Target) -> usize {
    number + if target.has_tcp { FIRST_TCP } else { 0 }
}

fn transport(has_tcp: bool) -> Transport {
    if has_tcp {
        Transport::Tcp
    } else {
        Transport::Udp
    }
}
