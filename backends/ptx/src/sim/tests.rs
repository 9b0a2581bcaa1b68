use super::*;

const GRID: Grid = Grid { blocks: [1, 1, 1], threads: [64, 1, 1] };

/// A kernel of 64 threads over one pointer, with 256 bytes of shared memory.
fn kernel(body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(\n\t.param .u64 p\n)\n.maxntid 64, 1, 1\n{{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<8>;\n.reg .b64 %rd<8>;\n.reg .f32 %f<8>;\n.shared .align 16 .b8 s[256];\n\
         ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\ncvt.u64.u32 %rd2, %r1;\nmad.lo.s64 %rd3, %rd2, 4, %rd1;\n\
         mov.u64 %rd4, s;\nmad.lo.s64 %rd5, %rd2, 4, %rd4;\n{body}ret;\n}}\n"
    )
}

fn launch(text: &str, data: Vec<u8>, seed: u64) -> Result<(Vec<u8>, Counts), SimError> {
    let module = parse(text).unwrap();
    let mut memory = Memory::new();
    let bytes = data.len();
    let address = memory.allocate(data);
    let windows = [Window { address, bytes: bytes as u64, usage: Use::Write }];
    let (arguments, windows) = (&[address][..], &windows[..]);
    let launch = Launch { kernel: "k", grid: GRID, arguments, shared_bytes: 0, windows, seed };
    let counts = run(&module, &launch, &mut memory)?;
    Ok((memory.bytes(address, bytes).unwrap().to_vec(), counts))
}

fn result(body: &str, seed: u64) -> Result<Vec<u32>, Fault> {
    let data = (0..64u32).flat_map(|value| value.to_le_bytes()).collect();
    match launch(&kernel(body), data, seed) {
        Ok((bytes, _)) => {
            let words = bytes.chunks(4);
            Ok(words.map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
        }
        Err(SimError::Fault { fault, .. }) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

/// Each thread gives its value to the thread 32 numbers on.
fn exchange(barrier: &str) -> String {
    format!(
        "ld.global.u32 %r2, [%rd3];\nst.shared.u32 [%rd5], %r2;\n{barrier}xor.b32 %r3, %r1, 32;\n\
         cvt.u64.u32 %rd6, %r3;\nmad.lo.s64 %rd6, %rd6, 4, %rd4;\nld.shared.u32 %r4, [%rd6];\nst.global.u32 [%rd3], %r4;\n"
    )
}

#[test]
fn a_barrier_orders_warps() {
    for seed in 0..20 {
        let expected: Vec<u32> = (0..64).map(|value| value ^ 32).collect();
        assert_eq!(result(&exchange("bar.sync 0;\n"), seed), Ok(expected));
    }
}

#[test]
fn a_missing_barrier_is_reported_for_every_seed() {
    for seed in 0..20 {
        let fault = result(&exchange(""), seed).unwrap_err();
        assert!(matches!(fault, Fault::Race { .. } | Fault::Uninitialized { .. }), "{fault}");
    }
}

#[test]
fn reads_past_the_end_and_unaligned_ones_trap() {
    let fault = result("ld.global.u32 %r2, [%rd3+4];\n", 1).unwrap_err();
    assert!(matches!(fault, Fault::OutOfBounds { .. }), "{fault}");
    let fault = result("ld.global.u32 %r2, [%rd3+2];\n", 1).unwrap_err();
    assert!(matches!(fault, Fault::Misaligned { .. }), "{fault}");
    let fault = result("ld.shared.u32 %r2, [%rd5];\n", 1).unwrap_err();
    assert!(matches!(fault, Fault::Uninitialized { .. }), "{fault}");
}

#[test]
fn barriers_that_some_threads_miss_are_reported() {
    let inside_warp = "setp.lt.s32 %p1, %r1, 5;\n@%p1 bra done;\nbar.sync 0;\ndone:\n";
    assert!(matches!(result(inside_warp, 1), Err(Fault::DivergentBarrier { .. })));
    let whole_warp = "setp.lt.s32 %p1, %r1, 32;\n@%p1 bra done;\nbar.sync 0;\ndone:\n";
    assert_eq!(result(whole_warp, 1), Err(Fault::AbandonedBarrier { waiting: 32 }));
}

#[test]
fn diverged_threads_come_together() {
    // Each thread counts to its own number; the barrier after the loop needs all of them.
    let body = "mov.u32 %r2, 0;\nhead:\nsetp.ge.s32 %p1, %r2, %r1;\n@%p1 bra end;\nadd.s32 %r2, %r2, 1;\nbra head;\n\
                end:\nbar.sync 0;\nmul.lo.s32 %r2, %r2, 3;\nst.global.u32 [%rd3], %r2;\n";
    assert_eq!(result(body, 3), Ok((0..64).map(|value| value * 3).collect()));
}

#[test]
fn conversions_saturate_and_nan_depends_on_the_width() {
    use super::arithmetic::convert;
    use super::instruction::{Rounding, Type};
    let to = |ty, value: f32| convert(ty, Type::Float(32), Rounding::WholeZero, value.to_bits().into());
    assert_eq!(to(Type::Signed(32), 3e9), Some(i32::MAX as u64));
    assert_eq!(to(Type::Unsigned(32), -1.5), Some(0));
    assert_eq!(to(Type::Signed(32), f32::NAN), Some(0));
    assert_eq!(to(Type::Signed(64), f32::NAN), Some(1 << 63));
}

#[test]
fn accesses_are_counted_by_sector_and_bank() {
    let text = kernel("ld.global.u32 %r2, [%rd3];\nst.shared.u32 [%rd5], %r2;\n");
    let (_, counts) = launch(&text, vec![0; 256], 0).unwrap();
    assert_eq!((counts.global_requests, counts.global_sectors), (2, 8));
    assert_eq!((counts.shared_requests, counts.bank_conflicts), (2, 0));
}

#[test]
fn unknown_text_is_refused_by_line() {
    let error = parse(&kernel("frobnicate.f32 %f1, %f2;\n")).unwrap_err();
    assert_eq!((error.line, error.what.as_str()), (20, "unknown instruction 'frobnicate.f32'"));
    assert!(parse(&kernel("bra nowhere;\n")).is_err());
    assert!(parse(&kernel("add.s32 %r1, %r2, %r99;\n")).is_err());
}

#[test]
fn threads_may_write_one_value_but_not_two() {
    assert!(result("mov.u32 %r2, 7;\nst.global.u32 [%rd1], %r2;\n", 1).is_ok());
    let fault = result("st.global.u32 [%rd1], %r1;\n", 1).unwrap_err();
    assert!(matches!(fault, Fault::Race { what: "writes", other: "wrote", .. }), "{fault}");
}
