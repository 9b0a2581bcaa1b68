//! A cursor that appends MLIR operations to a block.
//!
//! Every method appends one operation and returns its result. Scalars and fixed-length vectors are treated alike, since the
//! operations of `arith` and `math` are elementwise. Invalid operands are not found here: the finished module is verified.

use melior::Context;
use melior::dialect::llvm::r#type as llvm_type;
use melior::ir::attribute::{
    DenseElementsAttribute, DenseI32ArrayAttribute, FloatAttribute, IntegerAttribute, StringAttribute, TypeAttribute,
};
use melior::ir::operation::{OperationBuilder, OperationLike};
use melior::ir::r#type::IntegerType;
use melior::ir::{Attribute, Block, BlockLike, BlockRef, Identifier, Location, Operation, Region, RegionLike, Type, Value};

use crate::error::Error;

/// An SSA value of the module under construction.
pub(crate) type Ssa<'c> = Value<'c, 'c>;

/// The operand index of `llvm.getelementptr` that stands for a value instead of a constant.
const DYNAMIC_INDEX: i32 = i32::MIN;

/// Appends operations at the end of the current block.
pub(crate) struct Builder<'c> {
    context: &'c Context,
    location: Location<'c>,
    block: BlockRef<'c, 'c>,
}

impl<'c> Builder<'c> {
    /// A builder at the end of `block`.
    pub(crate) fn new(context: &'c Context, block: BlockRef<'c, 'c>) -> Self {
        Self { context, location: Location::unknown(context), block }
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

    /// The opaque pointer type.
    pub(crate) fn pointer_type(&self) -> Type<'c> {
        llvm_type::pointer(self.context, 0)
    }

    // Attributes.

    /// A named attribute.
    pub(crate) fn named(&self, name: &str, attribute: impl Into<Attribute<'c>>) -> (Identifier<'c>, Attribute<'c>) {
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
        let builder = OperationBuilder::new(name, self.location).add_operands(operands).add_attributes(attributes);
        self.block.append_operation(built(builder)?);
        Ok(())
    }

    /// An operation with regions and no results.
    pub(crate) fn regions(&self, name: &str, operands: &[Ssa<'c>], regions: Vec<Region<'c>>) -> Result<(), Error> {
        let builder = OperationBuilder::new(name, self.location).add_operands(operands).add_regions_vec(regions);
        self.block.append_operation(built(builder)?);
        Ok(())
    }

    /// An `arith` or `math` operation whose result has the type of its operands.
    pub(crate) fn same_type(&self, name: &str, operands: &[Ssa<'c>], r#type: Type<'c>) -> Result<Ssa<'c>, Error> {
        self.operation(name, operands, r#type, &[])
    }

    // Constants.

    /// An integer constant; a vector type gives the splat.
    pub(crate) fn integer(&self, element: Type<'c>, lanes: Option<u32>, value: i64) -> Result<Ssa<'c>, Error> {
        self.constant(element, lanes, IntegerAttribute::new(element, value).into())
    }

    /// A float constant of any float type; a vector type gives the splat.
    pub(crate) fn float(&self, element: Type<'c>, lanes: Option<u32>, value: f64) -> Result<Ssa<'c>, Error> {
        self.constant(element, lanes, FloatAttribute::new(self.context, element, value).into())
    }

    /// A 64-bit index constant.
    pub(crate) fn index(&self, value: i64) -> Result<Ssa<'c>, Error> {
        self.integer(self.i64_type(), None, value)
    }

    fn constant(&self, element: Type<'c>, lanes: Option<u32>, value: Attribute<'c>) -> Result<Ssa<'c>, Error> {
        let (r#type, value) = match lanes {
            None => (element, value),
            Some(lanes) => {
                let r#type = Type::vector(&[u64::from(lanes)], element);
                let splat = DenseElementsAttribute::new(r#type, &[value]).map_err(|error| refused(&error))?;
                (r#type, splat.into())
            }
        };
        self.operation("arith.constant", &[], r#type, &[self.named("value", value)])
    }

    // Comparison. The numbers are the enumerators of `arith::CmpIPredicate` and `arith::CmpFPredicate`.

    /// An `arith.cmpi` or `arith.cmpf`; `result` is `i1` or a vector of it.
    pub(crate) fn compare(
        &self,
        name: &str,
        predicate: i64,
        operands: [Ssa<'c>; 2],
        result: Type<'c>,
    ) -> Result<Ssa<'c>, Error> {
        self.operation(name, &operands, result, &[self.named("predicate", self.integer_attribute(64, predicate))])
    }

    // Memory.

    /// `base` plus a number of bytes.
    pub(crate) fn offset(&self, base: Ssa<'c>, bytes: Ssa<'c>) -> Result<Ssa<'c>, Error> {
        self.element_pointer(base, bytes, self.integer_type(8))
    }

    /// `base` plus a number of elements.
    pub(crate) fn element_pointer(&self, base: Ssa<'c>, index: Ssa<'c>, element: Type<'c>) -> Result<Ssa<'c>, Error> {
        self.operation(
            "llvm.getelementptr",
            &[base, index],
            self.pointer_type(),
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
        alignment: u32,
        scopes: &[(Identifier<'c>, Attribute<'c>)],
    ) -> Result<Ssa<'c>, Error> {
        let mut attributes = vec![self.named("alignment", self.integer_attribute(64, i64::from(alignment)))];
        attributes.extend_from_slice(scopes);
        self.operation("llvm.load", &[pointer], r#type, &attributes)
    }

    /// Stores a value to an address that is aligned to `alignment` bytes.
    pub(crate) fn store(
        &self,
        pointer: Ssa<'c>,
        value: Ssa<'c>,
        alignment: u32,
        scopes: &[(Identifier<'c>, Attribute<'c>)],
    ) -> Result<(), Error> {
        let mut attributes = vec![self.named("alignment", self.integer_attribute(64, i64::from(alignment)))];
        attributes.extend_from_slice(scopes);
        self.effect("llvm.store", &[value, pointer], &attributes)
    }

    /// Memory for `count` values of a type on the stack. Only for the entry block: stack space is not given back by loops.
    pub(crate) fn stack(&self, r#type: Type<'c>, count: i64, alignment: u32) -> Result<Ssa<'c>, Error> {
        let count = self.index(count)?;
        self.operation(
            "llvm.alloca",
            &[count],
            self.pointer_type(),
            &[
                self.named("elem_type", TypeAttribute::new(r#type)),
                self.named("alignment", self.integer_attribute(64, i64::from(alignment))),
            ],
        )
    }

    /// A call of an LLVM intrinsic by its full name, such as `llvm.x86.avx512.vpdpbusd.512`.
    pub(crate) fn intrinsic(&self, name: &str, operands: &[Ssa<'c>], result: Type<'c>) -> Result<Ssa<'c>, Error> {
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

fn built<'c>(builder: OperationBuilder<'c>) -> Result<Operation<'c>, Error> {
    builder.build().map_err(|error| refused(&error))
}

fn refused(error: &melior::Error) -> Error {
    Error::Mlir { stage: "construction", message: error.to_string() }
}
