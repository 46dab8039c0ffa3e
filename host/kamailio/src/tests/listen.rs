//! What is listened on.

use portcullis_config::ForceRport;

use super::*;

#[track_caller]
fn listens(text: &str, expected: &[&str]) -> Import {
    let import = imported(text);
    let config = Config::parse(&import.text).unwrap();
    let listens: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listens, expected, "{}\n{:#?}", import.text, said(&import));
    import
}

#[test]
fn listen_lines_bind_what_kamailio_binds() {
    listens("", &["udp:0.0.0.0:5060", "tcp:0.0.0.0:5060"]);
    listens("port=5070 disable_tcp=yes", &["udp:0.0.0.0:5070"]);
    listens(
        "listen=10.0.0.1 listen = udp:10.0.0.2:5080\nport=5070",
        &[
            "udp:10.0.0.1:5070",
            "tcp:10.0.0.1:5070",
            "udp:10.0.0.2:5080",
        ],
    );
    listens(
        "listen=udp:10.0.0.1:5060\n  tcp:10.0.0.1:5061 # both\nchildren=4 loadmodule \"sl.so\"",
        &["udp:10.0.0.1:5060", "tcp:10.0.0.1:5061"],
    );
    listens("listen=udp:[::1]:5060;", &["udp:[::1]:5060"]);
    listens("listen=\"udp:10.0.0.1\"", &["udp:10.0.0.1:5060"]);
    listens(
        "#!define MY_IP 10.0.0.9 \n#!define MY_SOCKET tcp:MY_IP:5066\nlisten=udp:MY_IP:5065\nlisten=MY_SOCKET",
        &["udp:10.0.0.9:5065", "tcp:10.0.0.9:5066"],
    );
}

#[test]
fn listen_lines_carry_what_is_advertised() {
    listens(
        "listen=udp:10.0.0.1:5060 advertise 198.51.100.7:5061 name \"a\"\nlisten=tcp:10.0.0.1:5060 name \"b\"",
        &[
            "udp:10.0.0.1:5060 advertise 198.51.100.7:5061",
            "tcp:10.0.0.1:5060",
        ],
    );
    listens(
        "advertised_address=\"sip.example.com\"\nadvertised_port=5062\nlisten=udp:10.0.0.1:5060",
        &["udp:10.0.0.1:5060 advertise sip.example.com:5062"],
    );
    listens(
        "socket = {\n  bind = udp:10.0.0.1:5060;\n  advertise = 11.0.0.1:5070;\n  name = \"s\"; workers = 4\n}\n\
         socket={ bind = tcp:10.0.0.1:5060 }",
        &[
            "udp:10.0.0.1:5060 advertise 11.0.0.1:5070",
            "tcp:10.0.0.1:5060",
        ],
    );
}

#[test]
fn interfaces_stay_and_names_become_addresses() {
    let import = listens(
        "listen=udp:eth0:5070\nlisten=tcp:edge.example.com\nlisten=udp:eth7",
        &["udp:eth0:5070", "tcp:192.0.2.7:5060"],
    );
    assert_eq!(
        said(&import)[..2],
        [
            "/etc/k/k.cfg:2: listen=tcp:edge.example.com: edge.example.com stands for what this name resolves to at the time of \
             the import: add or remove addresses in `listen` when that changes",
            "/etc/k/k.cfg:3: listen=udp:eth7: eth7 is no address, no interface of this machine and no name that resolves here: \
             add the address to `listen`",
        ]
    );
}

#[test]
fn what_is_not_served_is_said_with_its_line() {
    let import = listens(
        "listen=udp:10.0.0.1:5060\nlisten=tls:10.0.0.1:5061",
        &["udp:10.0.0.1:5060"],
    );
    assert_eq!(
        said(&import)[0],
        "/etc/k/k.cfg:2: listen = \"tls:10.0.0.1:5061\" cannot be taken over: a TLS address without a certificate; add a section [tls.NAME] with `certificate` and `key`"
    );
    assert!(
        import
            .text
            .contains("#     \"tls:10.0.0.1:5061\",  # k.cfg:2: not taken: a TLS address without a certificate"),
        "{}",
        import.text
    );
}

#[test]
fn force_rport_is_taken_over_once() {
    let import = imported(
        "listen=udp:10.0.0.1\nrequest_route {\n  force_rport();\n  route(A);\n}\nroute[A] { add_rport(); }\n",
    );
    let config = Config::parse(&import.text).unwrap();
    assert_eq!(config.sip.force_rport, ForceRport::Always);
    assert!(
        import.text.contains("force-rport = true  # k.cfg:3\n"),
        "{}",
        import.text
    );
    let said = said(&import).concat();
    assert_eq!(said.matches("force-rport = true").count(), 1, "{said}");

    let without = imported("listen=udp:10.0.0.1\nrequest_route { # force_rport();\n}\n");
    let config = Config::parse(&without.text).unwrap();
    assert_eq!(config.sip.force_rport, ForceRport::Never);
}

#[test]
fn tls_is_served_where_kamailio_serves_it() {
    // As `kamailio -c` of 5.6.3 says.
    let tls = "enable_tls=yes\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"certificate\", \"/a.pem\")\nmodparam(\"tls\", \"private_key\", \"/a.key\")\n";
    for (text, expected) in [
        (
            "",
            &["udp:0.0.0.0:5060", "tcp:0.0.0.0:5060", "tls:0.0.0.0:5061"][..],
        ),
        (
            "port=5080",
            &["udp:0.0.0.0:5080", "tcp:0.0.0.0:5080", "tls:0.0.0.0:5061"],
        ),
        (
            "listen=127.0.0.1:5070",
            &[
                "udp:127.0.0.1:5070",
                "tcp:127.0.0.1:5070",
                "tls:127.0.0.1:5071",
            ],
        ),
        (
            "listen=127.0.0.1\nport=5080\ntls_port_no=5099",
            &[
                "udp:127.0.0.1:5080",
                "tcp:127.0.0.1:5080",
                "tls:127.0.0.1:5099",
            ],
        ),
        ("listen=udp:127.0.0.1", &["udp:127.0.0.1:5060"]),
        ("listen=tls:127.0.0.1\nport=5080", &["tls:127.0.0.1:5061"]),
        (
            "enable_tls=no\nlisten=127.0.0.1",
            &["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"],
        ),
        ("disable_tcp=yes\nlisten=127.0.0.1", &["udp:127.0.0.1:5060"]),
    ] {
        let import = listens(&format!("{tls}{text}"), expected);
        assert!(!said(&import).concat().contains("enable_tls"));
    }
}

/// As in Kamailio's example `edge_websocket.cfg`.
#[test]
fn an_edge_for_browsers_says_what_is_left_to_write() {
    let import = listens(
        "force_rport=yes\nlisten=udp:192.0.2.1\nlisten=tcp:192.0.2.1:80\nloadmodule \"stun.so\"\nloadmodule \"websocket.so\"\n",
        &["udp:192.0.2.1:5060", "tcp:192.0.2.1:80"],
    );
    let config = Config::parse(&import.text).unwrap();
    assert_eq!(config.sip.force_rport, ForceRport::Always);
    let note = "[websocket]\n# Kamailio takes browsers at a port of SIP.";
    assert!(import.text.contains(note), "{}", import.text);
    let origins = "\n# origins = [\"https://phone.example.com\"]\n";
    assert!(import.text.contains(origins), "{}", import.text);
    let said = said(&import).join("\n");
    for text in [
        "k.cfg:4: module stun: STUN is answered on the UDP ports of SIP",
        "k.cfg:5: module websocket: browsers have addresses of their own",
    ] {
        assert!(said.contains(text), "{text} is not in\n{said}");
    }
    let off = imported("force_rport=no\n");
    let config = Config::parse(&off.text).unwrap();
    assert_eq!(config.sip.force_rport, ForceRport::Never);
}
