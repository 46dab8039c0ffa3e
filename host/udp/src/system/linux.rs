//! `recvmmsg` and `sendmmsg`.

use std::fmt;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::NOWHERE;
use crate::receiver::Slot;
use crate::sender::Packet;

/// The headers that `recvmmsg` needs beside the slots: allocated once, filled before each call.
pub(crate) struct Incoming {
    frame: Frame,
    names: Vec<Name>,
}

/// The headers that `sendmmsg` needs beside the packets.
pub(crate) struct Outgoing {
    frame: Frame,
}

/// Headers for a batch, each with the one buffer that it points to.
struct Frame {
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in a frame are written before each system call and never followed after it, so the value may move
// between threads.
unsafe impl Send for Frame {}

/// A socket address as the kernel reads and writes it, with space for the larger address family.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Incoming {
    pub(crate) fn new(batch: usize) -> Self {
        Self {
            frame: Frame::new(batch),
            names: vec![Name::from(NOWHERE); batch],
        }
    }

    /// Receives into the slots, whose buffers are empty and have `room` bytes of capacity each.
    pub(crate) fn recv(
        &mut self,
        socket: BorrowedFd<'_>,
        slots: &mut [Slot],
        room: usize,
    ) -> io::Result<usize> {
        let names = self.names.iter_mut();
        let places = slots.iter_mut().zip(names).map(|(slot, name)| {
            assert!(slot.bytes.capacity() >= room, "a slot has room");
            let name_length = mem::size_of::<Name>();
            (
                slot.bytes.as_mut_ptr(),
                room,
                ptr::from_mut(name),
                name_length,
            )
        });
        let headers = self.frame.point_to(places);
        let count = repeat_interrupted(|| {
            // SAFETY: each header points to an iovec, a buffer and a name that live and that nobody touches during the call;
            // lengths are those of the memory behind the pointers. The kernel writes there.
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    headers.len() as libc::c_uint,
                    libc::MSG_WAITFORONE as _,
                    ptr::null_mut(),
                )
            }
        })?;
        let received = headers.iter().zip(&self.names).take(count);
        for (slot, (header, name)) in slots.iter_mut().zip(received) {
            let length = (header.msg_len as usize).min(room);
            // SAFETY: the kernel has written `length` bytes, and the buffer has room for as many.
            unsafe { slot.bytes.set_len(length) };
            slot.truncated = header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            slot.source = name.address(header.msg_hdr.msg_namelen).unwrap_or(NOWHERE);
        }
        Ok(count)
    }
}

impl Outgoing {
    pub(crate) fn new(batch: usize) -> Self {
        Self {
            frame: Frame::new(batch),
        }
    }

    /// Passes packets to the kernel; returns how many of the first ones it accepted.
    ///
    /// # Errors
    /// Why it refused the first one.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        packets: &mut [Packet],
    ) -> io::Result<usize> {
        let places = packets.iter_mut().map(|packet| {
            let name_length = packet.to.length();
            let (bytes, name) = (&mut packet.bytes, &mut packet.to);
            (
                bytes.as_mut_ptr(),
                bytes.len(),
                ptr::from_mut(name),
                name_length,
            )
        });
        let headers = self.frame.point_to(places);
        // SAFETY: each header points to an iovec, a buffer and a name that live and that nobody touches during the call;
        // lengths are those of the memory behind the pointers. The kernel only reads there.
        let count = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                0,
            )
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl Frame {
    fn new(batch: usize) -> Self {
        Self {
            iovecs: Vec::with_capacity(batch),
            headers: Vec::with_capacity(batch),
        }
    }

    /// Fills the headers with these buffers and names, each with its length. The pointers are valid only as long as the buffers and
    /// names are.
    fn point_to(
        &mut self,
        places: impl Iterator<Item = (*mut u8, usize, *mut Name, usize)>,
    ) -> &mut [libc::mmsghdr] {
        self.iovecs.clear();
        self.headers.clear();
        for (bytes, length, name, name_length) in places {
            self.iovecs.push(libc::iovec {
                iov_base: bytes.cast(),
                iov_len: length,
            });
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = name.cast();
            header.msg_hdr.msg_namelen = name_length as libc::socklen_t;
            header.msg_hdr.msg_iovlen = 1;
            self.headers.push(header);
        }
        // The iovecs do not move any more, so their addresses are taken now.
        for (header, iovec) in self.headers.iter_mut().zip(&mut self.iovecs) {
            header.msg_hdr.msg_iov = iovec;
        }
        &mut self.headers
    }
}

impl Name {
    /// Bytes of it that the address uses.
    fn length(&self) -> usize {
        if self.family() == libc::AF_INET6 {
            mem::size_of::<libc::sockaddr_in6>()
        } else {
            mem::size_of::<libc::sockaddr_in>()
        }
    }

    /// The address that the kernel wrote with this length; `None` unless it is an internet address.
    fn address(&self, length: libc::socklen_t) -> Option<SocketAddr> {
        let length = length as usize;
        if length < self.length() {
            return None;
        }
        match self.family() {
            libc::AF_INET => {
                // SAFETY: the family says so, and any bytes are a valid value of this plain C struct.
                let name = unsafe { &self.v4 };
                let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above; all of the union was written when it was made.
                let name = unsafe { &self.v6 };
                let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
                let port = u16::from_be(name.sin6_port);
                Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
            }
            _ => None,
        }
    }

    fn family(&self) -> libc::c_int {
        // SAFETY: both structs begin with their family.
        libc::c_int::from(unsafe { self.v4.sin_family })
    }
}

/// The address that a name was made from.
pub(crate) fn socket_addr(name: &Name) -> Option<SocketAddr> {
    name.address(name.length() as libc::socklen_t)
}

impl From<SocketAddr> for Name {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all-zero is a valid value of these plain C structs.
        let mut name: Self = unsafe { mem::zeroed() };
        match address {
            SocketAddr::V4(address) => {
                name.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*address.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(address) => {
                name.v6 = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr {
                        s6_addr: address.ip().octets(),
                    },
                    sin6_scope_id: address.scope_id(),
                };
            }
        }
        name
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = mem::size_of::<Self>() as libc::socklen_t;
        fmt::Debug::fmt(&self.address(whole), f)
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").finish_non_exhaustive()
    }
}

fn repeat_interrupted(mut call: impl FnMut() -> libc::c_int) -> io::Result<usize> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in [
            "192.0.2.1:5060",
            "0.0.0.0:0",
            "[2001:db8::1]:65535",
            "[::]:1",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let name = Name::from(address);
            assert_eq!(
                name.address(name.length() as libc::socklen_t),
                Some(address)
            );
            assert_eq!(name.address(name.length() as libc::socklen_t - 1), None);
        }
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 5060, 0, 3).into();
        let name = Name::from(scoped);
        assert_eq!(name.address(28), Some(scoped));
    }

    #[test]
    fn what_is_no_internet_address_is_none() {
        let mut name = Name::from(NOWHERE);
        name.v4.sin_family = libc::AF_UNIX as libc::sa_family_t;
        assert_eq!(name.address(28), None);
        assert_eq!(name.address(0), None);
    }
}
