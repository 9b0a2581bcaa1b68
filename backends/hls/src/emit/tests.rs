//! Golden text of kernels.

use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};
use tcc_ir::types::TensorType;
use tcc_kernel::Kernel;
use tcc_kernel::fixed::Fixed;
use tcc_kernel::ir::{Expr, LoopKind, Stmt};
use tcc_kernel::lower::lower;

use super::emit;
use crate::numbers::Types;
use crate::schedule::{Scheduled, schedule, tuning};

fn tensor(dtype: DType, shape: &[i64]) -> TensorType {
    TensorType::new(dtype, shape.iter().map(|dim| (*dim).into()).collect())
}

/// `max(x * w + b, 0)` of one row of 64 and 8 columns.
fn dense(types: impl Fn(&Kernel) -> Types) -> (Scheduled, Types) {
    let mut epilogue = ScalarExpr::with_inputs(2);
    let sum = epilogue.apply(Function::Add, &[Arg::Input(0), Arg::Input(1)]);
    epilogue.result = epilogue.apply(Function::Max, &[sum, Arg::Const(Scalar::float(DType::F32, 0.0))]);
    let operator = Operator::Contract { spec: ContractionSpec::matmul(0), accumulator: DType::F32, epilogue };
    let operands = [[1, 64].as_slice(), &[64, 8], &[8]].map(|shape| tensor(DType::F32, shape));
    let results = [tensor(DType::F32, &[1, 8])];
    let lowered = lower(&operator, &operands, &results, &[false, true, true], "dense", &tuning()).unwrap();
    let [launch] = &lowered.launches[..] else { panic!("one kernel") };
    let types = types(&launch.kernel);
    (schedule(&launch.kernel, &types, 1).unwrap(), types)
}

fn fixed(kernel: &Kernel) -> Types {
    Types::uniform(kernel, Fixed { width: 16, integer: 6 })
}

fn floating(_: &Kernel) -> Types {
    Types::default()
}

#[test]
fn a_dense_layer_in_fixed_point() {
    let (scheduled, types) = dense(fixed);
    let emitted = emit(&scheduled.kernel, "dense", &types, &scheduled.partitions, &[]).unwrap();
    insta::assert_snapshot!(emitted.text, @"
    void dense(const fixed_16_6 x0[64], const fixed_16_6 p0[512], const fixed_16_6 x2[8], fixed_16_6 y0[8]) {
      fixed_40_20 sum[4];
    #pragma HLS ARRAY_PARTITION variable=sum type=complete dim=1
      for (int task = 0; task < 2; ++task) {
        for (int lane_i = 0; lane_i < 4; ++lane_i) {
    #pragma HLS UNROLL
          sum[lane_i] = fixed_40_20(0.0);
        }
        for (int k = 0; k < 64; ++k) {
    #pragma HLS PIPELINE II=1
          for (int lane_i = 0; lane_i < 4; ++lane_i) {
    #pragma HLS UNROLL
            sum[lane_i] = sum[lane_i] + x0[k] * p0[task * 256 + k * 4 + lane_i];
          }
        }
        for (int lane_i = 0; lane_i < 4; ++lane_i) {
    #pragma HLS UNROLL
          fixed_40_20 e0 = sum[lane_i] + x2[task * 4 + lane_i];
          fixed_40_20 e1 = larger<fixed_40_20>(e0, fixed_40_20(0.0));
          y0[task * 4 + lane_i] = e1;
        }
      }
    }
    ");
}

#[test]
fn sums_of_floats_wait_for_their_adder_and_fixed_point_does_not() {
    let float = dense(floating).0.estimate;
    let fixed = dense(fixed).0.estimate;
    assert_eq!((float.interval, fixed.interval), (4, 1));
    // Two tiles of four columns, 64 products each.
    assert!((4 * 2 * 63..4 * 2 * 63 + 200).contains(&float.cycles), "{float:?}");
    assert!((2 * 63..2 * 63 + 100).contains(&fixed.cycles), "{fixed:?}");
    assert!(fixed.resources.dsp >= 4 && fixed.resources.dsp < float.resources.dsp, "{fixed:?} {float:?}");
}

#[test]
fn gpu_loops_and_run_time_dimensions_are_refused_by_name() {
    let mut kernel = dense(floating).0.kernel;
    if let Some(Stmt::For { kind, .. }) = kernel.body.first_mut() {
        *kind = LoopKind::Grid(0);
    }
    let error = emit(&kernel, "f", &Types::default(), &[], &[]).unwrap_err().to_string();
    assert!(error.contains("loop over GPU threads"), "{error}");
    kernel.dims.push("n".into());
    kernel.buffers[0].count = Expr::Dim(0);
    let error = emit(&kernel, "f", &Types::default(), &[], &[]).unwrap_err().to_string();
    assert!(error.contains("--dim n=N"), "{error}");
}
