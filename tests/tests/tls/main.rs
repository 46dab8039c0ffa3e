//! SIP over TLS, with OpenSSL's client and Kamailio as peers.

#![forbid(unsafe_code)]

mod commands;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use portcullis_testkit::browser::Browser;
use portcullis_testkit::callee::Callee;
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::guests;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::policy;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;
use tempfile::TempDir;

/// A folder with an authority `ca` and certificates for `edge.example` and its addresses.
fn office(addresses: &[SocketAddr]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    authority(folder.path(), "ca");
    let ips = addresses.iter().map(|addr| format!(",IP:{}", addr.ip()));
    let names = format!("DNS:edge.example{}", ips.collect::<String>());
    certificate(folder.path(), "edge", &names);
    folder
}

/// A host that relays every request, with a TLS listener on port 5061.
fn host(folder: &Path, change: impl FnOnce(Builder) -> Builder) -> Host {
    let builder = Builder::new().policy(policy("observe"));
    let listen = format!("tls:{}", builder.lease().addr(1, 5061));
    let builder = profile(builder.listen(&listen), folder, "edge");
    change(builder).start()
}

fn profile(builder: Builder, folder: &Path, name: &str) -> Builder {
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    builder
        .set(
            &format!("tls.{name}"),
            &format!("certificate = {:?}", file("pem")),
        )
        .set(&format!("tls.{name}"), &format!("key = {:?}", file("key")))
}

/// What a client of OpenSSL says of a handshake: the certificate that it got, the version, the error.
fn handshake(to: SocketAddr, folder: &Path, words: &str) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &to.to_string(), "-CAfile", "ca.pem"])
        .args(words.split_whitespace())
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    let both = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// A client of OpenSSL that sends and receives what a test says.
struct Client {
    child: Child,
    heard: Receiver<Vec<u8>>,
    text: String,
}

impl Client {
    fn connect(to: SocketAddr, folder: &Path, words: &str) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &to.to_string()])
            .args(["-CAfile", "ca.pem"])
            .args(words.split_whitespace())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl is installed");
        let mut out = child.stdout.take().expect("its output is read");
        let (sender, heard) = channel();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = out.read(&mut chunk) {
                if sender.send(chunk[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            heard,
            text: String::new(),
        }
    }

    fn say(&mut self, text: &str) {
        let input = self.child.stdin.as_mut().expect("its input is written");
        input.write_all(text.as_bytes()).expect("it takes input");
    }

    /// Waits until it has received this.
    fn hears(&mut self, wanted: &str) -> &str {
        while !self.text.contains(wanted) {
            let more = self.heard.recv_timeout(wait::PATIENCE);
            let more = more.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.text));
            self.text.push_str(&String::from_utf8_lossy(&more));
        }
        &self.text
    }

    /// Waits until the host has closed the connection.
    fn ends(&mut self) {
        wait::until("the connection is closed", || {
            let ended = self.child.try_wait().expect("the child can be asked");
            ended.map(drop)
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn options(uri: &str, via: &str, number: u32) -> String {
    format!(
        "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/TLS {via};branch=z9hG4bK-tls-{number};rport\r\nMax-Forwards: 70\r\n\
         From: <sip:ada@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: tls-{number}\r\nCSeq: 1 OPTIONS\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

fn handshakes(host: &Host, direction: &str, result: &str) -> f64 {
    let labels = [
        format!("direction=\"{direction}\""),
        format!("result=\"{result}\""),
    ];
    let labels = labels.each_ref().map(String::as_str);
    host.metric("portcullis_tls_handshakes_total", &labels)
}

#[test]
fn openssl_gets_the_certificate_of_its_name_and_speaks_sip() {
    let folder = office(&[]);
    certificate(folder.path(), "other", "DNS:*.other.example");
    let host = host(folder.path(), |builder| {
        let builder = builder.set("tls.edge", "default = true");
        profile(builder, folder.path(), "other")
    });
    let tls = host.lease().addr(1, 5061);
    for (name, subject) in [
        ("edge.example", "CN = edge"),
        ("a.other.example", "CN = other"),
        ("a.b.other.example", "CN = edge"),
        ("unknown.example", "CN = edge"),
    ] {
        let said = handshake(tls, folder.path(), &format!("-servername {name}"));
        assert!(
            said.contains(&format!("subject={subject}")),
            "{name}: {said}"
        );
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
    }
    let said = handshake(tls, folder.path(), "-noservername -alpn sip/2");
    assert!(said.contains("subject=CN = edge"), "{said}");
    assert!(said.contains("ALPN protocol: sip/2"), "{said}");
    let said = handshake(tls, folder.path(), "-tls1_2");
    assert!(said.contains("Protocol  : TLSv1.2"), "{said}");
    let said = handshake(tls, folder.path(), "-tls1_1 -cipher DEFAULT@SECLEVEL=0");
    assert!(
        !said.contains("Verify return code: 0 (ok)") || said.contains("alert"),
        "{said}"
    );

    // A session is resumed, also after a reload.
    handshake(tls, folder.path(), "-tls1_2 -sess_out session");
    host.run("tls reload");
    let said = handshake(tls, folder.path(), "-tls1_2 -sess_in session");
    assert!(said.contains("Reused, TLSv1.2"), "{said}");
    assert!(handshakes(&host, "accepted", "resumed") >= 1.0);

    let mut client = Client::connect(tls, folder.path(), "-servername edge.example");
    client.say(&options(&format!("sip:{tls}"), "client.invalid:5061", 1));
    let said = client.hears("Content-Length: 0\r\n\r\n");
    assert!(said.starts_with("SIP/2.0 200"), "{said}");
    assert!(
        said.contains("Via: SIP/2.0/TLS client.invalid:5061"),
        "{said}"
    );
    client.say("\r\n\r\n");
    client.hears("\r\n\r\n\r\n");
    // The length of the next message cannot be found: an answer, and the end.
    client.say("NONSENSE\r\n\r\n");
    client.ends();
    assert!(handshakes(&host, "accepted", "tls1.3") >= 5.0);
    assert!(handshakes(&host, "accepted", "protocol") >= 1.0);
}

#[test]
fn a_client_without_a_good_certificate_is_refused_where_one_is_required() {
    let folder = office(&[]);
    certificate(folder.path(), "carrier", "URI:sip:carrier.example");
    let stranger = office(&[]);
    let host = host(folder.path(), |builder| {
        builder.set("tls.edge", "client-auth = \"required\"").set(
            "tls.edge",
            &format!("client-ca = {:?}", folder.path().join("ca.pem")),
        )
    });
    let tls = host.lease().addr(1, 5061);
    let mut client = Client::connect(tls, folder.path(), "-cert carrier.pem -key carrier.key");
    client.say(&options(&format!("sip:{tls}"), "carrier.example", 1));
    assert!(client.hears("\r\n\r\n").starts_with("SIP/2.0 200"));
    drop(client);
    let mut client = Client::connect(tls, folder.path(), "");
    client.ends();
    wait::until("the refusal is counted", || {
        (handshakes(&host, "accepted", "no_certificate") == 1.0).then_some(())
    });
    let mut client = Client::connect(tls, stranger.path(), "-cert edge.pem -key edge.key");
    client.ends();
    wait::until("the refusal is counted", || {
        (handshakes(&host, "accepted", "bad_certificate") == 1.0).then_some(())
    });
}

#[test]
fn what_is_no_tls_disturbs_nobody() {
    let folder = office(&[]);
    let host = host(folder.path(), |builder| {
        builder
            .set("streams", "handshake = \"500ms\"")
            .set("streams", "handshakes-per-second = 0")
            .set("streams", "handshakes-per-address = 20")
    });
    let tls = host.lease().addr(1, 5061);
    let mut plain = TcpStream::connect(tls).expect("the system takes the connection");
    plain
        .write_all(options(&format!("sip:{tls}"), "plain.invalid", 1).as_bytes())
        .expect("the connection takes bytes");
    let mut answer = Vec::new();
    let _reset = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"SIP/2.0"), "{answer:?}");
    wait::until("garbage is counted", || {
        (handshakes(&host, "accepted", "protocol") >= 1.0).then_some(())
    });
    // A ClientHello that is cut off, connections that say nothing, and connections beyond the bound.
    let mut cut = TcpStream::connect(tls).expect("the system takes the connection");
    cut.write_all(b"\x16\x03\x01\x02\x00\x01\x00")
        .expect("bytes");
    drop(cut);
    wait::until("the end is counted", || {
        (handshakes(&host, "accepted", "closed") >= 1.0).then_some(())
    });
    let silent: Vec<_> = (0..40).map(|_| TcpStream::connect(tls)).collect();
    wait::until("the bound is counted", || {
        (handshakes(&host, "accepted", "limited") >= 20.0).then_some(())
    });
    let mut caller = host.udp(9);
    let request = caller.request("OPTIONS", &format!("sip:{}", host.sip()));
    assert_eq!(caller.ask(&request).code(), 200);
    wait::until("the limit of time is counted", || {
        (handshakes(&host, "accepted", "timeout") >= 20.0).then_some(())
    });
    drop(silent);
    let said = handshake(tls, folder.path(), "-servername edge.example");
    assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
}

#[test]
fn certificates_are_replaced_when_their_files_change_and_kept_when_these_are_wrong() {
    let folder = office(&[]);
    let host = host(folder.path(), |builder| builder);
    let tls = host.lease().addr(1, 5061);
    let fingerprint = || {
        let said = handshake(tls, folder.path(), "-servername edge.example");
        let start = said.find("-----BEGIN CERTIFICATE-----");
        let mut parts = said[start.expect("a certificate")..].split("-----END");
        parts.next().map(str::to_owned)
    };
    let before = fingerprint();
    certificate(folder.path(), "next", "DNS:edge.example");
    // A certificate without its key.
    fs::copy(
        folder.path().join("next.pem"),
        folder.path().join("edge.pem"),
    )
    .expect("a copy");
    host.wait_for_log("event=\"tls_certificate_refused\"");
    assert!(
        host.log()
            .contains("does not belong to the first certificate")
    );
    assert_eq!(fingerprint(), before);
    let said = host.run("tls list");
    assert!(said.contains("does not belong"), "{said}");
    let reload = host.command("tls reload");
    assert!(!reload.status.success());
    fs::copy(
        folder.path().join("next.key"),
        folder.path().join("edge.key"),
    )
    .expect("a copy");
    host.wait_for_log("event=\"tls_certificate_loaded\"");
    assert_ne!(fingerprint(), before);
    let said = host.run("tls list");
    assert!(
        said.contains("edge.example") && !said.contains("does not belong"),
        "{said}"
    );
    let until = host.metric(
        "portcullis_tls_certificate_not_after_timestamp_seconds",
        &["section=\"tls.edge\""],
    );
    assert!(until > 1.7e9, "{until}");
}

const KAMAILIO: &str = r#"#!KAMAILIO
debug=2
log_stderror=yes
children=1
tcp_children=1
enable_tls=yes
auto_aliases=no
listen=udp:@UDP@
listen=tls:@TLS@
loadmodule "tls.so"
loadmodule "ctl.so"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
modparam("ctl", "binrpc", "unix:@FOLDER@/ctl")
modparam("tls", "certificate", "@CERTS@/kamailio.pem")
modparam("tls", "private_key", "@CERTS@/kamailio.key")
modparam("tls", "ca_list", "@CERTS@/ca.pem")
modparam("tls", "verify_certificate", 1)
modparam("tls", "require_certificate", 1)
modparam("tls", "tls_method", "TLSv1.2+")
request_route {
    if ($proto == "tls") {
        sl_send_reply("200", "Over TLS");
        exit;
    }
    $du = "sip:@US@;transport=tls";
    t_relay();
}
"#;

#[test]
fn peers_kamailio_is_reached_over_tls_and_reaches_the_host() {
    let builder = Builder::new().policy(policy("observe"));
    let lease = builder.lease();
    let (us, theirs) = (lease.addr(1, 5061), lease.addr(2, 5061));
    let kamailio_udp = lease.addr(2, 5060);
    let folder = office(&[us]);
    let names = format!("IP:{},DNS:kamailio.example", theirs.ip());
    certificate(folder.path(), "kamailio", &names);
    let file = |name: &str| format!("{:?}", folder.path().join(name));
    let builder = profile(builder.listen(&format!("tls:{us}")), folder.path(), "edge")
        .set("tls.edge", "client-auth = \"required\"")
        .set("tls.edge", &format!("client-ca = {}", file("ca.pem")))
        .set(
            "relay",
            &format!("next-hop = \"sip:{theirs};transport=tls\""),
        )
        .set("relay.tls", &format!("ca = {}", file("ca.pem")))
        .set("relay.tls", &format!("certificate = {}", file("edge.pem")))
        .set("relay.tls", &format!("key = {}", file("edge.key")));
    let host = builder.start();
    let values = [
        ("UDP", kamailio_udp.to_string()),
        ("TLS", theirs.to_string()),
        ("US", us.to_string()),
        ("CERTS", folder.path().display().to_string()),
    ];
    let kamailio = Kamailio::start(KAMAILIO, &values, &[]);

    // A datagram goes out over TLS, several over one connection.
    let mut caller = host.udp(9);
    for _ in 0..3 {
        let request = caller.request("OPTIONS", "sip:bob@example.com");
        let answer = caller.ask(&request);
        assert_eq!(answer.start_line(), "SIP/2.0 200 Over TLS");
    }
    assert_eq!(handshakes(&host, "opened", "tls1.3"), 1.0, "{}", host.log());
    // The scheme demands what the next hop has.
    let request = caller.request("OPTIONS", "sips:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 200);

    // And the other way: Kamailio shows its certificate and verifies ours.
    let mut caller = Caller::udp(host.lease().ip(10), kamailio_udp);
    let request = caller.request("OPTIONS", &format!("sip:{us};transport=tls"));
    let answer = caller.ask(&request);
    assert_eq!(answer.code(), 200, "{}", kamailio.log());
    let accepted =
        handshakes(&host, "accepted", "tls1.3") + handshakes(&host, "accepted", "tls1.2");
    assert_eq!(accepted, 1.0);
}

#[test]
fn a_next_hop_with_another_name_gets_nothing() {
    let folder = office(&[]);
    let other = office(&[]);
    let far = host(other.path(), |builder| builder);
    let there = far.lease().addr(1, 5061);
    let host = host(folder.path(), |builder| {
        let trust = format!("ca = {:?}", other.path().join("ca.pem"));
        builder
            .set("relay", &format!("next-hop = \"sips:{there}\""))
            .set("relay.tls", &trust)
    });
    let mut caller = host.udp(9);
    // The certificate has a name, and no address.
    let request = caller.request("OPTIONS", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 500);
    assert_eq!(handshakes(&host, "opened", "bad_certificate"), 1.0);
    host.wait_for_log("not valid for");
}

#[test]
fn sips_is_not_relayed_without_tls() {
    let folder = office(&[]);
    let host = host(folder.path(), |builder| {
        let plain = format!("next-hop = \"sip:{}\"", builder.lease().addr(2, 5060));
        builder.set("relay", &plain)
    });
    let mut caller = host.udp(9);
    let request = caller.request("OPTIONS", "sips:bob@example.com");
    assert_eq!(caller.ask(&request).code(), 480);
}

#[test]
fn a_request_within_a_dialog_comes_back_over_the_connection_of_the_caller() {
    let folder = office(&[]);
    let host = host(folder.path(), |builder| {
        let hop = builder.lease().addr(2, 5060);
        builder.set("relay", &format!("next-hop = \"sip:{hop}\""))
    });
    let tls = host.lease().addr(1, 5061);
    let callee = Callee::start(host.lease().addr(2, 5060));
    let mut client = Client::connect(tls, folder.path(), "");
    client.say(
        "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/TLS client.invalid;branch=z9hG4bK-call\r\nMax-Forwards: 70\r\n\
         From: <sip:ada@example.com>;tag=caller\r\nTo: <sip:bob@example.com>\r\nCall-ID: tls-call\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:ada@client.invalid;transport=tls>\r\nContent-Length: 0\r\n\r\n",
    );
    client.hears("SIP/2.0 200");
    let invite = callee.next();
    let routes = invite.headers("Record-Route");
    // One value for each side.
    assert_eq!(routes.len(), 2, "{routes:?}");
    assert!(routes[0].contains(&host.sip().to_string()) && !routes[0].contains("transport"));
    assert!(
        routes[1].contains(&format!("{tls};transport=tls")),
        "{routes:?}"
    );
    let routes = routes.iter().map(|value| format!("Route: {value}\r\n"));
    let bye = format!(
        "BYE sip:ada@client.invalid;transport=tls SIP/2.0\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK-bye\r\n{}Max-Forwards: 70\r\n\
         From: <sip:bob@example.com>;tag=callee\r\nTo: <sip:ada@example.com>;tag=caller\r\nCall-ID: tls-call\r\n\
         CSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
        callee.addr(),
        routes.collect::<String>(),
    );
    let mut other = host.udp(2);
    other.send(bye.as_bytes());
    let heard = client.hears("BYE sip:ada@client.invalid;transport=tls SIP/2.0");
    assert!(
        heard.contains(&format!("Via: SIP/2.0/TLS {tls};branch=")),
        "{heard}"
    );
}

/// A server in front of a callee, whose certificate names its address. `demands`: it wants a certificate of its own authority.
fn server(office: &Path, name: &str, demands: bool) -> (Host, Callee) {
    let builder = Builder::new().policy(policy("observe"));
    let tls = builder.lease().addr(1, 5061);
    certificate(office, name, &format!("IP:{}", tls.ip()));
    let callee = Callee::start(builder.lease().addr(2, 5080));
    let hop = format!("next-hop = \"sip:{}\"", callee.addr());
    let builder = builder.listen(&format!("tls:{tls}")).set("relay", &hop);
    let section = format!("tls.{name}");
    // Nobody asks for an address by name.
    let builder = profile(builder, office, name).set(&section, "default = true");
    let builder = match demands {
        false => builder,
        true => builder.set(&section, "client-auth = \"required\"").set(
            &section,
            &format!("client-ca = {:?}", office.join("ca.pem")),
        ),
    };
    (builder.start(), callee)
}

#[test]
fn each_host_gets_the_certificate_of_its_profile_and_is_verified_by_its_authorities() {
    let (ours, carriers) = (office(&[]), office(&[]));
    let (plain, first) = server(ours.path(), "plain", false);
    let (carrier, second) = server(carriers.path(), "carrier", true);
    certificate(carriers.path(), "customer", "DNS:customer.example");
    let at = |host: &Host| host.lease().addr(1, 5061);
    let file = |name: &str| format!("{:?}", carriers.path().join(name));
    let domains = format!(
        "domains = [\"{}\", \"{}\"]",
        at(&plain).ip(),
        at(&carrier).ip()
    );
    let start = |has_profile: bool| {
        host(ours.path(), |builder| {
            let trust = format!("ca = {:?}", ours.path().join("ca.pem"));
            let builder = builder.set("relay", &domains).set("relay.tls", &trust);
            if !has_profile {
                return builder;
            }
            let section = "relay.tls-profiles.carrier";
            builder
                .set(section, &format!("hosts = [\"{}\"]", at(&carrier).ip()))
                .set(section, &format!("ca = {}", file("ca.pem")))
                .set(section, &format!("certificate = {}", file("customer.pem")))
                .set(section, &format!("key = {}", file("customer.key")))
        })
    };
    let ask = |host: &Host, to: SocketAddr| {
        let mut caller = host.udp(9);
        let request = caller.request("MESSAGE", "sip:bob@example.com");
        caller.ask(&request.header(&format!("Route: <sip:{to};transport=tls;lr>")))
    };
    let host = start(true);
    assert_eq!(ask(&host, at(&plain)).code(), 200, "{}", host.log());
    first.next();
    assert_eq!(ask(&host, at(&carrier)).code(), 200, "{}", host.log());
    second.next();
    assert_eq!(handshakes(&host, "opened", "tls1.3"), 2.0);
    // The carrier knows who has connected; the other server has asked for no certificate.
    let said = carrier.run("tls connections --json");
    assert!(said.contains("\"peer\":\"customer.example\""), "{said}");
    let said = host.run("tls list");
    assert!(said.contains("[relay.tls-profiles.carrier]"), "{said}");

    // A fault in the files of one profile leaves all of them as they are, and is named.
    fs::write(carriers.path().join("customer.key"), "").expect("a file can be written");
    let reload = host.command("tls reload");
    let error = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(
        error.contains("[relay.tls-profiles.carrier]") && error.contains("no private key"),
        "{error}"
    );
    assert_eq!(ask(&host, at(&carrier)).code(), 200);

    // Without the profile, the carrier's authority is unknown.
    let other = start(false);
    assert_eq!(ask(&other, at(&plain)).code(), 200);
    assert_eq!(ask(&other, at(&carrier)).code(), 500);
    assert_eq!(handshakes(&other, "opened", "bad_certificate"), 1.0);
}

/// Refuses each request with the common name of the peer's certificate as the reason, if it has been verified.
const NAMING: &str = r#"(module
    (import "portcullis:policy/peer@0.1.0" "common-name" (func $name (param i32)))
    (memory (export "memory") 1)
    (global $heap (mut i32) (i32.const 4096))
    (data (i32.const 16) "\01\00\00\00" "\93\01\00\00")
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $heap (i32.add (global.get $heap) (local.get 3)))
      (i32.sub (global.get $heap) (local.get 3)))
    (func (export "decide") (result i32)
      (call $name (i32.const 512))
      (if (i32.load8_u (i32.const 512)) (then
        (i32.store (i32.const 24) (i32.load (i32.const 516)))
        (i32.store (i32.const 28) (i32.load (i32.const 520)))))
      i32.const 16))"#;

#[test]
fn a_policy_sees_the_verified_peer_of_a_connection() {
    let folder = office(&[]);
    certificate(folder.path(), "carrier", "URI:sip:carrier.example");
    let naming = folder.path().join("naming.wasm");
    fs::write(&naming, guests::module(NAMING)).expect("a file can be written");
    let host = host(folder.path(), |builder| {
        let authorities = format!("client-ca = {:?}", folder.path().join("ca.pem"));
        builder
            .policy(naming.clone())
            .set("tls.edge", "client-auth = \"optional\"")
            .set("tls.edge", &authorities)
    });
    let tls = host.lease().addr(1, 5061);
    for (words, answer) in [
        (
            "-cert carrier.pem -key carrier.key",
            "SIP/2.0 403 carrier\r\n",
        ),
        ("", "SIP/2.0 403 Forbidden\r\n"),
    ] {
        let mut client = Client::connect(tls, folder.path(), words);
        client.say(&options("sip:bob@example.com", "carrier.example", 1));
        assert!(client.hears("\r\n\r\n").starts_with(answer), "{words}");
    }
    let mut caller = host.udp(9);
    let request = caller.request("OPTIONS", "sip:bob@example.com");
    assert_eq!(caller.ask(&request).start_line(), "SIP/2.0 403 Forbidden");
}

#[test]
fn a_trusted_row_is_for_the_transport_that_it_names() {
    let folder = office(&[]);
    let builder = Builder::new();
    let callee = Callee::start(builder.lease().addr(2, 5060));
    let (tls, ws) = (builder.lease().addr(1, 5061), builder.lease().addr(1, 8088));
    let builder = builder
        .policy(policy("trusted-peers"))
        .listen(&format!("tls:{tls}"))
        .listen(&format!("ws:{ws}"))
        .set("relay", &format!("next-hop = \"sip:{}\"", callee.addr()));
    let host = profile(builder, folder.path(), "edge").start();
    let (browsers, others) = (host.lease().ip(10), host.lease().ip(11));
    // OpenSSL's client has the first loopback address.
    host.run("trusted add 127.0.0.1 tls");
    host.run(&format!("trusted add {browsers} ws"));
    host.run(&format!("trusted add {others} wss"));
    host.run("trusted reload");

    let mut client = Client::connect(tls, folder.path(), "");
    client.say(&options("sip:bob@example.com", "carrier.example", 1));
    assert!(client.hears("\r\n\r\n").starts_with("SIP/2.0 200"));
    let first = "127.0.0.1".parse().expect("an address");
    let mut same_address = Caller::udp(first, host.sip());
    let request = same_address.request("OPTIONS", "sip:bob@example.com");
    let refused = "SIP/2.0 403 Peer not trusted";
    assert_eq!(same_address.ask(&request).start_line(), refused);

    for (source, code) in [(browsers, 200), (others, 403)] {
        let mut browser = Browser::connect(source, ws);
        let request = browser.request("OPTIONS", "sip:bob@example.com");
        assert_eq!(browser.ask(&request).code(), code, "{source}");
        let mut tcp = Caller::tcp(source, host.sip());
        let request = tcp.request("OPTIONS", "sip:bob@example.com");
        assert_eq!(tcp.ask(&request).start_line(), refused);
    }
}
