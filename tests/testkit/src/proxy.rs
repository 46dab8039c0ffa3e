//! A TCP proxy that can begin to discard responses: connections stay open, and nothing is received, as after a firewall fail-over without
//! state synchronisation.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Responses of a MySQL server that are always passed: the greeting, the end of the login, and the session setup of the driver. After
/// these, a statement hangs.
const HANDSHAKE: usize = 3;

/// Passes bytes in both directions, as long as this value exists.
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
    /// Listens on `addr`, and connects to `server`.
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

    /// Discards every response after the login from now on, or passes all again. A connection from which a response was discarded hangs
    /// forever.
    pub fn swallow(&self, swallows: bool) {
        self.shared.swallows.store(swallows, Ordering::Relaxed);
    }

    /// Returns the number of connections from which a response was discarded.
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
        // A connection that hangs is not closed either.
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
