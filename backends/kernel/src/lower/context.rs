//! The state of a lowering: the kernel under construction, its operands and results, and index arithmetic.

use std::ops::Range;

use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, ScalarExpr};
use tcc_ir::types::TensorType;

use super::{Argument, BlockPacking, Launch, LowerError, Lowered, PackedLayout, Packing};
use crate::ir::{Access, BufferId, Expr, Kernel, LoopKind, Stmt, Ty, Var};

/// What schedules need to know of the machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Tuning {
    /// Width of a native vector in bits.
    pub vector_bits: u32,
    /// Number of vector registers.
    pub vector_registers: u32,
    /// First-level data cache of a core in bytes.
    pub l1_bytes: u64,
    /// Second-level cache of a core in bytes.
    pub l2_bytes: u64,
    /// True where 4-way 8-bit dot products are machine instructions.
    pub dot: bool,
    /// A GPU; none for processors that run a kernel's tasks one a core.
    pub gpu: Option<super::gpu::Gpu>,
}

impl Tuning {
    /// Lanes of a native vector of this element type, at least 1.
    pub fn lanes(&self, dtype: DType) -> u16 {
        (self.vector_bits / dtype.bits().max(8) as u32).max(1) as u16
    }
}

/// Terms of an extent up to which a kernel computes it from its parts.
const MOST_TERMS: usize = 8;

/// A lowering in progress; its current kernel is completed by [`Lowering::launch`].
pub struct Lowering<'a> {
    /// The kernel under construction.
    pub kernel: Kernel,
    /// Schedule parameters.
    pub tuning: &'a Tuning,
    /// Operand types.
    pub operands: &'a [TensorType],
    /// Result types.
    pub results: &'a [TensorType],
    /// Which operands are known at compile time.
    pub constant: &'a [bool],
    operator: &'static str,
    name: String,
    bound: Vec<(Argument, BufferId)>,
    lowered: Lowered,
}

impl<'a> Lowering<'a> {
    /// A lowering of one operation.
    pub fn new(
        operator: &'static str,
        name: &str,
        operands: &'a [TensorType],
        results: &'a [TensorType],
        constant: &'a [bool],
        tuning: &'a Tuning,
    ) -> Lowering<'a> {
        Lowering {
            kernel: Kernel::new(name),
            tuning,
            operands,
            results,
            constant,
            operator,
            name: name.to_string(),
            bound: Vec::new(),
            lowered: Lowered::default(),
        }
    }

    /// An error that names the operator.
    pub fn unsupported(&self, reason: impl Into<String>) -> LowerError {
        LowerError::Unsupported { operator: self.operator, reason: reason.into() }
    }

    /// An error for an operation that breaks the IR's invariants.
    pub fn malformed(&self, reason: impl Into<String>) -> LowerError {
        LowerError::Malformed { operator: self.operator, reason: reason.into() }
    }

    /// The kernel dimension of a symbolic extent as an expression. A long sum is a dimension of its own, so that what a kernel
    /// computes, and how long it takes to compile, does not grow with the number of parts that were joined.
    pub fn dim(&mut self, dim: &Dim) -> Expr {
        let dims = &mut self.kernel.dims;
        let mut number = |name: String| {
            let position = dims.iter().position(|known| *known == name).unwrap_or_else(|| {
                dims.push(name);
                dims.len() - 1
            });
            position as u32
        };
        let terms = dim.monomials();
        // Kernel dimensions are not negative.
        if terms.len() > MOST_TERMS && terms.iter().all(|(coefficient, _)| *coefficient > 0) {
            return Expr::Dim(number(dim.to_string()));
        }
        Expr::dim(dim, &mut |atom| number(atom.to_string()))
    }

    /// Type of what an argument stands for.
    pub fn type_of(&self, argument: Argument) -> TensorType {
        match argument {
            Argument::Operand(index) => self.operands[index].clone(),
            Argument::Result(index) => self.results[index].clone(),
            Argument::Temporary(index) => self.lowered.temporaries[index].clone(),
            Argument::Packed(index) => self.lowered.packings[index].packed.clone(),
            Argument::Block(index) => self.lowered.blocks[index].packed(),
            Argument::View(index, dtype) => {
                let own = &self.operands[index];
                let bits = own.count() * Dim::from(own.dtype().bits());
                TensorType::new(dtype, vec![bits.floor_div(&Dim::from(dtype.bits()))])
            }
        }
    }

    /// The buffer of an argument in the current kernel; declares it at first use.
    pub fn buffer(&mut self, argument: Argument) -> BufferId {
        if let Some((_, buffer)) = self.bound.iter().find(|(known, _)| *known == argument) {
            return *buffer;
        }
        let ty = self.type_of(argument);
        let count = self.dim(&ty.count());
        let (name, access) = match argument {
            Argument::Operand(index) => (format!("x{index}"), Access::Read),
            Argument::Result(index) => (format!("y{index}"), Access::Write),
            Argument::Temporary(index) => (format!("t{index}"), Access::ReadWrite),
            Argument::Packed(index) => (format!("p{index}"), Access::Read),
            Argument::Block(index) => (format!("b{index}"), Access::Read),
            Argument::View(index, dtype) => (format!("x{index}_{}", dtype.text()), Access::Read),
        };
        let buffer = self.kernel.argument(&name, ty.dtype(), count, access);
        let packed = matches!(argument, Argument::Packed(_)) && self.tuning.gpu.is_none();
        self.kernel.buffers[buffer.0 as usize].padded = packed;
        self.bound.push((argument, buffer));
        buffer
    }

    /// Declares that a result is read as well as written.
    pub fn read_write(&mut self, argument: Argument) -> BufferId {
        let buffer = self.buffer(argument);
        self.kernel.buffers[buffer.0 as usize].access = Access::ReadWrite;
        buffer
    }

    /// A new intermediate buffer.
    pub fn temporary(&mut self, ty: TensorType) -> Argument {
        self.lowered.temporaries.push(ty);
        Argument::Temporary(self.lowered.temporaries.len() - 1)
    }

    /// A new packed operand.
    pub fn packed(&mut self, packing: Packing) -> Argument {
        self.lowered.packings.push(packing);
        Argument::Packed(self.lowered.packings.len() - 1)
    }

    /// A new array of packed weights.
    pub fn block(&mut self, packing: BlockPacking) -> Argument {
        self.lowered.blocks.push(packing);
        Argument::Block(self.lowered.blocks.len() - 1)
    }

    /// Linear index of coordinates in a row-major tensor.
    pub fn linear(&mut self, shape: &[Dim], coordinates: &[Expr]) -> Expr {
        let mut index = Expr::index(0);
        for (axis, coordinate) in coordinates.iter().enumerate() {
            let stride = Dim::product(&shape[axis + 1..]);
            let stride = self.dim(&stride);
            index = index.plus(coordinate.clone().times(stride));
        }
        index
    }

    /// The element of an argument at coordinates.
    pub fn load(&mut self, argument: Argument, coordinates: &[Expr]) -> Expr {
        let buffer = self.buffer(argument);
        let shape = self.type_of(argument).shape;
        Expr::load(buffer, self.linear(&shape, coordinates))
    }

    /// The element of an argument at coordinates in an operand's shape: what is packed is read so until [`Lowering::pack`].
    pub fn load_as(&mut self, argument: Argument, operand: usize, coordinates: &[Expr]) -> Expr {
        let buffer = self.buffer(argument);
        let shape = self.operands[operand].shape.clone();
        Expr::load(buffer, self.linear(&shape, coordinates))
    }

    /// Lets the kernel read a packed operand in its layout. The operand's extents are known, as of all that is packed.
    pub fn pack(
        &mut self,
        argument: Argument,
        operand: usize,
        layout: &PackedLayout,
    ) -> Result<(), LowerError> {
        let buffer = self.buffer(argument);
        let shape: Option<Vec<i64>> = self.operands[operand].shape.iter().map(Dim::as_const).collect();
        let shape = shape.ok_or_else(|| self.malformed("a packed operand has no constant shape"))?;
        Ok(self.kernel.pack(buffer, &shape, layout)?)
    }

    /// The element of an argument that broadcasts to a domain of the coordinates' rank.
    pub fn load_broadcast(&mut self, argument: Argument, coordinates: &[Expr]) -> Expr {
        let shape = self.type_of(argument).shape;
        let offset = coordinates.len() - shape.len();
        let own: Vec<Expr> = shape
            .iter()
            .enumerate()
            .map(|(axis, dim)| if dim.is(1) { Expr::index(0) } else { coordinates[offset + axis].clone() })
            .collect();
        self.load(argument, &own)
    }

    /// A store to an argument at coordinates.
    pub fn store(&mut self, argument: Argument, coordinates: &[Expr], value: Expr) -> Stmt {
        let buffer = self.buffer(argument);
        let shape = self.type_of(argument).shape;
        Stmt::Store { buffer, index: self.linear(&shape, coordinates), value, valid: None }
    }

    /// A new scalar variable with a first value.
    pub fn assign(&mut self, name: &str, value: Expr) -> (Var, Stmt) {
        let ty = self.kernel.type_of(&value);
        let var = self.kernel.variable(name, Ty::scalar(ty.dtype));
        (var, Stmt::Assign { var, value })
    }

    /// A loop over a new counter.
    pub fn for_loop(
        &mut self,
        name: &str,
        extent: Expr,
        kind: LoopKind,
        body: impl FnOnce(&mut Self, Expr) -> Vec<Stmt>,
    ) -> Stmt {
        let var = self.kernel.counter(name);
        let body = body(self, Expr::Var(var));
        Stmt::For { var, extent, kind, body }
    }

    /// Evaluates a scalar expression on the given arguments: statements that define shared nodes, and the result.
    pub fn scalar(&mut self, expr: &ScalarExpr, inputs: &[Expr]) -> (Vec<Stmt>, Expr) {
        let mut stmts = Vec::new();
        let mut nodes: Vec<Expr> = Vec::with_capacity(expr.nodes.len());
        let resolve = |arg: &Arg, nodes: &[Expr]| match arg {
            Arg::Input(index) => inputs[*index as usize].clone(),
            Arg::Node(index) => nodes[*index as usize].clone(),
            Arg::Const(scalar) => Expr::Const(*scalar),
        };
        for (index, node) in expr.nodes.iter().enumerate() {
            let args: Vec<Expr> = node.args.iter().map(|arg| resolve(arg, &nodes)).collect();
            let (var, stmt) = self.assign(&format!("e{index}"), Expr::Call(node.op, args));
            stmts.push(stmt);
            nodes.push(Expr::Var(var));
        }
        (stmts, resolve(&expr.result, &nodes))
    }

    /// Completes the current kernel and starts the next. The result may take the memory of any operand, or of none.
    pub fn launch(&mut self, body: Vec<Stmt>, in_place: bool) {
        self.launch_over(body, if in_place { 0..self.operands.len() } else { 0..0 });
    }

    /// As [`Lowering::launch`] of a kernel whose epilogue reads the operands after the first two once, where it writes: the
    /// result may take the memory of one of them if each element is written once.
    pub fn launch_epilogue(&mut self, body: Vec<Stmt>, writes_once: bool) {
        self.launch_over(body, if writes_once { 2..self.operands.len() } else { 0..0 });
    }

    fn launch_over(&mut self, body: Vec<Stmt>, in_place: Range<usize>) {
        let number = self.lowered.launches.len() + 1;
        let next = Kernel::new(&format!("{}_{number}", self.name));
        let mut kernel = std::mem::replace(&mut self.kernel, next);
        kernel.body = body;
        let arguments = std::mem::take(&mut self.bound).into_iter().map(|(argument, _)| argument).collect();
        self.lowered.launches.push(Launch { kernel, arguments, in_place });
    }

    /// Lowers the same operation as another operator on operands and results seen under other shapes.
    pub fn delegate(
        &mut self,
        operator: &Operator,
        operands: &[TensorType],
        results: &[TensorType],
    ) -> Result<(), LowerError> {
        self.lowered = super::lower(operator, operands, results, self.constant, &self.name, self.tuning)?;
        Ok(())
    }

    /// The finished lowering.
    pub fn finish(self) -> Lowered {
        self.lowered
    }
}
