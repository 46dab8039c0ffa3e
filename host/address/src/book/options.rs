//! Options of change detection.

use std::time::Duration;

use crate::database::Look;

/// A table whose database does not report changes is read again after this multiple of the duration of the last read, but no later
/// than after [`BookOptions::reread`].
const TRUST_TIMES: u32 = 60;

/// Options of change detection.
#[derive(Clone, Copy, Debug)]
pub struct BookOptions {
    /// Longest time between two checks for changes. Up to a second, they are as frequent as the looks at the database are cheap
    /// ([`Follower`](portcullis_database::Follower)).
    pub poll: Duration,
    /// Longest interval between two full reads of a table whose database does not report changes. The interval is 60 times the
    /// duration of a read, but never longer than this.
    pub reread: Duration,
    /// How long a table or a file of rules must stay empty, or the file missing, before that takes effect. An explicit reload takes
    /// effect at once.
    pub settle: Duration,
}

impl BookOptions {
    /// How long a table whose change the database has not reported is assumed unchanged, by what the last poll found and the duration of the last
    /// read.
    pub fn trust(self, look: Look, took: Duration) -> Duration {
        let Self { poll, reread, .. } = self;
        match look {
            // The server would have reported a change, unless its memory of changes was lost.
            Look::Quiet => reread.max(took * TRUST_TIMES),
            Look::Same | Look::Changed | Look::Unknown => {
                (took * TRUST_TIMES).clamp(poll, reread.max(poll))
            }
        }
    }
}

impl Default for BookOptions {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            reread: Duration::from_secs(60),
            settle: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_tables_are_reread_soon_and_large_ones_as_configured() {
        let (poll, reread) = (Duration::from_secs(1), Duration::from_secs(30));
        let options = BookOptions {
            poll,
            reread,
            ..BookOptions::default()
        };
        let millis = Duration::from_millis;
        for (look, took, trusted) in [
            (Look::Unknown, millis(1), poll),
            (Look::Unknown, millis(100), millis(6_000)),
            (Look::Unknown, millis(5_000), reread),
            (Look::Quiet, millis(1), reread),
            (Look::Quiet, millis(1_000), millis(60_000)),
        ] {
            assert_eq!(options.trust(look, took), trusted, "{look:?} {took:?}");
        }
        let often = BookOptions {
            poll: reread,
            reread: poll,
            ..options
        };
        assert_eq!(
            often.trust(Look::Unknown, millis(1)),
            reread,
            "no more often than it is looked"
        );
    }
}
