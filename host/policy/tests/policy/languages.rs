//! The policy of the README in several languages: `cargo xtask languages` builds the files that are read here.

use portcullis_policy::{Kind, Limits, Reuse, Verdict, WORLD, inspect};
use portcullis_request::Request;
use std::path::{Path, PathBuf};

use crate::logging::logged;
use crate::support::{Host, invite_from, register_from, reject, table};

/// Where `cargo xtask languages` writes the policies.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/languages");

/// Bytes of the largest policy, which contains the interpreter of Python, and some more.
const LARGEST: usize = 32 << 20;

const CARRIER: &str = "198.51.100.7:5060";
const OFFICE: &str = "192.168.1.7:5060";
const STRANGER: &str = "192.0.2.1:5060";

#[test]
#[ignore = "needs the policies that `cargo xtask languages` builds"]
fn policies_in_all_languages_decide_alike() {
    let files = files();
    assert!(
        !files.is_empty(),
        "no policies in {FOLDER}; run `cargo xtask languages`"
    );
    for file in files {
        decides(&file);
    }
}

/// Asks the policy the same questions several times, in new and in kept instances.
fn decides(file: &Path) {
    let language = file.file_stem().unwrap().to_str().unwrap();
    let mut host = Host::with(Limits {
        module_bytes: LARGEST,
        ..Host::patient()
    });
    host.addresses = table(&[
        (300, "198.51.100.0", 24, 0, None),
        (200, "192.168.1.0", 24, 5060, None),
    ]);
    let policy = host.runtime.load(language, &bytes(file));
    let policy = policy.unwrap_or_else(|error| panic!("{error}"));
    let Verdict::Reject(mut stranger) = reject(401, "Address not authorised") else {
        unreachable!("it rejects");
    };
    stranger.headers = vec![("X-Why".to_owned(), "unknown source".to_owned())];
    let cases: [(Request, Verdict, &[&str]); 4] = [
        (
            register_from(STRANGER),
            reject(403, "No registrations here"),
            &[],
        ),
        (
            invite_from(CARRIER),
            Verdict::Relay(Some("carrier-a".to_owned())),
            &[],
        ),
        (invite_from(OFFICE), Verdict::Relay(None), &[]),
        (
            invite_from(STRANGER),
            Verdict::Reject(stranger),
            &["unknown source"],
        ),
    ];
    for reuse in [Reuse::Never, Reuse::Calls(2.try_into().unwrap())] {
        let policy = policy.clone().with_reuse(reuse);
        for (request, verdict, lines) in cases.iter().chain(&cases) {
            let mut answer = None;
            let log = logged(|| answer = Some(host.ask(&policy, request.clone())));
            let place = format!("{language}, reuse {reuse}");
            assert_eq!(answer, Some(Ok(verdict.clone())), "{place}");
            let log: Vec<_> = log.iter().map(|line| line["text"].as_str()).collect();
            assert_eq!(log, *lines, "{place}");
        }
    }
    assert!(policy.trial_failure().is_none(), "{language}");
}

fn files() -> Vec<PathBuf> {
    let Ok(folder) = std::fs::read_dir(FOLDER) else {
        return Vec::new();
    };
    let files = folder.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|it| it == "wasm"))
        .collect();
    files.sort();
    files
}

/// The policy, with the section that names its world. Some compilers do not write it.
fn bytes(file: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(file).unwrap();
    let found = inspect(&bytes).unwrap();
    if found.kind == Kind::Module && found.world.is_none() {
        portcullis_policy::embed(&mut bytes).unwrap();
        assert_eq!(inspect(&bytes).unwrap().world.as_deref(), Some(WORLD));
    }
    bytes
}
