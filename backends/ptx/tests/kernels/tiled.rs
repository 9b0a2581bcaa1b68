//! A matrix product scheduled by hand: tiles in shared memory, barriers between filling and using them.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::Function;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, LoopKind, Space, Stmt, Ty};
use tcc_ptx::{Target, module, sim};

use crate::execute::{Random, simulate};

/// Elements along each side of a tile.
pub const TILE: i64 = 16;

/// What is left out or wrong in a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    None,
    /// No barrier between filling the tiles and using them.
    FirstBarrier,
    /// No barrier between using the tiles and filling them again.
    SecondBarrier,
    /// Results are written for one row too many.
    OffByOne,
}

/// `c[n, m] = a[n, k] * b[k, m]`; sizes are multiples of nothing.
pub fn matmul(defect: Defect) -> Kernel {
    let mut kernel = Kernel::new("tiled_matmul");
    kernel.dims = ["n", "k", "m"].map(String::from).to_vec();
    let (n, k, m) = (Expr::Dim(0), Expr::Dim(1), Expr::Dim(2));
    let tile = Expr::index(TILE);
    let a = kernel.argument("a", DType::F32, n.clone().times(k.clone()), Access::Read);
    let b = kernel.argument("b", DType::F32, k.clone().times(m.clone()), Access::Read);
    let c = kernel.argument("c", DType::F32, n.clone().times(m.clone()), Access::Write);
    let mut shared =
        |name| kernel.buffer(name, DType::F32, Space::Shared, Expr::index(TILE * TILE), Access::ReadWrite);
    let (a_tile, b_tile) = (shared("a_tile"), shared("b_tile"));
    let [block_x, block_y, x, y, t, l] =
        ["block_x", "block_y", "x", "y", "t", "l"].map(|name| kernel.counter(name));
    let [row, column, depth_a, depth_b] =
        ["row", "column", "depth_a", "depth_b"].map(|name| kernel.counter(name));
    let sum = kernel.variable("sum", Ty::scalar(DType::F32));
    let value = kernel.variable("value", Ty::scalar(DType::F32));
    let var = |v| Expr::Var(v);
    let zero = || Expr::constant(DType::F32, 0.0);
    let place = var(y).times(tile.clone()).plus(var(x));
    // An element of a matrix, or zero outside of it.
    let fill = |from, to, inside: Expr, index: Expr| {
        vec![
            Stmt::Assign { var: value, value: zero() },
            Stmt::If {
                condition: inside,
                then: vec![Stmt::Assign { var: value, value: Expr::load(from, index) }],
                otherwise: Vec::new(),
            },
            Stmt::Store { buffer: to, index: place.clone(), value: value.into(), valid: None },
        ]
    };
    let mut step = vec![
        Stmt::Assign { var: depth_a, value: var(t).times(tile.clone()).plus(var(x)) },
        Stmt::Assign { var: depth_b, value: var(t).times(tile.clone()).plus(var(y)) },
    ];
    let inside = var(row).less(n.clone()).both(var(depth_a).less(k.clone()));
    step.extend(fill(a, a_tile, inside, var(row).times(k.clone()).plus(var(depth_a))));
    let inside = var(depth_b).less(k.clone()).both(var(column).less(m.clone()));
    step.extend(fill(b, b_tile, inside, var(depth_b).times(m.clone()).plus(var(column))));
    if defect != Defect::FirstBarrier {
        step.push(Stmt::Barrier);
    }
    let product = Expr::Fma(
        Box::new(Expr::load(a_tile, var(y).times(tile.clone()).plus(var(l)))),
        Box::new(Expr::load(b_tile, var(l).times(tile.clone()).plus(var(x)))),
        Box::new(sum.into()),
    );
    step.push(Stmt::For {
        var: l,
        extent: tile.clone(),
        kind: LoopKind::Serial,
        body: vec![Stmt::Assign { var: sum, value: product }],
    });
    if defect != Defect::SecondBarrier {
        step.push(Stmt::Barrier);
    }
    let rows = if defect == Defect::OffByOne { n.clone().plus(Expr::index(1)) } else { n.clone() };
    let threads = vec![
        Stmt::Assign { var: row, value: var(block_y).times(tile.clone()).plus(var(y)) },
        Stmt::Assign { var: column, value: var(block_x).times(tile.clone()).plus(var(x)) },
        Stmt::Assign { var: sum, value: zero() },
        Stmt::For { var: t, extent: k.over_up(tile.clone()), kind: LoopKind::Serial, body: step },
        Stmt::If {
            condition: var(row).less(rows).both(var(column).less(m.clone())),
            then: vec![Stmt::Store {
                buffer: c,
                index: var(row).times(m.clone()).plus(var(column)),
                value: sum.into(),
                valid: None,
            }],
            otherwise: Vec::new(),
        },
    ];
    let nest = |var, extent, kind, body| vec![Stmt::For { var, extent, kind, body }];
    let threads = nest(x, tile.clone(), LoopKind::Thread(0), threads);
    let threads = nest(y, tile.clone(), LoopKind::Thread(1), threads);
    let blocks = nest(block_x, m.over_up(tile.clone()), LoopKind::Grid(0), threads);
    kernel.body = nest(block_y, n.over_up(tile), LoopKind::Grid(1), blocks);
    kernel
}

/// Runs the product in the simulator; the result is that of a loop over `k` with fused multiply-adds.
pub fn product(defect: Defect, sizes: [i64; 3], seed: u64) -> Result<(Vec<f32>, sim::Counts), sim::SimError> {
    let [n, k, m] = sizes;
    let ptx = module(&[matmul(defect)], &Target::named("sm_80").unwrap()).unwrap();
    let parsed = sim::parse(&ptx.text).unwrap();
    let (a, b) = operands(sizes, seed);
    let bytes = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let mut buffers = vec![bytes(&a), bytes(&b), vec![0xa5; (4 * n * m) as usize]];
    let dim = |name: &str| {
        Some(match name {
            "n" => n,
            "k" => k,
            _ => m,
        })
    };
    let counts = simulate(&parsed, &ptx.launch[0], &mut buffers, &dim, seed)?;
    let words = buffers[2].chunks(4);
    Ok((words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect(), counts))
}

fn operands([n, k, m]: [i64; 3], seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(seed + 3);
    let mut numbers = |count: i64| (0..count).map(|_| (random.next() % 1999) as f32 / 999.0 - 1.0).collect();
    (numbers(n * k), numbers(k * m))
}

#[test]
fn tiles_give_the_product() {
    for (seed, sizes) in [[0, 5, 3], [1, 1, 1], [5, 0, 3], [17, 31, 19], [33, 16, 47]].into_iter().enumerate()
    {
        let [n, k, m] = sizes;
        let (found, _) = product(Defect::None, sizes, seed as u64).unwrap_or_else(|error| panic!("{error}"));
        let (a, b) = operands(sizes, seed as u64);
        for row in 0..n {
            for column in 0..m {
                let expected = (0..k).fold(0.0f32, |sum, depth| {
                    a[(row * k + depth) as usize].mul_add(b[(depth * m + column) as usize], sum)
                });
                assert_eq!(found[(row * m + column) as usize], expected, "{sizes:?} {row} {column}");
            }
        }
    }
}

#[test]
fn tiles_are_read_without_bank_conflicts_and_in_whole_sectors() {
    let (_, counts) = product(Defect::None, [32, 32, 32], 1).unwrap();
    assert_eq!(counts.bank_conflicts, 0);
    // A warp covers two rows of a tile: four sectors of 32 bytes.
    assert_eq!(counts.global_sectors, 4 * counts.global_requests);
    assert!(counts.barriers > 0 && counts.fma > 0);
}

#[test]
fn function_names_of_sizes_round_trip_as_json() {
    let ptx = module(&[matmul(Defect::None)], &Target::named("sm_90a").unwrap()).unwrap();
    let json = ptx.launch_json().unwrap();
    let back: Vec<tcc_ptx::launch::LaunchDescription> = serde_json::from_str(&json).unwrap();
    assert_eq!(back, ptx.launch);
    assert!(json.contains(Function::Div.text()), "{json}");
}
