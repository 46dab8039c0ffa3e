//! The plan of a run: target, kind of request, sources, rate and duration.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::tls::TlsVersion;
use crate::transport::Transport;

/// Largest number of requests that one run keeps track of at the same time.
pub const MAX_OUTSTANDING: usize = 1 << 20;

/// Largest number of tenants that requests can be spread over: five digits.
pub const MAX_TENANTS: u32 = 100_000;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server under load.
    pub target: SocketAddr,
    /// How requests travel.
    pub transport: Transport,
    /// The version of TLS, for transports that have it.
    pub tls: TlsVersion,
    /// Kind of request, and the expected response.
    pub mode: Mode,
    /// The expected status code; `None` means that of the mode.
    pub expect: Option<u16>,
    /// Address of the first source. IPv4 sources are consecutive, IPv6 sources share it.
    pub first_source: IpAddr,
    /// Number of sources, one socket each.
    pub sources: usize,
    /// Largest number of pending requests of each source.
    pub outstanding: usize,
    /// Requests per second. `None` makes a closed loop: each response triggers the next request.
    pub rate: Option<u64>,
    /// At a fixed rate: keep the core between requests, so that they are evenly spaced. Otherwise they are sent in small bursts.
    pub spin: bool,
    /// Load before the measured window.
    pub warm_up: Duration,
    /// Length of the measured window.
    pub end: End,
    /// Time after which a request without a response is given up (calls, and everything at a fixed rate) or sent again (in a closed loop). Calls
    /// are sent again as by a user agent.
    pub patience: Duration,
    /// Time after which an answer counts as late; `None`: none does.
    pub late: Option<Duration>,
    /// Address of the callee of [`Mode::Relay`], [`Mode::Message`] and [`Mode::Call`]; `None` if it runs elsewhere.
    pub sink: Option<SocketAddr>,
    /// Processes whose CPU time is measured over the window, each with its descendants.
    pub watch: Vec<u32>,
    /// First addresses of further crowds, each with as many sources at the same rate. They only add load: the report covers the requests of the
    /// first crowd.
    pub beside: Vec<IpAddr>,
    /// Number of tenants that requests are distributed over in random order: the host of request URI and To is `t00000.tenants.example` for the
    /// first tenant, and so on. With `None` it is the target's address.
    pub tenants: Option<u32>,
}

/// When a request without a response is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retransmit {
    /// Never: it is given up after a time.
    Never,
    /// After this time, until it is answered.
    Every(Duration),
    /// As by a user agent (RFC 3261 §17.1): after [`T1`], then after twice the time before, at most [`T2`]. It is given up after a time.
    AsUserAgent,
}

/// The time until a user agent sends a request again for the first time.
pub const T1: Duration = Duration::from_millis(500);

/// The longest time between two retransmissions of a user agent.
pub const T2: Duration = Duration::from_secs(4);

impl Retransmit {
    /// Nanoseconds until a request is sent again for the first time.
    pub(crate) fn first_ns(self) -> u64 {
        match self {
            Self::Never => u64::MAX >> 1,
            Self::Every(time) => time.as_nanos() as u64,
            Self::AsUserAgent => T1.as_nanos() as u64,
        }
    }

    /// Nanoseconds until it is sent once more.
    pub(crate) fn after_ns(self, interval_ns: u64) -> u64 {
        match self {
            Self::Never | Self::Every(_) => self.first_ns(),
            Self::AsUserAgent => (2 * interval_ns).min(T2.as_nanos() as u64),
        }
    }
}

/// Kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// INVITE to a user, from unknown sources: 401.
    Reject,
    /// OPTIONS to the server itself: 200.
    Options,
    /// INVITE to a user, from known sources, through the server to a callee: 200 from there.
    Relay,
    /// MESSAGE to a user, from known sources, through the server to a callee: 200 from there.
    Message,
    /// A call from known sources through the server: INVITE, 100, 180, 200, ACK, BYE, 200. It counts as one request.
    Call,
    /// The same INVITE, to a server that returns every datagram unchanged.
    Echo,
}

/// The end of the measured window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After this many requests, those of the warm-up not counted.
    Requests(u64),
    /// After this time.
    After(Duration),
}

impl Plan {
    /// A closed loop of 16 sources with 16 requests each for two seconds.
    pub fn new(target: SocketAddr, mode: Mode, first_source: IpAddr) -> Self {
        Self {
            target,
            transport: Transport::Udp,
            tls: TlsVersion::default(),
            mode,
            expect: None,
            first_source,
            sources: 16,
            outstanding: 16,
            rate: None,
            spin: false,
            warm_up: Duration::ZERO,
            end: End::After(Duration::from_secs(2)),
            patience: Duration::from_millis(500),
            late: None,
            sink: None,
            watch: Vec::new(),
            beside: Vec::new(),
            tenants: None,
        }
    }

    /// When a request without a response is sent again.
    pub fn retransmit(&self) -> Retransmit {
        // RFC 3261 §17.1: nothing is sent again over a connection.
        if self.transport.has_connections() {
            return Retransmit::Never;
        }
        match self.mode {
            Mode::Call => Retransmit::AsUserAgent,
            Mode::Reject | Mode::Options | Mode::Relay | Mode::Message | Mode::Echo => {
                match self.rate {
                    Some(_) => Retransmit::Never,
                    None => Retransmit::Every(self.patience),
                }
            }
        }
    }

    /// The expected status code; `None` if the answer is not a SIP response.
    pub fn expected_code(&self) -> Option<u16> {
        self.mode.code().map(|code| self.expect.unwrap_or(code))
    }

    /// The source addresses of the crowd with this first address.
    pub fn sources_from(&self, first: IpAddr) -> Vec<IpAddr> {
        (0..self.sources as u32)
            .map(|n| match first {
                IpAddr::V4(first) => IpAddr::V4((u32::from(first) + n).into()),
                IpAddr::V6(first) => IpAddr::V6(first),
            })
            .collect()
    }

    /// Refuses plans that cannot be run, and addresses that would send load to other machines.
    ///
    /// # Errors
    /// The first problem, and how to fix it.
    pub fn check(&self) -> Result<()> {
        ensure!(self.sources > 0, "--sources must be at least 1");
        let crowds = || [self.first_source].into_iter().chain(self.beside.clone());
        for first in crowds() {
            ensure!(
                self.target.is_ipv4() == first.is_ipv4(),
                "source {first} and target {} must be of one address family",
                self.target
            );
        }
        let every = crowds()
            .flat_map(|first| self.sources_from(first))
            .chain([self.target.ip()])
            // A callee at every address of this machine answers loopback sources only.
            .chain(self.sink.map(|sink| sink.ip()).filter(|ip| !ip.is_unspecified()));
        for address in every {
            ensure!(
                address.is_loopback(),
                "{address} is no loopback address: this generator is made for 127.0.0.0/8 and ::1 only"
            );
        }
        let outstanding = self.outstanding.saturating_mul(self.sources);
        ensure!(outstanding > 0, "--outstanding must be at least 1");
        ensure!(self.rate != Some(0), "--rate must be at least 1");
        ensure!(
            self.beside.is_empty() || self.rate.is_some(),
            "--beside needs --rate"
        );
        ensure!(
            self.mode != Mode::Echo || self.transport == Transport::Udp,
            "--mode echo: the reference is one for UDP"
        );
        if let Some(tenants) = self.tenants {
            ensure!(
                (1..=MAX_TENANTS).contains(&tenants),
                "--tenants must be from 1 to {MAX_TENANTS}"
            );
            ensure!(
                self.mode != Mode::Echo,
                "--tenants: an echo is compared with one request, and has no tenants"
            );
        }
        ensure!(
            outstanding <= MAX_OUTSTANDING,
            "{outstanding} requests under way are more than the {MAX_OUTSTANDING} that can be kept track of"
        );
        Ok(())
    }
}

impl Mode {
    /// The status code of the expected response.
    fn code(self) -> Option<u16> {
        match self {
            Self::Reject => Some(401),
            Self::Options | Self::Relay | Self::Message | Self::Call => Some(200),
            Self::Echo => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_never_leaves_the_machine() {
        let mut plan = Plan::new(
            "127.0.0.1:5060".parse().unwrap(),
            Mode::Reject,
            "127.1.0.1".parse().unwrap(),
        );
        plan.check().unwrap();
        plan.target = "192.0.2.1:5060".parse().unwrap();
        let refusal = plan.check().unwrap_err().to_string();
        assert!(refusal.contains("192.0.2.1"), "{refusal}");
    }

    #[test]
    fn nothing_is_sent_again_over_a_connection() {
        let target = "127.0.0.1:5061".parse().unwrap();
        let mut plan = Plan::new(target, Mode::Call, "127.1.0.1".parse().unwrap());
        assert_eq!(plan.retransmit(), Retransmit::AsUserAgent);
        plan.transport = Transport::Tls;
        assert_eq!(plan.retransmit(), Retransmit::Never);
        plan.mode = Mode::Echo;
        plan.check().unwrap_err();
    }

    #[test]
    fn sources_that_run_out_of_loopback_are_refused() {
        let mut plan = Plan::new(
            "127.0.0.1:5060".parse().unwrap(),
            Mode::Reject,
            "127.255.255.250".parse().unwrap(),
        );
        plan.sources = 5;
        plan.check().unwrap();
        plan.sources = 7;
        plan.check().unwrap_err();
    }

    #[test]
    fn tenants_are_counted_with_five_digits() {
        let target = "127.0.0.1:5060".parse().unwrap();
        let mut plan = Plan::new(target, Mode::Reject, "127.1.0.1".parse().unwrap());
        for (tenants, is_right) in [(0, false), (1, true), (100_000, true), (100_001, false)] {
            plan.tenants = Some(tenants);
            assert_eq!(plan.check().is_ok(), is_right, "{tenants}");
        }
        plan.tenants = Some(2);
        plan.mode = Mode::Echo;
        plan.check().unwrap_err();
    }

    #[test]
    fn families_do_not_mix() {
        let plan = Plan::new(
            "[::1]:5060".parse().unwrap(),
            Mode::Reject,
            "127.1.0.1".parse().unwrap(),
        );
        plan.check().unwrap_err();
    }
}
