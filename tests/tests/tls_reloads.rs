//! Reloads of certificates under load, good and bad files in turn, beside handshakes, an open connection, and requests over UDP and TCP. No
//! request is lost, each handshake gets a whole certificate, each fault leaves the previous one in use and is named, and nothing leaks.
//!
//! `PORTCULLIS_TLS_RELOADS` makes it longer.

#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::load::Load;
use portcullis_testkit::renewals::{Renewals, Stream, connect, shown};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, HandshakeKind};

/// Default number of reloads, half of them with files that cannot be used.
const RELOADS: u64 = 100;

/// How much more memory the process may have at the end than after the first half. A leak of a certificate with its configuration, some
/// tens of KiB, is seen after some hundred reloads; one of the authorities of a system at once.
const GROWTH_MIB: u64 = 16;
const MORE_MAPS: usize = 32;

/// A connection that a client has just closed may still be open.
const MORE_FILES: usize = 24;

#[test]
fn reloads_beside_handshakes_and_requests_lose_nothing_and_leak_nothing() {
    let office = Renewals::new();
    let builder = Builder::new().workers(2);
    let tls = builder.lease().addr(1, 5061);
    let host = office
        .serve(builder, tls)
        .set("relay.tls", &format!("ca = {:?}", office.authority()))
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
    // The last one is a good one.
    let reloads = reloads() | 1;
    let (mut early, mut late) = (None, None);
    std::thread::scope(|threads| {
        let _stop = StopOnDrop(&traffic.stop);
        threads.spawn(|| traffic.connect_again(&office.client(Resumption::disabled())));
        threads.spawn(|| traffic.connect_again(&office.client(Resumption::in_memory_sessions(8))));
        threads.spawn(|| traffic.stay(&office.client(Resumption::disabled())));
        for nth in 0..reloads {
            if let Err(what) = office.renew(&host, tls, nth) {
                panic!("reload {nth}: {what}");
            }
            traffic.goes_on();
            if nth + 1 == reloads.div_ceil(2) {
                early = Some(taken(&host));
            }
        }
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
        reloads,
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

    /// A connection whose certificate is verified, and is one of the two good ones.
    fn connected(&self, client: &Arc<ClientConfig>) -> Stream {
        let stream = connect(self.tls, client);
        assert!(
            self.own.contains(&shown(&stream)),
            "another certificate than the good ones"
        );
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        if stream.conn.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::Relaxed);
        }
        stream
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
