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
    /// Matches of one rule in one round for each node that the e-graph started with; a rule that has more rests for
    /// some rounds, so that one that feeds itself leaves room for the others.
    pub matches_per_node: usize,
}

/// Rounds that a rule rests the first time; each further time twice as many.
const REST: usize = 4;

/// How often a rule had too many matches, and when it is searched again.
#[derive(Clone, Copy, Default)]
struct Backoff {
    times: u32,
    until: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { iterations: 24, growth: 16, matches: 20_000, matches_per_node: 2 }
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
    let many = graph.nodes().len().saturating_mul(limits.matches_per_node).max(1000);
    let mut backoffs = vec![Backoff::default(); rules.len()];
    for iteration in 0..limits.iterations {
        let mut found = Vec::new();
        for (rule, backoff) in rules.iter().zip(&mut backoffs) {
            if iteration < backoff.until {
                continue;
            }
            let matches = rule.search(graph, limits.matches);
            if matches.len() > many << backoff.times.min(16) {
                log::debug!("e-graph: round {iteration}: {} rests: {} matches", rule.name, matches.len());
                backoff.until = iteration + 1 + (REST << backoff.times.min(16));
                backoff.times += 1;
                continue;
            }
            found.push((rule.name, matches));
        }
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
                log::trace!(
                    "e-graph: round {iteration}: {name} applied {new} times, {} nodes",
                    graph.nodes().len()
                );
            }
            changed |= new > 0;
        }
        graph.rebuild();
        if !changed {
            let limited = backoffs.iter().any(|backoff| iteration < backoff.until);
            return Report { iterations: iteration + 1, nodes: graph.total_size(), limited };
        }
    }
    Report { iterations: limits.iterations, nodes: graph.total_size(), limited: true }
}
