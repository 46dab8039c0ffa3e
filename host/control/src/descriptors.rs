//! File descriptors: how many this process may have, and which part of them SIP over TCP, control and everything else get.
//!
//! A connection of a stranger must never take the descriptor that the database, a reload or an operator needs. So the number of
//! connections is bounded by what the system's limit leaves, not by the configuration alone.

use std::fs;
use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portcullis_config::{Config, ConnectionLimits};
use portcullis_dataplane::transport;
use tracing::{info, warn};

/// Connections over BINRPC at the same time (`MAX_IO_READ_CONNECTIONS`).
const MOST_BINRPC: usize = 128;

/// Descriptors that each worker makes for itself: its runtime's and a clone of the signal pipe.
const WORKER: usize = 6;

/// Descriptors for what comes and goes: connections and files of the database, compilations with their pipes, records, policies
/// and rules that are read, names that are looked up, replies through pipes and unix datagrams, connections that are just closing.
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
    /// Database, files and what else comes and goes.
    pub reserve: usize,
}

/// The soft limit before and after [`raise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What the process was started with.
    pub before: u64,
    /// What it has now.
    pub now: u64,
}

/// Raises the soft limit of open files to the hard one. Nothing here uses `select()`, which is why the soft limit is low by default.
///
/// # Errors
/// When the system does not tell its limit, or does not let it be raised.
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

/// The descriptors that are open now, or a guess where `/proc` is not there.
pub fn open_now() -> usize {
    const GUESS: usize = 64;
    // One of them reads the folder.
    fs::read_dir("/proc/self/fd").map_or(GUESS, |all| all.count().saturating_sub(1))
}

impl Parts {
    /// Shares out `limit` descriptors, of which `open` are taken for good: sockets that listen, the log, the runtime of control.
    pub fn of(limit: u64, open: usize, workers: usize, config: &Config) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let free = limit.saturating_sub(open.saturating_add(workers.saturating_mul(WORKER)));
        // Where there is little, a third is for what goes before everybody's connections, and a third of the rest for operators.
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

    /// The bounds of SIP over TCP. Where there are fewer connections than configured, no address gets more than half of them.
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

    /// Tells how the limit is shared out, and warns where it leaves less than the configuration asks for.
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
                "The limit of open files leaves fewer TCP connections than `tcp-max-connections` in [sip] allows: raise it \
                 (LimitNOFILE= in the unit, `ulimit -Hn` in a shell), or lower the key."
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
    fn a_large_limit_leaves_what_is_configured() {
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
