//! Merges the core modules of a component into one.
//!
//! A runtime makes a new instance of a module from images: its memory is mapped, and its table is filled when it is used. That works only for
//! the memory and the table that the module defines itself. The libraries of a language runtime, which a tool has linked at the level of the
//! component, import both from another module, so that each new instance copies and fills them again. [`merge`] makes one module of them:
//!
//! - imports between the members become indices, and offsets that were constants of another module become numbers;
//! - data stays as it is, and segments and start functions keep their order;
//! - what the runtime provides stays an import, and so does what is made of the members (the functions that a canonical `lower` makes with
//!   their memory): a module of trampolines, with a table of its own, stays outside.
//!
//! A group that cannot be merged without a difference that somebody could observe stays as it is.

#![forbid(unsafe_code)]
#![warn(clippy::wildcard_enum_match_arm)]

mod constant;
mod graph;
mod layout;
mod link;
mod module;
mod plan;
mod problem;
mod rewrite;

use std::collections::BTreeSet;

use wasm_encoder::{Component, ComponentSectionId, RawSection};
use wasmparser::{
    ComponentAlias, ComponentOuterAliasKind, Parser, Payload, Validator, WasmFeatures,
};

use graph::Graph;
use layout::{Layout, each_section, section};
use plan::{Found, plan};
use problem::Problem;
use rewrite::{Rewritten, rewrite};

/// What became of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The component.
    pub bytes: Vec<u8>,
    /// Core instances that were merged. 0 means that the bytes are those that were given.
    pub instances: usize,
    /// Core instances that were made of them.
    pub groups: usize,
    /// Why an instance that shares memory or a table with others was not merged with them. Instances have the numbers of the result.
    pub unmerged: Option<String>,
}

/// Merges the core modules of a component and of those nested in it, as far as that is safe. The same bytes have the same result, and a second
/// call changes nothing. A file that is no valid component, or has features that merging does not handle, stays as it is.
///
/// The readers of components and types recurse, so the caller bounds how deeply they are nested.
pub fn merge(bytes: &[u8]) -> Merged {
    let unmerged = match Parser::is_component(bytes) {
        false => None,
        true => match merge_valid(bytes) {
            Ok(merged) => return merged,
            Err(problem) => Some(problem.to_string()),
        },
    };
    Merged {
        bytes: bytes.to_vec(),
        instances: 0,
        groups: 0,
        unmerged,
    }
}

fn merge_valid(bytes: &[u8]) -> Result<Merged, Problem> {
    Validator::new_with_features(features()).validate_all(bytes)?;
    refuse_passed_modules(bytes)?;
    let merged = merge_all(bytes)?;
    Validator::new_with_features(features()).validate_all(&merged.bytes)?;
    Ok(merged)
}

/// What a component may use. Everything else would need more than other indices.
fn features() -> WasmFeatures {
    WasmFeatures::default()
        & !(WasmFeatures::GC
            | WasmFeatures::FUNCTION_REFERENCES
            | WasmFeatures::EXCEPTIONS
            | WasmFeatures::MEMORY64
            | WasmFeatures::THREADS)
}

/// Nested components that use modules of outer ones would find others.
fn refuse_passed_modules(bytes: &[u8]) -> Result<(), Problem> {
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::ComponentAliasSection(aliases) = payload? else {
            continue;
        };
        for alias in aliases {
            let kind = ComponentOuterAliasKind::CoreModule;
            if matches!(alias?, ComponentAlias::Outer { kind: found, .. } if found == kind) {
                return Err(Problem::Unsupported("a component uses modules of another"));
            }
        }
    }
    Ok(())
}

/// Maximum number of groups of a component that are merged.
const MOST_GROUPS: usize = 16;

/// Merges nested components first, then the groups of the component itself, the largest one first.
fn merge_all(bytes: &[u8]) -> Result<Merged, Problem> {
    let mut merged = merge_nested(bytes)?;
    // What has been merged, by the present number. It can be a member again: instances may join it once others have.
    let mut groups = BTreeSet::new();
    let mut obstacle = None;
    for round in 0..=MOST_GROUPS {
        let (rewritten, found) = match merge_group(&merged.bytes) {
            Ok(own) => own,
            Err(problem) => {
                obstacle = Some(problem.to_string());
                break;
            }
        };
        obstacle = found.obstacle;
        let (Some(rewritten), Some(plan)) = (rewritten, found.plan) else {
            break;
        };
        if round == MOST_GROUPS {
            obstacle = Some(format!("it has more than {MOST_GROUPS} groups"));
            break;
        }
        merged.bytes = rewritten.bytes;
        merged.instances += plan.members.difference(&groups).count();
        let others = groups.difference(&plan.members);
        let mut now: BTreeSet<_> = others
            .filter_map(|one| rewritten.instances.get(one).copied())
            .collect();
        now.insert(rewritten.merged);
        groups = now;
    }
    merged.groups += groups.len();
    merged.unmerged = merged.unmerged.take().or(obstacle);
    Ok(merged)
}

/// The component with its largest group merged, if there is one.
fn merge_group(bytes: &[u8]) -> Result<(Option<Rewritten>, Found), Problem> {
    let graph = Graph::new(Layout::parse(bytes)?)?;
    let found = plan(&graph)?;
    let rewritten = found.plan.as_ref().map(|plan| rewrite(&graph, plan));
    Ok((rewritten.transpose()?, found))
}

/// Replaces the nested components, and copies everything else.
fn merge_nested(bytes: &[u8]) -> Result<Merged, Problem> {
    let mut component = Component::new();
    let (mut instances, mut groups, mut unmerged) = (0, 0, None);
    each_section(bytes, |payload| {
        if matches!(payload, Payload::Version { .. } | Payload::End(_)) {
            return Ok(());
        }
        let (id, data) = section(&payload, bytes)?;
        if id != u8::from(ComponentSectionId::Component) {
            component.section(&RawSection { id, data });
            return Ok(());
        }
        let merged = merge_all(data)?;
        instances += merged.instances;
        groups += merged.groups;
        unmerged = unmerged.take().or(merged.unmerged);
        let data = &merged.bytes;
        component.section(&RawSection { id, data });
        Ok(())
    })?;
    let bytes = match instances {
        0 => bytes.to_vec(),
        _ => component.finish(),
    };
    Ok(Merged {
        bytes,
        instances,
        groups,
        unmerged,
    })
}

#[cfg(test)]
mod tests;
