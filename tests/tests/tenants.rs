//! Tenants of a running host: they push policies, and none can affect another.

#![forbid(unsafe_code)]

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_testkit::callee::Callee;
use portcullis_testkit::guests::{guest, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::messages::Request;
use portcullis_testkit::sip::Caller;
use portcullis_testkit::wait;

const ACME: &str = "acme-0123456789abcdef";

fn start(tenants: &[&str]) -> Host {
    let mut builder = Builder::new().workers(2);
    for name in tenants {
        let section = format!("tenants.{name}");
        builder = builder.set(&section, &format!("uri-domains = [\"{name}.example\"]"));
    }
    builder
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .start()
}

fn request(caller: &Caller, tenant: &str) -> Request {
    let request = caller.request("MESSAGE", &format!("sip:bob@{tenant}.example"));
    request
        .header("Authorization: Digest response=\"secret\"")
        .body("with a body")
}

fn answer(caller: &mut Caller, tenant: &str) -> String {
    let request = request(caller, tenant);
    let answer = caller.ask(&request);
    answer
        .start_line()
        .trim_start_matches("SIP/2.0 ")
        .to_owned()
}

/// Runs a command with the tenant's token, which must succeed, and returns its output.
fn ship(host: &Host, words: &str) -> String {
    let output = host.command_as(ACME, words);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {said}{wrong}");
    said
}

fn refused(host: &Host, words: &str) -> String {
    let output = host.command_as(ACME, words);
    assert!(!output.status.success(), "{words}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A policy that counts its calls in its memory, which is kept for three calls.
#[test]
fn memory_is_kept_for_a_number_of_calls_of_one_tenant() {
    let mut builder = Builder::new().workers(1);
    for name in ["acme", "other", "fresh"] {
        let section = format!("tenants.{name}");
        builder = builder.set(&section, &format!("uri-domains = [\"{name}.example\"]"));
        if name != "fresh" {
            builder = builder.set(&section, "reuse = \"3 calls\"");
        }
    }
    let host = builder.start();
    let mut caller = host.udp(10);
    host.write("counts.wasm", guest("stateful"));
    for name in ["acme", "other", "fresh"] {
        host.run(&format!("policy push {name} counts.wasm --activate"));
    }

    for (tenant, code) in [
        ("acme", "301"),
        ("acme", "302"),
        ("other", "301"),
        ("acme", "303"),
        ("acme", "301"),
        ("other", "302"),
        ("fresh", "301"),
        ("fresh", "301"),
    ] {
        let answer = answer(&mut caller, tenant);
        assert!(answer.starts_with(code), "{tenant}: {answer}");
    }
}

/// From the first push to a rollback, as in `docs/policies.md`.
#[test]
fn a_tenant_pushes_tries_and_rolls_back() {
    let host = start(&[]);
    let mut caller = host.udp(10);
    host.write("one.wasm", rejecting(486, "one"));
    host.write("two.wasm", rejecting(487, "two"));
    assert_eq!(answer(&mut caller, "acme"), "403 Forbidden", "nothing yet");

    let said = ship(&host, "policy push acme one.wasm --activate --note first");
    assert!(
        said.starts_with("acme: generation 1, active, sha256:"),
        "{said}"
    );
    assert_eq!(answer(&mut caller, "acme"), "486 one");

    let said = ship(&host, "policy push acme two.wasm --shadow");
    assert!(said.contains("generation 2, shadow"), "{said}");
    let early = host.command("policy diff acme");
    let early = String::from_utf8_lossy(&early.stderr).into_owned();
    assert!(early.contains("there has been no request since"), "{early}");
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    let diff = wait::until("the shadow has been asked", || {
        let diff = ship(&host, "policy diff acme");
        diff.contains("1 different").then_some(diff)
    });
    for line in [
        "serves:    reject 486 one",
        "candidate: reject 487 two",
        "MESSAGE sip:bob@acme.example SIP/2.0",
    ] {
        assert!(diff.contains(line), "{line}: {diff}");
    }

    // `diff` shows no more than records contain.
    let told = host.rpc("policy.diff", serde_json::json!(["acme"]));
    let sample = told["result"]["samples"][0]["request"].as_str();
    let sample = sample.unwrap_or_else(|| panic!("{told}"));
    assert!(
        sample.contains("Authorization: ***\r\n") && sample.ends_with("(11 bytes of body)"),
        "{sample}"
    );

    ship(&host, "policy canary acme 2 100%");
    assert_eq!(answer(&mut caller, "acme"), "487 two");
    ship(&host, "policy end-trial acme");
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    ship(&host, "policy activate acme 2");
    assert_eq!(answer(&mut caller, "acme"), "487 two");
    let listed = ship(&host, "policy list acme");
    assert!(
        listed.contains("previous") && listed.contains("active"),
        "{listed}"
    );
    ship(&host, "policy rollback acme");
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    ship(&host, "policy mode acme monitor");
    assert_eq!(answer(&mut caller, "acme"), "403 Forbidden");
    host.wait_for_log("event=\"verdict_not_enforced\"");
    ship(&host, "policy mode acme enforce");

    ship(&host, "policy pull acme --output pulled.wasm");
    let pulled = std::fs::read(host.folder().join("pulled.wasm")).expect("it was written");
    assert_eq!(pulled, rejecting(486, "one"));

    // An invalid policy changes nothing, and other seats are not accessible.
    host.write("three.wasm", guest("wasi-import"));
    let said = refused(&host, "policy push acme three.wasm --activate");
    assert!(said.contains("wasi_snapshot_preview1"), "{said}");
    for words in [
        "policy push default one.wasm",
        "policy status default",
        "policy rollback other",
    ] {
        let said = refused(&host, words);
        assert!(
            said.contains("with the tenant's own name"),
            "{words}: {said}"
        );
    }
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    // The operator sees all of it.
    let status = host.run("policy status acme");
    assert!(status.contains("policy:       one.wasm"), "{status}");
}

/// One policy loops in every request, one grows its memory, one traps, one logs without end. A fifth tenant, on the same workers, gets
/// every response, and the correct one.
#[test]
fn hostile_tenants_do_not_affect_others() {
    const HOSTILE: [(&str, &str); 4] = [
        ("loops", "loop-with-body"),
        ("grows", "memory-growth"),
        ("traps", "trap"),
        ("shouts", "log-flood"),
    ];
    const ASKED: usize = 2_000;
    let mut builder = Builder::new()
        .workers(2)
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""));
    for (tenant, _) in HOSTILE {
        let section = format!("tenants.{tenant}");
        // Even on a busy machine, a call that loops takes less than a second of the share that five tenants have: ten fail within the
        // window of the breaker.
        builder = builder
            .set(&section, &format!("uri-domains = [\"{tenant}.example\"]"))
            .set(&section, "deadline = \"10ms\"")
            .set(&section, "breaker-failures = 5");
    }
    let host = builder.start();
    host.write("good.wasm", rejecting(486, "good"));
    ship(&host, "policy push acme good.wasm --activate");
    for (tenant, name) in HOSTILE {
        host.write("bad.wasm", guest(name));
        let words = format!("policy push {tenant} bad.wasm --activate");
        host.run(&words);
    }
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for (number, (tenant, _)) in (20..).zip(HOSTILE) {
            let (stop, mut caller) = (&stop, host.udp(number));
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let line = answer(&mut caller, tenant);
                    // The tenant that logs gets its response, unless the other tenants take precedence.
                    let is_expected = line.starts_with("503 ")
                        || (tenant == "shouts" && line.starts_with("401 "));
                    assert!(is_expected, "{tenant}: {line}");
                }
            });
        }
        // The threads must end however the test ends.
        let _stop = StopOnDrop(&stop);
        let mut caller = host.udp(10);
        let answers = (0..ASKED).filter(|_| answer(&mut caller, "acme") == "486 good");
        assert_eq!(answers.count(), ASKED);
        // Policies that fail are taken out of service, and alerts are raised; the lines of the one that logs are limited.
        for tenant in ["loops", "grows", "traps"] {
            let label = format!("seat=\"{tenant}\"");
            wait::until("the alert is raised", || {
                (host.metric("portcullis_policy_alert", &[&label]) == 1.0).then_some(())
            });
        }
    });
    let label = "tenant=\"shouts\"";
    assert!(host.metric("portcullis_tenant_dropped_log_lines_total", &[label]) > 0.0);
    assert_eq!(
        host.metric("portcullis_tenant_failed_total", &["tenant=\"acme\""]),
        0.0
    );
}

/// After the host has rolled back by itself, a rollback would bring back what failed: it is refused, unless the generation is named.
#[test]
fn a_rollback_does_not_bring_back_what_failed() {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", "breaker-failures = 2")
        .start();
    for policy in [rejecting(486, "good"), guest("trap")] {
        let (status, told) = host.push("acme", "arrival=activate", &policy);
        assert_eq!(status, 201, "{told}");
    }
    let mut caller = host.udp(10);
    wait::until("the first generation serves again", || {
        (answer(&mut caller, "acme") == "486 good").then_some(())
    });
    let listed = host.run("policy list acme");
    let failed = listed.lines().find(|line| line.contains("failed"));
    assert!(failed.is_some_and(|line| line.contains("trap")), "{listed}");
    let said = host.refused("policy rollback acme");
    assert!(
        said.contains("is 2, which was taken out of service"),
        "{said}"
    );
    assert_eq!(answer(&mut caller, "acme"), "486 good");
    host.run("policy rollback acme --to 2");
    assert_ne!(answer(&mut caller, "acme"), "486 good");
}

/// One tenant takes all the CPU time, limited only by the deadline of each call: its requests are rejected. Another tenant on the same
/// worker gets every response.
#[test]
fn a_tenant_that_takes_all_the_time_is_throttled() {
    const ASKED: usize = 150;
    const AT_ONCE: usize = 20;
    let host = Builder::new()
        .workers(1)
        .set("tenants.greedy", "uri-domains = [\"greedy.example\"]")
        .set("tenants.greedy", "breaker-failures = 0")
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    for (tenant, policy) in [
        ("acme", rejecting(486, "good")),
        ("greedy", guest("loop-with-body")),
    ] {
        let (status, told) = host.push(tenant, "arrival=activate", &policy);
        assert_eq!(status, 201, "{told}");
    }
    let turned_away = |tenant: &str| {
        let labels = [
            format!("tenant=\"{tenant}\""),
            "bound=\"pressure\"".to_owned(),
        ];
        host.metric(
            "portcullis_tenant_shed_total",
            &[labels[0].as_str(), labels[1].as_str()],
        )
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let _stop = StopOnDrop(&stop);
        for number in 20..28 {
            let (stop, mut caller) = (&stop, host.udp(number));
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..AT_ONCE {
                        let request = request(&caller, "greedy");
                        caller.send(&request.bytes());
                    }
                    for _ in 0..AT_ONCE {
                        let answer = caller.receive();
                        assert!(answer.start_line().starts_with("SIP/2.0 503 "));
                    }
                }
            });
        }
        let mut caller = host.udp(10);
        wait::until("it is too much", || {
            assert_eq!(answer(&mut caller, "acme"), "486 good");
            (turned_away("greedy") > 0.0).then_some(())
        });
        for _ in 0..ASKED {
            assert_eq!(answer(&mut caller, "acme"), "486 good");
        }
    });
    assert_eq!(turned_away("acme"), 0.0);
}

/// Two hosts on one database: a policy that is pushed to one of them is active on both, and on a host that is started later.
#[test]
fn peers_pushed_policies_are_on_every_host_of_the_database() {
    let database = MariaDb::start();
    let start = || {
        Builder::new()
            .database(&database.url())
            .set("tenants.acme", "uri-domains = [\"acme.example\"]")
            .set("tenants.acme", "breaker-failures = 2")
            .start()
    };
    let (one, two) = (start(), start());
    let answer_of = |host: &Host| answer(&mut host.udp(10), "acme");
    let all_answer = |hosts: &[&Host], expected: &str| {
        for host in hosts {
            wait::until(expected, || (answer_of(host) == expected).then_some(()));
        }
    };
    one.write("one.wasm", rejecting(486, "one"));
    two.write("two.wasm", rejecting(487, "two"));
    one.run("policy push acme one.wasm --activate --author ann");
    assert_eq!(answer_of(&one), "486 one");
    all_answer(&[&two], "486 one");

    // The other host continues with the next number.
    let said = two.run("policy push acme two.wasm --activate");
    assert!(said.starts_with("acme: generation 2, active"), "{said}");
    all_answer(&[&one, &two], "487 two");
    one.run("policy rollback acme");
    all_answer(&[&one, &two], "486 one");
    let listed = two.run("policy list acme");
    assert!(
        listed.contains("ann") && listed.contains("previous"),
        "{listed}"
    );
    one.run("policy canary acme 2 100%");
    all_answer(&[&two], "487 two");
    one.run("policy end-trial acme");
    one.run("policy mode acme monitor");
    all_answer(&[&two], "403 Forbidden");
    two.run("policy mode acme enforce");
    all_answer(&[&one], "486 one");

    let three = start();
    assert_eq!(answer_of(&three), "486 one", "from the first request on");
    three.run("policy pull acme --output pulled.wasm");
    let pulled = std::fs::read(three.folder().join("pulled.wasm")).expect("it was written");
    assert_eq!(pulled, rejecting(486, "one"));

    // A policy that fails on one host is taken out of service on all hosts.
    one.write("trap.wasm", guest("trap"));
    one.run("policy push acme trap.wasm --activate");
    all_answer(&[&two], "503 Policy Failure");
    all_answer(&[&one, &two, &three], "486 one");
}

/// A database that has not been migrated: pushes work, and report that they are not stored.
#[test]
fn peers_without_its_tables_a_push_lasts_until_the_end() {
    let database = MariaDb::start();
    database.sql(
        "kamailio",
        "DROP TABLE portcullis_artifact; DROP TABLE portcullis_generation; DROP TABLE portcullis_seat;",
    );
    let host = Builder::new()
        .database(&database.url())
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .start();
    host.write("one.wasm", rejecting(486, "one"));
    let said = host.run("policy push acme one.wasm --activate");
    assert!(
        said.contains("kept until the host ends") && said.contains("portcullis db migrate"),
        "{said}"
    );
    assert_eq!(answer(&mut host.udp(10), "acme"), "486 one");
    assert!(
        host.run("db migrate")
            .contains("created table `portcullis_seat`")
    );
}

/// The configuration file changes while requests are sent: no request of another tenant is lost, and an invalid file changes nothing.
#[test]
fn tenants_come_and_go_without_a_restart() {
    let host = start(&["other"]);
    let mut caller = host.udp(10);
    host.write("one.wasm", rejecting(486, "one"));
    ship(&host, "policy push acme one.wasm --activate");
    assert_eq!(answer(&mut caller, "acme"), "486 one");
    assert_eq!(
        answer(&mut caller, "new"),
        "401 Address not authorised",
        "the operator's"
    );

    let file = host.folder().join("portcullis.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration can be read");
    let more = text
        .replace("[tenants.other]", "[tenants.new]")
        .replace("other.example", "new.example");
    let more = more.replace("\"acme.example\"", "\"acme.example\", \"acme.test\"");
    let more = format!("{more}\n[tenants.new.settings]\n");
    let more = more.replace(
        "uri-domains = [\"new.example\"]",
        "uri-domains = [\"new.example\"]\ndefault-code = 480",
    );
    std::fs::write(&file, more).expect("the configuration can be written");
    let said = host.run("tenant reload");
    assert_eq!(said, "Reload OK: added new; changed acme; removed other\n");
    assert_eq!(answer(&mut caller, "new"), "480 Temporarily Unavailable");
    assert_eq!(answer(&mut caller, "acme"), "486 one", "its policy stays");
    let request = caller.request("MESSAGE", "sip:bob@acme.test");
    assert_eq!(caller.ask(&request).code(), 486);
    let listed = host.run("tenant list");
    assert!(
        listed.contains("one.wasm") && !listed.contains("other"),
        "{listed}"
    );

    std::fs::write(&file, format!("{text}\n[tenants.Bad]\n"))
        .expect("the configuration can be written");
    let output = host.command("tenant reload");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("tenants.Bad: not a valid name of a tenant"),
        "{said}"
    );
    host.signal("HUP");
    host.wait_for_log("event=\"tenants_not_reloaded\"");
    assert_eq!(answer(&mut caller, "new"), "480 Temporarily Unavailable");
}

struct StopOnDrop<'t>(&'t AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Signatures of policies: pushed ones, those from a file, and those made by OpenSSL.
#[test]
fn unsigned_policies_do_not_come_to_serve() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let key = folder.path().join("ann.pem");
    let keygen = std::process::Command::new(portcullis_testkit::binary())
        .args(["policy", "keygen"])
        .arg(&key)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&keygen.stdout);
    let line = said.lines().last().expect("the public key");
    assert!(line.starts_with("ann = \""), "{said}");
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.acme.signers", line)
        .start();
    host.write("one.wasm", rejecting(486, "one"));
    let said = refused(&host, "policy push acme one.wasm --activate");
    assert!(
        said.contains("the policy is not signed, and this seat takes signed ones only"),
        "{said}"
    );

    host.run(&format!("policy sign one.wasm --key {}", key.display()));
    ship(&host, "policy push acme one.wasm --activate");
    assert_eq!(answer(&mut host.udp(10), "acme"), "486 one");

    // The signature of another file.
    host.write("two.wasm", rejecting(487, "two"));
    let said = refused(
        &host,
        "policy push acme two.wasm --signature one.wasm.sig --activate",
    );
    assert!(said.contains("not that of this file by ann"), "{said}");
    assert_eq!(answer(&mut host.udp(10), "acme"), "486 one");
}

/// Requests of unknown sources with a tenant's domain do not use up the share that is reserved for the tenant's known callers.
#[test]
fn strangers_do_not_spend_what_known_callers_need() {
    let builder = Builder::new();
    let known = builder.lease().ip(10);
    let host = builder
        .row(&format!("200 {known} 32 0 Trunk"))
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", "groups = [200]")
        .set("tenants.acme", "requests-per-second = 100")
        .set("tenants.acme", "requests-burst = 400")
        .start();
    let (status, told) = host.push("acme", "arrival=activate", &rejecting(486, "served"));
    assert_eq!(status, 201, "{told}");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let over = OnDrop(&is_over);
        for source in [66, 67] {
            let (host, is_over) = (&host, &is_over);
            scope.spawn(move || {
                let mut stranger = host.udp(source);
                while !is_over.load(Ordering::Relaxed) {
                    answer(&mut stranger, "acme");
                }
            });
        }
        let shed = || host.metric("portcullis_tenant_shed_total", &["acme", "rate"]);
        wait::until("the strangers have spent what they can", || {
            (shed() > 100.0).then_some(())
        });
        let before = shed();
        let mut caller = host.udp(10);
        // As many requests as the burst allows, minus those that unknown sources may have used: all of them must be served, however long it takes.
        for n in 0..150 {
            assert_eq!(answer(&mut caller, "acme"), "486 served", "request {n}");
        }
        wait::until("the strangers went on meanwhile", || {
            (shed() > before).then_some(())
        });
        drop(over);
    });
}

/// Sets the flag when it is dropped, also by a panic.
struct OnDrop<'f>(&'f AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn pushes_of_a_tenant_have_a_rate() {
    let host = Builder::new()
        .set("tenants.acme", "uri-domains = [\"acme.example\"]")
        .set("tenants.acme", &format!("token = \"{ACME}\""))
        .set("tenants.acme", "pushes-per-minute = 2")
        .start();
    host.write("one.wasm", rejecting(486, "one"));
    let push = "policy push acme one.wasm --activate";
    for _ in 0..2 {
        let said = ship(&host, push);
        // The duration would reveal whether another tenant has the same file.
        assert!(!said.contains("loaded in"), "{said}");
    }
    let said = refused(&host, push);
    assert!(
        said.contains("accepts 2 pushes per minute (key `pushes-per-minute`)"),
        "{said}"
    );
    // Rollbacks and pushes of the operator are not counted.
    ship(&host, "policy rollback acme");
    let said = host.run(push);
    assert!(said.contains("loaded in"), "{said}");
}

/// A host with the tenants `flood`, whose callees are silent, and `other`, whose callee answers.
struct Beside {
    host: Host,
    _silent: UdpSocket,
    _callee: Callee,
}

impl Beside {
    /// With these limits of transactions, and what `flood` gets above them.
    fn start(limits: &str, overload: &str) -> Self {
        let builder = Builder::new();
        let [silent, callee] = [3, 4].map(|n| builder.lease().addr(n, 5080));
        let mut builder = builder
            .set("transactions", limits)
            .set("relay.next-hops", &format!("silent = \"sip:{silent}\""))
            .set("relay.next-hops", &format!("callee = \"sip:{callee}\""));
        for (tenant, next_hop) in [("flood", "silent"), ("other", "callee")] {
            let section = format!("tenants.{tenant}");
            builder = builder
                .set(&section, &format!("uri-domains = [\"{tenant}.example\"]"))
                .set(&section, &format!("next-hop = \"{next_hop}\""))
                .set(&section, "default = \"relay\"");
        }
        builder = builder.set("tenants.flood.on-failure", overload);
        Self {
            host: builder.start(),
            _silent: UdpSocket::bind(silent).expect("the address is free"),
            _callee: Callee::start(callee),
        }
    }

    fn held(&self, tenant: &str) -> f64 {
        let label = format!("tenant=\"{tenant}\"");
        self.host
            .metric("portcullis_tenant_transactions", &[label.as_str()])
    }

    fn shed(&self, tenant: &str) -> f64 {
        let labels = [&*format!("tenant=\"{tenant}\""), "bound=\"transactions\""];
        self.host.metric("portcullis_tenant_shed_total", &labels)
    }
}

#[test]
fn a_tenant_whose_callees_are_silent_leaves_room_for_the_calls_of_others() {
    let site = Beside::start("active = 40", "");
    let mut caller = site.host.udp(10);
    for _ in 0..30 {
        let request = caller.request("MESSAGE", "sip:bob@flood.example");
        caller.send(&request.bytes());
    }
    for _ in 20..30 {
        let answer = caller.receive();
        assert_eq!(answer.code(), 503, "{}", answer.start_line());
        // With it, the sender would keep back the requests of other tenants, too.
        assert_eq!(answer.header("Retry-After"), None);
    }
    assert_eq!((site.held("flood"), site.shed("flood")), (20.0, 10.0));

    let mut other = site.host.udp(11);
    for _ in 0..30 {
        let request = other.request("MESSAGE", "sip:bob@other.example");
        assert_eq!(other.ask(&request).code(), 200);
    }
    assert_eq!((site.held("other"), site.shed("other")), (0.0, 0.0));
    let shed = site.host.metric("portcullis_transactions_shed_total", &[]);
    assert_eq!(shed, 10.0);
    site.host.wait_for_log("a new request of tenant flood");
}

#[test]
fn requests_above_the_part_of_a_tenant_get_its_answer() {
    let answers = [
        ("overload = \"reject 480 Later\"", "SIP/2.0 480 Later"),
        // The default verdict relays, which needs a transaction.
        ("overload = \"default\"", "SIP/2.0 503 Policy Failure"),
    ];
    for (overload, expected) in answers {
        let site = Beside::start("active = 4", overload);
        let mut caller = site.host.udp(10);
        for _ in 0..3 {
            let request = caller.request("MESSAGE", "sip:bob@flood.example");
            caller.send(&request.bytes());
        }
        assert_eq!(caller.receive().start_line(), expected);
        assert_eq!((site.held("flood"), site.shed("flood")), (2.0, 1.0));
    }
}

/// What the host stores for a request takes more than twice its size.
#[test]
fn a_tenant_whose_callees_are_silent_leaves_memory_for_the_calls_of_others() {
    let site = Beside::start("memory = \"1MiB\"", "");
    let (mut caller, mut other) = (site.host.udp(10), site.host.udp(11));
    let padding = format!("X-Padding: {}", "x".repeat(250));
    for n in 0..600 {
        let request = caller.request("MESSAGE", "sip:bob@flood.example");
        caller.send(&request.header(&padding).bytes());
        if n % 20 == 0 {
            // Until the host has read all of them.
            let request = other.request("MESSAGE", "sip:bob@other.example");
            assert_eq!(other.ask(&request).code(), 200, "after {n} requests");
        }
    }
    let (held, shed) = (site.held("flood"), site.shed("flood"));
    assert!(held > 100.0 && shed > 100.0, "{held} held, {shed} shed");
    assert_eq!(site.shed("other"), 0.0);
}
