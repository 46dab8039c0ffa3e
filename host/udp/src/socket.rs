//! Making sockets for SIP.

use std::io;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket, Type};

/// How a socket is bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bind {
    /// Several sockets share the address, and the kernel spreads flows over them (`SO_REUSEPORT`).
    pub share_port: bool,
    /// The receive buffer to ask for, in bytes; 0 for the system's default. The system grants at most `net.core.rmem_max`.
    pub receive_buffer: usize,
    /// The same for the send buffer and `net.core.wmem_max`.
    pub send_buffer: usize,
}

/// Binds a non-blocking UDP socket.
///
/// An IPv6 socket takes IPv6 only. Datagrams larger than the path's MTU are fragmented by IP and never refused (RFC 3261 §18.1.1
/// wants responses of any size to leave).
///
/// # Errors
/// Those of the system calls, most often `AddrInUse` and `AddrNotAvailable`.
pub fn bind(address: SocketAddr, options: Bind) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.share_port {
        socket.set_reuse_port(true)?;
    }
    if options.receive_buffer > 0 {
        socket.set_recv_buffer_size(options.receive_buffer)?;
    }
    if options.send_buffer > 0 {
        socket.set_send_buffer_size(options.send_buffer)?;
    }
    allow_fragments(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn allow_fragments(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let (level, name, value) = if address.is_ipv4() {
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
    };
    // SAFETY: the option's value is one C int, and pointer and length say so.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_port_can_be_bound_twice_and_an_unshared_one_cannot() {
        let shared = Bind {
            share_port: true,
            ..Bind::default()
        };
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let first = bind(any.parse().unwrap(), shared).unwrap();
            let address = first.local_addr().unwrap();
            bind(address, shared).unwrap();
            let error = bind(address, Bind::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = bind("192.0.2.1:0".parse().unwrap(), Bind::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }
}
