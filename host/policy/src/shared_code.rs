//! Compiled code by what it was compiled from, for as long as a policy has it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::digest::Digest;
use crate::sandbox::Code;

/// The code of all policies that are loaded. Tenants with the same policy share it: it is compiled once, and takes memory and the
/// processor's caches once.
#[derive(Default)]
pub(crate) struct SharedCode {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    codes: HashMap<Digest, Weak<Code>>,
    /// When there are so many, those that nobody has any more are looked for: not each time, which would take longer the more there are.
    full: usize,
}

impl SharedCode {
    /// The code of the file with this digest.
    pub(crate) fn find(&self, digest: &Digest) -> Option<Arc<Code>> {
        self.held.lock().codes.get(digest).and_then(Weak::upgrade)
    }

    /// Notes code for the next one who looks for it. Two who compile one file at the same time have two.
    pub(crate) fn note(&self, digest: Digest, code: &Arc<Code>) {
        const LEAST: usize = 64;
        let mut held = self.held.lock();
        if held.codes.len() >= held.full {
            held.codes.retain(|_, code| code.strong_count() > 0);
            held.full = LEAST.max(2 * held.codes.len());
        }
        held.codes.insert(digest, Arc::downgrade(code));
    }
}
