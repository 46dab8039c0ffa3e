//! A load balancer for UDP between peers and two hosts: the next datagram of a call may reach the host that has not seen the ones before.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The longest datagram.
const LONGEST: usize = 65_536;

/// Peers see one address, and the hosts see one address for each peer. Its threads end with the process.
#[derive(Clone, Debug)]
pub struct Spreader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// What peers see.
    outside: UdpSocket,
    addr: SocketAddr,
    hosts: [SocketAddr; 2],
    /// What hosts see of each peer.
    inside: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
    /// The peers whose datagrams all go to one host.
    pinned: Mutex<HashMap<SocketAddr, usize>>,
    /// Datagrams of other peers: each goes to the other host than the one before.
    passed: AtomicUsize,
}

impl Spreader {
    /// A load balancer with addresses on `ip`, in front of these hosts.
    ///
    /// # Panics
    /// If the address cannot be bound.
    pub fn start(ip: IpAddr, hosts: [SocketAddr; 2]) -> Self {
        let outside = UdpSocket::bind((ip, 0)).expect("a loopback address can be bound");
        let spreader = Self(Arc::new(Inner {
            addr: outside.local_addr().expect("a bound socket has an address"),
            outside,
            hosts,
            inside: Mutex::default(),
            pinned: Mutex::default(),
            passed: AtomicUsize::new(0),
        }));
        let outside = spreader.clone();
        thread::spawn(move || outside.pass_in());
        spreader
    }

    /// Where peers send to: the address of the service.
    pub fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    /// Where hosts send what this peer is to get.
    pub fn inside(&self, peer: SocketAddr) -> SocketAddr {
        self.socket_of(peer)
            .local_addr()
            .expect("a bound socket has an address")
    }

    /// From now on, all datagrams of this peer go to one host.
    pub fn pin(&self, peer: SocketAddr, host: usize) {
        locked(&self.0.pinned).insert(peer, host);
    }

    fn socket_of(&self, peer: SocketAddr) -> Arc<UdpSocket> {
        let mut inside = locked(&self.0.inside);
        let made = inside.entry(peer).or_insert_with(|| {
            let socket = UdpSocket::bind((self.0.addr.ip(), 0));
            let socket = Arc::new(socket.expect("a loopback address can be bound"));
            let (spreader, from) = (self.clone(), Arc::clone(&socket));
            thread::spawn(move || spreader.pass_out(&from, peer));
            socket
        });
        Arc::clone(made)
    }

    /// From peers to hosts.
    fn pass_in(&self) {
        let mut buffer = vec![0; LONGEST];
        loop {
            // An error is that of an earlier datagram, whose destination was closed.
            let Ok((length, peer)) = self.0.outside.recv_from(&mut buffer) else {
                continue;
            };
            let pinned = locked(&self.0.pinned).get(&peer).copied();
            let host = pinned.unwrap_or_else(|| self.0.passed.fetch_add(1, Ordering::Relaxed) % 2);
            let socket = self.socket_of(peer);
            let _lost = socket.send_to(&buffer[..length], self.0.hosts[host]);
        }
    }

    /// From hosts to one peer.
    fn pass_out(&self, from: &UdpSocket, peer: SocketAddr) {
        let mut buffer = vec![0; LONGEST];
        loop {
            if let Ok((length, _)) = from.recv_from(&mut buffer) {
                let _lost = self.0.outside.send_to(&buffer[..length], peer);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
