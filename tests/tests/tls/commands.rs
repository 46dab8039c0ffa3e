//! `probe` over TLS, and the commands about TLS connections, compared with those of Kamailio.

use std::net::SocketAddr;

use portcullis_testkit::certificates::certificate;
use portcullis_testkit::control::{self, open_all};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::{self, Kamailio};
use portcullis_testkit::policy;
use portcullis_testkit::wait;
use tempfile::TempDir;

use super::{Client, KAMAILIO, office, options, profile};

/// A host whose certificate names its own address, and its port of TLS.
fn named_host() -> (Host, SocketAddr, TempDir) {
    let builder = Builder::new().policy(policy("observe"));
    let tls = builder.lease().addr(1, 5061);
    let folder = office(&[tls]);
    let builder = builder.listen(&format!("tls:{tls}"));
    (profile(builder, folder.path(), "edge").start(), tls, folder)
}

#[test]
fn probe_shows_the_certificate_of_a_peer_and_refuses_what_the_host_would_refuse() {
    let (host, tls, folder) = named_host();
    let ca = folder.path().join("ca.pem");
    let ca = ca.display();
    for uri in [format!("sips:{tls}"), format!("sip:{tls};transport=tls")] {
        let said = host.run(&format!("probe {uri} --ca {ca}"));
        for part in [
            format!("TLS 1.3 with {tls}, TLS13_"),
            "ALPN sip/2".into(),
            "subject      CN=edge".into(),
            "issuer       CN=ca".into(),
            format!("names        edge.example, {}", tls.ip()),
            "days left".into(),
            format!("verified     for {}", tls.ip()),
            "sent over TLS from 127.0.0.1:".into(),
            "SIP/2.0 200".into(),
        ] {
            assert!(said.contains(&part), "{uri}: {part:?} is not in {said}");
        }
    }
    // The authorities of this machine have not issued it.
    let output = host.command(&format!("probe sips:{tls}"));
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("names        edge.example"), "{said}");
    assert!(!said.contains("OPTIONS"), "nothing was sent: {said}");
    assert!(
        error.contains("is refused") && error.contains("--insecure"),
        "{error}"
    );
    let said = host.run(&format!("probe sips:{tls} --insecure"));
    assert!(
        said.contains("NOT VERIFIED") && said.contains("SIP/2.0 200"),
        "{said}"
    );
    let said = host.refused(&format!("probe sips:{tls} --ca absent.pem"));
    assert!(said.contains("--ca absent.pem"), "{said}");
    let plain = host.refused(&format!("probe sip:{} --insecure", host.sip()));
    assert!(plain.contains("write sips:"), "{plain}");
    // TLS with a port that has none.
    let said = host.refused(&format!(
        "probe sip:{};transport=tls --timeout 1s",
        host.sip()
    ));
    assert!(said.contains("TLS handshake"), "{said}");
}

#[test]
fn probe_shows_a_certificate_where_one_is_required() {
    let builder = Builder::new().policy(policy("observe"));
    let tls = builder.lease().addr(1, 5061);
    let folder = office(&[tls]);
    certificate(folder.path(), "carrier", "URI:sip:carrier.example");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let host = profile(builder.listen(&format!("tls:{tls}")), folder.path(), "edge")
        .set("tls.edge", "client-auth = \"required\"")
        .set("tls.edge", &format!("client-ca = \"{}\"", file("ca.pem")))
        .start();
    let words = format!("probe sips:{tls} --ca {}", file("ca.pem"));
    let shows = format!(
        "{words} --certificate {} --key {}",
        file("carrier.pem"),
        file("carrier.key")
    );
    assert!(host.run(&shows).contains("SIP/2.0 200"));
    let said = host.refused(&words);
    assert!(
        said.contains("CertificateRequired") || said.contains("cannot"),
        "{said}"
    );
}

/// The lines of what kamcmd prints, without the values that differ from server to server or from connection to connection.
fn without_own_values(said: &str) -> Vec<String> {
    let own = ["id", "timeout", "src_port", "dst_ip"];
    let lines =
        said.lines()
            .map(str::trim_end)
            .map(|line| match line.trim_start().split_once(": ") {
                Some((name, _)) if own.contains(&name) => name.to_owned(),
                _ => line.trim_start().to_owned(),
            });
    lines.collect()
}

/// The names in what kamcmd prints, each with the kind of its value.
fn forms(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| {
        let (name, value) = line.trim_start().split_once(':')?;
        let value = value.trim_start();
        let is_number = value.parse::<i64>().is_ok();
        Some(format!(
            "{name} {}",
            if is_number { "number" } else { "text" }
        ))
    });
    lines.collect()
}

#[test]
fn peers_kamcmd_says_the_same_of_connections_on_both_servers_and_ends_one() {
    let builder = open_all(Builder::new().policy(policy("observe")));
    let lease = builder.lease();
    let (us, theirs) = (lease.addr(1, 5061), lease.addr(2, 5061));
    let kamailio_udp = lease.addr(2, 5060);
    let folder = office(&[us]);
    certificate(folder.path(), "kamailio", "DNS:kamailio.example");
    certificate(folder.path(), "carrier", "DNS:carrier.example");
    let ca = format!("client-ca = {:?}", folder.path().join("ca.pem"));
    let host = profile(builder.listen(&format!("tls:{us}")), folder.path(), "edge")
        .set("tls.edge", "client-auth = \"required\"")
        .set("tls.edge", &ca)
        .start();
    let values = [
        ("UDP", kamailio_udp.to_string()),
        ("TLS", theirs.to_string()),
        ("US", us.to_string()),
        ("CERTS", folder.path().display().to_string()),
    ];
    let kamailio = Kamailio::start(KAMAILIO, &values, &[]);
    let endpoint = &control::binrpc_endpoints(&host)[0];
    let ours = |words: &[&str]| control::kamcmd(&host, endpoint, words);
    let theirs_say = |words: &[&str]| {
        let output = kamailio::kamcmd(&kamailio.ctl(), words);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert_eq!(ours(&["tls.list"]), theirs_say(&["tls.list"]));
    for command in ["tls.info", "tls.options"] {
        let expected = forms(&theirs_say(&[command]));
        assert!(expected.len() >= 3, "{expected:?}");
        assert_eq!(forms(&ours(&[command])), expected, "{command}");
    }
    for command in ["tls.list", "tls.info", "tls.options", "tls.reload"] {
        let words = ["help", command];
        assert_eq!(ours(&words), theirs_say(&words), "{command}");
    }

    for (version, cipher) in [
        ("", "TLS_AES_256_GCM_SHA384 "),
        ("-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384 "),
    ] {
        let words = format!("-cert carrier.pem -key carrier.key {version}");
        let mut clients = [us, theirs].map(|to| {
            let mut client = Client::connect(to, folder.path(), &words);
            client.say(&options(&format!("sip:{to}"), "carrier.example", 1));
            client.hears("SIP/2.0 200");
            client
        });
        let said = ours(&["tls.list"]);
        let expected = without_own_values(&theirs_say(&["tls.list"]));
        let mut listed = without_own_values(&said);
        // Ours says whom the certificate names, too.
        let own = listed
            .iter()
            .position(|line| line == "peer: carrier.example");
        listed.remove(own.expect("the verified peer is named"));
        assert_eq!(listed, expected);
        assert!(said.contains(&format!("cipher: {cipher}")), "{said}");
        assert!(said.contains(&format!("dst_port: {}", us.port())), "{said}");

        let id = said
            .lines()
            .find_map(|line| line.trim().strip_prefix("id: "));
        let id = id.expect("the connection has an id");
        assert_eq!(
            ours(&["tls.kill", "0"]),
            "error: 404 - TLS connection id not found\n"
        );
        let wrong = ours(&["tls.kill", "s:x"]);
        assert!(wrong.contains("400 - tls.kill takes the id"), "{wrong}");
        if version.is_empty() {
            assert_eq!(ours(&["tls.kill", id]), "OK\n");
        } else {
            // The same over HTTP, and on the command line.
            let (_, text) = host.get("/v1/tls/connections").expect("the host answers");
            assert!(text.contains(&format!("\"id\":{id},")), "{text}");
            let table = host.run("tls connections");
            assert!(table.contains("carrier.example"), "{table}");
            host.run(&format!("tls kill {id}"));
            assert!(
                host.refused(&format!("tls kill {id}"))
                    .contains("not found")
            );
        }
        clients[0].ends();
        wait::until("the list is empty", || {
            ours(&["tls.list"]).is_empty().then_some(())
        });
        drop(clients);
        wait::until("Kamailio's list is empty", || {
            theirs_say(&["tls.list"]).is_empty().then_some(())
        });
    }
    // Kamailio has the command since 5.7.
    assert!(theirs_say(&["tls.kill", "1"]).contains("not found"));
}
