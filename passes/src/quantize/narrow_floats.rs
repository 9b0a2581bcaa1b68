//! Contractions read f16 and bf16 weights as they are.
//!
//! ```text
//! contract(x, cast<f32>(w))  =>  contract(x, w)    w constant, f16 or bf16; the kernel converts in registers
//! ```

use tcc_ir::dtype::DType;
use tcc_ir::module::Module;
use tcc_ir::operator::Operator;
use tcc_ir::scalar::ScalarExpr;

use super::{Producers, each};
use crate::context::Context;
use crate::error::Error;

/// Weights below this many elements are as well widened at compile time.
const FEW: usize = 1 << 14;

/// Takes the casts away from large weights of contractions in every function.
pub fn run(module: &mut Module, _context: &Context) -> Result<(), Error> {
    for function in module.functions.values_mut() {
        let mut body = std::mem::take(&mut function.body);
        each(&mut body, &Producers::default(), &mut |mut operation, producers| {
            if let Operator::Contract { accumulator: DType::F32, .. } = operation.operator {
                for operand in operation.operands.iter_mut().take(2) {
                    let Some(cast) = producers.of(*operand) else { continue };
                    let widens = matches!(&cast.operator, Operator::Map { body } if *body == ScalarExpr::cast(DType::F32));
                    let narrow = cast.operands.first().and_then(|value| producers.constant(*value));
                    if let (true, Some(narrow)) = (widens, narrow)
                        && matches!(narrow.dtype(), DType::F16 | DType::BF16)
                        && narrow.count() >= FEW
                    {
                        *operand = cast.operands[0];
                    }
                }
            }
            vec![operation]
        });
        function.body = body;
    }
    Ok(())
}
