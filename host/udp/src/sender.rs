//! Sends datagrams in batches.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::pending::is_pending;
use crate::system::{NOWHERE, Name, Outgoing, Packet, socket_addr};

/// Capacity of a new buffer, in bytes: most SIP messages are smaller.
const USUAL_BYTES: usize = 2_048;

/// How often a datagram is tried again that may have met an error about another one. A second such error has to arrive between two system
/// calls, a third one again.
const MOST_TRIES: usize = 2;

/// Refused datagrams that are kept, so that a caller who never looks at them uses no more memory.
const MOST_REFUSED: usize = 1_024;

/// A queue of outgoing datagrams whose buffers are reused.
#[derive(Debug)]
pub struct Sender {
    queue: Vec<Packet>,
    /// Packets `sent..queued` wait to be sent; those after `queued` are spare buffers.
    sent: usize,
    queued: usize,
    batch: usize,
    system: Outgoing,
    refused: Refused,
}

/// Datagrams that the kernel refused.
#[derive(Debug, Default)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// Each of them, in order. Beyond 1,024, only the last one is added.
    pub kept: Vec<Refusal>,
}

/// A datagram that the kernel refused.
#[derive(Debug)]
pub struct Refusal {
    /// Why.
    pub error: io::Error,
    /// Its destination.
    pub to: SocketAddr,
    /// Its first bytes, at most 2,048.
    pub bytes: Vec<u8>,
}

impl Refused {
    /// The last one; `None` if no datagram was refused.
    pub fn last(&self) -> Option<&Refusal> {
        self.kept.last()
    }
}

impl Sender {
    /// Makes a queue of any length that passes at most `batch` datagrams to the kernel in one call.
    pub fn new(batch: usize) -> Self {
        let batch = batch.max(1);
        Self {
            queue: Vec::with_capacity(batch),
            sent: 0,
            queued: 0,
            batch,
            system: Outgoing::new(batch),
            refused: Refused::default(),
        }
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8], to: SocketAddr) {
        self.buffer().extend_from_slice(bytes);
        self.commit(to);
    }

    /// The empty buffer of the next datagram. Write into it, then call `commit`; without `commit` the bytes are discarded.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.queued == self.queue.len() {
            self.queue.push(Packet {
                bytes: Vec::with_capacity(USUAL_BYTES),
                to: Name::from(NOWHERE),
            });
        }
        let bytes = &mut self.queue[self.queued].bytes;
        bytes.clear();
        bytes
    }

    /// The bytes written into `buffer` and not committed yet.
    pub fn draft(&self) -> &[u8] {
        self.queue
            .get(self.queued)
            .map_or(&[], |packet| &packet.bytes)
    }

    /// Queues the bytes written into `buffer`.
    pub fn commit(&mut self, to: SocketAddr) {
        if let Some(packet) = self.queue.get_mut(self.queued) {
            packet.to = Name::from(to);
            self.queued += 1;
        }
    }

    /// Number of datagrams that wait to be sent.
    pub fn waiting(&self) -> usize {
        self.queued - self.sent
    }

    /// Passes all waiting datagrams to the kernel, in order; returns how many it accepted.
    ///
    /// A datagram that the kernel refuses (no route, forbidden, too large) is dropped and counted in `failures`; it does not delay
    /// the others.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full: datagrams that were not sent stay queued for the next call.
    pub fn flush(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let socket = socket.as_fd();
        self.flush_by(|system, packets| system.send(socket, packets))
    }

    /// Discards all waiting datagrams; returns how many.
    pub fn clear(&mut self) -> usize {
        let waiting = self.waiting();
        self.sent = 0;
        self.queued = 0;
        waiting
    }

    /// The datagrams that the kernel refused since the last call.
    pub fn failures(&mut self) -> Refused {
        mem::take(&mut self.refused)
    }

    /// `send` passes a batch to the kernel and returns how many datagrams it accepted, or why it refused the first one.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other kind of error is a refusal of this datagram"
    )]
    fn flush_by(
        &mut self,
        mut send: impl FnMut(&mut Outgoing, &mut [Packet]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut taken = 0;
        let mut tries = 0;
        while self.sent < self.queued {
            let end = self.queued.min(self.sent + self.batch);
            let error = match send(&mut self.system, &mut self.queue[self.sent..end]) {
                Ok(count) => {
                    self.sent += count;
                    taken += count;
                    tries = 0;
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    self.compact();
                    return Err(error);
                }
                // Perhaps an ICMP error about an earlier datagram, reported once: this datagram was not tried yet.
                _ if is_pending(&error) && tries < MOST_TRIES => tries += 1,
                _ => {
                    self.note_refusal(error);
                    self.sent += 1;
                    tries = 0;
                }
            }
        }
        self.sent = 0;
        self.queued = 0;
        Ok(taken)
    }

    /// Keeps the error and the first bytes of the first waiting datagram.
    #[cold]
    fn note_refusal(&mut self, error: io::Error) {
        let Some(packet) = self.queue.get(self.sent) else {
            return;
        };
        self.refused.count += 1;
        self.refused.kept.truncate(MOST_REFUSED);
        let beginning = packet.bytes.len().min(USUAL_BYTES);
        self.refused.kept.push(Refusal {
            error,
            to: socket_addr(&packet.to).unwrap_or(NOWHERE),
            bytes: packet.bytes[..beginning].to_vec(),
        });
    }

    /// Moves the waiting datagrams to the front, so that the queue of a socket that never catches up does not grow without bound.
    fn compact(&mut self) {
        self.queue[..self.queued].rotate_left(self.sent);
        self.queued -= self.sent;
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::net::UdpSocket;

    use super::*;

    fn bound(address: &str) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind(address).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    fn received(socket: &UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = socket.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn each_datagram_goes_to_its_own_place() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let (sender, _) = bound(any);
            let (a, to_a) = bound(any);
            let (b, to_b) = bound(any);
            let mut queue = Sender::new(2);
            for (n, to) in [to_a, to_b, to_a, to_b, to_a].into_iter().enumerate() {
                queue.push(&[n as u8; 3], to);
            }
            assert_eq!(queue.waiting(), 5);
            assert_eq!(queue.flush(&sender).unwrap(), 5);
            assert_eq!(queue.waiting(), 0);
            for n in [0, 2, 4] {
                assert_eq!(received(&a), [n; 3]);
            }
            for n in [1, 3] {
                assert_eq!(received(&b), [n; 3]);
            }
        }
    }

    #[test]
    fn the_largest_datagram_leaves_whole() {
        let (sender, _) = bound("127.0.0.1:0");
        let (a, to) = bound("127.0.0.1:0");
        let bytes: Vec<u8> = (0..65_507u32).map(|n| n as u8).collect();
        let mut queue = Sender::new(1);
        queue.push(&bytes, to);
        assert_eq!(queue.flush(&sender).unwrap(), 1);
        assert_eq!(received(&a), bytes);
    }

    #[test]
    fn uncommitted_bytes_are_discarded() {
        let (sender, _) = bound("127.0.0.1:0");
        let (a, to) = bound("127.0.0.1:0");
        let mut queue = Sender::new(4);
        queue.buffer().extend_from_slice(b"draft");
        assert_eq!(queue.draft(), b"draft");
        queue.buffer().extend_from_slice(b"final");
        assert_eq!(queue.draft(), b"final");
        queue.commit(to);
        assert_eq!(queue.draft(), b"");
        assert_eq!(queue.flush(&sender).unwrap(), 1);
        assert_eq!(received(&a), b"final");
    }

    #[test]
    fn a_refused_datagram_does_not_hold_up_the_others() {
        let (sender, _) = bound("127.0.0.1:0");
        let (a, to) = bound("127.0.0.1:0");
        let mut queue = Sender::new(8);
        queue.push(b"before", to);
        // An IPv6 destination on an IPv4 socket, and a datagram that no UDP packet can hold.
        queue.push(b"nowhere", "[::1]:9".parse().unwrap());
        queue.push(&[0; 70_000], to);
        queue.push(b"after", to);
        assert_eq!(queue.flush(&sender).unwrap(), 2);
        let failed = queue.failures();
        assert_eq!(failed.count, 2);
        let kept: Vec<_> = failed
            .kept
            .iter()
            .map(|kept| (kept.to, &*kept.bytes))
            .collect();
        let nowhere = "[::1]:9".parse().unwrap();
        assert_eq!(kept, [(nowhere, &b"nowhere"[..]), (to, &[0; USUAL_BYTES])]);
        assert_eq!(queue.failures().count, 0);
        assert!(queue.failures().last().is_none());
        assert_eq!(received(&a), b"before");
        assert_eq!(received(&a), b"after");
    }

    #[test]
    fn an_icmp_error_loses_no_datagram() {
        let (a, to_a) = bound("127.0.0.1:0");
        let (b, to_b) = bound("127.0.0.1:0");
        a.connect(to_b).unwrap();
        drop(b);
        let mut queue = Sender::new(1);
        queue.push(b"before", to_b);
        assert_eq!(queue.flush(&a).unwrap(), 1);
        // The ICMP error has arrived by now; the next call reports it.
        let (b, _) = bound(&to_b.to_string());
        queue.push(b"after", to_b);
        assert_eq!(queue.flush(&a).unwrap(), 1);
        assert_eq!(queue.failures().count, 0);
        assert_eq!(received(&b), b"after");
        b.send_to(b"thanks", to_a).unwrap();
        assert_eq!(received(&a), b"thanks");
    }

    #[test]
    fn every_datagram_is_passed_once_whatever_the_kernel_returns() {
        let refuse = |code| Err(io::Error::from_raw_os_error(code));
        // The results of successive calls: datagrams accepted, or the error of the first one.
        let mut says: VecDeque<io::Result<usize>> = VecDeque::from([
            Ok(2),
            refuse(libc::EINTR),
            refuse(libc::EPERM),
            Ok(1),
            refuse(libc::EAGAIN),
            refuse(libc::ECONNREFUSED),
            Ok(1),
            refuse(libc::ECONNREFUSED),
            refuse(libc::EHOSTUNREACH),
            refuse(libc::ECONNREFUSED),
            refuse(libc::ENETUNREACH),
            refuse(libc::ENETUNREACH),
            refuse(libc::ENETUNREACH),
            Ok(2),
            Ok(1),
        ]);
        let mut handed = Vec::new();
        let mut queue = Sender::new(3);
        for n in 0..6u8 {
            queue.push(&[n], "127.0.0.1:9".parse().unwrap());
        }
        let mut flush = |queue: &mut Sender| {
            queue.flush_by(|_, packets| {
                let said = says.pop_front().expect("no more calls than expected");
                if let Ok(count) = said {
                    handed.extend(packets[..count].iter().map(|packet| packet.bytes[0]));
                }
                said
            })
        };

        let error = flush(&mut queue).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(queue.waiting(), 2);
        assert_eq!(queue.failures().count, 1);

        // Datagrams queued in the meantime go behind those that wait.
        for n in 6..10u8 {
            queue.push(&[n], "127.0.0.1:9".parse().unwrap());
        }
        assert_eq!(flush(&mut queue).unwrap(), 4);
        assert_eq!(queue.waiting(), 0);
        let failed = queue.failures();
        assert_eq!(failed.count, 2);
        let last = &failed.last().unwrap().error;
        assert_eq!(last.raw_os_error(), Some(libc::ENETUNREACH));
        assert_eq!(handed, [0, 1, 3, 4, 7, 8, 9]);
    }

    #[test]
    fn refused_datagrams_are_kept_up_to_a_number() {
        let mut queue = Sender::new(8);
        let count = MOST_REFUSED + 5;
        for n in 0..count {
            queue.push(n.to_string().as_bytes(), "127.0.0.1:9".parse().unwrap());
        }
        let sent = queue.flush_by(|_, _| Err(io::Error::from_raw_os_error(libc::EPERM)));
        assert_eq!(sent.unwrap(), 0);
        let refused = queue.failures();
        assert_eq!(
            (refused.count, refused.kept.len()),
            (count as u64, MOST_REFUSED + 1)
        );
        let last = refused.last().unwrap();
        assert_eq!(last.bytes, (count - 1).to_string().as_bytes());
    }

    #[test]
    fn waiting_datagrams_can_be_discarded() {
        let mut queue = Sender::new(2);
        for _ in 0..3 {
            queue.push(b"late", "127.0.0.1:9".parse().unwrap());
        }
        assert_eq!(queue.clear(), 3);
        assert_eq!(queue.waiting(), 0);
    }
}
