//! Contractions as products of matrices: axes of one operand are rows or columns, summed ones the depth, the others the batch.

use tcc_ir::contraction::{ContractionSpec, Role};
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::scalar::ScalarExpr;
use tcc_ir::types::TensorType;

use super::Gpu;
use super::matrix::{CHUNK, fragment, matrix_product};
use super::product::{Extents, Part, Places, Side, product};
use super::vector::{FEW_ROWS, vector_product};
use crate::ir::{Expr, Stmt};
use crate::lower::{Argument, LowerError, Lowering, PackedLayout, Packing};

/// Rows, columns or depth below which tiles are mostly empty.
const SMALL: i64 = 4;

struct Contraction<'c> {
    spec: &'c ContractionSpec,
    epilogue: &'c ScalarExpr,
    /// The operand of the rows and that of the columns.
    operands: [usize; 2],
    /// The columns' operand in another order, where it is packed.
    packed: Option<(Argument, PackedLayout)>,
    batch: Vec<u8>,
    outer: [Vec<u8>; 2],
    depth: Vec<u8>,
    extents: Vec<(u8, Dim)>,
}

impl Contraction<'_> {
    fn labels(&self, operand: usize) -> &[u8] {
        if operand == 0 { &self.spec.lhs } else { &self.spec.rhs }
    }

    fn extent(&self, label: u8) -> Dim {
        let found = self.extents.iter().find(|(known, _)| *known == label);
        found.map_or(Dim::Const(1), |(_, extent)| extent.clone())
    }

    fn shape(&self, labels: &[u8]) -> Vec<Dim> {
        labels.iter().map(|label| self.extent(*label)).collect()
    }

    /// Coordinates of labels from their joint number.
    fn decode(&self, lowering: &mut Lowering, labels: &[u8], number: Expr) -> Part {
        if let [_] = labels {
            return Part { stmts: Vec::new(), at: vec![number] };
        }
        let mut stmts = Vec::new();
        let at = lowering.decode(number, &self.shape(labels));
        let at = at
            .into_iter()
            .map(|value| {
                let (var, stmt) = lowering.assign("coordinate", value);
                stmts.push(stmt);
                Expr::Var(var)
            })
            .collect();
        Part { stmts, at }
    }

    /// Makes sure that runs of 16 bytes along the depth are in one piece in both operands, and inside or outside together. A
    /// constant right operand is packed; false where an operand has no such runs.
    fn pack(&mut self, lowering: &mut Lowering) -> bool {
        let Some(inner) = self.depth.last().copied() else { return false };
        if self.packed.is_some() {
            return true;
        }
        let lanes = CHUNK / lowering.operands[self.operands[0]].dtype().size() as i64;
        let whole = self.extent(inner).as_const().is_some_and(|extent| extent % lanes == 0);
        let along = |side: usize| self.labels(self.operands[side]).last() == Some(&inner);
        if !whole || !along(0) {
            return false;
        }
        let operand = self.operands[1];
        let source = lowering.operands[operand].clone();
        if along(1) {
            return true;
        }
        if !lowering.constant[operand] || source.static_shape().is_none() {
            return false;
        }
        let labels = self.labels(operand).to_vec();
        let axes = |of: &dyn Fn(&u8) -> bool| {
            (0..labels.len()).filter(|axis| of(&labels[*axis])).collect::<Vec<_>>()
        };
        let mut order = axes(&|label| !self.depth.contains(label));
        let axis_of = |label: &u8| labels.iter().position(|known| known == label);
        order.extend(self.depth.iter().filter_map(axis_of));
        let Some(lane_axis) = axis_of(&inner) else { return false };
        let layout = PackedLayout { order, lane_axis, width: lanes as usize, group: None };
        let packed = TensorType::new(source.dtype(), layout.shape(&source.shape));
        let packing =
            Packing { operand, source: source.shape.clone(), layout: layout.clone(), packed, winograd: None };
        self.packed = Some((lowering.packed(packing), layout));
        true
    }

    fn coordinates(&self, labels: &[u8], known: &[(&[u8], &[Expr])]) -> Vec<Expr> {
        let find = |label: &u8| {
            known.iter().find_map(|(labels, at)| {
                labels.iter().position(|candidate| candidate == label).map(|position| at[position].clone())
            })
        };
        labels.iter().map(|label| find(label).unwrap_or(Expr::index(0))).collect()
    }
}

impl Places for Contraction<'_> {
    fn dtype(&self, lowering: &Lowering, side: Side) -> DType {
        lowering.operands[self.operands[side as usize]].dtype()
    }

    fn depth_inner(&self, side: Side) -> bool {
        if side == Side::Columns && self.packed.is_some() {
            return true;
        }
        let labels = self.labels(self.operands[side as usize]);
        labels.last().is_some_and(|last| self.depth.contains(last))
    }

    fn outer(&self, lowering: &mut Lowering, side: Side, batch: &Expr, position: Expr) -> Part {
        let mut part = self.decode(lowering, &self.outer[side as usize], position);
        let batch = self.decode(lowering, &self.batch, batch.clone());
        part.stmts.extend(batch.stmts);
        part.at.extend(batch.at);
        part
    }

    fn depth(&self, lowering: &mut Lowering, _: Side, position: Expr) -> Part {
        self.decode(lowering, &self.depth, position)
    }

    fn element(
        &self,
        lowering: &mut Lowering,
        side: Side,
        outer: &[Expr],
        depth: &[Expr],
    ) -> (Expr, Option<Expr>) {
        let labels = &self.outer[side as usize];
        let (own, batch) = outer.split_at(labels.len());
        let known: [(&[u8], &[Expr]); 3] = [(labels, own), (&self.batch, batch), (&self.depth, depth)];
        let operand = self.operands[side as usize];
        let at = self.coordinates(self.labels(operand), &known);
        if let (Side::Columns, Some((argument, layout))) = (side, &self.packed) {
            return (lowering.load(*argument, &layout.coordinates(&at)), None);
        }
        (lowering.load(Argument::Operand(operand), &at), None)
    }

    fn pitch(&self, lowering: &mut Lowering, side: Side) -> Option<Expr> {
        let operand = self.operands[side as usize];
        let labels = match (side, &self.packed) {
            // Tiles of lanes and the lanes of a tile are neighbours, as the lane axis comes last.
            (Side::Columns, Some((_, layout))) => {
                layout.order.iter().map(|axis| self.labels(operand)[*axis]).collect()
            }
            _ => self.labels(operand).to_vec(),
        };
        let outer = &self.outer[side as usize];
        if outer.is_empty() {
            return labels.ends_with(&self.depth).then(|| Expr::index(0));
        }
        let start = labels.iter().position(|label| outer.first() == Some(label))?;
        let after = start + outer.len();
        if labels.get(start..after) != Some(&outer[..]) || !labels.ends_with(&self.depth) {
            return None;
        }
        Some(lowering.dim(&Dim::product(&self.shape(&labels[after..]))))
    }

    fn finish(
        &self,
        lowering: &mut Lowering,
        batch: &Expr,
        row: &Expr,
        column: &Expr,
        sum: Expr,
    ) -> Vec<Stmt> {
        let mut stmts = Vec::new();
        let mut coordinates = Vec::new();
        for (labels, number) in [(&self.batch, batch), (&self.outer[0], row), (&self.outer[1], column)] {
            let part = self.decode(lowering, labels, number.clone());
            stmts.extend(part.stmts);
            coordinates.push((labels, part.at));
        }
        let known: Vec<(&[u8], &[Expr])> =
            coordinates.iter().map(|(labels, at)| (&labels[..], &at[..])).collect();
        let at = self.coordinates(&self.spec.out, &known);
        let mut inputs = vec![sum];
        for operand in 2..lowering.operands.len() {
            inputs.push(lowering.load_broadcast(Argument::Operand(operand), &at));
        }
        let (epilogue, value) = lowering.scalar(self.epilogue, &inputs);
        stmts.extend(epilogue);
        stmts.push(lowering.store(Argument::Result(0), &at, value));
        stmts
    }
}

/// Lowers a contraction to a tiled product; false where the plain lowering serves it better.
pub fn contract(
    lowering: &mut Lowering,
    gpu: &Gpu,
    spec: &ContractionSpec,
    accumulator: DType,
    epilogue: &ScalarExpr,
) -> Result<bool, LowerError> {
    let packed = lowering.operands[..2].iter().any(|operand| operand.dtype().is_packed());
    if packed || !matches!(accumulator, DType::F32 | DType::F64 | DType::I32) {
        return Ok(false);
    }
    // The result's last axis is the last of the columns, so that threads write neighbours.
    let columns_right = spec.out.last().is_none_or(|last| spec.rhs.contains(last));
    let operands = if columns_right { [0, 1] } else { [1, 0] };
    let labels = |operand: usize| if operand == 0 { &spec.lhs } else { &spec.rhs };
    let both = |label: &&u8| spec.lhs.contains(label) && spec.rhs.contains(label);
    let batch: Vec<u8> = spec.out.iter().filter(both).copied().collect();
    let own = |operand: usize| -> Vec<u8> {
        let own = |label: &&u8| labels(operand).contains(label) && !batch.contains(label);
        spec.out.iter().filter(own).copied().collect()
    };
    let outer = [own(operands[0]), own(operands[1])];
    let depth: Vec<u8> =
        spec.labels().into_iter().filter(|label| spec.role(*label) == Role::Summed).collect();
    let extents = spec
        .labels()
        .into_iter()
        .map(|label| {
            let axis = |operand: usize| {
                let axis = labels(operand).iter().position(|known| *known == label)?;
                Some(lowering.operands[operand].shape[axis].clone())
            };
            let known = [axis(0), axis(1)];
            let constant = known.iter().flatten().find(|dim| dim.as_const().is_some());
            let extent = constant.or(known.iter().flatten().next()).cloned();
            (label, extent.unwrap_or(Dim::Const(1)))
        })
        .collect();
    let mut contraction =
        Contraction { spec, epilogue, operands, packed: None, batch, outer, depth, extents };
    let product_of = |labels: &[u8]| Dim::product(&contraction.shape(labels));
    let dims = [&contraction.batch, &contraction.outer[0], &contraction.outer[1], &contraction.depth]
        .map(|labels| product_of(labels));
    if let Some(rows @ 1..=FEW_ROWS) = dims[1].as_const()
        && accumulator.bits() == 32
        && contraction.pack(lowering)
    {
        let extents = dims.clone().map(|dim| lowering.dim(&dim));
        let [batch, rows_extent, columns, depth] = extents;
        let extents = Extents { batch, rows: rows_extent, columns, depth };
        if vector_product(lowering, &extents, (rows, accumulator), &contraction)? {
            return Ok(true);
        }
    }
    if dims[1..].iter().any(|dim| dim.as_const().is_some_and(|extent| extent < SMALL)) {
        return Ok(false);
    }
    let [batch, rows, columns, depth] = dims.map(|dim| lowering.dim(&dim));
    let extents = Extents { batch, rows, columns, depth };
    let [lhs, rhs] = [0, 1].map(|side| lowering.operands[operands[side]].dtype());
    if gpu.tensor_cores
        && let Some(fragment) = fragment(lhs, rhs, accumulator)
        && contraction.pack(lowering)
        && matrix_product(lowering, gpu, &extents, (fragment, accumulator), &contraction)?
    {
        return Ok(true);
    }
    contraction.packed = None;
    product(lowering, gpu, &extents, accumulator, &contraction)?;
    Ok(true)
}
