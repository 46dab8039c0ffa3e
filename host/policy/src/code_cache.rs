//! The cache of machine code on disk: a file that this build has compiled on this machine is not compiled again after a restart.

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_cache::{Cache, EntryError, Name};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::digest::Digest;

/// Machine code in a directory of authenticated entries.
#[derive(Debug)]
pub struct CodeCache {
    cache: Cache,
    build: Digest,
    /// Whether the last entry could not be written. Only the first of several failures is logged.
    is_failing: AtomicBool,
}

impl CodeCache {
    /// Opens `cache` for the program whose executable has the digest `build`. Code of other builds is not used, because they may compile a
    /// file differently.
    pub fn new(cache: Cache, build: Digest) -> Self {
        Self {
            cache,
            build,
            is_failing: AtomicBool::new(false),
        }
    }

    /// The directory of the cache.
    pub fn folder(&self) -> &Path {
        self.cache.folder()
    }

    /// Size of all entries in bytes.
    pub fn bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// The code of a file for this engine, if it is cached: exactly the bytes that were passed to [`CodeCache::keep`].
    pub(crate) fn find(&self, engine: &Engine, file: &Digest) -> Option<Vec<u8>> {
        let name = self.name(engine, file);
        self.cache.find(&name).unwrap_or_else(|error| {
            self.refuse_named(&name, &error);
            None
        })
    }

    /// Logs that the engine refused the code of a file.
    pub(crate) fn refuse(&self, engine: &Engine, file: &Digest, cause: &wasmtime::Error) {
        self.refuse_named(&self.name(engine, file), cause.root_cause());
    }

    /// Writes the code of a file to the cache.
    pub(crate) fn keep(&self, engine: &Engine, file: &Digest, code: &[u8]) {
        let kept = self.cache.keep(&self.name(engine, file), code);
        let was_failing = self.is_failing.swap(kept.is_err(), Ordering::Relaxed);
        let Err(error) = kept else {
            return;
        };
        let mend = match &error {
            EntryError::TooLarge { .. } => "raise `cache-size` in [policy]",
            EntryError::Io(_)
            | EntryError::NoFile
            | EntryError::Owner { .. }
            | EntryError::Mode { .. }
            | EntryError::Foreign => "check the free space and the permissions of the directory",
        };
        if !was_failing {
            tracing::warn!(
                event = "compiled_code_not_kept",
                folder = %self.folder().display(),
                %error,
                mend,
                "compiled code not cached, the next start compiles this policy again"
            );
        }
    }

    fn refuse_named(&self, name: &Name, cause: &dyn std::fmt::Display) {
        tracing::warn!(
            event = "compiled_code_refused",
            file = %self.cache.file_of(name).display(),
            %cause,
            "cached code refused, the policy is compiled again and the entry replaced; if this is repeated, check the disk and which other \
             processes write to the directory"
        );
    }

    /// The key of an entry: a hash of everything that the code depends on. That is the file, the build of this program, and the engine's
    /// settings, version and target CPU features (`precompile_compatibility_hash`).
    fn name(&self, engine: &Engine, file: &Digest) -> Name {
        let mut hash = Fingerprint(Sha256::new());
        hash.0.update(self.build.bytes());
        hash.0.update(file.bytes());
        engine.precompile_compatibility_hash().hash(&mut hash);
        Name(hash.0.finalize().into())
    }
}

/// A collision-resistant hasher.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not used: the name is the whole digest.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::engine;
    use crate::limits::Limits;

    use super::*;

    #[test]
    fn code_is_found_only_for_the_same_file_build_and_settings() {
        let folder = tempfile::tempdir().unwrap();
        let open = |build: &[u8]| {
            let cache = Cache::open(&folder.path().join("code"), 1 << 20).unwrap();
            CodeCache::new(cache, Digest::of(build))
        };
        let limits = Limits::default();
        let serving = || engine::pooled(&limits).unwrap();
        let metered = engine::metered(&limits).unwrap();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        let (this, other) = (open(b"this build"), open(b"another build"));
        this.keep(&serving(), &one, b"code");
        // As after a restart.
        let this_again = open(b"this build");
        let found = this_again.find(&serving(), &one).unwrap();
        assert_eq!(found, b"code");
        assert_eq!(this_again.find(&serving(), &two), None);
        assert_eq!(this_again.find(&metered, &one), None);
        assert_eq!(other.find(&serving(), &one), None);
    }

    /// Each setting that changes the code must change its name. Otherwise the engine would refuse the code at every start.
    #[test]
    fn every_setting_of_the_code_is_part_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("code"), 1 << 20).unwrap();
        let cache = CodeCache::new(cache, Digest::of(b"build"));
        let engine = |change: fn(&mut wasmtime::Config) -> &mut wasmtime::Config| {
            let mut config = wasmtime::Config::new();
            change(&mut config);
            Engine::new(&config).unwrap()
        };
        let engines = [
            engine(|config| config),
            engine(|config| config.consume_fuel(true)),
            engine(|config| config.epoch_interruption(true)),
            engine(|config| config.memory_guard_size(0)),
            engine(|config| config.wasm_simd(false).wasm_relaxed_simd(false)),
            engine(|config| config.cranelift_opt_level(wasmtime::OptLevel::None)),
            engine(|config| {
                config
                    .module_version(wasmtime::ModuleVersionStrategy::None)
                    .unwrap()
            }),
        ];
        let file = Digest::of(b"file");
        let names: HashSet<_> = engines
            .iter()
            .map(|engine| cache.name(engine, &file))
            .collect();
        assert_eq!(names.len(), engines.len());
    }
}
