//! Products with block-quantized weights become `block_contract`.
//!
//! ```text
//! contract(x, decode_blocks(w))               =>  block_contract(x, w)
//! contract(x, dequantize(w, scale, zero))     =>  block_contract(x, w, scale, zero)
//! contract(x, decode_blocks(gather(w, e)))    =>  block_contract(x, w, e)          w [experts, out, row bytes]
//! ```
//!
//! Epilogues come along. With activations as integers `quantize_rows(x)` stands before; products of one `x` share it.

use tcc_ir::block_format::{BlockFormat, WeightForm};
use tcc_ir::contraction::ContractionSpec;
use tcc_ir::data::Data;
use tcc_ir::dim::Dim;
use tcc_ir::dtype::DType;
use tcc_ir::infer::infer;
use tcc_ir::module::{Function, Module, Operation, Value};
use tcc_ir::operator::Operator;
use tcc_ir::types::Type;

use super::{Activations, Producers, each};
use crate::constant_folding;
use crate::context::Context;
use crate::error::Error;

/// Elements of a row of activations that share a scale.
const RUN: usize = 32;

/// Rewrites the products of every function.
pub fn run(module: &mut Module, context: &Context) -> Result<(), Error> {
    // Kernels for packed weights are written for the vectors of a processor.
    if !context.machine.is_processor() {
        return Ok(());
    }
    for function in module.functions.values_mut() {
        let mut body = std::mem::take(&mut function.body);
        let mut rewriter = Rewriter { function, activations: context.activations };
        each(&mut body, &Producers::default(), &mut |operation, producers| {
            rewriter.rewrite(&operation, producers).unwrap_or_else(|| vec![operation])
        });
        function.body = body;
    }
    Ok(())
}

/// Weights of a product.
struct Weights {
    form: WeightForm,
    operands: Vec<Value>,
    /// Constants to add for operands that are computed from constants.
    constants: Vec<Operation>,
    experts: Option<Value>,
    /// Axes of the matrix in the order of the contraction's labels: row, then summed.
    transposed: bool,
}

struct Rewriter<'f> {
    function: &'f mut Function,
    activations: Activations,
}

impl Rewriter<'_> {
    fn rewrite(&mut self, operation: &Operation, producers: &Producers) -> Option<Vec<Operation>> {
        let Operator::Contract { spec, accumulator: DType::F32, epilogue } = &operation.operator else {
            return None;
        };
        let (x, spec, weights) = [0, 1].into_iter().find_map(|place| {
            let weights = self.weights(operation.operands[place], producers)?;
            let spec = match place {
                1 => spec.clone(),
                _ => ContractionSpec { lhs: spec.rhs.clone(), rhs: spec.lhs.clone(), out: spec.out.clone() },
            };
            Some((operation.operands[1 - place], spec, weights))
        })?;
        let x_type = self.function.type_of(x).as_tensor()?.clone();
        let depth = usize::try_from(x_type.shape.last()?.as_const()?).ok()?;
        if !fits(&spec, &weights) || !x_type.dtype().is_float() || !depth.is_multiple_of(RUN) {
            return None;
        }
        let mut added = weights.constants;
        let mut operands = match self.activations {
            Activations::Float => vec![x],
            Activations::Int8 | Activations::Int16 => {
                self.quantized(x, sums(weights.form), operation, &mut added)?
            }
        };
        operands.extend(weights.operands);
        operands.extend(weights.experts);
        operands.extend(&operation.operands[2..]);
        let operator = Operator::BlockContract {
            weights: weights.form,
            rows: self.activations.rows(),
            experts: weights.experts.is_some(),
            epilogue: epilogue.clone(),
        };
        let types: Vec<&Type> = operands.iter().map(|value| self.function.type_of(*value)).collect();
        infer(&operator, &types).ok()?;
        added.push(Operation { operator, operands, ..operation.clone() });
        Some(added)
    }

    /// The rows of `x` as integers. Common subexpressions make one of several.
    fn quantized(
        &mut self,
        x: Value,
        sum: usize,
        operation: &Operation,
        added: &mut Vec<Operation>,
    ) -> Option<Vec<Value>> {
        let operator = Operator::QuantizeRows { group: RUN, sum, rows: self.activations.rows() };
        let types = infer(&operator, &[self.function.type_of(x)]).ok()?.results;
        let results: Vec<Value> = types.into_iter().map(|ty| self.function.new_value(ty)).collect();
        added.push(Operation {
            operator,
            operands: vec![x],
            results: results.clone(),
            regions: Vec::new(),
            location: operation.location.clone(),
        });
        Some(results)
    }

    /// What a value is as weights of a product.
    fn weights(&mut self, value: Value, producers: &Producers) -> Option<Weights> {
        let producer = producers.of(value)?;
        match &producer.operator {
            Operator::Transpose { perm } if perm[..] == [1, 0] => {
                let inner = self.weights(producer.operands[0], producers)?;
                Some(Weights { transposed: !inner.transposed, ..inner }).filter(|it| it.experts.is_none())
            }
            Operator::DecodeBlocks { format, .. } => {
                let form = WeightForm::Blocks(*format);
                let plain = |operands, experts| {
                    Some(Weights { form, operands, constants: Vec::new(), experts, transposed: false })
                };
                let bytes = producer.operands[0];
                if let Some(data) = producers.constant(bytes) {
                    return (data.shape().len() == 2).then(|| plain(vec![bytes], None))?;
                }
                let gather = producers.of(bytes)?;
                let Operator::Gather { axis: 0 } = gather.operator else { return None };
                let table = producers.constant(gather.operands[0])?;
                let experts = gather.operands[1];
                let index = self.function.type_of(experts).as_tensor()?;
                let fits = table.shape().len() == 3 && index.rank() == 1 && index.dtype() == DType::I64;
                fits.then(|| plain(vec![gather.operands[0]], Some(experts)))?
            }
            Operator::Dequantize { axis: 1, block, .. } if *block == RUN / 2 || block.is_multiple_of(RUN) => {
                let [codes, scale, zero] = producer.operands[..] else { return None };
                let data = producers.constant(codes)?;
                let scales = producers.constant(scale)?;
                let narrow = matches!(data.dtype().bits(), 2 | 4 | 8) && data.dtype().is_integer();
                let depth = *data.shape().get(1)?;
                if *block == 0 || !narrow || !depth.is_multiple_of(*block) || scales.shape().len() != 2 {
                    return None;
                }
                let mut constants = Vec::new();
                let zero = match producers.constant(zero) {
                    Some(_) => zero,
                    None => self.broadcast_constant(zero, producers, &mut constants)?,
                };
                let same = self.function.type_of(zero).as_tensor()?.dtype() == data.dtype();
                same.then(|| Weights {
                    form: WeightForm::Affine { block: *block },
                    operands: vec![codes, scale, zero],
                    constants,
                    experts: None,
                    transposed: false,
                })
            }
            _ => None,
        }
    }

    /// A constant for a broadcast of one.
    fn broadcast_constant(
        &mut self,
        value: Value,
        producers: &Producers,
        added: &mut Vec<Operation>,
    ) -> Option<Value> {
        let producer = producers.of(value)?;
        let Operator::Broadcast { .. } = producer.operator else { return None };
        let source: &Data = producers.constant(producer.operands[0])?;
        let data = constant_folding::evaluate(&producer.operator, std::slice::from_ref(source))?;
        let dims = data.shape().iter().map(|dim| Dim::from(*dim)).collect();
        let result = self.function.new_value(Type::tensor(data.dtype(), dims));
        added.push(Operation {
            operator: Operator::Constant { data },
            operands: Vec::new(),
            results: vec![result],
            regions: Vec::new(),
            location: producer.location.clone(),
        });
        Some(result)
    }
}

/// Elements that an offset of the weights is shared by, and so a sum of activations.
fn sums(form: WeightForm) -> usize {
    match form {
        WeightForm::Blocks(BlockFormat::Q2K | BlockFormat::Q3K | BlockFormat::Q6K) => 16,
        WeightForm::Affine { block } => block.min(RUN),
        WeightForm::Blocks(_) => RUN,
    }
}

/// True for rows times a matrix: the last axis of `x` is summed, the matrix's rows are the last axis of the result, and
/// with experts the only axis of rows is that of the choice.
fn fits(spec: &ContractionSpec, weights: &Weights) -> bool {
    let mut matrix = spec.rhs.clone();
    if weights.transposed {
        matrix.reverse();
    }
    let (lead, matrix) = match (weights.experts, &matrix[..]) {
        (Some(_), [choice, rest @ ..]) => (Some(*choice), rest),
        (None, all) => (None, all),
        (Some(_), []) => return false,
    };
    let [row, summed] = matrix else { return false };
    let Some((last, leading)) = spec.lhs.split_last() else { return false };
    let expected: Vec<u8> = leading.iter().chain([row]).copied().collect();
    let plain = lead.is_none() && leading.iter().all(|label| !spec.rhs.contains(label));
    let chosen = lead.is_some_and(|lead| leading == [lead]);
    last == summed && spec.out == expected && (plain || chosen)
}
