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

/// Reads `y[lane] = x[lane * stride]` and writes `z[lane * stride] = x[lane * stride]`, from the end for negative strides.
fn strided(dtype: DType, stride: i64, width: u16) -> Kernel {
    let span = stride.abs() * (i64::from(width) - 1) + 1;
    let mut kernel = Kernel::new("strided");
    let x = argument(&mut kernel, dtype, span, Access::Read);
    let y = argument(&mut kernel, dtype, i64::from(width), Access::Write);
    let z = argument(&mut kernel, dtype, span, Access::Write);
    let base = Box::new(Expr::index(if stride < 0 { span - 1 } else { 0 }));
    let index = Expr::Ramp { base, stride, lanes: width };
    let value = Expr::Load { buffer: x, index: Box::new(index.clone()), lanes: width, valid: None };
    kernel.body = vec![store(y, Expr::index(0), value.clone()), store(z, index, value)];
    kernel
}

#[test]
fn ramps_of_any_stride() {
    let targets = ["host", "x86-64-v1"].map(|name| Target::named(name).unwrap());
    for target in targets.iter().filter(|target| target.is_native()) {
        for width in [2u16, 4, 8, 16] {
            let kernels: Vec<Kernel> = (-6..=6)
                .flat_map(|stride| [(DType::U8, stride), (DType::F32, stride), (DType::Bool, stride)])
                .map(|(dtype, stride)| {
                    let mut kernel = strided(dtype, stride, width);
                    kernel.name = format!("{dtype}_{}", stride + 10);
                    kernel
                })
                .collect();
            let jit = Jit::load(&compile(&kernels, target, Options::default()).unwrap()).unwrap();
            for stride in -6i64..=6 {
                let span = (stride.abs() * (i64::from(width) - 1) + 1) as usize;
                let at = |lane: usize| {
                    let offset = lane as i64 * stride;
                    (if stride < 0 { span as i64 - 1 + offset } else { offset }) as usize
                };
                let mut x: Vec<f32> = (0..span).map(|i| i as f32 + 1.0).collect();
                let (mut y, mut z) = (vec![0f32; usize::from(width)], vec![0f32; span]);
                let buffers = [address(&mut x), address(&mut y), address(&mut z)];
                run_object(&jit, &format!("f32_{}", stride + 10), &buffers, &[], 0, 1);
                let mut bytes: Vec<u8> = (0..span).map(|i| (i % 3 != 0) as u8).collect();
                for dtype in [DType::U8, DType::Bool] {
                    let (mut read, mut written) = (vec![9u8; usize::from(width)], vec![9u8; span]);
                    let buffers = [address(&mut bytes), address(&mut read), address(&mut written)];
                    run_object(&jit, &format!("{dtype}_{}", stride + 10), &buffers, &[], 0, 1);
                    for (lane, value) in read.iter().enumerate() {
                        assert_eq!(
                            [*value, written[at(lane)]],
                            [bytes[at(lane)]; 2],
                            "{dtype}, stride {stride}"
                        );
                    }
                }
                let mut expected = vec![0f32; span];
                for (lane, value) in y.iter().enumerate() {
                    assert_eq!(*value, x[at(lane)], "stride {stride}, {width} lanes");
                    expected[at(lane)] = x[at(lane)];
                }
                assert_eq!(z, expected, "stride {stride}, {width} lanes");
            }
        }
    }
}

/// A strided load reads nothing behind its last lane.
#[cfg(target_os = "linux")]
#[test]
fn strided_loads_end_at_their_last_lane() {
    const PAGE: usize = 65536;
    for stride in 2..=4i64 {
        let width = 16u16;
        let span = (stride * (i64::from(width) - 1) + 1) as usize * 4;
        let kernel = strided(DType::F32, stride, width);
        let jit =
            Jit::load(&compile(&[kernel], &Target::host().unwrap(), Options::default()).unwrap()).unwrap();
        // SAFETY: a page between two inaccessible ones, unmapped at the end; the kernel writes to vectors of its own.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let pages = libc::mmap(std::ptr::null_mut(), 3 * PAGE, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            let page = pages.cast::<u8>().add(PAGE);
            assert_eq!(libc::mprotect(page.cast(), PAGE, access), 0);
            let (mut y, mut z) = (vec![1f32; 16], vec![1f32; 64]);
            for x in [page, page.add(PAGE - span)] {
                run_object(&jit, "strided", &[x, address(&mut y), address(&mut z)], &[], 0, 1);
            }
            libc::munmap(pages, 3 * PAGE);
        }
    }
}
