//! Which core instances are merged, and where the merged one is made.
//!
//! A group begins with an instance that defines a memory, and grows by each further instance that can join it. The merged instance has
//! everything that its members import before it, and everything that uses its members behind it. What happens while a component is
//! instantiated must not depend on that: segments and start functions keep their order, except where nothing can observe another one.

use std::collections::BTreeSet;

use wasmparser::{DataKind, ElementKind};

use crate::graph::{Entity, Graph, Made};
use crate::layout::Entry;
use crate::module::{Kind, Module};
use crate::problem::Problem;

/// Maximum number of core instances of a component that is examined.
const MOST_INSTANCES: usize = 256;

/// Maximum number of memories for which a group is tried.
const MOST_MEMORIES: usize = 16;

/// A group of core instances that can be merged.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The members, in the order in which they are made.
    pub(crate) members: BTreeSet<u32>,
    /// The merged instance is made before the entry at this position.
    pub(crate) position: usize,
}

/// What [`plan`] found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// A group of at least two.
    pub(crate) plan: Option<Plan>,
    /// Why an instance that uses the memory or the table of the group is not a member.
    pub(crate) obstacle: Option<String>,
}

/// Why an instance cannot join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Obstacle {
    #[error("the merged module would have two memories")]
    Memories,
    #[error("the merged module would have two tables")]
    Tables,
    #[error("its module is instantiated more than once")]
    Repeated,
    #[error("it imports functions that are made of those of the others")]
    Cycle,
    #[error("a start function runs before its segments are applied")]
    Start,
    #[error("what runs or is written before it would come after it, or the reverse")]
    Order,
}

/// Finds the largest group.
///
/// # Errors
/// If the component has too many instances.
pub(crate) fn plan(graph: &Graph<'_>) -> Result<Found, Problem> {
    if graph.made.len() > MOST_INSTANCES {
        return Err(Problem::Unsupported("it has too many core instances"));
    }
    let candidates: Vec<_> = candidates(graph)?;
    let with_memory = candidates.iter().filter(|one| one.defines_memory);
    let mut best = Found::default();
    let mut most = 0;
    for seed in with_memory.take(MOST_MEMORIES) {
        let found = Search {
            graph,
            candidates: &candidates,
        }
        .grow(seed)?;
        if found.0 > most {
            (most, best) = found;
        }
    }
    Ok(best)
}

/// A core instance that is made from a module.
struct Candidate {
    instance: u32,
    position: usize,
    /// Whether no other instance has its module.
    is_only: bool,
    defines_memory: bool,
    has_start: bool,
    /// The memories and tables that its active segments write.
    writes: Vec<Entity>,
    /// The memories and tables that it defines or imports.
    storage: Vec<Entity>,
}

impl Candidate {
    /// Whether its instantiation changes nothing but itself.
    fn is_inert(&self) -> bool {
        !self.has_start && self.writes.is_empty()
    }
}

fn candidates(graph: &Graph<'_>) -> Result<Vec<Candidate>, Problem> {
    let mut uses = vec![0_u32; graph.modules.len()];
    for made in &graph.made {
        if let Made::Module { module, .. } = made {
            uses[*module as usize] += 1;
        }
    }
    let mut all = Vec::new();
    for (instance, made) in (0..).zip(&graph.made) {
        let Made::Module { module, .. } = made else {
            continue;
        };
        let is_only = uses[*module as usize] == 1;
        let (module, _) = graph.module_of(instance)?;
        all.push(Candidate {
            instance,
            position: graph.layout.instances[instance as usize],
            is_only,
            defines_memory: !module.memories.is_empty(),
            has_start: module.start.is_some(),
            writes: writes(graph, instance, module)?,
            storage: storage(graph, instance, module)?,
        });
    }
    Ok(all)
}

/// The memories and tables that active segments write.
fn writes(graph: &Graph<'_>, instance: u32, module: &Module<'_>) -> Result<Vec<Entity>, Problem> {
    let tables = module
        .elements
        .iter()
        .filter_map(|element| match element.kind {
            ElementKind::Active { table_index, .. } => {
                Some((Kind::Table, table_index.unwrap_or_default()))
            }
            ElementKind::Passive | ElementKind::Declared => None,
        });
    let memories = module.data.iter().filter_map(|data| match data.kind {
        DataKind::Active { memory_index, .. } => Some((Kind::Memory, memory_index)),
        DataKind::Passive => None,
    });
    let mut written = Vec::new();
    for (kind, index) in tables.chain(memories) {
        let entity = graph.item(instance, kind, index)?;
        if !written.contains(&entity) {
            written.push(entity);
        }
    }
    Ok(written)
}

/// The memories and tables of an instance.
fn storage(graph: &Graph<'_>, instance: u32, module: &Module<'_>) -> Result<Vec<Entity>, Problem> {
    let mut all = Vec::new();
    for kind in [Kind::Memory, Kind::Table] {
        for index in 0..module.imported(kind) + module.defined(kind) {
            all.push(graph.item(instance, kind, index)?);
        }
    }
    Ok(all)
}

struct Search<'s, 'a> {
    graph: &'s Graph<'a>,
    candidates: &'s [Candidate],
}

impl Search<'_, '_> {
    /// The number of members of the group that begins with this instance, and the group.
    fn grow(&self, seed: &Candidate) -> Result<(usize, Found), Problem> {
        let mut found = Found::default();
        if !seed.is_only {
            return Ok((0, found));
        }
        let mut members = BTreeSet::from([seed.instance]);
        let Ok(mut position) = self.examine(&members)? else {
            return Ok((0, found));
        };
        for candidate in self.candidates {
            if candidate.instance == seed.instance {
                continue;
            }
            members.insert(candidate.instance);
            let examined = match candidate.is_only {
                true => self.examine(&members)?,
                false => Err(Obstacle::Repeated),
            };
            match examined {
                Ok(at) => position = at,
                Err(obstacle) => {
                    members.remove(&candidate.instance);
                    let mut shared = candidate.storage.iter();
                    if shared.any(|entity| seed.storage.contains(entity)) {
                        let text = format!("core instance {}: {obstacle}", candidate.instance);
                        found.obstacle.get_or_insert(text);
                    }
                }
            }
        }
        let count = members.len();
        if count > 1 {
            found.plan = Some(Plan { members, position });
        }
        Ok((count, found))
    }

    /// Where a group can be made as one instance.
    fn examine(&self, group: &BTreeSet<u32>) -> Result<Result<usize, Obstacle>, Problem> {
        let is_member = |candidate: &&Candidate| group.contains(&candidate.instance);
        let members: Vec<_> = self.candidates.iter().filter(is_member).collect();
        if let Some(obstacle) = obstacle_within(&members) {
            return Ok(Err(obstacle));
        }
        let mut position = members.first().map_or(0, |first| first.position);
        for member in &members {
            for needed in &self.graph.uses[member.position] {
                if !is_made_by(group, *needed) {
                    position = position.max(self.graph.position(*needed)? + 1);
                }
            }
        }
        let own: BTreeSet<_> = members.iter().map(|member| member.position).collect();
        for (at, uses) in self.graph.uses.iter().enumerate() {
            let is_early = at < position && !own.contains(&at);
            if is_early && uses.iter().any(|used| is_made_by(group, *used)) {
                return Ok(Err(Obstacle::Cycle));
            }
        }
        match self.keeps_order(group, &members, position) {
            true => Ok(Ok(position)),
            false => Ok(Err(Obstacle::Order)),
        }
    }

    /// Whether no member changes places with something that could observe it.
    fn keeps_order(&self, group: &BTreeSet<u32>, members: &[&Candidate], position: usize) -> bool {
        let others = self.candidates.iter();
        let mut others = others.filter(|other| !group.contains(&other.instance));
        let entries = self.graph.layout.entries.iter().enumerate();
        let mut running = entries
            .filter(|(_, entry)| matches!(entry, Entry::Running { .. }))
            .map(|(at, _)| at);
        let crosses = |member: &Candidate, at: usize| (member.position < at) != (position <= at);
        others.all(|other| {
            let mut crossing = members.iter().filter(|one| crosses(one, other.position));
            crossing.all(|member| commute(member, other))
        }) && running.all(|at| {
            let mut crossing = members.iter().filter(|one| crosses(one, at));
            crossing.all(|member| member.is_inert())
        })
    }
}

/// Whether an item is defined in a member of a group.
fn is_made_by(group: &BTreeSet<u32>, entity: Entity) -> bool {
    match entity {
        Entity::Defined { instance, .. } => group.contains(&instance),
        Entity::Host(_) => false,
    }
}

fn obstacle_within(members: &[&Candidate]) -> Option<Obstacle> {
    let (mut memories, mut tables) = (BTreeSet::new(), BTreeSet::new());
    let mut has_start = false;
    for member in members {
        for entity in &member.storage {
            let Entity::Defined {
                instance,
                kind,
                index,
            } = *entity
            else {
                continue;
            };
            match kind {
                Kind::Memory => memories.insert((instance, index)),
                Kind::Table => tables.insert((instance, index)),
                Kind::Func | Kind::Global => false,
            };
        }
        if has_start && !member.writes.is_empty() {
            return Some(Obstacle::Start);
        }
        has_start |= member.has_start;
    }
    if memories.len() > 1 {
        return Some(Obstacle::Memories);
    }
    (tables.len() > 1).then_some(Obstacle::Tables)
}

/// Whether two instances can be made in any order. Without start functions nobody observes what their segments write.
fn commute(one: &Candidate, other: &Candidate) -> bool {
    let written = |entity| other.writes.contains(entity);
    let both = [one, other];
    both.iter().any(|candidate| candidate.is_inert())
        || (!one.has_start && !other.has_start && !one.writes.iter().any(written))
}
