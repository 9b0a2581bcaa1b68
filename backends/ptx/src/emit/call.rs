//! Core functions.
//!
//! The results are those of [`tcc_kernel::fold`], bit for bit but for the payload of NaN: integers wrap, division by zero is
//! zero, shifts by the width or more give zero or the sign, `max` and `min` return NaN where an operand is NaN.

use tcc_ir::dtype::{Class as Kind, DType};
use tcc_ir::scalar::Function;
use tcc_kernel::ir::Ty;

use super::Emitter;
use super::register::{Class, Value};
use crate::error::Error;

/// The type suffix of arithmetic; 8- and 16-bit integers are computed in 32 bits.
pub(super) fn suffix(dtype: DType) -> &'static str {
    match (dtype.class(), dtype.bits()) {
        (Kind::Float, 64) => "f64",
        (Kind::Float, _) => "f32",
        (Kind::Unsigned, 64) => "u64",
        (Kind::Unsigned, _) => "u32",
        (_, 64) => "s64",
        _ => "s32",
    }
}

/// The suffix of instructions that see only bits.
fn bits(dtype: DType) -> &'static str {
    if dtype.bits() == 64 { "b64" } else { "b32" }
}

impl Emitter<'_> {
    /// A function of arguments of a type (for `select`, the type of what is selected).
    pub(super) fn call(&mut self, function: Function, dtype: DType, args: &[Value]) -> Result<Value, Error> {
        if args.len() != function.arity() {
            return self.unsupported(format!("{} of {} arguments", function.text(), args.len()));
        }
        let class = self.class(Ty::scalar(dtype))?;
        if function == Function::Select {
            return Ok(self.select(class, &args[0], &args[1], &args[2]));
        }
        match dtype.class() {
            Kind::Float if matches!(dtype, DType::F32 | DType::F64) => {
                self.float_call(function, dtype, class, args)
            }
            Kind::Signed | Kind::Unsigned => self.integer_call(function, dtype, class, args),
            Kind::Bool => self.logic_call(function, args),
            _ => Err(self.type_error(format!("{} of {dtype}", function.text()))),
        }
    }

    /// `condition ? a : b`.
    pub(super) fn select(&mut self, class: Class, condition: &Value, a: &Value, b: &Value) -> Value {
        if class != Class::Predicate {
            return self.instruction(class, &format!("selp.{}", class.bits_type()), &[a, b, condition]);
        }
        let yes = self.instruction(class, "and.pred", &[condition, a]);
        let inverse = self.instruction(class, "not.pred", &[condition]);
        let no = self.instruction(class, "and.pred", &[&inverse, b]);
        self.instruction(class, "or.pred", &[&yes, &no])
    }

    pub(super) fn test(&mut self, comparison: &str, suffix: &str, a: &Value, b: &Value) -> Value {
        self.instruction(Class::Predicate, &format!("setp.{comparison}.{suffix}"), &[a, b])
    }

    fn float_call(
        &mut self,
        function: Function,
        dtype: DType,
        class: Class,
        args: &[Value],
    ) -> Result<Value, Error> {
        use Function::*;
        let ty = suffix(dtype);
        let all: Vec<&Value> = args.iter().collect();
        let plain = |name: &str| format!("{name}.{ty}");
        let to_integer = |mode: &str| format!("cvt.{mode}.{ty}.{ty}");
        let opcode = match function {
            Neg => plain("neg"),
            Abs => plain("abs"),
            Add => plain("add.rn"),
            Sub => plain("sub.rn"),
            Mul => plain("mul.rn"),
            Div => plain("div.rn"),
            Sqrt => plain("sqrt.rn"),
            Floor => to_integer("rmi"),
            Ceil => to_integer("rpi"),
            Round => to_integer("rni"),
            Trunc => to_integer("rzi"),
            Equal => return Ok(self.test("eq", ty, &args[0], &args[1])),
            Less => return Ok(self.test("lt", ty, &args[0], &args[1])),
            LessEqual => return Ok(self.test("le", ty, &args[0], &args[1])),
            Max => return Ok(self.float_extremum("max", dtype, class, args)),
            Min => return Ok(self.float_extremum("min", dtype, class, args)),
            other => return self.unsupported(format!("{} of {dtype}", other.text())),
        };
        // Conversions of a float to a whole float take registers only.
        if opcode.starts_with("cvt") {
            let operand = self.in_register(&args[0], dtype)?;
            return Ok(self.instruction(class, &opcode, &[&operand]));
        }
        Ok(self.instruction(class, &opcode, &all))
    }

    fn float_extremum(&mut self, name: &str, dtype: DType, class: Class, args: &[Value]) -> Value {
        let (a, b) = (&args[0], &args[1]);
        if dtype == DType::F32 && self.target.nan_extrema() {
            return self.instruction(class, &format!("{name}.NaN.f32"), &[a, b]);
        }
        let ty = suffix(dtype);
        let unordered = self.test("nan", ty, a, b);
        let number = self.instruction(class, &format!("{name}.{ty}"), &[a, b]);
        let nan = if dtype == DType::F32 { Value::single(f32::NAN) } else { Value::double(f64::NAN) };
        self.select(class, &unordered, &nan, &number)
    }

    fn integer_call(
        &mut self,
        function: Function,
        dtype: DType,
        class: Class,
        args: &[Value],
    ) -> Result<Value, Error> {
        use Function::*;
        let ty = suffix(dtype);
        let all: Vec<&Value> = args.iter().collect();
        let opcode = match function {
            Abs if !dtype.is_signed() => return Ok(args[0].clone()),
            Neg if dtype.is_signed() => format!("neg.{ty}"),
            Neg => {
                let zero = Value::integer(0);
                let result = self.instruction(class, &format!("sub.{ty}"), &[&zero, &args[0]]);
                return Ok(self.wrapped(dtype, result));
            }
            Abs => format!("abs.{ty}"),
            Add => format!("add.{ty}"),
            Sub => format!("sub.{ty}"),
            Mul => format!("mul.lo.{ty}"),
            Max => format!("max.{ty}"),
            Min => format!("min.{ty}"),
            BitAnd => format!("and.{}", bits(dtype)),
            BitOr => format!("or.{}", bits(dtype)),
            BitXor => format!("xor.{}", bits(dtype)),
            BitNot => format!("not.{}", bits(dtype)),
            Equal => return Ok(self.test("eq", ty, &args[0], &args[1])),
            Less => return Ok(self.test("lt", ty, &args[0], &args[1])),
            LessEqual => return Ok(self.test("le", ty, &args[0], &args[1])),
            Div => return Ok(self.divide("div", dtype, class, &args[0], &args[1])),
            Rem => return Ok(self.divide("rem", dtype, class, &args[0], &args[1])),
            ShiftLeft => return Ok(self.shift_left(dtype, class, &args[0], &args[1])),
            ShiftRight => return Ok(self.shift_right(dtype, class, &args[0], &args[1])),
            other => return self.unsupported(format!("{} of {dtype}", other.text())),
        };
        let result = self.instruction(class, &opcode, &all);
        Ok(self.wrapped(dtype, result))
    }

    /// Extends the low bits of a register as an 8- or 16-bit type asks; others are as they should be.
    pub(super) fn wrapped(&mut self, dtype: DType, value: Value) -> Value {
        match dtype {
            DType::I8 => self.instruction(Class::Bits32, "cvt.s32.s8", &[&value]),
            DType::I16 => self.instruction(Class::Bits32, "cvt.s32.s16", &[&value]),
            DType::U8 => self.instruction(Class::Bits32, "and.b32", &[&value, &Value::integer(0xff)]),
            DType::U16 => self.instruction(Class::Bits32, "and.b32", &[&value, &Value::integer(0xffff)]),
            _ => value,
        }
    }

    /// PTX leaves division by zero and the overflowing quotient open, so neither is executed.
    fn divide(&mut self, name: &str, dtype: DType, class: Class, x: &Value, y: &Value) -> Value {
        let ty = suffix(dtype);
        let (zero, one, minus_one) = (Value::integer(0), Value::integer(1), Value::integer(-1));
        if y.as_integer().is_some_and(|y| y > 0) {
            return self.instruction(class, &format!("{name}.{ty}"), &[x, y]);
        }
        let is_zero = self.test("eq", ty, y, &zero);
        let mut divisor = self.select(class, &is_zero, &one, y);
        let mut negated = None;
        if dtype.is_signed() {
            let is_minus_one = self.test("eq", ty, y, &minus_one);
            divisor = self.select(class, &is_minus_one, &one, &divisor);
            negated = Some(is_minus_one);
        }
        let mut result = self.instruction(class, &format!("{name}.{ty}"), &[x, &divisor]);
        // A remainder of a division by one is zero, as that by minus one.
        if let (Some(negated), "div") = (negated, name) {
            let opposite = self.instruction(class, &format!("neg.{ty}"), &[&result]);
            result = self.select(class, &negated, &opposite, &result);
        }
        let result = self.select(class, &is_zero, &zero, &result);
        self.wrapped(dtype, result)
    }

    /// A shift distance as the 32-bit operand that PTX takes, given that it fits.
    fn distance(&mut self, dtype: DType, by: &Value) -> Value {
        if dtype.bits() == 64 && by.is_register() {
            self.instruction(Class::Bits32, "cvt.u32.u64", &[by])
        } else {
            by.clone()
        }
    }

    fn unsigned(dtype: DType) -> &'static str {
        if dtype.bits() == 64 { "u64" } else { "u32" }
    }

    fn shift_left(&mut self, dtype: DType, class: Class, x: &Value, by: &Value) -> Value {
        let width = dtype.bits() as i64;
        let opcode = format!("shl.{}", bits(dtype));
        if let Some(by) = by.as_integer() {
            if !(0..width).contains(&by) {
                return Value::integer(0);
            }
            let result = self.instruction(class, &opcode, &[x, &Value::integer(by)]);
            return self.wrapped(dtype, result);
        }
        // A negative distance is a large unsigned one.
        let inside = self.test("lt", Self::unsigned(dtype), by, &Value::integer(width));
        let distance = self.distance(dtype, by);
        let shifted = self.instruction(class, &opcode, &[x, &distance]);
        let result = self.select(class, &inside, &shifted, &Value::integer(0));
        self.wrapped(dtype, result)
    }

    fn shift_right(&mut self, dtype: DType, class: Class, x: &Value, by: &Value) -> Value {
        let last = dtype.bits() as i64 - 1;
        let opcode = format!("shr.{}", suffix(dtype));
        match (by.as_integer(), dtype.is_signed()) {
            (Some(by), true) => {
                let by = if (0..=last).contains(&by) { by } else { last };
                self.instruction(class, &opcode, &[x, &Value::integer(by)])
            }
            (Some(by), false) if (0..=last).contains(&by) => {
                self.instruction(class, &opcode, &[x, &Value::integer(by)])
            }
            (Some(_), false) => Value::integer(0),
            (None, true) => {
                let minimum = format!("min.{}", Self::unsigned(dtype));
                let by = self.instruction(class, &minimum, &[by, &Value::integer(last)]);
                let distance = self.distance(dtype, &by);
                self.instruction(class, &opcode, &[x, &distance])
            }
            (None, false) => {
                let inside = self.test("le", Self::unsigned(dtype), by, &Value::integer(last));
                let distance = self.distance(dtype, by);
                let shifted = self.instruction(class, &opcode, &[x, &distance]);
                self.select(class, &inside, &shifted, &Value::integer(0))
            }
        }
    }

    fn logic_call(&mut self, function: Function, args: &[Value]) -> Result<Value, Error> {
        let class = Class::Predicate;
        let both: Vec<&Value> = args.iter().collect();
        Ok(match function {
            Function::And => self.instruction(class, "and.pred", &both),
            Function::Or => self.instruction(class, "or.pred", &both),
            Function::Xor => self.instruction(class, "xor.pred", &both),
            Function::Not => self.instruction(class, "not.pred", &both),
            Function::Equal => {
                let differ = self.instruction(class, "xor.pred", &both);
                self.instruction(class, "not.pred", &[&differ])
            }
            Function::Less => {
                let inverse = self.instruction(class, "not.pred", &[&args[0]]);
                self.instruction(class, "and.pred", &[&inverse, &args[1]])
            }
            Function::LessEqual => {
                let inverse = self.instruction(class, "not.pred", &[&args[0]]);
                self.instruction(class, "or.pred", &[&inverse, &args[1]])
            }
            other => return self.unsupported(format!("{} of truth values", other.text())),
        })
    }
}
