//! When values are last used, counting views of a value as uses of it.

use tcc_ir::module::{Function, Operation, Region, Value};
use tcc_ir::operator::Operator;

use super::value_count;

/// Positions of definitions and last uses in a preorder walk of all operations.
#[derive(Clone, Debug)]
pub struct Uses {
    root: Vec<Value>,
    last: Vec<usize>,
    region: Vec<usize>,
}

impl Uses {
    /// Uses in a function; outputs are used forever.
    pub fn of(function: &Function) -> Uses {
        let count = value_count(function);
        let mut uses = Uses {
            root: (0..count as u32).map(Value).collect(),
            last: vec![0; count],
            region: vec![0; count],
        };
        let (mut position, mut regions) = (0, 0);
        uses.walk(&function.body, &mut position, &mut regions);
        for value in &function.body.results {
            uses.touch(*value, usize::MAX);
        }
        uses
    }

    fn walk(&mut self, region: &Region, position: &mut usize, regions: &mut usize) {
        let number = *regions;
        region.params.iter().for_each(|value| self.region[value.index()] = number);
        for operation in &region.operations {
            self.operation(operation, position, regions, number);
        }
        // What a region yields is read when it ends.
        region.results.iter().for_each(|value| self.touch(*value, usize::MAX));
    }

    fn operation(&mut self, operation: &Operation, position: &mut usize, regions: &mut usize, number: usize) {
        *position += 1;
        let here = *position;
        operation.operands.iter().for_each(|value| self.touch(*value, here));
        operation.results.iter().for_each(|value| self.region[value.index()] = number);
        if let (Operator::Reshape { .. }, [operand], [result]) =
            (&operation.operator, &operation.operands[..], &operation.results[..])
        {
            self.root[result.index()] = self.root[operand.index()];
        }
        for region in &operation.regions {
            *regions += 1;
            self.walk(region, position, regions);
        }
    }

    fn touch(&mut self, value: Value, position: usize) {
        let root = self.root[value.index()];
        self.last[root.index()] = self.last[root.index()].max(position);
    }

    /// The value whose memory this one shows.
    pub fn root(&self, value: Value) -> Value {
        self.root[value.index()]
    }

    /// True where operation number `position` is the last to use the memory of `value`, in the region that defines it.
    pub fn dies_at(&self, value: Value, position: usize, result: Value) -> bool {
        let root = self.root(value);
        self.last[root.index()] == position && self.region[root.index()] == self.region[result.index()]
    }

    /// Records that `result` reuses the memory of `operand`.
    pub fn reuse(&mut self, result: Value, operand: Value) {
        let (from, into) = (self.root(result), self.root(operand));
        self.last[into.index()] = self.last[into.index()].max(self.last[from.index()]);
        for root in &mut self.root {
            if *root == from {
                *root = into;
            }
        }
    }
}
