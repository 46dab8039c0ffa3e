//! A link over UDP that loses datagrams.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, OnceLock};
use std::thread;

/// Passes datagrams between one client and a server, in both directions, and loses some of them. Its threads end with the process.
#[derive(Debug)]
pub struct Lossy {
    addr: SocketAddr,
}

impl Lossy {
    /// A link to `server`, with addresses on `ip`. `loss` is the part of the datagrams that are lost. The seed determines which datagrams those
    /// are, by their number.
    pub fn start(ip: IpAddr, server: SocketAddr, loss: f64, seed: u64) -> Self {
        let [front, back] = [0, 1].map(|_| {
            let socket = UdpSocket::bind((ip, 0)).expect("a loopback address can be bound");
            Arc::new(socket)
        });
        let addr = front.local_addr().expect("a bound socket has an address");
        let client = Arc::new(OnceLock::new());
        let (forth, from) = (Arc::clone(&front), Arc::clone(&client));
        let into = Arc::clone(&back);
        thread::spawn(move || {
            pass(&forth, loss, seed, |datagram, sender| {
                from.get_or_init(|| sender);
                into.send_to(datagram, server)
            });
        });
        thread::spawn(move || {
            pass(&back, loss, seed ^ 1, |datagram, _| match client.get() {
                Some(client) => front.send_to(datagram, *client),
                None => Ok(0),
            });
        });
        Self { addr }
    }

    /// Where the client sends to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn pass(
    from: &UdpSocket,
    loss: f64,
    seed: u64,
    send: impl Fn(&[u8], SocketAddr) -> std::io::Result<usize>,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is that of an earlier datagram, whose destination was closed.
        let Ok((length, sender)) = from.recv_from(&mut buffer) else {
            continue;
        };
        if random.f64() >= loss {
            let _lost = send(&buffer[..length], sender);
        }
    }
}
