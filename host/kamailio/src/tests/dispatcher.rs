use super::*;

#[test]
fn parameters_of_the_dispatcher_become_keys_or_findings() {
    let import = imported(
        "loadmodule \"dispatcher.so\"\n\
         modparam(\"dispatcher\", \"table_name\", \"gateways\")\n\
         modparam(\"dispatcher\", \"setid_col\", \"pool\")\n\
         modparam(\"dispatcher\", \"list_file\", \"d.list\")\n\
         modparam(\"dispatcher\", \"ds_probing_threshold\", 2)\n\
         modparam(\"dispatcher\", \"ds_inactive_threshold\", 3)\n\
         modparam(\"dispatcher\", \"ds_hash_expire\", 3600)\n\
         modparam(\"dispatcher\", \"ds_ping_interval\", 10)\n\
         modparam(\"dispatcher\", \"db_url\", \"mysql://u:secret@h/k\")\n\
         modparam(\"dispatcher\", \"flags\", 2)\n",
    );
    let config = Config::parse(&import.text).unwrap().dispatcher;
    assert_eq!(config.names.table.as_str(), "gateways");
    assert_eq!(config.names.setid.as_str(), "pool");
    assert_eq!(config.file.as_deref(), Some(Path::new("/etc/k/d.list")));
    let thresholds = config.rules.thresholds;
    assert_eq!((thresholds.down_after, thresholds.up_after), (2, 3));
    assert_eq!(config.rules.longest_call.as_secs(), 3600);
    let pings = config.rules.pings;
    assert_eq!(pings.interval.as_secs(), 10);
    assert_eq!(
        (pings.which.name(), pings.codes.to_string()),
        ("flagged", "2xx".to_owned())
    );
    let said = said(&import).join("\n");
    for text in [
        "db_url = …: the table of the dispatcher is in the database of [database]",
        "bit 1 (failover) is always on",
        "dispatcher::relay_to_set",
    ] {
        assert!(said.contains(text), "{text}\n{said}");
    }
    assert!(
        !said.contains("secret") && !import.text.contains("secret"),
        "{said}"
    );
}

#[test]
fn pings_are_those_of_kamailio() {
    let import = imported(
        "loadmodule \"dispatcher.so\"\n\
         modparam(\"dispatcher\", \"ds_ping_interval\", 5)\n\
         modparam(\"dispatcher\", \"ds_probing_mode\", 3)\n\
         modparam(\"dispatcher\", \"ds_ping_reply_codes\", \"class=2;class=3;code=404;code=1000;ok\")\n\
         modparam(\"dispatcher\", \"ds_ping_method\", \"INFO\")\n\
         modparam(\"dispatcher\", \"ds_ping_from\", \"sip:edge@example.com\")\n\
         modparam(\"dispatcher\", \"ds_inactive_threshold\", 4)\n\
         modparam(\"dispatcher\", \"ds_ping_latency_stats\", 1)\n",
    );
    let rules = Config::parse(&import.text).unwrap().dispatcher.rules;
    let pings = rules.pings;
    assert_eq!(pings.interval.as_secs(), 5);
    assert_eq!(pings.which.name(), "flagged-always");
    assert_eq!(pings.codes.to_string(), "2xx, 3xx, 404");
    assert_eq!(
        (&*pings.method, &*pings.from),
        ("INFO", "sip:edge@example.com")
    );
    let thresholds = rules.thresholds;
    assert_eq!(
        (thresholds.down_after, thresholds.up_after),
        (1, 4),
        "one is Kamailio's default"
    );
    let said = said(&import).join("\n");
    for text in [
        "code=1000",
        "ds_ping_reply_codes: ok",
        "latencies are always measured",
    ] {
        assert!(said.contains(text), "{text}\n{said}");
    }
}

#[test]
fn nothing_is_pinged_where_kamailio_pings_nothing() {
    for text in [
        "loadmodule \"dispatcher.so\"\n",
        "loadmodule \"dispatcher.so\"\nmodparam(\"dispatcher\", \"ds_ping_interval\", 0)\n",
    ] {
        let config = Config::parse(&imported(text).text).unwrap();
        assert!(config.dispatcher.rules.pings.interval.is_zero(), "{text}");
    }
    let without = imported("debug=1\n");
    assert!(!without.text.contains("[dispatcher]"), "{}", without.text);
}
