//! Sizes of symbolic dimensions that nobody gave, for random inputs: what a person would try first.
//!
//! Sides of images are as large as networks are trained on, everything else is as small as the model allows. What the
//! model allows is what its program checks: before a run, and inside of branches, where a size that suits all branches is
//! preferred. So is one that leaves no tensor empty.

use tcc_runtime::DimExpr;
use tcc_runtime::dim::SymbolId;
use tcc_runtime::manifest::{Constraint, Manifest, Relation, Step, SymbolSource};

use crate::error::Error;
use crate::inputs::Inputs;
use crate::model::Dims;

/// Sides of images, in the order in which they are tried.
const IMAGE_SIDES: [i64; 6] = [224, 256, 320, 384, 512, 640];

/// The largest size that is tried for anything else.
const LARGEST: i64 = 1 << 12;

/// Values of the input symbols of a program.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sizes {
    /// By position in the manifest's table; `None` for symbols that steps bind.
    pub values: Vec<Option<i64>>,
    /// Names and values of those that were chosen freely.
    pub chosen: Vec<(String, i64)>,
}

/// Chooses sizes. Those that `dims` fixes and those of the arrays in `given` stand.
pub fn choose(manifest: &Manifest, dims: &Dims, given: &Inputs) -> Result<Sizes, Error> {
    let mut search = Search::new(manifest, dims, given);
    let (mut required, mut preferred) = (Vec::new(), Vec::new());
    required.extend(manifest.constraints.iter().cloned());
    collect(&manifest.steps, &mut preferred);
    let mut filled = nonempty(manifest);
    // A wish that some size given outside makes impossible is no wish.
    for wishes in [&mut preferred, &mut filled] {
        wishes.retain(|wish| search.is_open(wish));
    }
    let levels = [
        [&required[..], &preferred, &filled].concat(),
        [&required[..], &preferred].concat(),
        [&required[..], &filled].concat(),
        required,
    ];
    let mut violated = None;
    for constraints in &levels {
        match search.solve(constraints) {
            Ok(()) => return Ok(search.sizes()),
            Err(constraint) => violated = Some(constraint),
        }
    }
    let names: Vec<&str> =
        search.free.iter().map(|id| manifest.symbols[*id as usize].name.as_str()).collect();
    Err(Error::Sizes {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        reason: violated.map_or_else(String::new, |constraint| constraint.reason),
    })
}

/// Checks of steps at any depth.
fn collect(steps: &[Step], found: &mut Vec<Constraint>) {
    for step in steps {
        if let Step::Require(constraint) = step {
            found.push(constraint.clone());
        }
        for children in step.children() {
            collect(children, found);
        }
    }
}

/// The wish that no extent of a tensor is zero.
fn nonempty(manifest: &Manifest) -> Vec<Constraint> {
    let mut extents: Vec<&DimExpr> = manifest.tensors.iter().flat_map(|tensor| &tensor.shape).collect();
    extents.retain(|dim| !matches!(dim, DimExpr::Const(_) | DimExpr::Symbol(_)));
    let mut seen = std::collections::HashSet::new();
    extents.retain(|dim| seen.insert(*dim));
    let wish = |dim: &&DimExpr| Constraint {
        left: DimExpr::Const(1),
        relation: Relation::LessOrEqual,
        right: (*dim).clone(),
        reason: "a tensor would be empty".into(),
    };
    extents.iter().map(wish).collect()
}

struct Search<'m> {
    manifest: &'m Manifest,
    values: Vec<Option<i64>>,
    /// Symbols to choose, and of those the sides of images.
    free: Vec<SymbolId>,
    sides: Vec<SymbolId>,
    ranges: Vec<(i64, i64)>,
}

impl<'m> Search<'m> {
    fn new(manifest: &'m Manifest, dims: &Dims, given: &Inputs) -> Search<'m> {
        let mut search = Search {
            manifest,
            values: vec![None; manifest.symbols.len()],
            free: Vec::new(),
            sides: Vec::new(),
            ranges: Vec::new(),
        };
        for (id, symbol) in manifest.symbols.iter().enumerate() {
            let (mut low, mut high) = (symbol.lo, symbol.hi);
            if let Some(range) = dims.get(&symbol.name) {
                (low, high) = (low.max(range.low), high.min(range.high));
            }
            search.ranges.push((low, high.max(low)));
            let SymbolSource::Input { input, axis } = symbol.source else { continue };
            let port = &manifest.inputs[input as usize];
            let array = given.get(&port.name).and_then(|data| data.shape().get(axis as usize).copied());
            if let Some(extent) = array.or((low >= high).then_some(low as usize)) {
                search.values[id] = Some(extent as i64);
                continue;
            }
            search.free.push(id as SymbolId);
            if is_side(&manifest.tensors[port.tensor as usize].shape, axis as usize) {
                search.sides.push(id as SymbolId);
            }
        }
        search
    }

    /// True where only symbols of inputs decide a constraint, and some of them are free.
    fn is_open(&self, constraint: &Constraint) -> bool {
        let (mut decidable, mut open) = (true, false);
        for side in [&constraint.left, &constraint.right] {
            side.for_each_symbol(&mut |id| {
                open |= self.free.contains(&id);
                decidable &= self.free.contains(&id) || self.values[id as usize].is_some();
            });
        }
        decidable && open
    }

    /// Finds values that satisfy all constraints on free symbols, or returns one that none was found for.
    fn solve(&mut self, constraints: &[Constraint]) -> Result<(), Constraint> {
        for group in self.groups(constraints) {
            let concerned: Vec<&Constraint> =
                constraints.iter().filter(|constraint| mentions(constraint, &group)).collect();
            let mut first: Option<&Constraint> = None;
            let units = self.units(&group);
            let trials = self
                .candidates(&group)
                .into_iter()
                .flat_map(|size| units.iter().map(move |unit| (unit, size)));
            let mut found = false;
            for (unit, size) in trials {
                self.assign(&group, unit, size, &concerned);
                let violated = concerned.iter().find(|constraint| !self.holds(constraint));
                found = violated.is_none();
                if found {
                    break;
                }
                first = first.or(violated.copied());
            }
            if let (false, Some(violated)) = (found, first) {
                return Err(violated.clone());
            }
        }
        Ok(())
    }

    /// The free symbols, those together that a constraint ties to each other.
    fn groups(&self, constraints: &[Constraint]) -> Vec<Vec<SymbolId>> {
        let mut groups: Vec<Vec<SymbolId>> = self.free.iter().map(|id| vec![*id]).collect();
        for constraint in constraints {
            let (tied, rest): (Vec<_>, Vec<_>) =
                groups.into_iter().partition(|group| mentions(constraint, group));
            groups = rest;
            if !tied.is_empty() {
                groups.push(tied.concat());
            }
        }
        groups
    }

    /// The parts of a group that grow while the rest stays small: the sides of images together, each symbol, all.
    fn units(&self, group: &[SymbolId]) -> Vec<Vec<SymbolId>> {
        let sides: Vec<SymbolId> = group.iter().copied().filter(|id| self.sides.contains(id)).collect();
        let mut units = vec![sides];
        units.extend(group.iter().map(|id| vec![*id]));
        units.push(group.to_vec());
        units.retain(|unit| !unit.is_empty());
        units
    }

    /// The sizes to try for a group.
    fn candidates(&self, group: &[SymbolId]) -> Vec<i64> {
        let sides = if group.iter().any(|id| self.sides.contains(id)) { &IMAGE_SIDES[..] } else { &[] };
        let low = group.iter().map(|id| self.ranges[*id as usize].0.max(1)).min().unwrap_or(1);
        sides.iter().copied().chain(low..=low.saturating_add(LARGEST)).collect()
    }

    /// Gives the symbols of a unit a size, as far as their ranges allow, the rest of the group the smallest, and then those
    /// that an equality states the value that follows.
    fn assign(&mut self, group: &[SymbolId], unit: &[SymbolId], size: i64, constraints: &[&Constraint]) {
        for id in group {
            let (low, high) = self.ranges[*id as usize];
            let size = if unit.contains(id) { size } else { 1 };
            self.values[*id as usize] = Some(size.clamp(low.max(1).min(high), high));
        }
        for _ in 0..group.len() {
            for constraint in constraints.iter().filter(|constraint| constraint.relation == Relation::Equal) {
                if self.holds(constraint) {
                    continue;
                }
                let sides = [(&constraint.left, &constraint.right), (&constraint.right, &constraint.left)];
                for (symbol, other) in sides {
                    if let (DimExpr::Symbol(id), Ok(value)) = (symbol, other.evaluate(&self.values))
                        && group.contains(id)
                        && (self.ranges[*id as usize].0..=self.ranges[*id as usize].1).contains(&value)
                    {
                        self.values[*id as usize] = Some(value);
                        break;
                    }
                }
            }
        }
    }

    fn holds(&self, constraint: &Constraint) -> bool {
        let value = |dim: &DimExpr| dim.evaluate(&self.values);
        match (value(&constraint.left), value(&constraint.right), constraint.relation) {
            (Ok(left), Ok(right), Relation::Equal) => left == right,
            (Ok(left), Ok(right), Relation::LessOrEqual) => left <= right,
            (Ok(left), Ok(right), Relation::MultipleOf) => {
                right != 0 && left.checked_rem(right).is_none_or(|rest| rest == 0)
            }
            _ => false,
        }
    }

    fn sizes(&self) -> Sizes {
        let name = |id: &SymbolId| self.manifest.symbols[*id as usize].name.clone();
        let chosen = self.free.iter().filter_map(|id| Some((name(id), self.values[*id as usize]?))).collect();
        Sizes { values: self.values.clone(), chosen }
    }
}

fn mentions(constraint: &Constraint, group: &[SymbolId]) -> bool {
    [&constraint.left, &constraint.right].iter().any(|side| side.any_symbol(|id| group.contains(&id)))
}

/// True for an axis that is the side of an image: in four axes, with as many channels as images have in its place.
fn is_side(shape: &[DimExpr], axis: usize) -> bool {
    let channels = |axis: usize| matches!(shape[axis], DimExpr::Const(1 | 3 | 4));
    shape.len() == 4 && ((axis >= 2 && channels(1)) || ((1..3).contains(&axis) && channels(3)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcc_runtime::DType;
    use tcc_runtime::manifest::{Port, Storage, Symbol, TensorInfo};

    /// A manifest with one input of these dimensions, each a symbol where it is `None`.
    fn manifest(shape: &[Option<i64>], constraints: &[(DimExpr, Relation, DimExpr)]) -> Manifest {
        let mut manifest = Manifest::new("test", "test");
        let mut dims = Vec::new();
        for (axis, extent) in shape.iter().enumerate() {
            dims.push(match extent {
                Some(extent) => DimExpr::Const(*extent),
                None => {
                    let source = SymbolSource::Input { input: 0, axis: axis as u32 };
                    let name = format!("s{axis}");
                    manifest.symbols.push(Symbol { name, lo: 0, hi: i64::MAX, source });
                    DimExpr::Symbol(manifest.symbols.len() as u32 - 1)
                }
            });
        }
        let storage = Storage::Input(0);
        manifest.tensors.push(TensorInfo { name: "x".into(), dtype: DType::F32, shape: dims, storage });
        manifest.inputs.push(Port { name: "x".into(), tensor: 0 });
        for (left, relation, right) in constraints.iter().cloned() {
            manifest.constraints.push(Constraint { left, relation, right, reason: "test".into() });
        }
        manifest
    }

    fn values(manifest: &Manifest) -> Vec<i64> {
        let sizes = choose(manifest, &Dims::new(), &Inputs::new()).unwrap();
        sizes.values.into_iter().flatten().collect()
    }

    fn s(id: SymbolId) -> DimExpr {
        DimExpr::Symbol(id)
    }

    #[test]
    fn sizes_are_as_small_as_constraints_allow() {
        assert_eq!(values(&manifest(&[None, Some(7)], &[])), [1]);
        let window = [(DimExpr::Const(0), Relation::LessOrEqual, s(0).sub(160))];
        assert_eq!(values(&manifest(&[Some(1), None], &window)), [160]);
        let multiple = [(s(0), Relation::MultipleOf, DimExpr::Const(12))];
        assert_eq!(values(&manifest(&[None], &multiple)), [12]);
    }

    #[test]
    fn images_have_the_usual_sides() {
        assert_eq!(values(&manifest(&[None, Some(3), None, None], &[])), [1, 224, 224]);
        assert_eq!(values(&manifest(&[Some(1), None, None, Some(1)], &[])), [224, 224]);
        let fixed = [(s(0).floor_div(100), Relation::Equal, DimExpr::Const(3))];
        assert_eq!(values(&manifest(&[Some(1), Some(3), None, None], &fixed)), [320, 224]);
    }

    #[test]
    fn equal_and_derived_sizes_go_together() {
        let equal = [(s(0), Relation::Equal, s(1)), (DimExpr::Const(5), Relation::LessOrEqual, s(1))];
        assert_eq!(values(&manifest(&[None, None], &equal)), [5, 5]);
        let double = [(s(1), Relation::Equal, s(0).mul(2).add(1))];
        assert_eq!(values(&manifest(&[None, None], &double)), [1, 3]);
    }

    #[test]
    fn what_is_given_stands_and_what_cannot_be_is_said() {
        let m = manifest(&[None, None], &[(s(0), Relation::Equal, s(1))]);
        let range = tcc_ir::dim::Range { low: 9, high: 9 };
        let sizes = choose(&m, &Dims::from([("s0".into(), range)]), &Inputs::new()).unwrap();
        assert_eq!(sizes.values, [Some(9), Some(9)]);
        assert_eq!(sizes.chosen, [("s1".to_owned(), 9)]);
        let never = manifest(&[None], &[(s(0), Relation::Equal, s(0).add(1))]);
        let error = choose(&never, &Dims::new(), &Inputs::new()).unwrap_err().to_string();
        assert!(error.contains("--dim") && error.contains("s0"), "{error}");
    }
}
