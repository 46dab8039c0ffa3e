//! Handshakes in memory: names, certificates of clients, versions, resumption and reloads.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod next_hops;
mod office;

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use portcullis_tls::{
    ClientAuth, Inside, MinVersion, Profile, RelayProfile, Session, Settings, Tls, TlsError,
};
use rcgen::{DnType, SanType, SerialNumber, date_time_ymd};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use office::{Office, dns, meet, meet_for, uri};

#[test]
fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let office = Office::new();
    office.issue_for("one", &["one.example"]);
    office.issue_for("other", &["*.other.example"]);
    office.issue_for("rest", &["rest.example", "127.0.0.1"]);
    let rest = Profile {
        is_default: true,
        ..office.profile("rest")
    };
    let tls = office.open(vec![office.profile("one"), office.profile("other"), rest]);
    let mut client = office.client(None);
    client
        .dangerous()
        .set_certificate_verifier(Arc::new(Anything));
    let client = Arc::new(client);
    for (asked, got) in [
        ("one.example", "one.example"),
        ("ONE.example", "one.example"),
        ("a.other.example", "*.other.example"),
        ("a.b.other.example", "rest.example"),
        ("unknown.example", "rest.example"),
        // No name is sent for an address.
        ("127.0.0.1", "rest.example"),
    ] {
        let met = meet(&tls, &client, asked).unwrap();
        assert_eq!(met.names()[0], got, "{asked}");
    }
    let without_default = office.open(vec![office.profile("one"), office.profile("other")]);
    assert!(meet(&without_default, &client, "one.example").is_ok());
    assert!(meet(&without_default, &client, "unknown.example").is_err());
    // The only profile is the default one.
    let alone = office.open(vec![office.profile("one")]);
    assert!(meet(&alone, &client, "unknown.example").is_ok());
}

#[test]
fn the_protocol_of_a_listener_is_offered_and_not_required() {
    let office = Office::new();
    office.issue_for("one", &["one.example"]);
    let tls = office.open(vec![office.profile("one")]);
    let (sip, http): (&[u8], &[u8]) = (b"sip/2", b"http/1.1");
    for (inside, offers, got) in [
        (Inside::Sip, vec![], None),
        (Inside::Sip, vec![sip], Some(sip)),
        (Inside::Sip, vec![&b"h2"[..], sip], Some(sip)),
        (Inside::Sip, vec![http], None),
        (Inside::WebSocket, vec![], None),
        (Inside::WebSocket, vec![&b"h2"[..], http], Some(http)),
        (Inside::WebSocket, vec![sip], None),
    ] {
        let mut client = office.client(None);
        client.alpn_protocols = offers.iter().map(|offer| offer.to_vec()).collect();
        let met = meet_for(&tls, inside, &Arc::new(client), "one.example").unwrap();
        assert_eq!(met.server.alpn_protocol(), got, "{inside:?} {offers:?}");
    }
    // Next hops are offered SIP.
    let hop = ServerName::try_from("hop.example").unwrap();
    assert_eq!(tls.client(&hop).config().alpn_protocols, [sip]);
}

#[test]
fn certificates_of_clients_are_verified_where_they_are_asked_for() {
    let office = Office::new();
    let stranger = Office::new();
    office.issue_for("edge", &["edge.example"]);
    office.issue("carrier", |params| {
        params
            .distinguished_name
            .push(DnType::CommonName, "Carrier");
        params.subject_alt_names = vec![
            dns("b.example"),
            uri("sip:carrier.example"),
            uri("https://carrier.example/"),
            SanType::Rfc822Name("noc@carrier.example".try_into().unwrap()),
        ];
        params.serial_number = Some(SerialNumber::from(0x1234));
    });
    office.issue("revoked", |params| {
        params.serial_number = Some(SerialNumber::from(77));
    });
    office.issue("old", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    stranger.issue_for("carrier", &["carrier.example"]);
    let crl = office.revoke("crl.pem", 77);
    let profile = |client_auth| Profile {
        client_auth,
        client_ca: Some(office.path("ca.pem")),
        crl: Some(crl.clone()),
        ..office.profile("edge")
    };
    let required = office.open(vec![profile(ClientAuth::Required)]);
    let optional = office.open(vec![profile(ClientAuth::Optional)]);
    let meets = |tls: &Tls, client| meet(tls, &Arc::new(client), "edge.example");
    for tls in [&required, &optional] {
        let met = meets(tls, office.client(Some("carrier"))).unwrap();
        let peer = Session::accepted(&met.server).peer.unwrap();
        assert_eq!(peer.names.shown(), ["sip:carrier.example", "b.example"]);
        assert_eq!(peer.names.domains(), ["carrier.example"]);
        assert!(peer.names.speak_for("Carrier.example"));
        assert!(!peer.names.speak_for("b.example"), "a URI outranks it");
        assert_eq!(
            peer.uris,
            ["sip:carrier.example", "https://carrier.example/"]
        );
        assert_eq!(peer.emails, ["noc@carrier.example"]);
        assert_eq!(peer.common_name.as_deref(), Some("Carrier"));
        assert_eq!(peer.subject, "CN=Carrier");
        assert_eq!(peer.serial_number, "1234");
        for bad in ["revoked", "old"] {
            let error = meets(tls, office.client(Some(bad))).err().unwrap();
            let is_named = matches!(error, rustls::Error::InvalidCertificate(_));
            assert!(is_named, "{bad}: {error}");
        }
        let mut client = stranger.client(Some("carrier"));
        client
            .dangerous()
            .set_certificate_verifier(Arc::new(Anything));
        assert!(meets(tls, client).is_err());
    }
    let met = meets(&optional, office.client(None)).unwrap();
    let session = Session::accepted(&met.server);
    assert_eq!((session.shows_certificate, session.peer), (false, None));
    assert_eq!(
        meets(&required, office.client(None)).err(),
        Some(rustls::Error::NoCertificatesPresented)
    );
}

#[test]
fn a_session_says_what_both_ends_have_settled() {
    let office = Office::new();
    office.issue_for("edge", &["edge.example"]);
    let tls = office.open(vec![office.profile("edge")]);
    let met = meet(&tls, &Arc::new(office.client(None)), "edge.example").unwrap();
    let accepted = Session::accepted(&met.server);
    let name = ServerName::try_from("Edge.example").unwrap();
    let opened = Session::opened(&met.client, &name, true);
    for session in [&accepted, &opened] {
        assert_eq!(session.version, "TLSv1.3");
        assert_eq!(session.server_name.as_deref(), Some("edge.example"));
        let suite = &session.cipher_suite;
        assert!(suite.starts_with("TLS_"), "a registered name: {suite}");
    }
    assert_eq!(accepted.cipher_suite, opened.cipher_suite);
    assert!(!accepted.shows_certificate && opened.shows_certificate);
    assert!(opened.peer.unwrap().names.speak_for("edge.example"));

    // A certificate that nobody has verified proves nothing.
    let unverified = Session::opened(&met.client, &name, false);
    assert!(unverified.shows_certificate);
    assert_eq!(unverified.peer, None);
    let address = ServerName::try_from("192.0.2.1").unwrap();
    let by_address = Session::opened(&met.client, &address, true);
    assert_eq!(by_address.server_name, None);
}

#[test]
fn sessions_are_resumed_after_a_reload_and_never_where_clients_are_verified() {
    let office = Office::new();
    office.issue_for("edge", &["edge.example"]);
    let tls = office.open(vec![office.profile("edge")]);
    let mut client = office.client(Some("edge"));
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);
    assert!(!meet(&tls, &client, "edge.example").unwrap().is_resumed());
    assert!(meet(&tls, &client, "edge.example").unwrap().is_resumed());
    assert!(tls.reload().iter().all(|one| one.result.is_ok()));
    assert!(meet(&tls, &client, "edge.example").unwrap().is_resumed());

    let verifying = Profile {
        client_auth: ClientAuth::Optional,
        client_ca: Some(office.path("ca.pem")),
        ..office.profile("edge")
    };
    let tls = office.open(vec![verifying]);
    for _ in 0..3 {
        let met = meet(&tls, &client, "edge.example").unwrap();
        assert!(!met.is_resumed());
        assert!(met.server.peer_certificates().is_some());
    }
}

#[test]
fn an_old_version_is_refused_where_it_is_configured() {
    let office = Office::new();
    office.issue_for("edge", &["edge.example"]);
    let profile = Profile {
        min_version: MinVersion::Tls13,
        ..office.profile("edge")
    };
    let strict = office.open(vec![profile]);
    let lax = office.open(vec![office.profile("edge")]);
    let mut roots = RootCertStore::empty();
    roots.add(office.certificate.der().clone()).unwrap();
    let old = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let old = Arc::new(old);
    assert!(meet(&lax, &old, "edge.example").is_ok());
    assert!(meet(&strict, &old, "edge.example").is_err());
    let new = Arc::new(office.client(None));
    assert!(meet(&strict, &new, "edge.example").is_ok());
}

#[test]
fn a_reload_with_a_fault_keeps_what_there_is_and_names_the_fault() {
    let office = Office::new();
    office.issue_for("one", &["one.example"]);
    office.issue_for("other", &["other.example"]);
    let tls = office.open(vec![office.profile("one"), office.profile("other")]);
    let before = tls.list();
    let copy = |from: &str, to: &str| std::fs::copy(office.path(from), office.path(to)).unwrap();
    // The key of another certificate for one, a new certificate for the other.
    copy("other.pem", "one.pem");
    office.issue_for("other", &["other.example"]);
    let results = tls.reload();
    assert!(matches!(results[0].result, Err(TlsError::Mismatch { .. })));
    assert!(matches!(results[1].result, Ok(true)));
    let after = tls.list();
    assert_eq!(after[0].certificate, before[0].certificate);
    assert_ne!(after[1].certificate, before[1].certificate);
    let fault = after[0].fault.as_deref().unwrap();
    assert!(fault.contains("does not belong"), "{fault}");
    assert_eq!(after[1].fault, None);
    // An expired one does not replace one that is valid.
    office.issue("one", |params| {
        params.subject_alt_names = vec![dns("one.example")];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let results = tls.reload();
    let error = results[0].result.as_ref().unwrap_err().to_string();
    assert!(
        error.contains("2020-01-01T00:00:00Z to 2021-01-01"),
        "{error}"
    );
    office.issue_for("one", &["one.example"]);
    assert!(matches!(tls.reload()[0].result, Ok(true)));
    assert_eq!(tls.list()[0].fault, None);
}

#[test]
fn certificates_are_listed_while_a_reload_waits_for_a_file() {
    let office = Office::new();
    office.issue_for("edge", &["edge.example"]);
    let tls = &office.open(vec![office.profile("edge")]);
    let file = office.path("edge.pem");
    std::fs::remove_file(&file).unwrap();
    let made = Command::new("mkfifo").arg(&file).status().unwrap();
    assert!(made.success());
    let (listed, results) = thread::scope(|threads| {
        let reload = threads.spawn(|| tls.reload());
        // This succeeds when the reload has opened the file. Nothing comes from it until the end.
        let pipe = OpenOptions::new().write(true).open(&file).unwrap();
        let (told, listed) = mpsc::channel();
        threads.spawn(move || told.send(tls.list()));
        let listed = listed.recv_timeout(Duration::from_secs(60));
        drop(pipe);
        (listed, reload.join().unwrap())
    });
    assert_eq!(listed.unwrap()[0].fault, None);
    assert!(results[0].result.is_err());
    assert!(tls.list()[0].fault.is_some());
}

#[test]
fn lists_that_should_have_been_replaced_are_known() {
    let office = Office::new();
    office.issue_for("edge", &["edge.example"]);
    let crl = office.revoke("crl.pem", 77);
    let verifying = Profile {
        client_auth: ClientAuth::Required,
        client_ca: Some(office.path("ca.pem")),
        crl: Some(crl.clone()),
        ..office.profile("edge")
    };
    let settings = Settings {
        profiles: vec![verifying],
        relay: RelayProfile {
            crl: Some(crl),
            ..office.relay()
        },
        ..Settings::default()
    };
    let tls = Tls::open(&settings).unwrap();
    // The list says that the next one comes with the year 2034.
    let next = UNIX_EPOCH + Duration::from_secs(2_019_686_400);
    assert_eq!(tls.outdated_lists(next), []);
    let later = next + Duration::from_secs(1);
    let outdated = ["tls.edge", "relay.tls"].map(|section| (section.to_owned(), next));
    assert_eq!(tls.outdated_lists(later), outdated);
    let without = office.open(vec![office.profile("edge")]);
    assert_eq!(without.outdated_lists(later), []);
}

#[test]
fn errors_name_the_file_and_how_to_correct_it() {
    let office = Office::new();
    // Its subject is not that of the authority.
    office.issue("one", |params| {
        params.subject_alt_names = vec![dns("one.example")];
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "one");
    });
    office.issue("nameless", |_| {});
    office.write("empty.pem", "");
    office.write(
        "text.pem",
        "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
    );
    let one = std::fs::read_to_string(office.path("one.pem")).unwrap();
    office.write("double.pem", &format!("{one}{one}"));
    let told = |change: &dyn Fn(&mut Profile)| {
        let mut profile = office.profile("one");
        change(&mut profile);
        let settings = Settings {
            profiles: vec![profile],
            relay: office.relay(),
            ..Settings::default()
        };
        match Tls::open(&settings) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    let at = |name: &str| -> PathBuf { Path::new(&office.path(name)).to_owned() };
    assert_eq!(told(&|_| {}), "");
    for (file, said) in [
        ("none.pem", "change `certificate` in [tls.one]"),
        ("empty.pem", "contains no certificate"),
        ("text.pem", "is not a file in PEM"),
        ("nameless.pem", "does not belong to the first certificate"),
        ("double.pem", "was not issued by the one that follows it"),
    ] {
        let error = told(&|profile| profile.certificate = at(file));
        assert!(error.contains(said), "{error}");
    }
    let error = told(&|profile| profile.key = at("one.pem"));
    assert!(error.contains("contains no private key"), "{error}");
    let verifying = |profile: &mut Profile, ca: &str, crl: Option<&str>| {
        profile.client_auth = ClientAuth::Required;
        profile.client_ca = Some(at(ca));
        profile.crl = crl.map(at);
    };
    let error = told(&|profile| verifying(profile, "empty.pem", None));
    assert!(error.contains("contains no certificate"), "{error}");
    let error = told(&|profile| verifying(profile, "ca.pem", Some("ca.pem")));
    assert!(error.contains("contains no revocation list"), "{error}");
    // A wildcard for a whole top-level domain covers no name.
    office.issue_for("wide", &["*.internal"]);
    for name in ["nameless", "wide"] {
        let error = told(&|profile| {
            profile.certificate = at(&format!("{name}.pem"));
            profile.key = at(&format!("{name}.key"));
        });
        assert!(error.contains("set `names` in [tls.one]"), "{error}");
    }
}

/// Accepts any certificate: for clients that look at what they got.
#[derive(Debug)]
struct Anything;

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
