//! `recvmmsg` and `sendmmsg`.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::NOWHERE;
use super::name::Name;
use super::packet::Packet;
use super::slot::Slot;

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
        // SAFETY: the kernel does what `recv_by` requires.
        unsafe {
            self.recv_by(slots, room, |headers| {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    headers.len() as libc::c_uint,
                    libc::MSG_WAITFORONE as _,
                    ptr::null_mut(),
                )
            })
        }
    }

    /// [`Self::recv`] with `call` as the system call: tests have one that Miri can follow.
    ///
    /// # Safety
    /// A result of `call` that is not negative is the number of the first headers for which it has written a datagram and its source where
    /// they point to, no more bytes than they say, and the length of both.
    unsafe fn recv_by(
        &mut self,
        slots: &mut [Slot],
        room: usize,
        mut call: impl FnMut(&mut [libc::mmsghdr]) -> libc::c_int,
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
        // Each header points to an iovec, a buffer and a name that live and that nobody touches during the call; lengths are those of the
        // memory behind the pointers.
        let count = repeat_interrupted(|| call(headers))?;
        let received = headers.iter().zip(&self.names).take(count);
        for (slot, (header, name)) in slots.iter_mut().zip(received) {
            let length = (header.msg_len as usize).min(room);
            // SAFETY: `call` has written `length` bytes, and the buffer has room for as many.
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
        self.send_by(packets, |headers| {
            // SAFETY: what the headers point to lives and is not written during the call, and the kernel only reads there.
            unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    headers.len() as libc::c_uint,
                    0,
                )
            }
        })
    }

    /// [`Self::send`] with `call` as the system call.
    fn send_by(
        &mut self,
        packets: &mut [Packet],
        call: impl FnOnce(&mut [libc::mmsghdr]) -> libc::c_int,
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
        // Each header points to an iovec, a buffer and a name that live; lengths are those of the memory behind the pointers.
        let count = call(headers);
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

/// What the kernel does with the headers, step by step, so that Miri checks each access. Miri supports neither `recvmmsg` nor `sendmmsg`.
#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::slice;

    use super::*;

    /// Writes these datagrams where the headers point to.
    ///
    /// # Safety
    /// The pointers are valid for writes of the lengths that are beside them.
    unsafe fn deliver(
        headers: &mut [libc::mmsghdr],
        datagrams: &[(&[u8], SocketAddr)],
    ) -> libc::c_int {
        let mut count = 0;
        for (header, (bytes, source)) in headers.iter_mut().zip(datagrams) {
            let name = Name::from(*source);
            // SAFETY: the caller promises it; a name has no more bytes than the length beside it.
            unsafe {
                let iovec = &*header.msg_hdr.msg_iov;
                let length = bytes.len().min(iovec.iov_len);
                ptr::copy_nonoverlapping(bytes.as_ptr(), iovec.iov_base.cast(), length);
                assert_eq!(header.msg_hdr.msg_namelen as usize, mem::size_of::<Name>());
                header.msg_hdr.msg_name.cast::<Name>().write(name);
                header.msg_len = length as libc::c_uint;
                header.msg_hdr.msg_flags = match length < bytes.len() {
                    true => libc::MSG_TRUNC,
                    false => 0,
                };
            }
            header.msg_hdr.msg_namelen = name.length() as libc::socklen_t;
            count += 1;
        }
        count
    }

    /// Reads the datagrams and their destinations that the headers point to.
    ///
    /// # Safety
    /// The pointers are valid for reads of the lengths that are beside them.
    unsafe fn collect(headers: &[libc::mmsghdr]) -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let sent = headers.iter().map(|header| {
            let mut name = Name::from(NOWHERE);
            let length = header.msg_hdr.msg_namelen;
            // SAFETY: the caller promises it; a name has room for any address.
            let bytes = unsafe {
                let iovec = &*header.msg_hdr.msg_iov;
                let from = header.msg_hdr.msg_name.cast::<u8>();
                ptr::copy_nonoverlapping(from, (&raw mut name).cast(), length as usize);
                slice::from_raw_parts(iovec.iov_base.cast::<u8>(), iovec.iov_len).to_vec()
            };
            (bytes, name.address(length))
        });
        sent.collect()
    }

    fn addresses() -> [SocketAddr; 3] {
        ["192.0.2.1:5060", "[2001:db8::1]:5061", "192.0.2.3:1"].map(|text| text.parse().unwrap())
    }

    #[test]
    fn the_kernel_writes_into_slots_and_names_and_each_is_read_after_it() {
        let [one, two, three] = addresses();
        let mut incoming = Incoming::new(3);
        let mut slots: Vec<_> = (0..3).map(|_| Slot::new(4)).collect();
        for datagrams in [
            &[(&b"abc"[..], one), (b"longer", two), (b"", three)][..],
            &[(&b"de"[..], two)][..],
            &[(&b"full"[..], three), (b"f", one)][..],
        ] {
            slots.iter_mut().for_each(|slot| slot.bytes.clear());
            let mut interrupted = false;
            // SAFETY: `deliver` writes as a kernel does, behind pointers that are valid.
            let received = unsafe {
                incoming.recv_by(&mut slots, 4, |headers| {
                    if !std::mem::replace(&mut interrupted, true) {
                        *libc::__errno_location() = libc::EINTR;
                        return -1;
                    }
                    deliver(headers, datagrams)
                })
            };
            assert_eq!(received.unwrap(), datagrams.len());
            for (slot, (bytes, source)) in slots.iter().zip(datagrams) {
                assert_eq!(slot.bytes, bytes[..bytes.len().min(4)]);
                assert_eq!((slot.truncated, slot.source), (bytes.len() > 4, *source));
            }
        }
    }

    #[test]
    fn the_kernel_reads_packets_and_names_whatever_batch_they_are_in() {
        let mut outgoing = Outgoing::new(2);
        let mut packets = addresses().map(|to| Packet {
            bytes: to.to_string().into_bytes(),
            to: to.into(),
        });
        for batch in [0..2, 2..3, 0..3, 1..1] {
            let mut seen = Vec::new();
            let sent = outgoing.send_by(&mut packets[batch.clone()], |headers| {
                // SAFETY: the headers point to the packets of this batch.
                seen = unsafe { collect(headers) };
                headers.len() as libc::c_int
            });
            assert_eq!(sent.unwrap(), batch.len());
            let expected = addresses().map(|to| (to.to_string().into_bytes(), Some(to)));
            assert_eq!(seen, expected[batch]);
        }
    }
}
