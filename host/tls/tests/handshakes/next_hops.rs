//! Next hops: the names, authorities and revocation lists by which their certificates are judged.

use portcullis_tls::{
    Authorities, NamedRelayProfile, Profile, RelayProfile, Settings, Tls, TlsError, explained,
};
use rcgen::{SanType, SerialNumber};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::office::{Office, dns, meet, uri};

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
    assert_eq!(tls.faults()[0].0, listed[0].section);

    // A section without a certificate of its own is not in the list, and its fault is known all the same.
    own.write("ca.pem", "no authority");
    tls.reload();
    let faults = tls.faults();
    let sections: Vec<_> = faults.iter().map(|(section, _)| section.as_str()).collect();
    assert_eq!(sections, ["relay.tls", "relay.tls-profiles.carrier"]);
    assert!(faults[0].1.contains("ca.pem"), "{faults:?}");
    assert!(client(name).certificate.is_some());
}

#[test]
fn a_next_hop_whose_certificate_was_revoked_is_refused() {
    let office = Office::new();
    for (name, number) in [("good", 76), ("bad", 77)] {
        office.issue(name, |params| {
            // Names by the rules of SIP, which the library does not know.
            params.subject_alt_names = vec![uri("sip:sip.example"), dns("host.example")];
            params.serial_number = Some(SerialNumber::from(number));
        });
    }
    let hop = ServerName::try_from("sip.example").unwrap();
    let with = |crl: &str, verify| Settings {
        relay: RelayProfile {
            crl: Some(office.path(crl)),
            verify,
            ..office.relay()
        },
        ..Settings::default()
    };
    // Nothing is revoked yet.
    office.revoke("crl.pem", 1);
    let tls = Tls::open(&with("crl.pem", true)).unwrap();
    assert!(tls.files().contains(&office.path("crl.pem")));
    let reached = |name: &str| {
        let shown = Profile {
            is_default: true,
            ..office.profile(name)
        };
        let client = tls.client(&hop).config();
        meet(&office.open(vec![shown]), &client, "sip.example").map(drop)
    };
    reached("good").unwrap();
    reached("bad").unwrap();

    office.revoke("crl.pem", 77);
    assert!(tls.reload().iter().all(|one| one.result.is_ok()));
    reached("good").unwrap();
    let error = explained(&reached("bad").unwrap_err());
    assert!(error.contains("has been revoked"), "{error}");

    // A file that is no list leaves the previous one in use.
    office.write("crl.pem", "no list");
    let results = tls.reload();
    let error = results[0].result.as_ref().unwrap_err();
    assert!(matches!(error, TlsError::NoCrl(_)), "{error}");
    assert!(reached("bad").is_err());

    // The name counts as without lists, and another authority's list says nothing.
    let other = ServerName::try_from("host.example").unwrap();
    let pem = std::fs::read(office.path("good.pem")).unwrap();
    let shown = [CertificateDer::from_pem_slice(&pem).unwrap()];
    assert!(tls.client(&hop).check(&shown, &hop).is_ok());
    assert!(tls.client(&hop).check(&shown, &other).is_err());
    let stranger = Office::new();
    let foreign = Settings {
        relay: RelayProfile {
            crl: Some(stranger.revoke("crl.pem", 76)),
            ..office.relay()
        },
        ..Settings::default()
    };
    let foreign = Tls::open(&foreign).unwrap();
    assert!(foreign.client(&hop).check(&shown, &hop).is_ok());

    let error = Tls::open(&with("missing.pem", true)).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
    // Without verification, no list is read.
    Tls::open(&with("missing.pem", false)).unwrap();
}
