//! PTX as the simulator keeps it: registers and labels are numbers.

use std::str::FromStr;

/// A type suffix of PTX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Type {
    /// Truth value.
    Pred,
    /// So many bits without a meaning.
    Bits(u32),
    /// Signed integer.
    Signed(u32),
    /// Unsigned integer.
    Unsigned(u32),
    /// IEEE 754.
    Float(u32),
    /// bfloat16.
    Bfloat,
}

impl Type {
    /// Width in bits.
    pub fn bits(self) -> u32 {
        match self {
            Type::Pred => 1,
            Type::Bits(bits) | Type::Signed(bits) | Type::Unsigned(bits) | Type::Float(bits) => bits,
            Type::Bfloat => 16,
        }
    }

    /// True for floating-point types.
    pub fn is_float(self) -> bool {
        matches!(self, Type::Float(_) | Type::Bfloat)
    }
}

impl FromStr for Type {
    type Err = ();

    fn from_str(text: &str) -> Result<Type, ()> {
        if text == "pred" {
            return Ok(Type::Pred);
        }
        if text == "bf16" {
            return Ok(Type::Bfloat);
        }
        let (kind, bits) = text.split_at_checked(1).ok_or(())?;
        let bits: u32 = bits.parse().map_err(|_| ())?;
        match (kind, bits) {
            ("b", 8 | 16 | 32 | 64) => Ok(Type::Bits(bits)),
            ("s", 8 | 16 | 32 | 64) => Ok(Type::Signed(bits)),
            ("u", 8 | 16 | 32 | 64) => Ok(Type::Unsigned(bits)),
            ("f", 16 | 32 | 64) => Ok(Type::Float(bits)),
            _ => Err(()),
        }
    }
}

/// A memory space that instructions name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// The device's memory.
    Global,
    /// The block's memory.
    Shared,
    /// The thread's memory.
    Local,
}

/// A register that the hardware sets; the number is the dimension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// Thread in its block.
    Thread(usize),
    /// Threads of a block.
    Threads(usize),
    /// Block in the grid.
    Block(usize),
    /// Blocks of the grid.
    Blocks(usize),
}

/// What an instruction reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A register by number.
    Register(usize),
    /// Bits.
    Immediate(u64),
    /// A hardware register.
    Special(Special),
}

/// Arithmetic of one to three operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Mad,
    Fma,
    Div,
    Rem,
    Min,
    Max,
    MinNan,
    MaxNan,
    Neg,
    Abs,
    Sqrt,
    And,
    Or,
    Xor,
    Not,
    Shl,
    Shr,
}

/// Comparisons of `setp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Not equal, or NaN.
    Neu,
    /// Neither is NaN.
    Num,
    /// One is NaN.
    Nan,
}

/// Rounding of `cvt`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// None needed.
    Exact,
    /// To the nearest float, ties to even.
    Nearest,
    /// To a whole number: nearest, ties to even.
    WholeNearest,
    /// To a whole number towards zero.
    WholeZero,
    /// To a whole number downwards.
    WholeDown,
    /// To a whole number upwards.
    WholeUp,
}

/// What an instruction does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Arithmetic.
    Arithmetic(Arithmetic, Type),
    /// Comparison into a predicate.
    Compare(Comparison, Type),
    /// One of two by a predicate.
    Select,
    /// Conversion.
    Convert {
        /// Destination type.
        to: Type,
        /// Source type.
        from: Type,
        /// Rounding.
        rounding: Rounding,
    },
    /// Copy, also of an address between windows.
    Move,
    /// Reads the kernel parameter with this number.
    Parameter(usize),
    /// Reads memory.
    Load(Space, Type),
    /// Writes memory.
    Store(Space, Type),
    /// Continues at an instruction.
    Branch(usize),
    /// Waits for the block.
    Barrier,
    /// Ends the thread.
    Return,
}

/// One instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct Instruction {
    /// Line in the text, from 1.
    pub line: usize,
    /// Predicate register, and whether it is negated.
    pub guard: Option<(usize, bool)>,
    /// What it does.
    pub op: Op,
    /// Where the result goes.
    pub result: Option<usize>,
    /// What it reads; of a memory access the address comes first.
    pub operands: Vec<Operand>,
    /// Bytes added to an address.
    pub offset: i64,
}

/// A shared or local variable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lies.
    pub space: Space,
    /// Its address in that space.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
}

/// One kernel.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Names of the parameters.
    pub parameters: Vec<String>,
    /// Width of each register in bits.
    pub registers: Vec<u32>,
    /// Shared and local variables.
    pub variables: Vec<Variable>,
    /// The code.
    pub code: Vec<Instruction>,
    /// Threads of a block at most, along each dimension.
    pub threads: [u64; 3],
}

/// A parsed module.
#[derive(Clone, PartialEq, Debug)]
pub struct Module {
    /// As in `.version`.
    pub version: String,
    /// As in `.target`.
    pub target: String,
    /// The kernels.
    pub entries: Vec<Entry>,
    /// The lines of the text, for messages.
    pub lines: Vec<String>,
}
