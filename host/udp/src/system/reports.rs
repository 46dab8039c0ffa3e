//! `recvmmsg` with `MSG_ERRQUEUE`: what the kernel knows about datagrams sent earlier.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::NOWHERE;
use super::name::Name;
use crate::report::{Problem, Report};

/// Room for the control message: `sock_extended_err` and the address of the reporting router take 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 128]);

/// Headers for a batch, with the memory that they point to: allocated once, filled before each call.
pub(crate) struct Reports {
    bytes: Vec<u8>,
    room: usize,
    names: Vec<Name>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

// SAFETY: the pointers in the headers are written before each system call and never followed after it by another owner, so the value may
// move between threads.
unsafe impl Send for Reports {}

impl Reports {
    pub(crate) fn new(batch: usize, room: usize) -> Self {
        Self {
            bytes: vec![0; batch * room],
            room,
            names: vec![Name::from(NOWHERE); batch],
            controls: vec![Control([0; 128]); batch],
            iovecs: Vec::with_capacity(batch),
            headers: Vec::with_capacity(batch),
        }
    }

    pub(crate) fn recv(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.recv_by(|headers| {
            // SAFETY: each header points to an iovec, a buffer, a name and a control buffer that live and that nobody touches during the
            // call; lengths are those of the memory behind the pointers.
            unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    headers.len() as libc::c_uint,
                    (libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) as _,
                    ptr::null_mut(),
                )
            }
        })
    }

    /// [`Self::recv`] with `call` as the system call: tests have one that Miri can follow.
    fn recv_by(
        &mut self,
        mut call: impl FnMut(&mut [libc::mmsghdr]) -> libc::c_int,
    ) -> io::Result<usize> {
        loop {
            self.point();
            if let Ok(count) = usize::try_from(call(&mut self.headers)) {
                return Ok(count);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    pub(crate) fn report(&self, nth: usize) -> Report<'_> {
        let header = &self.headers[nth];
        let start = nth * self.room;
        let length = (header.msg_len as usize).min(self.room);
        let to = self.names[nth].address(header.msg_hdr.msg_namelen);
        Report {
            to: to.unwrap_or(NOWHERE),
            quoted: &self.bytes[start..start + length],
            problem: problem(&self.controls[nth], header.msg_hdr.msg_controllen as _),
        }
    }

    /// Points the headers to the memory of this value.
    fn point(&mut self) {
        self.iovecs.clear();
        self.headers.clear();
        for bytes in self.bytes.chunks_exact_mut(self.room) {
            self.iovecs.push(libc::iovec {
                iov_base: bytes.as_mut_ptr().cast(),
                iov_len: bytes.len(),
            });
        }
        // The iovecs do not move any more, so their addresses are taken now.
        let memory = self.iovecs.iter_mut().zip(&mut self.names);
        for ((iovec, name), control) in memory.zip(&mut self.controls) {
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<Name>() as libc::socklen_t;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = mem::size_of::<Control>() as _;
            self.headers.push(header);
        }
    }
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").finish_non_exhaustive()
    }
}

/// What the control messages of this length say.
fn problem(control: &Control, length: usize) -> Problem {
    let mut rest = control.0.get(..length).unwrap_or_default();
    while let Some((header, data)) = control_message(rest) {
        let is_report = matches!(
            (header.cmsg_level, header.cmsg_type),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        // `sock_extended_err` has a number of four bytes, origin, type and code.
        if let (true, Some(&[origin, kind, code])) = (is_report, data.get(4..7)) {
            return match origin {
                libc::SO_EE_ORIGIN_ICMP => Problem::of_icmp(kind, code),
                libc::SO_EE_ORIGIN_ICMP6 => Problem::of_icmpv6(kind, code),
                _ => Problem::Other,
            };
        }
        let length: usize = header.cmsg_len as _;
        let whole = length.next_multiple_of(mem::size_of::<usize>());
        rest = rest.get(whole..).unwrap_or_default();
    }
    Problem::Other
}

/// The first control message, and its data.
fn control_message(bytes: &[u8]) -> Option<(libc::cmsghdr, &[u8])> {
    const HEAD: usize = mem::size_of::<libc::cmsghdr>();
    let head = bytes.get(..HEAD)?;
    // SAFETY: `head` has as many bytes as this plain C struct, any of which are a valid value.
    let header: libc::cmsghdr = unsafe { ptr::read_unaligned(head.as_ptr().cast()) };
    let data = bytes.get(HEAD..header.cmsg_len as _)?;
    Some((header, data))
}

/// What the kernel does with the headers, step by step, so that Miri checks each access.
#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// Writes a report where the header points to.
    fn deliver(header: &mut libc::mmsghdr, to: SocketAddr, quoted: &[u8], message: &[u8]) {
        let name = Name::from(to);
        // SAFETY: the pointers of a header are valid for the lengths beside them.
        unsafe {
            let iovec = &*header.msg_hdr.msg_iov;
            let length = quoted.len().min(iovec.iov_len);
            ptr::copy_nonoverlapping(quoted.as_ptr(), iovec.iov_base.cast(), length);
            header.msg_len = length as libc::c_uint;
            header.msg_hdr.msg_name.cast::<Name>().write(name);
            let control = header.msg_hdr.msg_control.cast::<u8>();
            ptr::copy_nonoverlapping(message.as_ptr(), control, message.len());
        }
        header.msg_hdr.msg_namelen = name.length() as libc::socklen_t;
        header.msg_hdr.msg_controllen = message.len() as _;
    }

    /// A control message as the kernel writes it.
    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let length = mem::size_of::<libc::cmsghdr>() + data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(data);
        bytes.resize(length.next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn reports_have_destination_quote_and_problem() {
        let mut reports = Reports::new(4, 8);
        let to: SocketAddr = "[2001:db8::1]:5060".parse().unwrap();
        let refused = [111, 0, 0, 0, libc::SO_EE_ORIGIN_ICMP6, 1, 4, 0];
        let time = message(libc::SOL_SOCKET, libc::SO_TIMESTAMP, &[1, 2, 3]);
        let report = message(libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &refused);
        let after_time = [&time[..], &report].concat();
        let mut interrupted = false;
        for _ in 0..2 {
            let count = reports.recv_by(|headers| {
                if !mem::replace(&mut interrupted, true) {
                    // SAFETY: the error number is this thread's.
                    unsafe { *libc::__errno_location() = libc::EINTR };
                    return -1;
                }
                deliver(&mut headers[0], to, b"INVITE", &report);
                deliver(&mut headers[1], to, b"longer than room", &after_time);
                deliver(&mut headers[2], to, b"", &report[..20]);
                deliver(&mut headers[3], to, b"", b"");
                4
            });
            assert_eq!(count.unwrap(), 4);
            let seen = [0, 1, 2, 3].map(|nth| {
                let report = reports.report(nth);
                assert_eq!(report.to, to);
                (report.quoted, report.problem)
            });
            let expected = [
                (&b"INVITE"[..], Problem::Unreachable),
                (b"longer t", Problem::Unreachable),
                (b"", Problem::Other),
                (b"", Problem::Other),
            ];
            assert_eq!(seen, expected);
        }
    }
}
