//! Sockets: UDP in batches, TCP connections, and the way from a message to the one that carries it.

mod connections;
mod stream;
mod tcp;
mod udp;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use portcullis_sip::Transport;
use portcullis_udp::Bind;
use socket2::{Domain, Socket, Type};
use thiserror::Error;

pub use connections::Connections;
pub(crate) use tcp::accept;
pub(crate) use udp::{BATCH, Udp, flush_all, serve};

use crate::shared::Bound;

/// Buffers that a burst of calls fits into while a worker is busy; the system may grant less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 4 << 20;

/// Connections that wait to be accepted; the system may grant less (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// The sockets of one worker.
#[derive(Debug, Default)]
pub struct WorkerSockets {
    /// UDP sockets with their addresses.
    pub udp: Vec<(UdpSocket, SocketAddr)>,
    /// TCP listeners with their addresses.
    pub tcp: Vec<(TcpListener, SocketAddr)>,
}

/// A listener that could not be bound.
#[derive(Debug, Error)]
#[error("cannot listen on {}:{addr}: {source}; {}", .transport.parameter(), mend(.source))]
pub struct BindError {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub addr: SocketAddr,
    /// What the system says.
    #[source]
    pub source: io::Error,
}

/// Binds every address once for each worker. A port 0 becomes the port that the system chooses, the same for all workers.
pub fn bind(
    listen: impl IntoIterator<Item = (Transport, SocketAddr)>,
    workers: usize,
) -> Result<(Vec<Bound>, Vec<WorkerSockets>), BindError> {
    let mut all: Vec<WorkerSockets> = (0..workers.max(1))
        .map(|_| WorkerSockets::default())
        .collect();
    let mut bound = Vec::new();
    for (transport, addr) in listen {
        let mut addr = addr;
        reserve(transport, addr).map_err(|source| BindError {
            transport,
            addr,
            source,
        })?;
        for sockets in &mut all {
            addr = bind_one(transport, addr, sockets).map_err(|source| BindError {
                transport,
                addr,
                source,
            })?;
        }
        bound.push(Bound { transport, addr });
    }
    Ok((bound, all))
}

/// Shared ports let a second process in without a word. A moment of sole ownership shows that nobody else is there.
fn reserve(transport: Transport, addr: SocketAddr) -> io::Result<()> {
    if addr.port() == 0 {
        return Ok(());
    }
    match transport {
        Transport::Tcp => listener(addr, false).map(drop),
        _ => portcullis_udp::bind(addr, Bind::default()).map(drop),
    }
}

fn bind_one(
    transport: Transport,
    addr: SocketAddr,
    sockets: &mut WorkerSockets,
) -> io::Result<SocketAddr> {
    if transport == Transport::Tcp {
        let listener = listener(addr, true)?;
        let addr = listener.local_addr()?;
        sockets.tcp.push((listener, addr));
        return Ok(addr);
    }
    let options = Bind {
        share_port: true,
        receive_buffer: SOCKET_BUFFER,
        send_buffer: SOCKET_BUFFER,
    };
    let socket = portcullis_udp::bind(addr, options)?;
    let addr = socket.local_addr()?;
    sockets.udp.push((socket, addr));
    Ok(addr)
}

fn listener(addr: SocketAddr, share_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process that wait for their end must not keep the port.
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process has it: stop that one or change `listen`",
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: change `listen`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right: change `listen` or grant CAP_NET_BIND_SERVICE"
        }
        _ => "check `listen`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_gets_every_address() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (bound, sockets) = bind([(Transport::Udp, any), (Transport::Tcp, any)], 3).unwrap();
        assert_eq!(bound.len(), 2);
        assert_eq!(sockets.len(), 3);
        for worker in sockets {
            assert_eq!(worker.udp[0].1, bound[0].addr);
            assert_eq!(worker.tcp[0].1, bound[1].addr);
        }
    }

    #[test]
    fn a_taken_address_is_named_with_a_mend() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for transport in [Transport::Udp, Transport::Tcp] {
            let (bound, _sockets) = bind([(transport, any)], 1).unwrap();
            let error = bind([(transport, bound[0].addr)], 1).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&bound[0].addr.to_string()), "{text}");
            assert!(text.contains("another process"), "{text}");
        }
    }
}
