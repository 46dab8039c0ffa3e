//! Cached code is used after a restart, and damaged or foreign entries are not.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use portcullis_cache::{Cache, Name};
use portcullis_policy::{
    CodeCache, CodeCounts, CompileFailure, Digest, Limits, LoadProblem, Policy, Runtime, compile,
};
use tempfile::TempDir;

use crate::support::{Host, component, guest, invite, reject, unauthorised};

/// A cache directory, and the hosts that start with it one after the other.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("code")
    }

    fn cache(&self) -> Cache {
        Cache::open(&self.folder(), 1 << 30).unwrap()
    }

    fn start(&self) -> Host {
        self.start_build("this build")
    }

    fn start_build(&self, build: &str) -> Host {
        let host = Host::new();
        host.runtime.compile_with(Box::new(|file, limits, target| {
            compile(file, limits, target).map_err(CompileFailure::Refused)
        }));
        let build = Digest::of(build.as_bytes());
        host.runtime.cache_with(CodeCache::new(self.cache(), build));
        host
    }

    /// The only entry of the cache.
    fn entry(&self) -> PathBuf {
        let files = fs::read_dir(self.folder()).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        let mut entries: Vec<_> = paths.filter(|path| !path.ends_with("key")).collect();
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }
}

fn counts(runtime: &Runtime) -> (u64, u64, u64) {
    let CodeCounts {
        compiled,
        cached,
        shared,
    } = runtime.code_counts();
    (compiled, cached, shared)
}

/// Loads a guest that counts its own calls, and calls it twice.
fn serves(host: &mut Host) -> Policy {
    let policy = host.load("stateful").with_reuse(true);
    for code in [301, 302] {
        assert_eq!(host.ask(&policy, invite()), Ok(reject(code, "")));
    }
    policy
}

#[test]
fn a_second_start_compiles_nothing() {
    let lab = Lab::new();
    let mut host = lab.start();
    let policy = serves(&mut host);
    assert_eq!(policy.code_origin().as_str(), "compiler");
    assert_eq!(counts(&host.runtime), (1, 0, 0));
    let mut host = lab.start();
    let policy = serves(&mut host);
    assert_eq!(policy.code_origin().as_str(), "cache");
    let again = serves(&mut host);
    assert_eq!(again.code_origin().as_str(), "memory");
    assert_eq!(counts(&host.runtime), (0, 1, 1));
    // A component, too.
    let component = component(&guest("reject"));
    for times in [(1, 1, 1), (0, 1, 0)] {
        let policy = host.runtime.load("component", &component).unwrap();
        assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
        assert_eq!(counts(&host.runtime), times);
        host = lab.start();
    }
}

#[test]
fn a_damaged_entry_is_compiled_again_and_replaced() {
    let lab = Lab::new();
    serves(&mut lab.start());
    let sound = fs::read(lab.entry()).unwrap();
    for at in [0, 20, 200, sound.len() - 1] {
        let mut damaged = sound.clone();
        damaged[at] ^= 1;
        fs::write(lab.entry(), damaged).unwrap();
        let mut host = lab.start();
        serves(&mut host);
        assert_eq!(counts(&host.runtime), (1, 0, 0), "byte {at}");
        assert_eq!(fs::read(lab.entry()).unwrap(), sound);
    }
}

#[test]
fn code_under_another_key_is_compiled_again() {
    let lab = Lab::new();
    serves(&mut lab.start());
    fs::remove_file(lab.folder().join("key")).unwrap();
    let mut host = lab.start();
    serves(&mut host);
    assert_eq!(counts(&host.runtime), (1, 0, 0));
    let mut host = lab.start();
    serves(&mut host);
    assert_eq!(counts(&host.runtime), (0, 1, 0));
}

#[test]
fn code_of_another_build_is_compiled_again() {
    let lab = Lab::new();
    serves(&mut lab.start());
    let mut host = lab.start_build("another build");
    serves(&mut host);
    assert_eq!(counts(&host.runtime), (1, 0, 0));
}

/// The entry is authentic, so only the engine can refuse it.
#[test]
fn an_entry_that_the_engine_refuses_is_compiled_again() {
    let lab = Lab::new();
    serves(&mut lab.start());
    let name = lab.entry();
    let name = name.file_stem().unwrap().to_str().unwrap();
    let bytes = (0..32).map(|at| u8::from_str_radix(&name[2 * at..2 * at + 2], 16).unwrap());
    let name = Name(bytes.collect::<Vec<_>>().try_into().unwrap());
    lab.cache().keep(&name, b"no machine code").unwrap();
    let mut host = lab.start();
    serves(&mut host);
    assert_eq!(counts(&host.runtime), (1, 0, 0));
    let mut host = lab.start();
    serves(&mut host);
    assert_eq!(counts(&host.runtime), (0, 1, 0));
}

/// Without the directory, the next start compiles again, and nothing else changes.
#[test]
fn a_missing_directory_is_not_a_failure() {
    let lab = Lab::new();
    let mut host = lab.start();
    fs::remove_dir_all(lab.folder()).unwrap();
    serves(&mut host);
    assert_eq!(counts(&host.runtime), (1, 0, 0));
}

/// Limits may have changed since the code was cached.
#[test]
fn limits_are_checked_for_cached_code() {
    let lab = Lab::new();
    lab.start().load("reject");
    let host = lab.start();
    let limits = Limits {
        memory_bytes: 0,
        ..Limits::default()
    };
    let loaded = host
        .runtime
        .load_within("reject", &guest("reject"), &limits, &Arc::default());
    let refused: Result<Policy, _> = loaded;
    let problem = refused.unwrap_err().problem;
    assert!(matches!(problem, LoadProblem::Memory { .. }), "{problem}");
    assert_eq!(counts(&host.runtime), (0, 0, 0));
}
