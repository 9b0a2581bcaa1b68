//! Lowered operators give the bits of the kernel interpreter, over shapes and interleavings.

use tcc_ir::data::Data;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Scalar, ScalarOp};
use tcc_ir::types::TensorType;
use tcc_kernel::fold;
use tcc_kernel::lower::{Argument, Lowered, Tuning};
use tcc_ptx::schedule::{prepare, tuning};
use tcc_ptx::{Target, module, sim};

use crate::cases::{Case, deep, matrices, operators, vectors};
use crate::execute::{Random, assert_close, assert_same, interpret, simulate};

/// The dimensions `n`, `k` and `m`.
type Sizes = [i64; 3];

/// The value of a dimension expression.
fn size_of(text: &str, sizes: Sizes) -> Option<i64> {
    let symbol = |name: &str| ["n", "k", "m"].iter().position(|known| *known == name).map(|at| sizes[at]);
    tcc_ir::parse::dim(text).ok()?.evaluate(&|name| symbol(&name.to_string())).ok()
}

fn count(ty: &TensorType, sizes: Sizes) -> usize {
    let size = |dim: &tcc_ir::dim::Dim| dim.evaluate(&|symbol| size_of(&symbol.to_string(), sizes)).unwrap();
    ty.shape.iter().map(size).product::<i64>() as usize
}

/// Small numbers that fit every type.
fn filled(dtype: DType, count: usize, random: &mut Random) -> Vec<u8> {
    let size = dtype.size();
    (0..count)
        .flat_map(|_| {
            let number = Scalar::float(DType::F64, (random.next() % 23) as f64 / 4.0 - 2.0);
            let value = fold::apply(ScalarOp::Cast(dtype), &[number]).unwrap();
            fold::to_bits(value).to_le_bytes().into_iter().take(size).collect::<Vec<u8>>()
        })
        .collect()
}

/// Runs the kernels of a lowering one after the other; `run` gets the number of a kernel and its buffers.
fn pipeline(
    case: &Case,
    lowered: &Lowered,
    sizes: Sizes,
    operands: &[Vec<u8>],
    run: &mut dyn FnMut(usize, &mut [Vec<u8>]),
) -> Vec<u8> {
    let bytes = |ty: &TensorType| vec![0xa5; ty.dtype().bytes_for(count(ty, sizes)).unwrap()];
    let mut temporaries: Vec<Vec<u8>> = lowered.temporaries.iter().map(bytes).collect();
    let mut result = bytes(&case.result);
    for (number, launch) in lowered.launches.iter().enumerate() {
        let place = |argument: &Argument| match argument {
            Argument::Operand(index) => operands[*index].clone(),
            Argument::Result(_) => result.clone(),
            Argument::Temporary(index) => temporaries[*index].clone(),
            Argument::Packed(index) => {
                let packing = &lowered.packings[*index];
                let shape: Vec<usize> =
                    packing.source.iter().map(|dim| dim.as_const().unwrap() as usize).collect();
                let dtype = case.operands[packing.operand].dtype();
                let data = Data::new(dtype, &shape, operands[packing.operand].clone().into()).unwrap();
                packing.layout.apply(&data).unwrap().bytes().to_vec()
            }
            Argument::Block(_) | Argument::View(..) => panic!("no operand is seen as another type"),
        };
        let mut buffers: Vec<Vec<u8>> = launch.arguments.iter().map(place).collect();
        run(number, &mut buffers);
        for (argument, bytes) in launch.arguments.iter().zip(buffers) {
            match argument {
                Argument::Result(_) => result = bytes,
                Argument::Temporary(index) => temporaries[*index] = bytes,
                _ => {}
            }
        }
    }
    result
}

/// The kernels for a GPU in the simulator against those for a processor in the kernel interpreter: sums run in one order.
fn check(case: &Case, target: &Target, sizes: Sizes, seed: u64) {
    let mut random = Random(seed + 1);
    let operands: Vec<Vec<u8>> =
        case.operands.iter().map(|ty| filled(ty.dtype(), count(ty, sizes), &mut random)).collect();
    let dim = |name: &str| size_of(name, sizes);
    let plain = case.lowered_with(&Tuning { gpu: None, ..tuning(target) });
    let expected = pipeline(case, &plain, sizes, &operands, &mut |number, buffers| {
        let mut kernel = plain.launches[number].kernel.clone();
        prepare(&mut kernel).unwrap();
        interpret(&kernel, buffers, &dim);
    });
    let lowered = case.lowered(target);
    let kernels: Vec<_> = lowered.launches.iter().map(|launch| launch.kernel.clone()).collect();
    let ptx = module(&kernels, target).unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let parsed = sim::parse(&ptx.text).unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, ptx.text));
    let found = pipeline(case, &lowered, sizes, &operands, &mut |number, buffers| {
        simulate(&parsed, &ptx.launch[number], buffers, &dim, seed)
            .unwrap_or_else(|error| panic!("{} {sizes:?}: {error}\n{}", case.name, ptx.text));
    });
    let what = format!("{} {sizes:?}", case.name);
    match case.operator {
        // Lanes of a warp, and blocks of keys, add up in another order: sums of at most 256 terms are off by 2^8 of 2^-24
        // of the largest.
        Operator::Softmax { .. } | Operator::Normalize { .. } | Operator::Attention { .. } => {
            assert_close(&what, 2f32.powi(-16), &expected, &found)
        }
        _ => assert_same(&what, case.result.dtype(), &expected, &found),
    }
}

#[test]
fn operators_match_the_interpreter() {
    let targets = ["sm_75", "sm_80"].map(|name| Target::named(name).unwrap());
    for case in operators() {
        for (seed, sizes) in
            [[0, 3, 2], [1, 1, 1], [3, 0, 5], [17, 13, 11], [131, 7, 2], [6, 203, 3]].into_iter().enumerate()
        {
            // Images are large already.
            let images = case.result.shape.len() == 4;
            let sizes = if images { [sizes[0].min(3), sizes[1], sizes[2]] } else { sizes };
            check(&case, &targets[seed % 2], sizes, seed as u64);
        }
    }
}

#[test]
fn few_rows_are_products_of_warps() {
    for (target, case) in
        ["sm_75", "sm_80"].iter().flat_map(|name| vectors().into_iter().map(move |case| (name, case)))
    {
        let target = Target::named(target).unwrap();
        let text = module(&[case.lowered(&target).launches[0].kernel.clone()], &target).unwrap().text;
        assert!(text.contains("shfl.sync"), "{}: {text}", case.name);
        for (seed, sizes) in [[1, 1, 3], [1, 1, 1], [1, 1, 0], [1, 1, 47]].into_iter().enumerate() {
            check(&case, &target, sizes, seed as u64);
        }
    }
}

#[test]
fn deep_products_are_cut_into_pieces() {
    let lowered = deep().lowered(&Target::named("sm_80").unwrap());
    assert_eq!((lowered.launches.len(), lowered.temporaries.len()), (2, 1));
    let pieces = lowered.temporaries[0].shape[0].as_const().unwrap();
    assert!(pieces > 1, "{pieces}");
}

#[test]
fn tensor_cores_give_the_bits_of_the_interpreter() {
    let target = Target::named("sm_80").unwrap();
    for case in matrices() {
        let text = module(&[case.lowered(&target).launches[0].kernel.clone()], &target).unwrap().text;
        assert!(text.contains("mma.sync") && text.contains("cp.async"), "{}: {text}", case.name);
        // Operands are small multiples of a quarter: sums are exact in whatever order.
        for (seed, sizes) in
            [[0, 1, 3], [1, 1, 1], [5, 1, 0], [33, 1, 47], [130, 1, 67]].into_iter().enumerate()
        {
            let images = case.result.shape.len() == 4;
            let sizes = if images { [sizes[0].min(3), sizes[1], sizes[2]] } else { sizes };
            check(&case, &target, sizes, seed as u64);
        }
    }
}
