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
    /// Lane in its warp.
    Lane,
}

/// A register of a thread; the number counts within its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// Truth value.
    Predicate(u32),
    /// Up to 32 bits.
    Word(u32),
    /// 64 bits.
    Double(u32),
}

/// What an instruction reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A register.
    Register(Register),
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
    /// Reads memory, so many elements side by side.
    Load(Space, Type, usize),
    /// Writes memory, so many elements side by side.
    Store(Space, Type, usize),
    /// Reads a register of another lane.
    Shuffle(Shuffle),
    /// A truth value of the whole warp.
    Vote(Vote),
    /// `D = A * B + C` on matrices spread over the warp.
    Matrix(Matrix),
    /// Loads so many 8 x 8 matrices of 16-bit elements, transposed or not, from rows that lanes point to.
    LoadMatrix(usize, bool),
    /// Starts a copy of so many bytes from global to shared memory.
    CopyAsync(u64),
    /// Ends a group of copies.
    CopyCommit,
    /// Waits until at most so many groups are under way.
    CopyWait(u64),
    /// Continues at an instruction.
    Branch(usize),
    /// Waits for the block.
    Barrier,
    /// Ends the thread.
    Return,
}

/// From which lane `shfl` reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shuffle {
    /// Own number, exclusive or the operand.
    Butterfly,
    /// Own number plus the operand.
    Down,
    /// Own number less the operand.
    Up,
    /// The operand.
    Index,
}

/// What `vote` gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vote {
    /// True where any lane's operand is.
    Any,
    /// True where every lane's operand is.
    All,
    /// One bit for each lane.
    Ballot,
}

/// Element types of `mma`; the shape follows: 16 x 8 results, and 256 bits of `A` for each lane pair of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Matrix {
    /// f16 in, f32 out, k = 16.
    Half,
    /// bf16 in, f32 out, k = 16.
    Bfloat,
    /// tf32 in, f32 out, k = 8.
    Tf32,
    /// 8-bit integers in, i32 out, k = 32; which of `A` and `B` are signed.
    Integer(bool, bool),
}

/// One instruction.
#[derive(Clone, PartialEq, Debug)]
pub struct Instruction {
    /// Line in the text, from 1.
    pub line: usize,
    /// Predicate register, and whether it is negated.
    pub guard: Option<(u32, bool)>,
    /// What it does.
    pub op: Op,
    /// Where the results go.
    pub results: Vec<Register>,
    /// What it reads; of a memory access the address comes first.
    pub operands: Vec<Operand>,
    /// Bytes added to an address.
    pub offset: i64,
    /// Bytes added to the address that a copy reads.
    pub source_offset: i64,
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
    /// Registers of each kind: predicates, words, doubles.
    pub registers: [u32; 3],
    /// Shared and local variables.
    pub variables: Vec<Variable>,
    /// Name and address of the shared memory that a launch asks for.
    pub requested: Option<(String, u64)>,
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
