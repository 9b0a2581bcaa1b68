//! Constant operands in the order in which kernels read them.

use bytes::Bytes;
use tcc_ir::data::{Data, DataError};
use tcc_ir::dim::Dim;
use tcc_ir::types::TensorType;

use super::winograd::Algorithm;
use crate::ir::Expr;

/// An order of a tensor's elements in which vectors of one axis are consecutive.
///
/// The packed shape is the outer axes in `order`, with the lane axis counted in tiles of `width` and the grouped axis in
/// groups, then `width` lanes, then the elements of a group; the last tile and the last group are padded with zeros.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedLayout {
    /// Source axes, outermost first; each once.
    pub order: Vec<usize>,
    /// The axis that is cut into lanes.
    pub lane_axis: usize,
    /// Lanes of a tile.
    pub width: usize,
    /// Another axis, so many neighbours of which stand together in each lane.
    pub group: Option<(usize, usize)>,
}

/// A constant operand in another order.
#[derive(Clone, PartialEq, Debug)]
pub struct Packing {
    /// Which operand.
    pub operand: usize,
    /// The shape under which the operand is seen: as many elements as it has.
    pub source: Vec<Dim>,
    /// The transformation of filters that comes before the order.
    pub winograd: Option<&'static Algorithm>,
    /// The order.
    pub layout: PackedLayout,
    /// Type of the packed tensor.
    pub packed: TensorType,
}

impl Packing {
    /// The contents of the packed tensor, from those of the operand under the shape `source`.
    pub fn apply(&self, data: &Data) -> Result<Data, DataError> {
        match self.winograd {
            Some(algorithm) => self.layout.apply(&algorithm.transform_filter(data)?),
            None => self.layout.apply(data),
        }
    }
}

impl PackedLayout {
    /// How many elements of an outer axis a packed coordinate counts at a time.
    fn step(&self, axis: usize) -> usize {
        match self.group {
            Some((grouped, size)) if grouped == axis => size,
            _ if axis == self.lane_axis => self.width,
            _ => 1,
        }
    }

    /// Shape of the packed tensor.
    pub fn shape(&self, source: &[Dim]) -> Vec<Dim> {
        let outer = self.order.iter().map(|axis| match self.step(*axis) {
            1 => source[*axis].clone(),
            step => source[*axis].ceil_div(&Dim::from(step)),
        });
        let group = self.group.map(|(_, size)| Dim::from(size));
        outer.chain([Dim::from(self.width)]).chain(group).collect()
    }

    /// Extents of the packed tensor, for known extents of the source.
    pub fn extents(&self, source: &[i64]) -> Vec<i64> {
        let outer = self.order.iter().map(|axis| {
            let step = self.step(*axis) as i64;
            (source[*axis] + step - 1) / step
        });
        let group = self.group.map(|(_, size)| size as i64);
        outer.chain([self.width as i64]).chain(group).collect()
    }

    /// Packed coordinates of source coordinates.
    pub fn coordinates(&self, source: &[Expr]) -> Vec<Expr> {
        let step = |axis: usize| Expr::index(self.step(axis) as i64);
        let outer = self.order.iter().map(|axis| source[*axis].clone().over(step(*axis)));
        let within = [Some(self.lane_axis), self.group.map(|(axis, _)| axis)];
        let within = within.iter().flatten().map(|axis| source[*axis].clone().remainder(step(*axis)));
        outer.chain(within).collect()
    }

    /// The contents in packed order. A uniform tensor stays one: kernels store nothing of the lanes beyond the last, so
    /// they may hold any number. What is beyond the last group is summed, so there zeros are needed.
    pub fn apply(&self, data: &Data) -> Result<Data, DataError> {
        let source = data.shape();
        let whole_groups = self.group.is_none_or(|(axis, size)| source[axis].is_multiple_of(size));
        if let Some(element) = data.as_uniform().filter(|_| whole_groups) {
            let source: Vec<Dim> = source.iter().map(|extent| Dim::from(*extent)).collect();
            let shape: Option<Vec<usize>> = self
                .shape(&source)
                .iter()
                .map(|dim| dim.as_const().and_then(|extent| usize::try_from(extent).ok()))
                .collect();
            if let Some(shape) = shape {
                return Data::uniform(data.dtype(), &shape, element.clone());
            }
        }
        let size = data.dtype().size();
        let mut strides = vec![size; source.len()];
        for axis in (1..source.len()).rev() {
            strides[axis - 1] = strides[axis] * source[axis];
        }
        let extents: Vec<usize> =
            self.order.iter().map(|axis| source[*axis].div_ceil(self.step(*axis))).collect();
        let rows: usize = extents.iter().product();
        let (grouped, group) = self.group.unwrap_or((self.lane_axis, 1));
        let mut bytes = vec![0u8; rows * self.width * group * size];
        let mut coordinates = vec![0usize; extents.len()];
        for row in 0..rows {
            let (mut from, mut first_lane, mut first_member) = (0, 0, 0);
            for (axis, coordinate) in self.order.iter().zip(&coordinates) {
                let start = coordinate * self.step(*axis);
                from += start * strides[*axis];
                if *axis == self.lane_axis {
                    first_lane = start;
                } else if *axis == grouped {
                    first_member = start;
                }
            }
            let lanes = self.width.min(source[self.lane_axis] - first_lane);
            let members = if group > 1 { group.min(source[grouped] - first_member) } else { 1 };
            for lane in 0..lanes {
                for member in 0..members {
                    let to = ((row * self.width + lane) * group + member) * size;
                    let source_at = from + lane * strides[self.lane_axis] + member * strides[grouped];
                    bytes[to..to + size].copy_from_slice(&data.bytes()[source_at..source_at + size]);
                }
            }
            for axis in (0..extents.len()).rev() {
                coordinates[axis] += 1;
                if coordinates[axis] < extents[axis] {
                    break;
                }
                coordinates[axis] = 0;
            }
        }
        let group = self.group.map(|(_, size)| size);
        let shape: Vec<usize> = extents.into_iter().chain([self.width]).chain(group).collect();
        Data::new(data.dtype(), &shape, Bytes::from(bytes))
    }
}
