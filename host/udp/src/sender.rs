//! Sending.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};

use socket2::SockAddr;

/// A queue of outgoing datagrams whose buffers are reused.
pub struct Sender {
    queue: Vec<Packet>,
    /// Packets `sent..queued` of the queue wait; those behind are spare buffers.
    sent: usize,
    queued: usize,
    batch: usize,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    failed: u64,
    last_error: Option<io::Error>,
}

struct Packet {
    bytes: Vec<u8>,
    to: SockAddr,
}

// SAFETY: the pointers in `iovecs` and `headers` are written anew from the queue before each system call and never followed
// after it, so the value may move between threads.
unsafe impl Send for Sender {}

impl Sender {
    /// A queue that hands at most `batch` datagrams to the kernel at once. It takes any number.
    pub fn new(batch: usize) -> Self {
        let batch = batch.max(1);
        Self {
            queue: Vec::with_capacity(batch),
            sent: 0,
            queued: 0,
            batch,
            iovecs: Vec::with_capacity(batch),
            headers: Vec::with_capacity(batch),
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
                bytes: Vec::with_capacity(2048),
                to: SockAddr::from(SocketAddr::from(([0, 0, 0, 0], 0))),
            });
        }
        let bytes = &mut self.queue[self.queued].bytes;
        bytes.clear();
        bytes
    }

    /// Queues what was written into `buffer`.
    pub fn commit(&mut self, to: SocketAddr) {
        if let Some(packet) = self.queue.get_mut(self.queued) {
            packet.to = SockAddr::from(to);
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
        let mut taken = 0;
        while self.sent < self.queued {
            match self.send_batch(&socket) {
                Ok(count) => {
                    self.sent += count;
                    taken += count;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => {
                        self.compact();
                        return Err(error);
                    }
                    _ => {
                        self.sent += 1;
                        self.failed += 1;
                        self.last_error = Some(error);
                    }
                },
            }
        }
        self.sent = 0;
        self.queued = 0;
        Ok(taken)
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

    fn send_batch(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        let end = self.queued.min(self.sent + self.batch);
        let packets = &mut self.queue[self.sent..end];
        self.iovecs.clear();
        self.headers.clear();
        self.iovecs
            .extend(packets.iter_mut().map(|packet| libc::iovec {
                iov_base: packet.bytes.as_mut_ptr().cast(),
                iov_len: packet.bytes.len(),
            }));
        for (packet, iovec) in packets.iter().zip(&mut self.iovecs) {
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = packet.to.as_ptr().cast_mut().cast();
            header.msg_hdr.msg_namelen = packet.to.len();
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            self.headers.push(header);
        }
        // SAFETY: each header points to an address and an iovec of `queue` that live and stay untouched during the call; the
        // kernel only reads through them.
        let count = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                0,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
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
        let (sender, _) = bound("127.0.0.1:0");
        let (a, to_a) = bound("127.0.0.1:0");
        let (b, to_b) = bound("127.0.0.1:0");
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

    #[test]
    fn what_is_not_committed_is_forgotten() {
        let (sender, _) = bound("127.0.0.1:0");
        let (a, to) = bound("127.0.0.1:0");
        let mut queue = Sender::new(4);
        queue.buffer().extend_from_slice(b"draft");
        queue.buffer().extend_from_slice(b"final");
        queue.commit(to);
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
    fn a_full_socket_keeps_the_rest_for_later() {
        // Loopback never fills a socket's buffer; what matters is the state that `WouldBlock` leaves, and `compact` makes it.
        let mut queue = Sender::new(2);
        let to = "127.0.0.1:9".parse().unwrap();
        for n in 0..4u8 {
            queue.push(&[n], to);
        }
        queue.sent = 3;
        queue.compact();
        assert_eq!(queue.waiting(), 1);
        assert_eq!(queue.queue[0].bytes, [3]);
        queue.push(&[9], to);
        assert_eq!(queue.waiting(), 2);
        assert_eq!(queue.queue[1].bytes, [9]);
        assert_eq!(queue.clear(), 2);
    }
}
