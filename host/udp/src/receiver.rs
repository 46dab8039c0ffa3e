//! Receiving.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use socket2::{SockAddr, SockAddrStorage};

/// The room for one datagram: no UDP datagram is larger (RFC 768 counts its length in 16 bits).
pub const DATAGRAM_BYTES: usize = 65_535;

/// A batch of slots for incoming datagrams, made once and reused.
pub struct Receiver {
    slots: Vec<Slot>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

struct Slot {
    bytes: Vec<u8>,
    source: SocketAddr,
    truncated: bool,
    name: SockAddrStorage,
}

// SAFETY: the pointers in `iovecs` and `headers` are written anew from the slots in each call of `recv` and never followed
// outside of it, so the value may move between threads.
unsafe impl Send for Receiver {}

impl Receiver {
    /// Makes room for `batch` datagrams of any size. The kernel gives memory only for the pages that datagrams really touch.
    pub fn new(batch: usize) -> Self {
        let batch = batch.max(1);
        Self {
            slots: (0..batch).map(|_| Slot::new()).collect(),
            iovecs: Vec::with_capacity(batch),
            headers: Vec::with_capacity(batch),
        }
    }

    /// The number of datagrams that one call can receive.
    pub fn batch(&self) -> usize {
        self.slots.len()
    }

    /// Receives up to a batch of datagrams, at least one.
    ///
    /// # Errors
    /// Those of `recvmmsg`: `WouldBlock` when a non-blocking socket has nothing, errors that ICMP reported for datagrams sent
    /// earlier (`ConnectionRefused` and the like). An interrupted call is repeated.
    pub fn recv(&mut self, socket: impl AsFd) -> io::Result<usize> {
        self.prepare();
        let count = loop {
            // SAFETY: each header points to an iovec and a name that `prepare` has just set to memory of `slots`, which nobody
            // touches during the call; the iovec's length is within the slot's capacity.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    self.headers.len() as libc::c_uint,
                    libc::MSG_WAITFORONE as _,
                    ptr::null_mut(),
                )
            };
            match usize::try_from(count) {
                Ok(count) => break count,
                Err(_) => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(error),
                },
            }
        };
        for (slot, header) in self.slots.iter_mut().zip(&self.headers).take(count) {
            slot.accept(header);
        }
        Ok(count)
    }

    /// The `nth` datagram of the last batch: its bytes, where it came from, and whether it was cut off.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn datagram(&self, nth: usize) -> (&[u8], SocketAddr, bool) {
        let slot = &self.slots[nth];
        (&slot.bytes, slot.source, slot.truncated)
    }

    /// Lends the bytes of the `nth` datagram out, by value and without a copy. Give the buffer back with `restore`; the slot
    /// gets a new one otherwise.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn take(&mut self, nth: usize) -> Vec<u8> {
        mem::take(&mut self.slots[nth].bytes)
    }

    /// Gives a buffer back to the `nth` slot.
    ///
    /// # Panics
    /// When `nth` is not below the batch.
    pub fn restore(&mut self, nth: usize, bytes: Vec<u8>) {
        self.slots[nth].bytes = bytes;
    }

    fn prepare(&mut self) {
        self.iovecs.clear();
        self.headers.clear();
        for slot in &mut self.slots {
            slot.bytes.clear();
            slot.bytes.reserve_exact(DATAGRAM_BYTES);
            self.iovecs.push(libc::iovec {
                iov_base: slot.bytes.as_mut_ptr().cast(),
                iov_len: DATAGRAM_BYTES,
            });
        }
        for (slot, iovec) in self.slots.iter_mut().zip(&mut self.iovecs) {
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut(&mut slot.name).cast();
            header.msg_hdr.msg_namelen = slot.name.size_of();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            self.headers.push(header);
        }
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(DATAGRAM_BYTES),
            source: SocketAddr::from(([0, 0, 0, 0], 0)),
            truncated: false,
            name: SockAddrStorage::zeroed(),
        }
    }

    fn accept(&mut self, header: &libc::mmsghdr) {
        let length = (header.msg_len as usize).min(DATAGRAM_BYTES);
        // SAFETY: the kernel has written `length` bytes, and `prepare` reserved at least that many.
        unsafe { self.bytes.set_len(length) };
        self.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
        let name = mem::replace(&mut self.name, SockAddrStorage::zeroed());
        // SAFETY: the kernel has written a socket address of this length into `name`.
        let name = unsafe { SockAddr::new(name, header.msg_hdr.msg_namelen) };
        // A datagram without an internet address has nowhere to answer to: source port 0 says so.
        self.source = name
            .as_socket()
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
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
    fn the_largest_datagram_passes_whole() {
        let (a, b) = pair("127.0.0.1:0");
        let sent: Vec<u8> = (0..65_507u32).map(|n| n as u8).collect();
        a.send(&sent).unwrap();
        let mut receiver = Receiver::new(1);
        assert_eq!(receiver.recv(&b).unwrap(), 1);
        assert_eq!(receiver.datagram(0).0, sent);
    }

    #[test]
    fn a_lent_buffer_comes_back_or_is_replaced() {
        let (a, b) = pair("127.0.0.1:0");
        let mut receiver = Receiver::new(1);
        for round in 0..3u8 {
            a.send(&[round; 10]).unwrap();
            assert_eq!(receiver.recv(&b).unwrap(), 1);
            let bytes = receiver.take(0);
            assert_eq!(bytes, [round; 10]);
            assert!(receiver.datagram(0).0.is_empty());
            if round != 1 {
                receiver.restore(0, bytes);
            }
        }
    }

    #[test]
    fn nothing_there_is_would_block() {
        let (_a, b) = pair("127.0.0.1:0");
        b.set_nonblocking(true).unwrap();
        let error = Receiver::new(4).recv(&b).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
