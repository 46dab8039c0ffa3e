//! Reads the errors that the network reports about datagrams sent earlier.

use std::io;
use std::os::fd::AsFd;

use crate::report::Report;
use crate::system::Reports;

/// Reports that one call reads at most.
const BATCH: usize = 64;

/// Room for the quoted part of a datagram, in bytes. Routers quote at most 576 bytes of an IPv4 packet (RFC 1812 §4.3.2.3) and 1,280 of an IPv6
/// packet (RFC 4443 §3.1); the rest is cut off.
const ROOM: usize = 1_280;

/// A batch of slots for reports of errors, made once and reused.
///
/// The socket collects reports after [`report_errors`](crate::report_errors).
#[derive(Debug)]
pub struct Errors {
    reports: Reports,
}

impl Errors {
    /// Makes slots for 64 reports.
    pub fn new() -> Self {
        Self {
            reports: Reports::new(BATCH, ROOM),
        }
    }

    /// The number of reports that one call reads at most.
    pub fn batch(&self) -> usize {
        BATCH
    }

    /// Reads the reports that wait, at most a batch. Never waits for one.
    ///
    /// # Errors
    /// `WouldBlock` when none waits, `Unsupported` on systems other than Linux, else those of `recvmmsg`.
    pub fn recv(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.reports.recv(socket.as_fd())
    }

    /// The `nth` report of the last batch.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn report(&self, nth: usize) -> Report<'_> {
        self.reports.report(nth)
    }
}

impl Default for Errors {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};

    use super::*;
    use crate::report::Problem;
    use crate::{Bind, Receiver, Sender, bind, report_errors};

    fn reporting(any: &str) -> UdpSocket {
        let socket = bind(any.parse().unwrap(), Bind::default()).unwrap();
        report_errors(&socket).unwrap();
        socket
    }

    /// An address where nothing listens.
    fn closed(any: &str) -> SocketAddr {
        UdpSocket::bind(any).unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_closed_port_is_reported_with_the_datagram_that_it_got() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let socket = reporting(any);
            let to = closed(any);
            let mut errors = Errors::new();
            let nothing = errors.recv(&socket).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);

            let mut sender = Sender::new(4);
            sender.push(b"INVITE sip:a@b SIP/2.0\r\n", to);
            sender.push(b"", to);
            assert_eq!(sender.flush(&socket).unwrap(), 2);
            // The port of the same machine has answered by now.
            assert_eq!(errors.recv(&socket).unwrap(), 2);
            let problem = Problem::Unreachable;
            assert_eq!(
                [errors.report(0), errors.report(1)],
                [&b"INVITE sip:a@b SIP/2.0\r\n"[..], b""].map(|quoted| Report {
                    to,
                    quoted,
                    problem
                })
            );
            assert!(problem.is_failure());
            assert!(errors.recv(&socket).is_err());
        }
    }

    #[test]
    fn a_closed_target_costs_no_datagram_to_an_open_one() {
        const EACH: usize = 300;
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let socket = reporting(any);
            let (open, gone) = (
                bind(any.parse().unwrap(), Bind::default()).unwrap(),
                closed(any),
            );
            let to = open.local_addr().unwrap();
            let (mut sender, mut receiver) = (Sender::new(32), Receiver::new(32));
            let (mut errors, mut reported) = (Errors::new(), 0);
            let (mut received, mut next) = (Vec::new(), 0);
            while received.len() < EACH {
                // Batches of different lengths, so that an error is pending at each place.
                for _ in 0..=next % 7 {
                    if next % 3 != 1 {
                        sender.push(b"lost", gone);
                    }
                    if next < EACH {
                        sender.push(&next.to_le_bytes(), to);
                        next += 1;
                    }
                }
                sender.flush(&socket).unwrap();
                assert_eq!(sender.failures().count, 0);
                // The reports are read in between now and then only.
                if next % 5 == 0 {
                    reported += errors.recv(&socket).unwrap_or(0);
                }
                let count = receiver.recv(&open).unwrap();
                received.extend((0..count).map(|nth| receiver.datagram(nth).0.to_vec()));
            }
            while let Ok(more) = errors.recv(&socket) {
                assert!((0..more).all(|nth| errors.report(nth).to == gone));
                reported += more;
            }
            let expected: Vec<_> = (0..EACH).map(|n| n.to_le_bytes().to_vec()).collect();
            assert_eq!(received, expected);
            // The kernel limits how many it sends.
            assert!(reported > 0);
        }
    }

    #[test]
    fn reports_beyond_a_batch_and_long_quotes_are_cut() {
        let socket = reporting("127.0.0.1:0");
        let to = closed("127.0.0.1:0");
        let mut sender = Sender::new(32);
        for _ in 0..BATCH + 2 {
            sender.push(&[b'x'; 3_000], to);
        }
        sender.flush(&socket).unwrap();
        let mut errors = Errors::new();
        let first = errors.recv(&socket).unwrap();
        assert!(first <= BATCH);
        for nth in 0..first {
            let quoted = errors.report(nth).quoted;
            assert!(quoted.len() <= ROOM && quoted.iter().all(|byte| *byte == b'x'));
        }
    }
}
