//! The kernels that probe a machine, in the kernel IR, so that what is measured is what this compiler can reach.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, BufferId, Expr, LoopKind, Stmt, Ty, Var};

/// Independent chains of a probe: more than any machine has in flight, and with the operands few enough for 16 registers.
pub const CHAINS: usize = 12;

/// What the chains of a probe do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chain {
    /// `acc = x * x + acc`.
    MultiplyAdd(DType),
    /// `acc = acc + sum over 4 of u8 * s8`.
    Dot,
    /// `acc = acc + x` in `f32`.
    Add,
    /// `acc = exp(x - acc)` in `f32`, which stays between 0 and 2.
    Exponential,
}

impl Chain {
    /// Type of the accumulators.
    pub fn accumulator(self) -> DType {
        match self {
            Chain::MultiplyAdd(dtype) => dtype,
            Chain::Dot => DType::I32,
            Chain::Add | Chain::Exponential => DType::F32,
        }
    }

    /// Type of the operand.
    pub fn operand(self) -> DType {
        match self {
            Chain::Dot => DType::U8,
            _ => self.accumulator(),
        }
    }

    /// Lanes of an accumulator in vectors of `bits`.
    pub fn lanes(self, bits: u32) -> u16 {
        (bits as usize / self.accumulator().bits()) as u16
    }

    /// Operations of one lane of one step.
    pub fn operations(self) -> u64 {
        match self {
            Chain::MultiplyAdd(_) => 2,
            Chain::Dot => 8,
            Chain::Add | Chain::Exponential => 1,
        }
    }
}

fn serial(var: Var, extent: Expr, body: Vec<Stmt>) -> Stmt {
    Stmt::For { var, extent, kind: LoopKind::Serial, body }
}

fn vector(buffer: BufferId, index: Expr, lanes: u16) -> Expr {
    Expr::Load { buffer, index: Box::new(index), lanes, valid: None }
}

/// A kernel whose tasks each keep [`CHAINS`] vectors, change them in `body`, and store them at the end, so that nothing of
/// it may be left out. Dimension 0 is the number of tasks.
fn chains(
    mut kernel: Kernel,
    dtype: DType,
    lanes: u16,
    body: impl FnOnce(&mut Kernel, &Expr, &[Var]) -> Vec<Stmt>,
) -> Kernel {
    let width = Expr::index(i64::from(lanes));
    let each = width.clone().times(Expr::index(CHAINS as i64));
    let y = kernel.argument("y", dtype, each.clone().times(Expr::Dim(0)), Access::Write);
    let task = kernel.counter("task");
    let accumulators: Vec<Var> =
        (0..CHAINS).map(|chain| kernel.variable(&format!("sum{chain}"), Ty::vector(dtype, lanes))).collect();
    let zero = Expr::Splat(Box::new(Expr::constant(dtype, 0.0)), lanes);
    let mut statements: Vec<Stmt> =
        accumulators.iter().map(|var| Stmt::Assign { var: *var, value: zero.clone() }).collect();
    statements.extend(body(&mut kernel, &Expr::from(task), &accumulators));
    for (chain, var) in accumulators.iter().enumerate() {
        let at = Expr::from(task).times(each.clone()).plus(width.clone().times(Expr::index(chain as i64)));
        statements.push(Stmt::Store { buffer: y, index: at, value: Expr::Var(*var), valid: None });
    }
    kernel.body =
        vec![Stmt::For { var: task, extent: Expr::Dim(0), kind: LoopKind::Parallel, body: statements }];
    kernel
}

/// Arithmetic in registers. Arguments: the operand, the results. Dimensions: tasks, steps of each.
pub fn arithmetic(chain: Chain, vector_bits: u32) -> Kernel {
    let lanes = chain.lanes(vector_bits);
    let mut kernel = Kernel::new("probe");
    kernel.dims = vec!["tasks".to_string(), "steps".to_string()];
    let wide = lanes * (chain.accumulator().bits() / chain.operand().bits()) as u16;
    let x = kernel.argument("x", chain.operand(), Expr::index(i64::from(wide)), Access::Read);
    let second = (chain == Chain::Dot)
        .then(|| kernel.argument("z", DType::I8, Expr::index(i64::from(wide)), Access::Read));
    chains(kernel, chain.accumulator(), lanes, |kernel, _, sums| {
        let operand = kernel.variable("operand", Ty::vector(chain.operand(), wide));
        let other = kernel.variable("other", Ty::vector(DType::I8, wide));
        let mut statements = vec![Stmt::Assign { var: operand, value: vector(x, Expr::index(0), wide) }];
        if let Some(second) = second {
            statements.push(Stmt::Assign { var: other, value: vector(second, Expr::index(0), wide) });
        }
        let step = |sum: Var| {
            let (sum, x) = (Expr::Var(sum), Expr::Var(operand));
            match chain {
                Chain::MultiplyAdd(_) => Expr::Fma(Box::new(x.clone()), Box::new(x), Box::new(sum)),
                Chain::Dot => Expr::Dot { acc: Box::new(sum), a: Box::new(x), b: Box::new(Expr::Var(other)) },
                Chain::Add => Expr::call(Function::Add, vec![sum, x]),
                Chain::Exponential => {
                    Expr::call(Function::Exp, vec![Expr::call(Function::Sub, vec![x, sum])])
                }
            }
        };
        let inner = sums.iter().map(|sum| Stmt::Assign { var: *sum, value: step(*sum) }).collect();
        statements.push(serial(kernel.counter("step"), Expr::Dim(1), inner));
        statements
    })
}

/// Sums over a buffer of `f32`, again and again. Arguments: the data, `blocks` of [`CHAINS`] vectors for each task, and the
/// results. Dimensions: tasks, passes, blocks.
pub fn reading(vector_bits: u32) -> Kernel {
    let lanes = Chain::Add.lanes(vector_bits);
    let mut kernel = Kernel::new("probe");
    kernel.dims = vec!["tasks".to_string(), "passes".to_string(), "blocks".to_string()];
    let width = Expr::index(i64::from(lanes));
    let block = width.clone().times(Expr::index(CHAINS as i64));
    let count = block.clone().times(Expr::Dim(2)).times(Expr::Dim(0));
    let x = kernel.argument("x", DType::F32, count, Access::Read);
    chains(kernel, DType::F32, lanes, |kernel, task, sums| {
        let at = kernel.counter("block");
        let start = task.clone().times(Expr::Dim(2)).plus(Expr::from(at)).times(block);
        let inner = sums.iter().enumerate().map(|(chain, sum)| {
            let index = start.clone().plus(width.clone().times(Expr::index(chain as i64)));
            let value = Expr::call(Function::Add, vec![Expr::Var(*sum), vector(x, index, lanes)]);
            Stmt::Assign { var: *sum, value }
        });
        let one_pass = serial(at, Expr::Dim(2), inner.collect());
        vec![serial(kernel.counter("pass"), Expr::Dim(1), vec![one_pass])]
    })
}
