//! What happens in one run.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// One request and all that happens to it. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    /// Decides the fate of each datagram.
    pub(super) seed: u32,
    pub(super) network: Weather,
    /// How late the host handles its timers.
    pub(super) lateness: u16,
    pub(super) is_invite: bool,
    pub(super) caller_has_tcp: bool,
    pub(super) max_breadth: Option<u8>,
    /// The decision, and when it comes; `None` for never.
    pub(super) decision: Option<(u32, Decision)>,
    /// Whether every failure lets the next rank have its turn.
    pub(super) retries_all: bool,
    /// Answers to being asked for the next step, in turn.
    pub(super) steps: Vec<Option<(u32, Decision)>>,
    /// When the caller gives up. It cancels once it has heard something.
    pub(super) cancel: Option<u32>,
}

/// What a network without guarantees does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    /// In percent.
    pub(super) lost: u8,
    pub(super) doubled: u8,
    /// Datagrams take up to this time, each its own.
    pub(super) delay: u16,
}

#[derive(Clone, Debug)]
pub(super) enum Decision {
    Targets(Vec<Target>),
    Answer(u16),
    /// For a step only: the best answer.
    Best,
}

#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) rank: u8,
    pub(super) no_answer: Option<u32>,
    pub(super) ring: u32,
    pub(super) has_tcp: bool,
    /// When its request is written, and whether that succeeds.
    pub(super) written_after: u32,
    pub(super) is_written: bool,
    /// When the network reports an error after the request was sent.
    pub(super) error: Option<u32>,
    pub(super) callee: Callee,
}

/// The behaviour of a user agent.
#[derive(Clone, Debug)]
pub(super) struct Callee {
    /// Codes, each with the time since the one before.
    pub(super) says: Vec<(u32, u16)>,
    pub(super) obeys_cancel: bool,
}

pub(super) fn schedule() -> impl Strategy<Value = Schedule> {
    let lateness = prop_oneof![2 => Just(0), 1 => 1..700_u16];
    let first = (
        any::<u32>(),
        weather(),
        lateness,
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
    );
    let decision = prop_oneof![
        1 => Just(None),
        30 => (delay(), decision()).prop_map(Some),
    ];
    let step = prop_oneof![
        1 => Just(None),
        10 => (delay(), step()).prop_map(Some),
    ];
    let rest = (
        option::weighted(0.1, 0..4_u8),
        decision,
        any::<bool>(),
        prop_oneof![2 => Just(Vec::new()), 1 => vec(step, 1..3)],
        option::weighted(0.3, prop_oneof![0..50_u32, 0..5_000_u32, 0..40_000_u32]),
    );
    (first, rest).prop_map(
        |(
            (seed, network, lateness, is_invite, caller_has_tcp),
            (max_breadth, decision, retries_all, steps, cancel),
        )| Schedule {
            seed,
            network,
            lateness,
            is_invite,
            caller_has_tcp,
            max_breadth,
            decision,
            retries_all,
            steps,
            cancel,
        },
    )
}

fn weather() -> impl Strategy<Value = Weather> {
    let some = (0..40_u8, 0..30_u8, 1..400_u16);
    prop_oneof![Just((0, 0, 1)), some].prop_map(|(lost, doubled, delay)| Weather {
        lost,
        doubled,
        delay,
    })
}

fn delay() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0), 2 => 0..300_u32, 1 => 0..40_000_u32]
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![
        10 => vec(target(), 1..5).prop_map(Decision::Targets),
        1 => final_code().prop_map(Decision::Answer),
    ]
}

fn step() -> impl Strategy<Value = Decision> {
    prop_oneof![
        3 => vec(target(), 1..3).prop_map(Decision::Targets),
        1 => final_code().prop_map(Decision::Answer),
        1 => Just(Decision::Best),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    let times = (
        option::weighted(0.4, 100..8_000_u32),
        prop_oneof![1_000..30_000_u32, 60_000..200_000_u32],
        prop_oneof![5 => Just(0), 1 => 0..6_000_u32],
    );
    let errors = (
        prop::bool::weighted(0.95),
        option::weighted(0.1, 0..2_000_u32),
    );
    (0..3_u8, times, prop::bool::weighted(0.2), errors, callee()).prop_map(
        |(rank, (no_answer, ring, written_after), has_tcp, (is_written, error), callee)| Target {
            rank,
            no_answer,
            ring,
            has_tcp,
            written_after,
            is_written,
            error,
            callee,
        },
    )
}

fn callee() -> impl Strategy<Value = Callee> {
    let after = || prop_oneof![3 => 0..200_u32, 1 => 0..10_000_u32, 1 => 0..100_000_u32];
    let provisional = prop_oneof![Just(100_u16), Just(180), Just(183)];
    let end = option::weighted(0.8, (after(), final_code()));
    let another = option::weighted(0.1, (after(), Just(200)));
    let says = (vec((after(), provisional), 0..4), end, another);
    let says = says.prop_map(|(mut says, end, another)| {
        says.extend(end);
        // Of another user agent behind a proxy.
        says.extend(another);
        says
    });
    (says, prop::bool::weighted(0.85))
        .prop_map(|(says, obeys_cancel)| Callee { says, obeys_cancel })
}

fn final_code() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![
        200, 200, 200, 200, 302, 401, 404, 407, 408, 480, 484, 486, 487, 500, 503, 600, 603,
    ])
}
