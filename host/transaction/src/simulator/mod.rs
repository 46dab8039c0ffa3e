//! A simulator: a caller, the host and its targets on a network that loses, doubles and reorders messages, in virtual time.
//!
//! Each [`Schedule`] is one request with everything that happens around it. The checks in [`log`] hold for all of them; proptest reduces one
//! that breaks them to a small one. `PORTCULLIS_SCHEDULES` sets their number, `PORTCULLIS_SEED` chooses others.

mod callee;
mod caller;
mod log;
mod network;
mod schedule;
mod world;

use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use schedule::schedule;
use world::World;

/// In a normal test run.
const SCHEDULES: u32 = 100_000;

#[test]
fn every_schedule_ends_with_one_answer_and_an_empty_table() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    let config = Config {
        cases: number("PORTCULLIS_SCHEDULES").unwrap_or(SCHEDULES),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&number("PORTCULLIS_SEED").unwrap_or(0).to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let result = runner.run(&schedule(), |schedule| {
        World::new(&schedule).run();
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, schedule)) => panic!("{reason}\nin {schedule:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}
