//! How far a host has got in ending without a lost call. The control side sets it; workers read it for each new request.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What a host that was asked to end still accepts.
#[derive(Debug, Default)]
pub struct Drain {
    stage: AtomicU8,
    has_predecessor: AtomicBool,
}

/// A stage on the way to the end. A later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everything is accepted.
    Serving,
    /// Everything is accepted, but load balancers and monitors learn that the host will end: `/readyz` and OPTIONS to the host are answered 503.
    Announced,
    /// Requests outside of dialogs are answered 503.
    Refusing,
}

impl Drain {
    /// The present stage.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            0 => Stage::Serving,
            1 => Stage::Announced,
            _ => Stage::Refusing,
        }
    }

    /// Moves on to a stage. There is no way back.
    pub fn move_to(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// Whether the process before an upgrade still lives: it gets the messages of its transactions through this one.
    pub fn has_predecessor(&self) -> bool {
        self.has_predecessor.load(Ordering::Relaxed)
    }

    /// Sets whether that process still lives.
    pub fn set_predecessor(&self, lives: bool) {
        self.has_predecessor.store(lives, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_advance() {
        let drain = Drain::default();
        assert_eq!(drain.stage(), Stage::Serving);
        for stage in [Stage::Announced, Stage::Refusing] {
            drain.move_to(stage);
            assert_eq!(drain.stage(), stage);
        }
        drain.move_to(Stage::Announced);
        assert_eq!(drain.stage(), Stage::Refusing);
    }
}
