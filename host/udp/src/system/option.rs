//! Socket options without a safe interface.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use socket2::Socket;

use crate::bind_options::Bind;

/// Linux grants twice the requested size, for its own book-keeping, and reports the doubled value.
pub(crate) const BUFFER_SHOWN_TIMES: usize = 2;

/// `SO_MEMINFO` of asm-generic/socket.h, the same on every architecture that this is built for.
const SO_MEMINFO: libc::c_int = 55;

/// Number of values that `SO_MEMINFO` returns, and the index of the drop counter (`SK_MEMINFO_DROPS`).
const MEMORY_NUMBERS: usize = 9;
const DROPS: usize = 8;

/// A process that may administer the network gets buffers above the system's limits; for others the limits apply.
pub(crate) fn insist_on_buffers(socket: &Socket, options: Bind) {
    for (name, wanted, granted) in [
        (
            libc::SO_RCVBUFFORCE,
            options.receive_buffer,
            socket.recv_buffer_size(),
        ),
        (
            libc::SO_SNDBUFFORCE,
            options.send_buffer,
            socket.send_buffer_size(),
        ),
    ] {
        let is_enough = granted.is_ok_and(|granted| granted / BUFFER_SHOWN_TIMES >= wanted);
        if let (false, Ok(wanted)) = (is_enough, libc::c_int::try_from(wanted)) {
            let _not_permitted = set(socket.as_fd(), libc::SOL_SOCKET, name, wanted);
        }
    }
}

/// Never sets "don't fragment", and ignores path MTUs from ICMP, which anybody can forge.
pub(crate) fn allow_fragments(socket: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    let (level, name, value) = fragments(address);
    set(socket.as_fd(), level, name, value)
}

/// Whether [`allow_fragments`] was called on the socket.
#[cfg(test)]
pub(crate) fn may_fragment(socket: &impl AsFd, address: SocketAddr) -> io::Result<bool> {
    let (level, name, value) = fragments(address);
    let [now] = read(socket.as_fd(), level, name)?;
    Ok(now == value as u32)
}

/// See [`crate::spread`].
pub(crate) fn spread(socket: BorrowedFd<'_>, count: u32) -> io::Result<()> {
    const RANDOM: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let step = |code: u32, value: u32| (code as u16, 0, 0, value);
    let steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, RANDOM),
        step(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, count.max(1)),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ];
    steer(socket, &steps)
}

/// See [`crate::steer`].
pub(crate) fn steer(socket: BorrowedFd<'_>, filter: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    let steps = filter
        .iter()
        .map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k });
    let mut steps: Vec<_> = steps.collect();
    let Ok(length) = libc::c_ushort::try_from(steps.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = libc::sock_fprog {
        len: length,
        filter: steps.as_mut_ptr(),
    };
    let name = libc::SO_ATTACH_REUSEPORT_CBPF;
    // SAFETY: the steps that `program` points to live until the end of this function; the kernel copies them.
    unsafe { set_bytes(socket, libc::SOL_SOCKET, name, &program) }
}

/// See [`crate::report_errors`].
pub(crate) fn report_errors(socket: BorrowedFd<'_>, is_ipv4: bool) -> io::Result<()> {
    let (level, name) = if is_ipv4 {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    };
    set(socket, level, name, 1)
}

/// See [`crate::overflows`].
pub(crate) fn overflows(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let numbers: [u32; MEMORY_NUMBERS] = read(socket, libc::SOL_SOCKET, SO_MEMINFO)?;
    Ok(numbers[DROPS])
}

fn fragments(address: SocketAddr) -> (libc::c_int, libc::c_int, libc::c_int) {
    if address.is_ipv4() {
        (
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        )
    } else {
        (
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_DONT,
        )
    }
}

/// Sets an option whose value is a number.
fn set(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: a number points to nothing.
    unsafe { set_bytes(socket, level, name, &value) }
}

/// # Safety
/// What `value` points to has to live until the call returns.
unsafe fn set_bytes<T: Copy>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: pointer and length are those of `value`, from which the kernel only reads; the caller takes care of the rest.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    checked(status)
}

fn read<const COUNT: usize>(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<[u32; COUNT]> {
    let mut numbers = [0; COUNT];
    let mut length = mem::size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: pointer and length are those of `numbers`, where the kernel writes at most that many bytes; any are valid.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            numbers.as_mut_ptr().cast(),
            &mut length,
        )
    };
    checked(status).map(|()| numbers)
}

fn checked(status: libc::c_int) -> io::Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
