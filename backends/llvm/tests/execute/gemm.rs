//! A matrix multiplication micro-kernel: the shape of code that all of the contraction kernels come down to.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Stmt, Ty, Var};
use tcc_llvm::{Jit, Options, Target, Text, compile, emit_text};

use super::{Numbers, address, lanes, run_object, serial, store};

/// `c[tile] = a[tile] * b` for packed panels: `a` is `tiles x depth x rows`, `b` is `depth x columns * width`, `c` is
/// `tiles x rows x columns * width`. The depth is a run-time dimension and tiles are the parallel domain.
fn micro_kernel(rows: usize, columns: usize, width: u16) -> Kernel {
    let mut kernel = Kernel::new("micro");
    kernel.dims = vec!["depth".to_owned(), "tiles".to_owned()];
    let (depth, tiles) = (Expr::Dim(0), Expr::Dim(1));
    let panel = Expr::index(columns as i64 * i64::from(width));
    let rows_index = Expr::index(rows as i64);
    let count = |x: &Expr, y: &Expr| x.clone().times(y.clone());
    let a = kernel.argument("a", DType::F32, count(&tiles, &depth).times(rows_index.clone()), Access::Read);
    let b = kernel.argument("b", DType::F32, count(&depth, &panel), Access::Read);
    let c = kernel.argument("c", DType::F32, count(&tiles, &panel).times(rows_index.clone()), Access::Write);
    let tile = kernel.counter("tile");
    let k = kernel.counter("k");
    let vector = Ty::vector(DType::F32, width);
    let mut grid: Vec<Vec<Var>> = Vec::new();
    for i in 0..rows {
        grid.push((0..columns).map(|j| kernel.variable(&format!("c{i}{j}"), vector)).collect());
    }
    let line: Vec<Var> = (0..columns).map(|j| kernel.variable(&format!("b{j}"), vector)).collect();
    let column_offset = |j: usize| Expr::index(j as i64 * i64::from(width));

    let mut inner = Vec::new();
    for (j, var) in line.iter().enumerate() {
        let at = Expr::from(k).times(panel.clone()).plus(column_offset(j));
        inner.push(Stmt::Assign { var: *var, value: lanes(b, at, width) });
    }
    for (i, row) in grid.iter().enumerate() {
        let at = Expr::from(tile)
            .times(depth.clone())
            .plus(Expr::from(k))
            .times(rows_index.clone())
            .plus(Expr::index(i as i64));
        let scale = Expr::Splat(Box::new(Expr::load(a, at)), width);
        for (sum, b) in row.iter().zip(&line) {
            let value =
                Expr::Fma(Box::new(scale.clone()), Box::new(Expr::Var(*b)), Box::new(Expr::Var(*sum)));
            inner.push(Stmt::Assign { var: *sum, value });
        }
    }

    let mut body = Vec::new();
    for sum in grid.iter().flatten() {
        let zero = Expr::Splat(Box::new(Expr::constant(DType::F32, 0.0)), width);
        body.push(Stmt::Assign { var: *sum, value: zero });
    }
    body.push(serial(k, depth, inner));
    for (i, row) in grid.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            let at = Expr::from(tile)
                .times(rows_index.clone())
                .plus(Expr::index(i as i64))
                .times(panel.clone())
                .plus(column_offset(j));
            body.push(store(c, at, Expr::Var(*sum)));
        }
    }
    kernel.body = vec![Stmt::For { var: tile, extent: tiles, kind: LoopKind::Parallel, body }];
    kernel
}

#[test]
fn slices_of_the_tiles_add_up_to_the_product() {
    let target = Target::host().unwrap();
    let width = (target.vector_bytes() / 4) as u16;
    let (rows, columns, depth, tiles) = (6usize, 2usize, 37usize, 5usize);
    let panel = columns * usize::from(width);
    let object = compile(&[micro_kernel(rows, columns, width)], &target, Options::default()).unwrap();
    let jit = Jit::load(&object).unwrap();
    let mut numbers = Numbers(7);
    let mut a = numbers.floats(tiles * depth * rows);
    let mut b = numbers.floats(depth * panel);
    let mut c = vec![f32::NAN; tiles * rows * panel];
    for (begin, end) in [(3, 5), (0, 2), (2, 2), (2, 3)] {
        let buffers = [address(&mut a), address(&mut b), address(&mut c)];
        run_object(&jit, "micro", &buffers, &[depth as i64, tiles as i64], begin, end);
    }
    for tile in 0..tiles {
        for i in 0..rows {
            for j in 0..panel {
                let expected = (0..depth)
                    .fold(0f32, |sum, k| a[(tile * depth + k) * rows + i].mul_add(b[k * panel + j], sum));
                assert_eq!(c[(tile * rows + i) * panel + j], expected, "tile {tile}, row {i}, column {j}");
            }
        }
    }
}

#[test]
fn accumulators_stay_in_registers() {
    for (name, rows, columns, width, fused) in [
        ("x86-64-v4", 12, 2, 16, "vfmadd231ps"),
        ("x86-64-v4", 8, 3, 16, "vfmadd231ps"),
        ("x86-64-v3", 6, 2, 8, "vfmadd231ps"),
        ("aarch64", 8, 2, 4, "fmla"),
    ] {
        let target = Target::named(name).unwrap();
        let kernel = micro_kernel(rows, columns, width);
        let text = emit_text(&[kernel], Text::Assembly, &target, Options::default()).unwrap();
        let multiplies = text.lines().filter(|line| line.contains(fused)).count();
        assert_eq!(multiplies, rows * columns, "{name}:\n{text}");
        let spill = |line: &&str| line.contains("(%rsp)") && line.contains("mm");
        let spills = text.lines().filter(spill).count();
        assert_eq!(spills, 0, "{name} spills:\n{text}");
        assert!(!text.contains("call"), "{name} calls a library:\n{text}");
        if name == "x86-64-v4" {
            assert!(text.contains("%zmm23"), "{name} does not keep 24 accumulators:\n{text}");
        }
    }
}
