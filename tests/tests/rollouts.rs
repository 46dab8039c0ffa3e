//! Changes of a seat on all hosts of a database: a push that waits for them, and roll-outs in steps.

#![forbid(unsafe_code)]

use portcullis_testkit::guests::{guest, rejecting};
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::mariadb::MariaDb;
use portcullis_testkit::wait;
use serde_json::{Value, json};

fn builder(database: &MariaDb, name: &str) -> Builder {
    Builder::new()
        .database(&database.url())
        .set("fleet", &format!("name = {name:?}"))
        .set("fleet", "interval = \"200ms\"")
        .set("tenants.acme", "uri-domains = [\"example.com\"]")
}

/// Three hosts that know each other.
fn three(database: &MariaDb) -> Vec<Host> {
    let names = ["edge-1", "edge-2", "edge-3"];
    let hosts = names.map(|name| builder(database, name).start());
    wait::until("all three announce themselves", || {
        let is_serving = |host: &Value| host["stage"] == "serving";
        let fleet = fleet(&hosts[0]);
        (fleet.len() == 3 && fleet.iter().all(is_serving)).then_some(())
    });
    hosts.into()
}

fn fleet(host: &Host) -> Vec<Value> {
    let status: Value = serde_json::from_str(&host.run("fleet status --json")).expect("JSON");
    status["hosts"].as_array().expect("hosts").clone()
}

fn answer(host: &Host) -> String {
    let mut caller = host.udp(10);
    let request = caller.request("MESSAGE", "sip:bob@example.com");
    let answer = caller.ask(&request);
    answer
        .start_line()
        .trim_start_matches("SIP/2.0 ")
        .to_owned()
}

fn rollout(host: &Host) -> Value {
    serde_json::from_str(&host.run("fleet rollout status acme --json")).expect("JSON")
}

/// A push answers when all hosts have it. One that is stopped, and one that cannot use the file, are named.
#[test]
fn peers_a_push_is_live_on_all_hosts_or_names_those_where_it_is_not() {
    let database = MariaDb::start();
    let hosts = three(&database);
    let one = &hosts[0];
    one.write("one.wasm", rejecting(486, "one"));
    let said = one.run("policy push acme one.wasm --activate --wait 60s");
    assert!(said.contains("\nin effect on 3 hosts\n"), "{said}");
    for host in &hosts {
        assert_eq!(answer(host), "486 one");
    }
    let query = "arrival=activate&wait=60s";
    let (status, pushed) = one.push("acme", query, &rejecting(486, "two"));
    assert_eq!(status, 201, "{pushed}");
    let all = json!({"total": 3, "live": 3, "behind": []});
    assert_eq!(pushed["hosts"], all);
    for host in &hosts {
        assert_eq!(answer(host), "486 two");
    }
    let said = hosts[1].run("fleet push one.wasm --help");
    assert!(said.contains("--seat"), "{said}");
    hosts[1].write("three.wasm", rejecting(486, "three"));
    let said = hosts[1].run("fleet push three.wasm --seat acme --activate --wait 60s");
    let rows = said.lines().filter(|line| line.starts_with("edge-"));
    assert_eq!(rows.count(), 3, "{said}");

    hosts[2].signal("STOP");
    let said = one.refused("policy rollback acme --wait 1s");
    hosts[2].signal("CONT");
    let expected = "it is stored, and in effect on 2 of 3 hosts; not yet on edge-3 (";
    assert!(said.contains(expected), "{said}");
    assert_eq!(answer(one), "486 two");
    wait::until("the third one follows", || {
        (answer(&hosts[2]) == "486 two").then_some(())
    });

    // A key that has signed none of the policies.
    let key = "ann = \"11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\"";
    let strict = builder(&database, "edge-4").set("tenants.acme.signers", key);
    let _strict = strict.start();
    wait::until("the fourth one announces itself", || {
        (fleet(one).len() == 4).then_some(())
    });
    let said = one.refused("policy activate acme 1 --wait 60s");
    let expected = "in effect on 3 of 4 hosts; not yet on edge-4 (";
    assert!(said.contains(expected) && said.contains("sign"), "{said}");
    for host in &hosts {
        assert_eq!(answer(host), "486 one");
    }
}

/// `apply` does the whole folder, and names the hosts that do not have a policy of it.
#[test]
fn peers_apply_names_the_hosts_that_are_behind() {
    let database = MariaDb::start();
    let hosts = three(&database);
    let one = &hosts[0];
    let folder = one.folder().join("state/policies");
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    one.write("state/policies/acme.wasm", rejecting(486, "one"));
    hosts[2].signal("STOP");
    let output = one.command("apply -f state --yes");
    hosts[2].signal("CONT");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}{wrong}");
    assert!(said.ends_with("done: 1 change\n"), "{said}");
    let expected =
        "error: policy acme: it is stored, and in effect on 2 of 3 hosts; not yet on edge-3 (";
    assert!(wrong.contains(expected), "{wrong}");
    wait::until("the third one follows", || {
        (answer(&hosts[2]) == "486 one").then_some(())
    });
    let again = one.run("apply -f state --yes");
    assert!(again.contains("no changes"), "{again}");
}

/// A good generation gets everywhere although the host that moves it is killed; one that traps is taken back everywhere at 1 %.
#[test]
fn peers_a_roll_out_reaches_all_hosts_or_is_taken_back_from_all() {
    let database = MariaDb::start();
    let mut hosts = three(&database);
    hosts[0].write("old.wasm", rejecting(480, "old"));
    hosts[0].write("new.wasm", rejecting(486, "new"));
    hosts[0].write("bad.wasm", guest("trap"));
    hosts[0].run("policy push acme old.wasm --activate --wait 60s");
    hosts[0].run("policy push acme new.wasm");
    // The new one is meant to answer otherwise.
    let plan =
        "--steps 1%,10%,100% --step-time 3s --min-calls 0 --max-latency off --max-differing off";
    let said = hosts[0].run(&format!("fleet rollout start acme --generation 2 {plan}"));
    assert!(
        said.starts_with("acme: generation 2, running, step 1% (1 of 3)"),
        "{said}"
    );
    let refused = hosts[1].refused("fleet rollout start acme --generation 2");
    assert!(refused.contains("is being rolled out"), "{refused}");
    let leader = wait::until("a host leads", || {
        let leader = rollout(&hosts[1])["leader"].as_str()?.to_owned();
        let name = leader.split('/').next()?;
        name.strip_prefix("edge-")?.parse::<usize>().ok()
    });
    let mut killed = hosts.remove(leader - 1);
    killed.signal("KILL");
    killed.wait_until_ended();
    wait::until("the generation is active", || {
        let now = rollout(&hosts[0]);
        assert_ne!(now["state"], "rolled-back", "{now}");
        assert_ne!(now["state"], "aborted", "{now}");
        (now["state"] == "done").then_some(())
    });
    for host in &hosts {
        wait::until("each host that is left has it", || {
            (answer(host) == "486 new").then_some(())
        });
    }
    wait::until("the audit has the steps", || {
        let audit = hosts[0].run("audit");
        let steps = ["step 3 of 3: 100%", "done: the generation is active"];
        steps.iter().all(|step| audit.contains(step)).then_some(())
    });

    let host = &hosts[0];
    // The file is in the folder of the first host, which may be the one that was killed.
    host.write("bad.wasm", guest("trap"));
    host.run("policy push acme bad.wasm");
    host.run("fleet rollout start acme --generation 3 --steps 1%,100% --max-differing off");
    host.run("fleet rollout pause acme");
    // A pause does not keep a generation that fails.
    let back = wait::until("one dialog in a hundred fails", || {
        hosts.iter().for_each(|host| drop(answer(host)));
        let now = rollout(host);
        (now["state"] == "rolled-back").then_some(now)
    });
    let why = back["why"].as_str().expect("a reason");
    assert!(why.starts_with("failures: "), "{why}");
    assert_eq!(back["step"], 1);
    for host in &hosts {
        wait::until("the candidate is gone, and the alert tells", || {
            let seats = host.run("policy status acme --json");
            let seat: Value = serde_json::from_str(&seats).expect("JSON");
            let alerts = host.run("alert list");
            (seat["candidate"].is_null() && alerts.contains("rolled back on all hosts"))
                .then_some(())
        });
        assert_eq!(answer(host), "486 new");
        wait::until("the metric counts it", || {
            let back = host.metric("portcullis_rollouts", &["state=\"rolled-back\""]);
            (back > 0.5).then_some(())
        });
    }
    let logs: usize = hosts
        .iter()
        .map(|host| host.log().matches("event=\"rollout_rolled_back\"").count())
        .sum();
    assert_eq!(logs, 1, "one host moves it");
    host.run("fleet rollout abort acme");
    wait::until("the alert has ended", || {
        (!host.run("alert list").contains("rolled back on all hosts")).then_some(())
    });
    let refused = host.refused("fleet rollout abort acme");
    assert!(
        refused.contains("is aborted, and cannot be aborted"),
        "{refused}"
    );
}

/// A canary that answers otherwise is taken back long before its few calls would tell: the other 99 % of the requests are compared beside.
#[test]
fn peers_a_canary_whose_verdicts_differ_is_taken_back_although_it_decides_little() {
    let database = MariaDb::start();
    let hosts = three(&database);
    let host = &hosts[0];
    host.write("old.wasm", rejecting(480, "old"));
    host.write("new.wasm", rejecting(486, "new"));
    host.run("policy push acme old.wasm --activate --wait 60s");
    host.run("policy push acme new.wasm");
    host.run("fleet rollout start acme --generation 2 --steps 0.01%,100% --max-latency off");
    let back = wait::until("the verdicts of two requests have been compared", || {
        hosts.iter().for_each(|host| drop(answer(host)));
        let now = rollout(host);
        (now["state"] == "rolled-back").then_some(now)
    });
    let why = back["why"].as_str().expect("a reason");
    assert!(why.starts_with("differing verdicts: "), "{why}");
    assert_eq!(back["step"], 1);
    for host in &hosts {
        wait::until("the old one decides everywhere", || {
            let seat: Value =
                serde_json::from_str(&host.run("policy status acme --json")).expect("JSON");
            seat["candidate"].is_null().then_some(())
        });
        assert_eq!(answer(host), "480 old");
    }
}
