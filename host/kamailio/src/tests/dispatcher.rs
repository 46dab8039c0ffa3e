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
    let said = said(&import).join("\n");
    for text in [
        "ds_ping_interval = 10: destinations are not probed",
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
