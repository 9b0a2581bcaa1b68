//! Constructors of kernel expressions that fold constants on the way.

use tcc_ir::dim::{Atom, Dim};
use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, Scalar, ScalarOp};

use crate::ir::{BufferId, Expr, Var};

impl Expr {
    /// An index constant.
    pub fn index(value: i64) -> Expr {
        Expr::Const(Scalar::integer(DType::I64, value))
    }

    /// A constant of a type.
    pub fn constant(dtype: DType, value: f64) -> Expr {
        Expr::Const(Scalar::of(dtype, value))
    }

    /// A function application without folding.
    pub fn call(function: Function, args: Vec<Expr>) -> Expr {
        Expr::Call(ScalarOp::Call(function), args)
    }

    /// One element of a buffer.
    pub fn load(buffer: BufferId, index: Expr) -> Expr {
        Expr::Load { buffer, index: Box::new(index), lanes: 1, valid: None }
    }

    /// Conversion; nothing where the type is that already.
    pub fn cast(self, from: DType, to: DType) -> Expr {
        if from == to { self } else { Expr::Call(ScalarOp::Cast(to), vec![self]) }
    }

    /// The value of an index constant.
    pub fn as_index(&self) -> Option<i64> {
        match self {
            Expr::Const(scalar) if scalar.dtype == DType::I64 => Some(scalar.as_i64()),
            _ => None,
        }
    }

    /// True for the index constant `value`.
    pub fn is_index(&self, value: i64) -> bool {
        self.as_index() == Some(value)
    }

    fn fold(function: Function, a: Expr, b: Expr, apply: fn(i64, i64) -> Option<i64>) -> Expr {
        match (a.as_index(), b.as_index()) {
            (Some(x), Some(y)) => match apply(x, y) {
                Some(value) => Expr::index(value),
                None => Expr::call(function, vec![a, b]),
            },
            _ => Expr::call(function, vec![a, b]),
        }
    }

    /// Index sum.
    pub fn plus(self, other: Expr) -> Expr {
        if self.is_index(0) {
            other
        } else if other.is_index(0) {
            self
        } else {
            Expr::fold(Function::Add, self, other, i64::checked_add)
        }
    }

    /// Index difference.
    pub fn minus(self, other: Expr) -> Expr {
        if other.is_index(0) {
            self
        } else if self == other {
            Expr::index(0)
        } else {
            Expr::fold(Function::Sub, self, other, i64::checked_sub)
        }
    }

    /// Index product.
    pub fn times(self, other: Expr) -> Expr {
        if self.is_index(0) || other.is_index(1) {
            self
        } else if self.is_index(1) || other.is_index(0) {
            other
        } else {
            Expr::fold(Function::Mul, self, other, i64::checked_mul)
        }
    }

    /// Index quotient for operands that are not negative (rounds towards zero otherwise).
    pub fn over(self, other: Expr) -> Expr {
        if other.is_index(1) || self.is_index(0) {
            self
        } else {
            Expr::fold(Function::Div, self, other, i64::checked_div)
        }
    }

    /// Index remainder for operands that are not negative.
    pub fn remainder(self, other: Expr) -> Expr {
        if other.is_index(1) {
            Expr::index(0)
        } else {
            Expr::fold(Function::Rem, self, other, i64::checked_rem)
        }
    }

    /// Smaller index.
    pub fn at_most(self, other: Expr) -> Expr {
        if self == other { self } else { Expr::fold(Function::Min, self, other, |x, y| Some(x.min(y))) }
    }

    /// Larger index.
    pub fn at_least(self, other: Expr) -> Expr {
        if self == other { self } else { Expr::fold(Function::Max, self, other, |x, y| Some(x.max(y))) }
    }

    /// Quotient rounded up, for operands that are not negative.
    pub fn over_up(self, other: Expr) -> Expr {
        self.plus(other.clone().minus(Expr::index(1))).over(other)
    }

    /// `self < other`.
    pub fn less(self, other: Expr) -> Expr {
        Expr::call(Function::Less, vec![self, other])
    }

    /// `self <= other`.
    pub fn less_equal(self, other: Expr) -> Expr {
        Expr::call(Function::LessEqual, vec![self, other])
    }

    /// Both truth values.
    pub fn both(self, other: Expr) -> Expr {
        Expr::call(Function::And, vec![self, other])
    }

    /// `self ? a : b`.
    pub fn choose(self, a: Expr, b: Expr) -> Expr {
        Expr::call(Function::Select, vec![self, a, b])
    }

    /// A symbolic dimension as an index expression: a polynomial over kernel dimensions. `number` gives the kernel
    /// dimension of an atom; quotients, minima and the like are dimensions of their own, which the caller evaluates
    /// once, so that index arithmetic stays small however deep a shape expression is.
    pub fn dim(dim: &Dim, number: &mut dyn FnMut(&Atom) -> u32) -> Expr {
        let mut sum = Expr::index(0);
        for (coefficient, atoms) in dim.monomials() {
            let mut product = Expr::index(1);
            for (atom, power) in atoms {
                let value = Expr::Dim(number(&atom));
                for _ in 0..power {
                    product = product.times(value.clone());
                }
            }
            sum = sum.plus(product.times(Expr::index(coefficient)));
        }
        sum
    }

    /// Quotient rounded down for any sign: `(a - mod(a, b)) / b`.
    pub fn floor_over(self, other: Expr) -> Expr {
        match (self.as_index(), other.as_index()) {
            (Some(a), Some(b)) if b > 0 => Expr::index(a.div_euclid(b)),
            _ => {
                let rest = Expr::call(Function::Mod, vec![self.clone(), other.clone()]);
                Expr::call(Function::Div, vec![self.minus(rest), other])
            }
        }
    }

    /// This expression with variables replaced.
    pub fn substitute(&self, replace: &dyn Fn(Var) -> Option<Expr>) -> Expr {
        self.rewrite(&mut |expr| match expr {
            Expr::Var(var) => replace(var).unwrap_or(Expr::Var(var)),
            other => other,
        })
    }

    /// True where the variable occurs.
    pub fn mentions(&self, var: Var) -> bool {
        let mut found = false;
        self.visit(&mut |expr| found |= *expr == Expr::Var(var));
        found
    }
}

impl From<Var> for Expr {
    fn from(var: Var) -> Expr {
        Expr::Var(var)
    }
}
