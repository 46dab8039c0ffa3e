//! A client over TLS, by an implementation other than OpenSSL's.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::wait::PATIENCE;

/// A connection to the host, with TLS or without.
#[derive(Debug)]
pub enum Line {
    /// Without.
    Plain(TcpStream),
    /// With TLS.
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Line {
    /// Shakes hands with a server of this name, whose certificate has to be one of the authority `ca.pem` in this folder. The client offers these
    /// protocols (ALPN).
    ///
    /// # Panics
    /// When the handshake fails.
    pub fn secure(stream: TcpStream, folder: &Path, name: &str, protocols: &[&str]) -> Self {
        let mut session = session(folder, name, protocols);
        let mut stream = stream;
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        session
            .complete_io(&mut stream)
            .expect("the host shakes hands");
        Self::Secure(Box::new(StreamOwned::new(session, stream)))
    }

    /// The protocol that the server has chosen (ALPN).
    pub fn protocol(&self) -> Option<String> {
        let chosen = match self {
            Self::Plain(_) => None,
            Self::Secure(stream) => stream.conn.alpn_protocol(),
        };
        chosen.map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// The connection below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref(),
        }
    }

    /// Sends text, and reads what comes back up to this end.
    ///
    /// # Panics
    /// When the connection ends before, or nothing comes.
    pub fn ask(&mut self, text: &str, end: &str) -> String {
        self.write_all(text.as_bytes())
            .expect("the connection takes bytes");
        self.hear(end)
    }

    /// Reads up to this end.
    ///
    /// # Panics
    /// When the connection ends before, or nothing comes.
    pub fn hear(&mut self, end: &str) -> String {
        self.tcp()
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut heard = Vec::new();
        while !heard.ends_with(end.as_bytes()) {
            let mut byte = [0];
            let count = self.read(&mut byte).expect("bytes come");
            let so_far = String::from_utf8_lossy(&heard);
            assert!(count > 0, "the connection ends after {so_far:?}");
            heard.push(byte[0]);
        }
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Reads until the host ends the connection, and returns what came before.
    pub fn hear_all(&mut self) -> String {
        self.tcp()
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        let mut heard = Vec::new();
        match self.read_to_end(&mut heard) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let heard = String::from_utf8_lossy(&heard);
                panic!("the host leaves the connection open, after {heard:?}");
            }
            // Without a close of TLS, or with a reset of TCP, it has ended as well.
            Ok(_) | Err(_) => String::from_utf8_lossy(&heard).into_owned(),
        }
    }
}

/// The handshake of a client, flight by flight.
#[derive(Debug)]
pub struct Handshake(ClientConnection);

impl Handshake {
    /// Begins one, as [`Line::secure`] does.
    pub fn new(folder: &Path, name: &str) -> Self {
        Self(session(folder, name, &[]))
    }

    /// What the client says first.
    pub fn hello(&mut self) -> Vec<u8> {
        self.written()
    }

    /// What the client says last, after it has heard the server.
    ///
    /// # Panics
    /// When the server does not shake hands.
    pub fn last(&mut self, stream: &mut TcpStream) -> Vec<u8> {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        while self.0.is_handshaking() {
            let count = self.0.read_tls(stream).expect("the server answers");
            assert!(count > 0, "the server ends the connection");
            self.0.process_new_packets().expect("the server speaks TLS");
        }
        self.written()
    }

    fn written(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut bytes).expect("memory takes bytes");
        }
        bytes
    }
}

fn session(folder: &Path, name: &str, protocols: &[&str]) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.join("ca.pem"));
    roots
        .add(authority.expect("the authority has a file"))
        .expect("the authority has a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has these versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
    config.alpn_protocols = protocols.collect();
    let name = ServerName::try_from(name.to_owned()).expect("a name of a test is one");
    ClientConnection::new(Arc::new(config), name).expect("a client can be made")
}

impl From<TcpStream> for Line {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl Read for Line {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}
