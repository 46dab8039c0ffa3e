//! Compiled code outlives the host that compiled it, and no other code is run instead.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use portcullis_testkit::guests::rejecting;
use portcullis_testkit::host::{Builder, Host};
use tempfile::TempDir;

const CALLER: u8 = 10;
const TENANTS: u16 = 3;

/// A host with a policy of its own for each tenant, and the cache in this directory.
fn start(folder: &Path) -> Host {
    let mut builder = Builder::new().set("policy", &format!("cache = {:?}", cache(folder)));
    for n in 1..=TENANTS {
        let file = folder.join(format!("{n}.wasm"));
        let section = format!("tenants.t{n}");
        fs::write(&file, rejecting(480 + n, "own")).expect("a policy can be written");
        builder = builder
            .set(&section, &format!("uri-domains = [\"t{n}.example\"]"))
            .set(&section, &format!("file = {file:?}"));
    }
    let host = builder.start();
    for n in 1..=TENANTS {
        let mut caller = host.udp(CALLER);
        let request = caller.request("MESSAGE", &format!("sip:bob@t{n}.example"));
        let answer = caller.ask(&request).start_line().to_owned();
        assert_eq!(answer, format!("SIP/2.0 {} own", 480 + n));
    }
    host
}

fn cache(folder: &Path) -> PathBuf {
    folder.join("compiled")
}

/// The files of all entries.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache(folder)).expect("the directory is there");
    let paths = files.map(|file| file.expect("it can be read").path());
    paths.filter(|path| !path.ends_with("key")).collect()
}

/// How many policies were compiled, and how many were in the cache.
fn counts(host: &Host) -> [f64; 2] {
    ["from=\"compiler\"", "from=\"cache\""]
        .map(|from| host.metric("portcullis_policy_code_total", &[from]))
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

#[test]
fn a_second_start_compiles_nothing() {
    let folder = folder();
    let all = f64::from(TENANTS) + 1.0;
    let host = start(folder.path());
    assert_eq!(counts(&host), [all, 0.0]);
    drop(host);
    let host = start(folder.path());
    assert_eq!(counts(&host), [0.0, all]);
    assert_eq!(host.complaints(), [""; 0]);
    host.wait_for_log("code=\"cache\"");
    // Policies that are loaded later are cached too.
    host.replace_policy(&rejecting(490, "next"));
    host.wait_for_log("code=\"compiler\"");
    assert_eq!(entries(folder.path()).len(), usize::from(TENANTS) + 2);
    let bytes: u64 = entries(folder.path())
        .iter()
        .map(|file| fs::metadata(file).expect("it is there").len())
        .sum();
    assert_eq!(
        host.metric("portcullis_policy_cache_bytes", &[]),
        bytes as f64
    );
}

#[test]
fn foreign_entries_are_compiled_again_and_reported() {
    let folder = folder();
    drop(start(folder.path()));
    let files = entries(folder.path());
    assert_eq!(files.len(), usize::from(TENANTS) + 1);
    let code = fs::read(&files[1]).expect("it can be read");
    let mut damaged = fs::read(&files[0]).expect("it can be read");
    damaged[1000] ^= 1;
    fs::write(&files[0], damaged).expect("it can be written");
    // Sound code of another file.
    fs::write(&files[2], code).expect("it can be written");
    let host = start(folder.path());
    assert_eq!(counts(&host), [2.0, f64::from(TENANTS) - 1.0]);
    let complaints = host.complaints();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    for file in [&files[0], &files[2]] {
        let name = file.display().to_string();
        let is_told =
            |line: &String| line.contains("compiled_code_refused") && line.contains(&name);
        assert!(complaints.iter().any(is_told), "{complaints:?}");
    }
    drop(host);
    assert_eq!(counts(&start(folder.path()))[0], 0.0);
}

#[test]
fn a_directory_that_others_can_access_is_not_used() {
    let folder = folder();
    drop(start(folder.path()));
    let cache = cache(folder.path());
    let mode = || fs::metadata(&cache).expect("it is there").mode() & 0o777;
    assert_eq!(mode(), 0o700);
    fs::set_permissions(&cache, PermissionsExt::from_mode(0o770)).expect("it is ours");
    let host = start(folder.path());
    assert_eq!(counts(&host), [f64::from(TENANTS) + 1.0, 0.0]);
    host.wait_for_log("code_cache_unusable");
    assert_eq!(
        mode(),
        0o770,
        "whose directory it is, is not for the host to say"
    );
    let checked = host.run("check");
    assert!(checked.contains("chmod 0700"), "{checked}");
}

#[test]
fn check_shares_the_cache_and_creates_no_directory() {
    let folder = folder();
    let host = start(folder.path());
    let cache = cache(folder.path());
    fs::remove_dir_all(&cache).expect("it is ours");
    let checked = host.run("check");
    assert!(
        checked.contains(&format!(
            "{} is created at the first start",
            cache.display()
        )),
        "{checked}"
    );
    assert!(!cache.exists());
    drop(host);
    let host = start(folder.path());
    let next = folder.path().join("next.wasm");
    fs::write(&next, rejecting(499, "next")).expect("it can be written");
    host.run(&format!("policy check {}", next.display()));
    assert_eq!(entries(folder.path()).len(), usize::from(TENANTS) + 2);
    fs::rename(&next, host.policy_file()).expect("it can be renamed");
    host.wait_for_log("code=\"cache\"");
    assert_eq!(counts(&host), [f64::from(TENANTS) + 1.0, 1.0]);
}
