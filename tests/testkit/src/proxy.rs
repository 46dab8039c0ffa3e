//! A TCP proxy that can begin to discard responses: connections stay open, and nothing is received, as after a firewall fail-over without
//! state synchronisation. It can also hold a statement back, as a network does that loses packets for a while.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::wait;

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
    /// The text of the statement that is to be held back.
    hold: Mutex<Option<&'static str>>,
    is_holding: AtomicBool,
    is_released: AtomicBool,
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

    /// Holds the next statement with this text back until it is [released](Self::release). The server gets it then also if the client has gone.
    pub fn hold(&self, text: &'static str) {
        *self.shared.hold.lock().expect("nobody panics with it") = Some(text);
    }

    /// Whether a statement is held back.
    pub fn is_holding(&self) -> bool {
        self.shared.is_holding.load(Ordering::Relaxed)
    }

    /// Passes the statement that is held back.
    pub fn release(&self) {
        self.shared.is_released.store(true, Ordering::Relaxed);
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
        let shared = Arc::clone(self);
        thread::spawn(move || shared.pass(from, to));
        let shared = Arc::clone(self);
        let mut open = self.open.lock().expect("nobody panics with it");
        open.extend([clone(&client), clone(&server)]);
        thread::spawn(move || shared.pass_answers(server, client));
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            let bytes = &bytes[..length];
            if self.takes(bytes) {
                self.is_holding.store(true, Ordering::Relaxed);
                wait::until("the statement is released", || {
                    let is_over = [&self.is_released, &self.ended];
                    let is_over = is_over.iter().any(|over| over.load(Ordering::Relaxed));
                    is_over.then_some(())
                });
            }
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        let _gone = to.shutdown(Shutdown::Write);
    }

    /// Whether these bytes have the statement that is to be held back. It is taken once.
    fn takes(&self, bytes: &[u8]) -> bool {
        let mut hold = self.hold.lock().expect("nobody panics with it");
        let is_it = hold.is_some_and(|text| {
            let mut windows = bytes.windows(text.len());
            windows.any(|window| window == text.as_bytes())
        });
        if is_it {
            *hold = None;
        }
        is_it
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

fn clone(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a socket can be cloned")
}
