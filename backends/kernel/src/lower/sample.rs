//! Reading an image at given coordinates, as ONNX GridSample defines it.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_ir::words::{PadKind, ResizeKind};

use super::{Argument, LowerError, Lowering};
use crate::ir::{Expr, LoopKind, Stmt, Var};

fn call(function: Function, args: Vec<Expr>) -> Expr {
    Expr::call(function, args)
}

fn binary(function: Function, a: Expr, b: Expr) -> Expr {
    call(function, vec![a, b])
}

/// Cubic coefficient that ONNX fixes for GridSample.
const CUBIC: f64 = -0.75;

/// Lowers a grid sample: taps of every spatial axis around the coordinate, weighted.
pub fn grid_sample(
    lowering: &mut Lowering,
    kind: ResizeKind,
    outside: PadKind,
    align_corners: bool,
) -> Result<(), LowerError> {
    let (source, result) = (lowering.operands[0].clone(), lowering.results[0].clone());
    let dtype = source.dtype();
    let compute = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let grid_type = lowering.operands[1].dtype();
    let spatial = source.rank() - 2;
    let number = |value: f64| Expr::constant(compute, value);
    let taps = match kind {
        ResizeKind::Nearest => 1,
        ResizeKind::Linear => 2,
        ResizeKind::Cubic => 4,
    };
    let stmts = lowering.parallel_rows(&result.shape, &mut |this, at| {
        let mut stmts = Vec::new();
        let (mut firsts, mut positions): (Vec<Var>, Vec<Var>) = (Vec::new(), Vec::new());
        for axis in 0..spatial {
            let extent = this.dim(&source.shape[axis + 2]);
            let mut grid_at = vec![at[0].clone()];
            grid_at.extend_from_slice(&at[2..]);
            grid_at.push(Expr::index((spatial - 1 - axis) as i64));
            let coordinate = this.load(Argument::Operand(1), &grid_at).cast(grid_type, compute);
            let size = extent.clone().cast(DType::I64, compute);
            let shifted = binary(Function::Add, coordinate, number(1.0));
            let position = match align_corners {
                true => binary(
                    Function::Mul,
                    binary(Function::Div, shifted, number(2.0)),
                    binary(Function::Sub, size.clone(), number(1.0)),
                ),
                false => {
                    let scaled =
                        binary(Function::Sub, binary(Function::Mul, shifted, size.clone()), number(1.0));
                    binary(Function::Div, scaled, number(2.0))
                }
            };
            let (position, set) = this.assign("position", position);
            stmts.push(set);
            let position = if outside == PadKind::Constant {
                position
            } else {
                let moved = self::outside(outside, align_corners, Expr::Var(position), size, compute);
                // Cubic taps are moved one by one below; their centre stays where it is.
                if kind == ResizeKind::Cubic {
                    position
                } else {
                    let (moved, set) = this.assign("moved", moved);
                    stmts.push(set);
                    moved
                }
            };
            let base = match kind {
                ResizeKind::Nearest => call(Function::Round, vec![Expr::Var(position)]),
                ResizeKind::Linear => call(Function::Floor, vec![Expr::Var(position)]),
                ResizeKind::Cubic => {
                    binary(Function::Sub, call(Function::Floor, vec![Expr::Var(position)]), number(1.0))
                }
            };
            let (first, set) = this.assign("first", base);
            stmts.push(set);
            firsts.push(first);
            positions.push(position);
        }
        let (sum, start) = this.assign("sum", number(0.0));
        stmts.push(start);
        let counters: Vec<Var> =
            (0..spatial).map(|axis| this.kernel.counter(&format!("tap{axis}"))).collect();
        let mut read_at = vec![at[0].clone(), at[1].clone()];
        let mut weight = number(1.0);
        let mut inside: Option<Expr> = None;
        for axis in 0..spatial {
            let extent = this.dim(&source.shape[axis + 2]);
            let size = extent.clone().cast(DType::I64, compute);
            let tap = Expr::Var(counters[axis]).cast(DType::I64, compute);
            let place = binary(Function::Add, Expr::Var(firsts[axis]), tap);
            let distance = binary(Function::Sub, Expr::Var(positions[axis]), place.clone());
            let place = match (outside, kind) {
                (PadKind::Constant, _) | (_, ResizeKind::Nearest | ResizeKind::Linear) => place,
                _ => self::outside(outside, align_corners, place, size, compute),
            };
            let index = call(Function::Round, vec![place]).cast(compute, DType::I64);
            let within = Expr::index(0).less_equal(index.clone()).both(index.clone().less(extent.clone()));
            inside = Some(match inside {
                Some(known) => known.both(within),
                None => within,
            });
            read_at.push(index.at_most(extent.minus(Expr::index(1))).at_least(Expr::index(0)));
            weight = binary(Function::Mul, weight, tap_weight(kind, distance, compute));
        }
        let value = this.load(Argument::Operand(0), &read_at).cast(dtype, compute);
        let value = match inside {
            Some(inside) if outside == PadKind::Constant => inside.choose(value, number(0.0)),
            _ => value,
        };
        let update = Expr::Fma(Box::new(value), Box::new(weight), Box::new(Expr::Var(sum)));
        let mut body = vec![Stmt::Assign { var: sum, value: update }];
        for counter in counters.iter().rev() {
            body = vec![Stmt::For { var: *counter, extent: Expr::index(taps), kind: LoopKind::Serial, body }];
        }
        stmts.extend(body);
        stmts.push(this.store(Argument::Result(0), at, Expr::Var(sum).cast(compute, dtype)));
        stmts
    });
    lowering.launch(stmts, false);
    Ok(())
}

/// The weight of a tap at a distance.
fn tap_weight(kind: ResizeKind, distance: Expr, compute: DType) -> Expr {
    let number = |value: f64| Expr::constant(compute, value);
    let d = call(Function::Abs, vec![distance]);
    match kind {
        ResizeKind::Nearest => number(1.0),
        ResizeKind::Linear => binary(Function::Max, binary(Function::Sub, number(1.0), d), number(0.0)),
        ResizeKind::Cubic => {
            let polynomial = |coefficients: [f64; 4]| {
                coefficients[1..].iter().fold(number(coefficients[0]), |sum, next| {
                    binary(Function::Add, binary(Function::Mul, sum, d.clone()), number(*next))
                })
            };
            let near = polynomial([CUBIC + 2.0, -(CUBIC + 3.0), 0.0, 1.0]);
            let far = polynomial([CUBIC, -5.0 * CUBIC, 8.0 * CUBIC, -4.0 * CUBIC]);
            d.clone().less_equal(number(1.0)).choose(near, far)
        }
    }
}

/// A coordinate moved inside the image: to the nearest edge, or by mirroring at the borders.
fn outside(kind: PadKind, align_corners: bool, position: Expr, size: Expr, compute: DType) -> Expr {
    let number = |value: f64| Expr::constant(compute, value);
    let last = binary(Function::Sub, size.clone(), number(1.0));
    let clamped =
        |position: Expr| binary(Function::Min, binary(Function::Max, position, number(0.0)), last.clone());
    if kind != PadKind::Reflect {
        return clamped(position);
    }
    // Borders lie on the corner samples, or half a sample outside them.
    let (low, span) = if align_corners { (0.0, last.clone()) } else { (-0.5, size) };
    let span = binary(Function::Max, span, number(1e-30));
    let from_low = call(Function::Abs, vec![binary(Function::Sub, position, number(low))]);
    let turns = call(Function::Floor, vec![binary(Function::Div, from_low.clone(), span.clone())]);
    let rest = binary(Function::Sub, from_low, binary(Function::Mul, turns.clone(), span.clone()));
    let half = binary(Function::Mul, turns, number(0.5));
    let even = call(Function::Equal, vec![call(Function::Floor, vec![half.clone()]), half]);
    let mirrored = even.choose(rest.clone(), binary(Function::Sub, span, rest));
    clamped(binary(Function::Add, mirrored, number(low)))
}
