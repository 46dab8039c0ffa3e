//! The log in systemd's journal: a journald of the test's own, in namespaces, and what `journalctl` finds there.

#![forbid(unsafe_code)]

use std::fs;
use std::process::Command;

use portcullis_testkit::binary;
use portcullis_testkit::lease::Lease;
use serde_json::Value;

/// Runs a host of the program `$1` with the configuration `$2`, whose control port is at `$3`, until it serves; prints what the journal has of it. All
/// processes end with this script, because it is the first one of its namespace.
const SCRIPT: &str = r#"
bounded() {
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 600 ] || { echo "\`$*\` does not succeed" >&2; exit 1; }
        sleep 0.1
    done
}
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal
/usr/lib/systemd/systemd-journald &
bounded test -S /run/systemd/journal/stdout
bounded test -S /run/systemd/journal/socket
systemd-cat --identifier=portcullis sh -c '
    # As systemd says it to a service.
    export JOURNAL_STREAM=$(stat --dereference --format=%d:%i /proc/self/fd/2)
    exec "$0" serve --config "$1"
' "$1" "$2" &
host=$!
bounded curl --fail --silent "http://$3/readyz"
kill -INT "$host"
wait "$host"
found() { journalctl --quiet --directory=/run/log/journal --identifier=portcullis "$@"; }
ended() { found --output=export | grep -q ending; }
bounded ended
# Warnings only; by the name of an event; all.
echo "warnings $(found --priority=warning --output=json | wc --lines)"
echo "named $(found EVENT=serving --output=json | wc --lines)"
found --output=json
"#;

/// What the journal has of a host with this format of the log: the numbers of its entries that are warnings, of those that `EVENT=serving` finds, and
/// all entries.
fn journal(format: &str) -> (usize, usize, Vec<Value>) {
    let lease = Lease::new();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = folder.path().join("portcullis.toml");
    let (sip, control) = (lease.addr(1, 5060), lease.addr(1, 8060));
    let database = folder.path().join("portcullis.db");
    let text = format!(
        "listen = [\"udp:{sip}\"]\n[log]\nformat = {format:?}\n[database]\nurl = \"sqlite:{}\"\n[control]\nlisten = \"{control}\"\n\
         token-file = \"{}\"\n",
        database.display(),
        folder.path().join("token").display()
    );
    fs::write(&config, text).expect("a file can be written");
    let output = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .args(["--propagation=private", "sh", "-euc", SCRIPT, "sh"])
        .arg(binary())
        .arg(&config)
        .arg(control.to_string())
        .current_dir(folder.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{failed}");
    let mut lines = said.lines();
    let mut number = |name: &str| {
        let line = lines.next().and_then(|line| line.strip_prefix(name));
        let number = line.and_then(|number| number.trim().parse().ok());
        number.unwrap_or_else(|| panic!("no number of {name}: {said}{failed}"))
    };
    let (warnings, named) = (number("warnings"), number("named"));
    let entries = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    (warnings, named, entries.collect())
}

/// The entries whose text or field names this event.
fn of<'e>(entries: &'e [Value], event: &str) -> Vec<&'e Value> {
    let of_text = format!("event=\"{event}\"");
    let of_json = format!("\"event\":\"{event}\"");
    let is_of = |entry: &&Value| {
        let text = entry["MESSAGE"].as_str().unwrap_or_default();
        entry["EVENT"] == event || text.contains(&of_text) || text.contains(&of_json)
    };
    entries.iter().filter(is_of).collect()
}

#[test]
fn peers_journalctl_finds_lines_by_their_priority() {
    for format in ["human", "json", "journal"] {
        let (warnings, named, entries) = journal(format);
        let priority = |event: &str| {
            let found = of(&entries, event);
            let [entry] = found[..] else {
                panic!("{format}: {} of {event}: {entries:#?}", found.len());
            };
            entry["PRIORITY"].as_str().map(str::to_owned)
        };
        // The test runs as root, which is a reason for a warning.
        assert_eq!(priority("runs_as_root").as_deref(), Some("4"), "{format}");
        assert_eq!(priority("serving").as_deref(), Some("6"), "{format}");
        let severe = |entry: &&Value| {
            let priority = entry["PRIORITY"].as_str().unwrap_or_default();
            priority.parse::<u8>().is_ok_and(|priority| priority <= 4)
        };
        assert_eq!(warnings, entries.iter().filter(severe).count(), "{format}");
        // The priority is not part of the text.
        let texts = entries.iter().filter_map(|entry| entry["MESSAGE"].as_str());
        assert!(texts.clone().all(|text| !text.starts_with('<')), "{format}");
        assert_eq!(named, usize::from(format == "journal"), "{format}");
        if format == "json" {
            assert!(texts.clone().all(|text| text.starts_with('{')), "{format}");
        }
    }
}
