//! `[streams]`: connections over TCP and TLS.

use std::time::Duration;

use super::section::Section;
use super::value::{count, duration};

/// Bounds of TLS handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Most handshakes in progress, for each worker.
    pub handshakes: usize,
    /// Most of these from one IPv4 address, or one IPv6 /64.
    pub handshakes_per_address: usize,
    /// Time limit of a handshake.
    pub handshake: Duration,
    /// Most handshakes per second, for each worker, of one address that is not in the address table; 0: no limit.
    pub handshakes_per_second: u32,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            handshakes: 256,
            handshakes_per_address: 64,
            handshake: Duration::from_secs(5),
            handshakes_per_second: 10,
        }
    }
}

impl StreamsConfig {
    /// Reads `[streams]`.
    pub(super) fn read(mut section: Section<'_>, default: Self) -> Self {
        let read = Self {
            handshakes: section.value("handshakes", default.handshakes, |v| count(v, 1, 65_536)),
            handshakes_per_address: section.value(
                "handshakes-per-address",
                default.handshakes_per_address,
                |v| count(v, 1, 65_536),
            ),
            handshake: section.value("handshake", default.handshake, |v| {
                duration(v, Duration::from_millis(100), Duration::from_secs(60))
            }),
            handshakes_per_second: section.value(
                "handshakes-per-second",
                default.handshakes_per_second,
                |v| count(v, 0, 100_000),
            ),
        };
        section.finish();
        read
    }
}
