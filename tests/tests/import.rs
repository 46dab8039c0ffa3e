//! `portcullis import` with realistic configurations.

#![forbid(unsafe_code)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use portcullis_testkit::binary;
use portcullis_testkit::certificates::{authority, certificate};
use portcullis_testkit::kamailio::Kamailio;
use portcullis_testkit::lease::Lease;

fn run(folder: &Path, words: &str) -> Output {
    Command::new(binary())
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .args(words.split_whitespace())
        .output()
        .expect("portcullis runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A configuration of the kind that an operator of trunks has.
const TRUNKS: &str = r#"#!KAMAILIO
/* the edge towards the carriers */
#!define DBURL "mysql://kamailio:kamailiorw@127.0.0.1/kamailio"
debug=2
children=4
listen=udp:127.0.0.1:5060 advertise 198.51.100.7:5060
listen=tls:127.0.0.1:5061
alias="sip.example.com"
loadmodule "sl.so"
loadmodule "permissions.so"
modparam("permissions", "db_url", DBURL)
modparam("permissions", "max_subnets", 4096)

request_route {
    if (allow_source_address("200")) {
        forward();
    } else {
        sl_reply("401", "Address not authorised");
    }
}
"#;

#[test]
fn a_file_is_written_once_and_only_for_its_owner() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let folder = folder.path();
    std::fs::write(folder.join("kamailio.cfg"), TRUNKS).expect("the configuration can be written");

    let printed = run(folder, "import kamailio.cfg");
    assert!(printed.status.success(), "{}", stderr(&printed));
    let written = run(folder, "import kamailio.cfg --output portcullis.toml");
    assert!(written.status.success(), "{}", stderr(&written));
    let path = folder.join("portcullis.toml");
    let text = std::fs::read_to_string(&path).expect("the file is there");
    assert_eq!(text, stdout(&printed));
    let mode = path
        .metadata()
        .expect("the file is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    for line in [
        "    \"udp:127.0.0.1:5060 advertise 198.51.100.7:5060\",  # kamailio.cfg:6",
        "url = \"mysql://kamailio:kamailiorw@127.0.0.1/kamailio\"  # kamailio.cfg:11",
        "    \"sip.example.com\",  # kamailio.cfg:8",
        "level = \"info\"  # kamailio.cfg:4",
    ] {
        assert!(
            text.lines().any(|other| other == line),
            "{line} is not in\n{text}"
        );
    }
    let said = stderr(&written);
    for line in [
        "kamailio.cfg:7: listen = \"tls:127.0.0.1:5061\" cannot be taken over: a TLS address without a certificate; add a section [tls.NAME] with `certificate` and `key`",
        "kamailio.cfg:12: permissions: max_subnets = 4096: not needed: there is no limit, and no subnet is dropped",
        "kamailio.cfg:15: allow_source_address(\"200\"): in the policy, write allow_source_address(200)",
    ] {
        assert!(
            said.lines().any(|other| other == line),
            "{line} is not in\n{said}"
        );
    }
    assert!(!said.contains("kamailiorw"), "{said}");

    std::fs::write(&path, "workers = 1\n").expect("the file can be written");
    let refused = run(folder, "import kamailio.cfg --output portcullis.toml");
    assert!(!refused.status.success());
    assert!(
        stderr(&refused).contains("portcullis.toml exists already"),
        "{}",
        stderr(&refused)
    );
    assert_eq!(
        std::fs::read_to_string(&path).expect("the file is there"),
        "workers = 1\n"
    );
    let forced = run(
        folder,
        "import kamailio.cfg --output portcullis.toml --force",
    );
    assert!(forced.status.success(), "{}", stderr(&forced));
    assert_eq!(
        std::fs::read_to_string(&path).expect("the file is there"),
        text
    );
    assert_is_accepted(folder);
}

#[test]
fn unusable_configurations_are_reported() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let absent = run(folder.path(), "import kamailio.cfg");
    assert!(!absent.status.success());
    assert!(
        stderr(&absent).starts_with("error: cannot read kamailio.cfg: "),
        "{}",
        stderr(&absent)
    );
    let bad = run(folder.path(), "import kamailio.cfg --define 1X");
    assert!(!bad.status.success());
    assert!(stderr(&bad).contains("1X"), "{}", stderr(&bad));
}

#[test]
fn peers_debians_own_configuration() {
    const STOCK: &str = "/etc/kamailio/kamailio.cfg";
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let folder = folder.path();

    let plain = run(folder, &format!("import {STOCK} --output portcullis.toml"));
    assert!(
        plain.status.success(),
        "is the package kamailio installed? {}",
        stderr(&plain)
    );
    assert_is_accepted(folder);
    let said = stderr(&plain);
    assert!(
        said.contains("#!ifdef WITH_AUTH and #!ifdef WITH_IPAUTH do not hold"),
        "{said}"
    );

    let words = "-A WITH_MYSQL -A WITH_AUTH -A WITH_IPAUTH --output portcullis.toml --force";
    let full = run(folder, &format!("import {STOCK} {words}"));
    assert!(full.status.success(), "{}", stderr(&full));
    assert_is_accepted(folder);
    let said = stderr(&full);
    assert!(
        said.contains("allow_source_address(): in the policy, write allow_source_address(1)"),
        "{said}"
    );
    let text = std::fs::read_to_string(folder.join("portcullis.toml")).expect("the file is there");
    let url = "url = \"mysql://kamailio:kamailiorw@localhost/kamailio\"  # kamailio.cfg:";
    assert!(text.contains(url), "{text}");
}

/// `portcullis check` finds no error in the configuration; the programs and hosts that it names may be missing.
#[track_caller]
fn assert_is_accepted(folder: &Path) {
    let said = stdout(&run(folder, "check"));
    let about = |line: &&str| line.starts_with("configuration ");
    let lines: Vec<_> = said.lines().filter(about).collect();
    assert_eq!(lines, ["configuration  portcullis.toml"], "{said}");
}

/// With `-c`, Kamailio prints its listen addresses.
#[test]
fn peers_kamailio_itself_would_listen_on_the_same_addresses() {
    const TRICKY: &str = r#"#!KAMAILIO
/* outer /* nested */ still a comment */
auto_aliases=no
#!define MYIP 127.0.0.9
#!define SOCK udp:MYIP:5065
#!substdef "!HOSTX!127.0.0.8!g"
#!subst "/NAMEX/127.0.0.7/i"
#!trydef MYIP 1.1.1.1
#!redef FOO 1
listen=SOCK
listen = udp : 127.0.0.3 : 5070
listen=udp:HOSTX:5066 advertise 10.1.1.1:5062
listen="namex":5067
listen=127.0.0.4 udp:127.0.0.5:5080
tcp:127.0.0.6:5081
port=5090
#!ifdef MYIP
#!ifndef FOO
listen=udp:127.0.0.50:5060
#!else
listen=udp:127.0.0.51:5060 // the one
#!endif
#!else # not seen
listen=tcp:127.0.0.52
#!endif
import_file "absent.cfg"
include_file "more.cfg"
request_route { exit; }
"#;
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let folder = folder.path();
    std::fs::write(folder.join("kamailio.cfg"), TRICKY).expect("the configuration can be written");
    std::fs::write(folder.join("more.cfg"), "listen=\n  udp:127.0.0.53:5068\n")
        .expect("a file can be written");

    let kamailio = Command::new("kamailio")
        .args(["-c", "-f"])
        .arg(folder.join("kamailio.cfg"))
        .output()
        .expect("kamailio is installed: apt-get install kamailio");
    let said = format!("{}{}", stdout(&kamailio), stderr(&kamailio));
    assert!(kamailio.status.success(), "{said}");
    let sockets = said
        .split("Listening on")
        .nth(1)
        .expect("Kamailio says where it listens");
    let sockets = sockets
        .split("Aliases:")
        .next()
        .expect("there is a first part");
    // "udp: NAME [ADDRESS]:PORT advertise …"; the address is left out where it is the name.
    let written = |line: &str| match (line.split_once(" ["), line.split_once("]:")) {
        (Some((name, _)), Some((_, rest))) => format!("{name}:{rest}"),
        _ => line.to_owned(),
    };
    let mut theirs: Vec<_> = sockets
        .lines()
        .map(|line| written(&line.trim().replacen(": ", ":", 1)))
        .filter(|line| !line.is_empty())
        .collect();
    theirs.sort();

    let text = stdout(&run(folder, "import kamailio.cfg"));
    let quoted = |line: &str| Some(line.strip_prefix("    \"")?.split('"').next()?.to_owned());
    let list = text.split("listen = [\n").nth(1).expect("there is a list");
    let mut ours: Vec<_> = list.lines().map_while(quoted).collect();
    ours.sort();
    assert_eq!(ours, theirs, "{text}\n{said}");
    assert_eq!(ours.len(), 12, "{text}");
}

/// A server of TLS with a default profile, one for a name, and one for a peer.
const SECURE: &str = r#"#!KAMAILIO
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
loadmodule "sl.so"
modparam("ctl", "binrpc", "unix:@FOLDER@/ctl")
modparam("tls", "config", "@CERTS@/tls.cfg")
request_route {
    sl_send_reply("200", "OK");
}
"#;

const TLS_CFG: &str = "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n\
    private_key = @CERTS@/edge.key\ncertificate = @CERTS@/edge.pem\n\
    [server:any]\nserver_name = sip.acme.example\nmethod = TLSv1.2+\nprivate_key = @CERTS@/acme.key\ncertificate = @CERTS@/acme.pem\n\
    [client:default]\nverify_certificate = yes\nca_list = @CERTS@/ca.pem\n";

/// The profile that OpenSSL's client gets from Kamailio by a name is the one that the import writes for the name.
#[test]
fn peers_a_tls_cfg_that_kamailio_serves_has_the_same_profiles_here() {
    let certs = tempfile::tempdir().expect("a temporary directory can be made");
    let certs = certs.path();
    authority(certs, "ca");
    certificate(certs, "edge", "DNS:edge.example");
    certificate(certs, "acme", "DNS:sip.acme.example");
    let place = certs.display().to_string();
    let write = |name: &str, text: &str| {
        std::fs::write(certs.join(name), text).expect("a file can be written");
    };
    write("tls.cfg", &TLS_CFG.replace("@CERTS@", &place));
    let lease = Lease::new();
    let (udp, tls) = (lease.addr(2, 5060), lease.addr(2, 5061));
    let values = [
        ("UDP", udp.to_string()),
        ("TLS", tls.to_string()),
        ("CERTS", place.clone()),
    ];
    let _kamailio = Kamailio::start(SECURE, &values, &[]);
    for (name, subject) in [("sip.acme.example", "acme"), ("other.example", "edge")] {
        let output = Command::new("openssl")
            .args([
                "s_client",
                "-connect",
                &tls.to_string(),
                "-servername",
                name,
            ])
            .stdin(std::process::Stdio::null())
            .output()
            .expect("openssl is installed");
        let said = stdout(&output);
        assert!(said.contains(&format!("subject=CN = {subject}")), "{said}");
    }

    let mut config = SECURE.replace("@FOLDER@", &place);
    for (name, value) in &values {
        config = config.replace(&format!("@{name}@"), value);
    }
    write("kamailio.cfg", &config);
    let imported = run(certs, "import kamailio.cfg --output portcullis.toml");
    assert!(imported.status.success(), "{}", stderr(&imported));
    assert_is_accepted(certs);
    let text = std::fs::read_to_string(certs.join("portcullis.toml")).expect("the file is there");
    for lines in [
        format!("    \"tls:{tls}\",  # kamailio.cfg:9\n"),
        format!("[tls.default]\ncertificate = \"{place}/edge.pem\"  # tls.cfg:6\n"),
        format!("[tls.sip-acme-example]\ncertificate = \"{place}/acme.pem\"  # tls.cfg:11\n"),
        "    \"sip.acme.example\",  # tls.cfg:8\n".into(),
        format!("[relay.tls]\nca = \"{place}/ca.pem\"  # tls.cfg:14\n"),
    ] {
        assert!(text.contains(&lines), "{lines} is not in\n{text}");
    }
    // The files can be used.
    let said = stdout(&run(certs, "check"));
    for part in ["[tls.default] CN=edge", "[tls.sip-acme-example] CN=acme"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}
