//! Strongly connected components of a graph, by Tarjan's algorithm.

use std::collections::BTreeMap;

/// Returns the components of the graph that `next` describes, each sorted.
pub(super) fn components<'a, I>(
    nodes: impl Iterator<Item = &'a String>,
    next: impl Fn(&'a String) -> I,
) -> Vec<Vec<String>>
where
    I: Iterator<Item = &'a String>,
{
    let mut search = Search {
        next,
        numbers: BTreeMap::new(),
        stack: Vec::new(),
        found: Vec::new(),
    };
    for node in nodes {
        if !search.numbers.contains_key(node) {
            search.visit(node);
        }
    }
    search.found
}

struct Search<'a, F> {
    next: F,
    /// Order in which nodes were visited; the largest number once the component of a node is complete.
    numbers: BTreeMap<&'a String, usize>,
    stack: Vec<&'a String>,
    found: Vec<Vec<String>>,
}

impl<'a, F, I> Search<'a, F>
where
    F: Fn(&'a String) -> I,
    I: Iterator<Item = &'a String>,
{
    /// Returns the lowest number that is reachable from a node.
    fn visit(&mut self, node: &'a String) -> usize {
        let number = self.numbers.len();
        self.numbers.insert(node, number);
        let depth = self.stack.len();
        self.stack.push(node);

        let mut lowest = number;
        for other in (self.next)(node) {
            let reached = match self.numbers.get(other) {
                Some(number) => *number,
                None => self.visit(other),
            };
            lowest = lowest.min(reached);
        }
        if lowest < number {
            return lowest;
        }

        let component = self.stack.split_off(depth);
        for node in &component {
            self.numbers.insert(node, usize::MAX);
        }
        let mut component: Vec<String> = component.into_iter().cloned().collect();
        component.sort();
        self.found.push(component);
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_lead_to_each_other_are_one_component() {
        let graph: BTreeMap<String, Vec<String>> = [
            ("a", vec!["b"]),
            ("b", vec!["c", "d"]),
            ("c", vec!["a"]),
            ("d", vec!["e"]),
            ("e", vec!["f"]),
            ("f", vec!["e"]),
            ("g", vec!["a", "g"]),
        ]
        .into_iter()
        .map(|(from, to)| (from.to_owned(), to.into_iter().map(str::to_owned).collect()))
        .collect();

        let mut found = components(graph.keys(), |node| graph[node].iter());
        found.sort();

        assert_eq!(
            found,
            [vec!["a", "b", "c"], vec!["d"], vec!["e", "f"], vec!["g"]]
        );
    }
}
