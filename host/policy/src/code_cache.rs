//! Compiled code that outlives the process: a file that was compiled before, by this build for this machine, is not compiled again.

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use portcullis_cache::{Cache, EntryError, Name};
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;

use crate::digest::Digest;

/// Machine code in a folder that nobody else can write to unnoticed.
#[derive(Debug)]
pub struct CodeCache {
    cache: Cache,
    build: Digest,
    /// Whether the last entry could not be kept: each of a thousand policies would tell the same.
    is_failing: AtomicBool,
}

impl CodeCache {
    /// Code in this folder, made by the program whose executable has the digest `build`. Another build may translate the same file
    /// in another way, so its code is not taken.
    pub fn new(cache: Cache, build: Digest) -> Self {
        Self {
            cache,
            build,
            is_failing: AtomicBool::new(false),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.cache.folder()
    }

    /// What all code in the folder takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// The code of a file for this engine, if it is there. It is what [`CodeCache::keep`] got, byte for byte.
    pub(crate) fn find(&self, engine: &Engine, file: &Digest) -> Option<Vec<u8>> {
        let name = self.name(engine, file);
        self.cache.find(&name).unwrap_or_else(|error| {
            self.refuse_named(&name, &error);
            None
        })
    }

    /// Tells of code that the engine does not take.
    pub(crate) fn refuse(&self, engine: &Engine, file: &Digest, cause: &wasmtime::Error) {
        self.refuse_named(&self.name(engine, file), cause.root_cause());
    }

    /// Keeps the code of a file for the next start.
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
            | EntryError::Foreign => "look at the free space and the rights of the folder",
        };
        if !was_failing {
            tracing::warn!(
                event = "compiled_code_not_kept",
                folder = %self.folder().display(),
                %error,
                mend,
                "compiled code not kept, the next start compiles this policy again"
            );
        }
    }

    fn refuse_named(&self, name: &Name, cause: &dyn std::fmt::Display) {
        tracing::warn!(
            event = "compiled_code_refused",
            file = %self.cache.file_of(name).display(),
            %cause,
            "compiled code not used, the policy is compiled again and the file replaced; if this comes again, look for what else writes \
             to the folder and at the disk"
        );
    }

    /// Everything that the code depends on: the file, the engine's settings, its version and this processor's features (all three by the
    /// engine's own account), and the build of this program.
    fn name(&self, engine: &Engine, file: &Digest) -> Name {
        let mut hash = Fingerprint(Sha256::new());
        hash.0.update(self.build.bytes());
        hash.0.update(file.bytes());
        engine.precompile_compatibility_hash().hash(&mut hash);
        Name(hash.0.finalize().into())
    }
}

/// A hasher whose result nobody can choose.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Not used: the whole digest is.
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
    fn code_is_found_for_the_same_file_build_and_settings_only() {
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

    /// What a setting changes must change the name, or an engine would refuse the code at every start.
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
