//! Building functions operation by operation, with result types inferred.

use crate::attribute::Real;
use crate::contraction::ContractionSpec;
use crate::data::Data;
use crate::dim::{Dim, Range, Symbol};
use crate::dtype::DType;
use crate::infer::{InferError, infer};
use crate::module::{Function, Location, Operation, Region, Value};
use crate::operator::Operator;
use crate::scalar::{Arg, Function as ScalarFunction, Scalar, ScalarExpr};
use crate::types::{TensorType, Type};
use crate::words::ReduceKind;

/// Appends operations to a function; regions nest by [`Builder::begin_region`] and [`Builder::end_region`].
pub struct Builder {
    function: Function,
    stack: Vec<Region>,
    location: Location,
    fresh: usize,
}

impl Builder {
    /// Starts a function.
    pub fn new(name: &str) -> Builder {
        Builder {
            function: Function::new(name),
            stack: vec![Region::default()],
            location: Location::default(),
            fresh: 0,
        }
    }

    /// Adds a named input.
    pub fn input(&mut self, name: &str, ty: Type) -> Value {
        let value = self.function.new_value(ty);
        self.function.input_names.push(name.to_string());
        self.stack[0].params.push(value);
        value
    }

    /// Declares the range of a symbol.
    pub fn declare(&mut self, symbol: &Symbol, range: Range) {
        self.function.symbols.insert(symbol.clone(), range);
    }

    /// A symbol that no other dimension uses, for sizes decided at run time; `hint` starts its name.
    pub fn fresh_symbol(&mut self, hint: &str, range: Range) -> Symbol {
        loop {
            let symbol = Symbol::new(&format!("{hint}_{}", self.fresh));
            self.fresh += 1;
            if !self.function.symbols.contains_key(&symbol) {
                self.declare(&symbol, range);
                return symbol;
            }
        }
    }

    /// Location of the operations that follow.
    pub fn set_location(&mut self, location: Location) {
        self.location = location;
    }

    /// The function so far.
    pub fn function(&self) -> &Function {
        &self.function
    }

    /// Type of a value.
    pub fn type_of(&self, value: Value) -> &Type {
        self.function.type_of(value)
    }

    /// Tensor type of a value; an error where it is not a tensor.
    pub fn tensor_type(&self, value: Value) -> Result<&TensorType, InferError> {
        self.type_of(value).as_tensor().ok_or_else(|| InferError::new("expected a tensor"))
    }

    /// Element type of a tensor value.
    pub fn dtype(&self, value: Value) -> Result<DType, InferError> {
        Ok(self.tensor_type(value)?.dtype())
    }

    /// Shape of a tensor value.
    pub fn shape(&self, value: Value) -> Result<Vec<Dim>, InferError> {
        Ok(self.tensor_type(value)?.shape.clone())
    }

    /// Records that two dimensions must be equal at run time.
    pub fn require_equal(&mut self, a: Dim, b: Dim) {
        if a != b && !self.function.equalities.contains(&(a.clone(), b.clone())) {
            self.function.equalities.push((a, b));
        }
    }

    /// How many equalities are recorded so far.
    pub fn equality_count(&self) -> usize {
        self.function.equalities.len()
    }

    /// Takes back the equalities recorded since there were `count`: those of a branch hold only where it is taken.
    pub fn take_back_equalities(&mut self, count: usize) {
        self.function.equalities.truncate(count);
    }

    /// Appends an operation without regions and returns its results.
    pub fn op(&mut self, operator: Operator, operands: &[Value]) -> Result<Vec<Value>, InferError> {
        let types: Vec<&Type> = operands.iter().map(|value| self.function.type_of(*value)).collect();
        let inferred = infer(&operator, &types)?;
        for (a, b) in inferred.equalities {
            self.require_equal(a, b);
        }
        Ok(self.append(operator, operands, Vec::new(), inferred.results))
    }

    /// Appends an operation with one result.
    pub fn op1(&mut self, operator: Operator, operands: &[Value]) -> Result<Value, InferError> {
        match self.op(operator, operands)?[..] {
            [value] => Ok(value),
            ref results => Err(InferError::new(format!("expected one result, got {}", results.len()))),
        }
    }

    /// Appends an operation with regions, whose result types the caller knows.
    pub fn region_op(
        &mut self,
        operator: Operator,
        operands: &[Value],
        regions: Vec<Region>,
        types: Vec<Type>,
    ) -> Vec<Value> {
        self.append(operator, operands, regions, types)
    }

    fn append(
        &mut self,
        operator: Operator,
        operands: &[Value],
        regions: Vec<Region>,
        types: Vec<Type>,
    ) -> Vec<Value> {
        let results: Vec<Value> = types.into_iter().map(|ty| self.function.new_value(ty)).collect();
        let operation = Operation {
            operator,
            operands: operands.to_vec(),
            results: results.clone(),
            regions,
            location: self.location.clone(),
        };
        if let Some(region) = self.stack.last_mut() {
            region.operations.push(operation);
        }
        results
    }

    /// Opens a nested region with parameters of these types.
    pub fn begin_region(&mut self, params: Vec<Type>) -> Vec<Value> {
        let params: Vec<Value> = params.into_iter().map(|ty| self.function.new_value(ty)).collect();
        self.stack.push(Region { params: params.clone(), ..Region::default() });
        params
    }

    /// Closes the innermost nested region.
    pub fn end_region(&mut self, results: &[Value]) -> Region {
        let mut region =
            if self.stack.len() > 1 { self.stack.pop().unwrap_or_default() } else { Region::default() };
        region.results = results.to_vec();
        region
    }

    /// Names the outputs and finishes the function.
    pub fn finish(mut self, outputs: &[(&str, Value)]) -> Function {
        let mut body = self.stack.swap_remove(0);
        body.results = outputs.iter().map(|(_, value)| *value).collect();
        self.function.output_names = outputs.iter().map(|(name, _)| name.to_string()).collect();
        self.function.body = body;
        self.function
    }

    /// A compile-time tensor.
    pub fn constant(&mut self, data: Data) -> Result<Value, InferError> {
        self.op1(Operator::Constant { data }, &[])
    }

    /// A rank-0 constant of a numeric type.
    pub fn scalar(&mut self, scalar: Scalar) -> Result<Value, InferError> {
        let data = crate::convert::scalar_data(scalar).map_err(|error| InferError::new(error.to_string()))?;
        self.constant(data)
    }

    /// An elementwise expression.
    pub fn map(&mut self, body: ScalarExpr, operands: &[Value]) -> Result<Value, InferError> {
        self.op1(Operator::Map { body }, operands)
    }

    /// One scalar function, elementwise.
    pub fn call(&mut self, function: ScalarFunction, operands: &[Value]) -> Result<Value, InferError> {
        self.map(ScalarExpr::call(function), operands)
    }

    /// One scalar function of a value and a constant of the value's type.
    pub fn call_with(
        &mut self,
        function: ScalarFunction,
        x: Value,
        constant: f64,
    ) -> Result<Value, InferError> {
        let dtype = self.dtype(x)?;
        let mut body = ScalarExpr::with_inputs(1);
        body.result = body.apply(function, &[Arg::Input(0), Arg::Const(Scalar::of(dtype, constant))]);
        self.map(body, &[x])
    }

    /// Elementwise conversion; nothing where the type is that already.
    pub fn cast(&mut self, x: Value, dtype: DType) -> Result<Value, InferError> {
        if self.dtype(x)? == dtype { Ok(x) } else { self.map(ScalarExpr::cast(dtype), &[x]) }
    }

    /// Reduction without prologue and epilogue.
    pub fn reduce(
        &mut self,
        kind: ReduceKind,
        x: Value,
        axes: Vec<usize>,
        keep: bool,
    ) -> Result<Value, InferError> {
        let (prologue, epilogue) = (ScalarExpr::identity(), ScalarExpr::identity());
        self.op1(Operator::Reduce { kind, axes, keep, prologue, epilogue }, &[x])
    }

    /// Contraction with plain epilogue, accumulated in `f32` for narrower floats and in the element type otherwise.
    pub fn contract(&mut self, spec: ContractionSpec, lhs: Value, rhs: Value) -> Result<Value, InferError> {
        let dtype = self.dtype(lhs)?;
        let accumulator = if dtype.is_float() && dtype.bits() < 32 { DType::F32 } else { dtype };
        let epilogue = if accumulator == dtype { ScalarExpr::identity() } else { ScalarExpr::cast(dtype) };
        self.op1(Operator::Contract { spec, accumulator, epilogue }, &[lhs, rhs])
    }

    /// Row-major reshape; nothing where the shape is that already.
    pub fn reshape(&mut self, x: Value, shape: Vec<Dim>) -> Result<Value, InferError> {
        if self.shape(x)? == shape { Ok(x) } else { self.op1(Operator::Reshape { shape }, &[x]) }
    }

    /// Transposition; nothing for the identity.
    pub fn transpose(&mut self, x: Value, perm: Vec<usize>) -> Result<Value, InferError> {
        if perm.iter().enumerate().all(|(index, axis)| index == *axis) {
            return Ok(x);
        }
        self.op1(Operator::Transpose { perm }, &[x])
    }

    /// Broadcast; nothing where the shape is that already.
    pub fn broadcast(&mut self, x: Value, shape: Vec<Dim>) -> Result<Value, InferError> {
        if self.shape(x)? == shape { Ok(x) } else { self.op1(Operator::Broadcast { shape }, &[x]) }
    }

    /// `(x - mean) / sqrt(variance + epsilon)` over axes, plain epilogue.
    pub fn normalize(
        &mut self,
        x: Value,
        axes: Vec<usize>,
        epsilon: f64,
        centered: bool,
    ) -> Result<Value, InferError> {
        let operator = Operator::Normalize {
            axes,
            epsilon: Real::from(epsilon),
            centered,
            epilogue: ScalarExpr::identity(),
        };
        self.op1(operator, &[x])
    }
}
