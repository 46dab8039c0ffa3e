//! Messages and descriptors between two processes of one machine (`SCM_RIGHTS` of unix(7)).

use std::io;
use std::mem;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// The longest message in bytes.
const MOST: usize = 64 << 10;

/// Room for the header and the number of one descriptor, aligned as a `cmsghdr`.
type Control = [u64; 4];

/// One end of a connection between two processes. It carries whole messages in their order, each with one descriptor or none.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A received message.
#[derive(Debug)]
pub struct Parcel {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The descriptor that came with it.
    pub descriptor: Option<OwnedFd>,
}

impl Channel {
    /// Both ends of a new connection.
    ///
    /// # Errors
    /// Those of `socketpair`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self(one.into()), Self(other.into())))
    }

    /// The end that another process has passed on.
    ///
    /// # Errors
    /// `InvalidInput` if the descriptor is something else.
    pub fn of(descriptor: OwnedFd) -> io::Result<Self> {
        let socket = SockRef::from(&descriptor);
        let is_one = matches!(socket.r#type(), Ok(Type::SEQPACKET))
            && socket.local_addr().is_ok_and(|addr| addr.is_unix());
        match is_one {
            true => Ok(Self(descriptor)),
            false => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// A further handle of this end: the other process sees its end when all are closed.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Waits until the other end is closed, for this time at most. Messages that come are dropped. Returns whether it is still open.
    pub fn is_open(&self, patience: Duration) -> bool {
        // Without a limit it waits for longer.
        let _best_effort = self.set_patience(patience);
        match self.recv() {
            Ok(Some(_)) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            Ok(None) => false,
        }
    }

    /// Limits how long [`Channel::send`] and [`Channel::recv`] wait.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        let socket = SockRef::from(&self.0);
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))
    }

    /// Closes the connection: both processes see its end, also one that waits in [`Channel::recv`] now.
    pub fn close(&self) {
        // The other end may be closed already.
        let _closed = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }

    /// Sends a message of at least one byte. The other process gets a duplicate of the descriptor.
    ///
    /// # Errors
    /// `BrokenPipe` if the other end is closed, `WouldBlock` after the patience, and those of `sendmsg`.
    pub fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MOST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut control = Control::default();
        let mut header = message(&mut part);
        if let Some(descriptor) = descriptor {
            attach(&mut header, &mut control, descriptor.as_raw_fd());
        }
        loop {
            // SAFETY: `header` points to `part`, `part` to `bytes`, and both to `control`; all live longer than the call, which writes none.
            let sent = unsafe { libc::sendmsg(self.0.as_raw_fd(), &header, libc::MSG_NOSIGNAL) };
            match done(sent) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// Receives a message; `None` when the other end is closed and nothing is left.
    ///
    /// # Errors
    /// `WouldBlock` after the patience, `InvalidData` for a message that is too long, and those of `recvmsg`.
    pub fn recv(&self) -> io::Result<Option<Parcel>> {
        let mut bytes = vec![0; MOST];
        let mut part = libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        };
        let mut control = Control::default();
        let mut header = message(&mut part);
        header.msg_control = ptr::from_mut(&mut control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        let length = loop {
            let flags = libc::MSG_CMSG_CLOEXEC;
            // SAFETY: `header` points to `part`, `part` to `bytes`, and both to `control`, with their lengths; all live longer than the call.
            let received = unsafe { libc::recvmsg(self.0.as_raw_fd(), &mut header, flags) };
            match done(received) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        let descriptor = descriptor_of(&header);
        if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if length == 0 {
            return Ok(None);
        }
        bytes.truncate(length);
        Ok(Some(Parcel { bytes, descriptor }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

fn message(part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: zero is a valid value of each field.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = part;
    header.msg_iovlen = 1;
    header
}

fn attach(header: &mut libc::msghdr, control: &mut Control, descriptor: RawFd) {
    header.msg_control = ptr::from_mut(control).cast();
    // SAFETY: the control buffer is aligned, and has room for a header and a descriptor (the test below compares), so the first header is
    // within it, and its data, too.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let first = libc::CMSG_FIRSTHDR(header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(first)
            .cast::<RawFd>()
            .write_unaligned(descriptor);
    }
}

/// The descriptor that came with a message. Further ones, which no [`Channel`] sends, are closed.
fn descriptor_of(header: &libc::msghdr) -> Option<OwnedFd> {
    // SAFETY: the kernel has written `msg_controllen` bytes of whole control messages. A descriptor that it has written is open, and nobody
    // else owns it. A reference to the first header would not reach its data, which follow it: hence a pointer.
    let descriptors: Vec<OwnedFd> = unsafe {
        let first = libc::CMSG_FIRSTHDR(header);
        if first.is_null() {
            return None;
        }
        if ((*first).cmsg_level, (*first).cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            return None;
        }
        let bytes = ((*first).cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
        let numbers = libc::CMSG_DATA(first).cast::<RawFd>();
        (0..bytes / size_of::<RawFd>())
            .map(|nth| OwnedFd::from_raw_fd(numbers.add(nth).read_unaligned()))
            .collect()
    };
    descriptors.into_iter().next()
}

fn done(length: isize) -> io::Result<usize> {
    usize::try_from(length).map_err(|_negative| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::UdpSocket;
    use std::os::fd::IntoRawFd;

    use super::*;

    #[test]
    fn one_descriptor_fits_into_the_control_buffer() {
        // SAFETY: it only computes.
        let space = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) as usize };
        assert!(space <= size_of::<Control>());
    }

    /// Without a system call, so that Miri can run it.
    #[test]
    fn an_attached_descriptor_is_read_from_where_it_was_written() {
        let mut part = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        let mut control = Control::default();
        let mut header = message(&mut part);
        assert!(descriptor_of(&header).is_none());
        let file = OwnedFd::from(File::open("/dev/null").unwrap());
        let number = file.as_raw_fd();
        attach(&mut header, &mut control, file.into_raw_fd());
        let descriptor = descriptor_of(&header).expect("a descriptor is attached");
        assert_eq!(descriptor.as_raw_fd(), number);
    }

    #[test]
    fn messages_keep_their_order_and_bring_their_descriptors() {
        let (here, there) = Channel::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        here.send(b"first", None).unwrap();
        here.send(b"second", Some(socket.as_fd())).unwrap();
        let first = there.recv().unwrap().unwrap();
        assert_eq!(
            (&first.bytes[..], first.descriptor.is_none()),
            (&b"first"[..], true)
        );
        let second = there.recv().unwrap().unwrap();
        assert_eq!(second.bytes, b"second");
        let same = UdpSocket::from(second.descriptor.unwrap());
        assert_eq!(same.local_addr().unwrap(), socket.local_addr().unwrap());
        drop(here);
        assert!(there.recv().unwrap().is_none());
        assert_eq!(
            there.send(b"late", None).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }

    #[test]
    fn a_channel_is_open_as_long_as_any_handle_of_its_other_end_is() {
        let (here, there) = Channel::pair().unwrap();
        let other = there.duplicate().unwrap();
        drop(there);
        other.send(b"dropped", None).unwrap();
        assert!(here.is_open(Duration::from_secs(60)));
        assert!(here.is_open(Duration::from_millis(1)));
        drop(other);
        assert!(!here.is_open(Duration::from_secs(60)));

        let (here, there) = Channel::pair().unwrap();
        here.close();
        assert!(!here.is_open(Duration::from_secs(60)));
        assert!(!there.is_open(Duration::from_secs(60)));
    }

    #[test]
    fn waiting_ends_after_the_patience() {
        let (here, _there) = Channel::pair().unwrap();
        here.set_patience(Duration::from_millis(1)).unwrap();
        assert_eq!(here.recv().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn another_descriptor_is_no_channel() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(Channel::of(socket.into()).is_err());
        let (here, _there) = Channel::pair().unwrap();
        assert!(Channel::of(here.into()).is_ok());
    }
}
