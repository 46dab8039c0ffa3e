//! Copies of a policy that differ in their code: a host may share the code of policies that have the same.

use anyhow::{Context, Result, bail, ensure};

/// The beginning of a core module in version 1 of the binary format.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// The sections that the additional function is in, by their ids.
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const CODE: u8 = 10;

/// A copy of a module with one more function, which nothing calls and which returns this number.
///
/// # Errors
/// If this is no core module with functions.
pub(super) fn with_a_function_of_its_own(module: &[u8], number: u32) -> Result<Vec<u8>> {
    let mut rest = module
        .strip_prefix(MODULE)
        .context("the policy is not a core module")?;
    let mut bytes = MODULE.to_vec();
    let mut number_of_types = None;
    let mut has_code = false;
    while let Some((&id, after)) = rest.split_first() {
        let (size, after) = read(after)?;
        let (content, after) = after
            .split_at_checked(size as usize)
            .context("a section is cut off")?;
        rest = after;
        let content = match (id, number_of_types) {
            (TYPES, _) => {
                number_of_types = Some(read(content)?.0);
                // No parameters, and one i32 as the result.
                with_one_more(content, &[0x60, 0, 1, 0x7f])?
            }
            (FUNCTIONS, Some(index)) => with_one_more(content, &leb128(index))?,
            (CODE, Some(_)) => {
                has_code = true;
                // No locals; i32.const with the number in five bytes; end.
                let mut function = vec![8, 0, 0x41];
                function.extend([0, 7, 14, 21].map(|shift| (number >> shift) as u8 | 0x80));
                function.extend([(number >> 28) as u8 & 0x0f, 0x0b]);
                with_one_more(content, &function)?
            }
            _ => content.to_vec(),
        };
        bytes.push(id);
        bytes.extend(leb128(u32::try_from(content.len())?));
        bytes.extend(content);
    }
    ensure!(has_code, "the policy has no functions");
    Ok(bytes)
}

/// The content of a section, which is a list, with one more item.
fn with_one_more(content: &[u8], item: &[u8]) -> Result<Vec<u8>> {
    let (count, items) = read(content)?;
    Ok([&leb128(count + 1), items, item].concat())
}

/// An unsigned LEB128 number, and what follows.
fn read(bytes: &[u8]) -> Result<(u32, &[u8])> {
    let mut number = 0;
    for (&byte, nth) in bytes.iter().zip(0..5) {
        number |= u32::from(byte & 0x7f) << (7 * nth);
        if byte < 0x80 {
            return Ok((number, &bytes[nth + 1..]));
        }
    }
    bail!("a number of the module is cut off");
}

fn leb128(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (func) (export "f" (func 0)))`
    const ONE_FUNCTION: &[u8] = b"\0asm\x01\0\0\0\
        \x01\x04\x01\x60\x00\x00\
        \x03\x02\x01\x00\
        \x07\x05\x01\x01f\x00\x00\
        \x0a\x04\x01\x02\x00\x0b";

    #[test]
    fn a_copy_has_one_more_function() {
        let copy = with_a_function_of_its_own(ONE_FUNCTION, 0x1234_5678).unwrap();
        let expected: &[u8] = b"\0asm\x01\0\0\0\
            \x01\x08\x02\x60\x00\x00\x60\x00\x01\x7f\
            \x03\x03\x02\x00\x01\
            \x07\x05\x01\x01f\x00\x00\
            \x0a\x0d\x02\x02\x00\x0b\x08\x00\x41\xf8\xac\xd1\x91\x01\x0b";
        assert_eq!(copy, expected);
    }

    #[test]
    fn copies_differ_in_their_code_only() {
        let [first, second] =
            [0, 9_999].map(|number| with_a_function_of_its_own(ONE_FUNCTION, number).unwrap());
        assert_eq!(first.len(), second.len());
        let differs = |nth: &usize| first[*nth] != second[*nth];
        let differences: Vec<usize> = (0..first.len()).filter(differs).collect();
        assert_eq!(differences, [first.len() - 6, first.len() - 5]);
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let cut_off = &ONE_FUNCTION[..ONE_FUNCTION.len() - 1];
        let component: &[u8] = b"\0asm\x0d\0\x01\0";
        for bytes in [&b""[..], component, cut_off, MODULE] {
            assert!(with_a_function_of_its_own(bytes, 1).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            assert_eq!(read(&leb128(number)).unwrap(), (number, &[][..]));
        }
    }
}
