use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const ONE: Name = Name([1; 32]);
const TWO: Name = Name([2; 32]);
const MOST: u64 = 1 << 20;

/// A directory for caches, which does not exist yet.
struct Lab(TempDir);

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn open(&self) -> Cache {
        Cache::open(&self.folder(), MOST).unwrap()
    }

    /// The names of all files, without the key.
    fn files(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "key").collect();
        names.sort();
        names
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

#[test]
fn stored_entries_are_found_after_a_restart() {
    let lab = Lab::new();
    let cache = lab.open();
    assert_eq!(cache.find(&ONE).unwrap(), None);
    cache.keep(&ONE, b"first").unwrap();
    cache.keep(&TWO, b"").unwrap();
    cache.keep(&ONE, b"second").unwrap();
    assert_eq!(cache.bytes(), 2 * 40 + 6);
    for cache in [cache, lab.open()] {
        assert_eq!(cache.find(&ONE).unwrap().unwrap(), b"second");
        assert_eq!(cache.find(&TWO).unwrap().unwrap(), b"");
        assert_eq!(cache.bytes(), 2 * 40 + 6);
    }
    assert_eq!(lab.files().len(), 2, "no drafts are left");
}

#[test]
fn only_the_owner_has_access_to_directory_and_files() {
    let lab = Lab::new();
    let cache = lab.open();
    cache.keep(&ONE, b"content").unwrap();
    assert_eq!(mode_of(&lab.folder()), 0o700);
    assert_eq!(mode_of(&lab.folder().join("key")), 0o600);
    assert_eq!(mode_of(&cache.file_of(&ONE)), 0o600);
}

#[test]
fn a_directory_or_key_that_others_can_access_is_refused() {
    let lab = Lab::new();
    lab.open();
    for (path, wrong, right) in [
        (lab.folder(), 0o750, 0o700),
        (lab.folder(), 0o701, 0o700),
        (lab.folder().join("key"), 0o640, 0o600),
        (lab.folder().join("key"), 0o602, 0o600),
    ] {
        set_mode(&path, wrong);
        let error = Cache::open(&lab.folder(), MOST).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod {right:04o}")), "{error}");
        set_mode(&path, right);
        lab.open();
    }
}

/// Only root can create a file of another user.
#[test]
fn directories_and_files_of_other_users_are_refused() {
    if folder::user() != 0 {
        return;
    }
    let lab = Lab::new();
    let cache = lab.open();
    cache.keep(&ONE, b"content").unwrap();
    let give = |path: &Path, user| std::os::unix::fs::chown(path, Some(user), None).unwrap();
    give(&cache.file_of(&ONE), 12345);
    let refused = cache.find(&ONE).unwrap_err();
    assert!(
        matches!(refused, EntryError::Owner { owner: 12345 }),
        "{refused}"
    );
    for path in [lab.folder().join("key"), lab.folder()] {
        give(&path, 12345);
        let error = Cache::open(&lab.folder(), MOST).unwrap_err();
        let is_told = matches!(&error, CacheError::Owner { path: told, owner: 12345, user: 0 } if *told == path);
        assert!(is_told, "{error}");
        give(&path, 0);
    }
}

#[test]
fn a_changed_byte_is_detected() {
    let lab = Lab::new();
    let cache = lab.open();
    cache.keep(&ONE, b"content").unwrap();
    let file = cache.file_of(&ONE);
    let sound = fs::read(&file).unwrap();
    let is_foreign = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        matches!(cache.find(&ONE), Err(EntryError::Foreign))
    };
    for at in 0..sound.len() {
        let mut damaged = sound.clone();
        damaged[at] ^= 0x10;
        assert!(is_foreign(&damaged), "byte {at}");
        assert!(is_foreign(&sound[..at]), "cut at {at}");
    }
    assert!(is_foreign(&[&sound[..], b"x"].concat()));
    assert!(is_foreign(b""));
    // The entry can be stored again.
    cache.keep(&ONE, b"content").unwrap();
    assert_eq!(cache.find(&ONE).unwrap().unwrap(), b"content");
}

#[test]
fn an_entry_with_another_name_or_key_is_refused() {
    let (lab, others) = (Lab::new(), Lab::new());
    let (cache, other) = (lab.open(), others.open());
    cache.keep(&ONE, b"content").unwrap();
    for target in [cache.file_of(&TWO), other.file_of(&ONE)] {
        fs::copy(cache.file_of(&ONE), target).unwrap();
    }
    assert!(matches!(cache.find(&TWO), Err(EntryError::Foreign)));
    assert!(matches!(other.find(&ONE), Err(EntryError::Foreign)));
}

#[test]
fn links_pipes_and_files_that_others_can_write_are_refused() {
    let lab = Lab::new();
    let cache = lab.open();
    cache.keep(&ONE, b"content").unwrap();
    let (one, two) = (cache.file_of(&ONE), cache.file_of(&TWO));
    symlink(&one, &two).unwrap();
    assert!(matches!(cache.find(&TWO), Err(EntryError::NoFile)));
    fs::remove_file(&two).unwrap();
    nix::unistd::mkfifo(&two, nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(matches!(cache.find(&TWO), Err(EntryError::NoFile)));
    fs::remove_file(&two).unwrap();
    fs::create_dir(&two).unwrap();
    assert!(matches!(cache.find(&TWO), Err(EntryError::NoFile)));
    for mode in [0o620, 0o606, 0o644] {
        set_mode(&one, mode);
        let refused = cache.find(&ONE).unwrap_err();
        assert!(matches!(refused, EntryError::Mode { mode: told } if told == mode));
    }
}

#[test]
fn an_invalid_key_file_is_reported() {
    let lab = Lab::new();
    lab.open();
    let key = lab.folder().join("key");
    for wrong in [&b""[..], &[7; 63], &[7; 65]] {
        fs::write(&key, wrong).unwrap();
        let error = Cache::open(&lab.folder(), MOST).unwrap_err();
        assert!(matches!(error, CacheError::NoKey { .. }), "{error}");
        assert_eq!(fs::read(&key).unwrap(), wrong, "the file is not changed");
    }
}

#[test]
fn a_command_creates_nothing() {
    let lab = Lab::new();
    let open = || Cache::open_existing(&lab.folder(), MOST);
    assert!(open().unwrap_err().is_absent());
    fs::create_dir(lab.folder()).unwrap();
    set_mode(&lab.folder(), 0o700);
    assert!(open().unwrap_err().is_absent());
    assert_eq!(lab.files(), [""; 0]);
    lab.open().keep(&ONE, b"content").unwrap();
    assert_eq!(open().unwrap().find(&ONE).unwrap().unwrap(), b"content");
    fs::remove_dir_all(lab.folder()).unwrap();
    fs::write(lab.folder(), b"no folder").unwrap();
    let error = open().unwrap_err();
    assert!(!error.is_absent(), "{error}");
}

#[test]
fn the_least_recently_used_entry_is_evicted_first() {
    let lab = Lab::new();
    let cache = Cache::open(&lab.folder(), 1000).unwrap();
    let name = |n: u8| Name([n; 32]);
    let is_there = |n: u8| cache.file_of(&name(n)).exists();
    // 200 bytes each.
    let content = [0; 160];
    for n in 0..5 {
        cache.keep(&name(n), &content).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(n.into());
        let file = File::open(cache.file_of(&name(n))).unwrap();
        file.set_modified(at).unwrap();
    }
    assert_eq!(cache.bytes(), 1000);
    assert!(cache.find(&name(0)).unwrap().is_some());
    cache.keep(&name(5), &content).unwrap();
    let there: Vec<_> = (0..6).map(is_there).collect();
    assert_eq!(there, [true, false, false, true, true, true]);
    assert_eq!(cache.bytes(), 800);
    // A smaller limit also applies to existing entries. Other files are not touched.
    fs::write(lab.folder().join("notes"), [0; 2000]).unwrap();
    let cache = Cache::open(&lab.folder(), 450).unwrap();
    assert_eq!(cache.bytes(), 400);
    assert!(cache.find(&name(5)).unwrap().is_some());
    assert!(lab.folder().join("notes").exists());
    assert!(matches!(
        cache.keep(&name(6), &[0; 500]),
        Err(EntryError::TooLarge {
            size: 540,
            most: 450
        })
    ));
    assert_eq!(cache.bytes(), 400);
}

#[test]
fn abandoned_temporary_files_are_removed() {
    let lab = Lab::new();
    lab.open();
    let (old, new) = (
        lab.folder().join(".draft-old"),
        lab.folder().join(".draft-new"),
    );
    for path in [&old, &new] {
        fs::write(path, b"half").unwrap();
    }
    let file = File::options().write(true).open(&old).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(lab.open().bytes(), 0);
    assert!(!old.exists() && new.exists());
}

#[test]
fn several_processes_and_threads_write_at_the_same_time() {
    let lab = Lab::new();
    // Processes that start together may each generate a key at first.
    let caches: Vec<_> = thread::scope(|scope| {
        let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| lab.open())).collect();
        let opened = opening.into_iter().map(|thread| thread.join().unwrap());
        opened.collect()
    });
    thread::scope(|scope| {
        for cache in &caches {
            scope.spawn(|| {
                for round in 0..50_usize {
                    let content = vec![round as u8; 1000 + round];
                    cache.keep(&ONE, &content).unwrap();
                    let found = cache.find(&ONE).unwrap().unwrap();
                    let first = found[0];
                    assert!(found.iter().all(|&byte| byte == first));
                    assert_eq!(found.len(), 1000 + usize::from(first));
                }
            });
        }
    });
    assert_eq!(lab.files().len(), 1);
}

#[test]
fn a_read_only_directory_returns_entries_and_reports_writes() {
    let lab = Lab::new();
    lab.open().keep(&ONE, b"content").unwrap();
    set_mode(&lab.folder(), 0o500);
    let cache = Cache::open(&lab.folder(), MOST).unwrap();
    assert_eq!(cache.find(&ONE).unwrap().unwrap(), b"content");
    // Root can write anyway.
    if folder::user() != 0 {
        assert!(matches!(cache.keep(&TWO, b"more"), Err(EntryError::Io(_))));
        assert_eq!(cache.bytes(), 47);
    }
    set_mode(&lab.folder(), 0o700);
    fs::remove_dir_all(lab.folder()).unwrap();
    assert!(matches!(cache.keep(&TWO, b"more"), Err(EntryError::Io(_))));
    assert_eq!(cache.find(&ONE).unwrap(), None);
}
