//! Which core instances are merged, and where the merged one is made.
//!
//! A group begins with an instance that defines a memory, and grows by each further instance that can join it. The merged instance has
//! everything that its members import before it, and everything that uses its members behind it. What happens while a component is
//! instantiated must not depend on that: segments and start functions keep their order, except where nothing can observe another one.

use std::collections::{BTreeSet, HashMap};

use wasmparser::{DataKind, ElementKind};

use crate::graph::{Entity, Graph, Made};
use crate::layout::Entry;
use crate::module::{Kind, Module};
use crate::problem::Problem;

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
    /// Why an instance that uses the memory or the table of the group, or of any instance if there is no group, is not a member.
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
/// If an index points nowhere.
pub(crate) fn plan(graph: &Graph<'_>) -> Result<Found, Problem> {
    let candidates = candidates(graph)?;
    let entries = graph.layout.entries.iter().enumerate();
    let running: Vec<_> = entries
        .filter(|(_, entry)| matches!(entry, Entry::Running { .. }))
        .map(|(at, _)| at)
        .collect();
    let with_memory = candidates.iter().filter(|one| one.defines_memory);
    let mut best = Found::default();
    let (mut most, mut obstacle) = (0, None);
    for seed in with_memory.take(MOST_MEMORIES) {
        let found = Search {
            graph,
            candidates: &candidates,
            running: &running,
        }
        .grow(seed);
        obstacle = obstacle.or_else(|| found.1.obstacle.clone());
        if found.0 > most {
            (most, best) = found;
        }
    }
    if best.plan.is_none() {
        best.obstacle = obstacle;
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
    /// The core instances that define what it imports.
    needs: BTreeSet<u32>,
    /// The position behind the last function of the runtime that it imports; 0 if there is none.
    behind: usize,
    /// The position of the first entry that uses it and is no core instance.
    first_use: Option<usize>,
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
    let first_uses = first_uses(graph);
    let mut all = Vec::new();
    for (instance, made) in (0..).zip(&graph.made) {
        let Made::Module { module, .. } = made else {
            continue;
        };
        let is_only = uses[*module as usize] == 1;
        let (module, imports) = graph.module_of(instance)?;
        let (mut needs, mut behind) = (BTreeSet::new(), 0);
        for import in imports {
            match import {
                Entity::Defined { instance, .. } => {
                    needs.insert(*instance);
                }
                Entity::Host(_) => behind = behind.max(graph.position(*import)? + 1),
            }
        }
        all.push(Candidate {
            instance,
            position: graph.layout.instances[instance as usize],
            is_only,
            defines_memory: !module.memories.is_empty(),
            has_start: module.start.is_some(),
            writes: writes(graph, instance, module)?,
            storage: storage(graph, instance, module)?,
            needs,
            behind,
            first_use: first_uses.get(&instance).copied(),
        });
    }
    Ok(all)
}

/// For each core instance, the position of the first entry that uses it and is no core instance.
fn first_uses(graph: &Graph<'_>) -> HashMap<u32, usize> {
    let mut first = HashMap::new();
    for (at, (entry, uses)) in graph.layout.entries.iter().zip(&graph.uses).enumerate() {
        if matches!(entry, Entry::Instance(_)) {
            continue;
        }
        for used in uses {
            if let Entity::Defined { instance, .. } = used {
                first.entry(*instance).or_insert(at);
            }
        }
    }
    first
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
            let entity = graph.item(instance, kind, index)?;
            if !all.contains(&entity) {
                all.push(entity);
            }
        }
    }
    Ok(all)
}

struct Search<'s, 'a> {
    graph: &'s Graph<'a>,
    candidates: &'s [Candidate],
    /// The positions of what runs code, in order.
    running: &'s [usize],
}

impl Search<'_, '_> {
    /// The number of members of the group that begins with this instance, and the group.
    fn grow(&self, seed: &Candidate) -> (usize, Found) {
        let mut found = Found::default();
        if !seed.is_only {
            return (0, found);
        }
        let mut members = BTreeSet::from([seed.instance]);
        let Ok(mut position) = self.examine(&members) else {
            return (0, found);
        };
        for candidate in self.candidates {
            if candidate.instance == seed.instance {
                continue;
            }
            members.insert(candidate.instance);
            let examined = match candidate.is_only {
                true => self.examine(&members),
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
        (count, found)
    }

    /// Where a group can be made as one instance.
    fn examine(&self, group: &BTreeSet<u32>) -> Result<usize, Obstacle> {
        let is_member = |candidate: &&Candidate| group.contains(&candidate.instance);
        let members: Vec<_> = self.candidates.iter().filter(is_member).collect();
        if let Some(obstacle) = obstacle_within(&members) {
            return Err(obstacle);
        }
        let mut position = members.first().map_or(0, |first| first.position);
        for member in &members {
            position = position.max(member.behind);
            for needed in member.needs.difference(group) {
                position = position.max(self.graph.layout.instances[*needed as usize] + 1);
            }
        }
        let is_early = |at: usize| at < position;
        if members
            .iter()
            .any(|one| one.first_use.is_some_and(is_early))
        {
            return Err(Obstacle::Cycle);
        }
        for other in self.candidates {
            let is_outside = !group.contains(&other.instance);
            if is_outside && is_early(other.position) && !other.needs.is_disjoint(group) {
                return Err(Obstacle::Cycle);
            }
        }
        match self.keeps_order(group, &members, position) {
            true => Ok(position),
            false => Err(Obstacle::Order),
        }
    }

    /// Whether no member changes places with something that could observe it.
    fn keeps_order(&self, group: &BTreeSet<u32>, members: &[&Candidate], position: usize) -> bool {
        let others = self.candidates.iter();
        let mut others = others.filter(|other| !group.contains(&other.instance));
        let crosses = |member: &Candidate, at: usize| (member.position < at) != (position <= at);
        others.all(|other| {
            let mut crossing = members.iter().filter(|one| crosses(one, other.position));
            crossing.all(|member| commute(member, other))
        }) && members.iter().all(|member| {
            let [from, to] = [member.position.min(position), member.position.max(position)];
            let before = |end: usize| self.running.partition_point(|at| *at < end);
            member.is_inert() || before(from) == before(to)
        })
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
