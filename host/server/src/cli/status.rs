//! `portcullis status`: how the running host is doing.

use std::io::Write;
use std::process::ExitCode;

use portcullis_config::Config;
use portcullis_control::commands::status::{
    AddressStatus, ExchangeStatus, HostStatus, LoadHistory, RulesStatus, TransactionsStatus,
    TroubleStatus, TrustedStatus,
};
use serde_json::json;

use super::client::{Client, Reach};
use super::print::{Format, clean, count, stdout, write_json};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    reach: Reach,
}

pub(super) fn run(args: &Args, config: &Config) -> anyhow::Result<ExitCode> {
    let client = Client::new(config, &args.reach)?;
    let status: HostStatus = client.call("portcullis.status", json!([]))?;
    let out = &mut stdout();
    match args.format.json {
        true => write_json(out, &status)?,
        false => write(&status, out)?,
    }
    Ok(match status.ready {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// What is wrong comes first.
fn write(status: &HostStatus, out: &mut impl Write) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    let mut add = |label: &'static str, text: String| lines.push((label, text));
    match status.ready {
        true => add("ready", "yes".to_owned()),
        false => add("ready", format!("no: {}", status.missing.join("; "))),
    }
    if let Some(loading) = &status.loading {
        let text = format!("{} of {} policies ready", loading.ready, loading.policies);
        add("loading", text);
    }
    for alert in &status.alerts {
        add("alert", alert.clone());
    }
    for hop in &status.next_hops_down {
        add(
            "down",
            format!(
                "next hop {} since {}: {}; {} not delivered",
                hop.next_hop,
                hop.down_since,
                hop.error,
                count(hop.undelivered, "request")
            ),
        );
    }
    for (event, trouble) in &status.troubles {
        add("trouble", told(event, trouble));
    }
    for (kind, calls) in &status.policy_failures {
        add(
            "failures",
            format!("{kind}: {}", count(*calls, "policy call")),
        );
    }
    if let Some(error) = status.records.as_ref().and_then(|of| of.error.as_ref()) {
        add("records", format!("cannot be written: {error}"));
    }
    if let Some(error) = status
        .pushed_policies
        .as_ref()
        .and_then(|of| of.error.as_ref())
    {
        add("database", format!("of pushed policies: {error}"));
    }
    add(
        "version",
        format!(
            "{}, process {} since {}, {}",
            status.version,
            status.pid,
            status.started_at,
            count(status.workers, "worker")
        ),
    );
    add("listen", status.listen.join(" "));
    add("control", status.control.join(" "));
    add("addresses", addresses(&status.addresses));
    add("trusted", trusted(&status.trusted));
    add("rules", rules(&status.rules));
    add("policy", policy(status));
    add("tenants", status.tenants.to_string());
    if let Some(of) = &status.transactions {
        add("transactions", transactions(of));
    }
    if let Some(of) = &status.exchange {
        add("exchange", exchange(of));
    }
    for (label, text) in lines {
        writeln!(out, "{:<14}{}", format!("{label}:"), clean(&text))?;
    }
    Ok(())
}

fn exchange(of: &ExchangeStatus) -> String {
    let mut text = match of.hosts {
        Some(hosts) => format!("{} through {}", count(hosts, "host"), of.server),
        None if of.last_hosts > 1 => format!(
            "other hosts not heard for {} ms: this host limits a share of 1/{}",
            of.lag_ms, of.last_hosts
        ),
        None => "other hosts not heard: this host counts alone".to_owned(),
    };
    if let Some(error) = &of.error {
        text += &format!("; {error}");
    }
    text
}

fn told(event: &str, trouble: &TroubleStatus) -> String {
    let times = count(trouble.count, "time");
    match &trouble.last {
        Some(last) => format!("{event}, {times}, last at {}: {}", last.at, last.text),
        None => format!("{event}, {times}"),
    }
}

fn addresses(of: &AddressStatus) -> String {
    let place = of.address_file.as_ref().unwrap_or(&of.database);
    let text = format!("{} from {place}", of.table.rows);
    let text = with_unusable(text, of.table.skipped, of.error.as_ref());
    match &of.database_down_since {
        Some(since) => format!("{text}; the database has not answered since {since}"),
        None => text,
    }
}

fn trusted(of: &TrustedStatus) -> String {
    let text = count(of.table.rows, "peer");
    let LoadHistory { error, .. } = &of.history;
    with_unusable(text, of.table.skipped, error.as_ref())
}

fn rules(of: &RulesStatus) -> String {
    let text = count(of.rules.files, "file");
    let LoadHistory { error, .. } = &of.history;
    with_unusable(text, of.rules.skipped, error.as_ref())
}

/// A table or files, with what of them cannot be used, and the error of the last load.
fn with_unusable(mut text: String, skipped: u64, error: Option<&String>) -> String {
    if skipped > 0 {
        text += &format!(", {skipped} skipped: `portcullis check` says why");
    }
    if let Some(error) = error {
        text += &format!("; the last load failed: {error}");
    }
    text
}

fn policy(status: &HostStatus) -> String {
    let of = &status.policy;
    let (Some(name), Some(generation)) = (&of.name, of.generation) else {
        return "none: its `default` decides".to_owned();
    };
    let mut text = format!("{name} generation {generation}, {}", of.mode);
    if let Some(stats) = &of.stats {
        text += &format!(", {}", count(stats.calls, "call"));
    }
    if let Some(candidate) = &of.candidate {
        text += &format!(", candidate {candidate}");
    }
    if let Some(error) = &of.error {
        text += &format!("; its new file cannot be used: {error}");
    }
    text
}

fn transactions(of: &TransactionsStatus) -> String {
    format!(
        "{} in progress, {} begun, {} rejected because of a limit",
        of.active, of.begun, of.shed
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The reply of a host, as far as it is shown.
    fn reply() -> Value {
        let load = |rest: Value| {
            let mut all = json!({
                "generation": 1, "skipped": 0, "warned": 0, "errors": [], "warnings": [], "loaded_at": "1970-01-01T00:00:01Z", "took_ms": 1,
                "loads": 1, "failed_loads": 0, "error": null
            });
            let members = rest.as_object().unwrap().clone();
            all.as_object_mut().unwrap().extend(members);
            all
        };
        json!({
            "version": "0.1.0", "pid": 7, "ready": true, "missing": [], "started_at": "1970-01-01T00:00:01Z", "workers": 2,
            "listen": ["udp:127.0.0.1:5060"], "control": ["http://127.0.0.1:8060"],
            "addresses": load(json!({
                "rows": "1 row (1 host, 0 subnets, 0 names)", "hosts": 1, "subnets": 0, "domains": 0, "memory_bytes": 1,
                "database": "sqlite:portcullis.db", "address_file": null, "changes_seen_by": null, "database_down_since": null
            })),
            "trusted": load(json!({"rows": 0, "table_is_absent": false, "ignored": 0})),
            "rules": load(json!({"files": 2, "sets": []})),
            "policy": {
                "seat": "default", "file": null, "name": null, "generation": null, "digest": null, "loaded_at": null, "mode": "enforce",
                "candidate": null, "previous": null, "loads": 0, "failed_loads": 0, "live_generations": 0, "sandboxes": "0 of 1",
                "error": null, "error_at": null, "alert": null, "failed_calls": 0, "last_failure": null
            },
            "tenants": 0, "loading": null, "alerts": [], "policy_failures": {}, "troubles": {}, "next_hops_down": [],
            "transactions": null, "records": null, "pushed_policies": null
        })
    }

    fn shown(reply: Value) -> String {
        let status: HostStatus = serde_json::from_value(reply).unwrap();
        let mut out = Vec::new();
        write(&status, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_quiet_host_shows_what_it_is() {
        assert_eq!(
            shown(reply()),
            "ready:        yes\n\
             version:      0.1.0, process 7 since 1970-01-01T00:00:01Z, 2 workers\n\
             listen:       udp:127.0.0.1:5060\n\
             control:      http://127.0.0.1:8060\n\
             addresses:    1 row (1 host, 0 subnets, 0 names) from sqlite:portcullis.db\n\
             trusted:      0 peers\n\
             rules:        2 files\n\
             policy:       none: its `default` decides\n\
             tenants:      0\n"
        );
    }

    #[test]
    fn the_exchange_says_with_how_many_hosts_and_what_fails() {
        let mut reply = reply();
        reply["exchange"] = json!({
            "hosts": 3, "last_hosts": 3, "server": "127.0.0.1:6379", "lag_ms": 12, "clock_ahead_ms": 0, "error": null
        });
        let line = "exchange:     3 hosts through 127.0.0.1:6379\n";
        assert!(shown(reply.clone()).ends_with(line));
        reply["exchange"]["hosts"] = json!(null);
        reply["exchange"]["lag_ms"] = json!(4000);
        reply["exchange"]["error"] = json!("it does not answer");
        let line = "exchange:     other hosts not heard for 4000 ms: this host limits a share of 1/3; it does not answer\n";
        assert!(shown(reply).ends_with(line));
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let mut reply = reply();
        let at = "1970-01-01T00:00:02Z";
        reply["ready"] = json!(false);
        reply["missing"] = json!(["the address table is not loaded"]);
        reply["alerts"] = json!(["acme: out of service\u{1b}[2J"]);
        reply["next_hops_down"] = json!([{
            "next_hop": "192.0.2.1:5060", "down_since": at, "undelivered": 1, "error": "refused", "call_id": "a"
        }]);
        reply["troubles"]["nowhere_to_go"] = json!({"count": 2, "last": {
            "at": at, "peer": null, "tenant": null, "call_id": "a", "decision": null, "text": "set next-hop"
        }});
        reply["policy_failures"] = json!({"trap": 1});
        reply["addresses"]["skipped"] = json!(3);
        reply["addresses"]["error"] = json!("no such table");
        reply["addresses"]["database_down_since"] = json!(at);
        let text = shown(reply);
        let first = "ready:        no: the address table is not loaded\n\
                     alert:        acme: out of service\\u{1b}[2J\n\
                     down:         next hop 192.0.2.1:5060 since 1970-01-01T00:00:02Z: refused; 1 request not delivered\n\
                     trouble:      nowhere_to_go, 2 times, last at 1970-01-01T00:00:02Z: set next-hop\n\
                     failures:     trap: 1 policy call\n\
                     version:      0.1.0";
        assert!(text.starts_with(first), "{text}");
        let table = "addresses:    1 row (1 host, 0 subnets, 0 names) from sqlite:portcullis.db, 3 skipped: `portcullis check` says why; the last \
                     load failed: no such table; the database has not answered since 1970-01-01T00:00:02Z\n";
        assert!(text.contains(table), "{text}");
    }
}
