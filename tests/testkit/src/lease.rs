//! Loopback networks for one test each, so that tests can run concurrently on the standard ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Networks that this process has tried.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// A network 127.a.b.0/24 that belongs to one test as long as this value lives.
#[derive(Debug)]
pub struct Lease {
    a: u8,
    b: u8,
    /// A bound socket reserves the network: no other process can bind its address.
    _guard: UdpSocket,
}

impl Lease {
    /// Leases a network that no other test holds.
    pub fn new() -> Self {
        let start = std::process::id() as usize * 37;
        for _ in 0..60_000 {
            // A network is never used twice in a process, because threads of an earlier callee may still use it.
            let n = (start + TAKEN.fetch_add(1, Ordering::Relaxed)) % 60_000;
            // 127.0.x.y is left for other programs.
            let (a, b) = ((n / 250 + 1) as u8, (n % 250 + 1) as u8);
            if let Ok(guard) = UdpSocket::bind((Ipv4Addr::new(127, a, b, 254), 9)) {
                return Self {
                    a,
                    b,
                    _guard: guard,
                };
            }
        }
        panic!("no loopback network is free");
    }

    /// The address 127.a.b.`host`.
    pub fn ip(&self, host: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(127, self.a, self.b, host))
    }

    /// Returns an address of this lease outside its network: 127.(251 + `n`).a.b, for `n` from 0 to 3.
    pub fn far(&self, n: u8) -> IpAddr {
        assert!(n < 4, "there are four of these");
        IpAddr::V4(Ipv4Addr::new(127, 251 + n, self.a, self.b))
    }

    /// The address 127.a.b.`host` with a port.
    pub fn addr(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(host), port)
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

/// A port of ::1 that is free for UDP and TCP at this moment.
pub fn free_port_v6() -> u16 {
    for _ in 0..100 {
        let udp = UdpSocket::bind("[::1]:0").expect("::1 is there");
        let port = udp
            .local_addr()
            .expect("a bound socket has an address")
            .port();
        if std::net::TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of ::1 is free for UDP and TCP");
}
