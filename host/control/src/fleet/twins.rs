//! Notices another process that announces itself under the same name.
//!
//! A row that somebody else has written since the own last announcement is a sign. One sign is not enough: at an upgrade, the process before may
//! write the row once more.

use std::time::{Duration, Instant};

use portcullis_fleet::directory::Twin;

/// Signs before the other process is believed in.
const SIGNS: u32 = 2;

/// How long after the last sign the other process is believed to be there.
const LASTS: Duration = Duration::from_secs(15);

/// Other processes with the same name.
#[derive(Debug, Default)]
pub(crate) struct Twins {
    signs: u32,
    /// The last sign.
    last: Option<Instant>,
    /// The first sign, by the clock of the database.
    first: i64,
    current: Option<Twin>,
}

/// What an announcement has changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TwinChange {
    /// There is another process.
    Appeared(Twin),
    /// There is none any more.
    Vanished,
}

impl Twins {
    /// Notes what an announcement has found: the address of another process that has written the row since, and the clock of the database.
    pub(crate) fn note(
        &mut self,
        found: Option<String>,
        now_ms: i64,
        now: Instant,
    ) -> Option<TwinChange> {
        let is_over = self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) > LASTS);
        let Some(address) = found else {
            if is_over {
                let had_one = self.current.is_some();
                *self = Self::default();
                return had_one.then_some(TwinChange::Vanished);
            }
            return None;
        };
        if is_over && self.current.is_none() {
            *self = Self::default();
        }
        if self.signs == 0 {
            self.first = now_ms;
        }
        self.signs = self.signs.saturating_add(1);
        self.last = Some(now);
        if self.signs < SIGNS {
            return None;
        }
        let since = self.first;
        let is_new = self.current.is_none();
        let twin = Twin { address, since };
        self.current = Some(twin.clone());
        is_new.then_some(TwinChange::Appeared(twin))
    }

    /// The other process.
    pub(crate) fn current(&self) -> Option<&Twin> {
        self.current.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Option<String> {
        Some("udp:192.0.2.9:5060".to_owned())
    }

    #[test]
    fn one_sign_is_that_of_a_predecessor_and_two_are_a_twin() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut twins = Twins::default();
        assert_eq!(twins.note(found(), 100, at(0)), None);
        assert_eq!(twins.note(None, 102, at(2)), None);
        assert_eq!(twins.current(), None);
        // Much later: again a predecessor.
        assert_eq!(twins.note(None, 130, at(30)), None);
        assert_eq!(twins.note(found(), 140, at(40)), None);
        let twin = Twin {
            address: "udp:192.0.2.9:5060".into(),
            since: 140,
        };
        let appeared = TwinChange::Appeared(twin.clone());
        assert_eq!(twins.note(found(), 142, at(42)), Some(appeared));
        assert_eq!(twins.note(found(), 144, at(44)), None, "told once");
        assert_eq!(twins.note(None, 150, at(50)), None);
        assert_eq!(twins.current(), Some(&twin));
        assert_eq!(twins.note(None, 160, at(60)), Some(TwinChange::Vanished));
        assert_eq!(twins.current(), None);
    }
}
