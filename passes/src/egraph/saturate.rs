//! Applying rules until nothing is new or a limit is reached.
//!
//! Limits count nodes, matches and iterations, never time, so that the result is the same on every machine.

use super::analysis::Graph;
use super::rule::Rule;
use super::term::insert_into;

/// When to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Largest number of rounds in which every rule is searched and applied.
    pub iterations: usize,
    /// Nodes of the e-graph for each node it started with; a region may grow this many times.
    pub growth: usize,
    /// Largest number of matches of one rule in one round.
    pub matches: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { iterations: 24, growth: 16, matches: 20_000 }
    }
}

/// What a saturation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Rounds until nothing was new.
    pub iterations: usize,
    /// Nodes at the end.
    pub nodes: usize,
    /// True where a limit ended the search.
    pub limited: bool,
}

/// Applies `rules` to the e-graph.
pub fn saturate(graph: &mut Graph, rules: &[&Rule], limits: &Limits) -> Report {
    graph.rebuild();
    // Every node ever added counts, merged ones too: that is what takes the memory.
    let most = graph.nodes().len().saturating_mul(limits.growth).max(1000);
    for iteration in 0..limits.iterations {
        let found: Vec<_> =
            rules.iter().map(|rule| (rule.name, rule.search(graph, limits.matches))).collect();
        let mut changed = false;
        for (name, matches) in found {
            let mut new = 0usize;
            for (class, term) in matches {
                new += usize::from(insert_into(graph, class, &term));
                if graph.nodes().len() > most {
                    log::debug!("e-graph: node limit in round {iteration}, rule {name}");
                    graph.rebuild();
                    return Report { iterations: iteration + 1, nodes: graph.total_size(), limited: true };
                }
            }
            if new > 0 {
                log::trace!("e-graph: round {iteration}: {name} applied {new} times");
            }
            changed |= new > 0;
        }
        graph.rebuild();
        if !changed {
            return Report { iterations: iteration + 1, nodes: graph.total_size(), limited: false };
        }
    }
    Report { iterations: limits.iterations, nodes: graph.total_size(), limited: true }
}
