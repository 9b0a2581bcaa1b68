//! Choosing one node for each needed class so that their total cost is least, shared classes counted once.
//!
//! A greedy fixpoint keeps for each class the set of classes that its best node needs, so that sharing below a node is
//! exact; sets are bit sets, and work goes in topological order. Local improvement then tries every other node of every
//! selected class with exact accounting, which also sees sharing between roots.

use std::collections::{BTreeSet, HashMap};

use egg::{Id, Language};

use super::analysis::Graph;
use super::language::Node;

/// Every node costs at least this, so that a least-cost tree has no cycle.
const EPSILON: f64 = 1e-13;

/// Rounds of local improvement.
const ROUNDS: usize = 3;

/// Above this number of classes the sets of needed classes take too long; local improvement then starts from least trees.
const LARGEST_EXACT: usize = 16_384;

/// One node for each needed class.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    nodes: HashMap<Id, Node>,
    /// Sum of the costs of the selected nodes.
    pub cost: f64,
    /// Selected classes, each after the classes that its node needs.
    pub order: Vec<Id>,
}

impl Selection {
    /// The node chosen for a canonical class.
    pub fn node(&self, class: Id) -> Option<&Node> {
        self.nodes.get(&class)
    }
}

struct Candidate {
    node: usize,
    cost: f64,
    children: Vec<u32>,
}

struct Problem {
    classes: Vec<Id>,
    candidates: Vec<Vec<Candidate>>,
    parents: Vec<Vec<u32>>,
    roots: Vec<u32>,
}

#[derive(Clone)]
struct Best {
    candidate: usize,
    total: f64,
    needs: Vec<u64>,
}

/// Selects nodes for everything that `roots` need; `None` where a class has no node without a cycle.
pub fn extract(graph: &Graph, roots: &[Id], cost: &dyn Fn(Id, &Node) -> f64) -> Option<Selection> {
    let problem = Problem::new(graph, roots, cost);
    let mut choice = Vec::new();
    if problem.classes.len() <= LARGEST_EXACT {
        choice = problem.greedy().iter().map(|best| best.as_ref().map(|best| best.candidate)).collect();
    }
    if choice.is_empty() || problem.order(&choice).is_none() {
        choice = problem.least_trees();
    }
    problem.improve(&mut choice);
    let order = problem.order(&choice)?;
    let mut selection = Selection::default();
    for class in order {
        let candidate = &problem.candidates[class as usize][choice[class as usize]?];
        let id = problem.classes[class as usize];
        selection.nodes.insert(id, graph[id].nodes[candidate.node].clone());
        selection.cost += candidate.cost;
        selection.order.push(id);
    }
    // Leaves are no part of the problem; they cost nothing.
    let needed: Vec<Id> = selection
        .nodes
        .values()
        .flat_map(|node| node.children().to_vec())
        .chain(roots.iter().copied())
        .collect();
    for id in needed {
        let class = graph.find(id);
        if let Some(leaf) = free_leaf(graph, class) {
            selection.nodes.insert(class, leaf.clone());
        }
    }
    Some(selection)
}

/// The leaf of a class that has one: nothing is cheaper.
fn free_leaf(graph: &Graph, class: Id) -> Option<&Node> {
    graph[class].nodes.iter().find(|node| node.is_leaf())
}

impl Problem {
    fn new(graph: &Graph, roots: &[Id], cost: &dyn Fn(Id, &Node) -> f64) -> Problem {
        let roots: Vec<Id> =
            roots.iter().map(|id| graph.find(*id)).filter(|id| free_leaf(graph, *id).is_none()).collect();
        let needed = |node: &Node| -> Vec<Id> {
            let mut children: Vec<Id> = Vec::with_capacity(node.len());
            for child in node.children() {
                let child = graph.find(*child);
                if free_leaf(graph, child).is_none() && !children.contains(&child) {
                    children.push(child);
                }
            }
            children
        };
        // Postorder over every node: without cycles children come before their parents.
        let mut index: HashMap<Id, u32> = HashMap::new();
        let mut seen: HashMap<Id, ()> = HashMap::new();
        let mut classes = Vec::new();
        let mut stack: Vec<(Id, bool)> = roots.iter().rev().map(|id| (*id, false)).collect();
        while let Some((class, done)) = stack.pop() {
            if done {
                index.insert(class, classes.len() as u32);
                classes.push(class);
                continue;
            }
            if seen.insert(class, ()).is_some() {
                continue;
            }
            stack.push((class, true));
            for node in graph[class].nodes.iter().rev() {
                for child in needed(node) {
                    if !seen.contains_key(&child) {
                        stack.push((child, false));
                    }
                }
            }
        }
        let mut candidates = Vec::with_capacity(classes.len());
        let mut parents: Vec<Vec<u32>> = vec![Vec::new(); classes.len()];
        for (position, class) in classes.iter().enumerate() {
            let mut list = Vec::new();
            for (place, node) in graph[*class].nodes.iter().enumerate() {
                let children: Vec<u32> = needed(node).iter().map(|child| index[child]).collect();
                if children.contains(&(position as u32)) {
                    continue;
                }
                for child in &children {
                    if parents[*child as usize].last() != Some(&(position as u32)) {
                        parents[*child as usize].push(position as u32);
                    }
                }
                list.push(Candidate { node: place, cost: cost(*class, node).max(0.0) + EPSILON, children });
            }
            candidates.push(list);
        }
        let roots = roots.iter().map(|id| index[id]).collect();
        Problem { classes, candidates, parents, roots }
    }

    fn greedy(&self) -> Vec<Option<Best>> {
        let words = self.classes.len().div_ceil(64);
        let mut best: Vec<Option<Best>> = vec![None; self.classes.len()];
        let mut own = vec![0.0f64; self.classes.len()];
        let mut work: BTreeSet<u32> = (0..self.classes.len() as u32).collect();
        let mut budget = 32 * self.classes.len() + 1024;
        while let Some(class) = work.pop_first() {
            if budget == 0 {
                break;
            }
            budget -= 1;
            let current = best[class as usize].as_ref().map_or(f64::INFINITY, |best| best.total);
            let mut found: Option<Best> = None;
            for (place, candidate) in self.candidates[class as usize].iter().enumerate() {
                let least = found.as_ref().map_or(f64::INFINITY, |best: &Best| best.total);
                if let Some(next) = self.evaluate(class, place, candidate, &best, &own, words, least) {
                    found = Some(next);
                }
            }
            let Some(found) = found else { continue };
            if found.total < current - EPSILON * 1e-3 {
                own[class as usize] = self.candidates[class as usize][found.candidate].cost;
                best[class as usize] = Some(found);
                work.extend(&self.parents[class as usize]);
            }
        }
        best
    }

    /// The node with everything below it, if that is cheaper than `least` and free of cycles.
    #[allow(clippy::too_many_arguments, reason = "the state of the fixpoint")]
    fn evaluate(
        &self,
        class: u32,
        place: usize,
        candidate: &Candidate,
        best: &[Option<Best>],
        own: &[f64],
        words: usize,
        least: f64,
    ) -> Option<Best> {
        let mut children = Vec::with_capacity(candidate.children.len());
        for child in &candidate.children {
            children.push(best[*child as usize].as_ref()?);
        }
        children.sort_by(|a, b| b.total.total_cmp(&a.total));
        let mut total = candidate.cost + children.first().map_or(0.0, |child| child.total);
        if total >= least {
            return None;
        }
        let mut needs = children.first().map_or_else(|| vec![0; words], |child| child.needs.clone());
        for child in children.iter().skip(1) {
            for (word, (have, want)) in needs.iter_mut().zip(&child.needs).enumerate() {
                let mut new = want & !*have;
                *have |= want;
                while new != 0 {
                    total += own[word * 64 + new.trailing_zeros() as usize];
                    new &= new - 1;
                }
            }
            if total >= least {
                return None;
            }
        }
        let (word, bit) = (class as usize / 64, 1u64 << (class % 64));
        if needs[word] & bit != 0 {
            return None;
        }
        needs[word] |= bit;
        Some(Best { candidate: place, total, needs })
    }

    /// Least-cost trees: sharing is ignored, cycles cannot occur.
    fn least_trees(&self) -> Vec<Option<usize>> {
        let mut cost = vec![f64::INFINITY; self.classes.len()];
        let mut choice = vec![None; self.classes.len()];
        let mut work: BTreeSet<u32> = (0..self.classes.len() as u32).collect();
        while let Some(class) = work.pop_first() {
            for (place, candidate) in self.candidates[class as usize].iter().enumerate() {
                let total = candidate.cost
                    + candidate.children.iter().map(|child| cost[*child as usize]).sum::<f64>();
                if total < cost[class as usize] * (1.0 - 1e-12) {
                    cost[class as usize] = total;
                    choice[class as usize] = Some(place);
                    work.extend(&self.parents[class as usize]);
                }
            }
        }
        choice
    }

    /// Needed classes, children first; `None` where the choice has a cycle or a gap.
    fn order(&self, choice: &[Option<usize>]) -> Option<Vec<u32>> {
        // 0: unseen, 1: open, 2: done.
        let mut state = vec![0u8; self.classes.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(u32, bool)> = self.roots.iter().rev().map(|root| (*root, false)).collect();
        while let Some((class, close)) = stack.pop() {
            if close {
                state[class as usize] = 2;
                order.push(class);
                continue;
            }
            match state[class as usize] {
                2 => continue,
                1 => return None,
                _ => state[class as usize] = 1,
            }
            stack.push((class, true));
            for child in self.candidates[class as usize][choice[class as usize]?].children.iter().rev() {
                match state[*child as usize] {
                    0 => stack.push((*child, false)),
                    1 => return None,
                    _ => {}
                }
            }
        }
        Some(order)
    }

    /// Switches single classes to other nodes while that lowers the exact total.
    fn improve(&self, choice: &mut [Option<usize>]) {
        let mut uses = vec![0u32; self.classes.len()];
        for root in &self.roots {
            self.acquire(*root, choice, &mut uses);
        }
        for _ in 0..ROUNDS {
            let mut improved = false;
            for class in 0..self.classes.len() as u32 {
                if uses[class as usize] == 0 || self.candidates[class as usize].len() < 2 {
                    continue;
                }
                let Some(current) = choice[class as usize] else { continue };
                for place in 0..self.candidates[class as usize].len() {
                    let now = choice[class as usize].unwrap_or(current);
                    if place != now && self.switch(class, now, place, choice, &mut uses) {
                        improved = true;
                    }
                }
            }
            if !improved {
                return;
            }
        }
    }

    fn switch(
        &self,
        class: u32,
        from: usize,
        to: usize,
        choice: &mut [Option<usize>],
        uses: &mut [u32],
    ) -> bool {
        let candidates = &self.candidates[class as usize];
        if candidates[to].children.iter().any(|child| choice[*child as usize].is_none()) {
            return false;
        }
        let mut change = candidates[to].cost - candidates[from].cost;
        for child in &candidates[to].children {
            change += self.acquire(*child, choice, uses);
        }
        for child in &candidates[from].children {
            change -= self.release(*child, choice, uses);
        }
        if change < -1e-12 && !self.reaches(&candidates[to].children, class, choice) {
            choice[class as usize] = Some(to);
            return true;
        }
        for child in &candidates[from].children {
            self.acquire(*child, choice, uses);
        }
        for child in &candidates[to].children {
            self.release(*child, choice, uses);
        }
        false
    }

    /// Counts one more use of a class; the cost of what is needed newly.
    fn acquire(&self, class: u32, choice: &[Option<usize>], uses: &mut [u32]) -> f64 {
        let mut cost = 0.0;
        let mut stack = vec![class];
        while let Some(class) = stack.pop() {
            uses[class as usize] += 1;
            if uses[class as usize] == 1
                && let Some(place) = choice[class as usize]
            {
                let candidate = &self.candidates[class as usize][place];
                cost += candidate.cost;
                stack.extend(&candidate.children);
            }
        }
        cost
    }

    /// Takes one use of a class back; the cost of what is no longer needed.
    fn release(&self, class: u32, choice: &[Option<usize>], uses: &mut [u32]) -> f64 {
        let mut cost = 0.0;
        let mut stack = vec![class];
        while let Some(class) = stack.pop() {
            uses[class as usize] = uses[class as usize].saturating_sub(1);
            if uses[class as usize] == 0
                && let Some(place) = choice[class as usize]
            {
                let candidate = &self.candidates[class as usize][place];
                cost += candidate.cost;
                stack.extend(&candidate.children);
            }
        }
        cost
    }

    fn reaches(&self, from: &[u32], target: u32, choice: &[Option<usize>]) -> bool {
        let mut seen = vec![false; self.classes.len()];
        let mut stack = from.to_vec();
        while let Some(class) = stack.pop() {
            if class == target {
                return true;
            }
            if std::mem::replace(&mut seen[class as usize], true) {
                continue;
            }
            if let Some(place) = choice[class as usize] {
                stack.extend(&self.candidates[class as usize][place].children);
            }
        }
        false
    }
}
