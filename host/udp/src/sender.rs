//! Sending.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::system::{NOWHERE, Name, Outgoing};

/// The room that a new buffer has: most SIP messages are smaller.
const USUAL_BYTES: usize = 2_048;

/// A queue of outgoing datagrams whose buffers are reused.
#[derive(Debug)]
pub struct Sender {
    queue: Vec<Packet>,
    /// Packets `sent..queued` of the queue wait; those behind are spare buffers.
    sent: usize,
    queued: usize,
    batch: usize,
    system: Outgoing,
    failed: u64,
    last_error: Option<io::Error>,
}

/// One datagram and where it goes.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) bytes: Vec<u8>,
    pub(crate) to: Name,
}

impl Sender {
    /// A queue that hands at most `batch` datagrams to the kernel at once. It takes any number.
    pub fn new(batch: usize) -> Self {
        let batch = batch.max(1);
        Self {
            queue: Vec::with_capacity(batch),
            sent: 0,
            queued: 0,
            batch,
            system: Outgoing::new(batch),
            failed: 0,
            last_error: None,
        }
    }

    /// Queues a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8], to: SocketAddr) {
        self.buffer().extend_from_slice(bytes);
        self.commit(to);
    }

    /// The empty buffer of the next datagram. Write into it, then `commit`; what is not committed is forgotten.
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

    /// What was written into `buffer` and is not committed yet.
    pub fn draft(&self) -> &[u8] {
        self.queue
            .get(self.queued)
            .map_or(&[], |packet| &packet.bytes)
    }

    /// Queues what was written into `buffer`.
    pub fn commit(&mut self, to: SocketAddr) {
        if let Some(packet) = self.queue.get_mut(self.queued) {
            packet.to = Name::from(to);
            self.queued += 1;
        }
    }

    /// How many datagrams wait.
    pub fn waiting(&self) -> usize {
        self.queued - self.sent
    }

    /// Hands everything that waits to the kernel, in order; the number of datagrams that it took.
    ///
    /// A datagram that the kernel refuses for itself (no route, forbidden, too large) is dropped and counted in `failures`; the
    /// others are not held up.
    ///
    /// # Errors
    /// `WouldBlock` when the socket's buffer is full: what was not sent stays queued for the next call.
    pub fn flush(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let socket = socket.as_fd();
        self.flush_by(|system, packets| system.send(socket, packets))
    }

    /// Forgets everything that waits; the number of datagrams forgotten.
    pub fn clear(&mut self) -> usize {
        let waiting = self.waiting();
        self.sent = 0;
        self.queued = 0;
        waiting
    }

    /// The number of datagrams that the kernel refused since the last call, and the last refusal.
    pub fn failures(&mut self) -> (u64, Option<io::Error>) {
        (mem::take(&mut self.failed), self.last_error.take())
    }

    /// `send` hands over a batch and tells how many of it the kernel took, or why not even the first.
    fn flush_by(
        &mut self,
        mut send: impl FnMut(&mut Outgoing, &mut [Packet]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut taken = 0;
        let mut again = false;
        while self.sent < self.queued {
            let end = self.queued.min(self.sent + self.batch);
            let error = match send(&mut self.system, &mut self.queue[self.sent..end]) {
                Ok(count) => {
                    self.sent += count;
                    taken += count;
                    again = false;
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
                // ICMP's word about an earlier datagram, told once: this one was not tried yet.
                io::ErrorKind::ConnectionRefused if !again => again = true,
                _ => {
                    self.sent += 1;
                    self.failed += 1;
                    self.last_error = Some(error);
                    again = false;
                }
            }
        }
        self.sent = 0;
        self.queued = 0;
        Ok(taken)
    }

    /// Moves what waits to the front, so that a socket that is always a little behind does not grow the queue for ever.
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
    fn what_is_not_committed_is_forgotten() {
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
        let (failed, error) = queue.failures();
        assert_eq!(failed, 2);
        assert!(error.is_some());
        assert_eq!(queue.failures().0, 0);
        assert_eq!(received(&a), b"before");
        assert_eq!(received(&a), b"after");
    }

    #[test]
    fn a_refused_port_costs_no_datagram() {
        let (a, to_a) = bound("127.0.0.1:0");
        let (b, to_b) = bound("127.0.0.1:0");
        a.connect(to_b).unwrap();
        drop(b);
        let mut queue = Sender::new(1);
        queue.push(b"to nobody", to_b);
        assert_eq!(queue.flush(&a).unwrap(), 1);
        // ICMP has answered by now; the next call hears of it.
        let (b, _) = bound(&to_b.to_string());
        queue.push(b"to somebody", to_b);
        assert_eq!(queue.flush(&a).unwrap(), 1);
        assert_eq!(queue.failures().0, 0);
        assert_eq!(received(&b), b"to somebody");
        b.send_to(b"thanks", to_a).unwrap();
        assert_eq!(received(&a), b"thanks");
    }

    #[test]
    fn every_datagram_is_handed_over_once_whatever_the_kernel_says() {
        let refuse = |code| Err(io::Error::from_raw_os_error(code));
        // Taken, error of the first one, …: each is what one call says.
        let mut says: VecDeque<io::Result<usize>> = VecDeque::from([
            Ok(2),
            refuse(libc::EINTR),
            refuse(libc::EPERM),
            Ok(1),
            refuse(libc::EAGAIN),
            refuse(libc::ECONNREFUSED),
            Ok(1),
            refuse(libc::ECONNREFUSED),
            refuse(libc::ECONNREFUSED),
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
        assert_eq!(queue.failures().0, 1);

        // What came in the meantime goes behind what waits.
        for n in 6..10u8 {
            queue.push(&[n], "127.0.0.1:9".parse().unwrap());
        }
        assert_eq!(flush(&mut queue).unwrap(), 4);
        assert_eq!(queue.waiting(), 0);
        let (failed, last) = queue.failures();
        assert_eq!(failed, 2);
        assert_eq!(last.and_then(|e| e.raw_os_error()), Some(libc::ENETUNREACH));
        assert_eq!(handed, [0, 1, 3, 4, 7, 8, 9]);
    }

    #[test]
    fn what_waits_can_be_forgotten() {
        let mut queue = Sender::new(2);
        for _ in 0..3 {
            queue.push(b"late", "127.0.0.1:9".parse().unwrap());
        }
        assert_eq!(queue.clear(), 3);
        assert_eq!(queue.waiting(), 0);
    }
}
