//! Turns register arrays into variables.

use std::collections::BTreeMap;

use tcc_ir::scalar::Scalar;

use crate::ir::{BufferId, Expr, Kernel, LoopKind, Space, Stmt, Ty, Var};

/// Replaces each `Register` array whose accesses have constant indices by one variable for each vector or element that is
/// accessed. Where accesses overlap without being equal, or an index is not constant, the array moves to the stack.
///
/// ```text
/// acc[16; 16] = splat(0.0; 16)   =>   acc_16 = splat(0.0; 16)
/// ```
pub fn promote(kernel: &mut Kernel) {
    let mut found: BTreeMap<BufferId, Option<Slots>> = (0..kernel.buffers.len() as u32)
        .map(BufferId)
        .filter(|id| kernel.buffer_of(*id).space == Space::Register)
        .map(|id| (id, Some(Slots::default())))
        .collect();
    if found.is_empty() {
        return;
    }
    for stmt in &kernel.body {
        collect(kernel, stmt, &mut found);
    }
    let mut promoted: BTreeMap<BufferId, Slots> = BTreeMap::new();
    for (id, slots) in found {
        let buffer = kernel.buffer_of(id).clone();
        let count = buffer.count.as_index().unwrap_or(0);
        match slots {
            Some(mut slots) if slots.are_disjoint(count) => {
                for (start, slot) in &mut slots.by_start {
                    let ty = Ty::vector(buffer.dtype, slot.lanes);
                    slot.var = kernel.variable(&format!("{}_{start}", buffer.name), ty);
                }
                promoted.insert(id, slots);
            }
            _ => kernel.buffers[id.0 as usize].space = Space::Stack,
        }
    }
    let mut body = std::mem::take(&mut kernel.body);
    replace(&mut body, &promoted);
    let exposed = Exposure::of(kernel, &body);
    for slot in promoted.values().flat_map(|slots| slots.by_start.values()) {
        if exposed[slot.var.0 as usize] {
            let ty = kernel.variables[slot.var.0 as usize].ty;
            let zero = Expr::Const(Scalar { dtype: ty.dtype, bits: 0 });
            let zero = if ty.lanes == 1 { zero } else { Expr::Splat(Box::new(zero), ty.lanes) };
            declare(&mut body, slot.var, zero);
        }
    }
    kernel.body = body;
    remove(kernel, &promoted);
}

#[derive(Clone, Copy)]
struct Slot {
    lanes: u16,
    var: Var,
}

/// The places of a register array that are accessed, by first element.
#[derive(Default)]
struct Slots {
    by_start: BTreeMap<i64, Slot>,
    conflict: bool,
}

impl Slots {
    fn add(&mut self, start: i64, lanes: u16) {
        let slot = self.by_start.entry(start).or_insert(Slot { lanes, var: Var(0) });
        self.conflict |= slot.lanes != lanes;
    }

    fn are_disjoint(&self, count: i64) -> bool {
        let mut end = 0;
        for (start, slot) in &self.by_start {
            if *start < end {
                return false;
            }
            end = start + i64::from(slot.lanes);
        }
        !self.conflict && end <= count
    }

    fn at(&self, index: &Expr) -> Option<Var> {
        Some(self.by_start.get(&index.as_index()?)?.var)
    }
}

type Found = BTreeMap<BufferId, Option<Slots>>;

fn access(found: &mut Found, buffer: BufferId, index: &Expr, lanes: u16, valid: bool) {
    let Some(entry) = found.get_mut(&buffer) else { return };
    match (index.as_index(), &mut *entry) {
        (Some(start), Some(slots)) if !valid => slots.add(start, lanes),
        _ => *entry = None,
    }
}

fn collect(kernel: &Kernel, stmt: &Stmt, found: &mut Found) {
    stmt.visit_exprs(&mut |expr| {
        expr.visit(&mut |part| {
            if let Expr::Load { buffer, index, lanes, valid } = part {
                access(found, *buffer, index, *lanes, valid.is_some());
            }
        });
    });
    collect_stores(kernel, stmt, found);
}

fn collect_stores(kernel: &Kernel, stmt: &Stmt, found: &mut Found) {
    match stmt {
        Stmt::Store { buffer, index, value, valid } => {
            access(found, *buffer, index, kernel.type_of(value).lanes, valid.is_some());
        }
        Stmt::For { body, .. } => body.iter().for_each(|stmt| collect_stores(kernel, stmt, found)),
        Stmt::If { then, otherwise, .. } => {
            then.iter().chain(otherwise).for_each(|stmt| collect_stores(kernel, stmt, found));
        }
        Stmt::Assign { .. } | Stmt::Barrier | Stmt::Warp(_) => {}
    }
}

fn replace(block: &mut [Stmt], promoted: &BTreeMap<BufferId, Slots>) {
    for stmt in block.iter_mut() {
        stmt.map_exprs(&mut |expr| {
            expr.rewrite(&mut |part| match part {
                Expr::Load { buffer, ref index, .. } => {
                    match promoted.get(&buffer).and_then(|slots| slots.at(index)) {
                        Some(var) => Expr::Var(var),
                        None => part,
                    }
                }
                part => part,
            })
        });
    }
    replace_stores(block, promoted);
}

fn replace_stores(block: &mut [Stmt], promoted: &BTreeMap<BufferId, Slots>) {
    for stmt in block {
        match stmt {
            Stmt::Store { buffer, index, value, .. } => {
                if let Some(var) = promoted.get(buffer).and_then(|slots| slots.at(index)) {
                    *stmt = Stmt::Assign { var, value: value.clone() };
                }
            }
            Stmt::For { body, .. } => replace_stores(body, promoted),
            Stmt::If { then, otherwise, .. } => {
                replace_stores(then, promoted);
                replace_stores(otherwise, promoted);
            }
            Stmt::Assign { .. } | Stmt::Barrier | Stmt::Warp(_) => {}
        }
    }
}

fn mentions(stmt: &Stmt, var: Var) -> bool {
    let mut found = false;
    stmt.visit_exprs(&mut |expr| found |= expr.mentions(var));
    found
        || match stmt {
            Stmt::Assign { var: assigned, .. } => *assigned == var,
            Stmt::For { body, .. } => body.iter().any(|stmt| mentions(stmt, var)),
            Stmt::If { then, otherwise, .. } => then.iter().chain(otherwise).any(|stmt| mentions(stmt, var)),
            Stmt::Warp(op) => op.assigned() == Some(var),
            Stmt::Store { .. } | Stmt::Barrier => false,
        }
}

/// Finds variables that some path reads without an assignment in an enclosing block before.
struct Exposure {
    assigned: Vec<bool>,
    exposed: Vec<bool>,
}

impl Exposure {
    fn of(kernel: &Kernel, body: &[Stmt]) -> Vec<bool> {
        let count = kernel.variables.len();
        let mut scan = Exposure { assigned: vec![false; count], exposed: vec![false; count] };
        scan.block(body);
        scan.exposed
    }

    fn read(&mut self, expr: &Expr) {
        expr.visit(&mut |part| {
            if let Expr::Var(var) = part
                && !self.assigned[var.0 as usize]
            {
                self.exposed[var.0 as usize] = true;
            }
        });
    }

    fn block(&mut self, block: &[Stmt]) {
        let mut new = Vec::new();
        for stmt in block {
            match stmt {
                Stmt::Assign { var, value } => {
                    self.read(value);
                    if !std::mem::replace(&mut self.assigned[var.0 as usize], true) {
                        new.push(*var);
                    }
                }
                Stmt::For { extent, body, .. } => {
                    self.read(extent);
                    self.block(body);
                }
                Stmt::If { condition, then, otherwise } => {
                    self.read(condition);
                    self.block(then);
                    self.block(otherwise);
                }
                Stmt::Store { index, value, valid, .. } => {
                    self.read(index);
                    self.read(value);
                    valid.iter().for_each(|valid| self.read(valid));
                }
                Stmt::Barrier => {}
                Stmt::Warp(op) => {
                    op.exprs().into_iter().for_each(|expr| self.read(expr));
                    if let Some(var) = op.assigned()
                        && !std::mem::replace(&mut self.assigned[var.0 as usize], true)
                    {
                        new.push(var);
                    }
                }
            }
        }
        for var in new {
            self.assigned[var.0 as usize] = false;
        }
    }
}

/// Assigns the variable before its first use, outside of all loops but the parallel one.
fn declare(block: &mut Vec<Stmt>, var: Var, zero: Expr) {
    let Some(first) = block.iter().position(|stmt| mentions(stmt, var)) else { return };
    match &mut block[first] {
        Stmt::For { kind: LoopKind::Parallel, body, .. } => declare(body, var, zero),
        _ => block.insert(first, Stmt::Assign { var, value: zero }),
    }
}

/// Drops the declarations of buffers that have become variables.
fn remove(kernel: &mut Kernel, promoted: &BTreeMap<BufferId, Slots>) {
    let mut numbers = Vec::with_capacity(kernel.buffers.len());
    let mut kept = Vec::new();
    for (number, buffer) in std::mem::take(&mut kernel.buffers).into_iter().enumerate() {
        numbers.push(BufferId(kept.len() as u32));
        if !promoted.contains_key(&BufferId(number as u32)) {
            kept.push(buffer);
        }
    }
    kernel.buffers = kept;
    renumber(&mut kernel.body, &numbers);
    for stmt in &mut kernel.body {
        stmt.map_exprs(&mut |expr| {
            expr.rewrite(&mut |part| match part {
                Expr::Load { buffer, index, lanes, valid } => {
                    Expr::Load { buffer: numbers[buffer.0 as usize], index, lanes, valid }
                }
                part => part,
            })
        });
    }
}

fn renumber(block: &mut [Stmt], numbers: &[BufferId]) {
    for stmt in block {
        match stmt {
            Stmt::Store { buffer, .. } => *buffer = numbers[buffer.0 as usize],
            Stmt::For { body, .. } => renumber(body, numbers),
            Stmt::If { then, otherwise, .. } => {
                renumber(then, numbers);
                renumber(otherwise, numbers);
            }
            Stmt::Warp(op) => {
                op.buffers_mut().into_iter().for_each(|buffer| *buffer = numbers[buffer.0 as usize])
            }
            Stmt::Assign { .. } | Stmt::Barrier => {}
        }
    }
}
