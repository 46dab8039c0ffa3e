use portcullis_config::SeatConfig;
use portcullis_policy::{Limits, Runtime};
use portcullis_testkit::wait::eventually;
use tempfile::TempDir;

use super::*;

/// A policy that rejects every request with this code.
pub(crate) fn rejecting(code: u16) -> Vec<u8> {
    // The verdict is at address 0: discriminant 1 (reject), then the code; no reason and no header fields.
    let [low, high] = code.to_le_bytes();
    let text = format!(
        r#"(module
            (memory (export "memory") 1)
            (data (i32.const 0) "\01\00\00\00\{low:02x}\{high:02x}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "decide") (result i32) i32.const 0))"#
    );
    let mut module = wat::parse_str(text).unwrap();
    portcullis_policy::embed(&mut module).unwrap();
    module
}

fn files(folder: &TempDir, file: &str) -> Arc<PolicyFiles> {
    files_of(Some(folder.path().join(file)))
}

fn files_of(file: Option<PathBuf>) -> Arc<PolicyFiles> {
    let limits = Limits {
        instances: 1,
        module_bytes: 64 << 10,
        ..Limits::default()
    };
    let runtime = Arc::new(Runtime::new(limits.clone()).unwrap());
    let config = SeatConfig {
        file,
        limits,
        ..SeatConfig::default()
    };
    Arc::new(PolicyFiles::alone("default", config, runtime))
}

#[test]
fn a_load_publishes_only_new_content() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder, "policy.wasm");
    std::fs::write(folder.path().join("policy.wasm"), rejecting(480)).unwrap();
    let first = files.load().unwrap();
    assert!(matches!(first, Outcome::Published(id) if id.generation == 1));
    assert_eq!(files.load().unwrap(), Outcome::Unchanged(first.id()));
    std::fs::write(folder.path().join("policy.wasm"), rejecting(486)).unwrap();
    assert_eq!(files.load().unwrap().id().generation, 2);
    assert_eq!(files.counts(), (2, 0));
}

#[test]
fn an_unusable_file_is_named_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder, "policy.wasm");
    let file = folder.path().join("policy.wasm");
    let good = rejecting(480);
    std::fs::write(&file, &good).unwrap();
    files.load().unwrap();
    for (bytes, word) in [
        (&b""[..], "empty"),
        (&b"no policy"[..], "not WebAssembly"),
        (&good[..good.len() / 2], "policy.wasm"),
        (&[0; 65 << 10][..], "raise `module`"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
        assert_eq!(files.failed().unwrap().error, error);
        assert_eq!(files.slot().number(), 1);
    }
    std::fs::remove_file(&file).unwrap();
    let error = files.load().unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    std::fs::create_dir(&file).unwrap();
    assert!(files.load().unwrap_err().to_string().contains("not a file"));
    assert_eq!(files.counts(), (1, 6));
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, &good).unwrap();
    assert!(matches!(files.load(), Ok(Outcome::Unchanged(_))));
    assert_eq!(files.failed(), None);
}

#[test]
fn without_a_file_there_is_nothing_to_load() {
    let files = files_of(None);
    assert!(matches!(files.load(), Err(PolicyFileError::NotConfigured)));
}

#[tokio::test]
async fn the_watch_publishes_valid_files_and_ignores_broken_ones() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder, "policy.wasm");
    let file = folder.path().join("policy.wasm");
    std::fs::write(&file, rejecting(480)).unwrap();
    let watch = tokio::spawn(Arc::clone(&files).watch());
    eventually("the file is loaded", || files.slot().number() == 1).await;

    std::fs::write(&file, b"broken").unwrap();
    eventually("the file is refused", || files.failed().is_some()).await;
    assert_eq!(files.slot().number(), 1);

    // Half of a file, then the rest: the failed load is tried again.
    let next = rejecting(486);
    std::fs::write(&file, &next[..100]).unwrap();
    eventually("a second load fails", || files.counts().1 == 2).await;
    std::fs::write(&file, &next).unwrap();
    // The error is cleared shortly after the new policy has been published.
    eventually("the corrected file is loaded", || {
        files.slot().number() == 2 && files.failed().is_none()
    })
    .await;

    let beside = folder.path().join("next.wasm");
    std::fs::write(&beside, rejecting(500)).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    eventually("the third file is loaded", || files.slot().number() == 3).await;
    watch.abort();
}

/// `scp` and `rsync --inplace` write like this: the active policy stays, and nothing is logged.
#[tokio::test]
async fn a_file_that_is_written_in_pieces_is_not_a_failure() {
    use std::io::Write as _;

    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder, "policy.wasm");
    let file = folder.path().join("policy.wasm");
    std::fs::write(&file, rejecting(480)).unwrap();
    let watch = tokio::spawn(Arc::clone(&files).watch());
    eventually("the file is loaded", || files.slot().number() == 1).await;

    let next = rejecting(486);
    let mut looks = FileWatch::quick(&file);
    std::fs::File::create(&file).unwrap();
    for piece in next.chunks(next.len().div_ceil(4)) {
        let opened = std::fs::OpenOptions::new().append(true).open(&file);
        opened.unwrap().write_all(piece).unwrap();
        // The file has been closed, so the watch checks it.
        looks.changed().await;
    }
    // A load is counted after it is published.
    eventually("the second file is loaded", || {
        files.slot().number() == 2 && files.counts().0 == 2
    })
    .await;
    assert_eq!(files.counts(), (2, 0));
    assert_eq!(files.failed(), None);
    watch.abort();
}

#[tokio::test]
async fn touching_a_condemned_file_does_not_load_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = files(&folder, "policy.wasm");
    let file = folder.path().join("policy.wasm");
    let put = |code: u16| {
        let beside = folder.path().join("next.wasm");
        std::fs::write(&beside, rejecting(code)).unwrap();
        std::fs::rename(&beside, &file).unwrap();
    };
    put(480);
    let config = files.seat().config.clone();
    let slot = Arc::new(PolicySlot::keeping(4));
    let scope = Scope::operator();
    let seat = Seat::new("default", slot, scope, config, Arc::default());
    let runtime = Runtime::new(seat.config.limits.clone()).unwrap();
    let files = Arc::new(PolicyFiles::new(Arc::new(seat), Arc::new(runtime)));
    let watch = tokio::spawn(Arc::clone(&files).watch());
    eventually("the file is loaded", || files.slot().number() == 1).await;
    put(486);
    eventually("the second file is loaded", || files.slot().number() == 2).await;
    let good = files.slot().fall_back(2).map(|good| good.number);
    assert_eq!(good, Some(1));
    let mut looks = FileWatch::quick(&file);
    put(486);
    looks.changed().await;
    put(500);
    eventually("another file is loaded", || files.slot().number() != 1).await;
    let served = files.slot().current().unwrap();
    assert_eq!(served.policy.digest(), Digest::of(&rejecting(500)));
    // A command loads it.
    put(486);
    assert!(matches!(files.load(), Ok(Outcome::Published(_))));
    watch.abort();
}
