//! Partial vectors, gathers, scatters and strided accesses. Buffers end where the kernel may not read on.

use tcc_ir::dtype::DType;
use tcc_kernel::Kernel;
use tcc_kernel::ir::{Access, Expr, Stmt};
use tcc_llvm::{Jit, Options, Target, compile};

use super::{Element, address, argument, lanes, run, run_object, store};

/// Copies `valid` leading lanes and stores a whole vector, then stores `valid` lanes of another.
fn partial_copy(dtype: DType, width: u16) -> Kernel {
    let mut kernel = Kernel::new("partial");
    kernel.dims = vec!["valid".to_owned()];
    let x = kernel.argument("x", dtype, Expr::Dim(0), Access::Read);
    let whole = argument(&mut kernel, dtype, i64::from(width), Access::Write);
    let part = argument(&mut kernel, dtype, i64::from(width), Access::Write);
    let value = super::partial(x, Expr::index(0), width, Expr::Dim(0));
    kernel.body = vec![
        store(whole, Expr::index(0), value.clone()),
        Stmt::Store { buffer: part, index: Expr::index(0), value, valid: Some(Expr::Dim(0)) },
    ];
    kernel
}

fn check_partial<T: Element + Default + PartialEq + std::fmt::Debug>(
    dtype: DType,
    make: fn(usize) -> T,
    mark: T,
) {
    for width in [1u16, 2, 4, 8, 16, 32] {
        let object =
            compile(&[partial_copy(dtype, width)], &Target::host().unwrap(), Options::default()).unwrap();
        let jit = Jit::load(&object).unwrap();
        for valid in -1..=i64::from(width) + 2 {
            let kept = valid.clamp(0, i64::from(width)) as usize;
            let mut x: Vec<T> = (0..usize::from(width)).map(make).collect();
            let mut whole = vec![mark; usize::from(width)];
            let mut part = whole.clone();
            let buffers = [address(&mut x), address(&mut whole), address(&mut part)];
            run_object(&jit, "partial", &buffers, &[valid], 0, 1);
            for lane in 0..usize::from(width) {
                let inside = lane < kept;
                assert_eq!(
                    whole[lane],
                    if inside { x[lane] } else { T::default() },
                    "{dtype}, {valid} of {width}"
                );
                assert_eq!(part[lane], if inside { x[lane] } else { mark }, "{dtype}, {valid} of {width}");
            }
        }
    }
}

#[test]
fn partial_vectors_of_every_element_width() {
    check_partial::<f32>(DType::F32, |i| i as f32 + 0.5, -1.0);
    check_partial::<f64>(DType::F64, |i| i as f64 - 0.5, -1.0);
    check_partial::<u8>(DType::U8, |i| i as u8 + 1, 99);
    check_partial::<u16>(DType::F16, |i| i as u16 + 1, 9999);
    check_partial::<i64>(DType::I64, |i| i as i64 + 1, -1);
    check_partial::<u8>(DType::Bool, |i| u8::from(i % 3 != 0), 1);
}

/// A load may not touch memory behind its valid lanes: the page there does not exist.
#[cfg(target_os = "linux")]
#[test]
fn lanes_that_are_not_valid_are_not_read() {
    const PAGE: usize = 65536;
    for (dtype, size) in [(DType::U8, 1usize), (DType::F16, 2), (DType::F32, 4), (DType::F64, 8)] {
        let width = 16u16;
        let object =
            compile(&[partial_copy(dtype, width)], &Target::host().unwrap(), Options::default()).unwrap();
        let jit = Jit::load(&object).unwrap();
        // SAFETY: two fresh pages, of which the second is made inaccessible; both are unmapped at the end, and the kernel
        // writes to vectors of its own.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let pages = libc::mmap(std::ptr::null_mut(), 2 * PAGE, access, flags, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            let pages = pages.cast::<u8>();
            assert_eq!(libc::mprotect(pages.add(PAGE).cast(), PAGE, libc::PROT_NONE), 0);
            for valid in 0..usize::from(width) {
                let x = pages.add(PAGE - valid * size);
                std::slice::from_raw_parts_mut(x, valid * size).fill(1);
                let mut whole = vec![9u8; 16 * size];
                let mut part = vec![9u8; 16 * size];
                let buffers = [x, address(&mut whole), address(&mut part)];
                run_object(&jit, "partial", &buffers, &[valid as i64], 0, 1);
                assert!(whole[..valid * size].iter().all(|byte| *byte == 1));
                assert!(whole[valid * size..].iter().all(|byte| *byte == 0));
            }
            libc::munmap(pages.cast(), 2 * PAGE);
        }
    }
}

#[test]
fn vectors_of_indices_gather_and_scatter() {
    for width in [2u16, 8, 16] {
        let count = i64::from(width);
        let mut kernel = Kernel::new("gather");
        kernel.dims = vec!["valid".to_owned()];
        let x = argument(&mut kernel, DType::F32, 4 * count, Access::Read);
        let at = argument(&mut kernel, DType::I64, count, Access::Read);
        let gathered = argument(&mut kernel, DType::F32, count, Access::Write);
        let scattered = argument(&mut kernel, DType::F32, 4 * count, Access::Write);
        let indices = lanes(at, Expr::index(0), width);
        let value = Expr::Load {
            buffer: x,
            index: Box::new(indices.clone()),
            lanes: width,
            valid: Some(Box::new(Expr::Dim(0))),
        };
        kernel.body = vec![
            store(gathered, Expr::index(0), value.clone()),
            Stmt::Store { buffer: scattered, index: indices, value, valid: Some(Expr::Dim(0)) },
        ];
        let mut source: Vec<f32> = (0..4 * count).map(|i| i as f32).collect();
        let mut indices: Vec<i64> = (0..count).map(|i| (i * 7 + 3) % (4 * count)).collect();
        let valid = count as usize - 1;
        let mut dense = vec![5f32; count as usize];
        let mut sparse = vec![-1f32; 4 * count as usize];
        let buffers =
            [address(&mut source), address(&mut indices), address(&mut dense), address(&mut sparse)];
        run(&kernel, &buffers, &[valid as i64]);
        for lane in 0..count as usize {
            let index = indices[lane] as usize;
            assert_eq!(dense[lane], if lane < valid { source[index] } else { 0.0 });
            assert_eq!(sparse[index], if lane < valid { source[index] } else { -1.0 });
        }
    }
}

#[test]
fn ramps_of_any_stride() {
    for stride in [-2i64, 0, 1, 3] {
        let mut kernel = Kernel::new("stride");
        let x = argument(&mut kernel, DType::U8, 64, Access::Read);
        let y = argument(&mut kernel, DType::U8, 8, Access::Write);
        let index = Expr::Ramp { base: Box::new(Expr::index(20)), stride, lanes: 8 };
        let value = Expr::Load { buffer: x, index: Box::new(index), lanes: 8, valid: None };
        kernel.body = vec![store(y, Expr::index(0), value)];
        let mut source: Vec<u8> = (0..64).collect();
        let mut result = [0u8; 8];
        run(&kernel, &[address(&mut source), address(&mut result)], &[]);
        let expected: Vec<u8> = (0..8).map(|lane| (20 + stride * lane) as u8).collect();
        assert_eq!(result[..], expected, "stride {stride}");
    }
}
