//! The output of Kamailio's own tools for both servers, compared as text. The order is always defined: Kamailio dumps its hash tables by
//! bucket, the newest row first, and its networks by group, then in the order of the load.

#![forbid(unsafe_code)]

use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::oracle::exceptions::{FAULT_DATA, LONG_TEST_URI, NAMES_IN_JSON};
use portcullis_testkit::peer::Peer;
use portcullis_testkit::policy;
use portcullis_testkit::sip::Message;
use portcullis_testkit::tools::Tool::{self, Kamcli, Kamcmd, Kamctl};
use portcullis_testkit::tools::Tools;
use portcullis_testkit::wait::until;

/// Both servers on one table, and the tools for each.
struct Both {
    portcullis: Tools,
    kamailio: Tools,
    _host: Host,
    _kamailio: Kamailio,
    database: MariaDb,
}

impl Both {
    fn start() -> Self {
        Self::start_with(&[], &[], Builder::new())
    }

    /// With further parts of Kamailio's configuration.
    fn start_with(defines: &[&str], values: &[(&str, String)], builder: Builder) -> Self {
        let database = MariaDb::start();
        let listen = builder.lease().addr(4, 5060);
        let host = Tools::doors(builder)
            .database(&database.url())
            .set("database", "poll = \"1h\"")
            .set("log", "level = \"error\"")
            .start();
        let kamailio = Kamailio::start(
            include_str!("../oracle/kamailio.cfg"),
            &[
                &[("LISTEN", listen.to_string()), ("DATABASE", database.url())],
                values,
            ]
            .concat(),
            defines,
        );
        Self {
            portcullis: Tools::for_host(&host, &database),
            kamailio: Tools::for_kamailio(&kamailio, &database),
            _host: host,
            _kamailio: kamailio,
            database,
        }
    }

    /// Runs a command on both servers, and returns the common output.
    fn same(&self, tool: Tool, words: &str) -> String {
        let kamailio = self.kamailio.run(tool, words);
        let portcullis = self.portcullis.run(tool, words);
        assert_eq!(portcullis, kamailio, "{tool:?} {words}");
        assert!(
            !kamailio.contains("Traceback"),
            "{tool:?} {words} breaks by itself: {kamailio}"
        );
        kamailio
    }
}

/// Hosts in one bucket and in many, IPv6, ports, tags of all kinds, networks with host bits and in several groups, names.
const ROWS: &str = "INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES \
    (200, '10.0.0.1', 32, 0, NULL), (200, '10.0.0.1', 32, 5060, ''), (201, '10.0.0.1', 0, 0, 'last of three'), \
    (3, '127.0.0.1', 32, 5060, 'Test'), (3, '2001:db8::1', 128, 0, 'six'), (3, '2001:db8::2', 128, 65535, NULL), \
    (1, '192.168.1.1', 32, 0, 'signed'), (1, '203.0.113.7', 32, 40000, 'a \"quoted\" tag'), (1, '0.0.0.0', 32, 0, ''), (1, '255.255.255.255', 32, 0, 'x'), \
    (250, '192.168.1.7', 24, 0, NULL), (200, '192.168.1.0', 25, 5060, ''), (250, '172.16.0.0', 12, 0, 'later'), \
    (200, '2001:db8::7', 48, 0, 'v6 net'), (1, '10.0.0.0', 8, 0, 'first group'), \
    (5, 'sip.example.com', 32, 5060, NULL), (6, 'sip.example.com', 32, 0, 'newest'), (5, 'gw-1', 32, 0, '')";

#[test]
fn peers_dumps_and_reloads_look_the_same() {
    let both = Both::start();
    for rows in ["", ROWS, "DELETE FROM address WHERE mask <> 24"] {
        both.database.sql("kamailio", rows);
        for (tool, words) in RELOADS {
            let said = both.same(tool, words);
            assert!(said.contains("Reload OK"), "{tool:?} {words}: {said}");
        }
        for (tool, words) in DUMPS {
            both.same(tool, words);
        }
    }
    both.database.sql("kamailio", ROWS);
    both.same(Kamcmd, "permissions.addressReload");
    for (tool, words) in DUMPS {
        let said = both.same(tool, words);
        assert!(said.contains("item"), "{tool:?} {words} shows rows: {said}");
    }
}

#[test]
fn peers_faults_look_the_same() {
    let both = Both::start();
    for (tool, words) in [
        (Kamcmd, "permissions.noSuchCommand"),
        (Kamctl, "rpc permissions.noSuchCommand"),
        (Kamcli, "rpc permissions.noSuchCommand"),
    ] {
        let said = both.same(tool, words);
        println!("{tool:?} {words}: {said}");
    }
    both.database
        .sql("kamailio", "RENAME TABLE address TO elsewhere");
    for (tool, words) in RELOADS {
        let [kamailio, portcullis] =
            [&both.kamailio, &both.portcullis].map(|tools| tools.run(tool, words));
        assert!(
            kamailio.contains("Reload failed."),
            "{tool:?} {words}: {kamailio}"
        );
        assert_eq!(
            without_data(&portcullis),
            without_data(&kamailio),
            "{tool:?} {words}"
        );
        if tool != Kamcmd {
            let cause = "has no table `address`";
            assert!(portcullis.contains(cause), "{FAULT_DATA:?}: {portcullis}");
        }
    }
    both.database
        .sql("kamailio", "RENAME TABLE elsewhere TO address");
    for (tool, words) in RELOADS {
        both.same(tool, words);
    }
}

#[test]
fn peers_statistics_of_transactions_look_the_same() {
    let both = Both::start_with(&["WITH_TM"], &[], Builder::new());
    for (tool, words) in [
        (Kamcmd, "tm.stats"),
        (Kamctl, "rpc tm.stats"),
        (Kamcli, "rpc tm.stats"),
    ] {
        let said = both.same(tool, words);
        assert!(said.contains("delayed_free"), "{tool:?} {words}: {said}");
    }
}

/// The commands that exporters and dashboards for Kamailio use.
const STATISTICS: [&str; 7] = [
    "sl.stats",
    "core.tcp_info",
    "core.shmmem",
    "core.info",
    "stats.get_statistics all",
    "stats.fetch all",
    "stats.fetchn all",
];

#[test]
fn peers_statistics_have_the_same_names_in_the_same_order() {
    let both = Both::start_with(&["WITH_STATISTICS"], &[], Builder::new());
    for tool in [Kamcmd, Kamctl, Kamcli] {
        for command in STATISTICS {
            let words = match tool {
                Kamcmd => command.to_owned(),
                Kamctl | Kamcli => format!("rpc {command}"),
            };
            let [kamailio, portcullis] =
                [&both.kamailio, &both.portcullis].map(|tools| forms(&tools.run(tool, &words)));
            assert!(kamailio.len() >= 5, "{tool:?} {words}: {kamailio:?}");
            // A statistic that the host does not count is missing; all others are there in Kamailio's order and form.
            let mut rest = kamailio.iter();
            for line in &portcullis {
                let found = rest.any(|other| other == line);
                assert!(found, "{tool:?} {words}: {line} is not in {kamailio:?}");
            }
            let is_part = command.starts_with("stats.");
            let enough = if is_part { 50 } else { kamailio.len() };
            assert!(
                portcullis.len() >= enough,
                "{tool:?} {words}: {portcullis:?}"
            );
        }
    }
    for (tool, words) in [
        (Kamcmd, "core.shmmem x"),
        (Kamcmd, "stats.fetch"),
        (Kamcmd, "stats.fetch nosuch"),
        (Kamcmd, "stats.fetch nosuch:"),
        (Kamcmd, "stats.get_statistics"),
        (Kamcmd, "stats.get_statistics core:rcv_requests"),
        (Kamcmd, "stats.fetch 401_replies"),
        (Kamctl, "rpc stats.fetch 401_replies tcp_nosuch sendq_full"),
        (Kamctl, "rpc stats.fetchn 401_replies"),
        (Kamcli, "rpc stats.get_statistics 401_replies"),
    ] {
        both.same(tool, words);
    }

    // The same rejection is counted by both, under the same names.
    let mut caller = both._host.udp(10);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    caller.ask(&request);
    caller.turn_to(both._host.lease().addr(4, 5060));
    caller.ask(&request);
    let counted = |tools: &Tools| {
        let said = tools.run(Kamcmd, "stats.get_statistics core: sent_replies");
        let numbers = said.lines().filter(|line| !line.ends_with("= 0"));
        numbers.map(str::to_owned).collect::<Vec<_>>()
    };
    // Kamailio counts a reply after it has sent it.
    let kamailio = until("Kamailio has counted its reply", || {
        let counted = counted(&both.kamailio);
        let reply = "sl:sent_replies = 1".to_owned();
        counted.contains(&reply).then_some(counted)
    });
    assert!(kamailio.contains(&"core:rcv_requests_message = 1".to_owned()));
    assert_eq!(counted(&both.portcullis), kamailio);
}

/// The lines of a reply without their values: names, and whether each value is a number or a text.
fn forms(said: &str) -> Vec<String> {
    let lines = said.lines().filter_map(|line| {
        let at = line.rfind(" = ").or_else(|| line.find(": "))?;
        let value = line[at..].trim_start_matches([' ', '=', ':']);
        let kind = match value.starts_with(|c: char| c.is_ascii_digit()) {
            true => "number",
            false => "text",
        };
        Some(format!("{} {kind}", &line[..at]))
    });
    lines.collect()
}

#[test]
fn peers_lists_of_transactions_look_the_same_and_both_cancel_a_call() {
    let builder = Builder::new();
    let [callee, kamailio] = [(3, 5080), (4, 5060)].map(|(n, port)| builder.lease().addr(n, port));
    let next = callee.to_string();
    let builder = builder
        .policy(policy("observe"))
        .set("relay", &format!("next-hop = \"sip:{next}\""));
    let callee = Peer::udp_at(callee);
    let both = Both::start_with(&["WITH_TM", "RELAY"], &[("NEXT", next)], builder);
    let listed = |tool, words| {
        let all = [&both.kamailio, &both.portcullis].map(|tools| tools.run(tool, words));
        let [of_kamailio, of_portcullis] = all.map(|said| without_numbers(&said));
        assert_eq!(of_portcullis, of_kamailio, "{tool:?} {words}");
        of_kamailio
    };
    let lists = [
        (Kamcmd, "tm.list"),
        (Kamctl, "rpc tm.list"),
        (Kamcli, "rpc tm.list"),
    ];
    for (tool, words) in lists {
        listed(tool, words);
    }

    let mut caller = both._host.udp(10);
    let invite = caller.request("INVITE", "sip:bob@example.com");
    caller.send(&invite.bytes());
    caller.turn_to(kamailio);
    caller.send(&invite.bytes());
    for n in 0..2 {
        callee.answer(&callee.nth_request(n, "INVITE"), 180);
    }
    for (tool, words) in lists {
        let said = listed(tool, words);
        for text in ["outgoings", "From: ", "INVITE"] {
            assert!(said.contains(text), "{tool:?} {words}: {said}");
        }
    }

    let call = Message::new(invite.bytes());
    let call_id = call.header("Call-ID").expect("it has one");
    let cseq = call.header("CSeq").expect("it has one");
    let cseq = cseq.split(' ').next().expect("it has a number");
    both.same(Kamcmd, "tm.cancel");
    both.same(Kamcmd, &format!("tm.cancel nobody s:{cseq}"));
    both.same(Kamcmd, &format!("tm.cancel {call_id} s:77"));
    let said = both.same(Kamcmd, &format!("tm.cancel {call_id} s:{cseq}"));
    assert!(said.contains("branches remaining"), "{said}");
    for n in 0..2 {
        callee.nth_request(n, "CANCEL");
    }
}

/// What a tool says of transactions, without the values that belong to one server: places in memory and in tables, and times.
fn without_numbers(said: &str) -> String {
    let is_own = |line: &&str| {
        let line = line.trim_start_matches([' ', '\t', '"']);
        let own = ["cell", "tindex", "tlabel", "lifetime"];
        own.iter().any(|name| line.starts_with(name))
    };
    let lines = said.lines().map(|line| match is_own(&line) {
        true => line.split_once(':').map_or(line, |(name, _)| name),
        false => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn peers_names_in_json_are_a_list() {
    let both = Both::start();
    both.database.sql("kamailio", ROWS);
    both.same(Kamcmd, "permissions.addressReload");
    let words = "rpc permissions.domainDump";
    let rows = |tools: &Tools, tool| fields(&tools.run(tool, words));
    let kamailio = rows(&both.kamailio, Kamctl);
    assert_eq!(kamailio.len(), 3 * 5, "{kamailio:?}");
    assert_eq!(rows(&both.portcullis, Kamctl), kamailio);
    let [seen, all] = [&both.kamailio, &both.portcullis].map(|tools| rows(tools, Kamcli).len());
    assert!(
        all == 3 * 5 && seen < all,
        "{NAMES_IN_JSON:?}: {seen}, {all}"
    );
}

/// Peers in one bucket and in many, with every transport, patterns, tags and priorities of all kinds.
const PEERS: &str = "INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES \
    ('10.0.0.1', 'any', NULL, NULL, NULL, 0), ('10.0.0.1', 'udp', '^sip:.*@example\\\\.com$', NULL, 'Peer', 9), \
    ('10.0.0.1', 'TCP', '', '', '', 5), ('10.0.0.1', 'tcp', NULL, '^sip:', 'equal', 5), ('10.0.0.1', 'none', NULL, NULL, 'rests', 1), \
    ('2001:db8::1', 'tls', NULL, '@example', 'six', -3), ('192.168.1.1', 'sctp', 'a \"quoted\" one', NULL, 'x', 2147483647), \
    ('sip.example.com', 'ws', NULL, NULL, NULL, 0), ('203.0.113.7', 'wss', NULL, NULL, NULL, 7)";

#[test]
fn peers_trusted_dumps_and_reloads_look_the_same() {
    let both = Both::start_with(&["WITH_TRUSTED"], &[], Builder::new());
    for rows in ["", PEERS, "DELETE FROM trusted WHERE priority < 5"] {
        both.database.sql("kamailio", rows);
        for (tool, words) in TRUSTED_RELOADS {
            let said = both.same(tool, words);
            assert!(said.contains("Reload OK"), "{tool:?} {words}: {said}");
        }
        both.same(Kamcmd, "permissions.trustedDump");
    }
    both.database.sql("kamailio", PEERS);
    both.same(Kamcmd, "permissions.trustedReload");
    let said = both.same(Kamcmd, "permissions.trustedDump");
    assert!(said.contains("pattern: ^sip:.*@example"), "{said}");
    // In JSON, the names of an object repeat for each row. The rows and their order are compared nevertheless.
    for words in ["trusted dump", "rpc permissions.trustedDump"] {
        let [kamailio, portcullis] = [&both.kamailio, &both.portcullis]
            .map(|tools| fields_of(&tools.run(Kamctl, words), &PEER_FIELDS));
        assert!(kamailio.len() > 3 * PEER_FIELDS.len(), "{kamailio:?}");
        assert_eq!(portcullis, kamailio, "{NAMES_IN_JSON:?}: {words}");
    }
    both.database
        .sql("kamailio", "RENAME TABLE trusted TO elsewhere");
    for (tool, words) in TRUSTED_RELOADS {
        let [kamailio, portcullis] =
            [&both.kamailio, &both.portcullis].map(|tools| tools.run(tool, words));
        assert!(kamailio.contains("Reload failed."), "{words}: {kamailio}");
        let (kamailio, portcullis) = (without_data(&kamailio), without_data(&portcullis));
        assert_eq!(portcullis, kamailio, "{FAULT_DATA:?}: {tool:?} {words}");
    }
}

/// Rows that `kamctl` writes, and what all tools say of them. Each row has a priority of its own.
#[test]
fn peers_the_dispatcher_looks_the_same() {
    let builder = Builder::new().set("dispatcher", "ping = \"0s\"");
    let both = Both::start_with(&["WITH_TM", "WITH_DISPATCHER"], &[], builder);
    let lists = || {
        for (tool, words) in DISPATCHER_LISTS {
            let [kamailio, portcullis] =
                [&both.kamailio, &both.portcullis].map(|tools| tools.run(tool, words));
            let (kamailio, portcullis) = (without_data(&kamailio), without_data(&portcullis));
            assert_eq!(portcullis, kamailio, "{FAULT_DATA:?}: {tool:?} {words}");
        }
    };
    let reload = || {
        for (tool, words) in DISPATCHER_RELOADS {
            let said = both.same(tool, words);
            let done = "Ok. Dispatcher successfully reloaded.";
            assert!(said.contains(done), "{tool:?} {words}: {said}");
        }
    };
    lists();
    // Both servers have one table: the tools for either of them write it.
    for words in [
        "dispatcher add 1 sip:127.0.0.1:7001 8 10 duid=a;weight=50 North",
        "dispatcher add 1 sip:127.0.0.1:7002",
        "dispatcher add 1 sip:127.0.0.1:7003;transport=tcp 1 7 duid=c;maxload=3;x=y",
        "dispatcher add 1 sip:127.0.0.1:7004 0 5 duid=d;rweight=9 South",
    ] {
        both.portcullis.run(Kamctl, words);
    }
    reload();
    lists();
    let said = both.same(Kamcmd, "dispatcher.list");
    assert_eq!(said.matches("URI: sip:127.0.0.1:70").count(), 4, "{said}");
    both.same(Kamcmd, "dispatcher.set_state ip 1 sip:127.0.0.1:7001");
    both.same(Kamcmd, "dispatcher.set_duid_state d 1 c");
    lists();

    // Kamailio forgets at a reload what an operator has said: here, it is what the row says.
    both.same(Kamcmd, "dispatcher.set_duid_state i 1 c");
    for port in [7001, 7002] {
        let id = format!("SELECT id FROM dispatcher WHERE destination = 'sip:127.0.0.1:{port}'");
        let id = both.database.sql("kamailio", &id);
        both.portcullis
            .run(Kamctl, &format!("dispatcher rm {}", id.trim()));
    }
    reload();
    let said = both.same(Kamcmd, "dispatcher.list short");
    assert_eq!(said.matches("URI: sip:127.0.0.1:70").count(), 2, "{said}");
    let said = both.same(Kamctl, "dispatcher show");
    assert!(
        said.contains("sip:127.0.0.1:7004") && !said.contains(":7001"),
        "{said}"
    );
}

#[test]
fn peers_pairs_of_texts_give_the_same_results() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let path = folder.path().join("calls").display().to_string();
    for (name, text) in [
        (
            "calls.allow",
            "\"^sip:alice@\" : \"^sip:.49\"\n# nothing\nALL : \"^sip:free@\"\n",
        ),
        ("calls.deny", "ALL : ALL EXCEPT \"^sip:112@\"\n"),
    ] {
        std::fs::write(folder.path().join(name), text).expect("a file can be written");
    }
    let builder = Builder::new().set("permissions", &format!("folder = {:?}", folder.path()));
    let values = [
        ("FILES", folder.path().display().to_string()),
        (
            "RULES",
            format!("    allow_uri(\"{path}\", \"$var(uri)\");"),
        ),
    ];
    let both = Both::start_with(&["WITH_FILES"], &values, builder);
    let mut said = Vec::new();
    for method in ["permissions.testUri", "permissions.allowUri"] {
        for words in [
            "calls sip:alice@example.com sip:+49301234",
            "calls sip:bob@example.com sip:+49301234",
            "calls sip:bob@example.com sip:free@example.com",
            "calls sip:bob@example.com sip:112@example.com",
            "calls SIP:ALICE@example.com SIP:+49",
            "unknown sip:alice@example.com sip:+49301234",
            "calls",
            "calls sip:alice@example.com",
            "calls a b c",
            "",
            &format!("{} sip:a@b sip:c@d", "b".repeat(121)),
            &format!("{} sip:a@b sip:c@d", "b".repeat(122)),
            &format!("calls sip:alice@b sip:+49{}", "1".repeat(1024 - 7)),
            &format!("calls sip:alice@b sip:+49{}", "1".repeat(1025 - 7)),
            &format!("calls sip:{} sip:112@d", "a".repeat(1024 - 4)),
        ] {
            for (tool, rpc) in [(Kamcmd, ""), (Kamctl, "rpc "), (Kamcli, "rpc ")] {
                let asked = format!("{rpc}{method} {words}");
                let kamailio = both.kamailio.run(tool, &asked.replace("calls", &path));
                let portcullis = both.portcullis.run(tool, &asked);
                assert_eq!(portcullis, kamailio, "{tool:?} {asked}");
                said.push(kamailio);
            }
        }
    }
    for answer in [
        "Allowed",
        "Denied",
        "Not enough parameters",
        "Basename is too long",
        "Contact is too long",
    ] {
        assert!(said.iter().any(|said| said.contains(answer)), "{answer}");
    }
    let beyond = format!(
        "permissions.testUri calls sip:{} sip:112@d",
        "a".repeat(1021)
    );
    let said = both.portcullis.run(Kamcmd, &beyond);
    assert_eq!(said, "error: 500 - URI is too long\n", "{LONG_TEST_URI:?}");
}

/// Removes what only Portcullis prints from a fault.
fn without_data(said: &str) -> Vec<&str> {
    let lines = said
        .lines()
        .filter(|line| !line.trim().starts_with("\"data\":"));
    lines.map(|line| line.trim_end_matches(',')).collect()
}

/// The lines with the fields of a name's row, whatever is around them.
fn fields(said: &str) -> Vec<String> {
    fields_of(said, &["table", "group", "domain_name", "port", "tag"])
}

/// The lines with these fields, whatever is around them.
fn fields_of(said: &str, names: &[&str]) -> Vec<String> {
    let is_field = |line: &&str| {
        names
            .iter()
            .any(|name| line.starts_with(&format!("\"{name}\":")))
    };
    let lines = said.lines().map(|line| line.trim().trim_end_matches(','));
    lines.filter(is_field).map(str::to_owned).collect()
}

/// All ways to ask for a reload.
const RELOADS: [(Tool, &str); 5] = [
    (Kamcmd, "permissions.addressReload"),
    (Kamctl, "address reload"),
    (Kamctl, "rpc permissions.addressReload"),
    (Kamcli, "address reload"),
    (Kamcli, "rpc permissions.addressReload"),
];

/// All ways to ask for a reload of the trusted peers.
const TRUSTED_RELOADS: [(Tool, &str); 4] = [
    (Kamcmd, "permissions.trustedReload"),
    (Kamctl, "trusted reload"),
    (Kamctl, "rpc permissions.trustedReload"),
    (Kamcli, "rpc permissions.trustedReload"),
];

/// All ways to ask for a reload of the sets.
const DISPATCHER_RELOADS: [(Tool, &str); 5] = [
    (Kamcmd, "dispatcher.reload"),
    (Kamctl, "dispatcher reload"),
    (Kamctl, "rpc dispatcher.reload"),
    (Kamcli, "dispatcher reload"),
    (Kamcli, "rpc dispatcher.reload"),
];

/// All ways to see the sets.
const DISPATCHER_LISTS: [(Tool, &str); 5] = [
    (Kamcmd, "dispatcher.list"),
    (Kamctl, "dispatcher dump"),
    (Kamctl, "rpc dispatcher.list"),
    (Kamcli, "dispatcher list"),
    (Kamcli, "rpc dispatcher.list"),
];

/// The fields of a peer's row.
const PEER_FIELDS: [&str; 7] = [
    "table",
    "ip",
    "proto",
    "pattern",
    "ruri_pattern",
    "tag",
    "priority",
];

/// All ways to see the table, but for names in JSON.
const DUMPS: [(Tool, &str); 8] = [
    (Kamcmd, "permissions.addressDump"),
    (Kamcmd, "permissions.subnetDump"),
    (Kamcmd, "permissions.domainDump"),
    (Kamctl, "address dump"),
    (Kamctl, "rpc permissions.addressDump"),
    (Kamctl, "rpc permissions.subnetDump"),
    (Kamcli, "rpc permissions.addressDump"),
    (Kamcli, "rpc permissions.subnetDump"),
];
