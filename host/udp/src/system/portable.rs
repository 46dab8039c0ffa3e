//! One system call for each datagram, for systems without batched calls.

#![expect(
    clippy::needless_pass_by_ref_mut,
    reason = "the same signatures as with batches"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use socket2::{MaybeUninitSlice, SockAddr, SockRef};

use super::NOWHERE;
use super::slot::Slot;

/// Receiving needs no state.
#[derive(Debug)]
pub(crate) struct Incoming;

/// Sending needs no state.
#[derive(Debug)]
pub(crate) struct Outgoing;

/// Errors of the network are not reported on these systems.
#[cfg(not(target_os = "linux"))]
#[derive(Debug)]
pub(crate) struct Reports;

#[cfg(not(target_os = "linux"))]
impl Reports {
    pub(crate) fn new(_batch: usize, _room: usize) -> Self {
        Self
    }

    pub(crate) fn recv(&mut self, _socket: BorrowedFd<'_>) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn report(&self, _nth: usize) -> crate::Report<'_> {
        crate::Report {
            to: NOWHERE,
            quoted: &[],
            problem: crate::Problem::Other,
        }
    }
}

/// A socket address.
pub(crate) type Name = SocketAddr;

/// The address that a name was made from.
pub(crate) fn socket_addr(name: &Name) -> Option<SocketAddr> {
    Some(*name)
}

impl Incoming {
    pub(crate) fn new(_batch: usize) -> Self {
        Self
    }

    /// Receives into the slots, whose buffers are empty and have `room` bytes of capacity each. Waits for the first datagram only.
    pub(crate) fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: &mut [Slot],
        room: usize,
    ) -> io::Result<usize> {
        let socket = SockRef::from(&socket);
        for (count, slot) in slots.iter_mut().enumerate() {
            let flags = if count == 0 { 0 } else { libc::MSG_DONTWAIT };
            let mut buffers = [MaybeUninitSlice::new(
                &mut slot.bytes.spare_capacity_mut()[..room],
            )];
            let received = socket.recv_from_vectored_with_flags(&mut buffers, flags);
            let (length, how, source) = match received {
                Ok(received) => received,
                Err(error) if count == 0 => return Err(error),
                Err(_) => return Ok(count),
            };
            // SAFETY: the system has written `length` bytes at the start of the buffer, which was empty.
            unsafe { slot.bytes.set_len(length.min(room)) };
            slot.truncated = how.is_truncated();
            slot.source = source.as_socket().unwrap_or(NOWHERE);
        }
        Ok(slots.len())
    }
}

impl Outgoing {
    pub(crate) fn new(_batch: usize) -> Self {
        Self
    }

    /// Passes datagrams to the system until it refuses one; returns how many it accepted.
    ///
    /// # Errors
    /// Why it refused the first one.
    pub(crate) fn send_each<'p>(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: impl Iterator<Item = (&'p [u8], SocketAddr)>,
    ) -> io::Result<usize> {
        let socket = SockRef::from(&socket);
        let mut count = 0;
        for (bytes, to) in packets {
            match socket.send_to(bytes, &SockAddr::from(to)) {
                Ok(_) => count += 1,
                Err(error) if count == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(count)
    }

    /// Sends packets, as [`Self::send_each`] does.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: &mut [super::packet::Packet],
    ) -> io::Result<usize> {
        let each = packets.iter().map(|packet| (&packet.bytes[..], packet.to));
        self.send_each(socket, each)
    }
}

/// Socket options that differ between systems.
#[cfg(not(target_os = "linux"))]
pub(crate) mod option {
    use super::*;
    use crate::bind_options::Bind;

    pub(crate) const BUFFER_SHOWN_TIMES: usize = 1;

    pub(crate) fn insist_on_buffers(_socket: &socket2::Socket, _options: Bind) {}

    /// These systems fragment by default.
    pub(crate) fn allow_fragments(
        _socket: &socket2::Socket,
        _address: SocketAddr,
    ) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn spread(_socket: BorrowedFd<'_>, _count: u32) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn steer(_socket: BorrowedFd<'_>, _filter: &[(u16, u8, u8, u32)]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn report_errors(_socket: BorrowedFd<'_>, _is_ipv4: bool) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn overflows(_socket: BorrowedFd<'_>) -> io::Result<u32> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn datagrams_come_and_go_one_by_one() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let a = UdpSocket::bind(any).unwrap();
            let b = UdpSocket::bind(any).unwrap();
            let to = b.local_addr().unwrap();
            let packets = [(&b"one"[..], to), (b"longer", to), (b"", to)];
            let sent = Outgoing::new(4).send_each(a.as_fd(), packets.into_iter());
            assert_eq!(sent.unwrap(), 3);
            let mut slots: Vec<Slot> = (0..5).map(|_| Slot::new(4)).collect();
            let count = Incoming::new(5).recv(b.as_fd(), &mut slots, 4).unwrap();
            assert_eq!(count, 3);
            let seen: Vec<_> = slots[..3]
                .iter()
                .map(|slot| (&slot.bytes[..], slot.truncated, slot.source))
                .collect();
            let from = a.local_addr().unwrap();
            let expected = [
                (&b"one"[..], false, from),
                (b"long", true, from),
                (b"", false, from),
            ];
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn a_refused_datagram_ends_the_batch_before_it() {
        let a = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = a.local_addr().unwrap();
        let large = vec![0; 70_000];
        let packets = [(&b"good"[..], to), (&large[..], to)];
        let mut outgoing = Outgoing::new(4);
        assert_eq!(
            outgoing.send_each(a.as_fd(), packets.into_iter()).unwrap(),
            1
        );
        let error = outgoing.send_each(a.as_fd(), packets[1..].iter().copied());
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    }
}
