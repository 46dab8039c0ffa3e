//! Reloads of certificates under load, good and bad files in turn, beside handshakes, an open connection, and requests over UDP and TCP. No
//! request is lost, each handshake gets a whole certificate, each fault leaves the previous one in use and is named, and nothing leaks.
//!
//! `PORTCULLIS_TLS_RELOADS` makes it longer.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::wait::PATIENCE;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Default number of reloads, half of them with files that cannot be used.
const RELOADS: u64 = 100;

/// How much more memory the process may have at the end than after the first half. A leak of a certificate with its configuration, some
/// tens of KiB, is seen after some hundred reloads; one of the authorities of a system at once.
const GROWTH_MIB: u64 = 16;
const MORE_MAPS: usize = 32;

/// A connection that a client has just closed may still be open.
const MORE_FILES: usize = 24;

const NAME: &str = "edge.example";

#[test]
fn reloads_beside_handshakes_and_requests_lose_nothing_and_leak_nothing() {
    let office = Office::new();
    office.put(&office.pairs[0]);
    let builder = Builder::new().workers(2);
    let tls = builder.lease().addr(1, 5061);
    let file = |name: &str| format!("{:?}", office.path(name));
    let host = builder
        .listen(&format!("tls:{tls}"))
        .set("tls.edge", &format!("certificate = {}", file("edge.pem")))
        .set("tls.edge", &format!("key = {}", file("edge.key")))
        .set("relay.tls", &format!("ca = {}", file("ca.pem")))
        .set("streams", "handshakes-per-second = 0")
        .set("log", "level = \"error\"")
        .start();
    let traffic = Traffic {
        tls,
        own: [0, 1].map(|n| office.pairs[n].der.clone()),
        stop: AtomicBool::new(false),
        handshakes: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
        requests: AtomicU64::new(0),
    };
    let load = Load::start(&host, 40, 2);
    let begun = Instant::now();
    let rounds = reloads().div_ceil(2);
    let (mut early, mut late) = (None, None);
    std::thread::scope(|threads| {
        let _stop = StopOnDrop(&traffic.stop);
        threads.spawn(|| traffic.connect_again(&office.client(Resumption::disabled())));
        threads.spawn(|| traffic.connect_again(&office.client(Resumption::in_memory_sessions(8))));
        threads.spawn(|| traffic.stay(&office.client(Resumption::disabled())));
        let client = office.client(Resumption::disabled());
        for round in 0..rounds {
            let good = &office.pairs[usize::from(round % 2 == 0)];
            office.put(good);
            let answer = host.rpc("tls.reload", json!([]));
            assert_eq!(
                answer["result"], "Ok. TLS configuration reloaded.",
                "{answer}"
            );
            assert_eq!(traffic.shown(&client), good.der, "round {round}");

            let fault = FAULTS[(round % FAULTS.len() as u64) as usize];
            let said = office.spoil(fault, good);
            let answer = host.rpc("tls.reload", json!([]));
            let message = &answer["error"]["message"];
            assert_eq!(message, "Error while fixing TLS configuration", "{answer}");
            assert!(answer.to_string().contains(said), "{fault:?}: {answer}");
            assert_eq!(
                traffic.shown(&client),
                good.der,
                "{fault:?} in round {round}"
            );
            assert_eq!(faults(&host), 1, "{fault:?} is listed");
            traffic.goes_on();
            if round + 1 == rounds.div_ceil(2) {
                early = Some(taken(&host));
            }
        }
        office.put(&office.pairs[0]);
        host.rpc("tls.reload", json!([]));
        assert_eq!(faults(&host), 0);
        late = Some(taken(&host));
    });
    let seconds = begun.elapsed().as_secs_f64();
    let report = load.stop();
    let (handshakes, resumed, requests) = (
        traffic.handshakes.into_inner(),
        traffic.resumed.into_inner(),
        traffic.requests.into_inner(),
    );
    println!(
        "{} reloads in {seconds:.1} s beside {:.0} handshakes and {:.0} requests a second, {resumed} resumed; MiB, (maps, files): {early:?}, then {late:?}",
        rounds * 2,
        handshakes as f64 / seconds,
        (requests + report.sent) as f64 / seconds,
    );
    assert_eq!(report.answers.values().sum::<u64>(), report.sent);
    assert_eq!(report.duplicates, 0);
    // The keys of tickets outlive the certificates.
    assert!(resumed > 0, "no session was resumed");
    assert!(host.complaints().is_empty(), "{:?}", host.complaints());
    let (Some((memory, (maps, files))), Some((memory_now, (maps_now, files_now)))) = (early, late)
    else {
        panic!("there were no reloads");
    };
    assert!(
        memory_now <= memory + GROWTH_MIB,
        "memory: {memory}, then {memory_now} MiB"
    );
    assert!(
        maps_now <= maps + MORE_MAPS,
        "mappings: {maps}, then {maps_now}"
    );
    assert!(
        files_now <= files + MORE_FILES,
        "open files: {files}, then {files_now}"
    );
}

/// Memory in MiB, maps and open files.
fn taken(host: &Host) -> (u64, (usize, usize)) {
    (host.memory_mib(), host.maps_and_files())
}

/// The number of certificates whose files were refused at the last reload.
fn faults(host: &Host) -> usize {
    let answer = host.rpc("tls.certificates", json!([]));
    let listed = answer["result"].as_array().expect("a list of certificates");
    let has_fault = |one: &&Value| !one["fault"].is_null();
    listed.iter().filter(has_fault).count()
}

/// What makes files unusable.
#[derive(Clone, Copy, Debug)]
enum Fault {
    NoCertificate,
    NoKey,
    EmptyKey,
    Mismatch,
    Expired,
    Garbage,
    HalfCertificate,
    HalfKey,
}

const FAULTS: [Fault; 8] = [
    Fault::NoCertificate,
    Fault::NoKey,
    Fault::EmptyKey,
    Fault::Mismatch,
    Fault::Expired,
    Fault::Garbage,
    Fault::HalfCertificate,
    Fault::HalfKey,
];

/// An authority, two certificates of it for the same name, and one that has expired.
struct Office {
    folder: TempDir,
    authority: CertificateDer<'static>,
    pairs: [Pair; 2],
    expired: Pair,
}

struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Office {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no names are needed");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("it can be signed");
        let issuer = Issuer::new(params, key);
        let folder = tempfile::tempdir().expect("a temporary directory can be made");
        fs::write(folder.path().join("ca.pem"), own.pem()).expect("a file can be written");
        Self {
            authority: own.der().clone(),
            pairs: [(); 2].map(|()| Pair::new(&issuer, |_| {})),
            expired: Pair::new(&issuer, |params| {
                params.not_before = date_time_ymd(2019, 1, 1);
                params.not_after = date_time_ymd(2020, 1, 1);
            }),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).expect("a file can be written");
    }

    /// Writes the files of the host: not at once, and not atomically.
    fn put(&self, pair: &Pair) {
        self.write("edge.pem", &pair.certificate);
        self.write("edge.key", &pair.key);
    }

    /// Makes the files of this certificate unusable. Returns a part of what the host says.
    fn spoil(&self, fault: Fault, good: &Pair) -> &'static str {
        let half = |text: &str| text[..text.len() / 2].to_owned();
        let remove = |path: &Path| fs::remove_file(path).expect("the file is there");
        match fault {
            Fault::NoCertificate => {
                remove(&self.path("edge.pem"));
                "cannot read"
            }
            Fault::NoKey => {
                remove(&self.path("edge.key"));
                "cannot read"
            }
            Fault::EmptyKey => {
                self.write("edge.key", "");
                "contains no private key"
            }
            Fault::Mismatch => {
                let mut others = self.pairs.iter();
                let other = others.find(|other| other.der != good.der);
                self.write("edge.key", &other.expect("there are two").key);
                "does not belong to the first certificate"
            }
            Fault::Expired => {
                self.put(&self.expired);
                "is valid from"
            }
            Fault::Garbage => {
                self.write("edge.pem", [0xff, 0x00, 0x16, b'-'].repeat(500));
                "contains no certificate"
            }
            Fault::HalfCertificate => {
                self.write("edge.pem", half(&good.certificate));
                "is not a file in PEM"
            }
            Fault::HalfKey => {
                self.write("edge.key", half(&good.key));
                "is not a file in PEM"
            }
        }
    }

    fn client(&self, resumption: Resumption) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.authority.clone())
            .expect("the authority can be used");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = resumption;
        Arc::new(config)
    }
}

impl Pair {
    fn new(issuer: &Issuer<'static, KeyPair>, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let params = CertificateParams::new(vec![NAME.to_owned()]);
        let mut params = params.expect("the name is one");
        change(&mut params);
        let made = params.signed_by(&key, issuer).expect("it can be signed");
        Self {
            certificate: made.pem(),
            key: key.serialize_pem(),
            der: made.der().clone(),
        }
    }
}

/// Clients over TLS, and what they have seen.
struct Traffic {
    tls: SocketAddr,
    /// The certificates that the host may show.
    own: [CertificateDer<'static>; 2],
    stop: AtomicBool,
    handshakes: AtomicU64,
    resumed: AtomicU64,
    requests: AtomicU64,
}

type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Traffic {
    /// Connects, sends a request, waits for the response, and begins again.
    fn connect_again(&self, client: &Arc<ClientConfig>) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut stream = self.connected(client);
            self.ask(&mut stream);
        }
    }

    /// Sends one request after the other over one connection, which no reload ends.
    fn stay(&self, client: &Arc<ClientConfig>) {
        let mut stream = self.connected(client);
        while !self.stop.load(Ordering::Relaxed) {
            self.ask(&mut stream);
        }
    }

    /// The certificate that the host shows now.
    fn shown(&self, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
        let stream = self.connected(client);
        let shown = stream.conn.peer_certificates().and_then(|all| all.first());
        shown
            .expect("the host shows a certificate")
            .clone()
            .into_owned()
    }

    /// A connection whose certificate is verified, and is one of the two good ones.
    fn connected(&self, client: &Arc<ClientConfig>) -> Stream {
        let name = ServerName::try_from(NAME).expect("it is a name");
        let mut conn = ClientConnection::new(Arc::clone(client), name).expect("a client");
        let mut socket = TcpStream::connect(self.tls).expect("the host listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        while conn.is_handshaking() {
            conn.complete_io(&mut socket)
                .expect("the handshake succeeds");
        }
        let shown = conn.peer_certificates().and_then(|all| all.first());
        let shown = shown.expect("the host shows a certificate");
        assert!(
            self.own.contains(shown),
            "another certificate than the good ones"
        );
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        if conn.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::Relaxed);
        }
        StreamOwned::new(conn, socket)
    }

    /// Sends a request that the host answers itself, and reads the response.
    fn ask(&self, stream: &mut Stream) {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request = format!(
            "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/TLS client.invalid;branch=z9hG4bK-{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: reload-{number}\r\nCSeq: 1 OPTIONS\r\n\
             Content-Length: 0\r\n\r\n",
            self.tls
        );
        stream
            .write_all(request.as_bytes())
            .expect("it can be sent");
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            let mut chunk = [0; 4_096];
            let length = stream.read(&mut chunk).expect("a response comes");
            assert!(length > 0, "the connection was closed before the response");
            text.extend(&chunk[..length]);
        }
        let text = String::from_utf8_lossy(&text);
        assert!(text.starts_with("SIP/2.0 200 "), "{text}");
        assert!(
            text.contains(&format!("Call-ID: reload-{number}\r\n")),
            "{text}"
        );
    }

    /// Returns when a further handshake and a further request have succeeded.
    fn goes_on(&self) {
        let counts =
            || [&self.handshakes, &self.requests].map(|count| count.load(Ordering::Relaxed));
        let before = counts();
        portcullis_testkit::wait::until("the traffic goes on", || {
            let now = counts();
            (now[0] > before[0] && now[1] > before[1] + 1).then_some(())
        });
    }
}

fn reloads() -> u64 {
    let Ok(text) = std::env::var("PORTCULLIS_TLS_RELOADS") else {
        return RELOADS;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("PORTCULLIS_TLS_RELOADS={text}: a whole number is needed"))
}

struct StopOnDrop<'t>(&'t AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
