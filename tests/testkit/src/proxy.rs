//! A way to a server that can begin to swallow its answers: connections stay open, and nothing comes back, as after a fail-over that
//! forgot the state of a firewall.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Answers of a server of MySQL that pass in any case: its greeting, the end of the login, and what the driver sets up. What hangs then is
/// a statement.
const HANDSHAKE: usize = 3;

/// Passes bytes on in both directions, for as long as this value lives.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    swallows: AtomicBool,
    swallowed: AtomicUsize,
    ended: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// Listens on `addr`, and passes on to `server`.
    pub fn start(addr: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).expect("the proxy can listen");
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    accepting.join(client, server);
                }
            }
        });
        Self { addr, shared }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Swallows every answer behind a login from now on, or passes all on again. What was swallowed stays so: its connection hangs.
    pub fn swallow(&self, swallows: bool) {
        self.shared.swallows.store(swallows, Ordering::Relaxed);
    }

    /// Connections of which an answer was swallowed.
    pub fn swallowed(&self) -> usize {
        self.shared.swallowed.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn join(self: &Arc<Self>, client: TcpStream, server: SocketAddr) {
        let Ok(server) = TcpStream::connect(server) else {
            return;
        };
        let (from, to) = (clone(&client), clone(&server));
        thread::spawn(move || pass(from, to));
        let shared = Arc::clone(self);
        let mut open = self.open.lock().expect("nobody panics with it");
        open.extend([clone(&client), clone(&server)]);
        thread::spawn(move || shared.pass_answers(server, client));
    }

    fn pass_answers(&self, mut server: TcpStream, mut client: TcpStream) {
        let mut bytes = [0; 1 << 16];
        let mut passed = 0;
        let mut hangs = false;
        while let Ok(length @ 1..) = server.read(&mut bytes) {
            if !hangs && passed >= HANDSHAKE && self.swallows.load(Ordering::Relaxed) {
                hangs = true;
                self.swallowed.fetch_add(1, Ordering::Relaxed);
            }
            if hangs {
                continue;
            }
            passed += 1;
            if client.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        // A connection that hangs is not even closed.
        if !hangs {
            let _gone = client.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        let _wakes = TcpStream::connect(self.addr);
        for stream in &*self.shared.open.lock().expect("nobody panics with it") {
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let _done = std::io::copy(&mut from, &mut to);
    let _gone = to.shutdown(Shutdown::Write);
}

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be cloned")
}
