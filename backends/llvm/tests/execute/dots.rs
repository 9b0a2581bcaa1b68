//! The 8-bit dot product, for every combination of signs and every width of accumulator.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr};
use tcc_llvm::{Jit, Options, Target, Text, compile, emit_text};

use super::{Numbers, address, argument, lanes, run_object, store};

fn dot_kernel(a: DType, b: DType, width: u16) -> Kernel {
    let mut kernel = Kernel::new("dot");
    let acc = argument(&mut kernel, DType::I32, i64::from(width), Access::ReadWrite);
    let left = argument(&mut kernel, a, 4 * i64::from(width), Access::Read);
    let right = argument(&mut kernel, b, 4 * i64::from(width), Access::Read);
    let zero = Expr::index(0);
    let dot = Expr::Dot {
        acc: Box::new(lanes(acc, zero.clone(), width)),
        a: Box::new(lanes(left, zero.clone(), 4 * width)),
        b: Box::new(lanes(right, zero.clone(), 4 * width)),
    };
    kernel.body = vec![store(acc, zero, dot)];
    kernel
}

#[test]
fn all_signs_and_widths_are_exact() {
    let mut targets = vec![Target::host().unwrap()];
    if std::env::consts::ARCH == "x86_64" {
        // The path without an instruction for it, and the 256-bit one, where this machine has that.
        targets.push(Target::named("x86-64-v1").unwrap());
        if targets[0].has("avx2") {
            targets.push(Target::named("x86-64-v3").unwrap());
        }
        if targets[0].has("avxvnni") {
            targets.push(Target::named("x86-64-v3+avxvnni").unwrap());
        }
    }
    let mut numbers = Numbers(11);
    let value = |byte: u8, dtype| if dtype == DType::U8 { i32::from(byte) } else { i32::from(byte as i8) };
    for target in &targets {
        for (a, b) in
            [(DType::U8, DType::I8), (DType::I8, DType::U8), (DType::I8, DType::I8), (DType::U8, DType::U8)]
        {
            for width in [1u16, 2, 4, 8, 16] {
                let object = compile(&[dot_kernel(a, b, width)], target, Options::default()).unwrap();
                let jit = Jit::load(&object).unwrap();
                for round in 0..3 {
                    let count = usize::from(width) * 4;
                    // The first round has the extremes, where a saturating instruction would show.
                    let byte = |numbers: &mut Numbers| match round {
                        0 => [0x80u8, 0x7f, 0xff, 0][(numbers.next() % 4) as usize],
                        _ => numbers.next() as u8,
                    };
                    let mut left: Vec<u8> = (0..count).map(|_| byte(&mut numbers)).collect();
                    let mut right: Vec<u8> = (0..count).map(|_| byte(&mut numbers)).collect();
                    let mut acc: Vec<i32> = (0..width).map(|_| numbers.next() as i32).collect();
                    let expected: Vec<i32> = acc
                        .iter()
                        .enumerate()
                        .map(|(i, start)| {
                            (4 * i..4 * i + 4).fold(*start, |sum, j| {
                                sum.wrapping_add(value(left[j], a) * value(right[j], b))
                            })
                        })
                        .collect();
                    let buffers = [address(&mut acc), address(&mut left), address(&mut right)];
                    run_object(&jit, "dot", &buffers, &[], 0, 1);
                    assert_eq!(acc, expected, "{a} by {b}, {width} lanes on {}", target.cpu());
                }
            }
        }
    }
}

#[test]
fn the_instruction_is_used_where_there_is_one() {
    for (target, a, b, width, instruction) in [
        ("x86-64-v4+avx512vnni", DType::U8, DType::I8, 16, "vpdpbusd"),
        ("x86-64-v4+avx512vnni", DType::I8, DType::I8, 16, "vpdpbusd"),
        ("x86-64-v3+avxvnni", DType::U8, DType::I8, 8, "vpdpbusd"),
        ("x86-64-v3+avxvnniint8", DType::I8, DType::I8, 8, "vpdpbssd"),
        ("x86-64-v3", DType::U8, DType::I8, 8, "vpmaddwd"),
        ("aarch64+dotprod", DType::I8, DType::I8, 4, "sdot"),
        ("aarch64+dotprod+i8mm", DType::U8, DType::I8, 4, "usdot"),
    ] {
        let target = Target::named(target).unwrap();
        let text =
            emit_text(&[dot_kernel(a, b, width)], Text::Assembly, &target, Options::default()).unwrap();
        assert!(text.contains(instruction), "{instruction} is missing:\n{text}");
    }
}
