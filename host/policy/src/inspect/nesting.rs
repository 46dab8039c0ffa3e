//! How deep the parts of a file are nested. The libraries that read files recurse without a limit of their own.

use wasmparser::{Parser, Payload};

use crate::contract::SECTION;
use crate::problem::LoadProblem;

/// Maximum nesting depth of components.
pub(crate) const DEEPEST: u32 = 100;

/// The first bytes of a component type and of an instance type.
const OPENING: [u8; 2] = [0x41, 0x42];

/// Most of these bytes in one section of types. Each level of nested types has one, and the reader of types recurses for each without a limit; two
/// MiB of stack are too few for 500 levels in a build with assertions. The bytes also occur in names and numbers: a policy for the whole contract
/// has about fifteen.
const MOST_OPENINGS: usize = 150;

/// Checks that modules and components are not nested too deeply in a file, nor types in its sections, nor either of them in the descriptions of
/// worlds that it contains.
///
/// # Errors
/// If they are, or if the file cannot be parsed.
pub(super) fn check(bytes: &[u8]) -> Result<(), LoadProblem> {
    check_at(bytes, 0)
}

/// `depth` is that of the file.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "other sections contain nothing nested"
)]
fn check_at(bytes: &[u8], mut depth: u32) -> Result<(), LoadProblem> {
    let too_deep = LoadProblem::TooDeep { limit: DEEPEST };
    let outermost = depth;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1).max(outermost),
            Payload::ComponentTypeSection(types) => {
                let types = bytes.get(types.range()).unwrap_or_default();
                let openings = types.iter().filter(|byte| OPENING.contains(byte));
                if openings.count() > MOST_OPENINGS {
                    return Err(too_deep);
                }
            }
            // The encoder of components reads it.
            Payload::CustomSection(section)
                if section.name().starts_with(SECTION) && Parser::is_component(section.data()) =>
            {
                check_at(section.data(), depth + 1)?;
            }
            _ => {}
        }
        // The time for validation grows with the square of the depth.
        if depth > DEEPEST {
            return Err(too_deep);
        }
    }
    Ok(())
}
