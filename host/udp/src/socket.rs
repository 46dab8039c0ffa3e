//! Creates sockets for SIP.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, SockRef, Socket, Type};

use crate::bind_options::Bind;
use crate::system::option;

/// Buffer sizes of a socket, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffers {
    /// Receive buffer.
    pub receive: usize,
    /// Send buffer.
    pub send: usize,
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
    option::insist_on_buffers(&socket, options);
    option::allow_fragments(&socket, address)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Returns the buffer sizes of a socket, to compare with those that [`Bind`] asked for.
///
/// # Errors
/// Those of `getsockopt`.
pub fn buffers(socket: &impl AsFd) -> io::Result<Buffers> {
    let socket = SockRef::from(socket);
    Ok(Buffers {
        receive: socket.recv_buffer_size()? / option::BUFFER_SHOWN_TIMES,
        send: socket.send_buffer_size()? / option::BUFFER_SHOWN_TIMES,
    })
}

/// Makes the kernel distribute datagrams at random over the `count` sockets that share this socket's address, instead of
/// delivering all datagrams of one sender to one socket. Call it once, on any of the sockets, when all are bound.
///
/// A SIP trunk is one flow: without this, one worker has to carry all of it.
///
/// # Errors
/// `Unsupported` on systems other than Linux, else those of `setsockopt`. The kernel then keeps distributing flows.
pub fn spread(socket: &impl AsFd, count: u32) -> io::Result<()> {
    option::spread(socket.as_fd(), count)
}

/// Makes the kernel ask a filter for each datagram which of the sockets that share this socket's address gets it. The filter is a classic BPF
/// program over the bytes of the datagram: code, jumps if true and if false, and value of each instruction (`sock_filter` of
/// linux/filter.h). Its result is a number in the order in which the sockets were bound; for one that no socket has, the kernel
/// chooses by the addresses. Call it once, on any of the sockets, when all are bound.
///
/// # Errors
/// `Unsupported` on systems other than Linux, else those of `setsockopt`: `InvalidInput` for a program that is none, `OutOfMemory` for one
/// that takes more memory than `net.core.optmem_max`. The kernel then keeps distributing flows.
pub fn steer(socket: &impl AsFd, filter: &[(u16, u8, u8, u32)]) -> io::Result<()> {
    option::steer(socket.as_fd(), filter)
}

/// Makes the kernel collect what the network reports about datagrams sent by this socket (ICMP), for [`Errors`](crate::Errors). Without it, a
/// socket that is not connected gets no error for a target that is gone.
///
/// From then on, each report also makes a later system call on the socket fail once, whatever its destination: [`Sender::flush`] and
/// [`Polled::recv`] repeat such a call.
///
/// [`Sender::flush`]: crate::Sender::flush
/// [`Polled::recv`]: crate::Polled::recv
///
/// # Errors
/// `Unsupported` on systems other than Linux, else those of `setsockopt`.
pub fn report_errors(socket: &impl AsFd) -> io::Result<()> {
    let address = SockRef::from(socket).local_addr()?;
    option::report_errors(socket.as_fd(), address.is_ipv4())
}

/// Number of datagrams that the system has dropped because the receive buffer was full, since the socket was created. Wraps
/// around.
///
/// # Errors
/// `Unsupported` on systems other than Linux, else those of `getsockopt`.
pub fn overflows(socket: &impl AsFd) -> io::Result<u32> {
    option::overflows(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Receiver, Sender};

    const SHARED: Bind = Bind {
        share_port: true,
        receive_buffer: 0,
        send_buffer: 0,
    };

    fn any(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_shared_port_can_be_bound_twice_and_an_unshared_one_cannot() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let first = bind(any(address), SHARED).unwrap();
            let address = first.local_addr().unwrap();
            bind(address, SHARED).unwrap();
            let error = bind(address, Bind::default()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = bind(any("192.0.2.1:0"), Bind::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn an_ipv6_socket_leaves_ipv4_to_others() {
        let v6 = bind(any("[::1]:0"), Bind::default()).unwrap();
        assert!(SockRef::from(&v6).only_v6().unwrap());
    }

    #[test]
    fn a_buffer_is_as_large_as_asked_for_or_as_the_system_grants() {
        let small = Bind {
            receive_buffer: 64 << 10,
            send_buffer: 32 << 10,
            ..Bind::default()
        };
        let socket = bind(any("127.0.0.1:0"), small).unwrap();
        let granted = Buffers {
            receive: 64 << 10,
            send: 32 << 10,
        };
        assert_eq!(buffers(&socket).unwrap(), granted);
    }

    #[test]
    fn a_datagram_above_the_mtu_leaves_in_fragments() {
        // Loopback has an MTU of 65,536, so the option itself is checked.
        let socket = bind(any("127.0.0.1:0"), Bind::default()).unwrap();
        assert!(option::may_fragment(&socket, any("127.0.0.1:0")).unwrap());
        let socket = bind(any("[::1]:0"), Bind::default()).unwrap();
        assert!(option::may_fragment(&socket, any("[::1]:0")).unwrap());
        let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!option::may_fragment(&plain, any("127.0.0.1:0")).unwrap());
    }

    #[test]
    fn one_flow_reaches_every_socket_when_datagrams_are_spread() {
        const EACH: usize = 100;
        let first = bind(any("127.0.0.1:0"), SHARED).unwrap();
        let address = first.local_addr().unwrap();
        let sockets = [first, bind(address, SHARED).unwrap()];
        let caller = bind(any("127.0.0.1:0"), Bind::default()).unwrap();
        let mut sender = Sender::new(EACH);
        let mut receiver = Receiver::new(EACH);
        let mut shares = |spread_over: Option<u32>| {
            if let Some(count) = spread_over {
                spread(&sockets[0], count).unwrap();
            }
            for _ in 0..EACH {
                sender.push(b"trunk", address);
            }
            assert_eq!(sender.flush(&caller).unwrap(), EACH);
            [0, 1].map(|nth| receiver.recv(&sockets[nth]).unwrap_or(0))
        };

        let by_flow = shares(None);
        assert!(by_flow.contains(&EACH), "{by_flow:?}");
        // Each socket stays empty with a probability of 2 to the power of -100.
        let spread = shares(Some(2));
        assert!(!spread.contains(&0), "{spread:?}");
        assert_eq!(spread[0] + spread[1], EACH);
    }

    #[test]
    fn a_filter_chooses_the_socket_by_the_bytes_of_a_datagram() {
        let first = bind(any("127.0.0.1:0"), SHARED).unwrap();
        let address = first.local_addr().unwrap();
        let rest = [(); 2].map(|()| bind(address, SHARED).unwrap());
        let sockets = [&first, &rest[0], &rest[1]];
        // The first byte is the number.
        let byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
        let done = (libc::BPF_RET | libc::BPF_A) as u16;
        steer(&first, &[(byte, 0, 0, 0), (done, 0, 0, 0)]).unwrap();
        let caller = bind(any("127.0.0.1:0"), Bind::default()).unwrap();
        let mut sender = Sender::new(8);
        for number in [2, 0, 1, 2, 9, 1, 2] {
            sender.push(&[number], address);
        }
        assert_eq!(sender.flush(&caller).unwrap(), 7);
        let mut receiver = Receiver::new(8);
        let received = sockets.map(|socket| {
            let count = receiver.recv(socket).unwrap_or(0);
            let numbers = (0..count).map(|nth| receiver.datagram(nth).0[0]);
            numbers.collect::<Vec<_>>()
        });
        for (number, received) in (0_u8..).zip(&received) {
            let own = received.iter().filter(|own| **own == number).count();
            assert_eq!(own, [1, 2, 3][usize::from(number)], "{received:?}");
        }
        // No socket has the number 9: its flow has one.
        assert_eq!(received.concat().len(), 7);
        let error = steer(&first, &[(done, 0, 0, 0), (byte, 0, 0, 0)]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn dropped_datagrams_are_counted() {
        let tight = Bind {
            receive_buffer: 4 << 10,
            ..Bind::default()
        };
        let socket = bind(any("127.0.0.1:0"), tight).unwrap();
        assert_eq!(overflows(&socket).unwrap(), 0);
        let caller = UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..100 {
            caller
                .send_to(&[0; 1_000], socket.local_addr().unwrap())
                .unwrap();
        }
        let lost = overflows(&socket).unwrap() as usize;
        let mut receiver = Receiver::new(128);
        assert_eq!(receiver.recv(&socket).unwrap() + lost, 100);
        assert!(lost > 0);
    }
}
