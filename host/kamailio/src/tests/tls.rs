use super::*;

const TLS_CFG: &str = "[server:default]\n\
    method = TLSv1.2+\n\
    verify_certificate = no\n\
    require_certificate = no\n\
    private_key = /etc/ssl/edge.key\n\
    certificate = edge.pem # beside kamailio.cfg\n\
    ca_list = /etc/ssl/clients.pem\n\
    \n\
    [server:any]\n\
    server_name = sip.acme.example\n\
    server_name_mode = 1\n\
    private_key = acme.key\n\
    certificate = acme.pem\n\
    method = TLSv1.3+\n\
    \n\
    [server:192.0.2.1:5061]\n\
    require_certificate = yes\n\
    crl = revoked.pem\n\
    cipher_list = HIGH\n\
    verify_depth = 3\n\
    \n\
    [client:default]\n\
    verify_certificate = yes\n\
    ca_list = ca.pem\n\
    crl = carriers.crl\n\
    \n\
    [client:203.0.113.9:5061]\n\
    verify_certificate = no\n\
    certificate = carrier.pem\n\
    private_key = carrier.key\n\
    server_name = sip.carrier.example\n\
    server_id = carrier\n\
    method = TLSv1\n\
    \n\
    [client:any]\n\
    server_id = other\n";

const KAMAILIO_CFG: &str = "enable_tls=yes\nlisten=tls:192.0.2.1:5061\nloadmodule \"tls.so\"\nmodparam(\"tls\", \"config\", \"tls.cfg\")\n\
    modparam(\"tls\", \"session_cache\", 1)\n";

fn with_tls_cfg(text: &str) -> Import {
    let fake = Fake::default().file("/etc/k/k.cfg", KAMAILIO_CFG);
    fake.file("/etc/k/tls.cfg", text).import(&[])
}

#[test]
fn profiles_of_tls_cfg_become_sections() {
    let import = with_tls_cfg(TLS_CFG);
    let config = Config::parse(&import.text).unwrap();
    assert_eq!(config.listen.len(), 1, "{}", import.text);
    let names: Vec<_> = config.tls.iter().map(|profile| &*profile.name).collect();
    assert_eq!(names, ["192-0-2-1-5061", "default", "sip-acme-example"]);
    assert_eq!(
        lines(&import)
            .into_iter()
            .skip_while(|line| *line != "[tls.default]")
            .take_while(|line| *line != "[resolver]")
            .collect::<Vec<_>>(),
        [
            "[tls.default]",
            "certificate = \"/etc/k/edge.pem\"",
            "key = \"/etc/ssl/edge.key\"",
            "default = true",
            "[tls.sip-acme-example]",
            "certificate = \"/etc/k/acme.pem\"",
            "key = \"/etc/k/acme.key\"",
            "names = [",
            "    \"sip.acme.example\",",
            "    \"*.sip.acme.example\",",
            "]",
            "min-version = \"1.3\"",
            // What it has not comes from the default profile.
            "[tls.192-0-2-1-5061]",
            "certificate = \"/etc/k/edge.pem\"",
            "key = \"/etc/ssl/edge.key\"",
            "client-auth = \"required\"",
            "client-ca = \"/etc/ssl/clients.pem\"",
            "crl = \"/etc/k/revoked.pem\"",
            "[relay.tls]",
            "ca = \"/etc/k/ca.pem\"",
            "crl = \"/etc/k/carriers.crl\"",
            "[relay.tls-profiles.sip-carrier-example]",
            "hosts = [",
            "    \"203.0.113.9\",",
            "]",
            "certificate = \"/etc/k/carrier.pem\"",
            "key = \"/etc/k/carrier.key\"",
            "ca = \"/etc/k/ca.pem\"",
            "name = \"sip.carrier.example\"",
            "verify = false",
        ],
        "{}",
        import.text
    );
    assert!(
        import
            .text
            .contains("client-auth = \"required\"  # tls.cfg:17\n"),
        "{}",
        import.text
    );
    let said = said(&import).join("\n");
    for text in [
        "/etc/k/tls.cfg:7: tls.cfg: ca_list = /etc/ssl/clients.pem: not needed",
        "/etc/k/tls.cfg:16: tls.cfg: [server:192.0.2.1:5061]: a profile is chosen by the name that a client asks for",
        "/etc/k/tls.cfg:19: tls.cfg: cipher_list = HIGH: cipher suites are the library's",
        "/etc/k/tls.cfg:20: tls.cfg: verify_depth = 3: at most six",
        "/etc/k/tls.cfg:23: tls.cfg: [client:default]: the name in the certificate is verified, too",
        "/etc/k/tls.cfg:28: tls.cfg: [client:203.0.113.9:5061]: it verifies no certificates",
        "/etc/k/tls.cfg:25: tls.cfg: crl = carriers.crl: not needed",
        "/etc/k/tls.cfg:32: tls.cfg: server_id = carrier: the routing logic",
        "/etc/k/tls.cfg:33: tls.cfg: method = TLSv1: TLS below 1.2 is not supported",
        "/etc/k/tls.cfg:35: tls.cfg: [client:any] without server_name",
        "/etc/k/k.cfg:5: tls: session_cache = 1: sessions are resumed by tickets",
        "/etc/k/k.cfg:3: module tls: its profiles become [tls.NAME]",
    ] {
        assert!(said.contains(text), "{text} is not in\n{said}");
    }
}

#[test]
fn parameters_alone_are_a_profile_for_each_side() {
    let import = imported(
        "listen=tls:192.0.2.1:5061\n\
         modparam(\"tls\", \"certificate\", \"/a.pem\")\n\
         modparam(\"tls\", \"private_key\", \"/a.key\")\n\
         modparam(\"tls\", \"ca_list\", \"/ca.pem\")\n\
         modparam(\"tls\", \"verify_certificate\", 1)\n\
         modparam(\"tls\", \"tls_method\", \"TLSv1.3\")\n",
    );
    let config = Config::parse(&import.text).unwrap();
    let [profile] = &config.tls[..] else {
        panic!("{}", import.text);
    };
    assert!(profile.is_default && profile.client_ca.is_some());
    let lines = lines(&import);
    for line in [
        "client-auth = \"optional\"",
        "[relay.tls]",
        "min-version = \"1.3\"",
    ] {
        assert!(lines.contains(&line), "{line}: {}", import.text);
    }
    assert!(!lines.contains(&"verify = false"), "{}", import.text);
}

#[test]
fn a_name_that_profiles_of_several_sockets_have_is_that_of_the_first() {
    let profile = |host: &str, more: &str| {
        format!(
            "[server:{host}:5061]\nserver_name=Sip.Example.com\nprivate_key=/a.key\ncertificate=/a.pem\n{more}"
        )
    };
    let import = with_tls_cfg(
        &[
            profile("192.0.2.1", ""),
            profile("192.0.2.2", ""),
            profile("192.0.2.3", "server_name_mode=1\n"),
        ]
        .concat(),
    );
    let config = Config::parse(&import.text).unwrap();
    let names: Vec<_> = config.tls.iter().map(|profile| &*profile.names).collect();
    assert_eq!(
        names,
        [["sip.example.com"], ["*.sip.example.com"]],
        "{}",
        import.text
    );
    let said = said(&import).join("\n");
    for text in [
        "/etc/k/tls.cfg:6: tls.cfg: server_name = Sip.Example.com: a profile before it has the name, and profiles are chosen by name, not by socket: \
         this profile is left out",
        "/etc/k/tls.cfg:10: tls.cfg: server_name = Sip.Example.com: a profile before it has the name, and profiles are chosen by name, not by socket: \
         the name is left out here",
    ] {
        assert!(said.contains(text), "{text} is not in\n{said}");
    }
}

#[test]
fn a_profile_that_cannot_be_what_it_was_is_left_out() {
    // It would admit clients without a certificate.
    let import = with_tls_cfg(
        "[server:default]\nprivate_key=/a.key\ncertificate=/a.pem\nrequire_certificate=yes\n[server:any]\nserver_name=x.example\nprivate_key=\n\
         [peer:any]\n",
    );
    let config = Config::parse(&import.text).unwrap();
    assert!(config.tls.is_empty(), "{}", import.text);
    let said = said(&import).join("\n");
    for text in [
        "/etc/k/tls.cfg:4: tls.cfg: [server:default]: no ca_list says who issues",
        "/etc/k/tls.cfg:4: tls.cfg: [server:any]: no ca_list says who issues",
        "/etc/k/tls.cfg:8: tls.cfg: [peer:any]: not a section of servers or clients",
        "/etc/k/k.cfg:2: listen = \"tls:192.0.2.1:5061\" cannot be taken over",
    ] {
        assert!(said.contains(text), "{text} is not in\n{said}");
    }

    let fake = Fake::default().file("/etc/k/k.cfg", KAMAILIO_CFG);
    let import = fake.import(&[]);
    let said = super::said(&import).join("\n");
    let text = "/etc/k/k.cfg:4: tls: config = /etc/k/tls.cfg: cannot be read here";
    assert!(said.contains(text), "{said}");
}

#[test]
fn parameters_of_the_modules_of_clients_are_keys_or_explained() {
    let import = imported(
        "modparam(\"websocket\", \"keepalive_timeout\", 30)\n\
         modparam(\"websocket\", \"cors_mode\", 2)\n\
         modparam(\"nathelper\", \"natping_interval\", 25)\n\
         modparam(\"nathelper|registrar\", \"received_avp\", \"$avp(RECEIVED)\")\n\
         modparam(\"path\", \"use_received\", 1)\n\
         modparam(\"outbound\", \"flow_token_secret\", \"johndoessecretphrase\")\n\
         modparam(\"dispatcher\", \"xavp_dst\", \"_dsdst_\")\n\
         modparam(\"path\", \"colour\", 1)\n\
         modparam(\"nathelper\", \"ping_nated_only\", 1)\n\
         modparam(\"nathelper\", \"sipping_from\", \"sip:pinger@example.com\")\n\
         modparam(\"nathelper\", \"natping_interval\", 7200)\n",
    );
    let config = Config::parse(&import.text).unwrap();
    assert!(
        lines(&import).contains(&"ping = \"30s\""),
        "{}",
        import.text
    );
    assert_eq!(config.websocket.ping.as_secs(), 30);
    assert_eq!(config.nat.ping.as_secs(), 25);
    let said = said(&import).join("\n");
    for text in [
        "k.cfg:2: websocket: cors_mode = 2: not needed: browsers do not ask for CORS before they open a WebSocket",
        "k.cfg:4: nathelper: received_avp = $avp(RECEIVED): the registrar gets the flow in Path",
        "k.cfg:5: path: use_received = 1: the flow of a client",
        "k.cfg:6: outbound: flow_token_secret = …: flows are sealed with the key",
        "k.cfg:7: dispatcher: xavp_dst = _dsdst_: no variable is needed",
        "k.cfg:8: path: colour = 1: this import does not know the parameter",
        "k.cfg:9: nathelper: ping_nated_only = 1: registered clients over UDP are pinged",
        "k.cfg:10: nathelper: sipping_from = sip:pinger@example.com: a ping is an OPTIONS",
        "k.cfg:11: nathelper: natping_interval = 7200: not a number from 0 to 3600",
    ] {
        assert!(said.contains(text), "{text} is not in\n{said}");
    }
    assert!(!said.contains("johndoe"), "{said}");
    let off = imported("modparam(\"websocket\", \"keepalive_mechanism\", 0)\n");
    assert!(lines(&off).contains(&"ping = \"0s\""), "{}", off.text);
}

#[test]
fn calls_that_write_and_follow_an_alias_are_replaced_by_flows() {
    let import = imported(
        "loadmodule \"nathelper.so\"\nrequest_route {\n  if (nat_uac_test(\"19\")) {\n    if (is_method(\"REGISTER\")) { fix_nated_register(); }\n    \
         else { add_contact_alias(); }\n  }\n  handle_ruri_alias();\n  set_contact_alias();\n}\n",
    );
    let said = said(&import).join("\n");
    for text in [
        "k.cfg:3: nat_uac_test(\"19\"): the policy path-nat keeps the flows of phones behind NAT",
        "k.cfg:4: fix_nated_register(): name the listen addresses of phones in `clients` of [nat]",
        "k.cfg:5: add_contact_alias(), set_contact_alias() (also k.cfg:8): name the listen addresses of phones",
        "k.cfg:7: handle_ruri_alias(): not needed: the Route with the sealed flow leads to the phone",
    ] {
        assert!(said.contains(text), "{text} is not in\n{said}");
    }
    // Whose peers are phones is for the operator to say.
    let note = "[nat]\n# k.cfg:3: the routing logic keeps phones behind NAT reachable.";
    assert!(import.text.contains(note), "{}", import.text);
    let clients = "\n# clients = [\"udp:0.0.0.0:5060\", \"tcp:0.0.0.0:5060\"]\n";
    assert!(import.text.contains(clients), "{}", import.text);
    assert!(Config::parse(&import.text).unwrap().nat.clients.is_empty());
}
