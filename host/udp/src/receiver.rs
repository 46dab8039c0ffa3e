//! Receives datagrams in batches.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use crate::system::{Incoming, Slot};

/// Capacity for one datagram, in bytes: no UDP datagram is larger (RFC 768: a 16-bit length).
pub const DATAGRAM_BYTES: usize = 65_535;

/// A batch of slots for incoming datagrams, made once and reused.
#[derive(Debug)]
pub struct Receiver {
    slots: Vec<Slot>,
    system: Incoming,
    room: usize,
}

impl Receiver {
    /// Makes slots for `batch` datagrams of any size. The kernel backs only the pages that datagrams touch with memory.
    pub fn new(batch: usize) -> Self {
        Self::with_room(batch, DATAGRAM_BYTES)
    }

    /// Makes slots for `batch` datagrams of up to `room` bytes each. Longer datagrams are cut off and marked as such.
    pub fn with_room(batch: usize, room: usize) -> Self {
        let (batch, room) = (batch.max(1), room.max(1));
        Self {
            slots: (0..batch).map(|_| Slot::new(room)).collect(),
            system: Incoming::new(batch),
            room,
        }
    }

    /// The number of datagrams that one call can receive.
    pub fn batch(&self) -> usize {
        self.slots.len()
    }

    /// Receives one datagram up to a whole batch. Fewer than a batch means that no more datagrams were waiting.
    ///
    /// # Errors
    /// Those of `recvmmsg`: `WouldBlock` when a non-blocking socket has nothing, errors that ICMP reported for datagrams sent
    /// earlier (`ConnectionRefused` and the like). An interrupted call is repeated.
    pub fn recv(&mut self, socket: impl AsFd) -> io::Result<usize> {
        for slot in &mut self.slots {
            slot.bytes.clear();
            // Only a slot whose buffer was taken and not restored needs a new one.
            slot.bytes.reserve_exact(self.room);
        }
        self.system.recv(socket.as_fd(), &mut self.slots, self.room)
    }

    /// The `nth` datagram of the last batch: its bytes, where it came from, and whether it was cut off.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn datagram(&self, nth: usize) -> (&[u8], SocketAddr, bool) {
        let slot = &self.slots[nth];
        (&slot.bytes, slot.source, slot.truncated)
    }

    /// Takes the buffer of the `nth` datagram, without a copy. Return it with `restore`; otherwise the slot allocates a new one.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn take(&mut self, nth: usize) -> Vec<u8> {
        mem::take(&mut self.slots[nth].bytes)
    }

    /// Returns a buffer to the `nth` slot.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn restore(&mut self, nth: usize, bytes: Vec<u8>) {
        self.slots[nth].bytes = bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let a = UdpSocket::bind(address).unwrap();
        let b = UdpSocket::bind(address).unwrap();
        a.connect(b.local_addr().unwrap()).unwrap();
        (a, b)
    }

    #[test]
    fn a_batch_keeps_order_bytes_and_sources() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (a, b) = pair(address);
            for n in 0..5u8 {
                a.send(&vec![n; usize::from(n) * 100]).unwrap();
            }
            let mut receiver = Receiver::new(8);
            let mut seen = 0u8;
            while seen < 5 {
                for nth in 0..receiver.recv(&b).unwrap() {
                    let (bytes, source, truncated) = receiver.datagram(nth);
                    assert_eq!(bytes, vec![seen; usize::from(seen) * 100]);
                    assert_eq!(source, a.local_addr().unwrap());
                    assert!(!truncated);
                    seen += 1;
                }
            }
        }
    }

    #[test]
    fn one_receiver_serves_sockets_of_both_families_in_turn() {
        let pairs = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"].map(pair);
        let mut receiver = Receiver::new(4);
        for (a, b) in &pairs {
            a.send(b"hello").unwrap();
            assert_eq!(receiver.recv(b).unwrap(), 1);
            let (bytes, source, _) = receiver.datagram(0);
            assert_eq!((bytes, source), (&b"hello"[..], a.local_addr().unwrap()));
        }
    }

    #[test]
    fn more_than_a_batch_comes_in_several() {
        let (a, b) = pair("127.0.0.1:0");
        for n in 0..5u8 {
            a.send(&[n]).unwrap();
        }
        let mut receiver = Receiver::new(2);
        assert_eq!(receiver.batch(), 2);
        let mut seen = Vec::new();
        for expected in [2, 2, 1] {
            assert_eq!(receiver.recv(&b).unwrap(), expected);
            seen.extend((0..expected).map(|nth| receiver.datagram(nth).0[0]));
        }
        assert_eq!(seen, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn the_largest_datagram_passes_whole() {
        for (address, most) in [("127.0.0.1:0", 65_507u32), ("[::1]:0", 65_487)] {
            let (a, b) = pair(address);
            let sent: Vec<u8> = (0..most).map(|n| n as u8).collect();
            a.send(&sent).unwrap();
            let mut receiver = Receiver::new(1);
            assert_eq!(receiver.recv(&b).unwrap(), 1);
            let (bytes, _, truncated) = receiver.datagram(0);
            assert_eq!(bytes, sent);
            assert!(!truncated);
        }
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_marked() {
        let (a, b) = pair("127.0.0.1:0");
        let mut receiver = Receiver::with_room(3, 10);
        for length in [11, 10, 9] {
            a.send(&vec![7; length]).unwrap();
        }
        assert_eq!(receiver.recv(&b).unwrap(), 3);
        let seen = [0, 1, 2].map(|nth| {
            let (bytes, _, truncated) = receiver.datagram(nth);
            (bytes.len(), truncated)
        });
        assert_eq!(seen, [(10, true), (10, false), (9, false)]);
    }

    #[test]
    fn an_empty_datagram_is_received() {
        let (a, b) = pair("127.0.0.1:0");
        a.send(b"").unwrap();
        let mut receiver = Receiver::new(2);
        assert_eq!(receiver.recv(&b).unwrap(), 1);
        assert_eq!(
            receiver.datagram(0),
            (&b""[..], a.local_addr().unwrap(), false)
        );
    }

    #[test]
    fn a_lent_buffer_comes_back_or_is_replaced() {
        let (a, b) = pair("127.0.0.1:0");
        let mut receiver = Receiver::new(1);
        let mut places = Vec::new();
        for round in 0..4u8 {
            a.send(&[round; 10]).unwrap();
            assert_eq!(receiver.recv(&b).unwrap(), 1);
            let bytes = receiver.take(0);
            assert_eq!(bytes, [round; 10]);
            assert!(receiver.datagram(0).0.is_empty());
            places.push(bytes.as_ptr());
            match round {
                // Any buffer may be returned, not only the one that was taken.
                1 => receiver.restore(0, vec![1; 3]),
                2 => drop(bytes),
                _ => receiver.restore(0, bytes),
            }
        }
        assert_eq!(
            places[0], places[1],
            "a buffer that came back is used again"
        );
    }

    #[test]
    fn an_empty_socket_would_block() {
        let (_a, b) = pair("127.0.0.1:0");
        b.set_nonblocking(true).unwrap();
        let error = Receiver::new(4).recv(&b).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_refused_port_is_reported_once_and_the_socket_lives() {
        let (a, b) = pair("127.0.0.1:0");
        let address = b.local_addr().unwrap();
        drop(b);
        a.send(b"no receiver").unwrap();
        let mut receiver = Receiver::new(2);
        let error = receiver.recv(&a).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        let b = UdpSocket::bind(address).unwrap();
        b.send_to(b"now there is", a.local_addr().unwrap()).unwrap();
        assert_eq!(receiver.recv(&a).unwrap(), 1);
        assert_eq!(receiver.datagram(0).0, b"now there is");
    }
}
