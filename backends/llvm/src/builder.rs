//! A cursor that appends MLIR operations to a block.
//!
//! Every method appends one operation and returns its result. Scalars and fixed-length vectors are treated alike, since the
//! operations of `arith` and `math` are elementwise. Invalid operands are not found here: the finished module is verified.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_void;

use melior::Context;
use melior::dialect::llvm::r#type as llvm_type;
use melior::ir::attribute::{
    DenseElementsAttribute, DenseI32ArrayAttribute, FloatAttribute, IntegerAttribute, StringAttribute,
    TypeAttribute,
};
use melior::ir::operation::OperationBuilder;
use melior::ir::r#type::IntegerType;
use melior::ir::{
    Attribute, AttributeLike, Block, BlockLike, BlockRef, Identifier, Location, Operation, Region,
    RegionLike, Type, Value,
};

use crate::error::Error;

/// An SSA value of the module under construction.
pub(crate) type Ssa<'c> = Value<'c, 'c>;

/// How two numbers are compared. The unsigned variants are for integers; floats ignore the distinction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    UnsignedLess,
    UnsignedLessEqual,
    UnsignedGreater,
    UnsignedGreaterEqual,
    /// Either is NaN.
    Unordered,
}

/// The operand index of `llvm.getelementptr` that stands for a value instead of a constant.
const DYNAMIC_INDEX: i32 = i32::MIN;

/// Appends operations at the end of the current block.
pub(crate) struct Builder<'c> {
    context: &'c Context,
    location: Location<'c>,
    block: BlockRef<'c, 'c>,
    /// Where constants go: the block that dominates all others.
    entry: BlockRef<'c, 'c>,
    /// Constants by their attribute, which the context keeps once.
    constants: RefCell<HashMap<*const c_void, Ssa<'c>>>,
}

impl<'c> Builder<'c> {
    /// A builder at the end of the entry block of a function.
    pub(crate) fn new(context: &'c Context, entry: BlockRef<'c, 'c>, location: Location<'c>) -> Self {
        Self { context, location, block: entry, entry, constants: RefCell::default() }
    }

    /// Makes `block` the current one and returns the one before it.
    pub(crate) fn enter(&mut self, block: BlockRef<'c, 'c>) -> BlockRef<'c, 'c> {
        std::mem::replace(&mut self.block, block)
    }

    /// A region of one block with the given argument types.
    pub(crate) fn region(&self, arguments: &[Type<'c>]) -> (Region<'c>, BlockRef<'c, 'c>) {
        let region = Region::new();
        let arguments: Vec<_> = arguments.iter().map(|r#type| (*r#type, self.location)).collect();
        let block = region.append_block(Block::new(&arguments));
        (region, block)
    }

    // Types.

    /// The integer type of `width` bits; MLIR's integers have no sign.
    pub(crate) fn integer_type(&self, width: u32) -> Type<'c> {
        IntegerType::new(self.context, width).into()
    }

    /// The type of all index arithmetic.
    pub(crate) fn i64_type(&self) -> Type<'c> {
        self.integer_type(64)
    }

    /// Single precision.
    pub(crate) fn f32_type(&self) -> Type<'c> {
        Type::float32(self.context)
    }

    /// Half precision, only at the edge of a conversion instruction.
    pub(crate) fn f16_type(&self) -> Type<'c> {
        Type::float16(self.context)
    }

    /// Double precision.
    pub(crate) fn f64_type(&self) -> Type<'c> {
        Type::float64(self.context)
    }

    /// The opaque pointer type.
    pub(crate) fn pointer_type(&self) -> Type<'c> {
        llvm_type::pointer(self.context, 0)
    }

    // Attributes.

    /// A named attribute.
    pub(crate) fn named(
        &self,
        name: &str,
        attribute: impl Into<Attribute<'c>>,
    ) -> (Identifier<'c>, Attribute<'c>) {
        (Identifier::new(self.context, name), attribute.into())
    }

    fn integer_attribute(&self, width: u32, value: i64) -> Attribute<'c> {
        IntegerAttribute::new(self.integer_type(width), value).into()
    }

    // Operations in general.

    /// An operation with one result.
    pub(crate) fn operation(
        &self,
        name: &str,
        operands: &[Ssa<'c>],
        result: Type<'c>,
        attributes: &[(Identifier<'c>, Attribute<'c>)],
    ) -> Result<Ssa<'c>, Error> {
        let builder = OperationBuilder::new(name, self.location)
            .add_operands(operands)
            .add_results(&[result])
            .add_attributes(attributes);
        let operation = self.block.append_operation(built(builder)?);
        let result = operation.result(0).map_err(|error| refused(&error))?;
        Ok(result.into())
    }

    /// An operation without results.
    pub(crate) fn effect(
        &self,
        name: &str,
        operands: &[Ssa<'c>],
        attributes: &[(Identifier<'c>, Attribute<'c>)],
    ) -> Result<(), Error> {
        let builder =
            OperationBuilder::new(name, self.location).add_operands(operands).add_attributes(attributes);
        self.block.append_operation(built(builder)?);
        Ok(())
    }

    /// An operation with regions and no results.
    pub(crate) fn regions(
        &self,
        name: &str,
        operands: &[Ssa<'c>],
        regions: Vec<Region<'c>>,
    ) -> Result<(), Error> {
        let builder =
            OperationBuilder::new(name, self.location).add_operands(operands).add_regions_vec(regions);
        self.block.append_operation(built(builder)?);
        Ok(())
    }

    /// An operation with regions that yield one value.
    pub(crate) fn region_value(
        &self,
        name: &str,
        operands: &[Ssa<'c>],
        regions: Vec<Region<'c>>,
        result: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        let builder = OperationBuilder::new(name, self.location)
            .add_operands(operands)
            .add_results(&[result])
            .add_regions_vec(regions);
        let operation = self.block.append_operation(built(builder)?);
        Ok(operation.result(0).map_err(|error| refused(&error))?.into())
    }

    /// An `arith` or `math` operation whose result has the type of its operands.
    pub(crate) fn same_type(
        &self,
        name: &str,
        operands: &[Ssa<'c>],
        r#type: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        self.operation(name, operands, r#type, &[])
    }

    // Constants.

    /// An integer constant; more than one lane gives the splat.
    pub(crate) fn integer(&self, element: Type<'c>, lanes: u32, value: i64) -> Result<Ssa<'c>, Error> {
        self.constant(element, lanes, IntegerAttribute::new(element, value).into())
    }

    /// A float constant of any float type; more than one lane gives the splat.
    pub(crate) fn float(&self, element: Type<'c>, lanes: u32, value: f64) -> Result<Ssa<'c>, Error> {
        self.constant(element, lanes, FloatAttribute::new(self.context, element, value).into())
    }

    /// A 64-bit index constant.
    pub(crate) fn index(&self, value: i64) -> Result<Ssa<'c>, Error> {
        self.integer(self.i64_type(), 1, value)
    }

    fn constant(&self, element: Type<'c>, lanes: u32, value: Attribute<'c>) -> Result<Ssa<'c>, Error> {
        let r#type = shaped(element, lanes);
        let value = if lanes == 1 {
            value
        } else {
            DenseElementsAttribute::new(r#type, &[value]).map_err(|error| refused(&error))?.into()
        };
        self.constant_of(r#type, value)
    }

    /// The constant of an attribute, at the head of the function and only once.
    fn constant_of(&self, r#type: Type<'c>, value: Attribute<'c>) -> Result<Ssa<'c>, Error> {
        let key = value.to_raw().ptr;
        if let Some(known) = self.constants.borrow().get(&key) {
            return Ok(*known);
        }
        let builder = OperationBuilder::new("arith.constant", self.location)
            .add_results(&[r#type])
            .add_attributes(&[self.named("value", value)]);
        let position = self.constants.borrow().len();
        let operation = self.entry.insert_operation(position, built(builder)?);
        let result = Ssa::from(operation.result(0).map_err(|error| refused(&error))?);
        self.constants.borrow_mut().insert(key, result);
        Ok(result)
    }

    /// A vector of the given integers, one a lane; a scalar for a single one.
    pub(crate) fn integers(&self, element: Type<'c>, values: &[i64]) -> Result<Ssa<'c>, Error> {
        if let [value] = values {
            return self.integer(element, 1, *value);
        }
        let r#type = shaped(element, values.len() as u32);
        let values: Vec<Attribute> =
            values.iter().map(|value| IntegerAttribute::new(element, *value).into()).collect();
        let dense = DenseElementsAttribute::new(r#type, &values).map_err(|error| refused(&error))?;
        self.constant_of(r#type, dense.into())
    }

    // Lanes.

    /// `lanes` copies of a scalar of type `element`.
    pub(crate) fn broadcast(&self, scalar: Ssa<'c>, element: Type<'c>, lanes: u32) -> Result<Ssa<'c>, Error> {
        if lanes == 1 {
            Ok(scalar)
        } else {
            self.same_type("vector.broadcast", &[scalar], shaped(element, lanes))
        }
    }

    /// Lanes of two vectors of one type, picked by number; at least two are picked.
    pub(crate) fn shuffle(
        &self,
        vectors: [Ssa<'c>; 2],
        element: Type<'c>,
        picks: &[i32],
    ) -> Result<Ssa<'c>, Error> {
        let mask = DenseI32ArrayAttribute::new(self.context, picks);
        let r#type = shaped(element, picks.len() as u32);
        self.operation("llvm.shufflevector", &vectors, r#type, &[self.named("mask", mask)])
    }

    /// One lane of a vector.
    pub(crate) fn extract(&self, vector: Ssa<'c>, element: Type<'c>, lane: u32) -> Result<Ssa<'c>, Error> {
        let lane = self.index(i64::from(lane))?;
        self.same_type("llvm.extractelement", &[vector, lane], element)
    }

    /// The larger or smaller float, NaN if either is one. The kernel IR leaves open which zero is the larger, and saying so
    /// saves most of the instructions on machines that have no such operation.
    pub(crate) fn float_extreme(
        &self,
        name: &str,
        operands: [Ssa<'c>; 2],
        r#type: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        let flags = Attribute::parse(self.context, "#arith.fastmath<nsz>");
        let attributes: Vec<_> = flags.map(|flags| self.named("fastmath", flags)).into_iter().collect();
        self.operation(name, &operands, r#type, &attributes)
    }

    // Comparison.

    /// An integer comparison; a truth value a lane.
    pub(crate) fn compare_integers(
        &self,
        order: Order,
        operands: [Ssa<'c>; 2],
        lanes: u32,
    ) -> Result<Ssa<'c>, Error> {
        // The numbers are the enumerators of `arith::CmpIPredicate`.
        let predicate = match order {
            Order::Equal => 0,
            Order::NotEqual => 1,
            Order::Less => 2,
            Order::LessEqual => 3,
            Order::Greater => 4,
            Order::UnsignedLess => 6,
            Order::UnsignedLessEqual => 7,
            Order::UnsignedGreater => 8,
            Order::UnsignedGreaterEqual => 9,
            Order::Unordered => {
                return Err(Error::Mlir { stage: "construction", message: "integers are ordered".into() });
            }
        };
        self.compare("arith.cmpi", predicate, operands, lanes)
    }

    /// A floating-point comparison; a truth value a lane. All but `NotEqual` and `Unordered` are false for NaN.
    pub(crate) fn compare_floats(
        &self,
        order: Order,
        operands: [Ssa<'c>; 2],
        lanes: u32,
    ) -> Result<Ssa<'c>, Error> {
        // The numbers are the enumerators of `arith::CmpFPredicate`.
        let predicate = match order {
            Order::Equal => 1,
            Order::Greater | Order::UnsignedGreater => 2,
            Order::UnsignedGreaterEqual => 3,
            Order::Less | Order::UnsignedLess => 4,
            Order::LessEqual | Order::UnsignedLessEqual => 5,
            Order::NotEqual => 13,
            Order::Unordered => 14,
        };
        self.compare("arith.cmpf", predicate, operands, lanes)
    }

    fn compare(
        &self,
        name: &str,
        predicate: i64,
        operands: [Ssa<'c>; 2],
        lanes: u32,
    ) -> Result<Ssa<'c>, Error> {
        let r#type = shaped(self.integer_type(1), lanes);
        self.operation(
            name,
            &operands,
            r#type,
            &[self.named("predicate", self.integer_attribute(64, predicate))],
        )
    }

    /// `condition ? yes : no`, lane by lane where the condition is a vector.
    pub(crate) fn select(
        &self,
        condition: Ssa<'c>,
        yes: Ssa<'c>,
        no: Ssa<'c>,
        r#type: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        self.same_type("arith.select", &[condition, yes, no], r#type)
    }

    // Memory.

    /// `base` plus a number of elements; a vector of numbers gives a vector of pointers.
    pub(crate) fn element_pointer(
        &self,
        base: Ssa<'c>,
        index: Ssa<'c>,
        element: Type<'c>,
        lanes: u32,
    ) -> Result<Ssa<'c>, Error> {
        self.operation(
            "llvm.getelementptr",
            &[base, index],
            shaped(self.pointer_type(), lanes),
            &[
                self.named("elem_type", TypeAttribute::new(element)),
                self.named("rawConstantIndices", DenseI32ArrayAttribute::new(self.context, &[DYNAMIC_INDEX])),
            ],
        )
    }

    /// Loads a value that is aligned to `alignment` bytes.
    pub(crate) fn load(
        &self,
        pointer: Ssa<'c>,
        r#type: Type<'c>,
        alignment: usize,
    ) -> Result<Ssa<'c>, Error> {
        self.operation("llvm.load", &[pointer], r#type, &[self.alignment(64, alignment)])
    }

    /// Stores a value to an address that is aligned to `alignment` bytes.
    pub(crate) fn store(&self, pointer: Ssa<'c>, value: Ssa<'c>, alignment: usize) -> Result<(), Error> {
        self.effect("llvm.store", &[value, pointer], &[self.alignment(64, alignment)])
    }

    /// Memory for `count` values of a type on the stack. Only for the entry block: stack space is not given back by loops.
    pub(crate) fn stack(&self, r#type: Type<'c>, count: i64, alignment: usize) -> Result<Ssa<'c>, Error> {
        let count = self.index(count)?;
        let attributes = [self.named("elem_type", TypeAttribute::new(r#type)), self.alignment(64, alignment)];
        self.operation("llvm.alloca", &[count], self.pointer_type(), &attributes)
    }

    /// An alignment attribute; loads and stores count it in 64 bits, masked accesses in 32.
    pub(crate) fn alignment(&self, width: u32, bytes: usize) -> (Identifier<'c>, Attribute<'c>) {
        self.named("alignment", self.integer_attribute(width, bytes as i64))
    }

    /// A call of an LLVM intrinsic by name, such as `llvm.x86.avx512.vpdpbusd.512`; overloads follow from the types.
    pub(crate) fn intrinsic(
        &self,
        name: &str,
        operands: &[Ssa<'c>],
        result: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        let segments = DenseI32ArrayAttribute::new(self.context, &[operands.len() as i32, 0]);
        self.operation(
            "llvm.call_intrinsic",
            operands,
            result,
            &[
                self.named("intrin", StringAttribute::new(self.context, name)),
                self.named("operandSegmentSizes", segments),
                self.named("op_bundle_sizes", DenseI32ArrayAttribute::new(self.context, &[])),
            ],
        )
    }
}

/// The type of a value of `lanes` elements: the element type itself for one lane, else a vector.
pub(crate) fn shaped(element: Type<'_>, lanes: u32) -> Type<'_> {
    if lanes == 1 { element } else { Type::vector(&[u64::from(lanes)], element) }
}

fn built<'c>(builder: OperationBuilder<'c>) -> Result<Operation<'c>, Error> {
    builder.build().map_err(|error| refused(&error))
}

/// MLIR would not build an operation, which is a bug of the lowering.
pub(crate) fn refused(error: &melior::Error) -> Error {
    Error::Mlir { stage: "construction", message: error.to_string() }
}
