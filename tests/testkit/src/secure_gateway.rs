//! A gateway over TLS, by an implementation other than OpenSSL's, which can be ended and started with another certificate.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::callee::ok_to;
use crate::sip::receive_framed;

/// A gateway that answers every request over TLS with 200. It and its connections end with its value.
#[derive(Debug)]
pub struct SecureGateway {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ends: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
    /// The methods of the requests.
    answered: Mutex<Vec<String>>,
}

impl SecureGateway {
    /// Listens on this address, with the certificate `NAME.pem` and the key `NAME.key` of this folder.
    ///
    /// # Panics
    /// When the address is taken, or the files cannot be used.
    pub fn start(addr: SocketAddr, folder: &Path, name: &str) -> Self {
        let file = |end: &str| folder.join(format!("{name}.{end}"));
        let certificate = CertificateDer::from_pem_file(file("pem")).expect("it has a certificate");
        let key = PrivateKeyDer::from_pem_file(file("key")).expect("it has a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has these versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is that of the certificate");
        let listener = TcpListener::bind(addr).expect("the gateway's address is free");
        let shared = Arc::new(Shared::default());
        let (config, serving) = (Arc::new(config), Arc::clone(&shared));
        let thread = std::thread::spawn(move || serve(&listener, &config, &serving));
        Self {
            addr,
            shared,
            thread: Some(thread),
        }
    }

    /// Number of requests with this method that it has answered.
    pub fn answered(&self, method: &str) -> usize {
        let answered = self.shared.answered.lock();
        let answered = answered.unwrap_or_else(PoisonError::into_inner);
        answered.iter().filter(|one| *one == method).count()
    }
}

impl Drop for SecureGateway {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // The thread waits for a connection.
        let _woken = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
        let open = self.shared.open.lock();
        for stream in open.unwrap_or_else(PoisonError::into_inner).iter() {
            let _ended = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.ends.load(Ordering::Relaxed) {
            return;
        }
        let Ok(same) = stream.try_clone() else {
            continue;
        };
        let mut open = shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.push(same);
        let (config, shared) = (Arc::clone(config), Arc::clone(shared));
        std::thread::spawn(move || answer(stream, config, &shared));
    }
}

/// Answers the requests of a connection, until it ends or its handshake fails.
fn answer(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) {
    let local = stream.local_addr().expect("a connection has an address");
    let session = ServerConnection::new(config).expect("a server can be made");
    let mut stream = StreamOwned::new(session, stream);
    let mut pending = Vec::new();
    while let Some(request) = receive_framed(&mut stream, &mut pending) {
        if request.first_word() == "ACK" {
            continue;
        }
        if stream.write_all(&ok_to(&request, local)).is_err() {
            return;
        }
        let mut answered = shared
            .answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        answered.push(request.first_word().to_owned());
    }
}
