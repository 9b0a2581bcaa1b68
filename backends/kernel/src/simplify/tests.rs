use super::*;

/// A kernel with dimensions n and m, and counters i, j, k.
fn setting() -> (Kernel, [Var; 3]) {
    let mut kernel = Kernel::new("test");
    kernel.dims = vec!["n".into(), "m".into()];
    let counters = ["i", "j", "k"].map(|name| kernel.counter(name));
    (kernel, counters)
}

fn simplified(extents: [Expr; 3], expr: impl Fn([Expr; 3]) -> Expr) -> String {
    let (kernel, counters) = setting();
    let mut simplifier = Simplifier::new(&kernel);
    for (counter, extent) in counters.iter().zip(extents) {
        simplifier.enter(*counter, &extent);
    }
    let result = simplifier.expr(&expr(counters.map(Expr::from)));
    kernel.expr_text(&result)
}

fn c(value: i64) -> Expr {
    Expr::index(value)
}

fn n() -> Expr {
    Expr::Dim(0)
}

fn m() -> Expr {
    Expr::Dim(1)
}

#[test]
fn quotients_split_by_the_range_of_the_counter() {
    let tile = |i: Expr, j: Expr| i.times(c(16)).plus(j);
    assert_eq!(simplified([n(), c(16), c(1)], |[i, j, _]| tile(i, j).over(c(16))), "i");
    assert_eq!(simplified([n(), c(16), c(1)], |[i, j, _]| tile(i, j).remainder(c(16))), "j");
    assert_eq!(simplified([n(), c(17), c(1)], |[i, j, _]| tile(i, j).over(c(16))), "i + j / 16");
    // Symbolic divisors, from the extents themselves.
    assert_eq!(simplified([n(), m(), c(1)], |[i, j, _]| i.times(m()).plus(j).over(m())), "i");
    assert_eq!(simplified([n(), m(), c(1)], |[i, j, _]| i.times(m()).plus(j).remainder(m())), "j");
    // Nothing is known about a counter of another extent.
    assert_eq!(simplified([n(), m(), c(1)], |[i, j, _]| i.times(n()).plus(j).over(n())), "i + j / n");
}

#[test]
fn quotients_lose_common_factors() {
    assert_eq!(
        simplified([n(), c(3), c(1)], |[i, j, _]| i.times(c(6)).plus(j).over(c(4))),
        "(i * 6 + j) / 4"
    );
    assert_eq!(simplified([n(), c(1), c(1)], |[i, _, _]| i.times(c(2)).plus(c(1)).over(c(4))), "i / 2");
    assert_eq!(simplified([n(), c(1), c(1)], |[i, _, _]| i.over(c(4)).over(c(8))), "i / 32");
    assert_eq!(simplified([c(8), c(1), c(1)], |[i, _, _]| i.over(c(8))), "0");
}

#[test]
fn negative_numerators_are_left_alone() {
    let expr = |[i, _, _]: [Expr; 3]| i.minus(c(1)).over(c(4));
    assert_eq!(simplified([n(), c(1), c(1)], expr), "(i - 1) / 4");
}

#[test]
fn bounds_decide_minima_and_comparisons() {
    assert_eq!(simplified([c(8), c(1), c(1)], |[i, _, _]| i.at_most(c(7))), "i");
    assert_eq!(simplified([c(9), c(1), c(1)], |[i, _, _]| i.at_most(c(7))), "min(i, 7)");
    assert_eq!(simplified([n(), c(1), c(1)], |[i, _, _]| i.less(n())), "i1:1");
    assert_eq!(simplified([n(), c(1), c(1)], |[i, _, _]| n().less_equal(i)), "i1:0");
    // Whole tiles stay inside: 16 * (n / 16) <= n.
    let whole = n().over(c(16));
    assert_eq!(simplified([whole, c(16), c(1)], |[i, j, _]| i.times(c(16)).plus(j).less(n())), "i1:1");
    // The last tile may not.
    let up = n().over_up(c(16));
    let text = simplified([up, c(16), c(1)], |[i, j, _]| i.times(c(16)).plus(j).less(n()));
    assert_eq!(text, "i * 16 + j < n");
    // A short tail: j < min(16, n - 16 i).
    let (kernel, [i, j, _]) = setting();
    let mut simplifier = Simplifier::new(&kernel);
    simplifier.enter(i, &n().over_up(c(16)));
    simplifier.enter(j, &n().minus(Expr::from(i).times(c(16))).at_most(c(16)));
    let inside = simplifier.expr(&Expr::from(i).times(c(16)).plus(j.into()).less(n()));
    assert_eq!(kernel.expr_text(&inside), "i1:1");
}

#[test]
fn data_may_wrap() {
    let (mut kernel, _) = setting();
    let x = kernel.argument("x", DType::I64, c(4), crate::ir::Access::Read);
    let mut simplifier = Simplifier::new(&kernel);
    let datum = Expr::load(x, c(0));
    let larger = datum.clone().less(datum.clone().plus(c(1)));
    assert_eq!(kernel.expr_text(&simplifier.expr(&larger)), "x[0] < x[0] + 1");
    let same = datum.clone().plus(c(1)).minus(datum);
    assert_eq!(kernel.expr_text(&simplifier.expr(&same)), "1");
}

#[test]
fn sums_have_one_form() {
    let text = simplified([n(), m(), c(4)], |[i, j, k]| {
        k.clone().plus(j.clone().times(c(4))).plus(c(3)).plus(i.times(m()).times(c(4))).minus(k.times(c(2)))
    });
    assert_eq!(text, "m * i * 4 + j * 4 - k + 3");
}

#[test]
fn loops_of_one_and_no_iterations_go_away() {
    let (mut kernel, [i, j, _]) = setting();
    let y = kernel.argument("y", DType::I64, c(8), crate::ir::Access::Write);
    let store = |index: Expr| Stmt::Store { buffer: y, index, value: c(1), valid: None };
    let serial = |var, extent, body| Stmt::For { var, extent, kind: LoopKind::Serial, body };
    kernel.body = vec![
        serial(i, c(1), vec![store(Expr::from(i).plus(c(2)))]),
        serial(j, c(0), vec![store(j.into())]),
        Stmt::If { condition: c(3).less(c(2)), then: vec![store(c(4))], otherwise: vec![store(c(5))] },
    ];
    simplify(&mut kernel);
    assert_eq!(kernel.body, [store(c(2)), store(c(5))]);
}

#[test]
fn floats_keep_their_bits() {
    let (mut kernel, _) = setting();
    let x = kernel.argument("x", DType::F32, c(4), crate::ir::Access::Read);
    let mut simplifier = Simplifier::new(&kernel);
    let datum = Expr::load(x, c(0));
    let mut text = |function, value: f64| {
        let expr = Expr::call(function, vec![datum.clone(), Expr::constant(DType::F32, value)]);
        kernel.expr_text(&simplifier.expr(&expr))
    };
    assert_eq!(text(Function::Mul, 1.0), "x[0]");
    assert_eq!(text(Function::Sub, 0.0), "x[0]");
    assert_eq!(text(Function::Add, -0.0), "x[0]");
    assert_eq!(text(Function::Add, 0.0), "x[0] + f32:0.0");
    assert_eq!(text(Function::Mul, 0.0), "x[0] * f32:0.0");
}

#[test]
fn unrolled_copies_are_simplified() {
    let (mut kernel, [i, j, _]) = setting();
    let y = kernel.argument("y", DType::I64, c(8), crate::ir::Access::Write);
    let index = Expr::from(i).times(c(2)).plus(j.into());
    let store = Stmt::Store { buffer: y, index, value: Expr::from(i).over(c(2)), valid: None };
    let unroll = |var, extent: i64, body| Stmt::For { var, extent: c(extent), kind: LoopKind::Unroll, body };
    kernel.body = vec![unroll(i, 3, vec![unroll(j, 2, vec![store])])];
    let mut small = kernel.clone();
    assert!(simplify_unrolled(&mut kernel, 100));
    assert_eq!(kernel.body.len(), 6);
    assert_eq!(kernel.body[5], Stmt::Store { buffer: y, index: c(5), value: c(1), valid: None });
    assert!(!simplify_unrolled(&mut small, 5));
}

#[test]
fn conditions_hold_in_their_branches() {
    let (mut kernel, [i, j, _]) = setting();
    let y = kernel.argument("y", DType::I64, n(), crate::ir::Access::Write);
    let rest = || n().minus(Expr::from(i).times(c(16)));
    let store = |value: Expr| Stmt::Store { buffer: y, index: c(0), value, valid: None };
    let serial = |var, extent, body| Stmt::For { var, extent, kind: LoopKind::Serial, body };
    let choice = Stmt::If {
        condition: rest().less(c(16)),
        then: vec![store(rest().at_most(c(16)))],
        otherwise: vec![store(rest().at_most(c(16)))],
    };
    let large = Stmt::If {
        condition: c(4).less_equal(m()),
        then: vec![serial(j, m(), vec![store(m().at_least(c(4)))])],
        otherwise: vec![store(m().at_least(c(4)))],
    };
    kernel.body = vec![serial(i, n(), vec![choice, large])];
    simplify(&mut kernel);
    insta::assert_snapshot!(kernel, @"
    kernel test(n, m) {
      argument 0 y: i64[n] write
      for i in n {
        if n - i * 16 < 16 {
          y[0] = n - i * 16
        } else {
          y[0] = 16
        }
        if 4 <= m {
          for j in m {
            y[0] = m
          }
        } else {
          y[0] = 4
        }
      }
    }
    ");
}

/// Random index expressions keep their value for all values of their variables.
#[test]
fn random_expressions_keep_their_values() {
    use crate::evaluate::evaluate;
    let mut state = 0x1234_5678_9abc_def1u64;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    fn build(below: &mut dyn FnMut(u64) -> u64, leaves: &[Expr], depth: u32) -> Expr {
        if depth == 0 || below(6) == 0 {
            let constant = c(below(20) as i64 - 4);
            let leaf = below(leaves.len() as u64 + 2) as usize;
            return leaves.get(leaf).cloned().unwrap_or(constant);
        }
        let a = build(below, leaves, depth - 1);
        let b = build(below, leaves, depth - 1);
        let positive = c([1, 2, 3, 4, 6, 8, 16][below(7) as usize]);
        match below(10) {
            0 | 1 => a.plus(b),
            2 => a.minus(b),
            3 => a.times(positive),
            4 => a.times(positive).plus(b),
            5 => a.at_most(b),
            6 => a.at_least(b),
            7 => Expr::call(Function::Div, vec![a, positive]),
            8 => Expr::call(Function::Rem, vec![a, positive]),
            _ => a.clone().less(b.clone()).choose(b, Expr::call(Function::Mod, vec![a, positive])),
        }
    }
    for round in 0..600 {
        let (mut kernel, [i, j, k]) = setting();
        let y = kernel.argument("y", DType::I64, c(4096), crate::ir::Access::ReadWrite);
        let leaves = [i.into(), j.into(), k.into(), n(), m()];
        let extents = [n(), m(), c(1 + below(5) as i64)];
        let value = build(&mut below, &leaves, 4);
        let condition = build(&mut below, &leaves, 2).less(build(&mut below, &leaves, 2));
        // A running hash of all values in order.
        let old = Expr::load(y, c(0)).times(c(31));
        let store = |value: Expr| Stmt::Store { buffer: y, index: c(0), value, valid: None };
        let hash = store(Expr::call(Function::Add, vec![old.clone(), value.clone()]));
        let other = store(Expr::call(Function::Add, vec![old, value.times(c(3))]));
        let choice = Stmt::If { condition, then: vec![hash], otherwise: vec![other] };
        let nest = [i, j, k].iter().zip(extents).rev().fold(vec![choice], |body, (var, extent)| {
            vec![Stmt::For { var: *var, extent, kind: LoopKind::Serial, body }]
        });
        kernel.body = nest;
        let mut simple = kernel.clone();
        simplify(&mut simple);
        for dims in [[0, 3], [1, 1], [3, 2], [5, 17]] {
            let run = |kernel: &Kernel| {
                let mut bytes = vec![0; 8 * 4096];
                evaluate(kernel, &mut [&mut bytes], &dims, 0, 1).unwrap();
                bytes
            };
            assert!(run(&kernel) == run(&simple), "round {round} {dims:?}\n{kernel}\n{simple}");
        }
    }
}
