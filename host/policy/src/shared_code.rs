//! Compiled code that policies from the same file share.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::sandbox::Code;

/// The code of all loaded policies by the digest of their file. Tenants with the same policy share its code: it is compiled once, and takes
/// memory and CPU caches once.
#[derive(Default)]
pub(crate) struct SharedCode {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    codes: HashMap<Digest, Weak<Code>>,
    /// Number of entries at which unused ones are removed. Twice the number of entries after the last removal, so that removal takes
    /// amortised constant time.
    full: usize,
}

impl SharedCode {
    /// The code of the file with this digest, if a policy uses it.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Code>> {
        self.held.lock().codes.get(digest).and_then(Weak::upgrade)
    }

    /// Adds code. A file that is compiled twice at the same time has two copies of its code; the later one is shared.
    pub(crate) fn insert(&self, digest: Digest, code: &Arc<Code>) {
        const LEAST: usize = 64;
        let mut held = self.held.lock();
        if held.codes.len() >= held.full {
            held.codes.retain(|_, code| code.strong_count() > 0);
            held.full = LEAST.max(2 * held.codes.len());
        }
        held.codes.insert(digest, Arc::downgrade(code));
    }
}
