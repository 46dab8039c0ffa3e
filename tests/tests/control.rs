//! The control interfaces with difficult clients: garbage, incomplete packets, floods, clients that hang or disappear. The host answers
//! after each.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use portcullis_testkit::control::{Packet, ask, connect, open_all, read_packet, request};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;
use serde_json::json;

fn start() -> Host {
    open_all(Builder::new()).row("200 10.0.0.1").start()
}

fn assert_answers(host: &Host) {
    assert!(ask(host, &["permissions.addressReload"]).says("Reload OK"));
}

#[test]
fn the_start_line_lists_the_interfaces_and_their_files_are_removed_at_the_end() {
    let mut host = start();
    let log = wait::until("the host serves", || {
        Some(host.log()).filter(|log| log.contains("event=\"serving\""))
    });
    for door in [
        " binrpc=unix:ctl ",
        " binrpc=unixd:ctld ",
        " fifo=rpc.fifo ",
        " jsonrpc=unixd:rpc.sock ",
    ] {
        assert!(log.contains(door), "{door}: {log}");
    }
    let status = host.rpc("portcullis.status", json!([]));
    assert_eq!(
        status["result"]["control"].as_array().map(Vec::len),
        Some(8)
    );
    let files = ["ctl", "ctld", "rpc.fifo", "rpc.sock"].map(|name| host.folder().join(name));
    for file in &files {
        assert_eq!(
            fs::metadata(file).expect("the door is there").mode() & 0o777,
            0o600
        );
    }
    host.signal("TERM");
    assert!(host.wait_until_ended().success());
    assert!(files.iter().all(|file| !file.exists()));
}

#[test]
fn files_of_an_ended_host_are_replaced_and_those_of_a_running_one_are_not() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let build = || {
        Builder::new()
            .set("control", &format!("binrpc = [\"unix:{}\"]", path("ctl")))
            .set("control", &format!("fifo = \"{}\"", path("fifo")))
            .set("control", "socket-mode = \"0660\"")
    };
    let mut first = build().start();
    let mut second = build().launch();
    assert!(!second.wait_until_ended().success());
    let log = second.log();
    assert!(
        log.contains("answers at ") && log.contains("change [control]"),
        "{log}"
    );
    // A crash leaves the files.
    first.signal("KILL");
    first.wait_until_ended();
    assert!(Path::new(&path("ctl")).exists() && Path::new(&path("fifo")).exists());
    let third = build().start();
    assert_eq!(
        fs::metadata(path("ctl")).expect("the door is there").mode() & 0o777,
        0o660
    );
    wait::until("the third host serves", || {
        third.log().contains("event=\"serving\"").then_some(())
    });
}

#[test]
fn a_malformed_packet_is_answered_and_the_connection_closed() {
    let host = start();
    for (bytes, said) in [
        (
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            "bad request: corrupted packet",
        ),
        (
            b"\xa1\xf0\x00\x01",
            "bad request: corrupted packet: unknown type 15",
        ),
        (
            b"\xa1\x13\x0c\x12\x34\x56\x78\x91\x0aReload OK\0",
            "bad request: corrupted packet: a reply",
        ),
        (
            b"\xa1\x00\x02\x01\x10\x05",
            "bad request: bad record: the method is not a string",
        ),
        // 65,536 bytes, and four billion.
        (
            b"\xa1\x04\xff\xfb\x01",
            "bad request: buffer too small (overflow): 65536 bytes",
        ),
        (
            b"\xa1\x0c\xff\xff\xff\xff\x01",
            "bad request: buffer too small (overflow)",
        ),
    ] {
        for mut stream in streams(&host) {
            stream.write_all(bytes).expect("the host reads");
            let fault = read_packet(&mut stream).expect("the host answers");
            assert_eq!(fault.kind, 3);
            assert!(
                fault.says(said),
                "{said}: {:?}",
                String::from_utf8_lossy(&fault.body)
            );
            assert_eq!(
                stream.read(&mut [0; 16]).unwrap_or(0),
                0,
                "the connection is closed"
            );
        }
    }
    assert_answers(&host);
}

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// A connection over each of the two stream transports.
fn streams(host: &Host) -> [Box<dyn Stream>; 2] {
    let tcp = TcpStream::connect(host.lease().addr(1, 2049)).expect("the port is open");
    tcp.set_read_timeout(Some(wait::PATIENCE))
        .expect("a socket takes a time-out");
    [Box::new(connect(host)), Box::new(tcp)]
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = start();
    for mut stream in streams(&host) {
        let mut all = Vec::new();
        for cookie in 1..=100 {
            // Quick and slow ones.
            let words: &[&str] = match cookie % 3 {
                0 => &["permissions.addressReload"],
                1 => &["core.version"],
                _ => &["no.such.command"],
            };
            all.extend(request(cookie, words));
        }
        // Split within packets, too.
        for part in all.chunks(17) {
            stream.write_all(part).expect("the host reads");
        }
        for cookie in 1..=100_u32 {
            let Packet {
                kind, cookie: got, ..
            } = read_packet(&mut stream).expect("the host answers");
            assert_eq!((got, kind), (cookie, if cookie % 3 == 2 { 3 } else { 1 }));
        }
    }
}

#[test]
fn idle_connections_are_evicted() {
    let host = start();
    let mut idle = Vec::new();
    for number in 0..200 {
        let mut stream = connect(&host);
        // Half a header, half a packet, nothing.
        let half = &request(1, &["core.version"])[..[0, 1, 9][number % 3]];
        stream.write_all(half).expect("the host reads");
        idle.push(stream);
    }
    assert_answers(&host);
    let count = ask(&host, &["ctl.connections"]);
    assert_eq!(count.body[0], 0x10, "a number of one byte");
    assert!(count.body[1] <= 128, "{}", count.body[1]);
    // The oldest connections have been evicted and closed.
    assert_eq!(idle[0].read(&mut [0]).unwrap_or(0), 0);
    // The newest have not.
    let newest = &mut idle[197];
    newest
        .write_all(&request(1, &["core.version"])[[0, 1, 9][197 % 3]..])
        .expect("the host reads");
    assert!(
        read_packet(newest)
            .expect("the host answers")
            .says("portcullis")
    );
    drop(idle);
    assert_answers(&host);
}

#[test]
fn clients_that_do_not_read_replies_are_evicted() {
    let host = start();
    let word = "x".repeat(200);
    let flood = request(1, &["core.echo", &word]).repeat(100);
    let mut deaf = Vec::new();
    for _ in 0..150 {
        let mut stream = connect(&host);
        stream.set_nonblocking(true).expect("a socket can do so");
        // Until neither side has room.
        while stream.write(&flood).is_ok() {}
        deaf.push(stream);
    }
    assert_answers(&host);
    drop(deaf);
    assert_answers(&host);
}

#[test]
fn clients_that_vanish_cost_nothing() {
    let host = start();
    for number in 0..100 {
        let mut stream = connect(&host);
        let whole = request(1, &["permissions.addressReload"]);
        let sent = if number % 2 == 0 {
            &whole[..]
        } else {
            &whole[..5]
        };
        stream.write_all(sent).expect("the host reads");
    }
    assert_answers(&host);
    wait::until("all connections but the asking one are gone", || {
        (ask(&host, &["ctl.connections"]).body == [0x10, 1]).then_some(())
    });
}

#[test]
fn malformed_datagrams_are_answered_and_gone_senders_are_ignored() {
    let host = start();
    let path = |name: &str| host.folder().join(name);
    let client = UnixDatagram::bind(path("client")).expect("a socket can be bound");
    client
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a socket takes a time-out");
    let mut buffer = vec![0; 200_000];
    let mut asked = |server: &str, bytes: &[u8]| {
        client.send_to(bytes, path(server)).expect("the host reads");
        let length = client.recv(&mut buffer).expect("the host answers");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(asked("ctld", b"garbage").contains("bad request: corrupted packet"));
    assert!(asked("ctld", b"\xa1").contains("the datagram is cut off"));
    assert!(asked("ctld", &[0xa1; 65_536]).contains("more than 65535 bytes"));
    assert!(asked("rpc.sock", b"{").contains("\"Parse error\""));
    assert!(asked("rpc.sock", b"").contains("\"Parse error\""));
    assert!(asked("rpc.sock", &[b' '; 65_536]).contains("more than 65535 bytes"));
    let stored = br#"{"jsonrpc":"2.0","method":"core.version","store_path":"/tmp/x","id":1}"#;
    assert!(asked("rpc.sock", stored).contains("\"Storing failed\""));

    // Senders without an address, and senders that have gone.
    let version = br#"{"jsonrpc":"2.0","method":"core.version","id":1}"#;
    for number in 0..50 {
        let sender = match number % 2 {
            0 => UnixDatagram::unbound(),
            _ => UnixDatagram::bind(path(&format!("gone{number}"))),
        }
        .expect("a socket can be made");
        sender
            .send_to(version, path("rpc.sock"))
            .expect("the host reads");
        sender
            .send_to(&request(1, &["core.version"]), path("ctld"))
            .expect("the host reads");
    }
    assert!(asked("rpc.sock", version).contains("portcullis"));
    assert!(asked("ctld", &request(1, &["core.version"])).contains("portcullis"));

    let udp = UdpSocket::bind((host.lease().ip(9), 0)).expect("a socket can be bound");
    udp.set_read_timeout(Some(wait::PATIENCE))
        .expect("a socket takes a time-out");
    for (port, bytes, said) in [
        (9062, &b"[]"[..], "\"Invalid Request\""),
        (9062, version, "portcullis"),
        (2049, b"garbage", "bad request: "),
        (2049, &request(1, &["core.version"]), "portcullis"),
    ] {
        udp.send_to(bytes, host.lease().addr(1, port))
            .expect("the host reads");
        let mut buffer = [0; 2000];
        let length = udp.recv(&mut buffer).expect("the host answers");
        assert!(
            String::from_utf8_lossy(&buffer[..length]).contains(said),
            "{said}"
        );
    }
    assert_answers(&host);
}

#[test]
fn a_sender_that_does_not_read_does_not_affect_others() {
    let host = start();
    let path = |name: &str| host.folder().join(name);
    let version = br#"{"jsonrpc":"2.0","method":"core.version","id":1}"#;
    let deaf = UnixDatagram::bind(path("deaf")).expect("a socket can be bound");
    // More than its own queue holds.
    for _ in 0..40 {
        deaf.send_to(version, path("rpc.sock"))
            .expect("the host reads");
    }
    let client = UnixDatagram::bind(path("client")).expect("a socket can be bound");
    client
        .set_read_timeout(Some(wait::PATIENCE))
        .expect("a socket takes a time-out");
    client
        .send_to(version, path("rpc.sock"))
        .expect("the host reads");
    let mut buffer = [0; 2000];
    let length = client.recv(&mut buffer).expect("the host answers");
    assert!(String::from_utf8_lossy(&buffer[..length]).contains("portcullis"));
    assert_answers(&host);
}

/// kamcmd receives only from the host's own socket, and all replies of a socket share one buffer of the system.
#[test]
fn a_binrpc_sender_that_does_not_read_is_abandoned() {
    let host = start();
    let path = |name: &str| host.folder().join(name);
    // As large as a reply can be made without a large table.
    let words = vec!["x".repeat(200); 280];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let echo = long_request(&[&["core.echo"], &words[..]].concat());
    for number in 0..20 {
        let deaf =
            UnixDatagram::bind(path(&format!("deaf{number}"))).expect("a socket can be bound");
        deaf.connect(path("ctld")).expect("the socket is there");
        deaf.set_write_timeout(Some(wait::PATIENCE))
            .expect("a socket takes a time-out");
        // It exists and reads nothing.
        if deaf.send(&echo).is_ok() {
            std::mem::forget(deaf);
        }
    }
    let mut number = 0;
    wait::until("another client is answered", || {
        number += 1;
        let client = UnixDatagram::bind(path(&format!("client{number}"))).ok()?;
        client
            .set_read_timeout(Some(std::time::Duration::from_secs(1)))
            .ok()?;
        client.connect(path("ctld")).ok()?;
        client.send(&request(1, &["core.version"])).ok()?;
        let mut buffer = [0; 2000];
        let length = client.recv(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..length])
            .contains("portcullis")
            .then_some(())
    });
    host.wait_for_log("event=\"control_socket_recreated\"");
    assert_answers(&host);
}

/// A request of BINRPC of any size.
fn long_request(words: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    for word in words {
        body.extend([0x91, word.len() as u8 + 1]);
        body.extend(word.as_bytes());
        body.push(0);
    }
    let length = (body.len() as u32).to_be_bytes();
    [&[0xa1, 0x0c], &length[..], &[1], &body].concat()
}

#[test]
fn commands_find_the_token_that_the_host_generates() {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    let file = host.folder().join("portcullis.token");
    let mode = fs::metadata(&file).expect("the token is there").mode();
    assert_eq!(mode & 0o7777, 0o600);
    let control = host.lease().addr(1, 8060);
    let status = |method: &str, path: &str, token: &str| {
        let mut stream = TcpStream::connect(control).expect("the port is open");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {control}\r\n{token}Content-Type: application/json\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
        );
        stream
            .write_all(request.as_bytes())
            .expect("the host reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("the host answers");
        answer[9..12].to_owned()
    };
    for (method, path, expected) in [
        ("POST", "/RPC", "401"),
        ("POST", "/v1/policies/acme", "401"),
        ("PUT", "/v1/tenants/other", "401"),
        ("GET", "/", "401"),
        ("GET", "/metrics", "200"),
        ("GET", "/healthz", "200"),
    ] {
        assert_eq!(status(method, path, ""), expected, "{method} {path}");
    }
    let token = host.token().expect("the token is there");
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(status("GET", "/", &bearer(&token)), "200");
    assert_eq!(status("GET", "/", &bearer(&token[1..])), "401");
    assert_eq!(status("GET", "/metrics", &bearer(&token[1..])), "401");
    assert!(!host.log().contains(&token));

    assert!(host.run("address reload").starts_with("Reload OK"));
    // In another directory, the commands say where they looked.
    let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
    let run = |variable: &str| {
        Command::new(portcullis_testkit::binary())
            .current_dir(elsewhere.path())
            .env("PORTCULLIS_TOKEN", variable)
            .arg("--config")
            .arg(host.folder().join("portcullis.toml"))
            .args(["address", "reload"])
            .output()
            .expect("portcullis runs")
    };
    let said = String::from_utf8_lossy(&run("").stderr).into_owned();
    assert!(said.contains("the file portcullis.token"), "{said}");
    assert!(run(&token).status.success());

    // A token that others may have read is refused.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let mut other = Builder::new()
        .set("control", &format!("token-file = {file:?}"))
        .launch();
    assert!(!other.wait_until_ended().success());
    assert!(
        other.log().contains("is accessible to others (mode 0644)"),
        "{}",
        other.log()
    );
}

#[test]
fn names_of_stored_tenants_are_validated() {
    let host = Builder::new().start();
    fs::write(
        host.folder().join("t.toml"),
        "uri-domains = [\"acme.example\"]\n",
    )
    .expect("it can be written");
    for name in ["default", "before", "after", "operator", "breaker", "UPPER"] {
        let output = host.command(&format!("tenant put {name} t.toml"));
        assert!(!output.status.success(), "{name}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("name"), "{name}: {said}");
    }
    let listed = host.run("tenant list");
    assert!(!listed.contains("operator"), "{listed}");
}

#[test]
fn http_requires_its_token() {
    let host = Builder::new()
        .set("control", "token = \"0123456789abcdef\"")
        .start();
    let refused = host.get("/metrics").expect("the control port answers");
    assert_eq!(refused.0, 401);
    assert!(refused.1.contains("Authorization: Bearer"), "{}", refused.1);
    // Our own client brings it.
    assert!(host.run("address reload").starts_with("Reload OK"));
    let other = host.folder().join("other.toml");
    let config = fs::read_to_string(host.folder().join("portcullis.toml")).expect("it can be read");
    fs::write(
        &other,
        config.replace("0123456789abcdef", "another-token-here"),
    )
    .expect("it can be written");
    let output = host.command("--config other.toml address reload");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("another token"),
        "{said}"
    );
    assert!(!said.contains("0123456789abcdef") && !host.log().contains("0123456789abcdef"));
}

/// A certificate of its own for these names: the certificate and the key in PEM.
fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

#[test]
fn the_control_port_speaks_tls_and_follows_its_files() {
    let (first, first_key) = certificate(&["edge.example.com"]);
    let (second, second_key) = certificate(&["localhost", "edge.example.com"]);
    let (stranger, _) = certificate(&["edge.example.com"]);
    let files = tempfile::tempdir().expect("a temporary directory can be made");
    let path = |name: &str| files.path().join(name).display().to_string();
    let write = |name: &str, text: &str| fs::write(path(name), text).expect("it can be written");
    write("cert.pem", &first);
    write("key.pem", &first_key);
    write("stranger.pem", &stranger);
    write("second.pem", &second);
    let host = Builder::new()
        .set("control", &format!("certificate = {:?}", path("cert.pem")))
        .set("control", &format!("key = {:?}", path("key.pem")))
        .launch();
    let log = wait::until("the host serves", || {
        Some(host.log()).filter(|log| log.contains("event=\"serving\""))
    });
    let control = host.lease().addr(1, 8060);
    assert!(log.contains(&format!("https://{control}")), "{log}");
    // With the same configuration, the certificate is known; its name need not be that of the host.
    wait::until("the policy is loaded", || {
        let status = host.command("policy status");
        status.status.success().then_some(())
    });
    let told = |words: &str| {
        let output = host.command(words);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), error)
    };
    let url = format!("--url https://{control}");
    assert!(
        told(&format!("{url} --ca {} policy status", path("cert.pem")))
            .1
            .contains("unexpected argument")
    );
    assert!(told(&format!("policy {url} --ca {} status", path("cert.pem"))).0);
    let (is_trusted, error) = told(&format!(
        "policy status {url} --ca {}",
        path("stranger.pem")
    ));
    assert!(!is_trusted && error.contains("is not trusted"), "{error}");
    assert!(error.contains("--ca FILE"), "{error}");

    // A client without TLS is told.
    let mut plain = TcpStream::connect(control).expect("the port is open");
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("it can be sent");
    let mut answer = String::new();
    plain.read_to_string(&mut answer).expect("it is answered");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("instead of http://\n"),
        "{answer}"
    );
    let http = format!("policy status --url http://{control}");
    assert!(!told(&http).0);

    // A certificate without its key changes nothing; with it, new connections get the new one.
    write("cert.pem", &second);
    wait::until("the half is refused", || {
        host.log()
            .contains("control_certificate_refused")
            .then_some(())
    });
    write("old.pem", &first);
    assert!(told(&format!("policy status {url} --ca {}", path("old.pem"))).0);
    write("key.pem", &second_key);
    wait::until("the certificate is replaced", || {
        host.log()
            .contains("control_certificate_loaded")
            .then_some(())
    });
    assert!(!told(&format!("policy status {url} --ca {}", path("old.pem"))).0);
    let second = path("second.pem");
    assert!(told(&format!("policy status {url} --ca {second}")).0);
}

#[test]
fn each_control_interface_can_be_off() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let config = folder.path().join("portcullis.toml");
    fs::write(&config, "[control]\nlisten = \"\"\n").expect("a configuration can be written");
    let run = |words: &[&str]| {
        let output = Command::new(portcullis_testkit::binary())
            .current_dir(folder.path())
            .args(words)
            .output()
            .expect("portcullis runs");
        String::from_utf8([output.stdout, output.stderr].concat()).expect("portcullis prints UTF-8")
    };
    let said = run(&["address", "reload"]);
    assert!(
        said.contains("the host has no HTTP interface: `listen` in [control] is \"\""),
        "{said}"
    );
    assert!(run(&["check"]).contains("control        none\n"));
    fs::write(&config, "[control]\nlisten = \"0.0.0.0:8060\"\n").expect("it can be written");
    assert!(
        run(&["serve"]).contains(
            "2:10: control.listen = \"0.0.0.0:8060\": not a loopback address, and no token"
        )
    );
    fs::write(&config, "[control]\nfifo = \"/no/such/folder/x\"\nfifo-reply-dir = \"/no/such\"\nsocket-group = \"no-such-group\"\n")
        .expect("it can be written");
    let said = run(&["check"]);
    for part in [
        "cannot create /no/such/folder/x",
        "the directory /no/such for the replies of the FIFO does not exist",
        "the group no-such-group does not exist",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
