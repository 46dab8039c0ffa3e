//! The activities besides the counted traffic. Each actor takes turns until its phase ends.

mod attacks;
mod changes;
mod failures;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Result, anyhow};

use crate::site::Site;
use crate::turns::{Stop, StopOnDrop};

/// An activity that is repeated.
pub(crate) struct Actor {
    /// Name in the report and in errors.
    name: &'static str,
    /// The pause before each turn.
    pause: Duration,
    /// One turn, with its number among all turns of the actor.
    turn: fn(&Site, u64) -> Result<()>,
    /// Whether it causes a disruption itself. Other actors may fail during a disruption.
    disrupts: bool,
}

/// All actors. The pauses are short enough that each takes a turn within the twenty seconds of the shortest soak.
const ACTORS: [Actor; 10] = [
    Actor::new("policy file swapped", 300, changes::swap_file),
    Actor::new("tenant's policy pushed", 400, changes::push),
    Actor::new("tables reloaded", 500, changes::reload),
    Actor::new("rows changed", 900, changes::change_rows),
    Actor::new("hostile tenants asked", 10, attacks::ask_hostile_tenants),
    Actor::new("slow clients", 1500, attacks::slow_clients),
    Actor::new("junk sent", 50, attacks::junk),
    Actor::failure("database stopped", 2500, failures::stop_database),
    Actor::failure("descriptors short", 2000, failures::exhaust_descriptors),
    Actor::failure("disk filled", 2200, failures::fill_disk),
];

impl Actor {
    const fn new(name: &'static str, pause_ms: u64, turn: fn(&Site, u64) -> Result<()>) -> Self {
        Self {
            name,
            pause: Duration::from_millis(pause_ms),
            turn,
            disrupts: false,
        }
    }

    const fn failure(
        name: &'static str,
        pause_ms: u64,
        turn: fn(&Site, u64) -> Result<()>,
    ) -> Self {
        Self {
            disrupts: true,
            ..Self::new(name, pause_ms, turn)
        }
    }

    fn run(&self, site: &Site, stop: &Stop, first: u64) {
        let mut number = first;
        while stop.pause(self.pause) {
            let (turn, calm) = site.disruptions.during(|| self.turn(site, number));
            match turn {
                Ok(()) => site.books.count(self.name),
                Err(error) if calm || self.disrupts => {
                    site.books.broken(format!("{}: {error:#}", self.name));
                }
                Err(_) => site.books.count("turns that failed beside a disruption"),
            }
            number += 1;
        }
    }

    /// Takes one turn. A panic of a helper is the error of the turn.
    fn turn(&self, site: &Site, number: u64) -> Result<()> {
        let turn = AssertUnwindSafe(|| (self.turn)(site, number));
        std::panic::catch_unwind(turn).unwrap_or_else(|panic| Err(anyhow!(panic_text(&*panic))))
    }
}

/// Runs all actors for this time. Turn numbers start at `first`.
pub(crate) fn run_all(site: &Site, length: Duration, first: u64) {
    let stop = Stop::default();
    std::thread::scope(|threads| {
        let _actors = StopOnDrop(&stop);
        for actor in &ACTORS {
            let stop = &stop;
            threads.spawn(move || actor.run(site, stop, first));
        }
        stop.pause(length);
    });
}

/// Returns the message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

/// Returns the names of all actors.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ACTORS.iter().map(|actor| actor.name)
}
