//! Golden text of kernels.

use tcc_ir::contraction::ContractionSpec;
use tcc_ir::dtype::DType;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::{Arg, Function, Scalar, ScalarExpr};
use tcc_ir::types::TensorType;
use tcc_kernel::ir::{Expr, LoopKind, Stmt};
use tcc_kernel::lower::lower;

use super::emit;
use crate::numbers::Numbers;
use crate::schedule::{Scheduled, schedule, tuning};

fn tensor(dtype: DType, shape: &[i64]) -> TensorType {
    TensorType::new(dtype, shape.iter().map(|dim| (*dim).into()).collect())
}

/// `max(x * w + b, 0)` of one row of 64 and 8 columns.
fn dense(numbers: &Numbers) -> Scheduled {
    let mut epilogue = ScalarExpr::with_inputs(2);
    let sum = epilogue.apply(Function::Add, &[Arg::Input(0), Arg::Input(1)]);
    epilogue.result = epilogue.apply(Function::Max, &[sum, Arg::Const(Scalar::float(DType::F32, 0.0))]);
    let operator = Operator::Contract { spec: ContractionSpec::matmul(0), accumulator: DType::F32, epilogue };
    let operands = [[1, 64].as_slice(), &[64, 8], &[8]].map(|shape| tensor(DType::F32, shape));
    let results = [tensor(DType::F32, &[1, 8])];
    let lowered = lower(&operator, &operands, &results, &[false, true, true], "dense", &tuning()).unwrap();
    let [launch] = &lowered.launches[..] else { panic!("one kernel") };
    schedule(&launch.kernel, numbers).unwrap()
}

#[test]
fn a_dense_layer_in_fixed_point() {
    let numbers: Numbers = "fixed<16,6>".parse().unwrap();
    let scheduled = dense(&numbers);
    let emitted = emit(&scheduled.kernel, "dense", &numbers, &scheduled.partitions).unwrap();
    insta::assert_snapshot!(emitted.text, @"
    void dense(const value_t x0[64], const value_t p0[512], const value_t x2[8], value_t y0[8]) {
      sum_t sum[4];
    #pragma HLS ARRAY_PARTITION variable=sum type=complete dim=1
      for (int task = 0; task < 2; ++task) {
        for (int lane_i = 0; lane_i < 4; ++lane_i) {
    #pragma HLS UNROLL
          sum[lane_i] = sum_t(0.0);
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
          sum_t e0 = sum[lane_i] + x2[task * 4 + lane_i];
          sum_t e1 = larger<sum_t>(e0, sum_t(0.0));
          y0[task * 4 + lane_i] = e1;
        }
      }
    }
    ");
}

#[test]
fn sums_of_floats_wait_for_their_adder_and_fixed_point_does_not() {
    let float = dense(&Numbers::Float).estimate;
    let fixed = dense(&"fixed<16,6>".parse().unwrap()).estimate;
    assert_eq!((float.interval, fixed.interval), (4, 1));
    // Two tiles of four columns, 64 products each.
    assert!((4 * 2 * 63..4 * 2 * 63 + 200).contains(&float.cycles), "{float:?}");
    assert!((2 * 63..2 * 63 + 100).contains(&fixed.cycles), "{fixed:?}");
    assert!(fixed.resources.dsp >= 4 && fixed.resources.dsp < float.resources.dsp, "{fixed:?} {float:?}");
}

#[test]
fn gpu_loops_and_run_time_dimensions_are_refused_by_name() {
    let mut kernel = dense(&Numbers::Float).kernel;
    if let Some(Stmt::For { kind, .. }) = kernel.body.first_mut() {
        *kind = LoopKind::Grid(0);
    }
    let error = emit(&kernel, "f", &Numbers::Float, &[]).unwrap_err().to_string();
    assert!(error.contains("loop over GPU threads"), "{error}");
    kernel.dims.push("n".into());
    kernel.buffers[0].count = Expr::Dim(0);
    let error = emit(&kernel, "f", &Numbers::Float, &[]).unwrap_err().to_string();
    assert!(error.contains("--dim n=N"), "{error}");
}
