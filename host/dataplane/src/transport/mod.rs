//! Listening sockets, and the table of all stream connections.

mod bound;
mod connections;
mod mailbox;
mod places;
mod secure_connection;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use portcullis_sip::{Steering, Transport};
use portcullis_udp::Bind;
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tracing::{info, warn};

pub use bound::Bound;
pub use connections::{CLOSING, Connections, QUEUE_BYTES, QUEUES_BYTES, Unused};
pub(crate) use connections::{Full, Joined, Opener, Outgoing, Queue, Remote, Sent};
pub use places::IDLE;
pub(crate) use places::{Activity, Origin};
pub use secure_connection::{SecureConnection, Secured};

use portcullis_config::Spread;

/// Receive buffer that holds a burst of calls while a worker is busy; the system may grant less (`net.core.rmem_max`).
const SOCKET_BUFFER: usize = 4 << 20;

/// Connections that may wait to be accepted; the system may grant less (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// The sockets of one worker.
#[derive(Debug, Default)]
pub struct WorkerSockets {
    /// UDP sockets with their addresses.
    pub udp: Vec<(UdpSocket, SocketAddr)>,
    /// Listeners of stream transports.
    pub streams: Vec<StreamListener>,
}

/// A listener of a stream transport.
#[derive(Debug)]
pub struct StreamListener {
    /// The transport of its connections.
    pub transport: Transport,
    /// The address.
    pub local: SocketAddr,
    /// The socket.
    pub socket: TcpListener,
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

impl WorkerSockets {
    /// Adds the socket of an address, from another process of this host.
    pub fn add(&mut self, transport: Transport, addr: SocketAddr, socket: OwnedFd) {
        match transport {
            Transport::Udp => self.udp.push((socket.into(), addr)),
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                self.streams.push(StreamListener {
                    transport,
                    local: addr,
                    socket: socket.into(),
                });
            }
        }
    }

    /// Removes the socket of an address.
    fn take(&mut self, transport: Transport, addr: SocketAddr) -> Option<Self> {
        let mut taken = Self::default();
        match transport {
            Transport::Udp => {
                let place = self.udp.iter().position(|(_, local)| *local == addr)?;
                taken.udp.push(self.udp.swap_remove(place));
            }
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
                let mut streams = self.streams.iter();
                let place = streams
                    .position(|stream| stream.transport == transport && stream.local == addr)?;
                taken.streams.push(self.streams.swap_remove(place));
            }
        }
        Some(taken)
    }
}

/// Binds every address once per worker. For port 0 the system chooses a port, the same for all workers.
///
/// # Errors
/// Names the first address that cannot be bound, the cause, and the fix.
pub fn bind(
    listen: impl IntoIterator<Item = (Transport, SocketAddr)>,
    workers: usize,
    spread: Spread,
) -> Result<(Vec<Bound>, Vec<WorkerSockets>), BindError> {
    bind_or_inherit(listen, workers, spread, Vec::new())
}

/// The same, with sockets of another process of this host where it has some. Each of its workers has to have a successor here, because
/// the kernel knows them by the order in which they were bound.
///
/// # Errors
/// As for [`bind`].
pub fn bind_or_inherit(
    listen: impl IntoIterator<Item = (Transport, SocketAddr)>,
    workers: usize,
    spread: Spread,
    mut inherited: Vec<WorkerSockets>,
) -> Result<(Vec<Bound>, Vec<WorkerSockets>), BindError> {
    let mut all: Vec<WorkerSockets> = (0..workers.max(1))
        .map(|_| WorkerSockets::default())
        .collect();
    let mut bound = Vec::new();
    for (transport, addr) in listen {
        let at = |addr| {
            move |source| BindError {
                transport,
                addr,
                source,
            }
        };
        let zone = zone_of(addr);
        let taken = inherited.iter_mut();
        let taken: Vec<_> = taken
            .filter_map(|sockets| sockets.take(transport, without_zone(addr)))
            .collect();
        if taken.len() == all.len() {
            for (sockets, taken) in all.iter_mut().zip(taken) {
                sockets.udp.extend(taken.udp);
                sockets.streams.extend(taken.streams);
            }
            let addr = without_zone(addr);
            bound.push(Bound {
                transport,
                addr,
                zone,
            });
            continue;
        }
        drop(taken);
        reserve(transport, addr).map_err(at(addr))?;
        let mut addr = addr;
        for sockets in &mut all {
            addr = bind_one(transport, addr, sockets).map_err(at(addr))?;
        }
        let addr = without_zone(addr);
        bound.push(Bound {
            transport,
            addr,
            zone,
        });
    }
    if spread == Spread::Datagram {
        spread_datagrams(&all);
    }
    tell_buffers(&all);
    Ok((bound, all))
}

/// The address as peers know it. The zone of a link-local address means nothing to other machines (RFC 4007 §6). The socket has it, so that what is sent
/// from there leaves by that link.
fn without_zone(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip(), addr.port())
}

fn zone_of(addr: SocketAddr) -> u32 {
    match addr {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(addr) => addr.scope_id(),
    }
}

/// The setting applies to all sockets of an address, so that one call is enough.
fn spread_datagrams(all: &[WorkerSockets]) {
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    let first = all.first().map_or(&[][..], |sockets| &sockets.udp);
    for (socket, addr) in first.iter().filter(|_| count > 1) {
        if let Err(error) = portcullis_udp::spread(socket, count) {
            warn!(event = "spread_by_flow", %addr, %error, "datagrams cannot be spread over the workers on this system; spread by flow");
        }
    }
}

/// Steers each datagram to the worker that has its transaction, on `spread = "transaction"`. Call it once, before any worker starts: a kernel
/// that cannot place a datagram, or takes no filter, chooses a worker by the addresses.
pub fn steer(all: &[WorkerSockets], spread: Spread, steering: &Steering) {
    let count = u32::try_from(all.len()).unwrap_or(u32::MAX);
    if spread != Spread::Transaction || count < 2 {
        return;
    }
    let first = all.first().map_or(&[][..], |sockets| &sockets.udp);
    for (socket, addr) in first {
        if let Err(error) = attach(socket, count, steering) {
            warn!(event = "spread_by_flow", %addr, %error, "datagrams cannot be steered to the workers on this system; spread by flow");
        }
    }
}

/// Attaches the filter that looks farthest into a datagram among those for which the system grants memory.
fn attach(socket: &UdpSocket, count: u32, steering: &Steering) -> io::Result<()> {
    let mut blocks = Steering::MOST_BLOCKS;
    loop {
        let attached = portcullis_udp::steer(socket, &steering.filter(count, blocks));
        match attached {
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory && blocks > 1 => blocks /= 2,
            attached => return attached,
        }
    }
}

/// Small buffers lose datagrams in a burst, and nothing else reports it.
fn tell_buffers(all: &[WorkerSockets]) {
    let udp = all.iter().flat_map(|sockets| &sockets.udp);
    let granted = udp.filter_map(|(socket, _)| portcullis_udp::buffers(socket).ok());
    let Some(receive) = granted.map(|buffers| buffers.receive).min() else {
        return;
    };
    if receive < SOCKET_BUFFER {
        info!(
            event = "receive_buffer_small",
            granted = receive,
            wanted = SOCKET_BUFFER,
            "the system grants small receive buffers: raise net.core.rmem_max, or a burst of calls loses datagrams"
        );
    }
}

/// With shared ports, a second process could bind the same address unnoticed. A moment of exclusive binding shows that no other process has
/// it.
fn reserve(transport: Transport, addr: SocketAddr) -> io::Result<()> {
    if addr.port() == 0 {
        return Ok(());
    }
    match transport {
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
            listener(addr, false).map(drop)
        }
        Transport::Udp => portcullis_udp::bind(addr, Bind::default()).map(drop),
    }
}

/// Returns the address with its port and its zone.
fn bind_one(
    transport: Transport,
    addr: SocketAddr,
    sockets: &mut WorkerSockets,
) -> io::Result<SocketAddr> {
    match transport {
        Transport::Udp => {
            let options = Bind {
                share_port: true,
                receive_buffer: SOCKET_BUFFER,
                send_buffer: SOCKET_BUFFER,
            };
            let socket = portcullis_udp::bind(addr, options)?;
            let addr = socket.local_addr()?;
            sockets.udp.push((socket, without_zone(addr)));
            Ok(addr)
        }
        Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => {
            let socket = listener(addr, true)?;
            let local = socket.local_addr()?;
            sockets.streams.push(StreamListener {
                transport,
                local: without_zone(local),
                socket,
            });
            Ok(local)
        }
    }
}

fn listener(addr: SocketAddr, share_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an earlier process in TIME_WAIT must not block the port.
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "most kinds of errors cannot occur here, and the standard library adds more"
)]
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process has it: stop that one or change `listen`",
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have that address: change `listen`; if another host has it and this one may take it over, set the sysctl net.ipv4.ip_nonlocal_bind (net.ipv6 for IPv6) to 1"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right: change `listen` or grant CAP_NET_BIND_SERVICE"
        }
        _ => "check `listen`",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::os::fd::AsRawFd;

    use portcullis_sip::{
        Arrival, Forward, Framing, Index, Limits, Local, Message, Proxy, ProxyConfig,
        RoutesBuilder, Target, scan,
    };

    use super::*;

    #[test]
    fn every_worker_gets_every_address() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (bound, sockets) = bind(
            [(Transport::Udp, any), (Transport::Tcp, any)],
            3,
            Spread::Datagram,
        )
        .unwrap();
        assert_eq!(bound.len(), 2);
        assert_eq!(sockets.len(), 3);
        for worker in sockets {
            assert_eq!(worker.udp[0].1, bound[0].addr);
            assert_eq!(worker.streams[0].local, bound[1].addr);
        }
    }

    #[test]
    fn sockets_of_another_process_are_used_where_there_are_some() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let both = [(Transport::Udp, any), (Transport::Tcp, any)];
        let (bound, sockets) = bind(both, 2, Spread::Flow).unwrap();
        let descriptors = |all: &[WorkerSockets]| -> Vec<_> {
            let udp = all.iter().map(|sockets| sockets.udp[0].0.as_raw_fd());
            let streams = all
                .iter()
                .map(|sockets| sockets.streams[0].socket.as_raw_fd());
            udp.chain(streams).collect()
        };
        let before = descriptors(&sockets);
        let wanted = bound.iter().map(|bound| (bound.transport, bound.addr));
        let wanted = wanted.chain([(Transport::Udp, any)]);
        let (again, sockets) = bind_or_inherit(wanted, 2, Spread::Flow, sockets).unwrap();
        assert_eq!(again[..2], bound[..]);
        assert_eq!(descriptors(&sockets), before);
        assert!(sockets.iter().all(|sockets| sockets.udp.len() == 2));
    }

    #[test]
    fn the_datagrams_of_a_transaction_reach_its_owner() {
        const WORKERS: usize = 4;
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let spread = Spread::Transaction;
        let (bound, sockets) = bind([(Transport::Udp, any)], WORKERS, spread).unwrap();
        let proxy = proxy(bound[0].addr);
        steer(&sockets, spread, proxy.steering());
        let caller = UdpSocket::bind(any).unwrap();
        let mut received = [0; WORKERS];
        for number in 0..100 {
            let invite = request("INVITE", number, caller.local_addr().unwrap());
            let (owner, response) = relayed(&proxy, &invite, caller.local_addr().unwrap());
            let cancel = invite.replace("INVITE", "CANCEL");
            for datagram in [&invite, &invite, &cancel, &response] {
                caller.send_to(datagram.as_bytes(), bound[0].addr).unwrap();
            }
            // Loopback has delivered them by now.
            for (worker, sockets) in sockets.iter().enumerate() {
                let mut buffer = [0; 2_048];
                let count = std::iter::from_fn(|| sockets.udp[0].0.recv(&mut buffer).ok()).count();
                let expected = if worker == owner { 4 } else { 0 };
                assert_eq!(
                    count, expected,
                    "worker {worker} of owner {owner}: {invite}"
                );
                received[worker] += count;
            }
        }
        assert!(!received.contains(&0), "{received:?}");
    }

    fn proxy(addr: SocketAddr) -> Proxy {
        Proxy::new(ProxyConfig {
            locals: vec![Local {
                transport: Transport::Udp,
                addr,
                advertised: None,
            }],
            aliases: Vec::new(),
            key: [7; 16],
            earlier_keys: Vec::new(),
            dialog_minutes: 1,
            record_route: true,
            server_header: None,
            force_rport: Vec::new(),
            clients: portcullis_sip::Clients::default(),
        })
    }

    fn request(method: &str, number: u32, caller: SocketAddr) -> String {
        format!(
            "{method} sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {caller};rport;branch=z9hG4bK-42-{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: {number}\r\n\
             CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// The worker that has the transaction of a request, and the response to the request as it is relayed.
    fn relayed(proxy: &Proxy, request: &str, source: SocketAddr) -> (usize, String) {
        let mut index = Index::default();
        let limits = Limits::default();
        scan(request.as_bytes(), Framing::Datagram, &limits, &mut index).unwrap();
        let message = Message::new(request.as_bytes(), &index);
        let arrival = Arrival {
            source,
            local: "127.0.0.1:5060".parse().unwrap(),
            transport: Transport::Udp,
            connection: None,
        };
        let mut routes = RoutesBuilder::new();
        routes.default_hop("sip:127.0.0.1:9").unwrap();
        let routes = routes.build(&HashMap::new());
        let name = proxy.name_of(message, &arrival).unwrap().transaction;
        let (to, mut sent) = (Target::AsRouted, Vec::new());
        proxy
            .forward(
                message,
                &arrival,
                &routes,
                &Forward::new(to, name.into(), 60),
                &mut sent,
            )
            .unwrap();
        let sent = String::from_utf8(sent).unwrap();
        let (_, headers) = sent.split_once("\r\n").unwrap();
        (name.owner(4), format!("SIP/2.0 180 Ringing\r\n{headers}"))
    }

    #[test]
    fn a_taken_address_is_named_with_a_mend() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        for transport in Transport::ALL {
            let (bound, _sockets) = bind([(transport, any)], 1, Spread::Flow).unwrap();
            let error = bind([(transport, bound[0].addr)], 1, Spread::Flow).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&bound[0].addr.to_string()), "{text}");
            assert!(text.contains("another process"), "{text}");
        }
    }
}
