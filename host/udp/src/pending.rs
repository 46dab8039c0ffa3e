//! Errors that a system call may report about a datagram sent earlier.

use std::io;

/// Whether this may be the ICMP error of an earlier datagram, which the kernel reports once, at the next call. A call that fails for a reason
/// of its own may have the same code.
pub(crate) fn is_pending(error: &io::Error) -> bool {
    // What the kernel makes of ICMP messages: `icmp_err_convert` in net/ipv4/icmp.c and `icmpv6_err_convert` in net/ipv6/icmp.c.
    const CODES: [i32; 9] = [
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::EPROTO,
        libc::EACCES,
        libc::EMSGSIZE,
    ];
    let code = error.raw_os_error();
    code.is_some_and(|code| CODES.contains(&code) || is_isolated(code))
}

#[cfg(target_os = "linux")]
fn is_isolated(code: i32) -> bool {
    code == libc::ENONET
}

#[cfg(not(target_os = "linux"))]
fn is_isolated(_code: i32) -> bool {
    false
}
