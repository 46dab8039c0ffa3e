//! One thread with one inotify instance follows all files of a host, however many there are.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use portcullis_testkit::wait;

const CALLER: u8 = 10;
const TENANTS: u16 = 20;

fn answer(host: &Host, tenant: u16) -> String {
    let mut caller = host.udp(CALLER);
    let request = caller.request("MESSAGE", &format!("sip:bob@t{tenant}.example"));
    caller.ask(&request).start_line().to_owned()
}

fn becomes(host: &Host, tenant: u16, line: &str) {
    wait::until(&format!("the answer is {line}"), || {
        (answer(host, tenant) == line).then_some(())
    });
}

fn replace(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("next");
    fs::write(&beside, bytes).expect("a file can be written");
    fs::rename(&beside, file).expect("it can be renamed");
}

/// Returns the number of inotify instances, and of threads that read them.
fn watchers(host: &Host) -> (usize, usize) {
    let of_process = |name: &str| {
        let entries = fs::read_dir(format!("/proc/{}/{name}", host.pid())).expect("the host runs");
        entries.flatten().map(|entry| entry.path())
    };
    let is_instance = |path: &PathBuf| {
        let target = fs::read_link(path).unwrap_or_default();
        target.to_string_lossy().contains("inotify")
    };
    let is_reader = |path: &PathBuf| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "files")
    };
    (
        of_process("fd").filter(is_instance).count(),
        of_process("task").filter(is_reader).count(),
    )
}

#[test]
fn files_of_all_tenants_are_followed_by_one_watcher() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let at = |name: &str| folder.path().join(name);
    let rules = at("rules");
    fs::create_dir(&rules).expect("a directory can be made");
    fs::write(rules.join("permissions.allow"), "ALL : ALL\n").expect("a file can be written");
    fs::write(at("address.txt"), "200 192.0.2.1\n").expect("a file can be written");
    let mut builder = Builder::new()
        .set("permissions", &format!("folder = {rules:?}"))
        .set(
            "database",
            &format!("address-file = {:?}", at("address.txt")),
        );
    // The last file is laid out like a Kubernetes ConfigMap.
    fs::create_dir(at("one")).expect("a directory can be made");
    symlink("one", at("..data")).expect("a link can be made");
    let file = |n: u16| at(&format!("{n}.wasm"));
    for n in 1..=TENANTS {
        let content = rejecting(480, &format!("first {n}"));
        let is_last = n == TENANTS;
        let target = match is_last {
            true => at("one/policy.wasm"),
            false => file(n),
        };
        fs::write(target, content).expect("a policy can be written");
        if is_last {
            symlink("..data/policy.wasm", file(n)).expect("a link can be made");
        }
        let section = format!("tenants.t{n}");
        builder = builder
            .set(&section, &format!("uri-domains = [\"t{n}.example\"]"))
            .set(&section, &format!("file = {:?}", file(n)));
    }
    let host = builder.start();
    for n in [1, 10, TENANTS] {
        becomes(&host, n, &format!("SIP/2.0 480 first {n}"));
    }
    replace(&file(1), &rejecting(481, "renamed"));
    becomes(&host, 1, "SIP/2.0 481 renamed");
    fs::write(file(10), rejecting(482, "rewritten")).expect("a policy can be written");
    becomes(&host, 10, "SIP/2.0 482 rewritten");
    fs::create_dir(at("two")).expect("a directory can be made");
    fs::write(at("two/policy.wasm"), rejecting(483, "switched")).expect("it can be written");
    symlink("two", at("..tmp")).expect("a link can be made");
    fs::rename(at("..tmp"), at("..data")).expect("it can be renamed");
    becomes(&host, TENANTS, "SIP/2.0 483 switched");
    fs::write(at("two/policy.wasm"), rejecting(484, "again")).expect("it can be written");
    becomes(&host, TENANTS, "SIP/2.0 484 again");
    replace(&at("address.txt"), b"200 192.0.2.1\n200 192.0.2.2\n");
    wait::until("the address file is read", || {
        (host.metric("portcullis_address_rows", &[]) == 2.0).then_some(())
    });
    assert_eq!(watchers(&host), (1, 1));
    // Another tenant, which has not changed, is unaffected.
    assert_eq!(answer(&host, 5), "SIP/2.0 480 first 5");
}
