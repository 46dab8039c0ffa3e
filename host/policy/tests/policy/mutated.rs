//! Mutated files: each is accepted or refused, and the host continues.
//!
//! With debug assertions, as in this test, libraries panic over some of these files. Such a panic is a refusal.
//!
//! `PORTCULLIS_SEED` and `PORTCULLIS_CASES` set the seed and the number of cases.

use portcullis_policy::{LoadError, LoadProblem, Policy};

use crate::composed::composition;
use crate::support::{Host, component, guest};

/// A random number generator (xorshift), so that a seed gives the same cases on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound.max(1)
    }

    /// Changes a few bytes after the header.
    fn mutate(&mut self, file: &mut Vec<u8>) {
        const HEADER: usize = 8;
        for _ in 0..=self.below(3) {
            let at = HEADER + self.below(file.len() - HEADER);
            let length = self.below(24).min(file.len() - at);
            match self.below(6) {
                0 => file[at] ^= 1 << self.below(8),
                1 => file[at] = self.below(256) as u8,
                // A single-byte number becomes slightly larger or smaller: another index, another length.
                2 => file[at] = file[at].wrapping_add(1) & 0x7f,
                3 => file[at] = file[at].wrapping_sub(1) & 0x7f,
                4 => {
                    let piece = file[at..at + length].to_vec();
                    let to = HEADER + self.below(file.len() - HEADER);
                    file.splice(to..to, piece);
                }
                _ => {
                    file.drain(at..at + length.min(file.len() - HEADER - 1));
                }
            }
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(default)
}

#[test]
fn mutated_files_are_accepted_or_refused() {
    let host = Host::hasty();
    let seed = number("PORTCULLIS_SEED", 1);
    let cases = number("PORTCULLIS_CASES", 150);
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
    let page = guest("page");
    let (mut taken, mut refused) = (0, 0);
    for whole in [page.clone(), component(&page), composition("")] {
        for case in 0..cases {
            let mut file = whole.clone();
            random.mutate(&mut file);
            let loaded: Result<Policy, LoadError> = host.runtime.load("changed", &file);
            match loaded {
                Ok(_) => taken += 1,
                Err(LoadError { problem, .. }) => {
                    if let LoadProblem::Panicked { cause } = problem {
                        println!("seed {seed}, case {case}: {cause}");
                    }
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 0 && taken > 0, "{taken} taken, {refused} refused");
    // The original files still load.
    for whole in [page, composition("")] {
        let loaded: Result<Policy, LoadError> = host.runtime.load("whole", &whole);
        assert!(loaded.is_ok());
    }
}
