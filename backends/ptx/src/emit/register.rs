//! Virtual registers and operands.

use std::fmt;
use std::fmt::Write;

use tcc_ir::dtype::DType;

/// What a register holds; PTX declares registers by it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// A truth value.
    Predicate,
    /// A 16-bit float.
    Bits16,
    /// An integer of at most 32 bits.
    Bits32,
    /// A 64-bit integer or address.
    Bits64,
    /// f32.
    Single,
    /// f64.
    Double,
}

const CLASSES: [Class; 6] =
    [Class::Predicate, Class::Bits16, Class::Bits32, Class::Bits64, Class::Single, Class::Double];

impl Class {
    /// The class of values of a type; none for types that no register holds.
    pub fn of(dtype: DType) -> Option<Class> {
        Some(match dtype {
            DType::Bool => Class::Predicate,
            DType::F16 | DType::BF16 => Class::Bits16,
            DType::F32 => Class::Single,
            DType::F64 => Class::Double,
            DType::I64 | DType::U64 => Class::Bits64,
            DType::I8 | DType::I16 | DType::I32 | DType::U8 | DType::U16 | DType::U32 => Class::Bits32,
            _ => return None,
        })
    }

    /// The type suffix of moves and selections.
    pub fn bits_type(self) -> &'static str {
        match self {
            Class::Predicate => "pred",
            Class::Bits16 => "b16",
            Class::Bits32 => "b32",
            Class::Bits64 => "b64",
            Class::Single => "f32",
            Class::Double => "f64",
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Class::Predicate => "p",
            Class::Bits16 => "rs",
            Class::Bits32 => "r",
            Class::Bits64 => "rd",
            Class::Single => "f",
            Class::Double => "fd",
        }
    }
}

/// An operand: a register or a constant.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Value(String);

impl Value {
    /// An integer constant.
    pub fn integer(value: i64) -> Value {
        Value(value.to_string())
    }

    /// An f32 constant by its bits.
    pub fn single(value: f32) -> Value {
        Value(format!("0f{:08X}", value.to_bits()))
    }

    /// An f64 constant by its bits.
    pub fn double(value: f64) -> Value {
        Value(format!("0d{:016X}", value.to_bits()))
    }

    /// A hardware register along a dimension, such as `%tid.x`.
    pub fn special(name: &str, axis: &str) -> Value {
        Value(format!("%{name}.{axis}"))
    }

    /// The number of an integer constant.
    pub fn as_integer(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// True for a register.
    pub fn is_register(&self) -> bool {
        self.0.starts_with('%')
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Counts the registers of each class.
#[derive(Default)]
pub struct Registers {
    counts: [usize; CLASSES.len()],
}

impl Registers {
    /// A register that nothing else uses.
    pub fn fresh(&mut self, class: Class) -> Value {
        let count = &mut self.counts[class as usize];
        *count += 1;
        Value(format!("%{}{}", class.prefix(), *count))
    }

    /// The `.reg` lines.
    pub fn declarations(&self) -> String {
        let mut out = String::new();
        for (class, count) in CLASSES.iter().zip(self.counts).filter(|(_, count)| *count > 0) {
            // Writing to a string does not fail.
            let _ = writeln!(out, "\t.reg .{} %{}<{}>;", class.bits_type(), class.prefix(), count + 1);
        }
        out
    }
}
