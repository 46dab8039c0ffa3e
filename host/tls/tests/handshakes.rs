//! Handshakes in memory: names, certificates of clients, versions, resumption and reloads.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_tls::{
    Authorities, ClientAuth, Inside, MinVersion, NamedRelayProfile, Profile, RelayProfile, Session,
    Settings, Tls, TlsError,
};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
    date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::Acceptor;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};
use tempfile::TempDir;

/// An authority with a folder of files.
struct Office {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Office {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let office = Self {
            folder: tempfile::tempdir().unwrap(),
            issuer: Issuer::new(params, key),
            certificate,
        };
        office.write("ca.pem", &office.certificate.pem());
        office
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Makes `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn issue_for(&self, name: &str, hosts: &[&str]) {
        self.issue(name, |params| {
            params.subject_alt_names = hosts.iter().map(|host| dns(host)).collect();
        });
    }

    fn profile(&self, name: &str) -> Profile {
        Profile {
            name: name.into(),
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            names: Vec::new(),
            is_default: false,
            client_auth: ClientAuth::None,
            client_ca: None,
            crl: None,
            min_version: MinVersion::Tls12,
        }
    }

    fn relay(&self) -> RelayProfile {
        RelayProfile {
            authorities: Authorities::File(self.path("ca.pem")),
            ..RelayProfile::default()
        }
    }

    fn open(&self, profiles: Vec<Profile>) -> Tls {
        let settings = Settings {
            profiles,
            relay: self.relay(),
            ..Settings::default()
        };
        Tls::open(&settings).unwrap()
    }

    /// A client that trusts this authority and may show a certificate.
    fn client(&self, shows: Option<&str>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        match shows {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let read = |end: &str| std::fs::read(self.path(&format!("{name}.{end}"))).unwrap();
                let chain = CertificateDer::pem_slice_iter(&read("pem"))
                    .collect::<Result<_, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_slice(&read("key")).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

fn dns(host: &str) -> SanType {
    SanType::DnsName(host.try_into().unwrap())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// Both ends after a handshake.
struct Met {
    client: ClientConnection,
    server: ServerConnection,
}

impl Met {
    /// The names of the certificate that the client got.
    fn names(&self) -> Vec<String> {
        let certificate = &self.client.peer_certificates().unwrap()[0];
        portcullis_tls::Certificate::read(certificate)
            .unwrap()
            .names
            .shown()
    }

    fn is_resumed(&self) -> bool {
        self.client.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// Lets a client of this configuration meet the server, until both are done or one refuses.
fn meet(tls: &Tls, client: &Arc<ClientConfig>, name: &str) -> Result<Met, rustls::Error> {
    meet_for(tls, Inside::Sip, client, name)
}

/// The same, where this is spoken.
fn meet_for(
    tls: &Tls,
    inside: Inside,
    client: &Arc<ClientConfig>,
    name: &str,
) -> Result<Met, rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name)?;
    let mut acceptor = Acceptor::default();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    acceptor.read_tls(&mut &hello[..]).unwrap();
    let accepted = acceptor.accept().map_err(|(error, _)| error)?.unwrap();
    let hello = accepted.client_hello();
    let protocols = hello.alpn().into_iter().flatten();
    let config = tls.server(inside, hello.server_name(), protocols);
    let config = config.ok_or_else(|| rustls::Error::General("no profile".into()))?;
    let server = accepted.into_connection(config);
    let mut server = server.map_err(|(error, _)| error)?;
    exchange(&mut client, &mut server)?;
    Ok(Met { client, server })
}

fn exchange(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
    }
    Ok(())
}

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
    let serial = SerialNumber::from(77);
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
        params.serial_number = Some(serial.clone());
    });
    office.issue("old", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    stranger.issue_for("carrier", &["carrier.example"]);
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2034, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: serial,
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&office.issuer).unwrap();
    let crl = office.write("crl.pem", &list.pem().unwrap());
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

/// Whether a next hop with this certificate is accepted under this name.
fn reaches(office: &Office, relay: RelayProfile, shows: &str, name: &str) -> bool {
    let settings = Settings {
        relay,
        ..Settings::default()
    };
    let wanted = ServerName::try_from(name.to_owned()).unwrap();
    let client = Tls::open(&settings).unwrap().client(&wanted);
    // The default is shown whatever name is asked for.
    let shown = Profile {
        is_default: true,
        ..office.profile(shows)
    };
    let server = Office::open(office, vec![shown]);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let name = client.name_of(name).to_str().into_owned();
    meet(&server, &client.config(), &name).is_ok()
}

#[test]
fn the_name_of_a_next_hop_is_demanded() {
    let office = Office::new();
    office.issue_for("plain", &["sip.example.com"]);
    office.issue_for("wild", &["*.example.com"]);
    office.issue("domain", |params| {
        params.subject_alt_names = vec![dns("host.example.net"), uri("sip:example.com")];
    });
    office.issue("address", |params| {
        params.subject_alt_names =
            vec![SanType::IpAddress("192.0.2.7".parse().unwrap()), dns("x.y")];
    });
    office.issue("common", |params| {
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "sip.example.com");
    });
    for (shows, name, is_accepted) in [
        ("plain", "sip.example.com", true),
        ("plain", "other.example.com", false),
        ("wild", "sip.example.com", true),
        ("wild", "a.sip.example.com", false),
        ("domain", "example.com", true),
        // The URI outranks the DNS name.
        ("domain", "host.example.net", false),
        ("address", "192.0.2.7", true),
        ("address", "192.0.2.8", false),
        // The common name never counts.
        ("common", "sip.example.com", false),
    ] {
        let reached = reaches(&office, office.relay(), shows, name);
        assert_eq!(reached, is_accepted, "{shows} for {name}");
    }
    let strict = RelayProfile {
        wildcards: false,
        ..office.relay()
    };
    assert!(!reaches(&office, strict, "wild", "sip.example.com"));
    let named = RelayProfile {
        name: Some("sip.example.com".into()),
        ..office.relay()
    };
    assert!(reaches(&office, named.clone(), "plain", "192.0.2.1"));
    assert!(!reaches(&office, named, "address", "192.0.2.7"));
    let stranger = Office::new();
    assert!(!reaches(
        &office,
        stranger.relay(),
        "plain",
        "sip.example.com"
    ));
    let blind = RelayProfile {
        verify: false,
        ..stranger.relay()
    };
    assert!(reaches(&office, blind, "plain", "other.example.com"));
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
    let error = told(&|profile| {
        profile.certificate = at("nameless.pem");
        profile.key = at("nameless.key");
    });
    assert!(error.contains("set `names` in [tls.one]"), "{error}");
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

#[test]
fn the_host_that_led_there_chooses_the_profile_of_a_connection() {
    let (own, carrier) = (Office::new(), Office::new());
    own.issue("edge", |_| {});
    carrier.issue_for("gateway", &["gw.carrier.example"]);
    let pair = (own.path("edge.pem"), own.path("edge.key"));
    let profile = RelayProfile {
        pair: Some(pair.clone()),
        authorities: Authorities::File(carrier.path("ca.pem")),
        ..RelayProfile::default()
    };
    let hosts = ["gw.carrier.example", "*.trunk.example", "192.0.2.7"];
    let settings = Settings {
        relay: own.relay(),
        relay_profiles: vec![NamedRelayProfile {
            name: "carrier".into(),
            hosts: hosts.map(str::to_owned).into(),
            profile,
        }],
        ..Settings::default()
    };
    let tls = Tls::open(&settings).unwrap();
    let client = |host: &str| tls.client(&ServerName::try_from(host.to_owned()).unwrap());
    for (host, section) in [
        ("GW.carrier.example", "relay.tls-profiles.carrier"),
        ("a.trunk.example", "relay.tls-profiles.carrier"),
        ("192.0.2.7", "relay.tls-profiles.carrier"),
        ("carrier.example", "relay.tls"),
        ("192.0.2.8", "relay.tls"),
    ] {
        assert_eq!(client(host).section, section, "{host}");
    }

    // Its authorities count for its hosts only, in a handshake and in a check afterwards.
    let server = carrier.open(vec![Profile {
        is_default: true,
        ..carrier.profile("gateway")
    }]);
    let name = "gw.carrier.example";
    assert!(meet(&server, &client(name).config(), name).is_ok());
    assert!(meet(&server, &client("other.example").config(), name).is_err());
    let pem = std::fs::read(carrier.path("gateway.pem")).unwrap();
    let shown = [CertificateDer::from_pem_slice(&pem).unwrap()];
    let wanted = ServerName::try_from(name).unwrap();
    assert!(client(name).check(&shown, &wanted).is_ok());
    assert!(client("other.example").check(&shown, &wanted).is_err());
    assert!(client(name).check(&[], &wanted).is_err());

    // A reload with a fault leaves the profile as it is, and names it.
    assert!(tls.files().contains(&pair.0));
    own.write("edge.key", "no key");
    let faults: Vec<_> = tls
        .reload()
        .into_iter()
        .filter(|one| one.result.is_err())
        .map(|one| one.section)
        .collect();
    assert_eq!(faults, ["relay.tls-profiles.carrier"]);
    let listed = tls.list();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].fault.as_ref().unwrap().contains("edge.key"));
    assert!(client(name).certificate.is_some());
}
