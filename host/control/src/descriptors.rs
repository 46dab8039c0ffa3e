//! File descriptors: how many this process may have, and how they are divided between SIP over TCP, the control interfaces and the rest.
//!
//! A connection of an unknown peer must never take the descriptor that the database, a reload or an operator needs. Therefore the system's
//! limit bounds the number of connections, in addition to the configuration.

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portcullis_config::{Config, ConnectionLimits};
use portcullis_dataplane::transport;
use tracing::{info, warn};

/// Connections over BINRPC at the same time (`MAX_IO_READ_CONNECTIONS`).
const MOST_BINRPC: usize = 128;

/// Descriptors that each worker opens: its runtime's, and a clone of the signal pipe.
const WORKER: usize = 6;

/// Descriptors for short-lived uses: connections and files of the database, compilations with their pipes, records, policies and rules
/// being read, name lookups, replies through pipes and Unix datagrams, and connections that are being closed.
const RESERVE: usize = 192 + transport::CLOSING;

/// The parts of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Connections of SIP over TCP.
    pub sip: usize,
    /// Connections over HTTP.
    pub http: usize,
    /// Connections over BINRPC.
    pub binrpc: usize,
    /// The database, files and other short-lived uses.
    pub reserve: usize,
}

/// The soft limit before and after [`raise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// At the start of the process.
    pub before: u64,
    /// Now.
    pub now: u64,
}

/// Raises the soft limit of open files to the hard limit. The soft limit is low by default because of `select()`, which this program does
/// not use.
///
/// # Errors
/// If the system does not report its limit, or does not permit raising it.
pub fn raise() -> io::Result<Limit> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(Limit {
        before: soft,
        now: hard,
    })
}

/// Returns the number of open descriptors, or an estimate without `/proc`.
pub fn open_now() -> usize {
    const GUESS: usize = 64;
    // One of them reads the directory.
    fs::read_dir("/proc/self/fd").map_or(GUESS, |all| all.count().saturating_sub(1))
}

impl Parts {
    /// Divides `limit` descriptors, of which `open` are in use permanently: listening sockets, the log, the runtime of the control side.
    pub fn of(limit: u64, open: usize, workers: usize, config: &Config) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let free = limit.saturating_sub(open.saturating_add(workers.saturating_mul(WORKER)));
        // If there are few, a third is the reserve, and a third of the rest is for operators.
        let reserve = RESERVE.min(free / 3);
        let control = (free - reserve) / 3;
        let http = config.control.max_connections.min(control * 2 / 3);
        let binrpc = MOST_BINRPC.min(control - http);
        let sip = config.sip.tcp.total.min(free - reserve - http - binrpc);
        Self {
            sip: sip.max(1),
            http: http.max(1),
            binrpc: binrpc.max(1),
            reserve,
        }
    }

    /// Returns the limits of SIP over TCP. If there are fewer connections than configured, no address gets more than half of them.
    pub fn bounds(&self, config: &Config) -> ConnectionLimits {
        let most = match self.sip < config.sip.tcp.total {
            true => self.sip.div_ceil(2),
            false => self.sip,
        };
        ConnectionLimits {
            total: self.sip,
            per_address: config.sip.tcp.per_address.min(most),
        }
    }

    /// Logs how the limit is divided, and warns if it is too low for the configuration.
    pub fn tell(&self, limit: Limit, config: &Config) {
        info!(
            event = "descriptors",
            limit = limit.now,
            raised_from = limit.before,
            sip_tcp = self.sip,
            http = self.http,
            binrpc = self.binrpc,
            reserve = self.reserve,
            "limit of open files shared out"
        );
        if self.sip < config.sip.tcp.total {
            warn!(
                event = "few_descriptors",
                limit = limit.now,
                sip_tcp = self.sip,
                wanted = config.sip.tcp.total,
                "limit of open files too low for `tcp-max-connections` in [sip]: raise the limit \
                 (LimitNOFILE= in the unit, `ulimit -Hn` in a shell), or lower the key"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(limit: u64, config: &Config) -> Parts {
        Parts::of(limit, 40, 2, config)
    }

    #[test]
    fn a_large_limit_permits_what_is_configured() {
        let config = Config::default();
        let parts = parts(524_288, &config);
        assert_eq!(parts.sip, config.sip.tcp.total);
        assert_eq!(parts.http, config.control.max_connections);
        assert_eq!(parts.binrpc, MOST_BINRPC);
        assert_eq!(parts.reserve, RESERVE);
        assert_eq!(parts.bounds(&config), config.sip.tcp);
    }

    #[test]
    fn the_parts_never_exceed_the_limit_and_none_is_empty() {
        let config = Config::default();
        for limit in [0, 1, 64, 100, 256, 1024, 4096, 65_536, u64::MAX] {
            let parts = parts(limit, &config);
            let used = 40 + 2 * WORKER + parts.sip + parts.http + parts.binrpc + parts.reserve;
            assert!(used as u64 <= limit.max(40 + 12 + 3), "{limit}: {parts:?}");
            assert!(
                parts.sip > 0 && parts.http > 0 && parts.binrpc > 0,
                "{limit}: {parts:?}"
            );
        }
        let small = parts(1024, &config);
        assert!(small.reserve == RESERVE && small.http > 100, "{small:?}");
        assert!(small.bounds(&config).per_address <= small.sip.div_ceil(2));
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise().unwrap();
        assert!(limit.before <= limit.now);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap().0, limit.now);
        assert!(open_now() >= 3);
    }
}
