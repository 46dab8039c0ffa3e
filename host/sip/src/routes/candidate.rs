//! The addresses that a name leads to, and which of them a request takes (RFC 3263 §4, RFC 2782).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::arrival::{Destination, Transport};

/// A question about a name, as URIs ask it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lookup {
    /// The name, in lower case, without a final dot.
    pub name: Box<str>,
    /// What is to be found.
    pub sought: Sought,
}

/// What a URI asks about its name (RFC 3263 §4.1, §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sought {
    /// Its addresses: the URI has a port.
    Addresses,
    /// Its servers for this transport: the URI has no port, but a transport.
    Servers(Transport),
    /// Its servers and their transports: the URI has neither.
    Anything,
}

impl Lookup {
    /// The question that a URI with this host name, port and transport asks.
    pub fn of(name: &str, port: Option<u16>, transport: Option<Transport>) -> Self {
        Self {
            name: name.into(),
            sought: Sought::of(port, transport),
        }
    }
}

impl Sought {
    /// What a URI with this port and transport asks.
    pub fn of(port: Option<u16>, transport: Option<Transport>) -> Self {
        match (port, transport) {
            (Some(_), _) => Self::Addresses,
            (None, Some(transport)) => Self::Servers(transport),
            (None, None) => Self::Anything,
        }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, sought } = self;
        match sought {
            Sought::Addresses => write!(f, "{name} (addresses)"),
            Sought::Servers(transport) => write!(f, "{name} ({})", transport.parameter()),
            Sought::Anything => f.write_str(name),
        }
    }
}

/// One address that a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The transport to use.
    pub transport: Transport,
    /// The address. For [`Sought::Addresses`], the port is that of the URI and here 0.
    pub addr: SocketAddr,
    /// The place of its NAPTR record or transport: lower ones go first.
    pub order: u16,
    /// The priority of its SRV record: lower ones go first.
    pub priority: u16,
    /// The weight of its SRV record.
    pub weight: u16,
    /// A hash that distinguishes its SRV record from others with the same order and priority; 0 without one. Addresses of one record are drawn together.
    pub service: u64,
}

impl Candidate {
    /// An address that is not from an SRV record.
    pub fn plain(transport: Transport, addr: SocketAddr) -> Self {
        Self {
            transport,
            addr: SocketAddr::new(addr.ip().to_canonical(), addr.port()),
            order: 0,
            priority: 0,
            weight: 0,
            service: 0,
        }
    }

    /// The same address with this port and transport.
    pub(crate) fn at(self, transport: Transport, port: u16) -> Self {
        Self {
            transport,
            addr: SocketAddr::new(self.addr.ip(), port),
            ..self
        }
    }

    /// The address without its port.
    pub fn ip(&self) -> IpAddr {
        self.addr.ip()
    }
}

/// What the choice among the addresses of a name depends on, beside their records and the call.
#[derive(Clone, Copy)]
pub struct Choice<'f> {
    /// Where the request has been already: these addresses are left out.
    pub tried: &'f [Destination],
    /// Whether an address has failed lately. Such addresses come last.
    pub has_failed: &'f (dyn Fn(Transport, SocketAddr) -> bool + Sync),
}

impl Choice<'_> {
    /// The first choice: no address was tried, and none has failed.
    pub const FIRST: Choice<'static> = Choice {
        tried: &[],
        has_failed: &|_, _| false,
    };

    pub(crate) fn was_tried(&self, candidate: &Candidate) -> bool {
        self.tried
            .iter()
            .any(|to| to.transport == candidate.transport && to.addr == candidate.addr)
    }
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("tried", &self.tried)
            .finish_non_exhaustive()
    }
}

/// The place of a candidate in the order in which addresses are tried; the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    has_failed: bool,
    order: u16,
    priority: u16,
    ticket: f64,
    index: usize,
}

impl Rank {
    /// `index` is the place of the candidate in its list, and `number` the draw of the call for its service.
    pub(crate) fn of(candidate: &Candidate, index: usize, has_failed: bool, number: u64) -> Self {
        Self {
            has_failed,
            order: candidate.order,
            priority: candidate.priority,
            ticket: ticket(number, candidate.weight),
            index,
        }
    }
}

/// A place in a weighted draw; the lowest wins. The chance to win is in proportion to the weight, and so is the chance to be next among the
/// rest, as RFC 2782 asks: exponentially distributed variables with the weights as their rates. Weight 0 comes last.
fn ticket(number: u64, weight: u16) -> f64 {
    // 53 bits, not zero: between 0 and 1, both excluded.
    let uniform = ((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let exponential = -uniform.ln();
    match weight {
        0 => f64::MAX.sqrt() * exponential,
        weight => exponential / f64::from(weight),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn candidate(port: u16, priority: u16, weight: u16) -> Candidate {
        Candidate {
            priority,
            weight,
            service: port.into(),
            ..Candidate::plain(Transport::Udp, SocketAddr::new([192, 0, 2, 1].into(), port))
        }
    }

    /// The ports in the order of a call.
    fn order(candidates: &[Candidate], call: u64, failed: u16) -> Vec<u16> {
        let key = Key::new(&[7; 16]);
        let mut ranked: Vec<_> = candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| {
                let number = key.draw(call, candidate.service);
                let rank = Rank::of(candidate, index, candidate.addr.port() == failed, number);
                (rank, candidate.addr.port())
            })
            .collect();
        ranked.sort_by(|(left, _), (right, _)| left.partial_cmp(right).unwrap());
        ranked.into_iter().map(|(_, port)| port).collect()
    }

    /// RFC 2782: the first and the second of 100,000 draws without replacement, by chi-square. The limits are exceeded once in 100,000 runs
    /// with other keys; the key is fixed.
    #[test]
    fn a_draw_is_in_proportion_to_the_weights_and_without_replacement() {
        const DRAWS: u32 = 100_000;
        let weights = [10_u16, 20, 30, 40];
        let candidates: Vec<_> = (1..)
            .zip(weights)
            .map(|(port, weight)| candidate(port, 5, weight))
            .collect();
        let mut found = [[0_u32; 4]; 4];
        for call in 0..DRAWS {
            let order = order(&candidates, call.into(), 0);
            found[usize::from(order[0]) - 1][usize::from(order[1]) - 1] += 1;
        }
        let total = f64::from(weights.iter().sum::<u16>());
        let mut chi_square = 0.0;
        for (first, one) in weights.iter().map(|&w| f64::from(w)).enumerate() {
            for (second, two) in weights.iter().map(|&w| f64::from(w)).enumerate() {
                if first == second {
                    assert_eq!(found[first][second], 0);
                    continue;
                }
                let expected = f64::from(DRAWS) * one / total * two / (total - one);
                chi_square += (f64::from(found[first][second]) - expected).powi(2) / expected;
            }
        }
        // 11 degrees of freedom.
        assert!(chi_square < 42.0, "{chi_square}: {found:?}");
    }

    #[test]
    fn lower_priorities_go_first_and_weight_zero_comes_last() {
        let candidates = [
            candidate(3, 20, 1000),
            candidate(1, 10, 5),
            candidate(2, 10, 0),
            candidate(4, 30, 0),
        ];
        for call in 0..1_000 {
            assert_eq!(order(&candidates, call, 0), [1, 2, 3, 4]);
        }
    }

    #[test]
    fn an_address_that_has_failed_is_the_last_one_and_stays_in_the_list() {
        let candidates = [
            candidate(1, 10, 5),
            candidate(2, 20, 5),
            candidate(3, 30, 5),
        ];
        assert_eq!(order(&candidates, 1, 1), [2, 3, 1]);
        assert_eq!(order(&candidates, 1, 3), [1, 2, 3]);
    }

    #[test]
    fn the_same_call_takes_the_same_order() {
        let candidates: Vec<_> = (1..=60).map(|port| candidate(port, 0, port)).collect();
        let mut reversed = candidates.clone();
        reversed.reverse();
        for call in 0..100 {
            assert_eq!(order(&candidates, call, 0), order(&reversed, call, 0));
        }
    }

    #[test]
    fn addresses_without_srv_records_stay_in_their_order() {
        let candidates: Vec<_> = (1..=9)
            .map(|port| Candidate {
                service: 0,
                ..candidate(port, 0, 0)
            })
            .collect();
        for call in 0..100 {
            assert_eq!(order(&candidates, call, 0), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        }
    }
}
