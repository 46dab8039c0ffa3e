//! Peers over TLS: connections that belong to those who have opened them (RFC 5923), certificates of clients that have been revoked, and
//! Kamailio's command that reads certificates again.

#![forbid(unsafe_code)]

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use portcullis_testkit::browser::connect;
use portcullis_testkit::certificates::{authority, certificate, revocations};
use portcullis_testkit::control::{binrpc_endpoints, kamcmd, open_all};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::secure::Line;
use portcullis_testkit::{policy, wait};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

const CALLER: u8 = 10;
const PEER: u8 = 20;
const NAME: &str = "edge.example";

/// A folder with an authority and the certificate of the host.
fn office() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    certificate(folder.path(), "edge", &format!("DNS:{NAME}"));
    folder
}

/// The value of a key that names a file.
fn file(folder: &Path, key: &str, name: &str) -> String {
    format!("{key} = {:?}", folder.join(name))
}

/// A host that relays every request, with a listener on TLS.
fn listening(builder: Builder, folder: &Path) -> Builder {
    let listen = format!("tls:{}", builder.lease().addr(1, 5061));
    builder
        .policy(policy("observe"))
        .listen(&listen)
        .set("tls.edge", &file(folder, "certificate", "edge.pem"))
        .set("tls.edge", &file(folder, "key", "edge.key"))
}

fn handshakes(host: &Host, direction: &str, result: &str) -> f64 {
    let labels = [
        format!("direction=\"{direction}\""),
        format!("result=\"{result}\""),
    ];
    let labels = labels.each_ref().map(String::as_str);
    host.metric("portcullis_tls_handshakes_total", &labels)
}

fn options(to: SocketAddr, number: u32) -> String {
    format!(
        "OPTIONS sip:{to} SIP/2.0\r\nVia: SIP/2.0/TLS peer.invalid;branch=z9hG4bK-peer-{number};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: peer-{number}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// A connection from exactly this address and port.
fn connect_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket =
        Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a TCP socket can be made");
    socket.bind(&from.into()).expect("the address is free");
    socket
        .connect_timeout(&to.into(), wait::PATIENCE)
        .expect("the host accepts TCP");
    socket.into()
}

/// Whoever connects from the address of a next hop gets the answers to its own requests, and none of the requests for that next hop: its port
/// may belong to somebody else now.
#[test]
fn a_connection_that_a_peer_has_opened_carries_no_requests_for_its_address() {
    let folder = office();
    let builder = Builder::new();
    let peer = builder.lease().addr(PEER, 5061);
    let host = listening(builder, folder.path())
        .set("relay", &format!("next-hop = \"sips:{peer}\""))
        .set("relay.tls", &file(folder.path(), "ca", "ca.pem"))
        .start();
    let tls = host.lease().addr(1, 5061);
    let mut line = Line::secure(connect_from(peer, tls), folder.path(), NAME, &[]);
    let ask = |line: &mut Line, number| {
        let said = line.ask(&options(tls, number), "\r\n\r\n");
        let call = format!("Call-ID: peer-{number}\r\n");
        assert!(
            said.starts_with("SIP/2.0 200 ") && said.contains(&call),
            "{said}"
        );
    };
    ask(&mut line, 1);

    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 500, "nobody listens there");
    let failed = host.metric("portcullis_connect_errors_total", &[]);
    assert!(failed >= 1.0, "the host tried a connection of its own");
    // The next message over the connection is the answer to the next request.
    ask(&mut line, 2);
}

/// Connects once as OpenSSL's client with this certificate, and ends the connection.
fn knock(tls: SocketAddr, folder: &Path, certificate: &str) {
    let status = Command::new("openssl")
        .args([
            "s_client",
            "-connect",
            &tls.to_string(),
            "-CAfile",
            "ca.pem",
        ])
        .args(["-cert", &format!("{certificate}.pem")])
        .args(["-key", &format!("{certificate}.key")])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // What it makes of the end of the connection does not matter.
    let _known_by_the_host = status.expect("openssl is installed");
}

#[test]
fn a_client_is_refused_as_soon_as_its_certificate_is_on_the_list() {
    let folder = office();
    for name in ["carrier", "other"] {
        certificate(folder.path(), name, &format!("URI:sip:{name}.example"));
    }
    revocations(folder.path(), &[]);
    let host = listening(Builder::new(), folder.path())
        .set("tls.edge", "client-auth = \"required\"")
        .set("tls.edge", &file(folder.path(), "client-ca", "ca.pem"))
        .set("tls.edge", &file(folder.path(), "crl", "crl.pem"))
        .start();
    let tls = host.lease().addr(1, 5061);
    let counts =
        || ["tls1.3", "bad_certificate"].map(|result| handshakes(&host, "accepted", result));
    let becomes = |expected: [f64; 2]| {
        wait::until(&format!("the handshakes are {expected:?}"), || {
            (counts() == expected).then_some(())
        });
    };
    knock(tls, folder.path(), "carrier");
    becomes([1.0, 0.0]);

    revocations(folder.path(), &["carrier"]);
    host.run("tls reload");
    knock(tls, folder.path(), "carrier");
    becomes([1.0, 1.0]);
    knock(tls, folder.path(), "other");
    becomes([2.0, 1.0]);

    // A list that cannot be read leaves the previous one in use.
    fs::write(folder.path().join("crl.pem"), "no list").expect("a file can be written");
    let said = host.refused("tls reload");
    assert!(
        said.contains("[tls.edge]") && said.contains("contains no revocation list"),
        "{said}"
    );
    knock(tls, folder.path(), "carrier");
    becomes([2.0, 2.0]);
}

#[test]
fn peers_kamcmd_reads_certificates_again_and_keeps_them_after_a_fault() {
    let folder = office();
    certificate(folder.path(), "next", &format!("DNS:{NAME}"));
    let host = listening(open_all(Builder::new()), folder.path()).start();
    let tls = host.lease().addr(1, 5061);
    let endpoint = &binrpc_endpoints(&host)[0];
    let reload = || kamcmd(&host, endpoint, &["tls.reload"]);
    let shown = || {
        let stream = connect(host.lease().ip(PEER), tls);
        match Line::secure(stream, folder.path(), NAME, &[]) {
            Line::Secure(stream) => stream.conn.peer_certificates().map(<[_]>::to_vec),
            Line::Plain(_) => None,
        }
    };
    let copy = |from: &str, to: &str| {
        fs::copy(folder.path().join(from), folder.path().join(to)).expect("a copy");
    };
    let before = shown();
    assert!(before.is_some());
    copy("next.pem", "edge.pem");
    assert_eq!(
        reload(),
        "error: 500 - Error while fixing TLS configuration\n"
    );
    host.wait_for_log("does not belong to the first certificate");
    assert_eq!(shown(), before);
    copy("next.key", "edge.key");
    assert_eq!(reload(), "Ok. TLS configuration reloaded.\n");
    assert!(shown().is_some_and(|after| Some(after) != before));
}

/// Certificates of tests are valid for two days. Without a certificate of its own, a section that cannot be read again is named as well.
#[test]
fn certificates_that_expire_and_files_that_are_refused_are_alerts() {
    let folder = office();
    let host = listening(Builder::new(), folder.path())
        .set("relay.tls", &file(folder.path(), "ca", "authorities.pem"));
    fs::copy(
        folder.path().join("ca.pem"),
        folder.path().join("authorities.pem"),
    )
    .expect("a copy");
    let host = host.start();
    let said = host.run("alert list");
    assert!(
        said.contains("certificate-expires")
            && said.contains("[tls.edge]: the certificate expires at"),
        "{said}"
    );
    assert!(!said.contains("certificate-refused"), "{said}");

    fs::write(folder.path().join("authorities.pem"), "").expect("a file can be written");
    let error = host.refused("tls reload");
    assert!(error.contains("[relay.tls]"), "{error}");
    for words in ["alert list", "status"] {
        let said = host.run(words);
        let expected = "[relay.tls]: new TLS files refused, the previous ones stay in use";
        assert!(said.contains(expected), "{words}: {said}");
    }
    fs::copy(
        folder.path().join("ca.pem"),
        folder.path().join("authorities.pem"),
    )
    .expect("a copy");
    host.run("tls reload");
    assert!(!host.run("alert list").contains("certificate-refused"));
}
