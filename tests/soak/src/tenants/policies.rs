//! A policy for each version of each tenant's file. Their code differs, so that the host cannot share it between them.

use std::ops::Range;

use anyhow::{Result, ensure};
use portcullis_testkit::guests::module;

/// The number in the code of the template. As a signed LEB128 number it takes five bytes, and so does every number of [`NUMBERS`].
const NUMBER: u32 = 0x1000_0000;

/// How many numbers there are: from [`NUMBER`] to the largest positive one of five bytes.
const NUMBERS: u32 = 0x7000_0000;

/// Distance between the numbers of one version and those of the next.
const VERSION: u32 = 100_000;

/// The template of every policy. Replacing two values makes a policy of it, which takes microseconds.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    number: Range<usize>,
    reason: Range<usize>,
}

impl Template {
    /// Translates the template.
    ///
    /// # Errors
    /// If it does not contain each of the two values exactly once.
    pub(crate) fn new() -> Result<Self> {
        let reason = reason(0, 0);
        // The verdict lies at 0: discriminant 1 (reject), then the code at 4, reason pointer and length at 8 and 12, no headers.
        let verdict: String = [1, 401, 64, reason.len() as u32, 0, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .map(|byte| format!("\\{byte:02x}"))
            .collect();
        let bytes = module(&format!(
            r#"(module
                (memory (export "memory") 1)
                (data (i32.const 0) "{verdict}")
                (data (i32.const 64) "{reason}")
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
                (func (export "decide") (result i32)
                    (i32.store (i32.const 256) (i32.const {NUMBER}))
                    i32.const 0))"#
        ));
        Ok(Self {
            number: only(&bytes, &leb128(NUMBER))?,
            reason: only(&bytes, reason.as_bytes())?,
            bytes,
        })
    }

    /// The policy of a tenant. It rejects every request with 401; the reason phrase names the tenant and the version.
    pub(crate) fn policy(&self, tenant: u32, version: u32) -> Vec<u8> {
        let number = version.wrapping_mul(VERSION).wrapping_add(tenant) % NUMBERS;
        let mut bytes = self.bytes.clone();
        bytes[self.number.clone()].copy_from_slice(&leb128(NUMBER + number));
        bytes[self.reason.clone()].copy_from_slice(reason(tenant, version).as_bytes());
        bytes
    }
}

/// The reason phrase of a policy; all have the same length.
pub(crate) fn reason(tenant: u32, version: u32) -> String {
    format!("t{tenant:05} version {version:07}")
}

/// Signed LEB128 in five bytes, of a number from [`NUMBER`] on.
fn leb128(number: u32) -> [u8; 5] {
    [0, 7, 14, 21, 28].map(|shift| {
        let bits = (number >> shift) as u8 & 0x7f;
        if shift < 28 { bits | 0x80 } else { bits }
    })
}

/// The position of `part`, which occurs once.
fn only(bytes: &[u8], part: &[u8]) -> Result<Range<usize>> {
    let mut places = bytes
        .windows(part.len())
        .enumerate()
        .filter(|(_, window)| *window == part)
        .map(|(at, _)| at..at + part.len());
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        (found, _) => {
            ensure!(found.is_some(), "the template does not hold {part:02x?}");
            anyhow::bail!("the template holds {part:02x?} more than once");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_version_of_every_tenant_has_a_file_and_code_of_its_own() {
        let template = Template::new().unwrap();
        let mut numbers = BTreeSet::new();
        for (tenant, version) in [(0, 0), (1, 0), (99_999, 0), (0, 1), (7, 12_345)] {
            let policy = template.policy(tenant, version);
            assert_eq!(policy.len(), template.bytes.len());
            assert!(numbers.insert(policy[template.number.clone()].to_vec()));
            only(&policy, reason(tenant, version).as_bytes()).unwrap();
        }
        assert_eq!(template.policy(0, 0), template.bytes);
    }

    #[test]
    fn numbers_take_five_bytes() {
        assert_eq!(leb128(NUMBER), [0x80, 0x80, 0x80, 0x80, 0x01]);
        assert_eq!(leb128(NUMBER + 5), [0x85, 0x80, 0x80, 0x80, 0x01]);
        assert_eq!(
            leb128(NUMBER + (NUMBERS - 1)),
            [0xff, 0xff, 0xff, 0xff, 0x07]
        );
    }
}
