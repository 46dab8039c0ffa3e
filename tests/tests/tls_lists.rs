//! Revocation lists: a next hop whose certificate has been revoked gets nothing, and a client whose certificate has been revoked cannot connect.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::Path;

use portcullis_testkit::callee::Callee;
use portcullis_testkit::certificates::{authority, certificate, expired_revocations, revocations};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::policy;
use portcullis_testkit::wait;
use serde_json::Value;

/// Listens for TLS with the certificate of this name.
fn listen(builder: Builder, tls: SocketAddr, folder: &Path, name: &str) -> Builder {
    let section = format!("tls.{name}");
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    builder
        .policy(policy("observe"))
        .listen(&format!("tls:{tls}"))
        .set(&section, &format!("certificate = {:?}", file("pem")))
        .set(&section, &format!("key = {:?}", file("key")))
}

fn ask(host: &Host) -> u16 {
    let mut caller = host.udp(9);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.ask(&request).code()
}

#[test]
fn a_next_hop_is_refused_as_soon_as_its_certificate_is_on_the_list() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let folder = folder.path();
    authority(folder, "ca");
    let builder = Builder::new();
    let (there, callee) = (builder.lease().addr(1, 5061), builder.lease().addr(2, 5080));
    certificate(folder, "far", &format!("IP:{},DNS:far.example", there.ip()));
    certificate(folder, "edge", "DNS:edge.example");
    revocations(folder, &[]);
    let callee = Callee::start(callee);
    let hop = format!("next-hop = \"sip:{}\"", callee.addr());
    let _far = listen(builder, there, folder, "far")
        .set("relay", &hop)
        .start();
    let builder = Builder::new();
    let tls = builder.lease().addr(1, 5061);
    let file = |name: &str| format!("{:?}", folder.join(name));
    let host = listen(builder, tls, folder, "edge")
        .set("relay", &format!("next-hop = \"sips:{there}\""))
        .set("relay.tls", &format!("ca = {}", file("ca.pem")))
        .set("relay.tls", &format!("crl = {}", file("crl.pem")))
        .start();
    assert_eq!(ask(&host), 200, "{}", host.log());
    callee.next();
    assert!(
        host.run(&format!("probe sips:{there}"))
            .contains("verified")
    );

    revocations(folder, &["far"]);
    host.run("tls reload");
    // An open connection has the keys that it was given.
    assert_eq!(ask(&host), 200);
    callee.next();
    let open = host.run("tls connections --json");
    let open: Vec<Value> = serde_json::from_str(&open).expect("it is JSON");
    assert_eq!(open.len(), 1, "{open:?}");
    host.run(&format!("tls kill {}", open[0]["id"]));
    assert_eq!(ask(&host), 500);
    assert!(callee.saw_nothing_more());
    host.wait_for_log("has been revoked");
    let labels = ["direction=\"opened\"", "result=\"bad_certificate\""];
    let refused = host.metric("portcullis_tls_handshakes_total", &labels);
    assert_eq!(refused, 1.0);
    let said = host.refused(&format!("probe sips:{there}"));
    assert!(said.contains("has been revoked"), "{said}");

    // A list that cannot be read leaves the previous one in use.
    std::fs::write(folder.join("crl.pem"), "no list").expect("a file can be written");
    let said = host.refused("tls reload");
    assert!(
        said.contains("[relay.tls]") && said.contains("contains no revocation list"),
        "{said}"
    );
    assert_eq!(ask(&host), 500);
    // A host does not start with it.
    let check = host.command("check");
    assert!(!check.status.success());
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("contains no revocation list"), "{said}");
}

/// A list that nobody has renewed still refuses what is on it, on both sides.
#[test]
fn a_list_counts_beyond_its_time() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let folder = folder.path();
    authority(folder, "ca");
    let builder = Builder::new();
    let (there, callee) = (builder.lease().addr(1, 5061), builder.lease().addr(2, 5080));
    certificate(folder, "far", &format!("IP:{},DNS:far.example", there.ip()));
    certificate(folder, "edge", "DNS:edge.example");
    expired_revocations(folder, &["far"]);
    let callee = Callee::start(callee);
    let file = |name: &str| format!("{:?}", folder.join(name));
    let far = listen(builder, there, folder, "far")
        .set("tls.far", "client-auth = \"required\"")
        .set("tls.far", &format!("client-ca = {}", file("ca.pem")))
        .set("tls.far", &format!("crl = {}", file("crl.pem")))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()))
        .start();
    let builder = Builder::new();
    let tls = builder.lease().addr(1, 5061);
    let host = listen(builder, tls, folder, "edge")
        .set("relay", &format!("next-hop = \"sips:{there}\""))
        .set("relay.tls", &format!("ca = {}", file("ca.pem")))
        .set("relay.tls", &format!("crl = {}", file("crl.pem")))
        .set("relay.tls", &format!("certificate = {}", file("edge.pem")))
        .set("relay.tls", &format!("key = {}", file("edge.key")))
        .start();
    for (host, section) in [(&far, "tls.far"), (&host, "relay.tls")] {
        host.wait_for_log("tls_list_outdated");
        assert!(host.log().contains(section), "{}", host.log());
    }
    assert_eq!(ask(&host), 500);
    host.wait_for_log("has been revoked");
    let said = host.refused(&format!("probe sips:{there}"));
    assert!(said.contains("has been revoked"), "{said}");

    // Now the client is the one that was revoked.
    expired_revocations(folder, &["edge"]);
    host.run("tls reload");
    far.run("tls reload");
    let refused = || {
        let labels = ["direction=\"accepted\"", "result=\"bad_certificate\""];
        far.metric("portcullis_tls_handshakes_total", &labels)
    };
    let before = refused();
    let mut caller = host.udp(9);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.send(&request.bytes());
    wait::until("the client is refused", || {
        (refused() > before).then_some(())
    });
    assert!(callee.saw_nothing_more());
}
