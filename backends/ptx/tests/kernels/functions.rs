//! Scalar functions and conversions on any bits: NaN, infinities, subnormal numbers, extreme integers.

use tcc_ir::dtype::DType;
use tcc_ir::scalar::{Function, ScalarOp};
use tcc_ptx::schedule::prepare;
use tcc_ptx::{Target, module, sim};

use crate::cases::{Case, map};
use crate::execute::{Random, assert_same, interpret, simulate};

const ROWS: usize = 41;
const COUNT: usize = ROWS * 7;

const TYPES: [DType; 11] = [
    DType::F32,
    DType::F64,
    DType::F16,
    DType::I8,
    DType::I16,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::U16,
    DType::U32,
    DType::U64,
];

/// Random bits, numbers near zero, and the values at which conversions and divisions change.
fn any(dtype: DType, random: &mut Random) -> Vec<u8> {
    let width = dtype.bits() as u32;
    let top = 1u64 << (width - 1);
    let exponents = |dtype| -> Vec<u64> {
        [
            0.0,
            -0.0,
            1.0,
            -1.0,
            0.5,
            1.5,
            -2.5,
            127.5,
            255.9,
            65504.0,
            3e9,
            -3e9,
            2e19,
            f64::INFINITY,
            f64::NAN,
        ]
        .into_iter()
        .map(|value| tcc_kernel::fold::to_bits(tcc_kernel::fold::round(dtype, value)))
        .collect()
    };
    let special: Vec<u64> = if dtype.is_float() {
        exponents(dtype)
    } else {
        vec![0, 1, u64::MAX, top, top - 1, u64::from(width), u64::from(width) - 1]
    };
    (0..COUNT)
        .flat_map(|_| {
            let bits = match random.next() % 3 {
                0 => special[random.next() as usize % special.len()],
                1 if !dtype.is_float() => random.next() % 9,
                _ => random.next(),
            };
            let bits = match dtype {
                DType::Bool => bits & 1,
                // Signalling NaN are quiet after a trip through the interpreter.
                DType::F32 if f32::from_bits(bits as u32).is_nan() => bits | 1 << 22,
                DType::F64 if f64::from_bits(bits).is_nan() => bits | 1 << 51,
                _ => bits,
            };
            bits.to_le_bytes().into_iter().take(dtype.size()).collect::<Vec<u8>>()
        })
        .collect()
}

fn check(cases: &[Case], target: &str) {
    let target = Target::named(target).unwrap();
    let dim = |_: &str| Some(ROWS as i64);
    for (seed, case) in cases.iter().enumerate() {
        let lowered = case.lowered(&target);
        let [launch] = &lowered.launches[..] else { panic!("a map is one kernel") };
        let ptx = module(std::slice::from_ref(&launch.kernel), &target)
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let parsed = sim::parse(&ptx.text).unwrap_or_else(|error| panic!("{error}\n{}", ptx.text));
        let mut random = Random(seed as u64 + 77);
        let mut expected: Vec<Vec<u8>> =
            case.operands.iter().map(|ty| any(ty.dtype(), &mut random)).collect();
        expected.push(vec![0xa5; case.result.dtype().bytes_for(COUNT).unwrap()]);
        let mut found = expected.clone();
        let mut done = launch.kernel.clone();
        prepare(&mut done).unwrap();
        interpret(&done, &mut expected, &dim);
        simulate(&parsed, &ptx.launch[0], &mut found, &dim, seed as u64)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", case.name, ptx.text));
        let result = expected.len() - 1;
        assert_same(&case.name, case.result.dtype(), &expected[result], &found[result]);
    }
}

fn function(function: Function, dtype: DType) -> Option<Case> {
    let mut from = vec![dtype; function.arity()];
    if function == Function::Select {
        from[0] = DType::Bool;
    }
    let to = ScalarOp::Call(function).infer(&from).ok()?;
    let args: Vec<String> = (0..from.len()).map(|index| format!("a{index}")).collect();
    let body = format!("({}) t0 = {}({}); t0", from.len(), function.text(), args.join(", "));
    Some(map(&body, &from, to))
}

#[test]
fn functions_give_the_bits_of_the_interpreter() {
    let types = TYPES.iter().chain(&[DType::Bool]);
    let cases: Vec<Case> =
        types.flat_map(|dtype| Function::ALL.iter().filter_map(|name| function(*name, *dtype))).collect();
    assert!(cases.len() > 150);
    check(&cases, "sm_80");
    // The form of `max` and `min` for older generations.
    let extrema: Vec<Case> =
        [Function::Max, Function::Min].into_iter().filter_map(|name| function(name, DType::F32)).collect();
    check(&extrema, "sm_75");
}

fn conversions() -> Vec<Case> {
    let mut cases = Vec::new();
    for from in TYPES.iter().chain(&[DType::Bool, DType::BF16]) {
        for to in TYPES.iter().chain(&[DType::Bool, DType::BF16]) {
            for name in ["cast", "cast_alternate"] {
                cases.push(map(&format!("(1) t0 = {name}<{to}>(a0); t0"), &[*from], *to));
            }
            if from.bits() == to.bits() && from.bits() >= 32 {
                cases.push(map(&format!("(1) t0 = bitcast<{to}>(a0); t0"), &[*from], *to));
            }
        }
    }
    cases
}

#[test]
fn conversions_give_the_bits_of_the_interpreter() {
    check(&conversions(), "sm_80");
}

/// Kernels of functions on types of every register class and of plain conversions, for the assembler.
pub fn kernels() -> Vec<tcc_kernel::Kernel> {
    let types = [DType::F32, DType::F64, DType::U8, DType::I64, DType::Bool];
    let functions =
        types.iter().flat_map(|dtype| Function::ALL.iter().filter_map(|name| function(*name, *dtype)));
    let conversions = conversions().into_iter().filter(|case| !case.name.contains("alternate"));
    functions
        .chain(conversions)
        .flat_map(|case| case.lowered(&Target::named("sm_80").unwrap()).launches)
        .map(|launch| launch.kernel)
        .collect()
}
