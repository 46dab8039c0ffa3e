//! Settings of all transactions of a worker.

use std::time::Duration;

use crate::timers::Timers;

/// Settings of [`Transactions`](crate::Transactions).
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The timers of RFC 3261.
    pub timers: Timers,
    /// When an INVITE is answered 100.
    pub trying: Trying,
    /// Limit of the time until an INVITE has its final answer, whatever its targets say.
    pub setup_limit: Duration,
    /// Most targets that are tried at once.
    pub parallel: u8,
    /// Most times that one transaction asks for its next step ([`Event::Ask`](crate::Event::Ask)).
    pub asks: u8,
    /// Most active transactions; beyond it, new requests are shed. Requests within a dialog are shed beyond twice this number.
    pub most: usize,
    /// Most ended transactions that absorb retransmissions; beyond it, the oldest are forgotten.
    pub absorbers: usize,
    /// Most bytes of stored messages and of what the caller holds. Beyond it, the oldest ended transactions are forgotten; if active transactions alone reach it, new requests are
    /// shed. Requests within a dialog are shed beyond twice this number.
    pub bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timers: Timers::default(),
            trying: Trying::Now,
            setup_limit: Duration::from_secs(600),
            parallel: 8,
            asks: 8,
            most: 200_000,
            absorbers: 1_000_000,
            bytes: 1 << 30,
        }
    }
}

/// When an INVITE is answered 100 (Trying).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trying {
    /// Before it is sent on; 200 ms after it came, if the decision takes longer.
    Now,
    /// When no other answer was sent within this time, which should be at most 200 ms.
    After(Duration),
    /// Never.
    Never,
}

impl Trying {
    /// The delay for the server transaction.
    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::Now => Some(Duration::from_millis(200)),
            Self::After(delay) => Some(delay),
            Self::Never => None,
        }
    }
}
