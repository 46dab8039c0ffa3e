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
