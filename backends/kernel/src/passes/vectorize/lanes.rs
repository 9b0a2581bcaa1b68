//! The vector form of a loop body.

use std::collections::{HashMap, HashSet};

use tcc_ir::scalar::{Function, ScalarOp};

use crate::ir::{Buffer, BufferId, Expr, Kernel, Space, Stmt, Var};
use crate::simplify::Simplifier;
use crate::simplify::sum::{Atom, Sum};

/// Consecutive lanes that one register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    /// Counter value of the first lane.
    pub offset: i64,
    /// Number of lanes.
    pub lanes: u16,
}

/// Why a body has no vector form.
pub(super) enum Stop {
    /// It can only run lane after lane.
    Serial,
    /// All lanes store to one element.
    Race(BufferId),
}

/// An expression and whether its lanes differ.
struct Value {
    expr: Expr,
    vector: bool,
}

fn uniform(expr: &Expr) -> Value {
    Value { expr: expr.clone(), vector: false }
}

/// Where an access goes.
enum Address {
    /// One place for all lanes.
    Same(Expr),
    /// From here on, the lanes' elements one after the other.
    Consecutive(Expr),
    /// A vector of indices.
    Each(Expr),
}

/// Lowers the body of one vector loop.
///
/// One iteration may itself work on short vectors (the four bytes of a dot product): their lanes are the iteration's
/// `group`, and the vector form puts the groups side by side.
pub(super) struct Body<'b> {
    kernel: &'b Kernel,
    simplifier: &'b mut Simplifier,
    counter: Var,
    pieces: &'b [Piece],
    copies: &'b HashMap<Var, Vec<Var>>,
    /// Number of active leading lanes by piece, where not all are.
    masks: Vec<Option<Expr>>,
    assigned: HashSet<Var>,
}

impl<'b> Body<'b> {
    pub(super) fn new(
        kernel: &'b Kernel,
        simplifier: &'b mut Simplifier,
        counter: Var,
        pieces: &'b [Piece],
        copies: &'b HashMap<Var, Vec<Var>>,
    ) -> Body<'b> {
        let masks = vec![None; pieces.len()];
        Body { kernel, simplifier, counter, pieces, copies, masks, assigned: HashSet::new() }
    }

    /// The statements for all pieces.
    pub(super) fn run(&mut self, body: &[Stmt]) -> Result<Vec<Stmt>, Stop> {
        let all: Vec<usize> = (0..self.pieces.len()).collect();
        let mut out = Vec::new();
        self.block(body, &all, &mut out)?;
        Ok(out)
    }

    /// Statement by statement, so that the pieces' independent chains lie side by side.
    fn block(&mut self, block: &[Stmt], active: &[usize], out: &mut Vec<Stmt>) -> Result<(), Stop> {
        for stmt in block {
            match stmt {
                Stmt::For { var, extent, kind, body } => {
                    if self.varies(extent) {
                        return Err(Stop::Serial);
                    }
                    self.simplifier.enter(*var, extent);
                    let mut inner = Vec::new();
                    let result = self.block(body, active, &mut inner);
                    self.simplifier.leave();
                    result?;
                    out.push(Stmt::For { var: *var, extent: extent.clone(), kind: *kind, body: inner });
                }
                Stmt::Assign { var, value } => self.assign(*var, value, active, out)?,
                Stmt::Store { buffer, index, value, valid } => {
                    for &piece in active {
                        let store = self.in_piece(piece, |body| {
                            body.store(piece, *buffer, index, value, valid.as_ref())
                        })?;
                        out.push(store);
                        // All lanes of all pieces write the same value to the same place.
                        if !self.varies(index) && self.masks[piece].is_none() {
                            break;
                        }
                    }
                }
                Stmt::If { condition, then, otherwise } => {
                    if self.varies(condition) {
                        self.masked(condition, then, otherwise, active, out)?;
                    } else {
                        let (mut yes, mut no) = (Vec::new(), Vec::new());
                        self.block(then, active, &mut yes)?;
                        self.block(otherwise, active, &mut no)?;
                        out.push(Stmt::If { condition: condition.clone(), then: yes, otherwise: no });
                    }
                }
                Stmt::Barrier | Stmt::Warp(_) => return Err(Stop::Serial),
            }
        }
        Ok(())
    }

    fn assign(&mut self, var: Var, value: &Expr, active: &[usize], out: &mut Vec<Stmt>) -> Result<(), Stop> {
        let Some(copies) = self.copies.get(&var) else {
            out.push(Stmt::Assign { var, value: value.clone() });
            return Ok(());
        };
        for &piece in active {
            // Lanes that a condition leaves out would keep their value.
            if self.masks[piece].is_some() && self.assigned.contains(&var) {
                return Err(Stop::Serial);
            }
            let value = self.in_piece(piece, |body| {
                let value = body.prepared(piece, value);
                let group = body.kernel.type_of(&value).lanes;
                let vector = body.value(piece, &value)?;
                Ok(body.widen(piece, vector, group))
            })?;
            out.push(Stmt::Assign { var: copies[piece], value });
        }
        if active.iter().all(|piece| self.masks[*piece].is_none()) {
            self.assigned.insert(var);
        }
        Ok(())
    }

    /// A condition that differs from lane to lane: each piece runs the branch for its leading lanes.
    fn masked(
        &mut self,
        condition: &Expr,
        then: &[Stmt],
        otherwise: &[Stmt],
        active: &[usize],
        out: &mut Vec<Stmt>,
    ) -> Result<(), Stop> {
        for &piece in active {
            let lanes = i64::from(self.pieces[piece].lanes);
            let prepared = self.in_piece(piece, |body| body.prepared(piece, condition));
            if !self.varies(&prepared) && !matches!(prepared, Expr::Const(_)) {
                // The same for all lanes of this piece.
                let (mut yes, mut no) = (Vec::new(), Vec::new());
                self.block(then, &[piece], &mut yes)?;
                self.block(otherwise, &[piece], &mut no)?;
                out.push(Stmt::If { condition: prepared, then: yes, otherwise: no });
                continue;
            }
            let count = self.in_piece(piece, |body| body.leading(piece, &prepared))?;
            match count.as_index() {
                Some(count) if count >= lanes => {
                    self.block(then, &[piece], out)?;
                    continue;
                }
                Some(count) if count <= 0 => {
                    self.block(otherwise, &[piece], out)?;
                    continue;
                }
                _ => {}
            }
            if !otherwise.is_empty() {
                return Err(Stop::Serial);
            }
            let before = self.masks[piece].clone();
            self.masks[piece] = combined(before.clone(), Some(count));
            let result = self.block(then, &[piece], out);
            self.masks[piece] = before;
            result?;
        }
        Ok(())
    }

    /// Runs `work` with the counter known to stay inside the piece.
    fn in_piece<T>(&mut self, piece: usize, work: impl FnOnce(&mut Self) -> T) -> T {
        self.simplifier.enter(self.counter, &Expr::index(self.pieces[piece].lanes.into()));
        let result = work(self);
        self.simplifier.leave();
        result
    }

    /// The expression with the counter counted from the start of the piece.
    fn prepared(&mut self, piece: usize, expr: &Expr) -> Expr {
        let value = Expr::from(self.counter).plus(Expr::index(self.pieces[piece].offset));
        self.simplifier.bind(self.counter, &value);
        let simple = self.simplifier.expr(expr);
        self.simplifier.unbind(self.counter);
        simple
    }

    fn varies(&self, expr: &Expr) -> bool {
        let mut found = false;
        expr.visit(&mut |part| {
            if let Expr::Var(var) = part {
                found |= *var == self.counter || self.copies.contains_key(var);
            }
        });
        found
    }

    /// Coefficient of the counter and value at lane 0, where nothing else differs from lane to lane.
    fn affine(&mut self, expr: &Expr) -> Option<(i64, Sum)> {
        let sum = self.simplifier.sum(expr);
        let (slope, rest) = sum.affine_in(Atom::Var(self.counter))?;
        (!self.varies(&self.simplifier.rebuild(&rest))).then_some((slope, rest))
    }

    fn address(&mut self, piece: usize, index: &Expr, group: u16) -> Result<Address, Stop> {
        let lanes = self.pieces[piece].lanes;
        if let Some((slope, rest)) = self.affine(index) {
            let base = self.simplifier.rebuild(&rest);
            return Ok(if slope == 0 {
                Address::Same(base)
            } else if slope == i64::from(group) || lanes == 1 {
                Address::Consecutive(base)
            } else if group == 1 {
                Address::Each(Expr::Ramp { base: Box::new(base), stride: slope, lanes })
            } else {
                return Err(Stop::Serial);
            });
        }
        let index = self.value(piece, index)?;
        if lanes == 1 {
            Ok(Address::Consecutive(index.expr))
        } else if group == 1 {
            Ok(Address::Each(self.widen(piece, index, 1)))
        } else {
            Err(Stop::Serial)
        }
    }

    /// `valid` of the vector access for that of one lane's access.
    fn valid(&mut self, piece: usize, valid: Option<&Expr>, group: u16) -> Result<Option<Expr>, Stop> {
        let lanes = i64::from(self.pieces[piece].lanes);
        let mask = self.masks[piece].clone().map(|count| count.times(Expr::index(group.into())));
        let Some(valid) = valid else { return Ok(mask) };
        let Some((slope, rest)) = self.affine(valid) else { return Err(Stop::Serial) };
        let rest = self.simplifier.rebuild(&rest);
        let count = if slope == -i64::from(group) || lanes == 1 {
            rest
        } else if slope == 0 && group == 1 {
            Expr::index(0).less(rest).choose(Expr::index(lanes), Expr::index(0))
        } else {
            return Err(Stop::Serial);
        };
        Ok(combined(mask, Some(count)))
    }

    fn store(
        &mut self,
        piece: usize,
        buffer: BufferId,
        index: &Expr,
        value: &Expr,
        valid: Option<&Expr>,
    ) -> Result<Stmt, Stop> {
        // Decided before the index is prepared: a piece of one lane has no counter left.
        let same = !self.varies(index);
        let several = self.pieces.len() > 1 || self.pieces[piece].lanes > 1;
        if same && several && self.varies(value) {
            return Err(Stop::Race(buffer));
        }
        let index = self.prepared(piece, index);
        let value = self.prepared(piece, value);
        let valid = valid.map(|valid| self.prepared(piece, valid));
        let group = self.kernel.type_of(&value).lanes;
        let value = self.value(piece, &value)?;
        let address = self.address(piece, &index, group)?;
        let mask = valid.clone().or(self.masks[piece].clone());
        self.check_packed(piece, buffer, &address, mask.as_ref())?;
        Ok(match address {
            Address::Same(index) => {
                if self.pieces[piece].lanes > 1 && value.vector {
                    return Err(Stop::Race(buffer));
                }
                let valid = self.shared_valid(piece, valid.as_ref(), group)?;
                Stmt::Store { buffer, index, value: value.expr, valid }
            }
            Address::Consecutive(index) | Address::Each(index) => {
                let value = self.widen(piece, value, group);
                let valid = self.valid(piece, valid.as_ref(), group)?;
                Stmt::Store { buffer, index, value, valid }
            }
        })
    }

    /// `valid` of an access that all lanes share: lane 0 is active wherever a lane is.
    fn shared_valid(&self, piece: usize, valid: Option<&Expr>, group: u16) -> Result<Option<Expr>, Stop> {
        let first = self.masks[piece].clone();
        if valid.is_some_and(|valid| self.varies(valid)) || group > 1 && first.is_some() {
            return Err(Stop::Serial);
        }
        Ok(combined(first, valid.cloned()))
    }

    /// Elements that share bytes are accessed from the start of a byte, all of them.
    fn check_packed(
        &mut self,
        piece: usize,
        buffer: BufferId,
        address: &Address,
        valid: Option<&Expr>,
    ) -> Result<(), Stop> {
        let Buffer { dtype, space, .. } = self.kernel.buffer_of(buffer);
        if !dtype.is_packed()
            || matches!(space, Space::Stack | Space::Register)
            || self.pieces[piece].lanes == 1
        {
            return Ok(());
        }
        let per_byte = 8 / dtype.bits() as i64;
        let whole = match address {
            Address::Same(_) => true,
            Address::Consecutive(index) => {
                let sum = self.simplifier.sum(index);
                let aligned =
                    sum.split(&Sum::constant(per_byte)).is_some_and(|(_, rest)| rest == Sum::default());
                aligned && valid.is_none() && i64::from(self.pieces[piece].lanes) % per_byte == 0
            }
            Address::Each(_) => false,
        };
        if whole { Ok(()) } else { Err(Stop::Serial) }
    }

    /// How many leading lanes a prepared condition holds for.
    fn leading(&mut self, piece: usize, condition: &Expr) -> Result<Expr, Stop> {
        let lanes = i64::from(self.pieces[piece].lanes);
        if !self.varies(condition) {
            return Ok(match condition {
                Expr::Const(scalar) => Expr::index(if scalar.bits != 0 { lanes } else { 0 }),
                condition => condition.clone().choose(Expr::index(lanes), Expr::index(0)),
            });
        }
        let Expr::Call(ScalarOp::Call(function), args) = condition else { return Err(Stop::Serial) };
        match (function, &args[..]) {
            (Function::And, [a, b]) => {
                let (a, b) = (self.leading(piece, a)?, self.leading(piece, b)?);
                Ok(a.at_most(b))
            }
            (Function::Less | Function::LessEqual, [a, b])
                if self.simplifier.is_index(a) && self.simplifier.is_index(b) =>
            {
                let room = Expr::call(Function::Sub, vec![b.clone(), a.clone()]);
                match self.affine(&room) {
                    Some((-1, rest)) => {
                        let extra = i64::from(*function == Function::LessEqual);
                        let count = rest.plus(&Sum::constant(extra));
                        Ok(self.simplifier.rebuild(&count))
                    }
                    _ => Err(Stop::Serial),
                }
            }
            _ => Err(Stop::Serial),
        }
    }

    /// All lanes of a value; `group` is the number of its lanes in one iteration.
    fn widen(&self, piece: usize, value: Value, group: u16) -> Expr {
        let lanes = self.pieces[piece].lanes;
        if value.vector || lanes == 1 {
            value.expr
        } else if group == 1 {
            Expr::Splat(Box::new(value.expr), lanes)
        } else {
            let picks = (0..lanes * group).map(|lane| lane % group).collect();
            Expr::Shuffle(Box::new(value.expr.clone()), Box::new(value.expr), picks)
        }
    }

    /// The vector form of a prepared expression.
    fn value(&mut self, piece: usize, expr: &Expr) -> Result<Value, Stop> {
        if !self.varies(expr) && self.masks[piece].is_none() {
            return Ok(uniform(expr));
        }
        let lanes = self.pieces[piece].lanes;
        if self.simplifier.is_index(expr)
            && matches!(expr, Expr::Call(..) | Expr::Var(_))
            && let Some((slope, rest)) = self.affine(expr)
            && slope != 0
        {
            let base = self.simplifier.rebuild(&rest);
            let base = self.value(piece, &base)?.expr;
            let expr = Expr::Ramp { base: Box::new(base), stride: slope, lanes };
            return Ok(Value { expr, vector: true });
        }
        match expr {
            Expr::Const(_) | Expr::Dim(_) => Ok(uniform(expr)),
            Expr::Var(var) => Ok(match self.copies.get(var) {
                Some(copies) => Value { expr: Expr::Var(copies[piece]), vector: true },
                None => uniform(expr),
            }),
            Expr::Load { buffer, index, lanes: group, valid } => {
                self.load(piece, *buffer, index, *group, valid.as_deref())
            }
            Expr::Call(op, args) => {
                let group = args.iter().map(|arg| self.kernel.type_of(arg).lanes).max().unwrap_or(1);
                let args: Vec<&Expr> = args.iter().collect();
                let (args, vector) = self.parts(piece, &args, group)?;
                Ok(Value { expr: Expr::Call(*op, args), vector })
            }
            Expr::Fma(a, b, c) => {
                let group = self.kernel.type_of(c).lanes;
                let (mut parts, vector) = self.parts(piece, &[a, b, c], group)?;
                let mut next = || Box::new(parts.remove(0));
                Ok(Value { expr: Expr::Fma(next(), next(), next()), vector })
            }
            Expr::Dot { acc, a, b } => {
                let group = self.kernel.type_of(acc).lanes;
                let (acc, a, b) = (self.value(piece, acc)?, self.value(piece, a)?, self.value(piece, b)?);
                let vector = acc.vector || a.vector || b.vector;
                let wide = |value: Value, group| {
                    Box::new(if vector { self.widen(piece, value, group) } else { value.expr })
                };
                let expr = Expr::Dot { acc: wide(acc, group), a: wide(a, group * 4), b: wide(b, group * 4) };
                Ok(Value { expr, vector })
            }
            Expr::Splat(inner, group) => {
                let (inner, vector) = self.alone(piece, inner)?;
                Ok(Value { expr: Expr::Splat(inner, *group), vector })
            }
            Expr::ReduceLanes(kind, inner) => {
                let (inner, vector) = self.alone(piece, inner)?;
                Ok(Value { expr: Expr::ReduceLanes(*kind, inner), vector })
            }
            Expr::Ramp { base, stride, lanes: group } => {
                let (base, vector) = self.alone(piece, base)?;
                Ok(Value { expr: Expr::Ramp { base, stride: *stride, lanes: *group }, vector })
            }
            Expr::Shuffle(a, b, picks) => {
                let ((a, first), (b, second)) = (self.alone(piece, a)?, self.alone(piece, b)?);
                Ok(Value { expr: Expr::Shuffle(a, b, picks.clone()), vector: first || second })
            }
        }
    }

    /// A part of an expression that works across lanes: the same in all lanes, or in a piece of one.
    fn alone(&mut self, piece: usize, part: &Expr) -> Result<(Box<Expr>, bool), Stop> {
        let value = self.value(piece, part)?;
        if value.vector && self.pieces[piece].lanes > 1 {
            return Err(Stop::Serial);
        }
        Ok((Box::new(value.expr), value.vector))
    }

    /// The vector forms of operands with `group` lanes in one iteration each, all alike.
    fn parts(&mut self, piece: usize, parts: &[&Expr], group: u16) -> Result<(Vec<Expr>, bool), Stop> {
        let values =
            parts.iter().map(|part| self.value(piece, part)).collect::<Result<Vec<Value>, Stop>>()?;
        let vector = values.iter().any(|value| value.vector);
        let wide = |value| if vector { self.widen(piece, value, group) } else { value.expr };
        Ok((values.into_iter().map(wide).collect(), vector))
    }

    fn load(
        &mut self,
        piece: usize,
        buffer: BufferId,
        index: &Expr,
        group: u16,
        valid: Option<&Expr>,
    ) -> Result<Value, Stop> {
        let lanes = self.pieces[piece].lanes;
        let load = |index: Expr, lanes: u16, valid: Option<Expr>| Expr::Load {
            buffer,
            index: Box::new(index),
            lanes,
            valid: valid.map(Box::new),
        };
        let address = self.address(piece, index, group)?;
        let mask = valid.cloned().or(self.masks[piece].clone());
        self.check_packed(piece, buffer, &address, mask.as_ref())?;
        match address {
            Address::Same(index) => {
                let valid = self.shared_valid(piece, valid, group)?;
                let index = self.value(piece, &index)?.expr;
                Ok(Value { expr: load(index, group, valid), vector: false })
            }
            Address::Consecutive(index) | Address::Each(index) => {
                let valid = self.valid(piece, valid, group)?;
                Ok(Value { expr: load(index, group * lanes, valid), vector: true })
            }
        }
    }
}

/// The smaller of two lane counts; absent means all.
fn combined(a: Option<Expr>, b: Option<Expr>) -> Option<Expr> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.at_most(b)),
        (a, b) => a.or(b),
    }
}
