//! Loops that become one machine instruction.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};

use super::{StepError, substitute};
use crate::ir::{BufferId, Expr, Kernel, LoopKind, Stmt, Var};
use crate::simplify::Simplifier;
use crate::simplify::sum::Sum;

/// Bytes that a dot product takes for a lane.
pub const DOT_GROUP: i64 = 4;

const NAME: &str = "tensorize_dot";

impl Kernel {
    /// Multiplies and adds four bytes of a summed axis at once.
    ///
    /// ```text
    /// for k in 0..n { s[0] = s[0] + i32(a[f(k)]) * i32(w[g(k)]) }
    /// ->
    /// for o in 0..n / 4 { s[0] = dot(s[0], a[f(4 * o); 4], w[g(4 * o); 4]) }
    /// s[0] = dot(s[0], a[f(n - n % 4); 4 valid n % 4], w[g(n - n % 4); 4])
    /// ```
    ///
    /// Both reads are consecutive within each group of four. `padded` is `w`: its buffer has whole groups, so that the last
    /// one is read in full; what stands there after the extent meets zeros. A later [`Kernel::split`] does not predicate
    /// the reads of groups: `w` has whole tiles along the split axis too, or the axis does not move it. The extent is a
    /// constant.
    pub fn tensorize_dot(&mut self, var: Var, padded: BufferId) -> Result<(), StepError> {
        let outer = self.counter(&format!("{}_o", self.counter_name(var)));
        self.at_loop(var, &mut |kernel, stmt| {
            let refuse = |reason| Err(kernel.form(NAME, var, reason));
            let Stmt::For { extent, kind: LoopKind::Serial, body, .. } = stmt else {
                return refuse("the loop is scheduled already");
            };
            let Some(extent) = extent.as_index() else { return refuse("the extent is not a constant") };
            let Some(mut update) = Update::of(kernel, &body, var) else {
                return refuse("the body does not add a product of bytes to a 32-bit sum");
            };
            if update.b.0 != padded {
                std::mem::swap(&mut update.a, &mut update.b);
            }
            if update.b.0 != padded || update.a.0 == padded {
                return refuse("the padded buffer is not one of the two factors");
            }
            let groups = Expr::index(extent).over_up(Expr::index(DOT_GROUP));
            let mut simplifier = Simplifier::new(kernel);
            simplifier.enter(outer, &groups);
            if !consecutive(&mut simplifier, &update.a.1, var, outer)
                || !consecutive(&mut simplifier, &update.b.1, var, outer)
            {
                return refuse("four iterations do not read four neighbours");
            }
            let (full, rest) = (extent / DOT_GROUP, extent % DOT_GROUP);
            let mut result = Vec::new();
            if full > 0 {
                let mut body = vec![update.group(None)];
                substitute(&mut body, var, &Expr::Var(outer).times(Expr::index(DOT_GROUP)));
                let extent = Expr::index(full);
                result.push(Stmt::For { var: outer, extent, kind: LoopKind::Serial, body });
            }
            if rest > 0 {
                let mut last = [update.group(Some(rest))];
                substitute(&mut last, var, &Expr::index(full * DOT_GROUP));
                result.extend(last);
            }
            Ok(result)
        })
    }
}

/// `buffer[index] = buffer[index] + i32(a) * i32(b)` with two reads of bytes.
struct Update {
    buffer: BufferId,
    index: Expr,
    a: (BufferId, Expr),
    b: (BufferId, Expr),
}

impl Update {
    fn of(kernel: &Kernel, body: &[Stmt], var: Var) -> Option<Update> {
        let [Stmt::Store { buffer, index, value, valid: None }] = body else { return None };
        let Expr::Call(ScalarOp::Call(Function::Add), sum) = value else { return None };
        let [old, Expr::Call(ScalarOp::Call(Function::Mul), factors)] = &sum[..] else { return None };
        let [a, b] = &factors[..] else { return None };
        let same = *old == Expr::load(*buffer, index.clone()) && !index.mentions(var);
        let wide = kernel.buffer_of(*buffer).dtype == DType::I32;
        (same && wide).then_some(())?;
        let (a, b) = (byte(kernel, a)?, byte(kernel, b)?);
        Some(Update { buffer: *buffer, index: index.clone(), a, b })
    }

    /// The update by the four bytes from here on, of which `valid` count.
    fn group(&self, valid: Option<i64>) -> Stmt {
        let bytes = |(buffer, index): &(BufferId, Expr), valid: Option<i64>| {
            Box::new(Expr::Load {
                buffer: *buffer,
                index: Box::new(index.clone()),
                lanes: DOT_GROUP as u16,
                valid: valid.map(|valid| Box::new(Expr::index(valid))),
            })
        };
        let acc = Box::new(Expr::load(self.buffer, self.index.clone()));
        let value = Expr::Dot { acc, a: bytes(&self.a, valid), b: bytes(&self.b, None) };
        Stmt::Store { buffer: self.buffer, index: self.index.clone(), value, valid: None }
    }
}

/// The read of a byte that is widened to 32 bits.
fn byte(kernel: &Kernel, expr: &Expr) -> Option<(BufferId, Expr)> {
    let Expr::Call(ScalarOp::Cast(DType::I32), inner) = expr else { return None };
    let [Expr::Load { buffer, index, lanes: 1, valid: None }] = &inner[..] else { return None };
    let narrow = matches!(kernel.buffer_of(*buffer).dtype, DType::I8 | DType::U8);
    narrow.then(|| (*buffer, (**index).clone()))
}

/// True where `index` at `4 * outer + j` is that at `4 * outer` plus `j`.
fn consecutive(simplifier: &mut Simplifier, index: &Expr, var: Var, outer: Var) -> bool {
    let mut at = |offset: i64| {
        let position = Expr::Var(outer).times(Expr::index(DOT_GROUP)).plus(Expr::index(offset));
        let moved = index.substitute(&|candidate| (candidate == var).then(|| position.clone()));
        simplifier.sum(&moved)
    };
    let first = at(0);
    (1..DOT_GROUP).all(|offset| at(offset).minus(&first) == Sum::constant(offset))
}

#[cfg(test)]
mod tests;
