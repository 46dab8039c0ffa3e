//! Kamailio's own tools, unmodified, against the host: kamcmd over its four transports, kamctl, kamcli.

#![forbid(unsafe_code)]

use portcullis_testkit::control::{
    ask, binrpc_endpoints, kamcli, kamcmd, kamcmd_interactive, kamctl, open_all,
};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use serde_json::{Value, json};

/// A host with a row of each kind and all control interfaces.
fn start() -> Host {
    open_all(Builder::new())
        .row("200 10.0.0.1 32 5060 Test")
        .row("250 192.168.1.0 24 0")
        .row("3 sipdomain.com 32 0 Name")
        .row("4 example.com")
        .start()
}

#[test]
fn peers_kamcmd_over_each_transport() {
    let host = start();
    for endpoint in binrpc_endpoints(&host) {
        let kamcmd = |words: &[&str]| kamcmd(&host, &endpoint, words);
        assert_eq!(
            kamcmd(&["permissions.addressReload"]),
            "Reload OK\n",
            "{endpoint}"
        );
        assert_eq!(
            kamcmd(&["permissions.addressDump"]),
            "{\n\ttable: 23\n\tgroup: 200\n\titem: {\n\t\tip: 10.0.0.1\n\t\tport: 5060\n\t\ttag: Test\n\t}\n}\n"
        );
        assert_eq!(
            kamcmd(&["permissions.subnetDump"]),
            "{\n\tid: 0\n\tgroup: 250\n\titem: {\n\t\tip: 192.168.1.0\n\t\tmask: 24\n\t\tport: 0\n\t\ttag: \n\t}\n}\n"
        );
        // One structure, with repeated names.
        let domains = kamcmd(&["permissions.domainDump"]);
        assert!(
            domains.starts_with("{\n\ttable: 53\n\tgroup: 3\n"),
            "{domains}"
        );
        assert_eq!(domains.matches("\n\ttable: ").count(), 2, "{domains}");
        assert_eq!(domains.matches("\n}\n").count(), 1, "{domains}");
        assert_eq!(
            kamcmd(&["no.such"]),
            "error: 500 - command no.such not found\n"
        );
        assert_eq!(
            kamcmd(&["permissions.addressDump", "5"]),
            "error: 400 - permissions.addressDump takes no parameters, but got 1\n"
        );
        assert_eq!(
            kamcmd(&["core.echo", "sip:bob@example.com", "5", "s:7"]),
            "sip:bob@example.com\n5\n7\n"
        );
        assert!(
            kamcmd(&["ver"]).starts_with("portcullis "),
            "an alias of kamcmd"
        );
        assert!(kamcmd(&["psx"]).contains("\tDSC: main process\n"));
        assert!(kamcmd(&["ps"]).contains(&format!("{}\tmain process\n", host.pid())));
        let listen = kamcmd(&["listen"]);
        assert!(
            listen.contains(
                "[binrpc] unix_stream: ctl \n[binrpc] unix_dgram: ctld \n[binrpc] tcp: 127."
            ),
            "{listen}"
        );
        assert_eq!(kamcmd(&["-f", "%v|", "core.echo", "a", "b"]), "a|b|");
        assert!(kamcmd(&["portcullis.status"]).contains("\tready: 1\n"));
    }
}

#[test]
fn peers_kamcmd_interactive() {
    let host = start();
    for endpoint in binrpc_endpoints(&host) {
        let said = kamcmd_interactive(
            &host,
            &endpoint,
            "?\nhelp permissions.addressReload\npermissions.addressReload\nno.such\nuptime\ncore.uptime\nwho\nquit\n",
        );
        for line in [
            "permissions.addressDump",
            "system.listMethods",
            "alias: ps",
            "Reload permissions address table.",
            "Reload OK",
            "error: 500 - command no.such not found",
        ] {
            assert!(
                said.lines().any(|said| said == line),
                "{endpoint}: {line}: {said}"
            );
        }
        assert!(said.contains("\tuptime: "), "{said}");
        assert!(!said.contains("ERROR"), "{said}");
    }
}

#[test]
fn peers_kamctl_address_through_the_fifo_and_a_real_database() {
    let database = MariaDb::start();
    let host = open_all(Builder::new()).database(&database.url()).start();
    let kamctl = |words: &str| {
        kamctl(
            &host,
            Some(&database),
            &words.split_whitespace().collect::<Vec<_>>(),
        )
    };
    kamctl("address add 200 10.0.0.1 32 5060 Office");
    kamctl("address add 250 10.1.0.0 24");
    let shown = kamctl("address show");
    assert!(
        shown.contains("10.0.0.1") && shown.contains("Office"),
        "{shown}"
    );
    assert!(kamctl("address reload").contains("Reload OK"));
    let dump = kamctl("address dump");
    for part in ["\"10.0.0.1\"", "\"Office\"", "\"10.1.0.0\"", "\"mask\""] {
        assert!(dump.contains(part), "{part}: {dump}");
    }
    kamctl("address rm 200 10.0.0.1");
    assert!(kamctl("address reload").contains("Reload OK"));
    let dump = kamctl("address dump");
    assert!(
        !dump.contains("10.0.0.1") && dump.contains("10.1.0.0"),
        "{dump}"
    );
    let echoed = kamctl("rpc core.echo word 5 s:7");
    for word in ["\"word\"", "\"5\"", "\"7\""] {
        assert!(echoed.contains(word), "{echoed}");
    }
    let fault = kamctl("rpc no.such");
    assert!(
        fault.contains("500") && fault.contains("\"Method Not Found\""),
        "{fault}"
    );
    assert!(kamctl("uptime").contains("up_since"));
    assert!(kamctl("ps").contains("\"main process\""));
}

#[test]
fn peers_kamctl_trusted_changes_its_table() {
    let database = MariaDb::start();
    let host = open_all(Builder::new()).database(&database.url()).start();
    let kamctl = |words: &str| {
        kamctl(
            &host,
            Some(&database),
            &words.split_whitespace().collect::<Vec<_>>(),
        )
    };
    kamctl("trusted add 10.0.0.1 udp ^sip:.*@example.com$ Peer");
    let shown = kamctl("trusted show");
    assert!(
        shown.contains("10.0.0.1") && shown.contains("Peer"),
        "{shown}"
    );
    assert!(kamctl("trusted reload").contains("Reload OK"));
    let dump = kamctl("trusted dump");
    for part in ["\"10.0.0.1\"", "\"Peer\"", "\"^sip:.*@example.com$\""] {
        assert!(dump.contains(part), "{part}: {dump}");
    }
    kamctl("trusted rm 10.0.0.1");
    assert!(!kamctl("trusted show").contains("10.0.0.1"));
    assert!(kamctl("trusted reload").contains("Reload OK"));
    assert!(!kamctl("trusted dump").contains("10.0.0.1"));
}

#[test]
fn peers_kamctl_and_kamcli_manage_the_dispatcher() {
    let database = MariaDb::start();
    let host = open_all(Builder::new())
        .database(&database.url())
        .set("dispatcher", "ping = \"0s\"")
        .start();
    let kamctl = |words: &str| {
        kamctl(
            &host,
            Some(&database),
            &words.split_whitespace().collect::<Vec<_>>(),
        )
    };
    kamctl("dispatcher add 7 sip:192.0.2.1:5060 8 10 weight=50 North");
    kamctl("dispatcher add 7 sip:192.0.2.2:5060");
    let shown = kamctl("dispatcher show");
    assert!(
        shown.contains("sip:192.0.2.1:5060") && shown.contains("North"),
        "{shown}"
    );
    assert!(kamctl("dispatcher reload").contains("Ok. Dispatcher successfully reloaded."));
    let dump = kamctl("dispatcher dump");
    for part in [
        "\"sip:192.0.2.1:5060\"",
        "\"sip:192.0.2.2:5060\"",
        "\"AP\"",
        "\"weight=50\"",
    ] {
        assert!(dump.contains(part), "{part}: {dump}");
    }
    let listed = kamcli(&host, &["dispatcher", "list"]);
    for part in ["\"NRSETS\": 1", "\"sip:192.0.2.1:5060\"", "\"AX\""] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let first = database.sql(
        "kamailio",
        "SELECT id FROM dispatcher WHERE destination = 'sip:192.0.2.1:5060'",
    );
    kamctl(&format!("dispatcher rm {}", first.trim()));
    let reloaded = kamcli(&host, &["dispatcher", "reload"]);
    assert!(
        reloaded.contains("Ok. Dispatcher successfully reloaded."),
        "{reloaded}"
    );
    let dump = kamctl("dispatcher dump");
    assert!(
        !dump.contains("192.0.2.1:") && dump.contains("192.0.2.2:"),
        "{dump}"
    );
}

#[test]
fn peers_kamcli_through_the_unix_socket() {
    let host = start();
    // kamcli also prints messages before and after the reply.
    let answer = |words: &[&str]| {
        let said = kamcli(&host, words);
        let begin = said.find('{').unwrap_or_else(|| panic!("{said}"));
        let mut values = serde_json::Deserializer::from_str(&said[begin..]).into_iter::<Value>();
        let first = values.next().and_then(Result::ok);
        first.unwrap_or_else(|| panic!("{said}"))
    };
    assert_eq!(answer(&["address", "reload"])["result"], "Reload OK");
    assert_eq!(
        answer(&["rpc", "permissions.addressDump"])["result"],
        json!([{"table": 23, "group": 200, "item": {"ip": "10.0.0.1", "port": 5060, "tag": "Test"}}])
    );
    assert_eq!(
        answer(&["rpc", "core.echo", "a", "i:5"])["result"],
        json!(["a", "5"])
    );
    assert_eq!(
        answer(&["rpc", "no.such"])["error"],
        json!({"code": 500, "message": "Method Not Found"})
    );
    assert!(answer(&["uptime"])["result"]["uptime"].is_u64());
    let listed = answer(&["rpcmethods"]);
    assert!(
        listed["result"]
            .as_array()
            .is_some_and(|all| all.contains(&"address.reload".into()))
    );
    let processes = kamcli(&host, &["ps"]);
    assert!(
        processes.contains(&format!("{} main process", host.pid())),
        "{processes}"
    );
}

/// Dumps of 100,000 rows arrive completely if the client can receive them, and are otherwise refused with a reason.
#[test]
fn peers_a_large_dump_is_sent_only_where_it_fits() {
    const ROWS: usize = 100_000;
    let database = MariaDb::start();
    database.fill_subnets(ROWS as u32);
    let host = open_all(Builder::new()).database(&database.url()).start();
    let answer = host.rpc("permissions.subnetDump", json!([]));
    assert_eq!(answer["result"].as_array().map(Vec::len), Some(ROWS));

    let through_the_fifo = kamctl(&host, None, &["rpc", "permissions.subnetDump"]);
    assert_eq!(through_the_fifo.matches("\"ip\":").count(), ROWS);
    assert!(through_the_fifo.trim_end().ends_with('}'));

    for (endpoint, most) in binrpc_endpoints(&host)
        .iter()
        .zip([131_072, 131_072, 131_072, 65_507])
    {
        let said = kamcmd(&host, endpoint, &["permissions.subnetDump"]);
        assert!(said.starts_with("error: 500 - reply of "), "{said}");
        assert!(
            said.contains(&format!(
                " bytes, at most {most} over BINRPC: use JSON-RPC over HTTP"
            )),
            "{said}"
        );
    }
    let said = kamcli(&host, &["rpc", "permissions.subnetDump"]);
    assert!(
        said.contains(" bytes, at most 84000 in a datagram"),
        "{said}"
    );
    // Other clients are not affected.
    assert!(ask(&host, &["permissions.addressReload"]).says("Reload OK"));
}

/// As many rows as kamcmd can receive, over each transport that can carry them.
#[test]
fn peers_kamcmd_receives_the_largest_dump() {
    let database = MariaDb::start();
    database.fill_subnets(700);
    let host = open_all(Builder::new()).database(&database.url()).start();
    for endpoint in binrpc_endpoints(&host) {
        let said = kamcmd(&host, &endpoint, &["permissions.subnetDump"]);
        assert_eq!(said.matches("\t\tip: ").count(), 700, "{endpoint}");
    }
    database.fill_subnets(1500 - 700);
    kamcmd(
        &host,
        &binrpc_endpoints(&host)[0],
        &["permissions.addressReload"],
    );
    for endpoint in &binrpc_endpoints(&host)[..3] {
        let said = kamcmd(&host, endpoint, &["permissions.subnetDump"]);
        assert_eq!(said.matches("\t\tip: ").count(), 1500, "{endpoint}");
    }
}
